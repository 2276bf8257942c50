"""Is a review good or bad? Generated reviews (bundled), sentences from film reviews (full)."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torchmetrics.classification import MulticlassF1Score

from ..measure.training import Batches, classification_metrics, evaluate, evaluating
from . import datasets
from .task import Task
from .transformer import Block

CLASSES = ["negative", "positive"]
PADDING, UNKNOWN = "[PAD]", "[UNK]"  # tokens 0 and 1
NEGATION = {
    *("no", "not", "n't", "never", "nothing", "nobody", "none", "neither", "nor", "nowhere"),
    *("hardly", "barely", "scarcely", "without", "cannot"),
}
CONTRAST = {"but", "although", "though", "yet", "however", "despite", "nevertheless", "nonetheless"}


@dataclass(frozen=True, kw_only=True)
class TextTask(Task):
    """A task on texts.

    texts: by split, what the tokens of `splits` were made from.
    tokenizer: trained on the training texts; token 0 is padding, 1 unknown, and the others are
        numbered by how often the training texts use them.
    pieces: how many of them the network has a row for.
    """

    texts: dict[str, list[str]]
    tokenizer: Tokenizer
    pieces: int

    def tokens(self, texts: Sequence[str]) -> Tensor:
        """What the network reads, int64 (texts, length); a piece without a row is unknown."""
        tokens = encode(self.tokenizer, texts)
        return tokens.where(tokens < self.pieces, torch.tensor(1))

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """As for every task; shuffled, they are `ByLength`."""
        kind = Batches if seed is None else ByLength
        return kind(*self.splits[split], size=size or self.batch_size, seed=seed)

    @staticmethod
    @torch.no_grad()
    def answers(network: nn.Module, tokens: Tensor) -> Tensor:
        """int64 (texts,): the class with the highest score, in evaluation mode."""
        places, found = torch.arange(len(tokens)), torch.empty(len(tokens), dtype=torch.int64)
        with evaluating(network):
            for batch, at in ByLength(tokens, places):
                found[at] = network(batch).argmax(dim=1)
        return found


class ByLength(Batches):
    """Tokens (texts, length) and what belongs to them, texts of similar length together.

    Each batch is cut after its longest text: padding costs time and changes nothing. Batches come
    from short to long; with a seed in any order, and texts of equal length too.
    """

    def __iter__(self):
        lengths = (self.tensors[0] != 0).sum(dim=1).clamp(min=1)
        keys = self.order(lengths)
        if self.generator is None:
            batches = keys.argsort(stable=True).split(self.size)
        else:
            order = torch.randperm(len(lengths), generator=self.generator)
            batches = order[keys[order].argsort(stable=True)].split(self.size)
            places = torch.randperm(len(batches), generator=self.generator)
            batches = [batches[i] for i in places]
        for picked in batches:
            tokens, *others = (t[picked] for t in self.tensors)
            yield tokens[:, : lengths[picked].max()], *others

    def order(self, lengths: Tensor) -> Tensor:
        """What texts are sorted by: int (texts,)."""
        return lengths


def sentiment(data: str = "bundled", trim: bool = True) -> TextTask:
    """Reviews, negative (0) or positive (1), and a small transformer encoder.

    data: "bundled", 10,000 generated reviews, offline (7,000 train, 1,000 valid, 2,000 test); or
        "full", 10,662 sentences from film reviews (8,662 / 1,000 / 1,000).
    trim: the network has no row for a piece that the training texts never use; in valid and test it
        becomes token 1, unknown. Without, it has one for each of the tokenizer's pieces.
    """
    if data == "bundled":
        reviews = datasets.generated_reviews()
        texts, labels = list(reviews["text"]), torch.tensor(reviews["label"])
        known = {"negation": "negation", "contrast": "contrast", "rare words": "rare"}
        known["wrong label"] = "flipped"
        known = {name: torch.tensor(reviews[column]) for name, column in known.items()}
        sizes, vocabulary, length, encoder = (7000, 1000, 2000), 500, 24, {}
        epochs, batch_size, lr, weight_decay = 5, 50, 3e-3, 0.1
    elif data == "full":
        (texts, labels), known = datasets.film_reviews(), {}
        sizes, vocabulary, length = (8662, 1000, 1000), 10_000, 40
        # std: rows of rare words hardly move, and begun large they would outlive the layers
        encoder = {"dropout": 0.3, "word_dropout": 0.4, "std": 0.02}
        epochs, batch_size, lr, weight_decay = 5, 64, 2e-3, 1.0
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")

    sizes = dict(zip(("train", "valid", "test"), sizes, strict=True))
    places = datasets.split(torch.arange(len(texts)), labels, sizes)
    of_split = {split: [texts[i] for i in at] for split, (at, _) in places.items()}
    tokenizer = train_tokenizer(of_split["train"], vocabulary, length)
    encoded = {split: encode(tokenizer, texts) for split, texts in of_split.items()}
    pieces = tokenizer.get_vocab_size()
    if trim:
        pieces = int(encoded["train"].max()) + 1
        encoded = {split: t.where(t < pieces, torch.tensor(1)) for split, t in encoded.items()}
    splits = {split: (encoded[split], classes) for split, (_, classes) in places.items()}
    slices = {}
    for split, (at, classes) in places.items():
        found = text_slices(of_split[split], of_split["train"])
        found |= {name: flags[at] for name, flags in known.items()}
        plain = ~(found["negation"] | found["contrast"] | found["rare words"])
        slices[split] = found | {"plain": plain}
        slices[split] |= {name: classes == i for i, name in enumerate(CLASSES)}

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        collection = classification_metrics(len(CLASSES))
        collection.add_metrics({"f1": MulticlassF1Score(len(CLASSES), average="macro")})
        return evaluate(network, ByLength(*splits[split]), cross_entropy, collection)

    return TextTask(
        name=f"sentiment-{data}",
        splits=splits,
        build=partial(transformer, pieces, length, **encoder),
        loss=loss,
        metrics=metrics,
        primary="accuracy",
        epochs=epochs,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay, fused=True),
        batch_size=batch_size,
        outcomes=lambda network, split: (
            TextTask.answers(network, splits[split][0]) == splits[split][1]
        ),
        slices=slices,
        texts=of_split,
        tokenizer=tokenizer,
        pieces=pieces,
        cooling=True,
    )


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Mean cross-entropy of a batch (tokens, classes)."""
    tokens, classes = batch
    return cross_entropy(model(tokens), classes)


# ---- text ----


def train_tokenizer(texts: Sequence[str], vocabulary: int, length: int) -> Tokenizer:
    """A tokenizer that splits lower-case words into the pieces that these texts have most.

    Byte-pair encoding (Sennrich et al., ACL 2016): beginning with characters, the most frequent
    pair of neighbours is joined again and again, until there are `vocabulary` pieces. Every text
    becomes `length` tokens: cut, or padded with token 0. Pieces are numbered by how often these
    texts use them, so those that were only a step on the way to longer ones come last.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else it warns in forked processes
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=[PADDING, UNKNOWN], show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token=PADDING)

    uses = Counter(i for found in tokenizer.encode_batch(texts) for i in found.ids)
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    order = sorted(vocabulary, key=lambda p: (min(vocabulary[p], 2), -uses[vocabulary[p]], p))
    described["model"]["vocab"] = {piece: i for i, piece in enumerate(order)}
    return Tokenizer.from_str(json.dumps(described))


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Token ids, int64 (texts, length)."""
    return torch.tensor([found.ids for found in tokenizer.encode_batch(texts)])


def text_slices(texts: Sequence[str], train: Sequence[str]) -> dict[str, Tensor]:
    """bool (texts,) by name, from the words alone, which spaces separate.

    negation, contrast: has a word such as "not", "but". rare words: two or more that the training
    texts do not have. short, long: no more words than the shortest third of the training texts
    has, more than two thirds of them have.
    """
    known = {word for text in train for word in text.lower().split()}
    lengths = sorted(len(text.split()) for text in train)
    short, long = lengths[len(lengths) // 3 - 1], lengths[2 * len(lengths) // 3 - 1]
    words = [text.lower().split() for text in texts]
    found = {
        "negation": [any(w in NEGATION or w.endswith("n't") for w in ws) for ws in words],
        "contrast": [any(w in CONTRAST for w in ws) for ws in words],
        "rare words": [sum(w not in known for w in ws) > 1 for ws in words],
        "short": [len(ws) <= short for ws in words],
        "long": [len(ws) > long for ws in words],
    }
    return {name: torch.tensor(flags) for name, flags in found.items()}


# ---- model ----


class Encoder(nn.Module):
    """Tokens (batch, length), 0 for padding -> scores of two classes (batch, 2)."""

    def __init__(
        self,
        vocabulary: int,
        length: int,
        channels: int,
        heads: int,
        hidden: int,
        layers: int,
        dropout: float,
        word_dropout: float,
        std: float,
    ):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, channels, padding_idx=0)
        self.positions = nn.Embedding(length, channels)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=std)
        self.dropout, self.word_dropout = nn.Dropout(dropout), nn.Dropout1d(word_dropout)
        self.blocks = nn.ModuleList(Block(channels, heads, hidden, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, len(CLASSES))

    def forward(self, tokens: Tensor) -> Tensor:
        real = tokens != 0
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.word_dropout(self.tokens(tokens) + self.positions(places)))
        for block in self.blocks:
            x = block(x, real[:, None, None, :])
        x = self.norm(x) * real.unsqueeze(-1)  # the mean over what is no padding
        return self.output(x.sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1))


def transformer(
    vocabulary: int,
    length: int,
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 32,
    heads: int = 4,
    hidden: int = 64,
    layers: int = 2,
    dropout: float = 0.0,
    word_dropout: float = 0.0,
    std: float = 0.1,
) -> nn.Module:
    """An `Encoder`; the channels of each head and the hidden units are scaled by `width`.

    dropout is of single values; word_dropout of all values of a word, against learning by heart.
    std: of the embeddings at the start.
    """
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Encoder(
            vocabulary, length, heads * each, heads, hidden, layers, dropout, word_dropout, std
        )
