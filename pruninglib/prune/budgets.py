"""*How much* from each layer? A budget says which layers compete, and for how many units.

A budget is a function `(scores, shapes, pruned) -> [(names, count), ...]`: `scores` gives each
parameter's scores, one per unit (shape (units,)), `shapes` the parameters' own shapes, `pruned`
the number of units to prune in all. In each group of names returned, the `count` units with the
lowest scores go. The counts add up to `pruned`. To add a budget, write such a function here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ..base.checks import some
from ..base.curves import damage_curve, reached_at
from ..base.exact import apportion, count_lowest_shares, has_negative, keep_highest, nearest

Shapes = dict[str, torch.Size]
Groups = list[tuple[list[str], int]]
Budget = Callable[[dict[str, Tensor], Shapes, int], Groups]


def global_budget(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
    """One ranking over all layers: scores of different layers must be comparable."""
    return [(list(scores), pruned)]


def uniform(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
    """The same sparsity in every layer, but no channel or row is the last of its layer to go."""
    return _keep_in_proportion(_units(scores), scores, shapes, pruned)


def erk(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
    """Erdős-Rényi-Kernel: the fraction kept grows with (sum of dimensions) / (product of them).

    Small and narrow layers stay denser. Densities are capped at one and what is left over goes
    to the other layers (Mocanu et al., Nature Communications 2018; Evci et al., ICML 2020).
    """
    units = _units(scores)
    weights = {n: units[n] * sum(shapes[n]) / math.prod(shapes[n]) for n in units}
    return _keep_in_proportion(weights, scores, shapes, pruned)


def lamp(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
    """One ranking by each score's share of what its layer would still hold.

    The square of a score is divided by the sum of the squares of all scores in its layer that
    are no smaller, so the last unit of every layer has share 1 (Lee et al., "Layer-adaptive
    sparsity for the magnitude-based pruning", ICLR 2021, for magnitudes).
    Raises ValueError for negative scores, whose squares would turn the ranking round.
    """
    names = sorted(scores)
    for name in names:
        if has_negative(scores[name]):
            raise ValueError(f"lamp squares the scores, but {name} has negative ones")
    counts = count_lowest_shares([scores[name] for name in names], pruned)
    return [([name], count) for name, count in zip(names, counts, strict=True)]


def with_floor(budget: Budget = global_budget, kept: float = 0.01) -> Budget:
    """`budget`, but no layer dies: each keeps a fraction `kept` of its units, one at least.

    What a layer may not give the others give, by the same budget. Raises ValueError, when used,
    if the floors leave less to prune than the sparsity asks for.
    """
    if not 0 <= kept <= 1:
        raise ValueError(f"kept is {kept}, but must lie in [0, 1]")

    def floored(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
        # 1e-9: 10 % of 30 units are 3, whatever floats make of it
        most = {n: len(s) - max(1, math.ceil(kept * len(s) - 1e-9)) for n, s in scores.items()}
        if pruned > sum(most.values()):
            raise ValueError(
                f"{pruned} units are to be pruned, but the floors leave {sum(most.values())}: lower the sparsity or the floor"
            )
        free, full = dict(scores), {}
        while True:
            counts = _counts(budget(free, shapes, pruned - sum(full.values())), scores)
            over = [n for n in free if counts[n] > most[n]]
            full |= {n: most[n] for n in over}
            free = {n: s for n, s in free.items() if n not in over}
            if not over:
                return [([n], count) for n, count in (counts | full).items()]

    return floored


def from_scan(scan: dict[str, dict[float, float]]) -> Budget:
    """A budget that lets every layer do the same damage, made from a sensitivity scan.

    `scan` is what `pruninglib.scan` returns: for each parameter a dict from sparsity to a metric
    where higher is better. For a permitted damage d, a layer may be pruned as far as its
    metric, made monotone and interpolated, falls by d at most; d is then chosen so that the
    layers together reach the sparsity asked for (after Han et al., NeurIPS 2015). No layer goes
    beyond the last sparsity scanned, unless all have to. A loss, negated, makes a better metric
    than an accuracy, which is flat for long and then falls off a cliff.
    """
    curves = {name: damage_curve(name, values) for name, values in scan.items()}
    far = 1e3 * max((curve[-1][1] for curve in curves.values()), default=0) or 1.0
    for curve in curves.values():
        if curve[-1][0] < 1:  # what lies beyond the scan is not known, so it is used last
            curve.append((1.0, far))

    def budget(scores: dict[str, Tensor], shapes: Shapes, pruned: int) -> Groups:
        units = _units(scores)
        if missing := set(units) - set(curves):
            raise ValueError(f"the scan has no entry for {some(sorted(missing))}: scan it too")

        def ideal(damage: float) -> dict[str, float]:
            return {n: units[n] * (1 - reached_at(curves[n], damage)) for n in units}

        worst = max(curves[n][-1][1] for n in units)
        return _apportioned(ideal, worst, 0.0, scores, shapes, pruned)

    return budget


def _units(scores: dict[str, Tensor]) -> dict[str, int]:
    return {name: len(score) for name, score in scores.items()}


def _counts(groups: Groups, scores: dict[str, Tensor]) -> dict[str, int]:
    """How many units each layer gives up."""
    counts = {}
    for names, count in groups:
        if len(names) == 1:  # not ranked, so that a layer may have lost more than count before
            counts[names[0]] = count
            continue
        names = sorted(names)
        kept = keep_highest([scores[n] for n in names], count)
        counts |= {n: int((~k).count_nonzero()) for n, k in zip(names, kept, strict=True)}
    return counts


def _keep_in_proportion(
    weights: dict[str, float], scores: dict[str, Tensor], shapes: Shapes, pruned: int
) -> Groups:
    """Every layer keeps as near to t·weight units as whole units allow, but no more than it has.

    t is as large as the total permits, so what a full layer can't take goes to the others.
    """

    def ideal(t: float) -> dict[str, float]:
        return {name: weight * t for name, weight in weights.items()}

    everything = (max(_units(scores).values()) + 1) / min(weights.values())
    return _apportioned(ideal, 0.0, everything, scores, shapes, pruned)


def _apportioned(
    ideal: Callable[[float], dict[str, float]],
    nothing: float,
    everything: float,
    scores: dict[str, Tensor],
    shapes: Shapes,
    pruned: int,
) -> Groups:
    """Each layer on its own keeps ideal(t) units, rounded, at the t where all together keep enough.

    Rounding is Webster's: unlike the method of largest remainders, a smaller total never gives
    any layer more. Where a unit is more than a weight, a layer keeps its last one while others have
    more: without it the layer, and what is built on it, is gone.
    """
    units = _units(scores)
    left = sum(units.values()) - pruned
    least = {n: int(shapes[n] == (u,) or u < math.prod(shapes[n])) for n, u in units.items()}
    least, most = (
        (least, units) if sum(least.values()) <= left else (dict.fromkeys(units, 0), least)
    )

    def kept(t: float) -> dict[str, int]:
        return {n: min(most[n], max(least[n], nearest(u))) for n, u in ideal(t).items()}

    counts = apportion(kept, nothing, everything, left)
    return [([name], units[name] - counts[name]) for name in units]
