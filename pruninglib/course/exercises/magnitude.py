"""Exercises of lesson 02 Magnitude pruning. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor, nn

from ...prune.select import keep_highest
from .exercise import example, exercise


def _judge_global(answer) -> str | None:
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([[0.1, 0.2], [0.3, 5.0]])}
    got = answer(scores, 0.5)
    want = 1.0
    if isinstance(got, dict):
        return "Return one number: a global threshold is the same for all layers."
    got = float(got)
    if abs(got - want) < 1e-6:
        return None
    if abs(got - 2.0) < 1e-6:
        return (
            "That is the 5th smallest. To prune 4 of 8, take the 4th, counting from the smallest."
        )
    if abs(got - (2.0 + 0.2) / 2) < 1e-6:
        return "You took each layer's own threshold and averaged. Put all scores in one row first."
    if abs(got - 1.5) < 1e-6:
        return "That lies between two scores. Return the largest score that is pruned."
    return f"Of the scores 0.1, 0.2, 0.3, 1, 2, 3, 4, 5 the 4th smallest is {want}; you returned {got:g}."


@exercise(
    _judge_global,
    "Flatten every tensor and put them in one with `torch.cat`.",
    "With n scores, prune `k = round(sparsity * n)`; `kthvalue(k)` counts from 1.",
)
def global_threshold(scores: dict[str, Tensor], sparsity: float) -> Tensor:
    row = torch.cat([score.flatten() for score in scores.values()])
    return row.kthvalue(round(sparsity * len(row))).values


def _judge_exact(answer) -> str | None:
    tied = torch.tensor([0.0] * 7 + [1.0] * 3)
    for score, k in [(torch.ones(4, 5), 8), (tied, 5), (example(6, 7), 29), (tied, 0), (tied, 10)]:
        got = answer(score, k)
        if not isinstance(got, Tensor) or got.shape != score.shape or got.dtype != torch.bool:
            return f"Return a bool tensor of shape {tuple(score.shape)}, True where the weight is kept."
        pruned = int((~got).sum())
        if pruned == score.numel() - k != k:
            return "It is the wrong way round: True means kept, and k are to be pruned."
        if pruned != k:
            return (
                f"With {score.numel()} scores, {score.unique().numel()} of them different, you pruned "
                f"{pruned} instead of {k}: a threshold can't tell equal scores apart."
            )
        want = keep_highest([score.flatten()], k)[0].view(score.shape)
        if not torch.equal(got, want):
            return (
                "The number is right, but others should go: the lowest, and among equals the first."
            )
    return None


@exercise(
    _judge_exact,
    "Don't compare with a threshold: sort the positions by score and take the first k.",
    "`score.flatten().argsort(stable=True)[:k]`; stable leaves equal scores in their order.",
)
def prune_exactly(score: Tensor, k: int) -> Tensor:
    mask = torch.ones(score.numel(), dtype=torch.bool)
    mask[score.flatten().argsort(stable=True)[:k]] = False
    return mask.view(score.shape)


def _judge_step(answer) -> str | None:
    weight = nn.Parameter(example(8, 8))
    mask = example(8, 8, seed=1) > 0
    optimizer = torch.optim.AdamW([weight], lr=0.1, weight_decay=0.1)
    for _ in range(3):  # a warm optimizer: its averages remember every weight
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        weight.mul_(mask)
    optimizer.zero_grad()
    (weight - 1).square().sum().backward()
    before = weight.detach().clone()
    answer(weight, mask, optimizer)
    revived = int((weight.detach()[~mask] != 0).sum())
    if revived:
        return (
            f"{revived} pruned weights are alive after the step. The optimizer's averages still "
            "move them, even where the gradient is zero. After the step, zero them in place."
        )
    if torch.equal(before[mask], weight.detach()[mask]):
        return "The kept weights did not move: call `optimizer.step()`."
    if not weight.requires_grad:
        return "The weight can't be trained any more: leave requires_grad on."
    return None


@exercise(
    _judge_step,
    "A mask on the gradient alone is not enough: momentum has a memory.",
    "After `optimizer.step()`, under `torch.no_grad()`, multiply the weight by its mask in place.",
)
def masked_step(weight: nn.Parameter, mask: Tensor, optimizer: torch.optim.Optimizer) -> None:
    weight.grad.mul_(mask)
    optimizer.step()
    with torch.no_grad():
        weight.mul_(mask)
