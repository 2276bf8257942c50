"""Exercises of lesson 03 Sensitivity pruning. Each: the judge, then the solution it belongs to."""

import contextlib
from collections.abc import Mapping

import torch
from torch import Tensor

from .exercise import example, exercise


def _tensor(given) -> Tensor | None:
    """Numbers in whatever they come, lists of tensors too, as float64; None if they are none."""
    with contextlib.suppress(TypeError, ValueError, RuntimeError):
        if isinstance(given, tuple | list) and any(hasattr(g, "shape") for g in given):
            return torch.stack([torch.as_tensor(g).detach().double() for g in given])
        return torch.as_tensor(given).detach().double()
    return None


def _judge_first_order(answer) -> str | None:
    whole = torch.tensor([2.0, -1.0, 0.0, -2.0, 2.0]), torch.tensor([1.0, 2.0, 3.0, -1.0, 0.0])
    cases = [(example(5, 4), example(5, 4, seed=1)), whole, (example(3, 2, 2, 2), example(3, 2, 2, 2, seed=1))]  # fmt: skip
    problems = (_problem_of_first_order(answer, weight, gradient) for weight, gradient in cases)
    return next(filter(None, problems), None)


def _problem_of_first_order(answer, weight: Tensor, gradient: Tensor) -> str | None:
    got = _tensor(answer(weight.clone(), gradient.clone()))
    weight, gradient = weight.double(), gradient.double()
    want = (weight * gradient).abs()
    if got is None or got.shape != want.shape:
        return f"Return a tensor of shape {tuple(want.shape)}, one score for each weight."
    wrong = [
        (weight * gradient, "That is the change with its sign. A score must be high where removal "
            "matters: which way?"),
        (-weight * gradient, "That is the change with its sign. A score must be high where removal "
            "matters: which way?"),
        (gradient.abs(), "That is the slope. How far does the weight move when it becomes zero?"),
        (weight.abs(), "That is the magnitude: the gradient has no say in it."),
        (want**2, "Squares rank the same, but a first-order change is in the unit of the loss: no "
            "square."),
        (want / 2, "The ½ belongs to the second order: a slope times a step is the whole first-order "
            "change."),
    ]  # fmt: skip
    if torch.allclose(got, want, rtol=1e-4, atol=1e-7):
        return None
    for value, message in wrong:
        if torch.allclose(got, value, rtol=1e-4, atol=1e-7):
            return message
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
    whole = torch.tensor([[2.0, 1.0, 0.0], [-2.0, 1.0, 0.0]])  # cancels, does not, is zero
    cases = [
        (example(50, 3, 4), example(3, 4, seed=1)),
        (whole, torch.tensor([1.0, -3.0, 2.0])),
        (example(7, 2, 3, 1, 2), example(2, 3, 1, 2, seed=1)),
    ]
    problems = (_problem_of_readings(answer, gradients, weight) for gradients, weight in cases)
    return next(filter(None, problems), None)


def _problem_of_readings(answer, gradients: Tensor, weight: Tensor) -> str | None:
    got = answer(gradients.clone(), weight.clone())
    try:
        got = [_tensor(reading) for reading in got]
    except TypeError:
        got = []
    if len(got) != 2:
        return "Return two tensors: the mean first and then |·|, and |·| first and then the mean."
    if any(g is None or g.shape != weight.shape for g in got):
        return f"Both must have the weight's shape {tuple(weight.shape)}: average over the samples."
    gradients, weight = gradients.double(), weight.double()
    outside, inside = two_readings.solve(gradients, weight)
    first, second = got

    def same(one: Tensor, other: Tensor) -> bool:
        return torch.allclose(one, other, rtol=1e-4, atol=1e-6)

    if same(first, outside) and same(second, inside):
        return None
    if same(first, inside) and same(second, outside):
        return "The two are swapped: |mean of g·w| comes first."
    if same(first, second):
        return "Both are the same. In one the samples may cancel, in the other they can't."
    if same(first, gradients.mean(0).abs()):
        return "You left out the weight: it is g_i·w that is averaged, not g_i."
    if same(first.abs(), outside) and same(second.abs(), inside):
        which = "first has a sign" if same(second, inside) else "weight brings a sign"
        return f"The {which}: take the absolute value of the product, after the mean or before it."
    if same(first / len(gradients), outside):
        return "You took sums; a mean does not grow with the number of samples."
    if same(first, outside):
        return "The first is right. The second averages |g_i·w|: absolute values, no squares, no roots."
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
    if got is None or got.dim() != 2 or got.shape[1] != 2 or len(got) < 2:
        return "Return gradients of shape (samples, 2): a row a sample, a column for each weight."
    if not got.isfinite().all():
        return "Gradients are numbers: yours hold infinity or NaN."
    outside, inside = two_readings.solve(got, torch.ones(2, dtype=torch.float64))
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
    got = answer({"edge": {0.0: 1.0, 0.5: 0.75, 0.9: 0.5}}, 0.25)
    if isinstance(got, Mapping) and got == {"edge": 0.0}:
        return "A layer that loses exactly what is allowed may still be pruned that far."
    scan = {
        "robust": {0.0: 0.98, 0.5: 0.98, 0.8: 0.975, 0.9: 0.96},
        "fragile": {0.0: 0.98, 0.5: 0.96, 0.8: 0.60, 0.9: 0.30},
        "jumpy": {0.0: 0.98, 0.5: 0.90, 0.8: 0.979, 0.9: 0.50},
    }
    exact = {"equal": {0.6: 0.5, 0.3: 0.5, 0.0: 0.5}, "worse": {0.6: 0.25, 0.0: 0.5, 0.3: 0.25}}
    slow = {"slow": {0.0: 0.9, 0.4: 0.86, 0.7: 0.82, 0.95: 0.78}}
    gains = {"gains": {0.0: 0.5, 0.5: 0.625, 0.75: 0.75, 0.9: 0.46}, "half": {0.0: 0.5, 0.5: 0.48}}
    edge = {"edge": {0.0: 1.0, 0.5: 0.75, 0.9: 0.5}}
    cases = [(scan, 0.01), (slow, 0.05), (gains, 0.03), (edge, 0.25), (exact, 0.0)]
    problems = (_problem_of_budget(answer, *case) for case in cases)
    return next(filter(None, problems), None)


def _problem_of_budget(answer, scan: dict, allowed: float) -> str | None:
    want = budget_from_scan.solve(scan, allowed)
    got = answer({name: dict(values) for name, values in scan.items()}, allowed)
    if not isinstance(got, Mapping) or set(got) != set(scan):
        return f"Return a dict with one sparsity for each of {', '.join(scan)}."
    got = {name: float(got[name]) for name in scan}
    if all(abs(got[n] - want[n]) < 1e-6 for n in want):
        return None
    if "robust" in scan:
        if abs(got["robust"] - 0.9) < 1e-6:
            return "You allowed more than 0.01 of damage: 0.98 - 0.96 is 0.02."
        if abs(got["jumpy"] - 0.8) < 1e-6:
            return (
                "The layer 'jumpy' recovers at 0.8 by luck after failing at 0.5. Stop at the first "
                "sparsity that does too much damage."
            )
        if abs(got["robust"] - 0.5) < 1e-6:
            return "'robust' bears 0.8: it loses 0.005 there, less than the 0.01 allowed."
        if got["fragile"] > 0:
            return "'fragile' loses 0.02 at its first step already: it must stay whole, at 0.0."
    if got.get("slow", 0) > 0.4:
        return (
            "'slow' loses 0.04 at each step, 0.08 at 0.7. Damage is against the whole layer, not "
            "against the sparsity before."
        )
    if got.get("gains") == 0:
        return "'gains' becomes better at 0.5. That is no damage: take no absolute value."
    if got.get("half") == 0:
        return (
            "'half' loses 0.5 - 0.48 = 0.02, less than the 0.03 allowed: a difference, not a ratio."
        )
    if got.get("equal", 0.6) < 0.6 or got.get("worse", 0) > 0:
        return (
            "With nothing allowed, a layer that loses nothing may go all the way, and the others not "
            "at all. The sparsities may come in any order: sort them."
        )
    return (
        f"With {allowed:g} of damage allowed, the sparsities of {scan} are {want}; yours are {got}."
    )


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
