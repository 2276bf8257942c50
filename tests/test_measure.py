"""Training, evaluation, cost and figures."""

import copy
import gzip
import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import scipy.stats
import sklearn.metrics
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import pruninglib as pl

# ---- batches ----


def passes(batches, count=2):
    return [torch.cat([b[0] for b in batches]).tolist() for _ in range(count)]


def test_batches_hold_every_sample_once_and_keep_tensors_together():
    x = torch.arange(10)
    plain = pl.Batches(x, x * 2, size=4)
    assert [len(a) for a, _ in plain] == [4, 4, 2] and len(plain) == 3
    assert passes(plain) == [x.tolist()] * 2
    shuffled = pl.Batches(x, x * 2, size=4, seed=0)
    assert all((b == 2 * a).all() for a, b in shuffled)
    assert len([*shuffled]) == 3 and sorted(passes(shuffled)[0]) == x.tolist()


def test_epochs_are_shuffled_differently_and_seeds_repeat():
    x = torch.arange(50)
    first, second = passes(pl.Batches(x, seed=1))
    assert first != second != x.tolist() != first
    torch.manual_seed(9)
    state = torch.get_rng_state()
    assert passes(pl.Batches(x, seed=1)) == [first, second]
    assert passes(pl.Batches(x, seed=2))[0] != first
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    "tensors, size, message",
    [
        ([torch.ones(3), torch.ones(4)], 2, r"different lengths: \[3, 4\]"),
        ([torch.ones(0, 4), torch.ones(0)], 2, "hold no samples"),
        ([torch.ones(3)], 0, "size is 0, but must be at least 1"),
    ],
)
def test_batches_of_nothing(tensors, size, message):
    with pytest.raises(ValueError, match=message):
        pl.Batches(*tensors, size=size)


# ---- fit ----


def test_fit_trains_and_reports(model, loss, batches):
    seen = []
    before = loss(model, batches[0]).item()
    rows = pl.fit(
        model, loss, batches, 5, progress=False,
        after_epoch=lambda epoch: seen.append((epoch, model.training)),
    )  # fmt: skip
    assert loss(model, batches[0]).item() < before and not model.training
    assert [set(row) for row in rows] == [{"epoch", "loss", "seconds"}] * 5
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4, 5]
    assert seen == [(epoch, False) for epoch in range(1, 6)]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_fit_trains_in_training_mode_and_averages_its_losses(model, batches):
    values, optimizer = iter([1.0, 2.0, 6.0]), torch.optim.SGD(model.parameters(), lr=0)

    def loss(model, batch):
        assert model.training
        return model(batch[0]).sum() * 0 + next(values)

    assert pl.fit(model.eval(), loss, batches, 1, optimizer=optimizer)[0]["loss"] == 3


def test_fit_is_plain_gradient_descent(model, loss, batches):
    other = copy.deepcopy(model)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)
    for batch in batches * 2:
        optimizer.zero_grad()
        loss(other, batch).backward()
        optimizer.step()
    pl.fit(model, loss, batches, 2, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    assert all(p.equal(q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_fit_keeps_masks_and_lets_go_of_them(model, loss, batches):
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1)
    pl.fit(model, loss, batches, 1, optimizer=optimizer)
    masks = pl.select(pl.magnitude(model), 0.5)
    sparsities = []
    pl.fit(
        model, loss, batches, 3, optimizer=optimizer, masks=masks,
        after_epoch=lambda _: sparsities.append(pl.sparsity(model).prunable),
    )  # fmt: skip
    assert sparsities == [0.5] * 3 and pl.sparsity(model).prunable == 0.5
    pl.fit(model, loss, batches, 1, optimizer=optimizer)
    assert pl.sparsity(model).prunable == 0


def test_fit_shows_progress_only_when_asked(model, loss, batches, capsys):
    pl.fit(model, loss, batches, 1, progress=False)
    assert capsys.readouterr() == ("", "")
    pl.fit(model, loss, batches, 1)
    assert "fit: 100%" in capsys.readouterr().err


def test_a_loss_of_nan_stops_training(model, loss, batches):
    seen = []
    with pytest.raises(
        FloatingPointError, match="loss became NaN or infinite in epoch 2: lower the learning"
    ):
        pl.fit(
            model, lambda m, b: loss(m, b) * (math.nan if seen else 1), batches, 9,
            after_epoch=seen.append,
        )  # fmt: skip
    assert seen == [1]


def test_empty_and_exhausted_loaders(model, loss, batches):
    with pytest.raises(ValueError, match="no batches in epoch 1: batches is empty"):
        pl.fit(model, loss, [], 2)
    with pytest.raises(ValueError, match=r"no batches in epoch 2: .*only once .*DataLoader"):
        pl.fit(model, loss, iter(batches), 2)
    metrics = pl.classification_metrics(3)
    with pytest.raises(ValueError, match="batches is empty: there is nothing to evaluate on"):
        pl.evaluate(model, [], cross_entropy, metrics)


# ---- evaluate ----


def outputs_and_targets():
    generator = torch.Generator().manual_seed(3)
    outputs = torch.randn(57, 4, generator=generator)
    outputs[:, 2] -= 99  # a class that is never predicted
    return outputs, torch.randint(4, (57,), generator=generator)


@pytest.mark.parametrize("size", [1, 10, 57])
def test_evaluate_agrees_with_scikit_learn(size):
    outputs, targets = outputs_and_targets()
    batches = pl.Batches(outputs, targets, size=size)
    found = pl.evaluate(nn.Identity(), batches, cross_entropy, pl.classification_metrics(4))
    predicted = outputs.argmax(1)
    options = {"average": "macro", "zero_division": 0}
    assert found == pytest.approx(
        {
            "loss": cross_entropy(outputs, targets).item(),
            "accuracy": sklearn.metrics.accuracy_score(targets, predicted),
            "precision": sklearn.metrics.precision_score(targets, predicted, **options),
            "recall": sklearn.metrics.recall_score(targets, predicted, **options),
        }
    )
    assert list(found) == ["loss", "accuracy", "precision", "recall"]
    assert all(type(value) is float for value in found.values())
    assert len(set(found.values())) == 4, "the example can't tell the metrics apart"


def test_evaluate_starts_anew_each_time():
    outputs, targets = outputs_and_targets()
    metrics = pl.classification_metrics(4)
    alone = [
        pl.evaluate(nn.Identity(), [pair], cross_entropy, pl.classification_metrics(4))
        for pair in ((outputs, targets), (outputs.flip(0), targets))
    ]
    again = [
        pl.evaluate(nn.Identity(), [pair], cross_entropy, metrics)
        for pair in ((outputs, targets), (outputs.flip(0), targets))
    ]
    assert again == alone


@pytest.mark.parametrize("fails", [False, True])
def test_evaluate_leaves_everything_as_found(fails, as_found):
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    model[0].eval()
    outputs, targets = outputs_and_targets()
    if fails:
        targets = targets + 90
    with as_found(model):
        if fails:
            with pytest.raises(IndexError):
                pl.evaluate(
                    model, [(outputs, targets)], cross_entropy, pl.classification_metrics(4)
                )
        else:
            pl.evaluate(model, [(outputs, targets)], cross_entropy, pl.classification_metrics(4))


# ---- intervals ----


def test_interval_agrees_with_scipy():
    values = [0.3, 0.5, 0.1, 0.9]
    found = pl.interval(values)
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(values), scipy.stats.sem(values))
    assert found == pytest.approx((0.45, low, high))
    # the t of two degrees of freedom is 4.303
    assert pl.interval([1, 2, 3]).high == pytest.approx(2 + 4.302653 / math.sqrt(3))


def test_interval_of_one_run_or_none():
    assert pl.interval([2.0]).mean == 2 and math.isnan(pl.interval([2.0]).low)
    with pytest.raises(ValueError, match="values is empty: an interval needs at least one run"):
        pl.interval([])


@pytest.fixture
def results():
    """Two methods, three seeds, two sparsities; `a` is better by 0.1, 0.2, 0.3 at 0.9."""
    rows = [
        (m, s, seed, split, seed / 10 + (m == "a") * (s == 0.9) * (seed + 1) / 10 + (split == "test"))
        for m in "ab" for s in (0.5, 0.9) for seed in (2, 0, 1) for split in ("valid", "test")
    ]  # fmt: skip
    rows += [("dense", 0.0, 0, split, 0.7) for split in ("valid", "test")]
    return pd.DataFrame(rows, columns=["method", "sparsity", "seed", "split", "accuracy"])


def test_advantage_is_paired_by_seed(results):
    found = pl.advantage(results, "a", "b", "accuracy", sparsity=0.9, split="test")
    assert found == pytest.approx(pl.interval([0.1, 0.2, 0.3]))
    found = pl.advantage(results, "b", "a", "accuracy", sparsity=0.5, split="test")
    assert found == pytest.approx((0, 0, 0), abs=1e-12)


def test_advantage_of_what_is_not_there(results):
    with pytest.raises(ValueError, match=r"no rows of method 'c' at .*0\.9.* it has a, b"):
        pl.advantage(results, "c", "b", "accuracy", sparsity=0.9, split="test")
    with pytest.raises(ValueError, match=r"several rows of one method and seed.*split"):
        pl.advantage(results, "a", "b", "accuracy", sparsity=0.9)


def test_advantage_over_samples_counts_networks_and_samples():
    """By hand: three seeds, four samples, of which `a` gains the last, and in one seed the first."""
    right = {"a": ["1101", "0101", "0101"], "b": ["0100", "0100", "0100"]}
    table = pd.DataFrame(
        [(m, seed, text) for m, texts in right.items() for seed, text in enumerate(texts)],
        columns=["method", "seed", "outcomes"],
    ).sample(frac=1, random_state=0)
    found = pl.advantage(table, "a", "b")
    runs, samples = pl.interval([0.5, 0.25, 0.25]), pl.interval([1 / 3, 0, 0, 1])
    half = math.hypot(runs.mean - runs.low, samples.mean - samples.low)
    assert found == pytest.approx((1 / 3, 1 / 3 - half, 1 / 3 + half))
    with pytest.raises(ValueError, match=r"no outcomes: call compare\(..., outcomes=True\)"):
        pl.advantage(table.drop(columns="outcomes"), "a", "b")


def test_over_pictures_draws_pictures_not_objects():
    """Twenty pictures of one to five objects; all of a picture are lost, or none."""
    picture = np.repeat(np.arange(20), [1, 2, 3, 4, 5] * 4)
    lost = np.stack([picture % 4 == 0, picture % 4 == 1]) * 1.0
    known = pl.over_pictures(lost, np.ones(len(picture)), picture)
    assert known.mean == pytest.approx(lost.mean())
    alone = pl.over_pictures(lost, np.ones_like(lost), np.arange(len(picture)))
    assert known.high - known.low > 1.5 * (alone.high - alone.low) > 0
    sums = np.array([lost[:, picture == i].sum() for i in range(20)])
    sizes = 2 * np.bincount(picture)
    drawn = np.random.default_rng(7).integers(20, size=(20000, 20))
    again = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    ends = np.quantile(again, [0.025, 0.975])
    assert known[1:] == pytest.approx(ends, abs=0.15 * (known.high - known.low))
    assert known == pl.over_pictures(lost, np.ones(len(picture)), picture)


def test_over_pictures_counts_what_counts():
    picture, values = np.array([0, 0, 1, 2]), np.array([[1.0, 5, 3, 7], [1, 5, 5, 7]])
    assert pl.over_pictures(values, np.array([True, False, True, False]), picture).mean == 2.5
    one = np.array([[True, False, False, False], [False, False, True, True]])
    assert pl.over_pictures(values, one, picture).mean == pytest.approx(13 / 3)
    assert pl.over_pictures(values, np.zeros(4), picture) == (0, 0, 0)


@pytest.mark.parametrize(
    "found, above, verdict",
    [
        (pl.Interval(2, 1, 3), 0, "holds"),
        (pl.Interval(2, 1, 3), 1, "open"),
        (pl.Interval(2, 1, 3), 3, "contradicted"),
        (pl.Interval(-2, -3, -1), 0, "contradicted"),
        (pl.Interval(0.2, -1, 1.4), 0, "open"),
        (pl.Interval(2, math.nan, math.nan), 0, "open"),
    ],
)
def test_a_verdict_is_one_of_three(found, above, verdict):
    assert found.verdict(above) == verdict


@pytest.mark.parametrize(
    "found, words",
    [
        (pl.Interval(8, 7.1, 8.9), "8.0 points ahead of x (7.1 to 8.9)"),
        (pl.Interval(-0.7, -1.2, -0.2), "0.7 points behind x (0.2 to 1.2)"),
        (pl.Interval(-0.7, -1.9, 0.5), "0.7 points behind x (from 1.9 behind to 0.5 ahead)"),
        (pl.Interval(0.7, -0.5, 1.9), "0.7 points ahead of x (from 0.5 behind to 1.9 ahead)"),
    ],
)
def test_a_difference_reads_forwards(found, words):
    assert found.ahead_of("x") == words


def test_a_difference_in_other_units():
    assert pl.Interval(-3, -4, -2).ahead_of("x", "ms", digits=0) == "3 ms behind x (2 to 4)"


def test_an_interval_writes_itself():
    found = pl.interval([0.3, 0.5, 0.1, 0.9])
    low, high = found.points[1:]
    assert f"{found.points:.1f}" == f"45.0 ({low:.1f} to {high:.1f})"
    assert low == pytest.approx(100 * found.low) and high == pytest.approx(100 * found.high)


# ---- ledger ----


class Attention(nn.Module):
    def __init__(self, need_weights):
        super().__init__()
        self.attention, self.need_weights = (
            nn.MultiheadAttention(8, 2, batch_first=True),
            need_weights,
        )

    def forward(self, x):
        return self.attention(x, x, x, need_weights=self.need_weights)[0]


@pytest.mark.parametrize(
    "model, shape, expected",
    [
        (nn.Linear(5, 7), (3, 5), 3 * 5 * 7),
        (nn.Linear(5, 7), (2, 3, 5), 6 * 5 * 7),
        # 7 pixels, padded to 9, are 4 at stride 2; each output sees 4 / 2 input channels
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (2, 4, 7, 7), 2 * 6 * 16 * 2 * 9),
        (nn.Conv2d(4, 4, 3, groups=4), (1, 4, 5, 5), 4 * 9 * 9),
        (nn.Conv1d(3, 5, 4, dilation=2), (1, 3, 10), 5 * 4 * 3 * 4),
        (nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU()), (2, 4), 2 * 16),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, nn.Module) else None,
)
def test_macs_by_hand(model, shape, expected):
    assert pl.macs(model, torch.randn(shape)) == expected


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_attention_is_counted(need_weights, training):
    model, (batch, length, width) = Attention(need_weights).train(training), (3, 5, 8)
    projections = 4 * length * batch * width * width  # query, key, value, output
    products = 2 * batch * length * length * width  # with keys, with values
    assert pl.macs(model, torch.randn(batch, length, width)) == projections + products
    layer = nn.TransformerEncoderLayer(width, 2, 16, batch_first=True).train(training)
    hidden = 2 * length * batch * width * 16
    assert pl.macs(layer, torch.randn(batch, length, width)) == projections + products + hidden
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(
    "cost", [pl.macs, lambda m, x: pl.ledger(m, x, repeats=2)], ids=["macs", "ledger"]
)
def test_costs_leave_everything_as_found(cost, as_found):
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[0].weight.grad = torch.ones(3, 4)
    one = torch.randn(1, 4)  # BatchNorm refuses a single sample in training mode
    with as_found(model):
        cost(model, one)


@pytest.fixture
def wide():
    model = nn.Sequential(nn.Linear(100, 200), nn.ReLU(), nn.Linear(200, 50, bias=False))
    model.register_buffer("steps", torch.zeros(10, dtype=torch.int64))
    return model


def test_ledger_by_hand(wide):
    example = torch.randn(10, 100)
    with torch.no_grad():
        wide[0].weight[:, :90] = 0
    found = pl.ledger(wide, example, repeats=5)
    first, second, bias, buffer = 20_000, 10_000, 200, 80
    assert found["parameters"] == first + second + bias
    assert found["nonzeros"] == 2_000 + second + bias
    assert found["bytes_dense"] == 4 * (first + second + bias) + buffer
    # the first in compressed rows; the second is smaller dense
    assert found["bytes_sparse"] == (2_000 * 8 + 201 * 4) + 4 * (second + bias) + buffer
    assert found["macs"] == 10 * (first + second)
    # the most held at once: ReLU's input and output
    assert found["peak_bytes"] == found["bytes_dense"] + 2 * 10 * 200 * 4
    assert 0 < found["latency_low_ms"] <= found["latency_ms"] <= found["latency_high_ms"]


def test_peak_of_both_devices(monkeypatch):
    """A model on the CPU is measured, though there is a GPU."""
    for name, value in {"is_available": True, "memory_allocated": 100, "max_memory_allocated": 130,
                        "reset_peak_memory_stats": None}.items():  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    with torch.no_grad():
        assert pl.peak_allocation(lambda: torch.empty(1000).clone()) == 8000 + 30


def test_zeros_change_no_dense_byte_and_no_multiplication(wide):
    example = torch.randn(10, 100)
    dense = pl.ledger(wide, example, repeats=2)
    pl.apply(wide, pl.select(pl.magnitude(wide), 0.9))
    pruned = pl.ledger(wide, example, repeats=2)
    for same in ("parameters", "bytes_dense", "macs", "peak_bytes"):
        assert pruned[same] == dense[same]
    assert pruned["nonzeros"] == dense["nonzeros"] - 27_000
    for smaller in ("bytes_sparse", "bytes_gzip"):
        assert pruned[smaller] < 0.3 * dense[smaller]
    # random bits hardly compress, and there are nine tenths fewer of them
    assert 0.9 * 4 * 30_200 < dense["bytes_gzip"] < 1.01 * 4 * 30_200


def test_tied_weights_cost_once():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.words, self.out = nn.Embedding(9, 6), nn.Linear(6, 9, bias=False)
            self.out.weight = self.words.weight
            self.register_buffer("view", self.words.weight.detach()[:2])  # shares its memory

        def forward(self, x):
            return self.out(self.words(x))

    found = pl.ledger(Tied(), torch.arange(4), repeats=2)
    assert found["parameters"] == found["nonzeros"] == 54 and found["macs"] == 4 * 54
    assert found["bytes_dense"] == 54 * 4 + 12 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bytes_sparse_agree_with_scipy(dtype):
    layer = nn.Linear(23, 17, bias=False, dtype=dtype)
    pl.apply(layer, pl.select(pl.magnitude(layer), 0.8))
    matrix = scipy.sparse.csr_matrix(layer.weight.detach().numpy())
    assert matrix.indices.dtype == np.int32
    stored = matrix.data.nbytes + matrix.indices.nbytes + matrix.indptr.nbytes
    example = torch.randn(1, 23, dtype=dtype)
    assert pl.ledger(layer, example, repeats=2)["bytes_sparse"] == stored


def test_bytes_sparse_of_a_convolution_by_hand():
    layer = nn.Conv2d(4, 6, 3, bias=False)
    pl.apply(layer, pl.select(pl.magnitude(layer), 0.75))
    found = pl.ledger(layer, torch.randn(1, 4, 5, 5), repeats=2)
    assert found["bytes_sparse"] == 54 * (4 + 4) + (6 + 1) * 4  # a row is an output channel


def test_gzip_holds_the_weights(wide, monkeypatch):
    packed, compress = [], gzip.compress
    monkeypatch.setattr(
        gzip, "compress", lambda *a, **k: packed.append(compress(*a, **k)) or packed[0]
    )
    size = pl.ledger(wide, torch.randn(1, 100), repeats=2)["bytes_gzip"]
    assert size == len(packed[0])
    assert wide[2].weight.detach().numpy().tobytes() in gzip.decompress(packed[0])


def test_latencies_are_of_the_calls_after_the_warm_up():
    calls = []
    assert len(pl.latencies(lambda: calls.append(1), repeats=5)) == 5 and len(calls) == 8


# ---- figures ----


@pytest.fixture(autouse=True)
def figures():
    yield
    plt.close("all")


def test_curves_of_mixed_splits_are_refused(results):
    with pytest.raises(ValueError, match="mixes the splits valid, test: keep one"):
        pl.plots.curves(results)


def test_curves_show_means_and_intervals(results):
    table = results[results["split"] == "valid"]
    ax = pl.plots.curves(table)
    lines = {line.get_label(): line for line in ax.lines}
    assert list(lines) == ["a", "b", "dense"]
    assert lines["a"].get_xdata().tolist() == [0.5, 0.9]
    assert lines["a"].get_ydata() == pytest.approx([0.1, 0.3])
    low, high = pl.interval([0.1, 0.3, 0.5])[1:]
    band = ax.collections[0].get_paths()[0].vertices
    edges = sorted(y for x, y in band.tolist() if x == 0.9)
    assert edges[0] == pytest.approx(low) and edges[-1] == pytest.approx(high)
    assert set(lines["dense"].get_ydata()) == {0.7}
    assert "%" in ax.get_xlabel() and ax.get_ylabel() and len(ax.get_legend().texts) == 3
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["50", "90"]
    assert all(t.get_text().endswith("%") for t in ax.get_yticklabels())


def test_the_axis_of_sparsity_is_logarithmic_in_what_is_kept():
    ax = plt.figure().gca()
    pl.plots.sparsity_axis(ax, [0.9, 0.99, 0.999])
    ax.set_xlim(0, 0.9999)
    places = ax.transData.transform([(s, 0) for s in (0, 0.9, 0.99, 0.999)])[:, 0]
    assert np.diff(places, 2) == pytest.approx([0, 0], abs=1e-6) and places[1] > places[0]
    ax.figure.canvas.draw()
    assert [t.get_text() for t in ax.get_xticklabels()] == ["90", "99", "99.9"]


def test_a_method_keeps_its_look():
    shown = [
        tuple(pl.plots.look(m).values()) for m in ("dense", "random", "magnitude", "small dense")
    ]
    assert len({c for c, _ in shown}) == len({m for _, m in shown}) == 4
    assert pl.plots.look("never heard of")["color"] == pl.plots.look("random")["color"]


def test_heatmap_writes_its_numbers():
    values = pd.DataFrame([[0.0, 0.25], [0.5, np.nan]], index=["x", "y"], columns=["p", "q"])
    ax = pl.plots.heatmap(values, label="accuracy")
    assert [t.get_text() for t in ax.texts] == ["0%", "25%", "50%", "nan%"]
    assert [t.get_text() for t in ax.get_xticklabels() + ax.get_yticklabels()] == [*"pqxy"]
    assert ax.images[0].colorbar.ax.get_ylabel() == "accuracy"


def test_one_style(monkeypatch):
    with plt.rc_context():
        pl.plots.style()
        assert plt.rcParams["figure.figsize"][0] == pl.plots.WIDTH
        assert not plt.rcParams["axes.spines.top"]


def test_jobs_take_turns_in_another_order_each_round_on_one_thread():
    calls, threads = [], torch.get_num_threads()

    def job(name):
        def run():
            calls.append(name)
            assert torch.get_num_threads() == 1

        return run

    table = pl.in_turn({name: job(name) for name in "abc"}, rounds=8, repeats=2)
    assert list(table) == ["a", "b", "c"] and len(table) == 8 and (table > 0).all().all()
    turns = [name for i, name in enumerate(calls) if i == 0 or name != calls[i - 1]]
    assert {calls.count(name) for name in "abc"} == {8 * (2 + 3)}  # three warm up
    assert len({tuple(turns[i : i + 3]) for i in range(0, len(turns), 3)}) > 1
    with pytest.raises(ZeroDivisionError):
        pl.in_turn({"fails": lambda: 1 / 0})
    assert torch.get_num_threads() == threads
