"""A report in one sentence: generated reports of matches (bundled)."""

import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ..measure.training import Batches, evaluating
from . import datasets
from .sentiment import ByLength
from .task import Task
from .transformer import BEGIN, END, PADDING, UNKNOWN, EncoderDecoder

SLOTS = 4  # for words of a report that the vocabulary lacks, by the order in which they come
SPECIAL = ["[PAD]", "[UNK]", "[BEGIN]", "[END]", *(f"[{n}]" for n in range(1, SLOTS + 1))]
FIRST = SPECIAL.index("[1]")
COMMON = 20  # a word that the training reports have as often gets a token of its own
VERBS = {"beat": 1, "drew with": 0, "lost to": -1}
ROLES = {"favourites": 1, "outsiders": -1}
NUMBERS = ("nil", "one", "two", "three", "four", "five")
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
SIZES = {"train": 5_500, "valid": 500, "test": 1_000}


class Facts(NamedTuple):
    """What a summary says; None where it says nothing that can be understood.

    teams: the one that the sentence is about, and the other. result: 1 if the first won, 0 for a
    draw, -1. score: goals of the first and of the other, as words. favourite: 1 if it was the first,
    or -1.
    """

    teams: tuple[str, str] | None
    result: int | None
    score: tuple[str, str] | None
    day: str | None
    scorer: str | None
    favourite: int | None

    def turned(self) -> "Facts":
        """The same facts, told of the other team."""
        return Facts(
            self.teams and self.teams[::-1],
            self.result and -self.result,
            self.score and self.score[::-1],
            self.day,
            self.scorer,
            self.favourite and -self.favourite,
        )


KINDS = Facts._fields


def summary_of(facts: Facts) -> str:
    """The sentence that the grammar has for these facts."""
    verb = next(verb for verb, result in VERBS.items() if result == facts.result)
    role = next(role for role, first in ROLES.items() if first == facts.favourite)
    return (
        f"the {facts.teams[0]} , the {role} , {verb} the {facts.teams[1]} {facts.score[0]} to "
        f"{facts.score[1]} on {facts.day} ; {facts.scorer} scored first"
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
        form = (
            rf"the (\S+) (\S+) , the (?:{'|'.join(ROLES)}) , (?:{'|'.join(VERBS)}) the (\S+) (\S+) "
        )
        form += r"(\S+) to (\S+) on (\S+) ; (\S+) (\S+) scored first"
        said = re.fullmatch(form, summary)
        classes = (*self.teams, *self.teams, NUMBERS, NUMBERS, DAYS, *self.players)
        return bool(said) and all(w in c for w, c in zip(said.groups(), classes, strict=True))

    def read(self, summary: str) -> Facts:
        """What it says. It need not be well formed: each fact is looked for by itself."""
        words = summary.split()
        pairs = pairwise(words)
        teams = tuple(f"{a} {b}" for a, b in pairs if a in self.teams[0] and b in self.teams[1])
        results = [result for verb, result in VERBS.items() if f" {verb} " in summary]
        score = re.search(r"\b({0}) to ({0})\b".format("|".join(NUMBERS)), summary)
        days = [word for word in words if word in DAYS]
        roles = [ROLES[word] for word in words if word in ROLES]
        scorer = re.search(r"(\S+ \S+) scored first", summary)
        return Facts(
            teams if len(teams) == 2 else None,
            results[0] if len(results) == 1 else None,
            score.groups() if score else None,
            days[0] if len(days) == 1 else None,
            scorer[1] if scorer else None,
            roles[0] if len(roles) == 1 else None,
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
    places: by split and kind of fact, where it stands in its report, (reports,), as a share of the
        report's words; not of the favourite, who may be said in many ways.
    vocabulary: the tokens, by number.
    """

    reports: dict[str, list[str]]
    summaries: dict[str, list[str]]
    facts: dict[str, list[Facts]]
    places: dict[str, dict[str, np.ndarray]]
    vocabulary: list[str]
    grammar: Grammar
    kept: dict = field(default_factory=dict, repr=False)

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `ByLength`."""
        kind = Batches if seed is None else ByLength
        return kind(*self.splits[split], size=size or self.batch_size, seed=seed)

    def write(self, network: nn.Module, split: str) -> list[str]:
        """What the network writes of each report, the likeliest word at each step."""
        pairs = zip(self._written(network, split).tolist(), self.reports[split], strict=True)
        return [" ".join(self.words(row, report)) for row, report in pairs]

    def _written(self, network: nn.Module, split: str) -> Tensor:
        """Its tokens, int64 (reports, longest).

        The last 50 answers are kept: the same weights write the same again.
        """
        state = b"".join(value.cpu().numpy().tobytes() for value in network.state_dict().values())
        key = split, len(self.reports[split]), sha256(state).digest()
        if key not in self.kept:
            while len(self.kept) > 49:
                del self.kept[next(iter(self.kept))]
            source, target = self.splits[split]
            self.kept[key] = tokens = torch.empty_like(target)
            with evaluating(network):
                for batch, at in ByLength(source, torch.arange(len(source)), size=125):
                    tokens[at] = settled(network, batch, target[at])
        return self.kept[key]

    @torch.no_grad()
    def confidence(self, network: nn.Module, split: str) -> np.ndarray:
        """Mean log probability of the words that it writes, with the end, (reports,)."""
        source, written = self.splits[split][0], self._written(network, split)
        found = torch.empty(len(source))
        with evaluating(network):
            for batch, at in ByLength(source, torch.arange(len(source)), size=125):
                tokens = written[at]
                before = pad(tokens[:, :-1], (1, 0), value=BEGIN)
                chances = network(batch, before).log_softmax(dim=-1)
                chances, real = chances.gather(2, tokens[..., None]).squeeze(2), tokens != PADDING
                found[at] = (chances * real).sum(dim=1) / real.sum(dim=1)
        return found.numpy()

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
        found = {
            f"ROUGE-{n}": v
            for n, v in zip("12L", rouge(self.summaries[split], summaries), strict=True)
        }
        found["well formed"] = np.array([self.grammar.well_formed(text) for text in summaries])
        found |= dict(zip(KINDS, facts.T, strict=True))
        return found | {"facts": facts.mean(axis=1), "all facts": facts.all(axis=1)}


@torch.no_grad()
def settled(network: EncoderDecoder, source: Tensor, guess: Tensor) -> Tensor:
    """What `write` gives, from a guess of it, int64 (texts, length), sooner if that is a good one.

    All words of a text are written anew at once, each after the guess of those before it, until
    nothing changes (Jacobi decoding: Santilli et al., ACL 2023). Then each word is the likeliest
    after those before it. The first is right at once, and each time one more at least.
    """
    text, tokens, rows = network.encode(source), guess.clone(), torch.arange(len(source))
    while len(rows):
        before = pad(tokens[rows, :-1], (1, 0), value=BEGIN)
        new = network.decode(source[rows], text[rows], before).argmax(dim=-1)
        over = (new == END).cumsum(dim=1) - (new == END).int() > 0  # beyond the first end
        new = new.masked_fill(over, PADDING)
        moved = (new != tokens[rows]).any(dim=1)
        tokens[rows] = new
        rows = rows[moved]
    return tokens


def unknown(report: str, vocabulary: Container[str]) -> list[str]:
    """The words of a report that have no token, each once, as many as there are slots."""
    return list(dict.fromkeys(w for w in report.split() if w not in vocabulary))[:SLOTS]


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
    ends = np.cumsum([0, *SIZES.values()])
    tables = {s: table[a:b] for s, a, b in zip(SIZES, ends, ends[1:], strict=False)}
    reports = {split: list(rows["report"]) for split, rows in tables.items()}
    facts = {split: [*map(facts_of, rows.itertuples())] for split, rows in tables.items()}
    summaries = {split: [*map(summary_of, found)] for split, found in facts.items()}

    counts = Counter(" ".join([*reports["train"], *summaries["train"]]).split())
    common = sorted((w for w in counts if counts[w] >= COMMON), key=lambda w: (-counts[w], w))
    vocabulary = [*SPECIAL, *common]
    made_up = set(" ".join(table["report"]).split()) - set(common)
    teams = _columns(team for found in facts["train"] for team in found.teams)
    first, last = _columns(found.scorer for found in facts["train"])
    longest = [max(len(text.split()) for text in table["report"])]
    longest.append(1 + max(len(text.split()) for part in summaries.values() for text in part))
    train_words = [len(text.split()) for text in reports["train"]]
    task = SummaryTask(
        name=f"summarisation-{data}",
        splits={s: _tokens(reports[s], summaries[s], vocabulary, longest) for s in SIZES},
        build=partial(summariser, len(vocabulary), longest),
        loss=loss,
        metrics=lambda network, split: {
            name: float(values.mean())
            for name, values in task.scores(task.write(network, split), split).items()
        },
        primary="all facts",
        epochs=12,
        optimizer=partial(torch.optim.AdamW, lr=4e-3, weight_decay=0.01, fused=True),
        batch_size=20,
        outcomes=lambda network, split: torch.tensor(
            task.right(task.write(network, split), split).all(axis=1)
        ),
        slices={s: _slices(tables[s], facts[s], np.quantile(train_words, 2 / 3)) for s in SIZES},
        cooling=True,
        reports=reports,
        summaries=summaries,
        facts=facts,
        places={split: _places(rows) for split, rows in tables.items()},
        vocabulary=vocabulary,
        grammar=Grammar(teams, (first, last | made_up)),
    )
    return task


def _columns(names: Iterable[str]) -> tuple[frozenset[str], ...]:
    """The first and the second words of names."""
    return tuple(map(frozenset, zip(*(name.split() for name in names), strict=True)))


def _tokens(reports, summaries, vocabulary, longest) -> tuple[Tensor, Tensor]:
    """Of reports and summaries, int64 (texts, longest), with padding; summaries have an end."""
    numbered = {word: i for i, word in enumerate(vocabulary)}
    found = [torch.full((len(reports), n), PADDING) for n in longest]
    for i, (report, summary) in enumerate(zip(reports, summaries, strict=True)):
        own = numbered | {word: FIRST + n for n, word in enumerate(unknown(report, numbered))}
        for tokens, text, end in zip(found, (report, summary), ([], [END]), strict=True):
            row = [*(own.get(word, UNKNOWN) for word in text.split()), *end]
            tokens[i, : len(row)] = torch.tensor(row)
    return tuple(found)


def _places(rows: pd.DataFrame) -> dict[str, np.ndarray]:
    """By kind of fact, where its last part begins, as a share of the report's words."""
    words = rows["report"].str.split().str.len()
    of_kind = {
        "teams": ["hosts", "guests"],
        "result": ["goals", "against"],
        "score": ["goals", "against"],
        "day": ["day"],
        "scorer": ["scorer"],
    }
    return {k: (rows[names].max(axis=1) / words).to_numpy() for k, names in of_kind.items()}


def _slices(rows: pd.DataFrame, facts: Sequence[Facts], long: float) -> dict[str, Tensor]:
    numbers = r"\b(?:{0}) to (?:{0})\b".format("|".join(NUMBERS))
    found = {
        "favourite lost": np.array([f.result == -f.favourite for f in facts]),
        "draw": np.array([f.result == 0 for f in facts]),
        "goal that did not count": rows["cancelled"],
        "rare name": rows["rare"],
        "guests named first": rows["guests"] < rows["hosts"],
        "two scores": rows["report"].str.count(numbers) > 1,
        "told as lost": rows["report"].str.contains(" lost "),
        "long": rows["report"].str.split().str.len() > long,
        "result late": _places(rows)["result"] > 0.5,
    }
    return {name: torch.tensor(np.array(flags)) for name, flags in found.items()}


def facts_of(row) -> Facts:
    """What the columns of a report's row say, told of the hosts."""
    words = row.report.split()
    pairs = {n: " ".join(words[getattr(row, n) :][:2]) for n in ("hosts", "guests", "scorer")}
    goals, against = words[row.goals], words[row.against]
    won = np.sign(NUMBERS.index(goals) - NUMBERS.index(against))
    return Facts(
        (pairs["hosts"], pairs["guests"]),
        int(won),
        (goals, against),
        words[row.day],
        pairs["scorer"],
        -1 if row.favourite else 1,
    )


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the words of the summaries, each given those before it."""
    source, target = batch
    before = pad(target[:, :-1], (1, 0), value=BEGIN)
    return cross_entropy(
        model(source, before).flatten(0, 1), target.flatten(), ignore_index=PADDING
    )


def summariser(
    words: int,
    lengths: Sequence[int],
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 32,
    heads: int = 4,
    hidden: int = 64,
    layers: tuple[int, int] = (2, 1),
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
