"""Exercises of lesson 01 What is pruning. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor, nn

from .exercise import exercise


def _judge_sparsity(answer) -> str | None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(1.0)
        model[0].weight[:2] = 0  # 8 of 12
        model[3].weight[0] = 0  # 3 of 6
        model[0].bias.zero_()  # biases and norms must not count
    got = float(answer(model))
    if abs(got - 11 / 18) < 1e-6:
        return None
    if abs(got - 7 / 18) < 1e-6:
        return "That is the share of weights kept. Sparsity is the share that is zero."
    if abs(got - (8 / 12 + 3 / 6) / 2) < 1e-6:
        return (
            "You averaged over layers; a large layer must count for more. Count, then divide once."
        )
    if abs(got - 14 / 29) < 1e-6:
        return (
            "You counted biases and normalisation too. Count weights with two dimensions or more."
        )
    if got > 1:
        return f"You returned {got:g}: a share lies between 0 and 1, so divide by the number of weights."
    return f"For 11 zeros among 18 weights you returned {got:.4f} instead of {11 / 18:.4f}."


@exercise(
    _judge_sparsity,
    "`model.parameters()` gives weights and biases; weights have `p.dim() >= 2`.",
    "Add up `(p == 0).sum()` over the weights, and `p.numel()`, and divide once at the end.",
)
def sparsity_of(model: nn.Module) -> float:
    weights = [p for p in model.parameters() if p.dim() >= 2]
    zeros = sum(int((w == 0).sum()) for w in weights)
    return zeros / sum(w.numel() for w in weights)


def _judge_mask(answer) -> str | None:
    weight = torch.tensor([[-0.5, 0.1], [0.3, -0.2], [0.2, 0.0]], dtype=torch.float64)
    want = torch.tensor([[True, False], [True, False], [False, False]])
    before = weight.clone()
    got = answer(weight, 0.2)
    if not torch.equal(weight, before):
        return "Your function changed the weight it was given. A mask is a new tensor."
    if not isinstance(got, Tensor) or got.shape != weight.shape:
        return "Return a tensor of the weight's shape: one True or False for each weight."
    if torch.equal(got, weight * want):
        return "That is the pruned weight. Return the mask itself, True or False for each weight."
    if got.dtype != torch.bool:
        return f"Your mask is {got.dtype}. A comparison such as `a > b` gives torch.bool."
    if torch.equal(got, want):
        return None
    if torch.equal(got, ~want) or torch.equal(got, weight.abs() < 0.2):
        return "It is the wrong way round: True means kept."
    if torch.equal(got, weight > 0.2):
        return "Negative weights can be large as well: compare absolute values."
    if torch.equal(got, weight.abs() >= 0.2):
        return "A weight exactly at the threshold must go: use > rather than >=."
    return f"For threshold 0.2 and {weight.tolist()} the mask should be {want.tolist()}."


@exercise(
    _judge_mask,
    "Compare the size of each weight, `weight.abs()`, with the threshold.",
    "`weight.abs() > threshold` is a tensor of True and False.",
)
def mask_from_threshold(weight: Tensor, threshold: float) -> Tensor:
    return weight.abs() > threshold


def _judge_bytes(answer) -> str | None:
    weight = torch.zeros(10, 20)
    weight[3, 4:9] = 1.0
    weight[7, 0] = -1.0
    nonzeros, rows = 6, 10
    want = nonzeros * 8 + (rows + 1) * 4
    got = answer(weight)
    if got == want:
        return None
    if got == nonzeros * 4:
        return "You stored the values, but nobody knows where they belong: add the indices."
    if got == nonzeros * 8:
        return (
            "You stored values and columns. Where does each row begin? That takes rows + 1 numbers."
        )
    if got == want - 4:
        return "Nearly: the last row needs an end, so there are rows + 1 pointers, not rows."
    if got == want / 4:
        return "You counted numbers. Each takes 4 bytes."
    if got == nonzeros * 8 + (weight.shape[1] + 1) * 4:
        return (
            "Those pointers are one per column. Compressed *rows* need one per row, and one more."
        )
    if got == nonzeros * 12:
        return (
            "You stored row and column of each value. Row pointers say the same with fewer numbers."
        )
    if got == weight.numel() * 4:
        return "That is the dense size. Zeros need not be stored at all."
    return f"For 6 nonzeros in 10 rows you returned {got}: values, columns and row pointers make {want}."


@exercise(
    _judge_bytes,
    "Three arrays of 4-byte numbers: the nonzero values, the column of each, and the row pointers.",
    "There are as many columns as values, and `weight.shape[0] + 1` row pointers.",
)
def csr_bytes(weight: Tensor) -> int:
    nonzeros = int(weight.count_nonzero())
    return 4 * (nonzeros + nonzeros + weight.shape[0] + 1)
