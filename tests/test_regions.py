"""Regions against regions: by hand, and as in torchmetrics."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.segmentation import MeanIoU

from pruninglib.measure.regions import boundary_ious, ious, outline, thin


def picture(*rows):
    """Labels (1, height, width) of lines of figures."""
    return torch.tensor([[[int(figure) for figure in row] for row in rows]])


def test_iou_of_each_class_by_hand():
    labels = picture("0011", "0011", "2222")
    found = picture("0111", "0011", "2200")
    # 0: 3 of 6; 1: 4 of 5; 2: 2 of 4
    assert ious(found, labels, 3) == pytest.approx([3 / 6, 4 / 5, 2 / 4])


def test_all_pictures_are_counted_together():
    labels = torch.cat([picture("0111"), picture("0001")])
    found = torch.cat([picture("0111"), picture("0000")])
    assert ious(found, labels, 2) == pytest.approx([4 / 5, 3 / 4])


def test_a_class_that_is_nowhere_has_no_iou():
    labels, found = picture("00", "01"), picture("00", "00")
    values = ious(found, labels, 4)
    assert values[1] == 0 and math.isnan(values[2]) and math.isnan(values[3])
    values = boundary_ious(found, labels, 3)
    assert values[1] == 0 and math.isnan(values[2])


def test_labels_may_be_bytes():
    labels, found = picture("012", "210").to(torch.uint8), picture("002", "210").to(torch.uint8)
    assert ious(found, labels, 3) == pytest.approx([2 / 3, 1 / 2, 1])
    assert boundary_ious(found, labels, 3) == pytest.approx([2 / 3, 1 / 2, 1])


SQUARE = picture("0000000", "0111110", "0111110", "0111110", "0111110", "0111110", "0000000") == 1


def test_the_outline_of_a_square():
    ring = picture("0000000", "0111110", "0100010", "0100010", "0100010", "0111110", "0000000") == 1
    assert outline(SQUARE).equal(ring)
    middle = picture("0000000", "0000000", "0000000", "0001000", "0000000", "0000000", "0000000")
    assert (SQUARE & ~outline(SQUARE, 2)).equal(middle == 1)
    assert outline(SQUARE, 3).equal(SQUARE)


def test_what_is_beyond_the_picture_is_outside():
    whole = torch.ones(1, 4, 5, dtype=torch.bool)
    assert outline(whole)[0].int().tolist() == [[1] * 5, [1, 0, 0, 0, 1], [1, 0, 0, 0, 1], [1] * 5]


def test_corners_are_neighbours():
    notched = picture("000000", "011110", "011110", "011100", "011110", "000000") == 1
    assert outline(notched)[0, 2, 3] and not outline(notched)[0, 2, 2]


def test_boundary_iou_by_hand():
    """A square of 5×5 that is found one pixel too far right: of the outlines, 16 pixels each, 8 are
    one; of the squares 20 of 30.
    """
    labels, found = torch.zeros(2, 1, 9, 9, dtype=torch.int64)
    labels[0, 2:7, 2:7] = 1
    found[0, 2:7, 3:8] = 1
    both = int((outline(labels == 1) & outline(found == 1)).sum())
    assert both == 8
    assert boundary_ious(found, labels, 2)[1] == pytest.approx(8 / 24)
    assert ious(found, labels, 2)[1] == pytest.approx(20 / 30)
    assert boundary_ious(found, labels, 2, 3)[1] == pytest.approx(20 / 30)


def test_what_is_thin_is_all_outline():
    labels, found = picture("00000", "01110", "00000"), picture("00000", "00111", "00000")
    assert boundary_ious(found, labels, 2)[1] == ious(found, labels, 2)[1] == 0.5


def test_thin_parts():
    shape = (
        picture("0000000", "0111000", "0111110", "0111000", "0000000", "0110000", "0110000") == 1
    )
    only = picture("0000000", "0000000", "0000110", "0000000", "0000000", "0110000", "0110000") == 1
    assert thin(shape).equal(only)
    assert thin(SQUARE).sum() == 0 and thin(SQUARE, 2).sum() == 0 and thin(SQUARE, 3).equal(SQUARE)


@pytest.mark.parametrize("measure", [outline, thin])
def test_a_distance_of_nothing_is_refused(measure):
    with pytest.raises(ValueError, match="distance is 0, but must be 1 or more"):
        measure(SQUARE, 0)


def by_hand(region, distance):
    """Pixels of it of which something within reach is not."""
    _, height, width = region.shape
    found = torch.zeros_like(region)
    for y in range(height):
        for x in range(width):
            reach = [
                0 <= y + v < height and 0 <= x + h < width and bool(region[0, y + v, x + h])
                for v in range(-distance, distance + 1)
                for h in range(-distance, distance + 1)
            ]
            found[0, y, x] = region[0, y, x] and not all(reach)
    return found


@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(3, 8), st.integers(3, 8))
def test_outlines_of_anything(seed, distance, height, width):
    generator = torch.Generator().manual_seed(seed)
    region = torch.rand(1, height, width, generator=generator) > 0.2
    assert outline(region, distance).equal(by_hand(region, distance))
    # a square of the region covers what is not thin
    inner = region & ~outline(region, distance)
    covered = torch.zeros_like(region)
    for _, y, x in inner.nonzero().tolist():
        covered[0, y - distance : y + distance + 1, x - distance : x + distance + 1] = True
    assert thin(region, distance).equal(region & ~covered)


def test_the_mean_over_one_picture_is_that_of_torchmetrics():
    labels = torch.randint(0, 3, (1, 20, 20), generator=torch.Generator().manual_seed(0))
    found = labels.where(torch.rand(1, 20, 20, generator=torch.Generator().manual_seed(1)) > 0.3, 1)
    known = MeanIoU(3, per_class=True, input_format="index")(found, labels)
    assert ious(found, labels, 3) == pytest.approx(known.flatten().tolist())
