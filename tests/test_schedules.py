"""Schedules: from progress to sparsity; and regrowth, which moves the zeros."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pruninglib as pl

unit = st.floats(0, 1)
SCHEDULES = {
    "one_shot": pl.one_shot,
    "iterative": lambda final: pl.iterative(final, rounds=4),
    "cubic": pl.cubic,
    "cubic from": lambda final: pl.cubic(final, initial=final / 2),
}


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@given(unit, unit, unit)
def test_never_falls_and_ends_at_the_final_sparsity(make, final, one, two):
    schedule, (early, late) = make(final), sorted((one, two))
    assert 0 <= schedule(early) <= schedule(late) + 1e-12
    assert schedule(late) <= final + 1e-12
    assert schedule(1) == final and schedule(1.0) == final


@given(unit)
def test_one_shot_prunes_everything_at_once(t):
    assert pl.one_shot(0.9)(t) == 0.9


def test_iterative_removes_the_same_share_of_what_is_left_each_round():
    schedule = pl.iterative(0.875, rounds=3)
    assert [schedule(i / 3) for i in range(4)] == pytest.approx([0, 0.5, 0.75, 0.875])
    assert schedule(1 / 3 + 1e-6) == schedule(2 / 3)  # nothing between two rounds


@given(st.integers(1, 200), st.data())
def test_no_round_is_lost_to_rounding(rounds, data):
    i = data.draw(st.integers(0, rounds))
    left = 1 - pl.iterative(0.9, rounds)(i / rounds)
    assert left == pytest.approx(0.1 ** (i / rounds))


def test_cubic_by_hand():
    assert [pl.cubic(0.8)(t) for t in (0, 0.5, 1)] == pytest.approx([0, 0.7, 0.8])
    assert [pl.cubic(0.8, 0.4)(t) for t in (0, 0.5, 1)] == pytest.approx([0.4, 0.75, 0.8])


@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan])
def test_values_outside_the_unit_interval(make, value):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        make(value)
    with pytest.raises(ValueError, match=f"t is {value}, but progress runs from 0 to 1"):
        make(0.5)(value)


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: pl.iterative(0.5, rounds=0),
            "rounds is 0, but must be a whole number, at least 1",
        ),
        (lambda: pl.iterative(0.9, 2.5), r"rounds is 2\.5, but must be a whole number"),
        (lambda: pl.cubic(0.5, initial=0.9), r"initial is 0\.9, above final 0\.5"),
        (lambda: pl.cubic(0.5, initial=-1), r"initial is -1, but must lie in \[0, 1\]"),
        (lambda: pl.cosine(1.5), r"initial is 1\.5, but must lie in \[0, 1\]"),
        (lambda: pl.cosine()(1.5), r"t is 1\.5, but progress runs from 0 to 1"),
    ],
)
def test_arguments_that_make_no_schedule(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_cosine_by_hand():
    assert [pl.cosine(0.4)(t) for t in (0, 1 / 3, 0.5, 1)] == pytest.approx([0.4, 0.3, 0.2, 0])
    assert pl.cosine()(0) == 0.3 and pl.cosine(1)(1) == 0


# ---- regrowth ----


def regrown(mask, fraction, drop, grow):
    """Plain and slow: the new kept positions of one layer."""
    kept = [i for i, k in enumerate(mask) if k]
    moved = round(fraction * len(kept))
    stays = {*sorted(kept, key=lambda i: (drop[i], i))[moved:]}
    others = [i for i in range(len(mask)) if i not in stays]
    comes = sorted(others, key=lambda i: (grow[i], i))[len(others) - moved :]
    return sorted(stays | {*comes})


@given(
    st.lists(st.tuples(st.booleans(), st.integers(-3, 3), st.integers(-3, 3)), min_size=1,
             max_size=30),
    st.one_of(unit, st.sampled_from([0, 0.5, 1])),
    st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]),
)  # fmt: skip
def test_regrowth_equals_sorting_everything(layer, fraction, dtype):
    mask, drop, grow = zip(*layer, strict=True)
    found = pl.regrow(
        {"a": torch.tensor(mask)[:, None]}, fraction,
        drop={"a": torch.tensor(drop, dtype=dtype)[:, None], "unmasked": torch.ones(3)},
        grow={"a": torch.tensor(grow, dtype=dtype)[:, None]},
    )["a"]  # fmt: skip
    assert found.dtype == torch.bool and found.shape == (len(mask), 1)
    assert found.flatten().nonzero().squeeze(1).tolist() == regrown(mask, fraction, drop, grow)
    assert int(found.sum()) == sum(mask), "another count"


def test_regrowth_by_hand():
    T, F = True, False
    masks = {"some": [T, T, T, T, F, F], "dense": [T, T], "empty": [F, F]}
    drop = {"some": [4.0, 1, -2, 3, 0, 0], "dense": [1.0, 2], "empty": [1.0, 2]}
    grow = {"some": [9.0, 5, 1, 9, 2, 3], "dense": [1.0, 2], "empty": [1.0, 2]}
    masks, drop, grow = (
        {n: torch.tensor(v) for n, v in each.items()} for each in (masks, drop, grow)
    )
    before = {n: m.clone() for n, m in masks.items()}
    for fraction, expected in {
        0: [T, T, T, T, F, F],
        0.25: [T, T, F, T, F, T],  # of four weights the lowest, -2, goes, and the 3 comes
        0.5: [T, T, F, T, F, T],  # the 1 goes too, and comes back, for it has the best score
        1: [T, T, F, T, F, T],  # whatever was there, the best four
    }.items():
        found = pl.regrow(masks, fraction, drop=drop, grow=grow)
        assert found["some"].tolist() == expected
        assert found["dense"].all() and not found["empty"].any()
    assert all(masks[n].equal(before[n]) for n in masks), "the masks given changed"


@pytest.mark.parametrize("which", ["drop", "grow"])
@pytest.mark.parametrize(
    "scores, message",
    [
        ({"b": torch.ones(2, 2)}, r"need scores of a of shape \(2, 2\)"),
        ({"a": torch.ones(4)}, r"need scores of a of shape \(2, 2\)"),
        ({"a": torch.full((2, 2), math.nan)}, "scores of a hold NaN"),
        ({"a": torch.ones(2, 2, dtype=torch.int64)}, "scores of a are torch.int64"),
    ],
)
def test_scores_that_nothing_can_grow_by(which, scores, message):
    masks, good = {"a": torch.ones(2, 2) > 0}, {"a": torch.ones(2, 2)}
    with pytest.raises(ValueError, match=message):
        pl.regrow(masks, 0.5, **{"drop": good, "grow": good} | {which: scores})
    with pytest.raises(ValueError, match=r"fraction is 2, but must lie in \[0, 1\]"):
        pl.regrow(masks, 2, drop=good, grow=good)


@pytest.mark.parametrize("moves", [True, False], ids=["RigL", "static"])
def test_sparse_training_finds_the_weights_that_matter(moves):
    """A linear teacher of which 6 of 60 inputs count; the masks begin at random places."""
    teacher = torch.zeros(60).index_fill(0, torch.arange(0, 60, 10), 1.0)
    inputs = torch.randn(200, 60)
    batches = [*zip(inputs.split(50), (inputs @ teacher).split(50), strict=True)]

    def loss(model, batch):
        return (model(batch[0]).squeeze(1) - batch[1]).square().mean()

    model = nn.Linear(60, 1, bias=False)
    optimizer, weight = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9), model.weight
    masks, losses, moved = pl.select(pl.random(model), 0.8), [], 0
    ever = masks["weight"].clone()
    for t in range(12):
        before = masks
        if moves and t:
            drop, grow = pl.magnitude(model), pl.gradient(model, loss, batches)
            masks = pl.regrow(masks, pl.cosine(0.5)(t / 12), drop=drop, grow=grow)
        mask, comes = masks["weight"], masks["weight"] & ~before["weight"]
        assert int(mask.sum()) == 12
        with pl.keep(model, masks, optimizer):
            assert (weight[comes] == 0).all(), "what comes starts from zero"
            for batch in batches * 3:
                optimizer.zero_grad()
                value = loss(model, batch)
                value.backward()
                optimizer.step()
                assert (weight[~mask] == 0).all()
            assert (weight[mask] != 0).all(), "and is trained"
        moved, ever = moved + int(comes.sum()), ever | mask
        assert (optimizer.state[weight]["momentum_buffer"][~ever] == 0).all()
        losses.append(value.item())
    if moves:
        assert moved and losses[-1] < 1e-3 * losses[0] and mask[0, teacher > 0].all()
    else:
        assert not moved and losses[-1] > 1
