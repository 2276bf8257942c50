"""Exercises of lesson 12 Translation. Each: the judge, then the solution it belongs to."""

import copy
import math
from collections import Counter

import torch
from torch import nn

import pruninglib as pl

from ...tasks.transformer import EncoderDecoder
from .exercise import example, exercise, number


def _judge_ngram_precision(answer) -> str | None:
    cases = (
        (["the cat sat on the mat"], ["the cat is on the mat"], 1, "Five of six words are in the reference."),
        (["the the the the"], ["the cat is on the mat"], 1, "A word counts at most as often as the reference has it: clip."),
        (["the cat sat on the mat"], ["the cat is on the mat"], 2, "Count pairs of neighbours, in order."),
        (["a b", "a b c d e f"], ["a b", "x y z d e f"], 1, "Add up over the corpus before you divide: long sentences weigh more."),
        (["a b a b"], ["b a b"], 2, "Clip pairs, too."),
        (["a", "a b c d"], ["a b c", "d c b a"], 3, "A sentence shorter than n has no such pieces, and is no error."),
        (["a b"], ["c a b"], 3, "If nothing of this length was written, return 0."),
        (["a", "a b c d"], ["a b c", "a b c d"], 3, "A sentence shorter than n takes nothing away."),
        (["a b c d e"], ["a b c d x"], 4, "n may be 4."),
        (["b a"], ["a b"], 2, "The order of the words in a piece counts."),
        (["a a", "b"], ["b", "a a"], 1, "Clip sentence by sentence: another sentence's reference does not help."),
    )  # fmt: skip
    for written, references, n, advice in cases:
        texts = [[text.split() for text in side] for side in (written, references)]
        want, got = ngram_precision.solve(*texts, n), number(answer(*copy.deepcopy(texts), n))
        if got is None:
            return "Return one number."
        if not math.isclose(got, want, abs_tol=1e-3):
            return f"{advice} For {written} against {references} and n = {n} it is {want:.3f}, not {got:.3f}."
    return None


@exercise(
    _judge_ngram_precision,
    "`Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1))` counts the pieces of a text.",
    "`(one & other).total()` of two Counters takes the smaller count of each piece: that is clipping.",
)
def ngram_precision(written: list[list[str]], references: list[list[str]], n: int) -> float:
    right = total = 0
    for text, reference in zip(written, references, strict=True):
        one, other = (
            Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in (text, reference)
        )
        right += (one & other).total()
        total += one.total()
    return right / total if total else 0.0


def _translator(seed: int, tied: bool) -> nn.Module:
    """A small one, weights of both signs, if `tied` of few sizes."""
    model = EncoderDecoder((7, 9), (5, 6), 8, 2, 12, (1, 2)).eval()
    with torch.no_grad():
        for i, weight in enumerate(pl.weights_of(model).values()):
            values = example(*weight.shape, seed=100 * seed + i)
            weight.copy_((2 * values).round().clamp(-3, 3) + 0.5 if tied else values)
    return model


def _judge_prune_cross(answer) -> str | None:
    for seed, (sparsity, tied) in enumerate(
        ((0.5, False), (0.9, False), (0.3, True), (0.25, True))
    ):
        before = _translator(seed, tied)
        model = copy.deepcopy(before)
        answer(model, sparsity)
        problem = _wrong_cross(before, model, sparsity)
        if problem:
            return problem
    return None


def _wrong_cross(before: nn.Module, model: nn.Module, sparsity: float) -> str | None:
    old, found = dict(before.named_parameters()), dict(model.named_parameters())
    names = [name for name in pl.weights_of(before) if ".cross." in name]
    for name, value in old.items():
        if name not in names and not value.equal(found[name]):
            return f"{name} changed: only the weights of cross-attention may go, those with `.cross.` in their name, no biases."
    if not all(name in found for name in names):
        return "A weight lost its name: after `torch.nn.utils.prune` call `prune.remove`."
    gone = {name: found[name] == 0 for name in names}
    if not any(g.any() for g in gone.values()):
        return "No weight became zero: prune the model that is given, in place, not a copy of it."
    if any((found[name] != old[name])[~gone[name]].any() for name in names):
        return "Weights that stay keep their values."
    total = sum(g.numel() for g in gone.values())
    want, count = round(sparsity * total), sum(int(g.sum()) for g in gone.values())
    shares = {round(float(g.double().mean()), 6) for g in gone.values()}
    if len(shares) == 1 and abs(count - want) <= len(names):
        return "From each layer the same share went: rank the weights of all cross-attentions together."
    if abs(count - want) > 1:
        return f"{want} of the {total} weights of all cross-attentions together should be gone; {count} are. `sparsity` is the share that goes; of equal sizes only as many go as are asked for."
    values, out = (
        torch.cat([t.flatten() for t in d.values()]) for d in ({n: old[n] for n in names}, gone)
    )
    if values.abs()[out].max() <= values.abs()[~out].min():
        return None
    if values[out].max() <= values[~out].min():
        return "These are the lowest values: compare sizes, without the sign."
    if values.abs()[out].min() >= values.abs()[~out].max():
        return "It is the wrong way round: the smallest weights go."
    return "These are not the smallest of all weights of cross-attention, in one ranking."


@exercise(
    _judge_prune_cross,
    "`pl.prunable(model)` names the weights; which of the names have `.cross.` in them?",
    "`pl.magnitude(model, names)` scores these alone; then `pl.select` and `pl.apply`.",
)
def prune_cross(model: nn.Module, sparsity: float) -> None:
    names = [name for name in pl.prunable(model) if ".cross." in name]
    pl.apply(model, pl.select(pl.magnitude(model, names), sparsity))


def _judge_dies_first(answer) -> str | None:
    cases = (
        ({"a": (90, 100), "b": (40, 50)}, {"a": (60, 100), "b": (25, 50)}, "Take shares of what was right before: a loses 30 of 90, b 15 of 40."),
        ({"a": (200, 400), "b": (60, 100)}, {"a": (150, 400), "b": (40, 100)}, "Not counts: a loses 50 words, but a smaller share of its 200."),
        ({"a": (25, 30), "b": (40, 50)}, {"a": (5, 30), "b": (20, 50)}, "a has 30 words: enough."),
        ({"a": (28, 29), "b": (40, 50)}, {"a": (5, 29), "b": (30, 50)}, "a has 29 words, fewer than 30."),
        ({"a": (20, 40), "b": (35, 50)}, {"a": (5, 40), "b": (30, 50)}, "a has 40 words: how many of them were right does not matter."),
        ({"a": (50, 60), "b": (9, 10), "c": (80, 90)}, {"a": (30, 60), "b": (0, 10), "c": (70, 90)}, "b has fewer than 30 words: too few to tell."),
        ({"a": (0, 40), "b": (20, 40)}, {"a": (0, 40), "b": (18, 40)}, "What was never right cannot die."),
        ({"a": (30, 40), "b": (30, 40)}, {"a": (33, 40), "b": (30, 40)}, "Nothing was lost: return \"none\"."),
        ({"b": (30, 40), "a": (60, 80)}, {"b": (20, 40), "a": (40, 80)}, "Of two that lose alike, the one given first."),
        ({"a": (5, 9)}, {"a": (1, 9)}, "None has 30 words: return \"none\"."),
    )  # fmt: skip
    for before, after, advice in cases:
        want, got = dies_first.solve(before, after), answer(dict(before), dict(after))
        if not isinstance(got, str):
            return 'Return the name of a phenomenon, or "none".'
        if got != want:
            return f"{advice} For {before} and {after} it is {want!r}, not {got!r}."
    return None


@exercise(
    _judge_dies_first,
    "Leave out what has fewer than 30 words, or none right before. For the others: 1 − right after / right before.",
    "`max(shares, key=shares.get)` gives the first of equals; if the largest share is not above 0, or there is none, return 'none'.",
)
def dies_first(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> str:
    shares = {
        name: 1 - after[name][0] / right
        for name, (right, words) in before.items()
        if words >= 30 and right
    }
    worst = max(shares, key=shares.get, default=None)
    return worst if worst and shares[worst] > 0 else "none"
