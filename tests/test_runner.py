"""The runner and its command, on throw-away lessons in a clone of their own."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
import torch
from click.testing import CliRunner
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from pruninglib import Interval
from pruninglib.course import check, cli, lesson, machine, runner
from pruninglib.course import results as page_of_results

SPEAK = """\
from IPython.display import display


class ClaimBroken(AssertionError):
    pass


def claim(text, held):
    content = {"text": text, "held": held}
    display({"application/vnd.pruninglib.claim+json": content, "text/plain": text}, raw=True)
    if not held:
        raise ClaimBroken(text)


def record(name, value, tol):
    content = {"name": name, "value": value, "tol": tol}
    display({"application/vnd.pruninglib.record+json": content, "text/plain": name}, raw=True)
"""
PARAMETERS = 'seed = 0\ndata = "bundled"  # "bundled" or "full"'
LIBRARY = {"PYTHONPATH": str(Path(__file__).parents[1])}  # the copy under test, not one installed
OK = ['claim("all is well", True)', 'record("accuracy", 0.5 + seed, 0.1)']
BROKEN = ['claim("up", False)', 'claim("down", True)', 'claim("left", False)', *OK]


def write_lesson(root, name, cells, title="A title", parameters=PARAMETERS):
    number = f"{name[:2]} · " if name[:2].isdecimal() else ""
    head = f"# {number}{title}\n\n**Is it so?**\n\n*7 minutes to read · 2 seconds to run*"
    notebook = new_notebook(
        metadata={"kernelspec": {"name": "python3", "language": "python", "display_name": "x"}},
        cells=[
            new_markdown_cell(f"{head}\n\nA formula: $\\Delta L \\approx -g^\\top w$."),
            new_code_cell(parameters, metadata={"tags": ["parameters"]}),
            *map(new_code_cell, [SPEAK, *cells]),
        ],
    )
    path = root / "notebooks" / "1_part" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """An empty clone, in a folder whose name is hard to handle; the work is done elsewhere."""
    root = tmp_path / "a {clone} with spaces"
    root.mkdir()
    monkeypatch.setattr(runner, "ROOT", root)
    monkeypatch.setattr(machine, "factor", lambda: 1.504)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return root


def pruninglib(*arguments):
    return CliRunner().invoke(cli.main, [str(argument) for argument in arguments])


def results(clone, out="build/course"):
    report = json.loads((clone / out / "results.json").read_text(encoding="utf-8"))
    return {Path(lesson["path"]).stem: lesson for lesson in report["lessons"]}


# ------------------------------------------------------------------------ finding lessons


def test_lessons_are_found_and_read(clone):
    second = write_lesson(clone, "02_second_thing", OK, title="Second thing")
    write_lesson(clone, "01_first_thing", OK)
    copies = second.parent / ".ipynb_checkpoints"
    copies.mkdir()
    (copies / "02_second_thing.ipynb").write_bytes(second.read_bytes())
    first, lesson = runner.find_lessons()
    assert first.number == 1
    assert (lesson.path, lesson.number, lesson.name) == (second, 2, "second_thing")
    assert (lesson.title, lesson.question) == ("Second thing", "Is it so?")
    assert (lesson.minutes, lesson.seconds) == (7, 2)
    assert list(lesson.parameters) == ["seed", "data"]
    listed = pruninglib("list")
    assert listed.exit_code == 0
    assert re.search(r"02 +Second thing +7 min +Is it so\?", listed.output)


def test_a_self_test_ends_its_part_and_is_run_without_parameters_of_its_own(clone):
    write_lesson(clone, "self_test", ["x = 1"], title="Self-test", parameters="")
    write_lesson(clone, "Untitled", ["1 / 0"])  # a learner's own
    write_lesson(clone, "02_last", OK)
    later = write_lesson(clone, "03_later", OK)
    (clone / "notebooks/2_part").mkdir()
    later.rename(clone / "notebooks/2_part/03_later.ipynb")
    lessons = runner.find_lessons()
    assert [lesson.number for lesson in lessons] == [2, None, 3]
    assert lessons[1].label == "self_test" and not lessons[1].parameters
    assert re.search(r"^    Self-test +7 min +Is it so\?", pruninglib("list").output, re.MULTILINE)

    done = pruninglib("run", "last", "self", "-p", "seed", "1")
    assert done.exit_code == 0, done.output
    assert re.search(r"self_test +ok +\d+\.\d s +no claims ", done.output)
    assert results(clone)["self_test"]["claims"] == []
    assert results(clone)["02_last"]["records"]["accuracy"]["value"] == 1.5
    course_map = (clone / "build/course/index.html").read_text(encoding="utf-8")
    assert '<a href="self_test.html">Self-test</a>' in course_map and "✓ no claims" in course_map
    again = pruninglib("run", "last", "self", "-p", "seed", "1", "--resume")
    assert "2 of 2 lessons are kept" in again.output

    alone = pruninglib("run", "self_test", "-p", "seed", "1")
    assert alone.exit_code == 2 and "has no parameter 'seed': it has none." in alone.output


@pytest.mark.parametrize(
    "name",
    [
        "2", "02", "magnitude_pruning", "02_magnitude_pruning", "magn", "nitude", "path",
        "02_magnitude_pruning.ipynb", "notebooks/1_part/02_magnitude_pruning.ipynb",
    ],
)  # fmt: skip
def test_a_lesson_is_named_by_number_name_or_path(clone, name):
    write_lesson(clone, "01_what_is_pruning", OK)
    path = write_lesson(clone, "02_magnitude_pruning", OK)
    chosen = runner.choose([str(path) if name == "path" else name], runner.find_lessons())
    assert [lesson.path for lesson in chosen] == [path]


def test_a_lesson_named_twice_runs_once(clone):
    write_lesson(clone, "01_first", OK)
    write_lesson(clone, "02_second", OK)
    chosen = runner.choose(["second", "2", "1"], runner.find_lessons())
    assert [lesson.number for lesson in chosen] == [2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["magnitood"], "There is no lesson 'magnitood': the nearest is 02_magnitude."),
        (["12"], "There is no lesson '12': the nearest is 02_magnitude."),
        (["ni"], "'ni' fits 02_magnitude and 03_beginning: name one of them in full."),
        (["gone.ipynb"], "There is no lesson 'gone.ipynb': the nearest is"),
        (["-p", "sead", "1"], "has no parameter 'sead': the nearest that it has is seed."),
        (["--data", "ful"], "data is 'ful', and lesson 02_magnitude accepts 'bundled' or 'full'."),
        (["--data", "full", "-p", "data", "bundled"], "--data is full and -p data is bundled"),
        (["--out", "file/below"], "cannot be written to"),
    ],
)
def test_a_mistake_is_one_sentence_before_anything_runs(clone, arguments, message):
    write_lesson(clone, "02_magnitude", OK)
    write_lesson(clone, "03_beginning", OK)
    Path("file").touch()
    result = pruninglib("run", *arguments)
    assert result.exit_code == 2
    assert message in result.output and result.output.count("\n") == 1
    assert not (clone / "build").exists()


def test_data_for_a_lesson_without_that_parameter(clone):
    write_lesson(clone, "01_a", OK, parameters="seed = 0")
    result = pruninglib("run", "--data", "full")
    assert result.exit_code == 2 and "01_a has no parameter 'data'" in result.output


def test_a_damaged_notebook_is_named(clone):
    write_lesson(clone, "01_a", OK).write_text('{"cells": [')
    result = pruninglib("list")
    assert result.exit_code == 2 and "01_a.ipynb is not a readable notebook" in result.output


def test_no_lessons_says_where_they_should_be(clone):
    result = pruninglib("list")
    assert result.exit_code == 2 and str(clone / "notebooks") in result.output


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("true", True),
        ("True", True),
        ("None", None),
        ("[0, 1]", [0, 1]),
        ("0, 1", [0, 1]),
        ("['a']", ["a"]),
        ("full", "full"),
        ("a b", "a b"),
    ],
)
def test_values_are_read_as_json_or_python(text, value):
    assert cli._value(text) == value


# ------------------------------------------------------------------------ one notebook


def test_execute_gives_claims_records_and_parameters(clone):
    lesson = write_lesson(clone, "01_fine", OK, title="Fine")
    result = runner.execute(lesson, clone / "out" / "copy.ipynb", {"seed": 2})
    seconds = result.pop("seconds")
    assert 0 < seconds < 60
    assert result == {
        "path": "notebooks/1_part/01_fine.ipynb",
        "title": "Fine",
        "status": "ok",
        "error": None,
        "claims": [
            {"text": "all is well", "held": True} | dict.fromkeys(runner.NUMBERS),
        ],
        "records": {"accuracy": {"value": 2.5, "tol": 0.1}},
    }
    executed = nbformat.read(clone / "out" / "copy.ipynb", as_version=4)
    found = runner.outcome(executed)
    assert found == {"claims": result["claims"], "records": result["records"]}
    assert [path.name for path in (clone / "out").iterdir()] == ["copy.ipynb"]


def test_the_kernel_has_its_threads_and_environment(clone, tmp_path):
    cells = [
        'import os\nclaim(os.environ["OMP_NUM_THREADS"] + os.environ["WORD"], True)',
        "claim(os.getcwd(), True)",
    ]
    copy = tmp_path / "copy.ipynb"
    write_lesson(clone, "01_a", cells).rename(copy)
    result = runner.execute(copy, tmp_path / "out.ipynb", threads=3, env={"WORD": "x"})
    assert [claim["text"] for claim in result["claims"]] == ["3x", str(tmp_path)]
    assert result["path"] == copy.as_posix()


def test_what_a_lesson_says_is_what_the_runner_reads(monkeypatch):
    """The library's own claim and record are what `outcome` understands, once they are a notebook."""
    outputs = []
    show = lambda data, raw: outputs.append(new_output("display_data", data))  # noqa: E731
    monkeypatch.setattr(lesson, "display", show)
    lesson.record("n", 2.0, tol=0.5)
    lesson.claim("holds", True)
    with pytest.raises(lesson.ClaimBroken):
        lesson.claim("breaks", Interval(0.5, 0.1, 0.9), below=0.25)
    written = nbformat.writes(new_notebook(cells=[new_code_cell(outputs=outputs)]))
    found = runner.outcome(nbformat.reads(written, as_version=4))
    exact = dict.fromkeys(runner.NUMBERS)
    assert found["claims"] == [
        {"text": "holds", "held": True} | exact,
        {"text": "breaks", "held": False}
        | exact
        | {"value": 0.5, "low": 0.1, "high": 0.9, "below": 0.25},
    ]
    assert found["records"] == {"n": {"value": 2.0, "tol": 0.5}}
    assert runner._failure(nbformat.reads(written, as_version=4), found) == (
        "The claim “breaks” broke."
    )


def test_a_lesson_goes_on_after_a_broken_claim(clone):
    result = runner.execute(write_lesson(clone, "01_a", BROKEN), clone / "out.ipynb")
    assert result["status"] == "failed"
    assert result["error"] == "The claim “up” broke, and 1 more."
    assert [claim["held"] for claim in result["claims"]] == [False, True, False, True]
    assert "accuracy" in result["records"]


@pytest.mark.parametrize(
    ("cell", "error"),
    [
        ("1 / 0", "Cell [3] raised ZeroDivisionError: division by zero"),
        ("raise ClaimBroken('unsaid')", "Cell [3] raised ClaimBroken: unsaid"),
        ("record('loss', float('nan'), 0.1)", "The record 'loss' is"),
        ("import os\nos._exit(1)", "The kernel died"),
    ],
)
def test_a_lesson_that_fails_says_how(clone, cell, error):
    result = runner.execute(write_lesson(clone, "01_a", [cell]), clone / "out.ipynb")
    assert result["status"] == "failed" and result["error"].startswith(error)


def test_an_error_that_a_cell_announces_is_no_failure(clone):
    path = write_lesson(clone, "01_a", ["1 / 0", *OK])
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[3].metadata["tags"] = ["raises-exception"]
    nbformat.write(notebook, path)
    result = runner.execute(path, clone / "out.ipynb")
    assert (result["status"], len(result["claims"])) == ("ok", 1)


# ------------------------------------------------------------------------ many lessons


def test_a_failed_lesson_stops_no_other(clone):
    write_lesson(clone, "01_raising", ["1 / 0"])
    write_lesson(clone, "02_broken", BROKEN)
    write_lesson(clone, "03_fine", OK, title="Fine & well")
    result = pruninglib("run", "--jobs", 1)
    assert result.exit_code == 1
    assert re.search(
        r"01 raising +FAILED .*Cell \[3\] raised.*\[1/3, about \d+ s left\]\n", result.output
    )
    assert re.search(r"03 fine +ok +\d+\.\d s +1 claim held +\[3/3\]\n", result.output)

    report = json.loads((clone / "build/course/results.json").read_text(encoding="utf-8"))
    assert list(report) == ["total_seconds", "factor", "lessons"]
    keys = ["path", "title", "status", "seconds", "error", "claims", "records", "expected_seconds"]
    assert [list(lesson) for lesson in report["lessons"]] == [keys] * 3
    assert [lesson["status"] for lesson in report["lessons"]] == ["failed", "failed", "ok"]

    course_map = (clone / "build/course/index.html").read_text(encoding="utf-8")
    assert '<a href="03_fine.html">03 · Fine &amp; well</a>' in course_map
    assert "2 held, 2 broke" in course_map and "division by zero" in course_map
    files = {path.name for path in (clone / "build/course").iterdir()}
    stems = ["01_raising", "02_broken", "03_fine"]
    pages = {f"{stem}{ending}" for stem in stems for ending in (".html", ".ipynb")}
    assert files == pages | {"index.html", "results.json"}


def test_times_are_expected_from_the_speed_of_this_machine(clone):
    write_lesson(clone, "01_first", OK)  # states 2 seconds
    write_lesson(clone, "02_second", OK)
    done = pruninglib("run", "--jobs", 1)
    head, *_ = done.output.splitlines()  # before any lesson
    assert head == "This machine takes 1.5 times the seconds that lessons state, about 6 s left."
    report = json.loads((clone / "build/course/results.json").read_text(encoding="utf-8"))
    assert report["factor"] == 1.5
    assert [lesson["expected_seconds"] for lesson in report["lessons"]] == [3.0, 3.0]
    course_map = (clone / "build/course/index.html").read_text(encoding="utf-8")
    assert course_map.count("expected 3 s") == 2 and "takes 1.5 times the seconds" in course_map

    kept = pruninglib("run", "--resume")
    assert "times the seconds" not in kept.output
    assert results(clone)["01_first"]["expected_seconds"] == 3.0
    assert pruninglib("run", "-p", "seed", "1").exit_code == 0
    assert results(clone)["01_first"]["expected_seconds"] is None, "it states its own parameters'"
    assert "expected" not in (clone / "build/course/index.html").read_text(encoding="utf-8")


def test_the_last_lines_of_a_red_run_say_what_broke_and_what_it_means(clone):
    bounds = {"value": 0.123456, "low": 0.1, "high": 0.15, "above": 0.2, "below": None}
    claims = {
        "far": bounds,
        "near": bounds | {"low": None, "high": None, "above": None, "below": 0.12},
        "nan": dict.fromkeys(bounds) | {"above": 0.2},
        "exact": dict.fromkeys(bounds),
    }
    speak = SPEAK.replace('"held": held}', '"held": held} | numbers').replace(
        "(text, held)", "(text, held, **numbers)"
    )
    cells = [f"claim({text!r}, False, **{numbers})" for text, numbers in claims.items()]
    write_lesson(clone, "01_broken", [speak, *cells, *OK])
    write_lesson(clone, "02_stopped", ["1 / 0"])
    write_lesson(clone, "03_fine", OK)
    done = pruninglib("run")
    assert done.exit_code == 1
    summary, *lines = done.output.splitlines()[-8:]
    assert summary.startswith("1 of 3 lessons ok")
    assert lines[:5] == [
        "01_broken: “far” broke: 0.123 (0.1 to 0.15) is not above 0.2, it misses by 0.077.",
        "01_broken: “near” broke: 0.123 is not below 0.12, it misses by 0.0035.",
        "01_broken: “nan” broke: its value is not a number, and should be above 0.2.",
        "01_broken: “exact” broke: it is exact, so no machine should break it.",
        "02_stopped failed: Cell [3] raised ZeroDivisionError: division by zero",
    ]
    assert "learning" in lines[5] and "interval" in lines[5]
    assert "build server" in lines[6] and "status 1" in lines[6]
    fine = pruninglib("run", "3").output.splitlines()
    assert fine[-1].startswith("1 of 1 lessons ok")
    stopped = pruninglib("run", "2").output.splitlines()
    assert stopped[-3].startswith("0 of 1") and "build server" in stopped[-1]


def test_a_page_that_cannot_be_made_stops_no_other(clone):
    path = write_lesson(clone, "01_first", OK)
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[0].source += "\n\n![no such picture](attachment:missing.png)"
    nbformat.write(notebook, path)
    write_lesson(clone, "02_second", OK)
    done = pruninglib("run")
    assert done.exit_code == 1, done.output
    assert results(clone)["01_first"]["status"] == "failed"
    assert "Its page could not be made" in results(clone)["01_first"]["error"]
    assert results(clone)["02_second"]["status"] == "ok"


def test_outputs_that_come_late_are_waited_for(clone):
    """On a busy machine; the client's own limit is four seconds after the reply."""
    late = (
        "import sys, time; sys.stdout.flush_timeout = sys.stderr.flush_timeout = 0; "
        "get_ipython().kernel.iopub_thread.schedule(lambda: time.sleep(6)); claim('come', True)"
    )
    path = write_lesson(clone, "01_first", [late])
    result = runner.execute(path, clone / "out.ipynb")
    assert result["status"] == "ok" and result["claims"][0]["text"] == "come"


def test_a_relative_data_folder_is_ours_and_not_the_lesson_s(clone, monkeypatch, tmp_path):
    cell = 'import os; claim(os.environ["PRUNINGLIB_DATA"], True)'
    path = write_lesson(clone, "01_first", [cell])
    monkeypatch.setenv("PRUNINGLIB_DATA", "sets")
    result = runner.execute(path, tmp_path / "out.ipynb")
    assert result["claims"][0]["text"] == str(Path.cwd() / "sets")


def test_two_lessons_of_one_file_name_are_refused(clone, tmp_path):
    path = write_lesson(clone, "01_first", OK)
    other = write_lesson(tmp_path / "other", "01_first", OK)
    done = pruninglib("run", path, other)
    assert done.exit_code == 2 and "the same file name" in done.output


def test_pages_need_no_network(clone):
    write_lesson(clone, "01_a", OK)
    result = pruninglib("run")
    assert result.exit_code == 0, result.output
    for name in ("01_a.html", "index.html"):
        page = (clone / "build/course" / name).read_text(encoding="utf-8")
        assert not re.search(r"""(src=|import\(|url\()["']?(https?:)?//""", page), name
        assert "<link" not in page
    assert "<math" in (clone / "build/course/01_a.html").read_text(encoding="utf-8")


def test_resume_runs_only_the_rest(clone):
    fine = write_lesson(clone, "01_fine", OK)
    raising = write_lesson(clone, "02_raising", ["1 / 0"])
    library = clone / "pruninglib" / "part.py"
    library.parent.mkdir()
    library.write_text("x = 1\n")

    def ran(*arguments):
        output = pruninglib("run", "--resume", *arguments).output
        return re.findall(r"^(\d\d) \w+ +started", output, re.MULTILINE)

    assert sorted(ran()) == ["01", "02"]
    assert ran() == ["02"], "a failed lesson runs again"
    write_lesson(clone, "02_raising", OK)
    assert ran() == ["02"], "a changed lesson runs again"
    assert {name: r["status"] for name, r in results(clone).items()} == {
        fine.stem: "ok",
        raising.stem: "ok",
    }
    assert ran() == []
    assert len(results(clone)) == 2
    assert ran("01", "-p", "seed", "1") == ["01"], "other parameters are another run"
    library.write_text("x = 2\n")
    assert ran("02") == ["02"], "a changed library may change every result"
    (clone / "build/course/02_raising.ipynb").write_text("{")
    assert ran("02") == ["02"], "a damaged result is none"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGINT to send")
def test_an_interrupt_keeps_the_finished_lessons(clone):
    write_lesson(clone, "01_fine", OK)
    pids = [clone / "pid2", clone / "pid3"]
    for number, pid in enumerate(pids, 2):
        write = f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))"
        write_lesson(clone, f"{number:02d}_slow", [f"{write}\ntime.sleep(120)"])
    code = (  # a shell that starts tests in the background has them ignore interrupts
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "import sys; from pathlib import Path; from pruninglib.course import cli, runner; "
        "runner.ROOT = Path(sys.argv.pop(1)); cli.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, clone, "run", "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, **LIBRARY},
    )
    try:
        deadline = time.monotonic() + 120
        while not all(pid.exists() and pid.read_text() for pid in pids):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, output
    assert "--resume" in output and "Traceback" not in output
    assert {name: r["status"] for name, r in results(clone).items()} == {"01_fine": "ok"}
    files = {path.name for path in (clone / "build/course").iterdir()}
    assert files == {"01_fine.html", "01_fine.ipynb", "index.html", "results.json"}
    assert "not run" in (clone / "build/course/index.html").read_text(encoding="utf-8")
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


# ------------------------------------------------------------------------ the environment


def test_check_finds_this_environment_sound():
    result = pruninglib("check")
    assert result.exit_code == 0, result.output
    names = ("Python", "torch", "torchvision", "kernel", "cores", "speed", "device", "disk", "data")
    for name in names:
        assert re.search(rf"^ok +{name} ", result.output, re.MULTILINE), result.output


def test_check_measures_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "unit", lambda: 0.45)
    status, found, _ = check._speed()
    assert status == "ok" and found.startswith("factor 2.5: ") and "0.45 s, 0.18 s on" in found


def test_the_unit_is_the_best_of_some_trainings_on_one_thread(monkeypatch):
    """The first one warms up; the number of threads comes back."""
    task = Trainings()
    monkeypatch.setattr(machine, "digits", lambda: task)
    times = iter([0, 1, 10, 15, 20, 23, 30, 34])  # 1, then 5, 3, 4
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        assert machine.unit(lambda: next(times)) == 3
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)
    assert task.threads == [1] * 4 and task.built == [0] * 4 and task.seeds == [0] * 4


class Trainings:
    """Takes the place of the digits."""

    def __init__(self):
        self.threads, self.built, self.seeds = [], [], []

    def build(self, seed):
        self.built.append(seed)

    def train(self, model, seed):
        self.threads.append(torch.get_num_threads())
        self.seeds.append(seed)


def test_check_says_what_to_do(monkeypatch):
    monkeypatch.setattr(check, "_locked", lambda name: "0.1")
    monkeypatch.setattr(check, "_disk", lambda: 1 / 0)
    result = pruninglib("check")
    assert result.exit_code == 1
    assert re.search(r"warn +torch .*tested with 0\.1\n +→ .*requirements\.lock", result.output)
    assert re.search(r"fail +disk +ZeroDivisionError", result.output)


# ------------------------------------------------------------------- results of the full tier


def write_result_lesson(clone, name, *cells):
    """With `seeds`, and the last cell tagged for the page."""
    parameters = 'seeds = 5\ndata = "bundled"  # "bundled" or "full"'
    path = write_lesson(clone, name, [cell.replace("seed ", "seeds ") for cell in cells],
                        title="Fine", parameters=parameters)  # fmt: skip
    notebook = nbformat.read(path, as_version=4)
    notebook.cells[-1].metadata["tags"] = ["result"]
    nbformat.write(notebook, path)


SHOW = """from IPython.display import Image, Markdown
display(Markdown(f"At 90 % on {data}: **98 %**."))
import matplotlib; matplotlib.use("agg")
import io, matplotlib.pyplot as plt
figure, file = plt.figure(figsize=(1, 1)), io.BytesIO()
figure.savefig(file)
Image(file.getvalue(), format="png")"""


def test_results_are_measured_on_the_published_data_and_shown(clone):
    write_result_lesson(
        clone, "07_fine", 'record("accuracy", 1 / 3 + seeds, 0.1)', *BROKEN[:3], SHOW
    )
    write_lesson(clone, "01_without", ["1 / 0"])  # has nothing for the page, so it does not run
    folder = clone / "notebooks" / "results"
    folder.mkdir()
    for earlier in ("07_fine-1.png", "08_other-1.png"):
        (folder / earlier).touch()
    done = pruninglib("results")
    assert done.exit_code == 0, done.output
    page = (clone / "notebooks" / "RESULTS.md").read_text(encoding="utf-8")
    assert "## [07 Fine](1_part/07_fine.ipynb)" in page
    assert "data = 'full', seeds = 5" in page and "torch 2." in page
    assert "| accuracy | 5.333 |" in page and "At 90 % on full: **98 %**." in page
    assert "| up | contradicted |  |  |\n| down | holds |  |  |\n| left | contrad" in page
    assert "![Is it so?](results/07_fine-2.png)" in page
    assert {file.name for file in folder.iterdir()} == {"07_fine-2.png", "08_other-1.png"}
    figure = (folder / "07_fine-2.png").read_bytes()
    assert figure.startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "bounds, low, high, verdict",
    [
        ({"above": 1.0}, 1.5, 2.5, "holds"),
        ({"above": 1.0}, 0.5, 3.5, "open"),
        ({"above": 3.0}, 0.5, 3.0, "contradicted"),
        ({"below": 3.0}, 1.5, 2.5, "holds"),
        ({"below": 3.0}, 1.5, 3.5, "open"),
        ({"below": 1.0}, 1.0, 2.5, "contradicted"),
    ],
)
def test_a_claim_on_the_page_holds_is_open_or_contradicted(bounds, low, high, verdict):
    claim = {"text": "up", "held": True, "value": 2.0, "low": low, "high": high}
    claim |= {"above": None, "below": None} | bounds
    bound = " ".join(f"{side} {value:g}" for side, value in bounds.items())
    assert page_of_results._claim(claim) == ["up", verdict, f"2 ({low:.3g} to {high:.3g})", bound]


@pytest.mark.parametrize("held, verdict", [(True, "holds"), (False, "not shown")])
def test_a_claim_without_an_interval_is_only_shown_or_not(held, verdict):
    claim = dict.fromkeys(runner.NUMBERS) | {
        "text": "|up|",
        "held": held,
        "value": 2.0,
        "above": 1.0,
    }
    assert page_of_results._claim(claim) == ["|up|", verdict, "2", "above 1"]


def test_tables_and_words_for_figures_go_to_the_page(clone):
    show = SHOW.replace("Image(", "Image(metadata={'alt': 'A line'}, data=")
    table = "\nimport pandas as pd\ndisplay(pd.DataFrame({'method|': [1.5]}))\n"
    *lines, image = show.split("\n")
    write_result_lesson(clone, "07_fine", "\n".join(lines) + table + image)
    done = pruninglib("results")
    assert done.exit_code == 0, done.output
    page = (clone / "notebooks" / "RESULTS.md").read_text(encoding="utf-8")
    assert "<td>1.5</td>" in page and "<style" not in page
    assert "![A line](results/07_fine-3.png)" in page


def test_one_lesson_measured_again_leaves_the_others_where_they_are(clone):
    for number in ("07_fine", "09_more", "11_last"):
        write_result_lesson(clone, number, 'record("accuracy", 1.0 * seeds, 9)', SHOW)
    page = clone / "notebooks" / "RESULTS.md"
    assert pruninglib("results", "7", "11").exit_code == 0
    first = page.read_text(encoding="utf-8")
    assert pruninglib("results", "9", "11", "--seeds", "2").exit_code == 0
    again = page.read_text(encoding="utf-8")
    parts, before = (text.split("\n## ") for text in (again, first))
    assert [part[1:3] for part in parts[1:]] == ["07", "09", "11"]
    assert parts[1] == before[1] and parts[0] == before[0]
    assert all("seeds = 2" in part and "| accuracy | 2 |" in part for part in parts[2:])
    assert "seeds = 5" in parts[1] and again.endswith("\n") and "\n\n\n" not in again


def test_results_with_another_parameter_say_so(clone):
    write_result_lesson(clone, "07_fine", 'record("accuracy", 1.0 * seeds, 9)', SHOW)
    assert pruninglib("results", "7", "-p", "seeds", "3").exit_code == 0
    page = (clone / "notebooks" / "RESULTS.md").read_text(encoding="utf-8")
    assert "data = 'full', seeds = 3" in page and "| accuracy | 3 |" in page


def test_no_page_of_results_of_a_lesson_that_stopped(clone):
    write_result_lesson(clone, "07_stops", "1 / 0", SHOW)
    done = pruninglib("results", "7")
    assert done.exit_code == 1
    assert "a lesson stopped: Cell [4] raised ZeroDivisionError" in done.output
    assert not (clone / "notebooks" / "RESULTS.md").exists()


def test_results_of_lessons_without_any(clone):
    write_lesson(clone, "01_without", OK)
    done = pruninglib("results", "1")
    assert done.exit_code == 2 and "has a cell tagged 'result'" in done.output
