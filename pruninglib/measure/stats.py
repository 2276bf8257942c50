"""Intervals: no mean without one."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95 % confidence interval (Student's t), in the unit of the values.

    In a format string, `{gap:.1f}` gives "8.0 (7.1 to 8.9)".
    """

    mean: float
    low: float
    high: float

    @property
    def points(self) -> "Interval":
        """The same for shares in [0, 1], in percentage points."""
        return Interval(*(100 * value for value in self))

    def __format__(self, spec: str) -> str:
        mean, low, high = (format(value, spec) for value in self)
        return f"{mean} ({low} to {high})"


def interval(values: Iterable[float]) -> Interval:
    """Mean of independent runs with its interval; a single run has an interval of NaN."""
    values = np.asarray(list(values), dtype=float)
    if len(values) == 0:
        raise ValueError("values is empty: an interval needs at least one run")
    mean = values.mean()
    if len(values) == 1:
        return Interval(float(mean), float("nan"), float("nan"))
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return Interval(float(mean), float(mean - half), float(mean + half))


def advantage(table: pd.DataFrame, better: str, worse: str, metric: str, **where) -> Interval:
    """Mean of (better - worse) over seeds, paired by seed, at the rows where columns match.

    Pairing takes out what both methods share: the same seed means the same dense model.
    Example: `advantage(table, "magnitude", "random", "accuracy", sparsity=0.9, split="test")`.
    """
    for column, value in where.items():
        table = table[table[column] == value]
    if table.duplicated(["method", "seed"]).any():
        raise ValueError(
            f"several rows of one method and seed at {where}: say which, with sparsity=, split= ..."
        )
    wide = table.pivot(index="seed", columns="method", values=metric)
    for method in (better, worse):
        if method not in wide:
            raise ValueError(
                f"the table has no rows of method {method!r} at {where}; it has {', '.join(wide)}"
            )
    pairs = (wide[better] - wide[worse]).dropna()
    if pairs.empty:
        raise ValueError(f"{better!r} and {worse!r} have no seed in common at {where}")
    return interval(pairs)
