"""Masks: put on a model, kept whatever the optimizer, saved and loaded."""

import contextlib
import copy
import os
import re
import warnings

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.func import functional_call
from torch.nn.utils import prune

import pruninglib as pl

SGD, Adam, AdamW = torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW
OPTIMIZERS = {
    "SGD": lambda p: SGD(p, lr=0.1),
    "SGD-momentum": lambda p: SGD(p, lr=0.1, momentum=0.9),
    "SGD-nesterov-decay": lambda p: SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: Adam(p, lr=0.01),
    "Adam-decay-amsgrad": lambda p: Adam(p, lr=0.01, weight_decay=0.1, amsgrad=True),
    "Adam-fused": lambda p: Adam(p, lr=0.01, fused=True),
    "AdamW-decay": lambda p: AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW-foreach": lambda p: AdamW(p, lr=0.01, weight_decay=0.1, foreach=True),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
}


@pytest.fixture
def masks(model):
    return pl.select(pl.random(model, seed=3), 0.5)


def steps(model, loss, batches, optimizer, after=lambda: None):
    for batch in batches:

        def closure(batch=batch):
            optimizer.zero_grad()
            value = loss(model, batch)
            value.backward()
            return value

        optimizer.step(closure)
        after()


def revived(model, masks):
    return sum(int((w[~masks[n]] != 0).sum()) for n, w in pl.weights_of(model, list(masks)).items())


def no_hooks(model, optimizer):
    return not optimizer._optimizer_step_post_hooks and not any(
        p._post_accumulate_grad_hooks for p in model.parameters()
    )


# ---- applying ----


def test_apply_zeroes_what_is_pruned_and_nothing_else(model, masks):
    before = copy.deepcopy(model.state_dict())
    places = {n: p.data_ptr() for n, p in model.named_parameters()}
    pl.apply(model, masks)
    for name, tensor in model.state_dict().items():
        mask = masks.get(name, torch.ones_like(tensor, dtype=torch.bool))
        assert tensor[mask].equal(before[name][mask]) and (tensor[~mask] == 0).all()
    assert list(model.state_dict()) == list(before) and model[0].weight.requires_grad
    assert {n: p.data_ptr() for n, p in model.named_parameters()} == places, "not in place"
    found = pl.masks_of(model)
    assert all(m.dtype == torch.bool and m.equal(masks[n]) for n, m in found.items())
    assert list(found) == list(masks) and list(pl.masks_of(model, ["2.weight"])) == ["2.weight"]


# ---- keeping ----


def check(condition):
    assert condition


@pytest.mark.parametrize("name", ["SGD-nesterov-decay", "AdamW-decay"])
def test_keeping_equals_training_with_the_masks_in_the_model(name, model, loss, batches, masks):
    """What is kept trains as if the pruned weights had never been there."""
    slow = copy.deepcopy(model)
    pl.apply(slow, masks)
    optimizer = OPTIMIZERS[name](slow.parameters())
    for batch in batches:
        optimizer.zero_grad()
        weights = {n: w * masks[n] for n, w in pl.weights_of(slow).items()}
        loss(lambda x, w=weights: functional_call(slow, w, x), batch).backward()
        optimizer.step()
    pl.apply(slow, masks)
    optimizer = OPTIMIZERS[name](model.parameters())
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer)
    for one, other in zip(model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_keeping_everything_changes_nothing(model, loss, batches):
    free = copy.deepcopy(model)
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in pl.weights_of(model).items()}
    for network, context in [(free, contextlib.nullcontext()), (model, None)]:
        optimizer = OPTIMIZERS["AdamW-decay"](network.parameters())
        with context or pl.keep(network, masks, optimizer):
            steps(network, loss, batches, optimizer)
    assert all(p.equal(q) for p, q in zip(free.parameters(), model.parameters(), strict=True))


def test_hooks_go_when_the_block_fails(model, loss, batches, masks):
    optimizer = OPTIMIZERS["Adam"](model.parameters())
    with pytest.raises(KeyError), pl.keep(model, masks, optimizer):
        with torch.no_grad():
            model[0].weight.add_(1)
        raise KeyError
    assert no_hooks(model, optimizer) and revived(model, masks) == 0


def test_frozen_layers_are_kept_too(model, loss, batches, masks):
    model[0].requires_grad_(False)
    optimizer = OPTIMIZERS["AdamW-decay"](model.parameters())
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer)
    assert revived(model, masks) == 0 and not model[0].weight.requires_grad


def test_half_precision_is_kept(loss, batches):
    model = nn.Linear(4, 3).to(torch.bfloat16)
    masks = pl.select(pl.magnitude(model), 0.5)
    optimizer = OPTIMIZERS["AdamW-decay"](model.parameters())
    batches = [(x.to(torch.bfloat16), y) for x, y in batches]
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer, after=lambda: check(revived(model, masks) == 0))
    assert model.weight.dtype == torch.bfloat16


def test_an_optimizer_made_for_another_model(model, masks, as_found):
    optimizer = OPTIMIZERS["SGD"](copy.deepcopy(model).parameters())
    with (
        as_found(model),
        pytest.raises(ValueError, match=r"trains none of the weights.*another model"),
        pl.keep(model, masks, optimizer),
    ):
        pass
    assert no_hooks(model, optimizer)


@pytest.mark.parametrize("names", [["0.bias", "0.weight"], ["2.weight", "2.bias"]])
def test_an_optimizer_of_some_parameters_in_groups(names, model, loss, batches, masks):
    parameters = dict(model.named_parameters())
    optimizer = AdamW([{"params": [parameters[name]]} for name in names], weight_decay=0.1)
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer)
    assert revived(model, masks) == 0


# ---- masks that do not fit ----

ALL = torch.ones(6, 4) > 0


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({}, "masks is empty"),
        ({"0.wieght": ALL}, "'0.wieght' is no parameter of Sequential; the nearest are 0.weight, "),
        ({"2.weight": ALL}, "mask of 2.weight has shape (6, 4), but the parameter has (3, 6)"),
        ({"2.weight": torch.ones(3, 1) > 0}, "mask of 2.weight has shape (3, 1), but"),
        ({"2.weight": torch.ones(3, 6)}, "mask of 2.weight is torch.float32, but must be bool"),
    ],
)
def test_masks_for_another_model_change_nothing(wrong, message, model, as_found):
    good = {"0.weight": ~ALL} if wrong else {}
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    with as_found(model), pytest.raises(ValueError, match=re.escape(message)):
        pl.apply(model, good | wrong)
    with (
        as_found(model),
        pytest.raises(ValueError, match=re.escape(message)),
        pl.keep(model, good | wrong, optimizer),
    ):
        pass
    assert no_hooks(model, optimizer)


# ---- on disk ----


def test_masks_come_back_from_disk(masks, tmp_path):
    turned = torch.rand(5, 7).t() > 0.5  # not contiguous
    shared = torch.tensor([True, False])
    masks |= {
        "turned": turned,
        "one": shared,
        "other": shared,
        "rows": shared[:, None].expand(2, 3),
    }
    pl.save_masks(masks, tmp_path / "m.safetensors")
    loaded = pl.load_masks(str(tmp_path / "m.safetensors"))
    assert loaded.keys() == masks.keys()
    assert all(loaded[n].dtype == torch.bool and loaded[n].equal(m) for n, m in masks.items())
    assert [f.name for f in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("keep_bytes", [0, 5, 40, -1])
def test_a_truncated_file(keep_bytes, masks, tmp_path):
    path = tmp_path / "m.safetensors"
    pl.save_masks(masks, path)
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with pytest.raises(ValueError, match=r"m\.safetensors is no whole safetensors file .*again"):
        pl.load_masks(path)


def test_a_file_of_something_else(model, tmp_path):
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(dict(model.state_dict()), path)
    with pytest.raises(ValueError, match=r"0\.bias in .*model\.safetensors is torch.float32.*bool"):
        pl.load_masks(path)


def test_only_masks_are_saved(tmp_path):
    with pytest.raises(ValueError, match=r"the mask of w is torch.float32, but must be bool"):
        pl.save_masks({"w": torch.ones(2)}, tmp_path / "masks")
    assert not [*tmp_path.iterdir()]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors"):
        pl.load_masks(tmp_path / "none.safetensors")


@pytest.mark.parametrize("fails", ["save_file", "replace"])
def test_no_half_file_when_writing_fails(fails, masks, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    pl.save_masks(masks, path)
    earlier = path.read_bytes()

    def full(tensors, target, *_):
        with open(target, "wb") as file:
            file.write(b"half")
        raise OSError("no space left")

    def refused(*_):
        raise OSError("no space left")

    if fails == "save_file":
        monkeypatch.setattr(safetensors.torch, "save_file", full)
    else:
        monkeypatch.setattr(os, "replace", refused)
    with pytest.raises(OSError, match="no space left"):
        pl.save_masks({n: ~m for n, m in masks.items()}, path)
    assert path.read_bytes() == earlier and [f.name for f in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "change",
    [
        torch.nn.utils.parametrizations.weight_norm,
        lambda layer: prune.random_unstructured(layer, "weight", 0.5),
    ],
)
def test_weights_computed_from_others_are_left_out(change):
    model = nn.Sequential(nn.Linear(9, 2), nn.Linear(2, 3))  # most weights are computed
    change(model[0])
    with pytest.warns(UserWarning, match=r"left out is 0\.weight, computed from other") as told:
        scores = pl.magnitude(model)
    assert len(told) == 1, "and not also of a kind that is not prunable"
    assert [*scores] == ["1.weight"]
    pl.apply(model, pl.select(scores, 0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pl.sparsity(model, exclude="0.*").prunable == 0.5
    with pytest.raises(ValueError, match=r"nothing to prune: 0\.weight, computed from other"):
        pl.prunable(model[:1])


def test_a_folder_that_is_not_there(masks, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist: make it first"):
        pl.save_masks(masks, tmp_path / "nowhere" / "masks")
