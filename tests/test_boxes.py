"""Detections against objects: by hand, and as COCO's own tools count."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pruninglib.measure.boxes import (
    Detections,
    average_precision,
    best_threshold,
    match,
    precision_recall,
)


def of(*rows):
    """Detections in one picture: (x0, y0, x1, y1, score, class) each."""
    table = torch.tensor(rows, dtype=torch.float32).view(1, -1, 6)
    return Detections(table[..., :4], table[..., 4], table[..., 5].long())


def objects(*rows):
    """Objects in one picture: (x0, y0, x1, y1, class) each."""
    table = torch.tensor(rows, dtype=torch.float32).view(1, -1, 5)
    return table[..., 4].long(), table[..., :4]


SQUARE = (0, 0, 10, 10)


def test_an_object_is_found_by_the_surest_detection_of_its_class():
    found = of((*SQUARE, 0.9, 1), (0, 0, 10, 9, 0.8, 0), (*SQUARE, 0.7, 0))
    matches = match(found, *objects((*SQUARE, 0)))
    assert matches.right.tolist() == [[False, True, False]]
    assert matches.scores.tolist() == [[pytest.approx(0.8)]]
    assert matches.overlaps.tolist() == [[pytest.approx(0.9)]]


def test_a_detection_takes_the_free_object_that_it_overlaps_most():
    classes, boxes = objects((*SQUARE, 0), (0, 0, 10, 9, 0), (20, 20, 30, 30, 0))
    found = of((*SQUARE, 0.9, 0), (*SQUARE, 0.5, 0), (*SQUARE, 0.4, 0))
    matches = match(found, classes, boxes)
    assert matches.right.tolist() == [[True, True, False]]
    assert matches.scores.tolist() == [[pytest.approx(0.9), pytest.approx(0.5), 0]]


@pytest.mark.parametrize(("overlap", "right"), [(0.5, True), (0.51, False)])
def test_half_of_the_union_is_enough_and_less_is_not(overlap, right):
    matches = match(of((0, 0, 10, 5, 0.9, 0)), *objects((*SQUARE, 0)), overlap=overlap)
    assert matches.right.item() is right


def test_empty_places_and_other_pictures_match_nothing():
    classes = torch.tensor([[-1, 0], [-1, -1]])
    boxes = torch.zeros(2, 2, 4)
    boxes[0, 1] = torch.tensor(SQUARE)
    one = of((0, 0, 0, 0, 0.9, 0), (*SQUARE, 0.8, 0))
    found = Detections(*(part.repeat(2, *[1] * (part.dim() - 1)) for part in one))
    matches = match(found, classes, boxes)
    assert matches.right.tolist() == [[False, True], [False, False]]


def test_pictures_without_objects_or_detections():
    assert match(of((*SQUARE, 0.9, 0)), *objects()).right.tolist() == [[False]]
    assert match(of(), *objects((*SQUARE, 0))).scores.tolist() == [[0]]


@pytest.mark.parametrize("overlap", [0, 1.1])
def test_an_impossible_overlap_is_refused(overlap):
    with pytest.raises(ValueError, match=f"overlap is {overlap}, but must lie in"):
        match(of((*SQUARE, 0.9, 0)), *objects((*SQUARE, 0)), overlap=overlap)


def scored(scores, right):
    count = len(scores)
    found = Detections(torch.zeros(1, count, 4), torch.tensor([scores]), torch.zeros(1, count))
    return found, torch.tensor([right])


def test_the_threshold_is_that_of_the_highest_f1():
    # F1 with 1, 2, 3, 4 detections and three objects: 1/2, 2/5, 2/3, 4/7
    found, right = scored([0.9, 0.8, 0.7, 0.6], [True, False, True, False])
    assert best_threshold(found, right, 3) == pytest.approx(0.7)


def test_equal_scores_count_together():
    # F1 with one, four and five detections and two objects: 2/3, but 1/3 with its equals; 4/7
    found, right = scored([0.9, 0.9, 0.9, 0.9, 0.5], [True, False, False, False, True])
    assert best_threshold(found, right, 2) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("threshold", "precision", "recall"), [(0.0, 0.5, 1), (0.8, 1, 0.5), (0.95, 0, 0)]
)
def test_precision_and_recall_from_a_threshold_on(threshold, precision, recall):
    classes, boxes = objects((*SQUARE, 0), (20, 20, 30, 30, 1), (0, 0, 0, 0, -1))
    found = of(
        (*SQUARE, 0.9, 0), (20, 20, 30, 30, 0.7, 1), (*SQUARE, 0.6, 1), (50, 50, 60, 60, 0.5, 0)
    )
    matches = match(found, classes, boxes)
    assert precision_recall(found, matches, classes, threshold) == (precision, recall)
    itself = precision_recall(found, matches, classes, float(found.scores[0, 2]))
    assert itself == pytest.approx((2 / 3, 1))  # a score that equals the threshold counts


def test_what_nothing_finds_is_not_found_at_threshold_zero():
    classes, boxes = objects((*SQUARE, 0))
    found = of((50, 50, 60, 60, 0.9, 0))
    assert precision_recall(found, match(found, classes, boxes), classes, 0.0) == (0, 0)


def test_average_precision_by_hand():
    # class 0: right at 0.9, wrong at 0.8, right at 0.6, so the precision is 1 up to a recall of a
    # half and 2/3 from there: (51 · 1 + 50 · 2/3) / 101. Class 1: not found.
    classes, boxes = objects((*SQUARE, 0), (20, 20, 30, 30, 0), (40, 40, 50, 50, 1))
    found = of((*SQUARE, 0.9, 0), (60, 60, 70, 70, 0.8, 0), (20, 20, 30, 30, 0.6, 0))
    values = average_precision(found, classes, boxes)
    assert values["AP50"] == pytest.approx((51 + 50 * 2 / 3) / 101 / 2)
    assert values["mAP"] == pytest.approx(values["AP50"])
    assert values["AP small"] == pytest.approx(values["mAP"])
    assert math.isnan(values["AP medium"]) and math.isnan(values["AP large"])


def test_a_scale_moves_objects_between_the_sizes():
    classes, boxes = objects((*SQUARE, 0))
    values = average_precision(of((*SQUARE, 0.9, 0)), classes, boxes, scale=4)
    assert math.isnan(values["AP small"]) and values["AP medium"] == pytest.approx(1)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_matches_give_the_average_precision_of_cocos_tools(seed):
    """From the matches alone, by COCO's 101 points, for boxes that are near one another."""
    generator = torch.Generator().manual_seed(seed)
    pictures, there, kinds = 3, 4, 2
    corner = torch.randint(0, 12, (pictures, there, 2), generator=generator)
    side = torch.randint(6, 12, (pictures, there, 2), generator=generator)
    boxes = torch.cat([corner, corner + side], dim=2).float()
    classes = torch.randint(-1, kinds, (pictures, there), generator=generator)
    noise = torch.randint(-2, 3, (pictures, there * 2, 4), generator=generator)
    near = boxes.repeat(1, 2, 1) + noise
    scores = torch.rand(pictures, there * 2, generator=generator).sort(descending=True).values
    found = Detections(near, scores, torch.randint(0, kinds, scores.shape, generator=generator))
    if not (classes >= 0).any():
        return
    right = match(found, classes, boxes).right
    precisions = []
    for kind in classes[classes >= 0].unique():
        of_kind = found.classes == kind
        order = found.scores[of_kind].argsort(descending=True)
        hits = right[of_kind][order].cumsum(0).numpy()
        recall = hits / int((classes == kind).sum())
        precision = hits / np.arange(1, len(hits) + 1)
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        # torchmetrics' own points: in float32, so that 3 of 4 objects are less than the 76th
        at = np.searchsorted(recall, torch.linspace(0, 1, 101).tolist(), side="left")
        precisions.append(np.append(highest, 0)[at].mean())
    expected = average_precision(found, classes, boxes)["AP50"]
    assert np.mean(precisions) == pytest.approx(expected, abs=1e-4)
