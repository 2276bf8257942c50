"""Exercises of lesson 06 Does the promise hold? Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

import pruninglib as pl

from .exercise import exercise


def _judge_memorised(answer) -> str | None:
    true = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    given = torch.tensor([0, 1, 2, 3, 4, 5, 7, 8, 9, 0])  # the last four are wrong
    answers = torch.tensor([0, 1, 2, 3, 4, 7, 7, 7, 8, 9])  # of these, one is given back
    got = float(answer(answers, given, true))
    if abs(got - 0.25) < 1e-6:
        return None
    named = {
        0.1: "You divided by all images. Divide by those whose given label is wrong.",
        0.6: "You counted answers that equal the given label. Most given labels are right: look at the wrong ones.",
        0.75: "That is the share of wrong labels for which the network gives the *true* class.",
        0.8: "That is the accuracy on the true labels. Look only at images whose given label is wrong.",
        0.4: "That is the share of labels that are wrong. How many of them does the network repeat?",
        1.0: "You counted them. Divide by the number of wrong labels.",
    }
    for value, message in named.items():
        if abs(got - value) < 1e-6:
            return message
    return f"Of four wrong labels the network repeats one: 0.25, and you returned {got:.3g}."


@exercise(
    _judge_memorised,
    "Which labels are wrong? `wrong = given != true` says so for each image.",
    "Of `answers[wrong] == given[wrong]`, take the mean.",
)
def memorised_share(answers: Tensor, given: Tensor, true: Tensor) -> Tensor:
    wrong = given != true
    return (answers[wrong] == given[wrong]).float().mean()


def _judge_stopping(answer) -> str | None:
    cases = [
        ([0.5, 0.7, 0.6, 0.65, 0.9], 2, 2, "later"),
        ([0.5, 0.7, 0.6, 0.8, 0.7, 0.6], 2, 4, "patience"),
        ([0.1, 0.2, 0.3], 5, 3, "end"),
        ([0.5, 0.7, 0.7, 0.7], 2, 2, "tie"),
        ([0.9, 0.1, 0.2], 1, 1, "first"),
    ]
    for scores, patience, want, kind in cases:
        got = answer(scores, patience)
        if isinstance(got, bool) or not isinstance(got, int):
            return f"Return a whole number, the epoch: you returned {got!r}."
        if got == want:
            continue
        if got == want - 1:
            return "You counted epochs from 0: the first epoch is 1."
        if got == want + patience:
            return (
                "That is the epoch in which training stops. Kept are the weights of the best one."
            )
        if kind == "later":
            return (
                f"For {scores} with patience {patience} training stops after epoch 4: what would have "
                f"come later is never seen, and the best so far is epoch {want}, not {got}."
            )
        if kind == "tie":
            return "An epoch that is only as good brings nothing better: keep the first of them."
        return f"For {scores} with patience {patience} the epoch to keep is {want}; you returned {got}."
    return None


@exercise(
    _judge_stopping,
    "Go through the scores and remember the best one so far and its epoch.",
    "Stop when `epoch - best_epoch` reaches the patience, or when the scores end.",
)
def stopping_epoch(scores: list[float], patience: int) -> int:
    best = 1
    for epoch, score in enumerate(scores, start=1):
        if score > scores[best - 1]:
            best = epoch
        if epoch - best == patience:
            break
    return best


def _judge_verdict(answer) -> str | None:
    cases = [  # accuracies in points, the least gain worth having is one
        ([96.0, 95.1, 95.0, 96.1], [98, 97, 97, 98], "does not hold", "sign"),
        ([95.1, 90.0, 85.0, 79.9], [93, 88, 83, 78], "holds", "paired"),
        ([98.1, 97.2, 97.6, 98.2], [98.0, 97.0, 97.5, 98.0], "does not hold", "small"),
        ([97, 90, 96, 91], [91, 92, 91, 92], "open", "wide"),
        ([97.5, 96.5, 97.4, 96.6], [97, 97, 97, 97], "does not hold", "none"),
    ]
    named = {
        "paired": "Network by network the gains are 2.1, 2, 2 and 1.9, so the promise holds. Take the interval "
        "of the *gains*: what both have in common, a good or a bad seed, then drops out.",
        "small": "The gains are real, above zero, and nowhere near `worth`: it does not hold. Compare with "
        "`worth`, not with zero.",
        "wide": "Two networks gain 6 and 5, two lose 2 and 1. The mean is above `worth`, but its interval reaches "
        "below: the question is open.",
        "sign": "Here every network loses about two points by pruning. A gain is `with_pruning` less `without`.",
        "none": "The whole interval of these gains lies below `worth`, so it does not hold, though the interval "
        "contains zero.",
    }
    for pruned, dense, want, kind in cases:
        got = answer(pruned, dense, 1.0)
        if got not in ("holds", "does not hold", "open"):
            return f"Return 'holds', 'does not hold' or 'open'; you returned {got!r}."
        if got != want:
            return named[kind]
    if answer([95.1, 90.0, 85.0, 79.9], [93, 88, 83, 78], 3.0) != "does not hold":
        return "With `worth` at 3 a gain of 2 is not enough: use `worth`, whatever it is."
    return None


@exercise(
    _judge_verdict,
    "One gain for each seed: what pruning has, less what it has without. `pl.interval` of these.",
    "Holds if `low` is above `worth`, does not hold if `high` is below, and else it is open.",
)
def verdict_for(with_pruning: list[float], without: list[float], worth: float) -> str:
    gain = pl.interval(a - b for a, b in zip(with_pruning, without, strict=True))
    return "holds" if gain.low > worth else "does not hold" if gain.high < worth else "open"
