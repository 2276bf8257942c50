"""Schedules: from progress to sparsity."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_arguments_that_make_no_schedule():
    with pytest.raises(ValueError, match="rounds is 0, but must be a whole number, at least 1"):
        pl.iterative(0.5, rounds=0)
    with pytest.raises(ValueError, match=r"initial is 0\.9, above final 0\.5"):
        pl.cubic(0.5, initial=0.9)


def test_rounds_are_whole():
    with pytest.raises(ValueError, match=r"rounds is 2\.5, but must be a whole number"):
        pl.iterative(0.9, 2.5)
