"""Channels and heads really removed; what they share; sizes on disk; BatchNorm recalibrated."""

import copy
import re

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

import pruninglib as pl


class Net(nn.Module):
    """Layers, and a function of them and the inputs."""

    def __init__(self, run, **layers):
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *inputs):
        return self.run(self, *inputs)


class Attention(nn.Module):
    def __init__(self, width=12, heads=3, fused=False):
        super().__init__()
        self.heads, self.fused = heads, fused
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = (
            f(x).view(b, t, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        if self.fused:
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, t, -1))


class Block(nn.Module):
    def __init__(self, width=12, hidden=10, **options):
        super().__init__()
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, **options)
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x):
        x = x + self.attention(self.before(x))
        return x + self.down(F.gelu(self.up(self.between(x))))


def encoder(**options):
    return nn.Sequential(nn.Embedding(7, 12), Block(**options), nn.Flatten(), nn.Linear(60, 3))


def norm(n):
    """A BatchNorm that is neither fresh nor the identity."""
    layer = nn.BatchNorm2d(n)
    for tensor in (layer.weight.data, layer.bias.data, layer.running_var):
        tensor.uniform_(0.5, 1.5)
    layer.running_mean.uniform_(-0.2, 0.2)
    return layer


def conv(i, o, k=3, **options):
    return nn.Conv2d(i, o, k, padding=k // 2, **options)


def basic(self, x):
    h = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
    return (h + (self.down(x) if hasattr(self, "down") else x)).relu()


def block(i, o, **layers):
    return Net(basic, conv1=conv(i, o), bn1=norm(o), conv2=conv(o, o), bn2=norm(o), **layers)


def dense(self, x):
    x = self.stem(x)
    for layer in (self.one, self.two):
        x = torch.cat([x, layer(x).relu()], 1)
    return self.last(self.norm(x))


def unet(self, x):
    x = self.enter(x).relu()
    low = self.low(F.max_pool2d(x, 2)).relu()
    return self.leave(self.join(torch.cat([x, self.up(low)], 1)).relu())


def inverted(self, x):
    h = self.bn1(self.widen(x)).relu()
    return x + self.bn3(self.narrow(self.bn2(self.depthwise(h)).relu()))


seeded = torch.Generator().manual_seed(0)
IMAGE, ROWS = (torch.rand(shape, generator=seeded) for shape in [(2, 3, 8, 8), (4, 5)])
TOKENS = torch.randint(7, (2, 5), generator=seeded)
ENCODER = {"1.attention.q.weight": 3, "1.up.weight": 10}

# what builds the model, an example, and the units of each group
MODELS = {
    "chain": (
        lambda: nn.Sequential(
            *(conv(3, 8), norm(8), nn.ReLU(), conv(8, 6, 1, bias=False), norm(6), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
        ),
        IMAGE,
        {"0.weight": 8, "3.weight": 6},
    ),
    "residual": (
        lambda: nn.Sequential(conv(3, 8), norm(8), block(8, 8), block(8, 8), conv(8, 2)),
        IMAGE,
        {"0.weight": 8, "2.conv1.weight": 8, "3.conv1.weight": 8},
    ),
    "residual, downsampled": (
        lambda: nn.Sequential(conv(3, 4), block(4, 6, down=conv(4, 6, 1)), conv(6, 2)),
        IMAGE,
        {"0.weight": 4, "1.conv1.weight": 6, "1.conv2.weight": 6},
    ),
    "dense": (
        lambda: Net(
            dense, stem=conv(3, 4), one=conv(4, 4), two=conv(8, 6), norm=norm(14), last=conv(14, 2)
        ),
        IMAGE,
        {"stem.weight": 4, "one.weight": 4, "two.weight": 6},
    ),
    "U-Net": (
        lambda: Net(
            unet,
            enter=conv(3, 4),
            low=conv(4, 8),
            up=nn.ConvTranspose2d(8, 6, 2, stride=2),
            join=conv(10, 4),
            leave=conv(4, 2),
        ),
        IMAGE,
        {"enter.weight": 4, "low.weight": 8, "up.weight": 6, "join.weight": 4},
    ),
    "inverted residual": (
        lambda: nn.Sequential(
            conv(3, 4),
            Net(
                inverted,
                **{
                    "widen": conv(4, 12, 1),
                    "bn1": norm(12),
                    "narrow": conv(12, 4, 1),
                    "bn3": norm(4),
                },
                **{"depthwise": conv(12, 12, groups=12), "bn2": norm(12)},
            ),
            conv(4, 2),
        ),
        IMAGE,
        {"0.weight": 4, "1.widen.weight": 12},
    ),
    "depthwise, joined": (
        lambda: Net(
            lambda self, x: self.out(torch.cat([self.a(x), self.each(self.b(x))], 1) + self.c(x)),
            **{"a": conv(3, 4), "b": conv(3, 6), "each": conv(6, 6, groups=6), "c": conv(3, 10)},
            out=conv(10, 2),
        ),
        IMAGE,
        {"a.weight": 10},
    ),
    "two groups": (
        lambda: nn.Sequential(conv(3, 8), norm(8), conv(8, 12, groups=2), norm(12), conv(12, 2)),
        IMAGE,
        {"0.weight": 4, "2.weight": 6},
    ),
    "four and two groups": (
        lambda: nn.Sequential(
            conv(3, 16), conv(16, 16, groups=4), conv(16, 8, groups=2), conv(8, 2)
        ),
        IMAGE,
        {"0.weight": 4, "1.weight": 4, "2.weight": 4},
    ),
    "flatten": (
        lambda: nn.Sequential(
            conv(3, 4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 6), nn.ReLU(), nn.Linear(6, 3)
        ),
        IMAGE,
        {"0.weight": 4, "3.weight": 6},
    ),
    "one dimension": (
        lambda: nn.Sequential(nn.Conv1d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3)),
        IMAGE[..., 0],
        {"0.weight": 6},
    ),
    "three dimensions": (
        lambda: nn.Sequential(nn.Conv3d(1, 6, 2), nn.BatchNorm3d(6), nn.ReLU(), nn.Conv3d(6, 2, 2)),
        IMAGE[:, :1].view(2, 1, 4, 4, 4),
        {"0.weight": 6},
    ),
    "MLP": (
        lambda: nn.Sequential(
            nn.Linear(5, 8),
            nn.BatchNorm1d(8),
            nn.Tanh(),
            nn.Linear(8, 6),
            nn.Sigmoid(),
            nn.Linear(6, 3),
        ),
        ROWS,
        {"0.weight": 8, "3.weight": 6},
    ),
    "embedding": (
        lambda: Net(
            lambda self, a, b: self.out(torch.cat([self.e(a), self.e(b)], 1)),
            e=nn.Embedding(7, 4),
            out=nn.Linear(8, 3),
        ),
        (TOKENS[0], TOKENS[1]),
        {"e.weight": 4},
    ),
    "encoder": (encoder, TOKENS, ENCODER),
    "encoder, fused": (lambda: encoder(fused=True), TOKENS, ENCODER),
}


def build(name):
    torch.manual_seed(0)
    make, example, units = MODELS[name]
    example = example if isinstance(example, tuple) else (example,)
    return make().double(), tuple(map(doubled, example)), units


def doubled(t):
    return t.double() if t.is_floating_point() else t


def halves(model, example, scores=None, budget=pl.uniform):
    """Masks that prune half of all units."""
    groups = pl.coupled(model, example)
    scores = pl.pool(scores or pl.magnitude(model), groups)
    return pl.spread(pl.select(scores, 0.5, budget=budget), groups)


def masked(model, masks):
    twin = copy.deepcopy(model)
    pl.apply(twin, masks)
    return twin


def parameters(model):
    return sum(p.numel() for p in model.parameters())


# ---- masked and removed are the same ----


@pytest.mark.parametrize("name", MODELS)
def test_groups(name, as_found):
    model, example, units = build(name)
    with as_found(model):
        groups = pl.coupled(model, example)
    assert {group: len(s) for group, s in pl.pool(pl.magnitude(model), groups).items()} == units
    assert all(parts.reads for parts in groups.values())


@pytest.mark.parametrize("budget", [pl.uniform, pl.global_budget])
@pytest.mark.parametrize("name", MODELS)
def test_the_smaller_model_equals_the_masked_one(name, budget, as_found):
    model, example, _ = build(name)
    model.train()
    masks = halves(model, example, pl.random(model), budget)
    with as_found(model):
        small = pl.shrink(model, masks, example)
    assert all(module.training for module in small.modules())
    assert parameters(small) == parameters(model) - sum(int((~m).sum()) for m in masks.values())
    assert parameters(small) < 0.8 * parameters(model)
    more = [torch.cat([t, t.flip(0), t.flip(-1)]) for t in example]  # another batch size
    zeros = masked(model, masks)
    for _ in range(2):  # BatchNorm with statistics of the batch, then with its own
        outputs = small(*more)
        torch.testing.assert_close(outputs, zeros(*more))
        assert outputs.std(0).max() > 1e-4, "the inputs do not matter"
        small.eval(), zeros.eval()
    small(*more).sum().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in small.parameters())


def test_a_network_of_torchvision():
    model, image = torchvision.models.resnet18(num_classes=10), torch.rand(1, 3, 32, 32)
    masks = halves(model, image)
    small = pl.shrink(model, masks, image)
    assert small.layer1[0].conv1.weight.shape == (32, 32, 3, 3)
    assert small.layer4[1].bn2.num_features == 256 and small.fc.in_features == 256
    images = torch.rand(3, 3, 40, 40)
    with torch.no_grad():
        expected = masked(model, masks).eval()(images)
        torch.testing.assert_close(small.eval()(images), expected, rtol=1e-4, atol=1e-5)


def test_half_precision():
    model, example, _ = build("residual")
    model, example = model.bfloat16().eval(), example[0].bfloat16()
    masks = halves(model, example)
    small = pl.shrink(model, masks, example)
    assert {t.dtype for t in small.parameters()} == {torch.bfloat16}
    torch.testing.assert_close(small(example), masked(model, masks)(example), rtol=0.1, atol=0.1)


def test_sizes_follow():
    model, example, _ = build("two groups")
    small = pl.shrink(model, halves(model, example), example)
    assert [str(m) for m in small] == [str(m) for m in (
        conv(3, 4), nn.BatchNorm2d(4), conv(4, 6, groups=2), nn.BatchNorm2d(6), conv(6, 2)
    )]  # fmt: skip
    model, example, _ = build("inverted residual")
    small = pl.shrink(model, halves(model, example), example)
    assert str(small[1].depthwise) == str(conv(6, 6, groups=6))


def test_whole_heads_go():
    model, example, _ = build("encoder")
    groups = pl.coupled(model, example)
    kept = {"1.attention.q.weight": torch.tensor([True, False, True])}
    masks = pl.spread(kept, groups)
    small = pl.shrink(model, masks, example)
    attention = small[1].attention
    assert attention.heads == 2 and model[1].attention.heads == 3
    rows = [0, 1, 2, 3, 8, 9, 10, 11]  # heads of four
    for name in "qkv":
        old, new = getattr(model[1].attention, name), getattr(attention, name)
        assert new.weight.equal(old.weight[rows]) and new.bias.equal(old.bias[rows])
    assert attention.out.weight.equal(model[1].attention.out.weight[:, rows])
    assert small[1].down.weight.shape == (12, 10) and small[0].embedding_dim == 12


def test_the_heads_of_the_nearest_module_count():
    model = encoder()
    model.heads = model[1].heads = 4
    assert len(pl.pool(pl.magnitude(model), pl.coupled(model, TOKENS))["1.attention.q.weight"]) == 3
    kept = {"1.attention.q.weight": torch.arange(3) > 1}
    small = pl.shrink(model, pl.spread(kept, pl.coupled(model, TOKENS)), TOKENS)
    assert (model.heads, small.heads, small[1].heads, small[1].attention.heads) == (4, 4, 4, 1)


def test_weights_that_several_calls_share():
    model = Net(lambda self, a, b: self.out(torch.cat([self.both(a), self.both(b)], 1)),
                both=nn.Linear(4, 6), out=nn.Linear(12, 2))  # fmt: skip
    example = torch.rand(3, 4), torch.rand(3, 4)
    masks = halves(model, example)
    small = pl.shrink(model, masks, example)
    torch.testing.assert_close(small(*example), masked(model, masks)(*example))
    assert small.both.out_features == 3 and small.out.in_features == 6


# ---- scores and masks of units ----


def test_pooled_scores_are_means_over_all_layers_that_make_a_unit():
    model, example, _ = build("residual")
    groups, scores = pl.coupled(model, example), pl.magnitude(model)
    names = ["0.weight", "2.conv2.weight", "3.conv2.weight"]
    rows = torch.cat([scores[name].flatten(1) for name in names], dim=1)
    pooled = pl.pool(scores, groups)
    torch.testing.assert_close(pooled["0.weight"], rows.mean(1))
    one = pl.pool({"2.conv2.weight": scores["2.conv2.weight"]}, groups)
    torch.testing.assert_close(one, {"0.weight": scores["2.conv2.weight"].flatten(1).mean(1)})


def test_units_of_convolution_groups_and_heads():
    model, example, _ = build("two groups")
    scores = {"0.weight": torch.arange(8.0).view(8, 1, 1, 1).expand(8, 3, 3, 3)}
    assert pl.pool(scores, pl.coupled(model, example))["0.weight"].tolist() == [2, 3, 4, 5]
    model, example, _ = build("encoder")
    scores = {"1.attention.k.weight": torch.arange(12.0).view(12, 1).expand(12, 12)}
    assert pl.pool(scores, pl.coupled(model, example))["1.attention.q.weight"].tolist() == [
        1.5,
        5.5,
        9.5,
    ]


def test_units_of_transposed_convolutions_lie_along_dimension_1():
    model, example, _ = build("U-Net")
    makes = pl.coupled(model, example)["up.weight"].makes
    assert makes["up.weight"][3, :, 1, 0].tolist() == [*range(6)] == makes["up.bias"].tolist()


def test_spread_masks_silence_a_unit_where_a_mask_of_weights_does_not():
    model, example, _ = build("chain")
    heard = []
    model[2].register_forward_hook(lambda *args: heard.append(args[-1][:, 0].abs().max().item()))
    keep = torch.arange(8) > 0
    masks = pl.spread({"0.weight": keep}, pl.coupled(model, example))
    assert set(masks) == {"0.weight", "0.bias", "1.weight", "1.bias", "3.weight"}
    assert masks["3.weight"].equal(keep.view(1, 8, 1, 1).expand(6, 8, 1, 1))
    heard.clear()
    masked(model, {"0.weight": masks["0.weight"]})(*example)
    masked(model, masks)(*example)
    assert heard[0] > 0 == heard[1]


def test_masks_of_several_groups_join():
    model, example, _ = build("chain")
    groups = pl.coupled(model, example)
    kept = {"0.weight": torch.arange(8) < 5, "3.weight": torch.arange(6) > 1}
    assert pl.spread(kept, groups)["3.weight"].sum() == 4 * 5


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda g: pl.pool({"0.weight": torch.ones(4, 3, 3, 3)}, g),
            "scores of 0.weight have shape (4, 3, 3, 3), but must be (8, 3, 3, 3)",
        ),
        (
            lambda g: pl.spread({"0.weight": torch.ones(9) > 0}, g),
            "kept of 0.weight have shape (9,), but must be (8,)",
        ),
    ],
)
def test_other_shapes(call, message):
    model, example, _ = build("chain")
    with pytest.raises(ValueError, match=re.escape(message)):
        call(pl.coupled(model, example))


# ---- masks from elsewhere ----


def test_masks_of_single_layers():
    model, example, _ = build("chain")
    small = pl.shrink(
        model, pl.select(pl.magnitude(model), 0.5, grain=pl.channel, budget=pl.uniform), example
    )
    assert [small[i].weight.shape[:2] for i in (0, 3, 8)] == [(4, 3), (3, 4), (3, 3)]


def test_what_only_some_coupled_layers_lose_stays_as_zeros():
    model, example, _ = build("residual")
    masks = {n: torch.ones_like(w, dtype=torch.bool) for n, w in pl.weights_of(model).items()}
    for name in ("0.weight", "2.conv2.weight"):
        masks[name][:2] = False
    masks["3.conv2.weight"][1:3] = False
    masks["2.conv1.weight"][5, 1, 0] = False
    small = pl.shrink(model, masks, example)
    assert small[0].out_channels == 7 and (small[0].weight[0] == 0).all()
    assert small[0].weight[1:].equal(model[0].weight[2:])
    assert (small[3].conv2.weight[1] == 0).all() and small[3].conv2.weight[2].all()
    assert small[2].conv1.weight.shape == (8, 7, 3, 3)
    assert (small[2].conv1.weight == 0).sum() == 0  # that weight read a channel that is gone


def test_nothing_to_remove_gives_an_equal_copy(as_found):
    model, example, _ = build("residual")
    masks = pl.select(pl.magnitude(model), 0.3)
    with as_found(model):
        small = pl.shrink(model, masks, example)
    pl.apply(model, masks)
    assert str(small) == str(model)
    for (name, one), (other_name, other) in zip(
        small.state_dict().items(), model.state_dict().items(), strict=True
    ):
        assert name == other_name and one.equal(other) and one is not other


@pytest.mark.parametrize("units", [8, 1])
def test_a_layer_keeps_one_unit(units):
    model = nn.Sequential(conv(3, units), conv(units, 2))
    assert list(pl.coupled(model, IMAGE)) == ["0.weight"] * (units > 1)
    masks = {"0.weight": torch.zeros(units, 3, 3, 3) > 0}
    with pytest.raises(ValueError, match=r"all units of 0\.weight are masked, .* at least one"):
        pl.shrink(model, masks, IMAGE)


def test_masks_of_another_model(model):
    with pytest.raises(ValueError, match=r"'1.weight' is no parameter of Sequential"):
        pl.shrink(model, {"1.weight": torch.ones(2) > 0}, torch.rand(2, 4))


# ---- what stays as it is ----


def test_frozen_layers_go_too_and_stay_frozen():
    model, example, _ = build("chain")
    model[:3].requires_grad_(False)
    small = pl.shrink(model, halves(model, example), example)
    assert small[0].out_channels == 4 and small[4].num_features == 3
    flags = [p.requires_grad for p in model.parameters()]
    assert flags == [p.requires_grad for p in small.parameters()] and any(flags)


def test_an_optimizer_made_before_removal_does_not_train_the_new_model():
    model, example, _ = build("chain")
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    small = pl.shrink(model, halves(model, example), example)
    before = copy.deepcopy(small.state_dict())
    small.eval()(*example).square().sum().backward()
    optimizer.step()
    assert all(tensor.equal(before[name]) for name, tensor in small.state_dict().items())
    torch.optim.SGD(small.parameters(), lr=1.0).step()
    assert not small[0].weight.equal(before["0.weight"])


def test_each_module_keeps_its_mode():
    model, example, _ = build("chain")
    model.train()[1].eval()
    small = pl.shrink(model, halves(model, example), example)
    assert [m.training for m in small] == [i != 1 for i in range(9)]


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_tracing_needs_no_gradients(without):
    model, example, units = build("chain")
    with without():
        assert list(pl.coupled(model, example)) == list(units)


def test_tied_weights_are_left_whole():
    model = encoder()
    model[3] = nn.Linear(12, 7, bias=False)
    del model[2]
    model[2].weight = model[0].weight
    masks = halves(model, TOKENS)
    small = pl.shrink(model, masks, TOKENS)
    assert small[2].weight is small[0].weight and small[1].up.out_features == 5
    torch.testing.assert_close(small(TOKENS), masked(model, masks)(TOKENS))
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    assert list(pl.coupled(model, TOKENS)) == ["0.weight"]
    model[1].weight = model[0].weight
    assert not pl.coupled(model, TOKENS)


WAYS_OUT = {
    "logits": lambda self, x: self.out(self.hidden(x).relu()),
    "probabilities": lambda self, x: self.out(self.hidden(x).relu()).softmax(-1),
    "reshaped": lambda self, x: self.out(self.hidden(x).relu()).view(-1, 3, 2).transpose(1, 2),
    "mean": lambda self, x: self.out(self.hidden(x).relu()).mean(-1),
    "named": lambda self, x: {"logits": [self.out(self.hidden(x).relu())]},
    "sum with features": lambda self, x: (self.out(h := self.hidden(x).relu()), h.sum(0)),
}


@pytest.mark.parametrize("way", WAYS_OUT)
def test_channels_of_the_outputs_stay(way):
    model = Net(WAYS_OUT[way], hidden=nn.Linear(5, 8), out=nn.Linear(8, 6))
    expected = [] if way == "sum with features" else ["hidden.weight"]
    assert list(pl.coupled(model, ROWS)) == expected


WIDE = {"hidden": nn.Linear(5, 8), "out": nn.Linear(8, 3)}
LEFT_OUT = {
    "LayerNorm": lambda self, x: self.out(self.norm(self.hidden(x))),
    "layer_norm": lambda self, x: self.out(F.layer_norm(self.hidden(x), (8,))),
    "normalize": lambda self, x: self.out(F.normalize(self.hidden(x))),
    "softmax": lambda self, x: self.out(self.hidden(x).softmax(-1)),
    "chunk": lambda self, x: self.out(self.hidden(x).chunk(2, 1)[0].repeat(1, 2)),
    "parameter": lambda self, x: self.out(self.hidden(x) + self.shift),
    "joined elsewhere": lambda self, x: self.out(torch.cat([self.hidden(x), self.hidden(-x)])),
}


@pytest.mark.parametrize("way", LEFT_OUT)
def test_channels_whose_removal_is_not_zeroing_stay(way):
    model = Net(LEFT_OUT[way], norm=nn.LayerNorm(8), shift=nn.Parameter(torch.rand(8)), **WIDE)
    assert not pl.coupled(model, ROWS)


@pytest.mark.parametrize(
    "layer",
    [nn.GroupNorm(2, 8), nn.ConvTranspose2d(8, 8, 1, groups=2), conv(8, 4, groups=4)],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_that_are_left_out(layer):
    model = nn.Sequential(conv(3, 8), layer, conv(4 if isinstance(layer, nn.Conv2d) else 8, 2))
    assert not pl.coupled(model, IMAGE)


def test_attention_that_does_not_tell_its_heads_is_left_out():
    model = encoder()
    del model[1].attention.heads
    model.heads = 5  # not theirs, for it does not divide their width
    Attention.heads = property(lambda self: self.q.out_features // 4)
    try:
        assert list(pl.coupled(model, TOKENS)) == ["1.up.weight"]
    finally:
        del Attention.heads


def test_heads_that_share_keys_are_left_out():
    def run(self, x):
        q, k, v = self.q(x).view(2, 5, 4, 3), self.k(x).view(2, 5, 2, 3), self.v(x).view(2, 5, 2, 3)
        k, v = (t[:, :, [0, 0, 1, 1]].transpose(1, 2) for t in (k, v))
        mixed = F.scaled_dot_product_attention(q.transpose(1, 2), k, v)
        return self.out(mixed.transpose(1, 2).reshape(2, 5, 12))

    model = Net(run, q=nn.Linear(4, 12), k=nn.Linear(4, 6), v=nn.Linear(4, 6), out=nn.Linear(12, 3))
    model.heads = 4
    assert not pl.coupled(model, torch.rand(2, 5, 4))


def test_packed_attention_and_recurrence_are_left_out():
    layer = nn.TransformerEncoderLayer(12, 3, 10, batch_first=True)
    model = nn.Sequential(nn.Embedding(7, 12), layer, nn.GRU(12, 4))
    assert list(pl.coupled(model, TOKENS)) == ["1.linear1.weight"]
    masks = halves(model, TOKENS)
    with torch.no_grad():  # where torch takes a path of its own
        small, zeros = pl.shrink(model, masks, TOKENS).eval(), masked(model, masks).eval()
        torch.testing.assert_close(small(TOKENS)[0], zeros(TOKENS)[0])
    assert small[1].linear2.in_features == 5


# ---- models that can't be traced, code that the graph does not show ----

HIDDEN = {
    "fixed size": lambda self, x: self.out(self.hidden(x).view(-1, 8)),
    "another order": lambda self, x: self.out(self.hidden(x).flip(1)),
    "numbered channels": lambda self, x: self.out(self.hidden(x)[:, torch.arange(8)]),
    "no gradient": lambda self, x: self.out(h := self.hidden(x)) + self.two(h.detach()),
    "mean over channels": lambda self, x: self.out((h := self.hidden(x)) - h.mean(1, keepdim=True)),
}


@pytest.mark.parametrize("way", HIDDEN)
def test_code_that_the_graph_does_not_show(way, as_found):
    model = Net(HIDDEN[way], hidden=nn.Linear(5, 8), out=nn.Linear(8, 3), two=nn.Linear(8, 3))
    model.hidden.weight.data[0] = 0
    with as_found(model):
        groups = pl.coupled(model, ROWS)
    assert not groups and "hidden.weight" in groups.left_out
    masks = {"hidden.weight": (torch.arange(8) > 0)[:, None].expand(8, 5)}
    with as_found(model), pytest.warns(UserWarning, match=r"units of hidden\.weight stay as zeros"):
        small = pl.shrink(model, masks, ROWS)
    torch.testing.assert_close(small(ROWS), masked(model, masks)(ROWS))
    assert small.hidden.out_features == 8


def test_a_network_that_torch_pruning_cannot_follow(as_found):
    """Where channels are split in halves and shuffled the graph ends; the rest goes on."""
    model, image = torchvision.models.shufflenet_v2_x0_5(), torch.rand(1, 3, 32, 32)
    with as_found(model):
        groups = pl.coupled(model, image)
    assert len(groups) == 18 and len(groups.left_out) > 18
    masks = halves(model, image)
    small = pl.shrink(model, masks, image).eval()
    assert parameters(small) < 0.9 * parameters(model)
    torch.testing.assert_close(small(image), masked(model, masks).eval()(image))


def test_models_without_values():
    with pytest.raises(ValueError, match=r"0\.weight has no shape yet: run one batch"):
        pl.coupled(nn.Sequential(nn.LazyLinear(3)), ROWS)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 3))
    with pytest.raises(ValueError, match=r"0\.weight is on the meta device and has no values"):
        pl.shrink(model, {"0.weight": torch.ones(4, 5) > 0}, ROWS)


# ---- recalibration ----


def test_recalibration_averages_over_all_batches_alike():
    model, _, _ = build("chain")
    model.append(nn.Dropout())
    model[1].momentum, model[4].training = 0.3, False
    model[1].num_batches_tracked += 7
    batches = [torch.rand(n, 3, 8, 8).double() + n for n in (2, 3, 5)]
    first = [model[0](x).transpose(0, 1).flatten(1) for x in batches]
    others = {n: t.clone() for n, t in model.state_dict().items() if "running" not in n}
    rng = torch.get_rng_state()
    pl.recalibrate(model, iter([(batches[0], "label"), [batches[1]], batches[2]]))
    assert rng.equal(torch.get_rng_state())
    mean, var = (sum(f(x, 1) for x in first) / 3 for f in (torch.mean, torch.var))
    torch.testing.assert_close(model[1].running_mean, mean)
    torch.testing.assert_close(model[1].running_var, var)
    second = [model[:1](x) for x in batches]
    second = [F.batch_norm(x, None, None, model[1].weight, model[1].bias, True) for x in second]
    mean = sum(model[3](x.relu()).mean((0, 2, 3)) for x in second) / 3
    torch.testing.assert_close(model[4].running_mean, mean)
    assert model[1].momentum == 0.3 and model[4].momentum == 0.1
    assert [m.training for m in model] == [i != 4 for i in range(10)]
    for name, tensor in model.state_dict().items():
        assert name not in others or "tracked" in name or tensor.equal(others[name]), name


def test_a_recalibrated_model_sees_normalised_channels():
    model, example, _ = build("chain")
    small = pl.shrink(model, halves(model, example), example)
    outputs = []
    small[1].register_forward_hook(lambda *args: outputs.append((args[-1], small[1])))
    with torch.no_grad():
        small.eval()(*example)
        pl.recalibrate(small, [example])
        outputs.clear()
        small(*example)
    (output, layer), *_ = outputs
    torch.testing.assert_close(output.mean((0, 2, 3)), layer.bias.detach())


def test_recalibration_without_batches_or_norms(as_found):
    model, example, _ = build("chain")
    with as_found(model), pytest.raises(ValueError, match="batches is empty"):
        pl.recalibrate(model, iter([]))
    with as_found(model), pytest.raises(RuntimeError, match="expected input"):
        pl.recalibrate(model, [example[0], example[0][:, :2]])
    plain = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False))
    with pytest.raises(ValueError, match="Sequential has no BatchNorm with running statistics"):
        pl.recalibrate(plain, [torch.rand(3, 2)])


# ---- on disk ----


@pytest.mark.parametrize("name", MODELS)
def test_a_smaller_model_comes_back_from_disk(name, tmp_path):
    model, example, _ = build(name)
    small = pl.shrink(model, halves(model, example), example)
    pl.save_shrunk(small, tmp_path / "small")
    loaded = pl.load_shrunk(MODELS[name][0](), tmp_path / "small")
    assert str(loaded) == str(small)
    assert [f.name for f in tmp_path.iterdir()] == ["small"]
    for one, other in zip(loaded.state_dict().values(), small.state_dict().values(), strict=True):
        assert one.equal(other) and one.dtype == other.dtype
    torch.testing.assert_close(loaded.eval()(*example), small.eval()(*example))
    loaded(*example).sum().backward()


def test_tied_weights_come_back_tied(tmp_path):
    def tied():
        model = nn.Sequential(nn.Embedding(7, 12), Block(), nn.Linear(12, 7))
        model[2].weight = model[0].weight
        return model

    model = tied()
    small = pl.shrink(model, halves(model, TOKENS), TOKENS)
    pl.save_shrunk(small, tmp_path / "small")
    loaded = pl.load_shrunk(tied().requires_grad_(False), str(tmp_path / "small"))
    assert loaded[2].weight is loaded[0].weight and not loaded[0].weight.requires_grad
    torch.testing.assert_close(loaded(TOKENS), small(TOKENS))


def test_tensors_that_share_memory_are_written_apart(model, tmp_path):
    model.register_buffer("whole", torch.rand(4, 3))
    model.register_buffer("part", model.whole[1:].t())
    pl.save_shrunk(model, tmp_path / "m")
    twin = copy.deepcopy(model)
    twin.whole.zero_()
    loaded = pl.load_shrunk(twin, tmp_path / "m")
    assert loaded.whole.equal(model.whole) and loaded.part.equal(model.part)


def three(middle, *last):
    return nn.Sequential(nn.Linear(5, 4), middle, *last)


@pytest.mark.parametrize(
    "other, message",
    [
        (three(nn.Tanh(), nn.Linear(4, 3)), "1 (ReLU) where this one has 1 (Tanh)"),
        (three(nn.ReLU()), "2 (Linear) where this one has 0.bias"),
        (three(nn.ReLU(), nn.Linear(4, 3, bias=False)), "2.bias where this one has 2.weight"),
        (three(nn.ReLU(), nn.Linear(4, 3), nn.ReLU()), "0.bias where this one has 3 (ReLU)"),
    ],
)
def test_a_file_of_another_model(other, message, tmp_path, as_found):
    pl.save_shrunk(three(nn.ReLU(), nn.Linear(4, 3)), tmp_path / "m")
    with (
        as_found(other),
        pytest.raises(ValueError, match=re.escape(f"m holds another model: {message}")),
    ):
        pl.load_shrunk(other, tmp_path / "m")


def test_a_file_of_something_else(model, tmp_path, as_found):
    safetensors.torch.save_file(dict(model.state_dict()), tmp_path / "m")
    with as_found(model), pytest.raises(ValueError, match=r"m holds another model: 0\.bias where"):
        pl.load_shrunk(model, tmp_path / "m")


@pytest.mark.parametrize("keep_bytes", [0, 5, 100, -1])
def test_a_truncated_file(keep_bytes, model, tmp_path, as_found):
    path = tmp_path / "m"
    pl.save_shrunk(model, path)
    path.write_bytes(path.read_bytes()[:keep_bytes])
    with (
        as_found(model),
        pytest.raises(ValueError, match=r"m is no whole safetensors file .*again"),
    ):
        pl.load_shrunk(model, path)
