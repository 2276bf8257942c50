"""Exercises of lesson 07 Image classification. Each: the judge, then the solution it belongs to."""

import copy
from collections import OrderedDict

import numpy as np
import torch
from torch import Tensor, nn

import pruninglib as pl

from .exercise import beside_weights, example, exercise


def _network(channels: tuple[int, int], tied: bool) -> nn.Module:
    """Two convolutions with BatchNorm and a linear layer; its weights have both signs."""
    first, second = channels
    layers = OrderedDict(
        conv=nn.Conv2d(1, first, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(first),
        relu=nn.ReLU(),
        conv2=nn.Conv2d(first, second, 3, padding=1, bias=False),
        norm2=nn.BatchNorm2d(second),
        average=nn.AdaptiveAvgPool2d(1),
        flatten=nn.Flatten(),
        output=nn.Linear(second, 5),
    )
    model = nn.Sequential(layers).eval()
    with torch.no_grad():
        for seed, weight in enumerate(pl.weights_of(model).values()):
            values = example(*weight.shape, seed=seed) * (1 + seed)  # layers of different sizes
            weight.copy_((4 * values).round().clamp(-9, 9) + 0.5 if tied else values)
    return model


def _judge_prune_but(answer) -> str | None:
    cases = (
        (_network((4, 6), tied=False), "conv.weight", 0.5),
        (_network((3, 5), tied=False), "output.weight", 0.8),
        (_network((5, 4), tied=True), "conv2.weight", 0.2),
    )
    for number, (model, spared, sparsity) in enumerate(cases):
        images, before = example(8, 1, 6, 6, seed=number), copy.deepcopy(model)
        answer(model, spared, sparsity, images)
        problem = _pruned_wrongly(before, model, spared, sparsity, images)
        if problem:
            return problem
    return None


def _pruned_wrongly(
    before: nn.Module, model: nn.Module, spared: str, sparsity: float, images: Tensor
) -> str | None:
    old, new = pl.weights_of(before), pl.weights_of(model)
    gone = {name: (new[name] == 0) & (old[name] != 0) for name in old}
    if not any(mask.any() for mask in gone.values()):
        return "No weight became zero: prune the model that is given, in place, not a copy of it."
    if gone[spared].any():
        return f"{spared} is spared, but lost {int(gone[spared].sum())} weights."
    if any((old[name] != new[name])[~gone[name]].any() for name in old):
        return "Weights that stay keep their values."
    if said := beside_weights(before, model):
        return said
    total = sum(w.numel() for w in old.values())
    count, want = sum(int(mask.sum()) for mask in gone.values()), round(sparsity * total)
    if count != want:
        others = round(sparsity * (total - old[spared].numel()))
        if count == others:
            return (
                f"{sparsity:.0%} of the other layers are gone, not of all weights: what is spared must be "
                "made up for by the others."
            )
        return f"{want} of {total:,} weights should be gone; {count} are."
    names = [name for name in old if name != spared]
    stays = {name: ~mask for name, mask in gone.items()}
    dropped, left = (
        torch.cat([old[name][mask[name]].abs() for name in names]) for mask in (gone, stays)
    )
    if dropped.max() > left.min():
        signed = [torch.cat([old[n][mask[n]] for n in names]) for mask in (gone, stays)]
        if signed[0].max() <= signed[1].min():
            return "The most negative weights are gone: the *size* counts, whatever the sign."
        if dropped.min() >= left.max():
            return "It is the wrong way round: the smallest weights go."
        return "These are not the smallest over all layers: one ranking, not one for each layer."
    right, early = copy.deepcopy(model), copy.deepcopy(before)
    pl.recalibrate(right, [images])
    pl.recalibrate(early, [images])
    found, stale = _averages(model), _averages(before)
    if torch.allclose(found, _averages(right), atol=1e-4):
        return None
    if torch.equal(found, stale):
        return "Pruned as asked. But BatchNorm's averages are still those of the whole network."
    if torch.allclose(found, _averages(early), atol=1e-4):
        return "The averages are those of the network before it was pruned: prune first."
    return (
        "The averages are neither the old ones nor those of the pruned network on `images`: "
        "`pl.recalibrate` takes a list of batches, and all of `images` is one."
    )


def _averages(model: nn.Module) -> Tensor:
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    return torch.cat([value for m in norms for value in (m.running_mean, m.running_var)])


@exercise(
    _judge_prune_but,
    "`pl.weights_of(model)` has all prunable weights by name. `pl.magnitude(model, names)` scores the ones you name; "
    "`pl.select` makes masks of the scores, `pl.apply` puts them on, `pl.recalibrate(model, [images])` comes last.",
    "`pl.select` takes the sparsity of the layers that it is given. If 90 of 100 weights must go and 10 are spared, the "
    "other 90 must all go: `sparsity * total / others`.",
)
def prune_but(model: nn.Module, spared: str, sparsity: float, images: Tensor) -> None:
    weights = pl.weights_of(model)
    total = sum(w.numel() for w in weights.values())
    others = total - weights[spared].numel()
    names = [name for name in weights if name != spared]
    pl.apply(model, pl.select(pl.magnitude(model, names), sparsity * total / others))
    pl.recalibrate(model, [images])


def _judge_exemplars(answer) -> str | None:
    dense = torch.tensor(
        [[1, 1, 1, 0, 1, 1, 1], [1, 1, 0, 0, 1, 1, 1], [1, 0, 1, 0, 1, 0, 1], [1, 1, 1, 1, 1, 0, 1]]
    )
    pruned = torch.tensor(
        [[0, 0, 0, 0, 1, 0, 1], [0, 1, 0, 0, 1, 0, 0], [1, 0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 0, 0, 1]]
    )
    dense, pruned = dense.bool(), pruned.bool()  # image 5: a tie of the dense; 6: of the pruned
    given = answer(dense, pruned)
    if isinstance(given, (set, frozenset)):
        return "A set has no order: return the positions as a tensor or a list, in ascending order."
    got = _positions(given)
    if got is None or len(got) == dense.shape[1]:
        return "Return the positions of the images, not a value for each: `nonzero()` finds them."
    if 3 in got:
        return "Image 3 is wrong in most dense networks, too: pruning did not take it away."
    if 5 in got:
        return "Image 5 is right in two of four dense networks: that is half, not more than half."
    if 6 in got:
        return "Image 6 is wrong in two of four pruned networks: that is half, not more than half."
    if got == [4]:
        return "Image 4 is right before and after. You want right before, wrong after."
    if sorted(got) == [0, 1, 2] != got:
        return "Those are the images, but in ascending order, please."
    if not set(got) - {0, 1, 2} and got != [0, 1, 2]:
        return (
            f"Some are missing: you found {got}. The majority counts, not each network with its own pair: "
            "a majority of the dense ones, and apart from it a majority of the pruned."
        )
    if got != [0, 1, 2]:
        return f"Of the seven images, 0, 1 and 2 are exemplars; you found {got}."
    narrow = torch.tensor([[1, 1], [1, 1], [1, 0], [0, 0], [0, 1]]).bool()  # 3 of 5, 3 of 5
    if _positions(answer(narrow, narrow.flip(1) & narrow)) != [0, 1]:
        return (
            "Three of five right before and two of five after: a majority turned. Compare each share with "
            "one half, not with the other."
        )
    if _positions(answer(dense[:, 3:], dense[:, 3:])) != []:
        return "Where pruned and dense are right on the same images there is no exemplar: none to return."
    if _positions(answer(~dense, dense)) != [3]:
        return "With other networks other images are exemplars: compute the positions from what is given."
    seven = torch.arange(7)[:, None]
    if _positions(answer(seven < torch.tensor([4, 3, 4]), seven < torch.tensor([3, 3, 4]))) != [0]:
        return "Four of seven is a majority, three of seven is none: the threshold is one half."
    return None


def _positions(got) -> list[int] | None:
    """As a list, from a tensor, an array, a list, or what `torch.where` gives; None for a bool mask."""
    if isinstance(got, tuple) and len(got) == 1 and not isinstance(got[0], (int, np.integer)):
        got = got[0]
    if isinstance(got, (list, tuple)):
        got = [value.item() if isinstance(value, (Tensor, np.generic)) else value for value in got]
    values = np.asarray(got).flatten()
    if values.dtype == bool or (not np.issubdtype(values.dtype, np.number) and values.size):
        return None
    return [int(value) for value in values]


@exercise(
    _judge_exemplars,
    "The mean over networks, dimension 0, of a bool turned float is the share that is right.",
    "Right in more than half: share above 0.5. Wrong in more than half: share below 0.5.",
)
def exemplars_of(dense: Tensor, pruned: Tensor) -> Tensor:
    before, after = dense.float().mean(dim=0) > 0.5, pruned.float().mean(dim=0) < 0.5
    return (before & after).nonzero().flatten()


def _judge_release(answer) -> str | None:
    def images(number: int, *wrong: int) -> Tensor:
        """Right, but for the positions that are named."""
        return ~torch.isin(torch.arange(number), torch.tensor(wrong, dtype=torch.long))

    ones, few = images(100), ~images(100, *range(8))
    pruned, none = images(100, 0, 1, 2, 3), {"none": ~ones}  # 4 points of all, half of the few
    half, less = images(100, *range(50)), images(100, *range(54))
    swapped, tiny = images(16, 0, 1), {"tiny": ~images(100, 97, 98, 99)}
    cases = [
        (ones, ones, {"few": few}, 0.01, 0.01, True,
         "A network that loses nothing may go out: is it the wrong way round?"),
        (ones, pruned, {"few": few}, 0.05, 0.1, False,
         "All lose 4 points, but the slice of 8 images loses 50. Divide by the slice's own size."),
        (ones, pruned, {"rest": ~few, "few": few, "same": ~few}, 0.05, 0.3, False,
         "One slice above its limit is enough to stop it: look at the worst, not at the mean."),
        (ones, pruned, {"few": few}, 0.01, 0.9, False,
         "All lose 4 points where 1 is allowed: the limit for the whole counts, too."),
        (ones, pruned, {"few": few}, 0.05, 0.5, True,
         "The slice loses 50 points where 50 are allowed: exactly at the limit is within it."),
        (ones, images(100, *range(25)), {}, 0.25, 0.25, True,
         "All lose 25 points where 25 are allowed: exactly at the limit is within it."),
        (ones, pruned, none, 0.05, 0.1, True,
         "A slice without images has no accuracy, so leave it out: the mean of nothing is NaN."),
        (ones, images(100, 97, 98, 99), tiny, 0.05, 0.5, False,
         "A slice of three images loses them all. However small, it has a limit."),
        (ones, images(100, 99), {"one": ~images(100, 99)}, 0.05, 0.5, False,
         "A slice of one image loses it. However small, it has a limit."),
        (ones, pruned, {"few": few}, 0.6, 0.1, False,
         "The slice loses 50 points where 10 are allowed, however much the whole may lose."),
        (images(250), images(250, 0), {}, 0.003, 0.5, False,
         "One of 250 is a loss of 0.4 points where 0.3 are allowed: don't round."),
        (~few, ones, {"few": few}, 0.01, 0.01, True,
         "Everything got better there. A loss has a sign: dense less pruned."),
        (swapped, images(16, 2, 3), {"half": ~images(16, 0, 1, 2, 3)}, 0.05, 0.05, True,
         "Two are lost and two gained, in the slice, too: its accuracy is the same, so nothing is lost."),
        (few, ~few, {"few": few}, 0.5, 0.5, False,
         "Others may gain what a slice loses: compare its accuracy before and after, in the slice."),
        (half, less, {"all": ones}, 0.05, 0.05, True,
         "From 50 to 46 % is a loss of 4 points, the difference, and 5 are allowed. It isn't 8 %."),
        (images(1000), images(1000, *range(49)), {"part": ~images(1000, *range(11), *range(500, 589))},
         0.05, 0.1, False,
         "The slice loses 11 points where 10 are allowed: all that it loses, not what it loses beyond the others."),
    ]  # fmt: skip
    for *arguments, want, message in cases:
        got = answer(*arguments)
        if isinstance(got, (Tensor, np.generic, np.ndarray)) and len(np.ravel(got)) == 1:
            got = got.item()
        if not isinstance(got, (bool, int)) or got not in (0, 1):
            return "Return one bool, True or False."
        if bool(got) is not want:
            return message
    return None


@exercise(
    _judge_release,
    "A loss is `dense.float().mean() - pruned.float().mean()`; in a slice, of `dense[part]` and `pruned[part]`.",
    "`all(... for part in slices.values() if part.any())`, and the limit for the whole.",
    "Accuracies are inexact numbers: allow a loss of the limit and 1e-6.",
)
def may_go_out(
    dense: Tensor, pruned: Tensor, slices: dict, limit: float, worst_limit: float
) -> bool:
    def lost(part: Tensor) -> float:
        return (dense[part].float().mean() - pruned[part].float().mean()).item() - 1e-6

    fine = all(lost(part) <= worst_limit for part in slices.values() if part.any())
    return fine and lost(torch.ones_like(dense)) <= limit
