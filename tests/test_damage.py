"""Slices of a comparison, and the examples that changed, against tables made by hand."""

import copy
import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch

import pruninglib as pl

SLICES = {
    "test": {
        "even": torch.tensor([True, False, True, False, True, False]),
        "last": torch.tensor([False, False, False, False, True, True]),
    }
}


def table_of(runs: dict[tuple[str, float, int], str], split: str = "test") -> pd.DataFrame:
    columns = ["method", "sparsity", "seed", "split", "outcomes"]
    return pd.DataFrame([(*run, split, text) for run, text in runs.items()], columns=columns)


TABLE = table_of(
    {
        ("dense", 0.0, 1): "111111",
        ("dense", 0.0, 0): "111110",
        ("magnitude", 0.9, 0): "101100",
        ("magnitude", 0.9, 1): "111001",
        ("magnitude", 0.5, 0): "111111",
        ("magnitude", 0.5, 1): "111111",
    }
)


def test_scores_of_slices():
    report = pl.damage(TABLE, SLICES)
    assert list(report) == [
        "method", "sparsity", "seed", "split", "slice", "samples", "score",
    ]  # fmt: skip
    at = report.set_index(["method", "sparsity", "seed", "slice"])["score"]
    assert at["magnitude", 0.9, 0, "all"] == 3 / 6
    assert at["magnitude", 0.9, 0, "even"] == 2 / 3
    assert at["magnitude", 0.9, 1, "last"] == 1 / 2
    assert at["dense", 0.0, 0, "last"] == 1 / 2
    assert report.groupby("slice")["samples"].first().to_dict() == {"all": 6, "even": 3, "last": 2}


def test_what_slices_lost_is_paired_by_seed_and_the_worst_comes_first():
    found = pl.by_slice(TABLE, SLICES, "magnitude", 0.9, "test")
    # seed 0 loses samples 1 and 4, seed 1 loses 3 and 4: of "last" one of two in both
    assert found["mean"].to_dict() == pytest.approx({"last": 1 / 2, "all": 1 / 3, "even": 1 / 3})
    assert found.index[0] == "last" and found["samples"]["last"] == 2
    seeds, samples = pl.interval([1 / 2, 1 / 2]), pl.interval([1, 0])
    half = np.hypot(seeds.mean - seeds.low, samples.mean - samples.low)
    assert found.loc["last", ["low", "high"]].tolist() == pytest.approx([0.5 - half, 0.5 + half])
    shuffled = TABLE.sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(found, pl.by_slice(shuffled, SLICES, "magnitude", 0.9, "test"))


def test_an_interval_for_other_samples_too():
    """Two seeds that agree on few samples leave much open."""
    runs = {("dense", 0.0, s): "1" * 6 for s in (0, 1)} | {("m", 0.9, s): "011111" for s in (0, 1)}
    row = pl.by_slice(table_of(runs), SLICES, "m", 0.9, "test").loc["all"]
    assert row["low"] < 0 < row["mean"] == 1 / 6


def test_examples_that_changed():
    assert pl.changed(TABLE, "magnitude", 0.9, "test").tolist() == [0, 0.5, 0, 0.5, 1, 0]
    assert pl.changed(TABLE, "magnitude", 0.5, "test").tolist() == [0, 0, 0, 0, 0, -0.5]


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t, s: (t.drop(columns="outcomes"), s), "outcomes=True"),
        (lambda t, s: (t, {"valid": s["test"]}), "no slices of 'test', only of valid"),
        (lambda t, s: (t, {"test": {"none": torch.zeros(6).bool()}}), "'none' of 'test' has no"),
        (lambda t, s: (t, {"test": {"short": torch.ones(5).bool()}}), "of 5 samples.*of 6"),
        (lambda t, s: (t[t["method"] != "dense"], s), "a dense one for each"),
        (lambda t, s: (t[t["sparsity"] != 0.9], s), "'magnitude' at 0.9 on 'test'"),
    ],
)
def test_bad_input(change, message):
    table, slices = change(TABLE, SLICES)
    with pytest.raises(ValueError, match=message):
        pl.by_slice(table, slices, "magnitude", 0.9, "test")


def test_a_comparison_with_outcomes(tmp_path):
    task = dataclasses.replace(pl.digits(), epochs=1, batch_size=200)
    path, methods = tmp_path / "rows.jsonl", {"magnitude": pl.prune_method()}
    ask = {"sparsities": [0.9], "seeds": [0, 1], "path": path, "progress": False}
    without = pl.compare(task, methods, **ask)
    table = pl.compare(task, methods, **ask, outcomes=True)  # what is there has none: run again
    assert "outcomes" not in without and not table["outcomes"].isna().any()
    pd.testing.assert_frame_equal(table[list(without)], without)
    report = pl.damage(table, task.slices)
    whole = report[report["slice"] == "all"].merge(table)
    assert len(whole) == len(table) and np.allclose(whole["score"], whole["accuracy"])
    # slices of all classes: their mean, weighted by size, is the accuracy
    of_classes = report[report["slice"] != "all"]
    right = (of_classes["score"] * of_classes["samples"]).groupby(of_classes["split"]).sum()
    assert right["test"] == pytest.approx(500 * table[table["split"] == "test"]["accuracy"].sum())
    bare = dataclasses.replace(task, outcomes=None)
    with pytest.raises(ValueError, match="digits-mlp-bundled has no outcomes"):
        pl.compare(bare, methods, [0.9], [0], outcomes=True)


def test_outcomes_are_those_of_evaluation_mode():
    task = pl.digits(model="cnn")
    model = task.build(0).train()
    images, classes = task.splits["valid"]
    answers = copy.deepcopy(model).eval()(images).argmax(dim=1)
    assert task.outcomes(model, "valid").equal(answers == classes)
    assert all(module.training for module in model.modules())
