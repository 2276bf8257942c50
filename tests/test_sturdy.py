"""The table of sturdiness: how it is measured, and that the committed one is of these lessons."""

import json
import math
import os
import subprocess
import time

import nbformat
import pytest
from click.testing import CliRunner

from pruninglib.course import cli, sturdy
from pruninglib.course.lesson import CLAIM, RECORD
from pruninglib.course.runner import find_lessons, outcome, read_lesson

LESSONS = {lesson.path.stem: lesson for lesson in find_lessons() if lesson.number is not None}


def output(kind, **data):
    return nbformat.v4.new_output("display_data", {kind: data, "text/plain": ""})


def claimed(text, held=True, value=None, above=None, below=None):
    ends = {"low": None, "high": None}
    return {"text": text, "held": held, "value": value, "above": above, "below": below} | ends


@pytest.fixture
def lesson(tmp_path):
    """Three claims and a record, as committed."""
    outputs = [
        output(CLAIM, **claimed("equal")),
        output(CLAIM, **claimed("ahead", value=0.3, above=0.1)),
        output(CLAIM, **claimed("cheap", value=1.0, below=4.0)),
        output(RECORD, name="accuracy", value=0.9, tol=0.2),
    ]
    cells = [
        nbformat.v4.new_markdown_cell("# 01 · A\n\n**Why?**"),
        nbformat.v4.new_code_cell("first_seed = 0", metadata={"tags": ["parameters"]}),
        nbformat.v4.new_code_cell("x = 1", outputs=outputs, execution_count=1),
    ]
    path = tmp_path / "notebooks" / "01_a.ipynb"
    path.parent.mkdir()
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    nbformat.write(notebook, path)
    return read_lesson(path)


def run_of(lesson, condition, equal=True, ahead=0.3, cheap=1.0, accuracy=0.9):
    return {
        "lesson": lesson.path.stem,
        "code": sturdy.code_of(nbformat.read(lesson.path, as_version=4)),
        "condition": condition,
        "seconds": 1.0,
        "claims": [
            claimed("equal", equal),
            claimed("ahead", value=ahead, above=0.1),
            claimed("cheap", value=cheap, below=4.0),
        ],
        "records": {"accuracy": {"value": accuracy, "tol": 0.2}},
        "error": None,
    }


def runs_of(lesson, **changes):
    """Two groups and both other conditions; `changes`: by value, what they measured in turn."""
    names = [c.name for c in sturdy.conditions(2)]
    return [
        run_of(lesson, name, **{key: values[i] for key, values in changes.items()})
        for i, name in enumerate(names)
    ]


def test_conditions_are_fresh_seeds_another_code_path_and_a_busy_machine():
    *groups, path, busy = sturdy.conditions(3)
    assert [dict(c.parameters) for c in groups] == [{"first_seed": n} for n in (1000, 2000, 3000)]
    assert path.env["ATEN_CPU_CAPABILITY"] == "default" and "ONEDNN_MAX_CPU_ISA" in path.env
    assert busy.busy == 2 and not busy.env and not path.parameters
    assert all(not c.env and not c.busy for c in groups)


def test_the_table_by_hand(lesson):
    """Bound 0.1, values 0.3 and 0.4: the mean is 0.25 above it, their deviation 0.0707."""
    runs = runs_of(lesson, ahead=[0.3, 0.4, 0.2, 0.2], accuracy=[0.9, 1.0, 0.9, 0.9])
    table = sturdy.table_of(lesson, runs, 2).set_index("text")
    assert list(table.index) == ["equal", "ahead", "cheap", "accuracy"]
    row = table.loc["ahead"]
    assert (row["held"], row["groups"], row["bound"]) == (2, 2, "above 0.1")
    assert (row["mean"], row["sd"], row["z"]) == pytest.approx((0.35, 0.0707, 3.5))
    assert not row["green"]  # 3.5 is not 4
    assert table.loc["equal", "bound"] == "exact" and math.isnan(table.loc["equal", "z"])
    assert table.loc["cheap", "bound"] == "below 4" and table.loc["cheap", "z"] == math.inf
    # 0.95 is 0.15 from the nearer end of 0.7 to 1.1
    assert table.loc["accuracy", "bound"] == "0.7 to 1.1"
    assert table.loc["accuracy", "z"] == pytest.approx(2.1)
    assert table["green"].tolist() == [True, False, True, False]


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize(
    "text, change",
    [
        ("equal", {"equal": False}),
        ("ahead", {"ahead": 0.1}),
        ("ahead", {"ahead": None}),
        ("cheap", {"cheap": 4.0}),
        ("accuracy", {"accuracy": 0.69}),
    ],
)
def test_one_break_anywhere_is_seen(lesson, place, text, change):
    runs = runs_of(lesson)
    assert sturdy.table_of(lesson, runs, 2)["green"].all()
    runs[place] = run_of(lesson, runs[place]["condition"], **change)
    table = sturdy.table_of(lesson, runs, 2).set_index("text")
    assert table.index[~table["green"]].tolist() == [text]
    row = table.loc[text]
    assert (row["held"], row["code path"], row["busy"]) == (
        (1, "held", "held") if place < 2 else (2, *["broke", "held"][:: 1 if place == 2 else -1])
    )


def test_what_was_not_measured_is_not_green(lesson):
    runs = runs_of(lesson)
    assert not sturdy.table_of(lesson, runs[1:], 2)["green"].any()
    assert not sturdy.table_of(lesson, runs[:-1], 2)["green"].any()
    other = [run | {"code": "other"} for run in runs]
    assert not sturdy.table_of(lesson, other, 2)["green"].any()
    del runs[0]["claims"][1], runs[0]["records"]["accuracy"]
    assert sturdy.table_of(lesson, runs, 2)["green"].tolist() == [True, False, True, False]


def test_the_code_is_what_is_computed_not_how_it_is_written(lesson):
    notebook = nbformat.read(lesson.path, as_version=4)
    before = sturdy.code_of(notebook)
    notebook.cells[0].source += "\n\nMore prose."
    notebook.cells[2].source = "x = (  # a comment\n    1\n)"
    cell = "pl.plots.alt('x')\nfor y in (1, 2):\n    pl.say('{y}', y=y)"
    notebook.cells.append(nbformat.v4.new_code_cell(cell))
    assert sturdy.code_of(notebook) == before
    notebook.cells[3].source = cell.replace("say", "claim")
    assert sturdy.code_of(notebook) != before
    notebook.cells.pop()
    notebook.cells[2].source = "x = 2"
    assert sturdy.code_of(notebook) != before


def test_rows_take_the_place_of_earlier_ones(lesson, tmp_path):
    table = sturdy.table_of(lesson, runs_of(lesson), 2)
    other = table.assign(lesson="00_b")
    assert sturdy.write([table], tmp_path / "t.csv").equals(table)
    both = sturdy.write([other], tmp_path / "t.csv")
    assert both["lesson"].tolist() == ["00_b"] * 4 + ["01_a"] * 4
    again = sturdy.write([table.assign(held=0)], tmp_path / "t.csv")
    assert again["held"].tolist() == [2] * 4 + [0] * 4
    assert sturdy.read(tmp_path / "t.csv")["held"].tolist() == again["held"].tolist()


@pytest.fixture
def executed(monkeypatch):
    """What was asked of the runner, which runs nothing."""
    asked = []

    def execute(lesson, out, parameters, *, env, kernels):
        asked.append((dict(parameters), dict(env)))
        broke = parameters.get("first_seed") == 1000
        claims = [claimed("ahead", not broke, value=0.0 if broke else 0.3, above=0.1)]
        error = "The claim “ahead” broke." if broke else None
        if parameters.get("first_seed") == 2000 and fails:
            error = "Cell [2] raised ValueError: no"
        return {"seconds": 1.0, "claims": claims, "records": {}, "error": error}

    fails = []
    monkeypatch.setattr(sturdy, "execute", execute)
    return asked, fails


def test_each_run_is_kept_and_only_the_rest_is_run_again(lesson, executed, tmp_path):
    asked, fails = executed
    fails.append(True)
    runs = tmp_path / "new" / "runs.jsonl"
    seen = list(sturdy.measure_all([lesson], 2, runs, jobs=1))
    assert [run["condition"] for run, *_ in seen] == [
        "seeds 1000",
        "seeds 2000",
        "code path",
        "busy",
    ]
    assert [(done, total) for _, done, total, _ in seen] == [(n, 4) for n in (1, 2, 3, 4)]
    assert asked[2][1]["ATEN_CPU_CAPABILITY"] == "default"
    # a broken claim is a measurement; a run that stopped is none
    assert [run["error"] for run, *_ in seen] == [
        None,
        "Cell [2] raised ValueError: no",
        None,
        None,
    ]
    assert len(sturdy.read_runs(runs)) == 3
    runs.write_text(runs.read_text() + '{"lesson": "01_a", "co')  # a crash
    fails.clear(), asked.clear()
    assert len(list(sturdy.measure_all([lesson], 2, runs, jobs=1))) == 1
    assert asked == [({"first_seed": 2000}, {})]


def test_busy_processes_are_there_and_then_gone():
    with sturdy._busy(2):
        mine = subprocess.run(
            ["pgrep", "-P", str(os.getpid()), "-f", "getppid"], capture_output=True, text=True
        ).stdout.split()
        assert len(mine) == 2
    time.sleep(0.1)
    for pid in mine:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_the_command(lesson, executed, tmp_path, monkeypatch):
    monkeypatch.setattr("pruninglib.course.runner.ROOT", tmp_path)
    monkeypatch.setattr(sturdy.write, "__defaults__", (tmp_path / "sturdy.csv",))
    call = ["sturdy", "01", "--groups", "2", "--jobs", "1"]
    done = CliRunner().invoke(cli.main, call)
    assert done.exit_code == 1
    assert "01_a  seeds 1000      1.0 s  “ahead” broke  [1/4, about" in done.output
    assert "not sturdy: 01_a claim “ahead”: 1 of 2, z" in done.output
    assert json.loads((tmp_path / "build" / "sturdy.jsonl").read_text().splitlines()[0])["code"]
    assert len(sturdy.read(tmp_path / "sturdy.csv")) == 4
    executed[1].append(True)
    (tmp_path / "build" / "sturdy.jsonl").unlink()
    (tmp_path / "sturdy.csv").unlink()
    done = CliRunner().invoke(cli.main, call)
    assert done.exit_code == 1 and "1 runs stopped: the table is as it was." in done.output
    assert not (tmp_path / "sturdy.csv").exists()


@pytest.mark.parametrize("name", sorted(LESSONS))
def test_the_committed_table_is_of_this_lesson_and_green(name):
    notebook, rows = nbformat.read(LESSONS[name].path, as_version=4), sturdy.read()
    rows = rows[rows["lesson"] == name]
    again = f"measure it again: pruninglib sturdy {LESSONS[name].number:02d}"
    assert set(rows["code"]) == {sturdy.code_of(notebook)}, f"its code has changed: {again}"
    committed = outcome(notebook)
    said = [claim["text"] for claim in committed["claims"]] + [*committed["records"]]
    assert rows["text"].tolist() == said, f"its claims have changed: {again}"
    assert (rows["groups"] >= sturdy.GROUPS).all() and (rows["held"] == rows["groups"]).all()
    assert (rows[["code path", "busy"]] == "held").all(axis=None)
    assert (rows["z"].isna() == (rows["bound"] == "exact")).all()
    assert (rows["z"].dropna() >= sturdy.LEAST_Z).all() and rows["green"].all()


def test_a_margin_is_not_rounded_up_to_what_is_asked_for():
    assert sturdy._spread([0.0, 2.0], least=1 - 3.99 * math.sqrt(2), most=math.inf)["z"] == 3.9
