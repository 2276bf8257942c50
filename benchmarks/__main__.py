"""Measurements against peers: `make bench`.

Each row runs ours and the peer in turn in one process, so that both meet the same machine, and gives
the medians and their ratio. Writes build/bench/results.json and prints the table.
"""

import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch
from torch import nn
from torch.nn.utils import prune as peer
from torchvision.models import resnet50

import pruninglib as pl

OUT = Path(__file__).parents[1] / "build" / "bench" / "results.json"


def side_by_side(repeats: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each run, taken in turn; the first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def selection() -> list[dict]:
    """The lowest 80 % of ResNet-50's weights by magnitude, over all layers."""
    model = resnet50(weights=None)
    names = pl.prunable(model)
    modules = [(model.get_submodule(name.removesuffix(".weight")), "weight") for name in names]

    def ours():
        return pl.select(pl.magnitude(model), 0.8)

    def theirs():
        peer.global_unstructured(modules, peer.L1Unstructured, amount=0.8)
        masks = {name: m.weight_mask.bool() for name, (m, _) in zip(names, modules, strict=True)}
        for module, parameter in modules:
            peer.remove(module, parameter)
        return masks

    untouched = copy.deepcopy(model.state_dict())

    def restored():
        model.load_state_dict(untouched)
        return theirs()

    mine, others = ours(), theirs()
    model.load_state_dict(untouched)
    same = sum(int((mine[name] == others[name]).sum()) for name in names)
    flat = [score.flatten() for score in pl.magnitude(model).values()]
    seconds = side_by_side(
        5, ours=ours, peer=restored, single_pass=lambda: [score > 0.01 for score in flat]
    )
    extra = {"ours": pl.peak_allocation(ours), "peer": pl.peak_allocation(theirs)}
    return [
        {
            "work": "global selection, ResNet-50 at 80 %",
            "peer is": "torch.nn.utils.prune.global_unstructured",
            **seconds,
            "note": f"same decision on {same / sum(map(len, flat)):.6%} of the weights",
        },
        {"work": "its extra peak memory, in bytes", "peer is": "the same", **extra},
    ]


def masked_step() -> list[dict]:
    """One training step of a small CNN at batch 64 with its masks kept."""
    task = pl.digits(model="cnn")
    batch = tuple(t[:64] for t in task.splits["train"])
    dense = task.build(0, width=4)
    masks = pl.select(pl.magnitude(dense), 0.9)
    kept, reparametrised = copy.deepcopy(dense), copy.deepcopy(dense)
    for name, mask in masks.items():
        module = reparametrised.get_submodule(name.removesuffix(".weight"))
        peer.custom_from_mask(module, "weight", mask)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def run():
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()

        return run

    runs = {
        name: step(model, task.optimizer(model.parameters()))
        for name, model in (("single_pass", dense), ("peer", reparametrised))
    }
    optimizer = task.optimizer(kept.parameters())
    with pl.keep(kept, masks, optimizer):
        seconds = side_by_side(100, ours=step(kept, optimizer), **runs)
    ratio = seconds["ours"] / seconds["single_pass"]
    return [
        {
            "work": "training step with masks kept, CNN, batch 64",
            "peer is": "torch.nn.utils.prune's reparametrisation",
            **seconds,
            "note": f"{ratio:.2f} times the dense step, which is the single pass here",
        }
    ]


def sensitivity_scan() -> list[dict]:
    """Every layer of the lesson's network at nine sparsities."""
    task = pl.digits()
    model = task.build(0)
    task.train(model, seed=0)
    sparsities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]

    def metric(network: nn.Module) -> float:
        return -task.metrics(network, "valid")["loss"]

    def copies():
        for name, score in pl.magnitude(model).items():
            for sparsity in sparsities:
                pruned = copy.deepcopy(model)
                pl.apply(pruned, pl.select({name: score}, sparsity))
                metric(pruned)

    seconds = side_by_side(5, ours=lambda: pl.scan(model, metric, sparsities), peer=copies)
    return [
        {
            "work": "sensitivity scan, 3 layers, 9 sparsities",
            "peer is": "a copy of the model for each point",
            **seconds,
        }
    ]


def main() -> None:
    rows = []
    for measure in (selection, masked_step, sensitivity_scan):
        print(f"measuring: {measure.__doc__.splitlines()[0]}", flush=True)
        rows += measure()
    for row in rows:
        row["ratio"] = row["ours"] / row["peer"]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    about = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    OUT.write_text(json.dumps({**about, "rows": rows}, indent=2) + "\n")
    table = pd.DataFrame(rows).set_index("work").drop(columns="note")
    print(table.to_string(float_format="{:.4g}".format, na_rep=""))
    for row in rows:
        if "note" in row:
            print(f"{row['work']}: {row['note']}")
    print(f"ratio below 1: ours takes less. Written to {OUT}")


if __name__ == "__main__":
    main()
