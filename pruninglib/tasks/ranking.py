"""Items ranked for users: generated ratings (bundled), MovieLens latest-small (full)."""

from functools import partial

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from . import datasets
from .task import Task

FEWEST = 5  # ratings of an item: nothing can be learnt of one that nobody has rated
TOP = 20  # how many items a user is shown
NEGATIVES = 10  # items drawn against each one in the training loss
PAIRS_AT_ONCE = 2**12  # few enough to stay in the cache
AT_ONCE = 1000  # samples whose rows of scores are compared at a time


def ranking(data: str = "bundled", model: str = "network") -> Task:
    """Which items a user will take next, from those taken before: implicit feedback.

    data: "bundled", generated ratings, offline; or "full", MovieLens latest-small.
    model: "network", user and item embeddings of 32 dimensions with a small network on top (after
        NeuMF: He et al., WWW 2017), or "product", their scalar product and an item bias: matrix
        factorisation.

    A sample is a pair (user, item); that it was rated counts, not how. Items with fewer than five
    ratings are left out. Of each user's interactions the last fifth is for test, the tenth before
    it for valid, 20 of each at most (`datasets.leave_last_out`), and the others are for training.
    What a user has taken in an earlier split is left out of the ranking; all other items compete.

    metrics: recall@20, the primary one, the share of samples whose item is among its user's twenty
    best; nDCG@20, where a hit at place r counts 1 / log2(r + 1), as a share of what the best order
    would give the user, mean over users; coverage, the share of all items that are among anybody's
    twenty best; head share, the share of head items among all these twenties.
    slices: samples of head, middle and tail items, which have a third of the training interactions
    each, most popular first; of light and heavy users, parted at the median of what they have there.

    loss(model, batch): softmax over the sample's item and ten others that the user does not have.
    These are drawn anew at each call, unless the batch has them: (users, items, others).
    """
    if data == "bundled":
        ratings, lr, weight_decay = datasets.generated_ratings(), 0.04, 1.0
    elif data == "full":
        ratings, lr, weight_decay = datasets.movielens(), 0.02, 0.3
    else:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    models = {"network": Network, "product": Product}
    if model not in models:
        raise ValueError(f"model is {model!r}, but must be 'network' or 'product'")
    splits = in_order(ratings)
    users, items = (1 + max(int(part[i].max()) for part in splits.values()) for i in (0, 1))

    taken = {"train": torch.zeros(users, items, dtype=torch.bool)}  # before the samples of a split
    taken["train"][splits["train"]] = True
    taken["valid"] = taken["train"]
    taken["test"] = taken["valid"].index_put(splits["valid"], torch.tensor(True))
    group = thirds(torch.bincount(splits["train"][1], minlength=items))
    active = torch.bincount(splits["train"][0], minlength=users)

    def loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
        someone, item = batch[:2]
        others = batch[2] if len(batch) > 2 else torch.randint(items, (len(item), NEGATIVES))
        candidates = torch.cat([item[:, None], others], dim=1)
        scores = network(someone[:, None], candidates)
        out = taken["train"][someone[:, None], others]
        scores = torch.cat([scores[:, :1], scores[:, 1:].masked_fill(out, -torch.inf)], dim=1)
        return cross_entropy(scores, torch.zeros_like(item))

    def ranked(network: nn.Module, split: str) -> tuple[Tensor, Tensor]:
        scores = all_scores(network, torch.arange(users), items)
        scores = scores.masked_fill(taken[split], -torch.inf)
        return places(scores, *splits[split]), scores.topk(TOP).indices

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        place, best = ranked(network, split)
        hit = place <= TOP
        return {
            "recall@20": hit.double().mean().item(),
            "nDCG@20": ndcg(place, splits[split][0]).mean().item(),
            "coverage": len(best.unique()) / items,
            "head share": (group[best] == 0).double().mean().item(),
        }

    return Task(
        name=f"ranking-{model}-{data}",
        splits=splits,
        build=partial(seeded, models[model], users, items),
        loss=loss,
        metrics=metrics,
        primary="recall@20",
        epochs=10,
        optimizer=partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay),
        batch_size=1000,
        outcomes=lambda network, split: ranked(network, split)[0] <= TOP,
        slices={
            split: {
                "head items": group[item] == 0,
                "middle items": group[item] == 1,
                "tail items": group[item] == 2,
                "light users": active[someone] <= active.median(),
                "heavy users": active[someone] > active.median(),
            }
            for split, (someone, item) in splits.items()
        },
        cooling=True,
    )


def in_order(ratings: pd.DataFrame) -> dict[str, tuple[Tensor, Tensor]]:
    """Splits of (users, items), numbered from 0, of the items that have ratings enough."""
    enough = ratings.groupby("item")["item"].transform("size") >= FEWEST
    parts = datasets.leave_last_out(ratings[enough])
    rows = pd.concat(parts, names=["split"])
    rows["user"], rows["item"] = (pd.factorize(rows[c], sort=True)[0] for c in ("user", "item"))
    return {
        split: (torch.tensor(part["user"].to_numpy()), torch.tensor(part["item"].to_numpy()))
        for split, part in rows.groupby("split", sort=False)
    }


class Network(nn.Module):
    """Scores of pairs: a linear layer reads u∘v and the hidden units, which read u and v.

    A hidden layer on (u, v) has one matrix for u and one for v. Kept apart, they are multiplied
    once for each user and item, and a pair costs only an addition. The weights of u∘v start at 1:
    training starts from the scalar product.
    """

    def __init__(self, users: int, items: int, size: int):
        super().__init__()
        self.users, self.items = embedding(users, size), embedding(items, size)
        self.from_user, self.from_item = nn.Linear(size, size), nn.Linear(size, size)
        self.output = nn.Linear(2 * size, 1)
        nn.init.ones_(self.output.weight[:, :size])

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """Indices of shapes that broadcast to each other -> scores of the shape they give."""
        u, v = self.users(users), self.items(items)
        hidden = torch.relu(self.from_user(u) + self.from_item(v))
        return self.output(torch.cat([u * v, hidden], dim=-1)).squeeze(-1)


class Product(nn.Module):
    """Scores of pairs: u·v, and the item's bias. Koren, Bell & Volinsky, Computer 2009."""

    def __init__(self, users: int, items: int, size: int):
        super().__init__()
        self.users, self.items = embedding(users, size), embedding(items, size)
        self.bias = embedding(items, 1)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """As for `Network`."""
        return (self.users(users) * self.items(items)).sum(-1) + self.bias(items).squeeze(-1)


def seeded(
    make: type[nn.Module], users: int, items: int, seed: int, width: float = 1.0
) -> nn.Module:
    """The model with 32 · `width` numbers for each user and item."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(users, items, max(1, round(32 * width)))


def embedding(count: int, size: int) -> nn.Embedding:
    """Small at the start: unit vectors of 32 dimensions would give large scores by chance."""
    layer = nn.Embedding(count, size)
    nn.init.normal_(layer.weight, std=0.1)
    return layer


@torch.no_grad()
def all_scores(network: nn.Module, users: Tensor, items: int) -> Tensor:
    """(users, items): every item's score for each of the users."""
    mode = network.training
    network.eval()
    parts = users.split(max(1, PAIRS_AT_ONCE // items))
    every = torch.arange(items)[None]
    scores = torch.cat([network(part[:, None], every) for part in parts])
    network.train(mode)
    return scores


def places(scores: Tensor, users: Tensor, items: Tensor) -> Tensor:
    """(samples,): the place, from 1, of each sample's item in its user's row of scores.

    Items with an equal score come before it, so a network that scores all alike, or all NaN, has no
    hits.
    """
    return torch.cat([
        (~(scores[someone] < scores[someone, item][:, None])).sum(dim=1)
        for someone, item in zip(users.split(AT_ONCE), items.split(AT_ONCE), strict=True)
    ])  # fmt: skip


def ndcg(place: Tensor, users: Tensor) -> Tensor:
    """(users,): nDCG@20 of each user from the places of its samples; every user has some."""
    gains = (place <= TOP) / (place + 1.0).double().log2()
    best = (1 / torch.arange(2.0, TOP + 2, dtype=torch.double).log2()).cumsum(0)
    count = torch.bincount(users)
    return (
        torch.zeros(len(count)).double().index_add(0, users, gains) / best[count.clamp(max=TOP) - 1]
    )


def thirds(counts: Tensor) -> Tensor:
    """(items,): 0 for the most popular items that have the first third of all interactions between
    them, 1 and 2 for the second and the last third."""
    order = counts.argsort(descending=True, stable=True)
    before = counts[order].cumsum(0) - counts[order]
    group = torch.empty_like(counts)
    group[order] = (3 * before // counts.sum()).clamp(max=2)
    return group
