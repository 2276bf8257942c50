"""pip install that says how far it is, for `make setup`: runs before any package is there.

python install.py -r requirements.lock
"""

import queue
import re
import shutil
import subprocess
import sys
import sysconfig
import threading
import time
from pathlib import Path

PIP = [sys.executable, "-u", "-m", "pip", "--disable-pip-version-check", "--no-color", "install"]
FILE = re.compile(
    r"\s*(?:Downloading|Using cached) (\S+\.(?:whl|gz|zip))(?: \(([\d.]+) ([kMG]?)B\))?$"
)
BYTES = {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}
PAUSE = 10  # seconds between two lines where they can't be written over


class Progress:
    """What pip has said so far, in one line."""

    def __init__(self) -> None:
        self.installed = _installed()
        self.found: set[str] = set()
        self.files, self.bytes = 0, 0.0
        self.doing = "looking for packages"
        self.began = self.shown = time.monotonic()

    def hear(self, line: str) -> None:
        if found := re.match(r"(?:Collecting|Processing) ([^\s=<>!~;\[]+)", line):
            self.found.add(found[1])
        elif file := FILE.match(line):
            self.files += 1
            self.bytes += float(file[2] or 0) * BYTES[file[3] or ""]
            size = f" ({file[2]} {file[3]}B)" if file[2] else ""
            self.doing = f"{Path(file[1]).name.partition('-')[0]}{size}"
        elif line.startswith("Installing collected packages:"):
            self.doing = "installing"

    def text(self) -> str:
        total = len(self.found)
        if self.doing == "installing" and total:
            now = f"installed {len(_installed() - self.installed)} of {total} packages"
        elif self.files:
            now = f"downloading {self.files} of {total}: {self.doing}, {self.bytes / 1e6:.0f} MB so far"
        else:
            now = f"{self.doing}: {total} found" if total else self.doing
        return f"  {now}, {time.monotonic() - self.began:.0f} s"

    def show(self) -> None:
        if sys.stdout.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{self.text()[:width]:{width}}", end="", flush=True)
        elif time.monotonic() - self.shown > PAUSE:
            self.shown = time.monotonic()
            print(self.text(), flush=True)

    def end(self, ok: bool) -> None:
        if sys.stdout.isatty():
            print(f"\r{'':{shutil.get_terminal_size().columns - 1}}\r", end="")
        new = len(_installed() - self.installed)
        if ok and new:
            size = f", {self.bytes / 1e6:.0f} MB" if self.bytes > 1e6 else ""
            print(
                f"  {new} package{'s' * (new != 1)} installed{size}, {time.monotonic() - self.began:.0f} s",
                flush=True,
            )


def _installed() -> set[str]:
    return {path.name for path in Path(sysconfig.get_path("purelib")).glob("*.dist-info")}


def main(arguments: list[str]) -> int:
    """pip's exit status; what it says is shown if it fails, and its warnings only then."""
    pip = subprocess.Popen(
        [*PIP, "--progress-bar", "off", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def read() -> None:
        for line in pip.stdout or ():
            lines.put(line.rstrip())
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    progress, said, more = Progress(), [], True
    while more:
        try:
            line = lines.get(timeout=0.5)
            if line is None:
                more = False
            else:
                said.append(line)
                progress.hear(line)
        except queue.Empty:
            pass
        progress.show()
    status = pip.wait()
    progress.end(status == 0)
    if status:
        errors = [place for place, line in enumerate(said) if line.lstrip().startswith("ERROR")]
        print(*said[errors[0] if errors else -20 :], sep="\n", file=sys.stderr)
    return status


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
