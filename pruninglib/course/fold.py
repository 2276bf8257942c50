"""Cells that only say, claim or record are folded: the page reads as prose, and every sentence
stands on it once. The code that computes stays in sight, in cells of its own."""

import ast
from pathlib import Path

import nbformat

SPEAKS = {"say", "claim", "record"}


def fold(path: Path) -> list[int]:
    """Fold such cells of a notebook, unfold all others; numbers (from 0) of the cells that both
    speak and compute, which must be parted by hand."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        jupyter = dict(cell.metadata.get("jupyter", {}))
        jupyter.pop("source_hidden", None)
        if cell.cell_type == "code" and only_speaks(cell.source):
            jupyter["source_hidden"] = True
        cell.metadata.pop("jupyter", None)
        if jupyter:
            cell.metadata["jupyter"] = jupyter
    nbformat.write(notebook, path)
    return mixed(notebook)


def mixed(notebook: nbformat.NotebookNode) -> list[int]:
    """The numbers (from 0) of the cells that speak and do something else."""
    return [
        number
        for number, cell in enumerate(notebook.cells)
        if cell.cell_type == "code" and _speaks(cell.source) and not only_speaks(cell.source)
    ]


def only_speaks(source: str) -> bool:
    """Whether a cell does nothing but say, claim and record, in a loop or not."""
    statements = ast.parse(source).body
    return bool(statements) and all(map(_sentence, statements))


def _sentence(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.For):
        return all(map(_sentence, statement.body))
    return isinstance(statement, ast.Expr) and _is_speech(statement.value)


def _speaks(source: str) -> bool:
    return any(_is_speech(node) for node in ast.walk(ast.parse(source)))


def _is_speech(node: ast.AST) -> bool:
    """Whether it is a call of `pl.say`, `pl.claim` or `pl.record`."""
    called = node.func if isinstance(node, ast.Call) else None
    return (
        isinstance(called, ast.Attribute)
        and called.attr in SPEAKS
        and isinstance(called.value, ast.Name)
        and called.value.id == "pl"
    )
