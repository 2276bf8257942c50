"""The cost of training: equal to torch's flop counter, and to counts made by hand."""

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import pruninglib as pl

CONVOLUTIONS = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1, stride=2),
    nn.ReLU(),
    nn.Conv2d(8, 8, 3),
    nn.ConvTranspose2d(8, 4, 3, stride=2),
    nn.Flatten(),
    nn.Linear(4 * 5 * 5, 10),
)


def step(model, inputs, optimizer):
    optimizer.zero_grad()
    model(inputs).square().mean().backward()
    optimizer.step()


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Sequential(nn.Linear(7, 5), nn.ReLU(), nn.Linear(5, 3)), torch.ones(11, 7)),
        (nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3)), torch.ones(2, 4, 7)),
        (CONVOLUTIONS, torch.ones(2, 3, 8, 8)),
    ],
    ids=["mlp", "positions", "convolutions"],
)
def test_macs_are_those_of_the_flop_counter(model, inputs):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pl.training_cost() as cost, FlopCounterMode(display=False) as counter:
        step(model, inputs, optimizer)
        step(model, inputs, optimizer)
    assert cost.steps == 2
    assert cost.macs == cost.ideal == counter.get_total_flops() // 2


def test_a_group_sees_its_own_channels_only():
    """By hand: torch's counter takes the weight's gradient for that of a whole convolution."""
    model = nn.Sequential(nn.Conv2d(8, 4, 3, groups=2))
    with pl.training_cost() as cost:
        model(torch.ones(5, 8, 6, 6))
    assert cost.macs == 2 * (5 * 4 * 4 * 4) * (4 * 3 * 3)  # twice: outputs times weights of each


def test_a_mask_saves_only_ideally(model):
    masks = {"0.weight": torch.zeros(6, 4, dtype=torch.bool)}
    masks["0.weight"].view(-1)[:5] = True
    optimizer = torch.optim.AdamW(model.parameters())
    with pl.keep(model, masks, optimizer), pl.training_cost() as cost:
        step(model, torch.ones(10, 4), optimizer)
    # forward and weight for both layers, input for the second alone
    assert cost.macs == 10 * (2 * 24 + 3 * 18)
    assert cost.ideal == 10 * (2 * 5 + 3 * 18)


def test_what_needs_no_gradient_has_only_its_forward_pass(model):
    with pl.training_cost() as cost, torch.no_grad():
        model(torch.ones(10, 4))
    assert (cost.steps, cost.macs) == (0, 10 * (24 + 18))
    model[0].requires_grad_(False)
    with pl.training_cost() as cost:
        model(torch.ones(10, 4))
    assert cost.macs == 10 * (24 + 2 * 18)  # a frozen layer below: no gradient goes there


def test_counting_ends_with_its_block(model):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="boom"), pl.training_cost() as cost:
        raise RuntimeError("boom")
    step(model, torch.ones(10, 4), optimizer)
    assert (cost.steps, cost.macs, cost.ideal) == (0, 0, 0)
    with pl.training_cost() as outer:
        step(model, torch.ones(10, 4), optimizer)
        with pl.training_cost() as inner:
            step(model, torch.ones(10, 4), optimizer)
    assert (outer.steps, outer.macs) == (2, 2 * inner.macs)
