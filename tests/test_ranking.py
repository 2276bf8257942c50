"""The ranking task: what is ranked, for whom, against what, and the numbers that judge it."""

import math
import os
from pathlib import Path

import pytest
import torch
from torchmetrics.retrieval import RetrievalNormalizedDCG, RetrievalRecall

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.ranking import all_scores, ndcg, places, thirds


class Fixed(torch.nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.scores = scores

    def forward(self, users, items):
        return self.scores[users, items]


@pytest.fixture(scope="module")
def task():
    return pl.ranking()


@pytest.fixture(scope="module")
def noise():
    return Fixed(torch.rand(800, 400, generator=torch.Generator().manual_seed(0)))


def pairs(split):
    return set(zip(*(column.tolist() for column in split), strict=True))


def test_a_user_s_last_fifth_is_for_test_and_the_tenth_before_for_valid(task):
    ratings = datasets.generated_ratings().sort_values("time", kind="stable")
    rows = {user: part["item"].tolist() for user, part in ratings.groupby("user")}
    test = {user: min(20, len(row) // 5) for user, row in rows.items()}
    valid = {user: test[user] + min(20, len(row) // 10) for user, row in rows.items()}
    assert pairs(task.splits["test"]) == {(u, i) for u in rows for i in rows[u][-test[u] :]}
    assert pairs(task.splits["train"]) == {(u, i) for u in rows for i in rows[u][: -valid[u]]}
    assert sum(len(users) for users, _ in task.splits.values()) == len(ratings)
    assert max(test.values()) == 20  # there are users with more than a hundred


def test_slices_cover_the_samples(task):
    for split, (users, _) in task.splits.items():
        part = {name: mask.int() for name, mask in task.slices[split].items()}
        assert all(mask.shape == users.shape for mask in part.values())
        assert (part["head items"] + part["middle items"] + part["tail items"] == 1).all()
        assert (part["light users"] + part["heavy users"] == 1).all()
    users, items = task.splits["train"]
    for columns, more, less in ((items, "head", "middle"), (items, "middle", "tail"), (users, "heavy", "light")):  # fmt: skip
        counts = torch.bincount(columns)[columns]
        named = {n.split()[0]: counts[mask] for n, mask in task.slices["train"].items()}
        assert named[more].min() >= named[less].max()


def test_thirds_by_hand():
    # sorted: 6, 3, 2, 1; before each lie 0, 6, 9, 11 of 12
    assert thirds(torch.tensor([1, 6, 2, 3])).tolist() == [2, 0, 2, 1]


def test_equal_scores_come_before_the_item():
    scores = torch.tensor([[1.0, 3.0, 2.0], [1.0, 1.0, 1.0], [-torch.inf, 0.0, 5.0]])
    users, items = torch.tensor([0, 0, 1, 2]), torch.tensor([2, 0, 1, 1])
    assert places(scores, users, items).tolist() == [2, 3, 3, 2]


def test_ndcg_by_hand():
    users, place = torch.tensor([0, 0, 1, 2]), torch.tensor([1, 3, 21, 1])
    best = 1 + 1 / math.log2(3)
    assert ndcg(place, users).tolist() == pytest.approx([1.5 / best, 0, 1])


@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_the_mode(training, task):
    model = task.build(0).train(training)
    all_scores(model, torch.arange(3), 5)
    assert model.training is training


@pytest.mark.parametrize("score", [0, torch.nan])
def test_a_network_that_scores_all_alike_has_no_hits(score, task):
    metrics = task.metrics(Fixed(torch.full((800, 400), float(score))), "test")
    assert metrics["recall@20"] == metrics["nDCG@20"] == 0


@pytest.mark.parametrize("split", ["valid", "test"])
def test_metrics_are_those_of_torchmetrics(split, task, noise):
    users, items = task.splits[split]
    scores, wanted = noise.scores.clone(), torch.zeros(800, 400, dtype=torch.bool)
    for part in ("train", "valid")[: 1 + (split == "test")]:
        scores[task.splits[part]] = -1
    wanted[users, items] = True
    index = torch.arange(800)[:, None].expand(800, 400)
    given = (scores.flatten(), wanted.flatten(), index.flatten())
    metrics = task.metrics(noise, split)
    assert metrics["nDCG@20"] == pytest.approx(RetrievalNormalizedDCG(top_k=20)(*given).item())
    hits = task.outcomes(noise, split)
    assert hits.dtype == torch.bool and hits.double().mean() == metrics["recall@20"] > 0
    share = torch.zeros(800).index_add(0, users, hits.float()) / torch.bincount(users)
    assert share.mean() == pytest.approx(RetrievalRecall(top_k=20)(*given).item())
    best = scores.topk(20).indices
    assert metrics["coverage"] == len(best.unique()) / 400
    head = task.splits["train"][1][task.slices["train"]["head items"]].unique()
    assert metrics["head share"] == pytest.approx(torch.isin(best, head).double().mean().item())


@pytest.mark.parametrize("model", ["network", "product"])
def test_models_score_pairs_of_any_shape(model):
    task = pl.ranking(model=model)
    for width in (0.01, 0.5, 1.0):
        network = task.build(0, width)
        whole = all_scores(network, torch.arange(800), 400)
        assert whole.shape == (800, 400)
        one = network(torch.tensor([3, 5]), torch.tensor([7, 0])).detach()
        assert torch.allclose(one, whole[[3, 5], [7, 0]], atol=1e-6)
    state = torch.get_rng_state()
    assert task.build(1).users.weight.equal(task.build(1).users.weight)
    assert not task.build(1).users.weight.equal(task.build(2).users.weight)
    assert torch.get_rng_state().equal(state)


def test_loss_leaves_out_what_the_user_has(task):
    users, items = (column[:1] for column in task.splits["train"])
    other = task.splits["train"][1][1:2]  # the same user has it, too
    assert task.splits["train"][0][1] == users[0]
    network = task.build(0)
    assert task.loss(network, (users, items, other[:, None])).item() == 0
    fresh = next(i for i in range(400) if (int(users[0]), i) not in pairs(task.splits["train"]))
    scores = network(users[:, None], torch.tensor([[int(items[0]), fresh]]))
    expected = torch.log1p((scores[0, 1] - scores[0, 0]).exp())
    given = task.loss(network, (users, items, torch.tensor([[fresh]])))
    assert given.item() == pytest.approx(expected.item())


def test_training_depends_on_its_seed_alone(task):
    models = []
    for seed in (0, 0, 1):
        torch.manual_seed(len(models))
        state = torch.get_rng_state()
        models.append(task.build(0))
        task.train(models[-1], seed=seed, epochs=1)
        assert torch.get_rng_state().equal(state)
    one, same, other = (model.users.weight for model in models)
    assert one.equal(same) and not one.equal(other)


def test_training_beats_the_most_popular(task):
    counts = torch.bincount(task.splits["train"][1], minlength=400).double()
    popular = task.score(Fixed(counts.expand(800, 400)), "valid")
    network = task.build(0)
    assert task.score(network, "valid") < popular
    task.train(network, seed=0)
    assert task.score(network, "valid") > 1.3 * popular


def test_dimensions_are_removed_from_both_tables_and_all_that_reads_them(task):
    network, example = task.build(0), (torch.arange(4), torch.arange(4))
    joined = {"users.weight": pl.coupled(network, example)["users.weight"]}
    scores = pl.pool(pl.magnitude(network), joined)
    masks = pl.spread(pl.select(scores, 0.75), joined)
    small = pl.shrink(network, masks, example)
    assert small.users.weight.shape == (800, 8) and small.items.weight.shape == (400, 8)
    assert small.from_user.in_features == 8 and small.output.in_features == 8 + 32


def test_no_such_ranking():
    with pytest.raises(ValueError, match="data is 'all', but must be 'bundled' or 'full'"):
        pl.ranking("all")
    with pytest.raises(ValueError, match="model is 'dot', but must be 'network' or 'product'"):
        pl.ranking(model="dot")


ARCHIVE = Path(os.environ.get("PRUNINGLIB_DATA", "nowhere")) / "movielens" / "ml-latest-small.zip"


@pytest.mark.skipif(not ARCHIVE.exists(), reason="PRUNINGLIB_DATA has no movielens")
def test_the_published_ratings_as_a_task():
    task = pl.ranking("full")
    counts = {split: len(users) for split, (users, _) in task.splits.items()}
    assert counts["valid"] < counts["test"] < counts["train"]
    assert torch.bincount(task.splits["test"][0]).max() == 20
    rated = datasets.movielens().groupby("item").size()
    assert sum(counts.values()) == rated[rated >= 5].sum()
    assert task.build(0).items.num_embeddings == (rated >= 5).sum()
    assert 0 <= task.score(task.build(0), "valid") < 0.05
