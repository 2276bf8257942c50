"""The lessons as regression tests: found, run in fresh kernels, compared with what is committed.

Each lesson runs once as it is, and in few repeats with other seeds: sound, sabotaged until a claim
breaks, and with each control until its last record (`branches.py`). What a run gives serves all
tests that need it, and all of a lesson's runs together may cost at most COST times its own.
"""

import ast
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
import pytest
from branches import CHANGES, CONTROLS, EXACT, SABOTAGES

from pruninglib.course import machine, runner
from pruninglib.course.fold import mixed, only_speaks
from pruninglib.course.runner import LessonError, execute, find_lessons, outcome

FOUND = find_lessons()
LESSONS = [lesson for lesson in FOUND if lesson.number is not None]
SELF_TESTS = [lesson for lesson in FOUND if lesson.number is None]  # they ask, and claim nothing
COST = 2.5  # all runs of a lesson, in CPU seconds of its own run
SLACK = 1.2  # on what is measured: moments of a machine differ
FORKS = sys.platform == "linux"  # macOS has no fork that its own libraries survive
OFFLINE = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")  # nobody is there
FEWEST = {"seeds": 2, "first_seed": 10}  # other seeds, and as few as an interval allows


each = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
asking = pytest.mark.parametrize("lesson", SELF_TESTS, ids=lambda lesson: lesson.path.stem)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="lessons "))  # the space is part of the test


@functools.cache
def committed(lesson_path: Path):
    return nbformat.read(lesson_path, as_version=4)


@functools.cache
def own_run(lesson_path: Path) -> dict:
    """The lesson as it is: its result, as in results.json, with exact outputs and CPU seconds.

    Its unit is measured before and after it, for the machine's speed changes with what else it does.
    """
    unit, copy = machine.unit(time.process_time), folder() / lesson_path.name
    began = cpu_seconds()
    result = execute(lesson_path, copy, env=OFFLINE)
    executed, cpu = nbformat.read(copy, as_version=4), cpu_seconds() - began
    unit = (unit + machine.unit(time.process_time)) / 2
    return result | {"exact": exact_cells(executed), "cpu": cpu, "unit": unit}


@functools.cache
def branches(lesson_path: Path) -> dict[str, dict]:
    """What came of few repeats, as they are and with each change; and the CPU seconds of them all."""
    began = cpu_seconds()
    lesson = next(lesson for lesson in LESSONS if lesson.path == lesson_path)
    out = folder() / lesson_path.stem
    out.mkdir()
    quiet = {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": "", "MPLBACKEND": "agg"}
    script = Path(__file__).with_name("branches.py")
    call = [sys.executable, script, lesson_path, json.dumps(few_of(lesson)), out]
    env = runner._environment(1, OFFLINE | quiet)
    for one in [[]] if FORKS else [["few"], *([change] for change in CHANGES)]:
        subprocess.run([*call, *one], cwd=lesson_path.parent, env=env, check=True)
    runs = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in out.iterdir()}
    return runs | {"cpu": cpu_seconds() - began}


def few_of(lesson) -> dict:
    return {name: value for name, value in FEWEST.items() if name in lesson.parameters}


def exact_cells(notebook) -> list[list]:
    """What the cells with nbval's mark show: the text that they print, and each output as text."""
    marked = [c for c in notebook.cells if c.cell_type == "code" and EXACT in c.source]
    return [
        ["".join(o.text for o in cell.outputs if o.output_type == "stream")]
        + [o.data.get("text/plain") for o in cell.outputs if "data" in o]
        for cell in marked
    ]


def cpu_seconds() -> float:
    """Of this process and of those that it has started and that have ended."""
    return sum(os.times()[:4])


@each
def test_runs_and_every_claim_holds(lesson):
    result = own_run(lesson.path)
    assert result["error"] is None
    assert result["claims"] and all(claim["held"] for claim in result["claims"])


@each
def test_records_agree_with_the_committed_ones(lesson):
    records, before = own_run(lesson.path)["records"], outcome(committed(lesson.path))["records"]
    assert before and records.keys() == before.keys()
    for name, record in records.items():
        assert abs(record["value"] - before[name]["value"]) <= before[name]["tol"], name


@each
def test_runs_with_other_parameters(lesson):
    assert few_of(lesson), f"{lesson.path.stem} has none of the parameters {', '.join(FEWEST)}"
    result = branches(lesson.path)["few"]
    assert result["error"] is None  # with so few repeats a claim may fail, but nothing else
    assert len(result["claims"]) == len(outcome(committed(lesson.path))["claims"])


@each
def test_exact_cells_show_what_is_committed(lesson):
    """With few repeats, too: what is exact does not depend on them."""
    exact = exact_cells(committed(lesson.path))
    assert exact and own_run(lesson.path)["exact"] == exact
    assert branches(lesson.path)["few"]["exact"] == exact


@each
@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_claims_break_under_sabotage(lesson, sabotage):
    runs = branches(lesson.path)
    sound = {claim["text"] for claim in runs["few"]["claims"] if claim["held"]}
    broken = {claim["text"] for claim in runs[sabotage]["claims"] if not claim["held"]}
    assert sound & broken, f"every claim of {lesson.path.stem} still holds with {sabotage}"


@each
@pytest.mark.parametrize("control", CONTROLS)
def test_no_record_accepts_an_untrained_or_randomly_pruned_model(lesson, control):
    records = branches(lesson.path)[control]["records"]
    for name, record in outcome(committed(lesson.path))["records"].items():
        assert name in records, f"the model {control} breaks the lesson before {name!r}"
        distance = abs(records[name]["value"] - record["value"])
        assert distance > record["tol"], f"the tolerance of {name!r} accepts the model {control}"


def test_a_lesson_has_one_worker_which_its_tests_share():
    chosen = ["-k", "unknown_parameter or rhythm", "-n2", "-v", "-p", "no:cacheprovider", __file__]
    call = [sys.executable, "-m", "pytest", *chosen]
    done = subprocess.run(call, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    workers = {}
    for worker, lesson in re.findall(r"\[(gw\d)\] .*\[(\w+)\]", done.stdout):
        workers.setdefault(lesson, []).append(worker)
    assert workers.keys() == {lesson.path.stem for lesson in LESSONS}, done.stdout
    assert all(len(own) == 2 and own[0] == own[1] for own in workers.values())
    assert len({own[0] for own in workers.values()}) == 2


def test_nbval_reads_the_marks_as_we_do():
    """On the lesson whose last exact cell comes first, cut after it, and with one that is wrong."""
    pytest.importorskip("nbval")

    def last_exact(lesson):
        cells = enumerate(committed(lesson.path).cells)
        return max((place for place, cell in cells if EXACT in cell.source), default=10**6)

    lesson = min(LESSONS, key=last_exact)
    notebook = nbformat.from_dict(committed(lesson.path)).copy()
    three = nbformat.v4.new_output("execute_result", {"text/plain": "3"}, execution_count=1)
    wrong = nbformat.v4.new_code_cell(f"# {EXACT}\n1 + 1", outputs=[three], execution_count=1)
    notebook.cells = [*notebook.cells[: last_exact(lesson) + 1], wrong]
    path = folder() / f"nbval {lesson.path.name}"
    nbformat.write(notebook, path)
    options = ["--nbval-lax", "-p", "no:cacheprovider", "-rf", "-n0"]
    call = [sys.executable, "-m", "pytest", *options, f"--rootdir={folder()}", "-c", "/dev/null"]
    env = runner._environment(1, OFFLINE)
    done = subprocess.run([*call, path], capture_output=True, text=True, env=env)
    failed = re.findall(r"^FAILED .*::(Cell \d+)", done.stdout, re.MULTILINE)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert failed == [f"Cell {len(code) - 1}"], done.stdout[-3000:]
    assert f"1 failed, {len(code) - 1} passed" in done.stdout


@each
def test_a_lesson_and_its_checks_keep_to_their_budgets(lesson, record_property):
    """In CPU seconds: a busy machine stretches them less than those of a clock."""
    own, runs = own_run(lesson.path)["cpu"], branches(lesson.path)
    units = own / own_run(lesson.path)["unit"]
    checks = 1 + runs["cpu"] / own
    record_property("cost", f"{lesson.path.stem:28}{own:5.0f} s {units:5.0f} units {checks:7.2f}")
    assert units <= SLACK * machine.BUDGET
    assert checks <= SLACK * COST or not FORKS


@each
def test_unknown_parameter_is_an_error(lesson):
    with pytest.raises(LessonError, match=r"'seed'.* is (seeds|first_seed)"):
        execute(lesson, folder() / "never.ipynb", {"seed": 1})
    assert not (folder() / "never.ipynb").exists()


@asking
def test_a_self_test_runs_and_no_question_is_attempted(lesson):
    out = folder() / lesson.path.name
    result = execute(lesson, out)
    assert (result["error"], result["claims"], result["records"]) == (None, [], {})
    cells = [c for c in nbformat.read(out, as_version=4).cells if c.cell_type == "code"]
    checks = [str(cell.outputs) for cell in cells if ".check(" in cell.source]
    assert checks and all("Not attempted" in output for output in checks)
    assert lesson.question.endswith("?") and lesson.minutes and lesson.seconds


@pytest.mark.parametrize("lesson", FOUND, ids=lambda lesson: lesson.path.stem)
def test_committed_outputs_are_whole_and_portable(lesson):
    assert lesson.path.stat().st_size < 600_000
    code = [c for c in committed(lesson.path).cells if c.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    assert not [o for cell in code for o in cell.outputs if o.output_type in ("error", "stream")
                and o.get("name") != "stdout"]  # fmt: skip
    assert all(claim["held"] for claim in outcome(committed(lesson.path))["claims"])
    text = lesson.path.read_text(encoding="utf-8")
    assert not re.search(r'["\s](/[a-z]+/[\w.]+/|[A-Z]:\\\\)', text)


@each
def test_rhythm_of_a_lesson(lesson):
    cells = committed(lesson.path).cells
    code = [cell.source for cell in cells if cell.cell_type == "code"]
    lengths = [len(source.splitlines()) for source in code]
    assert statistics.median(lengths) <= 8 and max(lengths) <= 25
    assert lesson.number and lesson.question.endswith("?") and lesson.minutes and lesson.seconds
    prose = [cell.source for cell in cells if cell.cell_type == "markdown"]
    assert sum("Predict first" in text for text in prose) >= 2
    assert sum(".check(" in source for source in code) >= 3
    for source in code:  # a broken claim ends its cell, so nothing may come after it
        assert source.count("pl.claim(") <= 1
        if "pl.claim(" in source:
            assert re.fullmatch(r"(?s).*\npl\.claim\(.*\)|pl\.claim\(.*\)", source)


@each
def test_no_measured_number_is_typed_into_prose(lesson):
    """Settings may be named (“prune 80 %”); results have decimals, and come from pl.say."""
    for cell in committed(lesson.path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d[.,]\d+ ?(points|times|ms|seconds)", cell.source)
            for number in re.findall(r"\d+[.,]\d+ ?(?=%)", cell.source):
                assert number.strip() in ("99.5", "99.9"), f"{number}% is typed: use pl.say"


@each
def test_cells_that_speak_are_folded_and_those_that_compute_are_not(lesson):
    assert mixed(committed(lesson.path)) == [], "pruninglib fold says which cells to part"
    for cell in committed(lesson.path).cells:
        hidden = cell.metadata.get("jupyter", {}).get("source_hidden", False)
        assert hidden == (cell.cell_type == "code" and only_speaks(cell.source)), "pruninglib fold"


@each
def test_figures_have_words(lesson):
    code = [cell for cell in committed(lesson.path).cells if cell.cell_type == "code"]
    images = [o for cell in code for o in cell.outputs if "image/png" in o.get("data", {})]
    assert images and all(o.metadata.get("image/png", {}).get("alt") for o in images)


@each
def test_what_is_compared_is_claimed_with_its_bound(lesson):
    """A truth is of what is exact: no `<` or `>` stands in it."""
    inexact = ast.Lt | ast.Gt | ast.LtE | ast.GtE
    code = [cell.source for cell in committed(lesson.path).cells if cell.cell_type == "code"]
    for node in (node for source in code for node in ast.walk(ast.parse(source))):
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "pl.claim":
            assert not any(isinstance(n, inexact) for a in node.args for n in ast.walk(a))
