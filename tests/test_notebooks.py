"""The lessons as regression tests: found, run in fresh kernels, compared with what is committed.

Each lesson runs once as it is, and in few repeats with other seeds: whole, through nbval, and once
for every sabotage. What a run gives serves all tests that need it.
"""

import functools
import re
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest

from pruninglib.course.runner import LessonError, execute, find_lessons, outcome

FOUND = find_lessons()
LESSONS = [lesson for lesson in FOUND if lesson.number is not None]
SELF_TESTS = [lesson for lesson in FOUND if lesson.number is None]  # they ask, and claim nothing
FEWEST = {"seeds": 2, "first_seed": 10}  # other seeds, and as few as an interval allows

# Each is put before a lesson's first cell. What a lesson calls and what the library calls inside is
# the same function under several names, so every one of them is replaced.
REPLACE = """
import contextlib, sys
import pruninglib as pl

def replace(original, other):
    for name, module in list(sys.modules.items()):
        if name.startswith("pruninglib"):
            for key, value in list(vars(module).items()):
                if value is original:
                    setattr(module, key, other)

@contextlib.contextmanager
def forget(model, masks, optimizer):
    yield model

select = pl.select
"""
SABOTAGES = {
    "mask inverted": """
replace(pl.select, lambda *a, **k: {name: ~mask for name, mask in select(*a, **k).items()})
""",
    "masks dropped in fine-tuning": "replace(pl.keep, forget)",
    "pruner does nothing": """
replace(pl.keep, forget)
replace(pl.apply, lambda model, masks: None)
""",
}
CONTROLS = {
    "randomly pruned": """
for criterion in (pl.magnitude, pl.taylor, pl.snip, pl.fisher):
    replace(criterion, lambda model, *a, **k: pl.random(model))
""",
    "untrained": """
def untrained(model, loss, batches, epochs, *, after_epoch=None, **options):
    for epoch in range(1, epochs + 1):
        if after_epoch:
            after_epoch(epoch)
    return []

replace(pl.fit, untrained)
""",
}


def runs_of(lesson, part):
    """Tests that share runs stay on one worker."""
    group = pytest.mark.xdist_group(f"{lesson.path.stem}, {part}")
    return pytest.param(lesson, id=lesson.path.stem, marks=group)


whole = pytest.mark.parametrize("lesson", [runs_of(lesson, "whole") for lesson in LESSONS])
few = pytest.mark.parametrize("lesson", [runs_of(lesson, "few") for lesson in LESSONS])
still = pytest.mark.parametrize("lesson", LESSONS, ids=lambda lesson: lesson.path.stem)
asking = pytest.mark.parametrize("lesson", SELF_TESTS, ids=lambda lesson: lesson.path.stem)


@functools.cache
def folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="lessons "))  # the space is part of the test


@functools.cache
def committed(lesson_path: Path):
    return nbformat.read(lesson_path, as_version=4)


@functools.cache
def result_of(lesson_path: Path, sabotage: str | None = None, fewest: bool = True) -> dict:
    """The result of a run, as in results.json."""
    lesson = next(lesson for lesson in LESSONS if lesson.path == lesson_path)
    path, name = lesson.path, f"{lesson.path.stem} {sabotage} {fewest}.ipynb"
    if sabotage:
        notebook = nbformat.from_dict(committed(lesson_path))
        change = REPLACE + (SABOTAGES | CONTROLS)[sabotage]
        notebook = notebook.copy()
        notebook.cells = [nbformat.v4.new_code_cell(change), *notebook.cells]
        path = folder() / f"changed {name}"
        nbformat.write(notebook, path)
    # a download, if a lesson tried one, would find nobody there
    offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:9")
    return execute(path, folder() / name, few_of(lesson) if fewest else {}, env=offline)


def few_of(lesson) -> dict:
    return {name: value for name, value in FEWEST.items() if name in lesson.parameters}


@whole
def test_runs_and_every_claim_holds(lesson):
    result = result_of(lesson.path, fewest=False)
    assert result["error"] is None
    assert result["claims"] and all(claim["held"] for claim in result["claims"])


@whole
def test_records_agree_with_the_committed_ones(lesson):
    records, before = (
        result_of(lesson.path, fewest=False)["records"],
        outcome(committed(lesson.path))["records"],
    )
    assert before and records.keys() == before.keys()
    for name, record in records.items():
        assert abs(record["value"] - before[name]["value"]) <= before[name]["tol"], name


@few
def test_runs_with_other_parameters(lesson):
    assert few_of(lesson), f"{lesson.path.stem} has none of the parameters {', '.join(FEWEST)}"
    result = result_of(lesson.path)
    # with so few repeats a claim may fail, but nothing else
    assert result["error"] is None or result["error"].startswith("The claim")
    assert len(result["claims"]) == len(outcome(committed(lesson.path))["claims"])


@few
@pytest.mark.parametrize("sabotage", SABOTAGES)
def test_claims_break_under_sabotage(lesson, sabotage):
    sound = {c["text"] for c in result_of(lesson.path)["claims"] if c["held"]}
    broken = {c["text"] for c in result_of(lesson.path, sabotage)["claims"] if not c["held"]}
    assert sound & broken, f"every claim of {lesson.path.stem} still holds with {sabotage}"


@few
@pytest.mark.parametrize("control", CONTROLS)
def test_no_record_accepts_an_untrained_or_randomly_pruned_model(lesson, control):
    records = result_of(lesson.path, control)["records"]
    for name, record in outcome(committed(lesson.path))["records"].items():
        assert name in records, f"the model {control} breaks the lesson before {name!r}"
        distance = abs(records[name]["value"] - record["value"])
        assert distance > record["tol"], f"the tolerance of {name!r} accepts the model {control}"


@few
def test_nbval_agrees_on_exact_cells(lesson):
    """On a copy with few repeats: what is exact does not depend on them."""
    notebook = nbformat.from_dict(committed(lesson.path)).copy()
    assert any("NBVAL_CHECK_OUTPUT" in cell.source for cell in notebook.cells)
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        if "parameters" in tags:
            cell.source += "\n" + "\n".join(f"{k} = {v!r}" for k, v in few_of(lesson).items())
        if "pl.claim(" in cell.source:  # may fail here, as above
            cell.metadata["tags"] = [*tags, "raises-exception"]
    path = folder() / f"nbval {lesson.path.name}"
    nbformat.write(notebook, path)
    command = [sys.executable, "-m", "pytest", "-q", "--nbval-lax", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "-n0", f"--rootdir={folder()}", "-c", "/dev/null", str(path)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:]


@still
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


@still
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


@still
def test_no_measured_number_is_typed_into_prose(lesson):
    """Settings may be named (“prune 80 %”); results have decimals, and come from pl.say."""
    for cell in committed(lesson.path).cells:
        if cell.cell_type == "markdown":
            assert not re.search(r"\d[.,]\d+ ?(points|times|ms|seconds)", cell.source)
            for number in re.findall(r"\d+[.,]\d+ ?(?=%)", cell.source):
                assert number.strip() in ("99.5", "99.9"), f"{number}% is typed: use pl.say"
