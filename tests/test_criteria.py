"""What is prunable, and what every criterion says of it, against slow and plain references."""

import copy
import re
from itertools import combinations

import pytest
import torch
from scipy.linalg import hadamard
from torch import nn
from torch.func import functional_call

import pruninglib as pl

GRADIENT_CRITERIA = {
    "taylor mean": pl.taylor,
    "taylor abs": lambda *args: pl.taylor(*args, reading="abs"),
    "taylor square": lambda *args: pl.taylor(*args, reading="square"),
    "snip": pl.snip,
    "fisher": pl.fisher,
}
each_criterion = pytest.mark.parametrize(
    "criterion", GRADIENT_CRITERIA.values(), ids=GRADIENT_CRITERIA
)


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


def test_a_shuffle_of_layers_is_another_one_for_each(model):
    scores = pl.random(nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5)))
    assert (scores["0.weight"] != scores["1.weight"]).all()


# ---- against one sample at a time ----


def by_reference(model, loss, batches):
    gradients = sample_gradients(model, loss, batches)
    w = {n: p.detach() for n, p in pl.weights_of(model).items()}
    mean = {n: (g.mean(0) * w[n]).abs() for n, g in gradients.items()}
    return {
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
    assert sum(float(s.sum()) for s in expected.values()) > 1e-6


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
            pytest.raises(ValueError, match="batches is empty: pass at least one"),
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
        (["0.weight", "7.weight"], "'7.weight' is no parameter of Sequential; it has 0.weight, "),
        ([], "names is empty: name at least one parameter, or leave names out"),
    ],
)
def test_names_that_are_not_parameters(names, message, model, loss, batches, as_found):
    calls = [pl.magnitude, pl.random, pl.weights_of, pl.masks_of]
    calls += [lambda m, n, c=c: c(m, loss, batches, n) for c in GRADIENT_CRITERIA.values()]
    for call in calls:
        with as_found(model), pytest.raises(ValueError, match=re.escape(message)):
            call(model, names)


def test_other_bad_input(model, loss, batches):
    with pytest.raises(ValueError, match="reading is 'max', but must be one of mean, abs, square"):
        pl.taylor(model, loss, batches, reading="max")
    with pytest.raises(ValueError, match="every gradient is zero"):
        pl.snip(model, lambda m, b: 0 * loss(m, b), batches)
