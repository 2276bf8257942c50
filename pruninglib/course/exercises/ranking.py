"""Exercises of lesson 15 Ranking. Each: the judge, then the solution it belongs to."""

import math

import torch
from torch import Tensor

from .exercise import example, exercise


def _number(answer) -> float:
    """An answer that is one number, of whatever type: int, NumPy's, a tensor of one element."""
    return float(torch.as_tensor(answer).reshape(()))


def _judge_ndcg(answer) -> str | None:
    plain = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3])  # ranked: 1, 3, 2, 4, 0
    negative = torch.tensor([-0.2, 0.4, -3.0, -0.1, 1.5, 0.3, -1.0])  # ranked: 4, 1, 5, 3, 0, 6, 2
    ties = torch.tensor([0.5, 2.0, 0.5, -1.0, 0.5])
    cases = [
        (plain, item, k, place)
        for item, k, place in ((1, 3, 1), (2, 3, 3), (3, 3, 2), (4, 3, 4), (4, 4, 4))
    ]
    cases += [
        (negative, item, k, place)
        for item, k, place in ((4, 2, 1), (3, 5, 4), (2, 6, 7), (2, 7, 7))
    ]
    cases += [
        (ties, item, k, place) for item, k, place in ((1, 1, 1), (0, 4, 4), (4, 4, 4), (2, 2, 4))
    ]
    cases += [(torch.zeros(6), 2, 5, 6), (torch.zeros(6), 0, 6, 6)]
    for scores, item, k, place in cases:
        full = 1 / math.log2(place + 1)
        want = full if place <= k else 0.0
        got = _number(answer(scores.clone(), item, k))
        if abs(got - want) < 1e-3:
            continue
        shown = [round(score, 1) for score in scores.tolist()]
        where = f"Item {item} of {shown} is at place {place}"
        if scores is ties or not scores.any():
            return f"{where}: those of equal score come before it. {want:.3f} of {k} shown, not {got:.3f}."
        if place > k:
            return f"{where}, below the {k} that are shown: that counts 0."
        if scores is negative:
            return (
                f"{where}: a score below zero is lower than one of zero. {want:.3f}, not {got:.3f}."
            )
        if got == 0:
            return f"Place {place} is still among the {k} that are shown."
        if abs(got - 1 / (math.log2(place) + 1)) < 1e-3 and place > 1:
            return f"That is 1 / (log2({place}) + 1). The 1 belongs inside: 1 / log2({place} + 1)."
        if abs(got - 1) < 1e-6:
            return f"At place {place} you give full marks. That is recall: nDCG counts a hit less further down."
        if abs(got - 1 / place) < 1e-6:
            return "That is the reciprocal of the place. nDCG takes 1 / log2(place + 1)."
        if place == 1:
            return f"A hit at place 1 counts 1, yours {got:.3f}: places begin at 1, and log2(1 + 1) is 1."
        return f"At place {place} of {k}, 1 / log2({place} + 1) is {want:.3f}; yours is {got:.3f}."
    return None


@exercise(
    _judge_ndcg,
    "The place is the number of items whose score is as high or higher; the item is one of them.",
    "With one relevant item the best possible DCG is 1, so nothing is left to divide by.",
)
def ndcg_of_one(scores: Tensor, item: int, k: int) -> float:
    place = int((scores >= scores[item]).sum())
    return 1 / float(torch.tensor(place + 1.0).log2()) if place <= k else 0.0


def _judge_row_bytes(answer) -> str | None:
    first = example(50, 8)
    first[::5] = 0  # 10 rows without anything
    first[1, 3:5] = first[2, 0] = 0  # and zeros in rows that stay, one of them at its beginning
    first[3] = torch.eye(8)[7]  # and a row with nothing but its last value
    cancels = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-2.0, 0.0, 0.0], [-3.0, 1.0, 2.0]])
    for table in (first, cancels, example(7, 5), torch.zeros(4, 6)):
        got, (rows, columns) = _number(answer(table.clone())), table.shape
        left, values = int((table != 0).any(dim=1).sum()), int(table.count_nonzero())
        want = left * columns * 4 + left * 4
        if got == want:
            continue
        begins = [int(table[:, :n].any(dim=1).sum()) * (columns * 4 + 4) for n in range(1, columns)]
        looked = (
            "A row may begin with zero and be kept: it is empty if *each* of its values is zero."
        )
        mistakes = dict.fromkeys(begins, looked) | {
            rows * columns * 4: "That is the dense size: rows without anything need not be stored.",
            left * columns * 4: "Which rows are the ones you kept? Store the number of each, 4 bytes.",
            left * columns * 4 + rows * 4: "Rows that are gone need no number: 4 bytes for each row that is kept.",
            values * 8: "You store single values with an index each. A row that is kept needs one index in all.",
            values * 4 + left * 4: "A row that stays is stored whole, its zeros too: else nobody knows where its values belong.",
            want / 4: "That counts numbers. Each of them takes 4 bytes.",
        }  # fmt: skip
        if table is cancels and got < want:
            return "A row is empty if each of its values is zero. Values may be below zero, or add up to it."
        return mistakes.get(
            got,
            f"For {rows} rows of {columns}, {rows - left} of them empty, the answer is {want} bytes, not {got:g}.",
        )
    return None


@exercise(
    _judge_row_bytes,
    "A row is kept if any of its values is not zero: `(table != 0).any(dim=1)`.",
    "Each kept row takes 4 bytes a value, and 4 bytes for its number.",
)
def row_pruned_bytes(table: Tensor) -> int:
    kept = int((table != 0).any(dim=1).sum())
    return kept * (4 * table.shape[1] + 4)


def _judge_dimensions(answer) -> str | None:
    tied = torch.tensor([[1.0, -2.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]])
    cases = [
        (example(6, 5), example(9, 5, seed=1), 2),
        (example(30, 4, seed=2) * torch.tensor([1.0, 2.0, 0.5, 1.5]), example(3, 4, seed=3) * torch.tensor([9.0, 0.1, 6.0, 0.1]), 2),
        (torch.tensor([[-3.0, 1.0, 1.4], [0.0, 1.0, 1.4]]), torch.tensor([[0.0, 1.0, 1.4], [0.0, 1.0, -1.4]]), 1),
        (tied, torch.tensor([[1.0, 0.0, 2.0, 0.0]]), 2),
        (example(4, 3), example(2, 3, seed=1), 3),
    ]  # fmt: skip
    for users, items, keep in cases:
        given = users.clone(), items.clone()
        got = answer(*given, keep)
        if not (given[0].equal(users) and given[1].equal(items)):
            return (
                "You changed the tables that you were given: work on copies, or multiply by a mask."
            )
        if not isinstance(got, tuple | list) or len(got) != 2:
            return "Return two tables, users and items."
        got = [torch.as_tensor(table, dtype=users.dtype) for table in got]
        if [t.shape for t in got] != [users.shape, items.shape]:
            return "Both tables keep their shape: dimensions that go are zero, not taken out."
        left = [(table != 0).any(dim=0) for table in got]
        if (
            not left[0].equal(left[1])
            and not (users == 0).all(dim=0).any() | (items == 0).all(dim=0).any()
        ):
            return "The two tables lost different dimensions. User and item are multiplied dimension by dimension: a half is of no use."
        want = prune_dimensions.solve(users, items, keep)
        if all(torch.allclose(g, w) for g, w in zip(got, want, strict=True)):
            continue
        if keep == users.shape[1]:
            return "Where all dimensions are kept, the tables come back as they were."
        lengths = [round(v, 2) for v in (users.square().sum(0) + items.square().sum(0)).tolist()]
        tie = " Of equal ones the earlier stays." if users is tied else ""
        return f"Sums of squares over both tables are {lengths}, and {keep} dimensions stay, values and all: the largest.{tie} Yours keep {left[0].nonzero().flatten().tolist()}."
    return None


@exercise(
    _judge_dimensions,
    "`users.square().sum(dim=0) + items.square().sum(dim=0)` has a number for each dimension.",
    "A stable sort, descending, puts the earlier of equal ones first. Make a mask of zeros, set `keep` of it to 1, multiply.",
)
def prune_dimensions(users: Tensor, items: Tensor, keep: int) -> tuple[Tensor, Tensor]:
    lengths = users.square().sum(dim=0) + items.square().sum(dim=0)
    mask = torch.zeros_like(lengths)
    mask[lengths.argsort(descending=True, stable=True)[:keep]] = 1
    return users * mask, items * mask


def _judge_release(answer) -> str | None:
    lost = {
        0.5: {"all": 0.001, "head": -0.01, "tail": 0.012},
        0.75: {"all": 0.004, "head": -0.02, "tail": 0.045},
        0.9: {"all": 0.03, "head": 0.01, "tail": 0.09},
    }
    backwards = dict(reversed(lost.items()))
    uneven = {  # 60 % fails, 80 % passes
        0.6: {"old": 0.2, "all": 0.01, "new": 0.0, "other": 0.0},
        0.8: {"old": 0.02, "all": 0.01, "new": 0.03, "other": -0.3},
        0.7: {"old": 0.02, "all": 0.02, "new": 0.01, "other": 0.03},
    }
    cases = [
        (lost, 0.01, 0.05, 0.75),
        (lost, 0.01, 0.02, 0.5),
        (lost, 0.002, 0.05, 0.5),
        (lost, 0.01, 0.005, 0.0),
        (lost, 0.004, 0.045, 0.75),
        (lost, 0.10, 0.05, 0.75),
        ({0.5: {"all": 0.0, "head": 0.03, "tail": -0.03}}, 0.01, 0.02, 0.0),
        (backwards, 0.01, 0.05, 0.75),
        (backwards, 0.10, 0.10, 0.9),
        (uneven, 0.01, 0.03, 0.8),
        (uneven, 0.02, 0.02, 0.0),
        (uneven, 0.02, 0.03, 0.8),
    ]
    for table, overall, slice_limit, want in cases:
        got = answer({s: dict(slices) for s, slices in table.items()}, overall, slice_limit)
        try:
            got = _number(got)
        except (TypeError, ValueError, RuntimeError):
            return f"Return one number, a sparsity, and not {got!r}; 0 is no go."
        if abs(got - want) < 1e-6:
            continue
        limits = f"With {overall} allowed in all and {slice_limit} in any slice"
        if want == 0 and len(table) == 1:
            return "The head lost 0.03 and the tail gained as much. Any slice may be the worst: take the largest loss of them."
        if want == 0 and table is uneven:
            return f"{limits} nothing passes, whatever the slices' names: `lost` is {table}."
        if want == 0:
            return f"{limits} nothing passes: then the answer is 0, no go."
        if table is backwards:
            return f"{limits}, {want} is the highest that passes, in whatever order the sparsities are given."
        if table is uneven:
            return f"{limits}, {want} passes, though a lower sparsity may fail, and slices may have any names: `lost` is {table}."
        if got < want and slice_limit == 0.045:
            return "A loss that is exactly at its limit is allowed."
        if got == 0:
            return f"{limits}, {want} passes."
        if got > want:
            return f"{limits}, {got:g} does not pass: look at `all` *and* at the worst slice."
        return f"{limits}, {want} passes as well, and it prunes more."
    return None


@exercise(
    _judge_release,
    "A sparsity passes if `all` loses at most `overall`, and every slice at most `worst`.",
    "Of those that pass take the highest. `max(..., default=0.0)` does not fail on nothing.",
)
def highest_release(lost: dict[float, dict[str, float]], overall: float, worst: float) -> float:
    def passes(slices: dict[str, float]) -> bool:
        parts = [loss for name, loss in slices.items() if name != "all"]
        return slices["all"] <= overall and max(parts) <= worst

    return max((s for s, slices in lost.items() if passes(slices)), default=0.0)
