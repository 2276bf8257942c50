"""Tracks: MOTA, IDF1 and HOTA by hand, as published, and as TrackEval counts where it is installed;
the tracker; KITTI's tracks.
"""

import collections
import itertools
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import linear_sum_assignment

import pruninglib as pl
from pruninglib.measure import tracks
from pruninglib.measure.boxes import Detections
from pruninglib.measure.tracks import Tracks
from pruninglib.tasks import datasets, motion
from pruninglib.tasks.tracking import NOISE, UNKNOWN, UNREST, Filter, Tracker, assign

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


def test_before_the_first_hit_there_is_no_gap():
    truth = drawn(*((t, 0, 0) for t in range(4)))
    got = judged(truth, truth.where(truth.frame > 1))
    assert (got.hits, got.fragments, got.switches) == (2, 0, 0)


def test_precision_and_recall_part_with_false_alarms():
    truth = drawn(*((t, 0, 0) for t in range(4)))
    got = judged(truth, drawn((0, 0, 0), (1, 0, 0), (2, 0, 0), (0, 1, 90), (1, 1, 90)))
    assert (got.precision, got.recall) == (3 / 5, 3 / 4)
    assert pytest.approx(2 * 3 / 9) == got.F1


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
    truth = drawn(*((t, 0, 0) for t in range(10)))
    ends = [
        judged(truth, truth.where(truth.frame < n))[["kept", "lost"]].tolist() for n in (1, 2, 7, 8)
    ]
    assert ends == [[0, 1], [0, 0], [0, 0], [1, 0]]


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
    half = tracks.counts(truth, truth.where(truth.sequence % 2 > 0))  # of each all, or nothing
    got = tracks.over_sequences(half, of=lambda s: s.recall)
    assert 0.1 < got.low < 0.35 and 0.65 < got.high < 0.9
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


def hota(truth: Tracks, found: Tracks) -> float:
    """In plain loops, after the paper: pairs for each frame, then what each hit's identities share."""
    frames = sorted({*truth.frame, *found.frame})
    rows = [[np.flatnonzero(t.frame == time) for t in (truth, found)] for time in frames]
    fits = [tracks.iou(truth.boxes[a], found.boxes[b]) for a, b in rows]
    names = [
        [t.identity[r].tolist() for t, r in zip((truth, found), pair, strict=True)] for pair in rows
    ]
    lives = [collections.Counter(t.identity.tolist()) for t in (truth, found)]
    shared = collections.Counter()
    for (mine, theirs), fit in zip(names, fits, strict=True):
        for i, j in itertools.product(range(len(mine)), range(len(theirs))):
            if fit[i, j] > 0:
                either = fit[:, j].sum() + fit[i].sum() - fit[i, j]
                shared[mine[i], theirs[j]] += fit[i, j] / either
    values = []
    for alpha in tracks.ALPHAS:
        together = collections.Counter()
        for (mine, theirs), fit in zip(names, fits, strict=True):
            worth = np.zeros(fit.shape)
            for i, j in itertools.product(range(len(mine)), range(len(theirs))):
                both = shared[mine[i], theirs[j]]
                worth[i, j] = both / (lives[0][mine[i]] + lives[1][theirs[j]] - both) * fit[i, j]
            for i, j in zip(*linear_sum_assignment(worth, maximize=True), strict=True):
                together[mine[i], theirs[j]] += fit[i, j] >= alpha
        hits = sum(together.values())
        agree = sum(n * n / (lives[0][a] + lives[1][b] - n) for (a, b), n in together.items())
        values.append(np.sqrt(agree / (len(truth.frame) + len(found.frame) - hits)))
    return float(np.mean(values))


def rivals(seed: int) -> tuple[Tracks, Tracks]:
    """Two objects beside one another, for each of which two tracks contend."""
    random, truth, found = np.random.default_rng(seed), [], []
    for time, k in itertools.product(range(12), range(2)):
        truth.append((time, k, 12 * k, 0))
        for name, often in ((2 * k, 0.5), (2 * k + 1, 0.9)):
            if random.random() < often:
                found.append((time, name, *(np.array([12 * k, 0]) + random.normal(0, 2.5, 2))))
    return drawn(*truth), drawn(*found)


@pytest.mark.parametrize("seed", range(6))
def test_hota_is_that_of_plain_loops(seed):
    pair = rivals(seed)
    assert pytest.approx(hota(*pair)) == judged(*pair).HOTA


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


# ---- the tracker ----


def test_the_filter_is_kalmans():
    """Of value and velocity, as matrices, over random boxes and gaps."""
    random, F, H = np.random.default_rng(0), np.array([[1.0, 1], [0, 1]]), np.array([[1.0, 0]])
    Q = UNREST * np.array([[1 / 4, 1 / 2], [1 / 2, 1]])
    first = random.normal(size=(1, 4))
    ours, s, P = Filter.begun(first), np.stack([first[0], np.zeros(4)]), np.diag([NOISE, UNKNOWN])
    for _ in range(20):
        ours, s, P = ours.predicted(), F @ s, F @ P @ F.T + Q
        if random.random() < 0.6:
            z = random.normal(size=(1, 4))
            K = P @ H.T / (H @ P @ H.T + NOISE)
            s, P = s + K @ (z - H @ s), P - K @ H @ P
            ours = ours.updated(np.array([0]), z)
        np.testing.assert_allclose([ours.at[0], ours.speed[0]], s)
        np.testing.assert_allclose(ours.spread[0], [P[0, 0], P[0, 1], P[1, 1]])


def test_the_assignment_has_the_largest_sum_and_leaves_out_what_hardly_fits():
    fit = np.array([[0.6, 0.5], [0.5, 0.1], [0.25, 0.0]])
    rows, columns = assign(fit, 0.3)  # 0.5 + 0.5 is more than 0.6 + 0.1
    assert (rows.tolist(), columns.tolist()) == ([0, 1], [1, 0])
    assert assign(fit, 0.55)[0].tolist() == [0]
    assert [len(part) for part in assign(np.zeros((0, 3)), 0.3)] == [0, 0]


def played(frames: list[list[tuple]], **settings) -> list[list[int]]:
    """The names shown in each frame; a frame is a list of (x, score)."""
    tracker, shown = Tracker(**settings), []
    for boxes in frames:
        at = np.array([[x, 0, x, 0] for x, _ in boxes], dtype=float).reshape(-1, 4) + BOX
        scores = np.array([score for _, score in boxes])
        shown.append(tracker.step(at, scores, np.zeros(len(boxes), int))[1].tolist())
    return shown


STEADY = [[(2 * t, 0.9)] for t in range(10)]


def blinking(*missed: int, score: float | None = None) -> list[list[tuple]]:
    """An object that moves; in those frames nothing is found, or a box of another score."""
    return [([(2 * t, score)] if score else []) if t in missed else STEADY[t] for t in range(10)]


def test_a_track_is_kept_and_shown_for_a_while_without_boxes():
    assert played(STEADY, least=0.5) == [[0]] * 10
    assert played(blinking(4, 5), least=0.5, shown=0) == [[0]] * 4 + [[]] * 2 + [[0]] * 4
    assert played(blinking(4, 5), least=0.5, shown=1) == [[0]] * 5 + [[]] + [[0]] * 4
    assert played(blinking(4, 5), least=0.5, shown=2) == [[0]] * 10
    assert played(blinking(4, 5), least=0.5, shown=0, patience=1)[-1] == [1]
    assert played(blinking(4, 5), least=0.5, shown=0, patience=2)[-1] == [0]


def test_what_is_seen_once_is_not_shown():
    frames = [[(0, 0.9), (100, 0.9)], [(0, 0.9)], [(0, 0.9), (100, 0.9)], [(0, 0.9), (100, 0.9)]]
    assert played(frames, least=0.5, births=2, shown=0) == [[], [0], [0], [0, 2]]
    assert played(frames, least=0.5, births=1, shown=0) == [[0, 1], [0], [0, 1], [0, 1]]


def test_boxes_of_low_scores_go_on_but_begin_nothing():
    low = blinking(4, 5, 6, score=0.3)
    assert played(low, least=0.5, shown=0)[4:7] == [[]] * 3
    assert played(low, least=0.5, low=0.2, shown=0) == [[0]] * 10
    assert played(low, least=0.5, low=0.4, shown=0)[4:7] == [[]] * 3
    assert played([[(0, 0.3)]] * 5, least=0.5, low=0.2) == [[]] * 5
    # nor do they wake a track that had no box just before
    gap = [[(0, 0.9)], [], [(0, 0.3)], [(0, 0.9)]]
    assert played(gap, least=0.5, low=0.2, shown=0) == [[0], [], [], [0]]


def test_a_low_box_is_not_taken_before_a_sure_one():
    frames = [[(0, 0.9)], [(0, 0.3), (2, 0.9)]]
    assert played(frames, least=0.5, low=0.2) == [[0], [0]]


def test_a_track_gets_one_box_in_a_frame():
    at = np.array([[[0, 0, 10, 10], [2, 0, 12, 10]]] * 2, dtype=float)
    shown = []
    for low in (None, 0.2):
        tracker = Tracker(least=0.5, low=low)
        for boxes in at:
            got = tracker.step(boxes, np.array([0.9, 0.3]), np.zeros(2, int))
        shown.append(got[2])
    np.testing.assert_array_equal(*shown)


def test_a_box_goes_on_no_track_of_another_sequence():
    tracker, box = Tracker(least=0.5), BOX[None]
    tracker.step(box, np.array([0.9]), np.array([0]))
    sequence, names, _ = tracker.step(box, np.array([0.9]), np.array([1]))
    assert sorted(zip(sequence.tolist(), names.tolist(), strict=True)) == [(0, 0), (1, 1)]


def in_motion(number: int = 3, frames: int = 12) -> tuple[pl.tasks.scenes.Scenes, Detections]:
    """Scenes, and a detector that finds all that is wanted, and no more."""
    scenes = motion.sequences("valid", number, frames)
    boxes, kinds = scenes.boxes.float(), torch.zeros(scenes.wanted.shape, dtype=torch.long)
    return scenes, Detections(boxes, scenes.wanted.float(), kinds)


def test_a_perfect_detector_is_tracked_well_and_films_are_told_apart():
    scenes, found = in_motion()
    objects, ignored = pl.truth_of(scenes)
    whole = pl.track(found, scenes, least=0.5, shown=0, overlap=0.1)
    got = tracks.scores(tracks.counts(objects, whole, ignored).sum())
    assert got.precision > 0.95 and got.recall > 0.95 and got.IDF1 > 0.9 and got.HOTA > 0.8
    one = scenes.sequence == 1
    parts = {name: getattr(scenes, name)[one] for name in scenes.__dataclass_fields__}
    alone = pl.track(
        Detections(*(p[one] for p in found)), type(scenes)(**parts), least=0.5, shown=0, overlap=0.1
    )
    again = whole.where(whole.sequence == 1)
    np.testing.assert_allclose(alone.boxes, again.boxes)
    np.testing.assert_array_equal(
        *(np.unique(t.identity, return_inverse=True)[1] for t in (alone, again))
    )


def test_no_track_is_shown_after_the_end_of_its_film():
    scenes, found = in_motion()
    rows = (scenes.sequence != 1) | (scenes.frame < 10)
    parts = {name: getattr(scenes, name)[rows] for name in scenes.__dataclass_fields__}
    settings = {"least": 0.5, "shown": 2}
    short = pl.track(Detections(*(p[rows] for p in found)), type(scenes)(**parts), **settings)
    whole = pl.track(found, scenes, **settings)
    assert short.frame[short.sequence == 1].max() == 9
    for part in ("frame", "boxes"):
        early = getattr(whole, part)[(whole.sequence == 1) & (whole.frame < 10)]
        np.testing.assert_array_equal(getattr(short, part)[short.sequence == 1], early)


def test_a_detector_that_does_not_ask_for_classes_finds_each_place_once():
    task = pl.detection(pictures=4)
    network, images = task.build(0), task.splits["test"][0][:3]
    every, once = pl.detect(network, images, 256 * 10), pl.detect(network, images, 256, kinds=False)
    for i in range(3):
        sums = {}
        for box, score in zip(every.boxes[i].tolist(), every.scores[i].tolist(), strict=True):
            sums[tuple(box)] = sums.get(tuple(box), 0) + score
        for box, score in zip(once.boxes[i].tolist()[:20], once.scores[i].tolist(), strict=False):
            assert sums[tuple(box)] == pytest.approx(score, abs=1e-5)


def test_a_match_says_which_box_found_an_object():
    boxes = torch.tensor([[[0.0, 0, 10, 10], [40, 0, 50, 10], [1, 0, 11, 10]]])
    found = Detections(boxes, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3, dtype=torch.long))
    there = torch.tensor([[[40.0, 0, 50, 10], [0, 0, 10, 10], [90, 0, 99, 9]]])
    assert pl.boxes.match(found, torch.zeros(1, 3), there).which.tolist() == [[1, 0, -1]]


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"least": 0.3, "low": 0.4}, "low is 0.4, but must be at most least, 0.3"),
        ({"least": 0.3, "births": 0}, "births must be 1 or more"),
        ({"least": 0.3, "patience": 1, "shown": 2}, "shown from 0 to patience"),
    ],
)
def test_settings_that_can_not_be(settings, message):
    with pytest.raises(ValueError, match=message):
        Tracker(**settings)


# ---- KITTI ----


def line(frame: int, name: int, kind: str, x: float, y: float, side: float, depth: float) -> str:
    box = f"{x} {y} {x + side} {y + side}"
    return f"{frame} {name} {kind} 0 0 -1.5 {box} 1.5 1.6 3.8 0.0 1.7 {depth} -1.5\n"


@pytest.fixture
def kitti(tmp_path, monkeypatch):
    """An archive as published, of two short films: one for valid and one for test."""
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    path = tmp_path / "kitti-tracking" / "label_02.zip"
    path.parent.mkdir()
    near = [line(t, 0, "Car", 300 + 10 * t, 150, 80, 9.0) for t in range(4)]
    far = [line(t, 1, "Pedestrian", 300, 150, 60, 30.0) for t in range(4)]
    tiny = [line(2, 2, "Cyclist", 900, 150, 20, 60.0), line(2, -1, "DontCare", 0, 0, 50, -1000.0)]
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("training/label_02/0000.txt", "".join(near + far + tiny))
        archive.writestr("training/label_02/0001.txt", "".join(far))
        archive.writestr("readme.txt", "anything")
    monkeypatch.setattr(datasets, "KITTI", ("http://nowhere", datasets._inside(path, "label_02")))
    return path


def test_kittis_tracks_are_read(kitti):
    rows = datasets.kitti_tracks()
    assert len(rows) == 13 and "DontCare" not in set(rows.kind)
    first = rows[(rows.sequence == 0) & (rows.identity == 0) & (rows.frame == 3)].iloc[0]
    assert first[["x0", "y0", "x1", "y1", "depth"]].tolist() == [330, 150, 410, 230, 9]
    assert datasets.available()["kitti-tracking"]


def test_digits_move_as_kittis_objects_did(kitti):
    valid, test = pl.moving("full").values()
    assert valid.images.shape == (4, 1, 64, 216) and len(test.images) == 4
    assert valid.present.sum(0).tolist() == [4, 4]  # the cyclist is too small
    assert valid.sizes[:, 0].tolist() == [14] * 4 and valid.sizes[:, 1].tolist() == [10] * 4
    middle = valid.corners[:, 0, 0] + 7
    np.testing.assert_allclose(middle, [58, 60, 61, 63], atol=1)
    assert (valid.hidden[:, 1] > 0).any() and not (valid.hidden[:, 0] > 0).any()  # who is nearer?
    assert len(set(valid.digits[:, 0].tolist())) == 1


def test_other_tracks_are_refused(kitti):
    with zipfile.ZipFile(kitti, "a") as archive:
        archive.writestr("training/label_02/0002.txt", "")
    with pytest.raises(ValueError, match=r"label_02\.zip is not the published file"):
        datasets.kitti_tracks()
    kitti.write_text("<html>log in</html>")
    with pytest.raises(ValueError, match=r"label_02\.zip is not the published file"):
        datasets.kitti_tracks()


def test_of_what_there_is_no_motion():
    with pytest.raises(ValueError, match="'bundled' or 'full'"):
        pl.moving("both")
    with pytest.raises(ValueError, match="'valid' or 'test'"):
        motion.driven("train")
