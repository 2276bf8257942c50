"""Exercises of lesson 03 Sensitivity pruning. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

from .exercise import example, exercise


def _judge_first_order(answer) -> str | None:
    weight, gradient = example(5, 4), example(5, 4, seed=1)
    got = answer(weight, gradient)
    want = (weight * gradient).abs()
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return f"Return a tensor of shape {tuple(want.shape)}, one score for each weight."
    if torch.allclose(got, want):
        return None
    if torch.allclose(got, weight * gradient) or torch.allclose(got, -weight * gradient):
        return "That is the change with its sign. A score must be high where removal matters: which way?"
    if torch.allclose(got, gradient.abs()):
        return "That is the slope. How far does the weight move when it becomes zero?"
    if torch.allclose(got, weight.abs()):
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
    gradients, weight = example(50, 3, 4), example(3, 4, seed=1)
    got = answer(gradients, weight)
    if not (isinstance(got, tuple | list) and len(got) == 2):
        return "Return two tensors: the mean first and then |·|, and |·| first and then the mean."
    outside = (gradients.mean(0) * weight).abs()
    inside = (gradients * weight).abs().mean(0)
    if any(not isinstance(g, Tensor) or g.shape != weight.shape for g in got):
        return f"Both must have the weight's shape {tuple(weight.shape)}: average over the samples."
    if torch.allclose(got[0], outside) and torch.allclose(got[1], inside):
        return None
    if torch.allclose(got[0], inside) and torch.allclose(got[1], outside):
        return "The two are swapped: |mean of g·w| comes first."
    if torch.allclose(got[0], got[1]):
        return "Both are the same. In one the samples may cancel, in the other they can't."
    if torch.allclose(got[0], gradients.mean(0).abs()):
        return "You left out the weight: it is g_i·w that is averaged, not g_i."
    if torch.allclose(got[0].abs(), outside) and torch.allclose(got[1], inside):
        return "The first has a sign: take the absolute value after the mean."
    if torch.allclose(got[0] / len(gradients), outside):
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
    got = answer()
    if not isinstance(got, Tensor) or got.dim() != 2 or got.shape[1] != 2 or len(got) < 2:
        return "Return a tensor of shape (samples, 2): a row a sample, a column for each weight."
    outside, inside = two_readings.solve(got.double(), torch.ones(2, dtype=torch.float64))
    if outside[0] > outside[1] and inside[0] < inside[1]:
        return None
    numbers = f"|mean| gives {outside.tolist()}, mean |·| gives {inside.tolist()}"
    if outside[0] <= outside[1]:
        return f"{numbers}: |mean| should rank the first weight above the second."
    return f"{numbers}: mean |·| should rank the second weight above the first. Let its samples cancel."


@exercise(
    _judge_disagreement,
    "Two samples are enough.",
    "Let the samples agree on the first weight, and pull the second one hard in opposite directions.",
)
def gradients_that_disagree() -> Tensor:
    return torch.tensor([[1.0, 5.0], [1.0, -5.0]])


def _judge_budget(answer) -> str | None:
    scan = {
        "robust": {0.0: 0.98, 0.5: 0.98, 0.8: 0.975, 0.9: 0.96},
        "fragile": {0.0: 0.98, 0.5: 0.96, 0.8: 0.60, 0.9: 0.30},
        "jumpy": {0.0: 0.98, 0.5: 0.90, 0.8: 0.979, 0.9: 0.50},
    }
    if answer({"edge": {0.0: 1.0, 0.5: 0.75}}, 0.25) == {"edge": 0.0}:
        return "A layer that loses exactly what is allowed may still be pruned that far."
    got = answer(scan, 0.01)
    if not isinstance(got, dict) or set(got) != set(scan):
        return f"Return a dict with one sparsity for each of {', '.join(scan)}."
    want = {"robust": 0.8, "fragile": 0.0, "jumpy": 0.0}
    if all(abs(got[n] - want[n]) < 1e-9 for n in want):
        return None
    if got["robust"] == 0.9:
        return "You allowed more than 0.01 of damage: 0.98 - 0.96 is 0.02."
    if got["jumpy"] == 0.8:
        return (
            "The layer 'jumpy' recovers at 0.8 by luck after failing at 0.5. Stop at the first "
            "sparsity that does too much damage."
        )
    if got["robust"] == 0.5:
        return "'robust' bears 0.8: it loses 0.005 there, less than the 0.01 allowed."
    if "fragile" in got and got["fragile"] > 0:
        return "'fragile' loses 0.02 at its first step already: it must stay whole, at 0.0."
    return f"With 0.01 of damage allowed, the sparsities are {want}; yours are {dict(got)}."


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
