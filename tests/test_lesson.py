"""What lessons say: sentences, records, claims."""

import pytest

from pruninglib.course import lesson


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


@pytest.mark.parametrize("held", [True, False])
def test_claim_is_stored_before_it_breaks(shown, held):
    try:
        lesson.claim("zeros stay", held)
        assert held
    except lesson.ClaimBroken as error:
        assert not held and "zeros stay" in str(error)
    assert shown[0][lesson.CLAIM] == {"text": "zeros stay", "held": held}
