"""Experiments: their methods, their table, and runs that are spread, interrupted and resumed."""

import collections
import concurrent.futures
import contextlib
import copy
import dataclasses
import itertools
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time

import dask
import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from dask.distributed import Client, KilledWorker, LocalCluster
from distributed.utils import get_mp_context
from torch import nn

import pruninglib as pl
from pruninglib.measure import experiment
from pruninglib.tasks.task import Task


@pytest.fixture
def task(digits_task):
    return dataclasses.replace(digits_task, epochs=1, batch_size=200)


@pytest.fixture(scope="module")
def digits_task():
    return pl.digits()


METHODS = {
    "magnitude": pl.prune_method(),
    "random": pl.prune_method(pl.at_random),
    "small dense": pl.small_dense(),
}


def compare(task, methods=METHODS, sparsities=(0.5, 0.9), seeds=(0, 1), **options):
    return pl.compare(task, methods, sparsities, seeds, progress=False, **options)


def test_table_of_a_comparison(task):
    table = compare(task)
    assert list(table) == [
        "method", "sparsity", "seed", "task", "pruned", "parameters", "split",
        "loss", "accuracy", "precision", "recall",
    ]  # fmt: skip
    assert len(table) == 2 * (2 + 3 * 2 * 2) and not table.isna().any().any()
    assert set(table["split"]) == {"valid", "test"}
    assert not table.duplicated(["method", "sparsity", "seed", "split"]).any()
    assert table["method"].unique().tolist() == ["dense", *METHODS]
    masked = table[table["method"].isin(["magnitude", "random"])]
    weights, biases = 64 * 256 + 256 * 128 + 128 * 10, 256 + 128 + 10
    for row in masked.itertuples():
        pruned = round(row.sparsity * weights)
        assert row.pruned == pruned / weights and row.parameters == weights + biases - pruned
    dense = table[table["method"] == "dense"]
    assert (dense["parameters"] == weights + biases).all() and (dense["sparsity"] == 0).all()
    # seeds differ, and so do criteria
    scores = table[table["split"] == "test"].set_index(["method", "sparsity", "seed"])["loss"]
    assert scores.is_unique


def test_a_comparison_depends_on_its_arguments_alone(task):
    state = torch.get_rng_state()
    table = compare(task)
    assert torch.get_rng_state().equal(state)
    torch.manual_seed(99)
    # in another order, and at once: no method changes the dense model of the next
    backwards = compare(task, dict(reversed(METHODS.items())), (0.9, 0.5), (1, 0))
    keys = ["method", "sparsity", "seed", "split"]
    pd.testing.assert_frame_equal(
        *(t.sort_values(keys, ignore_index=True) for t in (table, backwards))
    )


@pytest.mark.parametrize("sparsity", [0, 0.3, 0.9, 0.99])
@pytest.mark.parametrize("kind", ["mlp", "cnn", "resnet"])
def test_the_small_dense_control_has_as_many_parameters(kind, sparsity):
    task = dataclasses.replace(pl.digits(model=kind), epochs=1, batch_size=1000)
    rows = compare(
        task, {"pruned": METHODS["magnitude"], "small": pl.small_dense()}, [sparsity], [0]
    )
    pruned, small = (rows[rows["method"] == m]["parameters"].iloc[0] for m in ("pruned", "small"))
    if sparsity == 0:
        assert small == pruned
    # one step wider, by a unit in every hidden layer at most, and it would have more
    wider = next(
        n for n in (sum(p.numel() for p in task.build(0, w).parameters())
                    for w in np.arange(0, 2, 1 / 512)) if n > small
    )  # fmt: skip
    assert small <= pruned < wider


def parameters_of(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_the_small_dense_control_of_some_layers_and_of_bytes(sparsity):
    """What counts is what the pruned model keeps, whichever weights were pruned and however stored."""
    task = dataclasses.replace(pl.digits(), epochs=0)
    dense = task.build(0)
    hidden = dense.hidden2.weight.numel()

    def small(**options):
        return parameters_of(pl.small_dense(**options)(task, dense, sparsity, 0))

    kept = parameters_of(dense) - round(sparsity * hidden)
    step = 700  # one more unit in the first layer and half a one in the second
    assert 0 <= kept - small(names=["hidden2.weight"]) < step
    weights = hidden + 64 * 256 + 128 * 10
    in_bytes = parameters_of(dense) - weights + 2 * (weights - round(sparsity * weights))
    assert 0 <= in_bytes - small(stored=lambda weights, kept: 8 * kept) < step
    # a format may take more than the dense matrix does
    assert small(stored=lambda weights, kept: 8 * weights) > parameters_of(dense)


def test_the_small_dense_control_in_another_shape():
    task = dataclasses.replace(pl.digits(), epochs=0)

    def one_layer(seed, width):
        return torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, round(width * 64)),
            torch.nn.ReLU(), torch.nn.Linear(round(width * 64), 10),
        )  # fmt: skip

    small = pl.small_dense(build=one_layer)(task, task.build(0), 0.9, 0)
    assert len(small) == 4
    allowed = parameters_of(task.build(0)) - round(0.9 * (64 * 256 + 256 * 128 + 128 * 10))
    assert allowed - 75 < parameters_of(small) <= allowed  # a unit has 75


def test_a_recipe_of_its_own(task):
    assert pl.with_recipe(task) is task
    steep = pl.with_recipe(task, lr=3.0, weight_decay=0.0)
    group = steep.optimizer(task.build(0).parameters()).param_groups[0]
    assert (group["lr"], group["weight_decay"], group["momentum"]) == (3.0, 0.0, 0.9)
    still = pl.small_dense(lr=0.0)(task, task.build(0), 0.9, 5)
    moved = pl.small_dense()(task, task.build(0), 0.9, 5)
    width = len(still.hidden1.bias) / 256
    assert still.hidden1.weight.equal(task.build(5, width).hidden1.weight)
    assert not moved.hidden1.weight.equal(still.hidden1.weight)


def test_tuned_takes_the_best_on_valid_for_each_sparsity(task):
    """Though on test another one would be: the scores are given by hand."""
    best = {0.5: ("b", 0.9), 0.9: ("a", 0.8)}  # sparsity -> option, its score on valid
    asked = []

    def make(name):
        def method(task, model, sparsity, seed):
            asked.append((name, sparsity, seed))
            model.told = best[sparsity][1] if name == best[sparsity][0] else 0.1 * seed
            return model

        return method

    def metrics(model, split):
        told = getattr(model, "told", 0.5)
        return {"accuracy": told if split == "valid" else 1 - told}

    told = dataclasses.replace(task, epochs=0, metrics=metrics)
    method, tried = pl.tuned(
        told, make, [{"name": "a"}, {"name": "b"}, {"name": "c"}], [0.9, 0.5], seeds=[3, 5]
    )
    assert len(tried) == 6 and tried["chosen"].sum() == 2
    chosen = tried[tried["chosen"]].set_index("sparsity")
    assert chosen["option"].to_dict() == {0.5: "{'name': 'b'}", 0.9: "{'name': 'a'}"}
    assert chosen["valid"].to_dict() == {0.5: 0.9, 0.9: 0.8}
    assert tried[~tried["chosen"]]["valid"].to_numpy() == pytest.approx(0.4)  # a mean over seeds
    asked.clear()
    for sparsity in (0.5, 0.9):
        method(told, told.build(0), sparsity, 7)
    assert asked == [("b", 0.5, 7), ("a", 0.9, 7)]
    with pytest.raises(ValueError, match=r"tuned for sparsity 0\.5, 0\.9, not 0\.7"):
        method(told, told.build(0), 0.7, 7)
    with pytest.raises(ValueError, match="options is empty"):
        pl.tuned(told, make, [], [0.5], seeds=[0])


def test_networks_trained_before_are_used_and_left_alone(spy):
    dense = {1: spy.build(7)}  # untrained, so that it shows
    before = copy.deepcopy(dense[1].state_dict())
    table = compare(spy, {"magnitude": METHODS["magnitude"]}, [0.5], [0, 1], dense=dense)
    own = table[(table["method"] == "dense") & (table["split"] == "test")].set_index("seed")
    assert own["accuracy"][1] == spy.score(dense[1], "test") < own["accuracy"][0]
    assert trained == [(1, 0, None)]  # the other one
    assert all(value.equal(before[name]) for name, value in dense[1].state_dict().items())


class Spy(Task):
    """A task that notes how it is asked to train."""

    def train(self, model, *, seed, epochs=None, masks=None, **options):
        pruned = None if masks is None else sum(int((~m).sum()) for m in masks.values())
        trained.append((self.epochs if epochs is None else epochs, seed, pruned))
        return super().train(model, seed=seed, epochs=epochs, masks=masks, **options)


trained = []


@pytest.fixture
def spy(task):
    trained.clear()
    return Spy(**{f.name: getattr(task, f.name) for f in dataclasses.fields(task)})


def test_pruning_in_steps_follows_its_schedule(spy):
    method = pl.prune_method(epochs=4, steps=2, schedule=pl.cubic)
    model = method(spy, spy.build(0), 0.8, seed=5)
    weights = 64 * 256 + 256 * 128 + 128 * 10
    assert trained == [(2, 6, round(0.7 * weights)), (2, 7, round(0.8 * weights))]
    assert pl.sparsity(model).prunable == round(0.8 * weights) / weights


def test_iterative_pruning_prunes_in_every_step(spy):
    method = pl.prune_method(epochs=3, steps=3, schedule=lambda final: pl.iterative(final, 3))
    method(spy, spy.build(0), 0.875, seed=0)
    weights = 64 * 256 + 256 * 128 + 128 * 10
    assert [pruned for _, _, pruned in trained] == [round(s * weights) for s in (0.5, 0.75, 0.875)]


def test_a_small_dense_model_that_cannot_be_small_enough(task):
    with pytest.raises(ValueError, match=r"no width of .* parameters or fewer.*: lower the spars"):
        pl.small_dense()(task, task.build(0, 0.001), 0.9, 0)


def test_rows_go_to_a_new_folder(spy, tmp_path):
    compare(spy, path=tmp_path / "new" / "rows.jsonl", sparsities=[])
    assert (tmp_path / "new" / "rows.jsonl").exists()


def test_masks_only_shrink_from_step_to_step(spy):
    """Though each step's scores rank the weights anew."""
    masks, seeds = [], iter(range(9))

    def criterion(task, model, seed):
        masks.append(pl.masks_of(model))
        return pl.random(model, seed=next(seeds))

    method = pl.prune_method(criterion, epochs=3, steps=3, schedule=pl.cubic)
    masks.append(pl.masks_of(method(spy, spy.build(0), 0.9, seed=0)))
    for before, after in itertools.pairwise(masks):
        assert not any((after[n] & ~before[n]).any() for n in after)


def test_every_method_trains_as_long(spy):
    compare(
        spy, {"tuned": pl.prune_method(epochs=2), "small": pl.small_dense(epochs=2)}, [0.5], [3]
    )
    assert [epochs for epochs, _, _ in trained] == [1, 2, 1 + 2]
    assert [pruned is None for _, _, pruned in trained] == [True, False, True]
    assert trained[0][1] == trained[2][1] == 3, "the seed does not reach the training"


def test_before_training_the_untrained_network_is_pruned_and_trained_as_long(spy):
    seen = []

    def criterion(task, model, seed):
        seen.append({n: w.detach().clone() for n, w in pl.weights_of(model).items()})
        return pl.magnitude(model)

    dense = spy.build(7)
    pl.before_training(criterion, steps=2)(spy, dense, 0.75, 3)
    weights = sum(w.numel() for w in seen[0].values())
    assert all(w.equal(seen[0][n]) for n, w in pl.weights_of(spy.build(3)).items())
    assert sum(int((w == 0).sum()) for w in seen[1].values()) == weights / 2
    assert trained == [(spy.epochs, 3, 0.75 * weights)]


def test_shuffled_masks_are_of_the_untrained_network(task):
    """With the weights at the new places as they were initialised, not as first pruned."""
    still = dataclasses.replace(task, epochs=0)
    method = pl.before_training(pl.by_magnitude, budget=pl.uniform, change=pl.shuffled)
    model, start = method(still, None, 0.9, 5), task.build(5)
    masks = pl.shuffled(pl.select(pl.magnitude(start), 0.9, budget=pl.uniform), 5)
    for name, weight in pl.weights_of(model).items():
        assert weight.equal(pl.weights_of(start)[name] * masks[name])


def test_the_criteria_of_experiments(task):
    model = task.build(0)
    scores = [pl.at_random(task, model, seed)["output.weight"] for seed in (0, 1)]
    assert (scores[0] != scores[1]).any()
    assert pl.by_magnitude(task, model, 0)["output.weight"].equal(model.output.weight.abs())


def test_grain_and_budget_reach_the_selection(task):
    model = pl.prune_method(grain=pl.row, budget=pl.uniform)(task, task.build(0), 0.5, 0)
    rows = [int((~m.any(1)).sum()) for m in pl.masks_of(model).values()]
    assert rows == [128, 64, 5]


def counted():
    """Methods, and the list of what they were called with."""
    calls = []

    def method(task, model, sparsity, seed):
        calls.append((sparsity, seed))
        return model

    return {"nothing": method}, calls


def test_resuming_runs_only_what_is_missing(spy, tmp_path):
    methods, calls = counted()
    path = tmp_path / "rows.jsonl"
    first = compare(spy, methods, [0.5], path=path)
    assert calls == [(0.5, 0), (0.5, 1)] and len(trained) == 2
    again = compare(spy, methods, [0.5], path=path)
    assert len(calls) == 2 and len(trained) == 2, "something ran again"
    pd.testing.assert_frame_equal(first, again)
    more = compare(spy, methods, [0.9, 0.5], [1, 2], path=str(path))
    assert calls[2:] == [(0.9, 1), (0.9, 2), (0.5, 2)] and len(trained) == 4
    pd.testing.assert_frame_equal(more, compare(spy, methods, [0.9, 0.5], [1, 2]))
    # another task's rows in the same file are its own
    other = dataclasses.replace(spy, name="other")
    assert set(compare(other, methods, [0.5], [0], path=path)["task"]) == {"other"}
    assert set(compare(spy, methods, [0.5], [0], path=path)["task"]) == {spy.name}


@pytest.mark.parametrize("kept", [0, 1, 30, -1])
@pytest.mark.parametrize("nulls", [0, 9])
def test_a_line_that_a_crash_cut_short(kept, nulls, task, tmp_path):
    """A power failure may also leave bytes that were never written."""
    methods, calls = counted()
    path = tmp_path / "rows.jsonl"
    whole = compare(task, methods, [0.5, 0.9], [0], path=path)
    before, last = path.read_text().rsplit("\n", 1)
    path.write_text(f"{before}\n{last[:kept]}" + nulls * "\0")
    calls.clear()
    for expected in ([(0.9, 0)], []):  # run once more, and then it is there
        calls.clear()
        pd.testing.assert_frame_equal(compare(task, methods, [0.5, 0.9], [0], path=path), whole)
        assert calls == expected


def test_a_method_that_fails_leaves_the_rows_before_it(task, tmp_path):
    methods, calls = counted()
    path = tmp_path / "rows.jsonl"

    def broken(*_):
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        compare(task, methods | {"broken": broken}, [0.5], [0], path=path)
    assert [len(json.loads(line)) for line in path.read_text().splitlines() if line] == [2, 2]
    compare(task, methods | {"broken": methods["nothing"]}, [0.5], [0], path=path)
    assert len(calls) == 2


def test_numbers_of_numpy_and_repeated_ones(task, tmp_path):
    methods, calls = counted()
    path = tmp_path / "rows.jsonl"
    plain = compare(task, methods, [0.0, 0.5], [0, 1])
    calls.clear()
    table = compare(task, methods, np.array([0, 0.5, 0.5]), np.array([0, 1, 1]), path=path)
    assert calls == [(0.0, 0), (0.0, 1), (0.5, 0), (0.5, 1)]
    pd.testing.assert_frame_equal(table, plain)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"sparsities": [0.5, 50]}, r"sparsity is 50"),
        ({"sparsities": [math.nan]}, "sparsity is nan"),
        ({"seeds": []}, "seeds is empty"),
        ({"methods": {"dense": METHODS["magnitude"]}}, "the name 'dense' is taken"),
    ],
)
def test_bad_comparisons_run_nothing(arguments, message, spy, tmp_path):
    with pytest.raises(ValueError, match=message):
        compare(spy, **arguments, path=tmp_path / "rows.jsonl")
    assert not trained and not [*tmp_path.iterdir()]


def test_epochs_that_no_steps_can_share():
    with pytest.raises(
        ValueError, match="epochs is 3, but must be a multiple of steps, which is 2"
    ):
        pl.prune_method(epochs=3, steps=2)
    with pytest.raises(ValueError, match="steps, which is 0"):
        pl.prune_method(steps=0)


# ---- the file ----


def cells_in(path) -> list[tuple]:
    """What the lines of a file are about: method, sparsity and seed of each."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [json.loads(line)[0] for line in lines if line.endswith("]")]
    return [(row["method"], row["sparsity"], row["seed"]) for row in rows]


@pytest.mark.parametrize(
    "text", ["sparsity,seed\n0.5,1\n", '{"task": "digits"}', "[1, 2]", "PK\x03"]
)
def test_a_file_of_something_else_is_left_alone(text, spy, tmp_path):
    path = tmp_path / "other"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"line 1 of .*other begins with .*name another file"):
        compare(spy, path=path)
    assert path.read_text() == text and not trained


def test_rows_written_twice_count_once(task, tmp_path):
    """As two calls at once on one file write them."""
    methods, calls = counted()
    path = tmp_path / "rows.jsonl"
    table = compare(task, methods, path=path)
    path.write_text(path.read_text() * 2)
    calls.clear()
    pd.testing.assert_frame_equal(compare(task, methods, path=path), table)
    assert not calls


@pytest.mark.skipif(os.name == "nt", reason="Windows appends in two steps: seek, then write")
def test_lines_written_at_once_stay_whole(tmp_path):
    lines = [[{"task": "t", "number": i, "long": "x" * 50_000}] for i in range(200)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for _ in pool.map(lambda line: experiment._append(tmp_path / "rows", line), lines):
            pass
    found = experiment._read(tmp_path / "rows", "t")
    assert sorted(row["number"] for row in found) == [*range(200)]


def wait_for(condition, seconds=200):
    """Raises if it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.02)


def test_a_process_killed_half_way(task, tmp_path):
    script = """if True:
        import dataclasses, sys, time
        import pruninglib as pl

        def nothing(task, model, sparsity, seed):
            time.sleep(1)
            return model

        task = dataclasses.replace(pl.digits(), epochs=1, batch_size=200)
        pl.compare(task, {"nothing": nothing}, [0.5, 0.7, 0.9], [0, 1], path=sys.argv[1])
    """
    path, (methods, calls) = tmp_path / "rows.jsonl", counted()
    with subprocess.Popen(
        [sys.executable, "-c", script, path], stderr=subprocess.DEVNULL
    ) as process:
        wait_for(lambda: len(cells_in(path)) >= 4 or process.poll() is not None)
        process.kill()
    done = cells_in(path)
    assert 4 <= len(done) < 8, "not killed half-way"
    table = compare(task, methods, [0.5, 0.7, 0.9], path=path)
    assert [("nothing", *call) for call in calls] == [
        cell for cell in itertools.product(["nothing"], [0.5, 0.7, 0.9], [0, 1]) if cell not in done
    ]
    pd.testing.assert_frame_equal(table, compare(task, methods, [0.5, 0.7, 0.9]))


# ---- many workers ----

# Windows has no SIGKILL, and its SIGTERM kills as surely.
KILL = getattr(signal, "SIGKILL", signal.SIGTERM)


@pytest.mark.parametrize("options, configured", [({"jobs": 2}, {}), ({}, {"n_jobs": 2})])
def test_parallel_workers_give_the_same_table(options, configured, task, tmp_path):
    """And rows are written as runs finish: one run here waits for those of all others."""
    path, parent, (methods, _) = tmp_path / "rows.jsonl", os.getpid(), counted()

    def waiting(task, model, sparsity, seed):
        assert os.getpid() != parent
        end = time.monotonic() + 100
        while (sparsity, seed) == (0.5, 0) and path.read_text().count("[") < 17:
            assert time.monotonic() < end, "rows of finished runs wait for a run before them"
            time.sleep(0.02)
        return model

    path.touch()
    with joblib.parallel_config(**configured):
        table = compare(task, {"nothing": waiting} | METHODS, path=path, **options)
    pd.testing.assert_frame_equal(table, compare(task, methods | METHODS))


def test_runs_in_threads_share_no_randomness(task):
    """A process has one random state, which a model with dropout uses."""
    build = task.build
    task = dataclasses.replace(
        task, build=lambda seed, width=1.0: nn.Sequential(build(seed, width), nn.Dropout(0.1))
    )
    inside = []

    def method(task, model, sparsity, seed):
        inside.append(seed)
        task.train(model, seed=seed)
        time.sleep(0.05)
        assert inside == [seed], "two runs at once"
        inside.clear()
        return model

    table = compare(task, {"tuned": method}, seeds=[0, 1, 2])
    torch.manual_seed(99)
    with joblib.parallel_config("threading", n_jobs=3):
        pd.testing.assert_frame_equal(compare(task, {"tuned": method}, seeds=[0, 1, 2]), table)


@pytest.fixture(scope="module")
def dask_cluster(tmp_path_factory):
    settings = {"temporary_directory": str(tmp_path_factory.mktemp("dask"))}
    if sys.platform == "linux":  # workers are forked from a process that has the library already
        settings["distributed.worker.multiprocessing-method"] = "forkserver"
        with dask.config.set(settings):
            get_mp_context()  # which sets what Dask preloads
        multiprocessing.set_forkserver_preload(["distributed", "pruninglib"])
    options = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0"}
    with (
        dask.config.set(settings),
        LocalCluster(host="127.0.0.1", **options) as cluster,
        Client(cluster) as client,
    ):
        yield cluster, client


@pytest.fixture
def cluster(dask_cluster):
    """Two workers, whatever happened to those before."""
    cluster, client = dask_cluster
    cluster.scale(2)
    client.wait_for_workers(2, timeout=200)
    return cluster


def on_cluster(*arguments, seconds=300, **options):
    """compare on the Dask cluster, in a thread, so that a test of it fails where it would hang."""
    result = concurrent.futures.Future()

    def call():
        try:
            with joblib.parallel_config("dask"):
                result.set_result(compare(*arguments, **options))
        except BaseException as error:
            result.set_exception(error)

    threading.Thread(target=call, daemon=True).start()
    return result.result(seconds)


def test_a_cluster_that_loses_a_worker(cluster, task, tmp_path):
    """Half-way, one run kills the process that it is in, once the rows of others are written."""
    path, killed, runs, parent = (*(tmp_path / n for n in ("rows", "killed", "runs")), os.getpid())
    runs.mkdir()
    path.touch()

    def method(task, model, sparsity, seed):
        assert os.getpid() != parent
        (runs / f"{sparsity} {seed} {os.getpid()} {time.time_ns()}").touch()
        with contextlib.suppress(FileExistsError):
            if len([*runs.iterdir()]) >= 6:
                with killed.open("x") as file:
                    file.write(f"{sparsity} {seed}")
                end = time.monotonic() + 200
                while path.read_text().count('"method": "method"') < 4:
                    assert time.monotonic() < end, "no rows are written while others run"
                    time.sleep(0.02)
                os.kill(os.getpid(), KILL)
        return model

    sparsities, seeds = [0.1, 0.3, 0.5, 0.7, 0.9], [0, 1, 2]
    table = on_cluster(task, {"method": method}, sparsities, seeds, path=path)

    def executions():
        return [run.name.split() for run in runs.iterdir()]

    count = collections.Counter(f"{sparsity} {seed}" for sparsity, seed, *_ in executions())
    assert set(count) == {f"{sparsity} {seed}" for sparsity in sparsities for seed in seeds}
    assert count[killed.read_text()] == 2, "the lost run was not repeated"
    assert len({pid for *_, pid, _ in executions()}) >= 2, "one worker did everything"

    cells = [("dense", 0.0, seed) for seed in seeds]
    cells += itertools.product(["method"], sparsities, seeds)
    assert sorted(cells_in(path)) == cells
    methods, calls = counted()
    methods = {"method": methods["nothing"]}
    pd.testing.assert_frame_equal(table, compare(task, methods, sparsities, seeds, path=path))
    assert not calls
    pd.testing.assert_frame_equal(table, compare(task, methods, sparsities, seeds))


def test_what_a_cluster_cannot_run_is_an_error(cluster, task, monkeypatch):
    lock, parent = threading.Lock(), os.getpid()
    with pytest.raises(TypeError, match="cannot pickle"):
        on_cluster(task, {"locked": lambda *_: lock})

    def deadly(*_):
        assert os.getpid() != parent
        os.kill(os.getpid(), KILL)

    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    with pytest.raises(KilledWorker):
        on_cluster(task, {"deadly": deadly}, [0.5], [0])  # each death costs another worker's start
