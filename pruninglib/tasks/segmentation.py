"""What each pixel shows: digits by their size on texture (bundled), clothing (full)."""

import math
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from ..measure.regions import boundary_ious, ious
from ..measure.training import evaluating
from ..prune.criteria import Scores
from ..prune.select import select
from ..prune.shrink import coupled, pool, shrink, spread
from . import datasets
from .detection import block
from .scenes import SIZES, Scenes, scenes
from .task import Task

SIDE = 48  # pixels of a drawn scene
DRAWN = {"train": 8000, "valid": 200, "test": 400}  # scenes; the first for dense networks
CLASSES = {
    "bundled": ("ground", "small", "medium", "large"),
    "full": ("background", *datasets.CLOTHES),
}
CHANNELS = (8, 16, 24, 32)  # of the network, from the finest to the coarsest
Shape = tuple[int, ...]  # channels of each layer but the last: encoder, bottom, ways up, decoder
# As many channels as one ranking of all, by Taylor scores, leaves of 60 % fewer, a quarter of each
# layer at least: 15 % of the parameters. Of the networks of seeds 100 and 101, which differ by two.
CUT: Shape = (8, 15, 6, 8, 8, 8, 10, 6, 4, 4, 6)
NARROW = 0.375  # the width with as many parameters
EQUAL = 0.57  # the width with as many multiplications
LITTLE = 48  # pixels of a region in a photograph, or fewer: 0.8 % of it
Batch = tuple[Tensor, Tensor, Tensor]  # images, labels, owners


def segmentation(data: str = "bundled", pictures: int = 1000) -> Task:
    """Name the class of each pixel of a picture (lesson 09).

    data: "bundled", scenes of handwritten digits (`scenes`) of 48×48 pixels, to be told by their
        size: ground, small (7 to 9 pixels), medium (12 to 14), large (20 to 24); 200 valid, 400
        test; or "full", photographs of people of 64×96 pixels and nine classes (704 train, each
        also mirrored; 150 valid, 150 test).
    pictures: how many drawn scenes to train with: enough for fine-tuning. They are cheap, so dense
        networks (`pretrained`) get 8,000 of them, of which these are the first.

    A split holds images, uint8 (n, channels, height, width); labels, uint8 (n, height, width), the
    class of each pixel, in the order of `CLASSES`; and owners, int16 (n, height, width), the object
    that a pixel belongs to, or -1. In photographs all of one class is one object. A network returns
    logits, float32 (n, classes, height, width). `outcomes` and `slices` are of objects, ordered by
    picture and owner: found if half of what is visible of it, or more, gets its class.
    """
    if data == "bundled":
        counts = DRAWN | {"train": pictures}
        drawn = {split: scenes(split, number, side=SIDE) for split, number in counts.items()}
        splits = {split: as_tensors(known) for split, known in drawn.items()}
        slices = {split: drawn[split].slices() for split in ("valid", "test")}
        channels, epochs, lr = 1, 4, 1e-2
    elif data == "full":
        splits = {split: with_owners(*parts) for split, parts in datasets.clothing().items()}
        slices = {split: regions_of(*splits[split]) for split in ("valid", "test")}
        splits["train"] = tuple(torch.cat([part, part.flip(-1)]) for part in splits["train"])
        channels, epochs, lr = 3, 20, 1e-2
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    names = CLASSES[data]

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        images, labels, owners = splits[split]
        found = segment(network, images)
        masks = dict(zip(names, ious(found, labels, len(names)), strict=True))
        outlines = dict(zip(names, boundary_ious(found, labels, len(names)), strict=True))
        return {
            "mIoU": _mean(masks),
            "boundary mIoU": _mean(outlines),
            "found": float(objects(found, labels, owners).found.float().mean()),
            **{f"IoU {name}": value for name, value in masks.items()},
            **{f"boundary IoU {name}": value for name, value in outlines.items()},
        }

    def outcomes(network: nn.Module, split: str) -> Tensor:
        images, *known = splits[split]
        return objects(segment(network, images), *known).found

    return Task(
        name=f"segmentation-{data}",
        splits=splits,
        build=partial(build, channels, len(names)),
        loss=loss,
        metrics=metrics,
        primary="mIoU",
        epochs=epochs,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=1e-2),
        batch_size=16,
        outcomes=outcomes,
        slices=slices,
        cooling=True,
        all_of_train=(lambda: as_tensors(scenes("train", DRAWN["train"], side=SIDE)))
        if data == "bundled"
        else None,
    )


def _mean(values: dict[str, float]) -> float:
    """Of the classes that are there."""
    known = [value for value in values.values() if not math.isnan(value)]
    return sum(known) / len(known)


def as_tensors(known: Scenes) -> Batch:
    """Images, labels and owners; what is not asked for is ground."""
    owners = known.owner.long()
    sizes = 1 + (known.sizes > SIZES[2]).long() + (known.sizes > SIZES[5]).long()
    sizes = sizes.where(known.wanted, 0)
    labels = sizes.gather(1, owners.clamp(min=0).flatten(1)).view_as(owners).where(owners >= 0, 0)
    return known.images, labels.to(torch.uint8), known.owner.where(labels > 0, -1)


def with_owners(images: Tensor, labels: Tensor) -> Batch:
    """Of each class in a picture all pixels are one object, but of the first, the background."""
    return images, labels, labels.to(torch.int16) - 1


class Objects(NamedTuple):
    """Of each object, by picture and owner: its picture, its class, its visible pixels, which share
    of them got its class, and whether that is half or more.
    """

    picture: Tensor
    kind: Tensor
    pixels: Tensor
    share: Tensor
    found: Tensor


def objects(found: Tensor, labels: Tensor, owners: Tensor) -> Objects:
    """found: the classes that a network gives, integers as `labels`."""
    there = owners >= 0
    picture = there.nonzero()[:, 0]
    keys, of = (picture * 256 + owners[there]).unique(return_inverse=True)
    pixels = torch.bincount(of)
    right = torch.bincount(of, (found == labels)[there].double(), len(keys))
    kind = torch.zeros(len(keys), dtype=torch.long).index_copy(0, of, labels[there].long())
    return Objects(keys // 256, kind, pixels, right / pixels, 2 * right >= pixels)


def regions_of(images: Tensor, labels: Tensor, owners: Tensor) -> dict[str, Tensor]:
    """Slices of what is in photographs: their class, and those of few pixels."""
    known = objects(labels, labels, owners)
    slices = {name: known.kind == i for i, name in enumerate(CLASSES["full"]) if i}
    return slices | {"little": known.pixels <= LITTLE}


def build(channels: int, classes: int, seed: int, width: float | Shape = 1.0) -> "UNet":
    """An untrained network; hidden layers scaled by `width`, one channel at least, or of a shape."""
    if not isinstance(width, tuple):
        sizes = [max(1, round(n * width)) for n in CHANNELS]
        width = (*sizes, sizes[-1], *sizes[:-1], *sizes[:-1])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(channels, classes, width)


class UNet(nn.Module):
    """A small U-Net (Ronneberger, Fischer and Brox, MICCAI 2015).

    The encoder halves the picture three times. The decoder enlarges it again, and at each size
    joins what it has with what the encoder had there: the skip connections, a concatenation of
    `[from below, skip]`.
    """

    def __init__(self, channels: int, classes: int, shape: Shape):
        super().__init__()
        encoder, bottom, up, decoder = shape[:4], shape[4], shape[5:8], shape[8:]
        inner, outer = (channels, *encoder), (*decoder[1:], bottom)
        self.encoder = nn.ModuleList(
            block(a, b, stride=2 if i else 1) for i, (a, b) in enumerate(pairwise(inner))
        )
        self.bottom = block(encoder[-1], bottom)
        self.up = nn.ModuleList(map(partial(block, kernel=1), outer, up))
        joined = [a + b for a, b in zip(up, encoder[:-1], strict=True)]
        self.decoder = nn.ModuleList(map(block, joined, decoder))
        self.head = nn.Conv2d(decoder[0], classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        x, skips = (images.to(self.head.weight.dtype) - 128) / 64, []
        for stage in self.encoder:
            x = stage(x)
            skips.append(x)
        x = self.bottom(skips.pop())
        for up, stage in zip(reversed(self.up), reversed(self.decoder), strict=True):
            skip = skips.pop()
            below = interpolate(up(x), skip.shape[2:])  # as it was, each pixel four times
            x = stage(torch.cat([below, skip], dim=1))
        return self.head(x)


def cut(network: nn.Module, shape: Shape, scores: Scores, example: Tensor) -> nn.Module:
    """A smaller network: in each layer the channels with the highest mean scores, as many as `shape`
    says.
    """
    groups, kept = coupled(network, example), {}
    pooled = pool(scores, groups)
    for channels, (name, values) in zip(shape, pooled.items(), strict=True):
        kept |= select({name: values}, 1 - channels / len(values))
    return shrink(network, spread(kept, groups), example)


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Cross-entropy, all pixels alike."""
    images, labels, _ = batch
    return cross_entropy(model(images), labels.long())


@torch.no_grad()
def segment(model: nn.Module, images: Tensor) -> Tensor:
    """uint8 (n, height, width): the class with the highest logit at each pixel."""
    with evaluating(model):
        return torch.cat([model(part).argmax(dim=1).to(torch.uint8) for part in images.split(100)])
