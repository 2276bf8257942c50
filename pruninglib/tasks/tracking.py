"""A tracker of boxes: it gives what a detector finds in the frames of a sequence identities.

A constant-velocity Kalman filter predicts where each track is in the next frame, and the assignment of
least cost gives it a box there (SORT: Bewley et al., ICIP 2016). Boxes of low scores may go to those
that got none (ByteTrack: Zhang et al., ECCV 2022).
"""

from typing import NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..measure.boxes import Detections
from ..measure.tracks import Tracks, iou
from .motion import driven, sequences
from .scenes import Scenes

NOISE = 1.0  # pixels², variance of where a detector places a box
UNREST = 0.05  # pixels² a frame⁴, variance of what a velocity changes by in a frame
UNKNOWN = 4.0  # pixels² a frame², variance of a velocity before it was seen


MOVING = {"valid": 16, "test": 24}  # sequences of 40 frames


def moving(data: str = "bundled") -> dict[str, Scenes]:
    """Scenes in motion of splits valid and test (lesson 10), for the detectors of `detection()`.

    data: "bundled", generated motion: 16 and 24 sequences of 40 frames, 64×64 pixels; or "full", the
        same digits moved as KITTI's objects did: 7 and 14 sequences of up to 120 frames, 64×216.
    """
    if data == "bundled":
        return {split: sequences(split, number, 40) for split, number in MOVING.items()}
    if data == "full":
        return {split: driven(split) for split in MOVING}
    raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")


class Filter(NamedTuple):
    """Constant-velocity Kalman filters of n tracks, for x, y, width and height each on its own.

    at, speed: float64 (n, 4), pixels and pixels a frame.
    spread: float64 (n, 3), variance of `at`, covariance of both, variance of `speed`; the same for
        the four, for they are seen equally often.
    """

    at: np.ndarray
    speed: np.ndarray
    spread: np.ndarray

    @classmethod
    def begun(cls, seen: np.ndarray) -> "Filter":
        """From the first box of each, as (n, 4) of middle, width and height."""
        return cls(seen.copy(), 0 * seen, np.tile([NOISE, 0.0, UNKNOWN], (len(seen), 1)))

    def predicted(self) -> "Filter":
        """A frame later: at + speed, less sure."""
        a, b, c = self.spread.T
        later = np.stack([a + 2 * b + c + UNREST / 4, b + c + UNREST / 2, c + UNREST], axis=1)
        return Filter(self.at + self.speed, self.speed, later)

    def updated(self, rows: np.ndarray, seen: np.ndarray) -> "Filter":
        """After those rows have got a box: part of the surprise goes to `at`, part to `speed`."""
        a, b, c = self.spread[rows].T
        gain, pull = a / (a + NOISE), b / (a + NOISE)
        surprise = seen - self.at[rows]
        at, speed, spread = (part.copy() for part in self)
        at[rows] += gain[:, None] * surprise
        speed[rows] += pull[:, None] * surprise
        spread[rows] = np.stack([(1 - gain) * a, (1 - gain) * b, c - pull * b], axis=1)
        return Filter(at, speed, spread)


def as_middles(boxes: np.ndarray) -> np.ndarray:
    """Middle, width and height of boxes x0, y0, x1, y1, (n, 4) each."""
    low, high = boxes[:, :2], boxes[:, 2:]
    return np.hstack([(low + high) / 2, high - low])


def as_boxes(middles: np.ndarray) -> np.ndarray:
    middle, sides = middles[:, :2], middles[:, 2:]
    return np.hstack([middle - sides / 2, middle + sides / 2])


def assign(fit: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of rows and columns with the largest sum of `fit`, without those below `least`."""
    rows, columns = linear_sum_assignment(-np.where(fit >= least, fit, 0))
    right = fit[rows, columns] >= least
    return rows[right], columns[right]


class Tracker:
    """Of several sequences at a time, each on its own; `step` takes a frame of each.

    Choose on valid, for each detector:
    least: score from which on a box may begin a track, and is given to tracks first.
    low: score from which on a box may go to a track that got no other; None: there is no second round.
    overlap: the least IoU of a box with where a track is predicted.
    births: boxes in a row before a track is shown; one that misses a frame before is dropped.
    patience: frames that a shown track is kept without a box.
    shown: of these the first ones, in which it is shown where it is predicted.
    """

    def __init__(
        self,
        least: float,
        low: float | None = None,
        overlap: float = 0.2,
        births: int = 1,
        patience: int = 6,
        shown: int = 1,
    ):
        if low is not None and low > least:
            raise ValueError(f"low is {low}, but must be at most least, {least}")
        if births < 1 or patience < 0 or not 0 <= shown <= patience:
            raise ValueError(
                f"births, patience and shown are {births}, {patience} and {shown}: "
                "births must be 1 or more, shown from 0 to patience"
            )
        self.least, self.low, self.overlap = least, low, overlap
        self.births, self.patience, self.shown = births, patience, shown
        self.filter = Filter.begun(np.zeros((0, 4)))
        # of each track: its sequence, name, boxes so far, frames since the last one
        self.sequence, self.name, self.boxes, self.since = (np.zeros(0, int) for _ in range(4))
        self.names = 0

    def step(self, boxes: np.ndarray, scores: np.ndarray, sequence: np.ndarray):
        """Boxes (n, 4) of one frame of each sequence, with their scores and the sequence of each.

        Returns sequence, name and box of the tracks that are shown.
        """
        self.filter = self.filter.predicted()
        where = as_boxes(self.filter.at)
        free, sure = np.ones(len(self.name), dtype=bool), scores >= self.least
        # in the second round, only tracks that are shown already and had a box just before
        steady = (self.boxes >= self.births) & (self.since == 0)
        rounds = (
            [(sure, free)]
            if self.low is None
            else [(sure, free), (~sure & (scores >= self.low), steady)]
        )
        rows, columns = [np.zeros(0, int)], [np.zeros(0, int)]
        for part, may in rounds:
            for one in np.unique(sequence[part]):
                tracks = (free & may & (self.sequence == one)).nonzero()[0]
                found = (part & (sequence == one)).nonzero()[0]
                a, b = assign(iou(where[tracks], boxes[found]), self.overlap)
                rows.append(tracks[a])
                columns.append(found[b])
                free[tracks[a]] = False
        rows, columns = np.concatenate(rows), np.concatenate(columns)
        self.filter = self.filter.updated(rows, as_middles(boxes[columns]))
        self.since += 1
        self.since[rows] = 0
        self.boxes[rows] += 1
        new = sure.copy()
        new[columns] = False
        self._begin(boxes[new], sequence[new])
        ripe = self.boxes >= self.births
        self._keep((self.since == 0) | ripe & (self.since <= self.patience))
        show = (self.boxes >= self.births) & (self.since <= self.shown)
        return self.sequence[show], self.name[show], as_boxes(self.filter.at[show])

    def _begin(self, boxes: np.ndarray, sequence: np.ndarray) -> None:
        number = len(boxes)
        begun = Filter.begun(as_middles(boxes))
        self.filter = Filter(*(np.concatenate(p) for p in zip(self.filter, begun, strict=True)))
        self.sequence = np.concatenate([self.sequence, sequence])
        self.name = np.concatenate([self.name, self.names + np.arange(number)])
        self.boxes = np.concatenate([self.boxes, np.ones(number, int)])
        self.since = np.concatenate([self.since, np.zeros(number, int)])
        self.names += number

    def _keep(self, alive: np.ndarray) -> None:
        self.filter = Filter(*(part[alive] for part in self.filter))
        self.sequence, self.name, self.boxes, self.since = (
            part[alive] for part in (self.sequence, self.name, self.boxes, self.since)
        )


def track(found: Detections, moving: Scenes, **settings) -> Tracks:
    """What a `Tracker` with those settings makes of all frames of scenes in motion.

    found: of each frame, as `detect(..., kinds=False)` finds them.
    """
    tracker, rows = Tracker(**settings), []
    boxes, scores = found.boxes.double().numpy(), found.scores.numpy()
    sequence, frame = (part.numpy().astype(int) for part in (moving.sequence, moving.frame))
    floor = tracker.least if tracker.low is None else tracker.low
    for time in range(frame.max() + 1):
        at = (frame == time).nonzero()[0]
        which, place = (scores[at] >= floor).nonzero()
        which = at[which]
        made = tracker.step(boxes[which, place], scores[which, place], sequence[which])
        rows.append((made[0], np.full(len(made[0]), time), *made[1:]))
    tracks = Tracks(*(np.concatenate(part) for part in zip(*rows, strict=True)))
    last = np.zeros(sequence.max() + 1, dtype=int)
    np.maximum.at(last, sequence, frame)
    return tracks.where(tracks.frame <= last[tracks.sequence])  # films differ in length


def truth_of(moving: Scenes) -> tuple[Tracks, np.ndarray]:
    """The objects of scenes in motion as tracks, and which rows of them are to be ignored: those of
    which less than a quarter can be seen.
    """
    scene, place = moving.present.nonzero(as_tuple=True)
    rows = moving.sequence[scene], moving.frame[scene], place, moving.boxes[scene, place]
    truth = Tracks(*(part.numpy().astype(int) for part in rows[:3]), rows[3].double().numpy())
    return truth, ~moving.wanted[scene, place].numpy()
