"""Faults on models that people have, by kind: selection, reconstruction, measuring, files."""

import contextlib
import copy
import functools
import itertools
import json
import math
import pickle
import re
import threading
import types
import warnings

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import nn

import pruninglib as pl
from pruninglib.base import checks, exact, layerwise
from pruninglib.base.checks import some
from pruninglib.base.files import read_tensors, write_tensors
from pruninglib.base.gradients import second_moments
from pruninglib.course import runner
from pruninglib.prune.reconstruct import repair

X = torch.linspace(-1, 1, 24).view(6, 4)


def kept_units(masks):
    return {name: int(mask.flatten(1).any(1).sum()) for name, mask in masks.items()}


# ---- a budget by layers leaves none of them without a channel ----


@pytest.mark.parametrize("grain", [pl.row, pl.channel, pl.block(1, 2)], ids=lambda g: g.name)
@pytest.mark.parametrize("budget", ["uniform", "erk", "scan"])
def test_a_small_layer_keeps_its_last_channel(grain, budget):
    scores = {"small": torch.rand(3, 2), "large": torch.rand(300, 2), "one": torch.rand(1, 2)}
    scan = {n: {0.0: 1.0, 0.5: 0.9, 1.0: 0.8} for n in scores}
    budget = {"uniform": pl.uniform, "erk": pl.erk, "scan": pl.from_scan(scan)}[budget]
    for sparsity in (0.9, 0.98, 300 / 304):
        masks = pl.select(scores, sparsity, grain=grain, budget=budget)
        assert min(kept_units(masks).values()) >= 1
        assert sum(kept_units(masks).values()) == 304 - round(sparsity * 304)


def test_channels_coupled_across_layers_keep_their_last_one():
    """Pooled scores: one for a channel, in as many dimensions as there are weights in a bias."""
    pooled = {"small": torch.rand(3), "large": torch.rand(300)}
    kept = pl.select(pooled, 0.9, budget=pl.uniform)
    assert kept["small"].sum() == 1 and kept["large"].sum() == 29


def test_more_sparsity_than_a_channel_each_allows_only_takes_away():
    scores = {n: torch.rand(size, 2) for n, size in zip("abcde", (300, 3, 3, 3, 1), strict=True)}
    before = None
    for left in range(310, -1, -1):
        masks = pl.select(scores, 1 - left / 310, grain=pl.row, budget=pl.uniform)
        assert sum(kept_units(masks).values()) == left
        assert not before or not any((m & ~before[n]).any() for n, m in masks.items())
        before = masks


def test_single_weights_go_as_they_did():
    scores = {"small": torch.rand(3, 1), "large": torch.rand(300, 1)}
    assert not pl.select(scores, 0.9, budget=pl.uniform)["small"].any()


# ---- norms of scores below zero ----


@pytest.mark.parametrize("grain", [pl.row, pl.block(2, 2)], ids=lambda g: g.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_l2_of_negative_scores(grain, dtype):
    scores = {"a": torch.ones(4, 4, dtype=dtype), "b": torch.ones(4, 4, dtype=dtype)}
    pl.select(scores, 0.5, grain=grain.pooled("l2"), within={n: s > 0 for n, s in scores.items()})
    scores["b"][2, 2] = -0.1
    with pytest.raises(
        ValueError, match=r"^b: l2 pooling squares the scores, but some are negative"
    ):
        pl.select(scores, 0.5, grain=grain.pooled("l2"))


def test_l2_of_negative_scores_of_coupled_channels():
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    groups = pl.coupled(model, X)
    scores = pl.magnitude(model)
    pl.pool(scores, groups, "l2")
    scores["0.weight"][1, 1] *= -1
    with pytest.raises(ValueError, match=r"l2 pooling .* some of 0\.weight are negative"):
        pl.pool(scores, groups, "l2")


# ---- what is no sparsity, no score, no mask, no name: one sentence each ----

ONE = {"w": torch.rand(4, 4)}
MASK = {"w": torch.rand(4, 4) > 0.5}


@pytest.mark.parametrize(
    "sparsity, message",
    [
        (torch.tensor([0.5, 0.9]), r"sparsity is tensor\(\[0.*\]\), a torch\.Tensor, but must be a n"),
        ("0.5", r"sparsity is '0\.5', a str, but must be a number in \[0, 1\]"),
        (None, r"sparsity is None, a NoneType, but must be a number"),
        ([0.5], r"sparsity is \[0\.5\], a list, but"),
        (0.5j, r"a complex, but"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "use",
    [
        lambda s: pl.select(ONE, s),
        lambda s: pl.one_shot(s),
        lambda s: pl.regrow(MASK, s, drop=ONE, grow=ONE),
        lambda s: pl.reconstruct(nn.Linear(4, 4), lambda m, x: m(x).sum(), [X], s),
    ],
)
def test_what_is_no_sparsity(sparsity, message, use):
    with pytest.raises(ValueError, match=message.replace("sparsity is", "(sparsity|fraction) is")):
        use(sparsity)


@pytest.mark.parametrize("kind", [float, int, np.float32, np.float64])
def test_numbers_of_every_kind_are_sparsities(kind):
    assert pl.select(ONE, kind(1))["w"].sum() == 0


SCORES = {
    "array": (np.ones((4, 4)), r"the scores of w must be a torch tensor, not a numpy\.ndarray"),
    "list": ([1.0], r"must be a torch tensor, not a list"),
    "scalar": (torch.tensor(1.0), r"the scores of w have shape \(\): none to rank"),
    "meta": (torch.ones(4, 4, device="meta"), r"the scores of w must have values, but the meta device has none"),
    "sparse": (torch.eye(4).to_sparse(), r"must be dense, not torch\.sparse_coo"),
    "float8": (torch.ones(4, 4).to(torch.float8_e4m3fn), r"torch\.float8_e4m3fn: .* floating point"),
    "bool": (MASK["w"], r"the scores of w are torch\.bool: they must be floating point"),
    "complex": (torch.ones(4, 4, dtype=torch.complex64), r"are torch\.complex64: they must be"),
}  # fmt: skip


@pytest.mark.parametrize("score, message", SCORES.values(), ids=SCORES)
def test_what_is_no_score(score, message):
    for use in (
        lambda: pl.select({"w": score}, 0.5),
        lambda: pl.regrow(MASK, 0.5, drop=ONE, grow={"w": score}),
    ):
        if "regrow" in use.__code__.co_names and getattr(score, "shape", None) != (4, 4):
            continue
        with pytest.raises(ValueError, match=message):
            use()
    with pytest.raises(ValueError, match="scores is a list, but must be a dict of tensors by name"):
        pl.select([score], 0.5)


MASKS = {
    "array": (MASK["w"].numpy(), r"the mask of w must be a torch tensor, not a numpy\.ndarray"),
    "int64": (MASK["w"].long(), r"the mask of w is torch\.int64, but must be bool \(True = keep\)"),
    "float": (MASK["w"].float(), r"the mask of w is torch\.float32, but must be bool"),
    "sparse": (MASK["w"].to_sparse(), r"the mask of w must be dense, not torch\.sparse_coo"),
    "None": (None, r"the mask of w must be a torch tensor, not a NoneType"),
}


@pytest.mark.parametrize(
    "use",
    [
        lambda masks: pl.select(ONE, 0.9, within=masks),
        lambda masks: pl.regrow(masks, 0.1, drop=ONE, grow=ONE),
        lambda masks: pl.apply(nn.ParameterDict(ONE), masks),
        lambda masks: pl.save_masks(masks, "nowhere"),
        lambda masks: pl.spread(masks, {}),
    ],
    ids=["within", "regrow", "apply", "save_masks", "spread"],
)
@pytest.mark.parametrize("mask, message", MASKS.values(), ids=MASKS)
def test_what_is_no_mask(mask, message, use):
    with pytest.raises(ValueError, match=message):
        use({"w": mask})
    with pytest.raises(ValueError, match="masks is a list, but must be a dict of tensors by name"):
        use([mask])


@pytest.mark.parametrize(
    "use",
    [
        pl.weights_of,
        pl.magnitude,
        pl.random,
        pl.masks_of,
        lambda m, names: pl.wanda(m, lambda m, x: m(x).sum(), [X], names),
        lambda m, names: pl.gradient(m, lambda m, x: m(x).sum(), [X], names),
        lambda m, names: pl.synflow(m, X, names),
        lambda m, names: pl.reconstruct(m, lambda m, x: m(x).sum(), [X], 0.5, names=names),
    ],
)
def test_names_may_come_from_a_generator_but_not_as_one_string(use):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    found = use(model, (name for name in ["1.weight", "0.weight"]))
    assert sorted(found) == ["0.weight", "1.weight"]
    with pytest.raises(ValueError, match=r"names is '0\.weight', but must be a list of names"):
        use(model, "0.weight")


# ---- long lists in messages ----


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2, 2) for _ in range(200))

    def forward(self, x):
        return x


def test_an_unknown_name_brings_the_nearest_ones():
    with pytest.raises(ValueError, match=r"'layers\.17\.wieght' is no") as caught:
        pl.magnitude(Deep(), ["layers.17.wieght"])
    assert "the nearest are layers.17.weight, " in str(caught.value)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    "use",
    [
        lambda m: pl.select(pl.magnitude(m), 0.5, budget=pl.from_scan({})),
        lambda m: pl.wanda(m, lambda m, x: m(x).sum(), [torch.ones(1, 2)]),
        lambda m: pl.apply(m, {"nothing": MASK["w"]}),
    ],
)
def test_no_message_lists_two_hundred_names(use):
    with pytest.raises(ValueError) as caught:
        use(Deep())
    assert len(str(caught.value)) < 300


def test_some_of_many_names():
    assert some("abc") == "a, b, c" and some("abcde") == "a, b, c and 2 more" and some([]) == ""


# ---- what a model does, counted ----


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, *args):
        return self.function(*args)


A, B, V = torch.rand(3, 4), torch.rand(3, 4), torch.rand(4)
PRODUCTS = {
    "LSTM": (nn.LSTM(4, 6), (torch.rand(5, 2, 4),), 10 * 24 * (4 + 6)),
    "LSTM, float64": (nn.LSTM(4, 6).double(), (torch.rand(5, 2, 4).double(),), 240 * 10),
    "LSTM, two layers both ways": (
        nn.LSTM(4, 6, num_layers=2, bidirectional=True, batch_first=True),
        (torch.rand(2, 5, 4),),
        10 * 2 * 24 * ((4 + 6) + (12 + 6)),
    ),
    "LSTM without a batch": (nn.LSTM(4, 6, bias=False), (torch.rand(5, 4),), 5 * 24 * 10),
    "GRU": (nn.GRU(4, 6), (torch.rand(5, 2, 4),), 10 * 18 * 10),
    "RNN": (nn.RNN(4, 6), (torch.rand(5, 2, 4),), 10 * 6 * 10),
    "LSTMCell": (nn.LSTMCell(4, 6), (A,), 3 * 24 * 10),
    "Bilinear": (nn.Bilinear(4, 4, 5), (A, B), 3 * 5 * 16),
    "matrix × vector": (Calls(lambda a, v: a @ v), (A, V), 12),
    "vector × vector": (Calls(lambda v: v @ v), (V,), 4),
    "addmv": (Calls(lambda a, v: torch.addmv(torch.ones(3), a, v)), (A, V), 12),
    "addbmm": (Calls(lambda a: torch.addbmm(torch.ones(3, 3), a[None], a.T[None])), (A,), 36),
    "Linear on a vector": (nn.Linear(4, 3), (V,), 12),
    "convolution": (nn.Conv2d(2, 3, 3), (torch.rand(1, 2, 6, 6),), 16 * 3 * 18),
}


@pytest.mark.parametrize("model, example, expected", PRODUCTS.values(), ids=PRODUCTS)
def test_every_product_is_counted(model, example, expected):
    assert pl.macs(model, example) == expected


@pytest.mark.parametrize(
    "function, name",
    [
        (lambda a: torch.sparse.mm(a.to_sparse(), a.T), "_sparse_addmm"),
        (lambda a: torch._int_mm(*2 * [torch.ones(32, 32, dtype=torch.int8)]), "_int_mm"),
    ],
)
def test_a_product_that_cannot_be_counted_is_named(function, name):
    with pytest.raises(ValueError, match=rf"the multiplications of .*({name}).* can't be counted"):
        pl.macs(Calls(function), A)


@pytest.mark.parametrize("example", [(X, X), {"x": X, "y": X}, X], ids=["tuple", "mapping", "one"])
def test_examples_of_every_kind_are_measured(example):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 3), nn.BatchNorm1d(3)

        def forward(self, x, y=None):
            return self.norm(self.layer(x if y is None else x + y))

    model = Two()
    assert pl.macs(model, example) == pl.ledger(model, example, repeats=2)["macs"] == 72
    pl.recalibrate(model, [(example, None), (example, "label")])
    assert model.norm.num_batches_tracked == 2
    if not isinstance(example, tuple):  # a tuple is inputs and targets
        pl.recalibrate(model, [example])
        assert model.norm.num_batches_tracked == 1


# ---- layers that are not prunable are not passed over in silence ----


class Conv1D(nn.Module):
    """GPT-2's: a Linear layer whose weight is (in, out)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))

    def forward(self, x):
        return x @ self.weight


@pytest.mark.parametrize("use", [pl.prunable, pl.magnitude, pl.sparsity])
@pytest.mark.parametrize("other", [lambda: Conv1D(8, 8), lambda: nn.LSTM(8, 8)])
def test_most_weights_in_layers_of_other_kinds(use, other):
    model = nn.ModuleDict({"words": nn.Embedding(5, 8), "inner": other()})
    with pytest.warns(UserWarning, match=r"most weights of ModuleDict are not prunable.*inner\.w"):
        use(model)


def test_no_warning_without_need():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = nn.ModuleDict({"words": nn.Embedding(5, 8), "inner": Conv1D(8, 8)})
        assert pl.prunable(model, types=(Conv1D,)) == ["inner.weight"]
        pl.magnitude(model, ["inner.weight"])
        encoder = nn.TransformerEncoderLayer(8, 2, 16)
        assert len(pl.prunable(encoder)) == 3
        tied = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 9))
        tied[1].weight = tied[0].weight
        pl.prunable(tied)
        pl.prunable(nn.Sequential(nn.Linear(90, 90), nn.Linear(2, 2)), exclude="0.*")
        pl.prunable(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(900)))  # no matrix


def test_the_largest_of_other_layers_are_named_first():
    others = {f"l{n}": Conv1D(n, n) for n in (4, 7, 5, 6)}
    with pytest.warns(UserWarning, match=r"default: l7\.weight, l6\.weight, l5\.weight and 1 more"):
        pl.prunable(nn.ModuleDict({"one": nn.Linear(2, 2), **others}))


def test_kinds_of_things_are_named_with_their_library():
    assert checks.kind(nn.Linear(1, 1)) == "torch.Linear" and checks.kind(3) == "int"
    assert checks.kind(pd.DataFrame()) == "pandas.DataFrame"


# ---- parameters of a lesson ----


@pytest.mark.parametrize(
    "value", [(0, 1), {0, 1}, range(2), np.arange(2), {1: 2}, math.nan, [(1,)], len], ids=repr
)
def test_a_parameter_that_json_does_not_know(value, tmp_path):
    lesson = next(lesson for lesson in runner.find_lessons() if "seeds" in lesson.parameters)
    with pytest.raises(
        runner.LessonError, match=r"seeds is .* but must be a JSON value: a number, a"
    ):
        runner.execute(lesson, tmp_path / "out.ipynb", {"seeds": value})
    assert not list(tmp_path.iterdir())
    runner.check_parameters([lesson], {"seeds": [0, 1]})


# ---- files of shrunk models ----


def saved(path, change=lambda tensors, sizes: None):
    model = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3))
    model.append(nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Embedding(5, 2)))
    small = copy.deepcopy(model)
    small[0] = nn.Conv2d(3, 5, 3, padding=1)
    small[1], small[2] = nn.BatchNorm2d(5), nn.Conv2d(5, 4, 3)
    pl.save_shrunk(small, path)
    tensors, about = read_tensors(path)
    sizes = json.loads(about["sizes"])
    about = change(tensors, sizes) or {"sizes": json.dumps(sizes)}
    write_tensors(tensors, path, about)
    return model


def test_a_whole_file_is_loaded(tmp_path):
    model = pl.load_shrunk(saved(tmp_path / "m"), tmp_path / "m")
    assert model[1].num_features == model[0].out_channels == model[2].in_channels == 5
    assert len(model[1].running_mean) == 5


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "1.bias", "1.running_var", "2.weight", "3.1.weight", "3.2.weight"])  # fmt: skip
@pytest.mark.parametrize("dim", [0, -1])
def test_tensors_that_do_not_fit_their_layer(name, dim, tmp_path, as_found):
    def change(tensors, sizes):
        tensors[name] = tensors[name].narrow(dim, 0, tensors[name].shape[dim] - 1)

    model = saved(tmp_path / "m", change)
    with as_found(model), pytest.raises(ValueError, match=rf"m has {name} with shape .* what fits"):
        pl.load_shrunk(model, tmp_path / "m")


@pytest.mark.parametrize(
    "key, attribute, value, message",
    [
        ("0 (Conv2d)", "out_channels", 4, r"0\.bias with shape \(5,\), but \(4,\) is what fits"),
        ("0 (Conv2d)", "kernel_size", [3], r"\(3,\) as kernel_size of 0, where \(3, 3\) was"),
        ("0 (Conv2d)", "kernel_size", 3, r"3 as kernel_size of 0"),
        ("3.1 (Linear)", "in_features", 5000, r"3\.1\.weight with shape|in_features"),
        ("3.1 (Linear)", "in_features", 0, r"3\.1\.weight|in_features"),
        ("0 (Conv2d)", "forward", "evil", r"forward of 0 \(Conv2d\) is 'evil', but must be a whole"),
        ("0 (Conv2d)", "out_channels", 4.5, r"out_channels of .* is 4\.5, but must be a whole number"),
        ("0 (Conv2d)", "out_channels", True, r"is True, but must be a whole number"),
        ("0 (Conv2d)", "out_channels", None, r"is None, but must be a whole number"),
    ],
)  # fmt: skip
def test_sizes_that_do_not_fit(key, attribute, value, message, tmp_path, as_found):
    def change(tensors, sizes):
        sizes[key][attribute] = value
        if value in (5000, 0):  # then it is the tensors that give it away
            tensors["3.1.weight"] = torch.zeros(2, value)

    model = saved(tmp_path / "m", change)
    with as_found(model), pytest.raises(ValueError, match=message):
        pl.load_shrunk(model, tmp_path / "m")


def test_nothing_is_set_but_sizes(tmp_path):
    def change(tensors, sizes):
        sizes["0 (Conv2d)"] |= {"forward": 3, "training": 7, "_parameters": 1}
        sizes["0 (Conv2d)"]["stride"] = [2, 2]  # more than it was

    model = saved(tmp_path / "m", change)
    keys = {*vars(model[0])}
    pl.load_shrunk(model, tmp_path / "m")
    assert {*vars(model[0])} == keys and model[0].training is True and model[0].stride == (1, 1)
    assert callable(model[0].forward)


@pytest.mark.parametrize("about", ["", "{", "[]", "3", '{"0 (Conv2d)": 3}', "null"])
def test_metadata_that_cannot_be_read(about, tmp_path, as_found):
    model = saved(tmp_path / "m", lambda tensors, sizes: {"sizes": about})
    with (
        as_found(model),
        pytest.raises(ValueError, match=r"the sizes in .*m can't be read .*save_s"),
    ):
        pl.load_shrunk(model, tmp_path / "m")


def test_a_file_without_sizes_is_of_something_else(tmp_path):
    model = saved(tmp_path / "m")
    safetensors.torch.save_file(dict(model.state_dict()), tmp_path / "m")
    with pytest.raises(ValueError, match="holds another model"):
        pl.load_shrunk(model, tmp_path / "m")


# ---- reconstruction: what only some batches reach, and what none does ----


class Experts(nn.Module):
    """Each sample goes to the expert of its first input's sign; a third is never asked."""

    def __init__(self):
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        chosen = (x[:, 0] > 0).long()
        y = torch.stack([self.experts[i](row) for i, row in zip(chosen, x, strict=True)])
        return self.out(y.relu())


def total(model, batch):
    return model(batch).sum()


POSITIVE = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).abs()


@pytest.mark.parametrize("order", [1, -1])
def test_an_expert_that_only_one_batch_reaches(order):
    batches = [-POSITIVE, POSITIVE][::order]
    names = ["experts.0.weight", "experts.1.weight", "out.weight"]
    model, one_by_one = Experts(), Experts()
    one_by_one.load_state_dict(model.state_dict())
    masks = pl.reconstruct(model, total, batches, 0.5, names=names)
    assert list(masks) == names and pl.masks_of(model, names)["experts.1.weight"].sum() == 8
    # each by itself, with the inputs that it has: in an order that fits both
    for name in names:
        pl.reconstruct(one_by_one, total, batches, 0.5, names=[name])
    for value, expected in zip(model.parameters(), one_by_one.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("grain", [pl.element, pl.in_rows, pl.n_of_m(2, 4)], ids=lambda g: g.name)
def test_an_expert_that_nothing_reaches_is_named_and_pruned_by_magnitude(grain):
    model = Experts()
    before, name = model.experts[2].weight.detach().clone(), "experts.2.weight"
    with pytest.warns(UserWarning, match=r"no input reached experts\.2\.weight on these batches"):
        masks = pl.reconstruct(model, total, [POSITIVE, -POSITIVE], 0.5, grain=grain)
    expected = pl.select({"": before.abs()}, 0.5, grain=grain)[""]
    assert masks[name].equal(expected) and model.experts[2].weight.equal(before * expected)
    model = Experts()
    with pytest.warns(UserWarning, match=r"experts\.2\.weight"):
        scores = pl.wanda(model, total, [POSITIVE, -POSITIVE])
    assert scores[name].equal(model.experts[2].weight.abs()) and scores["out.weight"].any()


# ---- reconstruction: one run of the model, whatever its depth ----


def deep(depth):
    torch.manual_seed(0)
    layers = [m for _ in range(depth) for m in (nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.2))]
    return nn.Sequential(*layers, nn.Linear(6, 2))


@pytest.mark.parametrize("depth", [1, 4, 16])
@pytest.mark.parametrize("use", ["reconstruct", "least squares"])
def test_the_number_of_runs_does_not_grow_with_depth(depth, use):
    model, calls, batches = deep(depth), [], torch.randn(3, 8, 6).unbind()

    def loss(model, batch):
        calls.append(threading.current_thread())
        value = total(model, batch)
        assert not value.requires_grad, "the graph keeps the inputs of all layers"
        return value

    if use == "reconstruct":
        pl.reconstruct(model, loss, batches, 0.5)
    else:
        pl.least_squares(model, loss, batches, pl.select(pl.magnitude(model), 0.5))
    assert len(calls) == 2 * len(batches)
    assert not any(thread.is_alive() for thread in {*calls} - {threading.current_thread()})


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(self.a(x).relu()).relu())


class Turned(nn.Module):
    """The layers run in another order for some batches."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.b(self.a(x)) if x[0, 0] > 0 else self.a(self.b(x))


def encoder():
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.3, batch_first=True)
    return nn.Sequential(nn.Unflatten(0, (2, 4)), nn.TransformerEncoder(layer, 2))


IN_ONE_RUN = {
    "chain, dropout": lambda: deep(3).train(),
    "encoder": lambda: encoder().eval(),
    "encoder, dropout": lambda: encoder().train(),
    "batch norm": lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 6)).train(),
    "a layer used twice": Shared,
    "orders that differ": Turned,
    "half precision": lambda: deep(3).bfloat16().eval(),
}  # fmt: skip


@pytest.mark.parametrize("build", IN_ONE_RUN.values(), ids=IN_ONE_RUN)
@pytest.mark.parametrize("around", [torch.enable_grad, torch.inference_mode, "autocast"])
def test_one_run_finds_what_a_run_for_each_layer_does(build, around, monkeypatch):
    torch.manual_seed(0)
    whole = build()
    batches = [x.to(next(whole.parameters()).dtype) for x in torch.randn(4, 8, 6)]
    found, joined = [], layerwise._joined
    for in_one_run in (True, False):
        if not in_one_run:
            monkeypatch.setattr(layerwise, "_joined", lambda orders: (joined(orders)[0], False))
        model = copy.deepcopy(whole)
        torch.manual_seed(1)
        context = (
            torch.autocast("cpu", torch.bfloat16, cache_enabled=False)
            if around == "autocast"
            else around()
        )
        with context:
            masks = pl.reconstruct(model, lambda m, x: total(m, x) + torch.rand(()), batches, 0.5)
        found.append((masks, model.state_dict(), torch.rand(3)))
    (masks, state, drawn), (other_masks, other_state, other_drawn) = found
    assert list(masks) == list(other_masks) and drawn.equal(other_drawn)
    assert all(mask.equal(other_masks[name]) for name, mask in masks.items())
    assert all(value.equal(other_state[name]) for name, value in state.items())


class Counting(nn.Module):
    """What it gives depends on how often it ran before, between its layers too."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x):
        for layer in (self.a, self.b):
            self.count += 1
            x = layer(x * self.count).relu()
        return x


@pytest.mark.parametrize("build", [Counting, Turned, Shared, lambda: deep(3).train()])
def test_each_layer_is_solved_from_runs_of_its_own_or_as_if(build):
    torch.manual_seed(0)
    model, batches = build(), torch.randn(4, 8, 6)
    slow = copy.deepcopy(model)
    torch.manual_seed(1)
    masks = pl.reconstruct(model, total, batches, 0.5)
    torch.manual_seed(1)
    for name, weight in pl.weights_of(slow, masks).items():
        moments = second_moments(slow, {name: weight}, total, batches)
        found, mask = repair(weight.detach().double(), moments, 0.5, pl.element, 0.01, 128)
        weight.data.copy_(found)
        assert mask.equal(masks[name])
    for value, expected in zip(model.parameters(), slow.parameters(), strict=True):
        torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("build", [Shared, lambda: deep(2)])
def test_what_is_solved_has_the_weights_type_and_no_graph(build, as_found):
    model = build().requires_grad_(True)
    weights, batches = pl.weights_of(model), torch.randn(2, 8, 6)
    with as_found(model):
        found = layerwise.layer_by_layer(
            model, weights, total, batches, lambda name, _: weights[name].double() / 2
        )
    for name, weight in weights.items():
        assert found[name].dtype == torch.float32 and not found[name].requires_grad
        assert found[name].equal(weight.detach() / 2)


def test_random_numbers_of_the_runs_are_not_those_of_who_solves():
    model, batches, drawn = deep(2).train(), torch.randn(3, 8, 6), []
    weights = pl.weights_of(model)
    torch.manual_seed(1)
    layerwise.layer_by_layer(
        *(model, weights, total, batches),
        lambda name, _: drawn.append(torch.rand(())) or weights[name].detach(),
    )
    torch.manual_seed(1)
    assert torch.stack(drawn).equal(torch.stack([torch.rand(()) for _ in weights]))


def test_batches_of_inference_mode_written_into_by_the_model():
    with torch.inference_mode():
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 6), nn.Linear(6, 4))
        batches = list(torch.randn(3, 8, 6))
        masks = pl.reconstruct(model, total, batches, 0.5)
    assert {int(mask.sum()) for mask in masks.values()} == {18, 12}


def test_a_default_device_holds_in_other_threads_too():
    made = []

    def make(modes):
        with contextlib.ExitStack() as stack:
            for mode in modes:
                stack.enter_context(mode())
            made.append(torch.empty(1).device.type)

    for device in ("meta", "cpu"):
        with torch.device(device):
            thread = threading.Thread(target=make, args=(layerwise._modes(),))
            thread.start()
            thread.join()
    assert made == ["meta", "cpu"]


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt])
@pytest.mark.parametrize("at", [0, 4, 5, 6, 7])
def test_a_failure_in_one_of_the_batches_leaves_nothing_behind(kind, at, as_found):
    model, calls = deep(3), itertools.count()
    batches, threads = list(torch.randn(4, 8, 6)), threading.active_count()

    def loss(model, batch):
        failing = next(calls) == at
        value = total(model, batch)
        if failing:
            raise kind("on purpose")
        return value

    with as_found(model), pytest.raises(kind, match="on purpose"):
        pl.reconstruct(model, loss, batches, 0.5)
    assert threading.active_count() == threads
    assert not any(m._forward_pre_hooks for m in model.modules())


# ---- least squares on given masks ----


@torch.no_grad()
def by_lstsq(model, masks, x):
    """Row by row on the inputs themselves, layer after layer."""
    for name, mask in masks.items():
        layer = model.get_submodule(name.removesuffix(".weight"))
        for row, kept in zip(layer.weight, mask, strict=True):
            target = x @ row
            row[~kept] = 0
            if kept.any():
                row[kept] = torch.linalg.lstsq(x[:, kept], target[:, None]).solution[:, 0]
        x = layer(x).relu()


@pytest.mark.parametrize("sparsity", [0.3, 0.8])
def test_least_squares_on_the_rows_of_a_mask(sparsity):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)).double()
    x, other = torch.randn(60, 8).double(), copy.deepcopy(model)
    masks = pl.select(pl.magnitude(model), sparsity)
    masks["0.weight"][1] = False
    by_lstsq(other, masks, x)
    pl.least_squares(model, total, x.split(20), masks, damping=1e-12)
    # the outputs, for inputs that are always the same leave the weights some choice
    torch.testing.assert_close(model(x), other(x), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(model[0].weight, other[0].weight, rtol=1e-6, atol=1e-8)
    assert not any(w[~masks[n]].any() for n, w in pl.weights_of(model).items())


def test_least_squares_repairs_more_than_sparsegpt_on_the_same_masks():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8))
    x = torch.randn(300, 16) @ torch.randn(16, 16)
    target, gpt = model(x).detach(), copy.deepcopy(model)
    masks = pl.reconstruct(gpt, total, [x], 0.7)
    errors = {"gpt": float((gpt(x) - target).detach().square().mean())}
    for name, use in (("masked", pl.apply), ("squares", None)):
        other = copy.deepcopy(model)
        use(other, masks) if use else pl.least_squares(other, total, [x], masks)
        errors[name] = float((other(x) - target).detach().square().mean())
    assert errors["squares"] < errors["gpt"] < errors["masked"]


def test_least_squares_applies_the_masks_of_other_layers_first():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4)).double()
    x, masks = torch.randn(50, 2, 6).double(), pl.select(pl.magnitude(model), 0.5)
    pruned, before = copy.deepcopy(model), model[2].weight.detach().clone()
    pl.apply(pruned, {"0.weight": masks["0.weight"]})
    pl.least_squares(model, total, [x], masks, damping=0)
    assert model[0].weight.equal(pruned[0].weight)
    inputs = pruned[:2](x).detach()
    for row, w, kept in zip(model[2].weight, before, masks["2.weight"], strict=True):
        best = torch.linalg.lstsq(inputs[:, kept], (inputs @ w)[:, None]).solution[:, 0]
        torch.testing.assert_close(row[kept].detach(), best)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda m: m.update({"0.weight": m["0.weight"][:2]}), "0.weight has shape"),
        (lambda m: m.update({"0.weight": m["0.weight"].float()}), "float32, but must be bool"),
        (lambda m: m.update({"nothing.weight": m["0.weight"]}), "'nothing.weight' is no parameter"),
        (lambda m: m.clear(), "masks is empty"),
        (lambda m: m.pop("0.weight") is m.pop("2.weight"), "has no Linear layer with a weight of"),
    ],
)
def test_least_squares_that_cannot_be_done(change, message, as_found):
    model = nn.Sequential(nn.Linear(4, 6), nn.Embedding(3, 2), nn.Linear(6, 3))
    masks = pl.select(pl.magnitude(model), 0.5)
    change(masks)
    with as_found(model), pytest.raises(ValueError, match=re.escape(message)):
        pl.least_squares(model, lambda m, x: m[2](m[0](x)).sum(), [X], masks)


def test_least_squares_that_fail_leave_other_layers_whole(as_found):
    model = nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten(), nn.Linear(12, 4))
    masks = pl.select(pl.magnitude(model), 0.5)

    def loss(model, batch):
        model(batch)
        raise RuntimeError("on purpose")

    x = torch.randn(5, 2, 6)
    with as_found(model), pytest.raises(RuntimeError, match="on purpose"):
        pl.least_squares(model, loss, [x], masks)


def test_inputs_without_an_inverse_change_nothing(as_found):
    model, x = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), X.clone()
    with torch.no_grad():
        model[0].bias[2] = -1e6
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in pl.weights_of(model).items()}
    with as_found(model), pytest.raises(ValueError, match=r"inputs of .*weight have no inverse"):
        pl.least_squares(model, total, [x], masks, damping=0)


# ---- shares without a sort ----


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["many values", "ties", "zeros", "gone", "one layer", "all gone"])
def test_shares_of_many_scores_without_sorting_all(dtype, kind, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    layers = [
        torch.randn(size, generator=generator).abs().mul(scale).to(dtype)
        for size, scale in ((4000, 1), (300, 7), (1, 1), (900, 1e-3))
    ]
    if kind == "ties":
        layers = [(8 * layer).round() for layer in layers]
    if kind == "zeros":
        layers = [layer.masked_fill(layer < layer.median(), 0) for layer in layers]
    gone = 0
    if kind == "gone":
        for layer in layers:
            layer[torch.rand(len(layer), generator=generator) < 0.2] = -math.inf
        gone = sum(int((layer == -math.inf).sum()) for layer in layers)
    if kind == "one layer":
        layers = layers[:1]
    if kind == "all gone":
        layers = [torch.full_like(layer, -math.inf) for layer in layers]
    total, searched = sum(map(len, layers)), []
    inner = exact._near_the_threshold

    def watched(*args):
        result = inner(*args)
        searched.append(sum(map(len, result[0])))
        return result

    monkeypatch.setattr(exact, "_near_the_threshold", watched)
    for share in (0, 0.01, 0.3, 0.8, 0.99, 1):
        count = gone + round(share * (total - gone)) if kind != "all gone" else total
        expected = exact.count_lowest_shares(layers, count)
        monkeypatch.setattr(exact, "SORTED", 0)
        monkeypatch.setattr(exact, "PART", 77)
        assert exact.count_lowest_shares(layers, count) == expected and sum(expected) == count
        monkeypatch.undo()
        monkeypatch.setattr(exact, "_near_the_threshold", watched)
    if kind == "many values":
        assert max(searched) < total / 5
    if kind == "gone":
        monkeypatch.setattr(exact, "SORTED", 0)
        with pytest.raises(
            ValueError, match=f"{gone} units are pruned already but only 5 are to be"
        ):
            exact.count_lowest_shares(layers, 5)


@pytest.mark.parametrize("few", [0, 16])
def test_inside_groups_ties_go_in_order(few, monkeypatch):
    monkeypatch.setattr(exact, "FEW", few)
    monkeypatch.setattr(exact, "PART", 20)
    for levels, count in itertools.product((1, 2, 9), range(8)):
        groups = torch.randint(levels, (40, 7)).to(torch.bfloat16)
        lowest = groups.argsort(dim=1, stable=True)[:, :count]
        expected = torch.ones(40, 7, dtype=torch.bool).scatter_(1, lowest, False)
        assert exact.keep_highest_inside(groups, count).equal(expected)
        assert exact.keep_highest_inside(groups.T.contiguous().T, count).equal(expected)


# ---- where a weight's inputs lie ----

TRANSPOSED = {
    "1d": nn.ConvTranspose1d(8, 3, 5),
    "2d": nn.ConvTranspose2d(4, 6, 2),
    "3d": nn.ConvTranspose3d(8, 2, (1, 2, 3)),
    "grouped": nn.ConvTranspose2d(8, 6, 3, groups=2),
    "as many groups as outputs": nn.ConvTranspose1d(12, 3, 2, groups=3),
    "square": nn.ConvTranspose1d(4, 4, 4),
    "inside": nn.Sequential(nn.ConvTranspose1d(4, 2, 1), nn.Linear(8, 4), nn.ConvTranspose1d(4, 6, 3)),
}  # fmt: skip
each_transposed = pytest.mark.parametrize("model", TRANSPOSED.values(), ids=TRANSPOSED)


def lowest_of_each_output(layer, scores, size, count):
    """The mask by loops: of each output's inputs, in groups of `size`, `count` go (None: half)."""
    mask, scores = torch.ones_like(scores, dtype=torch.bool), scores.tolist()
    inside, outputs = layer.in_channels // layer.groups, layer.out_channels // layer.groups
    for group, output in itertools.product(range(layer.groups), range(outputs)):
        places = [*itertools.product(*map(range, mask.shape[2:]))]
        inputs = range(group * inside, (group + 1) * inside)
        if size:
            units = [
                [(i, output, *place) for i in inputs[start : start + size]]
                for place in places
                for start in range(0, inside, size)
            ]
        else:
            units = [[(i, output, *place) for i in inputs for place in places]]
        for unit in units:
            values = [functools.reduce(lambda s, i: s[i], where, scores) for where in unit]
            order = sorted(range(len(unit)), key=values.__getitem__)
            for k in order[: len(unit) // 2 if count is None else count]:
                mask[unit[k]] = False
    return mask


@each_transposed
@pytest.mark.parametrize(
    "grain, size, sparsity", [(pl.n_of_m(2, 4), 4, 0.5), (pl.n_of_m(3, 4), 4, 0.25), (pl.in_rows, 0, 0.5)],
    ids=["2:4", "3:4", "rows"],
)  # fmt: skip
def test_units_inside_transposed_convolutions_run_along_their_inputs(model, grain, size, sparsity):
    scores = pl.random(model)
    layers = dict(model.named_modules())
    one, half = pl.select(scores, sparsity, grain=grain), pl.random(model, seed=2)
    for name, mask in one.items():
        layer = layers[name.rpartition(".")[0]]
        assert type(mask) is torch.Tensor and mask.shape == layer.weight.shape
        assert mask.is_contiguous()
        if isinstance(layer, nn.Linear):
            assert mask.equal(pl.select({"": scores[name].clone()}, sparsity, grain=grain)[""])
            continue
        count = round(sparsity * size) if size else None
        assert mask.equal(lowest_of_each_output(layer, scores[name], size, count))
    # what is pruned stays pruned, in the same groups, whatever the masks' type
    again = pl.select(half, sparsity, grain=grain, within=one)
    assert all(mask.equal(again[name]) for name, mask in one.items())
    # and all other grains see the tensor as it lies
    for other in (pl.element, pl.row, pl.block(2, 1)):
        found = pl.select(scores, 0.5, grain=other)
        bare = {name: torch.tensor(score.tolist()) for name, score in scores.items()}
        for name, mask in pl.select(bare, 0.5, grain=other).items():
            assert mask.equal(found[name]) and type(found[name]) is torch.Tensor


def up(groups=1):
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.ConvTranspose1d(8, 4, 3, groups=groups, bias=False), nn.ReLU()),
        nn.ConvTranspose1d(4, 2, 2),
    )


def square(model, batch):
    return model(batch).square().mean()


def moved(model, loss, batches):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pl.movement(model, optimizer) as scores:
        loss(model, batches[0]).backward()
        optimizer.step()
    return scores


CRITERIA = {
    "magnitude": lambda m, *_: pl.magnitude(m),
    "random": lambda m, *_: pl.random(m),
    "gradient": pl.gradient,
    "taylor": pl.taylor,
    "taylor, abs": lambda *a: pl.taylor(*a, reading="abs"),
    "snip": pl.snip,
    "grasp": pl.grasp,
    "fisher": pl.fisher,
    "synflow": lambda m, loss, batches: pl.synflow(m, batches[0]),
    "movement": moved,
    "computed from others": lambda m, *_: {
        n: torch.where(s > 0.1, -2 * s.exp(), s).half() for n, s in pl.magnitude(m).items()
    },
    "copied": lambda m, *_: copy.deepcopy(pl.random(m)),
    "pickled": lambda m, *_: pickle.loads(pickle.dumps(pl.random(m))),
    "plain name of a compiled one": lambda m, *_: pl.random(torch.compile(m), pl.prunable(m)),
}


@pytest.mark.parametrize("score", CRITERIA.values(), ids=CRITERIA)
@pytest.mark.parametrize("groups", [1, 2])
def test_scores_of_transposed_convolutions_know_their_inputs(score, groups):
    model, batches = up(groups), [torch.randn(5, 8, 6)]
    scores = score(model, square, batches)
    masks = pl.select(scores, 0.5, grain=pl.n_of_m(2, 4))
    for name, layer in (("0.weight", model[0]), ("2.weight", model[2])):
        assert masks[name].equal(lowest_of_each_output(layer, scores[name], 4, 2))


def own(model):
    return {name: weight.detach().abs() for name, weight in pl.weights_of(model).items()}


def test_scores_of_ones_own_are_told_where_a_model_is_at_hand():
    model = up(2)
    expected = pl.select(pl.magnitude(model), 0.5, grain=pl.n_of_m(2, 4))
    seen = []
    pl.scan(
        model, lambda m: seen.append(pl.masks_of(m)) or 0.0, [0.5], scores=own(model), grain=pl.n_of_m(2, 4)
    )  # fmt: skip
    assert seen[1]["0.weight"].equal(expected["0.weight"])
    assert seen[2]["2.weight"].equal(expected["2.weight"])
    task = types.SimpleNamespace(build=lambda seed: up(2), train=lambda model, **_: None)
    criterion = lambda task, model, seed: own(model)  # noqa: E731
    for method in (
        pl.prune_method(criterion, grain=pl.n_of_m(2, 4)),
        pl.before_training(criterion, grain=pl.n_of_m(2, 4)),
    ):
        found = pl.masks_of(method(task, up(2), 0.5, 0))
        assert all(mask.equal(expected[name]) for name, mask in found.items())


def test_groups_do_not_reach_across_those_of_a_transposed_convolution():
    model = nn.ConvTranspose1d(4, 4, 3, groups=2)  # two inputs for each output
    with pytest.raises(ValueError, match=r"weight: m = 4 does not divide the input .*\(4, 2, 3\)"):
        pl.select(pl.magnitude(model), 0.5, grain=pl.n_of_m(2, 4))
    masks = pl.select(pl.magnitude(model), 0.5, grain=pl.n_of_m(1, 2))
    assert masks["weight"].unflatten(0, (2, 2)).sum(1).eq(1).all()


def test_what_is_no_longer_of_a_weights_shape_is_plain():
    scores = pl.magnitude(nn.ConvTranspose1d(4, 4, 3, groups=2))["weight"]
    assert (scores * 2).groups == (1 - scores).groups == scores.clone().groups == 2
    scores += 1
    assert scores.groups == torch.add(torch.ones(4, 2, 3), other=scores).groups == 2
    for other in (scores.sum(), scores[0], scores.flatten(), scores.sort().values, scores.mT):
        assert type(other) is torch.Tensor


def test_channels_of_transposed_convolutions_are_pooled_as_before():
    model = nn.Sequential(nn.Conv1d(2, 4, 1), nn.ConvTranspose1d(4, 4, 2), nn.Conv1d(4, 2, 1))
    found = pl.coupled(model, torch.rand(1, 2, 5))
    pooled = pl.pool(pl.magnitude(model), found)
    weights = pl.weights_of(model, ["1.weight"])["1.weight"].detach()
    assert {type(s) for s in pooled.values()} == {torch.Tensor}
    assert pooled["1.weight"].equal(pl.pool({"1.weight": weights.abs()}, found)["1.weight"])
