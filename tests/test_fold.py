"""Cells that only speak are folded, those that compute are not, and no cell does both."""

import nbformat
import pytest
from bs4 import BeautifulSoup
from click.testing import CliRunner

from pruninglib.course import cli
from pruninglib.course.fold import fold, mixed, only_speaks
from pruninglib.course.pages import write_lesson

SPEAK = [
    'pl.say("{x}", x=x)',
    'pl.record("x", x, tol=1)\npl.claim("x", x, above=0)',
    'for name in names:\n    pl.say("{n}", n=name)',
]
COMPUTE = [
    "x = 1",
    "import pruninglib as pl\nx = pl.magnitude(model)",
    "",
    "say(1)",
    "pl.plots.say()",
]
BOTH = ['x = 1\npl.say("{x}", x=x)', 'for n in names:\n    x = n\n    pl.say("{n}", n=x)',
        "if x:\n    pl.claim('x', x)", "y = pl.say('x')"]  # fmt: skip


def notebook_of(sources):
    cells = [nbformat.v4.new_code_cell(source, execution_count=1) for source in sources]
    kernel = {"name": "python3", "language": "python", "display_name": "Python 3"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})


@pytest.mark.parametrize("source", SPEAK)
def test_what_only_speaks(source):
    assert only_speaks(source) and mixed(notebook_of([source])) == []


@pytest.mark.parametrize("source", COMPUTE)
def test_what_computes(source):
    assert not only_speaks(source) and mixed(notebook_of([source])) == []


@pytest.mark.parametrize("source", BOTH)
def test_what_does_both(source):
    assert not only_speaks(source) and mixed(notebook_of(["x = 1", source])) == [1]


def test_the_command_folds_and_unfolds_and_names_what_does_both(tmp_path, monkeypatch):
    path = tmp_path / "notebooks" / "01_a.ipynb"
    path.parent.mkdir()
    monkeypatch.setattr("pruninglib.course.runner.ROOT", tmp_path)
    notebook = notebook_of([SPEAK[0], COMPUTE[0], SPEAK[1]])
    notebook.cells[1].metadata["jupyter"] = {"source_hidden": True, "outputs_hidden": False}
    notebook.cells[1].metadata["tags"] = ["result"]
    nbformat.write(notebook, path)
    assert CliRunner().invoke(cli.main, ["fold", "01"]).exit_code == 0
    found = [cell.metadata for cell in nbformat.read(path, as_version=4).cells]
    hidden = {"jupyter": {"source_hidden": True}}
    assert found == [hidden, {"jupyter": {"outputs_hidden": False}, "tags": ["result"]}, hidden]
    notebook.cells.append(nbformat.v4.new_code_cell(BOTH[0]))
    nbformat.write(notebook, path)
    done = CliRunner().invoke(cli.main, ["fold"])
    assert done.exit_code == 1
    assert done.output == "01_a, cell 3 speaks and computes: put each in a cell of its own.\n"


def test_the_page_has_a_fold_that_opens_and_words_for_figures(tmp_path):
    notebook = notebook_of([SPEAK[0], COMPUTE[0]])
    for number, metadata in enumerate(({"image/png": {"alt": 'A "line" & more'}}, {})):
        image = {"image/png": f"QUJ{number}"}
        output = nbformat.v4.new_output("display_data", image, metadata=metadata)
        notebook.cells[1].outputs.append(output)
    path = tmp_path / "01_a.ipynb"
    nbformat.write(notebook, path)
    fold(path)
    page = write_lesson(path, "A").read_text(encoding="utf-8")
    inside = page.partition("<details")[2].partition("</details>")
    assert "code of this text" in inside[0] and ">say<" in inside[0]
    assert ">say<" not in inside[2] and page.count("<details") == 1
    images = {image["src"]: image["alt"] for image in BeautifulSoup(page, "html.parser")("img")}
    assert images["data:image/png;base64,QUJ0"] == 'A "line" & more'
    assert len(images) == 2
