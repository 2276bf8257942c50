"""Exercises of lesson 11 Sentiment analysis. Each: the judge, then the solution it belongs to."""

import math

import torch
from torch import Tensor

from .exercise import example, exercise


def _judge_f1(answer) -> str | None:
    table = torch.tensor([[50, 10, 0], [20, 15, 5], [0, 0, 0]])
    if float(answer(torch.tensor([[5, 0], [5, 0]]), 1)) != 0:
        return "Class 1 is never predicted: precision is 0 / 0, and F1 counts as 0."
    got = float(answer(table, 0))
    precision, recall = 50 / 70, 50 / 60
    want = 2 * precision * recall / (precision + recall)
    if abs(got - want) < 1e-4:
        square = torch.tensor([[3, 1], [1, 3]])  # precision and recall alike
        never = torch.tensor([[3, 0], [0, 0]])
        cases = [(table, 1, 0.4615), (square, 0, 0.75), (square.flip(0), 1, 0.25), (table, 2, 0)]
        cases.append((never, 1, 0))
        for other, c, right in cases:
            if not abs(float(answer(other, c)) - right) < 1e-4:  # nor NaN
                where = f"For class {c} of {other.tolist()} F1 is {right}"
                return f"One case is right. {where}: use `c`, and let 0 / 0 count as 0."
        return None
    known = {
        precision: "That is precision: what is found, of all that was predicted as the class.",
        recall: "That is recall: what is found, of all that belong to the class.",
        65 / 100: "That is the accuracy: it does not ask about one class.",
        (precision + recall) / 2: "That is the ordinary mean. The harmonic one is lower.",
        want / 2: "A factor of 2 is missing: of two equal numbers the mean is that number.",
        precision * recall: "That is the product. Divide twice the product by the sum.",
    }
    return next(
        (say for value, say in known.items() if abs(got - value) < 1e-4),
        f"With 50 found of 60 that belong to the class, and 70 predicted, F1 is {want:.4f}, not {got:.4f}.",
    )


@exercise(
    _judge_f1,
    "Rows are true, columns predicted: `table[c].sum()` belong to the class, `table[:, c].sum()` were predicted.",
    "F1 is 2·found / (belonging + predicted): the same as 2PR / (P + R), without 0 / 0 when some belong.",
)
def f1_of(table: Tensor, c: int) -> float:
    found, together = table[c, c], table[c].sum() + table[:, c].sum()
    return float(2 * found / together) if together else 0.0


LAYERS = ("query", "key", "value", "output")


def _attend(state: dict[str, Tensor], x: Tensor, heads: int) -> Tensor:
    """Attention from weights and biases by name."""
    q, k, v = (
        (x @ state[f"{n}.weight"].T + state[f"{n}.bias"]).unflatten(1, (heads, -1)).transpose(0, 1)
        for n in LAYERS[:3]
    )
    mixed = (q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])).softmax(-1) @ v
    return mixed.transpose(0, 1).flatten(1) @ state["output.weight"].T + state["output.bias"]


def _judge_heads(answer) -> str | None:
    for channels, heads, keep in ((8, 2, [1]), (12, 4, [0, 3]), (6, 3, [0, 1, 2]), (6, 6, [2, 4])):
        each, kept = channels // heads, channels // heads * len(keep)
        state = {}
        for i, name in enumerate(LAYERS):
            state[f"{name}.weight"] = example(channels, channels, seed=channels + i)
            state[f"{name}.bias"] = example(channels, seed=channels + 9 + i)
        given = {name: value.clone() for name, value in state.items()}
        got = answer(given, heads, keep)
        if not isinstance(got, dict) or got.keys() != state.keys():
            return f"Return a dict with the same names: {', '.join(state)}."
        if any(not given[name].equal(value) for name, value in state.items()):
            return "You changed the weights that were given. Make smaller ones and leave those."
        got = {name: torch.as_tensor(value).float() for name, value in got.items()}
        case = f"Of {heads} heads on {channels} channels, with {keep} kept, "
        shapes = {f"{name}.weight": (kept, channels) for name in LAYERS[:3]}
        shapes |= {f"{name}.bias": (kept,) for name in LAYERS[:3]}
        shapes |= {"output.weight": (channels, kept), "output.bias": (channels,)}
        for name, shape in shapes.items():
            if tuple(got[name].shape) == shape:
                continue
            why = f"it is {tuple(got[name].shape)}, but must be {shape}."
            if name == "output.weight":
                why += " The output *reads* the heads: they are its columns, not its rows."
            elif name == "output.bias":
                why += " It belongs to no head: it stays."
            elif got[name].numel() == state[name].numel():
                why += " Zeros are still multiplied: cut them out."
            return f"{case}look at {name}: {why}"
        x, masked = example(5, channels, seed=1), dict(state)
        gone = [h * each + i for h in range(heads) if h not in keep for i in range(each)]
        masked["output.weight"] = state["output.weight"].clone()
        masked["output.weight"][:, gone] = 0
        if not torch.allclose(_attend(got, x, len(keep)), _attend(masked, x, heads), atol=1e-4):
            return (
                f"{case}the shapes are right, but the outputs differ from those of the same layer "
                f"masked. Head h owns the {each} rows from {each}·h on, and the same columns of the output."
            )
        stays = state["key.bias"].view(heads, -1)[keep].flatten()
        if not torch.allclose(got["key.bias"].sort()[0], stays.sort()[0]):  # softmax cancels it
            return (
                f"{case}key.bias has the right shape and the wrong values: each head keeps its own."
            )
    return None


@exercise(
    _judge_heads,
    "A head owns `channels // heads` rows of query, key and value, one after the other, with their biases.",
    "It owns as many *columns* of the output's weight. The output's bias it does not own.",
    "Make the list of all kept rows once; `weight[rows]` takes rows, `weight[:, rows]` columns.",
)
def without_heads(state: dict[str, Tensor], heads: int, keep: list[int]) -> dict[str, Tensor]:
    each = len(state["query.weight"]) // heads
    rows = [h * each + i for h in keep for i in range(each)]
    small = {name: value[rows] for name, value in state.items()}
    small["output.weight"] = state["output.weight"][:, rows]
    small["output.bias"] = state["output.bias"]
    return small


def _judge_leave(answer) -> str | None:
    limits = {"all": 0.02, "plain": 0.05, "negation": 0.05, "rare": 0.10}
    fine = {
        "all": (0.01, 0.00, 0.02),
        "plain": (-0.01, -0.02, 0.00),
        "negation": (0.03, 0.01, 0.05),
        "rare": (0.06, 0.03, 0.09),
    }
    uneven = fine | {"negation": (0.04, 0.02, 0.06), "rare": (0.02, -0.12, 0.16)}
    headline = fine | {"all": (0.03, 0.02, 0.04), "rare": (0.08, 0.05, 0.11)}
    alike = {"b": (0.5, 0.25, 0.75), "a": (0.0, -0.75, 0.75), "c": (0.25, 0.0, 0.5)}
    cases = [  # costs, limits, who stands in the way
        (fine, limits, []),
        (uneven, limits, ["rare", "negation"]),
        (headline, limits, ["all", "rare"]),
        (alike, dict.fromkeys(alike, 0.5), ["b", "a"]),
        ({"c": (-0.3, -0.4, -0.2)}, {"c": 0.0}, []),
        ({"a": (0.0, 0.0, 0.03), "b": (0.0, 0.0, 0.5)}, {"b": 0.4, "a": 0.01}, ["b", "a"]),
    ]
    for costs, allowed, want in cases:
        got = answer(dict(costs), dict(allowed))
        if isinstance(got, str | bool) or not hasattr(got, "__iter__"):
            return f"Return a list of names, empty if the network may leave; not {got!r}."
        got = [str(name) for name in got]
        if got == want:
            continue
        if unknown := set(got) - set(costs):
            return f"{min(unknown)!r} is no slice: return the names of the slices."
        if sorted(got) == sorted(want):
            ahead = costs[want[0]][2] - allowed[want[0]]
            return (
                f"Those are the slices, but {want[0]!r} comes first: its high end is {ahead:.2f} over its own "
                "limit. Of two as far over, the one given first comes first."
            )
        for name in costs:
            mean, low, high = costs[name]
            if (name in got) == (name in want):
                continue
            said = f"{name!r} costs {mean:.2f} ({low:.2f} to {high:.2f}), and its limit is {allowed[name]:.2f}: "
            if name in want:
                part = "the interval reaches beyond it. Ask `high`, of every slice."
                return said + part
            reached = "a cost that reaches the limit exactly stays within it."
            return said + (reached if high == allowed[name] else "even the high end is within.")
    return None


@exercise(
    _judge_leave,
    "A slice stands in the way if its `high`, entry 2, is above `limits` of its name.",
    "`sorted(names, key=...)` puts the lowest first: sort by the limit less the high end.",
)
def may_leave(costs: dict[str, tuple], limits: dict[str, float]) -> list[str]:
    over = {name: high - limits[name] for name, (_, _, high) in costs.items()}
    return sorted((name for name in over if over[name] > 0), key=lambda name: -over[name])
