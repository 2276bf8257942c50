"""Exercises of lesson 16 Click prediction. Each: the judge, then the solution it belongs to."""

import copy
import math

import numpy as np
import torch
from torch import Tensor

from .exercise import example, exercise, number


def _loss(p, y) -> float:
    p, y = (np.asarray(v, dtype=float) for v in (p, y))
    return float(-np.mean(np.where(y == 1, np.log(p), np.log(1 - p))))


def _judge_entropy(answer) -> str | None:
    cases = [
        ([0.9, 0.2, 0.4], [1, 0, 0], 0.3),
        ([0.5, 0.5, 0.5, 0.5], [0, 1, 0, 0], 0.25),
        ([0.05, 0.3, 0.1, 0.7, 0.2], [0, 0, 1, 1, 0], 0.1),
        ([0.2, 0.2, 0.2], [0, 0, 1], 0.2),  # says the prior: exactly one
        ([0.01, 0.99], [0, 1], 0.6),
    ]
    kinds = (list, np.array, torch.tensor)
    for (p, y, prior), kind in ((case, kind) for kind in kinds for case in cases):
        got = number(answer(kind(p), kind(y), prior))
        if got is None:
            return "Return one number."
        loss, base = _loss(p, y), _loss([prior] * len(y), y)
        want = loss / base
        if math.isclose(got, want, rel_tol=1e-4):
            continue
        where = f"For p = {p}, y = {y} and a prior of {prior}"
        rate = min(max(sum(y) / len(y), 1e-9), 1 - 1e-9)
        own = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
        entropy = -(prior * math.log(prior) + (1 - prior) * math.log(1 - prior))
        mistakes = {
            loss: "That is the log-loss itself. NE divides it by the log-loss of whoever always says the prior.",
            base / loss: "Turned round: NE is below 1 where something was learnt.",
            1 - want: "That is what was gained, 1 - NE.",
            loss
            / own: "You divide by the entropy of *these* clicks. The prior was known before: what is its log-loss on them?",
            loss
            / entropy: "You divide by the prior's own entropy. Take the log-loss of saying it, on these clicks.",
            -want: "The sign: logarithms of chances are negative, a loss is not.",
        }
        for wrong, message in mistakes.items():
            if math.isclose(got, wrong, rel_tol=1e-4, abs_tol=1e-9):
                return f"{message} {where} NE is {want:.4f}."
        return f"{where} NE is {want:.4f}, not {got:.4f}."
    return None


@exercise(
    _judge_entropy,
    "The log-loss is the mean of -log of the chance that was given to what happened: `p` where it was clicked, `1 - p` where not.",
    "Compute it twice, for `p` and for `prior` in every place, and divide.",
)
def normalised_entropy(p, y, prior: float) -> float:
    p, y = torch.as_tensor(p, dtype=torch.double), torch.as_tensor(y)

    def loss(p: Tensor) -> Tensor:
        return -torch.where(y == 1, p.log(), (1 - p).log()).mean()

    return float(loss(p) / loss(torch.full_like(p, prior)))


def _judge_rows(answer) -> str | None:
    cases = [
        (example(5, 3), [4, 0, 9, 1, 7], 2),
        (example(4, 2, seed=1), [1, 1, 1, 1], 3),  # all alike
        (
            torch.tensor([[9.0, 9.0], [0.1, 0.0], [-0.2, 0.1]]),
            [1, 8, 8],
            1,
        ),  # long rows read rarely
        (example(6, 4, seed=2), [0, 5, 5, 0, 5, 2], 2),  # a tie at the limit
        (example(3, 3, seed=3), [2, 1, 3], 3),
        (example(3, 2, seed=4), [2, 1, 3], 0),
    ]
    for kind in (torch.tensor, np.array, list):
        for table, counts, keep in cases:
            given = table.clone()
            got = answer(given, kind(counts), keep)
            if not given.equal(table):
                return "You changed the table that you were given: work on a copy."
            got = torch.as_tensor(got)
            if got.shape != table.shape:
                return f"The table keeps its shape, {tuple(table.shape)}: rows that go are zero. Yours is {tuple(got.shape)}."
            want = prune_rarely_read.solve(table, counts, keep)
            if torch.allclose(got.to(want.dtype), want):
                continue
            stay = [i for i, row in enumerate(got.tolist()) if any(row)]
            should = [i for i, row in enumerate(want.tolist()) if any(row)]
            said = f"Counts {counts}, keep {keep}: rows {should} stay, yours {stay}."
            if len(stay) > keep and keep:
                return (
                    f"{said} Exactly {keep} rows stay, also where several were read equally often."
                )
            if stay == should:
                return f"{said} They stay as they were, values and all."
            if sorted(stay) == sorted(range(len(counts)), key=lambda i: counts[i])[:keep]:
                return f"{said} You keep the rarely read ones."
            length = sorted(range(len(counts)), key=lambda i: -float(table[i].norm()))[:keep]
            if sorted(length) == stay:
                return f"{said} You keep the longest rows. The question is how often each was read."
            return f"{said} Of rows read equally often the earlier stays."
    return None


@exercise(
    _judge_rows,
    "Sort the rows by their counts, descending, with `stable=True`: then the earlier of equal ones comes first.",
    "Begin with zeros of the table's shape, and copy the kept rows.",
)
def prune_rarely_read(table: Tensor, counts: Tensor, keep: int) -> Tensor:
    stays = torch.as_tensor(counts).argsort(descending=True, stable=True)[:keep]
    pruned = torch.zeros_like(table)
    pruned[stays] = table[stays]
    return pruned


def _judge_bytes(answer) -> str | None:
    cases = [
        (1000, 16, 1000, 32),
        (1000, 16, 250, 32),
        (1000, 16, 1000, 8),
        (4096, 16, 410, 4),
        (1001, 5, 33, 4),  # half bytes, and a bitmap that is no whole byte
        (7, 3, 0, 8),
        (10, 3, 1, 2),
    ]
    for rows, columns, kept, bits in cases:
        got = number(answer(rows, columns, kept, bits))
        if got is None:
            return "Return one number, of bytes."
        values, bitmap = -(-kept * columns * bits // 8), -(-rows // 8)
        scales = 4 * kept if bits < 32 else 0
        want = values + bitmap + scales
        if got == want:
            continue
        mistakes = {
            8 * got == want: "That is an eighth: divide bits by eight only once.",
            got == kept * columns * bits + scales + rows: "Those are bits: eight of them are a byte.",
            got == values + scales: "The bitmap is missing: a bit for each row of the whole table.",
            got == values + scales + -(-kept // 8): "The bitmap needs a bit for *every* row, kept or not.",
            got == values + scales + rows: "A bit for each row, not a byte.",
            bool(scales) and got == values + bitmap: "Each stored row has a scale of four bytes besides.",
            bits == 32 and got == want + 4 * kept: "Values of 32 bits need no scale.",
            bits < 32 and got == values + bitmap + 4 * rows: "Rows that are gone need no scale.",
            got == kept * columns * bits / 8 + scales + rows / 8: "Bytes are whole: round values and bitmap up, each for itself.",
            got == kept * columns * bits // 8 + rows // 8 + scales: "Round up: what is begun takes its byte.",
        }  # fmt: skip
        said = f"{kept} of {rows} rows, {columns} columns, {bits} bits: {want} bytes, not {got:g}."
        return next((f"{text} {said}" for held, text in mistakes.items() if held), said)
    return None


@exercise(
    _judge_bytes,
    "Three parts: `kept * columns * bits` bits of values, 4 bytes of scale for each kept row if `bits < 32`, `rows` bits of bitmap.",
    "`-(-n // 8)` is n / 8 rounded up.",
)
def table_bytes(rows: int, columns: int, kept: int, bits: int) -> int:
    values, bitmap = -(-kept * columns * bits // 8), -(-rows // 8)
    return values + bitmap + (4 * kept if bits < 32 else 0)


def _judge_smallest(answer) -> str | None:
    def candidate(size, ne, calibration):
        return {"bytes": size, "NE": ne, "calibration": calibration}

    table = {
        "dense": candidate(400, {"all": 0.0, "new": 0.0}, {"all": 1.01, "new": 0.96}),
        "int8": candidate(140, {"all": 0.001, "new": 0.0}, {"all": 1.01, "new": 0.97}),
        "rows": candidate(60, {"all": 0.004, "new": -0.02}, {"all": 1.05, "new": 0.99}),
        "low": candidate(50, {"all": 0.003, "new": -0.01}, {"all": 0.99, "new": 0.86}),
        "Taylor": candidate(40, {"all": 0.003, "new": 0.001}, {"all": 1.02, "new": 1.14}),
        "hash": candidate(20, {"all": 0.005, "new": 0.03}, {"all": 1.0, "new": 1.0}),
    }
    turned = dict(reversed(table.items()))
    edge = {
        "exact": candidate(10, {"old": 0.25, "all": 0.0}, {"old": 1.0, "all": 1.5}),
        "over": candidate(5, {"old": 0.5, "all": 0.0}, {"old": 1.0, "all": 1.0}),
        "gain": candidate(7, {"old": -0.5, "all": 0.0}, {"old": 0.5, "all": 1.0}),
    }
    cases = [
        (table, 0.005, 0.1, "rows"),
        (turned, 0.005, 0.1, "rows"),
        (table, 0.005, 0.2, "Taylor"),
        (table, 0.05, 0.1, "hash"),
        (table, 0.002, 0.1, "int8"),
        (table, 0.0005, 0.05, "dense"),
        (table, 0.005, 0.001, "no go"),
        (edge, 0.25, 0.5, "gain"),
        (edge, 0.5, 0.25, "over"),
        ({"exact": edge["exact"]}, 0.25, 0.5, "exact"),
        ({}, 1.0, 1.0, "no go"),
    ]
    for found, loss, off, want in cases:
        got = answer(copy.deepcopy(found), loss, off)
        if got == want:
            continue
        limits = f"With {loss} of NE and {off} of calibration allowed"
        if want == "no go":
            return f"{limits} nothing passes: return 'no go'."
        if isinstance(got, str) and got == "no go":
            if want in ("exact", "gain"):
                return f"{limits}, {want!r} passes: what is exactly at its limit is allowed, and an NE that falls is no loss."
            return f"{limits}, {want!r} passes."
        if not isinstance(got, str) or got not in found:
            return f"Return the name of a candidate, or 'no go', not {got!r}."
        bad = found[got]
        worst = max(bad["NE"].values())
        if worst > loss:
            return f"{limits}, {got!r} does not pass: NE rises by {worst} in one slice. Look at every slice, not at `all` alone."
        if max(bad["calibration"].values()) - 1 > off:
            return f"{limits}, {got!r} does not pass: in one slice its calibration is {max(bad['calibration'].values())}."
        if 1 - min(bad["calibration"].values()) > off:
            return f"{limits}, {got!r} does not pass: in one slice its calibration is {min(bad['calibration'].values())}. Too low counts like too high."
        return f"{limits}, {want!r} passes as well and is smaller than {got!r}, in whatever order they are given."
    return None


@exercise(
    _judge_smallest,
    "A candidate passes if `max` of its NE values is at most `loss`, and `abs(c - 1)` at most `off` for each calibration.",
    '`min(names, key=..., default="no go")` finds the smallest and does not fail on nothing.',
)
def smallest_release(found: dict[str, dict], loss: float, off: float) -> str:
    def passes(row: dict) -> bool:
        calibration = max(abs(value - 1) for value in row["calibration"].values())
        return max(row["NE"].values()) <= loss and calibration <= off

    names = [name for name, row in found.items() if passes(row)]
    return min(names, key=lambda name: found[name]["bytes"], default="no go")
