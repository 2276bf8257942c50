"""The chance of a click: a generated log (bundled), likes of MovieLens latest-small (full)."""

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torchmetrics.functional.classification import binary_auroc

from . import datasets
from .impressions import impressions
from .task import Task

RARE = 50  # an item shown less often than that in training is rare
SIZE = 16  # dimensions of every table
HIDDEN = 32
PLAIN = 128  # a table of so many rows or fewer has one for each identity, and no hash
ROWS = {  # of each table, before `buckets`
    "bundled": {"users": 4096, "ads": 2048, "sites": 1024, "regions": 20, "topics": 10},
    "full": {"users": 1024, "films": 8192, "years": 128, "genres": 20},
}


def clicks(data: str = "bundled", buckets: float = 1.0) -> Task:
    """How probable it is that someone clicks on what is shown, after DLRM (Naumov et al., 2019).

    data: "bundled", the log of `impressions.impressions`, offline; or "full", MovieLens
        latest-small: whether a film that a user rates gets four stars or more.
    buckets: rows of the hashed tables, as a share of the usual number. Identities are hashed into
        rows, so any number will do, and several may share one. Tables of at most 128 rows (regions,
        topics; years, genres) are not hashed, and stay as they are.

    A sample: (hour (n, 2), a bag of rows (n, entries) for each table, 0 or 1 (n,)), in the order of
    time; the first 70 % are for training, the next 10 % for valid, the last 20 % for test. The
    bundled task's samples end with the true chance, (n,), which no loss and no metric reads.

    metrics, of the probabilities that the network gives: log-loss in nats; NE, normalised entropy,
    the log-loss over that of always saying the share of clicks in the training split (He et al.,
    2014); gain, 1 - NE, the primary one; AUC; calibration, predicted over observed clicks.
    slices: samples of frequent items (ads, films), of rare ones, in fewer than 50 training samples,
    and of new ones, in none.
    """
    if data not in ROWS:
        raise ValueError(f"data is {data!r}, but must be 'bundled' or 'full'")
    if not buckets > 0:
        raise ValueError(f"buckets is {buckets}, but must be above 0")
    rows = {name: n if n <= PLAIN else max(1, round(buckets * n)) for name, n in ROWS[data].items()}
    hour, bags, *last = _bundled() if data == "bundled" else _full()
    item = bags["ads" if data == "bundled" else "films"][:, 0]
    bags = {n: bag if ROWS[data][n] <= PLAIN else hashed(bag, rows[n]) for n, bag in bags.items()}
    samples = (hour, *bags.values())
    splits = in_time((*samples, *last))
    ends = dict(zip(splits, in_time((item,)).values(), strict=True))
    shown = torch.bincount(ends["train"][0], minlength=int(item.max()) + 1)
    prior = float(splits["train"][1 + len(rows)].mean())

    def metrics(network: nn.Module, split: str) -> dict[str, float]:
        return judged(predicted(network, splits[split]), splits[split][1 + len(rows)], prior)

    return Task(
        name=f"clicks-{data}",
        splits=splits,
        build=partial(seeded, rows, prior),
        loss=click_loss,
        metrics=metrics,
        primary="gain",
        epochs=3,
        optimizer=partial(torch.optim.AdamW, lr=0.03, weight_decay=0.3, eps=3e-4),
        batch_size=1000,
        slices={
            split: {
                "frequent": shown[one] >= RARE,
                "rare": (shown[one] > 0) & (shown[one] < RARE),
                "new": shown[one] == 0,
            }
            for split, (one,) in ends.items()
        },
        cooling=True,
    )


def _bundled() -> tuple:
    log = impressions()
    bags = {
        "users": log.user,
        "ads": log.ad,
        "sites": log.site,
        "regions": log.region,
        "topics": log.topics,
    }
    bags = {name: torch.from_numpy(bag).reshape(len(log.day), -1) for name, bag in bags.items()}
    said = (torch.from_numpy(value).float() for value in (log.click, log.chance))
    return circle(log.hour), bags, *said


def _full() -> tuple:
    rows = datasets.movielens().sort_values("time", kind="stable")
    films = datasets.films().set_index("item").loc[rows["item"]]
    genres = sorted({genre for these in films["genres"] for genre in these})
    # as often as to fill 12 places: the mean of one to four, or six, is as it was
    places = [[genres.index(these[i % len(these)]) for i in range(12)] for these in films["genres"]]
    bags = {
        "users": torch.tensor(rows["user"].to_numpy())[:, None],
        "films": torch.tensor(rows["item"].to_numpy())[:, None],
        "years": torch.from_numpy(np.unique(films["year"], return_inverse=True)[1])[:, None],
        "genres": torch.tensor(places),
    }
    hour = rows["time"].to_numpy() // 3600 % 24
    return circle(hour), bags, torch.tensor(rows["rating"].to_numpy() >= 4).float()


def circle(hour: np.ndarray) -> Tensor:
    """(n, 2): the hour on a clock's circle, so that 23 is near 0."""
    angle = torch.from_numpy(hour) * (2 * torch.pi / 24)
    return torch.stack([angle.sin(), angle.cos()], dim=1).float()


def hashed(identities: Tensor, rows: int) -> Tensor:
    """The row of each identity, whole numbers from 0, in 0..rows - 1: as if drawn, but always the same.

    The mixing is MurmurHash3's last step (Appleby, 2011), in 32 bits.
    """
    mixed, low = identities.numpy().astype(np.uint64), np.uint64(2**32 - 1)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        mixed = ((mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)) & low
    return torch.from_numpy((mixed * np.uint64(rows) >> np.uint64(32)).astype(np.int64))


def in_time(samples: tuple[Tensor, ...]) -> dict[str, tuple[Tensor, ...]]:
    """The first 70 % of rows in order for training, the next 10 % for valid, the last 20 % for test."""
    n = len(samples[0])
    sizes = [n * 7 // 10, n // 10, n - n * 7 // 10 - n // 10]
    parts = zip(*(column.split(sizes) for column in samples), strict=True)
    return dict(zip(("train", "valid", "test"), parts, strict=True))


class Network(nn.Module):
    """Log-odds of a click: products of pairs of embeddings, and a small network on top.

    The bottom network makes a vector of the hour. It and the mean of each bag's rows are multiplied
    pair by pair; the top network reads these products and the hour's vector. (SiLU where DLRM has ReLU:
    so small, one network of four died of ReLUs that never came back.)
    """

    def __init__(self, rows: dict[str, int], size: int, prior: float):
        super().__init__()
        self.tables = nn.ModuleDict({name: table(n, size) for name, n in rows.items()})
        self.bottom = nn.Sequential(nn.Linear(2, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, size))
        first, second = torch.triu_indices(len(rows) + 1, len(rows) + 1, offset=1)
        self.first, self.second = first.tolist(), second.tolist()
        self.top = nn.Sequential(
            nn.Linear(size + len(first), HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, 1)
        )
        nn.init.constant_(self.top[2].bias, float(np.log(prior / (1 - prior))))

    def forward(self, hour: Tensor, *bags: Tensor) -> Tensor:
        """(n, 2) and a bag of rows (n, entries) for each table -> (n,)."""
        whole = self.bottom(hour)
        means = [layer(bag) for layer, bag in zip(self.tables.values(), bags, strict=True)]
        vectors = torch.stack([whole, *means], dim=1)  # (n, tables + 1, size)
        pairs = (vectors[:, self.first] * vectors[:, self.second]).sum(dim=2)
        return self.top(torch.cat([whole, pairs], dim=1)).squeeze(1)


def table(rows: int, size: int) -> nn.EmbeddingBag:
    """The mean of a bag's rows, at the start between ∓ 1 / √rows, as DLRM's are: rows of a large table
    that nobody reads stay near zero. Those of tables that are not hashed begin 2.5 times as large: else
    one network of nine never finds that two of them belong together.
    """
    layer, bound = nn.EmbeddingBag(rows, size, mode="mean"), rows**-0.5
    bound *= 2.5 if rows <= PLAIN else 1
    nn.init.uniform_(layer.weight, -bound, bound)
    return layer


def seeded(rows: dict[str, int], prior: float, seed: int, width: float = 1.0) -> Network:
    """The network with 16 · `width` dimensions in every table."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Network(rows, max(1, round(SIZE * width)), prior)


def click_loss(network: nn.Module, batch: tuple[Tensor, ...]) -> Tensor:
    """Mean log-loss in nats. Of a batch's tensors the network reads the hour and a bag for each table."""
    tables = len(network.tables)
    return binary_cross_entropy_with_logits(network(*batch[: 1 + tables]), batch[1 + tables])


@torch.no_grad()
def predicted(network: nn.Module, samples: tuple[Tensor, ...]) -> Tensor:
    """(n,): the probability of a click that the network gives each sample, in float64."""
    return network(*samples[: 1 + len(network.tables)]).double().sigmoid()


def judged(chance: Tensor, click: Tensor, prior: float) -> dict[str, float]:
    """Log-loss, NE, gain, AUC and calibration of probabilities (n,) against clicks (n,), 0 or 1.

    prior: the share of clicks that NE divides by the log-loss of (He et al., ADKDD 2014). Without a
    click, calibration is infinite; without both kinds, the AUC is 0, as torchmetrics has it.
    """
    loss, base = log_loss(chance, click), log_loss(torch.full_like(chance, prior), click)
    return {
        "log-loss": loss,
        "NE": loss / base,
        "gain": 1 - loss / base,
        "AUC": float(binary_auroc(chance, click.long())),
        "calibration": float(chance.sum() / click.double().sum()),
    }


def log_loss(chance: Tensor, click: Tensor) -> float:
    """Mean of -log of the probability given to what happened. `click` may be a true chance, too."""
    chance, click = chance.double().clamp(1e-7, 1 - 1e-7), click.double()
    return -float((click * chance.log() + (1 - click) * (1 - chance).log()).mean())
