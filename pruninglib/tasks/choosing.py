"""Which sentence of a text is its best summary? Generated reports (bundled), abstracts (full)."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from ..measure.training import Batches, evaluating
from . import datasets
from .summarisation import SIZES as ALL_REPORTS
from .summarisation import facts_of, rouge, summary_of
from .task import Task
from .transformer import PADDING, UNKNOWN, Block

SIZES = {"train": 1_000, "valid": 500, "test": 1_000}  # of the reports
PLACES = 12  # sentences after the twelfth share its place
COMMON = 3  # a word that the training texts have as often has a token of its own


@dataclass(frozen=True, kw_only=True)
class ChoosingTask(Task):
    """A task whose network chooses a sentence of a text.

    texts: by split, the sentences of each text. summaries: the references of each, one or more.
    rouge: by split, ROUGE-1, ROUGE-2 and ROUGE-L (F1) of each sentence, (texts, sentences, 3), zero where there is no sentence. Of several references it is the one with the highest
        ROUGE-1, as in the authors' own script for SciTLDR.
    numbers: the token of each word that has one.
    """

    texts: dict[str, list[list[str]]]
    summaries: dict[str, list[list[str]]]
    rouge: dict[str, np.ndarray]
    numbers: dict[str, int]

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `BySentences`."""
        kind = Batches if seed is None else BySentences
        return kind(*self.splits[split], size=size or self.batch_size, seed=seed)

    def tokens(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """What the network reads of texts in sentences, int64 (texts, sentences, words)."""
        return tokens_of(texts, self.numbers)

    @torch.no_grad()
    def choose(self, network: nn.Module, split: str) -> np.ndarray:
        """int64 (texts,): the place of the sentence with the highest score, the first of equals."""
        tokens = self.splits[split][0]
        found = torch.empty(len(tokens), dtype=torch.int64)
        with evaluating(network):
            for batch, at in BySentences(tokens, torch.arange(len(tokens))):
                found[at] = network(batch).argmax(dim=1)
        return found.numpy()

    def lead(self, split: str) -> np.ndarray:
        """The choice that reads nothing: the first sentence of each text."""
        return np.zeros(len(self.texts[split]), dtype=np.int64)

    def oracle(self, split: str) -> np.ndarray:
        """The choice that knows the summary: the sentence with the highest mean of the three."""
        return self.splits[split][1].argmax(dim=1).numpy()

    def scores(self, places: np.ndarray, split: str) -> np.ndarray:
        """ROUGE-1, ROUGE-2 and ROUGE-L of the chosen sentences, (texts, 3)."""
        places, texts = np.asarray(places), self.texts[split]
        if places.shape != (len(texts),):
            raise ValueError(
                f"places is of shape {places.shape}, but must name one sentence of each of the "
                f"{len(texts)} texts of {split!r}"
            )
        if beyond := [i for i, n in enumerate(map(len, texts)) if not 0 <= places[i] < n]:
            i = beyond[0]
            raise ValueError(
                f"place {places[i]} is chosen of text {i} of {split!r}, which has sentences 0 to "
                f"{len(texts[i]) - 1}"
            )
        return self.rouge[split][np.arange(len(texts)), places]

    def reached(self, places: np.ndarray, split: str) -> np.ndarray:
        """Float (texts,), whose mean is the share of the way from the lead (0) to the oracle (1).

        The way is the split's: how far the mean of the three scores rises from the one to the other,
        over all of its texts. A choice that is worse than the lead counts below zero. For other
        choices than a network's, too.

        Other texts would change the way as well as what is gone of it, so the values are those of a
        ratio's delta method: their spread is the share's for other texts, and a single one says
        little. Of the lead all are 0, of the oracle all are 1.
        """
        found, lead, best = (
            self.scores(p, split).mean(axis=1)
            for p in (places, self.lead(split), self.oracle(split))
        )
        gone, way = found - lead, best - lead
        share = gone.mean() / way.mean()
        return share + (gone - share * way) / way.mean()


class BySentences(Batches):
    """Tokens (texts, sentences, words) and what belongs to them, texts of similar length together.

    Each batch is cut after its longest text and its longest sentence. Without a seed the batches
    come from short to long; with one in any order, and texts of equal length too.
    """

    def __iter__(self):
        real = self.tensors[0] != PADDING
        sentences, words = real.any(dim=2).sum(dim=1), real.sum(dim=2).amax(dim=1)
        if self.generator is None:
            batches = sentences.argsort(stable=True).split(self.size)
        else:
            order = torch.randperm(len(sentences), generator=self.generator)
            batches = order[sentences[order].argsort(stable=True)].split(self.size)
            places = torch.randperm(len(batches), generator=self.generator)
            batches = [batches[i] for i in places]
        for picked in batches:
            tokens, *others = (t[picked] for t in self.tensors)
            most = int(sentences[picked].max())
            others = [t[:, :most] if t.dim() > 1 else t for t in others]
            yield tokens[:, :most, : words[picked].max()], *others


def choosing(data: str = "bundled") -> ChoosingTask:
    """Choose the sentence that is most like the summary, by the mean of ROUGE-1, -2 and -L.

    data: "bundled", 2,500 of the generated reports, offline (1,000 train, 500 valid, 1,000 test:
        valid and test are those of `summarisation`); or "full", the abstracts of SciTLDR by their
        published split (1,992 / 619 / 618). ROUGE of all sentences takes about a minute there.
    """
    if data == "bundled":
        pairs, recipe = _reports(), {"epochs": 4, "batch_size": 32}
        lr, weight_decay, network = 3e-3, 0.1, {"channels": 16, "hidden": 32}
    elif data == "full":
        pairs, recipe = datasets.scitldr(), {"epochs": 8, "batch_size": 32}
        lr, weight_decay, network = 6e-3, 1.0, {"dropout": 0.3, "word_dropout": 0.5}
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")

    texts = {split: [text for text, _ in found] for split, found in pairs.items()}
    summaries = {split: [references for _, references in found] for split, found in pairs.items()}
    counts = Counter(word for text in texts["train"] for s in text for word in words_of(s))
    common = sorted((w for w in counts if counts[w] >= COMMON), key=lambda w: (-counts[w], w))
    numbers = {word: i for i, word in enumerate(common, UNKNOWN + 1)}
    scores = {split: _rouge(texts[split], summaries[split]) for split in texts}
    splits = {
        s: (tokens_of(texts[s], numbers), torch.from_numpy(scores[s].mean(axis=2)).float())
        for s in texts
    }
    counted = sorted(len(text) for text in texts["train"])
    long = counted[2 * len(counted) // 3 - 1]
    task = ChoosingTask(
        name=f"choosing-{data}",
        splits=splits,
        build=partial(chooser, len(numbers) + UNKNOWN + 1, **network),
        loss=loss,
        metrics=lambda network, split: _metrics(task, task.choose(network, split), split),
        primary="reached",
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay, fused=True),
        slices={
            split: _slices(task_splits[1], texts[split], long)
            for split, task_splits in splits.items()
        },
        cooling=True,
        texts=texts,
        summaries=summaries,
        rouge=scores,
        numbers=numbers,
        **recipe,
    )
    return task


def _metrics(task: ChoosingTask, places: np.ndarray, split: str) -> dict[str, float]:
    means = task.scores(places, split).mean(axis=0)
    found = {f"ROUGE-{n}": float(mean) for n, mean in zip("12L", means, strict=True)}
    return found | {"reached": float(task.reached(places, split).mean())}


def _slices(scores: Tensor, texts: Sequence[Sequence[str]], long: int) -> dict[str, Tensor]:
    """bool (texts,) by name: where the best sentence stands, and more sentences than two thirds of
    the training texts have."""
    best, sentences = scores.argmax(dim=1), torch.tensor([len(text) for text in texts])
    return {
        "best is first": best == 0,
        "best is second or third": (best == 1) | (best == 2),
        "best is later": best > 2,
        "long": sentences > long,
    }


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """What a sentence drawn by the model's chances is expected to lack of the best one's score.

    The chances are the softmax of what the model says of a text's sentences; mean over the batch.
    """
    tokens, scores = batch
    chances = model(tokens).softmax(dim=1)
    return (scores.amax(dim=1) - (chances * scores).sum(dim=1)).mean()


# ---- texts ----


def words_of(sentence: str) -> list[str]:
    """Runs of letters a to z and digits, in lower case: what ROUGE counts."""
    return re.findall("[a-z0-9]+", sentence.lower())


def tokens_of(texts: Sequence[Sequence[str]], numbers: dict[str, int]) -> Tensor:
    """int64 (texts, sentences, words): 0 for padding, 1 for a word without a number.

    A sentence without a word is one unknown word.
    """
    rows = [[[numbers.get(w, UNKNOWN) for w in words_of(s)] or [UNKNOWN] for s in t] for t in texts]
    if empty := [i for i, text in enumerate(rows) if not text]:
        raise ValueError(f"text {empty[0]} has no sentence: there is nothing to choose")
    most, longest = max(map(len, rows)), max(len(s) for text in rows for s in text)
    tokens = torch.full((len(rows), most, longest), PADDING)
    for i, text in enumerate(rows):
        for j, row in enumerate(text):
            tokens[i, j, : len(row)] = torch.tensor(row)
    return tokens


def _reports() -> dict[str, list[tuple[list[str], list[str]]]]:
    """By split, the sentences of each report, each with its full stop, and its one summary."""
    table, parts, start = datasets.generated_reports(), {}, 0
    for split, size in SIZES.items():
        rows = table[start : start + size]
        parts[split] = [
            (
                [f"{s} ." for s in row.report.removesuffix(" .").split(" . ")],
                [summary_of(facts_of(row))],
            )
            for row in rows.itertuples()
        ]
        start += ALL_REPORTS[split]
    return parts


def _rouge(texts: Sequence[Sequence[str]], summaries: Sequence[Sequence[str]]) -> np.ndarray:
    """Float (texts, sentences, 3), of the reference with the highest ROUGE-1."""
    pairs = zip(texts, summaries, strict=True)
    pairs = [(r, s) for text, references in pairs for s in text for r in references]
    found, at = rouge(*zip(*pairs, strict=True)).T, 0  # (pairs, 3)
    scores = np.zeros((len(texts), max(map(len, texts)), 3))
    for i, (text, references) in enumerate(zip(texts, summaries, strict=True)):
        for j in range(len(text)):
            of_references = found[at : at + len(references)]
            scores[i, j] = of_references[of_references[:, 0].argmax()]
            at += len(references)
    return scores


# ---- model ----


class Chooser(nn.Module):
    """Tokens (texts, sentences, words) -> scores (texts, sentences), -inf where there is none.

    A sentence is the sum of its words' embeddings, by the root of how many they are, so that it
    does not forget its length, and the embedding of its place. Attention then compares the
    sentences of a text.
    """

    def __init__(
        self,
        words: int,
        channels: int,
        heads: int,
        hidden: int,
        layers: int,
        dropout: float,
        word_dropout: float,
    ):
        super().__init__()
        self.words = nn.Embedding(words, channels, padding_idx=PADDING)
        self.places = nn.Embedding(PLACES, channels)
        for embedding in (self.words, self.places):
            nn.init.normal_(embedding.weight, std=0.1)
        with torch.no_grad():
            self.words.weight[PADDING] = 0
        self.dropout, self.word_dropout = nn.Dropout(dropout), nn.Dropout1d(word_dropout)
        self.blocks = nn.ModuleList(Block(channels, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        counts = (tokens != PADDING).sum(dim=2)
        real = counts > 0
        words = self.word_dropout(self.words(tokens).flatten(0, 1)).unflatten(0, tokens.shape[:2])
        places = torch.arange(tokens.shape[1], device=tokens.device).clamp(max=PLACES - 1)
        x = words.sum(dim=2) / counts.clamp(min=1).sqrt().unsqueeze(2) + self.places(places)
        x = self.dropout(x)
        for block in self.blocks:
            x = block(x, real[:, None, None, :])
        return self.output(self.norm(x)).squeeze(2).masked_fill(~real, -torch.inf)


def chooser(
    words: int,
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 32,
    heads: int = 4,
    hidden: int = 64,
    layers: int = 1,
    dropout: float = 0.0,
    word_dropout: float = 0.0,
) -> Chooser:
    """A `Chooser`; the channels of each head and the hidden units are scaled by `width`."""
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Chooser(words, heads * each, heads, hidden, layers, dropout, word_dropout)
