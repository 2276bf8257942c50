"""Which layers lose units together, which can't and why; and what a trial shows, on its own."""

import re

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from test_shrink import Net, conv, norm
from torch import nn
from torch.nn.utils import parametrizations, prune

import pruninglib as pl
from pruninglib.base import trial
from pruninglib.base.coupling import Coupling, Part, couplings

seeded = torch.Generator().manual_seed(0)
IMAGE = torch.rand(2, 3, 4, 4, generator=seeded)
TOKENS = torch.rand(2, 5, 12, generator=seeded)
ROWS = torch.rand(4, 5, generator=seeded)
WORDS = torch.randint(7, (2, 5), generator=seeded)

ENDS = "its channels are outputs of the model"
SINGLE = "it has a single unit"
SPLIT = "its channels are split"
UNTOLD = "how many heads attend is not told: no module around has heads or num_heads"
IDLE = "its module is not called on the example, or nothing follows from it"
GROUPS = " takes channels in groups that are no groups here"
MIXED = "a norm acts on its channels, where removing is not zeroing"
JOINED = "its channels are joined with others that can't be told apart"


def layers(shapes, layer=nn.Linear):
    return {name: layer(*shape) for name, shape in shapes.items()}


def hidden(run, width=8, **more):
    """Rows to 8 channels, what happens to them, and what reads them."""
    return Net(run, hidden=nn.Linear(5, 8), out=nn.Linear(width, 3), **more)


def maps(run, width=8, **more):
    return Net(run, hidden=conv(3, 8), out=conv(width, 3), **more)


def words(run, width=12, **more):
    return Net(run, hidden=nn.Linear(12, 12), out=nn.Linear(width, 3), **more)


def chain(*modules):
    return nn.Sequential(conv(3, 8), *modules)


def tied(model, one, other, key="weight"):
    setattr(model.get_submodule(other), key, getattr(model.get_submodule(one), key))
    return model


def inner(count=3, fused=False, last="o", **numbers):
    """So many heads, a number or a function of the module that has these numbers as attributes."""

    def run(self, x):
        heads = count if isinstance(count, int) else count(self)
        q, k, v = (f(x).view(2, 5, heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v) if fused else (q @ k.mT).softmax(-1) @ v
        mixed = mixed.transpose(1, 2).flatten(2)
        return self.o(mixed) if last else mixed

    model = Net(run, **layers(dict.fromkeys(f"qkv{last or ''}", (12, 12))))
    vars(model).update(numbers)
    return model


def attention(*options, outer=(), **numbers):
    model = nn.Sequential(inner(*options, **numbers), nn.Linear(12, 3))
    vars(model).update(outer)
    return model


def no_heads(why):
    return {"0.o.weight": 12}, {"1.weight": ENDS} | {f"0.{n}.weight": why for n in "qkv"}


def thrice(self, x):
    one, other = self.hidden(x).split([4, 4], 1)
    return self.out(torch.cat([self.a(x), self.b(x), one * 2, other * 3, one * 4], 1))


def unseen(self, x):
    with torch.no_grad():
        h = self.a(x)
    return self.out(self.hidden(x)) + self.b(h), h


CASES = {
    # ---- what acts on channels one by one ----
    "a gate for each map": (
        maps(lambda self, x: self.out((h := self.hidden(x)) * h.mean((2, 3), True).expand(-1, -1, 4, 4))),
        IMAGE, {"hidden.weight": 8}, {},
    ),
    "a norm called as a function": (
        hidden(lambda self, x: self.out(F.batch_norm(self.hidden(x), None, None, training=True))),
        ROWS, {"hidden.weight": 8}, {},
    ),
    "a slope for all": (hidden(lambda self, x: self.out(self.slope(self.hidden(x))), slope=nn.PReLU()), ROWS, {"hidden.weight": 8}, {}),
    "a norm in another's place": (
        Net(lambda self, x: self.out(self.norm(torch.cat([self.hidden(x), self.a(x)], 1)).relu()), hidden=conv(3, 8), a=conv(3, 4), norm=norm(12), out=conv(12, 3)),
        IMAGE, {"hidden.weight": 8, "a.weight": 4}, {},
    ),
    "a table of numbers": (
        hidden(lambda self, x: self.out(self.hidden(x[:, self.order]).relu()), order=nn.Parameter(torch.arange(5), requires_grad=False)),
        ROWS, {"hidden.weight": 8}, {},
    ),
    "complex numbers, frozen": (
        Net(lambda self, x: self.out(self.hidden(x + 0j).abs()), hidden=nn.Linear(5, 8, dtype=torch.complex64), out=nn.Linear(8, 3)).requires_grad_(False),
        ROWS, {"hidden.weight": 8}, {},
    ),
    # ---- what is joined, reshaped, repeated or split ----
    "joined, then flattened": (
        Net(lambda self, x: self.out(self.norm(torch.cat([self.a(x), self.hidden(x)], 1)).flatten(1)), a=conv(3, 2), hidden=conv(3, 4), norm=norm(6), out=nn.Linear(96, 3)),
        IMAGE, {"a.weight": 2, "hidden.weight": 4}, {},
    ),
    "joined along the batch": (hidden(lambda self, x: self.out(torch.cat([self.hidden(x), self.hidden(-x)]))), ROWS, {}, {"hidden.weight": JOINED}),
    "split in chunks": (hidden(lambda self, x: self.out(torch.cat(self.hidden(x).chunk(2, 1)[::-1], 1))), ROWS, {}, {"hidden.weight": SPLIT}),
    "unbound": (hidden(lambda self, x: self.out(torch.cat(self.hidden(x).view(-1, 2, 4).unbind(1), 1))), ROWS, {}, {"hidden.weight": SPLIT}),
    "sliced": (hidden(lambda self, x: self.out(self.hidden(x)[:, :6]), 6), ROWS, {}, {"hidden.weight": SPLIT}),
    "added to a half": (
        Net(lambda self, x: self.out(self.hidden(x).chunk(2, 1)[0] + self.a(x)), hidden=nn.Linear(5, 8), a=nn.Linear(5, 4), out=nn.Linear(4, 3)),
        ROWS, {}, {"hidden.weight": SPLIT, "a.weight": SPLIT},
    ),
    "repeated": (
        hidden(lambda self, x: self.out(self.hidden(x)[:, None, :, None, None].expand(-1, 2, -1, 1, 1).flatten(1)), 16),
        ROWS, {}, {"hidden.weight": "its channels are repeated"},
    ),
    "split beside what goes on": (
        tied(Net(lambda self, x: thrice(self, x) + self.c(x).sum(), hidden=nn.Linear(5, 8), a=nn.Linear(5, 4), b=nn.Linear(5, 4), c=nn.Linear(5, 4), out=nn.Linear(20, 3)), "b", "c"),
        ROWS, {}, {"hidden.weight": SPLIT, "a.weight": "how its channels are reshaped or joined can't be followed (IndexError: list index out of range)", "b.weight": "b.weight is tied: it has several names", "c.weight": ENDS},
    ),
    "a mean of several channels": (
        words(lambda self, x: self.out(self.hidden(x).view(2, 5, 3, 4).mean(2)), 4),
        TOKENS, {}, {"hidden.weight": "its code fails after hidden (RuntimeError: shape '[2, 5, 3, 4]' is invalid"},
    ),
    "means of neighbours": (
        hidden(lambda self, x: self.out(F.avg_pool1d(self.hidden(x)[:, None], 2, 1).squeeze(1)), 7),
        ROWS, {}, {"hidden.weight": "out has 7 channels, and not what reaches it"},
    ),
    # ---- what acts on channels together ----
    "a parameter of no layer": (hidden(lambda self, x: self.out(self.hidden(x) + self.shift), shift=nn.Parameter(torch.rand(8))), ROWS, {}, {"hidden.weight": "a parameter that belongs to no such layer meets its channels"}),
    "LayerNorm": (hidden(lambda self, x: self.out(self.norm(self.hidden(x))), norm=nn.LayerNorm(8)), ROWS, {}, {"hidden.weight": "norm (LayerNorm) acts on its channels"}),
    "GroupNorm": (chain(nn.GroupNorm(2, 8), conv(8, 3)), IMAGE, {}, {"0.weight": "1 (GroupNorm) acts on its channels", "2.weight": ENDS}),
    "layer_norm": (hidden(lambda self, x: self.out(F.layer_norm(self.hidden(x), (8,)))), ROWS, {}, {"hidden.weight": MIXED}),
    "normalize": (hidden(lambda self, x: self.out(F.normalize(self.hidden(x)))), ROWS, {}, {"hidden.weight": MIXED}),
    "softmax": (hidden(lambda self, x: self.out(self.hidden(x).softmax(1))), ROWS, {}, {"hidden.weight": UNTOLD}),
    # ---- convolutions in groups ----
    "transposed": (chain(nn.ConvTranspose2d(8, 8, 1, groups=2), conv(8, 3)), IMAGE, {}, {"0.weight": "1" + GROUPS, "1.weight": "1" + GROUPS, "2.weight": ENDS}),
    "transposed, one by one": (chain(nn.ConvTranspose2d(8, 8, 1, groups=8), conv(8, 3)), IMAGE, {}, {"0.weight": "1" + GROUPS, "1.weight": "1" + GROUPS, "2.weight": ENDS}),
    "two made of each": (chain(conv(8, 16, groups=8), conv(16, 3)), IMAGE, {"1.weight": 2}, {"0.weight": SINGLE, "2.weight": ENDS}),
    "of two one made": (chain(conv(8, 4, groups=4), conv(4, 3)), IMAGE, {}, {"0.weight": SINGLE, "1.weight": SINGLE, "2.weight": ENDS}),
    "of what was joined": (
        Net(lambda self, x: self.out(self.g(torch.cat([self.a(x), self.b(x)], 1))), a=conv(3, 4), b=conv(3, 4), g=conv(8, 4, groups=2), out=conv(4, 3)),
        IMAGE, {"g.weight": 2}, {"a.weight": "g" + GROUPS, "b.weight": "g" + GROUPS},
    ),
    "of what was joined with itself": (
        Net(lambda self, x: self.out(self.g(torch.cat([h := self.a(x), h], 1))), a=conv(3, 4), g=conv(8, 4, groups=2), out=conv(4, 3)),
        IMAGE, {"g.weight": 2}, {"a.weight": "g" + GROUPS},
    ),
    "one by one of what was joined": (
        Net(lambda self, x: self.out(self.g(torch.cat([self.a(x), self.b(x)], 1))), a=conv(3, 4), b=conv(3, 4), g=conv(8, 8, groups=8), out=conv(8, 3)),
        IMAGE, {"a.weight": 8}, {},
    ),
    # ---- weights that are several, or none ----
    "a tied bias": (
        tied(Net(lambda self, x: self.out(self.b(self.a(x).relu()).relu()), a=nn.Linear(5, 5), b=nn.Linear(5, 5), out=nn.Linear(5, 3)), "a", "b", "bias"),
        ROWS, {}, {"a.weight": "a.bias is tied: it has several names", "b.weight": "b.bias is tied: it has several names"},
    ),
    "tied weights beside others": (
        tied(Net(lambda self, x: self.out(self.c(self.b(self.a(x))).relu()), a=nn.Linear(5, 5), b=nn.Linear(5, 5), c=nn.Linear(5, 6), out=nn.Linear(6, 3)), "a", "b"),
        ROWS, {"c.weight": 6}, {"a.weight": "a.weight is tied: it has several names", "b.weight": "b.weight is tied: it has several names"},
    ),
    "a norm behind a tied weight": (
        tied(Net(lambda self, x: self.out(self.norm(self.hidden(x)) + self.b(x)) + self.c(x).sum(), hidden=nn.Linear(5, 8), norm=nn.LayerNorm(8), b=nn.Linear(5, 8), c=nn.Linear(5, 8), out=nn.Linear(8, 3)), "b", "c"),
        ROWS, {}, {"hidden.weight": "norm (LayerNorm) acts on its channels", "b.weight": "b.weight is tied: it has several names", "c.weight": ENDS},
    ),
    "a computed weight": (nn.Sequential(parametrizations.weight_norm(nn.Linear(5, 8)), nn.Linear(8, 3)), ROWS, {}, {"0.weight": "weight of 0 is computed from other tensors", "1.weight": ENDS}),
    "read by a computed weight": (
        nn.Sequential(nn.Linear(5, 8), prune.random_unstructured(nn.Linear(8, 6), "weight", 0.5), nn.Linear(6, 3)),
        ROWS, {}, {"0.weight": "weight of 1 is computed from other tensors", "1.weight": "weight of 1 is computed from other tensors", "2.weight": ENDS},
    ),
    "a bias masked by torch": (
        nn.Sequential(prune.random_unstructured(nn.Linear(5, 8), "bias", 0.5), nn.Linear(8, 3)),
        ROWS, {}, {"0.weight": "bias of 0 is computed from other tensors", "1.weight": ENDS},
    ),
    "a layer that never runs": (hidden(lambda self, x: self.out(self.hidden(x).relu()), idle=nn.Linear(8, 8)), ROWS, {"hidden.weight": 8}, {"idle.weight": IDLE}),
    "a layer that runs without gradients": (
        Net(unseen, hidden=nn.Linear(5, 6), out=nn.Linear(6, 3), a=nn.Linear(5, 8), b=nn.Linear(8, 3)),
        ROWS, {"hidden.weight": 6}, {"b.weight": ENDS, "a.weight": IDLE},
    ),
    "a layer of another kind": (
        hidden(lambda self, x: self.out(self.hidden(x).relu()) + self.mix(x, x), mix=nn.Bilinear(5, 5, 3)),
        ROWS, {"hidden.weight": 8}, {"mix.weight": "Bilinear is no layer that can lose channels"},
    ),
    "a single layer": (nn.Linear(5, 3), ROWS, {}, {"weight": ENDS}),
    "a single channel": (nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 1), nn.Linear(1, 3)), WORDS, {"0.weight": 4}, {"1.weight": SINGLE, "2.weight": ENDS}),
    "several outputs": (
        Net(lambda self, x: (self.out(self.hidden(x)), x.argmax(1), self.two(h := self.a(x)), h.detach()), **layers({"hidden": (5, 8), "out": (8, 3), "a": (5, 6), "two": (6, 2)})),
        ROWS, {"hidden.weight": 8}, {"two.weight": ENDS, "a.weight": "outputs are (4, "},
    ),
    # ---- heads ----
    "heads": (attention(lambda self: self.heads, heads=3), TOKENS, {"0.q.weight": 3, "0.o.weight": 12}, {"1.weight": ENDS}),
    "fused": (attention(lambda self: self.heads, True, heads=3), TOKENS, {"0.q.weight": 3, "0.o.weight": 12}, {"1.weight": ENDS}),
    "heads and their size": (attention(lambda self: self.heads, heads=3, head_dim=4), TOKENS, {"0.q.weight": 3, "0.o.weight": 12}, {"1.weight": ENDS}),
    "heads twice": (attention(lambda self: self.n_heads, heads=3, n_heads=3), TOKENS, {"0.q.weight": 3, "0.o.weight": 12}, {"1.weight": ENDS}),
    "heads, and the last layer outside": (
        Net(lambda self, x: self.out(self.o(self.attend(x))), attend=inner(lambda self: self.heads, last=None, heads=3), o=nn.Linear(12, 12), out=nn.Linear(12, 3)),
        TOKENS, {"attend.q.weight": 3, "o.weight": 12}, {},
    ),
    "heads are not told": (attention(), TOKENS, *no_heads(UNTOLD)),
    "fused heads are not told": (attention(fused=True), TOKENS, *no_heads(UNTOLD)),
    "heads share keys": (attention(num_heads=3, num_key_value_heads=1), TOKENS, *no_heads("attention heads share keys")),
    "heads do not divide": (attention(heads=5), TOKENS, *no_heads(UNTOLD)),
    "the size does not divide": (attention(head_dim=5), TOKENS, *no_heads(UNTOLD)),
    "no heads": (attention(heads=0), TOKENS, *no_heads(UNTOLD)),
    "heads are a flag": (attention(heads=True), TOKENS, *no_heads(UNTOLD)),
    "the size is no number": (attention(head_dim=None), TOKENS, *no_heads(UNTOLD)),
    "another's heads": (attention(heads=5, outer={"heads": 3}), TOKENS, *no_heads(UNTOLD)),
    "heads of a module of a like name": (
        Net(lambda self, x: self.attend(x) + self.a(x), attend=attention(), a=Net(lambda self, x: 0, heads=3)),
        TOKENS, {"attend.0.o.weight": 12}, {"attend.1.weight": ENDS} | {f"attend.0.{n}.weight": UNTOLD for n in "qkv"},
    ),
}  # fmt: skip
for name in ("head_dim", "attention_head_size", "dim_head", "d_kv", "key_value_proj_dim"):
    model = attention(
        lambda self, name=name: self.q.out_features // getattr(self, name), **{name: 4}
    )
    CASES[f"a size as {name}"] = (
        model,
        TOKENS,
        {"0.q.weight": 3, "0.o.weight": 12},
        {"1.weight": ENDS},
    )


@pytest.mark.parametrize("way", CASES)
def test_what_is_found_and_what_is_left_out_with_its_reason(way):
    model, example, units, left_out = CASES[way]
    if hasattr(model, "out"):
        left_out = {"out.weight": ENDS} | left_out
    groups = pl.coupled(model.eval(), example)
    assert {name: group.units for name, group in groups.items()} == units
    assert groups.left_out.keys() == left_out.keys()
    for name, why in left_out.items():
        assert groups.left_out[name].startswith(why)  # how many units were tried may follow


# ---- which slices of which tensors are a unit's ----


def places(tensors):
    """By tensor the unit of each slice along the dimension that tells them apart."""
    return {
        name: [units[(0,) * axis][(slice(None), *[0] * (units.dim() - axis - 1))].tolist()
               for axis in range(units.dim())
               if units.dim() == 1 or units.float().std(axis).max() > 0][-1]
        for name, units in tensors.items()
    }  # fmt: skip


def test_where_the_units_of_joined_maps_lie():
    model, example, *_ = CASES["joined, then flattened"]
    groups, none = pl.coupled(model, example), -1
    two, four = [0, 1], [0, 1, 2, 3]
    a, hidden = groups["a.weight"], groups["hidden.weight"]
    assert places(a.makes) == {
        "a.weight": two, "a.bias": two,
        "norm.weight": two + [none] * 4, "norm.bias": two + [none] * 4,
    }  # fmt: skip
    assert places(hidden.makes) == {
        "hidden.weight": four, "hidden.bias": four,
        "norm.weight": [none] * 2 + four, "norm.bias": [none] * 2 + four,
    }  # fmt: skip
    assert a.reads.keys() == hidden.reads.keys() == {"out.weight"}
    assert a.reads["out.weight"][2].tolist() == [i // 16 for i in range(32)] + [none] * 64
    assert hidden.reads["out.weight"][2].tolist() == [none] * 32 + [i // 16 for i in range(64)]


def test_scores_of_what_belongs_to_another_group_are_not_pooled():
    model, example, *_ = CASES["joined, then flattened"]
    groups = pl.coupled(model, example)
    scores = {"norm.weight": torch.tensor([3.0, 4.0, -1.0, -1.0, -1.0, -1.0])}
    pooled = pl.pool(scores, {"a.weight": groups["a.weight"]}, "l2")
    assert pooled["a.weight"].tolist() == [3, 4]
    assert pl.pool(scores, groups, "mean")["hidden.weight"].tolist() == [-1] * 4
    scores = {name: torch.ones(p.shape) for name, p in model.named_parameters()}
    assert pl.pool(scores, groups, "l2")["a.weight"].tolist() == [30**0.5] * 2  # 27 + 1 + 1 + 1
    with pytest.raises(ValueError, match=r"some of norm\.weight are negative"):
        pl.pool({"norm.weight": -torch.ones(6)}, groups, "l2")
    for shape in [(3, 2), (6, 2)]:
        with pytest.raises(ValueError, match=re.escape(f"have shape {shape}, but must be (6,)")):
            pl.pool({"norm.weight": torch.ones(shape)}, groups)


def test_a_group_goes_by_the_first_of_the_weights_that_are_asked_for():
    model = maps(lambda self, x: self.out(self.hidden(x) + self.a(x)), a=conv(3, 8))
    names = ["a.weight", "hidden.weight", "out.weight"]
    assert list(couplings(model, names, IMAGE)) == ["a.weight"]
    assert list(couplings(model, names[1:], IMAGE)) == ["hidden.weight"]
    found = couplings(model, ["out.weight"], IMAGE)
    assert not found and found.left_out == {"out.weight": ENDS}
    model = nn.Sequential(*(nn.Linear(5, 5) for _ in range(4)))
    names = [f"{i}.weight" for i in (2, 0, 1, 3)]
    assert list(couplings(model, names, ROWS)) == names[:3]


# ---- what goes wrong while the graph is read ----


def test_errors_of_the_model_come_as_they_are():
    def run(self, x):
        raise KeyError("the model's own")

    with pytest.raises(KeyError, match="the model's own"):
        pl.coupled(hidden(run), ROWS)


def test_a_model_of_a_single_layer_that_is_computed():
    with pytest.raises(
        ValueError,
        match="ParametrizedLinear has nothing to prune: none of its modules, but what is left",
    ):
        pl.coupled(parametrizations.weight_norm(nn.Linear(5, 3)), ROWS)


def test_errors_of_torch_pruning_are_told_as_such(monkeypatch):
    def fails(self, *args):
        raise KeyError("a node")

    monkeypatch.setattr(tp.DependencyGraph, "_build_dependency", fails)
    with pytest.raises(ValueError, match=r"Torch-Pruning can't follow Net \(KeyError: 'a node'\)"):
        pl.coupled(*CASES["a slope for all"][:2])


def dense(self, x):
    seen = [self.a(x)]
    for _ in range(6):
        seen.append(torch.cat(seen, 1).relu()[:, :2])
    return self.out(torch.cat(seen, 1))


@pytest.mark.parametrize(
    "model, steps",
    [(nn.Sequential(*(nn.Linear(5, 5) for _ in range(8))), 30),
     (Net(dense, a=nn.Linear(5, 2), out=nn.Linear(14, 3)), 500)],
    ids=["a chain", "joined again and again"],
)  # fmt: skip
def test_each_look_at_the_graph_is_a_step(model, steps, monkeypatch):
    monkeypatch.setattr("pruninglib.base.coupling.STEPS", steps)
    with pytest.raises(ValueError, match=rf"gave up following \w+ after {steps} steps"):
        pl.coupled(model, ROWS)


# ---- what is tried ----

NOISE = {
    "normal": lambda h: h + torch.normal(torch.zeros_like(h), 1.0),
    "normal in place": lambda h: h + torch.empty_like(h).normal_(),
    "rand_like": lambda h: h * torch.rand_like(h),
    "randn": lambda h: h + torch.randn(h.shape, dtype=h.dtype),
    "uniform": lambda h: h + torch.empty_like(h).uniform_(1, 2),
    "exponential": lambda h: h + torch.empty_like(h).exponential_(),
    "log normal": lambda h: h + torch.empty_like(h).log_normal_(),
    "Cauchy": lambda h: h + torch.empty_like(h).cauchy_(),
    "Bernoulli": lambda h: h * torch.bernoulli(torch.full_like(h, 0.5)),
}


@pytest.mark.parametrize("way", NOISE)
def test_noise_of_every_kind_hides_no_units_and_no_faults(way):
    model = hidden(lambda self, x: self.out(NOISE[way](self.hidden(x))))
    assert list(pl.coupled(model, ROWS)) == ["hidden.weight"]
    model.run = lambda self, x: self.out(NOISE[way](self.hidden(x)).flip(1))
    assert "differs by" in pl.coupled(model, ROWS).left_out["hidden.weight"]


SILENCING = {
    "integers": lambda h: h * torch.empty(h.shape, dtype=torch.int64).bernoulli_(0.9),
    "slopes": lambda h: F.rrelu(h, 0.5, 1.0, training=True),
    "written over": lambda h: h - torch.native_dropout(h, 0.5, True)[0].mul_(2),
}


@pytest.mark.parametrize("way", SILENCING)
def test_draws_that_are_not_settled_silence_nothing(way):
    model = hidden(lambda self, x: self.out(SILENCING[way](self.hidden(x)).flip(1)))
    assert "differs by" in pl.coupled(model, ROWS).left_out["hidden.weight"]


def fails_early(self, x):
    if len(self.hidden.weight) < 8:
        raise ValueError("too narrow\nby far")
    return self.out(self.hidden(x))


def test_why_code_fails_is_told_in_one_line():
    left_out = pl.coupled(hidden(fails_early), ROWS).left_out
    assert left_out["hidden.weight"] == "its code fails (ValueError: too narrow)"
    run = lambda self, x: self.out(self.hidden(self.first(x)).view(-1, 8))  # noqa: E731
    left_out = pl.coupled(hidden(run, first=nn.Linear(5, 5)), ROWS).left_out
    assert left_out["hidden.weight"].startswith("its code fails after hidden (RuntimeError: shape")


def test_a_model_that_runs_only_with_gradients():
    def run(self, x):
        if not torch.is_grad_enabled():
            raise RuntimeError("forces need gradients")
        return self.out(self.hidden(x))

    message = r"Net runs neither in float64 nor in float32, so what is removed from it can't be"
    with pytest.raises(ValueError, match=message + r" checked \(forces need gradients\)"):
        pl.coupled(hidden(run), ROWS)


@pytest.mark.parametrize("off", [torch.no_grad, torch.inference_mode])
def test_a_model_that_takes_gradients_inside(off):
    def run(self, x):
        with torch.enable_grad():
            at = torch.ones(1, requires_grad=True)
            (slope,) = torch.autograd.grad((at * 2).sum(), at)
        return self.out(self.hidden(x)) * slope

    with off():
        assert list(pl.coupled(hidden(run), ROWS)) == ["hidden.weight"]


def test_code_that_catches_every_exception():
    """As retries and fallbacks do."""

    def run(self, x):
        try:
            self.seen = self.out(self.hidden(x).flip(1)).detach()
        except Exception:
            self.seen = None
        return self.rest(x)

    model = Net(run, hidden=nn.Linear(5, 8), out=nn.Linear(8, 1), rest=nn.Linear(5, 2))
    assert "differs by" in pl.coupled(model, ROWS).left_out["hidden.weight"]


def test_large_integers_beside_what_is_compared():
    """Numbers of samples, times: what is given as floats is rounded no more for them."""
    wrong = hidden(lambda self, x: (self.out(self.hidden(x).flip(1)), torch.tensor(10**15)))
    assert "differs by" in pl.coupled(wrong, ROWS).left_out["hidden.weight"]


def test_what_no_weights_give_may_depend_on_how_many_channels_there_are():
    """A monitor of activations, say, that nothing follows from."""
    monitor = Net(lambda self, h: h.mean())
    model = hidden(lambda self, x: (self.watch(h := self.hidden(x)), self.out(h))[1], watch=monitor)
    assert list(pl.coupled(model, ROWS)) == ["hidden.weight"]


def test_an_example_of_inference_mode_or_of_integers_stays_as_it_is():
    model = words(
        lambda self, x: self.out(self.hidden(self.e(x.add_(1))).relu()), e=nn.Embedding(9, 12)
    )
    with torch.inference_mode():
        fresh = WORDS.clone()
    for x in (WORDS.clone(), fresh):
        assert list(pl.coupled(model, x)) == ["hidden.weight", "e.weight"]
        assert x.equal(WORDS)
    with torch.inference_mode():
        fresh = ROWS.clone()
    assert list(pl.coupled(hidden(lambda self, x: self.out(self.hidden(x.mul_(2)))), fresh)) == [
        "hidden.weight"
    ]
    assert fresh.equal(ROWS)


def test_the_default_dtype_stays():
    model, example, units, _ = CASES["a norm called as a function"]
    torch.set_default_dtype(torch.float64)
    try:
        assert list(pl.coupled(model, example)) == list(units)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)


# ---- groups tried as they are given ----


def given(units=8, reads=None, bias=True, **more):
    """A group of the hidden layer's units, written by hand."""
    units = torch.arange(units)
    parts = [
        Part("hidden.weight", "makes", 0, torch.Size([8, 5]), units),
        Part("hidden.bias", "makes", 0, torch.Size([8]), units),
        Part("out.weight", "reads", 1, torch.Size([3, 8]), units if reads is None else reads),
    ]
    return {"hidden.weight": Coupling([p for p in parts if bias or "bias" not in p.name], ("", []))}


def tried(groups, run=lambda self, x: self.out(self.hidden(x)), gone=(2, 5), **more):
    model = hidden(run, **more)
    keep = torch.tensor([i not in gone for i in range(8)])
    return trial.wrong(model, groups, {"hidden.weight": keep}, ROWS).get("hidden.weight", "")


def test_a_group_given_right():
    assert not tried(given())
    # what else hears of a channel hears nothing of a silent one
    assert not tried(given(), lambda self, x: (self.out(h := self.hidden(x)), h.sum(1)))
    assert "differs by" in tried(
        given(), lambda self, x: (self.out(h := self.hidden(x)), h.mean(1))
    )


def test_groups_given_wrong():
    other = torch.tensor([0, 1, 3, 2, 4, 5, 6, 7])
    assert "differs by" in tried(given(reads=other))
    assert not tried(given(reads=other), gone=(2, 3)), "both of them gone"
    assert tried(given(bias=False)).startswith("its code fails (RuntimeError")
    assert tried(given(reads=torch.full((8,), -1))).startswith("its code fails after hidden (")


def test_outputs_of_as_many_values_in_another_shape():
    def run(self, x):
        return self.out(self.hidden(x)).view(*(2, 6) if len(self.hidden.weight) == 8 else (6, 2))

    assert tried(given(), run) == "outputs are (6, 2), not (2, 6)"


def test_layers_of_as_many_values_in_another_shape_are_left_alone():
    class Turned(nn.PReLU):
        def forward(self, h):
            return (-h if h.shape[1] < 8 else h).view(-1)

    turned = Turned()
    run = lambda self, x: (self.seen(self.hidden(x)), self.out(self.hidden(x)))[1]  # noqa: E731
    assert not tried(given(), run, seen=turned)


@pytest.mark.parametrize(
    "layer",
    [
        lambda n: norm(n),
        lambda n: nn.BatchNorm2d(n, affine=False),
        lambda n: nn.BatchNorm2d(n, track_running_stats=False),
        lambda n: nn.InstanceNorm2d(n, affine=True),
        lambda n: nn.PReLU(n),
        lambda n: conv(n, n, groups=n, bias=False),
        lambda n: conv(n, 6),
        lambda n: nn.Sequential(
            nn.Flatten(), nn.Linear(n * 16, 6, bias=False), nn.Unflatten(1, (6, 1, 1))
        ),
        lambda n: nn.ConvTranspose2d(n, 6, 2),
    ],
)
def test_layers_without_units_are_what_smaller_ones_are(layer):
    torch.manual_seed(0)
    last = conv(6 if "6" in str(layer(8)) else 8, 2)
    model = nn.Sequential(conv(3, 8), layer(8), last).eval().requires_grad_(False)
    model[0].bias.requires_grad_(True)
    groups = pl.coupled(model, IMAGE)
    small = pl.shrink(model, pl.spread({"0.weight": torch.arange(8) > 2}, groups), IMAGE)
    twin = nn.Sequential(conv(3, 5), layer(5), conv(6, 2) if last.in_channels == 6 else conv(5, 2))
    assert str(small) == str(twin)
    for one, other in (
        (small.named_parameters(), twin.named_parameters()),
        (small.named_buffers(), twin.named_buffers()),
    ):
        assert {n: t.shape for n, t in one} == {n: t.shape for n, t in other}
    assert [n for n, p in small.named_parameters() if p.requires_grad] == ["0.bias"]
    assert small[0].weight.equal(model[0].weight[3:]) and small[0].bias.equal(model[0].bias[3:])
    assert small[0].bias.is_leaf
