"""Exercises of lesson 10 Tracking. Each: the judge, then the solution it belongs to."""

import copy
import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

import pruninglib as pl

from .exercise import example, exercise


def _network(widths: Sequence[int], seed: int) -> nn.Module:
    """Linear layers with weights of both signs, no two of one size."""
    layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    with torch.no_grad():
        for i, layer in enumerate(layers):
            layer.weight.copy_(example(*layer.weight.shape, seed=10 * seed + i))
    return nn.Sequential(*layers)


def _by_level(worth: dict[float, float]) -> Callable[[nn.Module], float]:
    """A metric that knows only how many of the weights are zero."""

    def metric(model: nn.Module) -> float:
        weights = pl.weights_of(model).values()
        zero = sum(int((w == 0).sum()) for w in weights) / sum(w.numel() for w in weights)
        return worth[min(worth, key=lambda level: abs(level - zero))]

    return metric


def _judge_prune_while(answer) -> str | None:
    cases = (
        ((6, 8, 4), 1, {0: 0.9, 0.3: 0.89, 0.5: 0.7, 0.7: 0.88, 0.9: 0.4}, [0.3, 0.5, 0.7, 0.9], 0.05, "After a level that loses too much a higher one may be fine again: try them all."),
        ((5, 10), 2, {0: 0.5, 0.2: 0.45, 0.4: 0.42, 0.6: 0.3}, [0.6, 0.4, 0.2], 0.1, "`most` is a difference, not a share of what it was, and the levels come in any order."),
        ((4, 8, 4), 6, {0: 0.75, 0.25: 0.5, 0.5: 0.25, 0.75: 0.0}, [0.25, 0.5, 0.75], 0.5, "A loss equal to `most` is allowed."),
        ((6, 5), 3, {0: 0.8, 0.4: 0.1, 0.8: 0.0}, [0.4, 0.8], 0.2, "Where every level loses too much, nothing may be pruned."),
        ((3, 6, 3), 4, {0: 0.2, 0.5: 0.6, 0.75: 0.21}, [0.5, 0.75], 0.0, "A network may gain by pruning: measure the loss against the whole one, not against the last."),
        ((8, 4), 5, {0: -0.2, 0.25: -0.25, 0.5: -0.6}, [0.25, 0.5], 0.1, "A metric may be negative."),
    )  # fmt: skip
    for widths, seed, worth, levels, most, advice in cases:
        model = _network(widths, seed)
        before = copy.deepcopy(model.state_dict())
        metric = _by_level(worth)
        got, want = answer(model, list(levels), metric, most), None
        if not isinstance(got, nn.Module):
            return "Return the pruned network."
        if any(not value.equal(before[name]) for name, value in model.state_dict().items()):
            return "The network that is given must stay as it is: prune a copy."
        mine = dict(got.named_parameters())
        if any(
            p.data_ptr() == mine[n].data_ptr() for n, p in model.named_parameters() if n in mine
        ):
            return (
                "Return a copy that shares no weights, even if nothing is pruned: `copy.deepcopy`."
            )
        want = prune_while.solve(model, list(levels), metric, most)
        zeros, right = (
            sum(int((w == 0).sum()) for w in pl.weights_of(m).values()) for m in (got, want)
        )
        total = sum(w.numel() for w in pl.weights_of(model).values())
        if zeros not in [0, *(round(level * total) for level in levels)]:
            return f"At the levels {levels} the copy may have that share of its {total} weights at zero; {zeros} are."
        if zeros != right:
            return f"{advice} Of {worth}, with {levels} and most={most}, {right} weights should be zero; {zeros} are."
        if any(not p.equal(mine[name]) for name, p in want.named_parameters()):
            return "These are not the smallest weights of all layers together, the rest as it was."
    return None


@exercise(
    _judge_prune_while,
    "For each level: a copy, `pl.select(pl.magnitude(copy), level)`, `pl.apply`, the metric. Keep the highest level that is fine.",
    "Go through `sorted(levels)`, and remember the last copy whose metric is `metric(model) - most` or more.",
)
def prune_while(model: nn.Module, levels: list[float], metric, most: float) -> nn.Module:
    import copy

    best, whole = copy.deepcopy(model), metric(model)
    for level in sorted(levels):
        tried = copy.deepcopy(model)
        pl.apply(tried, pl.select(pl.magnitude(tried), level))
        if metric(tried) >= whole - most - 1e-9:
            best = tried
    return best


def _judge_switches_and_fragments(answer) -> str | None:
    cases = (
        ([2, -1, -1, 5, -1, 5], "A gap counts once, however long it is, and is no switch itself; a new name after it is one: 1 and 2."),
        ([4, 4, -1, 4], "Found again under the same name: no switch, one fragment."),
        ([4, 4, 7, 7], "Another name, and no gap: one switch, no fragment."),
        ([-1, -1, 3, 3, -1], "What comes before the first box and after the last is no gap between boxes: no fragment."),
        ([1, 2, 1, 2], "A name that comes back is a switch again: compare with the last name, not with all that were there."),
        ([-1, -1, -1], "Never found: 0 and 0."),
        ([0, 0, -1, 1, 1, 0], "0 is a name like any other; -1 alone says that nothing was found."),
    )  # fmt: skip
    for found_by, advice in cases:
        want, got = switches_and_fragments.solve(list(found_by)), answer(list(found_by))
        if isinstance(got, str | dict) or np.size(np.asarray(got)) != 2:
            return "Return two numbers: switches, fragments."
        got = tuple(float(v) for v in got)
        if got != want:
            if got == want[::-1] and all(want):
                return "These are the right numbers the other way round: switches first."
            return f"{advice} For {found_by} right is {want}, not {got[0]:g} and {got[1]:g}."
    return None


@exercise(
    _judge_switches_and_fragments,
    "Go through the frames and remember two things: the last name, and whether the frame before had none.",
    "At a frame with a name, once there was a name before: if it is another one, a switch; if frames without one lie between, a fragment.",
)
def switches_and_fragments(found_by: list[int]) -> tuple[int, int]:
    last, missed, switches, fragments = None, False, 0, 0
    for name in found_by:
        if name == -1:
            missed = True
            continue
        if last is not None:
            switches += name != last
            fragments += missed
        last, missed = name, False
    return switches, fragments


def _judge_needed_factor(answer) -> str | None:
    cases = (
        ((3.0, 1.0, 2.0), "4 ms should become 2, and 1 of these is not the detector's: 3 must become 1."),
        ((2.0, 2.0, 2.0), "With the detector gone 2 of 4 ms are left: twice as fast is just out of reach: infinity."),
        ((1.0, 3.0, 1.5), "Without any detector it takes 3 of 4 ms: 1.5 times as fast can't be had: infinity."),
        ((5.0, 0.0, 4.0), "If there is nothing else, the pipeline gains what the detector gains."),
        ((0.9, 0.3, 1.0), "As fast as now needs nothing: 1."),
        ((8.0, 2.0, 2.5), "10 ms should become 4, of which 2 are not the detector's: 8 must become 2."),
        ((4.0, 1.0, 0.5), "Slower is allowed, too: 5 ms may become 10, so 4 may become 9."),
    )  # fmt: skip
    for case, advice in cases:
        try:
            want, got = needed_factor.solve(*case), answer(*case)
        except ZeroDivisionError:
            return f"For detector, rest, wanted = {case} your answer divides by zero. {advice}"
        if isinstance(got, str) or np.size(np.asarray(got)) != 1:
            return "Return one number."
        got = float(np.asarray(got).reshape(()))
        if not (math.isclose(got, want, rel_tol=1e-6) or got == want):
            return f"{advice} For detector, rest, wanted = {case} it is {want:.4g}, not {got:.4g}."
    return None


@exercise(
    _judge_needed_factor,
    "How long may the pipeline take? How much of that is left for the detector?",
    "`left = (detector + rest) / wanted - rest`. If nothing is left, no factor is enough.",
)
def needed_factor(detector: float, rest: float, wanted: float) -> float:
    left = (detector + rest) / wanted - rest
    return detector / left if left > 1e-12 else float("inf")
