"""Exercises of lesson 06 Does the promise hold? Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor

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


def _judge_speedup(answer) -> str | None:
    dense = [1.0, 1.0, 4.0, 1.0, 8.0]  # a busy machine in rounds 3 and 5
    pruned = [0.5, 0.4, 2.0, 0.5, 1.0]
    want = 2.0
    got = float(answer(dense, pruned))
    if abs(got - want) < 1e-9:
        return None
    mean = sum(d / p for d, p in zip(dense, pruned, strict=True)) / 5
    named = {
        0.5: "That is the pruned model's time in units of the dense one's. A speed-up is the other way up.",
        sum(dense)
        / sum(
            pruned
        ): "A ratio of sums or means is ruled by the slowest rounds. Take each round's ratio first.",
        mean: "A mean of ratios is pulled by one lucky round. Take the median.",
        max(
            d / p for d, p in zip(dense, pruned, strict=True)
        ): "That is the luckiest round. Take the median of all.",
        min(dense)
        / min(
            pruned
        ): "The best times of both come from different rounds. Take each round's ratio first.",
    }
    for value, message in named.items():
        if abs(got - value) < 1e-9:
            return message
    return (
        f"The ratios of the rounds are 2, 2.5, 2, 2 and 8: their median is 2, you returned {got:g}."
    )


@exercise(
    _judge_speedup,
    "One ratio a round: dense seconds divided by pruned seconds.",
    "`torch.tensor(dense_seconds) / torch.tensor(pruned_seconds)`, then `.median()`.",
)
def fair_speedup(dense_seconds: list[float], pruned_seconds: list[float]) -> float:
    return float((torch.tensor(dense_seconds) / torch.tensor(pruned_seconds)).median())
