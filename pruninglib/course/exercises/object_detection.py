"""Exercises of lesson 08 Object detection. Each: the judge, then the solution it belongs to."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

import pruninglib as pl

from .exercise import beside_weights, example, exercise


def _network(channels: tuple[int, int], tied: bool) -> nn.Module:
    """Two layers and a small last one, whose weights are small; of both signs."""
    first, second = channels
    model = nn.Sequential(
        nn.Conv2d(1, first, 3), nn.BatchNorm2d(first), nn.Conv2d(first, second, 1), nn.Conv2d(second, 4, 1)
    ).eval()  # fmt: skip
    with torch.no_grad():
        for seed, weight in enumerate(pl.weights_of(model).values()):
            values = example(*weight.shape, seed=seed)
            weight.copy_((4 * values).round().clamp(-9, 9) + 0.5 if tied else values)
        model[3].weight *= 0.5
    return model


def _judge_prune_in_units(answer) -> str | None:
    cases = (
        (_network((4, 6), tied=False), {"3.weight": 10}, 0.5),
        (_network((3, 5), tied=False), {"0.weight": 0.1, "3.weight": 4.0}, 0.8),
        (_network((5, 4), tied=True), {}, 0.3),
        (_network((6, 3), tied=False), {"2.weight": 0.5}, 0.2),
    )
    for model, units, sparsity in cases:
        before = copy.deepcopy(model)
        answer(model, dict(units), sparsity)
        problem = _pruned_wrongly(before, model, units, sparsity)
        if problem:
            return problem
    return None


def _pruned_wrongly(
    before: nn.Module, model: nn.Module, units: dict, sparsity: float
) -> str | None:
    old, new = pl.weights_of(before), pl.weights_of(model)
    gone = {name: (new[name] == 0) & (old[name] != 0) for name in old}
    if not any(mask.any() for mask in gone.values()):
        return "No weight became zero: prune the model that is given, in place, not a copy of it, and to exactly 0."
    if any(not old[name].isclose(new[name])[~gone[name]].all() for name in old):
        return "Weights that stay keep their values: the factor is for comparing them alone."
    if said := beside_weights(before, model):
        return said
    total = sum(w.numel() for w in old.values())
    count, want = sum(int(mask.sum()) for mask in gone.values()), round(sparsity * total)
    if count != want:
        return f"{want} of {total} weights should be gone, of all layers together, and of equal sizes only as many as are needed; {count} are."

    def in_order(size) -> bool:
        """Whether what is gone is smaller than what stays, by that size."""
        sizes = {name: size(name, w) for name, w in old.items()}
        dropped = torch.cat([sizes[name][gone[name]] for name in old])
        left = torch.cat([sizes[name][~gone[name]] for name in old])
        return bool(dropped.max() <= left.min() * (1 + 1e-6) + 1e-9)

    if in_order(lambda name, w: w.abs() * units.get(name, 1)):
        return None
    if units and in_order(lambda name, w: w.abs()):
        return "These are the smallest weights as they are: multiply each layer's sizes by its factor first."
    if units and in_order(lambda name, w: w.abs() / units.get(name, 1)):
        return "You divided by the factors. In the other unit the weights are that many times as large."
    if in_order(lambda name, w: -w.abs() * units.get(name, 1)):
        return "It is the wrong way round: the smallest weights go."
    return "These are not the smallest sizes times factors, in one ranking over all layers."


@exercise(
    _judge_prune_in_units,
    "`pl.magnitude(model)` is a dict of sizes. `pl.select` takes any dict of scores.",
    "`scores[name] * units.get(name, 1)`, then `pl.select(scores, sparsity)` and `pl.apply(model, masks)`.",
)
def prune_in_units(model: nn.Module, units: dict[str, float], sparsity: float) -> None:
    scores = {name: s * units.get(name, 1) for name, s in pl.magnitude(model).items()}
    pl.apply(model, pl.select(scores, sparsity))


def _judge_right_boxes(answer) -> str | None:
    cases = (
        ([[0.9, 0.0], [0.8, 0.1], [0.0, 0.7]], 0.5, "One object is found once: box 1 comes second to an object that is taken."),
        ([[0.6, 0.7], [0.9, 0.8], [0.4, 0.9]], 0.5, "Box 0 takes object 1, box 1 takes object 0; then none is free for box 2."),
        ([[0.6, 0.7], [0.9, 0.2]], 0.5, "A box takes the object that fits it best, not the first that is free and fits."),
        ([[0.5, 0.5], [0.9, 0.2], [0.1, 0.6]], 0.5, "An IoU equal to the limit is enough, and of equal IoUs the first object is taken."),
        ([[0.3, 0.2, 0.74], [0.76, 0.75, 0.1]], 0.75, "Use the limit that is given: 0.74 is below 0.75."),
        ([[0.8], [0.9]], 0.5, "The surest box chooses first, not the one that fits best."),
        ([[0.45, 0.9], [0.6, 0.95], [0.5, 0.0], [0.2, 0.2]], 0.4, "Who is refused may look for another free object, and takes the best of those."),
    )  # fmt: skip
    for overlaps, least, advice in cases:
        given = torch.tensor(overlaps)
        want = right_boxes.solve(given.clone(), least)
        got = _truths(answer(given, least))
        if got is None or len(got) != len(want):
            return "Return a truth for each box, in order: True if it finds an object, else False."
        if not given.equal(torch.tensor(overlaps)):
            return "You changed `overlaps` itself: work on a copy."
        if got != want.tolist():
            return f"{advice} For {overlaps} and {least} right is {want.tolist()}, not {got}."
    return None


def _truths(got) -> list[bool] | None:
    if isinstance(got, (list, tuple)):
        got = [v.item() if isinstance(v, (Tensor, np.generic)) else v for v in got]
    values = np.asarray(got.detach().double() if isinstance(got, Tensor) else got)
    if values.ndim != 1 or values.dtype.kind not in "biuf" or not np.isin(values, [0, 1]).all():
        return None
    return values.astype(bool).tolist()


@exercise(
    _judge_right_boxes,
    "Go through the boxes in order, and keep a list of the objects that are free.",
    "Set the column of an object that is taken to -1; then the highest IoU of each row is among the free ones.",
)
def right_boxes(overlaps: Tensor, least: float) -> Tensor:
    left, right = overlaps.clone(), torch.zeros(len(overlaps), dtype=torch.bool)
    for i in range(len(left)):
        at = int(left[i].argmax())
        if left[i, at] >= least:
            right[i] = True
            left[:, at] = -1
    return right


def _judge_threshold_for(answer) -> str | None:
    cases = (
        ([0.9, 0.8], [1, 0], 0.6, "The boxes with that very score count, too."),
        ([0.2, 0.9, 0.5, 0.7], [1, 1, 0, 1], 0.7, "The precision may fall and rise again: the lowest threshold counts, not the first that fails."),
        ([0.9, 0.8, 0.6, 0.3], [1, 1, 0, 0], 0.6, "Sort by score first, the surest first; then the share that is right so far."),
        ([0.6, 0.4, 0.6, 0.2], [1, 0, 0, 0], 0.6, "Two boxes of score 0.6 count together, and half of them are right: there is none: infinity."),
        ([0.6, 0.4, 0.6, 0.2], [0, 0, 1, 0], 0.6, "Two boxes of score 0.6 count together, in whatever order they come."),
        ([0.3, 0.7], [0, 0], 0.1, "No box is right: there is no such threshold: infinity."),
        ([0.5, 0.5, 0.5], [1, 0, 1], 0.5, "All three share one score, and two thirds are right: 0.5."),
        ([0.1, 0.3, 0.8], [0, 1, 1], 2 / 3, "A precision equal to the one that is asked for is enough."),
        ([-1.0, -3.0, -2.0], [1, 0, 1], 0.9, "Scores may be any numbers, negative ones, too."),
    )  # fmt: skip
    for scores, right, precision, advice in cases:
        given = torch.tensor(scores, dtype=torch.float64), torch.tensor(right).bool()
        want, got = threshold_for.solve(*given, precision), answer(*given, precision)
        said = f"{advice} For scores {scores}, right {right} and {precision:.2f} it is {want}, not {got}."
        if torch.as_tensor(got).numel() != 1:
            return "Return one number."
        if not math.isclose(float(torch.as_tensor(got)), want, abs_tol=1e-6):
            return said
    return None


@exercise(
    _judge_threshold_for,
    "Any of the scores may be the threshold: try each. Which boxes count at it, and what share of these is right?",
    "`right[scores >= s].float().mean() >= precision`, then the smallest such `s`.",
)
def threshold_for(scores: Tensor, right: Tensor, precision: float) -> float:
    fine = [float(s) for s in scores if right[scores >= s].double().mean() >= precision - 1e-9]
    return min(fine, default=float("inf"))
