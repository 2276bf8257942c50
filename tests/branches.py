"""Runs a lesson with few repeats and, from where it first matters, with each change to the library.

    python branches.py lesson.ipynb '{"seeds": 2}' folder [run]

In one process, without a kernel: with a kernel of its own, each change would cost the start and all
that comes before the first call of what it replaces. Instead the process forks before each cell,
and the copy waits: if the cell calls something that a change replaces, the copy goes on from there,
changed. It ends when all is known: a sabotage at the first claim that breaks and that holds without
it, a control at its last record.

The folder gets a file for each run, "few.json" and one named after each change: its claims, records,
exact outputs, the error that ended it, and its CPU seconds. Where processes can't be forked, name
one of these runs: it is made alone, changed from the first cell on.
"""

import contextlib
import functools
import json
import os
import sys
import traceback
from pathlib import Path
from typing import ClassVar

import matplotlib.pyplot as plt
import nbformat
from IPython.core.interactiveshell import InteractiveShell
from IPython.core.pylabtools import select_figure_formats
from IPython.utils.capture import capture_output
from traitlets.config import Config

import pruninglib as pl
from pruninglib.course.lesson import CLAIM, RECORD, ClaimBroken

EXACT = "NBVAL_CHECK_OUTPUT"  # nbval's mark of a cell whose output is the same everywhere


@contextlib.contextmanager
def _forget(model, masks, optimizer):
    yield model


def _inverted(*args, _select=pl.select, **options):
    return {name: ~mask for name, mask in _select(*args, **options).items()}


def _randomly(model, *_, _random=pl.random, **__):
    return _random(model)


def _untrained(model, loss, batches, epochs, *, after_epoch=None, **_):
    for epoch in range(1, epochs + 1):
        if after_epoch:
            after_epoch(epoch)
    return []


# By the name of what they replace in `pl`.
SABOTAGES = {
    "mask inverted": {"select": _inverted},
    "masks dropped in fine-tuning": {"keep": _forget},
    "pruner does nothing": {"keep": _forget, "apply": lambda model, masks: None},
}
CONTROLS = {
    "randomly pruned": dict.fromkeys(("magnitude", "taylor", "snip", "fisher"), _randomly),
    "untrained": {"fit": _untrained},
}
CHANGES = SABOTAGES | CONTROLS


class Switches:
    """In the place of each function that a change replaces: the function, until it is changed.

    What a lesson calls and what the library calls inside is the same function under several names,
    so every one of them is replaced.
    """

    def __init__(self):
        self.now = {name: getattr(pl, name) for change in CHANGES.values() for name in change}
        self.called = set()
        modules = [m for name, m in sys.modules.items() if name.startswith("pruninglib")]
        for name, original in list(self.now.items()):
            switch = self._switch(name, original)
            for module in modules:
                for key, value in list(vars(module).items()):
                    if value is original:
                        setattr(module, key, switch)

    def _switch(self, name, original):
        @functools.wraps(original)
        def call(*args, **options):
            self.called.add(name)
            return self.now[name](*args, **options)

        return call


class Run:
    """A lesson's code cells, run one after the other, and what has come out so far."""

    def __init__(self, notebook, parameters):
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        given = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
        self.sources = [
            f"{cell.source}\n{given}"
            if "parameters" in cell.metadata.get("tags", [])
            else cell.source
            for cell in cells
        ]
        self.claims, self.records, self.exact, self.error = [], {}, [], None
        quiet = Config({"HistoryManager": {"enabled": False}})  # it would start a thread
        self.shell = InteractiveShell.instance(config=quiet)
        select_figure_formats(self.shell, {"png"})

    def cell(self, number):
        source = self.sources[number]
        with self.shell.display_trap, capture_output() as shown:  # results of cells, too
            done = self.shell.run_cell(source)
        plt.close("all")
        error = done.error_before_exec or done.error_in_exec
        if error and not isinstance(error, ClaimBroken):
            self.error = f"{type(error).__name__}: {error}, in the cell\n{source}"
        said = [output.data for output in shown.outputs]
        self.claims += [data[CLAIM] for data in said if CLAIM in data]
        self.records |= {data[RECORD]["name"]: data[RECORD] for data in said if RECORD in data}
        if EXACT in source:
            self.exact.append([shown.stdout, *(data.get("text/plain") for data in said)])

    def write(self, folder, name):
        result = {key: vars(self)[key] for key in ("claims", "records", "exact", "error")}
        result["seconds"] = sum(os.times()[:2])
        (folder / f"{name}.json").write_text(json.dumps(result), encoding="utf-8")


def go_on(run, switches, first, change, records, sound):
    """The cells from `first` on, with a change, until all is known."""
    switches.now |= CHANGES.get(change, {})
    for number in range(first, len(run.sources)):
        run.cell(number)
        broken = {claim["text"] for claim in run.claims if not claim["held"]} & sound
        known = run.records.keys() >= records if change in CONTROLS else broken
        if known or run.error:
            return


class Copy:
    """A forked copy of this process, which waits to be told what to go on with."""

    pipes: ClassVar[list[int]] = []  # to all that wait

    def __init__(self, then):
        orders, pipe = os.pipe()
        self.process = os.fork()
        if self.process:
            os.close(orders)
            self.pipe = pipe
            self.pipes.append(pipe)
            return
        try:
            for other in (pipe, *self.pipes):  # held open here, they would end for no one
                os.close(other)
            self.pipes.clear()
            with open(orders) as lines:
                for line in lines:
                    then(*json.loads(line))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            os._exit(1)

    def end(self, *orders):
        with open(self.pipe, "w") as pipe:
            pipe.writelines(json.dumps(order) + "\n" for order in orders)
        self.pipes.remove(self.pipe)
        status = os.waitpid(self.process, 0)[1]
        if status:
            sys.exit(f"a copy of the process ended with {status}")


def main(path, parameters, folder, only=None):
    folder = Path(folder)
    notebook = nbformat.read(path, as_version=4)
    run, switches = Run(notebook, json.loads(parameters)), Switches()
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    data = [output.get("data", {}) for output in outputs]
    records = {one[RECORD]["name"] for one in data if RECORD in one}
    if only:
        go_on(run, switches, 0, only, records, set())
        return run.write(folder, only)

    def branch(first, change, sound):
        go_on(run, switches, first, change, records, set(sound))
        run.write(folder, change)

    def branches(first, *order):
        """In a copy of the copy, for there may be more to come."""
        Copy(functools.partial(branch, first)).end(order)

    kept, left = {}, list(CHANGES)  # the copies that will be needed; changes without one
    for number in range(len(run.sources)):
        copy = Copy(functools.partial(branches, number)) if left else None
        run.cell(number)
        now = [name for name in left if switches.called & CHANGES[name].keys()]
        left = [name for name in left if name not in now]
        if now:
            kept[copy] = now
        elif copy:
            copy.end()
        if run.error:
            break
    run.write(folder, "few")
    sound = [claim["text"] for claim in run.claims if claim["held"]]
    for copy, names in kept.items():
        copy.end(*((name, sound) for name in names))
    for name in left:  # the lesson calls nothing that it replaces
        run.write(folder, name)


if __name__ == "__main__":
    main(*sys.argv[1:])
