"""Exercises of part 1. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor, nn

from ...prune.select import keep_highest
from .exercise import exercise


def _example(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# --- 01 What is pruning? ---------------------------------------------------------------------


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


# --- 02 Magnitude pruning --------------------------------------------------------------------


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
    for score, k in [(torch.ones(4, 5), 8), (tied, 5), (_example(6, 7), 29), (tied, 0), (tied, 10)]:
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
    weight = nn.Parameter(_example(8, 8))
    mask = _example(8, 8, seed=1) > 0
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


# --- 03 Sensitivity pruning ------------------------------------------------------------------


def _judge_first_order(answer) -> str | None:
    weight, gradient = _example(5, 4), _example(5, 4, seed=1)
    got = answer(weight, gradient)
    want = (weight * gradient).abs()
    if not isinstance(got, Tensor) or got.shape != want.shape:
        return f"Return a tensor of shape {tuple(want.shape)}, one score for each weight."
    if torch.allclose(got, want):
        return None
    if torch.allclose(got, weight * gradient) or torch.allclose(got, -weight * gradient):
        return "That is the change with its sign. A score must be high where removal matters: which way?"
    if torch.allclose(got, gradient.abs()):
        return "That is the slope. How far does the weight move when it becomes zero?"
    if torch.allclose(got, weight.abs()):
        return "That is the magnitude: the gradient has no say in it."
    if torch.allclose(got, want**2):
        return (
            "Squares rank the same, but a first-order change is in the unit of the loss: no square."
        )
    return (
        "Which step takes the weight to zero, and what does the slope say about a step that long?"
    )


@exercise(
    _judge_first_order,
    "Removing a weight moves it by -w; the loss then changes by about -g·w.",
    "A large change either way is a reason to keep it: take the absolute value.",
)
def first_order_score(weight: Tensor, gradient: Tensor) -> Tensor:
    return (gradient * weight).abs()


def _judge_readings(answer) -> str | None:
    gradients, weight = _example(50, 3, 4), _example(3, 4, seed=1)
    got = answer(gradients, weight)
    if not (isinstance(got, tuple | list) and len(got) == 2):
        return "Return two tensors: the mean first and then |·|, and |·| first and then the mean."
    outside = (gradients.mean(0) * weight).abs()
    inside = (gradients * weight).abs().mean(0)
    if any(not isinstance(g, Tensor) or g.shape != weight.shape for g in got):
        return f"Both must have the weight's shape {tuple(weight.shape)}: average over the samples."
    if torch.allclose(got[0], outside) and torch.allclose(got[1], inside):
        return None
    if torch.allclose(got[0], inside) and torch.allclose(got[1], outside):
        return "The two are swapped: |mean of g·w| comes first."
    if torch.allclose(got[0], got[1]):
        return "Both are the same. In one the samples may cancel, in the other they can't."
    if torch.allclose(got[0], gradients.mean(0).abs()):
        return "You left out the weight: it is g_i·w that is averaged, not g_i."
    if torch.allclose(got[0].abs(), outside) and torch.allclose(got[1], inside):
        return "The first has a sign: take the absolute value after the mean."
    if torch.allclose(got[0] / len(gradients), outside):
        return "You took sums; a mean does not grow with the number of samples."
    return (
        "The first is |mean(g_i·w)|, the second mean(|g_i·w|), over the samples i in dimension 0."
    )


@exercise(
    _judge_readings,
    "`gradients` has shape (samples, *weight.shape): dimension 0 is what you average over.",
    "Where you put `.abs()`, before or after `.mean(0)`, is the whole difference.",
)
def two_readings(gradients: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    products = gradients * weight
    return products.mean(0).abs(), products.abs().mean(0)


def _judge_disagreement(answer) -> str | None:
    got = answer()
    if not isinstance(got, Tensor) or got.dim() != 2 or got.shape[1] != 2 or len(got) < 2:
        return "Return a tensor of shape (samples, 2): a row a sample, a column for each weight."
    outside, inside = two_readings.solve(got.double(), torch.ones(2, dtype=torch.float64))
    if outside[0] > outside[1] and inside[0] < inside[1]:
        return None
    numbers = f"|mean| gives {outside.tolist()}, mean |·| gives {inside.tolist()}"
    if outside[0] <= outside[1]:
        return f"{numbers}: |mean| should rank the first weight above the second."
    return f"{numbers}: mean |·| should rank the second weight above the first. Let its samples cancel."


@exercise(
    _judge_disagreement,
    "Two samples are enough.",
    "Let the samples agree on the first weight, and pull the second one hard in opposite directions.",
)
def gradients_that_disagree() -> Tensor:
    return torch.tensor([[1.0, 5.0], [1.0, -5.0]])


def _judge_budget(answer) -> str | None:
    scan = {
        "robust": {0.0: 0.98, 0.5: 0.98, 0.8: 0.975, 0.9: 0.96},
        "fragile": {0.0: 0.98, 0.5: 0.96, 0.8: 0.60, 0.9: 0.30},
        "jumpy": {0.0: 0.98, 0.5: 0.90, 0.8: 0.979, 0.9: 0.50},
    }
    if answer({"edge": {0.0: 1.0, 0.5: 0.75}}, 0.25) == {"edge": 0.0}:
        return "A layer that loses exactly what is allowed may still be pruned that far."
    got = answer(scan, 0.01)
    if not isinstance(got, dict) or set(got) != set(scan):
        return f"Return a dict with one sparsity for each of {', '.join(scan)}."
    want = {"robust": 0.8, "fragile": 0.0, "jumpy": 0.0}
    if all(abs(got[n] - want[n]) < 1e-9 for n in want):
        return None
    if got["robust"] == 0.9:
        return "You allowed more than 0.01 of damage: 0.98 - 0.96 is 0.02."
    if got["jumpy"] == 0.8:
        return (
            "The layer 'jumpy' recovers at 0.8 by luck after failing at 0.5. Stop at the first "
            "sparsity that does too much damage."
        )
    if got["robust"] == 0.5:
        return "'robust' bears 0.8: it loses 0.005 there, less than the 0.01 allowed."
    if "fragile" in got and got["fragile"] > 0:
        return "'fragile' loses 0.02 at its first step already: it must stay whole, at 0.0."
    return f"With 0.01 of damage allowed, the sparsities are {want}; yours are {dict(got)}."


@exercise(
    _judge_budget,
    "The damage at sparsity s is `values[0.0] - values[s]`.",
    "Walk through the sparsities from low to high and stop at the first with too much damage.",
)
def budget_from_scan(scan: dict[str, dict[float, float]], allowed: float) -> dict[str, float]:
    budget = {}
    for name, values in scan.items():
        budget[name] = 0.0
        for sparsity in sorted(values):
            if values[0.0] - values[sparsity] > allowed:
                break
            budget[name] = sparsity
    return budget
