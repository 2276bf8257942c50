"""Exercises of lesson 14 Language models. Each: the judge, then the solution it belongs to."""

import copy
import math

import numpy as np
import torch
from torch import Tensor, nn

import pruninglib as pl

from .exercise import beside_weights, example, exercise, number


def _judge_wanda_mask(answer) -> str | None:
    tied = torch.tensor([[1.0, -2.0, 2.0, 4.0], [-3.0, 3.0, 1.0, 0.5]])
    cases = (
        (example(3, 8), example(20, 8, seed=1) * torch.tensor([1, 9, 1, 0.1, 1, 5, 1, 1]), 0.5),
        (example(5, 6, seed=2), example(7, 6, seed=3) * torch.arange(1, 7), 1 / 3),
        (tied, torch.tensor([[2.0, 1.0, -1.0, 0.5], [0.0, 0.0, 0.0, 0.0]]), 0.25),
        (example(2, 10, seed=4), example(4, 10, seed=5).abs() * torch.arange(10, 0, -1) ** 2, 0.7),
        (example(3, 10, seed=6), example(9, 10, seed=7), 0.37),  # 3.7 weights of a row
        (
            torch.tensor([[1.0, 1.05, -0.9, 1.1]]),
            torch.tensor([[3, 1, 0.5, 2.5], *3 * [[0, -1, 0.5, 0]]]),
            0.5,
        ),
    )
    for weight, inputs, sparsity in cases:
        given = weight.clone(), inputs.clone()
        got = answer(*given, sparsity)
        try:
            found = torch.as_tensor(got).detach()  # a list or an array is as good
        except (TypeError, ValueError, RuntimeError):
            return f"Return a mask of the weight's shape, {tuple(weight.shape)}, not {got!r}."
        if not (given[0].equal(weight) and given[1].equal(inputs)):
            return "You changed what was given: work on copies."
        if found.shape != weight.shape:
            return (
                f"The mask has the weight's shape, {tuple(weight.shape)}, not {tuple(found.shape)}."
            )
        if not ((found == 0) | (found == 1)).all():
            return "A mask says of each weight whether it stays: True or False."
        if problem := _wrong_wanda(found.bool(), weight, inputs, sparsity):
            return problem
    return None


def _wrong_wanda(kept: Tensor, weight: Tensor, inputs: Tensor, sparsity: float) -> str | None:
    count = round(sparsity * weight.shape[1])
    scores = weight.abs() * inputs.norm(dim=0)
    gone = (~kept).sum(dim=1)
    low, high = (scores.masked_fill(m, v) for m, v in ((~kept, -math.inf), (kept, math.inf)))
    if (kept.sum(dim=1) == count).all() and (low.amax(dim=1) <= high.amin(dim=1)).all():
        return "It is the wrong way round: True stays, the highest scores."
    if (gone != count).any():
        if int(gone.sum()) == count * len(weight):
            return "The right number went in all, but not from each row: compare within an output's row."
        return f"From each row of {weight.shape[1]} weights {count} go; here went {gone.tolist()}."

    def lowest(of: Tensor) -> bool:
        high = of.masked_fill(kept, -math.inf).amax(dim=1)
        return bool((high <= of.masked_fill(~kept, math.inf).amin(dim=1) + 1e-6).all())

    if lowest(scores):
        return None
    if lowest(-scores):
        return "It is the wrong way round: the lowest scores go."
    if lowest(weight.abs()):
        return "That is magnitude: the inputs' norms are missing."
    if lowest(weight * inputs.norm(dim=0)):
        return "Compare sizes: take the weight without its sign."
    if lowest(weight.abs() * inputs.sum(dim=0).abs()) or lowest(weight.abs() * inputs.mean(dim=0)):
        return "The norm is the root of the sum of squares: in a sum inputs of both signs cancel."
    if lowest(weight.abs() * inputs.abs().sum(dim=0)):
        return "That is the sum of the inputs' sizes. The norm is the root of the sum of squares."
    if lowest(weight.abs() * inputs.square().sum(dim=0)):
        return "The norm is the root of the sum of squares; the root is missing."
    return "These are not the lowest of |w| times the norm of its input, row by row."


@exercise(
    _judge_wanda_mask,
    "`inputs.norm(dim=0)` is one number for each input; times `weight.abs()` it is spread over the columns.",
    "Rank within each row: `scores.argsort(dim=1)[:, :count]` are the columns that go, `mask.scatter_(1, columns, False)`.",
)
def wanda_mask(weight: Tensor, inputs: Tensor, sparsity: float) -> Tensor:
    scores = weight.abs() * inputs.norm(dim=0)
    columns = scores.argsort(dim=1, stable=True)[:, : round(sparsity * weight.shape[1])]
    return torch.ones(weight.shape, dtype=torch.bool).scatter_(1, columns, False)


def _judge_perplexity_of(answer) -> str | None:
    cases = (
        [[-1.0, -2.0, -3.0], [-0.5]],
        [[math.log(1 / 8)] * 5, [math.log(1 / 2)]],
        [[-0.1], [-4.0, -0.2, -0.3, -0.4], [-2.5, -2.5]],
        [[-1.25, -0.75]],
    )
    for documents in cases:
        got = number(answer(copy.deepcopy(documents)))
        if got is None or math.isnan(got):
            return "Return one number."
        want = perplexity_of.solve(documents)
        if math.isclose(got, want, rel_tol=1e-5):
            continue
        each = [math.exp(-np.mean(d)) for d in documents]
        everything = -sum(map(sum, documents))
        wrong = {
            float(
                np.mean(each)
            ): "That is the mean of the documents' perplexities: one short document that is hard would count as much as a long one. Average log probabilities over all tokens, and take exp at the end.",
            math.exp(np.mean(np.log(each))): "Each document counts alike: weigh by tokens.",
            1
            / want: "The sign: perplexity is exp of the mean of *minus* the log probability, 1 or more.",
            math.log(want): "That is the mean loss: exp of it is the perplexity.",
            2 ** math.log(want): "These are natural logarithms: take exp, not a power of 2.",
            math.exp(min(everything, 700)): "Divide by the number of tokens before you take exp.",
        }
        for value, advice in wrong.items():
            if math.isclose(got, value, rel_tol=1e-5):
                return advice
        return f"For {documents} it is {want:.4f}, not {got:.4f}."
    return None


@exercise(
    _judge_perplexity_of,
    "How many tokens are there in all, and what is the sum of all log probabilities?",
    "`math.exp(-sum(all) / len(all))`, with the documents' lists joined.",
)
def perplexity_of(documents: list[list[float]]) -> float:
    every = [value for document in documents for value in document]
    return float(torch.tensor(every, dtype=torch.float64).mean().neg().exp())


def _small_model(seed: int, tied: bool = False) -> nn.Module:
    model = nn.Sequential(
        nn.Embedding(5, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4), nn.LayerNorm(4), nn.Linear(4, 4)
    )  # fmt: skip
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            values = example(*parameter.shape, seed=seed + number)
            parameter.copy_((2 * values).round() + 0.5 if tied else values)
    return model


def _nested_model() -> nn.Module:
    # square, and of more outputs than inputs: cut along the wrong side, both would fit
    inner = nn.ModuleDict({"up": nn.Linear(8, 12), "down": nn.Linear(12, 8)})
    model = nn.ModuleDict({"table": nn.Embedding(3, 8), "block": inner, "output": nn.Linear(8, 8)})
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            parameter.copy_(example(*parameter.shape, seed=60 + number))
    return model


def _judge_prune_2_of_4(answer) -> str | None:
    models = (_small_model(0), _small_model(20), _small_model(40, tied=True), _nested_model())
    for model in models:
        before = copy.deepcopy(model)
        answer(model)
        after = dict(model.named_modules())
        kinds = {
            name: None if isinstance(layer, nn.Embedding) else layer.in_features
            for name, layer in before.named_modules()
            if isinstance(layer, nn.Embedding | nn.Linear)
        }
        same = {n: after[n].weight.equal(before.get_submodule(n).weight) for n in kinds}
        due = [name for name, inputs in kinds.items() if inputs and inputs % 4 == 0]
        if all(same[name] for name in due):
            return "No weight changed: prune the model that is given, in place, not a copy of it."
        for name, inputs in kinds.items():
            if inputs is None and not same[name]:
                return "The embedding's rows are looked up, not multiplied: leave it."
            if name not in due and not same[name]:
                return f"Four does not divide the {inputs} inputs of layer {name!r}: leave such a layer."
        if problem := beside_weights(before, model):
            return problem
        for name in sorted(due, key=same.get):  # those that changed first
            if same[name]:
                return f"Layer {name!r} is as it was: each linear layer whose inputs four divides is meant, wherever it stands."
            if problem := _wrong_fours(before.get_submodule(name).weight, after[name].weight):
                return problem
    return None


def _wrong_fours(old: Tensor, new: Tensor) -> str | None:
    gone = new != old
    if (new[gone] != 0).any():
        return "Weights that stay keep their values, and those that go become zero."
    fours, sizes = gone.unflatten(1, (-1, 4)), old.abs().unflatten(1, (-1, 4))
    if (fours.sum(dim=2) == 2).all():
        if (
            sizes.masked_fill(~fours, 0).amax(2) <= sizes.masked_fill(fours, math.inf).amin(2)
        ).all():
            return None
        values = old.unflatten(1, (-1, 4))
        low = values.masked_fill(~fours, -math.inf).amax(2)
        if (low <= values.masked_fill(fours, math.inf).amin(2)).all():
            return "These are the lowest values: compare sizes, without the sign."
        return "Of each four the two smallest go."
    if len(old) % 4 == 0 and (gone.T.unflatten(1, (-1, 4)).sum(dim=2) == 2).all():
        return "The fours lie along the input, dimension 1 of the weight, not along the outputs."
    if 2 * int(gone.sum()) == gone.numel():
        return "Half of the weights went, but not two of every four neighbours in a row."
    return "Of every four neighbours in a row exactly two go."


@exercise(
    _judge_prune_2_of_4,
    "For which layers is it meant? `nn.Linear` whose `in_features` four divides.",
    "`pl.magnitude(model, names)`, `pl.select(..., 0.5, grain=pl.n_of_m(2, 4))`, `pl.apply`.",
)
def prune_2_of_4(model: nn.Module) -> None:
    names = [
        f"{name}.weight"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear) and layer.in_features % 4 == 0
    ]
    pl.apply(model, pl.select(pl.magnitude(model, names), 0.5, grain=pl.n_of_m(2, 4)))


def _judge_block_to_drop(answer) -> str | None:
    cases = (
        ([3.0, 2.0], [[3.5, 2.1], [3.1, 2.0], [2.9, 2.9]], [10, 90], 0.1, 1),
        ([2.0, 2.0, 2.0], [[2.4, 2.4, 2.4], [2.1, 2.3, 2.2]], [5, 5, 5], 0.1, -1),
        ([1.5, 4.0], [[1.5, 4.6], [1.9, 4.0]], [99, 1], 0.05, 0),
        ([1.0], [[1.3], [0.9], [1.2]], [7], 0.0, 1),
        ([2.5, 3.5], [[2.6, 3.6], [2.6, 3.6], [2.7, 3.7]], [3, 8], 0.2, 0),
        ([2.0], [[2.08], [2.02], [2.05]], [4], 0.1, 1),
        ([2.0], [[2.5], [2.25]], [4], 0.25, 1),
        ([4.0, 4.0], [[4.2, 4.2], [4.3, 4.3]], [2, 2], 0.1, -1),
    )
    for dense, without, tokens, limit, want in cases:
        got = number(answer(list(dense), copy.deepcopy(without), list(tokens), limit))
        if got is None or not math.isfinite(got) or got != int(got):
            return "Return the number of a block, from 0, or -1."
        if got == want:
            continue
        case = f"(dense {dense}, without {without}, tokens {tokens}, limit {limit})"
        costs = [np.average(w, weights=tokens) - np.average(dense, weights=tokens) for w in without]
        if got == block_to_drop.solve(dense, without, [1] * len(tokens), limit):
            return f"Weigh documents by their tokens. {case}"
        if want == -1:
            return (
                f"No block may go where the cheapest costs more than the limit: return -1. {case}"
            )
        if got == -1:
            return f"Block {want} costs {costs[want]:.3f}, the least, and the limit allows as much. {case}"
        within = [block for block, cost in enumerate(costs) if cost <= limit]
        if got == within[0]:
            return f"Block {within[0]} is within the limit, but block {want} costs less. {case}"
        if got == int(np.argmax(costs)):
            return f"That is the block that costs most. {case}"
        return f"Block {want} costs least; of equal ones the first. {case}"
    return None


@exercise(
    _judge_block_to_drop,
    "For each block: the mean over all tokens of its loss minus the dense one's, documents weighed by their tokens.",
    "`sum(loss * n for ...) / sum(tokens)`; then the smallest, if it is within the limit.",
)
def block_to_drop(
    dense: list[float], without: list[list[float]], tokens: list[int], limit: float
) -> int:
    def per_token(losses: list[float]) -> float:
        return sum(x * n for x, n in zip(losses, tokens, strict=True)) / sum(tokens)

    costs = [per_token(losses) - per_token(dense) for losses in without]
    best = costs.index(min(costs))
    return best if costs[best] <= limit else -1
