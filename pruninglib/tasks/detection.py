"""Objects in pictures: where each is, and what. Digits on texture (bundled), blood cells (full)."""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, l1_loss, logsigmoid, max_pool2d
from torchvision.ops import box_iou

from ..measure.boxes import (
    Detections,
    Matches,
    average_precision,
    best_threshold,
    match,
    precision_recall,
)
from ..measure.training import evaluating
from . import datasets
from .scenes import Scenes, scenes
from .task import Task

STRIDE = 4  # pixels between two places at which the network looks for the middle of an object
USUAL = 12  # pixels, the length of a box's side for which the network says 0
DRAWN = {"train": 20_000, "valid": 500, "test": 1000}  # scenes; the first for dense networks
Batch = tuple[Tensor, Tensor, Tensor]  # images, classes, boxes


def detection(data: str = "bundled", pictures: int = 2000) -> Task:
    """Find all objects of a picture (lesson 08).

    data: "bundled", scenes of handwritten digits (`scenes`) of 64×64 pixels and ten classes, 500
        valid, 1,000 test; or "full", photographs of blood cells of 160×120 pixels and three
        classes (205 train, each also mirrored; 87 valid, 72 test).
    pictures: how many drawn scenes to train with: enough for fine-tuning. They are cheap, so dense
        networks (`pretrained`) get 20,000 of them, of which these are the first.

    A split holds images, uint8 (n, channels, height, width), and the objects in them as
    `measure.boxes` has them. A network returns a dict of logits and numbers for each place of a
    grid of a quarter of the size: `middle`, float32 (n, 1, height / 4, width / 4), whether the
    middle of an object lies there; `kind`, (n, classes, ...); and `box`, (n, 4, ...). `outcomes`
    and `slices` are of objects, in the order of `(classes >= 0).nonzero()`: found or not at the
    threshold that valid chooses.
    """
    if data == "bundled":
        counts = DRAWN | {"train": pictures}
        drawn = {split: scenes(split, number) for split, number in counts.items()}
        splits = {split: as_tensors(known) for split, known in drawn.items()}
        slices = {split: drawn[split].slices() for split in ("valid", "test")}
        channels, kinds, most, scale, epochs, lr = 1, 10, 30, 3.5, 6, 4e-3
    elif data == "full":
        splits = datasets.blood_cells()
        slices = {split: cells_of(*splits[split]) for split in ("valid", "test")}
        splits["train"] = mirrored(*splits["train"])
        channels, kinds, most, scale, epochs, lr = 3, 3, 90, 2.0, 15, 4e-3
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")

    def found_and_matched(network: nn.Module, split: str) -> tuple[Detections, Matches]:
        images, classes, boxes = splits[split]
        found = detect(network, images, most)
        return found, match(found, classes, boxes)

    def threshold(network: nn.Module) -> float:
        found, matches = found_and_matched(network, "valid")
        return best_threshold(found, matches.right, int((splits["valid"][1] >= 0).sum()))

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        found, matches = found_and_matched(network, split)
        _, classes, boxes = splits[split]
        least = threshold(network)
        precision, recall = precision_recall(found, matches, classes, least)
        counts = (found.scores >= least).sum(dim=1) - (classes >= 0).sum(dim=1)
        return average_precision(found, classes, boxes, scale) | {
            "precision": precision,
            "recall": recall,
            "count error": float(counts.abs().float().mean()),
            "threshold": least,
        }

    def outcomes(network: nn.Module, split: str) -> Tensor:
        _, matches = found_and_matched(network, split)
        return (matches.scores >= threshold(network))[splits[split][1] >= 0]

    return Task(
        name=f"detection-{data}",
        splits=splits,
        build=partial(build, channels, kinds),
        loss=loss,
        metrics=metrics,
        primary="mAP",
        epochs=epochs,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=1e-2),
        batch_size=32,
        outcomes=outcomes,
        slices=slices,
        cooling=True,
        all_of_train=(lambda: as_tensors(scenes("train", DRAWN["train"])))
        if data == "bundled"
        else None,
    )


def as_tensors(known: Scenes) -> Batch:
    """Images, and the classes and boxes of the objects that are asked for, -1 and 0 for others."""
    classes = known.classes.where(known.wanted, -1)
    return known.images, classes, known.boxes.float().where(known.wanted.unsqueeze(2), 0)


def mirrored(images: Tensor, classes: Tensor, boxes: Tensor) -> Batch:
    """The pictures as they are, turned left to right, upside down, and both."""
    height, width = images.shape[2:]
    x0, y0, x1, y1 = boxes.unbind(2)
    across = [(images, x0, x1), (images.flip(3), width - x1, width - x0)]
    turned = [(i, x, y0, y, y1) for i, x, y in across]
    turned += [(i.flip(2), x, height - y1, y, height - y0) for i, x, y in across]
    boxes = torch.cat([torch.stack(ends, dim=2) for _, *ends in turned])
    there = classes.repeat(4, 1)
    return torch.cat([i for i, *_ in turned]), there, boxes.where(there.unsqueeze(2) >= 0, 0)


def cells_of(images: Tensor, classes: Tensor, boxes: Tensor) -> dict[str, Tensor]:
    """Slices of the cells: their class, at the border or not, and crowded (IoU with another)."""
    there, (height, width) = classes >= 0, images.shape[2:]
    kind, x0, y0, x1, y1 = classes[there], *boxes[there].unbind(1)
    slices = {name: kind == i for i, name in enumerate(datasets.CELLS)}
    border = (x0 < 1) | (y0 < 1) | (x1 > width - 1) | (y1 > height - 1)
    overlap = torch.stack([box_iou(b, b) for b in boxes]) - torch.eye(boxes.shape[1])
    return slices | {
        "at the border": border,
        "overlapped": overlap.nan_to_num().amax(2)[there] >= 0.1,
    }


def build(channels: int, classes: int, seed: int, width: float = 1.0) -> "Detector":
    """An untrained detector; hidden layers scaled by `width`, one channel at least."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector(channels, classes, width)


class Detector(nn.Module):
    """A small "Objects as Points" (Zhou et al., 2019): one stage, and no anchors.

    At each place of a grid of a quarter of the picture's size it says whether the middle of an
    object lies there, of which class, and how large its box is. A path of an eighth of the size
    sees more of the surroundings, and is added at the end.
    """

    def __init__(self, channels: int, classes: int, width: float = 1.0):
        super().__init__()
        first, second, third = (max(1, round(n * width)) for n in (16, 32, 48))
        self.entrance = block(channels, first, stride=2)
        self.halved = block(first, second, stride=2)
        self.fine = block(second, second)
        self.halved_again = block(second, third, stride=2)
        self.coarse = block(third, third)
        self.from_fine = block(second, second, kernel=1)
        self.from_coarse = block(third, second, kernel=1)
        self.joined = block(second, second)
        self.middle = nn.Conv2d(second, 1, 1)
        self.kind = nn.Conv2d(second, classes, 1)
        self.box = nn.Conv2d(second, 4, 1)
        nn.init.constant_(self.middle.bias, -4)  # few places are the middle of something

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        x = (images.to(self.middle.weight.dtype) - 128) / 64
        fine = self.fine(self.halved(self.entrance(x)))
        coarse = self.from_coarse(self.coarse(self.halved_again(fine)))
        x = self.joined(self.from_fine(fine) + interpolate(coarse, fine.shape[2:]))
        return {"middle": self.middle(x), "kind": self.kind(x), "box": self.box(x)}


def block(inner: int, outer: int, stride: int = 1, kernel: int = 3) -> nn.Sequential:
    """A convolution, BatchNorm and ReLU."""
    conv = nn.Conv2d(inner, outer, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outer), nn.ReLU())


def loss(model: nn.Module, batch: Batch) -> Tensor:
    """Focal loss of the middles (Law and Deng, ECCV 2018), cross-entropy of the classes and L1 of
    the boxes there, each as a mean over the objects.
    """
    images, classes, boxes = batch
    outputs = model(images)
    middle = outputs["middle"].squeeze(1)
    height, width = middle.shape[1:]
    picture, place = (classes >= 0).nonzero(as_tuple=True)
    x, y, wide, high = described(boxes[picture, place])
    column, row = x.long().clamp(0, width - 1), y.long().clamp(0, height - 1)
    objects = max(1, len(picture))

    # around each middle it is less wrong to say that it is there; further for large boxes
    spread = (torch.minimum(wide, high) / STRIDE / 6).clamp(min=0.3)
    near = bell(row, spread, height).unsqueeze(2) * bell(column, spread, width).unsqueeze(1)
    at = picture.view(-1, 1, 1).expand_as(near)
    target = torch.zeros_like(middle).scatter_reduce(0, at, near, "amax")
    sure = middle.sigmoid()
    there = (1 - sure) ** 2 * logsigmoid(middle)
    elsewhere = (1 - target) ** 4 * sure**2 * logsigmoid(-middle)
    focal = -torch.where(target == 1, there, elsewhere).sum()

    kinds = outputs["kind"][picture, :, row, column]
    wanted = torch.stack([x - column, y - row, (wide / USUAL).log(), (high / USUAL).log()], dim=1)
    told = outputs["box"][picture, :, row, column]
    wrong = cross_entropy(kinds, classes[picture, place], reduction="sum")
    return (focal + wrong + l1_loss(told, wanted, reduction="sum")) / objects


def described(boxes: Tensor) -> tuple[Tensor, ...]:
    """The middle's column and row on the grid, with fractions, and width and height in pixels."""
    x0, y0, x1, y1 = boxes.unbind(-1)
    return (x0 + x1) / 2 / STRIDE, (y0 + y1) / 2 / STRIDE, x1 - x0, y1 - y0


def bell(at: Tensor, spread: Tensor, length: int) -> Tensor:
    """(objects, length): 1 at each object's place, and falling from there."""
    away = torch.arange(length) - at.unsqueeze(1)
    return torch.exp(-(away**2) / (2 * spread.unsqueeze(1) ** 2))


@torch.no_grad()
def detect(model: nn.Module, images: Tensor, most: int) -> Detections:
    """The `most` surest objects in each picture, of which a few may be there.

    A middle counts where no neighbour of its class is surer; so nothing is found twice, and no
    suppression of overlapping boxes is needed.
    """
    with evaluating(model):
        parts = [decoded(model(part), most) for part in images.split(64)]  # in the cache
    return Detections(*(torch.cat(part) for part in zip(*parts, strict=True)))


def decoded(outputs: dict[str, Tensor], most: int) -> Detections:
    """Detections from a network's outputs: at one place there may be several, of different classes."""
    sure, box = outputs["middle"].sigmoid(), outputs["box"]
    height, width = sure.shape[2:]
    peaks = sure.where(sure == max_pool2d(sure, 3, stride=1, padding=1), 0)
    scores, at = (peaks * outputs["kind"].softmax(dim=1)).flatten(1).topk(most)
    kind, cell = at // (height * width), at % (height * width)
    x, y, wide, high = box.flatten(2).gather(2, cell.unsqueeze(1).expand(-1, 4, -1)).unbind(1)
    x, y = STRIDE * (cell % width + x), STRIDE * (cell // width + y)
    wide, high = (USUAL * side.clamp(-4, 4).exp() / 2 for side in (wide, high))
    return Detections(torch.stack([x - wide, y - high, x + wide, y + high], dim=-1), scores, kind)
