"""What comes next? Documentation of installed packages, and a small GPT that goes on with it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear, pad

from ..measure.training import evaluating
from .datasets import HERE
from .docstrings import documentation
from .task import Task
from .transformer import BEGIN, PADDING, Block, causal

SPECIAL = ["[PAD]", "[UNK]", "[BEGIN]", "[END]"]  # tokens 0 to 3; [END]: of a paragraph
END = 3
PIECES, LENGTH = 1024, 128
WINDOWS = 2  # of each document of valid and test
TOKENIZER = HERE / "language.json"


@dataclass(frozen=True, kw_only=True)
class LanguageTask(Task):
    """A task on running text. Samples of its splits are windows (n, LENGTH + 1) with their document (n,).

    A window begins with `BEGIN`; what it leaves of a document's end is filled up with `PADDING`, which
    nobody has to predict. Perplexity is exp of the mean loss, over tokens, in nats.

    texts: by split and document, its paragraphs. tokenizer: pieces of train.
    """

    texts: dict[str, dict[str, list[str]]]
    tokenizer: Tokenizer

    def windows(self, paragraphs: Sequence[str], most: int | None = None) -> Tensor:
        """A document as int64 (windows, LENGTH + 1), `most` of them at most."""
        return windows(encode(self.tokenizer, paragraphs), most)

    def by_document(self, model: nn.Module, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Of each document the loss, summed over its tokens, in nats, and how many these are."""
        tokens, document = self.splits[split]
        return summed(losses(model, tokens), tokens[:, 1:] != PADDING, document)

    @torch.no_grad()
    def write(self, model: nn.Module, start: str, tokens: int, seed: int, top: int = 20) -> str:
        """What the model writes after `start`, each token drawn among the `top` likeliest."""
        generator = torch.Generator().manual_seed(seed)
        text = [BEGIN, *self.tokenizer.encode(start).ids]
        with evaluating(model):
            for _ in range(tokens):
                values, pieces = model(torch.tensor([text[-LENGTH:]]))[0, -1].topk(top)
                text.append(pieces[values.softmax(0).multinomial(1, generator=generator)].item())
        paragraphs = " ".join(map(str, text[1:])).split(f" {END}")
        decoded = [self.tokenizer.decode([int(i) for i in p.split()]) for p in paragraphs]
        return "\n".join(p.strip() for p in decoded)


def language(data: str = "bundled") -> LanguageTask:
    """Documentation, a module a document, and a `GPT` that predicts it piece by piece.

    data: "bundled", the docstrings of installed packages (`documentation`).
    """
    if data != "bundled":
        raise ValueError(f"data is {data!r}, but must be 'bundled'")
    texts, tokenizer = documentation(), Tokenizer.from_file(str(TOKENIZER))
    splits = {}
    for split, documents in texts.items():
        most = None if split == "train" else WINDOWS
        cut = [windows(encode(tokenizer, found), most) for found in documents.values()]
        counts = torch.tensor([len(part) for part in cut])
        splits[split] = (torch.cat(cut), torch.arange(len(cut)).repeat_interleave(counts))

    def metrics(model: nn.Module, split: str) -> dict[str, float]:
        total, count = summed(losses(model, splits[split][0]), splits[split][0][:, 1:] != PADDING)
        return {"log-likelihood": -total / count, "perplexity": float(np.exp(total / count))}

    return LanguageTask(
        name=f"language-{data}",
        splits=splits,
        build=partial(gpt, PIECES, LENGTH),
        loss=loss,
        metrics=metrics,
        primary="log-likelihood",
        epochs=2,
        optimizer=partial(
            torch.optim.AdamW, lr=4e-3, weight_decay=0.1, betas=(0.9, 0.95), fused=True
        ),
        batch_size=16,
        cooling=True,
        texts=texts,
        tokenizer=tokenizer,
    )


def loss(model: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean cross-entropy over the tokens of windows, in nats."""
    tokens = batch[0]
    return cross_entropy(
        model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=PADDING
    )


@torch.no_grad()
def losses(model: nn.Module, tokens: Tensor, size: int = 32) -> Tensor:
    """Of windows (n, length + 1), the loss at each place, (n, length); 0 at padding."""
    with evaluating(model):
        return torch.cat(
            [
                cross_entropy(
                    model(t[:, :-1]).transpose(1, 2), t[:, 1:], ignore_index=PADDING, reduction="none"
                )
                for t in tokens.split(size)
            ]
        )


def summed(values: Tensor, real: Tensor, document: Tensor | None = None):
    """Sum of the values and count of what is real: of all, or arrays (documents,)."""
    if document is None:
        return float(values.double().sum()), int(real.sum())
    into = torch.zeros(int(document.max()) + 1, dtype=torch.float64)
    return tuple(
        into.index_add(0, document, of.double().sum(dim=1)).numpy() for of in (values, real)
    )


# ---- text ----


def train_tokenizer(texts: Sequence[str], pieces: int = PIECES) -> Tokenizer:
    """Byte-pair encoding (Sennrich et al., ACL 2016) that keeps where words begin.

    Each piece that begins a word begins with "▁", so that `decode` gives the text back.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=SPECIAL[1]))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=pieces, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def encode(tokenizer: Tokenizer, paragraphs: Sequence[str]) -> list[int]:
    """A document's tokens; after each paragraph comes `END`."""
    return [*chain(*((*e.ids, END) for e in tokenizer.encode_batch(paragraphs)))]


def windows(tokens: Sequence[int], most: int | None = None, length: int = LENGTH) -> Tensor:
    """A document's tokens cut into int64 (n, length + 1), each window beginning with `BEGIN`."""
    tokens = torch.tensor(tokens[: None if most is None else most * length])
    parts = pad(tokens, (0, -len(tokens) % length), value=PADDING).view(-1, length)
    return pad(parts, (1, 0), value=BEGIN)


# ---- model ----


class GPT(nn.Module):
    """Tokens (batch, n) -> logits (batch, n, pieces) of what comes after each (Radford et al., 2018).

    The table of tokens is used twice, to read and to score what comes next (Press & Wolf, EACL 2017).
    """

    def __init__(
        self, pieces: int, length: int, channels: int, heads: int, hidden: int, layers: int
    ):
        super().__init__()
        self.tokens, self.positions = (nn.Embedding(n, channels) for n in (pieces, length))
        self.blocks = nn.ModuleList(Block(channels, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(channels)
        for embedding in (self.tokens, self.positions):
            nn.init.normal_(embedding.weight, std=0.05)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        seen = causal(len(places)).to(x.device)
        for block in self.blocks:
            x = block(x, seen)
        return linear(self.norm(x), self.tokens.weight)


def gpt(
    pieces: int,
    length: int,
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 96,
    heads: int = 4,
    hidden: int = 256,
    layers: int = 4,
) -> nn.Module:
    """A `GPT`; the channels of each head and the hidden units are scaled by `width`."""
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPT(pieces, length, heads * each, heads, hidden, layers)
