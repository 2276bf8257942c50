"""Exercises of lesson 03 Sensitivity pruning. Each: the judge, then the solution it belongs to."""

import contextlib

import numpy as np
import torch
from torch import Tensor

from .exercise import example, exercise


def _tensor(value):
    """A list, a tuple or an array as a tensor of doubles; what is no such thing, as it is."""
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        if isinstance(value, list | tuple) and any(isinstance(v, Tensor) for v in value):
            value = torch.stack([*value])
        if isinstance(value, list | tuple | np.ndarray | Tensor):
            return torch.as_tensor(value).detach().double()
    return value


def _judge_first_order(answer) -> str | None:
    whole = torch.tensor([2.0, -2.0, 0.0, 1.0, -4.0]), torch.tensor([1.0, 1.0, 5.0, -2.0, 0.5])
    cases = [
        (example(5, 4), example(5, 4, seed=1)),
        (example(2, 3, 2, 2, seed=2), example(2, 3, 2, 2, seed=3)),
        whole,
    ]
    return next((said for case in cases if (said := _wrong_score(answer, *case))), None)


def _wrong_score(answer, weight: Tensor, gradient: Tensor) -> str | None:
    given = weight.clone(), gradient.clone()
    got = _tensor(answer(*given))
    if not (given[0].equal(weight) and given[1].equal(gradient)):
        return "Your function changed what it was given. A score is a new tensor."
    want = (weight * gradient).abs().double()
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return f"Return a tensor of shape {tuple(want.shape)}, one score for each weight."
    if torch.allclose(got, want):
        return None
    if torch.allclose(got.abs(), want):
        return "That is the change with its sign. A score must be high where removal matters: which way?"
    if torch.allclose(got, gradient.abs().double()):
        return "That is the slope. How far does the weight move when it becomes zero?"
    if torch.allclose(got, weight.abs().double()):
        return "That is the magnitude: the gradient has no say in it."
    if torch.allclose(got, want**2):
        return (
            "Squares rank the same, but a first-order change is in the unit of the loss: no square."
        )
    return (
        "Which step takes the weight to zero, and what does the slope say about a step that long?"
    )


@exercise(
    _judge_first_order,
    "Removing a weight moves it by -w; the loss then changes by about -g·w.",
    "A large change either way is a reason to keep it: take the absolute value.",
)
def first_order_score(weight: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * weight).abs()


def _judge_readings(answer) -> str | None:
    tied = torch.tensor([[1.0, -3.0, 2.0], [1.0, 3.0, 0.0]]), torch.tensor([2.0, -2.0, 2.0])
    cases = [
        (example(50, 3, 4), example(3, 4, seed=1)),
        (example(7, 5, seed=2), example(5, seed=3)),
        tied,
    ]
    return next((said for case in cases if (said := _wrong_readings(answer, *case))), None)


def _wrong_readings(answer, gradients: Tensor, weight: Tensor) -> str | None:
    got = answer(gradients.clone(), weight.clone())
    if not isinstance(got, tuple | list | Tensor | np.ndarray) or len(got) != 2:
        return "Return two tensors: the mean first and then |·|, and |·| first and then the mean."
    first, second = map(_tensor, got)
    products = (gradients * weight).double()
    outside, inside = products.mean(0).abs(), products.abs().mean(0)
    if any(not isinstance(g, Tensor) or g.shape != weight.shape for g in (first, second)):
        return f"Both must have the weight's shape {tuple(weight.shape)}: average over the samples."

    def near(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one, other, rtol=1e-4, atol=1e-6)

    if near(first, outside) and near(second, inside):
        return None
    if near(first, inside) and near(second, outside):
        return "The two are swapped: |mean of g·w| comes first."
    if near(first, second):
        return "Both are the same. In one the samples may cancel, in the other they can't."
    if near(first, gradients.double().mean(0).abs()):
        return "You left out the weight: it is g_i·w that is averaged, not g_i."
    if near(first.abs(), outside) and near(second, inside):
        return "The first has a sign: take the absolute value after the mean."
    if near(first / len(gradients), outside):
        return "You took sums; a mean does not grow with the number of samples."
    return (
        "The first is |mean(g_i·w)|, the second mean(|g_i·w|), over the samples i in dimension 0."
    )


@exercise(
    _judge_readings,
    "`gradients` has shape (samples, *weight.shape): dimension 0 is what you average over.",
    "Where you put `.abs()`, before or after `.mean(0)`, is the whole difference.",
)
def two_readings(gradients: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    products = gradients * weight
    return products.mean(0).abs(), products.abs().mean(0)


def _judge_disagreement(answer) -> str | None:
    got = _tensor(answer())
    if not isinstance(got, Tensor) or got.dim() != 2 or got.shape[1] != 2 or len(got) < 2:
        return "Return a tensor of shape (samples, 2): a row a sample, a column for each weight."
    outside, inside = two_readings.solve(got, torch.ones(2, dtype=torch.float64))
    if outside[0] > outside[1] and inside[0] < inside[1]:
        return None
    numbers = f"|mean| gives {outside.tolist()}, mean |·| gives {inside.tolist()}"
    if not outside[0] > outside[1]:
        return f"{numbers}: |mean| should rank the first weight above the second."
    return f"{numbers}: mean |·| should rank the second weight above the first. Let its samples cancel."


@exercise(
    _judge_disagreement,
    "Two samples are enough.",
    "Let the samples agree on the first weight, and pull the second one hard in opposite directions.",
)
def gradients_that_disagree() -> Tensor:
    return torch.tensor([[1.0, 5.0], [1.0, -5.0]])


_SCAN = {
    "robust": {0.0: 0.98, 0.5: 0.98, 0.8: 0.975, 0.9: 0.96},
    "fragile": {0.0: 0.98, 0.5: 0.96, 0.8: 0.60, 0.9: 0.30},
    "jumpy": {0.0: 0.98, 0.5: 0.90, 0.8: 0.979, 0.9: 0.50},
}


def _judge_budget(answer) -> str | None:
    slow = {0.0: 0.90, 0.5: 0.88, 0.8: 0.86, 0.9: 0.84}
    better = {0.0: 0.80, 0.3: 0.85, 0.6: 0.79, 0.9: 0.50}
    losses = {0.0: -0.50, 0.5: -0.52, 0.8: -0.60, 0.95: -0.61}
    mixed = {0.9: 0.20, 0.5: 0.69, 0.0: 0.70}
    cases = [
        ({"edge": {0.0: 1.0, 0.5: 0.75}}, 0.25, {"edge": 0.5},
         "A layer that loses exactly what is allowed may still be pruned that far."),
        (_SCAN, 0.01, {"robust": 0.8, "fragile": 0.0, "jumpy": 0.0}, ""),
        ({"slow": slow}, 0.03, {"slow": 0.5},
         "Each step costs 0.02, and two of them 0.04: the damage counts from the whole layer, at "
         "sparsity 0, not from the step before."),
        ({"a": better, "b": slow}, 0.015, {"a": 0.6, "b": 0.0},
         "'a' is *better* at 0.3 than whole, which is no damage, and at 0.6 it has lost 0.01 of what "
         "it had whole."),
        ({"layer": losses}, 0.03, {"layer": 0.5},
         "Scores may be negative, as a loss with its sign turned is: at 0.5 this one has lost 0.02, "
         "at 0.8 it has lost 0.1. Take the plain difference."),
        ({"x": mixed, "y": losses, "z": {0.0: 0.7}}, 0.05, {"x": 0.5, "y": 0.5, "z": 0.0},
         "The sparsities of a scan may stand in any order: go through them sorted."),
    ]  # fmt: skip
    for scan, allowed, want, why in cases:
        got = answer({name: dict(values) for name, values in scan.items()}, allowed)
        if not isinstance(got, dict) or set(got) != set(scan):
            return f"Return a dict with one sparsity for each of {', '.join(scan)}."
        got = {name: float(value) for name, value in got.items()}
        if all(abs(got[name] - want[name]) < 1e-6 for name in want):
            continue
        return f"{why or _wrong_budget(got)} With {allowed} allowed for {scan} the sparsities are {want}; yours are {got}."
    return None


def _wrong_budget(got: dict[str, float]) -> str:
    if got["robust"] > 0.85:
        return "You allowed more than 0.01 of damage: 0.98 - 0.96 is 0.02."
    if got["jumpy"] > 0.75:
        return (
            "The layer 'jumpy' recovers at 0.8 by luck after failing at 0.5. Stop at the first "
            "sparsity that does too much damage."
        )
    if got["robust"] < 0.75:
        return "'robust' bears 0.8: it loses 0.005 there, less than the 0.01 allowed."
    return "'fragile' loses 0.02 at its first step already: it must stay whole, at 0.0."


@exercise(
    _judge_budget,
    "The damage at sparsity s is `values[0.0] - values[s]`.",
    "Walk through the sparsities from low to high and stop at the first with too much damage.",
)
def budget_from_scan(scan: dict[str, dict[float, float]], allowed: float) -> dict[str, float]:
    budget = {}
    for name, values in scan.items():
        budget[name] = 0.0
        for sparsity in sorted(values):
            if values[0.0] - values[sparsity] > allowed:
                break
            budget[name] = sparsity
    return budget
