"""Exercises of lesson 11 Sentiment analysis. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

from .exercise import exercise


def _judge_f1(answer) -> str | None:
    table = torch.tensor([[50, 10, 0], [20, 15, 5], [0, 0, 0]])
    if answer(torch.tensor([[5, 0], [5, 0]]), 1) != 0:
        return "Class 1 is never predicted: precision is 0 / 0, and F1 counts as 0."
    got = float(answer(table, 0))
    precision, recall = 50 / 70, 50 / 60
    want = 2 * precision * recall / (precision + recall)
    if abs(got - want) < 1e-4:
        other = float(answer(table, 1))
        return None if abs(other - 0.4615) < 1e-4 else "Class 0 is right, class 1 is not: use `c`."
    known = {
        precision: "That is precision: what is found, of all that was predicted as the class.",
        recall: "That is recall: what is found, of all that belong to the class.",
        65 / 100: "That is the accuracy: it does not ask about one class.",
        (precision + recall) / 2: "That is the ordinary mean. The harmonic one is lower.",
        want / 2: "A factor of 2 is missing: of two equal numbers the mean is that number.",
        precision * recall: "That is the product. Divide twice the product by the sum.",
    }
    return next(
        (say for value, say in known.items() if abs(got - value) < 1e-4),
        f"With 50 found of 60 that belong to the class, and 70 predicted, F1 is {want:.4f}, not {got:.4f}.",
    )


@exercise(
    _judge_f1,
    "Rows are true, columns predicted: `table[c].sum()` belong to the class, `table[:, c].sum()` were predicted.",
    "F1 is 2·found / (belonging + predicted): the same as 2PR / (P + R), without 0 / 0 when some belong.",
)
def f1_of(table: Tensor, c: int) -> float:
    found, together = table[c, c], table[c].sum() + table[:, c].sum()
    return float(2 * found / together) if together else 0.0


def _judge_head(answer) -> str | None:
    for channels, heads in ((32, 4), (12, 3)):
        got, each = float(answer(channels, heads)), channels // heads
        want = 4 * channels * each + 3 * each
        if got == want:
            continue
        mistakes = {
            4 * channels * each: "Query, key and value have biases: a head has its share of each.",
            4 * channels * each + 4 * each: "The output's bias belongs to no head: it stays.",
            3 * channels * each + 3 * each: "The columns of the output that read it go, too.",
            3 * channels * each: "Add the biases, and the columns of the output that read it.",
            4 * channels**2 + 4 * channels: "That is the whole layer with all its heads.",
            4 * each**2 + 3 * each: "A head makes few channels, but reads them all.",
        }
        return mistakes.get(
            got,
            f"With {channels} channels and {heads} heads, a head makes {each} channels from {channels}, "
            f"three times, and {channels} from {each} once: {want} with biases, not {got:g}.",
        )
    return None


@exercise(
    _judge_head,
    "A head owns `channels // heads` rows of query, key and value, with their biases.",
    "It owns as many columns of the output; the output's bias it does not own.",
)
def parameters_of_a_head(channels: int, heads: int) -> int:
    each = channels // heads
    return 3 * (each * channels + each) + channels * each


def _judge_leave(answer) -> str | None:
    valid = {
        "plain": (0.01, 0.00, 0.02),
        "negation": (0.06, 0.03, 0.09),
        "rare": (0.05, 0.00, 0.10),
    }
    test = {"plain": (0.01, 0.00, 0.02), "negation": (0.04, 0.02, 0.06), "rare": (0.05, 0.02, 0.08)}
    got = answer(valid, test, 0.07)
    if not (isinstance(got, tuple | list) and len(got) == 2):
        return "Return two things: the name of the worst slice, and True or False."
    name = got[0]
    if name == "rare":
        lows = answer(
            {"a": (0.04, 0.03, 0.05), "b": (0.03, 0.0, 0.09)}, dict.fromkeys("ab", (0, 0, 0)), 1
        )
        if lows[0] == "b":
            return "You took the slice with the highest `high` on valid: the mean names the worst."
        return (
            "On *test* the rare words are worst. But test may not choose: take the worst of valid."
        )
    if name != "negation":
        return f"On valid negation has the highest mean, 0.06; you named {name!r}."
    cases = [(0.07, True), (0.06, True), (0.05, False), (0.03, False)]
    for limit, want in cases:
        found = answer(valid, test, limit)[1]
        if bool(found) == want:
            continue
        if limit == 0.06:
            return "A cost that reaches the limit exactly stays within it."
        if limit == 0.05 and found:
            return "On test the cost may be as high as 0.06, above a limit of 0.05: ask `high`, not the mean."
        if limit == 0.07 and not found:
            return "On test `high` is 0.06 for negation, within 0.07. What valid or other slices say no longer counts."
        return f"With a limit of {limit} the answer is {want}: on test negation costs 0.02 to 0.06."
    return None


@exercise(
    _judge_leave,
    "`max(valid, key=...)` gives the name; the mean is entry 0.",
    "Then forget valid: compare `test[name][2]` with the limit.",
)
def may_leave(valid: dict, test: dict, limit: float) -> tuple[str, bool]:
    worst = max(valid, key=lambda name: valid[name][0])
    return worst, test[worst][2] <= limit
