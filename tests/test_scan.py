"""The sensitivity scan, and that it leaves everything as found."""

import math

import pytest
import torch
from torch import nn

import pruninglib as pl


@pytest.fixture
def model():
    """With buffers, dropout, mixed modes, a frozen weight, a gradient and a negative zero."""
    model = nn.Sequential(
        nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 6), nn.Linear(6, 3)
    )
    model[3].weight = model[3].weight.requires_grad_(False)
    model[0].weight.grad = torch.ones(6, 4)
    with torch.no_grad():
        model[0].weight[0, 0] = -0.0
    model[1].eval()
    return model


def sum_of_sizes(model):
    return float(sum(p.detach().abs().sum() for p in model.parameters()))


def unruly(model):
    """Draws random numbers, flips modes, moves buffers, parameters and flags."""
    model.train()
    model(torch.randn(8, 4))
    model.requires_grad_(False)
    with torch.no_grad():
        model[4].weight.add_(1)
    return torch.rand(()).item()


def broken(model):
    unruly(model)
    if (model[3].weight == 0).any():
        raise KeyError("in the middle")
    return 1.0


def test_by_hand():
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -3.0], [4.0, 2.0]]))
    model = nn.Sequential(layer, nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[10.0, 20.0]]))
    found = pl.scan(model, sum_of_sizes, [1, 0.5])
    assert found == {
        "0.weight": {0.0: 40.0, 0.5: 37.0, 1: 30.0},
        "1.weight": {0.0: 40.0, 0.5: 30.0, 1: 10.0},
    }
    by_row = pl.scan(
        model, sum_of_sizes, [0.5], scores=pl.magnitude(model, ["0.weight"]), grain=pl.row
    )
    assert by_row == {"0.weight": {0.0: 40.0, 0.5: 36.0}}


@pytest.mark.parametrize("metric", [sum_of_sizes, unruly], ids=lambda f: f.__name__)
def test_leaves_everything_as_found(model, metric, as_found):
    with as_found(model):
        pl.scan(model, metric, [0.5, 0.9])


def test_leaves_everything_as_found_when_the_metric_raises(model, as_found):
    with as_found(model), pytest.raises(KeyError, match="in the middle"):
        pl.scan(model, broken, [0.5, 0.9])


def test_every_measurement_sees_the_same_random_numbers(model):
    found = pl.scan(model, lambda model: torch.rand(()).item(), [0.5, 0.9])
    assert len({value for values in found.values() for value in values.values()}) == 1


def test_only_one_layer_is_pruned_at_a_time(model):
    seen = []

    def metric(model):
        seen.append([int((w == 0).sum()) for w in pl.weights_of(model).values()])
        return 0.0

    pl.scan(model, metric, [0, 0.5])
    assert seen == [[1, 0, 0], [12, 0, 0], [1, 18, 0], [1, 0, 9]], "or measured more than needed"


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sparsities": [0.5, 1.5]}, r"sparsity is 1\.5"),
        ({"sparsities": [math.nan]}, "sparsity is nan"),
        ({"scores": {"nowhere": torch.ones(2)}}, "'nowhere' is no parameter of Sequential"),
        ({"scores": {"0.weight": torch.full((6, 4), math.nan)}}, "scores of 0.weight hold NaN"),
        ({"scores": {"0.weight": torch.ones(1, 4)}}, r"0\.weight .*\(1, 4\).*\(6, 4\)"),
        ({"scores": {}}, "names is empty"),
    ],
)
def test_bad_input_changes_nothing(model, options, message, as_found):
    with as_found(model), pytest.raises(ValueError, match=message):
        pl.scan(model, sum_of_sizes, **{"sparsities": [0.5]} | options)


def test_sparsities_are_checked_before_anything_is_measured(model):
    with pytest.raises(ValueError, match=r"sparsity is 1\.5"):
        pl.scan(model, lambda model: pytest.fail("measured"), [0.5, 1.5])


class MovingMean(nn.Module):
    """Puts a new tensor in its buffer's place at every call."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 2)
        self.register_buffer("mean", torch.zeros(2))

    def forward(self, x):
        self.mean = 0.9 * self.mean + x.mean(0)
        return self.linear(x)


def test_buffers_that_are_replaced_come_back(as_found):
    model = MovingMean()
    with as_found(model):
        pl.scan(model, lambda m: m(torch.ones(3, 2)).sum().item(), [0.5])
        pl.macs(model, torch.ones(3, 2))
