"""What lessons say: sentences, records, claims."""

import json

import numpy as np
import pytest
import torch

from pruninglib.course import lesson
from pruninglib.course.runner import NUMBERS
from pruninglib.measure.stats import Interval


@pytest.fixture
def shown(monkeypatch):
    outputs = []
    monkeypatch.setattr(lesson, "display", lambda data, raw=False: outputs.append(data))
    return outputs


def test_say_fills_in_values(shown):
    lesson.say("{kept:.0%} of the weights keep {acc:.1%}", kept=0.2, acc=0.9765)
    assert shown[0].data == "20% of the weights keep 97.7%"


def test_say_wants_every_value(shown):
    with pytest.raises(KeyError, match="acc"):
        lesson.say("{acc:.1%}")
    assert not shown


def test_record_is_stored_in_the_output(shown):
    lesson.record("accuracy", 0.9, tol=0.02)
    assert shown[0][lesson.RECORD] == {"name": "accuracy", "value": 0.9, "tol": 0.02}


@pytest.mark.parametrize(
    "value, tol", [(float("nan"), 0.1), (0.9, -0.1), (0.9, float("nan")), (0.9, float("inf"))]
)
def test_record_refuses_what_cannot_be_compared(shown, value, tol):
    with pytest.raises(ValueError, match="'accuracy'"):
        lesson.record("accuracy", value, tol)
    assert not shown


def claimed(shown, *args, **bounds):
    try:
        lesson.claim("zeros stay", *args, **bounds)
    except lesson.ClaimBroken as error:
        assert "zeros stay" in str(error)
        assert not shown[0][lesson.CLAIM]["held"]
    else:
        assert shown[0][lesson.CLAIM]["held"]
    return shown.pop()


@pytest.mark.parametrize("held", [True, False, np.True_, np.False_, torch.tensor(True)])
def test_an_exact_claim_is_stored_before_it_breaks(shown, held):
    data = claimed(shown, held)[lesson.CLAIM]
    expected = {"text": "zeros stay"} | dict.fromkeys(NUMBERS)
    assert data == expected | {"held": bool(held)} and data["held"] is bool(held)


@pytest.mark.parametrize(
    "value, bound, held",
    [
        (0.25, {"above": 0.1}, True),
        (0.1, {"above": 0.1}, False),
        (np.float64(-1), {"above": 0}, False),
        (torch.tensor(3), {"below": 4}, True),
        (4, {"below": 4}, False),
        (float("nan"), {"below": 4}, False),
    ],
)
def test_a_claim_carries_its_value_and_bound(shown, value, bound, held):
    output = claimed(shown, value, **bound)
    data = output[lesson.CLAIM]
    assert data["held"] is held
    assert {k: v for k, v in data.items() if k in ("above", "below") and v is not None} == bound
    if held:
        assert data["value"] == value
        assert (
            f"({float(value):.3g}, bound: {' '.join(map(str, *bound.items()))})"
            in output["text/plain"]
        )
    json.dumps(data, allow_nan=False)


def test_of_an_interval_the_mean_is_claimed_and_the_ends_are_stored(shown):
    output = claimed(shown, Interval(0.25, -0.1, 0.6), above=0.1)
    data = output[lesson.CLAIM]
    assert (data["value"], data["low"], data["high"]) == (0.25, -0.1, 0.6) and data["held"]
    assert "(0.25 (-0.1 to 0.6), bound: above 0.1)" in output["text/plain"]
    one_run = claimed(shown, Interval(0.25, float("nan"), float("nan")), above=0.3)[lesson.CLAIM]
    assert (one_run["low"], one_run["high"], one_run["held"]) == (None, None, False)


@pytest.mark.parametrize(
    "value, bounds",
    [(0.3, {}), (1, {}), (True, {"above": 0}), (0.3, {"above": 0, "below": 1}), (True, {"above": 0, "below": 1}), (None, {})],
)  # fmt: skip
def test_a_claim_without_one_bound_is_refused(shown, value, bounds):
    with pytest.raises(ValueError, match=r"'zeros stay' rests on .*: give one bound, above= or"):
        lesson.claim("zeros stay", value, **bounds)
    assert not shown
