"""Scenes in motion: the objects and textures of `scenes`, frame by frame.

They move as they are made to (`sequences`), or as people, cars and bicycles did (`driven`).
"""

import numpy as np
import pandas as pd
import torch

from . import datasets
from .scenes import Frame, Scenes, Source, Thing, check, cut, gathered, pick, render

ENTRY = 5  # frames from one object that comes in to the next
FINE = 4  # speeds are in quarters of a pixel
FASTEST = 8  # of them in a frame, in x and in y
KITTI_HEIGHT, KITTI_SCENE = 375, (64, 216)  # pixels of its pictures, and of the scenes made of them
LONGEST = 120  # frames of each
SMALLEST, LARGEST = 6, 24  # pixels of an object's square


def sequences(split: str, number: int, frames: int, *, seed: int = 0, side: int = 64) -> Scenes:
    """Scenes in motion, number · frames of them, one sequence after another. Else as `scenes`.

    Four to seven objects at first, all inside; every fifth frame another one comes in over the
    border. Velocities change little by little. What has left does not come back.
    """
    check(split, side, number=number, frames=frames)
    sources = [Source("sequence", split, seed, i) for i in range(number)]
    drawn = [frame for source in sources for frame in moving(source, split, frames, side)]
    time = torch.arange(number * frames)
    return gathered(drawn, time // frames, time % frames)


def moving(source: Source, split: str, frames: int, side: int) -> list[Frame]:
    """The frames of one sequence. Places are given in the order in which objects appear."""
    texture, most = cut(source, split, side), 7 + (frames - 1) // ENTRY
    paths = []
    for _ in range(4 + source.below(4)):
        new = pick(source, split)
        x, y = (source.below(side - new.size + 1) for _ in range(2))
        speed = [source.below(2 * FASTEST + 1) - FASTEST for _ in range(2)]
        paths.append(walk(source, new._replace(x=x, y=y), speed, range(frames), side))
    for first in range(ENTRY, frames, ENTRY):
        new, speed = enter(source, pick(source, split), side)
        paths.append(walk(source, new, speed, range(first, frames), side))
    return [
        render(texture, {k: path[time] for k, path in enumerate(paths) if time in path}, most)
        for time in range(frames)
    ]


def enter(source: Source, new: Thing, side: int) -> tuple[Thing, list[int]]:
    """Just outside one of the four borders, and a speed that leads straight inside."""
    inwards = 2 + source.below(FASTEST - 1)
    across = source.one_of([(-new.size, inwards), (side, -inwards)])
    along = source.below(side - new.size + 1), 0
    (x, to_x), (y, to_y) = source.one_of([(across, along), (along, across)])
    return new._replace(x=x, y=y), [to_x, to_y]


def walk(
    source: Source, thing: Thing, speed: list[int], times: range, side: int
) -> dict[int, Thing]:
    """By time, the object where it is then. The speed is in quarters of a pixel in x and y.

    In one of four frames the speed along an axis changes by one, but not while the object crosses
    a border, nor outside: so what has left stays out.
    """
    at, path = [FINE * thing.x, FINE * thing.y], {}
    for time in times:
        x, y = (fine // FINE for fine in at)
        path[time] = thing._replace(x=x, y=y)
        if min(x, y) >= 0 and max(x, y) + thing.size <= side:
            speed = [s + source.one_of((-1, 0, 0, 0, 0, 0, 0, 1)) for s in speed]
            speed = [min(max(s, -FASTEST), FASTEST) for s in speed]
        at = [fine + s for fine, s in zip(at, speed, strict=True)]
    return path


def driven(split: str, *, seed: int = 0) -> Scenes:
    """Scenes whose objects move as KITTI's did (`datasets.kitti_tracks`): births, deaths, crowds and
    what hides what are real, the objects are digits, and what is behind them stands still.

    64×216 pixels, so that a pixel is almost six of KITTI's; the first 120 frames of sequences 0, 3, 6,
    ... 18 (valid) or of the other fourteen (test). A digit has its box's middle and height, which is cut to 24
    pixels; objects of less than 6 pixels are not drawn. Nearer ones hide those behind them.
    """
    if split not in ("valid", "test"):
        raise ValueError(f"split is {split!r}, but must be 'valid' or 'test'")
    table = datasets.kitti_tracks()
    table = table[(table.frame < LONGEST) & ((table.sequence % 3 == 0) == (split == "valid"))]
    scale = KITTI_SCENE[0] / KITTI_HEIGHT
    table = table.assign(
        size=(scale * (table.y1 - table.y0)).round().clip(upper=LARGEST).astype(int)
    )
    table = table[table["size"] >= SMALLEST]
    frames, whose, when = [], [], []
    most = table.groupby("sequence").identity.max().max() + 1
    for sequence, rows in table.groupby("sequence"):
        source = Source("driven", split, seed, int(sequence))
        squares = [cut(source, split, KITTI_SCENE[1] // 3)[: KITTI_SCENE[0]] for _ in range(3)]
        things = {k: pick(source, split) for k in sorted(rows.identity.unique())}
        for frame in range(rows.frame.max() + 1):
            now = rows[rows.frame == frame].sort_values("depth", ascending=False)
            placed = {
                k: _placed(things[k], row, scale) for k, row in now.set_index("identity").iterrows()
            }
            frames.append(render(np.hstack(squares), placed, int(most)))
            whose.append(sequence)
            when.append(frame)
    return gathered(frames, torch.tensor(whose), torch.tensor(when))


def _placed(thing: Thing, box: pd.Series, scale: float) -> Thing:
    corner = (
        scale * (box[low] + box[high]) / 2 - box["size"] / 2
        for low, high in (["x0", "x1"], ["y0", "y1"])
    )
    x, y = (round(at) for at in corner)
    return thing._replace(size=int(box["size"]), x=x, y=y)
