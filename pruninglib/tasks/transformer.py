"""The parts of the networks that read and write text: attention, block, encoder and decoder."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

PADDING, UNKNOWN, BEGIN, END = range(4)  # tokens of a text that is written


class Attention(nn.Module):
    """Multi-head attention (Vaswani et al., NeurIPS 2017): `heads` of equal width."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.output = (
            nn.Linear(channels, channels) for _ in range(4)
        )

    def forward(self, x: Tensor, seen: Tensor, source: Tensor | None = None) -> Tensor:
        """x: (batch, length, channels), what asks; source: (batch, others, channels), what is looked
        at, x itself if it is not given; seen: bool, of a shape that expands to (batch, heads,
        length, others), False where nothing may be seen.
        """
        source = x if source is None else source
        q, k, v = (  # (batch, heads, length or others, channels of a head)
            layer(of).unflatten(2, (self.heads, -1)).transpose(1, 2)
            for layer, of in ((self.query, x), (self.key, source), (self.value, source))
        )
        similar = q @ k.transpose(2, 3) / math.sqrt(q.shape[-1])
        weights = similar.masked_fill(~seen, -1e4).softmax(dim=-1)
        return self.output((weights @ v).transpose(1, 2).flatten(2))


class Block(nn.Module):
    """Attention, then a feed-forward network at each position, each added to its input.

    cross: between the two, attention to another text, as a decoder has it.
    """

    def __init__(
        self, channels: int, heads: int, hidden: int, dropout: float = 0.0, cross: bool = False
    ):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = Attention(channels, heads)
        self.up, self.down = nn.Linear(channels, hidden), nn.Linear(hidden, channels)
        self.dropout = nn.Dropout(dropout)
        if cross:
            self.norm3, self.cross = nn.LayerNorm(channels), Attention(channels, heads)

    def forward(
        self, x: Tensor, seen: Tensor, other: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """x: (batch, length, channels); other: the text for `cross`, and what is seen of it; seen as
        for `Attention`.
        """
        # norms come first in each branch: it then trains without a warm-up (Xiong et al., 2020)
        x = x + self.dropout(self.attention(self.norm1(x), seen))
        if other is not None:
            text, real = other
            x = x + self.dropout(self.cross(self.norm3(x), real, text))
        return x + self.dropout(self.down(self.up(self.norm2(x)).relu()))


def causal(length: int) -> Tensor:
    """bool (length, length): each position sees itself and those before it."""
    return torch.ones(length, length, dtype=torch.bool).tril()


class EncoderDecoder(nn.Module):
    """Reads a text and writes another: tokens (batch, m), (batch, n) -> logits (batch, n, words).

    The logits at a position are of the token that comes after it. `vocabularies`: how many tokens
    are read and written; `lengths`: of the longest text that is read, and written.

    copies: what is written may be copied from what is read, and the vocabularies are one. At each
    position attention to the source gives the chance of each of its tokens, and a gate says how far
    to trust it against the vocabulary (See et al., ACL 2017). Logits are then log probabilities.
    """

    def __init__(
        self,
        vocabularies: tuple[int, int],
        lengths: tuple[int, int],
        channels: int,
        heads: int,
        hidden: int,
        layers: tuple[int, int],
        dropout: float = 0.0,
        copies: bool = False,
    ):
        super().__init__()
        self.source, self.target = (nn.Embedding(n, channels) for n in vocabularies)
        self.read, self.written = (nn.Embedding(n, channels) for n in lengths)
        for embedding in (self.source, self.target, self.read, self.written):
            nn.init.normal_(embedding.weight, std=0.1)
        self.dropout = nn.Dropout(dropout)
        self.encoder, self.decoder = (
            nn.ModuleList(Block(channels, heads, hidden, dropout, cross) for _ in range(count))
            for count, cross in zip(layers, (False, True), strict=True)
        )
        self.norm_read, self.norm = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.output = nn.Linear(channels, vocabularies[1])
        if copies:
            self.query, self.key = nn.Linear(channels, channels), nn.Linear(channels, channels)
            self.gate = nn.Linear(channels, 1)
        self.copies = copies

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.decode(source, self.encode(source), target)

    def encode(self, source: Tensor) -> Tensor:
        """float32 (batch, m, channels)."""
        seen = (source != PADDING)[:, None, None, :]
        places = torch.arange(source.shape[1], device=source.device)
        x = self.dropout(self.source(source) + self.read(places))
        for block in self.encoder:
            x = block(x, seen)
        return self.norm_read(x)

    def decode(self, source: Tensor, text: Tensor, target: Tensor) -> Tensor:
        """Logits after each token of the target; text: what `encode` gives of the source."""
        real = (source != PADDING)[:, None, None, :]
        places = torch.arange(target.shape[1], device=target.device)
        x = self.dropout(self.target(target) + self.written(places))
        for block in self.decoder:
            x = block(x, causal(len(places)).to(x.device), (text, real))
        x = self.norm(x)
        logits = self.output(x)
        return self._with_copies(x, logits, source, text) if self.copies else logits

    def _with_copies(self, x: Tensor, logits: Tensor, source: Tensor, text: Tensor) -> Tensor:
        similar = self.query(x) @ self.key(text).transpose(1, 2) / math.sqrt(x.shape[-1])
        copied = similar.masked_fill((source == PADDING)[:, None, :], -1e4).softmax(dim=-1)
        trust = self.gate(x).sigmoid()
        mixed = (1 - trust) * logits.softmax(dim=-1)
        mixed = mixed.scatter_add(2, source[:, None].expand_as(copied), trust * copied)
        return mixed.clamp(min=1e-9).log()


@torch.no_grad()
def write(model: EncoderDecoder, source: Tensor, length: int) -> Tensor:
    """What the model writes, the likeliest token at each step: int64 (texts, length).

    Each text ends with `END`, `PADDING` after it; one that has no end after `length` tokens is cut.
    The model's mode is the caller's (`evaluating`).
    """
    text = model.encode(source)
    written = torch.full((len(source), 1), BEGIN, device=source.device)
    going = torch.ones(len(source), dtype=torch.bool, device=source.device)
    for _ in range(length):
        rows = going.nonzero().squeeze(1)
        logits = model.decode(source[rows], text[rows], written[rows])[:, -1]
        after = torch.full_like(going, PADDING, dtype=torch.int64)
        after[rows] = logits.argmax(dim=-1)
        written = torch.cat([written, after[:, None]], dim=1)
        going = going & (after != END)
        if not going.any():
            break
    written = written[:, 1:]
    return pad(written, (0, length - written.shape[1]))
