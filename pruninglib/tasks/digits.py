"""Images of ten classes: handwritten digits (bundled), Fashion-MNIST (full)."""

from collections import OrderedDict
from functools import partial
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import cross_entropy, relu
from torchvision.datasets import FashionMNIST

from ..measure.training import Batches, classification_metrics, correct, evaluate
from . import datasets
from .task import Task

CLASSES = 10


def digits(data: str = "bundled", model: str = "mlp", label_noise: float = 0.0) -> Task:
    """The classification task of the first lessons.

    data: "bundled", 1,797 handwritten digits of 8×8 pixels, offline (1,000 train, 297 valid,
        500 test); or "full", Fashion-MNIST, 28×28 (55,000 / 5,000 / 10,000, its own test set).
    model: "mlp", two hidden layers of 256 and 128 units; "cnn", three small convolutions; or
        "resnet", a residual network of seven and two more in its shortcuts, in fewer epochs.
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
    builders = {"mlp": mlp, "cnn": cnn, "resnet": resnet}
    if model not in builders:
        raise ValueError(f"model is {model!r}, but must be 'mlp', 'cnn' or 'resnet'")
    if model == "resnet":
        if data == "bundled":
            epochs, lr = 8, 0.05
        else:
            epochs, batch_size, lr, weight_decay = 8, 128, 0.1, 5e-4

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
        # With a constant rate BatchNorm's averages lag behind the weights at the end: a network
        # fine-tuned for a few epochs is several points better after `recalibrate` than before.
        cooling=model == "resnet",
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


def resnet(pixels: int, seed: int, width: float = 1.0) -> nn.Module:
    """A convolution and three residual blocks of 16, 32 and 64 channels, averaged (He et al., 2016).

    Each block halves the image, but the first. Images of more than 16 pixels are halved at the
    entrance, too, which costs little accuracy and saves three quarters of the time.
    """
    channels = [max(1, round(n * width)) for n in (16, 32, 64)]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = OrderedDict(
            conv=nn.Conv2d(1, channels[0], 3, 1 if pixels <= 16 else 2, padding=1, bias=False),
            norm=nn.BatchNorm2d(channels[0]),
            relu=nn.ReLU(),
        )
        for i, (inner, outer) in enumerate(pairwise([channels[0], *channels]), start=1):
            layers[f"block{i}"] = Residual(inner, outer, stride=1 if i == 1 else 2)
        layers["average"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["output"] = nn.Linear(channels[-1], CLASSES)
        return nn.Sequential(layers)


class Residual(nn.Module):
    """Two 3×3 convolutions with BatchNorm, added to a shortcut: the input itself, or, where the
    size changes, a 1×1 convolution of it.
    """

    def __init__(self, inner: int, outer: int, stride: int):
        super().__init__()
        self.conv1 = nn.Conv2d(inner, outer, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outer)
        self.conv2 = nn.Conv2d(outer, outer, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outer)
        self.shortcut = nn.Sequential()  # the identity
        if stride > 1:
            self.shortcut.conv = nn.Conv2d(inner, outer, 1, stride, bias=False)
            self.shortcut.norm = nn.BatchNorm2d(outer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inside = relu(self.norm1(self.conv1(x)))
        return relu(self.norm2(self.conv2(inside)) + self.shortcut(x))
