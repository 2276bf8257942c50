"""English to French: generated sentences whose grammar is known (bundled), people's (full)."""

import difflib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from sacrebleu.metrics import BLEU, CHRF
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ..measure.training import Batches, evaluating
from . import datasets, tatoeba
from .sentiment import ByLength
from .task import Task
from .transformer import BEGIN, END, PADDING, UNKNOWN, EncoderDecoder, write

SPECIAL = ("[PAD]", "[UNK]", "[BEGIN]", "[END]")
PHENOMENA = {  # letter in the data: name
    "a": "articles",
    "g": "agreement",
    "d": "agreement over distance",
    "n": "negation",
    "e": "elision",
    "o": "word order",
    "7": "numbers",
    "r": "rare words",
}
QUESTIONS = {"q": "questions"}  # in Tatoeba's, instead of agreement over distance
SIZES = {"train": 18_500, "valid": 500, "test": 1000}
TATOEBA_SIZES = {"train": 60_000, "valid": 1000, "test": 1000}
LONGEST = 8  # words of a side of Tatoeba's
SEEN = 4  # how often a word of Tatoeba's must come in train to be known
RARE = 20  # and at most, to be rare
Text = list[str]  # words


@dataclass(frozen=True, kw_only=True)
class TranslationTask(Task):
    """A task of translating. Splits hold source and target tokens, int64 (sentences, length), each
    with `END` after the last word and `PADDING` after that.

    texts: by split, the English and the French sentences, each a list of words.
    vocabularies: English and French, the word of each token.
    phenomena: by split, name -> bool (sentences, length), which target tokens show it.
    shuffled: the batches of a shuffled split.
    """

    texts: dict[str, tuple[list[Text], list[Text]]]
    vocabularies: tuple[list[str], list[str]]
    phenomena: dict[str, dict[str, Tensor]]
    shuffled: type[Batches] = ByLength

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `shuffled`."""
        kind = Batches if seed is None else self.shuffled
        return kind(*self.splits[split], size=size or self.batch_size, seed=seed)

    def translate(self, network: nn.Module, split: str) -> Tensor:
        """What the network writes, word after word: int64 (sentences, length) like the targets."""
        source, target = self.splits[split]
        written = torch.zeros_like(target)
        with evaluating(network):
            for tokens, at in ByLength(source, torch.arange(len(source)), size=250):
                written[at] = write(network, tokens, target.shape[1])
        return written

    @torch.no_grad()
    def forced(self, network: nn.Module, split: str) -> Tensor:
        """The likeliest token at each place, after the *right* words before it (teacher forcing)."""
        source, target = self.splits[split]
        found = torch.zeros_like(target)
        with evaluating(network):
            for tokens, right, at in ByLength(source, target, torch.arange(len(source)), size=250):
                found[at] = network(tokens, shifted(right)).argmax(dim=-1)
        return found.where(target != PADDING, PADDING)

    def words(self, tokens: Tensor) -> list[Text]:
        """French words, up to the end."""
        names = self.vocabularies[1]
        rows = [[*row, END] for row in tokens.tolist()]
        return [[names[t] for t in row[: row.index(END)]] for row in rows]


class ByBothLengths(ByLength):
    """The same with the lengths of both sides together: of longer sentences nothing is padded."""

    def order(self, lengths: Tensor) -> Tensor:
        return lengths * 1000 + (self.tensors[1] != PADDING).sum(dim=1)


def translation(data: str = "bundled") -> TranslationTask:
    """English to French, and a small encoder-decoder (lesson 12).

    data: "bundled", 20,000 generated pairs, offline (18,500 train, 500 valid, 1,000 test); or "full",
        from Tatoeba pairs of at most eight words a side (60,000 / 1,000 / 1,000), phenomena by rules
        (`tatoeba`), in small letters. A word that comes less than four times in train is `UNKNOWN`;
        a sentence that has one in its reference never counts as exact.
    """
    if data == "bundled":
        rows, letters = _generated(), PHENOMENA
        size, epochs, batch_size, lr = {}, 6, 100, 6e-3
        at_least, kind = 1, ByLength
    elif data == "full":
        rows = _published()
        letters = {k: name for k, name in PHENOMENA.items() if k != "d"} | QUESTIONS
        size, epochs, batch_size, lr = {"channels": 64, "hidden": 128}, 8, 50, 2.5e-3
        at_least, kind = SEEN, ByBothLengths
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    texts = {split: (english, french) for split, (english, french, _) in rows.items()}
    vocabularies = tuple(vocabulary(side, at_least) for side in texts["train"])
    lengths = tuple(
        1 + max(len(text) for sides in texts.values() for text in sides[i]) for i in (0, 1)
    )
    splits, phenomena, slices = {}, {}, {}
    for split, (*sides, marks) in rows.items():
        splits[split] = tuple(
            encode(side, known, length)
            for side, known, length in zip(sides, vocabularies, lengths, strict=True)
        )
        if split == "train":
            continue
        known = splits[split][1] != UNKNOWN
        phenomena[split] = {
            name: marked(marks, letter, lengths[1]) & known for letter, name in letters.items()
        }
        slices[split] = {name: flags.any(dim=1) for name, flags in phenomena[split].items()}
        slices[split]["long"] = torch.tensor([len(text) > 10 for text in sides[1]])
    references = {
        split: [natural(words) for words in french] for split, (_, french) in texts.items()
    }

    def exact(written: Tensor, split: str) -> Tensor:
        target = splits[split][1]
        return (written == target).all(dim=1) & (target != UNKNOWN).all(dim=1)

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        written, target = task.translate(network, split), splits[split][1]
        return {
            "exact": float(exact(written, split).float().mean()),
            **corpus_scores([natural(words) for words in task.words(written)], references[split]),
            "words": float(right_words(written, target)[target > END].float().mean()),
        }

    task = TranslationTask(
        name=f"translation-{data}",
        splits=splits,
        build=partial(build, tuple(map(len, vocabularies)), lengths, **size),
        loss=loss,
        metrics=metrics,
        primary="exact",
        epochs=epochs,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=1e-2, fused=True),
        batch_size=batch_size,
        outcomes=lambda network, split: exact(task.translate(network, split), split),
        slices=slices,
        cooling=True,
        texts=texts,
        vocabularies=vocabularies,
        phenomena=phenomena,
        shuffled=kind,
    )
    return task


Rows = dict[str, tuple[list[Text], list[Text], list[list[str]]]]  # split: English, French, marks


def _generated() -> Rows:
    pairs = datasets.generated_translations()
    starts = {"train": 0, "valid": SIZES["train"], "test": SIZES["train"] + SIZES["valid"]}
    parts = {split: pairs[start : start + SIZES[split]] for split, start in starts.items()}
    columns = ("english", "french", "marks")
    return {split: tuple(list(part[c]) for c in columns) for split, part in parts.items()}


def _published() -> Rows:
    """Tatoeba's: pairs that are a group by themselves drawn for valid and test, train of all others."""
    pairs = [
        (tatoeba.english_words(english), tatoeba.french_words(french))
        for english, french in datasets.tatoeba()
    ]
    pairs, groups = tatoeba.one_to_one(pairs, LONGEST)
    order = torch.randperm(len(pairs), generator=torch.Generator().manual_seed(0)).tolist()
    members = Counter(groups.tolist())
    alone = [i for i in order if members[groups[i]] == 1]
    parts = {"valid": alone[: TATOEBA_SIZES["valid"]]}
    parts["test"] = alone[TATOEBA_SIZES["valid"] :][: TATOEBA_SIZES["test"]]
    held = {*parts["valid"], *parts["test"]}
    parts["train"] = [i for i in order if i not in held][: TATOEBA_SIZES["train"]]
    counts = Counter(word for i in parts["train"] for word in pairs[i][1])
    known = {word for word, count in counts.items() if count >= SEEN}
    rows = {}
    for split in ("train", "valid", "test"):
        english, french = ([pairs[i][side] for i in parts[split]] for side in (0, 1))
        marks = (
            []
            if split == "train"
            else [tatoeba.marks_of(text, known, counts, RARE) for text in french]
        )
        rows[split] = english, french, marks
    return rows


def build(
    vocabularies: tuple[int, int],
    lengths: tuple[int, int],
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 48,
    heads: int = 4,
    hidden: int = 96,
    layers: tuple[int, int] = (2, 2),
) -> EncoderDecoder:
    """An untrained network; the channels of each head and the hidden units are scaled by `width`."""
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EncoderDecoder(vocabularies, lengths, heads * each, heads, hidden, layers)


def shifted(target: Tensor) -> Tensor:
    """What the decoder reads to write the target: `BEGIN`, then all but its last token."""
    return pad(target[:, :-1], (1, 0), value=BEGIN)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of the target's tokens, each after the right ones before it."""
    source, target = batch
    target = target[:, : int((target != PADDING).sum(dim=1).max())]
    logits = model(source, shifted(target))
    return cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=PADDING)


# ---- text ----


def vocabulary(texts: Sequence[Text], at_least: int = 1) -> list[str]:
    """Special tokens, then words that come so often, the most frequent first, equal ones by the
    alphabet."""
    counts = Counter(word for text in texts for word in text)
    words = [word for word, count in counts.items() if count >= at_least]
    return [*SPECIAL, *sorted(words, key=lambda word: (-counts[word], word))]


def encode(texts: Sequence[Text], words: Sequence[str], length: int) -> Tensor:
    """int64 (texts, length): tokens, `END`, then `PADDING`; a word that is not known is `UNKNOWN`."""
    token = {word: i for i, word in enumerate(words)}
    rows = [[token.get(word, UNKNOWN) for word in text] + [END] for text in texts]
    return torch.tensor([row + [PADDING] * (length - len(row)) for row in rows])


def marked(marks: Sequence[list[str]], letter: str, length: int) -> Tensor:
    """bool (texts, length): which words have the letter; of rare ones, "r" alone counts."""
    rows = [
        [letter == "r" or "r" not in m if letter in m else False for m in text] for text in marks
    ]
    return torch.tensor([row + [False] * (length - len(row)) for row in rows])


def natural(words: Text) -> str:
    """A sentence as one writes it: l'arbre, vingt-six, don't."""
    return re.sub(r"(?<=') | (?=-)|(?<=-) | (?=\.$)| (?='|n't\b)", "", " ".join(words))


def right_words(written: Tensor, target: Tensor) -> Tensor:
    """bool, as target: the tokens that are in what was written, too, where both are laid side by side.

    Side by side: matching blocks, the longest first (Ratcliff and Metzener, 1988), of Python's difflib.
    """
    right = torch.zeros_like(target, dtype=torch.bool)
    for row, (one, other) in enumerate(zip(written.tolist(), target.tolist(), strict=True)):
        matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
        for _, start, size in matcher.get_matching_blocks():
            right[row, start : start + size] = True
    return right & (target != PADDING)


def corpus_scores(texts: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """BLEU and chrF of a corpus, 0 to 1, by sacrebleu (Post, WMT 2018) as it sets them."""
    scores = {"BLEU": BLEU(), "chrF": CHRF()}
    return {
        name: metric.corpus_score(texts, [references]).score / 100
        for name, metric in scores.items()
    }
