"""Modules import from layers below them, never from above."""

import ast
import sys
from pathlib import Path

import pytest

import pruninglib

ROOT = Path(pruninglib.__file__).parent
LAYERS = ["base", "prune", "measure", "tasks", "course"]
MODULES = sorted(p for p in ROOT.rglob("*.py") if p.parent != ROOT)


def imports(path):
    """Full names of all that a file imports, wherever in it."""
    package = ["pruninglib", *path.relative_to(ROOT).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_down_only(path):
    layer = LAYERS.index(path.relative_to(ROOT).parts[0])
    for name in imports(path):
        parts = name.split(".")
        if parts[0] != "pruninglib":
            if LAYERS[layer] in ("base", "prune"):
                allowed = {"torch", "safetensors", "torch_pruning"} | sys.stdlib_module_names
                allowed |= {"numpy"} if LAYERS[layer] == "base" else set()
                assert parts[0] in allowed, f"{LAYERS[layer]} depends on {parts[0]}"
            continue
        if parts[1:] and parts[1] in LAYERS:
            assert LAYERS.index(parts[1]) <= layer, f"{path.name} imports {name} from above"
        else:  # the names that lessons use come from all layers
            assert layer == len(LAYERS) - 1, f"{path.name} imports {name} from the top"


def test_every_layer_is_there():
    assert {p.relative_to(ROOT).parts[0] for p in MODULES} == set(LAYERS)
    seen = {name for path in MODULES for name in imports(path)}
    assert {"pruninglib.prune.masks.keep", "pruninglib.tasks.datasets", "torch"} < seen
