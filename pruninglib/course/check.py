"""What `pruninglib check` looks at: each thing with what to do about it."""

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pruninglib.course import ROOT

REINSTALL = "install the locked packages again: pip install -r requirements.lock"

Finding = tuple[str, str, str]  # status (ok, warn or fail), what was found, what to do about it


def rows() -> Iterator[tuple[str, str, str, str]]:
    """One row for each thing checked: name, status, what was found, what to do about it."""
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python,
        "torch": lambda: _package("torch"),
        "torchvision": _torchvision,
        "kernel": _kernel,
        "lessons": _lessons,
        "cores": _cores,
        "speed": _speed,
        "device": _device,
        "disk": _disk,
        "data": _data,
    }
    for name, look in checks.items():
        try:
            yield (name, *look())
        except Exception as error:  # a check that cannot even look has found something wrong
            yield name, "fail", f"{type(error).__name__}: {error}", REINSTALL


def _python() -> Finding:
    return "ok", f"{platform.python_version()}, {sys.executable}", ""


def _package(name: str) -> Finding:
    version = importlib.import_module(name).__version__
    locked = _locked(name)
    # torch 2.15.0+cpu is the locked 2.15.0, built without CUDA.
    if locked and version.partition("+")[0] != locked:
        return "warn", f"{version}, the course is tested with {locked}", REINSTALL
    return "ok", version, ""


def _torchvision() -> Finding:
    finding = _package("torchvision")
    import torch
    import torchvision

    # Fails where torchvision was built for another torch.
    torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    return finding


def _kernel() -> Finding:
    from jupyter_client.kernelspec import KernelSpecManager

    command = KernelSpecManager().get_kernel_spec("python3").argv[0]
    # Jupyter replaces a bare "python" by the interpreter that it runs in itself.
    if os.path.dirname(command) and Path(command).parent != Path(sys.executable).parent:
        advice = "point it here: python -m ipykernel install --sys-prefix"
        return "fail", f"python3 runs another interpreter, {command}", advice
    return "ok", "python3 runs this interpreter", ""


def _lessons() -> Finding:
    from pruninglib.course.runner import find_lessons

    return "ok", f"{len(find_lessons(ROOT))} below {ROOT / 'notebooks'}", ""


def _cores() -> Finding:
    import joblib
    import torch

    cores, threads = joblib.cpu_count(), torch.get_num_threads()
    found = f"{cores} cores, torch uses {threads} threads"
    if threads > cores:
        return "warn", found, f"set OMP_NUM_THREADS={cores}: more threads than cores run slower"
    return "ok", found, ""


def _speed() -> Finding:
    from pruninglib.course import machine

    seconds = machine.unit()
    factor = seconds / machine.REFERENCE
    found = (
        f"factor {factor:.2g}: a training of the digits network on one thread takes {seconds:.2f} s"
    )
    return "ok", f"{found}, {machine.REFERENCE} s on the reference machine", ""


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        return "ok", f"cuda, {torch.cuda.get_device_name()}", ""
    if torch.backends.mps.is_available():
        return "ok", "mps", ""
    return "ok", "cpu, which is all that the lessons need", ""


def _disk() -> Finding:
    free = shutil.disk_usage(ROOT).free / 1e9
    if free < 1:
        return "warn", f"{free:.1f} GB free", "make room: results and data sets need up to 1 GB"
    return "ok", f"{free:.0f} GB free", ""


def _data() -> Finding:
    from pruninglib.tasks import datasets

    sets = datasets.available()
    there = ", ".join(name for name, present in sets.items() if present) or "none"
    absent = ", ".join(name for name, present in sets.items() if not present)
    found = f"bundled ok; full, in {datasets.data_home()}: {there}"
    advice = f"{absent}: downloaded the first time that --data full asks for it" if absent else ""
    return "ok", found, advice


def _locked(name: str) -> str | None:
    lock = ROOT / "requirements.lock"
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.exists() else []
    pins = (line.partition("==") for line in lines)
    return next((version for package, _, version in pins if package == name), None)
