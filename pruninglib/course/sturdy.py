"""How far each claim and record is from breaking: lessons run as they would come out elsewhere.

The same seeds give other networks on another processor, and fresh seeds on this one stand for them.
Each lesson runs with groups of fresh seeds, once on another code path of the processor, and once
beside busy processes. What came out is one committed table, `notebooks/sturdy.csv`.
"""

import ast
import contextlib
import datetime
import hashlib
import json
import math
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import joblib
import nbformat
import numpy as np
import pandas as pd

from pruninglib.course import ROOT
from pruninglib.course.runner import Interrupted, Kernels, Lesson, execute, outcome

TABLE = ROOT / "notebooks" / "sturdy.csv"
GROUPS = 10
LEAST_Z = 4.0  # one break in some 30,000 runs, if what is measured is distributed normally
PACKAGES = ("torch", "numpy", "scikit-learn")
EXACT = (1.0, 1.0)  # a truth, as a number
COLUMNS = [
    *("lesson", "kind", "text", "bound", "groups", "held", "mean", "sd", "z"),
    *("code path", "busy", "green", "code", "date", "versions"),
]
# Ends with its parent, whatever ends that.
BUSY = "import os\nparent = os.getppid()\nwhile os.getppid() == parent: sum(range(10**6))"


@dataclass(frozen=True)
class Condition:
    """Under which a lesson runs: other seeds, another code path, or a busy machine."""

    name: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    busy: int = 0  # processes that keep the machine busy beside it


def conditions(groups: int) -> list[Condition]:
    """The groups of fresh seeds, "code path" and "busy"."""
    old = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}
    return [
        *(Condition(f"seeds {n}", {"first_seed": n}) for n in range(1000, 1000 * groups + 1, 1000)),
        Condition("code path", env=old),
        Condition("busy", busy=2),
    ]


def code_of(notebook: nbformat.NotebookNode) -> str:
    """A fingerprint of what a lesson computes, claims and records.

    Not of its prose, nor of what it says of the values, nor of comments, layout and cells.
    """
    cells = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    statements = [statement for source in cells for statement in ast.parse(source).body]
    meaning = "\n".join(ast.dump(s) for s in statements if not _only_tells(s))
    return hashlib.sha256(meaning.encode()).hexdigest()[:12]


def _only_tells(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.For):
        return all(map(_only_tells, statement.body))
    called = statement.value if isinstance(statement, ast.Expr) else None
    return isinstance(called, ast.Call) and ast.unparse(called.func) in ("pl.say", "pl.plots.alt")


def measure(
    lesson: Lesson, code: str, condition: Condition, kernels: Kernels | None = None
) -> dict:
    """One run: lesson, code, condition, seconds, claims and records, or the error that ended it."""
    with tempfile.TemporaryDirectory() as folder, _busy(condition.busy):
        copy = Path(folder) / lesson.path.name
        options = {"env": condition.env, "kernels": kernels}
        result = execute(lesson, copy, condition.parameters, **options)
    broken = not all(claim["held"] for claim in result["claims"])
    return {
        "lesson": lesson.path.stem,
        "code": code,
        "condition": condition.name,
        "seconds": result["seconds"],
        "claims": result["claims"],
        "records": result["records"],
        "error": None if broken and result["error"].startswith("The claim") else result["error"],
    }


def measure_all(
    lessons: Sequence[Lesson], groups: int, runs: Path, jobs: int | None = None
) -> Iterator[tuple[dict, int, int, float]]:
    """Measure what the file `runs` has not yet, several at once; each run is added to it at once.

    Yields each new run, how many are done, of how many, and the seconds that are left, about.
    """
    known = {(run["lesson"], run["code"], run["condition"]) for run in read_runs(runs)}
    missing = []
    for lesson in lessons:
        # not in each run: `ast` can't parse in several threads at once (cpython's issue 106905)
        code = code_of(nbformat.read(lesson.path, as_version=4))
        asked = conditions(groups)
        missing += [
            (lesson, code, c) for c in asked if (lesson.path.stem, code, c.name) not in known
        ]
    runs.parent.mkdir(parents=True, exist_ok=True)
    kernels, began = Kernels(), time.perf_counter()
    pool = ThreadPoolExecutor(jobs or joblib.cpu_count())
    try:
        futures = [pool.submit(measure, *run, kernels) for run in missing]
        for done, future in enumerate(as_completed(futures), start=1):
            with contextlib.suppress(Interrupted):
                run = future.result()
                if run["error"] is None:
                    with runs.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(run) + "\n")
                left = (time.perf_counter() - began) / done * (len(futures) - done)
                yield run, done, len(futures), left
    finally:
        kernels.stop()
        pool.shutdown(cancel_futures=True)


def read_runs(path: Path) -> list[dict]:
    """The runs that a file holds; a line that was cut short is left out."""
    runs = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        with contextlib.suppress(json.JSONDecodeError):
            runs.append(json.loads(line))
    return runs


def table_of(lesson: Lesson, runs: Sequence[dict], groups: int) -> pd.DataFrame:
    """A row for each claim and record of the lesson as committed, from the runs of its code.

    held: in how many of the `groups`. mean, sd: of the value over the groups. z: the mean's
    distance from the bound (a record's: from the nearer end of its tolerance) in such standard
    deviations; all empty for what is exact. green: held everywhere, and z at least 4 or exact.
    """
    notebook = nbformat.read(lesson.path, as_version=4)
    code, committed = code_of(notebook), outcome(notebook)
    own = {
        run["condition"]: run
        for run in runs
        if run["lesson"] == lesson.path.stem and run["code"] == code
    }
    rows = []
    for kind, text, least, most in _bounds(committed):
        found = [_value(own.get(c.name), kind, text) for c in conditions(groups)]
        held = [least <= value <= most for value in found]
        row = {
            "lesson": lesson.path.stem,
            "kind": kind,
            "text": text,
            "bound": _words(least, most),
            "groups": groups,
            "held": sum(held[:groups]),
        }
        row |= _spread(found[:groups], least, most) if (least, most) != EXACT else {}
        row |= {
            "code path": "held" if held[groups] else "broke",
            "busy": "held" if held[groups + 1] else "broke",
            "green": all(held) and row.get("z", math.inf) >= LEAST_Z,
            "code": code,
            "date": datetime.date.today().isoformat(),
            "versions": _versions(),
        }
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _spread(values: Sequence[float], least: float, most: float) -> dict[str, float]:
    mean, sd = float(np.mean(values)), float(np.std(values, ddof=1))
    distance = min(mean - least, most - mean)
    z = distance / sd if sd else math.copysign(math.inf, distance)
    z = float(np.floor(10 * z) / 10)  # never rounded up to what is asked for
    return {"mean": float(f"{mean:.4g}"), "sd": float(f"{sd:.3g}"), "z": z}


def write(tables: Sequence[pd.DataFrame], path: Path = TABLE) -> pd.DataFrame:
    """Put the lessons' rows in place of their earlier ones, in the file; returns all of them."""
    new = pd.concat(tables)
    old = read(path) if path.exists() else new[:0]
    whole = pd.concat([old[~old["lesson"].isin(new["lesson"])], new])
    whole = whole.sort_values("lesson", kind="stable", ignore_index=True)
    whole.to_csv(path, index=False)
    return whole


def read(path: Path = TABLE) -> pd.DataFrame:
    return pd.read_csv(path, dtype={"code": str})


def _bounds(committed: dict) -> Iterator[tuple[str, str, float, float]]:
    """kind, text, and the least and the most that the value may be."""
    for claim in committed["claims"]:
        above, below = claim["above"], claim["below"]
        if above is below is None:
            yield "claim", claim["text"], *EXACT
        elif below is None:
            yield "claim", claim["text"], math.nextafter(above, math.inf), math.inf
        else:
            yield "claim", claim["text"], -math.inf, math.nextafter(below, -math.inf)
    for name, record in committed["records"].items():
        yield "record", name, record["value"] - record["tol"], record["value"] + record["tol"]


def _value(run: dict | None, kind: str, text: str) -> float:
    """What a run has for a claim or record; NaN where the run, or it in the run, is missing."""
    if run is None:
        return math.nan
    if kind == "record":
        return run["records"].get(text, {}).get("value", math.nan)
    claim = next((claim for claim in run["claims"] if claim["text"] == text), None)
    if claim is None:
        return math.nan
    exact = claim["above"] is claim["below"] is None
    value = claim["held"] if exact else claim["value"]
    return math.nan if value is None else float(value)


def _words(least: float, most: float) -> str:
    if (least, most) == EXACT:
        return "exact"
    if math.isinf(most):  # a claim's value has to be beyond its bound: the number next to it
        return f"above {math.nextafter(least, -math.inf):.4g}"
    if math.isinf(least):
        return f"below {math.nextafter(most, math.inf):.4g}"
    return f"{least:.4g} to {most:.4g}"


def _versions() -> str:
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    return f"Python {platform.python_version()}, {packages}, {platform.machine()}"


@contextlib.contextmanager
def _busy(processes: int) -> Iterator[None]:
    others = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(processes)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()
