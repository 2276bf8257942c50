"""The page of the full tier, `notebooks/RESULTS.md`: made by `make results`, never by hand.

A lesson takes part by tagging a cell `result`. What such cells show, as Markdown and as figures,
goes to the page, with the lesson's records and what they were measured with.
"""

import base64
import datetime
import os
import platform
from collections.abc import Mapping, Sequence
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
    """Write the page, and the figures into the folder `results` beside it.

    report: what `runner.run` returned for these lessons and parameters; the notebooks that it made
    are in `out`. A broken claim is a result too, and is said.
    """
    given = ", ".join(f"{name} = {value!r}" for name, value in parameters.items())
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    parts = [
        "# Results on the published data",
        f"Written by `make results` on {datetime.date.today()} with {given}: "
        f"{os.cpu_count()} cores, Python {platform.python_version()}, {packages}.",
    ]
    for lesson, result in zip(lessons, report["lessons"], strict=True):
        parts += _section(lesson, result, out / lesson.path.name, page)
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def _section(lesson: Lesson, result: Mapping[str, Any], run: Path, page: Path) -> list[str]:
    link = Path(os.path.relpath(lesson.path, page.parent)).as_posix()
    broken = [f"“{claim['text']}”" for claim in result["claims"] if not claim["held"]]
    held = f"{len(result['claims']) - len(broken)} of {len(result['claims'])} claims held"
    if broken:
        held += f"; broken: {'; '.join(broken)}"
    parts = [
        f"## [{lesson.number:02d} {lesson.title}]({link})",
        f"{result['seconds']:.0f} seconds. {held}.",
        "| Recorded | Value |\n|---|---|\n"
        + "\n".join(f"| {name} | {r['value']:.4g} |" for name, r in result["records"].items()),
    ]
    folder = page.parent / "results"
    for number, data in enumerate(_outputs(run), start=1):
        if "image/png" in data:
            folder.mkdir(exist_ok=True)
            figure = folder / f"{lesson.path.stem}-{number}.png"
            figure.write_bytes(base64.b64decode(data["image/png"]))
            parts.append(f"![{lesson.question}]({folder.name}/{figure.name})")
        elif "text/markdown" in data:
            parts.append(data["text/markdown"])
    return parts


def _outputs(notebook: Path) -> list[Mapping[str, str]]:
    return [o["data"] for cell in _tagged(notebook) for o in cell.outputs if "data" in o]


def _tagged(notebook: Path) -> list[nbformat.NotebookNode]:
    cells = nbformat.read(notebook, as_version=4).cells
    return [cell for cell in cells if TAG in cell.metadata.get("tags", [])]
