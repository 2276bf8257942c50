"""Scenes, still and in motion, against the same digits drawn one by one by torch."""

import dataclasses
import hashlib
import random
from functools import cache

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, load_sample_images
from torch.nn.functional import interpolate

from pruninglib.tasks import scenes as module
from pruninglib.tasks.motion import sequences
from pruninglib.tasks.scenes import Thing, render, scenes

SPLITS = ["train", "valid", "test"]
FRAMES = 40
FIELDS = [field.name for field in dataclasses.fields(module.Scenes)]


@cache
def made(kind, split="train"):
    """250 still scenes, or ten sequences."""
    return scenes(split, 250) if kind == "still" else sequences(split, 10, FRAMES)


@cache
def all_ink(size):
    """All digits drawn by torch, int (1797, size, size) in 0..16."""
    originals = torch.tensor(load_digits().images)[:, None]
    drawn = interpolate(originals, size=(size, size), mode="bilinear", align_corners=False)[:, 0]
    return (drawn + 0.5 + 1e-9).floor().int()


def ink(digit, size):
    return all_ink(size)[digit]


def alone(known, scene, place):
    """int (side, side): the ink of one object without the others."""
    side, size = known.images.shape[-1], int(known.sizes[scene, place])
    x, y = known.corners[scene, place].tolist()
    wide = torch.zeros(side + 2 * size, side + 2 * size, dtype=torch.int)
    if -size <= min(x, y) and max(x, y) <= side:
        wide[y + size :, x + size :][:size, :size] = ink(int(known.digits[scene, place]), size)
    return wide[size:-size, size:-size]


def content(known):
    """The bytes of all tensors, whatever the machine's order of bytes is."""
    arrays = (getattr(known, name).numpy() for name in FIELDS)
    return b"".join(a.astype(a.dtype.newbyteorder("<")).tobytes() for a in arrays)


# ---- the same everywhere ----


@pytest.mark.parametrize(
    ("split", "still", "moving"),
    [
        ("train", "0d6a9359dbc5ddc0", "a72a0eff781df742"),
        ("valid", "1a99407bc79b71ce", "476872081fb138b9"),
        ("test", "b6759475353ef796", "d3f084f5ba158f27"),
    ],
)
def test_scenes_are_the_same_everywhere(split, still, moving):
    random.seed(1), torch.manual_seed(1), np.random.seed(1)
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].tolist()
    found = [
        hashlib.sha256(content(made)).hexdigest()[:16]
        for made in (scenes(split, 40), sequences(split, 2, 20))
    ]
    assert found == [still, moving]
    assert random.getstate() == before[0] and torch.get_rng_state().equal(before[1])
    assert np.random.get_state()[1].tolist() == before[2]


@pytest.mark.parametrize("make", [scenes, lambda *a, **k: sequences(*a, 7, **k)])
def test_the_first_of_many_are_those_of_few_and_seeds_differ(make):
    few, many, other = make("valid", 5), make("valid", 9), make("valid", 5, seed=1)
    for name in FIELDS:
        tensor = getattr(few, name)
        assert tensor.equal(getattr(many, name)[: len(tensor)]), name
    assert (few.images != other.images).flatten(1).any(1).all()
    for name in ("images", "corners"):
        every = torch.cat([getattr(make(split, 5), name) for split in SPLITS]).flatten(1)
        assert len(every.unique(dim=0)) == len(every), name


def test_shapes_and_types():
    few = sequences("valid", 2, 7, side=48)
    found = {name: (getattr(few, name).dtype, *getattr(few, name).shape) for name in FIELDS}
    whole = torch.int32, 14, 8
    assert found == {
        "images": (torch.uint8, 14, 1, 48, 48), "owner": (torch.int16, 14, 48, 48),
        "classes": (torch.int64, 14, 8), "digits": whole, "sizes": whole, "contrasts": whole,
        "corners": (*whole, 2), "boxes": (*whole, 4), "pixels": (*whole, 3), "crowd": whole,
        "sequence": whole[:2], "frame": whole[:2],
    }  # fmt: skip
    assert few.sequence.tolist() == [0] * 7 + [1] * 7 and few.frame.tolist() == [*range(7)] * 2
    still = scenes("valid", 3, side=80)
    assert still.images.shape == (3, 1, 80, 80) and still.classes.shape == (3, 8)
    assert still.sequence.tolist() == [0, 1, 2] and still.frame.tolist() == [0, 0, 0]
    empty = ~few.present
    assert empty.any() and (few.classes[empty] == -1).all() and (few.digits[empty] == -1).all()
    for name in FIELDS[4:10]:
        assert not getattr(few, name)[empty].any(), name


# ---- what belongs to which split ----


def test_no_digit_is_in_two_splits():
    targets = torch.tensor(load_digits().target)
    seen = {}
    for split in SPLITS:
        known = [made("still", split), made("moving", split)]
        seen[split] = {int(d) for one in known for d in one.digits[one.present]}
        for one in known:
            assert targets[one.digits[one.present]].equal(one.classes[one.present])
        allowed = {i for members in module.digits_of(split) for i in members}
        assert seen[split] <= allowed
        share = {"train": 0.6, "valid": 0.2, "test": 0.2}[split]  # of each class
        for kind, members in enumerate(module.digits_of(split)):
            assert abs(len(members) / int((targets == kind).sum()) - share) < 0.02
    assert len(set.union(*seen.values())) == sum(map(len, seen.values())) > 900
    every = [i for split in SPLITS for members in module.digits_of(split) for i in members]
    assert sorted(every) == [*range(1797)]


@cache
def strips():
    """Number of a strip, 0 to 7 in the first photograph and 8 to 15 in the second -> its texture.

    The numbers come from the photographs in colour, to which the textures are compared.
    """
    greys = [image @ [0.299, 0.587, 0.114] for image in load_sample_images().images]
    originals = torch.tensor(np.stack([104 + grey * 0.1875 for grey in greys]))
    originals = originals.unflatten(2, (8, 80)).transpose(1, 2).flatten(0, 1)
    found = {}
    for split in SPLITS:
        for texture in map(torch.from_numpy, module.textures(split)):
            apart = (originals - texture).abs().mean((1, 2))
            assert apart.min() < 0.6 and texture.min() >= 104 and texture.max() <= 151
            found[split, int(apart.argmin())] = texture
    return found


def squares(known, scene):
    """bool (side, side): all that objects may have touched."""
    touched, side = torch.zeros_like(known.owner[scene], dtype=torch.bool), known.owner.shape[-1]
    for place in known.present[scene].nonzero().flatten().tolist():
        (x, y), size = known.corners[scene, place].tolist(), int(known.sizes[scene, place])
        touched[max(y, 0) : min(y + size, side), max(x, 0) : min(x + size, side)] = True
    return touched


def origins(known, scene):
    """(split, strip, y, x) of all textures that agree with what no object has touched."""
    image, side, found = known.images[scene, 0].int(), known.images.shape[-1], []
    free = (~squares(known, scene)).nonzero()
    free = free[:: len(free) // 150].tolist()
    for (split, number), strip in strips().items():
        high, wide = (length - side + 1 for length in strip.shape)
        agree = torch.ones(high, wide, dtype=torch.bool)
        for y, x in free:
            agree &= strip[y : y + high, x : x + wide] == image[y, x]
            if not agree.any():
                break
        found += [(split, number, y, x) for y, x in agree.nonzero().tolist()]
    return found


def test_no_part_of_a_photograph_is_in_two_splits():
    assert sorted(number for _, number in strips()) == [*range(16)]
    for split in SPLITS:
        still, moving = made("still", split), made("moving", split)
        found = [origins(still, i) for i in range(25)]
        found += [origins(moving, i) for i in range(0, len(moving.images), 3 * FRAMES)]
        assert {name for places in found for name, *_ in places} == {split} and all(found)
        used = {number for places in found for _, number, *_ in places}
        assert used == {number for name, number in strips() if name == split}


# ---- what is known of an object ----


@pytest.mark.parametrize("kind", ["still", "moving"])
def test_all_that_is_known_agrees_with_objects_drawn_alone(kind):
    known = made(kind, "test")
    for scene in range(0, 50 if kind == "still" else 200, 1 if kind == "still" else 7):
        owner, inside = torch.full_like(known.owner[scene], -1), {}
        for place in known.present[scene].nonzero().flatten().tolist():
            mask = alone(known, scene, place) >= 8
            rows, columns = mask.nonzero().unbind(1)
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            assert known.boxes[scene, place].tolist() == [int(edge) for edge in box]
            owner[mask] = place  # later ones hide earlier ones
            inside[place] = int(mask.sum())
        assert known.owner[scene].equal(owner)
        for place, count in inside.items():
            digit, size = int(known.digits[scene, place]), int(known.sizes[scene, place])
            visible = int((owner == place).sum())
            whole = int((ink(digit, size) >= 8).sum())
            assert known.pixels[scene, place].tolist() == [whole, count, visible]
            assert known.hidden[scene, place] == pytest.approx(1 - visible / count, abs=1e-6)
            assert known.wanted[scene, place] == (visible >= whole / 4)


def test_contrast_is_against_the_texture_behind():
    known, seen = made("still", "valid"), 0
    for scene in range(30):
        places = known.present[scene].nonzero().flatten().tolist()
        drawn = {place: alone(known, scene, place) for place in places}
        *strip, top, left = origins(known, scene)[0]
        texture = strips()[tuple(strip)][top : top + 64, left : left + 64]
        assert (known.images[scene, 0] == texture)[sum(drawn.values()) == 0].all()
        for place in places:
            later = sum(drawn[p] for p in places if p >= place)
            pure = (drawn[place] == 16) & (later == 16)  # all ink, and under nothing
            (x, y), size = known.corners[scene, place].tolist(), int(known.sizes[scene, place])
            behind = texture[max(y, 0) : y + size, max(x, 0) : x + size]
            level = int(behind.sum()) // behind.numel() + int(known.contrasts[scene, place])
            assert (known.images[scene, 0][pure] == level).all()
            seen += int(pure.any())
    assert seen > 70


def test_later_ones_hide_earlier_ones():
    flat = np.full((32, 32), 100, dtype=np.int16)
    eight = np.flatnonzero(load_digits().target == 8)[0]
    first, second = (Thing(8, int(eight), 12, contrast, x=4, y=6) for contrast in (80, -50))
    picture, owner, table = render(flat, {0: first, 1: second}, 3)
    whole = table[1, 12]
    assert set(owner.flat) == {-1, 1} and (owner == 1).sum() == whole > 30
    assert table[0, 10:].tolist() == [whole, whole, 0] and picture[owner == 1].min() == 50
    picture, owner, table = render(flat, {0: second, 2: first._replace(x=20)}, 3)
    assert set(owner.flat) == {-1, 0, 2} and table[:, 0].tolist() == [8, -1, 8]
    assert picture[owner == 0].min() == 50 and picture[owner == 2].max() == 180
    assert table[0, 12] == whole and not flat[flat != 100].size


@pytest.mark.parametrize("split", SPLITS)
def test_still_scenes_have_objects_that_can_be_seen(split):
    known = made("still", split)
    assert known.wanted.equal(known.present)
    count = known.present.sum(1)
    assert count.min() == 1 and 7 <= count.max() <= 8 and 4 < count.float().mean() < 4.8
    # places without gaps, and at most a quarter of the square beyond a border
    assert known.present.equal(torch.arange(8) < count[:, None])
    corners, sizes = known.corners[known.present], known.sizes[known.present][:, None]
    assert (4 * corners >= -sizes).all() and (4 * (corners + sizes - 64) <= sizes).all()
    assert (corners < 0).any() and (corners + sizes > 64).any()
    assert set(sizes.flatten().tolist()) == {7, 8, 9, 12, 13, 14, 20, 22, 24}
    levels = {32, 40, 48, 64, 80, 96}
    assert set(known.contrasts[known.present].tolist()) == levels | {-level for level in levels}


@pytest.mark.parametrize("kind", ["still", "moving"])
def test_slices(kind):
    known = made(kind)
    slices = known.slices()
    scene, place = known.wanted.nonzero().unbind(1)
    assert all(s.dtype == torch.bool and len(s) == len(scene) for s in slices.values())
    small, medium, large = (slices[name].int() for name in ("small", "medium", "large"))
    assert (small + medium + large == 1).all()
    size = known.sizes[scene, place]
    assert size[slices["small"]].max() == 9 and size[slices["large"]].min() == 20
    assert slices["faint"].equal(known.contrasts[scene, place].abs() <= 40)
    assert slices["overlapped"].equal(known.hidden[scene, place] > 0.0999)
    kinds = known.classes[scene, place]
    assert slices["rare class"].equal((kinds == 0) | (kinds == 4) | (kinds == 6))
    for number in range(0, len(scene), 13):
        i, k = int(scene[number]), int(place[number])
        x0, y0, x1, y1 = known.boxes[i, k].tolist()
        near = 0
        for other in known.present[i].nonzero().flatten().tolist():
            left, top, right, bottom = known.boxes[i, other].tolist()
            apart = left - x1 > 4 or x0 - right > 4 or top - y1 > 4 or y0 - bottom > 4
            near += other != k and not apart
        assert known.crowd[i, k] == near and slices["crowded"][number] == (near >= 3)
    for name, members in slices.items():
        assert 0.04 < members.float().mean() < 0.5, name


def test_the_tail_of_classes_is_the_same_in_each_split():
    expected = torch.tensor([4, 14, 20, 8, 3, 28, 2, 10, 6, 5]) / 100
    for split in SPLITS:
        classes = made("still", split).classes
        found = torch.bincount(classes[classes >= 0], minlength=10) / (classes >= 0).sum()
        assert (found - expected).abs().max() < 0.035
        assert found[[0, 4, 6]].max() < found[[1, 2, 5]].min() / 2


# ---- motion ----


def tracks(known):
    """(sequence, place, times at which it is present)."""
    present = known.present.view(-1, FRAMES, known.present.shape[1])
    for i, place in present.any(1).nonzero().tolist():
        yield i, place, present[i, :, place].nonzero().flatten()


@pytest.mark.parametrize("split", SPLITS)
def test_an_object_keeps_its_place_and_moves_smoothly(split):
    known, turned, moved = made("moving", split), 0, 0
    for i, place, times in tracks(known):
        at = times + i * FRAMES
        assert times.diff().eq(1).all(), "it was away for a while"
        for name in ("classes", "digits", "sizes", "contrasts"):
            assert len(getattr(known, name)[at, place].unique()) == 1, name
        speed = known.corners[at, place].diff(dim=0)
        change = speed.diff(dim=0).abs()
        # two pixels a frame at most, which change by a quarter and by rounding
        assert speed.numel() == 0 or speed.abs().max() <= 2
        assert change.numel() == 0 or change.max() <= 2
        turned, moved = turned + int((change > 1).sum()), moved + change.numel()
        assert ((speed.float().unfold(0, 4, 1).mean(-1) if len(speed) > 4 else speed[:0].float())
                .diff(dim=0).abs() <= 0.5).all()  # fmt: skip
    assert turned < moved / 50


def test_births_and_deaths_are_at_the_border():
    known, born, dead = made("moving"), 0, 0
    for i, place, times in tracks(known):
        first, last = int(times[0]), int(times[-1])
        for time, inner in ((first, 0), (last, FRAMES - 1)):
            scene = i * FRAMES + time
            (x, y), size = known.corners[scene, place].tolist(), int(known.sizes[scene, place])
            x0, y0, x1, y1 = known.boxes[scene, place].tolist()
            cut = min(x, y) < 0 or max(x, y) + size > 64
            if time == inner:
                assert time or not cut, "it begins outside"
            else:
                assert cut and (min(x0, y0) == 0 or max(x1, y1) == 64)
                born, dead = born + (time == first), dead + (time == last)
        assert (place < 7) or first > 0
    assert born > 25 and dead > 25
    count = known.present.sum(1).float()
    assert count.min() >= 1 and 4 < count.mean() < 9


@pytest.mark.parametrize("split", SPLITS)
def test_it_goes_straight_where_it_crosses_a_border(split):
    known, straight = made("moving", split), 0
    for i, place, times in tracks(known):
        at = times + i * FRAMES
        corners, sizes = known.corners[at, place], known.sizes[at, place]
        whole = ((corners >= 0) & (corners + sizes[:, None] <= 64)).all(1).nonzero().flatten()
        ends = [whole[0], len(at) - 1 - whole[-1]] if len(whole) else [len(at), 0]
        for part in (corners[: ends[0]], corners[len(at) - ends[1] :]):
            # in four frames it goes a whole number of pixels, with nothing to round
            ways = part[4:] - part[:-4]
            assert (ways == ways[:1]).all()
            straight += len(ways)
        assert len(whole) == 0 or whole.diff().eq(1).all()
    assert straight > 100


def test_what_was_hidden_comes_back_in_its_place():
    known, back = made("moving"), 0
    for i, place, times in tracks(known):
        at = times + i * FRAMES
        hidden, seen = known.hidden[at, place] > 0.75, known.wanted[at, place]
        for time in hidden.nonzero().flatten().tolist():
            before, after = seen[:time].nonzero().flatten(), seen[time:].nonzero().flatten()
            if len(before) and len(after):
                back += 1
                assert known.present[at, place].all() and not seen[time]
                one, other = at[before[-1]], at[time + after[0]]
                assert known.digits[one, place] == known.digits[other, place]
    assert back >= 2


def test_the_background_stands_still():
    known = made("moving", "valid")
    for i in range(5):
        every = range(i * FRAMES, (i + 1) * FRAMES)
        free = ~torch.stack([squares(known, scene) for scene in every]).any(0)
        pixels = known.images[every[0] : every[-1] + 1, 0][:, free]
        assert pixels.shape[1] > 50 and (pixels == pixels[0]).all()


# ---- errors ----


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "all"}, "split is 'all', but must be 'train', 'valid' or 'test'"),
        ({"number": 0}, "number is 0, but must be 1 or more"),
        ({"side": 31}, r"side is 31, but must lie in 32\.\.80"),
        ({"side": 81}, r"side is 81, but must lie in 32\.\.80"),
        ({"frames": 0}, "frames is 0, but must be 1 or more"),
    ],
)
def test_bad_input(arguments, message):
    arguments = {"split": "train", "number": 2} | arguments
    with pytest.raises(ValueError, match=message):
        sequences(**({"frames": 3} | arguments))
    if "frames" not in arguments:
        with pytest.raises(ValueError, match=message):
            scenes(**arguments)
