"""`select` prunes exactly what it says, whatever the scores."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pruninglib as pl
from pruninglib.prune import ranking

SHAPES = [(1,), (7,), (1, 1), (3, 4), (8, 5), (4, 1, 3, 3), (2, 3, 2, 2)]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
GRAINS = [pl.element, pl.row, pl.channel]
sparsities = st.one_of(st.floats(0, 1), st.sampled_from([0, 0.29, 0.5, 0.9, 1]))


@st.composite
def score_sets(draw, dtypes=DTYPES):
    """Scores of one to five layers: of few distinct values (many ties) or of many, signed."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    return {
        name: torch.randint(-levels, levels, draw(st.sampled_from(SHAPES)), generator=generator)
        .div(4)
        .to(draw(st.sampled_from(dtypes)))
        for name in draw(st.permutations("abcde"))[: draw(st.integers(1, 5))]
    }


def reference(scores, sparsity, grain=pl.element):
    """Plain and slow: sort all units by score, then name, then position; drop the first."""
    units = []
    for name, score in scores.items():
        values = score.double().reshape(len(score), -1).tolist()
        if grain is pl.element:
            values = [[v] for row in values for v in row]
        units += [(math.fsum(v) / len(v), name, i) for i, v in enumerate(values)]
    masks = {name: torch.ones_like(score, dtype=torch.bool) for name, score in scores.items()}
    for _, name, i in sorted(units)[: round(sparsity * len(units))]:
        (masks[name].view(-1) if grain is pl.element else masks[name])[i] = False
    return masks


def same(one, other):
    return list(one) == list(other) and all(one[n].equal(other[n]) for n in one)


def units(tensors, grain):
    return sum(t.numel() if grain is pl.element else len(t) for t in tensors.values())


def units_pruned(masks, grain):
    """Whole units only: a row that is pruned in part is a fault."""
    if grain is pl.element:
        return sum(int((~m).sum()) for m in masks.values())
    rows = [row for m in masks.values() for row in m]
    assert all(row.all() or not row.any() for row in rows)
    return sum(not row.any() for row in rows)


@given(score_sets(), sparsities, st.sampled_from(GRAINS))
def test_equals_sorting_everything(scores, sparsity, grain):
    masks = pl.select(scores, sparsity, grain=grain)
    assert same(masks, reference(scores, sparsity, grain))
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and mask.shape == scores[name].shape
        assert mask.is_contiguous() and mask.untyped_storage().nbytes() == mask.numel()


@given(score_sets(), sparsities, st.integers(1, 6), st.integers(2, 30))
def test_bracketing_equals_sorting_everything(scores, sparsity, small, sample):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "SMALL", max(small, sample))
        patch.setattr(ranking, "SAMPLE", sample)
        assert same(pl.select(scores, sparsity), reference(scores, sparsity))


@pytest.mark.parametrize("kind", ["bracket", "miss", "ties"])
def test_large_scores(kind, monkeypatch):
    searched, kth = [], ranking._kth
    monkeypatch.setattr(ranking, "_kth", lambda v, k, b: searched.append(len(v)) or kth(v, k, b))
    scores = torch.randn(ranking.SMALL * 2)
    if kind == "miss":  # what the sample looks at is nothing like the rest
        scores[:: len(scores) // ranking.SAMPLE] += 100
    if kind == "ties":
        scores = scores.mul(100).round()
    masks = pl.select({"a": scores[:60_000].view(100, 600), "b": scores[60_000:]}, 0.7)
    pruned = torch.cat([~masks["a"].flatten(), ~masks["b"]])
    expected = scores.sort(stable=True).indices[:140_000]
    assert pruned.nonzero().squeeze(1).equal(expected.sort().values)
    # the one path searches a few candidates, the other everything
    assert (searched[0] == len(scores)) if kind == "miss" else (searched[0] < len(scores) / 2)


@given(score_sets(), sparsities, sparsities, st.sampled_from(GRAINS))
def test_masks_only_shrink_as_sparsity_grows(scores, one, two, grain):
    low, high = (pl.select(scores, s, grain=grain) for s in sorted((one, two)))
    assert not any((high[n] & ~low[n]).any() for n in scores)


@given(score_sets(), sparsities, st.sampled_from([0.5, 4.0]))
def test_invariant_to_scale_and_repeatable(scores, sparsity, factor):
    masks = pl.select(scores, sparsity)
    assert same(masks, pl.select({n: s * factor for n, s in scores.items()}, sparsity))
    assert same(masks, pl.select(scores, sparsity))


@given(score_sets(), sparsities, st.sampled_from([pl.global_budget, pl.uniform, pl.erk]))
def test_layer_order_does_not_matter(scores, sparsity, budget):
    masks = pl.select(scores, sparsity, budget=budget)
    backwards = pl.select(dict(reversed(scores.items())), sparsity, budget=budget)
    assert list(backwards) == list(reversed(masks))
    assert same(masks, {n: backwards[n] for n in masks})


@given(
    score_sets(), sparsities, st.sampled_from(GRAINS), st.sampled_from([pl.uniform, pl.erk])
)  # fmt: skip
def test_budgets_prune_exactly(scores, sparsity, grain, budget):
    masks = pl.select(scores, sparsity, grain=grain, budget=budget)
    assert units_pruned(masks, grain) == round(sparsity * units(scores, grain))


def test_global_ranking_is_not_shifted_per_layer():
    scores = {"a": torch.tensor([10.0, 11.0]), "b": torch.tensor([1.0, 2.0])}
    masks = pl.select(scores, 0.5)
    assert masks["a"].tolist() == [True, True] and masks["b"].tolist() == [False, False]


def test_ties_prune_exactly_k_by_position():
    scores = torch.cat([torch.zeros(70), torch.ones(30)])
    mask = pl.select({"a": scores}, 0.5)["a"]
    assert mask.tolist() == [False] * 50 + [True] * 50
    # across layers: by name
    masks = pl.select({"b": torch.zeros(4), "a": torch.zeros(2, 2)}, 5 / 8)
    assert not masks["a"].any() and masks["b"].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "count, sparsity, pruned", [(100, 0.29, 29), (1000, 0.9, 900), (10, 0.5, 5), (7, 0, 0)]
)
def test_rounding_and_no_off_by_one(count, sparsity, pruned):
    mask = pl.select({"a": torch.arange(float(count))}, sparsity)["a"]
    assert mask.tolist() == [False] * pruned + [True] * (count - pruned)


def test_counts_do_not_overflow_in_half_precision():
    scores = {"a": torch.zeros(300, 300, dtype=torch.float16)}
    mask = pl.select(scores, 0.8)["a"]
    assert int((~mask).sum()) == 72_000
    layer = nn.Linear(300, 300).half()
    pl.apply(layer, {"weight": mask})
    found = pl.sparsity(layer)
    assert found.prunable == 0.8
    assert found.all == (72_000 + int((layer.bias == 0).sum())) / 90_300


def test_signed_scores_are_not_made_absolute():
    assert pl.select({"a": torch.tensor([-5.0, 1.0])}, 0.5)["a"].tolist() == [False, True]


@pytest.mark.parametrize("coarse, fine", ["ab", "ba"])
def test_dtypes_are_compared_without_rounding(coarse, fine):
    scores = {
        coarse: torch.tensor([1 - 2**-8, 1], dtype=torch.bfloat16),
        fine: torch.tensor([1 - 2**-20, 1 + 2**-20], dtype=torch.float64),
    }
    masks = pl.select(scores, 0.5)
    assert masks[coarse].tolist() == masks[fine].tolist() == [False, True]
    masks = pl.select(scores, 0.75)
    assert not masks[coarse].any() and masks[fine].tolist() == [False, True]


def test_long_rows_are_not_important_because_they_are_long():
    scores = {"long": torch.full((2, 100), 1.0), "short": torch.full((2, 2), 2.0)}
    masks = pl.select(scores, 0.5, grain=pl.row)
    assert not masks["long"].any() and masks["short"].all()


def test_rows_are_ranked_in_full_precision():
    score = torch.full((2, 4096), 1.0, dtype=torch.float16)
    score[1, 0] -= 0.5
    assert pl.select({"a": score}, 0.5, grain=pl.row)["a"][:, 0].tolist() == [True, False]


@pytest.mark.parametrize("layer", [
    nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(3, 5, 1),
    nn.ConvTranspose2d(3, 5, 2), nn.Conv1d(2, 1, 3), nn.Linear(3, 1), nn.Embedding(10, 4),
    nn.Conv3d(1, 2, 2), nn.Bilinear(2, 3, 4), nn.EmbeddingBag(6, 2),
], ids=lambda layer: type(layer).__name__)  # fmt: skip
@pytest.mark.parametrize("grain", [pl.element, pl.channel], ids=lambda g: g.name)
def test_layers_of_every_kind(layer, grain):
    scores = pl.magnitude(layer)
    units = layer.weight.numel() if grain is pl.element else len(layer.weight)
    for sparsity in (0, 0.5, 1):
        masks = pl.select(scores, sparsity, grain=grain)
        pl.apply(layer, masks)
        share = int((~masks["weight"]).sum()) / layer.weight.numel() * units
        assert share == round(sparsity * units)


# ---- pruning again ----


def test_no_compounding(model):
    first = pl.select(pl.magnitude(model), 0.5)
    pl.apply(model, first)
    again = pl.select(pl.magnitude(model), 0.5)
    assert same(again, first) and pl.sparsity(model).prunable == 0.5
    # with other scores, only `within` knows what is gone
    within = pl.select(pl.random(model, seed=1), 0.5, within=first)
    assert same(within, first)


@given(score_sets(), sparsities, sparsities, st.sampled_from(GRAINS))
def test_within_prunes_more_of_the_original(scores, one, two, grain):
    low, high = sorted((one, two))
    first = pl.select(scores, low, grain=grain)
    others = {n: -s for n, s in scores.items()}
    second = pl.select(others, high, grain=grain, within=first)
    assert not any((second[n] & ~first[n]).any() for n in scores)
    assert units_pruned(second, grain) == round(high * units(scores, grain))


def test_within_ignores_the_score_of_what_is_gone():
    scores = {"a": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    within = {"a": torch.tensor([False, True, True, True])}
    assert pl.select(scores, 0.5, within=within)["a"].tolist() == [False, False, True, True]


# ---- bad input ----

ONE = torch.ones(4)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan, math.inf, 90])
def test_sparsity_outside_the_unit_interval(sparsity):
    with pytest.raises(ValueError, match=rf"sparsity is {sparsity}, but must lie in \[0, 1\]"):
        pl.select({"a": ONE}, sparsity)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite(value):
    with pytest.raises(ValueError, match=r"scores of bad\.weight hold NaN or infinity"):
        pl.select({"good": ONE, "bad.weight": torch.tensor([1, value])}, 0.5)


@pytest.mark.parametrize(
    "scores, within, message",
    [
        ({}, None, "scores is empty"),
        ({"a": torch.ones(4, dtype=torch.int64)}, None, r"scores of a are torch.int64.*floating"),
        ({"a": ONE}, {"b": ONE > 0}, "no mask for a"),
        ({"a": ONE}, {"a": torch.ones(5) > 0}, r"mask of a in within has shape \(5,\).*\(4,\)"),
        ({"a": ONE}, {"a": ONE < 0}, "4 units are pruned already but only 2 are to be"),
    ],
)
def test_scores_and_masks_that_cannot_be_used(scores, within, message):
    with pytest.raises(ValueError, match=message):
        pl.select(scores, 0.5, within=within)


def test_a_kept_row_does_not_get_back_single_weights_pruned_before():
    scores = {"w": torch.tensor([[9.0, 8.0], [1.0, 2.0], [7.0, 6.0]])}
    within = {"w": torch.tensor([[False, True], [True, True], [True, True]])}
    mask = pl.select(scores, 1 / 3, grain=pl.row, within=within)["w"]
    assert mask.tolist() == [[False, True], [False, False], [True, True]]


def test_scores_of_no_weights_are_refused():
    with pytest.raises(ValueError, match=r"the scores of w have shape \(0, 3\): none to rank"):
        pl.select({"w": torch.ones(0, 3)}, 0.5)
