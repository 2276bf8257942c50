"""Exercises of lesson 15 Ranking. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

from .exercise import example, exercise


def _judge_ndcg(answer) -> str | None:
    scores = torch.tensor([0.1, 0.9, 0.5, 0.7, 0.3])  # ranked: 1, 3, 2, 4, 0
    for item, k, want in ((1, 3, 1.0), (3, 3, 0.6309), (2, 3, 0.5), (4, 3, 0.0), (4, 4, 0.4307)):
        got = float(answer(scores, item, k))
        if abs(got - want) < 1e-3:
            continue
        place = {1: 1, 3: 2, 2: 3, 4: 4}[item]
        if place > k:
            return f"The item is at place {place}, below the {k} that are shown: that counts 0."
        if got == 0:
            return f"Place {place} is still among the {k} that are shown."
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
    "The place is one more than the number of items with a higher score.",
    "With one relevant item the best possible DCG is 1, so nothing is left to divide by.",
)
def ndcg_of_one(scores: Tensor, item: int, k: int) -> float:
    place = 1 + int((scores > scores[item]).sum())
    return 1 / float(torch.tensor(place + 1.0).log2()) if place <= k else 0.0


def _judge_row_bytes(answer) -> str | None:
    table = example(50, 8)
    table[::5] = 0  # 10 rows without anything
    table[1, 3] = 0  # and a zero in a row that stays
    got, left = float(answer(table)), 40
    want = left * 8 * 4 + left * 4
    if got == want:
        return None
    mistakes = {
        50 * 8 * 4: "That is the dense size: rows without anything need not be stored.",
        left * 8 * 4: "Which rows are the ones you kept? Store the number of each, 4 bytes.",
        left * 8 * 4
        + 50 * 4: "Rows that are gone need no number: 4 bytes for each row that is kept.",
        (left * 8 - 1)
        * 8: "You store single values with an index each. A row that is kept needs one index in all.",
        (left * 8 - 1) * 4
        + left
        * 4: "A row that stays is stored whole, its zeros too: else nobody knows where its values belong.",
        want / 4: "That counts numbers. Each of them takes 4 bytes.",
    }
    return mistakes.get(
        got, f"For 50 rows of 8, ten of them empty, the answer is {want} bytes, not {got:g}."
    )


@exercise(
    _judge_row_bytes,
    "A row is kept if any of its values is not zero: `(table != 0).any(dim=1)`.",
    "Each kept row takes 4 bytes a value, and 4 bytes for its number.",
)
def row_pruned_bytes(table: Tensor) -> int:
    kept = int((table != 0).any(dim=1).sum())
    return kept * (4 * table.shape[1] + 4)


def _judge_release(answer) -> str | None:
    lost = {
        0.5: {"all": 0.001, "head": -0.01, "tail": 0.012},
        0.75: {"all": 0.004, "head": -0.02, "tail": 0.045},
        0.9: {"all": 0.03, "head": 0.01, "tail": 0.09},
    }
    cases = [
        (lost, 0.01, 0.05, 0.75),
        (lost, 0.01, 0.02, 0.5),
        (lost, 0.002, 0.05, 0.5),
        (lost, 0.01, 0.005, 0.0),
        (lost, 0.004, 0.045, 0.75),
        (lost, 0.10, 0.05, 0.75),
        ({0.5: {"all": 0.0, "head": 0.03, "tail": -0.03}}, 0.01, 0.02, 0.0),
    ]
    for table, overall, slice_limit, want in cases:
        got = answer(table, overall, slice_limit)
        if got == want:
            continue
        limits = f"With {overall} allowed in all and {slice_limit} in any slice"
        if not isinstance(got, int | float):
            return f"Return one number, a sparsity, and not {got!r}; 0 is no go."
        if want == 0:
            if "head" in table[0.5] and table[0.5]["head"] > 0:
                return "The head lost 0.03 and the tail gained as much. Any slice may be the worst: take the largest loss of them."
            return f"{limits} nothing passes: then the answer is 0, no go."
        if got < want and slice_limit == 0.045:
            return "A loss that is exactly at its limit is allowed."
        if got == 0:
            return f"{limits}, {want} passes."
        if got > want:
            return f"{limits}, {got} does not pass: look at `all` *and* at the worst slice."
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
