"""Runs lessons: finds them, executes each in a fresh kernel, writes down what came out.

A lesson speaks through its outputs: each claim and each record is an output of a type of its own,
so that the executed notebook alone says how the lesson went.
"""

import asyncio
import difflib
import hashlib
import json
import logging
import math
import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import joblib
import nbformat
import papermill
import zmq
from jupyter_core.utils import ensure_event_loop
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from papermill.execute import remove_error_markers
from tqdm import tqdm

from pruninglib.course import ROOT, machine, pages
from pruninglib.course.lesson import CLAIM, RECORD, ClaimBroken

NUMBERS = ("value", "low", "high", "above", "below")  # of a claim; None for what it does not have
BROKEN = ClaimBroken.__name__  # the lesson goes on after it

# The result tells what went wrong: what papermill and nbclient log about it would say it twice.
_log = logging.getLogger(__name__)
_log.addHandler(logging.NullHandler())
_log.propagate = False


class LessonError(ValueError):
    """A lesson, a parameter or an output folder that cannot be used, in one sentence."""


class Interrupted(Exception):
    """The run was interrupted before this lesson ended."""


# ------------------------------------------------------------------------------ lessons


@dataclass(frozen=True)
class Lesson:
    path: Path
    number: int | None
    name: str
    title: str
    question: str
    minutes: int | None  # to read
    seconds: int | None  # to run
    parameters: dict[str, dict]  # name -> papermill's description of it

    @property
    def label(self) -> str:
        return self.name if self.number is None else f"{self.number:02d} {self.name}"


def find_lessons(root: Path | None = None) -> list[Lesson]:
    """Every lesson below `notebooks/`, in the order of parts and numbers; self-tests end a part.

    A self-test is a notebook without a number, `self_test*.ipynb`. Others are a learner's own.
    """
    folder = Path(root or ROOT) / "notebooks"
    paths = [
        path
        for pattern in ("[0-9][0-9]_*.ipynb", "self_test*.ipynb")
        for path in folder.rglob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not paths:
        raise LessonError(
            f"There are no lessons below {folder}: "
            "install the course from its clone, with pip install --editable ."
        )
    return [read_lesson(path) for path in sorted(paths)]


def read_lesson(path: str | Path) -> Lesson:
    """What a notebook says about itself in its first markdown cell and its parameters cell."""
    path = Path(path).resolve()
    try:
        notebook = nbformat.read(path, as_version=4)
        parameters = papermill.inspect_notebook(_literal(path))
    except Exception as error:
        raise LessonError(f"{path} is not a readable notebook: {_first_line(error)}") from error
    text = next((cell.source for cell in notebook.cells if cell.cell_type == "markdown"), "")
    heading = re.search(r"^# +(?:\d+\s*·\s*)?(.+)$", text, re.MULTILINE)
    after = text[heading.end() :].strip() if heading else ""
    stem = re.fullmatch(r"(\d\d)_(.+)", path.stem)
    return Lesson(
        path=path,
        number=int(stem[1]) if stem else None,
        name=stem[2] if stem else path.stem,
        title=heading[1].strip() if heading else path.stem,
        question=after.partition("\n")[0].strip("*_ "),
        minutes=_number(r"(\d+) minutes? to read", text),
        seconds=_number(r"(\d+) seconds? to run", text),
        parameters=parameters,
    )


def choose(names: Sequence[str], lessons: Sequence[Lesson]) -> list[Lesson]:
    """The lessons that `names` mean (all, without names), each once, in the order given."""
    chosen = {lesson.path: lesson for lesson in (_one(name, lessons) for name in names)}
    return list(chosen.values()) if names else list(lessons)


def _one(name: str, lessons: Sequence[Lesson]) -> Lesson:
    if name.endswith(".ipynb"):
        for path in (Path(name), ROOT / name):
            if path.is_file():
                return read_lesson(path)
    rules: list[Callable[[Lesson], bool]] = [
        lambda lesson: name in (lesson.path.name, lesson.path.stem, lesson.name),
        lambda lesson: name.isdecimal() and lesson.number == int(name),
        lambda lesson: lesson.path.stem.startswith(name) or lesson.name.startswith(name),
        lambda lesson: name in lesson.path.stem,
    ]
    for rule in rules:
        found = [lesson for lesson in lessons if name and rule(lesson)]
        if len(found) == 1:
            return found[0]
        if found:
            stems = " and ".join(lesson.path.stem for lesson in found)
            raise LessonError(f"{name!r} fits {stems}: name one of them in full.")
    known = {key: lesson for lesson in lessons for key in (lesson.name, lesson.path.stem)}
    known |= {f"{lesson.number:02d}": lesson for lesson in lessons if lesson.number is not None}
    near = known[_nearest(Path(name).stem, known)].path.stem
    raise LessonError(f"There is no lesson {name!r}: the nearest is {near}.")


def check_parameters(lessons: Sequence[Lesson], parameters: Mapping[str, Any]) -> None:
    """Refuse, before anything runs, a parameter that one of the lessons does not have.

    Beside numbered lessons, a notebook without a number needs none of the parameters.
    """
    for lesson in [lesson for lesson in lessons if lesson.number is not None] or lessons:
        for name, value in parameters.items():
            if name not in lesson.parameters:
                near = (
                    f"the nearest that it has is {_nearest(name, lesson.parameters)}"
                    if lesson.parameters
                    else "it has none"
                )
                raise LessonError(f"Lesson {lesson.path.stem} has no parameter {name!r}: {near}.")
            # papermill would write anything else into the notebook as a string
            if not _is_json(value):
                raise LessonError(
                    f"{name} is {value!r}, but must be a JSON value: a number, a string, true, "
                    "false, null, or a list or dict of those."
                )
            # A lesson lists the values it accepts in the parameter's comment: "bundled" or "full".
            allowed = re.findall(r"""["'](\w+)["']""", lesson.parameters[name]["help"])
            if len(allowed) > 1 and value not in allowed:
                raise LessonError(
                    f"{name} is {value!r}, and lesson {lesson.path.stem} "
                    f"accepts {' or '.join(map(repr, allowed))}."
                )


def _is_json(value: Any) -> bool:
    """Whether a value is the same after it was written and read: a tuple would be a list."""
    try:
        return repr(json.loads(json.dumps(value, allow_nan=False))) == repr(value)
    except (TypeError, ValueError):
        return False


# ------------------------------------------------------------------------ one notebook


def outcome(notebook: nbformat.NotebookNode) -> dict[str, Any]:
    """The claims and records that an executed notebook holds."""
    claims: list[dict] = []
    records: dict[str, dict] = {}
    for output in _outputs(notebook):
        data = output.get("data", {})
        if CLAIM in data:
            claim = data[CLAIM]
            numbers = {key: _finite(claim.get(key)) for key in NUMBERS}
            claims.append({"text": claim["text"], "held": bool(claim["held"])} | numbers)
        if RECORD in data:
            record = dict(data[RECORD])
            records[record.pop("name")] = record
    return {"claims": claims, "records": records}


def execute(
    lesson: Lesson | str | Path,
    out_path: str | Path,
    parameters: Mapping[str, Any] | None = None,
    threads: int = 1,
    *,
    env: Mapping[str, str] | None = None,
    progress: bool | dict = False,
    kernels: "Kernels | None" = None,
) -> dict[str, Any]:
    """Run one notebook in a kernel of its own, write it to `out_path`, return its result.

    The result is a lesson's entry in results.json. `env` is added to the kernel's environment;
    `progress` is False or the options of papermill's progress bar.
    """
    if not isinstance(lesson, Lesson):
        lesson = read_lesson(lesson)
    parameters = dict(parameters or {})
    check_parameters([lesson], parameters)
    kernels = kernels or Kernels()
    out_path = Path(out_path).resolve()
    out_path.parent.mkdir(parents=True, exist_ok=True)
    fingerprint = _fingerprint(lesson)
    # Written under another name until it is whole: an interrupt leaves an earlier result as it was.
    partial = out_path.with_name(f".unfinished-{out_path.stem}.ipynb")
    began = time.perf_counter()
    error = None
    notebook = nbformat.v4.new_notebook()
    try:
        try:
            papermill.execute_notebook(
                _literal(lesson.path),
                _literal(partial),
                parameters,
                engine_name="pruninglib",
                kernel_name="python3",
                language="python",
                progress_bar=progress,
                environment=_environment(threads, env),
                folder=str(lesson.path.parent),
                kernels=kernels,
            )
        except papermill.PapermillExecutionError:
            pass  # it names the first error only: all of them are read from the notebook below
        except DeadKernelError:
            error = "The kernel died, most often for want of memory: close other programs."
        except Exception as other:
            error = f"The notebook could not be run: {type(other).__name__}: {_first_line(other)}"
        if kernels.stopped:
            raise Interrupted(lesson.label)
        if partial.exists():
            # papermill's own notes on an error say that all stopped there: not so for a claim.
            notebook = remove_error_markers(nbformat.read(partial, as_version=4))
        found = outcome(notebook)
        error = error or _failure(notebook, found)
        result = {
            "path": _relative(lesson.path),
            "title": lesson.title,
            "status": "failed" if error else "ok",
            "seconds": round(time.perf_counter() - began, 2),
            "error": error,
            "claims": found["claims"],
            "records": {
                name: {key: _finite(record.get(key)) for key in ("value", "tol")}
                for name, record in found["records"].items()
            },
        }
        notebook.metadata["pruninglib"] = {
            "fingerprint": fingerprint,
            "parameters": parameters,
            "result": result,
        }
        nbformat.write(notebook, partial)
        os.replace(partial, out_path)
    finally:
        partial.unlink(missing_ok=True)
    return result


def _failure(notebook: nbformat.NotebookNode, found: dict) -> str | None:
    """Why an executed notebook has failed, in one sentence; None where all is well."""
    broken = [claim["text"] for claim in found["claims"] if not claim["held"]]
    for cell in notebook.cells:
        expected = "raises-exception" in cell.metadata.get("tags", [])
        for output in cell.get("outputs", []):
            if output.output_type != "error" or expected or (broken and output.ename == BROKEN):
                continue
            message = _first_line(output.evalue)
            return f"Cell [{cell.execution_count}] raised {output.ename}: {message}"
    if broken:
        more = f", and {len(broken) - 1} more" if len(broken) > 1 else ""
        return f"The claim “{broken[0]}” broke{more}."
    for name, record in found["records"].items():
        if _finite(record.get("value")) is None:
            return f"The record {name!r} is {record.get('value')!r}, not a finite number."
    return None


class Kernels:
    """The kernels at work, so that an interrupt can end them all."""

    def __init__(self) -> None:
        self.stopped = False
        self._live: dict[Any, asyncio.AbstractEventLoop] = {}
        self._lock = threading.Lock()

    @contextmanager
    def holding(self, manager: Any) -> Iterator[None]:
        with self._lock:
            self._live[manager] = ensure_event_loop()
        try:
            self.go_on()
            yield
        finally:
            with self._lock:
                del self._live[manager]

    def go_on(self, **_: Any) -> None:
        """Called before each cell: a kernel that was only starting when all stopped ends here."""
        if self.stopped:
            raise Interrupted

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            for manager, loop in self._live.items():
                asyncio.run_coroutine_threadsafe(manager.shutdown_kernel(now=True), loop)


class _Engine(NBClientEngine):
    """papermill's engine, with the kernel's environment, and where a broken claim stops nothing."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man, kernel_name, *, environment, folder, kernels, **_unused
    ):
        client = PapermillNotebookClient(
            nb_man,
            kernel_name=kernel_name,
            startup_timeout=120,
            iopub_timeout=120,  # a busy machine may bring outputs long after the reply
            allow_error_names=[BROKEN],
            on_cell_start=kernels.go_on,
            log=_log,
        )
        client.create_kernel_manager()
        # On a machine shared with others nobody can listen in; and the kernel warns without it.
        if zmq.has("curve"):
            client.km.transport_encryption = "auto"
        with kernels.holding(client.km):
            return client.execute(env=environment, cwd=folder)


papermill_engines.register("pruninglib", _Engine)


def _environment(threads: int, env: Mapping[str, str] | None) -> dict[str, str]:
    limits = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    # The lesson imports the library that runs it, even where another copy is installed.
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **dict.fromkeys(limits, str(threads)),
        # On a busy machine, threads that spin while they wait made training 30 times slower.
        "OMP_WAIT_POLICY": "PASSIVE",
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        # the kernel works in the lesson's folder, not in ours
        **{k: os.path.abspath(v) for k, v in os.environ.items() if k == "PRUNINGLIB_DATA" and v},
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # else each kernel warns about its debugger
        **(env or {}),
    }


# ----------------------------------------------------------------------- many lessons


def run(
    lessons: Sequence[Lesson],
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    out: str | Path | None = None,
    resume: bool = False,
) -> dict[str, Any]:
    """Run lessons, several at once, and write their notebooks, pages, index and results to `out`.

    Returns what results.json holds. A lesson that fails stops no other. On KeyboardInterrupt the
    finished lessons keep their results, and with `resume` the next run leaves them out.
    """
    parameters = dict(parameters or {})
    check_parameters(lessons, parameters)
    if len({lesson.path.name for lesson in lessons}) < len(lessons):
        raise LessonError(
            "Two of the lessons have the same file name: run them one after the other."
        )
    out = _folder(Path(out or ROOT / "build" / "course").resolve())
    factor = round(machine.factor(), 2)
    expected = {lesson.path: _expected(lesson, parameters, factor) for lesson in lessons}
    done: dict[Path, dict] = {}
    if resume:
        for lesson in lessons:
            earlier = _earlier_result(lesson, out, _own(parameters, lesson))
            if earlier:
                done[lesson.path] = earlier | {"expected_seconds": expected[lesson.path]}
    rest = [lesson for lesson in lessons if lesson.path not in done]
    cores = joblib.cpu_count()
    jobs = max(1, min(jobs or cores, len(rest)))
    threads = max(1, cores // jobs)
    kernels = Kernels()
    progress = _Progress(lessons, rest, jobs, factor)

    def work(lesson: Lesson) -> dict:
        with progress.showing(lesson) as bar:
            target = out / lesson.path.name
            own = _own(parameters, lesson)
            result = execute(lesson, target, own, threads, progress=bar, kernels=kernels)
            try:
                pages.write_lesson(target, lesson.title)
            except Exception as error:  # the other lessons go on
                problem = (
                    f"Its page could not be made: {type(error).__name__}: {_first_line(error)}"
                )
                result |= {"status": "failed", "error": result["error"] or problem}
            return result | {"expected_seconds": expected[lesson.path]}

    def write() -> dict:
        report = {
            "total_seconds": round(time.perf_counter() - progress.began, 2),
            "factor": factor,
            "lessons": [done[lesson.path] for lesson in lessons if lesson.path in done],
        }
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        _write(out / "results.json", text + "\n")
        rows = [(lesson, done.get(lesson.path)) for lesson in lessons]
        _write(out / "index.html", pages.index(rows, report, parameters))
        return report

    pool = ThreadPoolExecutor(jobs)
    try:
        waiting = {pool.submit(work, lesson): lesson for lesson in rest}
        while waiting:
            # The short wait keeps the clock running and lets an interrupt through.
            for future in wait(waiting, timeout=0.5, return_when=FIRST_COMPLETED).done:
                lesson = waiting.pop(future)
                done[lesson.path] = future.result()
                write()
                progress.finished(lesson, done[lesson.path])
            progress.tick()
    finally:
        kernels.stop()
        pool.shutdown(cancel_futures=True)
        progress.close()
        report = write()
    return report


def _own(parameters: Mapping[str, Any], lesson: Lesson) -> dict[str, Any]:
    return {name: value for name, value in parameters.items() if name in lesson.parameters}


def _expected(lesson: Lesson, parameters: Mapping[str, Any], factor: float) -> float | None:
    """What the lesson states, on a machine of this factor; None with other parameters than its own."""
    if lesson.seconds is None or _own(parameters, lesson):
        return None
    return round(lesson.seconds * factor, 1)


def _earlier_result(lesson: Lesson, out: Path, parameters: dict) -> dict | None:
    """The result of an earlier run that was ok, of the same lesson, library and parameters."""
    try:
        target = out / lesson.path.name
        kept = nbformat.read(target, as_version=4).metadata["pruninglib"]
        same = kept["fingerprint"] == _fingerprint(lesson) and kept["parameters"] == parameters
        if not same or kept["result"]["status"] != "ok":
            return None
        if not target.with_suffix(".html").exists():
            pages.write_lesson(target, lesson.title)
        return kept["result"]
    except Exception:
        return None  # no earlier run, or one that cannot be read: the lesson runs again


class _Progress:
    """On a terminal one line for each running lesson and a total; elsewhere plain lines."""

    def __init__(
        self, lessons: Sequence[Lesson], rest: Sequence[Lesson], jobs: int, factor: float
    ) -> None:
        self.began = time.perf_counter()
        self.jobs = jobs
        self.total = len(lessons)
        self.width = max((len(lesson.label) for lesson in lessons), default=0)
        self.expected = {lesson.path: (lesson.seconds or 30) * factor for lesson in rest}
        self.started: dict[Path, float] = {}
        self.declared = self.measured = 0.0
        self.slots: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(jobs):
            self.slots.put(slot + 1)
        self.bar = None
        if len(rest) < self.total:
            print(f"{self.total - len(rest)} of {self.total} lessons are kept from an earlier run.")
        if rest:
            print(
                f"This machine takes {factor:.2g} times the seconds that lessons state"
                f"{self.remaining()}.",
                flush=True,
            )
        if sys.stdout.isatty():
            self.bar = tqdm(
                total=self.total,
                initial=self.total - len(rest),
                file=sys.stdout,
                position=0,
                leave=False,
                bar_format="{desc} {bar:20} {n_fmt}/{total_fmt} lessons, {elapsed}{postfix}",
                desc="total".ljust(self.width),
            )

    @contextmanager
    def showing(self, lesson: Lesson) -> Iterator[bool | dict]:
        slot = self.slots.get()
        self.started[lesson.path] = time.perf_counter()
        if not self.bar:
            # one write, line end included: several lessons may start at once
            print(f"{lesson.label:{self.width}}  started\n", end="", flush=True)
        try:
            yield self.bar is not None and {
                "desc": lesson.label.ljust(self.width),
                "file": sys.stdout,
                "position": slot,
                "leave": False,
                "bar_format": "{desc} {bar:20} {n_fmt}/{total_fmt} cells, {elapsed}",
            }
        finally:
            self.slots.put(slot)

    def finished(self, lesson: Lesson, result: dict) -> None:
        self.declared += self.expected.pop(lesson.path)
        self.measured += result["seconds"]
        held = sum(claim["held"] for claim in result["claims"])
        verdict = f"{held} claim{'s' * (held != 1)} held" if result["claims"] else "no claims"
        if result["error"]:
            verdict += f"  {result['error']}"
        count = self.total - len(self.expected)
        status = "ok    " if result["status"] == "ok" else "FAILED"
        line = f"{lesson.label:{self.width}}  {status} {result['seconds']:6.1f} s  {verdict}"
        if self.bar:
            self.bar.write(line, file=sys.stdout)
            self.bar.update()
        else:
            print(f"{line}  [{count}/{self.total}{self.remaining()}]", flush=True)

    def remaining(self) -> str:
        """From the seconds that are expected and how the finished lessons kept to theirs."""
        pace = self.measured / self.declared if self.declared else 1.0
        now = time.perf_counter()
        left = [
            max(1.0, seconds * pace - (now - self.started.get(path, now)))
            for path, seconds in self.expected.items()
        ]
        return f", about {max(sum(left) / self.jobs, *left):.0f} s left" if left else ""

    def tick(self) -> None:
        if self.bar:
            self.bar.set_postfix_str(self.remaining().removeprefix(", "), refresh=True)

    def close(self) -> None:
        if self.bar:
            self.bar.close()


# ------------------------------------------------------------------------ small things


def _fingerprint(lesson: Lesson) -> str:
    """Changes with the notebook and with the library: a result is of both."""
    digest = hashlib.sha256(lesson.path.read_bytes())
    for path in sorted((ROOT / "pruninglib").rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _folder(path: Path) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        raise LessonError(
            f"{path} cannot be written to ({error.strerror}): name another folder with --out (make: OUT=folder)."
        ) from error
    return path


def _write(path: Path, text: str) -> None:
    """Whole or not at all."""
    new = path.with_name(f".{path.name}.new")
    new.write_text(text, encoding="utf-8")
    os.replace(new, path)


def _relative(path: Path) -> str:
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def _literal(path: Path) -> str:
    """papermill takes a path for a template: a brace in it must be doubled."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _outputs(notebook: nbformat.NotebookNode) -> Iterator[nbformat.NotebookNode]:
    return (output for cell in notebook.cells for output in cell.get("outputs", []))


def _finite(value: Any) -> float | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _first_line(message: object) -> str:
    return next(iter(str(message).strip().splitlines()), "no message")


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    return difflib.get_close_matches(word, known, n=1, cutoff=0.0)[0]


def _number(pattern: str, text: str) -> int | None:
    found = re.search(pattern, text)
    return int(found[1]) if found else None
