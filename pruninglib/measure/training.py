"""Training and evaluating, for any model and loss."""

import contextlib
import copy
import math
import time
from collections.abc import Callable, Iterable
from inspect import signature

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassPrecision,
    MulticlassRecall,
)
from tqdm import tqdm

from ..base.running import call, inputs_of, size
from ..base.state import unwrapped
from ..prune.criteria import Loss
from ..prune.masks import keep
from ..prune.select import Masks


class Batches:
    """Tensors in memory as batches, gone through as often as needed.

    With a `seed` each pass is shuffled anew, and two objects with the same seed give the same
    passes. Much faster than a DataLoader for data that fit in memory.
    """

    def __init__(self, *tensors: Tensor, size: int = 256, seed: int | None = None):
        if any(len(t) != len(tensors[0]) for t in tensors):
            raise ValueError(f"tensors of different lengths: {[len(t) for t in tensors]}")
        if not tensors or len(tensors[0]) == 0:
            raise ValueError("the tensors hold no samples: there is nothing to make batches of")
        if size < 1:
            raise ValueError(f"size is {size}, but must be at least 1")
        self.tensors, self.size = tensors, size
        self.generator = None if seed is None else torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return -(-len(self.tensors[0]) // self.size)

    def __iter__(self):
        if self.generator is None:
            yield from zip(*(t.split(self.size) for t in self.tensors), strict=True)
            return
        order = torch.randperm(len(self.tensors[0]), generator=self.generator)
        for picked in order.split(self.size):
            yield tuple(t[picked] for t in self.tensors)


def fit(
    model: nn.Module,
    loss: Loss,
    batches: Iterable,
    epochs: int,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    masks: Masks | None = None,
    after_epoch: Callable[[int], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train in place; the model comes back in evaluation mode.

    loss(model, batch) -> mean loss, a scalar. Default optimizer: Adam. One that searches (LBFGS) is
    given a closure. Of a model in training mode the modules that are not (a frozen BatchNorm) stay so.
    masks: kept through every step (fine-tuning of a pruned model).
    after_epoch(epoch): called after each epoch, counted from 1, the model in evaluation mode.

    Returns a row per epoch: epoch, loss (mean over its batches, in training mode), seconds.
    Raises ValueError if an epoch has no batches, FloatingPointError if the loss is NaN or infinite.
    """
    optimizer = optimizer or torch.optim.Adam(model.parameters())
    with keep(model, masks, optimizer) if masks is not None else contextlib.nullcontext():
        return _epochs(model, loss, batches, epochs, optimizer, after_epoch, progress)


def _epochs(model, loss, batches, epochs, optimizer, after_epoch, progress) -> list[dict]:
    rows = []
    frozen = [m for m in model.modules() if model.training and not m.training]
    # a wrapper says nothing of what its optimizer needs
    closed = signature(unwrapped(optimizer).step).parameters.get("closure")
    searches = closed is not None and closed.default is closed.empty
    model.eval()  # also after no epoch at all
    for epoch in tqdm(range(1, epochs + 1), desc="fit", unit="epoch", disable=not progress):
        start, total, count = time.perf_counter(), 0.0, 0
        model.train()
        for module in frozen:
            module.eval()
        for batch in batches:

            def closure(batch=batch):
                optimizer.zero_grad()
                value = loss(model, batch)
                value.backward()
                return value

            if searches:
                value = optimizer.step(closure)
            else:
                value = closure()
                optimizer.step()
            total += float(value.detach())
            count += 1
        model.eval()
        if count == 0:
            raise ValueError(
                f"no batches in epoch {epoch}: batches is empty, or an iterator that gives its "
                "batches only once (pass a list, a DataLoader or Batches)"
            )
        if not math.isfinite(total):
            raise FloatingPointError(
                f"the loss became NaN or infinite in epoch {epoch}: lower the learning rate"
            )
        rows.append({"epoch": epoch, "loss": total / count, "seconds": time.perf_counter() - start})
        if after_epoch:
            after_epoch(epoch)
    return rows


def recalibrate(model: nn.Module, batches: Iterable) -> None:
    """BatchNorm's running statistics anew, in place: their plain average over the batches.

    The old ones do not fit what a norm sees after pruning ("EagleEye": Li et al., ECCV 2020).
    batches: inputs (a tensor or a mapping), or tuples that begin with them. Nothing else is changed. Raises ValueError if
    there are no batches, or no BatchNorm that keeps statistics.
    """
    twin = copy.deepcopy(model).eval()  # so that dropout draws nothing
    pairs = zip(model.modules(), twin.modules(), strict=True)
    norms = [(m, t) for m, t in pairs if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not norms:
        raise ValueError(f"{type(model).__name__} has no BatchNorm with running statistics")
    for _, norm in norms:
        norm.train().reset_running_stats()
        norm.momentum = None  # all batches count alike
    with torch.no_grad():
        for batch in batches:
            call(twin, inputs_of(batch))
    if not any(norm.num_batches_tracked for _, norm in norms):
        raise ValueError("batches is empty: there is nothing to take statistics of")
    for old, new in norms:
        old.load_state_dict(new.state_dict())


def classification_metrics(classes: int) -> MetricCollection:
    """Accuracy, and precision and recall averaged over the classes (macro), each in [0, 1]."""
    return MetricCollection(
        {
            "accuracy": MulticlassAccuracy(classes, average="micro"),
            "precision": MulticlassPrecision(classes, average="macro"),
            "recall": MulticlassRecall(classes, average="macro"),
        }
    )


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable,
    loss: Callable[[Tensor, Tensor], Tensor],
    metrics: MetricCollection,
    *,
    progress: bool = False,
) -> dict[str, float]:
    """Mean loss and metrics of `model` over batches of (inputs, targets).

    loss(outputs, targets) -> mean over the batch. metrics(outputs, targets): torchmetrics.
    Runs in evaluation mode and leaves every module's mode as it found it.
    Raises ValueError if there are no batches.
    """
    metrics.reset()
    total, count = 0.0, 0
    with evaluating(model):
        for inputs, targets in tqdm(batches, desc="evaluate", disable=not progress):
            outputs = call(model, inputs)
            total += float(loss(outputs, targets)) * size(inputs)
            count += size(inputs)
            metrics.update(outputs, targets)
    if count == 0:
        raise ValueError("batches is empty: there is nothing to evaluate on")
    return {"loss": total / count} | {k: float(v) for k, v in metrics.compute().items()}


@torch.no_grad()
def correct(model: nn.Module, batches: Iterable) -> Tensor:
    """bool (samples,): where the class with the highest output is the target's."""
    with evaluating(model):
        return torch.cat([model(inputs).argmax(dim=1) == targets for inputs, targets in batches])


@contextlib.contextmanager
def evaluating(model: nn.Module):
    """Evaluation mode inside the block; every module's own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
