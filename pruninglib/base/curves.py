"""Damage as a function of sparsity, between the points that a scan measured."""

import itertools
import math


def damage_curve(name: str, values: dict[float, float]) -> list[tuple[float, float]]:
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


def reached_at(curve: list[tuple[float, float]], damage: float) -> float:
    """The sparsity at which the curve reaches the damage."""
    for (s0, d0), (s1, d1) in itertools.pairwise(curve):
        if damage <= d1:
            return s0 + (s1 - s0) * (damage - d0) / (d1 - d0)
    return 1.0
