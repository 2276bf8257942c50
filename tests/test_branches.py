"""The few repeats of a lesson with changes to the library: from the right cell, and no further."""

import json
import os
import subprocess
import sys
from pathlib import Path

import branches
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from pruninglib.course.lesson import RECORD

HERE = Path(__file__).parent
# What a cell says when it runs, and where: later cells of a run that has ended say nothing.
SAY = "from pathlib import Path\ndef here(n): print(n, file=open(log, 'a'))"
CELLS = [
    f"import torch, pruninglib as pl\nfrom pruninglib import select as mine\n{SAY}",
    "torch.manual_seed(seed)\nmodel = torch.nn.Linear(10, 10)\nhere('model')",
    'pl.claim("broken from the beginning", False)',
    "masks = mine(pl.magnitude(model), 0.5)\nhere('select')",
    'largest = model.weight.abs().argmax()\npl.claim("the largest stays", masks["weight"].flatten()[largest].item())',
    "here('later')\n# NBVAL_CHECK_OUTPUT\nprint(seed)\nsum(int(m.sum()) for m in masks.values())",
    'pl.record("kept", masks["weight"].flatten()[largest].item(), tol=0)',
    "pl.apply(model, masks)\nhere('apply')",
    'pl.claim("half are zero", pl.sparsity(model).prunable, above=0.4)',
    "here('end')",
]


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes can't be forked here")


def run(tmp_path, cells, *only):
    record = nbformat.v4.new_output("display_data", {RECORD: {"name": "kept"}})
    notebook = new_notebook(cells=[
        new_code_cell(f"seed, log = 0, {str(tmp_path / 'log')!r}", metadata={"tags": ["parameters"]}),
        *(new_code_cell(source, outputs=[record] * ("pl.record" in source)) for source in cells),
    ])  # fmt: skip
    nbformat.write(notebook, tmp_path / "lesson.ipynb")
    (tmp_path / "out").mkdir()
    call = [sys.executable, HERE / "branches.py", "lesson.ipynb", '{"seed": 3}', "out", *only]
    env = {
        **os.environ,
        "PYTHONPATH": str(HERE.parent),
        "OMP_NUM_THREADS": "1",
        "MPLBACKEND": "agg",
    }
    subprocess.run(call, cwd=tmp_path, env=env, check=True)
    files = (tmp_path / "out").iterdir()
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


@FORKS
def test_each_change_goes_on_from_where_it_matters_until_all_is_known(tmp_path):
    runs = run(tmp_path, CELLS)
    held = {name: {c["text"]: c["held"] for c in one["claims"]} for name, one in runs.items()}
    first = {"broken from the beginning": False}
    sound = first | {"the largest stays": True, "half are zero": True}
    assert held == {
        "few": sound,
        "mask inverted": first | {"the largest stays": False},
        "masks dropped in fine-tuning": sound,  # nothing is tuned here, so nothing is changed
        "pruner does nothing": sound | {"half are zero": False},
        "randomly pruned": first | {"the largest stays": False},
        "untrained": sound,
    }
    assert {name for name, one in runs.items() if one["records"]} == set(runs) - {"mask inverted"}
    assert runs["few"]["exact"] == [["3\n", "50"]]
    assert not [one["error"] for one in runs.values() if one["error"]]
    log = (tmp_path / "log").read_text().split()
    # the sound run; an inverted mask; a random one until the record; no zeros
    assert log == ["model", "select", "later", "apply", "end", "select", "select", "later", "apply"]


def test_where_processes_cannot_be_forked_a_run_is_made_alone(tmp_path):
    runs = run(tmp_path, CELLS, "randomly pruned")
    assert runs.keys() == {"randomly pruned"}
    assert [claim["held"] for claim in runs["randomly pruned"]["claims"]] == [False, False]
    assert runs["randomly pruned"]["records"].keys() == {"kept"}
    assert (tmp_path / "log").read_text().split() == ["model", "select", "later"]


@FORKS
def test_an_error_ends_a_run_and_is_told(tmp_path):
    record = CELLS[6]
    runs = run(tmp_path, [*CELLS[:4], "1 / 0", "here('never')", record])
    assert runs.keys() == {"few", *branches.CHANGES}
    errors = {one["error"] for one in runs.values()}
    assert errors == {"ZeroDivisionError: division by zero, in the cell\n1 / 0"}
    assert (tmp_path / "log").read_text().split() == ["model", *["select"] * 3]


def test_every_change_replaces_functions_of_the_library():
    assert all(
        callable(getattr(branches.pl, name)) for c in branches.CHANGES.values() for name in c
    )
