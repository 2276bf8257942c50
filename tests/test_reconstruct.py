"""Pruning that repairs, against dense least squares in float64."""

import copy
import re

import pytest
import torch
from torch import nn

import pruninglib as pl
from pruninglib.prune import reconstruct as module
from pruninglib.prune.reconstruct import repair


def mixed(samples, columns, dtype=torch.float64):
    """Inputs that are correlated and of different sizes."""
    x = torch.randn(samples, columns, dtype=torch.float64)
    x = x @ torch.randn(columns, columns, dtype=torch.float64) * torch.rand(columns).add(0.1)
    return x.to(dtype)


def problem(rows=5, columns=12, samples=40):
    x = mixed(samples, columns)
    return torch.randn(rows, columns, dtype=torch.float64), x, x.T @ x


def damped(moments, damping):
    return moments + damping * moments.diagonal().mean() * torch.eye(len(moments)).to(moments)


def slow_repair(weight, moments, choose, block):
    """Column after column: the optimum for all columns to the right, solved anew for each.

    choose(scores, block's first and last column) -> what is pruned in the block.
    """
    weight, columns = weight.clone(), weight.shape[1]
    mask = torch.ones_like(weight, dtype=torch.bool)
    for start in range(0, columns, block):
        part = range(start, min(start + block, columns))
        inverses = [torch.linalg.inv(moments[j:, j:])[0, 0] for j in part]
        scores = weight[:, part.start : part.stop] ** 2 / torch.stack(inverses)
        mask[:, part.start : part.stop] = ~choose(scores, part.start, part.stop)
        for j in part:
            gone, right = ~mask[:, j], slice(j + 1, None)
            if j + 1 < columns:
                shares = torch.linalg.solve(moments[right, right], moments[right, j])
                weight[gone, right] += weight[gone, j : j + 1] * shares
            weight[gone, j] = 0
    return weight, mask


def of_block(sparsity):
    def choose(scores, start, stop):
        rows = len(scores)
        count = round(sparsity * rows * stop) - round(sparsity * rows * start)
        gone = torch.zeros(scores.numel(), dtype=torch.bool)
        gone[scores.flatten().sort().indices[:count]] = True
        return gone.view_as(scores)

    return choose


def of_row(count):
    def choose(scores, start, stop):
        return scores.argsort(dim=1).argsort(dim=1) < count

    return choose


GRAINS = {
    "element": (pl.element, 0.6, 4, of_block(0.6), 4),
    "element, ragged": (pl.element, 0.45, 5, of_block(0.45), 5),
    "element, one column at a time": (pl.element, 0.5, 1, of_block(0.5), 1),
    "element, all at once": (pl.element, 0.5, 128, of_block(0.5), 12),
    "2:4": (pl.n_of_m(2, 4), 0.5, 128, of_row(2), 4),
    "1:3": (pl.n_of_m(1, 3), 2 / 3, 1, of_row(2), 3),
    "in rows": (pl.in_rows, 0.3, 1, of_row(4), 12),
}


@pytest.mark.parametrize("damping", [0, 0.1])
@pytest.mark.parametrize("case", GRAINS.values(), ids=GRAINS)
def test_equals_dense_solves(case, damping):
    grain, sparsity, block, choose, width = case
    weight, _, moments = problem()
    before = weight.clone(), moments.clone()
    found, mask = repair(weight, moments, sparsity, grain, damping, block)
    expected, expected_mask = slow_repair(weight, damped(moments, damping), choose, width)
    assert mask.equal(expected_mask) and 0 < mask.sum() < mask.numel()
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert (found[~mask] == 0).all() and not found[~mask].signbit().any()
    assert before[0].equal(weight) and before[1].equal(moments)


@pytest.mark.parametrize("case", GRAINS.values(), ids=GRAINS)
def test_lies_between_the_optimum_and_plain_zeroing(case):
    """The optimum is a bound. Zeroing is none: what a repair lays on a column is lost with it."""
    grain, sparsity, block, _, _ = case
    weight, x, moments = problem()
    found, mask = repair(weight, moments, sparsity, grain, 0, block)
    best = torch.zeros_like(weight)
    for row, (w, kept) in enumerate(zip(weight, mask, strict=True)):
        best[row, kept] = torch.linalg.lstsq(x[:, kept], x @ w).solution
    low, error, high = (
        float((x @ (weight - w).T).square().sum()) for w in (best, found, weight * mask)
    )
    assert low * (1 - 1e-9) <= error < high


def test_a_weight_of_the_first_column_is_made_good_as_well_as_can_be():
    weight, x, moments = problem(rows=1)
    weight[0, 0] /= 1e3
    found, mask = repair(weight, moments, 1 / 12, pl.element, 0, 128)
    assert not mask[0, 0]
    best = torch.linalg.lstsq(x[:, 1:], x @ weight[0]).solution
    torch.testing.assert_close(found[0, 1:], best, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("shape", [(3, 10), (1, 7), (8, 1)])
def test_exact_counts(shape):
    weight, _, moments = problem(*shape)
    total = weight.numel()
    for block in (1, 2, 3, 5, 128):
        for sparsity in (0, 0.01, 0.05, 0.15, 0.29, 0.5, 0.55, 0.75, 0.999, 1):
            found, mask = repair(weight, moments, sparsity, pl.element, 0.01, block)
            assert int((~mask).sum()) == round(sparsity * total) == int((found == 0).sum())


def test_the_size_of_a_block_means_nothing_to_other_grains():
    weight, _, moments = problem()
    for grain, sparsity in ((pl.n_of_m(2, 4), 0.5), (pl.in_rows, 0.5)):
        one, other = (repair(weight, moments, sparsity, grain, 0.01, b) for b in (1, 128))
        assert one[0].equal(other[0]) and one[1].equal(other[1])
        kept = grain.split(one[1]).sum(dim=1)
        assert (kept == grain.split(weight).shape[1] // 2).all()


# ---- whole models ----


class Backwards(nn.Module):
    """Layers in another order than that in which they run."""

    def __init__(self):
        super().__init__()
        self.last, self.head, self.first = nn.Linear(6, 4), nn.Conv1d(4, 3, 1), nn.Linear(8, 6)

    def forward(self, x):
        return self.head(self.last(self.first(x).relu()).mT).mean(2)


def run(model, x):
    return model(x).sum().detach()


@pytest.mark.parametrize("frozen", [False, True])
def test_later_layers_see_what_the_pruned_ones_before_them_give(frozen):
    model = Backwards().double().requires_grad_(not frozen)
    batches = [mixed(n * 5, 8).view(n, 5, 8) for n in (7, 3)]  # 50 positions
    before = copy.deepcopy(model)
    masks = pl.reconstruct(model, run, iter(batches), 0.5, damping=0.02, block=3)
    assert list(masks) == ["last.weight", "first.weight"]
    x = torch.cat(batches).flatten(0, 1)
    for name in ("first", "last"):
        expected, mask = slow_repair(
            before.get_submodule(name).weight.detach(), damped(x.T @ x, 0.02), of_block(0.5), 3
        )
        layer = model.get_submodule(name)
        torch.testing.assert_close(layer.weight.detach(), expected, rtol=1e-8, atol=1e-9)
        assert mask.equal(masks[f"{name}.weight"])
        x = layer(x).relu().detach()
    for name, tensor in model.state_dict().items():
        assert name in masks or tensor.equal(before.state_dict()[name])
    assert all(p.requires_grad is not frozen and p.grad is None for p in model.parameters())


def test_only_the_names_asked_for_and_all_else_as_found(as_found):
    model, x = (
        nn.Sequential(nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Linear(6, 4)),
        mixed(30, 8).float(),
    )
    before = copy.deepcopy(model)

    def loss(model, x):
        return run(model, x) + torch.rand(()) * 0

    with as_found(model[0]), as_found(model[1]):
        masks = pl.reconstruct(model, loss, [x], 0.5, names=["2.weight"])
    assert list(masks) == ["2.weight"] and masks["2.weight"].equal(model[2].weight != 0)
    assert model[2].bias.equal(before[2].bias) and model[2].training
    assert pl.masks_of(model, ["2.weight"])["2.weight"].sum() == 12


def test_repairs_more_than_masking_by_itself():
    """The point of it all: by the layer's own outputs and by the model's."""
    model, x = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)), mixed(300, 16).float()
    target, masked, repaired = model(x).detach(), copy.deepcopy(model), copy.deepcopy(model)
    masks = pl.reconstruct(repaired, run, [x], 0.6)
    pl.apply(masked, masks)
    by_mask, by_repair = ((m(x) - target).square().mean() for m in (masked, repaired))
    assert by_repair < by_mask / 2


@pytest.mark.parametrize("grain, sparsity", [(pl.element, 0.6), (pl.n_of_m(2, 4), 0.5)])
def test_half_precision_keeps_its_type_and_its_zeros(grain, sparsity):
    model, x = nn.Linear(8, 6, dtype=torch.bfloat16), mixed(50, 8, torch.bfloat16)
    weight, wide = model.weight.detach().double(), x.double()
    masks = pl.reconstruct(model, run, [x], sparsity, grain=grain)
    expected, mask = repair(weight, wide.T @ wide, sparsity, grain, 0.01, 128)
    assert model.weight.equal(expected.bfloat16()) and masks["weight"].equal(mask)
    assert not model.weight[~mask].any()


def test_a_shared_layer_answers_for_all_its_inputs():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).relu())

    model, x = Shared().double(), mixed(40, 6)
    seen = torch.cat([x, model.a(x).relu().detach()])
    expected, mask = repair(model.a.weight.detach(), seen.T @ seen, 0.5, pl.element, 0.01, 128)
    masks = pl.reconstruct(model, run, [x], 0.5)
    assert model.b.weight is model.a.weight and list(masks) == ["a.weight"]
    torch.testing.assert_close(model.a.weight.detach(), expected)
    assert masks["a.weight"].equal(mask)


@pytest.mark.parametrize("dead", ["column", "all"])
def test_inputs_that_are_always_zero(dead):
    model, x = nn.Linear(8, 4).double(), mixed(30, 8)
    x[:, slice(None) if dead == "all" else 3] = 0
    before = model.weight.detach().clone()
    masks = pl.reconstruct(model, run, [x], 0.5, block=3 if dead == "all" else 8)
    kept = masks["weight"]
    assert kept.sum() == 16 and model.weight.isfinite().all()
    if dead == "all":  # nothing to go by but size
        assert model.weight[kept].equal(before[kept])
    else:
        assert not kept[:, 3].any()


def test_dead_inputs_without_damping(as_found):
    """They show in the second layer, when the first one is done: it comes back."""
    model, x = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)), mixed(30, 8).float()
    with torch.no_grad():
        model[0].bias[2] = -1e6
    message = r"the inputs of 2\.weight have no inverse: raise damping"
    with as_found(model), pytest.raises(ValueError, match=message):
        pl.reconstruct(model, run, [x], 0.5, damping=0)


def test_a_failure_midway_changes_nothing(as_found, monkeypatch):
    calls = []

    class Stop(BaseException):
        pass

    def failing(*args):
        calls.append(args)
        if len(calls) == 2:
            raise Stop
        return repair(*args)

    monkeypatch.setattr(module, "repair", failing)
    model = nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 4), nn.Linear(4, 2))
    with as_found(model), pytest.raises(Stop):
        pl.reconstruct(model, run, ONE, 0.5)


ONE = [torch.randn(5, 8)]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sparsity": 1.1}, "sparsity is 1.1, but must lie in [0, 1]"),
        *(({"grain": grain}, f"the grain is {grain.name}, but must be element, n_of_m or in_rows")
          for grain in (pl.row, pl.channel, pl.block(2, 2))),
        ({"grain": pl.n_of_m(2, 4)}, "1.weight: m = 4 does not divide the input dimension of (4, 6)"),
        ({"grain": pl.n_of_m(1, 2), "sparsity": 0.6}, "1 of 2 prunes exactly 0.5, but sparsity is 0.6"),
        ({"names": ["2.weight"]}, "2.weight is not the weight of Linear layers alone"),
        ({"names": ["3.weight"]}, "no input reached 3.weight"),
        ({"names": []}, "names is empty"),
        ({"batches": []}, "batches is empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_changes_nothing(options, message, as_found, monkeypatch):
    monkeypatch.setattr(module, "repair", lambda *_: pytest.fail("began all the same"))
    layers = nn.Linear(8, 6), nn.Linear(6, 4), nn.Conv1d(1, 2, 1), nn.Linear(4, 4)
    model = nn.ModuleList(layers)
    options = {"batches": ONE, "sparsity": 0.5, "names": ["0.weight", "1.weight"]} | options
    with as_found(model), pytest.raises(ValueError, match=re.escape(message)):
        pl.reconstruct(model, lambda m, x: m[2](m[1](m[0](x))[:, None]).sum(), **options)
