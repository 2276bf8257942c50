"""What checks answers: an exercise, answered by a function, and a question, by a letter."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from IPython.display import Markdown, display
from torch import nn

from ...prune.weights import weights_of

CORRECT, WRONG, NOT_ATTEMPTED = "correct", "wrong", "not attempted"
UNFINISHED = "Replace the `...` with your answer, then run this again."


class Verdict(str):
    """One of "correct", "wrong", "not attempted", with the `message` that the learner saw."""

    message: str

    def __new__(cls, status: str, message: str):
        verdict = super().__new__(cls, status)
        verdict.message = message
        return verdict

    def _ipython_display_(self) -> None:
        display(Markdown(f"**{self.capitalize()}.** {self.message}"))


class Exercise:
    """Made by `exercise`: the solution is a function, `judge` says what is wrong with another.

    judge(answer) returns None if the answer is right, or else a sentence that helps. An answer
    that raises is wrong, one that returns `...` has not been attempted.
    """

    def __init__(self, solve: Callable, judge: Callable[[Callable], str | None], hints: list[str]):
        self.solve, self.judge, self.hints = solve, judge, hints
        self._shown = 0

    def check(self, answer: Callable) -> Verdict:
        """Try the answer, a function, on several inputs. Never raises: a notebook goes on."""
        if answer is ...:
            return Verdict(NOT_ATTEMPTED, UNFINISHED)
        if not callable(answer):
            return Verdict(WRONG, f"Pass your function itself: this is a {type(answer).__name__}.")
        tried = _Watched(answer)
        try:
            problem = self.judge(tried)
        except Exception as error:
            problem = f"It stopped with {type(error).__name__}: {error}"
        if tried.unfinished:
            return Verdict(NOT_ATTEMPTED, UNFINISHED)
        if tried.silent and self.solve.__annotations__["return"] is not None:
            return Verdict(WRONG, "Your function gave nothing back: end it with `return`.")
        if problem:
            return Verdict(WRONG, problem)
        return Verdict(CORRECT, "Compare with `.solution()` if you like.")

    def hint(self) -> Markdown:
        """The next hint; after the last one, the last again."""
        number = min(self._shown, len(self.hints) - 1)
        self._shown += 1
        return Markdown(f"**Hint {number + 1} of {len(self.hints)}.** {self.hints[number]}")

    def solution(self) -> Markdown:
        """The source of the solution."""
        source = inspect.getsource(self.solve)
        return Markdown("```python\n" + source[source.index("def ") :] + "```")


@dataclass(frozen=True)
class Question:
    """A question with options, of which one is right. A notebook shows it as Markdown.

    options: from the letter of each to what it says and why that is right or wrong.
    lesson: the file, beside the self-test, of the lesson that shows it.
    """

    text: str
    options: dict[str, tuple[str, str]]
    right: str
    lesson: str

    def __post_init__(self) -> None:
        if self.right not in self.options:
            raise ValueError(
                f"right is {self.right!r}, but must be one of {', '.join(self.options)}"
            )

    def _repr_markdown_(self) -> str:
        options = (f"- **{letter}** {says}" for letter, (says, _) in self.options.items())
        return "\n".join([self.text, "", *options])

    def check(self, answer: str) -> Verdict:
        """Judge a letter. Never raises: a notebook goes on."""
        if answer is ...:
            return Verdict(NOT_ATTEMPTED, UNFINISHED)
        letter = answer.strip().lower() if isinstance(answer, str) else None
        if letter not in self.options:
            letters = " or ".join(f'`"{letter}"`' for letter in self.options)
            return Verdict(WRONG, f"Answer with a letter in quotes: {letters}.")
        reason = self.options[letter][1]
        if letter != self.right:
            return Verdict(WRONG, reason)
        return Verdict(CORRECT, f"{reason} [Lesson {self.lesson[:2]}]({self.lesson}) shows it.")


class _Watched:
    """Calls through to an answer; notices one that is still a stub, or that returns nothing."""

    def __init__(self, answer: Callable):
        self.answer, self.unfinished, self.silent = answer, False, False

    def __call__(self, *args):
        result = self.answer(*args)
        self.unfinished |= result is ...
        self.silent |= result is None
        return result


def exercise(judge: Callable[[Callable], str | None], *hints: str) -> Callable[..., Exercise]:
    """Decorate the solution: `@exercise(judge, "first hint", "second hint")`."""
    return lambda solve: Exercise(solve, judge, list(hints))


def number(got) -> float | None:
    """A number of any kind, alone or as an array's one element; None for all else."""
    if isinstance(got, torch.Tensor):
        got = got.detach().double()
    try:
        return float(np.asarray(got, dtype=float).reshape(()))
    except (TypeError, ValueError):
        return None


def example(*shape: int, seed: int = 0) -> torch.Tensor:
    """Normal random numbers to try an answer on, the same every time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def beside_weights(before: nn.Module, after: nn.Module) -> str | None:
    """The name of a parameter that is no weight to prune and changed, in a sentence; None: all are as
    they were.
    """
    weights, found = weights_of(before), dict(after.named_parameters())
    for name, parameter in before.named_parameters():
        if name not in weights and not parameter.equal(found[name]):
            return f"{name} changed: biases and the parameters of BatchNorm are not pruned."
    return None
