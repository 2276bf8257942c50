"""Budgets: how many units each layer gives up. The total is always exact."""

import itertools
import math
from fractions import Fraction

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
FLOOR = 0.1
FLOORED = {"floor global": lambda units, seed: pl.with_floor(pl.global_budget, FLOOR)} | {
    f"floor {name}": lambda units, seed, make=make: pl.with_floor(make(units, seed), FLOOR)
    for name, make in BUDGETS.items()
}


def most(units, floor=FLOOR):
    """So many units each layer may lose, in whole numbers: a tenth of 30 is 3."""
    return {n: u - max(1, -(-round(floor * 100) * u // 100)) for n, u in units.items()}


@pytest.mark.parametrize("name", BUDGETS | FLOORED)
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_totals_are_exact_and_order_does_not_matter(name, some, sparsity, seed):
    shapes, units = some
    floors = most(units) if name in FLOORED else units
    pruned, budget = round(sparsity * sum(floors.values())), (BUDGETS | FLOORED)[name](units, seed)
    counts = kept(budget, shapes, units, pruned)
    assert counts == kept(budget, shapes, dict(reversed(units.items())), pruned)
    assert name in BUDGETS or all(counts[n] >= units[n] - floors[n] for n in units)


@pytest.mark.parametrize("name", BUDGETS | FLOORED)
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_pruning_more_never_gives_a_layer_more(name, some, sparsity, seed):
    shapes, units = some
    total = sum((most(units) if name in FLOORED else units).values())
    budget, start = (BUDGETS | FLOORED)[name](units, seed), round(sparsity * total)
    counts = [kept(budget, shapes, units, p) for p in range(start, min(total + 1, start + 10))]
    for before, after in itertools.pairwise(counts):
        assert all(after[n] <= before[n] for n in units)


def test_global_budget_ranks_all_layers_together():
    scores = {"a": torch.rand(3), "b": torch.rand(4)}
    assert pl.global_budget(scores, {}, 5) == [(["a", "b"], 5)]


@given(layers(), st.floats(0, 1))
def test_uniform_gives_every_layer_the_same_sparsity(some, sparsity):
    """There is one fraction that, rounded to whole units, is what every layer keeps."""
    shapes, units = some
    counts = kept(pl.uniform, shapes, units, round(sparsity * sum(units.values())))
    least = max((count - 0.5) / units[n] for n, count in counts.items())
    most = min((count + 0.5) / units[n] for n, count in counts.items())
    assert least <= most + 1e-12


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


# ---- no layer below its floor ----


def lowest(units):
    """Sort by score, then by name and position: [(score, name, position), ...]."""
    scores = scores_for(units)
    return sorted((v, n, i) for n, s in scores.items() for i, v in enumerate(s.tolist()))


def counted(ranking, units):
    return {n: units[n] - sum(name == n for _, name, _ in ranking) for n in units}


@given(layers(), st.floats(0, 1))
def test_a_floor_under_the_global_budget_is_the_constrained_optimum(some, sparsity):
    """The best of every layer are safe; all others are ranked together."""
    shapes, units = some
    floors, ranking = most(units), lowest(units)
    own = {n: [unit for unit in ranking if unit[1] == n] for n in units}
    safe = {unit for n in units for unit in own[n][floors[n] :]}
    pruned = round(sparsity * sum(floors.values()))
    expected = counted([unit for unit in ranking if unit not in safe][:pruned], units)
    assert kept(pl.with_floor(kept=FLOOR), shapes, units, pruned) == expected


@pytest.mark.parametrize("name", BUDGETS)
@given(layers(), st.floats(0, 1), st.integers(0, 99))
def test_layers_above_their_floor_share_what_the_others_do_not_give(name, some, sparsity, seed):
    shapes, units = some
    floors, budget = most(units), BUDGETS[name](units, seed)
    pruned = round(sparsity * sum(floors.values()))
    plain = kept(budget, shapes, units, pruned)
    found = kept(pl.with_floor(budget, FLOOR), shapes, units, pruned)
    floor = {n: units[n] - floors[n] for n in units}
    if all(plain[n] >= floor[n] for n in units):
        assert found == plain, "no floor binds"
    assert all(found[n] <= max(plain[n], floor[n]) for n in units)


def test_floors_by_hand():
    shapes, units = {"a": torch.Size([30]), "b": torch.Size([7])}, {"a": 30, "b": 7}
    assert kept(pl.with_floor(pl.uniform, 0.1), shapes, units, 33) == {"a": 3, "b": 1}
    assert kept(pl.with_floor(pl.uniform, 0.0), shapes, units, 35) == {"a": 1, "b": 1}
    assert kept(pl.with_floor(pl.uniform, 1.0), shapes, units, 0) == units
    scores = {"a": torch.tensor([5.0, 6, 7, 8]), "b": torch.tensor([1.0, 2, 3, 4])}
    masks = pl.select(scores, 0.5, budget=pl.with_floor(kept=0.5))
    assert all(m.tolist() == [False, False, True, True] for m in masks.values())
    masks = pl.select(scores, 0.5, budget=pl.with_floor())
    assert [int(m.sum()) for m in masks.values()] == [3, 1]


@pytest.mark.parametrize("base", [pl.global_budget, pl.uniform, pl.lamp])
def test_floors_that_leave_too_few(base):
    scores, message = {"a": torch.rand(10), "b": torch.rand(3)}, "but the floors leave"
    with pytest.raises(ValueError, match=f"12 units are to be pruned, {message} 11: lower the"):
        pl.select(scores, 12 / 13, budget=pl.with_floor(base))
    with pytest.raises(ValueError, match=f"7 units are to be pruned, {message} 6"):
        pl.select(scores, 7 / 13, budget=pl.with_floor(base, 0.5))
    with pytest.raises(ValueError, match=r"kept is 1\.5, but must lie in \[0, 1\]"):
        pl.with_floor(base, 1.5)


def test_floors_and_earlier_masks():
    """What a layer lost before, because others were at their floors, counts and stays lost."""
    scores = {"a": torch.rand(2), "b": torch.rand(40)}
    budget = pl.with_floor(pl.uniform, 0.1)
    first = pl.select(scores, 37 / 42, budget=budget)
    assert int((~first["b"]).sum()) == 36 > 40 * 37 / 42
    again = pl.select(scores, 37 / 42, budget=budget, within=first)
    assert all(again[n].equal(first[n]) for n in scores)
    dead = {"a": torch.zeros(2) > 0, "b": torch.ones(40) > 0}
    with pytest.raises(ValueError, match="2 units are pruned already but only 1 are to be"):
        pl.select(scores, 0.5, budget=budget, within=dead)


# ---- shares of what a layer still holds ----


def lamp_reference(scores, pruned):
    """By the definition, in fractions: w_u² / Σ w_v² over v from u on in ascending order."""
    ranking = []
    for name, score in scores.items():
        ascending = sorted(map(int, score.tolist()))
        for i, w in enumerate(ascending):
            total = sum(v * v for v in ascending[i:])
            ranking.append((Fraction(w * w, total) if total else Fraction(0), name, i))
    return counted(sorted(ranking)[:pruned], {n: len(s) for n, s in scores.items()})


whole = st.lists(st.integers(0, 20), min_size=1, max_size=30)


@given(st.dictionaries(st.sampled_from("abcd"), whole, min_size=1), st.floats(0, 1), st.data())
def test_lamp_equals_its_definition(values, sparsity, data):
    scores = {n: torch.tensor(v, dtype=torch.float32) for n, v in values.items()}
    pruned = round(sparsity * sum(map(len, values.values())))
    expected = lamp_reference(scores, pruned)
    groups = pl.lamp(scores, {}, pruned)
    assert {n: len(scores[n]) - count for (n,), count in groups} == expected
    # what is gone already is no part of its layer
    gone = {n: data.draw(st.integers(0, 3)) for n in scores}
    more = {n: torch.cat([s, torch.full((gone[n],), -math.inf)]) for n, s in scores.items()}
    again = pl.lamp(more, {}, pruned + sum(gone.values()))
    assert again == [(names, count + gone[names[0]]) for names, count in groups]


def test_lamp_by_hand():
    # shares: a 1/14, 4/13, 1; b 1/2 (100 of 200), 1; z, nothing but zeros, 0, 0
    scores = {"a": [1, 2, 3], "b": [10, 10], "z": [0, 0]}
    scales = {"a": 2**-14, "b": 64, "z": 1}  # squares beyond what float16 holds
    scores = {n: torch.tensor(s, dtype=torch.float16) * scales[n] for n, s in scores.items()}
    order = "zzaabab"  # the last two are ties
    for pruned in range(8):
        found = kept_of(pl.select(scores, pruned / 7, budget=pl.lamp))
        assert found == {n: len(s) - order[:pruned].count(n) for n, s in scores.items()}


def kept_of(masks):
    return {n: int(m.sum()) for n, m in masks.items()}


def test_lamp_refuses_negative_scores():
    scores = {"good": torch.ones(3), "bad": torch.tensor([1.0, -0.5])}
    with pytest.raises(ValueError, match="lamp squares the scores, but bad has negative ones"):
        pl.select(scores, 0.2, budget=pl.lamp)
