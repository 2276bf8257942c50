"""Selection of the lowest scores, small and large."""

import contextlib
import copy
import functools
import os
import subprocess
import sys
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import prune as peer
from torchvision.models import resnet50

import pruninglib as pl

from .measuring import extra_memory, side_by_side

SPARSITY = 0.8
PEER = "torch.nn.utils.prune.global_unstructured"


def by_us(model: nn.Module) -> dict[str, torch.Tensor]:
    return pl.select(pl.magnitude(model), SPARSITY)


def by_peer(model: nn.Module) -> dict[str, torch.Tensor]:
    names = pl.prunable(model)
    modules = [(model.get_submodule(name.removesuffix(".weight")), "weight") for name in names]
    peer.global_unstructured(modules, peer.L1Unstructured, amount=SPARSITY)
    return {name: m.weight_mask for name, (m, _) in zip(names, modules, strict=True)}


def prepared(prune: Callable) -> Callable[[], object]:
    """ResNet-50 and the code of `prune`, both in memory."""
    prune(nn.Sequential(nn.Linear(300, 1000)))
    return functools.partial(prune, resnet50(weights=None))


@contextlib.contextmanager
def busy(threads: int, others: int):
    """So many threads for torch, beside so many other processes that always run."""
    own = torch.get_num_threads()
    torch.set_num_threads(threads)
    running = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(others)]
    try:
        yield
    finally:
        for process in running:
            process.kill()
            process.wait()
        torch.set_num_threads(own)


def global_selection() -> list[dict]:
    """Global selection over ResNet-50's 25.5 M weights."""
    model = resnet50(weights=None)
    theirs = by_peer(copy.deepcopy(model))
    same = sum(int((theirs[name].bool() == mask).sum()) for name, mask in by_us(model).items())
    flat = [score.flatten() for score in pl.magnitude(model).values()]
    weights = sum(map(len, flat))
    work = "global selection, ResNet-50 at 80 %, scoring included"
    rows = []
    others = max(1, (os.cpu_count() or 2) - 1)
    for where, options in {
        "one thread": (1, 0),
        f"two threads beside {others} busy process{'es' * (others > 1)}": (2, others),
    }.items():
        copies = iter([copy.deepcopy(model) for _ in range(6)])  # the peer changes what it prunes
        with busy(*options):
            seconds = side_by_side(
                5,
                ours=lambda: by_us(model),
                peer=lambda copies=copies: by_peer(next(copies)),
                single_pass=lambda: [score > 0.01 for score in flat],
            )
        rows.append(
            {
                "work": f"{work}, {where}: seconds",
                "peer is": PEER,
                "ours": seconds["ours"],
                "peer": seconds["peer"],
                "to reach": 1 / 30,
                "note": f"{seconds['ours'] / seconds['single_pass']:.1f} times one comparison pass "
                f"({seconds['single_pass'] * 1e3:.0f} ms); the same decision on {same} of "
                f"{weights} weights",
            }
        )
    return [
        *rows,
        {
            "work": f"{work}: extra memory, bytes",
            "peer is": PEER,
            "ours": extra_memory(functools.partial(prepared, by_us)),
            "peer": extra_memory(functools.partial(prepared, by_peer)),
            "to reach": 1 / 10,
        },
    ]


def ways_of_selection() -> list[dict]:
    """100 M scores in one layer, and in forty of different sizes for LAMP, on one thread."""
    generator = torch.Generator().manual_seed(0)
    whole = torch.rand(10_000, 10_000, generator=generator)
    parts = {f"layer{i:02}": (1 + i) * p for i, p in enumerate(whole.split(250))}
    ways = {
        "elements": ({"w": whole}, {}),
        "2:4": ({"w": whole}, {"grain": pl.n_of_m(2, 4)}),
        "in rows": ({"w": whole}, {"grain": pl.in_rows}),
        "LAMP": ({"w": whole}, {"budget": pl.lamp}),
        "LAMP, 40 layers": (parts, {"budget": pl.lamp}),
    }
    runs = {n: functools.partial(pl.select, s, 0.5, **options) for n, (s, options) in ways.items()}
    with busy(1, 0):
        seconds = side_by_side(3, **runs)
    return [
        {
            "work": f"selection over 100 M scores, {name}: seconds",
            "peer is": "three seconds",
            "ours": seconds[name],
            "peer": 3.0,
            "to reach": 1.0,
        }
        for name in ways
    ]


def scores_of(millions: int) -> dict[str, torch.Tensor]:
    """Random scores in layers of 2.5 M."""
    generator = torch.Generator().manual_seed(0)
    return {
        f"layer{i:03}": torch.rand(2500, 1000, generator=generator)
        for i in range(round(millions / 2.5))
    }


def prepared_scores(millions: int) -> Callable[[], object]:
    pl.select(scores_of(3), SPARSITY)
    return functools.partial(pl.select, scores_of(millions), SPARSITY)


def large_selection() -> list[dict]:
    """Selection over 500 M scores of 200 layers, against 25 M."""
    # memory first, while the scores are not in memory twice
    memory = extra_memory(functools.partial(prepared_scores, 500))
    large, small = scores_of(500), scores_of(25)
    seconds = side_by_side(
        3, large=lambda: pl.select(large, SPARSITY), small=lambda: pl.select(small, SPARSITY)
    )
    return [
        {
            "work": "selection over 500 M scores: seconds per million",
            "peer is": "itself at 25 M",
            "ours": seconds["large"] / 500,
            "peer": seconds["small"] / 25,
            "to reach": 1.0,
        },
        {
            "work": "its extra memory, bytes",
            "peer is": "the masks themselves",
            "ours": memory,
            "peer": 500_000_000,
            "to reach": 1.5,
        },
    ]
