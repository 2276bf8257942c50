"""Small pictures with objects in them: handwritten digits on texture.

What detection, segmentation and, with `motion`, tracking share. Drawing is in whole numbers, and
random ones come from Python's `random()`, whose sequence no version changes: scenes are the same
everywhere, as far as the two photographs are decoded alike.
"""

from bisect import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

STRIP = 80  # columns of the photographs: eight strips of each
# Which of every ten digits of a class a split gets, and which strips of each photograph: some of
# the temple, of trees and of the flower for each.
SPLITS = {
    "train": (range(0, 6), {"china": (0, 1, 3, 5), "flower": (0, 3, 5, 7)}),
    "valid": (range(6, 8), {"china": (4, 7), "flower": (2, 6)}),
    "test": (range(8, 10), {"china": (2, 6), "flower": (1, 4)}),
}
# How many of 100 objects are a 0, a 1, ...: a long tail. The rarest, 6, 4 and 0, are easy to tell
# from the others where all are as common, so what befalls them is because they are rare.
FREQUENCIES = (4, 14, 20, 8, 3, 28, 2, 10, 6, 5)
RARE = 4  # of 100 objects, or fewer
SIZES = (7, 8, 9, 12, 13, 14, 20, 22, 24)  # pixels: three small ones, three medium, three large
CONTRASTS = (32, 40, 48, 64, 80, 96)  # levels of grey; the texture lies in 104..151
FAINT = 40  # levels of grey, or fewer
OVERLAPPED = 0.1  # hidden by others, or more
NEAR, CROWDED = 4, 3  # pixels between two boxes, or fewer; others that are near, or more
MOST = 8  # objects in a still scene
STRENGTH = 16  # of ink that hides all; an object's mask are the pixels with half of it or more

Frame = tuple[np.ndarray, np.ndarray, np.ndarray]  # as `render` makes it


@dataclass(frozen=True)
class Scenes:
    """Pictures, and all that is known of the objects in them.

    An object has a place in 0..most-1; later places hide earlier ones. In a sequence it keeps its
    place in all frames: its place is its identity. An empty place has -1 for class and digit, else 0.

    images: uint8 (scenes, 1, side, side).
    owner: int16 (scenes, side, side), the place of the object that is visible at a pixel, or -1.
    classes: int64 (scenes, most), 0..9.
    digits: int32 (scenes, most), which of scikit-learn's 1,797 digits it is.
    sizes: int32 (scenes, most), the side in pixels of the square that the digit is drawn in.
    contrasts: int32 (scenes, most), levels of grey above (or below, negative) the mean of the
        texture behind that square.
    corners: int32 (scenes, most, 2), x and y of the square's upper left pixel, maybe outside.
    boxes: int32 (scenes, most, 4), x0, y0, x1, y1 around all of the object that lies in the
        picture, hidden or not; x1 and y1 are the first column and row after it.
    pixels: int32 (scenes, most, 3), how many the whole object has, how many of them lie in the
        picture, and how many of these no other object hides.
    crowd: int32 (scenes, most), other objects whose boxes are at most 4 pixels away.
    sequence, frame: int32 (scenes,), which sequence a scene belongs to and its time in it. A still
        scene is a sequence of one frame.
    """

    images: Tensor
    owner: Tensor
    classes: Tensor
    digits: Tensor
    sizes: Tensor
    contrasts: Tensor
    corners: Tensor
    boxes: Tensor
    pixels: Tensor
    crowd: Tensor
    sequence: Tensor
    frame: Tensor

    @property
    def present(self) -> Tensor:
        """bool (scenes, most): there is an object, some of which lies in the picture."""
        return self.classes >= 0

    @property
    def wanted(self) -> Tensor:
        """bool (scenes, most): a quarter or more of the object can be seen.

        In still scenes these are all that are present. In sequences the others, hidden or beyond
        the border, should be ignored: neither asked for nor counted as wrong.
        """
        whole, _, visible = self.pixels.unbind(-1)
        return self.present & (4 * visible >= whole)

    @property
    def hidden(self) -> Tensor:
        """float32 (scenes, most): the share of its pixels in the picture that others hide."""
        _, inside, visible = self.pixels.unbind(-1)
        return 1 - visible / inside.clamp(min=1)

    def slices(self) -> dict[str, Tensor]:
        """name -> bool (objects,), in the order of `wanted.nonzero()`: who may be hurt unequally.

        Each is small, medium or large: drawn in 7 to 9, 12 to 14, 20 to 24 pixels. Faint: at most
        40 levels of grey from the texture. Overlapped: others hide a tenth or more. Rare class: at
        most 4 of 100 objects are of it. Crowded: three others or more are near.
        """
        size = self.sizes
        slices = {
            "small": size <= SIZES[2],
            "medium": (size > SIZES[2]) & (size <= SIZES[5]),
            "large": size > SIZES[5],
            "faint": self.contrasts.abs() <= FAINT,
            "overlapped": self.hidden >= OVERLAPPED,
            "rare class": torch.tensor(FREQUENCIES)[self.classes.clamp(min=0)] <= RARE,
            "crowded": self.crowd >= CROWDED,
        }
        return {name: members[self.wanted] for name, members in slices.items()}


def scenes(split: str, number: int, *, seed: int = 0, side: int = 64) -> Scenes:
    """Still scenes of one to eight objects, of each of which a quarter or more can be seen.

    split: "train", "valid" or "test". No digit and no part of the photographs is in two of them.
    number: how many; the first are the same for any number.
    side: of the pictures, 32 to 80 pixels.
    """
    check(split, side, number=number)
    frames = [still(Source("scene", split, seed, i), split, side) for i in range(number)]
    return gathered(frames, torch.arange(number), torch.zeros(number))


def check(split: str, side: int, **counts: int) -> None:
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}, but must be 'train', 'valid' or 'test'")
    if not 32 <= side <= STRIP:
        raise ValueError(f"side is {side}, but must lie in 32..{STRIP}")
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} is {count}, but must be 1 or more")


def gathered(frames: list[Frame], sequence: Tensor, frame: Tensor) -> Scenes:
    pictures, owner, table = (
        torch.from_numpy(np.stack(part)) for part in zip(*frames, strict=True)
    )
    classes, digits, sizes, contrasts = table[..., :4].unbind(-1)
    corners, boxes, pixels = table[..., 4:].split([2, 4, 3], dim=-1)
    known = classes.long(), digits, sizes, contrasts, corners, boxes, pixels
    crowd = neighbours(boxes, classes >= 0)
    return Scenes(pictures.unsqueeze(1), owner, *known, crowd, sequence.int(), frame.int())


def neighbours(boxes: Tensor, present: Tensor) -> Tensor:
    """int32 (scenes, most): how many others have a box at most 4 pixels away, in x and in y."""
    gap = boxes[:, :, None, :2] - boxes[:, None, :, 2:]
    near = (torch.maximum(gap, gap.transpose(1, 2)) <= NEAR).all(-1)
    near &= present[:, :, None] & present[:, None, :]
    return (near.sum(-1) - present.int()).int()


class Source:
    """Whole numbers drawn at random, the same ones for the same names."""

    def __init__(self, *names: str | int):
        self.random = Random(" ".join(map(str, names))).random

    def below(self, bound: int) -> int:
        """One of 0..bound-1."""
        return int(self.random() * bound)

    def one_of(self, options: Sequence):
        return options[self.below(len(options))]


@lru_cache
def textures(split: str) -> list[np.ndarray]:
    """The split's strips of both photographs, each int16 (427, 80) in 104..151.

    Only brightness is decoded, as JPEG stores it: in colours decoders need not agree.
    """
    strips = []
    for path in load_sample_images().filenames:
        with Image.open(path) as photograph:
            photograph.draft("L", None)
            texture = 104 + 3 * np.asarray(photograph).astype(np.int16) // 16
        for strip in SPLITS[split][1][Path(path).stem]:
            strips.append(texture[:, STRIP * strip : STRIP * (strip + 1)])
    return strips


@lru_cache
def digits_of(split: str) -> list[list[int]]:
    """By class, which of scikit-learn's digits the split has."""
    classes = load_digits().target
    members = [enumerate(np.flatnonzero(classes == kind)) for kind in range(10)]
    return [[int(i) for at, i in part if at % 10 in SPLITS[split][0]] for part in members]


@lru_cache
def inks(size: int) -> np.ndarray:
    """All digits drawn in squares of that many pixels, int16 (1797, size, size) in 0..16.

    Linear interpolation between the 8×8 pixels of the original, halves rounded up.
    """
    # where an output pixel's middle lies, in units of which 2 · size go into an input pixel
    middle = ((2 * np.arange(size) + 1) * 8 - size).clip(0, 14 * size)
    first = (middle // (2 * size)).clip(max=6)
    weights = np.zeros((size, 8), dtype=np.int64)
    weights[np.arange(size), first + 1] = middle - 2 * size * first
    weights[np.arange(size), first] = 2 * size - weights.sum(axis=1)
    area = 4 * size * size
    digits = load_digits().images.astype(np.int64)
    return ((weights @ digits @ weights.T + area // 2) // area).astype(np.int16)


class Thing(NamedTuple):
    """An object: its class, which digit, its size and contrast, and its square's corner."""

    kind: int
    digit: int
    size: int
    contrast: int
    x: int = 0
    y: int = 0


def pick(source: Source, split: str) -> Thing:
    kind = bisect([*accumulate(FREQUENCIES)], source.below(100))
    digit = source.one_of(digits_of(split)[kind])
    contrast = source.one_of(CONTRASTS) * source.one_of((-1, 1))
    return Thing(kind, digit, source.one_of(SIZES), contrast)


def cut(source: Source, split: str, side: int) -> np.ndarray:
    """A square of texture: of two, the one that spans more levels of grey."""
    squares = []
    for _ in range(2):
        texture = source.one_of(textures(split))
        y, x = (source.below(length - side + 1) for length in texture.shape)
        squares.append(texture[y : y + side, x : x + side])
    return max(squares, key=np.ptp)


def render(texture: np.ndarray, things: dict[int, Thing], most: int) -> Frame:
    """A picture of the things by their place, in order; the later ones on top.

    Returns the picture, uint8; owner, int16; and the table of objects, int32 (most, 13): class,
    digit, size, contrast, corner (2), box (4), pixels (3).
    """
    picture, owner = texture.copy(), np.full(texture.shape, -1, dtype=np.int16)
    table = np.zeros((most, 13), dtype=np.int32)
    table[:, :2] = -1
    for place, thing in things.items():
        ink, left, top = inks(thing.size)[thing.digit], max(thing.x, 0), max(thing.y, 0)
        right, bottom = max(left, thing.x + thing.size), max(top, thing.y + thing.size)
        behind = texture[top:bottom, left:right]  # of its square, what lies in the picture
        height, width = behind.shape
        part = ink[top - thing.y :, left - thing.x :][:height, :width]
        mask = 2 * part >= STRENGTH
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        level = int(behind.sum()) // behind.size + thing.contrast
        under = picture[top:bottom, left:right]
        under[:] = (under * (STRENGTH - part) + level * part) // STRENGTH
        owner[top:bottom, left:right][mask] = place
        box = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
        table[place] = *thing, *box, (2 * ink >= STRENGTH).sum(), mask.sum(), 0
    table[:, 12] = np.bincount(owner.ravel() + 1, minlength=most + 1)[1:]
    return picture.astype(np.uint8), owner, table


def still(source: Source, split: str, side: int) -> Frame:
    """One scene, without the objects of which less than a quarter would be seen."""
    texture, things = cut(source, split, side), []
    for _ in range(1 + source.below(MOST)):
        things.append(put(source, pick(source, split), things, side))
    while True:
        frame = render(texture, dict(enumerate(things)), MOST)
        whole, visible = frame[2][: len(things), [10, 12]].T
        lost = np.flatnonzero(4 * visible < whole)
        if not len(lost):
            return frame
        del things[lost[0]]


def put(source: Source, new: Thing, others: list[Thing], side: int) -> Thing:
    """Anywhere, or two times in five onto or beside another; at most a quarter of it outside."""
    low, high = -(new.size // 4), side - new.size + new.size // 4
    corner = [low + source.below(high - low + 1) for _ in range(2)]
    if others and source.below(5) < 2:
        other = source.one_of(others)
        reach = new.size + other.size  # from just before the other one to just after it
        corner = [at - new.size + source.below(reach + 1) for at in (other.x, other.y)]
    x, y = (min(max(at, low), high) for at in corner)
    return new._replace(x=x, y=y)
