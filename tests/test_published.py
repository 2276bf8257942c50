"""The benchmark beside published figures, on generated data."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch import nn
from torchvision.datasets import MNIST

import pruninglib as pl
from benchmarks import published

FIT = pl.fit


def plain(net: published.LeNet5) -> nn.Module:
    pool = nn.MaxPool2d(2)
    dense = net.hidden, nn.ReLU(), net.output
    return nn.Sequential(net.conv1, pool, net.conv2, pool, nn.Flatten(), *dense)


@pytest.mark.parametrize(
    "make, weights, parameters",
    [(published.lenet_300_100, 266_200, 266_610), (published.LeNet5, 430_500, 431_080)],
)
def test_architectures_are_the_published_ones(make, weights, parameters):
    net = make()
    assert sum(w.numel() for w in pl.prune.weights.weights_of(net).values()) == weights
    assert sum(p.numel() for p in net.parameters()) == parameters
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 10)


@pytest.mark.parametrize("sparsity", [0, 0.9, 0.999, 0.9999, 1])
def test_skipping_units_changes_neither_outputs_nor_gradients(sparsity):
    net, images = published.LeNet5(), torch.rand(4, 1, 28, 28)
    masks = pl.select(pl.random(net), sparsity, budget=pl.uniform)
    pl.apply(net, masks)
    torch.testing.assert_close(net(images), plain(net)(images))
    grads = [
        torch.autograd.grad(f(images).square().sum(), list(net.parameters()))
        for f in (net, plain(net))
    ]
    for name, ours, reference in zip(dict(net.named_parameters()), *grads, strict=True):
        keep = masks.get(name, torch.tensor(True))  # what is pruned has its gradient masked
        torch.testing.assert_close(ours * keep, reference * keep)


def test_removed_units_are_neither_written_nor_read():
    net = published.LeNet5()
    masks = {name: torch.ones_like(score).bool() for name, score in pl.magnitude(net).items()}
    for progress in (0.3, 1):
        masks = published.narrower(pl.magnitude(net), masks, (8, 16, 80), progress)
    pl.apply(net, masks)
    assert [int(m.sum()) for m in masks.values()] == [8 * 25, 16 * 8 * 25, 80 * 16 * 16, 10 * 80]
    w2, w3, w4 = net.conv2.weight, net.hidden.weight.view(500, 50, 16), net.output.weight
    assert [len(published.read(*x)) for x in ((w2, 0, 2, 3), (w3, 0, 2), (w4, 0))] == [8, 16, 80]


@pytest.mark.parametrize("units, sparsity", [((), 0.9), ((8, 16, 80), 0.99)])
@pytest.mark.parametrize(
    "change",
    [{}, {"schedule": pl.one_shot}, {"budget": pl.uniform}, {"budget": pl.global_budget}],
)
def test_recipe_prunes_exactly(units, sparsity, change, monkeypatch):
    monkeypatch.setattr(published, "EVERY", 2)
    data = torch.rand(100, 1, 28, 28), torch.arange(100) % 10
    monkeypatch.setattr(published, "SIZE", 10)
    task = published.network("LeNet", published.LeNet5, {"train": data}, 1, recipes={})
    recipe = published.Recipe(4, units=units, ramp=0.8, **change)
    trained = []

    def fit(model, loss, batches, epochs, **options):
        batches = list(batches)
        trained.append(len(batches))
        return FIT(model, loss, batches, epochs, **options)

    monkeypatch.setattr(published.pl, "fit", fit)
    pruned = recipe(task, task.build(0), sparsity, 0)
    assert pl.sparsity(pruned).prunable == round(430_500 * sparsity) / 430_500
    assert sum(trained) == 40, "more or fewer steps than the epochs have"


@pytest.mark.parametrize("temperature", [None, 4.0])
def test_targets_are_the_classes_or_what_the_dense_network_makes_of_them(temperature, monkeypatch):
    images, classes = torch.rand(30, 1, 28, 28), torch.arange(30) % 10
    task = published.network(
        "LeNet", published.LeNet5, {"train": (images, classes)}, 1,
        recipes={}, pixels=0,
    )  # fmt: skip
    net, seen = task.build(0), []

    def fit(model, loss, batches, epochs, **options):
        seen.extend(batches)

    targets = (net(images) / 4).softmax(dim=1).detach() if temperature else classes
    monkeypatch.setattr(published.pl, "fit", fit)
    published.Recipe(3, temperature=temperature)(task, net, 0.9, 0)
    assert len(seen) == 3, "not every batch"
    for moved, taught in seen:
        order = torch.cdist(moved.flatten(1), images.flatten(1)).argmin(1)
        torch.testing.assert_close(taught, targets[order])
    assert task.splits["train"][1] is classes, "the task itself has changed"


def test_each_sparsity_has_its_recipe():
    recipes = {0.5: lambda *run: run, 0.9: lambda *run: None}
    task = published.network("LeNet", published.LeNet5, {"train": ((), ())}, 1, recipes=recipes)
    assert published.ours(task, "model", 0.5, 3) == (task, "model", 0.5, 3)
    assert published.ours(task, "model", 0.9, 3) is None


def test_shifted_moves_every_image_by_itself():
    images, classes = torch.rand(64, 1, 6, 5), torch.arange(64)
    images[0, 0, 0, 0] = 0  # the value of what comes in at the border

    def batches(pixels):
        return published.Shifted(images, classes, pixels=pixels, size=64, seed=3)

    unmoved, order = next(iter(batches(0)))
    assert unmoved.equal(images[order])
    moved, order = next(iter(batches(1)))
    assert moved.equal(next(iter(batches(1)))[0]), "not set by the seed"
    wide = nn.functional.pad(images, (1, 1, 1, 1))
    seen = set()
    for image, i in zip(moved, order, strict=True):
        places = [(y, x) for y in range(3) for x in range(3)]
        found = [(y, x) for y, x in places if image.equal(wide[i, :, y : y + 6, x : x + 5])]
        assert len(found) == 1
        seen.update(found)
    assert len(seen) == 9


def test_mnist_is_read_and_scaled(tmp_path, monkeypatch):
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    resources = []
    for count, part in ((60_000, "train"), (10_000, "t10k")):
        images = np.zeros((count, 2, 3), dtype=np.uint8)
        images[:, 1, 2] = np.arange(count) % 10
        for kind, values in (("images-idx3", images), ("labels-idx1", images[:, 1, 2])):
            head = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            file = raw / f"{part}-{kind}-ubyte.gz"
            file.write_bytes(gzip.compress(head + values.tobytes()))
            resources.append((file.name, hashlib.md5(file.read_bytes()).hexdigest()))
    monkeypatch.setattr(MNIST, "resources", resources)
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    splits = published.mnist()
    assert {name: len(x) for name, (x, _) in splits.items()} == {
        "train": 55_000, "valid": 5_000, "test": 10_000,
    }  # fmt: skip
    for images, classes in splits.values():
        assert images.shape[1:] == (1, 2, 3) and classes.dtype == torch.int64
        torch.testing.assert_close(images[:, 0, 1, 2], (classes / 255 - 0.13) / 0.31)


def test_keeps_dense_error_looks_at_valid_only():
    table = published.pd.DataFrame(
        [(0.0, "valid", 0.98), (0.0, "valid", 0.96), (0.9, "valid", 0.965), (0.95, "valid", 0.9),
         (0.99, "valid", 0.99), (0.9, "test", 0.1), (0.95, "test", 1.0)],
        columns=["sparsity", "split", "accuracy"],
    )  # fmt: skip
    assert published.keeps_dense_error(table) == 0.9


def test_quick_run_prints_every_table(monkeypatch, tmp_path):
    images, classes = torch.rand(60, 1, 28, 28), torch.arange(60) % 10  # one batch an epoch
    images[:, 0, 0, :10] = 5.0 * nn.functional.one_hot(classes, 10)
    splits = {name: (images, classes) for name in ("train", "valid", "test")}
    monkeypatch.setattr(published, "mnist", lambda: splits)
    monkeypatch.setattr(published, "OUT", tmp_path / "rows.jsonl")
    result = CliRunner().invoke(published.main, ["--quick"], catch_exceptions=False)
    assert result.exit_code == 0
    for name in ("LeNet-300-100", "LeNet-5-Caffe"):
        assert f"{name}: published and ours" in result.output
        for method, *_ in published.PUBLISHED[name]:
            assert method in result.output
    for recipe in (published.Recipe(1), published.Recipe(1, units=(8, 16, 80))):
        for method in published.ablations(recipe):
            assert method in result.output
    assert not list(tmp_path.iterdir()), "a smoke run left rows among the real ones"
