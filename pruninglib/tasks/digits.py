"""Images of ten classes: handwritten digits (bundled), Fashion-MNIST (full)."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.datasets import FashionMNIST

from ..measure.training import Batches, classification_metrics, correct, evaluate
from . import datasets
from .task import Task

CLASSES = 10


def digits(data: str = "bundled", model: str = "mlp", label_noise: float = 0.0) -> Task:
    """The classification task of the first lessons.

    data: "bundled", 1,797 handwritten digits of 8×8 pixels, offline (1,000 train, 297 valid,
        500 test); or "full", Fashion-MNIST, 28×28 (55,000 / 5,000 / 10,000, its own test set).
    model: "mlp", two hidden layers of 256 and 128 units, or "cnn", three small convolutions.
    label_noise: the share of the labels of train and valid, in [0, 1), that are replaced by another
        class, the same ones every time. Test keeps its true labels.
    """
    if data == "bundled":
        splits = datasets.split(
            *datasets.handwritten_digits(), {"train": 1000, "valid": 297, "test": 500}
        )
        names = [str(digit) for digit in range(CLASSES)]
        epochs, batch_size, lr, weight_decay = 30, 50, 0.1, 1e-3
    elif data == "full":
        published = datasets.fashion_mnist()
        splits = datasets.split(*published["train"], {"train": 55_000, "valid": 5_000})
        splits["test"] = published["test"]
        names = FashionMNIST.classes
        epochs, batch_size, lr, weight_decay = 10, 250, 0.05, 1e-4
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    if not 0 <= label_noise < 1:
        raise ValueError(f"label_noise is {label_noise}, but must lie in [0, 1)")
    if label_noise:
        for seed, split in enumerate(("train", "valid")):
            images, classes = splits[split]
            splits[split] = images, mislabelled(classes, label_noise, seed)
    builders = {"mlp": mlp, "cnn": cnn}
    if model not in builders:
        raise ValueError(f"model is {model!r}, but must be 'mlp' or 'cnn'")

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        batches = Batches(*splits[split], size=2000)
        return evaluate(network, batches, cross_entropy, classification_metrics(CLASSES))

    return Task(
        name=f"digits-{model}-{data}" + (f"-noise{label_noise:g}" if label_noise else ""),
        splits=splits,
        build=partial(builders[model], splits["train"][0].shape[-1]),
        loss=loss,
        metrics=metrics,
        primary="accuracy",
        epochs=epochs,
        # With large steps and weight decay the dense digits model is better than with Adam (98 %
        # against 97 %), and it prunes much better: weights that do nothing shrink.
        optimizer=partial(torch.optim.SGD, lr=lr, momentum=0.9, weight_decay=weight_decay),
        batch_size=batch_size,
        outcomes=lambda network, split: correct(network, Batches(*splits[split], size=2000)),
        slices={
            split: {name: classes == i for i, name in enumerate(names)}
            for split, (_, classes) in splits.items()
        },
    )


def mislabelled(classes: torch.Tensor, share: float, seed: int) -> torch.Tensor:
    """round(share · n) of the n labels replaced by one of the nine other classes."""
    generator, noisy = torch.Generator().manual_seed(seed), classes.clone()
    wrong = torch.randperm(len(classes), generator=generator)[: round(share * len(classes))]
    noisy[wrong] += torch.randint(1, CLASSES, wrong.shape, generator=generator)
    return noisy % CLASSES


def loss(model: nn.Module, batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Mean cross-entropy of a batch (images, classes)."""
    images, classes = batch
    return cross_entropy(model(images), classes)


def mlp(pixels: int, seed: int, width: float = 1.0) -> nn.Module:
    """pixels² - 256 - 128 - 10 with ReLU; hidden layers scaled by `width`, one unit at least."""
    first, second = (max(1, round(n * width)) for n in (256, 128))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            OrderedDict(
                flatten=nn.Flatten(),
                hidden1=nn.Linear(pixels**2, first),
                relu1=nn.ReLU(),
                hidden2=nn.Linear(first, second),
                relu2=nn.ReLU(),
                output=nn.Linear(second, CLASSES),
            )
        )


def cnn(pixels: int, seed: int, width: float = 1.0) -> nn.Module:
    """Three 3×3 convolutions of 16, 32 and 64 channels with BatchNorm, halved twice, averaged.

    Works at any image size, so `pixels` is not used; channels are scaled by `width`.
    """
    channels = [1, *(max(1, round(n * width)) for n in (16, 32, 64))]
    layers = OrderedDict()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, (inner, outer) in enumerate(pairwise(channels), start=1):
            layers[f"conv{i}"] = nn.Conv2d(inner, outer, 3, padding=1, bias=False)
            layers[f"norm{i}"] = nn.BatchNorm2d(outer)
            layers[f"relu{i}"] = nn.ReLU()
            if i < 3:
                layers[f"pool{i}"] = nn.MaxPool2d(2)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(channels[-1], CLASSES)
        return nn.Sequential(layers)
