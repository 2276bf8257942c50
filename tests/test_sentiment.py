"""The review task: tokens, slices, the encoder and its heads."""

import dataclasses

import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.sentiment import (
    ByLength,
    encode,
    text_slices,
    train_tokenizer,
    transformer,
)


@pytest.fixture(scope="module")
def task():
    return pl.sentiment()


def test_splits_and_texts_belong_together(task):
    assert {k: x.shape for k, (x, _) in task.splits.items()} == {
        "train": (7000, 24), "valid": (1000, 24), "test": (2000, 24),
    }  # fmt: skip
    reviews = datasets.generated_reviews().set_index("text")
    assert set().union(*task.texts.values()) == set(reviews.index)
    for split, texts in task.texts.items():
        tokens, labels = task.splits[split]
        known = reviews.loc[texts]
        assert labels.tolist() == known["label"].tolist() and labels.float().mean() == 0.5
        assert tokens[:50].equal(encode(task.tokenizer, texts[:50]))
        slices = task.slices[split]
        for name, column in [
            ("negation", "negation"),
            ("rare words", "rare"),
            ("wrong label", "flipped"),
        ]:
            assert slices[name].tolist() == known[column].tolist()
        lengths = torch.tensor(known["words"].to_numpy())
        assert lengths[slices["long"]].min() > lengths[slices["short"]].max()
        assert not (slices["plain"] & (slices["negation"] | slices["contrast"])).any()
        assert slices["positive"].equal(labels == 1)
    again = train_tokenizer(task.texts["train"], 500, 24)
    assert task.tokenizer.to_str() == again.to_str(), "it has seen other splits"


def test_rows_that_training_never_uses_are_trimmed(task):
    whole = pl.sentiment(trim=False)
    used = torch.bincount(whole.splits["train"][0].flatten(), minlength=500)
    pieces = len(task.build(0).tokens.weight)
    assert len(whole.build(0).tokens.weight) == 500 > pieces == 2 + int((used[2:] > 0).sum())
    assert (used[2:-1] >= used[3:]).all(), "numbered by use"
    for split, (tokens, _) in task.splits.items():
        assert task.tokens(task.texts[split][:9]).equal(tokens[:9])
        assert tokens.max() < pieces == task.pieces and tokens.equal(whole.splits[split][0]), split


def test_a_piece_that_only_test_uses_is_unknown(monkeypatch):
    texts = [f"good film number {'abcdefgh'[i % 8]} {i % 2}" for i in range(10_662)]
    split = datasets.split

    def marked(indices, labels, sizes):
        places = split(indices, labels, sizes)
        for i in places["test"][0].tolist():
            texts[i] = texts[i].replace("film", "fil")  # a step on the way to "film"
        return places

    monkeypatch.setattr(datasets, "film_reviews", lambda: (texts, torch.arange(10_662) % 2))
    monkeypatch.setattr(datasets, "split", marked)
    task, whole = pl.sentiment("full"), pl.sentiment("full", trim=False)
    pieces = len(task.build(0).tokens.weight)
    unseen = whole.splits["test"][0] >= pieces
    assert unseen.any() and (task.splits["test"][0][unseen] == 1).all()
    assert task.splits["test"][0][~unseen].equal(whole.splits["test"][0][~unseen])
    assert task.splits["train"][0].equal(whole.splits["train"][0])
    assert task.tokens(task.texts["test"][:9]).equal(task.splits["test"][0][:9])


def test_the_tokenizer_is_the_same_every_time_and_knows_training_texts_only():
    texts = ["the plot is good", "the cast is good", "the plot is bad"] * 5
    one, two = (train_tokenizer(texts, 40, 6) for _ in range(2))
    assert one.to_str() == two.to_str()
    tokens = encode(one, ["The plot", "the plot is good the plot is bad", "ßß"])
    assert tokens.shape == (3, 6) and one.token_to_id("[PAD]") == 0
    assert [one.id_to_token(i) for i in tokens[0].tolist()] == ["the", "plot", *["[PAD]"] * 4]
    assert (tokens[1] > 1).all(), "cut, not padded"
    assert 1 in tokens[2], "letters that training lacks are unknown"


def test_slices_of_words():
    train = ["good film"] * 3 + ["a b c d e f"] * 3 + ["a b c d"] * 3
    texts = [
        "not good",
        "good but a b c d",
        "it isn't a film of mine",
        "Nothing notable , BUT good",
    ]
    found = {name: flags.tolist() for name, flags in text_slices(texts, train).items()}
    assert found["negation"] == [True, False, True, True]
    assert found["contrast"] == [False, True, False, True]
    assert found["rare words"] == [False, False, True, True]
    assert found["short"] == [True, False, False, False]
    assert found["long"] == [False, True, True, True]
    assert not text_slices(["good film"], train)["rare words"].any()


def test_batches_are_of_similar_length_and_cut_after_the_longest(task):
    tokens, labels = task.splits["train"]
    lengths = (tokens != 0).sum(dim=1)
    batches = ByLength(tokens, labels, torch.arange(len(tokens)), size=50, seed=3)
    passes = [list(batches), list(batches)]
    for batch, classes, places in passes[0]:
        assert batch.shape[1] == lengths[places].max() and classes.equal(labels[places])
        padded = torch.nn.functional.pad(batch, (0, 24 - batch.shape[1]))
        assert padded.equal(tokens[places]), "every word is there"
        assert lengths[places].max() - lengths[places].min() <= 2
    one, two = (torch.cat([places for *_, places in batches]) for batches in passes)
    assert one.sort()[0].equal(torch.arange(len(tokens))) and not one.equal(two)
    widths = [batch.shape[1] for batch, *_ in passes[0]]
    assert widths != sorted(widths), "in any order"
    again = ByLength(tokens, labels, torch.arange(len(tokens)), size=50, seed=3)
    assert torch.cat([places for *_, places in again]).equal(one)
    assert [b.shape[1] for b, _ in ByLength(tokens, labels)] == sorted(
        b.shape[1] for b, _ in ByLength(tokens, labels)
    )
    assert next(iter(ByLength(torch.zeros(2, 4, dtype=torch.int64))))[0].shape == (2, 1)


def test_answers_come_in_the_order_of_the_texts(task):
    model, tokens = task.build(0), task.splits["valid"][0][:300]
    model.train()
    found = task.answers(model, tokens)
    assert model.training, "the mode is left as found"
    assert found.equal(model.eval()(tokens).argmax(dim=1)) and found.unique().tolist() == [0, 1]


def test_padding_has_no_say():
    model = transformer(50, 10, seed=0).eval()
    tokens = torch.tensor([[5, 7, 9, 3]])
    padded = torch.nn.functional.pad(tokens, (0, 6))
    torch.testing.assert_close(model(padded), model(tokens))
    moved = model.tokens.weight.data[0].normal_()  # what padding is made of
    torch.testing.assert_close(model(padded), model(tokens))
    assert moved.any() and not torch.allclose(model(tokens), model(tokens.flip(1)), atol=1e-4)
    assert model(torch.zeros(1, 4, dtype=torch.int64)).isfinite().all(), "a text without words"


def test_heads_and_hidden_units_are_removed():
    model, example = transformer(50, 10, seed=0).eval(), torch.randint(50, (3, 10))
    groups = pl.coupled(model, example)
    assert {name: group.units for name, group in groups.items()} == {
        "blocks.0.attention.query.weight": 4, "blocks.0.up.weight": 64,
        "blocks.1.attention.query.weight": 4, "blocks.1.up.weight": 64,
    }  # fmt: skip
    masks = pl.spread(
        pl.select(pl.pool(pl.magnitude(model), groups), 0.5, budget=pl.uniform), groups
    )
    small = pl.shrink(model, masks, example)
    pl.apply(model, masks)
    torch.testing.assert_close(small(example), model(example))
    assert [block.attention.heads for block in small.blocks] == [2, 2]
    assert small.blocks[0].up.out_features == 32 and small.tokens.embedding_dim == 32


def test_seeds_and_widths(task):
    one, same, other = (task.build(seed) for seed in (0, 0, 1))
    pairs = zip(one.parameters(), same.parameters(), strict=True)
    assert all(p.equal(q) for p, q in pairs)
    assert not one.tokens.weight.equal(other.tokens.weight)
    narrow = task.build(0, 0.01)
    assert narrow.tokens.embedding_dim == 4 and narrow.blocks[0].up.out_features == 1


def test_it_learns_and_outcomes_are_its_accuracy(task):
    model = task.build(0)
    assert 0.4 < task.score(model, "valid") < 0.6
    task.train(model, seed=0, epochs=1)
    metrics = task.metrics(model, "test")
    assert set(metrics) == {"loss", "accuracy", "precision", "recall", "f1"}
    assert metrics["accuracy"] > 0.65
    assert task.outcomes(model, "test").float().mean().item() == pytest.approx(metrics["accuracy"])
    assert dataclasses.replace(task, epochs=1).texts is task.texts


def test_a_tier_that_does_not_exist():
    with pytest.raises(ValueError, match="data is 'fulll', but must be 'bundled' or 'full'"):
        pl.sentiment("fulll")


def test_the_full_tier(monkeypatch):
    """On sentences made here: their number and split, and slices computed from words."""
    texts = [f"word{i % 50} it is {'not' if i % 3 else ''} good , but {i}" for i in range(10_662)]
    labels = torch.arange(10_662) % 2
    monkeypatch.setattr(datasets, "film_reviews", lambda: (texts, labels))
    task = pl.sentiment("full")
    assert {k: x.shape for k, (x, _) in task.splits.items()} == {
        "train": (8662, 40), "valid": (1000, 40), "test": (1000, 40),
    }  # fmt: skip
    assert task.slices["test"]["contrast"].all()
    negated = torch.tensor(["not" in text.split() for text in task.texts["test"]])
    assert task.slices["test"]["negation"].equal(negated)
