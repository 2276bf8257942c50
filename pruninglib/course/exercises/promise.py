"""Exercises of lesson 06 Does the promise hold? Each: the judge, then the solution it belongs to."""

import numpy as np
import torch
from torch import Tensor

import pruninglib as pl

from .exercise import exercise


def _judge_memorised(answer) -> str | None:
    true = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    given = torch.tensor([0, 1, 2, 3, 4, 5, 7, 8, 9, 0])  # the last four are wrong
    answers = torch.tensor([0, 1, 2, 3, 4, 7, 7, 7, 8, 9])  # of these, one is given back
    two = (
        torch.tensor([2, 2, 0, 1, 1]),
        torch.tensor([2, 2, 1, 1, 1]),
        torch.tensor([0, 1, 1, 1, 1]),
    )
    none = (
        torch.tensor([3, 1, 5, 6, 0]),
        torch.tensor([3, 2, 4, 7, 0]),
        torch.tensor([3, 1, 5, 6, 0]),
    )
    for case in ((answers, given, true), two, none):
        if said := _wrong_share(float(answer(*(t.clone() for t in case))), *case):
            return said
    return None


def _wrong_share(got: float, answers: Tensor, given: Tensor, true: Tensor) -> str | None:
    wrong = given != true
    repeated, count = int((answers == given)[wrong].sum()), int(wrong.sum())
    if abs(got - repeated / count) < 1e-6:
        return None
    named = {
        repeated
        / len(true): "You divided by all images. Divide by those whose given label is wrong.",
        float(
            (answers == given).float().mean()
        ): "You counted answers that equal the given label. Most given labels are right: look at the wrong ones.",
        float(
            (answers == true)[wrong].float().mean()
        ): "That is the share of wrong labels for which the network gives the *true* class.",
        float(
            (answers == true).float().mean()
        ): "That is the accuracy on the true labels. Look only at images whose given label is wrong.",
        count
        / len(
            true
        ): "That is the share of labels that are wrong. How many of them does the network repeat?",
        repeated: "You counted them. Divide by the number of wrong labels.",
    }
    for value, message in named.items():
        if abs(got - value) < 1e-6:
            return message
    return (
        f"For answers {answers.tolist()}, given {given.tolist()} and true {true.tolist()} the network "
        f"repeats {repeated} of {count} wrong labels, a share of {repeated / count:.3g}; you returned {got:.3g}."
    )


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
        ([0.5, 0.4, 0.6, 0.5, 0.7, 0.6], 2, 5, "reset"),
        ([-3.0, -2.0, -2.5, -1.0], 3, 4, "negative"),
    ]
    for scores, patience, want, kind in cases:
        got = answer([*scores], patience)
        if isinstance(got, Tensor | np.ndarray) and np.shape(got) in ((), (1,)):
            got = got.item()
        if isinstance(got, bool | np.bool_) or not isinstance(got, int | np.integer):
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
        if kind == "reset":
            return (
                f"For {scores} with patience {patience} no two epochs in a row bring nothing: a new best "
                f"sets the count back to 0. The epoch to keep is {want}, not {got}."
            )
        if kind == "negative":
            return (
                f"Scores may be negative, as a loss with its sign turned: for {scores} with patience "
                f"{patience} the best is epoch {want}, not {got}. Begin with the first score, not with 0."
            )
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
        ([96.0, 95.1, 95.0, 96.1], [98, 97, 97, 98], "contradicted", "sign"),
        ([95.1, 90.0, 85.0, 79.9], [93, 88, 83, 78], "holds", "paired"),
        ([98.1, 97.2, 97.6, 98.2], [98.0, 97.0, 97.5, 98.0], "contradicted", "small"),
        ([97, 90, 96, 91], [91, 92, 91, 92], "open", "wide"),
        ([97.5, 96.5, 97.4, 96.6], [97, 97, 97, 97], "contradicted", "none"),
        ([92, 92, 93, 92, 92, 93, 92, 91.9], [90, 90, 91, 90, 90, 91, 90, 91], "holds", "one"),
        ([96.5, 97.5, 97.0], [95, 95, 95], "open", "few"),
    ]
    named = {
        "paired": "Network by network the gains are 2.1, 2, 2 and 1.9, so the promise holds. Take the interval "
        "of the *gains*: what both have in common, a good or a bad seed, then drops out.",
        "small": "The gains are real, above zero, and nowhere near `worth`: the promise is contradicted. Compare with "
        "`worth`, not with zero.",
        "wide": "Two networks gain 6 and 5, two lose 2 and 1. The mean is above `worth`, but its interval reaches "
        "below: the question is open.",
        "sign": "Here every network loses about two points by pruning. A gain is `with_pruning` less `without`.",
        "none": "The whole interval of these gains lies below `worth`, so it is contradicted, though the interval "
        "contains zero.",
        "few": "Gains of 1.5, 2.5 and 2 points: all are above `worth`, but three networks say little. The 95 % interval "
        "of so few is wide (Student's t, as in `pl.interval`): wider than one or two standard errors, or from the "
        "smallest to the largest.",
        "one": "Seven of eight networks gain 2 points, one gains 0.9. The interval of the *mean* gain lies above `worth`: it "
        "does not reach from the smallest gain to the largest.",
    }
    for pruned, dense, want, kind in cases:
        got = answer(pruned, dense, 1.0)
        if got not in ("holds", "contradicted", "open"):
            return f"Return 'holds', 'contradicted' or 'open'; you returned {got!r}."
        if got != want:
            return named[kind]
    if answer([95.1, 90.0, 85.0, 79.9], [93, 88, 83, 78], 3.0) != "contradicted":
        return "With `worth` at 3 a gain of 2 is not enough: use `worth`, whatever it is."
    return None


@exercise(
    _judge_verdict,
    "One gain for each seed: what pruning has, less what it has without. `pl.interval` of these.",
    "Holds if `low` is above `worth`, contradicted if `high` is not, and else it is open.",
)
def verdict_for(with_pruning: list[float], without: list[float], worth: float) -> str:
    gain = pl.interval(a - b for a, b in zip(with_pruning, without, strict=True))
    if gain.low > worth:
        return "holds"
    return "contradicted" if gain.high <= worth else "open"
