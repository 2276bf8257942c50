"""English to French: generated sentences whose grammar is known (bundled)."""

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
from . import datasets
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
SIZES = {"train": 18_500, "valid": 500, "test": 1000}
Text = list[str]  # words


@dataclass(frozen=True, kw_only=True)
class TranslationTask(Task):
    """A task of translating. Splits hold source and target tokens, int64 (sentences, length), each
    with `END` after the last word and `PADDING` after that.

    texts: by split, the English and the French sentences, each a list of words.
    vocabularies: English and French, the word of each token.
    phenomena: by split, name -> bool (sentences, length), which target tokens show it.
    """

    texts: dict[str, tuple[list[Text], list[Text]]]
    vocabularies: tuple[list[str], list[str]]
    phenomena: dict[str, dict[str, Tensor]]

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `ByLength`."""
        kind = Batches if seed is None else ByLength
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


def translation(data: str = "bundled") -> TranslationTask:
    """English to French, and a small encoder-decoder (lesson 12).

    data: "bundled", 20,000 generated pairs, offline (18,500 train, 500 valid, 1,000 test).
    """
    if data != "bundled":
        raise ValueError(f"data is {data!r}, but must be 'bundled'")
    pairs = datasets.generated_translations()
    starts = {"train": 0, "valid": SIZES["train"], "test": SIZES["train"] + SIZES["valid"]}
    rows = {split: pairs[start : start + SIZES[split]] for split, start in starts.items()}
    sides = ("english", "french")
    texts = {split: tuple(list(part[side]) for side in sides) for split, part in rows.items()}
    vocabularies = tuple(map(vocabulary, texts["train"]))
    lengths = tuple(int(1 + pairs[side].str.len().max()) for side in sides)
    splits, phenomena, slices = {}, {}, {}
    for split, part in rows.items():
        splits[split] = tuple(
            encode(side, known, length)
            for side, known, length in zip(texts[split], vocabularies, lengths, strict=True)
        )
        if split == "train":
            continue
        phenomena[split] = {
            name: marked(part["marks"], letter, lengths[1]) for letter, name in PHENOMENA.items()
        }
        slices[split] = {name: flags.any(dim=1) for name, flags in phenomena[split].items()}
        slices[split]["long"] = torch.tensor((part["french"].str.len() > 10).to_numpy())
    references = {
        split: [natural(words) for words in french] for split, (_, french) in texts.items()
    }

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        written, target = task.translate(network, split), splits[split][1]
        return {
            "exact": float((written == target).all(dim=1).float().mean()),
            **corpus_scores([natural(words) for words in task.words(written)], references[split]),
            "words": float(right_words(written, target)[target > END].float().mean()),
        }

    task = TranslationTask(
        name=f"translation-{data}",
        splits=splits,
        build=partial(build, tuple(map(len, vocabularies)), lengths),
        loss=loss,
        metrics=metrics,
        primary="exact",
        epochs=6,
        optimizer=partial(torch.optim.AdamW, lr=6e-3, weight_decay=1e-2, fused=True),
        batch_size=100,
        outcomes=lambda network, split: (task.translate(network, split) == splits[split][1]).all(
            dim=1
        ),
        slices=slices,
        cooling=True,
        texts=texts,
        vocabularies=vocabularies,
        phenomena=phenomena,
    )
    return task


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


def vocabulary(texts: Sequence[Text]) -> list[str]:
    """Special tokens, then words by how often they come, equally frequent ones by the alphabet."""
    counts = Counter(word for text in texts for word in text)
    return [*SPECIAL, *sorted(counts, key=lambda word: (-counts[word], word))]


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
    """A sentence as one writes it: l'arbre, vingt-six."""
    return re.sub(r"(?<=') | (?=-)|(?<=-) | (?=\.$)", "", " ".join(words))


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
