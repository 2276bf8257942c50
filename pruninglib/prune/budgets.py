"""*How much* from each layer? A budget says which layers compete, and for how many units.

A budget is a function `(shapes, units, pruned) -> [(names, count), ...]`: `shapes` and `units`
give each parameter's shape and number of units, `pruned` is the number of units to prune in
all. In each group of names returned, the `count` units with the lowest scores go. The counts
add up to `pruned`. To add a budget, write such a function here.
"""

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
    layers together reach the sparsity asked for (the idea of Han et al., NeurIPS 2015, with
    the choice of thresholds made a rule).
    """
    curves = {name: _damage_curve(name, values) for name, values in scan.items()}

    def budget(shapes: Shapes, units: dict[str, int], pruned: int):
        if missing := set(units) - set(curves):
            raise ValueError(f"the scan has no entry for {', '.join(sorted(missing))}: scan it too")

        def kept(damage: float) -> dict[str, float]:
            return {n: units[n] * (1 - _allowed(curves[n], damage)) for n in units}

        low, high = 0.0, max(curves[n][-1][1] for n in units)
        for _ in range(60):  # bisection to the last bit that matters
            middle = (low + high) / 2
            if sum(kept(middle).values()) > sum(units.values()) - pruned:
                low = middle
            else:
                high = middle
        # `low` keeps a little too much, everywhere more than nothing: scaled to the exact count
        return _keep_in_proportion(kept(low), units, pruned)

    return budget


def _damage_curve(name: str, values: dict[float, float]) -> list[tuple[float, float]]:
    """Points (sparsity, damage), both increasing, from (0, 0) to (1, at least the last)."""
    if 0.0 not in values:
        raise ValueError(f"the scan of {name} lacks sparsity 0, against which damage is measured")
    # Damage only grows, and strictly: flat stretches would leave the inverse undefined.
    slope = 1e-6 * (max(values.values()) - min(values.values())) or 1e-12
    points, worst = [], 0.0
    for s in sorted(values):
        worst = max(worst, values[0.0] - values[s])
        points.append((s, worst + slope * s))
    if points[-1][0] < 1:  # nothing is known beyond: go on as steeply as from the start
        s, damage = points[-1]
        points.append((1.0, damage / s if s else 1.0))
    return points


def _allowed(curve: list[tuple[float, float]], damage: float) -> float:
    """The sparsity at which the curve reaches the damage."""
    for (s0, d0), (s1, d1) in zip(curve, curve[1:], strict=False):
        if damage <= d1:
            return s0 + (s1 - s0) * (damage - d0) / (d1 - d0)
    return 1.0


def _keep_in_proportion(weights: dict[str, float], units: dict[str, int], pruned: int):
    """Every layer on its own, keeping as near to t·weight units as whole units allow.

    No layer keeps more units than it has, and t is as large as the total permits, so what a
    full layer can't take goes to the others. Rounding is Webster's: unlike the method of
    largest remainders, a smaller total never gives any layer more.
    """
    total = sum(units.values()) - pruned

    def kept(t: float) -> dict[str, int]:
        return {n: min(units[n], math.floor(weights[n] * t + 0.5)) for n in units}

    low, high = 0.0, (max(units.values()) + 1) / min(w for w in weights.values() if w > 0)
    for _ in range(100):
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
