"""What is prunable, and what every criterion says of it, against slow and plain references."""

import contextlib
import copy
import re
from itertools import chain, combinations, pairwise

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn
from torch.autograd.functional import hessian
from torch.func import functional_call
from torch.nn import functional as F

import pruninglib as pl

GRADIENT_CRITERIA = {
    "gradient": pl.gradient,
    "grasp": pl.grasp,
    "taylor mean": pl.taylor,
    "taylor abs": lambda *args: pl.taylor(*args, reading="abs"),
    "taylor square": lambda *args: pl.taylor(*args, reading="square"),
    "snip": pl.snip,
    "fisher": pl.fisher,
}
DATA_CRITERIA = GRADIENT_CRITERIA | {"wanda": pl.wanda}
each_criterion = pytest.mark.parametrize("criterion", DATA_CRITERIA.values(), ids=DATA_CRITERIA)


def close(one, other, **tolerance):
    assert list(one) == list(other)
    for name in one:
        torch.testing.assert_close(one[name], other[name], **tolerance)


def sample_gradients(model, loss, batches):
    """name -> (samples, *shape), by backward() on a copy, one sample at a time."""
    model, rows = copy.deepcopy(model), []
    for inputs, targets in batches:
        for i in range(len(inputs)):
            model.zero_grad()
            loss(model, (inputs[i : i + 1], targets[i : i + 1])).backward()
            rows.append({n: w.grad.clone() for n, w in pl.weights_of(model).items()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def regression():
    """Linear regression whose residuals are all 1 or -1 and uncorrelated with the inputs."""
    columns = torch.tensor(hadamard(8), dtype=torch.float64)
    inputs = columns[:, 1:5] * torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.float64)
    model = nn.Linear(4, 1, bias=False, dtype=torch.float64)
    targets = (model(inputs) + columns[:, 5:6]).detach()
    return model, lambda m, b: 0.5 * (m(b[0]) - b[1]).square().mean(), [(inputs, targets)]


# ---- which weights ----


def test_prunable_leaves_out_biases_and_norms():
    model = nn.ModuleDict({
        "linear": nn.Linear(3, 4), "conv": nn.Conv2d(2, 4, 3, groups=2),
        "up": nn.ConvTranspose1d(4, 2, 2), "words": nn.Embedding(9, 3), "bag": nn.EmbeddingBag(5, 2),
        "pair": nn.Bilinear(2, 2, 2), "batch": nn.BatchNorm1d(4), "layer": nn.LayerNorm(4),
        "free": nn.ParameterList([nn.Parameter(torch.ones(2, 2))]),
    })  # fmt: skip
    names = [f"{n}.weight" for n in ("linear", "conv", "up", "words", "bag", "pair")]
    assert pl.prunable(model) == names
    assert pl.prunable(model, types=(nn.Linear,)) == ["linear.weight"]
    assert list(pl.weights_of(model, ["linear.bias"])) == ["linear.bias"]
    assert pl.prunable(nn.Linear(2, 2)) == ["weight"]


@pytest.mark.parametrize(
    "exclude, left",
    [
        ([], ["body.0", "body.1", "body.10", "head"]),
        (["body.1.*"], ["body.0", "body.10", "head"]),
        (["body.1*"], ["body.0", "head"]),
        (["*.0.weight", nn.Embedding], ["body.1", "head"]),
        ((nn.Linear, "body.0.weight"), ["body.10"]),
        (["head.*", "h*", "body.?.*"], ["body.10"]),
        (iter(["head.weight"]), ["body.0", "body.1", "body.10"]),
        ("head.*", ["body.0", "body.1", "body.10"]),
        (nn.Linear, ["body.0", "body.10"]),
    ],
)
def test_exclusions(exclude, left):
    model = nn.ModuleDict({
        "body": nn.ModuleDict(
            {"0": nn.Conv1d(2, 2, 1), "1": nn.Linear(2, 2), "10": nn.Embedding(4, 2)}
        ),
        "head": nn.Linear(2, 2), "norm": nn.LayerNorm(2),
    })  # fmt: skip
    total, names = pl.sparsity(model), pl.prunable(model, exclude=exclude)
    assert names == [f"{name}.weight" for name in left] and pl.sparsity(model) == total
    assert list(pl.magnitude(model, names)) == names


@pytest.mark.parametrize("exclude", [["words.*"], ["out.*"], [nn.Embedding], [nn.Linear]])
def test_a_tied_weight_is_excluded_by_any_of_its_names(exclude):
    model = nn.ModuleList([Tied(), nn.Bilinear(2, 2, 2)])
    exclude = [f"0.{e}" if isinstance(e, str) else e for e in exclude]
    assert pl.prunable(model, exclude=exclude) == ["1.weight"]


@pytest.mark.parametrize(
    "exclude, message",
    [
        (["0.weigth"], "0.weigth excludes nothing from Sequential: mistyped?"),
        (["0.*", nn.Conv2d], "Conv2d excludes nothing from Sequential"),
        (["0.bias"], "0.bias excludes nothing"),
        (
            ["*"],
            "Sequential has nothing to prune: none of its modules, but what is left out, is a Linear",
        ),
    ],
)
def test_exclusions_that_leave_nothing_or_everything(exclude, message, model):
    with pytest.raises(ValueError, match=re.escape(message)):
        pl.prunable(model, exclude=exclude)


class Placed(nn.Module):
    """Embeddings of tokens and of their places, which are integers in a buffer."""

    def __init__(self):
        super().__init__()
        self.words, self.places = nn.Embedding(5, 3), nn.Embedding(3, 3)
        self.register_buffer("at", torch.arange(3))

    def forward(self, words):
        return self.words(words) + self.places(self.at)


class Tied(nn.Module):
    """An embedding that is also the output layer."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(5, 3)
        self.out = nn.Linear(3, 5)
        self.out.weight = self.words.weight

    def forward(self, words):
        return self.out(self.words(words).mean(1))


def test_tied_weights_are_scored_pruned_and_counted_once(loss):
    model, batch = Tied(), (torch.tensor([[0, 1], [2, 3]]), torch.tensor([4, 0]))
    assert pl.prunable(model) == ["words.weight"]
    assert list(pl.weights_of(model, ["out.weight"])) == ["out.weight"]
    # its gradient comes from both uses
    loss(model, batch).backward()
    expected = (model.words.weight.grad * model.words.weight).abs().detach()
    close(pl.taylor(model, loss, [batch]), {"words.weight": expected})
    masks = pl.select(pl.magnitude(model), 0.4)
    pl.apply(model, masks)
    found = pl.sparsity(model)
    assert found.prunable == 6 / 15 and found.all == 6 / 20
    assert model.out.weight is model.words.weight


class Twisted(nn.Module):
    """Two layers of the same shape; a third that the loss never reaches."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Linear(4, 3), nn.Linear(2, 2)

    def forward(self, x):
        return self.used(x)


def test_layers_that_the_loss_does_not_reach_score_zero(loss, batches):
    for criterion in GRADIENT_CRITERIA.values():
        scores = criterion(Twisted(), loss, batches)
        assert (scores["unused.weight"] == 0).all() and (scores["used.weight"] > 0).any()


# ---- without data ----


def test_magnitude(model):
    scores = pl.magnitude(model)
    close(scores, {n: w.detach().abs() for n, w in pl.weights_of(model).items()})
    pl.apply(model, pl.select(scores, 1.0))
    assert all((s > 0).all() for s in scores.values()), "the scores changed with the weights"


def test_random_depends_on_its_seed_alone(model, as_found):
    with as_found(model):
        one = pl.random(model, seed=1)
    torch.manual_seed(99)
    close(one, pl.random(model, seed=1), rtol=0, atol=0)
    other = pl.random(model, seed=2)
    assert all((one[n] != other[n]).any() for n in one)
    values = pl.random(nn.Linear(200, 200))["weight"]
    assert values.min() >= 0 and values.max() < 1 and abs(values.mean() - 0.5) < 0.01


def test_random_is_not_the_noise_the_weights_were_drawn_from():
    """Of one seed, the numbers would be the same: the control would prune the negative weights."""
    torch.manual_seed(3)
    layer = nn.Linear(40, 50)
    pairs = torch.stack([layer.weight.flatten(), pl.random(layer, seed=3)["weight"].flatten()])
    assert abs(torch.corrcoef(pairs)[0, 1]) < 0.1


def test_a_shuffle_of_layers_is_another_one_for_each(model):
    scores = pl.random(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)))
    assert (scores["0.weight"] != scores["1.weight"]).all()


# ---- against one sample at a time ----


def by_reference(model, loss, batches):
    gradients = sample_gradients(model, loss, batches)
    w = {n: p.detach() for n, p in pl.weights_of(model).items()}
    mean = {n: (g.mean(0) * w[n]).abs() for n, g in gradients.items()}
    whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))
    names, at = list(w), tuple(w.values())

    def value(*tensors):
        given = dict(zip(names, tensors, strict=True))
        return loss(lambda x: functional_call(model, given, x), whole)

    products = {
        n: sum(
            (h * gradients[m].mean(0)).flatten(w[n].dim()).sum(-1)
            for m, h in zip(names, row, strict=True)
        )
        for n, row in zip(names, hessian(value, at), strict=True)
    }  # H·E[g]
    return {
        "gradient": {n: g.mean(0).abs() for n, g in gradients.items()},
        "grasp": {n: 2 * w[n] * h for n, h in products.items()},
        "taylor mean": mean,
        "taylor abs": {n: (g * w[n]).abs().mean(0) for n, g in gradients.items()},
        "taylor square": {n: (g * w[n]).square().mean(0) for n, g in gradients.items()},
        "snip": {n: s / sum(v.sum() for v in mean.values()) for n, s in mean.items()},
        "fisher": {n: 0.5 * g.square().mean(0) * w[n] ** 2 for n, g in gradients.items()},
    }


@pytest.mark.parametrize("kind", GRADIENT_CRITERIA)
@pytest.mark.parametrize("layer", ["linear", "conv"])
def test_equals_a_loop_over_samples(kind, layer, model, loss, batches):
    if layer == "conv":  # depthwise
        model = nn.Sequential(nn.Unflatten(1, (4, 1)), nn.Conv1d(4, 4, 1, groups=4), nn.Flatten())
    expected = by_reference(model, loss, batches)[kind]
    close(GRADIENT_CRITERIA[kind](model, loss, batches), expected)
    assert sum(float(s.abs().sum()) for s in expected.values()) > 1e-6


@each_criterion
def test_batch_sizes_do_not_matter(criterion, model, loss, batches):
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    whole = criterion(model, loss, [(inputs, targets)])
    close(criterion(model, loss, batches), whole)
    close(criterion(model, loss, zip(inputs.split(3), targets.split(3), strict=True)), whole)


@each_criterion
def test_every_batch_counts(criterion, model, loss, batches):
    both, last = criterion(model, loss, batches[:2]), criterion(model, loss, batches[1:2])
    assert all(not torch.allclose(both[n], last[n]) for n in both)


def test_the_readings_of_taylor_rank_differently(model, loss, batches):
    masks = [
        pl.select(pl.taylor(model, loss, batches, reading=r), 0.5)
        for r in ("mean", "abs", "square")
    ]
    for one, other in combinations(masks, 2):
        assert any((one[n] != other[n]).any() for n in one)


def test_samples_cancel_in_the_mean_and_nowhere_else():
    model, loss, batches = regression()  # at the minimum
    readings = {r: pl.taylor(model, loss, batches, reading=r) for r in ("mean", "abs", "square")}
    weight = model.weight.detach().abs()
    sizes = torch.tensor([[0.5, 1.0, 2.0, 3.0]], dtype=torch.float64)
    close(readings["mean"], {"weight": torch.zeros_like(weight)})
    close(readings["abs"], {"weight": sizes * weight})
    close(readings["square"], {"weight": (sizes * weight) ** 2})


def test_snip_is_the_gradient_of_a_mask_at_one(model, loss, batches):
    inputs, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
    masks = {n: torch.ones_like(w, requires_grad=True) for n, w in pl.weights_of(model).items()}

    def masked(x):
        weights = pl.weights_of(model)
        return functional_call(model, {n: weights[n].detach() * m for n, m in masks.items()}, x)

    nn.functional.cross_entropy(masked(inputs), targets).backward()
    total = sum(m.grad.abs().sum() for m in masks.values())
    scores = pl.snip(model, loss, batches)
    close(scores, {n: m.grad.abs() / total for n, m in masks.items()})
    assert sum(float(s.sum()) for s in scores.values()) == pytest.approx(1)
    assert model[0].weight.grad is None


def test_snip_sums_over_batches_before_taking_absolute_values():
    model = nn.Linear(2, 1, bias=False)
    batches = [torch.tensor([[1.0, 1.0]]), torch.tensor([[-1.0, 2.0]])]
    scores = pl.snip(model, lambda m, x: m(x).mean(), batches)
    assert scores["weight"].tolist() == [[0.0, 1.0]]


def test_normalising_snip_never_changes_the_ranking(model, loss, batches):
    snip, taylor = pl.snip(model, loss, batches), pl.taylor(model, loss, batches)
    for sparsity in (0.1, 0.5, 0.9):
        one, other = pl.select(snip, sparsity), pl.select(taylor, sparsity)
        assert all(one[n].equal(other[n]) for n in one)


def test_fisher_is_exact_on_a_quadratic():
    model, loss, batches = regression()
    scores, dense = pl.fisher(model, loss, batches)["weight"], loss(model, batches[0]).item()
    for i in range(4):
        pruned = copy.deepcopy(model)
        with torch.no_grad():
            pruned.weight[0, i] = 0
        assert loss(pruned, batches[0]).item() - dense == pytest.approx(scores[0, i].item())


def test_fisher_is_not_the_square_of_a_batch_mean(model, loss, batches):
    """At a minimum the mean gradient is zero, and so would be every score."""
    model, loss, batches = regression()
    assert (pl.fisher(model, loss, batches)["weight"] > 0.01 * model.weight**2).all()


@each_criterion
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sums_over_many_samples_are_exact_in_half_precision(criterion, dtype):
    # bfloat16 can't count beyond 256, and float16 squares 1e-4 to zero
    model = nn.Linear(2, 1, bias=False, dtype=dtype)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[2.0**-13, 2.0**-13]]))
    inputs = torch.tensor([[2.0**-7, 2.0**-6]], dtype=dtype).repeat(600, 1)

    def loss(m, x):
        return m(x).mean()

    expected = criterion(copy.deepcopy(model).float(), loss, [inputs.float()])
    found = criterion(model, loss, inputs.split(1))
    close(found, expected, rtol=1e-3, atol=0, check_dtype=False)


# ---- the flow of gradients ----


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

    def forward(self, x):
        q, k, v = self.qkv(torch.stack([x, x.sin()], 1)).chunk(3, dim=-1)
        return self.out(F.scaled_dot_product_attention(q, k, v)).mean(1)


@pytest.mark.parametrize(
    "build",
    [
        lambda: nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3)),
        lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Conv1d(2, 3, 2), nn.GELU(), nn.Flatten()),
        Attention,
    ],
)
def test_grasp_is_how_fast_the_norm_of_the_gradient_falls(build, loss, batches):
    model = build().double()
    batches = [(inputs.double(), targets) for inputs, targets in batches]
    whole = tuple(torch.cat(parts) for parts in zip(*batches, strict=True))

    def flow():
        grads = torch.autograd.grad(loss(model, whole), list(weights.values()))
        return sum(float(g.square().sum()) for g in grads)

    weights, eps = pl.weights_of(model), 1e-4
    for name, scores in pl.grasp(model, loss, batches).items():
        weight, found = weights[name].detach().view(-1), scores.flatten()
        for i in range(0, len(weight), 3):
            value, flows = weight[i].item(), []
            for share in (1 - eps, 1 + eps):
                weight[i] = value * share
                flows.append(flow())
            weight[i] = value
            fall = (flows[1] - flows[0]) / 2 / eps
            assert found[i].item() == pytest.approx(fall, rel=1e-5, abs=1e-8)
        assert (found < 0).any() and (found > 0).any()


def test_grasp_goes_through_an_iterator_twice(model, loss, batches):
    close(pl.grasp(model, loss, iter(batches)), pl.grasp(model, loss, batches))


def deep(*widths):
    layers = [(nn.Linear(i, o, bias=False), nn.ReLU()) for i, o in pairwise(widths)]
    return nn.Sequential(*chain.from_iterable(layers))


FLOWS = {
    "biases": lambda: (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3)), torch.randn(1, 4)),
    "conv": lambda: (
        nn.Sequential(nn.Conv1d(2, 4, 2), nn.BatchNorm1d(4), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(12, 2)),
        torch.randn(1, 2, 4),
    ),
    "tied": lambda: (Tied(), torch.tensor([[3, 0, 3]])),
    "places": lambda: (Placed(), torch.tensor([[3, 0, 3]])),
    "half": lambda: (nn.Linear(4, 3, dtype=torch.bfloat16), torch.randn(1, 4, dtype=torch.bfloat16)),
    "frozen": lambda: (nn.Linear(4, 3).requires_grad_(False), torch.randn(2, 4)),
    "unused": lambda: (Twisted(), torch.randn(1, 4)),
}  # fmt: skip


@pytest.mark.parametrize("kind", FLOWS)
def test_synflow_equals_the_network_of_absolute_weights(kind):
    model, example = FLOWS[kind]()
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 2)
    slow = copy.deepcopy(model).double().eval().requires_grad_(True)
    for parameter in slow.parameters():
        parameter.data.abs_()
    ones = torch.ones_like(example).double() if example.is_floating_point() else example
    slow(ones).sum().backward()
    weights = pl.weights_of(slow)
    expected = {
        n: torch.zeros_like(w) if w.grad is None else w.grad * w for n, w in weights.items()
    }
    close(pl.synflow(model, example), {n: s.detach() for n, s in expected.items()})


@pytest.mark.parametrize(
    "model, example",
    [
        (lambda: deep(5, 30, 7, 3), torch.randn(1, 5)),
        (lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(16, 3, bias=False),
        ), torch.randn(1, 2, 6, 6)),
        (lambda: deep(*[100] * 61), torch.randn(1, 100)),
    ],
    ids=["mlp", "conv", "60 layers"],
)  # fmt: skip
def test_synflow_conserves_the_sum_of_a_layer(model, example):
    scores = pl.synflow(model(), example)
    sums = torch.stack([score.sum() for score in scores.values()])
    torch.testing.assert_close(sums, sums[:1].expand(len(sums)), rtol=1e-10, atol=0)
    assert all((s > 0).all() and s.isfinite().all() for s in scores.values())
    if len(sums) == 60:
        assert sums[0] > torch.finfo(torch.float32).max


def test_synflow_in_many_steps_empties_no_layer():
    example, final, rounds = torch.ones(1, 20), 0.995, 100
    model = deep(20, 200, 200, 10)
    scores = pl.synflow(model, example)
    at_once = pl.select(scores, final)
    assert any(not mask.any() for mask in at_once.values()), "nothing to avoid"
    schedule, masks = pl.iterative(final, rounds), None
    for i in range(rounds):
        masks = pl.select(pl.synflow(model, example), schedule((i + 1) / rounds), within=masks)
        pl.apply(model, masks)
    assert all(mask.any() for mask in masks.values()) and model(example).any()
    assert pl.sparsity(model).prunable == pytest.approx(final, abs=1e-4)


# ---- the inputs of layers ----


def test_wanda_by_hand():
    layer = nn.Linear(3, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, -3.0]]))
    batches = [torch.tensor([[3.0, 0.0, 1.0], [0.0, 1.0, -1.0]]), torch.tensor([[4.0, 0.0, 0.0]])]
    norms = torch.tensor([5.0, 1.0, 2**0.5])
    scores = pl.wanda(layer, lambda m, x: m(x).sum(), batches)
    close(scores, {"weight": layer.weight.detach().abs() * norms})
    # in the first row 5·1, 1·2, 1.4·0.5; in the second 0, 1, 4.2; by size alone others would go
    masks = pl.select(scores, 1 / 3, grain=pl.in_rows)
    assert masks["weight"].tolist() == [[True, True, False], [False, True, True]]
    # and by the products alone, two of the first row
    masks = pl.select(scores, 2 / 3, grain=pl.in_rows)
    assert masks["weight"].tolist() == [[True, False, False], [False, False, True]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wanda_takes_the_inputs_of_every_position_and_use(dtype):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)
            self.other = nn.Embedding(2, 2)  # no Linear: left out

        def forward(self, x):
            return self.b(input=self.a(self.a(x).relu())), self.b(x[0, 0])

    model, seen = Twice().to(dtype).requires_grad_(False), {"a": [], "b": []}
    batches = [torch.randn(n, 5, 4, dtype=dtype) for n in (3, 1)]
    for x in batches:
        first = model.a(x).relu()
        seen["a"] += [x, first]
        seen["b"] += [model.a(first), x[:1, 0]]
    expected = {}
    for name, xs in seen.items():
        norms = torch.cat([x.reshape(-1, 4) for x in xs]).float().norm(dim=0)
        expected[f"{name}.weight"] = model.get_submodule(name).weight.float().abs() * norms
    close(pl.wanda(model, lambda m, x: m(x)[0].sum(), batches), expected)


def test_wanda_on_a_padded_encoder(as_found):
    """Fused, an encoder never runs its layers."""
    layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True)
    model, x = nn.TransformerEncoder(layer, 2).eval(), torch.randn(3, 5, 4)
    padding = torch.arange(5) > torch.tensor([[4], [2], [3]])
    names = pl.prunable(model, types=(nn.Linear,), exclude=["*.out_proj.weight"])
    with as_found(model):
        scores = pl.wanda(
            model, lambda m, b: m(b[0], src_key_padding_mask=b[1]).sum(), [(x, padding)], names
        )
    assert len(scores) == 4 and all((s > 0).all() for s in scores.values())


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.tied = nn.Conv1d(4, 4, 1), nn.LayerNorm(4), Tied()
        self.mix, self.idle = nn.MultiheadAttention(4, 2), nn.Linear(4, 4)

    def forward(self, x):
        return self.norm(self.conv(x[..., None])[..., 0])


@pytest.mark.parametrize(
    "name", ["conv.weight", "norm.weight", "norm.bias", "tied.words.weight", "tied.out.weight", "mix.out_proj.weight"]
)  # fmt: skip
def test_wanda_is_for_linear_layers(name, loss, batches, as_found):
    model = Mixture()
    with (
        as_found(model),
        pytest.raises(ValueError, match=f"{name} is not the weight of Linear layers"),
    ):
        pl.wanda(model, loss, batches, ["idle.weight", name])


def test_wanda_names_a_layer_that_does_not_run(loss, batches, as_found):
    model = Twisted()
    with as_found(model), pytest.warns(UserWarning, match=r"no input reached unused\.weight on"):
        scores = pl.wanda(model, loss, batches)
    assert scores["unused.weight"].equal(model.unused.weight.detach().abs())
    with as_found(model), pytest.raises(ValueError, match=r"no input reached unused\.weight: "):
        pl.wanda(model, loss, batches, ["unused.weight"])


# ---- movement ----

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, weight_decay=0.1),
    "AdamW-fused": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True),
}


def watched_steps(model, optimizer, loss, batches, accumulated=1, clipped=False):
    """Train; -Σ g·w over the steps, by hand."""
    sums = {n: torch.zeros_like(w) for n, w in pl.weights_of(model).items()}
    for i, batch in enumerate(batches):
        loss(model, batch).backward()
        if (i + 1) % accumulated:
            continue
        if clipped:
            nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        for n, w in pl.weights_of(model).items():
            if w.requires_grad:
                sums[n] -= w.grad * w.detach()
        optimizer.step()
        optimizer.zero_grad()
    return sums


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(
    "how", [{}, {"clipped": True}, {"accumulated": 2}, {"kept": True}, {"frozen": True}], ids=str
)
def test_movement_is_the_sum_over_the_steps(name, how, model, loss, batches):
    how = dict(how)
    kept = how.pop("kept", False)
    model[0].requires_grad_(not how.pop("frozen", False))
    free, batches = copy.deepcopy(model), batches * 2
    optimizer = OPTIMIZERS[name](model.parameters())
    masks = pl.select(pl.random(model), 0.5)
    with contextlib.ExitStack() as stack:
        if kept:
            stack.enter_context(pl.keep(model, masks, optimizer))
        scores = stack.enter_context(pl.movement(model, optimizer))
        assert not any(s.any() for s in scores.values())
        expected = watched_steps(model, optimizer, loss, batches, **how)
    close(scores, expected)
    assert (scores["2.weight"] > 0).any() and (scores["2.weight"] < 0).any()
    if kept:
        assert not any(s[~masks[n]].any() for n, s in scores.items())
    else:  # looking changes nothing
        watched_steps(free, OPTIMIZERS[name](free.parameters()), loss, batches, **how)
        assert all(p.equal(q) for p, q in zip(model.parameters(), free.parameters(), strict=True))
    watched_steps(model, optimizer, loss, batches)
    close(scores, expected)
    assert not optimizer._optimizer_step_pre_hooks


def test_movement_ends_when_the_block_fails(model, loss, batches):
    optimizer = OPTIMIZERS["SGD"](model.parameters())
    with pytest.raises(KeyError), pl.movement(model, optimizer):
        raise KeyError
    assert not optimizer._optimizer_step_pre_hooks


def test_movement_counts_only_what_the_optimizer_trains(model, loss, batches):
    loss(model, batches[0]).backward()  # gradients that nobody clears
    optimizer = OPTIMIZERS["SGD"](model[2].parameters())
    with pl.movement(model, optimizer) as scores:
        watched_steps(model, optimizer, loss, batches)
    assert not scores["0.weight"].any() and scores["2.weight"].any()
    with (
        pytest.raises(ValueError, match=r"trains none of the weights.*another model"),
        pl.movement(model, optimizer, ["0.weight"]),
    ):
        pass
    assert not optimizer._optimizer_step_pre_hooks


def test_movement_adds_up_in_float32():
    model = nn.Linear(2, 1, bias=False, dtype=torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0)
    with pl.movement(model, optimizer) as scores:
        for _ in range(600):  # bfloat16 can't count beyond 256
            optimizer.zero_grad()
            model(torch.ones(1, 2, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
    close(scores, {"weight": -600 * model.weight.detach().float()}, rtol=1e-5, atol=0)


# ---- what it is given, and how it leaves it ----


@each_criterion
def test_frozen_layers_have_scores_too(criterion, model, loss, batches):
    expected = criterion(model, loss, batches)
    model.requires_grad_(False)
    close(criterion(model, loss, batches), expected)
    assert not any(p.requires_grad for p in model.parameters())


@each_criterion
def test_only_the_names_asked_for(criterion, model, loss, batches):
    scores = criterion(model, loss, batches, ["2.weight"])
    assert list(scores) == ["2.weight"] and scores["2.weight"].shape == (3, 6)


@each_criterion
@pytest.mark.parametrize("fails", [False, True])
def test_leaves_everything_as_found(criterion, fails, loss, batches, as_found):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))
    model[0].weight.grad = torch.ones(6, 4)
    model[3].requires_grad_(False)
    model[1].eval()  # alone: the rest trains
    seen = []

    def rough(model, batch):
        value = loss(model, batch)
        seen.append(value)
        model.eval().requires_grad_(True)
        if fails and len(seen) == 2:
            raise KeyError("in the second batch")
        return value + torch.rand(()) * 0

    with as_found(model):
        if fails:
            with pytest.raises(KeyError, match="second batch"):
                criterion(model, rough, batches)
        else:
            criterion(model, rough, batches)


def test_buffers_are_left_as_found_in_training_mode(loss, batches, as_found):
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)).train()
    with as_found(model):
        pl.snip(model, loss, batches)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_synflow_leaves_everything_as_found(dtype, fails, as_found):
    model = nn.Sequential(
        nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.Dropout(), nn.Flatten(), nn.Linear(9, 2)
    )
    with torch.no_grad():
        model[0].weight[0] = -0.0
        model[1].running_mean -= 1
    model[0].weight.grad = torch.ones(3, 2, 2)
    model[4].requires_grad_(False)
    model[1].eval()
    if fails:
        model.append(nn.Linear(9, 9))
    example = torch.randn(2, 2, 4)
    with as_found(model.to(dtype)), contextlib.ExitStack() as stack:
        if fails:
            stack.enter_context(pytest.raises(RuntimeError, match="shapes"))
        assert pl.synflow(model, example)["0.weight"].any()


@pytest.mark.parametrize("kind", ["tensor", "list", "dict", "nested"])
def test_kinds_of_batches(kind, model, batches):
    inputs, targets = batches[0]
    batch = {
        "tensor": inputs,
        "list": [inputs, targets],
        "dict": {"x": inputs, "y": targets},
        "nested": ({"x": [inputs]}, targets),
    }[kind]

    def loss(model, batch):
        x = batch
        while not isinstance(x, torch.Tensor):
            x = next(iter(x.values())) if isinstance(x, dict) else x[0]
        return model(x).square().mean()

    expected = pl.fisher(model, lambda m, x: m(x).square().mean(), [inputs])
    close(pl.fisher(model, loss, [batch]), expected)


@each_criterion
def test_an_empty_or_exhausted_loader(criterion, model, loss, batches, as_found):
    once = iter(batches)
    criterion(model, loss, once)
    for nothing in (once, []):
        with (
            as_found(model),
            pytest.raises(ValueError, match=r"batches is empty[: ].*an iterator"),
        ):
            criterion(model, loss, nothing)


def lazy():
    return nn.Sequential(nn.Linear(2, 2), nn.LazyLinear(3))


def meta():
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2, device="meta"))


@pytest.mark.parametrize("function", [pl.prunable, pl.magnitude, pl.random, pl.sparsity])
@pytest.mark.parametrize(
    "build, message",
    [
        (lazy, "1.weight has no shape yet: run one batch"),
        (meta, "1.weight is on the meta device and has no values: load it first"),
        (nn.ReLU, "ReLU has nothing to prune: none of its modules is a Linear, Bilinear, ConvNd"),
        (lambda: nn.BatchNorm1d(3), "BatchNorm1d has nothing to prune"),
    ],
)
def test_a_model_that_cannot_be_pruned(function, build, message):
    with pytest.raises(ValueError, match=message):
        function(build())


@pytest.mark.parametrize(
    "names, message",
    [
        (["0.weight", "7.weight"], "'7.weight' is no parameter of Sequential; the nearest are "),
        ([], "names is empty: name at least one parameter, or leave names out"),
    ],
)
def test_names_that_are_not_parameters(names, message, model, loss, batches, as_found):
    calls = [pl.magnitude, pl.random, pl.weights_of, pl.masks_of]
    calls += [lambda m, n, c=c: c(m, loss, batches, n) for c in DATA_CRITERIA.values()]
    calls += [lambda m, n: pl.synflow(m, batches[0][0], n)]
    for call in calls:
        with as_found(model), pytest.raises(ValueError, match=re.escape(message)):
            call(model, names)


def test_other_bad_input(model, loss, batches):
    with pytest.raises(ValueError, match="reading is 'max', but must be one of mean, abs, square"):
        pl.taylor(model, loss, batches, reading="max")
    with pytest.raises(ValueError, match="every gradient is zero"):
        pl.snip(model, lambda m, b: 0 * loss(m, b), batches)
