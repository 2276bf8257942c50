"""`select` prunes exactly what it says, whatever the scores, the grain and the budget."""

import copy
import math
import re

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pruninglib as pl
from pruninglib.base import exact

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
SHAPES = [(1,), (7,), (1, 1), (3, 5), (8, 5), (4, 1, 3, 3), (2, 3, 2, 2)]
TILED = [(4, 4), (2, 8), (6, 4, 1, 3), (2, 4, 3)]  # every grain fits these


def of_rows(o, i, p):
    return [[r * i * p + c for c in range(i * p)] for r in range(o)]


def of_blocks(height, width):
    return lambda o, i, p: [
        [(r + y) * i * p + c + x for y in range(height) for x in range(width)]
        for r in range(0, o, height)
        for c in range(0, i * p, width)
    ]


def of_groups(m):
    return lambda o, i, p: [
        [(r * i + c + k) * p + place for k in range(m)]
        for r in range(o)
        for place in range(p)
        for c in range(0, i, m)
    ]


# Plain and slow: which weights make up each unit of a tensor of (outputs, inputs, places).
RANKED = {
    pl.element: lambda o, i, p: [[c] for c in range(o * i * p)],
    pl.row: of_rows,
    pl.channel: of_rows,
    pl.row.pooled("sum"): of_rows,
    pl.row.pooled("l2"): of_rows,
    pl.block(1, 1): of_blocks(1, 1),
    pl.block(2, 4): of_blocks(2, 4),
    pl.block(1, 2).pooled("l2"): of_blocks(1, 2),
}
INSIDE = {
    pl.in_rows: of_rows,
    pl.n_of_m(2, 4): of_groups(4),
    pl.n_of_m(1, 2): of_groups(2),
    pl.n_of_m(3, 4): of_groups(4),
}
POOLED = {
    "mean": lambda values: math.fsum(values) / len(values),
    "sum": math.fsum,
    "l2": lambda values: math.sqrt(math.fsum(v * v for v in values)),
}
SCAN = {n: {0.0: 1, 0.5: 1 - 0.1 * i, 0.9: 0.5} for i, n in enumerate("abcde")}
BUDGETS = {
    "global": pl.global_budget,
    "uniform": pl.uniform,
    "erk": pl.erk,
    "lamp": pl.lamp,
    "scan": pl.from_scan(SCAN),
}
PER_LAYER = {"uniform", "erk", "lamp", "scan"}  # blind to the scale of a layer's scores
percent = st.one_of(st.floats(0, 1), st.sampled_from([0, 0.29, 0.5, 0.9, 1]))


class Case:
    """Scores, a grain and a budget that go together."""

    def __init__(self, scores, grain, budget, floor):
        self.scores, self.grain, self.budget_name, self.floor = scores, grain, budget, floor
        budget = BUDGETS[budget]
        self.budget = budget if floor is None else pl.with_floor(budget, floor)
        self.units = {n: units_of(s.shape, grain) for n, s in scores.items()}

    def __repr__(self):
        return f"{self.grain.name} {self.budget_name} floor {self.floor}: {self.scores}"

    def most(self, name):
        """So many units the layer may lose."""
        count = len(self.units[name])
        return count if self.floor is None else count - max(1, math.ceil(self.floor * count))

    def target(self, share):
        """A sparsity that the floors, or the grain, permit."""
        if ":" in self.grain.name:
            n, m = map(int, self.grain.name.split(":"))
            return 1 - n / m
        total = sum(map(len, self.units.values()))
        return share * sum(map(self.most, self.units)) / total

    def select(self, share, scores=None, within=None):
        options = {} if self.grain in INSIDE else {"budget": self.budget}
        scores = self.scores if scores is None else scores
        return pl.select(scores, self.target(share), grain=self.grain, within=within, **options)


def units_of(shape, grain):
    sizes = (*shape, 1)[0], (*shape, 1)[1], math.prod(shape[2:])
    return (RANKED | INSIDE)[grain](*sizes)


@st.composite
def cases(draw, grains=(*RANKED, *INSIDE), budgets=BUDGETS, floors=(None, 0, 0.1, 0.5)):
    """One to five layers; scores of few distinct values (many ties) or of many, mostly signed."""
    grain = draw(st.sampled_from(grains))
    budget = draw(st.sampled_from(list(budgets)))
    floor = draw(st.sampled_from(floors))
    anywhere = grain is pl.in_rows or (grain in RANKED and "block" not in grain.name)
    shapes = TILED + SHAPES * anywhere
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    levels = draw(st.sampled_from([1, 2, 5, 1000]))
    scores = {
        name: torch.randint(-levels, levels, draw(st.sampled_from(shapes)), generator=generator)
        .div(4)
        .to(draw(st.sampled_from(DTYPES)))
        for name in draw(st.permutations("abcde"))[: draw(st.integers(1, 5))]
    }
    if budget == "lamp" or grain.pooling == "l2":
        scores = {n: s.abs() for n, s in scores.items()}
    return Case(scores, grain, budget, floor)


def pruned_by_reference(scores, grain, count=None, sparsity=None, gone=None):
    """Sort units by score, then name, then position; the first go: `count`, or of each unit."""
    units, lost = [], {n: set() for n in scores}
    for name, score in scores.items():
        flat = score.double().flatten().tolist()
        if gone:
            kept = gone[name].flatten().tolist()
            flat = [v if k else -math.inf for v, k in zip(flat, kept, strict=True)]
        for i, unit in enumerate(units_of(score.shape, grain)):
            values = [flat[c] for c in unit]
            if sparsity is not None:
                first = sorted(zip(values, unit, strict=True))[: round(sparsity * len(unit))]
                lost[name] |= {c for _, c in first}
            else:
                whole = max(values) > -math.inf
                units.append((POOLED[grain.pooling](values) if whole else -math.inf, name, i, unit))
    for _, name, _, unit in sorted(units)[:count]:
        lost[name] |= {*unit}
    return {name: sorted(lost[name]) for name in scores}


def pruned(masks):
    return {n: (~m.flatten()).nonzero().squeeze(1).tolist() for n, m in masks.items()}


def counts(masks, case):
    """Units that each layer lost; one that is pruned in part is a fault."""
    found = {}
    for name, lost in pruned(masks).items():
        shares = [sum(c in lost for c in unit) / len(unit) for unit in case.units[name]]
        assert {*shares} <= {0, 1}
        found[name] = int(sum(shares))
    return found


def same(one, other):
    return list(one) == list(other) and all(one[n].equal(other[n]) for n in one)


def shrunk(masks, earlier):
    return not any((masks[n] & ~earlier[n]).any() for n in masks)


# ---- every grain, every budget ----


@given(cases(budgets=["global"], floors=[None]), percent)
def test_equals_sorting_everything(case, share):
    masks = case.select(share)
    if case.grain in INSIDE:
        expected = {"sparsity": case.target(share)}
    else:
        expected = {"count": round(share * sum(map(len, case.units.values())))}
    assert pruned(masks) == pruned_by_reference(case.scores, case.grain, **expected)
    for name, mask in masks.items():
        assert mask.dtype == torch.bool and mask.shape == case.scores[name].shape
        assert mask.is_contiguous() and mask.untyped_storage().nbytes() == mask.numel()


@given(cases(grains=[*RANKED]), percent)
def test_every_budget_prunes_exactly_and_the_lowest_of_each_layer(case, share):
    masks = case.select(share)
    found = counts(masks, case)
    assert sum(found.values()) == round(case.target(share) * sum(map(len, case.units.values())))
    for name, score in case.scores.items():
        assert found[name] <= case.most(name), "below its floor"
        lowest = pruned_by_reference({name: score}, case.grain, found[name])
        assert pruned({name: masks[name]}) == lowest


@given(cases(), percent, percent)
def test_masks_only_shrink_as_sparsity_grows(case, one, two):  # n:m knows one sparsity only
    low, high = sorted((one, two))
    assert shrunk(case.select(high), case.select(low))


@given(cases(), percent)
def test_neither_order_nor_memory_layout_of_layers_matters(case, share):
    masks = case.select(share)
    assert same(masks, case.select(share)), "another result the second time"
    others = {
        n: s.movedim(0, -1).contiguous().movedim(-1, 0) for n, s in reversed(case.scores.items())
    }
    backwards = case.select(share, others)
    assert list(backwards) == list(reversed(masks))
    assert same(masks, {n: backwards[n] for n in masks})


@given(cases(), percent, st.lists(st.sampled_from([0.5, 1, 4, 64]), min_size=5, max_size=5))
def test_scale_does_not_matter(case, share, factors):
    """Of all scores together; with grains and budgets that never compare layers, of each."""
    if case.grain not in INSIDE and case.budget_name not in PER_LAYER:
        factors = factors[:1] * 5
    scaled = {n: s * f for (n, s), f in zip(case.scores.items(), factors, strict=False)}
    assert same(case.select(share), case.select(share, scaled))


@given(cases(), percent, percent)
def test_within_prunes_more_of_the_original(case, one, two):
    low, high = sorted((one, two))
    first = case.select(low)
    others = {n: s.flatten().flip(0).view(s.shape) for n, s in case.scores.items()}
    second = case.select(high, others, within=first)
    assert shrunk(second, first)
    if case.grain in INSIDE:
        share = {"sparsity": case.target(high)}
        assert pruned(second) == pruned_by_reference(others, case.grain, gone=first, **share)
        return
    found = counts(second, case)
    assert sum(found.values()) == round(case.target(high) * sum(map(len, case.units.values())))
    for name, score in others.items():
        lowest = pruned_by_reference({name: score}, case.grain, found[name], gone=first)
        assert pruned({name: second[name]}) == lowest


# ---- ranking without a sort ----


@given(
    cases(grains=[pl.element, *INSIDE]),
    percent,
    st.integers(1, 6),
    st.integers(2, 30),
    st.sampled_from([1, 5, 8, 1000]),
)
def test_bracketing_equals_sorting_everything(case, share, small, sample, part):
    whole = case.select(share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SMALL", max(small, sample))
        patch.setattr(exact, "SAMPLE", sample)
        patch.setattr(exact, "SHARE", 1)
        patch.setattr(exact, "PART", part)
        assert same(case.select(share), whole)


def test_every_rank_just_inside_and_just_outside_the_bracket(monkeypatch):
    monkeypatch.setattr(exact, "SMALL", 3)
    monkeypatch.setattr(exact, "SAMPLE", 3)
    monkeypatch.setattr(exact, "SHARE", 1)
    for levels in [12] * 10 + [4] * 10:
        scores = torch.randperm(12).remainder(levels).float()
        order = scores.sort(stable=True).indices
        for count in range(13):
            kept = torch.cat(exact.keep_highest([scores[:5], scores[5:]], count))
            assert (~kept).nonzero().squeeze(1).equal(order[:count].sort().values)


@pytest.mark.parametrize("share", [1e-5, 0.001, 0.7, 1])
@pytest.mark.parametrize("kind", ["bracket", "miss", "ties", "gone"])
def test_large_scores(kind, share, monkeypatch):
    searched, kth = [], exact._kth
    monkeypatch.setattr(exact, "_kth", lambda *a: searched.append(True) or kth(*a))
    scores = torch.randn(exact.SMALL * 2)
    scores[60_000:] *= 3  # the second layer's
    if kind == "miss":  # what the sample looks at is nothing like the rest
        scores[:: len(scores) // exact.SAMPLE] += 100
    if kind == "ties":
        scores = scores.mul(100).round()
    within = None
    if kind == "gone":
        alive = torch.rand(len(scores)) > share / 2
        within = {"a": alive[:60_000].view(100, 600), "b": alive[60_000:]}
    masks = pl.select({"a": scores[:60_000].view(100, 600), "b": scores[60_000:]}, share,
                      within=within)  # fmt: skip
    lost = torch.cat([~masks["a"].flatten(), ~masks["b"]])
    if within:
        scores = scores.masked_fill(~alive, -math.inf)
    expected = scores.sort(stable=True).indices[: round(share * len(scores))]
    assert lost.nonzero().squeeze(1).equal(expected.sort().values)
    if share == 0.7:  # the one path ranks a few candidates, the other everything
        assert bool(searched) == (kind == "miss")


@pytest.mark.parametrize("coarse, fine", ["ab", "ba"])
def test_dtypes_are_compared_without_rounding(coarse, fine):
    scores = {
        coarse: torch.tensor([1 - 2**-8, 1], dtype=torch.bfloat16),
        fine: torch.tensor([1 - 2**-40, 1 + 2**-40], dtype=torch.float64),
    }
    masks = pl.select(scores, 0.5)
    assert masks[coarse].tolist() == masks[fine].tolist() == [False, True]
    masks = pl.select(scores, 0.75)
    assert not masks[coarse].any() and masks[fine].tolist() == [False, True]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("grain", [*RANKED, *INSIDE], ids=lambda g: g.name)
def test_the_same_on_a_gpu(grain):
    scores = {n: torch.randn(64, 32, 3, 3).mul(50).round().abs() for n in "abcde"}
    for budget in BUDGETS if grain in RANKED else ["global"]:
        case = Case(scores, grain, budget, 0.1)
        first, onto = case.select(0.5), {n: s.cuda() for n, s in scores.items()}
        found = case.select(0.5, onto)
        assert all(m.is_cuda for m in found.values())
        assert same(first, {n: m.cpu() for n, m in found.items()})
        case.select(0.9, onto, within=first)  # masks from a file lie on the CPU


# ---- grains by hand ----


def test_long_rows_are_not_important_because_they_are_long():
    scores = {"long": torch.full((2, 100), 1.0), "short": torch.full((2, 2), 2.0)}
    masks = pl.select(scores, 0.5, grain=pl.row)
    assert not masks["long"].any() and masks["short"].all()


def test_pooling_by_hand():
    scores = {"a": torch.tensor([[3.0, 4.0, 0.0], [0.0, 6.0, 0.0]]), "b": torch.tensor([[5.5]])}
    pooled = {"mean": ([7 / 3, 2], [5.5]), "sum": ([7, 6], [5.5]), "l2": ([5, 6], [5.5])}
    first = {"mean": "a1", "sum": "b0", "l2": "a0"}
    for pooling, values in pooled.items():
        grain = pl.row.pooled(pooling)
        assert grain.pooling == pooling and grain.name == "row" and pl.row.pooling == "mean"
        for name, expected in zip(scores, values, strict=True):
            assert grain.pool(scores[name]).tolist() == pytest.approx(expected)
        masks = pl.select(scores, 1 / 3, grain=grain)
        assert [f"{n}{i}" for n, m in masks.items() for i, r in enumerate(m) if not r.any()] == [
            first[pooling]
        ]
    with pytest.raises(ValueError, match="pooling is 'max', but must be one of mean, sum, l2"):
        pl.row.pooled("max")


def test_rows_are_ranked_in_full_precision():
    score = torch.full((2, 4096), 1.0, dtype=torch.float16)
    score[1, 0] -= 0.5
    assert pl.select({"a": score}, 0.5, grain=pl.row)["a"][:, 0].tolist() == [True, False]


def test_neighbours_in_a_convolution_are_input_channels():
    score = torch.zeros(1, 4, 1, 2)
    score[0, :, 0, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0])
    score[0, :, 0, 1] = torch.tensor([1.0, 4.0, 2.0, 3.0])
    mask = pl.select({"a": score}, 0.5, grain=pl.n_of_m(2, 4))["a"][0, :, 0]
    assert mask.t().tolist() == [[True, True, False, False], [False, True, False, True]]


def test_a_group_loses_no_more_than_its_share_within_earlier_masks():
    scores, grain = {"a": torch.tensor([[4.0, 3.0, 2.0, 1.0]])}, pl.n_of_m(2, 4)
    within = {"a": torch.tensor([[False, True, True, True]])}
    kept = pl.select(scores, 0.5, grain=grain, within=within)["a"]
    assert kept.tolist() == [[False, True, True, False]]
    within["a"][0, 1:3] = False
    with pytest.raises(ValueError, match="3 units are pruned already but only 2 are to be"):
        pl.select(scores, 0.5, grain=grain, within=within)


@pytest.mark.parametrize(
    "grain, shape, sparsity, message",
    [
        (pl.n_of_m(2, 4), (3, 6), 0.5, r"w: m = 4 does not divide the input dimension of \(3, 6\)"),
        (pl.n_of_m(2, 4), (4, 1, 4, 4), 0.5, r"w: m = 4 does not divide .* \(4, 1, 4, 4\)"),
        (pl.n_of_m(2, 4), (8,), 0.5, r"w: m = 4 does not divide the input dimension of \(8,\)"),
        (pl.n_of_m(2, 4), (4, 4), 0.75, r"2 of 4 prunes exactly 0\.5, but sparsity is 0\.75"),
        (pl.n_of_m(1, 4), (4, 4), 0.0, r"1 of 4 prunes exactly 0\.75, but sparsity is 0\.0"),
        (pl.block(2, 2), (4, 3), 0.5, "w: blocks of 2×2 do not tile a matrix of 4×3"),
        (pl.block(2, 4), (3, 2, 2), 0.5, "w: blocks of 2×4 do not tile a matrix of 3×4"),
    ],
)
def test_layers_that_a_grain_does_not_fit(grain, shape, sparsity, message):
    scores = {"fits": torch.rand(4, 4), "w": torch.rand(shape)}
    with pytest.raises(ValueError, match=message):
        pl.select(scores, sparsity, grain=grain)


@pytest.mark.parametrize("grain", INSIDE, ids=lambda g: g.name)
@pytest.mark.parametrize("budget", [pl.uniform, pl.with_floor()])
def test_grains_that_leave_no_choice_take_no_budget(grain, budget):
    with pytest.raises(
        ValueError, match=f"grain {grain.name} prunes every group alike.*budget out"
    ):
        pl.select({"a": torch.rand(4, 4)}, 0.5, grain=grain, budget=budget)


@pytest.mark.parametrize(
    "make, sizes, message",
    [
        (pl.n_of_m, (0, 4), "n is 0 and m is 4, but 0 < n < m must hold"),
        (pl.n_of_m, (4, 4), "n is 4 and m is 4"),
        (pl.block, (0, 2), "a block of 0×2 is empty: both must be at least 1"),
        (pl.block, (2, -1), "a block of 2×-1 is empty"),
    ],
)
def test_grains_that_cannot_be_made(make, sizes, message):
    with pytest.raises(ValueError, match=message):
        make(*sizes)


def lazy():
    layer = nn.LazyLinear(4)
    layer(torch.rand(1, 8))
    return layer


LAYERS = [
    nn.Linear(8, 4), lazy(), nn.Linear(3, 1), nn.Bilinear(4, 3, 4), nn.Embedding(10, 4),
    nn.EmbeddingBag(6, 2), nn.Conv1d(4, 2, 3), nn.Conv2d(8, 4, 3, groups=2), nn.Conv2d(3, 5, 1),
    nn.Conv2d(6, 6, 3, groups=6), nn.Conv3d(1, 2, 2), nn.ConvTranspose1d(2, 4, 3),
    nn.ConvTranspose2d(3, 8, 2), nn.ConvTranspose3d(4, 4, 1, groups=2),
]  # fmt: skip


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_layers_of_every_kind(layer):
    shape = layer.weight.shape
    for grain in (*RANKED, *INSIDE):
        case = Case(pl.magnitude(layer), grain, "global", None)
        high, wide = map(int, re.findall(r"\d+", grain.name) or (1, 1))
        if ":" in grain.name:
            transposed = getattr(layer, "transposed", False)
            fits = (shape[0] // layer.groups if transposed else shape[1]) % wide == 0
        else:
            fits = shape[0] % high == math.prod(shape[1:]) % wide == 0
        if not fits:
            with pytest.raises(ValueError, match=r"^weight: "):
                case.select(0.5)
            continue
        for share in (0, 0.5, 1):
            model, masks = copy.deepcopy(layer), case.select(share)
            pl.apply(model, masks)
            assert same(pl.masks_of(model), masks)
            units, share = case.units["weight"], case.target(share)
            if grain in INSIDE:
                expected = sum(round(share * len(unit)) for unit in units)
            else:
                expected = len(units[0]) * round(share * len(units))
            assert len(pruned(masks)["weight"]) == expected


# ---- within, and bad input ----


def test_within_ignores_the_score_of_what_is_gone():
    scores = {"a": torch.tensor([9.0, 1.0, 2.0, 3.0])}
    within = {"a": torch.tensor([False, True, True, True])}
    assert pl.select(scores, 0.5, within=within)["a"].tolist() == [False, False, True, True]


def test_a_kept_row_does_not_get_back_single_weights_pruned_before():
    scores = {"w": torch.tensor([[9.0, 8.0], [1.0, 2.0], [7.0, 6.0]])}
    within = {"w": torch.tensor([[False, True], [True, True], [True, True]])}
    mask = pl.select(scores, 1 / 3, grain=pl.row, within=within)["w"]
    assert mask.tolist() == [[False, True], [False, False], [True, True]]


ONE = torch.ones(4)


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, math.nan, math.inf, 90])
def test_sparsity_outside_the_unit_interval(sparsity):
    with pytest.raises(ValueError, match=rf"sparsity is {sparsity}, but must lie in \[0, 1\]"):
        pl.select({"a": ONE}, sparsity)


@pytest.mark.parametrize(
    "scores, within, message",
    [
        ({}, None, "scores is empty"),
        ({"a": torch.ones(4, dtype=torch.int64)}, None, r"scores of a are torch.int64.*floating"),
        ({"a": torch.ones(0, 3)}, None, r"the scores of a have shape \(0, 3\): none to rank"),
        ({"a": ONE}, {"b": ONE > 0}, "no mask for a"),
        ({"a": ONE}, {"a": torch.ones(5) > 0}, r"mask of a in within has shape \(5,\).*\(4,\)"),
        ({"a": ONE}, {"a": ONE < 0}, "4 units are pruned already but only 2 are to be"),
    ],
)
def test_scores_and_masks_that_cannot_be_used(scores, within, message):
    with pytest.raises(ValueError, match=message):
        pl.select(scores, 0.5, within=within)


def test_nothing_more_can_be_pruned_of_nothing():
    with pytest.raises(ValueError, match="1 units are pruned already but only 0 are to be"):
        pl.select({"a": ONE}, 0, within={"a": torch.arange(4) > 0})
