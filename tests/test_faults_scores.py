"""Faults on models and batches that people have, by kind: scores, and what runs a model."""

import contextlib
import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torchvision.ops import DeformConv2d

import pruninglib as pl
from pruninglib.base.running import call, changed, size, take, tensors_in

SCORES = {
    "gradient": pl.gradient,
    "taylor": pl.taylor,
    "taylor, abs": lambda *a, **k: pl.taylor(*a, reading="abs", **k),
    "snip": pl.snip,
    "fisher": pl.fisher,
    "grasp": pl.grasp,
}
every = pytest.mark.parametrize("score", SCORES.values(), ids=SCORES)
per_sample = pytest.mark.parametrize("score", [SCORES["taylor, abs"], pl.fisher])


def by_loop(model, loss, samples, of=torch.square):
    """E[of(g_i)] with `backward` on one sample at a time."""
    totals = {n: torch.zeros_like(w) for n, w in pl.weights_of(model).items()}
    for sample in samples:
        twin = copy.deepcopy(model)
        loss(twin, sample).backward()
        for name, weight in pl.weights_of(twin).items():
            totals[name] += of(weight.grad) / len(samples)
    return totals


def is_fisher(model, loss, batches, samples):
    found, expected = pl.fisher(model, loss, batches), by_loop(model, loss, samples)
    for name, weight in pl.weights_of(model).items():
        torch.testing.assert_close(found[name], expected[name] * weight.detach() ** 2 / 2)


# ---- one convention for what a model is called with, and for its batches ----


@dataclass
class Output:
    logits: torch.Tensor
    name: str = "out"


class Sum(nn.Module):
    """Takes one, several or named inputs; its output is of any kind."""

    def __init__(self, wrap=lambda x: x):
        super().__init__()
        self.layer, self.wrap = nn.Linear(4, 3), wrap

    def forward(self, x, y=None, note=None):
        return self.wrap(self.layer(x if y is None else x + y))


X = torch.linspace(-1, 1, 24).view(6, 4)
EXAMPLES = {
    "tensor": X,
    "tuple": (X, X),
    "mapping": {"x": X, "y": X, "note": "text"},
    "mapping with None": {"x": X, "y": None},
}
WRAPS = {
    "tensor": lambda x: x,
    "tuple": lambda x: (x, None, "text"),
    "mapping": lambda x: {"logits": x, "n": 3},
    "dataclass": Output,
    "nested": lambda x: [{"a": (x, Output(x))}],
}
of_any_kind = pytest.mark.parametrize("wrap", WRAPS.values(), ids=WRAPS)
any_example = pytest.mark.parametrize("example", EXAMPLES.values(), ids=EXAMPLES)


@any_example
@of_any_kind
def test_whatever_a_model_takes_and_gives(example, wrap):
    model, plain = Sum(wrap), Sum()
    plain.load_state_dict(model.state_dict())
    expected = plain(
        X if not isinstance(example, tuple) and example is not EXAMPLES["mapping"] else 2 * X
    )
    assert next(tensors_in(call(model, example))).equal(expected)
    assert pl.macs(model, example) == 6 * 4 * 3
    assert pl.ledger(model, example, repeats=2)["macs"] == 72
    scores = pl.synflow(model, example)["layer.weight"]
    times = len([*tensors_in(wrap(X))]) * (1 if expected.equal(plain(X)) else 2)
    torch.testing.assert_close(scores, 6 * times * model.layer.weight.detach().double().abs())


@pytest.mark.parametrize(
    "batch, samples",
    [
        (torch.ones(5, 2), 5),
        ((torch.ones(5, 2), torch.ones(5)), 5),
        ([torch.ones(5, 2), torch.ones(5)], 5),
        ({"x": torch.ones(5, 2), "y": torch.ones(5), "scale": torch.tensor(2.0)}, 5),
        (("text", torch.ones(5, 2), None, 3), 5),
        (({"x": torch.ones(5, 2)}, ["a"] * 5, torch.ones(5)), 5),
        (((torch.ones(5, 2), torch.ones(5, 3)), torch.ones(5)), 5),
        # a loader makes lists of what was a tuple
        ([[torch.ones(5, 2), torch.ones(5, 3)], torch.ones(5)], 5),
        # images of several sizes, and their boxes
        (([torch.ones(3, 8, 8), torch.ones(3, 9, 7)], [{"boxes": torch.ones(4, 4)}] * 2), 2),
        (([torch.ones(3, 8, 8)] * 2, torch.ones(2)), 2),
    ],
)
def test_the_number_of_samples_of_a_batch(batch, samples):
    assert size(batch) == samples
    assert size(batch, samples=lambda batch: 7) == 7
    part = take(batch, torch.tensor([samples - 1, 0]))
    assert size(part) == 2 and type(part) is type(batch)


@pytest.mark.parametrize(
    "batch, message",
    [
        ("text", r"a str without tensors"),
        ({"x": None}, r"a dict without tensors"),
        ((torch.ones(5), torch.ones(4)), r"\(5,\), \(4,\), do not agree on a number of samples"),
        ([[torch.ones(3, 8), torch.ones(3, 8)], "text"], r"do not agree .* samples=, a function"),
    ],
)
def test_a_batch_without_a_number_of_samples(batch, message):
    with pytest.raises(ValueError, match=message):
        size(batch)


def test_a_tree_keeps_its_kind_and_what_is_no_tensor():
    tree = {"a": [torch.ones(2), None], "b": ("text", torch.zeros(1))}
    other = changed(lambda t: t + 1, tree)
    assert other["a"][1] is None and other["b"][0] == "text" and type(other["b"]) is tuple
    assert [t.tolist() for t in tensors_in(other)] == [[2, 2], [1]]
    assert tree["a"][0].tolist() == [1, 1]


@every
def test_parts_of_a_batch_that_are_no_tensors(model, loss, batches, score):
    with_more = [("a name", *batch, None, 3) for batch in batches]
    found = score(model, lambda m, b: loss(m, b[1:3]), with_more)
    for name, expected in score(model, loss, batches).items():
        torch.testing.assert_close(found[name], expected)


@every
def test_one_batch_handed_over_as_the_batches(model, loss, score):
    with pytest.raises(ValueError, match=r"a str without tensors: .* for one batch a list with it"):
        score(model, lambda m, b: loss(m, (b["x"], b["y"])), {"x": X, "y": torch.zeros(6).long()})


@every
def test_images_of_several_sizes_count_once_each(score):
    """In batches of three and one, each image has a weight of a quarter."""
    model = nn.Conv2d(3, 2, 3, bias=False)
    torch.manual_seed(0)
    images = [torch.randn(3, 5 + i, 7) for i in range(4)]
    batches = [(images[:3], [{"boxes": torch.ones(i, 4)} for i in (1, 2, 3)]),
               (images[3:], [{"boxes": torch.ones(2, 4)}])]  # fmt: skip

    def loss(model, batch):
        return torch.stack([model(image[None]).square().mean() for image in batch[0]]).mean()

    found = score(model, loss, batches)
    alone = score(model, loss, [([image], [{"boxes": torch.ones(1, 4)}]) for image in images])
    torch.testing.assert_close(found["weight"], alone["weight"])


# ---- losses that weigh samples unequally ----


def padded(model, batch):
    """A mean over tokens: a longer text weighs more."""
    tokens, targets = batch
    return cross_entropy(model(tokens).transpose(1, 2), targets, ignore_index=-1)


@pytest.mark.parametrize("order", [1, -1])
def test_a_mean_over_tokens_is_no_mean_over_samples(order):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9))
    batches = []
    for shortest in (4, 1):  # the first batch has no padding
        tokens = torch.randint(9, (6, 4))
        lengths = torch.tensor([4, 4, 4, shortest, shortest, shortest])
        batches.append((tokens, tokens.masked_fill(torch.arange(4) >= lengths[:, None], -1)))
    batches = batches[::order]
    samples = [(x[i : i + 1], y[i : i + 1]) for x, y in batches for i in range(6)]
    is_fisher(model, padded, batches, samples)


@pytest.mark.parametrize("labels", [[0, 1] * 8, [0] * 8 + [1] * 8, [0, 0, 0, 1] * 4])
def test_weighted_classes_are_no_mean_over_samples(labels):
    torch.manual_seed(0)
    model, x, y = nn.Linear(4, 2), torch.randn(16, 4), torch.tensor(labels)

    def loss(model, batch):
        return cross_entropy(model(batch[0]), batch[1], weight=torch.tensor([1.0, 9.0]))

    is_fisher(model, loss, [(x, y)], [(x[i : i + 1], y[i : i + 1]) for i in range(16)])


def test_a_sum_is_no_mean_over_samples():
    model, x = nn.Linear(4, 2), torch.randn(16, 4)
    is_fisher(model, lambda m, x: m(x).square().sum(), [x], [x[i : i + 1] for i in range(16)])


@pytest.mark.parametrize("kind", [list, iter])
def test_batches_that_are_an_iterator_can_be_gone_through_again(model, kind):
    x = torch.randn(16, 4)
    found = pl.fisher(model, lambda m, x: m(x).square().sum(), kind([x[:8], x[8:]]))
    expected = pl.fisher(model, lambda m, x: m(x).square().sum(), [x[:8], x[8:]])
    assert all(score.equal(expected[name]) for name, score in found.items())


# ---- tensors of a batch that differ in length ----


def bags():
    torch.manual_seed(0)
    return nn.ModuleDict({"bag": nn.EmbeddingBag(7, 3, mode="sum"), "out": nn.Linear(3, 2)})


def bag_loss(model, batch):
    indices, offsets, classes = batch
    return cross_entropy(model["out"](model["bag"](indices, offsets)), classes)


def bag_batch(sizes):
    indices = torch.arange(sum(sizes)) % 7
    offsets = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    return indices, offsets, torch.arange(len(sizes)) % 2


@every
def test_bags_of_indices_need_the_number_of_samples(score):
    with pytest.raises(ValueError, match=r"\(6,\), \(3,\), \(3,\), do not agree.*samples="):
        score(bags(), bag_loss, [bag_batch([1, 2, 3])])


@pytest.mark.parametrize("score", [pl.gradient, pl.taylor, pl.snip])
def test_bags_weigh_alike(score):
    """Not each index: a batch of two bags and six indices counts twice, one of one bag once."""
    batches = [bag_batch([1, 5]), bag_batch([2])]
    found = score(bags(), bag_loss, batches, samples=lambda batch: len(batch[2]))
    mean = {n: torch.zeros_like(w) for n, w in pl.weights_of(bags()).items()}
    for batch, share in zip(batches, (2 / 3, 1 / 3), strict=True):
        model = bags()
        bag_loss(model, batch).backward()
        for name, weight in pl.weights_of(model).items():
            mean[name] += share * weight.grad * (weight.detach() if score is not pl.gradient else 1)
    total = sum(m.abs().sum() for m in mean.values()) if score is pl.snip else 1
    for name, value in mean.items():
        torch.testing.assert_close(found[name], value.abs() / total)


@per_sample
def test_bags_can_be_taken_one_by_one_only(score):
    count = {"samples": lambda batch: len(batch[2])}
    with pytest.raises(ValueError, match=r"(do not agree|taken apart).*"):
        score(bags(), bag_loss, [bag_batch([1, 5])], **count)
    found = score(bags(), bag_loss, [bag_batch([1]), bag_batch([5])], **count)
    assert all(value.any() for value in found.values())


def test_a_layer_without_a_second_derivative_is_named():
    with pytest.raises(ValueError, match=r"no second derivative \(bag\): take another criterion"):
        pl.grasp(bags(), bag_loss, [bag_batch([2])], samples=lambda batch: 1)


class Once(torch.autograd.Function):
    """x², whose gradient is computed by code that autograd does not see."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        (x,) = ctx.saved_tensors
        return 2 * x * grad


def test_a_function_that_can_be_differentiated_once_is_named():
    """A mean of its outputs: what comes into its gradient depends on no weight."""
    model, batch = nn.Linear(4, 3), [(torch.randn(5, 4),)]
    found = pl.grasp(model, lambda model, batch: model(batch[0]).square().mean(), batch)
    assert found["weight"].any()
    with pytest.raises(ValueError, match=r"no second derivative \(Once is not implemented"):
        pl.grasp(model, lambda model, batch: Once.apply(model(batch[0])).mean(), batch)


def test_losses_and_layers_that_torch_differentiates_once():
    def ctc(model, batch):
        likely = model(batch[0]).log_softmax(-1).transpose(0, 1)
        return nn.functional.ctc_loss(
            likely, batch[1], torch.tensor([6] * 2), torch.tensor([2] * 2)
        )

    batch = torch.randn(2, 6, 3), torch.tensor([[1, 2], [3, 4]])
    with pytest.raises(ValueError, match=r"no second derivative \(derivative for .*ctc_loss"):
        pl.grasp(nn.Linear(3, 5), ctc, [batch])
    images = torch.randn(2, 1, 6, 6)
    model = nn.ModuleDict({"shift": nn.Conv2d(1, 18, 3), "deform": DeformConv2d(1, 4, 3)})

    def deformed(model, batch):
        return model["deform"](batch[0], model["shift"](batch[0])).square().mean()

    with pytest.raises(ValueError, match=r"no second derivative \(double backwards on deform_conv"):
        pl.grasp(model, deformed, [(images,)])


def test_other_failures_of_a_second_pass_are_told_as_they_are():
    def wrong(model, batch):
        return model(batch[0].repeat(1, 2)).mean()

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        pl.grasp(nn.Linear(4, 3), wrong, [(torch.randn(5, 4),)])


# ---- gradients that are not recorded ----


@every
@pytest.mark.parametrize("off", [torch.inference_mode, torch.no_grad])
def test_scores_where_gradients_are_off(model, loss, batches, score, off):
    expected = score(model, loss, batches)
    with off():
        found = score(model, loss, [tuple(t.clone() for t in batch) for batch in batches])
    for name, value in expected.items():
        torch.testing.assert_close(found[name].clone(), value)


def test_synflow_where_gradients_are_off(model):
    expected = pl.synflow(model, X)
    with torch.inference_mode():
        found = pl.synflow(model, X.clone())
    assert all(value.equal(expected[name]) for name, value in found.items())


@every
@pytest.mark.parametrize("kind", ["no_grad", "detached", "of others"])
def test_a_loss_without_a_gradient(model, loss, batches, score, kind):
    def without(model, batch):
        if kind == "detached":
            return loss(model, batch).detach()
        if kind == "of others":
            return batch[0].square().mean()
        with torch.no_grad():
            return loss(model, batch)

    with pytest.raises(
        ValueError, match=r"the loss has no gradient: it was computed under no_grad"
    ):
        score(model, without, batches)


# ---- default names of what needs plain Linear layers ----


class Tied(nn.Module):
    """A language model: the head is the embedding."""

    def __init__(self):
        super().__init__()
        self.words, self.inner, self.head = nn.Embedding(9, 4), nn.Linear(4, 4), nn.Linear(4, 9)
        self.head.weight = self.words.weight

    def forward(self, tokens):
        return self.head(self.inner(self.words(tokens)).relu())


class Own(nn.Linear):
    """A subclass may compute something else."""

    def forward(self, x):
        return super().forward(x) * 2


def encoder():
    return nn.TransformerEncoder(nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), 1).eval()


@pytest.mark.parametrize(
    "model, batch, names",
    [
        (Tied(), torch.arange(6).view(2, 3), ["inner.weight"]),
        (nn.Sequential(Own(4, 4), nn.Linear(4, 3)), X, ["1.weight"]),
        (encoder(), X.view(2, 3, 4), ["layers.0.linear1.weight", "layers.0.linear2.weight"]),
    ],
)
def test_default_names_leave_out_what_is_no_plain_linear(model, batch, names):
    def loss(model, batch):
        return model(batch).square().mean()

    assert list(pl.wanda(model, loss, [batch])) == names
    assert list(pl.reconstruct(model, loss, [batch], 0.5)) == names


@pytest.mark.parametrize("use", [pl.wanda, lambda *a: pl.reconstruct(*a, 0.5)])
def test_a_model_without_a_plain_linear(use):
    with pytest.raises(
        ValueError, match=r"Sequential has no Linear layer with a weight of its own"
    ):
        use(nn.Sequential(Own(4, 4)), lambda m, x: m(x).mean(), [X])


# ---- models that are compiled, or wrapped in another way ----


def stack():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)).eval()


def mean_square(model, batch):
    return model(batch).square().mean()


def compiled(thing, backend):
    torch.compiler.reset()
    return torch.compile(thing, backend=backend)


def in_place(model, backend):
    torch.compiler.reset()
    model.compile(backend=backend)
    return model


def its_forward(model, backend):
    model.forward = compiled(model.forward, backend)
    return model


WRAPPED = {
    "compiled": lambda m, how: (compiled(m, how), mean_square),
    "compiled in place": lambda m, how: (in_place(m, how), mean_square),
    "compiled part": lambda m, how: (nn.Sequential(compiled(m[:2], how), m[2]), mean_square),
    "compiled forward": lambda m, how: (its_forward(m, how), mean_square),
    "compiled loss": lambda m, how: (m, compiled(mean_square, how)),
    "in parallel": lambda m, how: (nn.DataParallel(m), mean_square),
}


def solved(model, loss, batches):
    pl.reconstruct(model, loss, batches, 0.5)
    return pl.weights_of(model)


def by_squares(model, loss, batches):
    masks = pl.select(pl.magnitude(model), 0.5)
    pl.least_squares(model, loss, batches, masks)
    return pl.weights_of(model)


def moved(model, loss, batches):
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pl.movement(model, optimizer) as scores:
        for batch in batches:
            loss(model, batch).backward()
            optimizer.step()
    return scores


def scanned(model, loss, batches):
    scan = pl.scan(model, lambda m: -float(loss(m, batches[0]).detach()), [0.5, 0.9])
    return {n: torch.tensor([*values.values()]) for n, values in scan.items()}


def trained(model, loss, batches):
    with pl.training_cost() as cost:
        loss(model, batches[0]).backward()
    return {"macs": torch.tensor(cost.macs), "ideal": torch.tensor(cost.ideal)}


HOOKED = {
    **SCORES,
    "wanda": pl.wanda,
    "synflow": lambda m, loss, batches: pl.synflow(m, batches[0]),
    "movement": moved,
    "reconstruct": solved,
    "least_squares": by_squares,
    "scan": scanned,
    "macs": lambda m, loss, batches: {"": torch.tensor(pl.macs(m, batches[0]))},
    "training_cost": trained,
}


IN_EVERY_WAY = {"fisher", "grasp", "wanda", "synflow", "reconstruct", "training_cost"}


@pytest.mark.parametrize(
    "use, wrap",
    [
        pytest.param(use, wrap, id=f"{what}, {how}")
        for what, use in HOOKED.items()
        for how, wrap in WRAPPED.items()
        if how == "compiled" or what in IN_EVERY_WAY
    ],
)
def test_what_a_wrapped_model_says_is_what_the_model_does(use, wrap, as_found):
    batches = [X, X[:2] * 2 + 1]
    expected = use(stack(), mean_square, batches)
    # neither needs a C++ compiler, and the second can't be differentiated twice, as is usual
    model, loss = wrap(stack(), "eager" if use is not pl.grasp else "aot_eager")
    for _ in range(2):  # compiled before, with and without gradients: hooks come too late
        loss(model, X).backward()
        with torch.no_grad():
            loss(model, X)
    model.zero_grad()
    with (
        contextlib.nullcontext() if use in (solved, by_squares, moved, trained) else as_found(model)
    ):
        found = use(model, loss, batches)
    assert len(found) == len(expected)
    for one, other in zip(found.values(), expected.values(), strict=True):
        torch.testing.assert_close(one, other)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    loss(model, X)


def test_nothing_is_forced_upon_what_is_not_compiled(monkeypatch):
    monkeypatch.setattr(torch.compiler, "set_stance", lambda *_: pytest.fail("forced"))
    pl.wanda(stack(), mean_square, [X])
    pl.fisher(stack(), mean_square, [X])


def test_synflow_compiles_nothing():
    graphs, model = [], stack()
    torch.compiler.reset()
    wrapped = torch.compile(model, backend=lambda graph, _: graphs.append(graph) or graph.forward)
    found = pl.synflow(wrapped, X)
    assert not graphs and next(iter(found.values())).equal(pl.synflow(model, X)["0.weight"])
    wrapped(X)
    assert graphs
