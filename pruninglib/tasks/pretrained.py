"""Dense networks that take longer to train than a lesson has: shipped, or trained once and kept."""

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from ..base.files import read_tensors, write_tensors
from ..measure.experiment import with_recipe
from ..prune.criteria import taylor
from .datasets import HERE, data_home
from .detection import detection
from .language import language
from .segmentation import CUT, EQUAL, NARROW, Shape, cut, segmentation
from .summarisation import summarisation
from .task import Task
from .translation import translation

SHIPPED = HERE / "models"
CALIBRATION = 300  # pictures, to choose channels by
SEEDS = (0, 1, 2, 10, 11)  # of the networks that are shipped
MORE = (3, 4)  # of those of segmentation: a trial asks for more of them
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "scikit-learn")


def pretrained(task: Task, seed: int, width: float | Shape = 1.0) -> nn.Module:
    """A network trained by the task's recipe on all of its training data.

    Read from the course's `data/models` if it is shipped there; else from `models` in the data
    folder (`PRUNINGLIB_DATA`, `data/cache`); else trained, with a progress bar, and kept there.
    """
    model, name = task.build(seed, width), file_of(task, seed, width)
    kept = data_home() / "models" / name
    path = SHIPPED / name if (SHIPPED / name).exists() else kept
    if not path.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_pretrained(task, seed, width, kept)
    model.load_state_dict(read_tensors(path)[0])
    return model.eval()


def file_of(task: Task, seed: int, width: float | Shape = 1.0) -> str:
    """The file's name: it holds all that the recipe sets, so another recipe is another file."""
    optimizer = task.optimizer([nn.Parameter(torch.zeros(1))])
    recipe = [task.epochs, task.batch_size, task.cooling, optimizer.defaults]
    digest = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()[:8]
    size = _text(width) if isinstance(width, tuple) else f"{width:g}"
    return f"{task.name}-{size}-{seed}-{digest}.safetensors"


def _text(shape: Shape) -> str:
    return "_".join(map(str, shape))


def write_pretrained(task: Task, seed: int, width: float | Shape, path: Path) -> dict:
    """Train a network and write it to a safetensors file, with its record as metadata.

    Returns the record: task, width or shape, seed, parameters, versions, date, seconds, and its metrics on
    valid and test.
    """
    if task.all_of_train is not None:
        task = replace(task, splits=task.splits | {"train": task.all_of_train()})
    model, start = task.build(seed, width), time.perf_counter()
    task.train(model, seed=seed, progress=True)
    record = {
        "task": task.name,
        **({"shape": _text(width)} if isinstance(width, tuple) else {"width": width}),
        "seed": seed,
        "parameters": sum(p.numel() for p in model.parameters()),
        "date": date.today().isoformat(),
        "seconds": round(time.perf_counter() - start),
        **{package: version(package) for package in PACKAGES},
        **{f"{name}, {split}": round(value, 4) for split in ("valid", "test")
           for name, value in task.metrics(model, split).items() if math.isfinite(value)},
    }  # fmt: skip
    write_tensors(model.state_dict(), path, {"record": json.dumps(record)})
    return record


def cut_down(task: Task, **recipe) -> Task:
    """The task whose untrained network of a shape is the trained dense one, cut to it (lesson 09).

    Of the channels of each layer those with the highest Taylor scores stay, on the first 300 pictures
    of train. recipe: for the training that follows, as in `with_recipe`; the dense network's is the
    task's.
    """
    pictures = [tuple(part[:CALIBRATION] for part in task.splits["train"])]

    def build(seed: int, shape: Shape) -> nn.Module:
        dense = pretrained(task, seed)
        scores = taylor(dense, task.loss, pictures, reading="abs")
        return cut(dense, shape, scores, pictures[0][0][:2])

    return replace(with_recipe(task, **recipe), name=f"{task.name}-cut", build=build)


def shipped() -> Iterator[tuple[Task, int, float | Shape]]:
    """Task, seed and width of each network in `data/models`: of each lesson that needs them."""
    task = detection()
    # of 1, 2, 4 and 8 times the rate the best on valid at 0.322; at 0.546 eight does as well
    small = with_recipe(task, lr=4 * task.optimizer.keywords["lr"])
    for seed in SEEDS:
        yield from ((task, seed, 1.0), (small, seed, 0.546), (small, seed, 0.322))
    task = (
        translation()
    )  # a rate of 6e-3: better on valid than 3e-3; at 0.5 better than 3e-3 and 12e-3
    for seed in SEEDS:
        yield from ((task, seed, 1.0), (task, seed, 0.5))
    task = segmentation()
    lr = task.optimizer.keywords["lr"]  # of 1/2, 1, 2 and 4 times it the best for the dense network
    # the best on valid of 1, 2, 4 and 8 times it for each shape, with networks not shipped; of a
    # network cut down, of 1, 2 and 4
    small, even, chosen = (
        with_recipe(task, lr=4 * lr),
        with_recipe(task, lr=8 * lr),
        cut_down(task, lr=2 * lr),
    )
    for seed in (*SEEDS, *MORE):
        yield from (
            (task, seed, 1.0),
            (small, seed, CUT),
            (small, seed, NARROW),
            (even, seed, EQUAL),
            (chosen, seed, CUT),
        )
    task = summarisation()
    small = with_recipe(task, lr=8e-3)  # of 4e-3, 8e-3, 16e-3 the best on valid
    for seed in SEEDS:
        yield from ((task, seed, 1.0), (replace(task, epochs=1), seed, 1.0), (small, seed, 0.5))
    task = language()  # one network is pruned in its lesson; two more, for the tests
    yield from ((task, seed, 1.0) for seed in (0, 10, 11))


def records() -> pd.DataFrame:
    """The records of the shipped networks, a row each: file, bytes, and what the record holds."""
    rows = []
    for path in sorted(SHIPPED.glob("*.safetensors")):
        record = json.loads(read_tensors(path)[1]["record"])
        rows.append({"file": path.name, "bytes": path.stat().st_size} | record)
    return pd.DataFrame(rows)
