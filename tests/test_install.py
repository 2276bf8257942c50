"""`make setup` says how far it is, and pip's errors when there are some."""

import subprocess
import sys
import zipfile

import pytest

from pruninglib.course import install


def wheel(folder, name, requires=""):
    needs = f"Requires-Dist: {requires}\n" if requires else ""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        info = f"{name}-1.0.dist-info"
        file.writestr(f"{name}.py", "")
        file.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{needs}"
        )
        file.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        file.writestr(f"{info}/RECORD", "")
    return path


def test_packages_are_installed_and_counted_and_errors_shown(tmp_path):
    """With pip itself, in an environment of its own."""
    folder = tmp_path / "with spaces"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = next(p for p in (folder / "bin/python", folder / "Scripts/python.exe") if p.exists())
    wheel(folder, "one_thing", requires="another_thing")
    wheel(folder, "another_thing")
    offline = ["--no-index", "--find-links", folder]

    def call(*arguments):
        return subprocess.run(
            [python, install.__file__, *offline, *arguments], capture_output=True, text=True
        )

    done = call("one_thing==1.0")
    assert (done.returncode, done.stderr) == (0, "")
    assert "2 packages installed" in done.stdout and len(done.stdout.splitlines()) == 1
    assert subprocess.run([python, "-c", "import one_thing, another_thing"]).returncode == 0
    failed = call("one_thing==1.0", "third_thing==2.0")
    assert failed.returncode == 1 and failed.stdout == ""
    assert failed.stderr.startswith("ERROR: ") and "third_thing==2.0" in failed.stderr
    assert "Looking in links" not in failed.stderr


SAID = """\
Collecting torch==2.15.0 (from -r requirements.lock (line 142))
  Obtaining dependency information for torch==2.15.0 from https://example.org/torch.metadata
  Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (31 kB)
Collecting numpy>=2.0 (from torch==2.15.0->-r requirements.lock (line 142))
  Using cached numpy-2.4.1-cp311-cp311-manylinux_2_27_x86_64.whl (16.4 MB)
Downloading torch-2.15.0-cp311-cp311-manylinux_2_28_x86_64.whl (915.2 MB)
WARNING: Running pip as the 'root' user can result in broken permissions.
Installing collected packages: numpy, torch
"""


def test_what_pip_says_becomes_one_line(monkeypatch):
    there = {"pip-1.dist-info"}
    monkeypatch.setattr(install, "_installed", lambda: set(there))
    progress, texts = install.Progress(), []
    for line in SAID.splitlines():
        progress.hear(line)
        texts.append(progress.text().strip().rpartition(",")[0])
    there.add("numpy-2.4.1.dist-info")
    assert texts[2] == "looking for packages: 1 found"
    assert texts[4] == "downloading 1 of 2: numpy (16.4 MB), 16 MB so far"
    assert texts[5] == texts[6] == "downloading 2 of 2: torch (915.2 MB), 932 MB so far"
    assert "installed 1 of 2 packages, " in progress.text()


@pytest.mark.parametrize("pause, lines", [(-1, 8), (60, 0)])
def test_without_a_terminal_lines_are_few(monkeypatch, capsys, pause, lines):
    monkeypatch.setattr(install, "PAUSE", pause)
    progress = install.Progress()
    for line in SAID.splitlines():
        progress.hear(line)
        progress.show()
    assert len(capsys.readouterr().out.splitlines()) == lines
