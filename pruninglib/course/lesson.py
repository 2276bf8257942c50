"""What a lesson says of its own results: numbers in prose, records, claims.

Each writes a display output; records and claims also carry their data in it, so that an
executed notebook can be read by a program.
"""

import math

from IPython.display import Markdown, display

from ..measure.stats import Interval

RECORD = "application/vnd.pruninglib.record+json"
CLAIM = "application/vnd.pruninglib.claim+json"


class ClaimBroken(AssertionError):
    """What a lesson claims did not hold in this run."""


def say(template: str, **values) -> None:
    """Show a sentence of Markdown with measured values filled in by `str.format`."""
    display(Markdown(template.format(**values)))


def record(name: str, value: float, tol: float) -> None:
    """Store a headline result; a later run must come within `tol` of it, in absolute terms.

    Choose `tol` so that an untrained and a randomly pruned model both miss: the tests run the
    lesson with such models and refuse a record that accepts either.
    """
    value, tol = float(value), float(tol)
    if not (math.isfinite(value) and 0 <= tol < math.inf):
        raise ValueError(f"record {name!r} is {value} ± {tol}: both must be finite, tol at least 0")
    text = f"recorded {name}: {value:.4g} ± {tol:.2g}"
    display({RECORD: {"name": name, "value": value, "tol": tol}, "text/plain": text}, raw=True)


def claim(
    text: str,
    value: float | bool | Interval,
    *,
    above: float | None = None,
    below: float | None = None,
) -> None:
    """State what the lesson teaches: that `value` lies above, or below, a bound.

    What is exact (equal masks, a shape) is given as a truth, without a bound. Of an interval the
    mean has to be on the right side; the ends are stored beside it. All in one unit; shares, not
    points. The value and its bound stay in the output: `pruninglib sturdy` tells from them how far
    a claim is from breaking with other networks. Raises ClaimBroken if it does not hold; a value of
    NaN never does.
    """
    shown, ends = value, {"low": None, "high": None}
    if isinstance(value, Interval):
        value, ends = value.mean, {"low": _number(value.low), "high": _number(value.high)}
    value = value.item() if hasattr(value, "item") else value  # NumPy's and torch's own
    bounds = {"above": above, "below": below}
    given = {side: bound for side, bound in bounds.items() if bound is not None}
    if len(given) != (0 if isinstance(value, bool) else 1):
        raise ValueError(
            f"the claim {text!r} rests on {value!r}: give one bound, above= or below=, "
            "or True or False for what is exact"
        )
    if given:
        held = value > above if below is None else value < below
        side, bound = next(iter(given.items()))
        rests = f" ({shown:.3g}, bound: {side} {bound:g})"
    else:
        held, rests = value, ""
    data = {"text": text, "held": held, "value": _number(value) if given else None, **ends}
    said = f"**{'Claim holds' if held else 'Claim broken'}:** {text}{rests}"
    data = {CLAIM: data | bounds, "text/markdown": said, "text/plain": said}
    display(data, raw=True)
    if not held:
        raise ClaimBroken(
            f"{text}{rests} (this held with the lesson's own parameters; with others, or with few "
            "seeds, it may not)"
        )


def _number(value: float) -> float | None:
    """None for what JSON has no word for."""
    return value if math.isfinite(value) else None
