"""Documentation as text, its windows, the network and what is measured of it."""

import math
import warnings

import numpy as np
import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import docstrings
from pruninglib.tasks.docstrings import _blocks, _new, _paragraphs, _prose, checksum, documentation
from pruninglib.tasks.language import (
    END,
    LENGTH,
    PIECES,
    Before,
    bigram,
    encode,
    losses,
    train_tokenizer,
    windows,
)
from pruninglib.tasks.transformer import BEGIN, PADDING


@pytest.fixture(scope="module")
def task():
    return pl.language()


@pytest.fixture(scope="module")
def model(task):
    return task.build(0)


# ---- text ----


def test_the_text_is_that_of_the_locked_packages():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        splits = documentation()
    assert {split: len(found) for split, found in splits.items()} == {
        "train": 358,
        "valid": 51,
        "test": 102,
    }


def test_other_text_is_said_in_one_sentence(monkeypatch):
    monkeypatch.setattr(docstrings, "CHECKSUM", "another")
    with pytest.warns(UserWarning, match=r"scipy \d.*install the locked packages"):
        documentation()


def test_no_module_and_no_paragraph_is_in_two_splits(task):
    names = [name for found in task.texts.values() for name in found]
    said = [text for found in task.texts.values() for part in found.values() for text in part]
    assert len(names) == len(set(names))
    assert len(said) == len(set(said))


def test_each_package_is_in_each_split(task):
    for found in task.texts.values():
        assert {name.split("/")[0] for name in found} == set(docstrings.PACKAGES)


def test_the_checksum_sees_a_letter_and_a_split():
    text = {"train": {"a": ["one thing."]}, "test": {"b": ["another."]}}
    other = {"train": {"a": ["one thing!"]}, "test": {"b": ["another."]}}
    moved = {"train": {}, "test": {"a": ["one thing."], "b": ["another."]}}
    assert len({checksum(text), checksum(other), checksum(moved)}) == 3


def test_docstrings_are_found_and_other_strings_are_not(tmp_path):
    path = tmp_path / "module.py"
    path.write_text(
        '"""The first of all the things said here."""\n'
        'X = """A string that is no docstring at all."""\n'
        'def f():\n    r"""Another thing that is said\n    on two lines of it.\n\n'
        '    Nothing but this.\n        Further in is a block of its own."""\n',
        encoding="utf-8",
    )
    assert _paragraphs(path) == [
        "the first of all the things said here.",
        "another thing that is said on two lines of it.",
        "further in is a block of its own.",
    ]


@pytest.mark.parametrize(
    "block",
    [
        "too short a text.",
        "no full stop at the end of this one",
        "begins with a small letter and is long enough.",
        "x = 1; y[2] = 3 / (4 - 5) is the code of it.",
        "Uses a sign that is not plain: α, and so it goes.",
    ],
)
def test_what_is_no_prose_is_left_out(block):
    assert _prose(block) is None


def test_markup_is_taken_out():
    text = "See :func:`~numpy.sum` and *all* of ``these`` other things."
    assert _prose(text) == "see numpy.sum and all of these other things."


def test_a_block_ends_where_the_indentation_changes():
    assert list(_blocks("One\ntwo\n    three\n\nfour")) == ["One two", "three", "four"]


def test_copies_and_near_copies_are_left_out():
    said = set()
    first = "one two three four five six seven eight nine ten."
    assert _new([first, first], said) == [first]
    assert _new([first.replace("ten.", "eleven.")], said) == []  # five of six runs
    half = "one two three four five six seven and now quite other words."  # three of eight
    assert _new([half], said) == [half]


# ---- tokens ----


def test_the_shipped_tokenizer_is_what_training_on_this_text_gives(task):
    again = train_tokenizer([t for part in task.texts["train"].values() for t in part])
    assert again.to_str() == task.tokenizer.to_str()
    assert task.tokenizer.get_vocab_size() == PIECES


def test_pieces_give_the_text_back(task):
    text = next(iter(task.texts["test"].values()))[0]
    assert task.tokenizer.decode(task.tokenizer.encode(text).ids) == text


def test_a_document_is_cut_into_windows_that_begin_and_are_filled_up():
    cut = windows([5, 6, 7, 8, 9], length=3)
    assert cut.tolist() == [[BEGIN, 5, 6, 7], [BEGIN, 8, 9, PADDING]]
    assert windows([5, 6, 7, 8, 9], most=1, length=3).tolist() == [[BEGIN, 5, 6, 7]]


def test_each_paragraph_ends(task):
    tokens = encode(task.tokenizer, ["one thing.", "another."])
    assert tokens.count(END) == 2
    assert tokens[-1] == END


# ---- network ----


def test_nothing_comes_from_what_is_later(model):
    tokens = torch.randint(4, PIECES, (2, 20), generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[:, 10:] = 5
    with torch.no_grad():
        before, after = model(tokens), model(changed)
    assert before[:, :10].equal(after[:, :10])
    assert not before[:, 10:].allclose(after[:, 10:])


def test_before_adds_the_place_before():
    layer = Before(2)
    layer.scale.data = torch.tensor([1.0, 0.0])
    x = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])
    assert layer(x).tolist() == [[[1, 2], [4, 4], [8, 6]]]


def test_a_place_reads_the_piece_before_it(task):
    only = task.build(0)
    for block in only.blocks:  # without attention
        block.attention.output.weight.data.zero_()
    tokens = torch.tensor([[BEGIN, 10, 20], [BEGIN, 11, 20]])
    with torch.no_grad():
        out = only(tokens)
    assert not out[0, 2].allclose(out[1, 2])


def test_tables_begin_as_a_bigram_model():
    tokens = torch.tensor([[2, 4, 5, 4, 5, 4, 5, 6, PADDING]]).repeat(50, 1)
    left, right, bias = bigram(tokens, 8, 4)
    logits = torch.nn.functional.layer_norm(left, (4,)) @ right.T + bias
    share = logits.softmax(dim=1)
    assert share[4, 5] > 0.95  # always
    assert share[5, 4] == pytest.approx(2 / 3, abs=0.05)
    assert share[5, 6] == pytest.approx(1 / 3, abs=0.05)
    assert share[5, PADDING] < 0.02  # nobody has to predict it


def test_seeds_give_other_networks_and_the_same_seed_the_same(task, model):
    same, other = task.build(0), task.build(1)
    assert all(a.equal(b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert model.tokens.weight.equal(other.tokens.weight)  # of the bigram model
    assert not model.blocks[0].up.weight.equal(other.blocks[0].up.weight)


def test_width_scales_heads_and_hidden_units(task):
    small = task.build(0, 0.5)
    assert small.blocks[0].up.weight.shape == (144, 48)
    assert small.blocks[0].attention.heads == 4


def test_the_untrained_network_is_near_a_bigram_model(task, model):
    tokens = task.splits["train"][0]
    pairs = (tokens[:, :-1] * PIECES + tokens[:, 1:])[tokens[:, 1:] != PADDING]
    counts = torch.bincount(pairs, minlength=PIECES**2).view(PIECES, PIECES).double() + 0.02
    share = (counts / counts.sum(dim=1, keepdim=True)).log()
    valid = task.splits["valid"][0]
    before, after = valid[:, :-1], valid[:, 1:]
    counted = -share[before, after][after != PADDING].mean().item()
    assert -task.score(model, "valid") == pytest.approx(counted, abs=0.3)


# ---- measures ----


def test_perplexity_is_exp_of_the_mean_loss_over_tokens(task, model):
    total, count = task.by_document(model, "valid")
    metrics = task.metrics(model, "valid")
    assert metrics["perplexity"] == pytest.approx(math.exp(total.sum() / count.sum()), rel=1e-5)
    assert task.score(model, "valid") == pytest.approx(-math.log(metrics["perplexity"]))
    assert len(total) == len(task.texts["valid"])
    assert count.max() == 2 * LENGTH


def test_padding_is_not_predicted(model):
    tokens = torch.tensor([[BEGIN, 5, 6, PADDING, PADDING]])
    found = losses(model, tokens)
    assert (found[0, 2:] == 0).all()
    assert (found[0, :2] > 0).all()


def test_loss_is_the_mean_of_losses(task, model):
    batch = (task.splits["valid"][0][:8],)
    real = batch[0][:, 1:] != PADDING
    with torch.no_grad():
        assert task.loss(model, batch).item() == pytest.approx(
            (losses(model, batch[0]).sum() / real.sum()).item(), rel=1e-5
        )


def test_the_same_seed_writes_the_same_and_begins_as_told(task, model):
    first = task.write(model, "returns the", 12, seed=3)
    assert first == task.write(model, "returns the", 12, seed=3)
    assert first != task.write(model, "returns the", 12, seed=4)
    assert first.startswith("returns the")


def test_a_paragraph_that_is_written_begins_a_line_and_no_word_is_cut(task):
    class Fixed(torch.nn.Module):
        def forward(self, tokens):
            ids = task.tokenizer.encode("graph").ids
            wanted = [*ids, END, 30, 31, END]
            logits = torch.zeros(1, tokens.shape[1], PIECES)
            logits[0, -1, wanted[(tokens.shape[1] - 2) % len(wanted)]] = 99
            return logits

    start = "the"
    count = len(task.tokenizer.encode("graph").ids) + 4
    assert len(task.tokenizer.encode(start).ids) == 1
    written = task.write(Fixed(), start, count, seed=0)
    assert written.count("\n") == 1
    assert written.split("\n")[0].endswith("graph")


def test_writing_goes_on_beyond_a_window(task, model):
    assert len(task.tokenizer.encode(task.write(model, "the", LENGTH + 5, seed=0)).ids) > LENGTH / 2


def test_heads_and_hidden_units_can_be_removed(task, model):
    groups = pl.coupled(model, task.splits["test"][0][:2, :-1])
    assert {n: g.units for n, g in groups.items() if n.startswith("blocks.0")} == {
        "blocks.0.attention.query.weight": 4,
        "blocks.0.up.weight": 288,
    }


def test_a_short_training_helps(task, model):
    some = task.build(0)
    few = [(t[:8],) for t, _ in task.batches("train", size=8, seed=0)][:25]
    pl.fit(some, task.loss, few, 1, optimizer=task.optimizer(some.parameters()), progress=False)
    assert task.score(some, "valid") > task.score(model, "valid") + 0.05


def test_what_data_may_be_is_said():
    with pytest.raises(ValueError, match=r"data is 'wikitext', but must be 'bundled'"):
        pl.language("wikitext")


def test_documents_count_by_their_tokens():
    from pruninglib.tasks.language import summed

    values, real = torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([[1, 1], [1, 0]]).bool()
    total, count = summed(values, real, torch.tensor([0, 1]))
    assert np.array_equal(total, [3, 4])
    assert np.array_equal(count, [2, 1])
    assert summed(values, real) == (7.0, 3)


def test_build_takes_its_tables_from_train_alone(task, model):
    found = bigram(task.splits["train"][0], PIECES, 96, steps=200)
    assert model.tokens.weight.allclose(found[0])
    assert model.output.weight.allclose(found[1])
    assert model.output.bias.allclose(found[2])
