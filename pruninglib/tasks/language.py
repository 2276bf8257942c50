"""What comes next? Documentation of installed packages, and a small GPT that goes on with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, groupby

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from ..measure.training import evaluating
from .datasets import HERE
from .docstrings import documentation
from .task import Task
from .transformer import BEGIN, PADDING, Block, causal

SPECIAL = ["[PAD]", "[UNK]", "[BEGIN]", "[END]"]  # tokens 0 to 3; [END]: of a paragraph
END = 3
PIECES, LENGTH = 512, 64
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
        paragraphs = [[*part] for end, part in groupby(text[1:], END.__eq__) if not end]
        return "\n".join(self.tokenizer.decode(part).strip() for part in paragraphs)


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
        build=partial(gpt, cache(partial(neighbours, splits["train"][0], PIECES))),
        loss=loss,
        metrics=metrics,
        primary="log-likelihood",
        epochs=2,
        optimizer=partial(
            torch.optim.AdamW, lr=1e-2, weight_decay=0.1, betas=(0.9, 0.95), fused=True
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
                    model(t[:, :-1]).transpose(1, 2),
                    t[:, 1:],
                    ignore_index=PADDING,
                    reduction="none",
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

    Each place reads its piece and, from a second table, the one before it: with attention alone a network
    takes long to find out that neighbours matter.
    """

    def __init__(
        self, pieces: int, length: int, channels: int, heads: int, hidden: int, layers: int
    ):
        super().__init__()
        self.tokens, self.before = (nn.Embedding(pieces, channels) for _ in range(2))
        self.positions = nn.Embedding(length, channels)
        self.blocks = nn.ModuleList(Block(channels, heads, hidden) for _ in range(layers))
        self.norm, self.output = nn.LayerNorm(channels), nn.Linear(channels, pieces)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        earlier = pad(tokens, (1, -1), value=PADDING)
        x = self.tokens(tokens) + self.before(earlier) + self.positions(places)
        seen = causal(len(places)).to(x.device)
        for block in self.blocks:
            x = block(x, seen)
        return self.output(self.norm(x))


def gpt(
    start: Callable[[], tuple[Tensor, Tensor, Tensor]],
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 64,
    heads: int = 4,
    hidden: int = 256,
    layers: int = 3,
) -> nn.Module:
    """A `GPT` whose tables begin with the neighbours of each piece, as `start` (`neighbours`) counts them.

    The channels of each head and the hidden units are scaled by `width`. The best approximation of that many
    channels, by a singular value decomposition, is turned at random, so that seeds differ (pointwise
    mutual information: Levy & Goldberg, NeurIPS 2014).
    """
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    channels = heads * each
    left, right, earlier, often = start()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(len(often), LENGTH, channels, heads, hidden, layers)
        turn = torch.linalg.qr(torch.randn(channels, channels)).Q
    scale = left[:, :channels].norm(dim=1).mean() / channels**0.5  # a table gives one a channel
    with torch.no_grad():
        model.tokens.weight.copy_(left[:, :channels] @ turn / scale)
        model.before.weight.copy_(earlier[:, :channels] @ turn / scale)
        model.output.weight.copy_(right[:, :channels] @ turn * scale)
        model.output.bias.copy_(often)
        model.positions.weight.zero_()
        for block in model.blocks:  # in the beginning they add little to the tables
            block.attention.output.weight.mul_(0.1)
            block.down.weight.mul_(0.1)
    return model


def neighbours(tokens: Tensor, pieces: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What windows say of pieces that follow each other: left, right, earlier, often.

    left @ right.T: by how much more often than by chance, as a log ratio, a piece (column) comes after
    another (row). Of the first k columns it is the best approximation of rank k. earlier @ right.T: the
    same of the piece after the next, as near as right comes. Each (pieces, pieces). often: (pieces,), the log
    share of each.
    """

    def ratio(gap: int) -> tuple[Tensor, Tensor]:
        pairs = tokens[:, :-gap] * pieces + tokens[:, gap:]
        counts = torch.bincount(pairs.flatten(), minlength=pieces**2).view(pieces, pieces).double()
        counts[:, PADDING] = 0
        share = (counts.sum(dim=0) + 0.5) / (counts.sum() + 0.5 * pieces)
        # 20 drawn by chance are added to each row: what is rare says little
        rows = (counts + 20 * share) / (counts.sum(dim=1, keepdim=True) + 20)
        return (rows / share).log(), share.log()

    (follows, often), (later, _) = ratio(1), ratio(2)
    left, sizes, right = torch.linalg.svd(follows)
    root = sizes.clamp(min=1e-6).sqrt()
    found = left * root, right.T * root, later @ right.T / root, often
    return tuple(part.float() for part in found)
