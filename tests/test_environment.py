"""The files that name packages agree with each other and with what is installed."""

import importlib.metadata
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DIRECT = [
    Requirement(line) for line in PROJECT["dependencies"] + PROJECT["optional-dependencies"]["test"]
]
LOCK_LINES = [
    line
    for line in (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    if line and not line.startswith("#")
]
LOCK = {canonicalize_name(r.name): r for r in map(Requirement, LOCK_LINES)}


def pinned(requirement: Requirement) -> str:
    (specifier,) = requirement.specifier
    return specifier.version


def test_every_lock_line_is_one_exact_public_version():
    for line in LOCK_LINES:
        (specifier,) = Requirement(line).specifier
        assert specifier.operator == "==" and "*" not in specifier.version, line
        assert Version(specifier.version).local is None, line
    assert len(LOCK) == len(LOCK_LINES), "a package is pinned twice"


def test_lock_leaves_cuda_to_torch():
    assert not [name for name in LOCK if name.startswith(("nvidia-", "cuda-", "triton"))]


@pytest.mark.parametrize("requirement", DIRECT, ids=lambda r: r.name)
def test_direct_dependency_is_locked_within_its_bound(requirement):
    locked = LOCK[canonicalize_name(requirement.name)]
    assert locked.marker is None, f"{locked} is not installed everywhere"
    assert requirement.specifier.contains(pinned(locked)), f"{locked} is outside {requirement}"


@pytest.mark.parametrize(
    "locked", [r for r in LOCK.values() if r.marker is None or r.marker.evaluate()], ids=str
)
def test_installed_version_is_the_locked_one(locked):
    # torch 2.15.0+cpu, from an index without CUDA, is the locked 2.15.0.
    assert Version(importlib.metadata.version(locked.name)).public == pinned(locked)


def test_conda_environment_takes_its_pins_from_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    *conda, pip = environment["dependencies"]
    assert pip == {"pip": ["-r requirements.lock", "-e ."]}
    python, installer = map(Requirement, conda)
    assert installer == Requirement("pip")
    floor = Version(PROJECT["requires-python"].removeprefix(">="))
    assert python.name == "python" and python.specifier.contains(floor)
    assert not python.specifier.contains("3.10.99"), "conda would install too old a Python"
