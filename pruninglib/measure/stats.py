"""Intervals: no mean without one."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

Verdict = Literal["holds", "contradicted", "open"]


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

    def ahead_of(self, other: str, unit: str = "points", digits: int = 1) -> str:
        """A difference (ours - other's) as words that read forwards, whatever its sign.

        "8.0 points ahead of uniform (7.1 to 8.9)", "0.7 points behind uniform (0.2 to 1.2)", or,
        where the interval holds zero, "0.7 points behind uniform (from 1.9 behind to 0.5 ahead)".
        """

        def words(value: float) -> tuple[str, str]:
            return f"{abs(value):.{digits}f}", "behind" if value < 0 else "ahead"

        size, side = words(self.mean)
        ends = [words(v) for v in (sorted((self.low, self.high), key=lambda v: v * self.mean))]
        if ends[0][1] == ends[1][1]:
            between = f"{ends[0][0]} to {ends[1][0]}"
        else:
            between = "from {} {} to {} {}".format(*words(self.low), *words(self.high))
        return f"{size} {unit} {side}{' of' * (side == 'ahead')} {other} ({between})"

    def verdict(self, above: float = 0.0) -> Verdict:
        """On "it is more than `above`": holds or contradicted if all of the interval says so."""
        if self.low > above:
            return "holds"
        return "contradicted" if self.high <= above else "open"

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


def over_samples(values: np.ndarray) -> Interval:
    """Mean of (runs, samples) with an interval for other networks *and* other samples.

    `interval` of the runs alone says what other networks would give on these very samples. Here
    the half-widths of both are added as squares, which counts what is left over twice: it is
    rather too wide than too narrow.
    """
    runs, samples = interval(values.mean(axis=1)), interval(values.mean(axis=0))
    half = float(np.hypot(runs.mean - runs.low, samples.mean - samples.low))
    return Interval(runs.mean, runs.mean - half, runs.mean + half)


def over_pictures(values: np.ndarray, counted: np.ndarray, picture: np.ndarray) -> Interval:
    """Mean of the values that count, with an interval for other pictures: objects come in pictures.

    values: (networks, objects); counted: 0 or 1 for each of them, or for each object.
    picture: (objects,), from 0: which one an object is in. Objects of one picture share its light
    and its crowd, so pictures are drawn again, as they are (1,000 times, always the same draws), by
    the bootstrap, and the ends are its 2.5 % and 97.5 %. If nothing counts, the mean is 0.
    """
    pictures = picture.max() + 1
    counted = counted * np.ones_like(values, dtype=float)
    sums = [np.bincount(picture, x.sum(axis=0), pictures) for x in (values * counted, counted)]
    drawn = np.random.default_rng(0).multinomial(pictures, np.full(pictures, 1 / pictures), 1000)
    top, bottom = (drawn @ part for part in sums)
    ends = np.quantile(top / np.maximum(1, bottom), [0.025, 0.975])
    return Interval(sums[0].sum() / max(1, sums[1].sum()), *ends)


def outcomes_of(rows: pd.DataFrame) -> np.ndarray:
    """The column that `compare(..., outcomes=True)` keeps, as bool (rows, samples)."""
    if "outcomes" not in rows:
        raise ValueError("the table has no outcomes: call compare(..., outcomes=True)")
    return np.array([[*text] for text in rows["outcomes"]]) == "1"


def advantage(
    table: pd.DataFrame, better: str, worse: str, metric: str | None = None, **where
) -> Interval:
    """Mean of (better - worse) over seeds, paired by seed, at the rows where columns match.

    Pairing takes out what both methods share: the same seed means the same dense model. The
    interval is for other networks on the same samples. Without a metric it is the share of samples
    that come out right, from the table's outcomes, and the interval is for other networks and other
    samples (`over_samples`).

    Example: `advantage(table, "magnitude", "random", "accuracy", sparsity=0.9, split="test")`.
    """
    for column, value in where.items():
        table = table[table[column] == value]
    if table.duplicated(["method", "seed"]).any():
        raise ValueError(
            f"several rows of one method and seed at {where}: say which, with sparsity=, split= ..."
        )
    if metric is None:
        metric, table = "outcomes", table.assign(outcomes=list(outcomes_of(table).astype(int)))
    wide = table.pivot(index="seed", columns="method", values=metric)
    for method in (better, worse):
        if method not in wide:
            raise ValueError(
                f"the table has no rows of method {method!r} at {where}; it has {', '.join(wide)}"
            )
    pairs = wide[[better, worse]].dropna()
    if pairs.empty:
        raise ValueError(f"{better!r} and {worse!r} have no seed in common at {where}")
    gaps = pairs[better] - pairs[worse]
    return over_samples(np.stack(gaps)) if metric == "outcomes" else interval(gaps)
