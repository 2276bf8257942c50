"""Tracks that a tracker gives, beside those that are there: MOTA, IDF1 and HOTA from the papers.

Counts are kept by sequence and added up before a share is made of them, as benchmarks do; so which
other sequences might have come out otherwise can be asked of the same counts (`over_sequences`).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from .stats import Interval

ALPHAS = np.arange(1, 20) / 20  # overlaps over which HOTA is a mean: 0.05, 0.10, ... 0.95
EPS = np.finfo(float).eps  # an overlap that equals a limit up to rounding is enough


class Tracks(NamedTuple):
    """Boxes with identities, each in a frame of a sequence. An identity has one box in a frame.

    sequence, frame, identity: int64 (n,). Identities are those of their sequence.
    boxes: float64 (n, 4), x0, y0, x1, y1 in pixels.
    """

    sequence: np.ndarray
    frame: np.ndarray
    identity: np.ndarray
    boxes: np.ndarray

    def where(self, keep: np.ndarray) -> "Tracks":
        """The rows that a bool (n,) keeps."""
        return Tracks(*(part[keep] for part in self))


def iou(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Intersection over union of each box (n, 4) with each other one (m, 4): float64 (n, m)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    sides = np.clip(np.minimum(one[:, None, 2:], other[None, :, 2:]) - low, 0, None)
    shared = sides[..., 0] * sides[..., 1]
    area, areas = ((b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (one, other))
    whole = area[:, None] + areas[None] - shared
    return shared / np.where(whole > 0, whole, 1)


def counts(
    truth: Tracks, tracks: Tracks, ignored: np.ndarray | None = None, overlap: float = 0.5
) -> pd.DataFrame:
    """What happens in each sequence of the truth; `scores` makes shares of it.

    ignored: bool, of the rows of `truth` that are neither asked for nor wrong to find: a tracker's
        box that fits such a one better than any other is left out.
    Returns one row for each sequence of `truth`, of numbers that may be added up:
    objects and boxes, of the truth and of the tracker, in all frames together;
    hits, alarms, switches, fragments and fit (the sum of the hits' overlaps): CLEAR MOT (Bernardin and
        Stiefelhagen, 2008) at that overlap. A hit of the frame before is kept while it overlaps. A
        switch is a hit by another identity than the last one of that object; a fragment, an object
        hit again after frames in which it was there and missed;
    identities, kept and lost: how many objects, and those hit in 80 % of their frames or more, and in
        less than 20 %;
    same: hits under the one best pairing of identities (Ristani et al., 2016);
    TP and A of each of HOTA's overlaps (Luiten et al., 2021): hits, and over them the sum of how well
        the two identities agree.
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap is {overlap}, but must lie in (0, 1]")
    if len(truth.frame) == 0:
        raise ValueError("the truth has no boxes: there is nothing to track")
    ignored = np.zeros(len(truth.frame), dtype=bool) if ignored is None else ignored
    strangers = set(tracks.sequence.tolist()) - set(truth.sequence.tolist())
    if strangers:
        raise ValueError(f"sequence {min(strangers)} has tracks, but no truth")
    rows = {}
    for sequence in np.unique(truth.sequence):
        mine, own = truth.sequence == sequence, tracks.sequence == sequence
        rows[int(sequence)] = _sequence(
            truth.where(mine), tracks.where(own), ignored[mine], overlap
        )
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("sequence")


def _sequence(truth: Tracks, tracks: Tracks, ignored: np.ndarray, overlap: float) -> dict:
    frames = list(_frames(truth, tracks, ignored, overlap))
    names, owner = np.unique(truth.identity[~ignored], return_inverse=True)
    objects = np.full(len(truth.frame), -1)
    objects[~ignored] = owner
    others, found = np.unique(tracks.identity, return_inverse=True)
    frames = [(objects[a], found[b], fit) for a, b, fit in frames]
    shape = len(names), len(others)
    return _clear(frames, shape, overlap) | _same(frames, shape, overlap) | _hota(frames, shape)


def _frames(truth: Tracks, tracks: Tracks, ignored: np.ndarray, overlap: float):
    """For each frame: rows of the truth that are asked for, rows of tracks that count, overlaps."""
    order, other = (np.argsort(t.frame, kind="stable") for t in (truth, tracks))
    times = np.unique(np.concatenate([truth.frame, tracks.frame]))
    ends, far = (
        np.searchsorted(t.frame[o], times, side="right")
        for t, o in ((truth, order), (tracks, other))
    )
    starts, near = ([0, *e[:-1]] for e in (ends, far))
    for a, b, c, d in zip(starts, ends, near, far, strict=True):
        there, seen = order[a:b], other[c:d]
        fit = iou(truth.boxes[there], tracks.boxes[seen])
        asked = ~ignored[there]
        if not asked.all():
            pairs, columns = linear_sum_assignment(-np.where(fit >= overlap, fit, 0))
            spared = columns[(fit[pairs, columns] >= overlap - EPS) & ~asked[pairs]]
            counted = ~np.isin(np.arange(len(seen)), spared)
            there, seen, fit = there[asked], seen[counted], fit[asked][:, counted]
        yield there, seen, fit


def _clear(frames: list, shape: tuple[int, int], overlap: float) -> dict:
    before, last = np.full(shape[0], -1), np.full(shape[0], -1)  # who found it: just now, ever
    missed = np.zeros(shape[0], dtype=bool)  # since it was found
    present, hit = np.zeros(shape[0]), np.zeros(shape[0])
    total = dict.fromkeys(("objects", "boxes", "hits", "alarms", "switches", "fragments"), 0)
    total["fit"] = 0.0
    for objects, found, fit in frames:
        worth = np.where(fit >= overlap - EPS, fit + 1000 * (found == before[objects, None]), 0)
        rows, columns = linear_sum_assignment(-worth)
        right = worth[rows, columns] > 0
        rows, columns = rows[right], columns[right]
        mine, by = objects[rows], found[columns]
        total["switches"] += int(((last[mine] >= 0) & (last[mine] != by)).sum())
        total["fragments"] += int(missed[mine].sum())
        total["objects"] += len(objects)
        total["boxes"] += len(found)
        total["hits"] += len(rows)
        total["alarms"] += len(found) - len(rows)
        total["fit"] += float(fit[rows, columns].sum())
        present[objects] += 1
        hit[mine] += 1
        before[:] = -1
        before[mine] = last[mine] = by
        missed[objects] |= last[objects] >= 0
        missed[mine] = False
    share = hit[present > 0] / present[present > 0]
    kept, lost = int((share >= 0.8).sum()), int((share < 0.2).sum())
    return total | {"identities": len(share), "kept": kept, "lost": lost}


def _same(frames: list, shape: tuple[int, int], overlap: float) -> dict:
    together = np.zeros(shape)
    for objects, found, fit in frames:
        rows, columns = (fit >= overlap).nonzero()
        together[objects[rows], found[columns]] += 1
    return {"same": int(together[linear_sum_assignment(-together)].sum())}


def _hota(frames: list, shape: tuple[int, int]) -> dict:
    alike, present, seen = np.zeros(shape), np.zeros((shape[0], 1)), np.zeros((1, shape[1]))
    for objects, found, fit in frames:
        either = fit.sum(0)[None] + fit.sum(1)[:, None] - fit
        alike[objects[:, None], found] += np.divide(fit, either, where=either > EPS, out=0 * fit)
        present[objects] += 1
        seen[0, found] += 1
    alike /= np.maximum(EPS, present + seen - alike)  # how well two identities go together
    together = np.zeros((len(ALPHAS), *shape))
    for objects, found, fit in frames:
        rows, columns = linear_sum_assignment(-alike[objects[:, None], found] * fit)
        level, pair = (fit[rows, columns] >= ALPHAS[:, None] - EPS).nonzero()
        together[level, objects[rows[pair]], found[columns[pair]]] += 1
    agree = together / np.maximum(1, present + seen - together)
    hits, sums = together.sum(axis=(1, 2)), (together * agree).sum(axis=(1, 2))
    values = zip(ALPHAS, hits, sums, strict=True)
    return {f"{k} {a:.2f}": v for a, h, s in values for k, v in (("TP", h), ("A", s))}


def scores(totals: pd.DataFrame | pd.Series) -> pd.DataFrame | pd.Series:
    """Shares of counts, of each row: MOTA, IDF1, HOTA and its parts DetA and AssA; precision,
    recall and F1 of the boxes, whatever their identity; MOTP, the mean overlap of hits; and as they
    are switches, fragments and how many objects were kept and lost.

    Of several sequences: of the counts' sum, `scores(counts(...).sum())`.
    """
    one = isinstance(totals, pd.Series)
    c = totals.to_frame().T.astype(float) if one else totals.astype(float)
    wrong = c.objects - c.hits + c.alarms + c.switches
    hits, sums = (c[[f"{kind} {a:.2f}" for a in ALPHAS]].to_numpy() for kind in ("TP", "A"))
    det = hits / np.maximum(1, (c.objects + c.boxes).to_numpy()[:, None] - hits)
    ass = sums / np.maximum(1, hits)
    table = pd.DataFrame(
        {
            "MOTA": 1 - wrong / c.objects,
            "IDF1": 2 * c.same / (c.objects + c.boxes),
            "HOTA": np.sqrt(det * ass).mean(axis=1),
            "DetA": det.mean(axis=1),
            "AssA": ass.mean(axis=1),
            "precision": c.hits / c.boxes.clip(lower=1),
            "recall": c.hits / c.objects,
            "F1": 2 * c.hits / (c.objects + c.boxes),
            "MOTP": c.fit / c.hits.clip(lower=1),
            **{name: c[name] for name in ("switches", "fragments", "kept", "lost")},
        },
        index=c.index,
    )
    return table.iloc[0] if one else table


def over_sequences(
    *tables: pd.DataFrame, of: Callable[..., pd.Series], draws: int = 1000
) -> Interval:
    """A value made of counts, with its 95 % interval for other sequences (bootstrap).

    tables: results of `counts`, of the same sequences. of(*scores): a value for each row of the
    tables of scores that it gets: `lambda a, b: a.HOTA - b.HOTA`.
    """
    number = len(tables[0])
    if any(not t.index.equals(tables[0].index) for t in tables):
        raise ValueError("the tables are not of the same sequences")
    again = np.random.default_rng(0).multinomial(number, np.full(number, 1 / number), size=draws)
    again = np.concatenate([np.ones((1, number)), again])
    made = [scores(pd.DataFrame(again @ t.to_numpy(float), columns=t.columns)) for t in tables]
    values = np.asarray(of(*made), dtype=float)
    return Interval(values[0], *np.quantile(values[1:], [0.025, 0.975]))
