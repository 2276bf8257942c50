"""Gradients of each sample without a loop, and layers' inputs, against one sample at a time."""

import collections
import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import pruninglib as pl
from pruninglib.base import gradients
from pruninglib.base.running import size

N, SIZES = 13, [6, 6, 1]
# Calls of the loss with one sample: a few of each batch on which the fast way is checked. The loop
# over samples has at least N.
FAST = sum(min(size, gradients.CHECKED) for size in SIZES)


def squares(model, x):
    return model(x).flatten(1).square().sum(1).mean()


def take(batch, i):
    """Sample i of a batch, with its dimension."""
    if isinstance(batch, tuple):
        return tuple(take(part, i) for part in batch)
    return batch[i : i + 1]


def parts(batch, sizes=SIZES):
    if isinstance(batch, tuple):
        return list(zip(*(part.split(sizes) for part in batch), strict=True))
    return list(batch.split(sizes))


def one_by_one(model, batch, loss, names, samples=N):
    """name -> (samples, *shape), by backward() on a copy."""
    model, rows = copy.deepcopy(model).requires_grad_(True), []
    for i in range(samples):
        model.zero_grad()
        value = loss(model, take(batch, i))
        if value.requires_grad:
            value.backward()
        weights = pl.weights_of(model, names).items()
        grads = {n: torch.zeros_like(w) if w.grad is None else w.grad for n, w in weights}
        rows.append({n: g.to_dense().clone() for n, g in grads.items()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def agree(model, batch, loss=squares, names=None, fast=None, batches=None, samples=N, **tolerance):
    """`fisher` and `taylor` equal the loop, and the loop is what ran, or not (`fast`)."""
    rows, weights = one_by_one(model, batch, loss, names, samples), pl.weights_of(model, names)
    assert any(r.any() for r in rows.values()), "nothing to see"
    batches, calls = batches or parts(batch), []

    def counted(model, batch):
        calls.append(size(batch) == 1)
        return loss(model, batch)

    found = [
        pl.fisher(model, counted, batches, names),
        pl.taylor(model, counted, batches, names, reading="abs"),
    ]
    for name, w in weights.items():
        w, g = w.detach(), rows[name]
        expected = g.square().mean(0) * w.square() / 2, g.abs().mean(0) * w.abs()
        for scores, value in zip(found, expected, strict=True):
            torch.testing.assert_close(scores[name], value, **tolerance)
    if fast is not None:
        assert sum(calls) == 2 * FAST if fast else sum(calls) >= 2 * N


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class Of(nn.Module):
    """A model that is a function of the modules given."""

    def __init__(self, function, **modules):
        super().__init__()
        self.function = function
        for name, module in modules.items():
            setattr(self, name, module)

    def forward(self, x):
        return self.function(self, x)


def tied():
    model = Of(
        lambda m, x: m.out(m.words(x).mean(1)), words=nn.Embedding(7, 3), out=nn.Linear(3, 7)
    )
    model.out.weight = model.words.weight
    return model


def normed():
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.BatchNorm1d(3), nn.ReLU(inplace=True))
    model(torch.randn(4, 2, 5))
    return model.eval()


def attention(m, x):
    q, k, v = m.qkv(x).chunk(3, dim=-1)
    return m.out(F.scaled_dot_product_attention(q, k, v))


def real(*shape):
    return lambda: torch.randn(N, *shape)


def words(*shape):
    return lambda: torch.randint(7, (N, *shape))


# ---- where no loop is needed ----

LAYERS = {
    "linear": (lambda: nn.Linear(4, 3), real(4)),
    "linear of sequences": (lambda: nn.Linear(4, 3, bias=False), real(5, 4)),
    "linear of grids": (lambda: nn.Linear(4, 3), real(2, 3, 4)),
    "in place": (
        lambda: nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 2)),
        real(4),
    ),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1), real(4, 8)),
    "conv1d same": (lambda: nn.Conv1d(2, 3, 4, padding="same", dilation=2), real(2, 9)),
    "conv1d circular": (lambda: nn.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), real(2, 5)),
    "conv2d": (lambda: nn.Conv2d(2, 4, (3, 2), stride=(2, 1), padding=(1, 0)), real(2, 6, 5)),
    "conv2d groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding="valid"), real(4, 4, 5)),
    "conv2d depthwise": (lambda: nn.Conv2d(3, 6, 2, groups=3), real(3, 4, 4)),
    "conv2d pointwise": (lambda: nn.Conv2d(3, 5, 1, stride=2), real(3, 4, 4)),
    "conv2d reflect": (lambda: nn.Conv2d(1, 2, 3, padding=(1, 2), padding_mode="reflect"), real(1, 4, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2, dilation=(1, 2, 1), padding=(0, 1, 0)), real(2, 3, 4, 2)),
    "embedding": (lambda: nn.Sequential(nn.Embedding(7, 3), nn.Flatten(), nn.Linear(12, 2)), words(4)),
    "embedding of one": (lambda: nn.Sequential(nn.Embedding(7, 3), nn.Tanh()), words()),
    "embedding of grids": (lambda: nn.Embedding.from_pretrained(torch.randn(7, 3), padding_idx=2), words(3, 4)),
    "embedding sparse": (lambda: nn.Sequential(nn.Embedding(7, 3, sparse=True), nn.Tanh()), words(4)),
    "shared": (lambda: Of(lambda m, x: m.a(m.a(x).tanh()), a=nn.Linear(4, 4)), real(4)),
    "shared of sequences": (lambda: Of(lambda m, x: m.a(m.a(x).tanh()), a=nn.Linear(4, 4)), real(3, 4)),
    "shared conv": (lambda: Of(lambda m, x: m.a(m.a(x[..., 1:]).tanh()), a=nn.Conv1d(2, 2, 2)), real(2, 7)),
    "tied": (tied, words(4)),
    "batch norm that has learnt": (normed, real(2, 5)),
    "attention": (lambda: Of(attention, qkv=nn.Linear(4, 12), out=nn.Linear(4, 2)), real(3, 4)),
    "named input": (lambda: Of(lambda m, x: m.a(input=x), a=nn.Linear(4, 3)), real(4)),
    "not reached": (lambda: Of(lambda m, x: m.a(x), a=nn.Linear(4, 3), b=nn.Linear(2, 2)), real(4)),
    "reached in vain": (lambda: Of(lambda m, x: (m.b(x), m.a(x))[1], a=nn.Linear(4, 3), b=nn.Linear(4, 2)), real(4)),
}  # fmt: skip


@pytest.mark.parametrize("build, data", LAYERS.values(), ids=LAYERS)
def test_one_backward_pass_per_batch_gives_each_samples_gradient(build, data):
    agree(build(), data(), fast=True)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@settings(max_examples=40)
@given(st.data())
def test_any_convolution(data):
    def draw(low, high, size=None):
        numbers = st.integers(low, high)
        return data.draw(numbers if size is None else st.tuples(*[numbers] * size))

    d, groups = draw(1, 3), draw(1, 2)
    kernel, dilation, mode = (
        draw(1, 3, d),
        draw(1, 2, d),
        data.draw(st.sampled_from(["zeros", "replicate"])),
    )
    stride, padding = draw(1, 2, d), draw(0, 2, d)
    if data.draw(st.booleans()):
        stride, padding = 1, "same"
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[d - 1](
        groups * draw(1, 2), groups * draw(1, 2), kernel, stride, padding, dilation, groups,
        padding_mode=mode,
    )  # fmt: skip
    size = [(k - 1) * g + 1 + draw(0, 2) for k, g in zip(kernel, dilation, strict=True)]
    agree(nn.Sequential(conv, nn.Tanh()), torch.randn(N, conv.in_channels, *size), fast=True)


@pytest.mark.parametrize("at_once", [1, 40, 100])
@pytest.mark.parametrize("name", ["linear of sequences", "conv2d groups", "tied", "shared"])
def test_a_few_samples_at_a_time_give_the_same(name, at_once, monkeypatch):
    monkeypatch.setattr(gradients, "AT_ONCE", at_once)
    build, data = LAYERS[name]
    agree(build(), data(), fast=True)


class Attributes(collections.UserDict):
    """A mapping that is no dict, and of which losses may ask more than a dict knows."""

    def __getattr__(self, key):
        if key not in ("x", "y"):
            raise AttributeError(key)
        return self.data[key]


Pair = collections.namedtuple("Pair", ["x", "y"])


@pytest.mark.parametrize("kind", [Pair, lambda x, y: Attributes(x=x, y=y)])
def test_batches_keep_their_type(kind):
    batch = torch.randn(N, 4), torch.randint(3, (N,))
    batches = [kind(*both) for both in parts(batch)]

    def loss(model, batch):
        x, y = batch if type(batch) is tuple else (batch.x, batch.y)
        return F.cross_entropy(model(x), y)

    agree(nn.Linear(4, 3), batch, loss, fast=True, batches=batches)


# ---- where there is no way round the loop ----


def pairs(model, x):
    z = model(x)
    return (z @ z.T).square().mean()


def reseeded(model, x):
    torch.manual_seed(0)  # or the reference would drop other units
    return squares(model, x)


def weighted(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], weight=torch.tensor([1.0, 5.0, 9.0]))


def padded(model, batch):
    return F.cross_entropy(model(batch[0]).flatten(0, 1), batch[1].flatten(), ignore_index=0)


def labelled(*shape):
    # the first half of a batch looks alike: as if sorted
    return lambda: (torch.randn(N, *shape, 4), torch.tensor([1, 1, 1, 2, 0, 2] * 2 + [1]))


def ragged():
    y = torch.tensor([[1, 2, 1]] * 3 + [[2, 0, 0]] * 3)
    return torch.randn(N, 3, 4), torch.cat([y, y, y[:1]])


class Tuple(nn.Module):
    """A module with a weight that gives more than a tensor."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 4))

    def forward(self, x):
        return x @ self.weight.T, None


def time_first(m, x):
    return m.a(x.transpose(0, 1)).transpose(0, 1)


def per_sample(m, x):
    return torch.stack([m.a(one) for one in x])


def gated(m, x):
    """Mixture of experts: each sees the samples that the gate sends."""
    first = x[:, 0] > 0
    return torch.cat([m.a(x[first]), m.b(x[~first])])


LOOPS = {
    "transposed": (lambda: nn.ConvTranspose1d(2, 3, 2), real(2, 4)),
    "transposed and linear": (lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.Linear(5, 2)), real(2, 4)),
    "bilinear": (lambda: Of(lambda m, x: m.a(x, x.sin()), a=nn.Bilinear(4, 4, 2)), real(4)),
    "bag": (lambda: nn.EmbeddingBag(7, 3), words(4)),
    "norm by name": (lambda: nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2)), real(4), squares, ["0.weight", "1.weight"]),
    "bias by name": (lambda: nn.Linear(4, 2), real(4), squares, ["weight", "bias"]),
    "tuple by name": (lambda: Of(lambda m, x: m.a(x)[0], a=Tuple()), real(4), squares, ["a.weight"]),
    "weight used directly": (lambda: Of(lambda m, x: F.linear(x, m.a.weight), a=nn.Linear(4, 3)), real(4)),
    "used directly too": (lambda: Of(lambda m, x: m.a(F.linear(x, m.a.weight)), a=nn.Linear(4, 4)), real(4)),
    "one of two used directly": (
        lambda: Of(lambda m, x: F.linear(m.b(m.a(x)), m.b.weight), a=nn.Linear(4, 4), b=nn.Linear(4, 4)), real(4)),
    "self-attention": (lambda: nn.TransformerEncoderLayer(4, 2, 5, dropout=0, batch_first=True), real(3, 4)),
    "counted tokens": (lambda: nn.Sequential(nn.Embedding(7, 3, scale_grad_by_freq=True), nn.Tanh()), words(4)),
    "sum": (lambda: nn.Linear(4, 3), real(4), lambda m, x: m(x).square().sum()),
    "pairs": (lambda: nn.Linear(4, 3), real(4), pairs),
    "class weights": (lambda: nn.Linear(4, 3), labelled(), weighted),
    "ignored": (lambda: nn.Linear(4, 3), ragged, padded),
    "dropout": (lambda: nn.Sequential(nn.Linear(4, 9), nn.Dropout(0.5), nn.Linear(9, 2)), real(4), reseeded),
    **{f"time first, {t}": (lambda: Of(time_first, a=nn.Linear(4, 3)), real(t, 4)) for t in (1, 3, 6)},
    "vectors": (lambda: Of(per_sample, a=nn.Linear(3, 3)), real(3)),
    "unbatched": (lambda: Of(per_sample, a=nn.Conv1d(3, 3, 2)), real(3, 4)),
    "one token": (lambda: Of(lambda m, x: x * m.a(torch.tensor(2)), a=nn.Embedding(3, 4)), real(4)),
    "experts": (lambda: Of(gated, a=nn.Linear(4, 3), b=nn.Linear(4, 3)), real(4)),
}  # fmt: skip


@pytest.mark.parametrize("case", LOOPS.values(), ids=LOOPS)
def test_falls_back_to_the_loop(case):
    build, data, *rest = case
    agree(build(), data(), *rest, fast=False)


def test_one_sample_does_not_show_how_the_loss_joins_many():
    x = torch.randn(N, 4)
    for sizes in ([1, 12], [1, 6, 6], [1] * N):
        agree(nn.Linear(4, 3), x, LOOPS["sum"][2], batches=parts(x, sizes))


def test_batches_of_other_shapes():
    """A later batch may need the loop though the first did not."""

    def either(m, x):
        return m.a(x) if len(x) > 4 else time_first(m, x[:, None])[:, 0]

    x = torch.randn(N, 4)
    for sizes in ([5, 8], [8, 3, 2], [8, 4, 1]):
        agree(Of(either, a=nn.Linear(4, 3)), x, batches=parts(x, sizes))


def test_a_batch_without_samples_or_without_gradient():
    def loss(model, x):
        value = squares(model, x)
        return value if x.any() else value.detach()

    x = torch.randn(N, 4)
    x[4:7] = 0
    for sizes in ([0, 4, 0, 3, 6], [4, 3, 6]):
        agree(nn.Linear(4, 3), x, loss, batches=parts(x, sizes))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_in_large_batches(dtype):
    # a gradient of the mean over 600 is too small for float16
    model, x = nn.Linear(2, 2, dtype=dtype), torch.randn(600, 2, dtype=dtype)

    def loss(model, x):
        return (model(x) * 3e-4).mean()

    for criterion in (pl.fisher, lambda *args: pl.taylor(*args, reading="abs")):
        found = criterion(model, loss, [x])["weight"]
        expected = criterion(copy.deepcopy(model).float(), loss, [x.float()])["weight"]
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.01, atol=0)


def test_half_precision_is_widened_before_it_is_added_up():
    model, x = nn.Linear(2, 1, dtype=torch.float16), torch.ones(600, 2, dtype=torch.float16)
    found = pl.gradient(model, lambda m, x: (m(x) * 300).mean(), [x])["weight"]
    assert found.tolist() == [[300, 300]]  # not infinity


@pytest.mark.parametrize("reading", ["abs", "square"])
def test_batch_norm_must_not_mix_samples(reading, as_found):
    model, x = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)), torch.randn(5, 4)
    with as_found(model), pytest.raises(ValueError, match=r"batch: call model\.eval\(\) first"):
        pl.taylor(model, squares, [x], reading=reading)
    assert pl.taylor(model, squares, [x])["0.weight"].any(), "E[g] needs no single samples"


def test_no_hooks_are_left_behind():
    class Failure(Exception):
        pass

    def failing(model, x):
        model(x)
        raise Failure

    model, x = nn.Linear(4, 3), torch.randn(N, 4)
    for criterion in (pl.fisher, pl.wanda):
        with pytest.raises(Failure):
            criterion(model, failing, [x])
        criterion(model, squares, [x])
        assert not model._forward_hooks and not model._forward_pre_hooks
        assert torch.backends.mha.get_fastpath_enabled()


# ---- the gradient of a function of gradients ----


def test_the_mean_gradient_of_a_function_of_gradients():
    """For L = mean (w·x)²/2, g = mean x (w·x), and the gradient of |g|²/2 is H g, H = mean x xᵀ."""
    model, x = nn.Linear(4, 1, bias=False), torch.randn(N, 4)

    def loss(model, x):
        return model(x).square().mean() / 2

    def half_norm(gradients):
        assert list(gradients) == ["weight"]
        return gradients["weight"].square().sum() / 2

    weights, expected = pl.weights_of(model), torch.zeros(1, 4)
    for part in parts(x):
        second = part.T @ part / len(part)
        expected += len(part) / N * model.weight.detach() @ second @ second
    found = gradients.mean_gradients(model, weights, loss, parts(x), of=half_norm)
    torch.testing.assert_close(found["weight"], expected)
    plain = gradients.mean_gradients(model, weights, loss, parts(x))
    torch.testing.assert_close(plain["weight"], model.weight.detach() @ x.T @ x / N)
