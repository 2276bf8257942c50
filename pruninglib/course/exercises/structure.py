"""Exercises of lesson 05 Structure and speed. Each: the judge, then the solution it belongs to."""

import torch
from torch import Tensor, nn

from .exercise import example, exercise


def _judge_two_of_four(answer) -> str | None:
    tied = torch.tensor([[1.0, 1, 1, 1, 0, 0, 0, 2]])
    for scores in (example(6, 8).abs(), tied, torch.zeros(2, 12)):
        got = answer(scores)
        if not isinstance(got, Tensor) or got.shape != scores.shape or got.dtype != torch.bool:
            return f"Return a bool tensor of the scores' shape, {tuple(scores.shape)}."
        groups, values = got.view(-1, 4), scores.view(-1, 4)
        if (groups.sum(dim=1) != 2).any():
            if 2 * int(got.sum()) == got.numel():
                return (
                    "Half are kept, but not two in every four: rank inside each group of "
                    "neighbours in a row."
                )
            return "Ties: a threshold keeps too many or too few. Take two positions of each group."
        lowest_kept = values.masked_fill(~groups, torch.inf).amin(dim=1)
        if (lowest_kept < values.masked_fill(groups, -torch.inf).amax(dim=1)).any():
            worst = values.masked_fill(~groups, -torch.inf).amax(dim=1)
            if (worst <= values.masked_fill(groups, torch.inf).amin(dim=1)).all():
                return "It is the wrong way round: True means kept, and the highest are kept."
            return (
                "Two of every four are kept, but not the highest two of four neighbours in a row."
            )
    return None


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
    conv1, norm, conv2 = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
    tensors = {
        f"{layer}.{name}": tensor
        for layer, module in (("conv1", conv1), ("norm", norm), ("conv2", conv2))
        for name, tensor in module.state_dict(keep_vars=True).items()
        if name != "num_batches_tracked"
    }
    for i, tensor in enumerate(tensors.values()):
        tensor.data = example(*tensor.shape, seed=i)
    before = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    keep = torch.tensor([True, False, True, True])
    got = answer(conv1, norm, conv2, keep)
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
        if not isinstance(got[name], Tensor):
            return f"{name} must be a tensor."
        if name == "conv2.weight" and got[name].equal(old[keep]):
            return "conv2 *reads* the channels: they are dimension 1 of its weight."
        if got[name].equal(other):
            return "It is the wrong way round: True means kept."
        if got[name].shape == old.shape:
            return f"{name} has still the shape {tuple(old.shape)}: remove, don't zero."
        if not got[name].equal(want):
            return f"{name} should have shape {tuple(want.shape)} and hold the kept channels; yours has {tuple(got[name].shape)}."
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
    before = torch.tensor([8.0, 9.0, 40.0, 8.4, 10.0])  # the third round was disturbed
    after = torch.tensor([4.0, 3.0, 4.0, 4.2, 4.0])
    pairs = (before / after).median()
    got = answer(400, 100, before, after)
    if not isinstance(got, tuple | list) or len(got) != 3:
        return "Return three numbers: ideal, real, share of the ideal gain."
    ideal, real, share = map(float, got)
    if abs(ideal - 0.25) < 1e-6:
        return "The ideal is the wrong way round: a speed-up is before / after."
    if abs(ideal - 4) > 1e-6:
        return f"From 400 to 100 MACs the ideal speed-up is 4, not {ideal:g}."
    if abs(real - (after / before).median()) < 1e-6:
        return "The real one is the wrong way round: a speed-up is before / after."
    if abs(real - (before / after).mean()) < 1e-4:
        return "You took the mean over the pairs. One disturbed round moves it; take the median."
    if (
        abs(real - before.median() / after.median()) < 1e-4
        or abs(real - before.mean() / after.mean()) < 1e-4
    ):
        return "Divide first, pair by pair: what disturbs a round disturbs both of its timings."
    if abs(real - pairs) > 1e-4:
        return f"The real speed-up of these timings is {pairs:g}, not {real:g}."
    if abs(share - real / ideal) < 1e-4:
        return (
            "That is real / ideal. It gives a share even to what is no faster. Count from 1: how far "
            "above 1 is the real, how far the ideal?"
        )
    if abs(share - (real - 1) / (ideal - 1)) > 1e-4:
        return f"Of a gain of 3 above 1 the real one reached {(real - 1) / 3:.3f}, not {share:g}."
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
