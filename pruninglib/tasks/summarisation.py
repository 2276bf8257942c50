"""A report in one sentence: generated reports of matches (bundled)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ..measure.training import Batches, evaluating
from . import datasets
from .sentiment import ByLength
from .task import Task
from .transformer import BEGIN, END, PADDING, UNKNOWN, EncoderDecoder, write

SLOTS = 4  # for words of a report that the vocabulary lacks, by the order in which they come
SPECIAL = ["[PAD]", "[UNK]", "[BEGIN]", "[END]", *(f"[{n}]" for n in range(1, SLOTS + 1))]
COMMON = 20  # a word that the training reports have as often gets a token of its own
VERBS = {"beat": 1, "drew with": 0, "lost to": -1}
OPENINGS = {"as expected": True, "against expectation": False}
NUMBERS = ("nil", "one", "two", "three", "four", "five")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SIZES = {"train": 5_500, "valid": 500, "test": 1_000}


class Facts(NamedTuple):
    """What a summary says; None where it says nothing that can be understood.

    teams: the one that the sentence is about, and the other. result: 1 if the first won, 0 for a
    draw, -1. score: goals of the first and of the other, as words. expectation: whether the
    favourite won.
    """

    teams: tuple[str, str] | None
    result: int | None
    score: tuple[str, str] | None
    day: str | None
    scorer: str | None
    expectation: bool | None

    def turned(self) -> "Facts":
        """The same facts, told of the other team."""
        result = None if self.result is None else -self.result
        pairs = {n: pair and pair[::-1] for n, pair in (("teams", self.teams), ("score", self.score))}
        return self._replace(result=result, **pairs)


KINDS = Facts._fields


def summary_of(facts: Facts) -> str:
    """The sentence that the grammar has for these facts."""
    verb = next(verb for verb, result in VERBS.items() if result == facts.result)
    opening = next(words for words, expected in OPENINGS.items() if expected == facts.expectation)
    return (
        f"the {facts.teams[0]} {verb} the {facts.teams[1]} {facts.score[0]} to {facts.score[1]} on "
        f"{facts.day} {opening} ; {facts.scorer} scored first"
    )


@dataclass(frozen=True)
class Grammar:
    """The parser beside `summary_of`: which words may stand where.

    teams, players: first and second words of their names.
    """

    teams: tuple[frozenset[str], frozenset[str]]
    players: tuple[frozenset[str], frozenset[str]]

    def well_formed(self, summary: str) -> bool:
        """Whether `summary_of` could have written it, of whatever facts."""
        form = rf"the (\S+) (\S+) (?:{'|'.join(VERBS)}) the (\S+) (\S+) (\S+) to (\S+) on (\S+) "
        form += rf"(?:{'|'.join(OPENINGS)}) ; (\S+) (\S+) scored first"
        said = re.fullmatch(form, summary)
        classes = (*self.teams, *self.teams, NUMBERS, NUMBERS, DAYS, *self.players)
        return bool(said) and all(w in c for w, c in zip(said.groups(), classes, strict=True))

    def read(self, summary: str) -> Facts:
        """What it says. It need not be well formed: each fact is looked for by itself."""
        words = summary.split()
        pairs = zip(words, words[1:], strict=False)
        teams = tuple(f"{a} {b}" for a, b in pairs if a in self.teams[0] and b in self.teams[1])
        results = [result for verb, result in VERBS.items() if f" {verb} " in summary]
        score = re.search(r"\b({0}) to ({0})\b".format("|".join(NUMBERS)), summary)
        days = [word for word in words if word in DAYS]
        scorer = re.search(r"(\S+ \S+) scored first", summary)
        return Facts(
            teams if len(teams) == 2 else None,
            results[0] if len(results) == 1 else None,
            score.groups() if score else None,
            days[0] if len(days) == 1 else None,
            scorer[1] if scorer else None,
            next((v for words, v in OPENINGS.items() if words in summary), None),
        )


def right(said: Facts, true: Facts) -> list[bool]:
    """Fact by fact, in the order of `KINDS`; the other team's point of view is as good."""
    if said.teams and said.teams == true.teams[::-1]:
        said = said.turned()
    return [a == b for a, b in zip(said, true, strict=True)]


@dataclass(frozen=True, kw_only=True)
class SummaryTask(Task):
    """A task whose network writes a sentence of a report.

    reports, summaries, facts: by split, what the tokens of `splits` were made from.
    places: by split and kind of fact, where it begins in its report, int (reports,), as a share of
        the report's length. Of the expectation it says nothing.
    vocabulary: the tokens, by number.
    """

    reports: dict[str, list[str]]
    summaries: dict[str, list[str]]
    facts: dict[str, list[Facts]]
    places: dict[str, dict[str, np.ndarray]]
    vocabulary: list[str]
    grammar: Grammar

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `ByLength`."""
        kind = Batches if seed is None else ByLength
        return kind(*self.splits[split], size=size or self.batch_size, seed=seed)

    def write(self, network: nn.Module, split: str) -> list[str]:
        """What the network writes of each report, the likeliest word at each step."""
        source, target = self.splits[split]
        with evaluating(network):
            parts = [write(network, batch, target.shape[1]) for batch in source.split(250)]
        return [
            " ".join(self.words(tokens, report))
            for tokens, report in zip(torch.cat(parts).tolist(), self.reports[split], strict=True)
        ]

    def words(self, tokens: Sequence[int], report: str) -> list[str]:
        """Tokens as words: a slot is the word of the report that it stands for."""
        new = unknown(report, self.vocabulary)
        tokens = tokens[: tokens.index(END)] if END in tokens else tokens
        names = {SPECIAL[FIRST + i]: word for i, word in enumerate(new)}
        return [names.get(w, w) for w in (self.vocabulary[t] for t in tokens if t != PADDING)]

    def right(self, summaries: Sequence[str], split: str) -> np.ndarray:
        """bool (summaries, kinds of fact)."""
        pairs = zip(summaries, self.facts[split], strict=True)
        return np.array([right(self.grammar.read(text), true) for text, true in pairs])

    def scores(self, summaries: Sequence[str], split: str) -> dict[str, np.ndarray]:
        """By name, a value for each summary: ROUGE-1, -2 and -L (F1), whether it is well formed,
        whether each kind of fact is right, the share of facts that are, and whether all are.
        """
        facts = self.right(summaries, split)
        found = {f"ROUGE-{n}": v for n, v in zip("12L", rouge(self.summaries[split], summaries), strict=True)}
        found["well formed"] = np.array([self.grammar.well_formed(text) for text in summaries])
        found |= dict(zip(KINDS, facts.T, strict=True))
        return found | {"facts": facts.mean(axis=1), "all facts": facts.all(axis=1)}


FIRST = SPECIAL.index("[1]")


def unknown(report: str, vocabulary: Sequence[str]) -> list[str]:
    """The words of a report that have no token, each once, as many as there are slots."""
    known = set(vocabulary)
    return list(dict.fromkeys(w for w in report.split() if w not in known))[:SLOTS]


def rouge(references: Sequence[str], summaries: Sequence[str]) -> np.ndarray:
    """F1 of ROUGE-1, ROUGE-2 and ROUGE-L, (3, summaries) (Lin, "ROUGE", 2004).

    By Google's rouge-score: lower case, letters and digits only, no stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer  # takes half a second

    names = ["rouge1", "rouge2", "rougeL"]
    scorer = RougeScorer(names)
    found = [scorer.score(a, b) for a, b in zip(references, summaries, strict=True)]
    return np.array([[score[name].fmeasure for score in found] for name in names])


def summarisation(data: str = "bundled") -> SummaryTask:
    """Reports of matches, each with a summary of one sentence, and a network that can copy.

    data: "bundled", 7,000 generated reports, offline (5,500 train, 500 valid, 1,000 test).
    """
    if data != "bundled":
        raise ValueError(f"data is {data!r}, but must be 'bundled'")
    table = datasets.generated_reports()
    words = [report.split() for report in table["report"]]
    facts = [_facts(row, text) for row, text in zip(table.itertuples(), words, strict=True)]
    ends = np.cumsum([0, *SIZES.values()])
    at = {s: slice(a, b) for s, a, b in zip(SIZES, ends, ends[1:], strict=False)}
    reports = {s: list(table["report"][i]) for s, i in at.items()}
    of_split = {s: facts[i] for s, i in at.items()}
    summaries = {s: [summary_of(f) for f in found] for s, found in of_split.items()}

    counts = Counter(w for part in (reports, summaries) for text in part["train"] for w in text.split())
    common = sorted((w for w in counts if counts[w] >= COMMON), key=lambda w: (-counts[w], w))
    vocabulary = [*SPECIAL, *common]
    names = [[*zip(*(n.split() for n in found), strict=True)] for found in (
        [team for f in of_split["train"] for team in f.teams], [f.scorer for f in of_split["train"]]
    )]
    made_up = {w for text in words for w in text if w not in set(common)}
    teams, (first, last) = [tuple(map(frozenset, n)) for n in names]
    grammar = Grammar(teams, (first, last | made_up))

    numbered = {word: i for i, word in enumerate(vocabulary)}
    source, target = {}, {}
    for split in SIZES:
        pairs = [*zip(reports[split], summaries[split], strict=True)]
        new = [{w: FIRST + i for i, w in enumerate(unknown(r, vocabulary))} for r, _ in pairs]
        rows = [
            [[(numbered | own).get(w, UNKNOWN) for w in text.split()] for text in pair]
            for pair, own in zip(pairs, new, strict=True)
        ]
        source[split] = [row for row, _ in rows]
        target[split] = [[*row, END] for _, row in rows]
    lengths = [max(len(row) for part in of.values() for row in part) for of in (source, target)]
    splits = {
        s: tuple(
            torch.stack([pad(torch.tensor(row), (0, n - len(row))) for row in part[s]])
            for part, n in zip((source, target), lengths, strict=True)
        )
        for s in SIZES
    }
    places, slices = {}, {}
    for split, i in at.items():
        part = table[i]
        size = np.array([len(w) for w in words[i]])
        begins = {"teams": part[["hosts", "guests"]].min(axis=1), "score": part[["goals", "against"]].min(axis=1)}
        begins |= {"result": begins["score"], "day": part["day"], "scorer": part["scorer"]}
        places[split] = {kind: begin.to_numpy() / size for kind, begin in begins.items()}
        found = {
            "against expectation": [not f.expectation for f in of_split[split]],
            "draw": [f.result == 0 for f in of_split[split]],
            "goal that did not count": part["cancelled"].to_numpy(),
            "rare name": part["rare"].to_numpy(),
            "guests first": (part["guests"] < part["hosts"]).to_numpy(),
            "other numbers": [text.count("to") > 1 for text in words[i]],
            "long": size > np.quantile([len(w) for w in words[at["train"]]], 2 / 3),
            "result late": places[split]["result"] > 0.5,
        }
        slices[split] = {name: torch.tensor(np.array(flags)) for name, flags in found.items()}
    task = SummaryTask(
        name=f"summarisation-{data}",
        splits=splits,
        build=partial(summariser, len(vocabulary), lengths),
        loss=loss,
        metrics=lambda network, split: metrics(task, network, split),
        primary="all facts",
        epochs=20,
        optimizer=partial(torch.optim.AdamW, lr=3e-3, weight_decay=0.01, fused=True),
        batch_size=50,
        outcomes=lambda network, split: torch.tensor(
            task.right(task.write(network, split), split).all(axis=1)
        ),
        slices=slices,
        cooling=True,
        reports=reports,
        summaries=summaries,
        facts=of_split,
        places=places,
        vocabulary=vocabulary,
        grammar=grammar,
    )
    return task


def _facts(row, words: list[str]) -> Facts:
    """What the columns of a report's row say, told of the hosts."""
    pairs = {n: " ".join(words[getattr(row, n) :][:2]) for n in ("hosts", "guests", "scorer")}
    goals, against = words[row.goals], words[row.against]
    won = np.sign(NUMBERS.index(goals) - NUMBERS.index(against))
    return Facts(
        (pairs["hosts"], pairs["guests"]),
        int(won),
        (goals, against),
        words[row.day],
        pairs["scorer"],
        bool(won == (-1 if row.favourite else 1)),
    )


def metrics(task: SummaryTask, network: nn.Module, split: str) -> dict[str, float]:
    """The mean of each of `SummaryTask.scores` over what the network writes."""
    scores = task.scores(task.write(network, split), split)
    return {name: float(values.mean()) for name, values in scores.items()}


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the words of the summaries, each given those before it."""
    source, target = batch
    before = pad(target[:, :-1], (1, 0), value=BEGIN)
    return cross_entropy(model(source, before).flatten(0, 1), target.flatten(), ignore_index=PADDING)


def summariser(
    words: int, lengths: Sequence[int], seed: int, width: float = 1.0, *, channels: int = 48,
    heads: int = 4, hidden: int = 96, layers: tuple[int, int] = (2, 1),
) -> EncoderDecoder:
    """An `EncoderDecoder` that can copy; the channels of each head and the hidden units are scaled
    by `width`.
    """  # fmt: skip
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncoderDecoder(
            (words, words), tuple(lengths), heads * each, heads, hidden, layers, copies=True
        )
