"""Methods × sparsities × seeds -> one tidy table, with the controls beside every method.

A method is a function `(task, model, sparsity, seed) -> model`: it may change the model it is
given, a fresh copy of the dense one trained with that seed, and returns the one to evaluate.
"""

import contextlib
import copy
import json
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import joblib
import pandas as pd
import torch
from torch import nn
from tqdm import tqdm

from ..base.checks import check_sparsity
from ..base.layout import as_held
from ..prune.budgets import Budget, global_budget
from ..prune.criteria import Scores, magnitude, random
from ..prune.grains import Grain, element
from ..prune.masks import apply, masks_of
from ..prune.schedules import Schedule, iterative, one_shot
from ..prune.select import Masks, select
from ..prune.weights import sparsity as sparsity_of
from ..prune.weights import weights_of
from .damage import as_text

Method = Callable[..., nn.Module]
Criterion = Callable[..., Scores]  # (task, model, seed) -> scores


def by_magnitude(task, model: nn.Module, seed: int) -> Scores:
    """Magnitude as a criterion of an experiment."""
    return magnitude(model)


def at_random(task, model: nn.Module, seed: int) -> Scores:
    """The control: random scores, others for every seed of the experiment."""
    return random(model, seed=seed)


def prune_method(
    criterion: Criterion = by_magnitude,
    *,
    grain: Grain = element,
    budget: Budget = global_budget,
    epochs: int = 0,
    schedule: Callable[[float], Schedule] = one_shot,
    steps: int = 1,
) -> Method:
    """Prune the dense model in `steps` steps and fine-tune for `epochs` epochs in all.

    schedule: from the final sparsity to a schedule, for example `pruninglib.cubic`; step i of n
    prunes to schedule(i / n), the last one to schedule(1). After each step come epochs / steps
    epochs of training with the masks kept, so methods with equal `epochs` train equally long.
    """
    if steps < 1 or epochs % steps:
        raise ValueError(f"epochs is {epochs}, but must be a multiple of steps, which is {steps}")

    def method(task, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
        due, masks = schedule(sparsity), None
        for step in range(1, steps + 1):
            scores = _scores(criterion, task, model, seed)
            masks = select(scores, due(step / steps), grain=grain, budget=budget, within=masks)
            apply(model, masks)
            if epochs:
                task.train(model, seed=seed + step, epochs=epochs // steps, masks=masks)
        return model

    return method


def _scores(criterion: Criterion, task, model: nn.Module, seed: int) -> Scores:
    """Those of a criterion that says nothing of how transposed convolutions hold their weights, too."""
    scores = criterion(task, model, seed)
    return as_held(model, weights_of(model, list(scores)), scores)


def before_training(
    criterion: Criterion,
    *,
    grain: Grain = element,
    budget: Budget = global_budget,
    steps: int = 1,
    change: Callable[[Masks, int], Masks] | None = None,
) -> Method:
    """Prune the untrained network, then train what is left for as long as the dense one.

    steps: each takes the same share of what is left and scores it anew. change(masks, seed) makes
    other masks of those selected: a control, such as `shuffled`.
    """

    def method(task, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
        untrained, due, masks = task.build(seed), iterative(sparsity, steps), None
        for step in range(1, steps + 1):
            scores = _scores(criterion, task, untrained, seed)
            masks = select(scores, due(step / steps), grain=grain, budget=budget, within=masks)
            apply(untrained, masks)
        if change is not None:
            untrained, masks = task.build(seed), change(masks, seed)
        task.train(untrained, seed=seed, masks=masks)
        return untrained

    return method


def shuffled(masks: Masks, seed: int) -> Masks:
    """The same counts at random places: each mask in another order, layer by layer.

    The control that tells *which* weights from *how many in each layer*.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: mask.flatten()[torch.randperm(mask.numel(), generator=generator)].view(mask.shape)
        for name, mask in masks.items()
    }


def small_dense(
    epochs: int = 0,
    *,
    names: Iterable[str] | None = None,
    stored: Callable[[int, int], float] | None = None,
    build: Callable[..., nn.Module] | None = None,
    **recipe,
) -> Method:
    """The other control: a narrow dense model with as many parameters as the pruned one keeps,
    or as few less as whole units allow.

    It is built by `build(seed, width)`, by default the task's, and trained from scratch for as long
    as the dense model and the fine-tuning together: `task.epochs + epochs`.

    names: the weights that are pruned to the sparsity, by default all prunable ones.
    stored(weights, kept): the bytes that a matrix format needs for so many weights of which so many
        are kept; the small model then takes no more *bytes* than the pruned one: 4 for each
        parameter. For compressed rows with 4-byte columns that is `lambda weights, kept: 8 * kept`.
    recipe: what goes to the task's optimizer instead of its own: lr=, weight_decay=. A recipe that
        was chosen for the wide model need not suit the narrow one: see `tuned`.
    """
    names = None if names is None else list(names)

    def method(task, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
        make = build or task.build
        weights = sum(w.numel() for w in weights_of(model, names).values())
        kept = weights - round(sparsity * weights)
        allowed = _parameters(model) - weights
        allowed += kept if stored is None else int(stored(weights, kept) // 4)
        low, high = 0.0, 1.0
        while _parameters(make(seed, high)) <= allowed and high < 16:
            low, high = high, 2 * high  # more bytes than the dense model's, or another shape
        for _ in range(20):  # widths are whole numbers of units: 2^-20 is finer than any
            middle = (low + high) / 2
            if _parameters(make(seed, middle)) <= allowed:
                low = middle
            else:
                high = middle
        small = make(seed, low)
        if _parameters(small) > allowed:
            raise ValueError(
                f"no width of {task.name} has {allowed} parameters or fewer, as a model of sparsity "
                f"{sparsity} keeps: lower the sparsity"
            )
        with_recipe(task, **recipe).train(small, seed=seed, epochs=task.epochs + epochs)
        return small

    return method


def with_recipe(task, **recipe):
    """The task with other options of its optimizer: lr=, weight_decay= ..."""
    return replace(task, optimizer=partial(task.optimizer, **recipe)) if recipe else task


def tuned(
    task,
    make: Callable[..., Method],
    options: Iterable[Mapping[str, Any]],
    sparsities: Iterable[float],
    seeds: Iterable[int],
    **compared,
) -> tuple[Method, pd.DataFrame]:
    """A method tuned as well as what it is a control of: `make(**options)`, the best of several.

    For each sparsity the options with the highest primary metric on valid are chosen, as a mean
    over the seeds. Take other seeds than those of the comparison to come. Returns the method, for
    these sparsities, and a table of what was tried: sparsity, option, valid, chosen. `compared`
    goes to `compare`.

        recipes = [{"lr": lr} for lr in (0.05, 0.1, 0.2)]
        control, tried = pl.tuned(task, pl.small_dense, recipes, [0.9, 0.98], seeds=[100, 101])
    """
    tried = {str(dict(option)): make(**option) for option in options}
    if not tried:
        raise ValueError("options is empty: there is nothing to choose from")
    rows = compare(task, tried, sparsities, seeds, **{"progress": False} | compared)
    rows = rows[(rows["split"] == "valid") & (rows["method"] != "dense")]
    table = rows.groupby(["sparsity", "method"], sort=False)[task.primary].mean()
    table = table.rename("valid").reset_index().rename(columns={"method": "option"})
    best = table.loc[table.groupby("sparsity")["valid"].idxmax()]
    table["chosen"] = table.index.isin(best.index)
    chosen = dict(zip(best["sparsity"], best["option"], strict=True))

    def method(task, model: nn.Module, sparsity: float, seed: int) -> nn.Module:
        if sparsity not in chosen:
            raise ValueError(f"tuned for sparsity {', '.join(map(str, chosen))}, not {sparsity}")
        return tried[chosen[sparsity]](task, model, sparsity, seed)

    return method, table


def compare(
    task,
    methods: dict[str, Method],
    sparsities: Iterable[float],
    seeds: Iterable[int],
    *,
    path: str | Path | None = None,
    jobs: int | None = None,
    progress: bool = True,
    outcomes: bool = False,
    dense: Mapping[int, nn.Module] | None = None,
) -> pd.DataFrame:
    """Every method at every sparsity with every seed, each from the same dense model per seed.

    Returns one row per method, sparsity, seed and split (valid, test), with the columns task,
    method, sparsity (asked for), pruned (over the prunable weights, as counted), parameters
    (those not zero), seed, split and the task's metrics. The method "dense" at sparsity 0 is
    always among the rows. Choose on valid, report test.

    path: a JSON-lines file to which rows are added as they finish; the same call then runs
        only what is missing. A method whose meaning has changed needs a new name or a new file.
    dense: networks by seed, trained already by the task's recipe; the others are trained here.
        Those given are left as they are.
    outcomes: with a column of that name, which `pruninglib.damage` reads: each sample's outcome.
    jobs: parallel joblib workers (methods are pickled with cloudpickle); by default as many as
        the active `joblib.parallel_config` says, else one.

    The same call runs on a Dask cluster, if its workers have this library:

        with dask.distributed.Client("scheduler:8786") as client:
            client.wait_for_workers(8)  # joblib counts them once; with one, it runs all here
            with joblib.parallel_config("dask"):  # scatter=[task] sends large data only once
                table = pl.compare(task, methods, sparsities, seeds, path="rows.jsonl")

    Other workers repeat what a lost one was running; a run that loses four of them raises.
    Runs in one process take turns, so give a worker one thread (`--nthreads 1`), and torch in it
    as many as you like by OMP_NUM_THREADS, which Dask otherwise sets to 1.
    """
    # plain numbers, each once: a file of rows knows no others
    sparsities = list(dict.fromkeys(map(float, sparsities)))
    seeds = list(dict.fromkeys(map(int, seeds)))
    for sparsity in sparsities:
        check_sparsity(sparsity)
    if not seeds:
        raise ValueError("seeds is empty: a comparison needs at least one")
    if outcomes and task.outcomes is None:
        raise ValueError(f"{task.name} has no outcomes: give the task some, or leave outcomes out")
    if "dense" in methods:
        raise ValueError("the name 'dense' is taken: it is the model before pruning")
    cells = [("dense", 0.0, seed) for seed in seeds]
    cells += [(m, s, seed) for m in methods for s in sparsities for seed in seeds]

    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    rows = [row for row in _read(path, task.name) if "outcomes" in row or not outcomes]
    done = {(row["method"], row["sparsity"], row["seed"]) for row in rows}
    missing = [cell for cell in cells if cell not in done]
    bar = tqdm(total=len(missing), desc="compare", unit="run", disable=not progress)
    # no run that has finished waits for others to be written
    options = {"n_jobs": jobs, "return_as": "generator_unordered", "batch_size": 1}
    with joblib.Parallel(**options) as parallel, bar:
        _raise_lost_runs(task, methods)
        trained = dict(dense or {})
        needed = dict.fromkeys(seed for _, _, seed in missing if seed not in trained)
        trained |= parallel(joblib.delayed(_dense)(task, seed) for seed in needed)
        results = parallel(
            joblib.delayed(_run)(task, methods.get(m), trained[seed], m, s, seed, outcomes)
            for m, s, seed in missing
        )
        for result in results:
            _append(path, result)
            rows += result
            bar.update()
    # two calls at once on one file may both have run a cell
    table = pd.DataFrame(rows).drop_duplicates(["method", "sparsity", "seed", "split"])
    wanted = pd.DataFrame(cells, columns=["method", "sparsity", "seed"])
    return wanted.merge(table, on=["method", "sparsity", "seed"])


def _raise_lost_runs(task, methods: dict[str, Method]) -> None:
    """joblib's Dask backend waits for ever for a run that can't be sent, or that Dask gives up."""
    backend, _ = joblib.parallel.get_active_backend()
    if type(backend).__name__ == "DaskDistributedBackend":
        import cloudpickle  # Dask and joblib send with it

        cloudpickle.dumps((task, methods))
        submit = backend.submit

        def submit_watched(batch, callback):
            future = submit(batch, callback)
            future.add_done_callback(lambda f: f.exception() and callback(f.exception()))
            return future

        vars(backend).setdefault("submit", submit_watched)  # once, however many calls it serves


_turn = threading.RLock()


@contextlib.contextmanager
def _seeded(seed: int):
    """Torch's random state, beginning at `seed`, to one run alone: threads would share it."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with _turn, torch.random.fork_rng(devices=gpus):
        torch.manual_seed(seed)
        yield


def _dense(task, seed: int) -> tuple[int, nn.Module]:
    with _seeded(seed):
        model = task.build(seed)
        task.train(model, seed=seed)
    return seed, model


def _run(
    task, method, dense: nn.Module, name: str, sparsity: float, seed: int, outcomes: bool
) -> list[dict]:
    with _seeded(seed):
        model = copy.deepcopy(dense)
        if method is not None:
            model = method(task, model, sparsity, seed)
        metrics = [{"split": s, **task.metrics(model, s)} for s in ("valid", "test")]
        for row in metrics if outcomes else ():
            row["outcomes"] = as_text(task.outcomes(model, row["split"]))
    common = {
        "task": task.name,
        "method": name,
        "sparsity": sparsity,
        "pruned": sparsity_of(model).prunable,
        "parameters": _parameters(model) - sum(int((~m).sum()) for m in masks_of(model).values()),
        "seed": seed,
    }
    return [common | row for row in metrics]


def _parameters(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def _read(path: str | Path | None, task: str) -> list[dict]:
    """The task's rows in a file; a line that a crash cut short counts as missing."""
    if path is None or not Path(path).exists():
        return []
    rows, start = [], '[{"task": '
    # a power failure may leave NULs
    text = Path(path).read_text(encoding="utf-8", errors="replace").replace("\0", "")
    for number, line in enumerate(text.splitlines(), 1):
        if not start.startswith(line[: len(start)]):
            raise ValueError(
                f"line {number} of {path} begins with {line[:20]!r}, but a comparison's lines "
                f"begin with {start!r}: remove the line or name another file"
            )
        with contextlib.suppress(json.JSONDecodeError):
            rows += json.loads(line)
    return [row for row in rows if row["task"] == task]


def _append(path: str | Path | None, rows: list[dict]) -> None:
    """One line a run, with all its rows, at once and on the disk when this returns."""
    if path is not None:
        with open(path, "ab") as file:
            # the leading newline closes a line that a crash cut short
            file.write(f"\n{json.dumps(rows)}".encode())
            file.flush()
            os.fsync(file.fileno())
