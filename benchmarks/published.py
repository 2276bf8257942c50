"""LeNet-300-100 and LeNet-5 on MNIST, pruned by this library, beside published figures.

`python -m benchmarks.published` trains, prunes, fine-tunes and prints the tables. A run that
finishes is added to build/bench/published.jsonl; the next call runs only what is missing.
"""

import gzip
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain, islice, pairwise, repeat
from pathlib import Path

import click
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, cross_entropy, linear, max_pool2d, pad, softmax
from torchvision.datasets import MNIST

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.digits import loss
from pruninglib.tasks.task import Task

OUT = Path(__file__).parents[1] / "build" / "bench" / "published.jsonl"
SIZE = 128  # of a batch
EVERY = 100  # batches between two updates of the masks

# Pruned % and test error %, from Table 1 of Lee et al., "SNIP", ICLR 2019.
PUBLISHED = {
    "LeNet-300-100": [
        ("dense", 0, 1.7), ("Han et al. 2015", 91.7, 1.6), ("OBD", 92.0, 2.0), ("SNIP", 95, 1.6),
        ("SWS", 95.6, 1.9), ("SNIP", 98, 2.4), ("DNS", 98.2, 2.0), ("L-OBS", 98.5, 2.0),
        ("Sparse VD", 98.5, 1.9),
    ],
    "LeNet-5-Caffe": [
        ("dense", 0, 0.9), ("Han et al. 2015", 91.7, 0.8), ("OBD", 92.0, 2.7), ("SNIP", 98, 0.8),
        ("SNIP", 99, 1.1), ("L-OBS", 99.0, 2.1), ("DNS", 99.1, 0.9), ("SWS", 99.5, 1.0),
        ("Sparse VD", 99.6, 0.8),
    ],
}  # fmt: skip


def mnist() -> dict[str, tuple[Tensor, Tensor]]:
    """55,000 and 5,000 of the training images as train and valid; MNIST's own 10,000 as test.

    The four files are looked for in the data folder, downloaded if missing, and verified.
    """
    tensors = []
    for name, md5 in MNIST.resources:
        path = datasets.data_home() / "MNIST" / "raw" / name
        packed = datasets.fetch(MNIST.mirrors[0] + name, path, md5).read_bytes()
        raw = bytearray(gzip.decompress(packed))  # byte 3 is the number of dimensions
        shape = struct.unpack_from(f">{raw[3]}I", raw, 4)
        tensors.append(torch.frombuffer(raw, dtype=torch.uint8, offset=4 + 4 * raw[3]).view(shape))
    images, test = (t.float().div(255).sub(0.13).div(0.31).unsqueeze(1) for t in tensors[::2])
    splits = datasets.split(images, tensors[1].long(), {"train": 55_000, "valid": 5_000})
    return splits | {"test": (test, tensors[3].long())}


class Shifted(pl.Batches):
    """Batches of images and classes; each image moved by up to `pixels`, anew in every pass."""

    def __init__(self, *tensors: Tensor, pixels: int, **options):
        super().__init__(*tensors, **options)
        self.pixels = pixels

    def __iter__(self):
        p = self.pixels
        for images, classes in super().__iter__():
            wide = pad(images, (p, p, p, p), value=float(images.min()))
            by = torch.randint(2 * p + 1, (2, len(images), 1, 1), generator=self.generator)
            rows = by[0] + torch.arange(images.shape[2])[:, None]
            columns = by[1] + torch.arange(images.shape[3])
            each = torch.arange(len(images))[:, None, None]
            yield wide[each, 0, rows, columns].unsqueeze(1), classes


def lenet_300_100() -> nn.Module:
    layers = nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 100), nn.ReLU(), nn.Linear(100, 10)
    return nn.Sequential(nn.Flatten(), *layers)


class LeNet5(nn.Module):
    """LeNet-5 as in Caffe. Units that no kept weight reads are skipped: same output, less work."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 20, 5), nn.Conv2d(20, 50, 5)
        self.hidden, self.output = nn.Linear(800, 500), nn.Linear(500, 10)
        self.to(memory_format=torch.channels_last)  # about 1.5 times faster

    def forward(self, x: Tensor) -> Tensor:
        w1, w2, w4 = self.conv1.weight, self.conv2.weight, self.output.weight
        w3 = self.hidden.weight.unflatten(1, (50, 16))  # a channel is 4×4 inputs
        third = read(w4, 0)
        second = read(w3[third], 0, 2)
        first = read(w2[second], 0, 2, 3)
        x = max_pool2d(conv2d(x, w1[first], self.conv1.bias[first]), 2)
        x = max_pool2d(conv2d(x, w2[second][:, first], self.conv2.bias[second]), 2)
        x = linear(x.flatten(1), w3[third][:, second].flatten(1), self.hidden.bias[third]).relu()
        return linear(x, w4[:, third], self.output.bias)


def read(weight: Tensor, *others: int) -> Tensor:
    """The inputs that some weight reads, or else the first; `others`: its other dimensions."""
    live = (weight.detach() != 0).any(dim=others).nonzero().squeeze(1)
    return live if len(live) else live.new_zeros(1)


def adam(parameters, lr: float, steps: int, decay: bool = True) -> torch.optim.Optimizer:
    """Adam whose learning rate falls to zero along a cosine, a little with every step."""
    optimizer = torch.optim.Adam(parameters, lr=lr, fused=True)
    if decay:
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        optimizer.register_step_post_hook(lambda *_: schedule.step())
    return optimizer


def by_taylor(task: Task, model: nn.Module, seed: int) -> dict[str, Tensor]:
    return pl.taylor(model, task.loss, [tuple(t[:2000] for t in task.splits["train"])])


@torch.no_grad()
def softened(model: nn.Module, images: Tensor, temperature: float) -> Tensor:
    """What the model makes of the images, as probabilities; the warmer, the more alike."""
    return torch.cat([softmax(model(x) / temperature, dim=1) for x in images.split(1000)])


@dataclass(frozen=True)
class Recipe:
    """A method of `pl.compare`: units go first, then single weights, then training goes on.

    units: how many the first layers keep, from two epochs of narrowing on. ramp: the share of the
    epochs in which the sparsity rises. temperature: of the targets, which are what the dense network
    makes of the unshifted images (Hinton et al., "Distilling the knowledge in a neural network",
    2015); with None, the classes. All numbers were chosen by the error on valid.
    """

    epochs: int
    units: tuple[int, ...] = ()
    lr: float = 2e-3
    ramp: float = 0.4
    schedule: Callable = pl.cubic
    criterion: Callable = pl.by_magnitude
    budget: Callable = pl.lamp
    temperature: float | None = 2.0
    decay: bool = True

    def __call__(self, task: Task, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
        if self.temperature:
            images, _ = task.splits["train"]
            taught = images, softened(model, images, self.temperature)
            task = replace(task, splits=task.splits | {"train": taught})
        batches = task.batches("train", seed=seed)
        steps = self.epochs * len(batches)
        narrow = -(-2 * len(batches) // EVERY) if self.units else 0  # updates that remove units
        last = max(narrow + 1, round(self.ramp * steps / EVERY))
        optimizer = adam(model.parameters(), self.lr, steps, self.decay)
        endless = chain.from_iterable(repeat(batches))
        masks = {n: torch.ones_like(s, dtype=torch.bool) for n, s in pl.magnitude(model).items()}
        low = 0.0  # a uniform budget can't go below the sparsest layer
        for update in range(1, last + 1):
            scores = self.criterion(task, model, seed)
            if update <= narrow:
                masks = narrower(scores, masks, self.units, update / narrow)
                low = max(1 - float(mask.float().mean()) for mask in masks.values())
            else:
                done = self.schedule(1.0)((update - narrow) / (last - narrow))
                due = low + (sparsity - low) * done
                masks = pl.select(scores, due, budget=self.budget, within=masks)
            count = EVERY if update < last else max(1, steps - EVERY * (last - 1))
            kept = {"optimizer": optimizer, "masks": masks, "progress": False}
            pl.fit(model, task.loss, islice(endless, count), 1, **kept)
        return model


def narrower(scores: dict, masks: dict, units: tuple[int, ...], progress: float) -> dict:
    """Masks with fewer units, all weights into and out of a removed unit among what is pruned."""
    masks = dict(masks)
    for (name, after), kept in zip(pairwise(masks), units, strict=False):
        due = pl.cubic(1 - kept / len(masks[name]))(progress)
        within = {name: masks[name]}
        masks |= pl.select({name: scores[name]}, due, grain=pl.row, within=within)
        alive = masks[name].flatten(1).any(1)
        alive = alive.repeat_interleave(masks[after].shape[1] // len(alive))
        masks[after] = masks[after] & alive.view(1, -1, *[1] * (masks[after].dim() - 2))
    return masks


@dataclass(frozen=True, kw_only=True)
class Network(Task):
    """A task that trains on images shifted by up to `pixels`, and each dense model only once."""

    recipes: dict[float, Recipe]  # by sparsity; the target first, so that it is run first
    pixels: int = 1
    trained: dict[int, dict] = field(default_factory=dict)  # by seed

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> pl.Batches:
        if seed is None:
            return super().batches(split, size)
        return Shifted(*self.splits[split], pixels=self.pixels, size=size or SIZE, seed=seed)

    def train(self, model: nn.Module, *, seed: int, **options) -> list[dict]:
        rows = super().train(model, seed=seed, **options) if seed not in self.trained else []
        state = {name: t.clone() for name, t in model.state_dict().items()}
        model.load_state_dict(self.trained.setdefault(seed, state))
        return rows


def network(name: str, make: Callable, splits: dict, epochs: int, **options) -> Network:
    def build(seed: int) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return make()

    def metrics(model: nn.Module, split: str) -> dict[str, float]:
        batches = pl.Batches(*splits[split], size=1000)
        return pl.evaluate(model, batches, cross_entropy, pl.classification_metrics(10))

    optimizer = partial(adam, lr=1e-3, steps=epochs * -(-len(splits["train"][0]) // SIZE))
    common = splits, build, loss, metrics, "accuracy", epochs, optimizer, SIZE
    return Network(name, *common, **options)


def networks(splits: dict, quick: bool) -> list[Network]:
    epochs = [1, 1, 1, 1] if quick else [6, 40, 12, 20]
    narrow = Recipe(epochs[1], units=(8, 16, 40), ramp=0.5)
    wider = replace(narrow, units=(12, 24, 80))  # the narrow one has no 5 % of all weights
    five = dict.fromkeys((0.995, 0.99, 0.98), narrow) | {0.95: wider}
    linear = dict.fromkeys((0.985, 0.97, 0.95), Recipe(epochs[3]))
    return [
        network("LeNet-300-100", lenet_300_100, splits, epochs[2], recipes=linear),
        network("LeNet-5-Caffe", LeNet5, splits, epochs[0], recipes=five),
    ]


def ours(task: Network, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
    """The method of `pl.compare` that takes each sparsity's own recipe."""
    return task.recipes[sparsity](task, model, sparsity, seed)


def ablations(recipe: Recipe) -> dict[str, Recipe]:
    """The recipe with one ingredient left out or replaced, by name."""
    changes = {
        "one-shot, not cubic": {"schedule": pl.one_shot},
        "first-order Taylor, not magnitude": {"criterion": by_taylor},
        "random, not magnitude": {"criterion": pl.at_random},
        "global, not LAMP": {"budget": pl.global_budget},
        "uniform, not LAMP": {"budget": pl.uniform},
        "classes as targets, not the dense network's": {"temperature": None},
        "a quarter of the epochs": {"epochs": max(1, recipe.epochs // 4)},
        "constant learning rate": {"decay": False},
    }
    if recipe.units:
        changes["no units removed first"] = {"units": ()}
    else:  # with units gone, early layers have fewer weights left than ERK gives them
        changes["ERK, not LAMP"] = {"budget": pl.erk}
    return {name: replace(recipe, **change) for name, change in changes.items()}


def errors(rows: pd.DataFrame) -> pd.DataFrame:
    """A line per method and sparsity: errors in %, as mean and range over the seeds."""
    rows = rows.assign(error=100 * (1 - rows["accuracy"]), pruned=100 * rows["pruned"])
    lines = []
    for (method, _), group in rows.groupby(["method", "sparsity"], sort=False):
        line = {"method": method, "pruned %": group["pruned"].mean()}
        for split, part in group.groupby("split")["error"]:
            line[f"{split} error %"] = f"{part.mean():.2f} ({part.min():.2f} to {part.max():.2f})"
        lines.append({**line, "seeds": str(group["seed"].nunique())})
    return pd.DataFrame(lines)


def keeps_dense_error(rows: pd.DataFrame) -> float:
    """The highest sparsity up to which the mean error on valid is within the dense seeds' range."""
    accuracy = rows[rows["split"] == "valid"].groupby("sparsity")["accuracy"]
    kept = (accuracy.mean() >= accuracy.min()[0.0]).cummin()
    return max(kept[kept].index)


@click.command()
@click.option("--quick", is_flag=True, help="One epoch, one seed, few images: a smoke run.")
def main(quick: bool) -> None:
    def show(title: str, table: pd.DataFrame) -> None:
        print(f"\n{title}\n{table.round(2).to_string(index=False, na_rep='')}", flush=True)

    splits = {k: tuple(t[: 1000 if quick else None] for t in s) for k, s in mnist().items()}
    run = partial(pl.compare, seeds=range(1 if quick else 3), path=None if quick else OUT)
    for task in networks(splits, quick):
        name, target, method = task.name, [*task.recipes][:1], {"ours": ours}
        rows = run(task, method, [*task.recipes])
        table = pd.DataFrame(PUBLISHED[name], columns=["method", "pruned %", "test error %"])
        table = pd.concat([table, errors(rows)]).sort_values("pruned %", kind="stable")
        show(f"{name}: published and ours (mean, range over the seeds)", table)
        print(f"As good as dense, on valid, up to {keeps_dense_error(rows):.2%} pruned")
        rows = run(task, method | ablations(task.recipes[target[0]]), target)
        show(f"{name}: one ingredient left out or replaced", errors(rows))
        plain = replace(task, name=f"{name} without shifts", pixels=0, trained={})
        show(f"{plain.name}, dense and ours", errors(run(plain, method, target)))


if __name__ == "__main__":
    main()
