"""Boxes that a detector finds, beside those that are there.

Objects come as two tensors, padded: classes, int64 (pictures, objects), -1 where there is none; and
boxes, float32 (pictures, objects, 4), x0, y0, x1, y1 in pixels.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_iou


class Detections(NamedTuple):
    """What a detector finds in each of n pictures, the surest first, as many in each.

    boxes: float32 (n, found, 4), x0, y0, x1, y1 in pixels.
    scores: float32 (n, found), in [0, 1], falling.
    classes: int64 (n, found).
    """

    boxes: Tensor
    scores: Tensor
    classes: Tensor


class Matches(NamedTuple):
    """Which detections found which objects.

    scores: float32 (n, objects), of the detection that found the object; 0 where none did.
    overlaps: float32 (n, objects), its intersection over union (IoU) with the object; 0 where none.
    right: bool (n, found), whether a detection found an object.
    which: int64 (n, objects), the detection that found the object; -1 where none did.
    """

    scores: Tensor
    overlaps: Tensor
    right: Tensor
    which: Tensor


def match(found: Detections, classes: Tensor, boxes: Tensor, overlap: float = 0.5) -> Matches:
    """Give each object at most one detection, as COCO does (Lin et al., ECCV 2014).

    The surest detection chooses first: of the objects of its class that are still free, the one
    with which its IoU is highest, if that is `overlap` or more. So what a threshold above some
    score would leave can be read off: of all the pairs those with that score or more.
    """
    if not 0 < overlap <= 1:
        raise ValueError(f"overlap is {overlap}, but must lie in (0, 1]")
    scores, overlaps = torch.zeros(classes.shape), torch.zeros(classes.shape)
    right = torch.zeros(found.scores.shape, dtype=torch.bool)
    which = torch.full(classes.shape, -1)
    iou = torch.stack([box_iou(*pair) for pair in zip(found.boxes, boxes, strict=True)])
    iou[found.classes.unsqueeze(2) != classes.unsqueeze(1)] = 0  # (n, found, objects)
    for i in range(iou.shape[1] if classes.shape[1] else 0):
        best, at = iou[:, i].max(dim=1)
        hit = (best >= overlap).nonzero().squeeze(1)
        at = at[hit]
        scores[hit, at], overlaps[hit, at] = found.scores[hit, i], best[hit]
        right[hit, i] = True
        which[hit, at] = i
        iou[hit, :, at] = 0  # no longer free
    return Matches(scores, overlaps, right, which)


def best_threshold(found: Detections, right: Tensor, objects: int) -> float:
    """The score from which on detections should count: the one with the highest F1.

    right: bool (n, found), of `match`. objects: how many there are to be found in all.
    Choose it on valid.
    """
    scores, order = found.scores.flatten().sort(descending=True, stable=True)
    hits = right.flatten()[order].cumsum(0)
    # 2 · precision · recall / (precision + recall), for every number of detections that count
    f1 = 2 * hits / (torch.arange(1, len(hits) + 1) + objects)
    f1[:-1][scores[1:] == scores[:-1]] = 0  # equal scores count together
    return float(scores[f1.argmax()])


def precision_recall(
    found: Detections, matches: Matches, classes: Tensor, threshold: float
) -> tuple[float, float]:
    """The share of the detections with that score or more that are right, and that of the objects
    that they find. Without such detections the precision is 0.
    """
    counted, there = found.scores >= threshold, classes >= 0
    precision = (matches.right & counted).sum() / counted.sum().clamp(min=1)
    recall = ((matches.scores >= threshold) & (matches.overlaps > 0))[there].float().mean()
    return float(precision), float(recall)


def average_precision(
    found: Detections, classes: Tensor, boxes: Tensor, scale: float = 1.0
) -> dict[str, float]:
    """COCO's average precision (Lin et al., ECCV 2014), in [0, 1], by torchmetrics.

    mAP: mean over the classes and over ten overlaps from 0.5 to 0.95. AP50: at an overlap of 0.5.
    AP small, AP medium, AP large: mAP for objects of less than 32², less than 96² and more pixels,
    of a picture enlarged `scale` times; NaN where there are none of that size.
    """
    metric = MeanAveragePrecision(backend="faster_coco_eval")
    metric.warn_on_many_detections = False
    there = classes >= 0
    metric.update(
        [{"boxes": scale * b, "scores": s, "labels": c} for b, s, c in zip(*found, strict=True)],
        [
            {"boxes": scale * b[t], "labels": c[t]}
            for b, c, t in zip(boxes, classes, there, strict=True)
        ],
    )
    values = {name: float(value) for name, value in metric.compute().items() if value.dim() == 0}
    names = {"mAP": "map", "AP50": "map_50"}
    names |= {f"AP {size}": f"map_{size}" for size in ("small", "medium", "large")}
    return {ours: values[name] if values[name] >= 0 else math.nan for ours, name in names.items()}
