"""Exercises of lesson 01 What is pruning. Each: the judge, then the solution it belongs to."""

import contextlib

import torch
from torch import Tensor, nn

from .exercise import example, exercise


def _judge_sparsity(answer) -> str | None:
    for model in _models():
        tensors = [p.detach() for p in model.parameters()]
        weights = [p for p in tensors if p.dim() >= 2]
        zeros, total = sum(int((w == 0).sum()) for w in weights), sum(w.numel() for w in weights)
        got = float(answer(model))
        wrong = {
            1 - zeros / total: "That is the share of weights kept. Sparsity is the share that is "
            "zero.",
            sum(float((w == 0).float().mean()) for w in weights) / len(weights): "You averaged "
            "over layers; a large layer must count for more. Count, then divide once.",
            _zeros(tensors): "You counted biases and normalisation too. Count weights with two "
            "dimensions or more.",
            sum(int((w <= 0).sum()) for w in weights) / total: "You counted negative weights too. "
            "Pruned is what *equals* zero.",
            _zeros([w for w in weights if w.dim() == 2]): "You left out the convolution: its "
            "weight has four dimensions, and two *or more* count.",
        }
        if abs(got - zeros / total) < 1e-6:
            continue
        for value, message in wrong.items():
            if abs(got - value) < 1e-6:
                return message
        if got > 1:
            return (
                f"You returned {got:g}: a share lies between 0 and 1, so divide by the number of "
                "weights."
            )
        return f"For {zeros} zeros among {total} weights you returned {got:.4f} instead of {zeros / total:.4f}."
    return None


def _models() -> list[nn.Module]:
    """Biases and norms hold zeros, which must not count; weights have negative ones."""
    dense = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2))
    convolution = nn.Sequential(nn.Conv2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5))
    whole = nn.Sequential(nn.Embedding(6, 3), nn.Linear(3, 7))
    with torch.no_grad():
        for model in (dense, convolution, whole):
            for p in model.parameters():
                p.copy_(example(*p.shape).sign())
            model[-1].bias.zero_()
        dense[0].weight[:2] = 0  # 8 of 12
        dense[3].weight[0] = 0  # 3 of 6
        dense[0].bias.zero_()
        convolution[0].weight[0] = 0  # 8 of 24
        convolution[3].weight[:, :5] = 0  # 25 of 60
    return [dense, convolution, whole]


def _zeros(tensors: list[Tensor]) -> float:
    return sum(int((t == 0).sum()) for t in tensors) / sum(t.numel() for t in tensors)


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
    small = torch.tensor([[-0.5, 0.1], [0.3, -0.2], [0.2, 0.0]], dtype=torch.float64)
    whole = torch.tensor([2.0, -1.0, 0.0, 1.0, -3.0, 2.0, -2.0])
    filters = example(3, 2, 2, 2)
    for weight, threshold in ((small, 0.2), (whole, 2.0), (filters, 0.7), (whole, 0.0)):
        problem = _problem_of_mask(answer, weight, threshold)
        if problem:
            return problem
    return None


def _problem_of_mask(answer, weight: Tensor, threshold: float) -> str | None:
    sizes, before = weight.abs(), weight.clone()
    want = sizes > threshold
    got = answer(weight, threshold)
    if not torch.equal(weight, before):
        return "Your function changed the weight it was given. A mask is a new tensor."
    with contextlib.suppress(TypeError, ValueError):
        got = torch.as_tensor(got)  # a list or an array is as good
    if not isinstance(got, Tensor) or got.shape != weight.shape:
        return "Return a tensor of the weight's shape: one True or False for each weight."
    if torch.equal(got, weight * want):
        return "That is the pruned weight. Return the mask itself, True or False for each weight."
    if got.dtype != torch.bool:
        return f"Your mask is {got.dtype}. A comparison such as `a > b` gives torch.bool."
    if torch.equal(got, want):
        return None
    if torch.equal(got, ~want) or torch.equal(got, sizes < threshold):
        return "It is the wrong way round: True means kept."
    if torch.equal(got, weight > threshold):
        return "Negative weights can be large as well: compare absolute values."
    if torch.equal(got, sizes >= threshold):
        return "A weight exactly at the threshold must go: use > rather than >=."
    if torch.equal(got, sizes > 0.2):
        return f"You compared with 0.2. The threshold is given: this time it is {threshold:g}."
    return f"For threshold {threshold:g} and {weight.tolist()} the mask should be {want.tolist()}."


@exercise(
    _judge_mask,
    "Compare the size of each weight, `weight.abs()`, with the threshold.",
    "`weight.abs() > threshold` is a tensor of True and False.",
)
def mask_from_threshold(weight: Tensor, threshold: float) -> Tensor:
    return weight.abs() > threshold


def _judge_bytes(answer) -> str | None:
    first = torch.zeros(10, 20)
    first[3, 4:9] = 1.0
    first[7, 0] = -1.0
    sparse = example(12, 4) * (example(12, 4, seed=1) > 0.5)
    for weight in (first, sparse, example(3, 5), torch.zeros(4, 2)):
        problem = _problem_of_bytes(answer, weight)
        if problem:
            return problem
    return None


def _problem_of_bytes(answer, weight: Tensor) -> str | None:
    nonzeros, (rows, columns) = int(weight.count_nonzero()), weight.shape
    want = nonzeros * 8 + (rows + 1) * 4
    got = float(answer(weight))
    wrong = {
        nonzeros * 4: "You stored the values, but nobody knows where they belong: add the indices.",
        nonzeros * 8: "You stored values and columns. Where does each row begin? That takes rows + "
        "1 numbers.",
        want - 4: "Nearly: the last row needs an end, so there are rows + 1 pointers, not rows.",
        want / 4: "You counted numbers. Each takes 4 bytes.",
        nonzeros * 8 + (columns + 1) * 4: "Those pointers are one per column. Compressed *rows* "
        "need one per row, and one more.",
        nonzeros * 12: "You stored row and column of each value. Row pointers say the same with "
        "fewer numbers.",
        weight.numel() * 4: "That is the dense size. Zeros need not be stored at all.",
        int((weight > 0).sum()) * 8 + (rows + 1) * 4: "Negative values are stored, too: only "
        "zeros are left out.",
    }
    if got == want:
        return None
    return wrong.get(
        got,
        f"For {nonzeros} nonzeros in {rows} rows you returned {got:g}: values, columns and row "
        f"pointers make {want}.",
    )


@exercise(
    _judge_bytes,
    "Three arrays of 4-byte numbers: the nonzero values, the column of each, and the row pointers.",
    "There are as many columns as values, and `weight.shape[0] + 1` row pointers.",
)
def csr_bytes(weight: Tensor) -> int:
    nonzeros = int(weight.count_nonzero())
    return 4 * (nonzeros + nonzeros + weight.shape[0] + 1)
