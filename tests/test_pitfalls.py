"""What goes wrong in pruning code, one fault at a time: each test fails on the fault it names."""

import copy
import math

import pytest
import torch
from test_masks import OPTIMIZERS, no_hooks, revived, steps
from torch import nn
from torch.func import functional_call
from torch.nn.utils import clip_grad_norm_, clip_grad_value_
from torch.optim.swa_utils import AveragedModel

import pruninglib as pl


def linear(weights, dtype=torch.float32):
    """A layer without bias of the given rows of weights."""
    weights = torch.tensor(weights, dtype=dtype)
    layer = nn.Linear(weights.shape[1], weights.shape[0], bias=False, dtype=dtype)
    layer.weight.detach().copy_(weights)
    return layer


def output_mean(model, batch):
    """A loss whose gradient with respect to a Linear layer's weights is the mean input."""
    return model(batch).mean()


def half(model, seed=1):
    return pl.select(pl.random(model, seed=seed), 0.5)


def without_channels(model, example, sparsity=0.5):
    """The model with channels masked, and a smaller one without them."""
    groups = pl.coupled(model, example)
    kept = pl.select(pl.pool(pl.magnitude(model), groups), sparsity, budget=pl.uniform)
    masked, masks = copy.deepcopy(model), pl.spread(kept, groups)
    pl.apply(masked, masks)
    return masked, pl.shrink(model, masks, example)


# ---- selection ----


def test_01_ties():
    """Cutting at a threshold prunes all that equal it: 70 zeros where 50 weights were asked."""
    scores = torch.cat([torch.zeros(70), torch.ones(30)])
    mask = pl.select({"a": scores}, 0.5)["a"]
    assert mask.tolist() == [False] * 50 + [True] * 50
    # across layers: by name
    masks = pl.select({"b": torch.zeros(4), "a": torch.zeros(2, 2)}, 5 / 8)
    assert not masks["a"].any() and masks["b"].tolist() == [False, True, True, True]


@pytest.mark.parametrize(
    "count, sparsity, pruned", [(10, 0.5, 5), (7, 0, 0), (4, 1, 4), (3, 0.4, 1)]
)
def test_02_off_by_one(count, sparsity, pruned):
    """The k-th sorted score, counted from 0 and pruned along, is one weight too many."""
    mask = pl.select({"a": torch.arange(float(count))}, sparsity)["a"]
    assert mask.tolist() == [False] * pruned + [True] * (count - pruned)


@pytest.mark.parametrize("count, sparsity, pruned", [(100, 0.29, 29), (1000, 1 - 0.1, 900),
                                                     (1000, 0.9, 900), (50, 0.58, 29)])  # fmt: skip
@pytest.mark.parametrize("grain", [pl.element, pl.in_rows], ids=lambda g: g.name)
def test_03_rounding(count, sparsity, pruned, grain):
    """int() cuts off what floats lack: 29 % of 100 come to 28."""
    mask = pl.select({"a": torch.arange(float(count))[None]}, sparsity, grain=grain)["a"]
    assert int((~mask).sum()) == pruned


def test_04_sparsity_compounds(model):
    """Half of what is left, pruned a second time, makes three quarters of the original."""
    first = half(model)
    pl.apply(model, first)
    again = pl.select(pl.magnitude(model), 0.5)
    assert all(again[n].equal(first[n]) for n in first) and pl.sparsity(model).prunable == 0.5
    # with other scores, only `within` knows what is gone
    within = pl.select(pl.random(model, seed=1), 0.5, within=first)
    assert all(within[n].equal(first[n]) for n in first)


@pytest.mark.parametrize("budget", [pl.global_budget, pl.uniform, pl.erk])
def test_05_scores_made_absolute(budget):
    """Scores are not weights: the lowest goes, and -5 is lower than 1."""
    for grain in (pl.element, pl.row, pl.block(1, 1)):
        scores = {"a": torch.tensor([[-5.0], [1.0]])}
        assert pl.select(scores, 0.5, grain=grain, budget=budget)["a"].tolist() == [[False], [True]]
    assert pl.select({"a": torch.tensor([[-5.0, 1.0]])}, 0.5, grain=pl.in_rows)["a"].tolist() == [
        [False, True]
    ]


def test_06_per_row_counts_drift():
    """Whole weights per row add up to another sparsity than asked; it is told, and not cut off."""
    layer = nn.Linear(784, 20)
    masks = pl.select(pl.magnitude(layer), 0.95, grain=pl.in_rows)
    pl.apply(layer, masks)
    assert (~masks["weight"]).sum(1).tolist() == [745] * 20  # int() makes 744 of 744.8
    assert pl.sparsity(layer).prunable == 745 / 784 != 0.95
    masks = pl.select(pl.magnitude(layer), 0.95)
    assert int((~masks["weight"]).sum()) == 0.95 * 784 * 20


def test_07_a_shuffle_that_shuffles_nothing():
    """A control left in order, or with the same order in every layer, controls nothing."""
    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    in_order = torch.arange(64).view(8, 8) >= 32
    masks = [
        pl.select(pl.random(model, seed=seed), 0.5, budget=pl.uniform)[name]
        for seed in (0, 1)
        for name in ("0.weight", "1.weight")
    ]
    for i, mask in enumerate(masks):
        assert int(mask.sum()) == 32 and (mask != in_order).any()
        assert all((mask != other).any() for other in masks[:i])
    ordered = {"a": in_order, "b": in_order, "c": in_order[:4]}
    moved = pl.shuffled(ordered, 0)
    for name, mask in ordered.items():
        assert moved[name].shape == mask.shape and moved[name].sum() == mask.sum()
    assert (moved["a"] != in_order).any() and (moved["a"] != moved["b"]).any()
    assert (moved["a"] != pl.shuffled(ordered, 1)["a"]).any()
    assert in_order.equal(torch.arange(64).view(8, 8) >= 32)


@pytest.mark.parametrize("shape", [(3, 8), (3, 8, 2, 2)], ids=["linear", "convolution"])
def test_08_groups_of_n_of_m(shape):
    """n of m inputs of one output stay, not n at most, nor of m outputs or places of a filter."""
    for scores in (torch.zeros(shape), torch.ones(shape), torch.randn(shape).round()):
        mask = pl.select({"a": scores}, 0.5, grain=pl.n_of_m(2, 4))["a"]
        assert (mask.unflatten(1, (-1, 4)).sum(2) == 2).all()
        assert (scores[~mask].sum() <= scores[mask].sum()).all()
    rising = torch.arange(8.0).view(1, 8, *[1] * (len(shape) - 2)).expand(shape)
    mask = pl.select({"a": rising}, 0.5, grain=pl.n_of_m(2, 4))["a"]
    assert mask.equal((rising % 4 >= 2).expand(shape))
    with pytest.raises(ValueError, match="a: m = 3 does not divide the input dimension of"):
        pl.select({"a": rising}, 1 / 3, grain=pl.n_of_m(2, 3))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_09_scores_and_weights_that_are_not_finite(value):
    """NaN compares false with every threshold, and NaN or -1 times zero is not zero."""
    with pytest.raises(ValueError, match=r"scores of bad\.weight hold NaN or infinity"):
        pl.select({"good": torch.ones(4), "bad.weight": torch.tensor([1, value])}, 0.5)
    layer = linear([[value, -3.0, -4.0]])
    pl.apply(layer, {"weight": torch.tensor([[False, False, True]])})
    assert layer.weight.tolist() == [[0, 0, -4]] and layer.weight.signbit().sum() == 1


def test_10_counts_in_half_precision():
    """float16 knows no number above 65,504, and no odd one above 2,048."""
    scores = {"a": torch.zeros(300, 300, dtype=torch.float16)}
    mask = pl.select(scores, 0.8)["a"]
    assert int((~mask).sum()) == 72_000
    layer = nn.Linear(300, 300).half()
    pl.apply(layer, {"weight": mask})
    found = pl.sparsity(layer)
    assert found.prunable == 0.8
    assert found.all == (72_000 + int((layer.bias == 0).sum())) / 90_300


def test_11_scores_shifted_layer_by_layer():
    """A global ranking of scores less their layer's minimum is no global ranking."""
    scores = {"a": torch.tensor([10.0, 11.0]), "b": torch.tensor([1.0, 2.0])}
    for layers in (scores, dict(reversed(scores.items()))):
        masks = pl.select(layers, 0.5)
        assert masks["a"].tolist() == [True, True] and masks["b"].tolist() == [False, False]


# ---- training ----


@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_12_gradient_masks_alone(name, warm, model, loss, batches):
    """Momentum, running averages and decay move a weight whose gradient is zero."""
    masks, optimizer = half(model), OPTIMIZERS[name](model.parameters())
    if warm:
        steps(model, loss, batches, optimizer)
    before = {n: w.detach().clone() for n, w in pl.weights_of(model).items()}

    def still_pruned():
        assert revived(model, masks) == 0

    with pl.keep(model, masks, optimizer):
        still_pruned()
        steps(model, loss, batches * 2, optimizer, after=still_pruned)
        assert all((w != before[n])[masks[n]].any() for n, w in pl.weights_of(model).items())
    for n, w in pl.weights_of(model).items():
        assert not w[~masks[n]].signbit().any(), "left a negative zero"
    assert no_hooks(model, optimizer)
    hooks = [w.register_hook(lambda g, m=masks[n]: g * m) for n, w in pl.weights_of(model).items()]
    steps(model, loss, batches[:1], optimizer)
    assert (revived(model, masks) > 0) == (warm and name != "SGD"), "the fault that `keep` is for"
    for hook in hooks:
        hook.remove()
    steps(model, loss, batches, optimizer)
    assert revived(model, masks) > 0, "nothing moves them, so nothing was shown"


def test_13_clipping_sees_pruned_gradients(model, loss, batches):
    """Gradients of pruned weights, masked too late, make the norm too large and the step small."""
    masks, optimizer = half(model), OPTIMIZERS["SGD-momentum"](model.parameters())
    with pl.keep(model, masks, optimizer):
        for size in (0, 1):  # zero_grad, or adding up over two batches
            loss(model, batches[size]).backward()
            assert all((w.grad[~masks[n]] == 0).all() for n, w in pl.weights_of(model).items())
            assert all((w.grad[masks[n]] != 0).all() for n, w in pl.weights_of(model).items())
        parts = [p.grad[masks[n]] if n in masks else p.grad for n, p in model.named_parameters()]
        norm = torch.cat([part.flatten() for part in parts]).norm()
        torch.testing.assert_close(clip_grad_norm_(model.parameters(), 1e-3), norm)
        clip_grad_value_(model.parameters(), 1e-4)
        optimizer.step()
    assert revived(model, masks) == 0


def test_14_hidden_dense_copies(model, loss, batches, tmp_path):
    """A dense copy behind the mask decays unseen, and is what is saved."""
    masks, optimizer = half(model), OPTIMIZERS["AdamW-decay"](model.parameters())
    keys, parameters = list(model.state_dict()), [*model.parameters()]
    steps(model, loss, batches, optimizer)
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer)
        assert list(model.state_dict()) == keys and not [*model.buffers()]
        assert all(p is q for p, q in zip(model.parameters(), parameters, strict=True))
        twin = copy.deepcopy(model)
        torch.save(model.state_dict(), tmp_path / "model.pt")
    twin.load_state_dict(torch.load(tmp_path / "model.pt"))
    assert revived(twin, masks) == 0 and {type(m) for m in model} == {nn.Linear, nn.Tanh}


def test_15_averaged_weights(model, loss, batches):
    """An average that began before pruning holds old weights where there are zeros now."""
    masks, optimizer = half(model), OPTIMIZERS["Adam"](model.parameters())
    average = AveragedModel(model)
    average.update_parameters(model)
    with pl.keep(model, masks, optimizer):
        steps(model, loss, batches, optimizer, after=lambda: average.update_parameters(model))
    assert revived(model, masks) == 0 < revived(average.module, masks)
    pl.apply(average.module, masks)
    assert revived(average.module, masks) == 0


def test_16_an_optimizer_of_the_larger_model(model, loss, batches):
    """Made before channels were removed, it trains parameters that no model has any more."""
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    _, small = without_channels(model, batches[0][0])
    before = [p.detach().clone() for p in small.parameters()]
    with (
        pytest.raises(ValueError, match=r"trains none of the weights.*another model"),
        pl.keep(small, half(small), optimizer),
    ):
        pass
    for made, changed in [(optimizer, False), (OPTIMIZERS["SGD"](small.parameters()), True)]:
        steps(small, loss, batches, made)
        pairs = zip(small.parameters(), before, strict=True)
        assert all((not p.equal(old)) == changed for p, old in pairs)


def test_17_stale_batch_norm():
    """Statistics of the dense model do not fit what a norm sees in the pruned one."""
    task = pl.digits(model="cnn")
    model = task.build(0)
    task.train(model, seed=0, epochs=3)
    masks, dense = pl.select(pl.magnitude(model), 0.8), task.score(model, "valid")
    pl.apply(model, masks)
    stale = task.score(model, "valid")
    pl.recalibrate(model, task.batches("train"))
    assert stale < 0.7 < 0.9 < task.score(model, "valid") and dense > 0.9
    images = task.splits["train"][0]
    pl.recalibrate(model, [images])
    seen = model.conv1(images)
    torch.testing.assert_close(model.norm1.running_mean, seen.mean((0, 2, 3)))
    torch.testing.assert_close(model.norm1.running_var, seen.var((0, 2, 3)))
    assert revived(model, masks) == 0 and not model.training


def test_18_a_zeroed_filter_still_speaks():
    """Its bias and BatchNorm's shift go on to the next layer: masking is not removal."""
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)).eval()
    with torch.no_grad():
        model[0].weight[1] *= 100
        model[1].bias[0] = 5
    pl.apply(model, pl.select(pl.magnitude(model), 0.5, grain=pl.channel))
    images, bias = torch.rand(1, 1, 5, 5), model[0].bias[0]
    assert (model[0](images)[0, 0] == bias).all() and bias != 0
    torch.testing.assert_close(model(images)[0, 0], (bias / (1 + 1e-5) ** 0.5 + 5).expand(3, 3))


# ---- scores ----


def test_19_snip_is_the_gradient_of_a_mask():
    """Not |g|, and not the sum of each batch's |g·w|; and no gradient is left behind."""
    model, batches = linear([[2.0, 1.0, 0.5]]), [torch.randn(3, 3), torch.randn(5, 3)]
    mask = torch.ones(1, 3, requires_grad=True)
    weight = {"weight": model.weight.detach() * mask}
    functional_call(model, weight, torch.cat(batches)).mean().backward()
    scores = pl.snip(model, output_mean, batches)
    torch.testing.assert_close(scores["weight"], mask.grad.abs() / mask.grad.abs().sum())
    plain = pl.taylor(model, output_mean, batches)
    assert all(
        pl.select(scores, s)["weight"].equal(pl.select(plain, s)["weight"]) for s in (1 / 3, 2 / 3)
    )
    assert model.weight.grad is None


def test_20_taylor_has_three_readings():
    """|E[g·w]|, E|g·w| and E[(g·w)²] each keep another weight."""
    inputs = torch.tensor([[2.0, 3, 0], [2, -3, 0], [2, 3, 0], [2, -3, 7]])
    expected = {"mean": [2, 0, 1.75], "abs": [2, 3, 1.75], "square": [4, 9, 12.25]}
    for best, (reading, values) in enumerate(expected.items()):
        model = linear([[1.0, -1.0, 1.0]])
        scores = pl.taylor(model, output_mean, [inputs], reading=reading)
        assert scores["weight"].tolist() == [values]
        assert pl.select(scores, 2 / 3)["weight"][0].nonzero().tolist() == [[best]]


def test_21_fisher_of_batch_means():
    """At a minimum the mean gradient is zero, and its square says that nothing matters."""
    inputs = torch.tensor([[1.0, 1], [-1, 1], [1, -1], [-1, -1]]).double()
    residuals = torch.tensor([[1.0], [-1], [-1], [1]]).double()
    model = linear([[0.5, 2.0]], torch.float64)
    batch = inputs, model(inputs).detach() + residuals

    def loss(model, batch):
        return (model(batch[0]) - batch[1]).square().mean() / 2

    scores = pl.fisher(model, loss, [batch])["weight"][0].tolist()
    assert scores == [0.125, 2.0]
    for i, score in enumerate(scores):  # exact on a quadratic: ½·h·w² with h = 1
        pruned = copy.deepcopy(model)
        pruned.weight.detach()[0, i] = 0
        assert (loss(pruned, batch) - loss(model, batch)).item() == pytest.approx(score)


@pytest.mark.parametrize(
    "criterion", [pl.gradient, pl.taylor, pl.snip, pl.fisher, pl.grasp, pl.wanda]
)
def test_22_only_the_last_batch_counts(criterion):
    """An accumulator written anew in every batch keeps the last one's sum."""
    model, (first, last) = linear([[2.0, 1.0, 0.5]]), torch.randn(8, 3).split([5, 3])

    def loss(model, batch):
        return model(batch).square().mean()

    both, whole, alone = (
        criterion(model, loss, batches)["weight"]
        for batches in ([first, last], [torch.cat([first, last])], [last])
    )
    torch.testing.assert_close(both, whole)
    assert not torch.allclose(both, alone)


def test_23_synflow_conserves_its_sum(as_found):
    """Signs that are not given back ruin the model; in float32 deep networks overflow."""
    layers = [nn.Linear(32, 32, bias=False) for _ in range(100)]
    model = nn.Sequential(*layers, nn.BatchNorm1d(32, affine=False))
    model[0].weight.detach()[0, 0] = -0.0
    model[-1].running_mean -= 1
    with as_found(model):
        scores = pl.synflow(model[:-1], torch.ones(2, 32))
        pl.synflow(model, torch.ones(2, 32))
    sums = torch.stack([s.sum() for s in scores.values()])
    assert len(sums) == 100 and torch.finfo(torch.float32).max < sums[0] < math.inf
    torch.testing.assert_close(sums, sums[:1].expand(100))


def test_24_the_sign_of_grasp():
    """Turned round, it prunes what carries the gradient: compare with what pruning changes."""
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    batch = torch.randn(6, 3).double()

    def loss(model, batch):
        return model(batch).square().mean()

    def flow():
        return sum(float(g.square().sum()) for g in pl.gradient(model, loss, [batch]).values())

    scores, before, step = pl.grasp(model, loss, [batch]), flow(), 1e-5
    for name, weight in pl.weights_of(model).items():
        for i in range(weight.numel()):
            cell, value = weight.detach().view(-1), weight.detach().view(-1)[i].item()
            cell[i] = value * (1 - step)
            fall = (before - flow()) / step
            cell[i] = value
            assert scores[name].flatten()[i].item() == pytest.approx(fall, rel=1e-2, abs=1e-5)


def test_25_erk_densities_above_one():
    """What a narrow layer can't keep goes to the others, or the total is missed."""

    def kept(shapes, pruned):
        scores = {n: torch.rand(s) for n, s in shapes.items()}
        masks = pl.select(scores, pruned / sum(map(math.prod, shapes.values())), budget=pl.erk)
        return [int(m.sum()) for m in masks.values()]

    # density = c (rows + columns) / (rows · columns): 200 c and 20 c weights are kept
    shapes = {"wide": (100, 100), "narrow": (10, 10)}
    assert kept(shapes, 10_100 - 110) == [100, 10]
    # 20 c would be above 100: narrow stays whole, wide takes the rest
    assert kept(shapes, 10_100 - 2_100) == [2_000, 100]
    kernel = {"a": (10, 5, 3, 3), "b": (10, 13)}
    assert kept(kernel, 580 - 44) == [21, 23]  # 10 + 5 + 3 + 3 = 21 against 23


# ---- models and measures ----


class Tied(nn.Module):
    """An embedding that is also the output layer."""

    def __init__(self):
        super().__init__()
        self.words, self.out = nn.Embedding(6, 4), nn.Linear(4, 6)
        self.out.weight = self.words.weight

    def forward(self, words):
        return self.out(self.words(words))


def test_26_tied_weights():
    """Under two names they are scored and counted twice, and pruned by two masks."""
    model = Tied()
    scores = pl.magnitude(model)
    assert list(scores) == pl.prunable(model) == ["words.weight"]
    masks, optimizer = pl.select(scores, 0.5), OPTIMIZERS["AdamW-decay"](model.parameters())
    with pl.keep(model, masks, optimizer):
        for _ in range(3):
            model(torch.arange(6)).square().sum().backward()
            optimizer.step()
            assert revived(model, masks) == 0
    assert model.out.weight is model.words.weight
    assert pl.sparsity(model) == (12 / 24, 12 / 30)


def test_27_layers_of_other_kinds():
    """Depthwise, grouped and 1×1 convolutions, layers of one unit: removed rightly or refused."""
    image = torch.rand(2, 4, 5, 5)
    depthwise = nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1)
    grouped = nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Conv2d(8, 3, 1)
    for layers, groups in [(depthwise, 4), (grouped, 2)]:
        model = nn.Sequential(nn.Conv2d(4, 8, 1), *layers).eval()
        masked, small = without_channels(model, image)
        torch.testing.assert_close(small(image), masked(image))
        assert (small[1].groups, small[1].in_channels, small[1].out_channels) == (groups, 4, 4)
    single = nn.Sequential(nn.Conv2d(4, 1, 1), nn.Conv2d(1, 3, 1))
    assert not pl.coupled(single, image)
    with pytest.raises(ValueError, match=r"units of 0\.weight are masked, .* keep at least one"):
        pl.shrink(model, {"0.weight": torch.zeros(8, 4, 1, 1) > 0}, image)
    # masked, these are layers like others
    for layer in (*depthwise[::2], *grouped[::2], *single):
        masks = pl.select(pl.magnitude(layer), 0.5, grain=pl.channel)
        assert int(masks["weight"].flatten(1).all(1).sum()) == len(layer.weight) - round(
            len(layer.weight) / 2
        )


def test_28_what_counts():
    """Biases and norms are not pruned, but they are parameters: both shares are told."""
    model = nn.Sequential(nn.Embedding(5, 2), nn.Linear(2, 4), nn.LayerNorm(4), nn.Linear(4, 3))
    assert pl.prunable(model) == ["0.weight", "1.weight", "3.weight"]
    pl.apply(model, pl.select(pl.magnitude(model), 0.5))
    with torch.no_grad():
        model[1].bias[:3] = 0
    # LayerNorm's four biases begin as zeros; 10 + 8 + 12 prunable weights of 10 + 12 + 8 + 15
    assert pl.sparsity(model) == (15 / 30, (15 + 3 + 4) / 45)
    without = pl.prunable(model, exclude=[nn.Embedding, "3.*"])
    assert without == ["1.weight"]


def test_29_multiply_accumulates():
    """Padding, stride, groups and attention count as they run; zeros are multiplied too."""
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    image, expected = torch.rand(1, 4, 9, 9), 6 * 5 * 5 * 2 * 3 * 3
    assert pl.macs(conv, image) == expected
    pl.apply(conv, half(conv))
    assert pl.macs(conv, image) == expected
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()  # a fused path in eval
    projections, products, hidden = 5 * 4 * 8 * 8, 2 * 5 * 5 * 8, 5 * 2 * 8 * 16
    assert pl.macs(layer, torch.rand(1, 5, 8)) == projections + products + hidden


def test_30_a_scan_that_leaves_traces(as_found):
    """A layer left pruned, a BatchNorm that counted on or numbers drawn spoil what follows."""
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(), nn.Linear(6, 3))
    model[3].weight.grad = torch.ones(3, 6)

    def metric(model):
        model.train()
        return model(torch.randn(8, 4)).sum().item()

    with as_found(model):
        pl.scan(model, metric, [0.5, 1.0])


class Joined(nn.Module):
    """Residual, depthwise, concatenated and flattened channels."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.inner = nn.Conv2d(6, 6, 3, padding=1)
        self.depth, self.other = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Conv2d(6, 4, 1)
        self.join, self.out = nn.Conv2d(10, 4, 1), nn.Linear(4 * 5 * 5, 3)

    def forward(self, x):
        x = self.norm(self.stem(x)).relu()
        x = x + self.inner(x).relu()
        x = torch.cat([self.depth(x).relu(), self.other(x).relu()], dim=1)
        return self.out(self.join(x).relu().flatten(1))


def test_31_channels_that_layers_share():
    """One layer's channel 3 is another's 7, or 25 inputs of a Linear: removing is not slicing."""
    model, images = Joined(), torch.rand(2, 2, 5, 5)
    model(images)  # BatchNorm has a mean of its own
    model.norm.bias.detach().normal_()
    masked, small = without_channels(model.eval(), images)
    torch.testing.assert_close(small(images), masked(images))
    assert (masked(images) - model(images)).abs().max() > 0.01
    shapes = {n: tuple(p.shape) for n, p in small.named_parameters() if p.dim() > 1}
    assert shapes == {
        "stem.weight": (3, 2, 3, 3), "inner.weight": (3, 3, 3, 3), "depth.weight": (3, 1, 3, 3),
        "other.weight": (2, 3, 1, 1), "join.weight": (2, 5, 1, 1), "out.weight": (3, 50),
    }  # fmt: skip
