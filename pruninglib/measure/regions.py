"""Regions that a network marks in pictures, beside those that are there.

Pictures come as labels, integers (pictures, height, width): the class of each pixel, from 0.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d, pad
from torchmetrics.classification import MulticlassJaccardIndex


def ious(found: Tensor, labels: Tensor, classes: int) -> list[float]:
    """Intersection over union of each class, in [0, 1], by torchmetrics; NaN where it is in neither.

    Pixels of all pictures are counted together, as is usual for the mean IoU: large regions count
    for more, pictures do not count alike.
    """
    metric = MulticlassJaccardIndex(classes, average="none", validate_args=False)
    values = metric(found.flatten().long(), labels.flatten().long()).tolist()
    there = torch.cat([found.unique(), labels.unique()]).tolist()
    return [value if kind in there else math.nan for kind, value in enumerate(values)]


def boundary_ious(found: Tensor, labels: Tensor, classes: int, distance: int = 1) -> list[float]:
    """The same of the regions' outlines alone ("Boundary IoU": Cheng et al., CVPR 2021).

    Of both regions only the pixels count that lie within `distance` pixels of their own outside, as
    `outline` has them. The authors take 2 % of the picture's diagonal for it. A region as thin as
    that is all outline: there both measures are one.
    """
    values = []
    for kind in range(classes):
        one, other = (outline(picture == kind, distance) for picture in (found, labels))
        union = int((one | other).sum())
        values.append(int((one & other).sum()) / union if union else math.nan)
    return values


def outline(regions: Tensor, distance: int = 1) -> Tensor:
    """bool, as `regions` (pictures, height, width): their pixels at most `distance` from outside.

    In steps of a king on a chessboard. What is beyond the picture is outside, as in the authors' code.
    """
    return regions & _fits_nowhere(regions, distance)


def _fits_nowhere(regions: Tensor, distance: int) -> Tensor:
    """bool: the square of that many pixels in each direction does not fit into the region here."""
    if distance < 1:
        raise ValueError(f"distance is {distance}, but must be 1 or more")
    outside = pad((~regions).float(), [distance] * 4, value=1).unsqueeze(1)
    return max_pool2d(outside, 2 * distance + 1, stride=1).squeeze(1).bool()


def thin(regions: Tensor, distance: int = 1) -> Tensor:
    """bool, as `regions`: their pixels that lie in no square of 2 · distance + 1 pixels of them.

    With a distance of 1 that is all that is one or two pixels wide, and tips and corners.
    """
    middles = ~_fits_nowhere(regions, distance)
    squares = max_pool2d(middles.float().unsqueeze(1), 2 * distance + 1, 1, distance).squeeze(1)
    return regions & ~squares.bool()
