"""Tracks: MOTA, IDF1 and HOTA by hand, as published, and as two libraries count where they are installed."""

import numpy as np
import pandas as pd
import pytest

from pruninglib.measure import tracks
from pruninglib.measure.tracks import Tracks
from pruninglib.tasks import datasets

BOX = np.array([0.0, 0.0, 10.0, 10.0])


def drawn(*rows: tuple, sequence: int = 0) -> Tracks:
    """From (frame, identity, x) or (frame, identity, x, y), a box of 10×10 pixels there."""
    rows = [(*row, 0)[:4] for row in rows]
    frame, identity = (np.array([row[k] for row in rows], dtype=int) for k in (0, 1))
    at = np.array([[row[2], row[3]] * 2 for row in rows], dtype=float).reshape(-1, 4)
    return Tracks(np.full(len(rows), sequence), frame, identity, at + BOX)


def judged(truth: Tracks, found: Tracks, **options) -> pd.Series:
    counts = tracks.counts(truth, found, **options).sum()
    return pd.Series({**counts, **tracks.scores(counts)})


# ---- by hand ----


TWO = drawn(*((t, k, 40 * k) for t in range(4) for k in (0, 1)))


def test_what_is_all_right_has_the_best_of_each():
    got = judged(TWO, TWO)
    for name in ("MOTA", "IDF1", "HOTA", "DetA", "AssA", "precision", "recall", "F1", "MOTP"):
        assert got[name] == pytest.approx(1), name
    assert got[["switches", "fragments", "alarms", "lost"]].sum() == 0
    assert got[["objects", "boxes", "hits", "same"]].tolist() == [8] * 4
    assert got[["identities", "kept"]].tolist() == [2, 2]


def test_nothing_found_and_only_false_alarms():
    got = judged(TWO, drawn())
    assert got[["MOTA", "IDF1", "HOTA", "precision", "recall"]].tolist() == [0] * 5
    assert got.lost == 2
    got = judged(TWO, drawn((0, 0, 200), (1, 0, 200)))
    assert got[["MOTA", "IDF1", "HOTA", "precision"]].tolist() == [-2 / 8, 0, 0, 0]


def test_identities_that_change_places():
    """Half of the time each: one switch for each object, no hit lost; half of the boxes the same."""
    found = drawn(*((t, k if t < 2 else 1 - k, 40 * k) for t in range(4) for k in (0, 1)))
    got = judged(TWO, found)
    assert (got.hits, got.switches, got.fragments, got.same) == (8, 2, 0, 4)
    assert (got.MOTA, got.IDF1, got.DetA) == (1 - 2 / 8, 0.5, 1)
    assert got.AssA == pytest.approx(2 / (4 + 4 - 2))  # of each hit: together 2 of 4 and 4
    assert pytest.approx(np.sqrt(1 / 3)) == got.HOTA


def test_a_gap_is_a_fragment_and_a_new_name_a_switch_too():
    truth = drawn(*((t, 7, t) for t in range(6)))
    same = judged(truth, truth.where(~np.isin(truth.frame, (2, 3))))
    assert (same.hits, same.switches, same.fragments, same.IDF1) == (4, 0, 1, 0.8)
    other = drawn((0, 1, 0), (1, 1, 1), (4, 2, 4), (5, 2, 5))
    assert (judged(truth, other).switches, judged(truth, other).fragments) == (1, 1)
    absent = truth.where(~np.isin(truth.frame, (2, 3)))  # not there: nothing was missed
    assert judged(absent, other).fragments == 0 and judged(absent, other).switches == 1


def test_a_hit_is_kept_while_it_overlaps_though_another_fits_better():
    truth = drawn((0, 0, 0), (1, 0, 0))
    found = drawn((0, 5, 2), (1, 5, 3), (1, 6, 0))
    got = judged(truth, found)
    assert (got.hits, got.alarms, got.switches) == (2, 1, 0)
    assert got.fit == pytest.approx(8 / 12 + 7 / 13)
    assert judged(truth, found, overlap=0.6).switches == 1


def test_mota_and_idf1_part_where_one_name_is_right_most_of_the_time():
    """Ristani et al.: the longest agreement counts, not how often the name changes."""
    truth = drawn(*((t, 0, 0) for t in range(10)))
    often = judged(truth, drawn(*((t, 0 if t < 6 else t, 0) for t in range(10))))
    late = judged(truth, drawn(*((t, t >= 5, 0) for t in range(10))))
    assert (often.switches, late.switches) == (4, 1)
    assert (often.IDF1, late.IDF1) == (0.6, 0.5)


def test_what_is_ignored_is_neither_asked_for_nor_wrong():
    ignored = TWO.identity == 1
    assert judged(TWO, TWO.where(~ignored), ignored=ignored).MOTA == 1
    got = judged(TWO, TWO, ignored=ignored)
    assert (got.objects, got.boxes, got.alarms, got.HOTA) == (4, 4, 0, pytest.approx(1))
    far = drawn(*((t, 9, 47) for t in range(4)))  # 3 of 17: it does not fit the ignored one
    assert judged(TWO, far, ignored=ignored).alarms == 4


def test_kept_and_lost_are_of_the_frames_in_which_it_is_there():
    truth = drawn(*((t, k, 40 * k) for k, long in ((0, 5), (1, 10), (2, 10)) for t in range(long)))
    found = truth.where(
        (truth.identity == 0) & (truth.frame < 4) | (truth.identity == 1) & (truth.frame < 1)
    )
    got = judged(truth, found)
    assert (got.identities, got.kept, got.lost) == (3, 1, 2)


def test_sequences_are_told_apart_and_added_up():
    again = Tracks(TWO.sequence + 3, *TWO[1:])
    both = Tracks(*(np.concatenate(pair) for pair in zip(TWO, again, strict=True)))
    table = tracks.counts(both, TWO)
    assert table.index.tolist() == [0, 3] and table.hits.tolist() == [8, 0]
    assert tracks.scores(table).MOTA.tolist() == [1, 0]
    assert tracks.scores(table.sum()).MOTA == 0.5
    order = np.random.default_rng(0).permutation(16)
    pd.testing.assert_frame_equal(tracks.counts(both.where(order), TWO), table)


def test_hota_at_one_overlap_by_hand():
    """A box of the overlap 8/12: hits below it, none above."""
    truth = drawn(*((t, 0, 0) for t in range(4)))
    got = tracks.counts(truth, drawn(*((t, 0, 2) for t in range(3)))).sum()
    assert got["TP 0.65"] == 3 and got["TP 0.70"] == 0
    assert got["A 0.65"] == pytest.approx(3 * 3 / 4)
    assert pytest.approx(13 / 19 * np.sqrt(3 / 4 * 3 / 4)) == tracks.scores(got).HOTA


def test_an_interval_for_other_sequences():
    truth = Tracks(
        *(np.concatenate([p + (k if j == 0 else 0) for k in range(12)]) for j, p in enumerate(TWO))
    )
    found = truth.where((truth.sequence % 3 > 0) | (truth.identity == 0))
    table, whole = tracks.counts(truth, found), tracks.counts(truth, truth)
    got = tracks.over_sequences(table, of=lambda s: s.recall)
    assert got.mean == pytest.approx(5 / 6) and got.low < 5 / 6 < got.high <= 1
    gap = tracks.over_sequences(whole, table, of=lambda a, b: a.recall - b.recall)
    assert gap.mean == pytest.approx(1 / 6) and gap.low == pytest.approx(1 - got.high)
    with pytest.raises(ValueError, match="not of the same sequences"):
        tracks.over_sequences(table, whole.iloc[1:], of=lambda a, b: a.MOTA)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"overlap": 0}, r"overlap is 0, but must lie in \(0, 1\]"),
        ({"truth": drawn()}, "the truth has no boxes"),
        ({"tracks": drawn((0, 0, 0), sequence=2)}, "sequence 2 has tracks, but no truth"),
    ],
)
def test_what_can_not_be_counted(arguments, message):
    with pytest.raises(ValueError, match=message):
        tracks.counts(**({"truth": TWO, "tracks": TWO} | arguments))


# ---- as published, and as others count ----


def read(path, sequence: int) -> Tracks:
    rows = np.loadtxt(path, delimiter=",")
    boxes = np.hstack([rows[:, 2:4], rows[:, 2:4] + rows[:, 4:6]])
    return Tracks(np.full(len(rows), sequence), *rows[:, :2].astype(int).T, boxes)


def sampled() -> list[tuple[Tracks, Tracks]]:
    folder = datasets.data_home() / "mot15"
    if not folder.exists():
        pytest.skip("MOTChallenge 2015 is not in the data folder")
    names = "TUD-Campus", "TUD-Stadtmitte"
    return [
        (read(folder / n / "gt/gt.txt", k), read(folder / n / "pymotmetrics_sample/test.txt", k))
        for k, n in enumerate(names)
    ]


def test_as_published_for_two_sequences_of_motchallenge():
    """The tracker CEM: MOTChallenge's own figures, and TrackEval's HOTA, in py-motmetrics' README."""
    columns = ["IDF1", "recall", "precision", "MOTA", "MOTP"]
    published = [[55.8, 58.2, 94.1, 52.6, 72.3], [64.5, 60.9, 94.0, 56.4, 65.4]]
    whole = [[8, 1, 1, 13, 7, 7], [10, 5, 1, 45, 7, 6]]
    tables = [tracks.counts(*pair) for pair in sampled()]
    for table, shares, numbers in zip(tables, published, whole, strict=True):
        got = tracks.scores(table.sum())
        np.testing.assert_allclose(100 * got[columns].to_numpy(float), shares, atol=0.0501)
        names = ["identities", "kept", "lost", "alarms", "switches", "fragments"]
        assert table.sum()[names].tolist() == numbers
    both = tracks.scores(pd.concat(tables).sum())[["DetA", "AssA", "HOTA"]]
    np.testing.assert_allclose(100 * both.to_numpy(float), [39.8, 41.2, 40.0], atol=0.0501)


def wandering(seed: int) -> tuple[Tracks, Tracks]:
    """Six objects, and a tracker that misses, renames and sees what is not there."""
    random, truth, found = np.random.default_rng(seed), [], []
    for k in range(6):
        at, speed, name = random.uniform(0, 60, 2), random.normal(0, 1, 2), 10 * k
        side = random.uniform(8, 20, 2)
        for time in range(random.integers(0, 10), random.integers(15, 30)):
            at = at + speed
            box = np.concatenate([at, at + side])
            name += random.random() < 0.05
            if random.random() < 0.9:
                truth.append((time, k, *box))
            if random.random() < 0.8:
                found.append((time, name, *(box + random.normal(0, 1.5, 4))))
    for k in range(20):
        at = random.uniform(0, 60, 2)
        found.append((random.integers(0, 30), 100 + k, *at, *(at + 10)))
    made = []
    for rows in (np.array(truth), np.array(found)):
        made.append(Tracks(np.zeros(len(rows), int), *rows[:, :2].astype(int).T, rows[:, 2:]))
    return made[0], made[1]


def laid_out(truth: Tracks, found: Tracks) -> dict:
    """As TrackEval wants it."""
    times = np.unique(np.concatenate([truth.frame, found.frame]))
    parts = [np.unique(t.identity, return_inverse=True) for t in (truth, found)]
    at = [[np.flatnonzero(t.frame == time) for time in times] for t in (truth, found)]
    return {
        "num_timesteps": len(times),
        "num_gt_ids": len(parts[0][0]),
        "num_tracker_ids": len(parts[1][0]),
        "num_gt_dets": len(truth.frame),
        "num_tracker_dets": len(found.frame),
        "gt_ids": [parts[0][1][a] for a in at[0]],
        "tracker_ids": [parts[1][1][a] for a in at[1]],
        "similarity_scores": [
            tracks.iou(truth.boxes[a], found.boxes[b]) for a, b in zip(*at, strict=True)
        ],
    }


@pytest.mark.parametrize("seed", range(8))
def test_as_trackeval_counts(seed):
    """All but fragments: TrackEval also counts those of objects that were not there."""
    metrics = pytest.importorskip("trackeval").metrics
    pair = wandering(seed)
    data, got = laid_out(*pair), judged(*pair)
    theirs = metrics.HOTA().eval_sequence(data)
    for name in ("HOTA", "DetA", "AssA"):
        assert got[name] == pytest.approx(theirs[name].mean())
    clear = metrics.CLEAR({"PRINT_CONFIG": False}).eval_sequence(data)
    for ours, name in (("MOTA", "MOTA"), ("MOTP", "MOTP"), ("switches", "IDSW")):
        assert got[ours] == pytest.approx(clear[name])
    same = metrics.Identity({"PRINT_CONFIG": False}).eval_sequence(data)
    assert pytest.approx(same["IDF1"]) == got.IDF1
