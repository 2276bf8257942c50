"""Exercises of lesson 09 Segmentation. Each: the judge, then the solution it belongs to."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

import pruninglib as pl

from .exercise import example, exercise


def _network(below: int, skip: int, tied: bool) -> nn.Module:
    """A layer, one that reads a concatenation, and a last one; weights of both signs."""
    model = nn.Sequential(
        nn.Conv2d(1, skip, 3), nn.BatchNorm2d(skip), nn.Conv2d(below + skip, 3, 3), nn.Conv2d(3, 2, 1)
    ).eval()  # fmt: skip
    with torch.no_grad():
        for seed, weight in enumerate(pl.weights_of(model).values()):
            values = example(*weight.shape, seed=seed)
            weight.copy_((2 * values).round().clamp(-3, 3) + 0.5 if tied else values)
    return model


def _judge_prune_skip(answer) -> str | None:
    cases = (
        (_network(4, 3, tied=False), 4, 0.5),
        (_network(2, 6, tied=False), 2, 0.9),
        (_network(3, 3, tied=True), 3, 0.3),
        (_network(5, 2, tied=False), 5, 0.25),
    )
    for model, first, sparsity in cases:
        before = copy.deepcopy(model)
        answer(model, "2.weight", first, sparsity)
        problem = _wrong_skip(before, model, first, sparsity)
        if problem:
            return problem
    return None


def _wrong_skip(before: nn.Module, model: nn.Module, first: int, sparsity: float) -> str | None:
    found = dict(model.named_parameters())
    for name, old in before.named_parameters():
        if name != "2.weight" and not old.equal(found[name]):
            return f"{name} changed: only weights of the layer that is named may go."
    old, new = before[2].weight, model[2].weight
    gone = (new == 0) & (old != 0)
    if not gone.any():
        return "No weight became zero: prune the model that is given, in place, not a copy of it, and begin at `first`."
    if (new != old)[~gone].any():
        return "Weights that stay keep their values."
    if gone.flatten(1).all(dim=1).any():
        return "All weights of an output went: the input channels are dimension 1 of the weight."
    if gone[:, :first].any():
        return "Weights went that read what comes from below: only columns from `first` on are read over the skip."
    part = old[:, first:]
    want, count = round(sparsity * part.numel()), int(gone.sum())
    counts = gone.flatten(1).sum(dim=1)
    if abs(count - want) <= len(counts) and len(counts.unique()) == 1 < len(counts):
        return "From each output the same number went: take the smallest of all of them, in one ranking."
    if count != want:
        return f"{want} of the {part.numel()} weights that read the skip should be gone; {count} are. Of equal ones any may stay."
    sizes, out = part.abs(), gone[:, first:]
    if sizes[out].max() <= sizes[~out].min():
        return None
    if part[out].max() <= part[~out].min():
        return "These are the lowest values: compare sizes, without the sign."
    if sizes[out].min() >= sizes[~out].max():
        return "It is the wrong way round: the smallest weights go."
    return "These are not the smallest of all weights that read the skip, in one ranking."


@exercise(
    _judge_prune_skip,
    "`weight[:, first:]` are the weights that read the skip. Which of them are the smallest?",
    "`pl.select({name: weight[:, first:].abs()}, sparsity)` says which stay; make a mask of the whole weight with it.",
)
def prune_skip(model: nn.Module, name: str, first: int, sparsity: float) -> None:
    weight = dict(model.named_parameters())[name]
    mask = torch.ones(weight.shape, dtype=torch.bool)
    mask[:, first:] = pl.select({name: weight.detach()[:, first:].abs()}, sparsity)[name]
    pl.apply(model, {name: mask})


def _region(*rows: str) -> Tensor:
    return torch.tensor([[figure == "#" for figure in row] for row in rows])


_SQUARE = _region("........", *[".#####.."] * 5, "........")
_MOVED = _region("........", *["..#####."] * 5, "........")
_NOTCHED = _region("........", *[".#####.."] * 4, ".####...", "........")
_FULL = torch.ones(4, 6, dtype=torch.bool)


def _judge_outline_iou(answer) -> str | None:
    cases = (
        (_MOVED, _SQUARE, 1, "Take the outline of each, then intersection over union of the outlines, not of the regions."),
        (_SQUARE, _SQUARE, 1, "A region and itself have one outline: 1."),
        (_NOTCHED, _SQUARE, 1, "Corners count: a pixel whose neighbour across the corner is outside lies on the outline."),
        (_MOVED, _SQUARE, 2, "Use the distance that is given: with 2 the outline is two pixels wide."),
        (_FULL, _region("####..", "####..", "####..", "####.."), 1, "What is beyond the picture does not belong to a region: there are outlines along the border."),
        (_region("#..", "...", "..#"), _region("...", ".#.", "..#"), 3, "What is thinner than the distance is all outline, and still counts once."),
        (torch.zeros(3, 4, dtype=torch.bool), torch.zeros(3, 4, dtype=torch.bool), 1, "Neither has an outline: 1."),
        (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool), 2, "Where only one has an outline, nothing is shared: 0."),
    )  # fmt: skip
    for found, labels, distance, advice in cases:
        given = found.clone(), labels.clone()
        want, got = outline_iou.solve(*given, distance), answer(*given, distance)
        if got is None or isinstance(got, str) or np.size(np.asarray(got)) != 1:
            return "Return one number."
        got = float(np.asarray(got).reshape(()))
        if not (given[0].equal(found) and given[1].equal(labels)):
            return "You changed what was given: work on copies."
        if not math.isclose(got, want, abs_tol=1e-6):
            shapes = "×".join(map(str, found.shape))
            return f"{advice} For a picture of {shapes} and a distance of {distance} it is {want:.4f}, not {got:.4f}."
    return None


@exercise(
    _judge_outline_iou,
    "Which pixels are *not* on the outline? Those around which a whole square of 2 · distance + 1 pixels belongs to the region.",
    "`pl.regions.outline(region[None], distance)` is bool; then `(a & b).sum() / (a | b).sum()`, if the union is not empty.",
)
def outline_iou(found: Tensor, labels: Tensor, distance: int) -> float:
    one, other = (pl.regions.outline(region[None], distance) for region in (found, labels))
    union = int((one | other).sum())
    return int((one & other).sum()) / union if union else 1.0


def _judge_columns_left(answer) -> str | None:
    cases = (
        ([8, 8], {1: [0, 3]}, "Channel 3 of the second part is read at 8 + 3."),
        ([2, 5, 3], {1: [4, 0], 2: [2]}, "Each part begins where those before it end: with sizes 2, 5, 3 at 0, 2 and 7."),
        ([4, 2], {0: [1, 2]}, "A channel of the first part has the same number in the layer."),
        ([3, 3], {}, "Nothing goes: all columns stay."),
        ([3, 1, 4], {0: [0], 1: [0], 2: [3, 1]}, "A part may lose all of its channels."),
        ([2, 2, 2], {2: [0, 1, 0]}, "A channel that is named twice goes once."),
    )  # fmt: skip
    for sizes, removed, advice in cases:
        want = columns_left.solve(list(sizes), copy.deepcopy(removed))
        got = answer(list(sizes), copy.deepcopy(removed))
        if isinstance(got, (list, tuple)):
            got = [v.item() if isinstance(v, (Tensor, np.generic)) else v for v in got]
        values = np.asarray(got)
        if values.ndim != 1 or (values.size and values.dtype.kind not in "iu"):
            return "Return a list of whole numbers: the input channels that stay."
        if sorted(values.tolist()) == want and values.tolist() != want:
            return "Return them in order."
        if values.tolist() != want:
            return (
                f"{advice} For sizes {sizes} and {removed} right is {want}, not {values.tolist()}."
            )
    return None


@exercise(
    _judge_columns_left,
    "Part number p begins at `sum(sizes[:p])`.",
    "Collect the columns that go, `sum(sizes[:p]) + channel`, and keep the others of `range(sum(sizes))`.",
)
def columns_left(sizes: list[int], removed: dict[int, list[int]]) -> list[int]:
    gone = {sum(sizes[:part]) + channel for part, some in removed.items() for channel in some}
    return [column for column in range(sum(sizes)) if column not in gone]
