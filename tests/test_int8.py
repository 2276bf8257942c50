"""Weights of 255 levels or fewer, and the bytes of a file of them."""

import copy

import pytest
import torch
from torch import nn

import pruninglib as pl


def network(layer: nn.Module, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    for parameter in layer.parameters():
        nn.init.normal_(parameter)
    return nn.Sequential(layer, nn.ReLU())


@pytest.mark.parametrize(
    ("layer", "outputs"),
    [
        (nn.Linear(6, 4), 0),
        (nn.Conv2d(4, 6, 3, groups=2), 0),
        (nn.ConvTranspose2d(4, 6, 3), 1),
        (nn.Embedding(5, 7), 0),
    ],
)
def test_each_output_has_its_own_levels(layer, outputs):
    model = network(layer)
    before = copy.deepcopy(model.state_dict())
    made = pl.int8(model)
    old, new = model[0].weight.detach(), made[0].weight.detach()
    largest = old.abs().transpose(0, outputs).flatten(1).amax(dim=1)
    shape = [-1 if i == outputs else 1 for i in range(old.dim())]
    levels = new / (largest / 127).view(shape)
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.abs().max().round() == 127 and (new - old).abs().max() > 0
    assert ((new - old).abs() <= (largest / 254).view(shape) + 1e-6).all()
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    if hasattr(layer, "bias"):
        assert made[0].bias.equal(model[0].bias)


@pytest.mark.parametrize("bits", [2, 4, 7])
def test_fewer_bits_have_fewer_levels(bits):
    model = network(nn.Linear(1001, 2))
    model[0].weight.data = torch.stack([torch.linspace(-size, size, 1001) for size in (1, 3)])
    new, highest = pl.quantised(model, bits)[0].weight.detach(), 2 ** (bits - 1) - 1
    levels = new * highest / torch.tensor([[1.0], [3.0]])
    assert torch.allclose(levels, levels.round(), atol=1e-3)
    assert levels.round().unique().tolist() == [*range(-highest, highest + 1)]
    assert pl.quantised(model, 8)[0].weight.equal(pl.int8(model)[0].weight)


@pytest.mark.parametrize("bits", [1, 9, 4.5])
def test_bits_are_two_to_eight(bits):
    with pytest.raises(
        ValueError, match=rf"bits is {bits}, but must be a whole number from 2 to 8"
    ):
        pl.quantised(network(nn.Linear(6, 4)), bits)


def test_a_grouped_transposed_convolution_has_outputs_in_each_group():
    model = network(nn.ConvTranspose1d(4, 6, 2, groups=2))
    old = model[0].weight.detach()  # (4, 3, 2): inputs 0 and 1 go to outputs 0 to 2
    new = pl.int8(model)[0].weight.detach()
    step = old[:2, 0].abs().max() / 127
    assert torch.allclose(new[:2, 0], (old[:2, 0] / step).round() * step, atol=1e-6)


def test_zeros_stay_and_a_layer_of_zeros_too():
    model = network(nn.Linear(6, 4))
    pl.apply(model, pl.select(pl.magnitude(model), 0.5))
    with torch.no_grad():
        model[0].weight[1] = 0
    made = pl.int8(model)[0].weight
    assert ((model[0].weight == 0) <= (made == 0)).all() and made.isfinite().all()


def test_other_types_keep_theirs():
    model = network(nn.Linear(6, 4)).to(torch.bfloat16)
    assert pl.int8(model)[0].weight.dtype == torch.bfloat16


def test_bytes_by_hand():
    model = nn.Sequential(nn.Linear(10, 8), nn.BatchNorm1d(8))  # 80 weights; 8, and 4·8 + 1 beside
    rest = 4 * (8 + 33)
    assert pl.stored_bytes(model) == 4 * 80 + rest
    assert pl.stored_bytes(model, 1) == 80 + rest + 4 * 8
    assert pl.stored_bytes(model, 3 / 8) == 30 + rest + 4 * 8
    pl.apply(model, pl.select(pl.magnitude(model), 0.75))
    assert pl.stored_bytes(model, 0.5) == 10 + 10 + rest + 4 * 8
    assert pl.stored_bytes(model) == 4 * 20 + 10 + rest
    assert pl.stored_bytes(model, 1) == 20 + 10 + rest + 4 * 8
    with torch.no_grad():
        model[0].weight.fill_(1)
        model[0].weight[0, 0] = 0  # too few zeros: the bits would cost more
    assert pl.stored_bytes(model, 1) == 80 + rest + 4 * 8
