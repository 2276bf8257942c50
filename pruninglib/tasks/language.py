"""What comes next? Documentation of installed packages, and a small GPT that goes on with it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, groupby

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, layer_norm, linear, pad

from ..measure.training import evaluating
from .datasets import HERE
from .docstrings import documentation
from .task import Task
from .transformer import BEGIN, PADDING, Block, causal

SPECIAL = ["[PAD]", "[UNK]", "[BEGIN]", "[END]"]  # tokens 0 to 3; [END]: of a paragraph
END = 3
PIECES, LENGTH = 512, 128
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

    def write(self, model: nn.Module, start: str, tokens: int, seed: int, top: int = 20) -> str:
        """What the model writes after `start`, each token drawn among the `top` likeliest."""
        text = continued(model, [BEGIN, *self.tokenizer.encode(start).ids], tokens, seed, top)
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
        build=partial(gpt, cache(partial(bigram, splits["train"][0], PIECES))),
        loss=loss,
        metrics=metrics,
        primary="log-likelihood",
        epochs=6,
        optimizer=partial(
            torch.optim.AdamW, lr=3e-3, weight_decay=0.1, betas=(0.9, 0.95), fused=True
        ),
        batch_size=8,
        cooling=True,
        texts=texts,
        tokenizer=tokenizer,
    )


def loss(model: nn.Module, batch: tuple[Tensor, ...], padding: int = PADDING) -> Tensor:
    """Mean cross-entropy over the tokens of windows, in nats."""
    tokens = batch[0]
    return cross_entropy(
        model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), ignore_index=padding
    )


@torch.no_grad()
def losses(model: nn.Module, tokens: Tensor, size: int = 32, padding: int = PADDING) -> Tensor:
    """Of windows (n, length + 1), the loss at each place, (n, length); 0 at padding."""
    with evaluating(model):
        return torch.cat(
            [
                cross_entropy(
                    model(t[:, :-1]).transpose(1, 2),
                    t[:, 1:],
                    ignore_index=padding,
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


@torch.no_grad()
def continued(
    model: nn.Module, text: list[int], tokens: int, seed: int, top: int, length: int = LENGTH
) -> list[int]:
    """The text with so many tokens more, each drawn among the `top` likeliest after the last `length`."""
    generator, text = torch.Generator().manual_seed(seed), [*text]
    with evaluating(model):
        for _ in range(tokens):
            values, pieces = model(torch.tensor([text[-length:]]))[0, -1].topk(top)
            text.append(pieces[values.softmax(0).multinomial(1, generator=generator)].item())
    return text


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


class Before(nn.Module):
    """Adds to each place what is at the one before it, each channel times its own weight.

    With it a network needs no attention to see that neighbours matter, and learns in a fraction of
    the time (So et al., Primer, NeurIPS 2021; "token shift" in Peng et al., RWKV, EMNLP 2023).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.scale = nn.Parameter(torch.full((channels,), 0.3))

    def forward(self, x: Tensor) -> Tensor:
        """x: (batch, length, channels)."""
        return x + self.scale * pad(x, (0, 0, 1, -1))


class GPT(nn.Module):
    """Tokens (batch, n) -> logits (batch, n, pieces) of what comes after each (Radford et al., 2018).

    Table of pieces and of positions, blocks with their norms first, a norm, the output. After each
    norm of a block comes `Before`.
    """

    def __init__(
        self, pieces: int, length: int, channels: int, heads: int, hidden: int, layers: int
    ):
        super().__init__()
        self.tokens = nn.Embedding(pieces, channels)
        self.positions = nn.Embedding(length, channels)
        self.blocks = nn.ModuleList(Block(channels, heads, hidden) for _ in range(layers))
        for block in self.blocks:
            block.norm1 = nn.Sequential(block.norm1, Before(channels))
            block.norm2 = nn.Sequential(block.norm2, Before(channels))
        self.norm, self.output = nn.LayerNorm(channels), nn.Linear(channels, pieces)

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.tokens(tokens) + self.positions(places)
        seen = causal(len(places)).to(x.device)
        for block in self.blocks:
            x = block(x, seen)
        return self.output(self.norm(x))


def gpt(
    tables: Callable[[int], tuple[Tensor, Tensor, Tensor]],
    seed: int,
    width: float = 1.0,
    *,
    channels: int = 96,
    heads: int = 4,
    hidden: int = 288,
    layers: int = 4,
) -> nn.Module:
    """A `GPT` that begins, whatever the seed, with the tables of a bigram model (`bigram`).

    What the blocks add is small at first. The channels of each head and the hidden units are scaled by
    `width`. tables(channels): the weights of tokens and output, and the output's biases.
    """
    each, hidden = (max(1, round(n * width)) for n in (channels // heads, hidden))
    channels = heads * each
    tokens, output, bias = tables(channels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT(len(tokens), LENGTH, channels, heads, hidden, layers)
        nn.init.normal_(model.positions.weight, std=0.03)
        for module in model.blocks.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.6 * module.in_features**-0.5)
                nn.init.zeros_(module.bias)
    with torch.no_grad():
        for place, values in (
            (model.tokens.weight, tokens),
            (model.output.weight, output),
            (model.output.bias, bias),
        ):
            place.copy_(values)
        for block in model.blocks:
            block.attention.output.weight.mul_(0.2)
            block.down.weight.mul_(0.2)
    return model


def bigram(
    tokens: Tensor, pieces: int, channels: int, steps: int = 200, rate: float = 0.03
) -> tuple[Tensor, Tensor, Tensor]:
    """Tables that say of each piece which one comes next: a `GPT` without blocks or positions.

    They are fitted to how often pairs occur in windows (n, length + 1), all at once, in a second: it
    would take the network much of its training to find out. Returns the tokens' weight (pieces,
    channels), and weight and bias of the output.
    """
    real = tokens[:, 1:] != PADDING
    pairs = (tokens[:, :-1] * pieces + tokens[:, 1:])[real]
    share = torch.bincount(pairs, minlength=pieces**2).view(pieces, pieces) / len(pairs)
    generator = torch.Generator().manual_seed(0)
    found = (
        0.3 * torch.randn(pieces, channels, generator=generator),
        0.06 * torch.randn(pieces, channels, generator=generator),
        torch.zeros(pieces),
    )
    found = tuple(table.requires_grad_() for table in found)
    optimizer = torch.optim.Adam(found, lr=rate)
    falling = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, steps)
    with torch.enable_grad():
        for _ in range(steps):
            logits = linear(layer_norm(found[0], (channels,)), found[1], found[2])
            optimizer.zero_grad()
            (-(share * logits.log_softmax(dim=1)).sum()).backward()
            optimizer.step()
            falling.step()
    return tuple(table.detach() for table in found)
