"""The page of the full tier, `notebooks/RESULTS.md`: made by `make results`, never by hand.

A lesson takes part by tagging a cell `result`. What such cells show, as Markdown, figures and tables,
goes to the page, with the lesson's claims and records and what they were measured with.
"""

import base64
import datetime
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat

from .runner import Lesson

TAG = "result"
PACKAGES = ("torch", "torchvision", "scikit-learn")


def takes_part(lesson: Lesson) -> bool:
    """Whether one of the lesson's cells is for the page."""
    return bool(_tagged(lesson.path))


def write(
    lessons: Sequence[Lesson], report: Mapping[str, Any], parameters: Mapping[str, Any],
    out: Path, page: Path,
) -> None:  # fmt: skip
    """Write the lessons' sections of the page, and their figures into the folder `results` beside it.

    report: what `runner.run` returned for these lessons and parameters; the notebooks that it made
    are in `out`. Sections of other lessons stay as they are. A claim that does not hold is a result
    too: holds, contradicted or open.
    """
    given = ", ".join(f"{name} = {value!r}" for name, value in parameters.items())
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    made = (
        f"{datetime.date.today()}, {given}: {os.cpu_count()} cores, "
        f"Python {platform.python_version()}, {packages}"
    )
    earlier = page.read_text(encoding="utf-8") if page.exists() else ""
    sections = {int(part[4:6]): part.strip() for part in re.split(r"(?m)^(?=## \[)", earlier)[1:]}
    for lesson, result in zip(lessons, report["lessons"], strict=True):
        parts = _section(lesson, result, out / lesson.path.name, page, made)
        sections[lesson.number] = "\n\n".join(parts)
    parts = [
        "# Results on the published data",
        "Written by `make results`; `make results ARGS=08` measures one lesson again.",
        *(sections[number] for number in sorted(sections)),
    ]
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _section(
    lesson: Lesson, result: Mapping[str, Any], run: Path, page: Path, made: str
) -> list[str]:
    link = Path(os.path.relpath(lesson.path, page.parent)).as_posix()
    parts = [
        f"## [{lesson.number:02d} {lesson.title}]({link})",
        f"{made}; {result['seconds']:.0f} seconds.",
        _rows(["Claim", "Verdict", "Measured", "Bound"], map(_claim, result["claims"])),
        _rows(
            ["Recorded", "Value"],
            ([name, f"{record['value']:.4g}"] for name, record in result["records"].items()),
        ),
    ]
    folder = page.parent / "results"
    for earlier in folder.glob(f"{lesson.path.stem}-*.png"):  # cells move, and numbers with them
        earlier.unlink()
    for number, output in enumerate(_outputs(run), start=1):
        data = output["data"]
        if "image/png" in data:
            folder.mkdir(exist_ok=True)
            figure = folder / f"{lesson.path.stem}-{number}.png"
            figure.write_bytes(base64.b64decode(data["image/png"]))
            alt = output["metadata"].get("image/png", {}).get("alt", lesson.question)
            parts.append(f"![{alt}]({folder.name}/{figure.name})")
        elif "text/markdown" in data:
            parts.append(data["text/markdown"])
        elif "text/html" in data:  # a table
            parts.append(re.sub(r"(?s)<style.*?</style>\s*|\n\s*(?=\n)", "", data["text/html"]))
    return parts


def _claim(claim: Mapping[str, Any]) -> list[str]:
    """Its text, verdict, value with interval, and bound.

    Broken and contradicted are two things: where the interval holds the bound, the question is
    open. What has no interval is only shown or not.
    """
    above, below, low, high = (claim[key] for key in ("above", "below", "low", "high"))
    if claim["value"] is None:
        return [claim["text"], "holds" if claim["held"] else "contradicted", "", ""]
    value, bound = (
        f"{claim['value']:.3g}",
        f"above {above:g}" if below is None else f"below {below:g}",
    )
    if low is None or high is None:
        return [claim["text"], "holds" if claim["held"] else "not shown", value, bound]
    sides = (low > above, high <= above) if below is None else (high < below, low >= below)
    verdict = "holds" if sides[0] else "contradicted" if sides[1] else "open"
    return [claim["text"], verdict, f"{value} ({low:.3g} to {high:.3g})", bound]


def _rows(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        f"| {' | '.join(t.replace('|', chr(92) + '|') for t in line)} |" for line in lines
    )


def _outputs(notebook: Path) -> list[Mapping[str, Any]]:
    return [o for cell in _tagged(notebook) for o in cell.outputs if "data" in o]


def _tagged(notebook: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if TAG in cell.metadata.get("tags", [])]
