"""Exercises of lesson 04 When to prune. Each: the judge, then the solution it belongs to."""

import copy

import numpy as np
import torch
from torch import Tensor, nn

from .exercise import example, exercise


def _judge_cubic(answer) -> str | None:
    for begin, end, final in ((20, 120, 0.9), (0, 8, 0.5), (300, 310, 0.99)):
        problem = _cubic_problem(answer, begin, end, final)
        if problem:
            return problem
    return None


def _cubic_problem(answer, begin: int, end: int, final: float) -> str | None:
    def near(value: float, other: float) -> bool:
        return abs(value - other) < 1e-6

    if near(float(answer(begin, begin, end, final)), final):
        return (
            "At its beginning it is at the final sparsity already: is the cube of what is *left*?"
        )
    middle, half = (begin + end) // 2, 0.5
    got = float(answer(middle, begin, end, final))
    if near(got, final / 2):
        return (
            "That is a straight line: at half time half of it is due. The cubic is ahead of that."
        )
    if near(got, final * half**3):
        return (
            "That begins slowly and ends fast. The cubic removes most while there is much to spare."
        )
    if near(got, 1 - half**3):
        return f"It goes to 1. All of it must end at `final`, here {final}."
    if begin and near(got, final * (1 - (1 - middle / end) ** 3)):
        return "Progress t begins at `begin`, not at step 0."
    if not near(got, final * (1 - half**3)):
        return (
            f"Half way to {final} sparsity {final * (1 - half**3):g} is due; you returned {got:g}."
        )
    for step in (begin, begin + 2, end - 2, end):
        t = (step - begin) / (end - begin)
        want, got = final * (1 - (1 - t) ** 3), float(answer(step, begin, end, final))
        if not near(got, want):
            return (
                f"Half way it is right. But from step {begin} to {end}, at step {step}, {want:g} is due; "
                f"you returned {got:g}."
            )
    before, after = (float(answer(s, begin, end, final)) for s in (begin - 15, end + 80))
    if not near(before, 0):
        return (
            f"Before `begin` nothing is due, but you returned {before:g}: hold t between 0 and 1."
        )
    if not near(after, final):
        return (
            f"After `end` it stays at {final}, but you returned {after:g}: hold t between 0 and 1."
        )
    return None


@exercise(
    _judge_cubic,
    "Progress is t = (step - begin) / (end - begin), held between 0 and 1.",
    "What is still to be pruned shrinks with the cube of the time left: final · (1 - (1 - t)³).",
)
def cubic_by_step(step: int, begin: int, end: int, final: float) -> float:
    t = min(1, max(0, (step - begin) / (end - begin)))
    return final * (1 - (1 - t) ** 3)


def _judge_rewind(answer) -> str | None:
    models = (
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)),
        nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 5, bias=False)),
        nn.Linear(3, 1),
    )
    for model in models:
        problem = _rewind_problem(answer, model)
        if problem:
            return problem
    return None


def _rewind_problem(answer, model: nn.Module) -> str | None:
    early = {n: example(*p.shape, seed=i) for i, (n, p) in enumerate(model.named_parameters())}
    masks = {n: torch.arange(p.numel()).view(p.shape) % 3 > 0 for n, p in early.items()}
    masks = {n: mask for n, mask in masks.items() if mask.dim() > 1}
    kept = copy.deepcopy(early)
    trained = {n: p + 1 for n, p in early.items()}
    model.load_state_dict(trained)
    answer(model, early, masks)
    now = {n: p.clone() for n, p in model.state_dict().items()}
    if any(not torch.equal(early[n], kept[n]) for n in kept):
        return (
            "Your function changed `early` itself. The next round needs it whole: copy, then mask."
        )
    if all(torch.equal(now[n], trained[n]) for n in now):
        return "The model is as it was. `model.load_state_dict(...)` puts values into it."
    if all(torch.equal(now[n], early[n]) for n in now):
        return "The early weights are back, all of them: the pruned ones must be zero."
    for name, mask in masks.items():
        if torch.equal(now[name], trained[name] * mask):
            return (
                "The pruned weights are zero, but the others are as trained: take the early values."
            )
        if torch.equal(now[name], early[name] * ~mask):
            return "It is the wrong way round: True means kept."
        if not torch.equal(now[name], early[name] * mask):
            return f"{name} should be its early values where the mask is True and zero elsewhere."
    if any(not torch.equal(now[n], early[n]) for n in now if n not in masks):
        return "The biases were left as trained. They go back with the weights."
    with torch.no_grad():  # as the next training would
        for parameter in model.parameters():
            parameter.add_(1)
    for name in kept:
        if not torch.equal(early[name], kept[name]):
            return (
                f"The model's {name} *is* now `early[{name!r}]`, the same memory: the next training "
                "changes both. Copy the values."
            )
    return None


@exercise(
    _judge_rewind,
    "Put everything back with `model.load_state_dict(early)`, which copies.",
    "Then multiply each masked parameter by its mask in place, under `torch.no_grad()`.",
)
def rewind(model: nn.Module, early: dict[str, Tensor], masks: dict[str, Tensor]) -> None:
    model.load_state_dict(early)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks:
                parameter.mul_(masks[name])


def _judge_shuffle(answer) -> str | None:
    rows = torch.zeros(20, 30, dtype=torch.bool)
    rows[:4] = True
    masks = {
        "rows": rows,
        "columns": rows.t().clone(),
        "block": (torch.arange(24)[:, None] < 6) & (torch.arange(24) < 10),
        "filters": (torch.arange(576) < 60).view(16, 4, 3, 3),
        "whole": torch.ones(2, 3, dtype=torch.bool),
    }
    kept = copy.deepcopy(masks)
    got = answer(masks)
    if any(not torch.equal(masks[n], kept[n]) for n in kept):
        return "Your function changed the masks it was given. A control needs masks of its own."
    if not isinstance(got, dict) or set(got) != set(masks):
        return f"Return a dict with a mask for each of {', '.join(masks)}."
    got = {n: torch.as_tensor(m) if isinstance(m, np.ndarray | list) else m for n, m in got.items()}
    for name, mask in masks.items():
        new = got[name]
        if not isinstance(new, Tensor) or new.dtype != torch.bool or new.shape != mask.shape:
            return f"{name} must stay a bool mask of shape {tuple(mask.shape)}."
        if int(new.sum()) != int(mask.sum()):
            return (
                f"{name} keeps {int(new.sum())} weights instead of {int(mask.sum())}: shuffle inside "
                "each layer, or the control changes the budget as well."
            )
    if all(torch.equal(got[n], masks[n]) for n in masks):
        return "Nothing has moved. Was the shuffled tensor put into what you return?"
    for name, dim in (("rows", 1), ("columns", 0)):
        if int(got[name].any(dim=dim).sum()) == 4:
            return (
                f"You moved whole {name}: who was together still is. Flatten the mask before you "
                "shuffle, and view it in its shape afterwards."
            )
    for name in masks:
        if name != "whole" and torch.equal(got[name], masks[name]):
            return f"{name} is as it was: every layer is to be shuffled."
    for name in masks:
        if name != "whole" and _in_order(got[name]):
            return (
                f"{name} has been moved in order (turned, flipped or rolled?): each place must be as "
                "likely as any other. `torch.randperm` gives a random order."
            )
    return None


def _in_order(mask: Tensor) -> bool:
    """Whether places that follow each other agree far more, or less, often than by chance."""
    share = float(mask.float().mean())
    matrix = mask.flatten(1)
    for flat in (matrix.flatten(), matrix.t().flatten()):
        both, chance = int((flat[1:] & flat[:-1]).sum()), share**2 * (len(flat) - 1)
        if abs(both - chance) > 6 * max(1.0, chance) ** 0.5 + 2:
            return True
        gaps = flat.nonzero().flatten().diff()
        if len(gaps) > 3 and len(gaps.unique()) <= 2:
            return True
    return False


@exercise(
    _judge_shuffle,
    "One random order for each layer: `torch.randperm(mask.numel())`.",
    "`mask.flatten()[order].view(mask.shape)`, in a new dict.",
)
def shuffle_within_layers(masks: dict[str, Tensor]) -> dict[str, Tensor]:
    return {
        name: mask.flatten()[torch.randperm(mask.numel())].view(mask.shape)
        for name, mask in masks.items()
    }


def _judge_front(answer) -> str | None:
    def ask(costs: list[float], scores: list[float]) -> list[bool] | str:
        got = list(answer(list(costs), list(scores)))
        if len(got) != len(costs):
            return f"Return {len(costs)} values, True or False for each method, in their order."
        return [bool(value) for value in got]

    costs, scores = [4.0, 1.0, 3.0, 2.0, 8.0, 3.0], [0.95, 0.60, 0.80, 0.90, 0.94, 0.93]
    want = [True, True, False, True, False, True]
    got = ask(costs, scores)
    if isinstance(got, str):
        return got
    if got == [not value for value in want]:
        return "It is the wrong way round: True for those that nobody beats."
    if got == [score == max(scores) for score in scores]:
        return "That is the best score alone. A worse one for less money is on the front, too."
    if got[1] is False:
        return "The cheapest method is on the front, however bad: nobody is as cheap."
    if got[2]:
        return "The third costs 3 for 0.80, and the fourth costs 2 for 0.90: it is beaten."
    if got != want:
        return f"With costs {costs} and scores {scores} the front is {want}; yours is {got}."
    for costs, scores, want, reason in (
        ([1, 1], [0.5, 0.5], [True, True], "Two methods of equal cost and equal score don't beat each other: keep both."),
        ([1, 2], [0.5, 0.5], [True, False], "As good for less money also beats: the dearer of two equal scores must go."),
        ([2, 2, 1], [0.7, 0.9, 0.5], [False, True, True], "Better for the same money also beats: of two equal costs the worse must go."),
        ([7, 5, 5, 0], [-1, -1, -1, -2], [False, True, True, True], "Scores may be negative, as a loss with its sign turned is."),
        ([3, 2, 1], [30, 20, 10], [True, True, True], "Who pays more and gets more is not beaten."),
    ):  # fmt: skip
        if (got := ask(costs, scores)) != want:
            if isinstance(got, str):
                return got
            return f"{reason} With costs {costs} and scores {scores} the front is {want}; yours is {got}."
    return None


@exercise(
    _judge_front,
    "A method is beaten if another costs no more and scores no less, and is strictly better in one.",
    "Two nested loops will do: for each method ask `any(...)` of all the others.",
)
def pareto_front(costs: list[float], scores: list[float]) -> list[bool]:
    methods = list(zip(costs, scores, strict=True))
    return [
        not any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in methods)
        for cost, score in methods
    ]
