"""*How much* from each layer? A budget says which layers compete, and for how many units.

A budget is a function `(shapes, units, pruned) -> [(names, count), ...]`: `shapes` and `units`
give each parameter's shape and number of units, `pruned` is the number of units to prune in
all. In each group of names returned, the `count` units with the lowest scores go. The counts
add up to `pruned`. To add a budget, write such a function here.
"""

import itertools
import math
from collections.abc import Callable

import torch

Shapes = dict[str, torch.Size]
Budget = Callable[[Shapes, dict[str, int], int], list[tuple[list[str], int]]]


def global_budget(shapes: Shapes, units: dict[str, int], pruned: int):
    """One ranking over all layers: scores of different layers must be comparable."""
    return [(list(units), pruned)]


def uniform(shapes: Shapes, units: dict[str, int], pruned: int):
    """The same sparsity in every layer."""
    return _keep_in_proportion(units, units, pruned)


def erk(shapes: Shapes, units: dict[str, int], pruned: int):
    """Erdős-Rényi-Kernel: the fraction kept grows with (sum of dimensions) / (product of them).

    Small and narrow layers stay denser. Densities are capped at one and what is left over goes
    to the other layers (Mocanu et al., Nature Communications 2018; Evci et al., ICML 2020).
    """
    weights = {n: units[n] * sum(shapes[n]) / math.prod(shapes[n]) for n in units}
    return _keep_in_proportion(weights, units, pruned)


def from_scan(scan: dict[str, dict[float, float]]) -> Budget:
    """A budget that lets every layer do the same damage, made from a sensitivity scan.

    `scan` is what `pruninglib.scan` returns: for each parameter a dict from sparsity to a metric
    where higher is better. For a permitted damage d, a layer may be pruned as far as its
    metric, made monotone and interpolated, falls by d at most; d is then chosen so that the
    layers together reach the sparsity asked for (the idea of Han et al., NeurIPS 2015, with the
    choice of thresholds made a rule). No layer goes beyond the last sparsity scanned, unless all
    have to. A loss, negated, makes a better metric than an accuracy, which is flat for long and
    then falls off a cliff.
    """
    curves = {name: _damage_curve(name, values) for name, values in scan.items()}
    far = 1e3 * max((curve[-1][1] for curve in curves.values()), default=0) or 1.0
    for curve in curves.values():
        if curve[-1][0] < 1:  # what lies beyond the scan is not known, so it is used last
            curve.append((1.0, far))

    def budget(shapes: Shapes, units: dict[str, int], pruned: int):
        if missing := set(units) - set(curves):
            raise ValueError(f"the scan has no entry for {', '.join(sorted(missing))}: scan it too")

        def kept(damage: float) -> dict[str, int]:
            return {n: _nearest(units[n] * (1 - _allowed(curves[n], damage))) for n in units}

        worst = max(curves[n][-1][1] for n in units)
        return _keep_exactly(kept, worst, 0.0, units, pruned)

    return budget


def _damage_curve(name: str, values: dict[float, float]) -> list[tuple[float, float]]:
    """Points (sparsity, damage), both increasing, from (0, 0) to the last sparsity scanned."""
    if 0.0 not in values:
        raise ValueError(f"the scan of {name} lacks sparsity 0, against which damage is measured")
    for s, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"the scan of {name} holds {value} at sparsity {s}: it must be finite")
    # Damage only grows, and strictly: flat stretches would leave the inverse undefined.
    slope = 1e-6 * (max(values.values()) - min(values.values())) or 1e-12
    points, worst = [], 0.0
    for s in sorted(values):
        worst = max(worst, values[0.0] - values[s])
        points.append((s, worst + slope * s))
    return points


def _allowed(curve: list[tuple[float, float]], damage: float) -> float:
    """The sparsity at which the curve reaches the damage."""
    for (s0, d0), (s1, d1) in itertools.pairwise(curve):
        if damage <= d1:
            return s0 + (s1 - s0) * (damage - d0) / (d1 - d0)
    return 1.0


def _keep_in_proportion(weights: dict[str, float], units: dict[str, int], pruned: int):
    """Every layer keeps as near to t·weight units as whole units allow, but no more than it has.

    t is as large as the total permits, so what a full layer can't take goes to the others.
    Rounding is Webster's: unlike the method of largest remainders, a smaller total never gives
    any layer more.
    """

    def kept(t: float) -> dict[str, int]:
        return {n: min(units[n], _nearest(weights[n] * t)) for n in units}

    everything = (max(units.values()) + 1) / min(weights.values())
    return _keep_exactly(kept, 0.0, everything, units, pruned)


def _keep_exactly(
    kept: Callable[[float], dict[str, int]],
    nothing: float,
    everything: float,
    units: dict[str, int],
    pruned: int,
):
    """Every layer on its own, keeping kept(t) units for the t at which the total is right.

    From t = `nothing` to t = `everything`, `kept` rises in every layer from none to all units.
    """
    total = sum(units.values()) - pruned
    low, high = nothing, everything
    for _ in range(100):  # bisection, further than floats can tell apart
        middle = (low + high) / 2
        if sum(kept(middle).values()) <= total:
            low = middle
        else:
            high = middle
    counts = kept(low)
    # Several layers may round up at the same t; the first of them by name take what is left.
    following = kept(high)
    for name in sorted(units):
        counts[name] += min(following[name] - counts[name], total - sum(counts.values()))
    return [([name], units[name] - counts[name]) for name in units]


def _nearest(x: float) -> int:
    return math.floor(x + 0.5)
