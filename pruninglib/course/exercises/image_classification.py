"""Exercises of lesson 07 Image classification. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

from .exercise import exercise


def _judge_precision(answer) -> str | None:
    matrix = torch.tensor([[6, 2, 0], [1, 3, 0], [0, 5, 0]])
    try:
        precision, recall = (float(value) for value in answer(matrix, 1))
    except (TypeError, ValueError):
        return "Return two numbers: precision, recall."
    want = (3 / 10, 3 / 4)
    if (precision, recall) == want[::-1]:
        return (
            "They are swapped: precision first. It divides by the column, all that were called c."
        )
    if max(abs(precision - want[0]), abs(recall - want[1])) > 1e-6:
        if abs(precision - recall) < 1e-6:
            return (
                "You gave the same twice: one divides by the column's sum, the other by the row's."
            )
        return (
            "Of 10 images called 1, 3 are; of 4 that are 1, 3 are called so: 0.3 and 0.75. "
            f"You returned {precision:.4g} and {recall:.4g}."
        )
    got = [float(value) for value in answer(matrix, 2)]
    if got != [0.0, 0.0]:
        return f"Nothing was called 2, so its precision is 0, not {got[0]}: look before you divide."
    if any(float(value) != 0 for value in answer(torch.tensor([[2, 1], [0, 0]]), 1)):
        return "Nothing is a 1 there, so its recall is 0: look before you divide."
    return None


@exercise(
    _judge_precision,
    "`matrix[c, c]` are right. A row's sum says how many are c, a column's how many were called c.",
    "Divide by `max(1, ...)`: where the sum is 0, so is the count above it.",
)
def precision_and_recall(matrix: Tensor, c: int) -> tuple[float, float]:
    right = matrix[c, c].item()
    called, are = matrix[:, c].sum().item(), matrix[c].sum().item()
    return right / max(1, called), right / max(1, are)


def _judge_exemplars(answer) -> str | None:
    dense = torch.tensor(
        [[1, 1, 1, 0, 1, 1], [1, 1, 0, 0, 1, 1], [1, 0, 1, 0, 1, 0], [1, 1, 1, 1, 1, 0]]
    )
    pruned = torch.tensor(
        [[0, 0, 0, 0, 1, 0], [0, 1, 0, 0, 1, 0], [1, 0, 0, 0, 1, 1], [0, 0, 0, 1, 0, 0]]
    )
    dense, pruned = dense.bool(), pruned.bool()  # image 5: two of four dense are right, not most
    got = answer(dense, pruned)
    got = got.tolist() if isinstance(got, Tensor) else list(got)
    if got == [0, 1, 2]:
        return None
    if len(got) == dense.shape[1]:
        return "Return the positions of the images, not a value for each: `nonzero()` finds them."
    if got == [0, 1, 2, 5]:
        return "Image 5 is right in two of four dense networks: that is half, not more than half."
    if 3 in got:
        return "Image 3 is wrong in most dense networks, too: pruning did not take it away."
    if got == [4]:
        return "Image 4 is right before and after. You want right before, wrong after."
    if not set(got) - {0, 1, 2}:
        return (
            f"Some are missing: you found {got}. The majority counts, not each network with its own pair: "
            "a majority of the dense ones, and apart from it a majority of the pruned."
        )
    return f"Of the six images, 0, 1 and 2 are exemplars; you found {got}."


@exercise(
    _judge_exemplars,
    "The mean over networks, dimension 0, of a bool turned float is the share that is right.",
    "Right in most: share above 0.5. Not right in most: the share is not above 0.5.",
)
def exemplars_of(dense: Tensor, pruned: Tensor) -> Tensor:
    before, after = dense.float().mean(dim=0) > 0.5, pruned.float().mean(dim=0) > 0.5
    return (before & ~after).nonzero().flatten()


def _judge_release(answer) -> str | None:
    ones = torch.ones(100, dtype=torch.bool)
    dense, pruned, few = ones.clone(), ones.clone(), ~ones
    few[:8], pruned[:4] = True, False  # 4 points of all, half of the few
    none = {"none": ~ones}

    def says(*arguments):
        got = answer(*arguments)
        if not isinstance(got, (bool, Tensor)) or (isinstance(got, Tensor) and got.numel() != 1):
            raise TypeError("return one bool, True or False")
        return bool(got)

    if says(dense, dense, {"few": few}, 0.01, 0.01) is False:
        return "A network that loses nothing may go out: is it the wrong way round?"
    if says(dense, pruned, {"few": few}, 0.05, 0.1):
        return (
            "All lose 4 points, but the slice of 8 images loses 50. Divide by the slice's own size."
        )
    if says(dense, pruned, {"few": few, "rest": ~few}, 0.05, 0.1):
        return "One slice above its limit is enough to stop it: look at the worst, not at the mean."
    if says(dense, pruned, {"few": few}, 0.01, 0.9):
        return "All lose 4 points where 1 is allowed: the limit for the whole counts, too."
    if not says(dense, pruned, {"few": few}, 0.05, 0.5):
        return "The slice loses 50 points where 50 are allowed: exactly at the limit is within it."
    if not says(dense, pruned, none, 0.05, 0.1):
        return (
            "A slice without images has no accuracy, so leave it out: the mean of nothing is NaN."
        )
    if not says(~few, ones, {"few": few}, 0.01, 0.01):
        return "Everything got better there. A loss has a sign: dense less pruned."
    if says(few, ~few, {"few": few}, 0.5, 0.5):
        return "Others may gain what a slice loses: compare its accuracy before and after, in the slice."
    return None


@exercise(
    _judge_release,
    "A loss is `dense.float().mean() - pruned.float().mean()`; in a slice, of `dense[part]` and `pruned[part]`.",
    "`all(... for part in slices.values() if part.any())`, and the limit for the whole.",
    "Accuracies are inexact numbers: allow a loss of the limit and 1e-6.",
)
def may_go_out(
    dense: Tensor, pruned: Tensor, slices: dict, limit: float, worst_limit: float
) -> bool:
    def lost(part: Tensor) -> float:
        return (dense[part].float().mean() - pruned[part].float().mean()).item() - 1e-6

    fine = all(lost(part) <= worst_limit for part in slices.values() if part.any())
    return fine and lost(torch.ones_like(dense)) <= limit
