"""The click task: a log that is the same everywhere, its chances, and the numbers that judge them."""

import copy
import hashlib
import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss, roc_auc_score

import pruninglib as pl
from pruninglib.tasks import clicks as module
from pruninglib.tasks import datasets
from pruninglib.tasks.impressions import DAYS, STEPS, impressions


@pytest.fixture(scope="module")
def log():
    return impressions()


@pytest.fixture(scope="module")
def task():
    return pl.clicks()


def test_the_log_is_the_same_everywhere(log):
    whole = np.column_stack([column for column in log[:-1]]).astype("<i4")
    assert hashlib.md5(whole.tobytes()).hexdigest() == "5b97695290587c30076907f4cb5c78a5"
    assert whole.shape == (100_000, 9)


def test_another_seed_draws_another_log(log):
    other = impressions(seed=1)
    assert (other.ad != log.ad).mean() > 0.9
    assert set(other.region) == set(log.region) == set(range(20))


def test_steps_are_powers_of_the_fourth_root_of_two():
    np.testing.assert_allclose(STEPS, 2 ** (14 + np.arange(4) / 4), atol=0.5)


def test_clicks_are_drawn_from_the_chances(log):
    order = log.chance.argsort(kind="stable").reshape(20, -1)
    chance, click = log.chance[order], log.click[order]
    error = (click.mean(axis=1) - chance.mean(axis=1)) / np.sqrt(
        (chance * (1 - chance)).mean(axis=1) / chance.shape[1]
    )
    assert np.abs(error).max() < 4 and np.abs(error).mean() < 1.2
    assert log.chance.min() > 0 and log.chance.max() < 1
    assert chance.mean(axis=1)[-1] > 5 * chance.mean(axis=1)[0]


def test_the_log_is_in_the_order_of_time_and_has_long_tails_and_new_ads(log):
    time = log.day * 24 + log.hour
    assert (np.diff(time) >= 0).all() and log.day.max() == DAYS - 1
    for column in (log.user, log.ad, log.site):
        counts = np.sort(np.bincount(column))[::-1]
        assert counts[: len(counts) // 10].sum() > 0.3 * len(column)
    new = ~np.isin(log.ad[log.day >= 16], log.ad[log.day < 14])
    assert 0.15 < new.mean() < 0.25


def test_what_belongs_to_an_ad_or_a_user_does_not_change(log):
    for of, column in ((log.ad, log.topics), (log.user, log.region[:, None])):
        pairs = np.unique(np.column_stack([of, column]), axis=0)
        assert len(pairs) == len(np.unique(of))
    assert (log.topics[:, 0] != log.topics[:, 1]).all()


def test_splits_are_by_time_and_slices_by_what_training_showed(task, log):
    assert {s: len(part[0]) for s, part in task.splits.items()} == {
        "train": 70_000,
        "valid": 10_000,
        "test": 20_000,
    }
    shown = np.bincount(log.ad[:70_000], minlength=log.ad.max() + 1)
    parts = dict(zip(task.splits, np.split(shown[log.ad], [70_000, 80_000]), strict=True))
    for split, counts in parts.items():
        slices = {name: mask.numpy() for name, mask in task.slices[split].items()}
        assert (slices["new"] == (counts == 0)).all()
        assert (slices["rare"] == ((counts > 0) & (counts < 50))).all()
        assert (slices["frequent"] == (counts >= 50)).all()
    assert task.splits["test"][-2].tolist() == log.click[80_000:].tolist()
    assert not task.slices["train"]["new"].any()


def test_bags_name_rows_of_their_tables(task, log):
    tables = task.build(0).tables
    assert list(tables) == ["users", "ads", "sites", "regions", "topics"]
    for bag, layer in zip(task.splits["train"][1:6], tables.values(), strict=True):
        assert bag.min() >= 0 and bag.max() < layer.num_embeddings
    assert task.splits["train"][4][:, 0].tolist() == log.region[:70_000].tolist()
    users = {u: int(r) for u, r in zip(log.user, task.splits["train"][1][:, 0], strict=False)}
    rows = len(set(users.values()))
    assert 0.65 < rows / len(users) < 0.85  # some share a row, as if rows had been drawn


def test_fewer_buckets_leave_small_tables_whole(task):
    small = pl.clicks(buckets=0.25)
    sizes = [{n: t.num_embeddings for n, t in x.build(0).tables.items()} for x in (task, small)]
    assert sizes[1] == sizes[0] | {n: sizes[0][n] // 4 for n in ("users", "ads", "sites")}
    assert small.splits["test"][4].equal(task.splits["test"][4])


def test_hashes_spread_and_stay():
    rows = module.hashed(torch.arange(100_000), 64)
    counts = torch.bincount(rows, minlength=64)
    assert counts.min() > 1300 and counts.max() < 1850
    assert module.hashed(torch.tensor([5, 5, 7]), 1000).tolist() == [
        int(module.hashed(torch.tensor([i]), 1000)) for i in (5, 5, 7)
    ]
    assert (
        rows[1:] - rows[:-1]
    ).unique().numel() > 60  # neighbours have nothing to do with each other


def test_the_network_multiplies_the_means_of_bags_pair_by_pair():
    network = module.Network({"a": 5, "b": 4}, 3, 0.2)
    hour, a, b = torch.randn(2, 2), torch.tensor([[1], [4]]), torch.tensor([[0, 2], [3, 3]])
    first, second = network.tables["a"].weight, network.tables["b"].weight
    for i in range(2):
        v = [network.bottom(hour[i]), first[a[i, 0]], (second[b[i, 0]] + second[b[i, 1]]) / 2]
        products = torch.stack([v[0] @ v[1], v[0] @ v[2], v[1] @ v[2]])
        want = network.top(torch.cat([v[0], products]))
        torch.testing.assert_close(network(hour, a, b)[i], want[0])


def test_metrics_are_those_of_scikit_learn(task):
    network, click = task.build(0), task.splits["test"][6].numpy()
    p = module.predicted(network, task.splits["test"]).numpy()
    found = task.metrics(network, "test")
    prior = task.splits["train"][6].numpy().mean()
    base = log_loss(click, np.full(len(click), prior))
    assert found["log-loss"] == pytest.approx(log_loss(click, p), abs=1e-6)
    assert found["NE"] == pytest.approx(log_loss(click, p) / base, abs=1e-6)
    assert found["gain"] == pytest.approx(1 - found["NE"])
    assert found["AUC"] == pytest.approx(roc_auc_score(click, p), abs=1e-4)
    assert found["calibration"] == pytest.approx(p.sum() / click.sum())


def test_judged_by_hand():
    chance, click = torch.tensor([0.8, 0.4, 0.5, 0.1]), torch.tensor([1.0, 0.0, 1.0, 0.0])
    found = module.judged(chance.double(), click, 0.25)
    assert found["calibration"] == pytest.approx(1.8 / 2)
    assert found["AUC"] == 1
    loss = -(math.log(0.8) + math.log(0.6) + math.log(0.5) + math.log(0.9)) / 4
    base = -(2 * math.log(0.25) + 2 * math.log(0.75)) / 4
    assert found["NE"] == pytest.approx(loss / base)
    assert module.judged(1 - chance.double(), click, 0.25)["AUC"] == 0


def test_the_truth_is_better_than_what_is_learnt_and_that_than_nothing(task):
    few = copy.deepcopy(task)
    network = few.build(0)
    prior = float(task.splits["train"][6].mean())
    test = task.splits["test"]
    best = module.judged(test[7].double(), test[6], prior)
    assert best["AUC"] == pytest.approx(0.85, abs=0.01) and best["NE"] < 0.73
    assert few.metrics(network, "test")["NE"] == pytest.approx(1, abs=0.02)
    few.train(network, seed=0, epochs=1)
    assert best["NE"] < few.metrics(network, "test")["NE"] < 0.95


def test_the_loss_does_not_read_the_true_chance(task):
    network = task.build(0)
    batch = [part[:50] for part in task.splits["train"]]
    other = [*batch[:-1], torch.full_like(batch[-1], torch.nan)]
    assert task.loss(network, batch) == task.loss(network, other)


def test_width_and_seed(task):
    assert task.build(0, 0.25).tables["ads"].embedding_dim == 4
    assert task.build(3).tables["ads"].weight.equal(task.build(3).tables["ads"].weight)
    assert not task.build(3).tables["ads"].weight.equal(task.build(4).tables["ads"].weight)


def test_what_can_not_be():
    with pytest.raises(ValueError, match="data is 'small', but must be 'bundled' or 'full'"):
        pl.clicks("small")
    with pytest.raises(ValueError, match="buckets is 0, but must be above 0"):
        pl.clicks(buckets=0)


ARCHIVE = Path(os.environ.get("PRUNINGLIB_DATA", "nowhere")) / "movielens" / "ml-latest-small.zip"


@pytest.mark.skipif(not ARCHIVE.exists(), reason="PRUNINGLIB_DATA has no movielens")
def test_published_likes_as_a_task():
    films = datasets.films().set_index("item")
    assert len(films) == 9742
    assert films.loc[1, "year"] == 1995 and films.loc[1, "genres"][:2] == ["Adventure", "Animation"]
    task = pl.clicks("full")
    assert sum(len(part[0]) for part in task.splits.values()) == 100_836
    ratings = datasets.movielens()
    likes = sum(float(part[-1].sum()) for part in task.splits.values())
    assert likes == (ratings["rating"] >= 4).sum()
    assert list(task.build(0).tables) == ["users", "films", "years", "genres"]
    assert task.metrics(task.build(0), "valid")["NE"] == pytest.approx(1, abs=0.05)
