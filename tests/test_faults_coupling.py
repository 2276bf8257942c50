"""Faults on models that people have, by kind: which layers share channels, and what can be removed."""

import copy
import dataclasses
import pickle
import re
import time
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
import torchvision
from test_shrink import Net, conv, masked, norm, parameters
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import pruninglib as pl
from pruninglib.base import trial
from pruninglib.base.state import copied
from pruninglib.measure.ledger import peak_allocation

IMAGE = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
TOKENS = torch.rand(2, 5, 12, generator=torch.Generator().manual_seed(0))


def without_half(model, example, groups=None):
    """The model with half of all units masked, and a smaller one without them."""
    groups = pl.coupled(model, example) if groups is None else groups
    kept = pl.select(pl.pool(pl.random(model), groups), 0.5, budget=pl.uniform)
    masks = pl.spread(kept, groups)
    return masked(model, masks).eval(), pl.shrink(model, masks, example).eval()


def rest_goes_on(model, example, groups, run=None):
    """Just these groups are found, and can be removed."""
    found = pl.coupled(model, example)
    assert {name: group.units for name, group in found.items()} == groups
    if groups:
        zeros, small = without_half(model, example, found)
        call = run or (lambda m: m(*example) if isinstance(example, tuple) else m(example))
        with torch.no_grad():
            torch.testing.assert_close(call(small), call(zeros), rtol=1e-4, atol=1e-5)
        assert parameters(small) < parameters(model)
    return found.left_out


# ---- code that puts channels in another order, or in other dimensions ----


def shuffled(x):
    return x.view(len(x), 2, -1, *x.shape[2:]).transpose(1, 2).flatten(1, 2)


REORDERED = {
    "pixel unshuffle": (lambda self, x: self.two(F.pixel_unshuffle(self.one(x), 2)), conv(16, 6)),
    "channel shuffle": (lambda self, x: self.two(shuffled(self.one(x))), conv(4, 6)),
    "turned around": (lambda self, x: self.two(self.one(x).flip(1)), conv(4, 6)),
    "channels last": (
        lambda self, x: self.two(self.one(x).permute(0, 2, 3, 1).flatten(1)[:, :, None, None]),
        nn.Conv2d(256, 6, 1),
    ),
    "maxout": (
        lambda self, x: self.two(self.one(x).view(len(x), 2, 2, 8, 8).amax(1)),
        conv(2, 6),
    ),
    "mean over channels": (
        lambda self, x: self.two((h := self.one(x)) - h.mean(1, keepdim=True)),
        conv(4, 6),
    ),
}


@pytest.mark.parametrize("way", REORDERED)
def test_a_wrong_group_is_left_out_and_named(way, as_found):
    run, two = REORDERED[way]
    model = Net(
        lambda self, x: self.last(run(self, x).relu()),
        **{"one": conv(3, 4), "two": two, "last": conv(6, 2)},
    )
    with as_found(model):
        why = rest_goes_on(model, IMAGE, {"two.weight": 6})
    assert set(why) == {"one.weight", "last.weight"}
    assert why["last.weight"] == "its channels are outputs of the model"


@pytest.mark.parametrize("way", ["pixel unshuffle", "channels last", "turned around"])
def test_masked_units_of_a_wrong_group_stay_as_zeros(way, as_found):
    run, two = REORDERED[way]
    model = Net(
        lambda self, x: self.last(run(self, x).relu()),
        **{"one": conv(3, 4), "two": copy.deepcopy(two), "last": conv(6, 2)},
    )
    masks = pl.select(pl.magnitude(model), 0.5, grain=pl.channel, budget=pl.uniform)
    with as_found(model), pytest.warns(UserWarning, match=r"units of one\.weight stay as zeros"):
        small = pl.shrink(model, masks, IMAGE)
    assert small.one.out_channels == 4 and small.two.out_channels == 3
    groups = pl.coupled(model, IMAGE)
    full = masks | {
        name: mask & masks.get(name, True)
        for name, mask in pl.spread({"two.weight": masks["two.weight"][:, 0, 0, 0]}, groups).items()
    }
    torch.testing.assert_close(small(IMAGE), masked(model, full)(IMAGE))


@pytest.mark.parametrize("free", [True, False])
def test_a_matrix_that_becomes_feature_maps(free):
    """Decoders. Code that fixes the number of maps keeps them."""
    shape = (2, -1, 4, 4) if free else (-1, 4, 4, 4)
    model = Net(
        lambda self, x: self.out(self.norm(self.up(x).view(shape)).relu()),
        **{"up": nn.Linear(12, 64), "norm": norm(4), "out": nn.ConvTranspose2d(4, 3, 2)},
    )
    why = rest_goes_on(model, TOKENS[:, 0], {"up.weight": 4} if free else {})
    assert ("up.weight" in why) != free
    if not free:
        with pytest.raises(ValueError, match=r"there are no units to score: .*up\.weight: "):
            pl.pool(pl.magnitude(model), pl.coupled(model, TOKENS[:, 0]))


def test_units_that_meet_in_one_place_are_one():
    """Rows 16 k to 16 k + 15 make map k."""
    model = Net(
        lambda self, x: self.out(self.up(x).view(2, -1, 4, 4)),
        **{"up": nn.Linear(12, 64), "out": conv(4, 2)},
    )
    group = pl.coupled(model, TOKENS[:, 0])["up.weight"]
    assert group.makes["up.bias"].tolist() == [i // 16 for i in range(64)]
    small = pl.shrink(
        model, pl.spread({"up.weight": torch.arange(4) != 1}, {"up.weight": group}), TOKENS[:, 0]
    )
    assert small.up.out_features == 48 and small.out.in_channels == 3


def test_feature_maps_and_tokens_in_one_network():
    model = Net(
        lambda self, x, tokens: (
            self.head(self.conv(x).relu().flatten(1)) + self.down(self.up(tokens).relu()).mean(1)
        ),
        **{"conv": conv(3, 4), "head": nn.Linear(256, 6), "up": nn.Linear(12, 8)},
        down=nn.Linear(8, 6),
    )
    rest_goes_on(model, (IMAGE, TOKENS), {"conv.weight": 4, "up.weight": 8})


def test_patches_as_tokens_beside_feature_maps():
    """Of one picture: patches in a transformer's layout, and maps that are flattened."""
    model = Net(
        lambda self, x: (
            self.head(self.conv(x).relu().flatten(1))
            + self.down(self.up(self.patch(x).flatten(2).transpose(1, 2)).relu()).mean(1)
        ),
        **{"conv": conv(3, 4), "head": nn.Linear(256, 6), "patch": nn.Conv2d(3, 5, 4, 4)},
        **{"up": nn.Linear(5, 8), "down": nn.Linear(8, 6)},
    )
    rest_goes_on(model, IMAGE, {"conv.weight": 4, "patch.weight": 5, "up.weight": 8})


# ---- attention ----


def heads(t, count):
    return t.view(*t.shape[:2], count, -1).transpose(1, 2)


def expanded(t):
    b, h, n, d = t.shape
    return t[:, :, None].expand(b, h, 2, n, d).reshape(b, 2 * h, n, d)


def rotated(t):
    one, two = t.chunk(2, -1)
    return t * 0.6 + torch.cat((-two, one), -1) * 0.8


def half_rotated(t):
    return t * 0.6 + torch.cat((-t[..., 2:], t[..., :2]), -1) * 0.8


SHARED = {
    "expand": (2, expanded),
    "repeat_interleave": (2, lambda t: t.repeat_interleave(2, 1)),
    "one head for all": (1, lambda t: t.expand(-1, 4, -1, -1)),
    "rotary by chunk": (4, rotated),
    "rotary by slices": (4, half_rotated),
}


@pytest.mark.parametrize("way", SHARED)
def test_feed_forward_units_go_where_heads_cannot(way):
    keys, change = SHARED[way]

    def run(self, x):
        q = heads(self.q(x), 4)
        k, v = (change(heads(f(x), keys)) for f in (self.k, self.v))
        q = change(q) if keys == 4 else q
        x = x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return self.head(x + self.down(F.silu(self.gate(x)) * self.up(x)))

    shapes = {"q": (12, 16), "k": (12, 4 * keys), "v": (12, 4 * keys), "o": (16, 12)}
    shapes |= {"gate": (12, 10), "up": (12, 10), "down": (10, 12), "head": (12, 7)}
    model = Net(run, **{name: nn.Linear(*shape) for name, shape in shapes.items()})
    model.num_heads = 4
    found = pl.coupled(model, TOKENS)
    assert found["gate.weight"].units == 10 and not {"q.weight", "k.weight"} & set(found)
    assert {"q.weight", "k.weight", "v.weight"} <= set(found.left_out)
    zeros, small = without_half(model, TOKENS)
    torch.testing.assert_close(small(TOKENS), zeros(TOKENS))
    assert small.up.out_features == 5 and small.q.out_features == 16


def attend(self, x):
    q, k, v = (heads(f(x), self.count()) for f in (self.q, self.k, self.v))
    mixed = (q @ k.transpose(-2, -1) + self.bias).softmax(-1) @ v
    return self.o(mixed.transpose(1, 2).flatten(2))


def attention(count, bias=0.0, **numbers):
    model = Net(attend, **{name: nn.Linear(12, 12) for name in "qkvo"})
    model.count = count.__get__(model)
    model.register_buffer("bias", torch.as_tensor(bias))
    for name, number in numbers.items():
        setattr(model, name, number)
    return nn.Sequential(nn.Linear(12, 12), model, nn.Linear(12, 3))


@pytest.mark.parametrize(
    "names",
    [["n_head"], ["num_attention_heads"], ["n_heads"], ["num_heads", "num_key_value_heads"]],
    ids="+".join,
)
def test_the_number_of_heads_under_its_many_names(names):
    model = attention(lambda self: getattr(self, names[-1]), **dict.fromkeys(names, 3))
    zeros, small = without_half(model, TOKENS)
    torch.testing.assert_close(small(TOKENS), zeros(TOKENS))
    assert {getattr(small[1], name) for name in names} == {1} and small[1].q.out_features == 4


@pytest.mark.parametrize("name", ["head_dim", "attention_head_size"])
def test_heads_known_by_their_size(name):
    model = attention(lambda self: self.q.out_features // getattr(self, name), **{name: 4})
    assert pl.coupled(model, TOKENS)["1.q.weight"].units == 3
    zeros, small = without_half(model, TOKENS)
    torch.testing.assert_close(small(TOKENS), zeros(TOKENS))
    assert getattr(small[1], name) == 4 and small[1].q.out_features == 4


@pytest.mark.parametrize("shape", [(3, 1, 1), (1, 3, 5, 5)])
def test_a_bias_for_each_head(shape):
    model = attention(lambda self: self.heads, torch.rand(shape), heads=3)
    model.append(nn.Linear(3, 8)).append(nn.ReLU()).append(nn.Linear(8, 2))
    why = rest_goes_on(
        model, TOKENS, {"0.weight": 12, "1.o.weight": 12, "2.weight": 3, "3.weight": 8}
    )
    assert "1.q.weight" in why


def test_packed_queries_keys_and_values_are_left_out_with_a_reason():
    def run(self, x):
        q, k, v = self.qkv(x).chunk(3, -1)
        return self.o(F.scaled_dot_product_attention(q, k, v))

    model = Net(run, qkv=nn.Linear(12, 36), o=nn.Linear(12, 3))
    assert pl.coupled(model, TOKENS).left_out["qkv.weight"] == "its channels are split"


# ---- what is drawn, or found, while the model runs ----

DRAWN = {
    "noise": lambda h: h + torch.randn_like(h),
    "dropout that never ends": lambda h: F.dropout(h, 0.5),
    "rows of a given shape": lambda h: h * torch.rand(h.shape),
    "channels dropped": lambda h: F.dropout2d(h, 0.5),
    "in place": lambda h: h * torch.empty_like(h).bernoulli_(0.5),
    "not of channels": lambda h: h + torch.randn(1),
    "dropout as on a GPU": lambda h: torch.native_dropout(h, 0.5, True)[0],
    "an integer": lambda h: h * torch.randint(2, 9, ()),
}


@pytest.mark.parametrize("way", DRAWN)
def test_random_numbers_in_forward(way, as_found):
    model = Net(
        lambda self, x: self.two(DRAWN[way](self.one(x)).relu()), one=conv(3, 8), two=conv(8, 2)
    )
    with as_found(model):
        groups = pl.coupled(model, IMAGE)
        masks = pl.spread({"one.weight": torch.arange(8) % 3 > 0}, groups)
        small = pl.shrink(model, masks, IMAGE)
    assert small.one.out_channels == 5
    wrong = Net(
        lambda self, x: self.two(DRAWN[way](self.one(x)).flip(1)), one=conv(3, 8), two=conv(8, 2)
    )
    assert not pl.coupled(wrong, IMAGE)


def detector(found):
    def run(self, x):
        scores = self.score(h := self.body(x).relu()).flatten(1)
        return self.box(h).permute(0, 2, 3, 1).flatten(0, 2)[scores.flatten() > found]

    return Net(run, body=conv(3, 8), score=conv(8, 1), box=conv(8, 4))


@pytest.mark.parametrize("found", [1e9, -1e9])
def test_a_detector_that_finds_nothing(found):
    rest_goes_on(detector(found), IMAGE, {"body.weight": 8})


def test_a_wrong_group_behind_outputs_that_show_nothing():
    model = detector(1e9)
    model.body = nn.Sequential(conv(3, 8), Net(lambda self, h: h.flip(1)))
    assert "body.0.weight" in pl.coupled(model, IMAGE).left_out


@pytest.mark.parametrize("zero", ["head", "gate"])
def test_outputs_that_begin_at_zero(zero):
    """As the heads of torchvision's and DeiT's transformers do."""
    model = Net(
        lambda self, x: self.head(self.gate * self.one(x).flip(-1)),
        **{"one": nn.Linear(12, 8), "head": nn.Linear(8, 3), "gate": nn.Parameter(torch.ones(1))},
    )
    for p in getattr(model, zero).parameters() if zero == "head" else [model.gate]:
        nn.init.zeros_(p)
    why = rest_goes_on(model, TOKENS, {})
    assert "differs by" in why["one.weight"]
    masks = {"one.weight": (torch.arange(8) > 0)[:, None].expand(8, 12)}
    with pytest.warns(UserWarning, match="stay as zeros"):
        assert pl.shrink(model, masks, TOKENS).one.out_features == 8


@pytest.mark.parametrize("value", [float("-inf"), float("inf"), float("nan")])
def test_outputs_that_are_not_finite(value):
    """Masked logits: what is finite is compared, and the rest must be the same."""

    def run(self, x):
        y = self.two(self.change(self.one(x)).relu())
        return torch.cat([y, torch.full_like(y[..., :1], value)], -1)

    layers = {"one": nn.Linear(12, 8), "two": nn.Linear(8, 3)}
    model = Net(run, **layers)
    model.change = lambda h: h.flip(-1)
    assert not pl.coupled(model, TOKENS)
    model.change = lambda h: h
    assert pl.coupled(model, TOKENS)["one.weight"].units == 8
    model.change = lambda h: h / (h.shape[-1] == 8)  # infinite once channels are gone
    assert not pl.coupled(model, TOKENS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_hides_no_difference(dtype):
    """Off by one part in a hundred, less than the square root of a bfloat16's epsilon."""
    model = Net(
        lambda self, x: self.two((h := self.one(x)) + 0.02 * h.mean(-1, keepdim=True)),
        **{"one": nn.Linear(12, 8), "two": nn.Linear(8, 3)},
    ).to(dtype)
    x = TOKENS.to(dtype)
    assert not pl.coupled(model, x)
    masks = {"one.weight": (torch.arange(8) > 0)[:, None].expand(8, 12)}
    with pytest.warns(UserWarning, match="stay as zeros"):
        assert pl.shrink(model, masks, x).one.out_features == 8


def test_what_code_makes_without_a_dtype_is_made_in_double_precision():
    """Else the model would run in float32 alone, where so small a difference is let pass."""
    model = Net(
        lambda self, x: self.two(
            (h := self.one(x)) @ torch.eye(h.shape[-1]) + 2e-3 * h.mean(-1, keepdim=True)
        ),
        **{"one": nn.Linear(12, 8), "two": nn.Linear(8, 3)},
    )
    assert not pl.coupled(model, TOKENS)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_code_with_a_fixed_dtype(dtype):
    def run(self, x):
        return self.two(
            self.one(x).relu().to(dtype)
            @ torch.eye(8, dtype=dtype)[:, :][: self.one.out_features, : self.one.out_features]
        )

    model = Net(run, one=nn.Linear(12, 8), two=nn.Linear(8, 3)).to(dtype)
    assert pl.coupled(model, TOKENS.to(dtype))["one.weight"].units == 8


# ---- layers of other kinds ----


class Frozen(nn.Module):
    """As in detectors: no parameters."""

    def __init__(self, n):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(n) + 0.5)

    def forward(self, x):
        scale = self.weight * self.running_var.rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class NormAct(nn.BatchNorm2d):
    """As timm's: a norm with an activation inside."""

    def __init__(self, n):
        super().__init__(n)
        self.drop, self.act = nn.Identity(), nn.ReLU()

    def forward(self, x):
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)
        return self.act(self.drop(x))


class PlainNormAct(NormAct):
    def forward(self, x):
        return self.act(nn.BatchNorm2d.forward(self, x))


@pytest.mark.parametrize(
    "layer",
    [
        lambda: torchvision.ops.FrozenBatchNorm2d(8),
        lambda: Frozen(8),
        lambda: NormAct(8),
        lambda: PlainNormAct(8),
        lambda: nn.SyncBatchNorm(8),
        lambda: nn.InstanceNorm2d(8),
        lambda: nn.InstanceNorm2d(8, affine=True),
        lambda: nn.InstanceNorm2d(8, affine=True, track_running_stats=True),
        lambda: nn.PReLU(),
        lambda: nn.PReLU(8),
    ],
)
def test_layers_that_act_on_channels_one_by_one(layer, tmp_path):
    def build():
        return nn.Sequential(conv(3, 8), layer(), conv(8, 2))

    model = build()
    for tensor in [*model[1].parameters(), *model[1].buffers()]:
        if tensor.is_floating_point():
            tensor.data.uniform_(0.5, 1.5)
    rest_goes_on(model, IMAGE, {"0.weight": 8})
    zeros, small = without_half(model, IMAGE)
    pl.save_shrunk(small, tmp_path / "small")
    loaded = pl.load_shrunk(build(), tmp_path / "small").eval()
    torch.testing.assert_close(loaded(IMAGE), zeros(IMAGE))


def test_layers_that_run_only_in_training():
    def run(self, x):
        h = self.body(x).relu()
        return (self.head(h), self.aux(h)) if self.training else self.head(h)

    model = Net(run, body=conv(3, 8), head=conv(8, 2), aux=nn.Sequential(norm(8), conv(8, 2)))
    groups = pl.coupled(model, IMAGE)
    assert {"head.weight", "aux.0.bias", "aux.1.weight"} < {
        *groups["body.weight"].makes, *groups["body.weight"].reads
    }  # fmt: skip
    zeros, small = without_half(model, IMAGE)
    for one, other in zip(small.train()(IMAGE), zeros.train()(IMAGE), strict=True):
        torch.testing.assert_close(one, other)


def test_a_detector_that_wants_targets_in_training():
    def run(self, x, targets=None):
        if self.training:
            raise ValueError("targets")
        return self.head(self.body(x).relu())

    model = Net(lambda self, x: None, body=conv(3, 8), head=conv(8, 2), loss=nn.Linear(2, 2))
    model.run = run
    rest_goes_on(model, IMAGE, {"body.weight": 8})


def test_googlenet_trains_on_without_half():
    model = torchvision.models.googlenet(init_weights=False, aux_logits=True, num_classes=10)
    image = torch.rand(2, 3, 96, 96)
    _, small = without_half(model, image)
    assert small.aux1.conv.conv.in_channels == 256
    outputs = small.train()(image)
    assert outputs.aux_logits1.shape == (2, 10)


COMPUTED = {
    "weight norm": parametrizations.weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "a mask of torch": lambda m: prune.random_unstructured(m, "weight", 0.5),
    "a computed bias": lambda m: parametrize.register_parametrization(m, "bias", nn.Softplus()),
}


@pytest.mark.parametrize("way", COMPUTED)
def test_a_computed_weight_is_left_out(way, as_found):
    model = nn.Sequential(
        *(nn.Linear(12, 8), nn.ReLU(), COMPUTED[way](nn.Linear(8, 6))),
        *(nn.ReLU(), nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 3)),
    )
    model(TOKENS)
    with as_found(model):
        found = pl.coupled(model, TOKENS)
    assert "4.weight" in found
    assert "computed from other tensors" in found.left_out["2.weight"]
    names = [name for name in pl.prunable(model, exclude="2.*") if "2." not in name]
    kept = pl.select(pl.pool(pl.magnitude(model, names), found), 0.5, budget=pl.uniform)
    masks = pl.spread(kept, found)
    small = pl.shrink(model, masks, TOKENS)
    zeros = copied(model)
    pl.apply(zeros, masks)
    torch.testing.assert_close(small(TOKENS), zeros(TOKENS))
    if way != "a computed bias":
        with pytest.warns(UserWarning, match=r"left out is 2\.weight, computed from other"):
            assert pl.sparsity(model).prunable == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pl.sparsity(model, exclude="2.*").prunable == 0


@pytest.mark.parametrize(
    "model, inputs",
    [
        (Net(lambda self, x: self.mix(x, x), mix=nn.Bilinear(12, 12, 3)), TOKENS),
        (
            Net(
                lambda self, x: self.out(self.mix(x, y := torch.ones(2, 5, 6), y)[0]),
                **{"mix": nn.MultiheadAttention(12, 3, kdim=6, vdim=6, batch_first=True)},
                out=nn.Linear(12, 3),
            ),
            TOKENS,
        ),
        (nn.Sequential(nn.Linear(12, 8), nn.LayerNorm(8), nn.Linear(8, 3)), TOKENS),
        (nn.Sequential(nn.Linear(12, 1), nn.Linear(1, 3)), TOKENS),
    ],
)
def test_where_nothing_can_go_who_scores_is_told_why(model, inputs):
    found = pl.coupled(model, inputs)
    assert not found and set(found.left_out) == set(pl.prunable(model))
    name, why = next(iter(found.left_out.items()))
    with pytest.raises(ValueError, match=re.escape(f"there are no units to score: {name}: {why}")):
        pl.pool(pl.magnitude(model), found)
    assert str(pl.shrink(model, pl.masks_of(model), inputs)) == str(model)


def test_scores_of_none_of_the_groups(model):
    groups = pl.coupled(model, torch.rand(2, 4))
    with pytest.raises(ValueError, match=r"no units to score: none of 0\.weight has scores"):
        pl.pool({"2.weight": torch.rand(3, 6)}, groups)


# ---- as found ----


def test_an_example_that_does_not_fit_leaves_nothing_behind(model, as_found):
    before = pickle.dumps(model)
    for wrong in (torch.rand(2, 5), {"x": torch.rand(2, 4)}, "text"):
        with as_found(model), pytest.raises(Exception):  # noqa: B017 the model's own
            pl.coupled(model, wrong)
        with as_found(model), pytest.raises(Exception):  # noqa: B017
            pl.shrink(model, pl.masks_of(model), wrong)
    assert pickle.dumps(model) == before
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


class Caches(nn.Module):
    """Computes a bias once and keeps it, as LeViT does in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(12, 8), nn.Linear(8, 3)
        self.kept = {}

    def forward(self, x):
        if "bias" not in self.kept:
            self.kept["bias"] = self.two.bias * 2
        return self.two(self.one(x).relu()) + self.kept["bias"]


@pytest.mark.parametrize("run_before", [False, True])
def test_a_model_that_keeps_what_it_computed(run_before):
    model = Caches()
    if run_before:
        model(TOKENS)
    kept = model.kept.copy()
    zeros_and_small = without_half(model, TOKENS) if not run_before else None
    assert list(pl.coupled(model, TOKENS)) == ["one.weight"]
    assert model.kept == kept
    masks = pl.spread({"one.weight": torch.arange(8) > 3}, pl.coupled(model, TOKENS))
    assert pl.shrink(model, masks, TOKENS).one.out_features == 4
    if zeros_and_small:
        copy.deepcopy(model)


@pytest.mark.parametrize("way", ["whole", "in place", "a part"])
def test_a_compiled_model(way, as_found):
    model = nn.Sequential(conv(3, 8), norm(8), nn.ReLU(), conv(8, 2))
    plain = copy.deepcopy(model)
    prefix = ""
    if way == "whole":
        model, prefix = torch.compile(model), "_orig_mod."
    elif way == "in place":
        model.compile()
    else:
        model = nn.Sequential(torch.compile(model[:3]), model[3])
        prefix = "0._orig_mod."
    with as_found(model):
        groups = pl.coupled(model, IMAGE)
    assert list(groups) == [f"{prefix}0.weight"]
    kept = pl.select(pl.pool(pl.magnitude(model), groups), 0.5)
    small = pl.shrink(model, pl.spread(kept, groups), IMAGE)
    assert parameters(small) < parameters(plain)
    assert {len(p) for p in small.parameters()} == {4, 2}


# ---- outputs ----


@dataclasses.dataclass
class Output:
    logits: torch.Tensor
    loss: None = None


class Named(OrderedDict):
    pass


class Odd:
    def __init__(self, x):
        self.x = x


@pytest.mark.parametrize(
    "wrap",
    [
        Output,
        lambda y: Named(logits=y),
        lambda y: [{"a": (y, None)}],
        lambda y: (3, "a", y),
        lambda y: Output(y, Odd(y)),  # as a language model with its cache
    ],
)
def test_outputs_in_other_types(wrap):
    model = Net(lambda self, x: wrap(self.b(self.a(x))), a=nn.Linear(12, 8), b=nn.Linear(8, 3))
    assert list(pl.coupled(model, TOKENS)) == ["a.weight"]


def test_a_list_of_estimates_that_are_refined():
    """As RAFT's: each begins where the one before ended, and no gradient leads back to it."""

    def refine(self, x):
        seen, flow, estimates = self.see(x), torch.zeros(len(x), 2, 8, 8), []
        for _ in range(3):
            flow = flow.detach()
            grid = flow.permute(0, 2, 3, 1) / 8
            moved = F.grid_sample(seen, grid, align_corners=False)
            flow = flow + self.step(self.mix(moved).relu())
            estimates.append(flow)
        return estimates

    model = Net(refine, see=conv(3, 4), mix=conv(4, 6), step=conv(6, 2))
    rest_goes_on(model, IMAGE, {"see.weight": 4, "mix.weight": 6}, run=lambda m: m(IMAGE)[-1])


@pytest.mark.parametrize(
    "wrap, message",
    [
        (lambda y: y.argmax(-1), "Net gives a Tensor in which no floating-point tensor was found"),
        (Odd, "Net gives a Odd in which no floating-point"),
        (lambda y: None, "Net gives a NoneType in which"),
        (lambda y: y.detach(), "no gradient leads from the outputs of Net to its weights"),
    ],
)
def test_outputs_that_show_nothing(wrap, message, as_found):
    model = Net(lambda self, x: wrap(self.b(self.a(x))), a=nn.Linear(12, 8), b=nn.Linear(8, 3))
    with as_found(model), pytest.raises(ValueError, match=message):
        pl.coupled(model, TOKENS)
    with as_found(model), pytest.raises(ValueError, match=message):
        pl.shrink(model, pl.masks_of(model), TOKENS)


@pytest.mark.parametrize("example", [{"x": TOKENS}, (TOKENS,), TOKENS])
def test_examples_in_other_types(example):
    model = Net(None, a=nn.Linear(12, 8), b=nn.Linear(8, 3))
    model.forward = lambda x: model.b(model.a(x))
    model = type("Named", (Net,), {"forward": lambda self, x: self.b(self.a(x))})(
        None, a=nn.Linear(12, 8), b=nn.Linear(8, 3)
    )
    assert list(pl.coupled(model, example)) == ["a.weight"]


# ---- cost ----


def test_a_swin_transformer_ends():
    model = torchvision.models.SwinTransformer(
        [4, 4], 12, depths=[2, 2], num_heads=[2, 4], window_size=[2, 2], num_classes=3
    )
    found = pl.coupled(model.eval(), torch.rand(1, 3, 16, 16))
    assert len(found) == 4 and all(".mlp.0." in name for name in found)


def test_too_intricate_a_graph_is_given_up(model, as_found, monkeypatch):
    monkeypatch.setattr("pruninglib.base.coupling.STEPS", 3)
    example = torch.rand(2, 4)
    with as_found(model), pytest.raises(ValueError, match="gave up following Sequential after 3"):
        pl.coupled(model, example)


def test_wrong_groups_beyond_a_bound_are_given_up(monkeypatch):
    monkeypatch.setattr("pruninglib.base.trial.TRIALS", 5)
    layers = [
        layer for _ in range(6) for layer in (nn.Linear(12, 12), Net(lambda _, h: h.flip(-1)))
    ]
    found = pl.coupled(nn.Sequential(*layers, nn.Linear(12, 3)), TOKENS)
    assert not found
    assert sum("not tried" in why for why in found.left_out.values()) >= 3


def test_many_wrong_groups_among_right_ones():
    turned = Net(lambda _, h: h.flip(-1))
    order = [0, 1, 0, 0, 1, 1, 0, 1, 0]
    layers = [layer for bad in order for layer in (nn.Linear(12, 12), turned if bad else nn.ReLU())]
    found = pl.coupled(nn.Sequential(*layers, nn.Linear(12, 3)), TOKENS)
    assert list(found) == [f"{2 * i}.weight" for i, bad in enumerate(order) if not bad]


def flattened() -> tuple[nn.Module, torch.Tensor]:
    """8.5 MB of weights, nearly all of them behind a flattened map, and an image."""
    model = nn.Sequential(
        *(conv(1, 8), nn.Flatten(), nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, 4))
    )
    return model, torch.rand(1, 1, 16, 16)


def test_time_in_proportion_to_the_weights():
    """vgg11_bn took 47 s, 2.5 times what sorting its weights takes; now it is a quarter."""
    model, image = flattened()

    def seconds(use) -> float:  # of the processor, so that other processes do not count
        start = time.process_time()
        use()
        return time.process_time() - start

    ours = min(seconds(lambda: pl.coupled(model, image)) for _ in range(3))
    assert ours < min(seconds(lambda: model[2].weight.flatten().sort()) for _ in range(3))


def test_memory_in_proportion_to_the_weights():
    """vgg11_bn took 6.9 GB, for an int64 for each of its weights."""
    (model, image), found = flattened(), {}
    bytes_held = sum(p.numel() * p.element_size() for p in model.parameters())
    scores = pl.magnitude(model)

    def recipe():
        found["groups"] = pl.coupled(model, image)
        found["pooled"] = pl.pool(scores, found["groups"])

    assert peak_allocation(recipe) < 4.5 * bytes_held
    kept = pl.select(found["pooled"], 0.5)
    assert peak_allocation(lambda: pl.spread(kept, found["groups"])) < bytes_held


@pytest.mark.parametrize("units", range(2, 13))
def test_the_units_tried_lie_in_no_order(units):
    """To remove the first and the last is right, even where code turns channels around."""
    model = Net(
        lambda self, x: self.two(self.one(x).flip(-1)),
        **{"one": nn.Linear(12, units), "two": nn.Linear(units, 3)},
    )
    assert not pl.coupled(model, TOKENS)
    if units % 2 == 0 and units > 2:
        model.run = lambda self, x: self.two(self.one(x).unflatten(-1, (2, -1)).mT.flatten(-2))
        assert not pl.coupled(model, TOKENS)


# ---- how outputs are compared ----

INF, NAN = float("inf"), float("nan")


def noted(name, *values, shape=None, dtype=torch.float64):
    values = torch.tensor(values, dtype=dtype)
    return trial._Seen(name, torch.Size(shape or values.shape), values)


DIFFERENT = {
    "another layer": (noted("a", 1), noted("b", 1), "a runs where b did"),
    "more than before": (noted("a", 1), noted("", 1), "a runs where nothing did"),
    "outputs of another shape": (noted("", 1), noted("", 1, 2), r"outputs are \(1,\), not \(2,\)"),
    "other integers": (noted("a", 1, dtype=torch.int64), noted("a", 2, dtype=torch.int64), "int64"),
    "NaN": (noted("", 1, NAN), noted("", 1, 2), "at other places"),
    "no NaN": (noted("", 1, 2), noted("", 1, NAN), "at other places"),
    "no infinity": (noted("", 1, 2), noted("", 1, INF), "at other places"),
    "no minus infinity": (noted("", 1, 2), noted("", 1, -INF), "at other places"),
    "the other infinity": (noted("", 1, -INF), noted("", 1, INF), "at other places"),
    "the second of two": (
        noted("a", 1, 2),
        noted("a", 1, 3),
        "what a gives, up to 3, differs by 1",
    ),
    "less": (noted("a", 1, 3), noted("a", 1, 4), "what a gives, up to 4, differs by 1"),
    "beside infinity": (noted("", 1, INF), noted("", 2, INF), "up to 2, differs by 1"),
    "a little in single precision": (
        noted("", 1.0004, dtype=torch.float32),
        noted("", 1, dtype=torch.float32),
        "differs by 0.0004",
    ),
    "a little": (noted("", 1 + 2e-6), noted("", 1), "differs by 2e-06"),
    "a little of something negative": (noted("", -1 - 2e-6), noted("", -1), "differs by 2e-06"),
}
ALIKE = {
    "a layer of another shape": (noted("a", 1, 2), noted("a", 1, 2, 3)),
    "the same integers": (noted("a", 5, dtype=torch.int64), noted("a", 5, dtype=torch.int64)),
    "the same places": (noted("", NAN, INF, -INF, 1), noted("", NAN, INF, -INF, 1)),
    "nothing finite": (noted("", NAN), noted("", NAN)),
    "nothing": (noted(""), noted("")),
    "by rounding": (noted("", 1 + 5e-7), noted("", 1)),
    "by rounding of something negative": (noted("", -1 - 5e-7, 0), noted("", -1, 0)),
    "by rounding in half precision": (
        noted("", 1.01, dtype=torch.bfloat16), noted("", 1, dtype=torch.bfloat16)
    ),
    "by rounding in single precision": (
        noted("", 1.0002, dtype=torch.float32), noted("", 1, dtype=torch.float32)
    ),
    "by rounding of something large": (noted("", 1000.0005), noted("", 1000)),
}  # fmt: skip


@pytest.mark.parametrize("one, other, message", DIFFERENT.values(), ids=DIFFERENT)
def test_what_is_different(one, other, message):
    with pytest.raises(trial._DifferenceError, match=message):
        trial._Watch([other]).compare(one, other)


@pytest.mark.parametrize("one, other", ALIKE.values(), ids=ALIKE)
def test_what_is_alike(one, other):
    trial._Watch([other]).compare(one, other)


def test_what_is_the_rest_of_large_values_may_differ_as_those_do():
    one, other = noted("", 1e-3 + 1e-8), noted("", 1e-3)
    with pytest.raises(trial._DifferenceError):
        trial._Watch([other]).compare(one, other)
    for large in [noted("a", -1e6), other], [other, noted("a", -1e6)]:
        trial._Watch(large).compare(one, other)


class Gives(nn.Module):
    def __init__(self, *given):
        super().__init__()
        self.given = given

    def forward(self, x):
        return self.given


A, B = torch.ones(2), torch.ones(2) * 2


@pytest.mark.parametrize(
    "before, after, message",
    [
        ((A, B), (A,), "the model gives fewer outputs"),
        ((A,), (A, B), "the model runs where nothing did"),
        ((A, B), (B, A), "differs by 1"),
        ((A * (1 + 1j),), (A * (1 + 2j),), "differs by 1"),
        ((torch.zeros(250_000),), (torch.arange(250_000) == 1,), "differs|bool|other"),
    ],
)
def test_outputs_one_after_the_other(before, after, message):
    after = tuple(t.to(one.dtype) for t, one in zip(after, (*before, B), strict=False))
    expected = trial._Watch().run(Gives(*before), A)
    trial._Watch(expected).run(Gives(*before), A)
    with pytest.raises(trial._DifferenceError, match=message):
        trial._Watch(expected).run(Gives(*after), A)


def test_what_was_seen_is_not_written_into_later():
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(inplace=True))
    with torch.no_grad():
        model[0].weight.copy_(-torch.eye(2))
        seen = trial._Watch().run(model, A[None])
    assert [one.name for one in seen] == ["0", ""]
    assert seen[0].values.tolist() == [-1, -1] and seen[1].values.tolist() == [0, 0]
    assert not model[0]._forward_hooks


# ---- which of many are wrong ----


def wrong_of(bad, names, monkeypatch):
    """What is found where each of these sets goes wrong as a whole, and how often it was tried."""
    tried = []

    def difference(self, names):
        tried.append(names)
        return next((f"{sorted(one)}" for one in bad if one <= {*names}), "")

    monkeypatch.setattr(trial._Trials, "difference", difference)
    return trial.wrong(nn.Linear(1, 1), {}, dict.fromkeys(names), A), tried


def test_what_is_right_alone_may_be_wrong_together(monkeypatch):
    found, _ = wrong_of([{"a", "b"}], "ab", monkeypatch)
    assert found == {"b": "right alone, but with a: ['a', 'b']"}
    # one that is wrong alone hides two that are wrong together
    found, _ = wrong_of([{"a"}, {"b", "c"}], "abcd", monkeypatch)
    assert found.keys() == {"a", "c", "d"} or found.keys() == {"a", "d", "c"}
    assert found["a"] == "['a']" and "but with b" in found["c"]


def test_few_trials_find_one_of_many(monkeypatch):
    names = [f"{i}" for i in range(64)]
    found, tried = wrong_of([{"37"}], names, monkeypatch)
    assert (
        found == {"37": "['37']"} and len(tried) == 14
    )  # two of each of six halves, and both ends
    found, tried = wrong_of([], names, monkeypatch)
    assert not found and len(tried) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_model_that_writes_into_its_example(dtype):
    model = Net(
        lambda self, x: self.two(self.one(x.mul_(2)).relu()),
        **{"one": nn.Linear(12, 8), "two": nn.Linear(8, 3)},
    ).to(dtype)
    x = TOKENS.to(dtype, copy=True)
    groups = pl.coupled(model, x)
    assert groups["one.weight"].units == 8 and x.equal(TOKENS.to(dtype))
    masks = pl.spread({"one.weight": torch.arange(8) > 3}, groups)
    assert pl.shrink(model, masks, x).one.out_features == 4 and x.equal(TOKENS.to(dtype))
