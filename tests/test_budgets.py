"""Budgets: how many units each layer gives up. The total is always exact."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import pruninglib as pl

sizes = st.lists(
    st.tuples(st.integers(1, 40), st.integers(1, 40), st.sampled_from([(), (3, 3), (1, 1)])),
    min_size=1,
    max_size=6,
)


@st.composite
def layers(draw):
    """Shapes and units of some layers, in whole rows or in elements."""
    shapes = {f"l{i}": torch.Size((o, i_, *k)) for i, (o, i_, k) in enumerate(draw(sizes))}
    rows = draw(st.booleans())
    units = {n: s[0] if rows else math.prod(s) for n, s in shapes.items()}
    return shapes, units


def scan_of(units, seed):
    """Curves like measured ones: in coarse steps, flat in places, not monotone."""
    generator = torch.Generator().manual_seed(seed)
    grid = [0.0, 0.25, 0.5, 0.9, 0.99]
    return {
        n: dict(zip(grid, torch.rand(5, generator=generator).mul(8).round().div(8).tolist(),
                    strict=True))
        for n in units
    }  # fmt: skip


def scores_for(units):
    """Scores of one value per unit, the same for a layer whatever the order of layers."""
    return {
        name: torch.rand(count, generator=torch.Generator().manual_seed(sum(name.encode())))
        for name, count in units.items()
    }


def kept(budget, shapes, units, pruned):
    groups = budget(scores_for(units), shapes, pruned)
    assert sorted(n for names, _ in groups for n in names) == sorted(units)
    for names, count in groups:
        assert 0 <= count <= sum(units[n] for n in names) and isinstance(count, int)
    assert sum(count for _, count in groups) == pruned
    return {names[0]: units[names[0]] - count for names, count in groups}


BUDGETS = {
    "uniform": lambda units, seed: pl.uniform,
    "erk": lambda units, seed: pl.erk,
    "scan": lambda units, seed: pl.from_scan(scan_of(units, seed)),
    "lamp": lambda units, seed: pl.lamp,
}
each_budget = pytest.mark.parametrize("make", BUDGETS.values(), ids=BUDGETS)


@each_budget
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_totals_are_exact(make, some, sparsity, seed):
    shapes, units = some
    kept(make(units, seed), shapes, units, round(sparsity * sum(units.values())))


@each_budget
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_pruning_more_never_gives_a_layer_more(make, some, sparsity, seed):
    shapes, units = some
    total, budget = sum(units.values()), make(units, seed)
    start = round(sparsity * total)
    counts = [kept(budget, shapes, units, p) for p in range(start, min(total + 1, start + 20))]
    for before, after in itertools.pairwise(counts):
        assert all(after[n] <= before[n] for n in units)


@each_budget
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_order_of_layers_does_not_matter(make, some, sparsity, seed):
    shapes, units = some
    pruned = round(sparsity * sum(units.values()))
    budget, backwards = make(units, seed), dict(reversed(units.items()))
    assert kept(budget, shapes, units, pruned) == kept(budget, shapes, backwards, pruned)


def test_global_budget_ranks_all_layers_together():
    scores = {"a": torch.rand(3), "b": torch.rand(4)}
    assert pl.global_budget(scores, {}, 5) == [(["a", "b"], 5)]


@given(layers(), st.floats(0, 1))
def test_uniform_gives_every_layer_the_same_sparsity(some, sparsity):
    shapes, units = some
    pruned = round(sparsity * sum(units.values()))
    share = 1 - pruned / sum(units.values())
    for name, count in kept(pl.uniform, shapes, units, pruned).items():
        assert abs(count - share * units[name]) <= 1


def test_uniform_reports_what_small_layers_allow():
    scores = {"a": torch.rand(3), "b": torch.rand(5, 7)}
    masks = pl.select(scores, 0.5, budget=pl.uniform)
    assert [int((~m).sum()) for m in masks.values()] == [1, 18]


def erk_reference(shapes, units, total):
    """As in RigL's code: make layers dense one after the other until no density is above one."""
    raw = {n: sum(s) / math.prod(s) for n, s in shapes.items()}
    dense = set()
    while True:
        left = total - sum(units[n] for n in dense)
        epsilon = left / (sum(raw[n] * units[n] for n in units if n not in dense) or 1)
        above = {n for n in units if n not in dense and epsilon * raw[n] > 1}
        if not above:
            return {n: 1.0 if n in dense else epsilon * raw[n] for n in units}
        dense |= {max(above, key=raw.get)}


@given(layers(), st.floats(0, 1))
def test_erk_densities_are_capped_at_one_and_the_rest_redistributed(some, sparsity):
    shapes, units = some
    total = sum(units.values()) - round(sparsity * sum(units.values()))
    counts = kept(pl.erk, shapes, units, sum(units.values()) - total)
    for name, density in erk_reference(shapes, units, total).items():
        # rounding every layer to whole units moves each by less than one, and the others too
        assert abs(counts[name] - density * units[name]) <= len(units)


def test_erk_by_hand():
    shapes = {"wide": torch.Size((100, 100)), "narrow": torch.Size((10, 10))}
    units = {"wide": 10_000, "narrow": 100}
    # density = c (rows + columns) / (rows · columns): 200 c and 20 c weights are kept
    assert kept(pl.erk, shapes, units, 10_100 - 110) == {"wide": 100, "narrow": 10}
    # 20 c would be above 100: narrow stays whole, wide takes the rest
    assert kept(pl.erk, shapes, units, 10_100 - 2_100) == {"wide": 2_000, "narrow": 100}
    kernel = {"a": torch.Size((10, 5, 3, 3)), "b": torch.Size((10, 13))}
    units = {"a": 450, "b": 130}  # 10 + 5 + 3 + 3 = 21 against 23
    assert kept(pl.erk, kernel, units, 580 - 44) == {"a": 21, "b": 23}


# ---- from a scan ----


def line(fall):
    return {s: 1 - fall * s for s in (0.0, 0.25, 0.5, 1.0)}


def two(first, second):
    """Units kept of two layers of 100, of which 75 are pruned."""
    shapes = {"a": torch.Size((10, 10)), "b": torch.Size((10, 10))}
    return kept(pl.from_scan({"a": first, "b": second}), shapes, {"a": 100, "b": 100}, 75)


@pytest.mark.parametrize(
    "first, second, expected",
    [
        (line(1), line(2), {"a": 50, "b": 75}),  # equal damage: half as far where twice as steep
        (line(1), line(1), {"a": 62, "b": 63}),
        (line(0), line(1), {"a": 25, "b": 100}),  # a robust layer gives all it can
        (line(0), line(0), {"a": 62, "b": 63}),
        ({s: 1 - s**2 for s in (0.0, 0.5, 1.0)}, line(1), {"a": 50, "b": 75}),
        # a metric that recovers does not undo the damage before
        ({0.0: 1, 0.25: 0.5, 0.5: 1, 1.0: 0.5}, line(1), {"a": 75, "b": 50}),
        # beyond what was scanned a layer goes last, however much it bore until there
        ({0.0: 1, 0.1: 0.99}, line(1), {"a": 90, "b": 35}),
        ({0.0: 1, 0.1: 0.9}, {0.0: 1, 0.1: 0.8}, {"a": 62, "b": 63}),
        # nothing but the dense metric is known
        ({0.0: 1}, {0.0: 1}, {"a": 62, "b": 63}),
        # only differences count, not the level of the metric
        ({s: v - 50 for s, v in line(1).items()}, line(2), {"a": 50, "b": 75}),
    ],
)
def test_every_layer_does_equal_damage(first, second, expected):
    counts = two(first, second)
    assert all(abs(counts[n] - expected[n]) <= 1 for n in expected), counts


def test_a_layer_that_bears_more_gives_more():
    counts = two(line(0.1), line(1))
    assert counts["a"] < 40 < 85 < counts["b"]


def test_a_scan_of_other_layers_is_an_error():
    with pytest.raises(ValueError, match="no entry for b, c: scan it too"):
        pl.from_scan({"a": line(1)})(scores_for({"c": 1, "a": 1, "b": 1}), {}, 1)


@pytest.mark.parametrize(
    "values, message",
    [
        ({0.5: 1.0}, "scan of a lacks sparsity 0"),
        ({0.0: 1.0, 0.5: math.nan}, r"scan of a .*nan.*0\.5"),
        ({0.0: 1.0, 0.9: -math.inf}, r"scan of a .*-inf.*0\.9"),
    ],
)
def test_a_scan_that_no_budget_can_be_made_from(values, message):
    with pytest.raises(ValueError, match=message):
        pl.from_scan({"a": values})
