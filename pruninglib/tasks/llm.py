"""A language model that people have, and how to prune it: by name, from a folder or a GGUF file.

Lesson 14 on published data. A model is a causal one of Hugging Face's transformers, of whatever family,
read on the CPU in float32; nothing is trained. transformers is an extra: pip install -e ".[llm]".
"""

import copy
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from ..measure.training import evaluating
from ..prune.criteria import Loss
from ..prune.weights import prunable
from . import datasets
from .language import LanguageTask, continued, language, loss, losses, summed
from .pretrained import pretrained

MODEL = "HuggingFaceTB/SmolLM2-135M"
LENGTH = 256  # tokens of a window that are predicted
NOTHING = -100  # padding: there is none, for each article is longer than a window
AT_ONCE = 4  # windows; their logits take 50 kB for each thousand pieces and window


@dataclass(frozen=True, kw_only=True)
class LoadedTask(LanguageTask):
    """A language model that others have trained, on text. Samples are windows (n, LENGTH + 1) with their
    document (n,), the beginning of each document. `build(seed)` copies the model, whatever the seed.

    tokenizer: the model's own, of transformers. begin: with what a window begins, if the tokenizer
        has such a token: that for the beginning of a text, else that for the end of one.
    """

    begin: list[int]
    tokenizer: Any

    def windows(self, paragraphs: Sequence[str], most: int | None = None) -> Tensor:
        """A text as int64 (windows, LENGTH + 1), `most` of them at most; what fills none is left out."""
        return _windows(self.tokenizer, self.begin, paragraphs, most)

    def by_document(self, model: nn.Module, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Of each document the loss, summed over its tokens, in nats, and how many these are."""
        tokens, document = self.splits[split]
        found = losses(model, tokens, AT_ONCE, NOTHING)
        return summed(found, torch.ones_like(found), document)

    def write(self, model: nn.Module, start: str, tokens: int, seed: int, top: int = 20) -> str:
        """What the model writes after `start`, each token drawn among the `top` likeliest."""
        text = [*self.begin, *_tokens(self.tokenizer, start)]
        text = continued(model, text, tokens, seed, top, LENGTH)
        return self.tokenizer.decode(text[len(self.begin) :])


def language_model(data: str = "bundled", source: str | Path = MODEL) -> LanguageTask:
    """A trained language model to prune without training it, and text for it. `build(0)` gives the model.

    data: "full", the model of `source` on WikiText-2, the first 256 tokens of each article (600 train, for
        calibration, 60 valid, 60 test); or "bundled", the course's small GPT of seed 0 on the documentation
        of `language`, the first window of each module. Then `source` is not looked at.
    source: a causal language model: its name on huggingface.co, from where it is downloaded once into
        Hugging Face's own cache; a folder with config.json, weights and tokenizer; or a GGUF file. Its
        weights are read as float32, so it needs 4 bytes for each, and as much for each copy.

    Raises ModuleNotFoundError without the extra, FileNotFoundError or OSError if there is no such
    model, ValueError if it is none that can be pruned here; each says in a sentence why.
    """
    if data == "bundled":
        task = language()
        return replace(
            task,
            splits={split: _first(*parts) for split, parts in task.splits.items()},
            build=lambda seed=0, width=1.0: pretrained(task, 0),
        )
    if data != "full":
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    model, tokenizer = load(source)
    texts = {
        split: {f"{i} {article[0].strip('= ')}": article for i, article in enumerate(articles)}
        for split, articles in datasets.wikitext_2().items()
    }
    begin = [t for t in (tokenizer.bos_token_id, tokenizer.eos_token_id) if t is not None][:1]
    splits = {}
    for split, articles in texts.items():
        found = [_windows(tokenizer, begin, article, 1) for article in articles.values()]
        splits[split] = (torch.cat(found), torch.arange(len(found)))

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        total, count = task.by_document(network, split)
        mean = total.sum() / count.sum()
        return {"log-likelihood": float(-mean), "perplexity": float(np.exp(mean))}

    task = LoadedTask(
        name=f"language-{Path(source).name}",
        splits=splits,
        build=lambda seed=0, width=1.0: copy.deepcopy(model),
        loss=partial(loss, padding=NOTHING),
        metrics=metrics,
        primary="log-likelihood",
        epochs=1,
        optimizer=partial(torch.optim.AdamW, lr=1e-5),
        batch_size=AT_ONCE,
        texts=texts,
        tokenizer=tokenizer,
        begin=begin,
    )
    return task


# ---- models ----


class Logits(nn.Module):
    """A model of transformers as the course calls one: tokens (batch, n) -> logits (batch, n, pieces)."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, tokens: Tensor) -> Tensor:
        return self.network(input_ids=tokens, use_cache=False).logits


def load(source: str | Path) -> tuple[Logits, Any]:
    """A causal language model in evaluation mode, and its tokenizer (`language_model` says from where)."""
    path = Path(source)
    of_file = path.suffix == ".gguf"
    needed = ["transformers", *(["gguf", "accelerate"] if of_file else [])]
    if missing := [name for name in needed if find_spec(name) is None]:
        raise ModuleNotFoundError(
            f"{source} can't be read without {' and '.join(missing)}, which the course does not need "
            'elsewhere: install it with pip install -e ".[llm]"'
        )
    if of_file and not path.is_file():
        raise FileNotFoundError(f"there is no file {source}")
    if path.is_dir() and not (path / "config.json").exists():
        raise FileNotFoundError(
            f"the folder {source} has no config.json: name a folder that save_pretrained has written, or "
            "a .gguf file"
        )
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where, options = (path.parent, {"gguf_file": path.name}) if of_file else (source, {})
    try:
        network = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32, **options)
        tokenizer = AutoTokenizer.from_pretrained(where, **options)
    except Exception as error:  # of many kinds: no network, no such name, no such architecture
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        here = (
            "" if path.exists() else " It is no folder or file here, so it was asked for by name."
        )
        raise OSError(f"{source} could not be read: {reason}{here}") from error
    model = Logits(with_linear(network)).eval()
    check(model)
    return model, tokenizer


def with_linear(network: nn.Module) -> nn.Module:
    """The network with GPT-2's `Conv1D` layers, which hold (inputs, outputs), as `nn.Linear`."""
    for name, layer in [*network.named_modules()]:
        if type(layer).__name__ == "Conv1D" and layer.weight.dim() == 2:
            linear = nn.utils.skip_init(nn.Linear, *layer.weight.shape, bias=layer.bias is not None)
            linear.weight = nn.Parameter(layer.weight.detach().T.contiguous())
            linear.bias = layer.bias
            network.set_submodule(name, linear)
    return network


@torch.no_grad()
def check(model: nn.Module) -> None:
    """Raise ValueError, in a sentence, unless the model is one whose blocks can be pruned here."""
    kind = type(getattr(model, "network", model)).__name__
    name, blocks = blocks_of(model)
    matrices = {n: p.numel() for n, p in blocks.named_parameters() if p.dim() > 1}
    linear = {n.removeprefix(f"{name}.") for n in matrices_of(model)}
    if others := [n for n in matrices if n not in linear]:
        share = sum(matrices[n] for n in others) / sum(matrices.values())
        if share > 0.1:  # experts in one tensor, weights packed in few bits
            raise ValueError(
                f"{share:.0%} of the weights in {kind}'s blocks, such as {others[0]}, are no weights of nn.Linear "
                "layers, and this lesson prunes those alone: take a model without experts and without quantised weights"
            )
    one, other = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]])
    if not model(one[None])[:, :3].allclose(model(other[None])[:, :3], atol=1e-3):
        raise ValueError(f"{kind} sees what comes later, so it is no causal language model")


# ---- its parts ----


def blocks_of(model: nn.Module) -> tuple[str, nn.ModuleList]:
    """Name and blocks of a language model: its longest nn.ModuleList that is in no other one."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, nn.ModuleList) and len(m)}
    outer = {n: m for n, m in found.items() if not any(n.startswith(f"{o}.") for o in found)}
    if not outer:
        raise ValueError(f"{type(model).__name__} has no nn.ModuleList, so where are its blocks?")
    return max(outer.items(), key=lambda pair: len(pair[1]))


def matrices_of(model: nn.Module) -> list[str]:
    """Names of the weights of Linear layers in the blocks: embedding and output, often one, are not."""
    name, _ = blocks_of(model)
    return [n for n in prunable(model, types=(nn.Linear,)) if n.startswith(f"{name}.")]


def without_blocks(model: nn.Module, numbers: Collection[int]) -> nn.Module:
    """A copy of the model without the blocks of these numbers, from 0."""
    name, blocks = blocks_of(model)
    kept = [i for i in range(len(blocks)) if i not in set(numbers)]
    if not kept or not set(numbers) <= set(range(len(blocks))):
        raise ValueError(
            f"blocks {sorted(numbers)} can't be removed: they are numbered 0 to {len(blocks) - 1}, and one must stay"
        )
    short = copy.deepcopy(model)
    short.set_submodule(name, nn.ModuleList(short.get_submodule(name)[i] for i in kept))
    for config in {id(c): c for m in short.modules() if (c := getattr(m, "config", None))}.values():
        if getattr(config, "num_hidden_layers", None) == len(blocks):  # some models go by these
            config.num_hidden_layers = len(kept)
            if kinds := getattr(config, "layer_types", None):
                config.layer_types = [kinds[i] for i in kept]
    return short


@torch.no_grad()
def block_influence(model: nn.Module, loss: Loss, batches: Iterable) -> list[float]:
    """Of each block 1 - the mean cosine of what goes in and what comes out, over all places.

    The block with the lowest changes the least of what passes through it, and goes first (Men et al.,
    ShortGPT, Findings of ACL 2025). The loss runs the model; its value is not used.
    """
    blocks, seen = blocks_of(model)[1], {}

    def see(block: nn.Module, args: tuple, kwargs: dict, output) -> None:
        before = args[0] if args else kwargs["hidden_states"]
        after = output[0] if isinstance(output, tuple) else output
        seen.setdefault(block, []).append(cosine_similarity(before, after, dim=-1).flatten())

    hooks = [block.register_forward_hook(see, with_kwargs=True) for block in blocks]
    try:
        with evaluating(model):
            for batch in batches:
                loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    return [1 - torch.cat(seen[block]).double().mean().item() for block in blocks]


# ---- text ----


def _tokens(tokenizer, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def _windows(tokenizer, begin: list[int], paragraphs: Sequence[str], most: int | None) -> Tensor:
    """Without a token to begin with, the first of the text stands there."""
    text = "\n".join(paragraphs)
    own = LENGTH + 1 - len(begin)
    if most is not None:
        text = text[: 20 * most * LENGTH]  # more than so many tokens have; all of it takes time
    tokens = _tokens(tokenizer, text)
    parts = [begin + tokens[i : i + own] for i in range(0, len(tokens) - own + 1, own)]
    return torch.tensor([*islice(parts, most)]).view(-1, LENGTH + 1)


def _first(tokens: Tensor, document: Tensor) -> tuple[Tensor, Tensor]:
    """The first window of each document."""
    first = torch.cat([torch.ones(1, dtype=torch.bool), document[1:] != document[:-1]])
    return tokens[first], document[first]
