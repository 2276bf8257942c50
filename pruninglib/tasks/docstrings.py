"""English that lies on every reader's machine: the docstrings of installed packages, cleaned.

They are read from files and found by their triple quotes, so that no package is imported and no version
of Python parses them otherwise.
"""

import hashlib
import re
import warnings
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from inspect import cleandoc
from itertools import groupby
from pathlib import Path

PACKAGES = ("networkx", "scipy", "sklearn")  # of requirements.lock, much prose, their own splits
NAMES = {"sklearn": "scikit-learn"}
# written by the build, so that they may differ from one platform to another
BUILT = ("__config__.py", "_distributor_init.py", "version.py")
LEAST = 1000  # characters of a module that is used
RUN = 5  # words: a paragraph is a near copy if half of its runs of so many have been said before
SHARES = {"valid": 0.1, "test": 0.2}  # of the modules of each package; the others are train
CHECKSUM = "0324c0a2edb7eb0f"

_QUOTED = re.compile(r'(?P<alone>^[ \t]*[rR]?)?"""(?P<text>.*?)"""', re.DOTALL | re.MULTILINE)
_ROLE = re.compile(r":[\w:+-]+:`~?([^`<]*)(?:<[^`]*>)?`_?")  # :func:`name`, :ref:`name <place>`
_PLAIN = re.compile(r"[A-Za-z0-9 .,;:'\"()\-/=_\[\]]+")


def documentation() -> dict[str, dict[str, list[str]]]:
    """Split -> module -> its paragraphs, in lower case, of `PACKAGES` as they are installed.

    A paragraph is a run of lines of a docstring that are equally far indented. It is kept if it
    reads like prose: begins with a capital, ends with a full stop, has six words or more and, but for one
    character in fourteen, letters and spaces alone. Marks of markup are taken out. Copies and near copies
    are left out: paragraphs of which half of the runs of five words, or more, stand in earlier ones, by
    the order of names, whatever their splits. Modules are split by a hash of their names, each
    package by itself; tests, and modules with less than 1,000 characters, are left out.

    Warns, in one sentence, if the text is not that of the locked versions. The shipped networks
    can then still be used, but what they were trained on may be in test.
    """
    splits = _documentation()
    if checksum(splits) != CHECKSUM:
        found = ", ".join(f"{NAMES.get(p, p)} {version(NAMES.get(p, p))}" for p in PACKAGES)
        warnings.warn(
            f"the documentation of {found} is not the text that the course's networks were trained on, so "
            "numbers will differ: install the locked packages, pip install -r requirements.lock",
            stacklevel=2,
        )
    return splits


@cache
def _documentation() -> dict[str, dict[str, list[str]]]:
    said: set[tuple[str, ...]] = set()
    splits = {"train": {}, "valid": {}, "test": {}}
    for package in PACKAGES:
        modules = {name: _new(_paragraphs(path), said) for name, path in _files(package)}
        used = [name for name, found in modules.items() if sum(map(len, found)) >= LEAST]
        used.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        start = 0
        for split, share in (SHARES | {"train": 1.0}).items():
            stop = min(len(used), start + round(share * len(used)))
            splits[split] |= {name: modules[name] for name in sorted(used[start:stop])}
            start = stop
    return splits


def checksum(splits: dict[str, dict[str, list[str]]]) -> str:
    """sha256 over the names of splits and modules, and all that they say; its first 16 digits."""
    digest = hashlib.sha256()
    for split, modules in splits.items():
        for name, found in modules.items():
            digest.update("\n".join([split, name, *found, ""]).encode())
    return digest.hexdigest()[:16]


def _files(package: str) -> list[tuple[str, Path]]:
    folder = Path(find_spec(package).origin).parent
    found = {f"{package}/{p.relative_to(folder).as_posix()}": p for p in folder.rglob("*.py")}
    return sorted((n, p) for n, p in found.items() if "test" not in n and p.name not in BUILT)


def _new(paragraphs: list[str], said: set[tuple[str, ...]]) -> list[str]:
    """Those that are no near copies; said: the runs of words so far, to which theirs are added."""
    fresh = []
    for text in paragraphs:
        words = text.split()
        runs = [*zip(*(words[start:] for start in range(RUN)), strict=False)]
        if 2 * sum(map(said.__contains__, runs)) < len(runs):
            fresh.append(text)
        said.update(runs)
    return fresh


def _paragraphs(path: Path) -> list[str]:
    found = []
    for quoted in _QUOTED.finditer(path.read_text(encoding="utf-8")):
        if quoted["alone"] is not None:  # no code before it on its line
            found += filter(None, map(_prose, _blocks(cleandoc(quoted["text"]))))
    return found


def _blocks(text: str) -> list[str]:
    """Runs of lines that are equally far indented, each as one line."""
    lines = text.expandtabs().split("\n")
    runs = groupby(lines, key=lambda line: len(line) - len(line.lstrip()) if line.strip() else -1)
    return [" ".join(line.strip() for line in run) for depth, run in runs if depth >= 0]


def _prose(block: str) -> str | None:
    if not (block[0].isupper() and "." in block[-3:]):  # most are not, and the rest takes time
        return None
    text = _ROLE.sub(r"\1", block).replace("`", "").replace("*", "")
    text = " ".join(text.split())
    if not (text.endswith(".") and len(text.split()) >= 6 and _PLAIN.fullmatch(text)):
        return None
    letters = sum(map(str.isalpha, text)) + text.count(" ")
    return text.lower() if letters > 13 / 14 * len(text) else None
