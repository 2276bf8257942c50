"""What every task offers, whatever its domain."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR

from ..measure.training import Batches, fit
from ..prune.criteria import Loss
from ..prune.select import Masks


@dataclass(frozen=True)
class Task:
    """Data, model, loss and metrics that belong together.

    splits: "train", "valid" and "test", each a tuple of tensors with samples along dimension 0.
        Thresholds, budgets and best epochs are chosen on valid; test is reported once.
    build(seed, width=1.0): an untrained model; `width` scales its hidden layers.
    loss(model, batch): mean over the batch, a scalar.
    metrics(model, split): name -> number; `primary` names the one that is the headline.
    epochs, optimizer, batch_size: the training that the dense model gets; optimizer(parameters)
        makes a new optimizer.
    outcomes(model, split): bool (samples,), whether each sample came out right; the mean of them
        is the primary metric, but where several objects are sought in each sample (`detection`).
        What a damage report is made from.
    slices: by split, name -> bool (samples,): the parts of it that may be hurt unequally.
    all_of_train(): the training split that dense networks get (`pretrained`), where the one in
        `splits` is a part of it, enough for fine-tuning.
    cooling: whether the learning rate falls along half a cosine in every training, from the
        optimizer's to zero.
    """

    name: str
    splits: dict[str, tuple[Tensor, ...]]
    build: Callable[..., nn.Module]
    loss: Loss
    metrics: Callable[[nn.Module, str], dict[str, float]]
    primary: str
    epochs: int
    optimizer: Callable[[Iterable[nn.Parameter]], Optimizer]
    batch_size: int
    outcomes: Callable[[nn.Module, str], Tensor] | None = None
    slices: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    cooling: bool = False
    all_of_train: Callable[[], tuple[Tensor, ...]] | None = None

    def batches(self, split: str, size: int | None = None, seed: int | None = None) -> Batches:
        """A split in batches of `size` samples; shuffled if a seed is given."""
        return Batches(*self.splits[split], size=size or self.batch_size, seed=seed)

    def train(
        self,
        model: nn.Module,
        *,
        seed: int,
        epochs: int | None = None,
        masks: Masks | None = None,
        **options,
    ) -> list[dict]:
        """`fit` by the task's recipe, `options` going to it.

        The seed sets the shuffling and what the loss or the model draw (negatives, dropout) on the
        CPU; torch's random state there is left as found.
        """
        options = {"progress": False} | options
        epochs = self.epochs if epochs is None else epochs
        batches = self.batches("train", seed=seed)
        optimizer = self.optimizer(model.parameters())
        if self.cooling:
            cosine = CosineAnnealingLR(optimizer, max(1, epochs * len(batches)))
            optimizer.register_step_post_hook(lambda *_: cosine.step())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return fit(
                model, self.loss, batches, epochs, optimizer=optimizer, masks=masks, **options
            )

    def score(self, model: nn.Module, split: str) -> float:
        """The primary metric."""
        return self.metrics(model, split)[self.primary]
