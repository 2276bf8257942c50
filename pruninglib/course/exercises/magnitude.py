"""Exercises of lesson 02 Magnitude pruning. Each: the judge, then the solution it belongs to."""

import contextlib
import copy

import torch
from torch import Tensor, nn

from ...prune.select import keep_highest
from .exercise import example, exercise


def _judge_global(answer) -> str | None:
    eight = {"a": torch.tensor([1.0, 2.0, 3.0, 4.0]), "b": torch.tensor([[0.1, 0.2], [0.3, 5.0]])}
    signed = {
        "a": torch.tensor([[-6.0, 1.0, -0.5], [2.0, 7.0, 0.25]]),
        "b": torch.tensor([3.0, -4.0]),
    }
    tied = {"a": torch.zeros(3, 2), "b": torch.tensor([0.0, 1.0, 1.0, 2.0])}
    hundred = {"a": torch.arange(60.0).view(5, 12), "b": torch.arange(60.0, 100.0).view(2, 20)}
    cases = ((eight, 0.25), (eight, 0.5), (signed, 0.25), (tied, 0.4), (tied, 0.8), (hundred, 0.29))
    for scores, sparsity in cases:
        problem = _problem_of_threshold(answer, scores, sparsity)
        if problem:
            return problem
    return None


def _problem_of_threshold(answer, scores: dict[str, Tensor], sparsity: float) -> str | None:
    row = torch.cat([score.flatten() for score in scores.values()]).sort().values
    k = round(sparsity * len(row))
    got, want = (
        answer({n: score.clone() for n, score in scores.items()}, sparsity),
        float(row[k - 1]),
    )
    if isinstance(got, dict):
        return "Return one number: a global threshold is the same for all layers."
    got = float(got)
    if abs(got - want) < 1e-5:
        return None
    own = [s.flatten().sort().values[round(sparsity * s.numel()) - 1] for s in scores.values()]
    wrong = [
        (row[int(sparsity * len(row)) - 1], f"Of {len(row)} scores, {sparsity:g} makes {k}: use "
         "`round`, for `int` cuts off what a rounding error left below."),
        (row[k], f"That is number {k + 1}, counting from the smallest. To prune {k} of "
         f"{len(row)}, take number {k}."),
        (sum(own) / len(own), "You took each layer's own threshold and averaged. Put all scores "
         "in one row first."),
        (row.quantile(sparsity), "That lies between two scores. Return the largest score that is "
         "pruned."),
        (row[round(0.5 * len(row)) - 1], "That is the threshold for half of the scores. "
         f"`sparsity` was {sparsity:g}."),
        (row.abs().sort().values[k - 1], "You took absolute values. These are scores already: the "
         "lowest go, and below zero is lower still."),
        (row.flip(0)[k - 1], "You counted from the largest. The lowest scores are pruned."),
    ]  # fmt: skip
    for value, message in wrong:
        if abs(got - float(value)) < 1e-5:
            return message
    return (
        f"Of the {len(row)} scores in {[s.tolist() for s in scores.values()]} number {k}, counting "
        f"from the smallest, is {want:g}; you returned {got:g}."
    )


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
    alternating = torch.tensor([[1.0, -2.0], [-2.0, 1.0]]).repeat(30, 7)
    cases = [(torch.ones(4, 5), 8), (tied, 5), (example(6, 7), 29), (alternating, 100)]
    for score, k in [*cases, (tied, 0), (tied, 10)]:
        got = answer(score.clone(), k)
        with contextlib.suppress(TypeError, ValueError):
            got = torch.as_tensor(got)  # a list or an array is as good
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
        if torch.equal(got, want):
            continue
        if torch.equal(score[~got].sort().values, score[~want].sort().values):
            return (
                "As many as asked, and the lowest, but of equal scores others: the *first* go, row "
                "by row. `topk` and an unstable sort promise no order among equals."
            )
        if torch.equal(got, keep_highest([score.abs().flatten()], k)[0].view(score.shape)):
            return "These are scores, not weights: no absolute value, a negative one is lower."
        return "The number is right, but others should go: the lowest scores."
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
    adam = {"lr": 0.1, "weight_decay": 0.1}
    for make, shape, options in (
        (torch.optim.AdamW, (8, 8), adam),
        (torch.optim.SGD, (5, 3), {"lr": 0.1, "momentum": 0.9}),
        (torch.optim.SGD, (4, 2, 3, 3), {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ):
        problem = _problem_of_step(answer, make, shape, options)
        if problem:
            return problem
    return None


def _problem_of_step(answer, make, shape: tuple[int, ...], options: dict) -> str | None:
    weight = nn.Parameter(example(*shape))
    mask = example(*shape, seed=1) > 0
    optimizer = make([weight], **options)
    for _ in range(3):  # a warm optimizer: its averages remember every weight
        optimizer.zero_grad()
        weight.square().sum().backward()
        optimizer.step()
    with torch.no_grad():
        weight.mul_(mask)
    optimizer.zero_grad()
    (weight - 1).square().sum().backward()
    before, right = weight.detach().clone(), _stepped(weight, optimizer, make, options)
    answer(weight, mask, optimizer)
    after = weight.detach()
    revived = int((after[~mask] != 0).sum())
    if revived:
        return (
            f"{revived} pruned weights are alive after the step. The optimizer's averages still "
            "move them, even where the gradient is zero. After the step, zero them in place."
        )
    if torch.equal(before[mask], after[mask]):
        return "The kept weights did not move: call `optimizer.step()`."
    if not torch.allclose(right[mask], after[mask], atol=1e-6):
        return (
            "The zeros stay, but the kept weights did not make the optimizer's own step: call it "
            "once, and leave *their* gradients alone. `mask` is True where a weight is kept."
        )
    if not weight.requires_grad:
        return "The weight can't be trained any more: leave requires_grad on."
    return None


def _stepped(weight: nn.Parameter, optimizer, make, options: dict) -> Tensor:
    """The weight after the optimizer's next step; both are left as they are."""
    twin = nn.Parameter(weight.detach().clone())
    twin.grad = weight.grad.clone()
    other = make([twin], **options)
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    other.step()
    return twin.detach()


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
