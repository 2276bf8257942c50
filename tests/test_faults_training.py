"""Faults on models and loops that people have, by kind: masks, optimizers, training."""

import copy
import warnings

import pytest
import torch
from test_masks import no_hooks, revived
from torch import nn

import pruninglib as pl


@pytest.fixture
def masks(model):
    return pl.select(pl.random(model, seed=3), 0.5)


def step(model, loss, batch, optimizer):
    optimizer.zero_grad()
    loss(model, batch).backward()
    optimizer.step()


# ---- pruned places are zero whatever the gradient holds ----


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_a_gradient_that_is_not_finite_where_a_weight_is_pruned(bad, dtype):
    layer = nn.Linear(3, 2, bias=False, dtype=dtype)
    mask = torch.tensor([[True, False, True], [False, True, True]])
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    with pl.keep(layer, {"weight": mask}, optimizer):
        for _ in range(2):
            optimizer.zero_grad()
            layer(torch.full((1, 3), 2, dtype=dtype)).sum().backward(
                inputs=[layer.weight]
            )  # sets the gradient, and the hook sees the next one
            layer.weight.register_hook(lambda g: g.masked_fill(~mask, bad))
            optimizer.step()
    assert layer.weight.isfinite().all() and (layer.weight[~mask] == 0).all()
    assert not layer.weight.detach()[~mask].signbit().any()


def test_a_group_penalty_of_a_pruned_row(model):
    """The slope of √Σw² at zero is 0 / 0."""
    masks = {"0.weight": torch.ones(6, 4, dtype=torch.bool)}
    masks["0.weight"][2] = False
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with pl.keep(model, masks, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model[0].weight.square().sum(dim=1).sqrt().sum().backward()
            optimizer.step()
    assert model[0].weight.isfinite().all() and not model[0].weight[2].any()


# ---- optimizers that are wrapped, several, or that swap the weights ----


class Wrapper:
    """As accelerate's: no torch.optim.Optimizer, but it holds one."""

    def __init__(self, optimizer):
        self.optimizer = optimizer

    def __getattr__(self, name):
        if name.startswith("register_"):
            raise AttributeError(name)
        return getattr(self.optimizer, name)

    def step(self):
        self.optimizer.step()


@pytest.mark.parametrize("wraps", [1, 2])
def test_an_optimizer_in_a_wrapper(model, loss, batches, masks, wraps):
    inner = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(model, loss, batches[0], inner)
    optimizer = inner
    for _ in range(wraps):
        optimizer = Wrapper(optimizer)
    with pl.keep(model, masks, optimizer), pl.movement(model, optimizer) as scores:
        step(model, loss, batches[0], optimizer)
        assert revived(model, masks) == 0
    assert any(score.any() for score in scores.values())
    assert no_hooks(model, inner)


@pytest.mark.parametrize("use", [pl.movement, lambda m, o: pl.keep(m, pl.masks_of(m), o)])
def test_what_is_no_optimizer(model, use):
    with pytest.raises(ValueError, match=r"is a Linear, but must be a torch\.optim\.Optimizer"):
        use(model, model[0]).__enter__()


@pytest.mark.parametrize(
    "make",
    [
        lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.1),
        lambda p: Wrapper(torch.optim.AdamW(p, lr=0.1)),
        lambda p: torch.optim.LBFGS(p, lr=0.1, max_iter=3),
    ],
    ids=["SGD", "AdamW", "wrapped", "LBFGS"],
)
@pytest.mark.parametrize("made", ["before", "inside"])
def test_a_second_optimizer_revives_nothing(model, loss, batches, masks, make, made):
    def once(optimizer):
        def closure():
            optimizer.zero_grad()
            value = loss(model, batches[1])
            value.backward()
            return value

        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            closure()
            optimizer.step()

    first = torch.optim.AdamW(model[0].parameters(), lr=0.1)
    once(first)
    if made == "before":
        second = make(model[2].parameters())
        once(second)
    with pl.keep(model, masks, first):
        if made == "inside":
            second = make(model[2].parameters())
        for optimizer in (second, first, second):
            once(optimizer)
            assert revived(model, masks) == 0


class ScheduleFree(torch.optim.SGD):
    """Trains one point and evaluates another, its average, as schedule-free optimizers do."""

    def __init__(self, parameters, **options):
        super().__init__(parameters, **options)
        self.averages = {p: p.detach().clone() for g in self.param_groups for p in g["params"]}

    def _swap(self):
        for p, average in self.averages.items():
            kept = p.detach().clone()
            p.data.copy_(average)
            average.copy_(kept)

    def eval(self):
        self._swap()

    def train(self):
        self._swap()


def test_an_optimizer_that_swaps_weights(model, loss, batches, masks):
    optimizer = ScheduleFree(model.parameters(), lr=0.1)
    with pl.keep(model, masks, optimizer):
        step(model, loss, batches[0], optimizer)
        optimizer.eval()
        assert revived(model, masks) == 0
        optimizer.train()
        assert revived(model, masks) == 0
    assert optimizer.eval.__func__ is ScheduleFree.eval and "train" not in vars(optimizer)


# ---- steps that are given a closure ----


@pytest.mark.parametrize("by_name", [True, False])
def test_movement_of_steps_with_a_closure(model, loss, batches, by_name):
    other = copy.deepcopy(model)
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1, momentum=0.9) for m in (model, other)]
    with pl.movement(other, optimizers[1]) as expected:
        for batch in batches:
            step(other, loss, batch, optimizers[1])
    with pl.movement(model, optimizers[0]) as found:
        for batch in batches:

            def closure(batch=batch):
                optimizers[0].zero_grad()
                value = loss(model, batch)
                value.backward()
                return value

            value = optimizers[0].step(closure=closure) if by_name else optimizers[0].step(closure)
            assert value > 0
    assert all(score.equal(expected[name]) for name, score in found.items())
    assert all(p.equal(q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_movement_counts_each_evaluation_of_a_closure(model, loss, batches):
    """LBFGS calls it several times a step, each time with other weights."""
    expected = {n: torch.zeros_like(w) for n, w in pl.weights_of(model).items()}
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=3)

    def closure():
        optimizer.zero_grad()
        value = loss(model, batches[0])
        value.backward()
        for name, weight in pl.weights_of(model).items():
            expected[name] -= weight.grad * weight.detach()
        return value

    with pl.movement(model, optimizer) as found:
        optimizer.step(closure)
    assert all(score.equal(expected[name]) for name, score in found.items())


class WrapsSearch(Wrapper):
    def step(self, closure=None):
        return self.optimizer.step(closure)


class Asks(torch.optim.SGD):
    """Gradient descent that wants its closure."""

    def step(self, closure):
        return super().step(closure)


@pytest.mark.parametrize("wraps", [lambda o: o, WrapsSearch, lambda o: WrapsSearch(WrapsSearch(o))])
@pytest.mark.parametrize("kind", ["LBFGS", "SGD that asks"])
def test_fit_with_an_optimizer_that_searches(model, loss, batches, kind, wraps):
    masks = pl.select(pl.magnitude(model), 0.5)
    if kind == "LBFGS":
        optimizer = torch.optim.LBFGS(model.parameters(), lr=0.5, max_iter=5)
    else:
        optimizer = Asks(model.parameters(), lr=0.5)
    optimizer = wraps(optimizer)
    rows = pl.fit(model, loss, batches[:1], 4, optimizer=optimizer, masks=masks, progress=False)
    assert rows[-1]["loss"] < rows[0]["loss"] and revived(model, masks) == 0


# ---- modes that were frozen ----


def test_a_frozen_batchnorm_stays_frozen_in_fit(loss, batches):
    def network():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 3))

    frozen, whole = network().train(), network()
    frozen[1].eval()
    for model in (frozen, whole):
        pl.fit(model, loss, batches, 2, progress=False)
        assert not any(module.training for module in model.modules())
    assert (frozen[1].running_mean == 0).all() and (whole[1].running_mean != 0).any()


def test_a_frozen_dropout_stays_frozen_in_fit(batches):
    model = nn.Sequential(nn.Dropout(0.5), nn.Linear(4, 3)).train()
    model[0].eval()
    seen = []

    def loss(model, batch):
        seen.append((model.training, model[0].training, model[1].training))
        return model(batch[0]).sum()

    pl.fit(model, loss, batches, 2, progress=False)
    assert set(seen) == {(True, False, True)}


# ---- names of a compiled model ----


class Compiled(nn.Module):
    """What torch.compile gives: the model under the name `_orig_mod`."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model

    def forward(self, x):
        return self._orig_mod(x)


def test_names_of_a_compiled_model_and_of_the_plain_one(model):
    compiled = Compiled(model)
    masks = pl.select(pl.magnitude(compiled), 0.5)
    pl.apply(model, masks)
    assert revived(compiled, masks) == 0 and pl.sparsity(model).prunable == 0.5
    plain = pl.select(pl.magnitude(model), 0.75)
    pl.apply(compiled, plain)
    assert pl.sparsity(model).prunable == 32 / 42
    assert list(pl.masks_of(model, list(masks))) == list(masks)
    assert next(iter(masks)).startswith("_orig_mod.")
    # inside another one
    parts = nn.Sequential(Compiled(model[0]), nn.Tanh(), model[2])
    assert pl.weights_of(parts, ["0.weight"])["0.weight"] is model[0].weight


# ---- nothing is written between a loss and its backward ----


@pytest.mark.parametrize(
    "look",
    [
        lambda m, loss, batches: pl.macs(m, batches[0][0]),
        lambda m, loss, batches: pl.ledger(m, batches[0][0], repeats=2),
        lambda m, loss, batches: pl.taylor(m, loss, batches),
        lambda m, loss, batches: pl.snip(m, loss, batches),
        lambda m, loss, batches: pl.fisher(m.eval(), loss, batches),
        lambda m, loss, batches: pl.scan(m, lambda m: -float(loss(m, batches[0])), [0.5, 0.9]),
        lambda m, loss, batches: pl.synflow(m, batches[0][0]),
        lambda m, loss, batches: pl.coupled(m, batches[0][0]),
    ],
    ids=["macs", "ledger", "taylor", "snip", "fisher", "scan", "synflow", "coupled"],
)
def test_a_look_between_a_loss_and_its_backward(model, loss, batches, look):
    twin = copy.deepcopy(model)
    loss(twin, batches[0]).backward()
    value = loss(model, batches[0])
    look(model, loss, batches)
    value.backward()
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


# ---- looked at, not changed ----


@pytest.mark.parametrize("exclude", [(), "0.weight"])
@pytest.mark.parametrize("look", [pl.prunable, pl.sparsity, pl.magnitude])
def test_a_look_at_a_computed_weight_computes_nothing(model, look, exclude):
    """Reading the weight of a spectral norm in training mode moves its vectors."""
    nn.utils.parametrizations.spectral_norm(model[0])
    before = copy.deepcopy(model.train().state_dict())
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "left out is 0.weight, computed")
        look(model) if look is not pl.prunable else look(model, exclude=exclude)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    "use",
    [
        lambda m, loss, batches, names: pl.wanda(m, loss, batches, names),
        lambda m, loss, batches, names: pl.gradient(m, loss, batches, names),
        lambda m, loss, batches, names: pl.fisher(m.eval(), loss, batches, names),
        lambda m, loss, batches, names: pl.reconstruct(m, loss, batches, 0.5, names=names),
        lambda m, loss, batches, names: pl.least_squares(
            m, loss, batches, pl.select(pl.magnitude(m, names), 0.5)
        ),
    ],
    ids=["wanda", "gradient", "fisher", "reconstruct", "least_squares"],
)
def test_what_is_done_to_one_layer_computes_no_other(model, loss, batches, use):
    nn.utils.parametrizations.spectral_norm(model[0])
    before = copy.deepcopy(model.train().state_dict())
    use(model, loss, batches, ["2.weight"])
    changed = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert changed <= {"2.weight"}


def test_counting_computes_no_weight_again(model, batches):
    """What the pass itself changed is all that has changed."""
    nn.utils.parametrizations.spectral_norm(model[0])
    twin = copy.deepcopy(model.train())
    twin(batches[0][0])
    with pl.training_cost() as cost:
        model(batches[0][0])
    assert all(v.equal(twin.state_dict()[n]) for n, v in model.state_dict().items())
    assert cost.macs > 0 and model[0].parametrizations.weight.training
