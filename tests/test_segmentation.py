"""The task of segmentation: labels, objects and their slices, the network, photographs."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat
from torch import nn

import pruninglib as pl
from pruninglib.base.files import read_tensors
from pruninglib.measure.regions import boundary_ious, ious
from pruninglib.tasks import datasets, pretrained
from pruninglib.tasks import segmentation as module
from pruninglib.tasks.scenes import scenes
from pruninglib.tasks.segmentation import (
    CUT,
    EQUAL,
    NARROW,
    as_tensors,
    cut,
    loss,
    objects,
    regions_of,
    segment,
    segmentation,
    with_owners,
)


@pytest.fixture(scope="module")
def task():
    """With few pictures, trained on for one epoch of four steps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "DRAWN", {"train": 64, "valid": 30, "test": 40})
        task = segmentation(pictures=64)
        every = task.all_of_train()
    return dataclasses.replace(task, epochs=1, all_of_train=lambda: every)


class Says(nn.Module):
    """Answers pictures with these labels."""

    def __init__(self, labels):
        super().__init__()
        self.labels = labels

    def forward(self, images):
        return nn.functional.one_hot(self.labels.long(), 4).permute(0, 3, 1, 2).float()


def test_a_pixel_has_the_size_of_the_object_that_is_seen_there():
    known = scenes("test", 20, side=48)
    images, labels, owners = as_tensors(known)
    assert images.equal(known.images) and labels.dtype == torch.uint8
    for i, y, x in [(0, 10, 10), (3, 20, 31), *(labels > 0).nonzero()[::97].tolist()]:
        place = int(known.owner[i, y, x])
        size = int(known.sizes[i, place]) if place >= 0 else 0
        assert int(labels[i, y, x]) == (0 if place < 0 else 1 + (size > 9) + (size > 14))
        assert int(owners[i, y, x]) == place
    assert labels.unique().tolist() == [0, 1, 2, 3]


def test_what_is_not_asked_for_is_ground():
    known = scenes("valid", 5, side=48)
    place = known.owner[0][known.owner[0] >= 0][0]
    known.pixels[0, place, 2] = 0  # nothing of it can be seen
    _, labels, owners = as_tensors(known)
    assert not labels[0][known.owner[0] == place].any()
    assert (owners[0][known.owner[0] == place] == -1).all()


def test_objects_by_hand():
    labels = torch.tensor([[[1, 1, 2], [0, 2, 2]], [[3, 0, 0], [3, 1, 1]]], dtype=torch.uint8)
    owners = torch.tensor([[[4, 4, 0], [-1, 0, 0]], [[2, -1, -1], [2, 7, 7]]], dtype=torch.int16)
    found = torch.tensor([[[1, 2, 2], [2, 1, 1]], [[3, 1, 1], [3, 2, 2]]], dtype=torch.uint8)
    known = objects(found, labels, owners)
    assert known.picture.tolist() == [0, 0, 1, 1] and known.kind.tolist() == [2, 1, 3, 1]
    assert known.pixels.tolist() == [3, 2, 2, 2]
    assert known.share.tolist() == pytest.approx([1 / 3, 1 / 2, 1, 0])
    assert known.found.tolist() == [False, True, True, False]


def test_outcomes_are_of_the_objects_that_slices_name(task):
    labels = task.splits["test"][1]
    nearly = labels.clone()
    nearly[:, ::3] = 0
    model = Says(nearly)
    found = task.outcomes(model, "test")
    assert {len(s) for s in task.slices["test"].values()} == {len(found)}
    metrics = task.metrics(model, "test")
    assert metrics["found"] == pytest.approx(float(found.float().mean()))
    known = objects(nearly, *task.splits["test"][1:])
    for kind, name in ((1, "small"), (2, "medium"), (3, "large")):
        assert task.slices["test"][name].equal(known.kind == kind)
    values = ious(nearly, labels, 4)
    assert metrics["mIoU"] == pytest.approx(np.mean(values))
    assert metrics["IoU large"] == pytest.approx(values[3])
    assert metrics["boundary mIoU"] == pytest.approx(np.mean(boundary_ious(nearly, labels, 4)))
    perfect = task.metrics(Says(labels), "test")
    assert perfect["mIoU"] == perfect["boundary mIoU"] == perfect["found"] == 1


def test_the_loss_counts_all_pixels_alike():
    labels = torch.tensor([[[0, 1], [2, 3]]], dtype=torch.uint8)
    value = loss(Says(labels), (None, labels, None))
    assert float(value) == pytest.approx(-np.log(np.e / (np.e + 3)), rel=1e-5)


def test_pictures_are_the_first_of_those_for_dense_networks(monkeypatch):
    monkeypatch.setattr(module, "DRAWN", {"train": 24, "valid": 3, "test": 3})
    task = segmentation(pictures=10)
    for few, every in zip(task.splits["train"], task.all_of_train(), strict=True):
        assert len(few) == 10 and len(every) == 24 and few.equal(every[:10])
    assert task.cooling  # as in `test_a_cooling_task_ends_at_a_rate_of_zero`


def test_training_marks_objects(task):
    few = dataclasses.replace(task, splits={"train": tuple(t[:16] for t in task.splits["train"])})
    model = task.build(0)
    first, *_, last = few.train(model, seed=0, epochs=60)
    marked = segment(model, few.splits["train"][0]) > 0
    right = marked & (few.splits["train"][1] > 0)
    assert last["loss"] < 0.6 * first["loss"] and right.sum() > 0.5 * marked.sum() > 0


def test_a_look_leaves_averages_as_they_are(task, as_found):
    model = task.build(0).train()
    with as_found(model):
        segment(model, task.splits["valid"][0])


@pytest.mark.parametrize("size", [(48, 48), (96, 64), (37, 51)])
def test_pictures_of_any_size_are_answered_pixel_by_pixel(task, size):
    images = torch.zeros(2, 1, *size, dtype=torch.uint8)
    assert task.build(0)(images).shape == (2, 4, *size)


def test_a_skip_is_the_second_part_of_what_is_joined(task):
    """Without the columns from below no deeper layer has a say; the skip alone has."""
    model = task.build(0).eval()
    images = task.splits["valid"][0][:2]
    below = model.up[0][0].out_channels
    with torch.no_grad():
        model.decoder[0][0].weight[:, :below] = 0
        one = model(images)
        model.bottom[0].weight.mul_(-3)
        assert model(images).equal(one)
        model.encoder[0][0].weight.mul_(-3)
        assert not model(images).equal(one)


def test_width_scales_the_hidden_layers_and_the_seed_decides_the_weights(task):
    size = [sum(p.numel() for p in task.build(0, width).parameters()) for width in (0.01, 0.5, 1)]
    assert size[0] < 200 and 3 < size[2] / size[1] < 4.2
    assert min(len(w) for w in pl.weights_of(task.build(0, 0.01)).values()) == 1
    torch.manual_seed(5)
    state = torch.get_rng_state()
    same, other = task.build(3), task.build(4)
    assert torch.get_rng_state().equal(state)
    assert same.bottom[0].weight.equal(task.build(3).bottom[0].weight)
    assert not same.bottom[0].weight.equal(other.bottom[0].weight)


def test_a_shape_names_the_channels_of_each_layer(task):
    shape = (2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12)
    model = task.build(0, shape)
    channels = [len(w) for w in pl.weights_of(model).values()]
    assert channels == [*shape, 4]
    assert model(task.splits["valid"][0][:1]).shape == (1, 4, 48, 48)
    wide = task.build(0)
    same = task.build(0, (8, 16, 24, 32, 32, 8, 16, 24, 8, 16, 24))
    assert all(a.equal(b) for a, b in zip(wide.parameters(), same.parameters(), strict=True))


def test_the_shapes_that_are_compared_have_as_many_parameters(task):
    counts = [sum(p.numel() for p in task.build(0, w).parameters()) for w in (CUT, NARROW, 1.0)]
    assert abs(counts[0] - counts[1]) < 0.05 * counts[0] and counts[0] < 0.16 * counts[2]


def test_the_shapes_that_are_compared_do_as_much_work(task):
    image = task.splits["valid"][0][:1]
    work = [pl.macs(task.build(0, w), image) for w in (CUT, EQUAL, 1.0)]
    assert work[0] < work[1] < 1.1 * work[0] and work[0] < 0.34 * work[2]


def test_channels_can_be_removed_everywhere_but_at_the_end(task):
    model, example = task.build(0), task.splits["valid"][0][:2]
    model(example)  # new averages
    groups = pl.coupled(model.eval(), example)
    assert set(groups.left_out) == {"head.weight"}
    scores = pl.magnitude(model)
    small = cut(model, CUT, scores, example)
    assert [len(w) for w in pl.weights_of(small).values()] == [*CUT, 4]
    kept = {}
    for count, (name, units) in zip(CUT, pl.pool(scores, groups).items(), strict=True):
        kept[name] = units >= units.sort(descending=True).values[count - 1]
    pl.apply(model, pl.spread(kept, groups))
    with torch.no_grad():
        assert torch.allclose(small(example), model(example), atol=1e-4)


def test_an_unknown_tier_is_refused():
    with pytest.raises(ValueError, match="data is 'tiny', but must be 'bundled' or 'full'"):
        segmentation("tiny")


# ---- networks that are kept ----


def test_a_network_that_is_cut_down_begins_as_the_dense_one(task, tmp_path, monkeypatch):
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(pretrained, "SHIPPED", tmp_path / "shipped")
    chosen = pl.cut_down(task, lr=1e-4)
    shape = (4, 8, 12, 16, 16, 4, 8, 12, 4, 8, 12)
    start = chosen.build(1, shape)
    dense = pretrained.pretrained(task, 1)
    pictures = [tuple(part[:300] for part in task.splits["train"])]
    scores = pl.taylor(dense, task.loss, pictures, reading="abs")
    by_hand = cut(dense, shape, scores, task.splits["train"][0][:2])
    assert all(a.equal(b) for a, b in zip(start.parameters(), by_hand.parameters(), strict=True))
    assert chosen.optimizer.keywords["lr"] == 1e-4 and chosen.name == f"{task.name}-cut"
    trained = pretrained.pretrained(chosen, 1, shape)
    path = tmp_path / "data" / "models" / pretrained.file_of(chosen, 1, shape)
    assert "-4_8_12_16_16_4_8_12_4_8_12-1-" in path.name and path.exists()
    assert [len(w) for w in pl.weights_of(trained).values()] == [*shape, 4]
    moved = [
        float((a - b).detach().abs().max())
        for a, b in zip(trained.parameters(), start.parameters(), strict=True)
    ]
    assert 0 < max(moved) < 0.01  # four steps with a low learning rate
    record = json.loads(read_tensors(path)[1]["record"])
    assert record["shape"] == "4_8_12_16_16_4_8_12_4_8_12" and "width" not in record


# ---- clothing ----


@pytest.fixture
def photographs(tmp_path, monkeypatch):
    """A folder as published, of four photographs, two to train with; and files that are not read."""
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    monkeypatch.setattr(datasets, "PHOTOGRAPHS", {"train": 2, "valid": 1, "test": 1})
    folder = tmp_path / "ccp"
    for inner in (datasets.PIXELS, "photos", "annotations/image-level"):
        (folder / inner).mkdir(parents=True)
    names = ["null", *sorted(" ".join(datasets.CLOTHES.values()).split())]
    cells = np.empty((1, len(names)), dtype=object)
    cells[0] = names
    savemat(folder / "label_list.mat", {"label_list": cells})
    for grey in range(5):
        picture = Image.new("RGB", (550, 825), (50 * grey, 60, 70))
        picture.save(folder / "photos" / f"000{grey + 1}.jpg")
    for number in range(1, 5):
        mask = np.zeros((825, 550), dtype=np.uint8)
        mask[100:200, 100:300] = names.index("skin")
        mask[300:600, 100:300] = names.index("dress" if number % 2 else "jeans")
        mask[700:720, 200:300] = names.index("heels")
        savemat(folder / datasets.PIXELS / f"000{number}.mat", {"groundtruth": mask})
    files = datasets._clothing_files(folder)
    assert len(files) == 9
    monkeypatch.setattr(datasets, "CLOTHING", ("http://nowhere", datasets._content(folder, files)))
    return folder


def test_clothing_is_read(photographs):
    read = datasets.clothing()
    assert [len(read[s][0]) for s in ("train", "valid", "test")] == [2, 1, 1]
    images, labels = read["train"]
    assert images.shape == (2, 3, 96, 64) and labels.shape == (2, 96, 64)
    assert images.dtype == labels.dtype == torch.uint8 and abs(int(images[1, 0, 5, 5]) - 50) < 3
    names = ["background", *datasets.CLOTHES]
    assert [names[k] for k in labels[0].unique()] == ["background", "skin", "whole", "shoes"]
    assert [names[k] for k in labels[1].unique()] == ["background", "skin", "lower", "shoes"]
    share = (labels[0] == names.index("whole")).float().mean()
    assert float(share) == pytest.approx(300 * 200 / (825 * 550), rel=0.05)


def test_other_files_of_the_folder_do_not_count(photographs):
    (photographs / "photos" / "0005.jpg").unlink()
    (photographs / "note.txt").write_text("mine")
    datasets.clothing()
    (photographs / "photos" / "0004.jpg").write_bytes(b"altered")
    with pytest.raises(ValueError, match="ccp is not the published folder: delete it"):
        datasets.clothing()


def test_clothing_as_a_task(photographs):
    task = segmentation("full")
    images, labels, owners = task.splits["train"]
    assert len(images) == 4 and images[2].equal(images[0].flip(-1)) and task.all_of_train is None
    assert labels[3].equal(labels[1].flip(-1)) and owners[0].max() == labels[0].max() - 1
    slices = task.slices["test"]  # skin, jeans, heels
    assert slices["skin"].tolist() == [True, False, False]
    assert slices["lower"].tolist() == [False, True, False]
    assert slices["little"].tolist() == [False, False, True]
    model = task.build(0)
    task.train(model, seed=0, epochs=1)
    metrics = task.metrics(model, "test")
    assert 0 <= metrics["mIoU"] <= 1 and np.isnan(metrics["IoU hair"])
    brief, path = dataclasses.replace(task, epochs=1), photographs / "kept.safetensors"
    record = pretrained.write_pretrained(brief, 0, 0.5, path)
    assert "IoU skin, test" in record and "IoU hair, test" not in record  # JSON has no NaN


def test_little_is_what_has_48_pixels_or_fewer():
    labels = torch.zeros(1, 10, 50, dtype=torch.uint8)
    labels[0, 0, :48], labels[0, 1, :49], labels[0, 2, :47] = 1, 2, 5
    slices = regions_of(*with_owners(None, labels))
    assert slices["little"].tolist() == [True, False, True]


def test_owners_of_photographs_are_classes():
    labels = torch.tensor([[[0, 3], [1, 1]]], dtype=torch.uint8)
    assert with_owners(None, labels)[2].tolist() == [[[-1, 2], [0, 0]]]


def test_every_published_label_has_at_most_one_class():
    names = " ".join(datasets.CLOTHES.values()).split()
    assert len(names) == len(set(names)) == 58
