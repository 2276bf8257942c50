"""What a lesson says of its own results: numbers in prose, records, claims.

Each writes a display output; records and claims also carry their data in it, so that an
executed notebook can be read by a program.
"""

import math

from IPython.display import Markdown, display

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
    text: str, value: float | bool, *, above: float | None = None, below: float | None = None
) -> None:
    """State what the lesson teaches: that `value` lies above, or below, a bound.

    What is exact (equal masks, a shape) is given as a truth, without a bound. The value and its
    bound stay in the output: `pruninglib sturdy` tells from them how far a claim is from breaking
    with other seeds. Both are in one unit; shares, not points. Raises ClaimBroken if it does not
    hold; a value of NaN never does.
    """
    value = value.item() if hasattr(value, "item") else value  # NumPy's and torch's own
    bounds = [bound for bound in (above, below) if bound is not None]
    if len(bounds) != (0 if isinstance(value, bool) else 1):
        raise ValueError(
            f"the claim {text!r} rests on {value!r}: give one bound, above= or below=, "
            "or True or False for what is exact"
        )
    data: dict = {"text": text, "value": None, "above": above, "below": below}
    if isinstance(value, bool):
        held, rests = value, ""
    else:
        value = float(value)
        held = value > above if below is None else value < below
        data["value"] = value if math.isfinite(value) else None
        rests = (
            f" ({value:.3g}, bound: {f'above {above:g}' if below is None else f'below {below:g}'})"
        )
    shown = f"**{'Claim holds' if held else 'Claim broken'}:** {text}{rests}"
    data = {CLAIM: data | {"held": held}, "text/markdown": shown, "text/plain": shown}
    display(data, raw=True)
    if not held:
        raise ClaimBroken(
            f"{text}{rests} (this held with the lesson's own parameters; with others, or with few "
            "seeds, it may not)"
        )
