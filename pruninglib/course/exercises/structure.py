"""Exercises of lesson 05 Structure and speed. Each: the judge, then the solution it belongs to."""

import numpy as np
import torch
from torch import Tensor, nn

from .exercise import example, exercise


def _judge_two_of_four(answer) -> str | None:
    tied = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 2]])
    signed = torch.tensor([[-5.0, 1, -1, 0.5], [-3, -2, -4, -1], [0.2, -9, 0.1, 3]])
    for scores in (example(6, 8).abs(), tied, signed, torch.zeros(2, 12), example(4, 4, seed=1)):
        got = answer(scores.clone())
        if isinstance(got, list | tuple | np.ndarray):
            got = torch.as_tensor(got)
        if not isinstance(got, Tensor) or got.shape != scores.shape or got.dtype != torch.bool:
            return f"Return a bool tensor of the scores' shape, {tuple(scores.shape)}."
        groups, values = got.reshape(-1, 4), scores.reshape(-1, 4)
        if (groups.sum(dim=1) != 2).any():
            if 2 * int(got.sum()) == got.numel():
                return (
                    "Half are kept, but not two in every four: rank inside each group of "
                    "neighbours in a row."
                )
            return "Ties: a threshold keeps too many or too few. Take two positions of each group."
        if (_lowest(values, groups) >= _highest(values, ~groups)).all():
            continue
        if (_lowest(values.abs(), groups) >= _highest(values.abs(), ~groups)).all():
            return "A score of -5 is lower than one of 1: they are scores already, so take no absolute value."
        if (_highest(values, groups) <= _lowest(values, ~groups)).all():
            return "It is the wrong way round: True means kept, and the highest are kept."
        return "Two of every four are kept, but not the highest two of four neighbours in a row."
    return None


def _lowest(values: Tensor, where: Tensor) -> Tensor:
    return values.masked_fill(~where, torch.inf).amin(dim=1)


def _highest(values: Tensor, where: Tensor) -> Tensor:
    return values.masked_fill(~where, -torch.inf).amax(dim=1)


@exercise(
    _judge_two_of_four,
    "Lay the scores out in rows of four: `scores.reshape(-1, 4)`.",
    "`topk(2, dim=1).indices` gives two positions of each group; `scatter_` writes True there.",
)
def two_of_four(scores: Tensor) -> Tensor:
    groups = scores.reshape(-1, 4)
    mask = torch.zeros_like(groups, dtype=torch.bool)
    mask.scatter_(1, groups.topk(2, dim=1).indices, True)
    return mask.view(scores.shape)


def _judge_chain(answer) -> str | None:
    cases = [
        (2, 4, 3, [True, False, True, True]),
        (3, 5, 1, [False, True, True, False, False]),
        (1, 3, 2, [False, False, True]),
    ]
    return next((said for case in cases if (said := _wrong_in_chain(answer, *case))), None)


def _wrong_in_chain(answer, inputs: int, channels: int, size: int, keep: list[bool]) -> str | None:
    conv1, norm = nn.Conv2d(inputs, channels, size), nn.BatchNorm2d(channels)
    conv2 = nn.Conv2d(channels, channels, size)
    tensors = {
        f"{layer}.{name}": tensor
        for layer, module in (("conv1", conv1), ("norm", norm), ("conv2", conv2))
        for name, tensor in module.state_dict(keep_vars=True).items()
        if name != "num_batches_tracked"
    }
    for i, tensor in enumerate(tensors.values()):
        tensor.data = example(*tensor.shape, seed=i)
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    keep = torch.tensor(keep)
    got = answer(conv1, norm, conv2, keep.clone())
    if any(t.shape != before[n].shape or not t.equal(before[n]) for n, t in tensors.items()):
        return "Your function changed the layers it was given. Return new tensors."
    if not isinstance(got, dict):
        return "Return a dict from name to tensor."
    if "conv2.bias" in got:
        return "conv2.bias belongs to what conv2 makes, and conv2 loses no output: leave it out."
    names = [name for name in tensors if name != "conv2.bias"]
    if missing := [name for name in names if name not in got]:
        return f"{', '.join(missing)} must change, too: a channel takes all along that makes it or reads it."
    if extra := [str(name) for name in got if name not in names]:
        return f"Nobody asked for {', '.join(extra)}."
    for name in names:
        old = before[name]
        want, other = (old[:, k] if name == "conv2.weight" else old[k] for k in (keep, ~keep))
        if not isinstance(got[name], Tensor | np.ndarray | list | tuple):
            return f"{name} must be a tensor."
        has = torch.as_tensor(got[name])
        if name == "conv2.weight" and has.equal(old[keep]):
            return "conv2 *reads* the channels: they are dimension 1 of its weight."
        if has.equal(other):
            return "It is the wrong way round: True means kept."
        if has.shape == old.shape:
            return f"{name} has still the shape {tuple(old.shape)}: remove, don't zero."
        if not has.equal(want):
            return (
                f"With `keep` {keep.tolist()} {name} should have shape {tuple(want.shape)} and hold "
                f"the kept channels in their order; yours has {tuple(has.shape)}."
            )
    return None


@exercise(
    _judge_chain,
    "What makes a channel lies in dimension 0: of conv1's weight and bias, and of all four vectors of the norm.",
    "`tensor[keep]` takes from dimension 0, `tensor[:, keep]` from dimension 1: conv2 reads channels there.",
)
def chain_without(
    conv1: nn.Conv2d, norm: nn.BatchNorm2d, conv2: nn.Conv2d, keep: Tensor
) -> dict[str, Tensor]:
    return {
        "conv1.weight": conv1.weight[keep],
        "conv1.bias": conv1.bias[keep],
        "norm.weight": norm.weight[keep],
        "norm.bias": norm.bias[keep],
        "norm.running_mean": norm.running_mean[keep],
        "norm.running_var": norm.running_var[keep],
        "conv2.weight": conv2.weight[:, keep],
    }


def _judge_speed_ups(answer) -> str | None:
    cases = [  # the third round of the first was disturbed; in the last, less is slower
        (400, 100, [8.0, 9.0, 40.0, 8.4, 10.0], [4.0, 3.0, 4.0, 4.2, 4.0]),
        (9_000, 1_500, [6.0, 6.6, 12.0], [2.0, 2.0, 5.0]),
        (500, 250, [1.0, 1.2, 1.1, 3.0, 1.0, 1.3, 1.0], [1.25, 1.2, 1.1, 2.0, 2.0, 2.6, 4.0]),
    ]
    return next((said for case in cases if (said := _wrong_speed_ups(answer, *case))), None)


def _wrong_speed_ups(answer, macs_before: int, macs_after: int, slow: list, fast: list):
    before, after = torch.tensor(slow), torch.tensor(fast)
    given = f"{macs_before:,} to {macs_after:,} MACs"
    best, pairs = macs_before / macs_after, float((before / after).median())
    got = answer(macs_before, macs_after, before.clone(), after.clone())
    if not isinstance(got, tuple | list | np.ndarray | Tensor) or np.shape(got) != (3,):
        return "Return three numbers: ideal, real, share of the ideal gain."
    ideal, real, share = map(float, got)
    if abs(ideal - best) > 1e-5:
        if abs(ideal - 1 / best) < 1e-5:
            return "The ideal is the wrong way round: a speed-up is before / after."
        return f"From {given} the ideal speed-up is {best:g}, not {ideal:g}."
    if abs(real - pairs) > 1e-4:
        others = {
            1 / pairs: "The real one is the wrong way round: a speed-up is before / after.",
            float(
                (after / before).median()
            ): "The real one is the wrong way round: a speed-up is before / after.",
            float(
                (before / after).mean()
            ): "You took the mean over the pairs. One disturbed round moves it; take the median.",
            float(
                (before / after).max()
            ): "That is the best of the pairs. One lucky round makes it; take the median.",
        }
        apart = "Divide first, pair by pair: what disturbs a round disturbs both of its timings."
        others[float(before.median() / after.median())] = apart
        others[float(before.mean() / after.mean())] = apart
        for value, says in others.items():
            if abs(real - value) < 1e-4:
                return says
        return f"From {slow} to {fast} seconds the real speed-up is {pairs:g}, not {real:g}."
    reached = (real - 1) / (ideal - 1)
    if abs(share - reached) > 1e-4:
        if abs(share - real / ideal) < 1e-4:
            return (
                "That is real / ideal. It gives a share even to what is no faster. Count from 1: how "
                "far above 1 is the real, how far the ideal?"
            )
        if reached < 0 and abs(share) < 1e-6:
            return "Here the clock got slower: then the share is below 0. Don't cut it off."
        return (
            f"Of a gain of {ideal - 1:g} above 1 the real one reached {reached:.3f}, not {share:g}."
        )
    return None


@exercise(
    _judge_speed_ups,
    "A speed-up is before / after, for MACs as for seconds. Divide pair by pair, then take the median.",
    "The gain is what lies above 1: `(real - 1) / (ideal - 1)`.",
)
def speed_ups(
    macs_before: int, macs_after: int, seconds_before: Tensor, seconds_after: Tensor
) -> tuple[float, float, float]:
    ideal = macs_before / macs_after
    real = float((seconds_before / seconds_after).median())
    return ideal, real, (real - 1) / (ideal - 1)
