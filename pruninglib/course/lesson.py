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


def claim(text: str, condition: bool) -> None:
    """State what the lesson teaches. Raises ClaimBroken if it does not hold."""
    held = bool(condition)
    shown = f"**{'Claim holds' if held else 'Claim broken'}:** {text}"
    display(
        {CLAIM: {"text": text, "held": held}, "text/markdown": shown, "text/plain": shown}, raw=True
    )
    if not held:
        raise ClaimBroken(
            f"{text} (this held with the lesson's own parameters; with others, or with few "
            "seeds, it may not)"
        )
