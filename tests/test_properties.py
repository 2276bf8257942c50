"""What holds whatever is given: exact counts in parts, least squares, checks, curves, coupled layers."""

import contextlib
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

import pruninglib as pl
from pruninglib.base import checks, coupling, curves, exact, solving, trial

DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
seeds = st.integers(0, 10_000)


def made(seed):
    return torch.Generator().manual_seed(seed)


# ---- exact.py: the lowest of many, a part at a time ----


@st.composite
def flat_scores(draw, lowest=-8):
    """One to four flat tensors, of few values or of many, some of them pruned already."""
    generator, levels = made(draw(seeds)), draw(st.sampled_from([1, 3, 8]))
    scores = []
    for size in draw(st.lists(st.integers(1, 30), min_size=1, max_size=4)):
        score = torch.randint(max(lowest, -levels), levels, (size,), generator=generator)
        score = score.div(4).to(draw(st.sampled_from(DTYPES)))
        gone = torch.rand(size, generator=generator) < draw(st.sampled_from([0, 0.3]))
        scores.append(score.masked_fill(gone, -math.inf))
    return scores


@contextlib.contextmanager
def small_parts(part, **sizes):
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PART": part, **sizes}.items():
            patch.setattr(exact, name, value)
        yield


def gone_of(scores):
    return sum(int((s == -math.inf).sum()) for s in scores)


@given(
    flat_scores(),
    st.floats(0, 1),
    st.integers(1, 40),
    st.sampled_from([1, 10**9]),
    st.integers(2, 9),
    st.sampled_from([1 / 8, 1]),
)
def test_the_lowest_go_and_of_equal_ones_the_first(scores, share, part, small, sample, most):
    total, gone = sum(map(len, scores)), gone_of(scores)
    count = gone + round(share * (total - gone))
    order = torch.cat([s.double() for s in scores]).sort(stable=True).indices
    with small_parts(part, SMALL=max(small, sample), SAMPLE=sample, SHARE=most):
        kept = exact.keep_highest(scores, count)
        assert (~torch.cat(kept)).nonzero().flatten().equal(order[:count].sort().values)
        assert [len(k) for k in kept] == [len(s) for s in scores]
        if gone:
            few = round(share * (gone - 1))
            with pytest.raises(ValueError, match=f"^{gone} units are pruned .* only {few} are"):
                exact.keep_highest(scores, few)


@given(seeds, st.integers(1, 12), st.integers(1, 20), st.integers(1, 40), st.sampled_from([0, 16]))
def test_the_lowest_of_each_group_go(seed, groups, members, part, few):
    scores = torch.randint(4, (groups, members), generator=made(seed)).to(torch.float16)
    scores[torch.rand(groups, members, generator=made(seed)) < 0.2] = -math.inf
    worst = int((scores == -math.inf).sum(1).max())
    with small_parts(part, FEW=few):
        for count in range(members + 1):
            if count < worst:
                with pytest.raises(ValueError, match=f"^{worst} units are pruned .* only {count} "):
                    exact.keep_highest_inside(scores, count)
                continue
            lowest = scores.argsort(dim=1, stable=True)[:, :count]
            expected = torch.ones(groups, members, dtype=torch.bool).scatter_(1, lowest, False)
            assert exact.keep_highest_inside(scores, count).equal(expected)


def shares_by_sorting(layers, count):
    """As the paper has it, one score after the other in exact arithmetic (quarters are exact)."""
    ranked = []
    for i, layer in enumerate(layers):
        values = sorted(layer.tolist())
        for place, value in enumerate(values):
            below = math.fsum(v * v for v in values[place:] if v > -math.inf)
            square = value * value if value > -math.inf else -math.inf
            ranked.append((square / below if below and value > -math.inf else min(square, 0.0), i))
    lost = [0] * len(layers)
    for _, i in sorted(ranked)[:count]:
        lost[i] += 1
    return lost


@given(flat_scores(lowest=0), st.floats(0, 1), st.integers(1, 5), st.sampled_from([0, 2**20]))
def test_shares_of_what_a_layer_still_holds(scores, share, part, most):
    total, gone = sum(map(len, scores)), gone_of(scores)
    count = gone + round(share * (total - gone))
    with small_parts(part, SORTED=most):
        found = exact.count_lowest_shares(scores, count)
    assert found == shares_by_sorting(scores, count)


@given(flat_scores(), st.integers(1, 40))
def test_ends_and_signs_of_scores_in_parts(scores, part):
    with small_parts(part):
        for score in scores:
            assert exact.least_and_most(score) == (float(score.min()), float(score.max()))
            finite = score[score > -math.inf]
            assert exact.has_negative(score) == bool((finite < 0).any())
            assert exact.absolute(score).equal(score.abs())
            holed = torch.cat([score, score.new_tensor([math.nan]), score])
            assert all(map(math.isnan, exact.least_and_most(holed)))


@given(st.lists(st.floats(0.01, 9), min_size=1, max_size=6), st.floats(0, 1))
def test_numbers_add_up_to_the_total(weights, share):
    names = [f"w{i}" for i in range(len(weights))]
    full = {n: 1 + int(7 * w) for n, w in zip(names, weights, strict=True)}

    def at(t):
        return {n: min(full[n], exact.nearest(t * w)) for n, w in zip(names, weights, strict=True)}

    total = round(share * sum(full.values()))
    counts = exact.apportion(at, 0.0, 1e6, total)
    assert sum(counts.values()) == total and all(0 <= counts[n] <= full[n] for n in names)
    more = exact.apportion(at, 0.0, 1e6, min(total + 1, sum(full.values())))
    assert all(more[n] >= counts[n] for n in names), "a larger total takes from none"
    # no layer is more than one away from its share at one t for all
    low = max(
        [(c - 0.5) / w for c, w in zip(counts.values(), weights, strict=True) if c], default=0
    )
    for name, weight in zip(names, weights, strict=True):
        assert counts[name] >= min(full[name], math.floor(low * weight + 0.5)) - 1


@given(st.integers(-50, 50), st.sampled_from([-0.5, -0.25, 0, 0.25, 0.49]))
def test_the_nearest_whole_number(whole, more):
    assert exact.nearest(whole + more) == whole


# ---- solving.py: nothing better can be found for what stays ----


@st.composite
def problems(draw):
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    generator = made(draw(seeds))
    weight = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    x = torch.randn(columns + 5, columns, generator=generator, dtype=torch.float64)
    mask = torch.rand(rows, columns, generator=generator) < draw(st.floats(0, 1))
    return weight, x.T @ x, mask


@given(problems(), st.sampled_from([0, 1e-3, 0.1]))
def test_each_row_is_solved_for_what_its_mask_keeps(problem, damping):
    weight, moments, mask = problem
    before = weight.clone(), moments.clone()
    damped = solving.damped(moments, damping)
    diagonal = moments.diagonal().mean() * damping
    torch.testing.assert_close(damped, moments + diagonal * torch.eye(len(moments)).double())
    found = solving.by_rows(weight, damped, mask)
    assert not found[~mask].any()
    slope = (found - weight) @ damped  # of half the damage: flat along what may move
    assert (slope[mask].abs() < 1e-8 * (1 + (weight @ damped).abs().max())).all()
    assert weight.equal(before[0]) and moments.equal(before[1])


@given(problems(), st.integers(1, 9))
def test_columns_make_good_what_those_left_of_them_lost(problem, step):
    """The columns right of one are the best for what those up to it have become."""
    weight, moments, mask = problem
    asked = []

    def choose(scores, part):
        asked.append((scores, part))
        return mask[:, part]

    found, used = solving.by_columns(weight, moments, choose, step)
    assert used.equal(mask) and not found[~mask].any()
    columns = weight.shape[1]
    assert [(p.start, p.stop) for _, p in asked] == [
        (i, min(i + step, columns)) for i in range(0, columns, step)
    ]
    # what the first column would cost: the damage when all others make it good
    inverse = torch.linalg.inv(moments)
    torch.testing.assert_close(asked[0][0][:, 0], weight[:, 0] ** 2 / inverse[0, 0])
    slow = weight.clone()
    for j in range(columns):
        gone = ~mask[:, j]
        right = slice(j + 1, None)
        if j + 1 < columns:
            share = torch.linalg.solve(moments[right, right], moments[right, j])
            slow[gone, right] += slow[gone, j : j + 1] * share
        slow[gone, j] = 0
    torch.testing.assert_close(found, slow, rtol=1e-6, atol=1e-8)


# ---- checks.py ----


@given(st.one_of(st.floats(), st.integers(-3, 3), st.fractions(-2, 2), st.booleans()))
@example(math.nan)
@example(math.inf)
def test_sparsities_are_the_numbers_of_the_unit_interval(number):
    if 0 <= number <= 1:
        checks.check_sparsity(number)
        checks.check_sparsity(np.float32(number))
    else:
        with pytest.raises(ValueError, match=r"share is .*must lie in"):
            checks.check_sparsity(number, "share")


@given(
    st.lists(st.integers(0, 3), max_size=3),
    st.sampled_from([*DTYPES, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn]),
    st.sampled_from([0, 0, math.nan, math.inf, -math.inf]),
    seeds,
)
def test_scores_are_finite_numbers_and_some(shape, dtype, value, seed):
    score = torch.rand(shape, generator=made(seed))
    if value and score.numel():
        score.flatten()[seed % score.numel()] = value
    held = score.numel() > 0 and len(shape) > 0 and dtype in DTYPES
    score = score.to(dtype)
    if held and score.isfinite().all():
        checks.check_scores({"other": torch.ones(2), "w": score})
        return
    with pytest.raises(ValueError, match=r"^the scores of w "):
        checks.check_scores({"other": torch.ones(2), "w": score})


@given(st.lists(st.text("ab", min_size=1, max_size=3), max_size=9), st.integers(1, 5))
def test_some_names_and_how_many_more(names, most):
    said = checks.some(iter(names), most)
    shown, _, more = said.partition(" and ")
    assert shown.split(", ") == (names[:most] or [""])
    assert more == (f"{len(names) - most} more" if len(names) > most else "")


# ---- curves.py ----


@given(
    st.dictionaries(st.floats(0.05, 1).map(lambda x: round(x, 2)), st.floats(-2, 2), max_size=6),
    st.floats(-2, 2),
    st.floats(0, 1),
)
def test_the_inverse_of_a_damage_curve(values, dense, share):
    values = {0.0: dense, **values}
    curve = curves.damage_curve("w", values)
    assert curve[0] == (0.0, 0.0) and [s for s, _ in curve] == sorted(values)
    for (_, d0), (s1, d1) in itertools.pairwise(curve):
        assert d1 > d0
        worst = max(0.0, *(dense - v for s, v in values.items() if s <= s1))
        assert worst <= d1 <= worst + 2e-6 * (max(values.values()) - min(values.values())) + 1e-11
        at = d0 + share * (d1 - d0)
        reached = curves.reached_at(curve, at)
        before = curves.reached_at(curve, d0)
        assert before <= reached + 1e-9 and reached <= s1 + 1e-9
        assert curves.reached_at(curve, d1) == pytest.approx(s1)
        expected = before + share * (s1 - before)
        assert reached == pytest.approx(expected, abs=1e-4)
    assert curves.reached_at(curve, curve[-1][1] + 1) == 1.0


# ---- coupling.py and trial.py ----


@given(st.integers(1, 12), st.integers(0, 3), seeds)
def test_channels_that_meet_are_one_unit(count, times, seed):
    """Against all pairs, joined until nothing changes."""
    generator, joined = made(seed), []
    for _ in range(times):
        size = int(torch.randint(1, 2 * count + 1, (), generator=generator))
        joined.append(
            (
                torch.randint(count + 3, (size,), generator=generator),
                torch.randint(count, (size,), generator=generator),
            )
        )
    together = torch.eye(count, dtype=torch.bool)
    for places, roots in joined:
        for i, j in zip(*(places[:, None] == places).nonzero(as_tuple=True), strict=True):
            together[roots[i], roots[j]] = True
    for _ in range(count):
        together = (together.float() @ together.float()) > 0
    units = coupling._classes(count, joined)
    assert (units[:, None] == units).equal(together)
    firsts = [int((units == u).nonzero()[0]) for u in range(int(units.max()) + 1)]
    assert firsts == sorted(firsts), "in the order of their first channels"


@given(st.integers(2, 40))
def test_some_units_are_taken_and_some_are_left(units):
    part = coupling.Part("w", "makes", 0, torch.Size([units]), torch.arange(units))
    group = coupling.Coupling([part], ("", []))
    kept = trial._some_kept({"g": group})["g"]
    assert 0 < kept.sum() < units and len(kept) == units
    assert kept.equal(trial._some_kept({"g": group})["g"])
    orders = [*trial._orders(units)]
    for size in (d for d in range(2, units) if units % d == 0):
        blocks = torch.arange(units).view(-1, size)
        for shuffled in (blocks.t(), blocks.flip(0), blocks.flip(1)):
            assert any(order.equal(shuffled.flatten()) for order in orders)
    assert any(order.equal(torch.arange(units).flip(0)) for order in orders)
    for order in orders:
        assert order.sort().values.equal(torch.arange(units))
        assert not order.equal(torch.arange(units))
        assert units < 6 or not kept[order].equal(kept)


class Chain(nn.Module):
    """Layers one after the other, each of which may be added to, or joined with, one before it."""

    def __init__(self, layers, joins):
        super().__init__()
        self.layers, self.joins = nn.ModuleList(layers), joins

    def forward(self, x):
        seen = []
        for layer, (how, where) in zip(self.layers, self.joins, strict=True):
            seen.append(layer(x))
            x = seen[-1]
            if how == "add":
                x = x + seen[where]
            if how == "join":
                x = torch.cat([x, seen[where]], 1)
            x = x.relu()
        return x


KINDS = ["conv", "depthwise", "grouped", "norm", "up", "prelu"]


@st.composite
def chains(draw):
    torch.manual_seed(draw(seeds))
    width, layers, joins, widths = 4, [nn.Conv1d(3, 4, 1)], [("", 0)], [4]
    for _ in range(draw(st.integers(1, 5))):
        kind, out = draw(st.sampled_from(KINDS)), draw(st.sampled_from([2, 4, 6]))
        layer = {
            "conv": lambda w, o: nn.Conv1d(w, o, 3, padding=1),
            "depthwise": lambda w, o: nn.Conv1d(w, w, 3, padding=1, groups=w),
            "grouped": lambda w, o: nn.Conv1d(w, o, 1, groups=2),
            "norm": lambda w, o: nn.BatchNorm1d(w),
            "up": lambda w, o: nn.ConvTranspose1d(w, o, 3, padding=1),
            "prelu": lambda w, o: nn.PReLU(w),
        }[kind](width, out)
        width = out if kind in ("conv", "grouped", "up") else width
        alike = [i for i, w in enumerate(widths) if w == width]
        how = draw(st.sampled_from(["", "", "join", "add"] if alike else ["", "join"]))
        where = draw(st.sampled_from(alike if how == "add" else range(len(widths))))
        layers.append(layer)
        joins.append((how, where))
        widths.append(width)
        width += widths[where] if how == "join" else 0
    layers.append(nn.Conv1d(width, 2, 1))
    joins.append(("", 0))
    model = Chain(layers, joins)
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.2, 1).mul_(
                torch.randn_like(tensor).sign() if tensor.dim() > 1 else 1
            )
    return model.eval()


@settings(max_examples=40)
@given(chains(), seeds)
def test_what_is_removed_is_what_is_masked_in_any_chain(model, seed):
    x = torch.rand(2, 3, 5)
    groups = pl.coupled(model, x)
    generator, kept = made(seed), {}
    for name, group in groups.items():
        keep = torch.rand(group.units, generator=generator) < 0.6
        keep[seed % group.units] = True
        kept[name] = keep
        assert all(units.dim() > 1 for units in group.reads.values()), "a bias reads nothing"
        assert name in group.makes and name not in group.reads
        marks = {n: u for n, u in (*group.makes.items(), *group.reads.items())}
        assert {int(m.max()) for m in marks.values()} <= {*range(group.units)}
        for n, mask in group.masks(keep).items():
            roles = [role[n] for role in (group.makes, group.reads) if n in role]
            gone = [(units >= 0) & ~keep[units] for units in roles]
            assert mask.equal(~torch.stack(gone).any(0))
        scores = {n: torch.rand(u.shape, generator=generator) for n, u in group.makes.items()}
        for pooling in ("mean", "sum", "l2"):
            expected = []
            for unit in range(group.units):
                values = torch.cat([scores[n][u == unit] for n, u in group.makes.items()]).double()
                expected.append(
                    {"mean": values.mean(), "sum": values.sum(), "l2": values.norm()}[pooling]
                )
            torch.testing.assert_close(group.pooled(scores, pooling), torch.stack(expected))
    prunable = {n for n in pl.prunable(model)}
    assert not {*groups} & {*groups.left_out} and groups.left_out.keys() <= prunable
    made_here = {n for g in groups.values() for n in g.makes}
    assert prunable <= made_here | groups.left_out.keys(), "each is in a group, or said why not"
    if not any(getattr(layer, "groups", 1) == 2 for layer in model.layers):
        assert {*groups.left_out.values()} <= {
            "its channels are outputs of the model",
            "it has a single unit",
        }
    if not groups:
        return
    masks = pl.spread(kept, groups)
    small = pl.shrink(model, masks, x)
    pl.apply(model, masks)
    with torch.no_grad():
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-5)
    removed = sum(int((~k).sum()) for k in kept.values())
    assert (
        sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())
    ) == (removed > 0)
