"""Who pays for the pruned weights? Scores of slices of the data, and the examples that changed.

A headline metric is a mean over samples. Its fall may be spread evenly, or sit in one slice: one
class, long sentences, rare items. Everything here is computed from the outcomes of single samples,
which `compare(..., outcomes=True)` keeps beside the metrics.
"""

import numpy as np
import pandas as pd
from torch import Tensor

from .stats import outcomes_of, over_samples

Slices = dict[str, dict[str, Tensor]]  # by split and name: bool (samples,)


def as_text(outcomes: Tensor) -> str:
    """Outcomes of samples, bool (samples,), as a 0 or 1 each: what a file of rows can hold."""
    return "".join("01"[right] for right in outcomes.tolist())


def damage(table: pd.DataFrame, slices: Slices) -> pd.DataFrame:
    """The share of samples that come out right, by slice: a row per run and slice.

    table: of `compare(..., outcomes=True)`. slices: a task's; they may overlap, and "all" is added.
    Columns: method, sparsity, seed, split, slice, samples, and score in [0, 1].
    """
    parts = []
    for split, rows in table.groupby("split", sort=False):
        named = _named(slices, split)
        right = _outcomes(rows, named)
        for name, part in named.items():
            found = rows[["method", "sparsity", "seed", "split"]].assign(slice=name)
            parts.append(found.assign(samples=int(part.sum()), score=right[:, part].mean(axis=1)))
    return pd.concat(parts, ignore_index=True)


def by_slice(
    table: pd.DataFrame, slices: Slices, method: str, sparsity: float, split: str
) -> pd.DataFrame:
    """What each slice lost against the dense model, worst first: samples, mean, low and high.

    In shares of the slice's samples, as mean over the seeds with a 95 % interval for other networks
    *and* other samples (`stats.over_samples`).

    The worst of many slices looks worse than it is: find it on valid, and read it off on test.
    """
    named = _named(slices, split)
    lost = _lost(table, method, sparsity, split, named)
    rows = {name: over_samples(lost[:, part])._asdict() for name, part in named.items()}
    found = pd.DataFrame(rows).T
    found.insert(0, "samples", [int(part.sum()) for part in named.values()])
    return found.sort_values("mean", ascending=False, kind="stable")


def changed(table: pd.DataFrame, method: str, sparsity: float, split: str) -> np.ndarray:
    """(samples,): in what share of the seeds a sample is right dense and wrong pruned, less the
    share in which it is the other way round.

    The highest are the exemplars that pruning gives up (Hooker et al., "What do compressed deep
    neural networks forget?", 2019).
    """
    return _lost(table, method, sparsity, split).mean(axis=0)


def _lost(table, method: str, sparsity: float, split: str, named=None) -> np.ndarray:
    """(seeds, samples): 1 where the dense model alone is right, -1 where the pruned one alone is."""
    rows = table[table["split"] == split]
    pruned = rows[(rows["method"] == method) & (rows["sparsity"] == sparsity)]
    dense = rows[(rows["method"] == "dense") & rows["seed"].isin(pruned["seed"])]
    if pruned.empty or len(dense) != len(pruned):
        raise ValueError(
            f"the table needs a run of {method!r} at {sparsity} on {split!r}, and a dense one for each"
        )
    right = [_outcomes(part.sort_values("seed"), named).astype(int) for part in (dense, pruned)]
    return right[0] - right[1]


def _outcomes(rows: pd.DataFrame, named: dict | None) -> np.ndarray:
    """bool (rows, samples)."""
    right = outcomes_of(rows)
    if named and right.shape[1] != len(named["all"]):
        raise ValueError(
            f"the slices are of {len(named['all'])} samples, but the table's runs of {right.shape[1]}"
        )
    return right


def _named(slices: Slices, split: str) -> dict[str, np.ndarray]:
    """The slices of a split as arrays, all of it first."""
    if split not in slices:
        raise ValueError(f"there are no slices of {split!r}, only of {', '.join(slices)}")
    named = {name: part.cpu().numpy() for name, part in slices[split].items()}
    for name, part in named.items():
        if not part.any():
            raise ValueError(f"the slice {name!r} of {split!r} has no samples: leave it out")
    return {"all": np.ones_like(next(iter(named.values()))), **named}
