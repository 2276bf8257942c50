"""The task of choosing a sentence: scores, lead and oracle, batches, network, SciTLDR's files."""

import copy
import json

import numpy as np
import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import choosing as module
from pruninglib.tasks import datasets
from pruninglib.tasks.choosing import BySentences, chooser, loss, tokens_of, words_of
from pruninglib.tasks.summarisation import rouge

PAPERS = [
    (["A dog runs.", "We show a cat.", "It sleeps!"], ["we show a cat", "it sleeps well"]),
    (["We show that dogs run.", "..."], ["a dog", "we show dogs", "dogs"]),
    (["One.", "Two.", "Three."], ["two"]),
]


@pytest.fixture(scope="module")
def task():
    return pl.choosing()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(
        datasets, "scitldr", lambda: dict.fromkeys(["train", "valid", "test"], PAPERS)
    )
    monkeypatch.setattr(module, "COMMON", 1)
    return pl.choosing("full")


def test_a_tier_that_does_not_exist():
    with pytest.raises(ValueError, match="data is 'fulll', but must be 'bundled' or 'full'"):
        pl.choosing("fulll")


def test_reports_are_those_of_the_writers(task):
    writer = pl.summarisation()
    assert {split: len(texts) for split, texts in task.texts.items()} == module.SIZES
    for split, texts in task.texts.items():
        assert [" ".join(text) for text in texts] == writer.reports[split][: len(texts)]
        assert [r for r, *_ in task.summaries[split]] == writer.summaries[split][: len(texts)]
        assert all(s.endswith(" .") and s.count(".") == 1 for text in texts for s in text)


def test_rouge_of_each_sentence_and_zero_beside_it(task):
    for i in (0, 7, 999):
        text, (reference,) = task.texts["test"][i], task.summaries["test"][i]
        found = task.rouge["test"][i]
        expected = rouge([reference] * len(text), text).T
        np.testing.assert_allclose(found[: len(text)], expected, atol=1e-6)
        assert not found[len(text) :].any()
    for split, (_, scores) in task.splits.items():
        np.testing.assert_allclose(scores, task.rouge[split].mean(axis=2), atol=1e-6)


def test_of_several_references_the_one_with_the_highest_rouge_1(small):
    text, references = PAPERS[0]
    first, second = (rouge([r] * 3, text).T for r in references)
    np.testing.assert_allclose(small.rouge["test"][0], [first[0], first[1], second[2]], atol=1e-6)
    text, references = PAPERS[1]  # shares one of 1 word with "dogs", three of 3 with the second
    np.testing.assert_allclose(
        small.rouge["valid"][1][0], rouge([references[1]], [text[0]])[:, 0], atol=1e-6
    )


def test_lead_oracle_and_what_lies_between(small):
    assert small.lead("test").tolist() == [0, 0, 0]
    assert small.oracle("test").tolist() == [1, 0, 1]
    assert small.reached(small.lead("test"), "test").tolist() == [0, 0, 0]
    np.testing.assert_allclose(small.reached(small.oracle("test"), "test"), 1)
    means = small.rouge["test"].mean(axis=2)
    ways = np.array([means[0, 1] - means[0, 0], 0, means[2, 1] - means[2, 0]])
    assert (ways[[0, 2]] > 0).all()
    for places, gone in (([1, 0, 2], [ways[0], 0, 0]), ([0, 1, 0], [0, -means[1, 0], 0])):
        share = np.sum(gone) / ways.sum()
        expected = share + (gone - share * ways) / ways.mean()
        np.testing.assert_allclose(small.reached(places, "test"), expected)
        assert small.reached(places, "test").mean() == pytest.approx(share)


def test_the_spread_is_the_shares_for_other_texts(task):
    places = np.where(np.arange(1000) % 3 == 0, task.oracle("test"), 0)
    gone, way = (
        (task.scores(p, "test") - task.scores(task.lead("test"), "test")).mean(axis=1)
        for p in (places, task.oracle("test"))
    )
    drawn = np.random.default_rng(0).integers(1000, size=(1000, 1000))
    shares = gone[drawn].mean(axis=1) / way[drawn].mean(axis=1)
    values = task.reached(places, "test")
    assert values.std(ddof=1) / 1000**0.5 == pytest.approx(shares.std(), rel=0.1)


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ([0, 0], r"places is of shape \(2,\), but must name one sentence of each of the 3 texts"),
        ([0, 2, 0], "place 2 is chosen of text 1 of 'test', which has sentences 0 to 1"),
        ([0, 0, -1], "place -1 is chosen of text 2 of 'test', which has sentences 0 to 2"),
    ],
)
def test_places_that_name_no_sentence(small, places, message):
    with pytest.raises(ValueError, match=message):
        small.reached(places, "test")


def test_words_and_tokens():
    assert words_of("It's GPT-2, naïve!") == ["it", "s", "gpt", "2", "na", "ve"]
    tokens = tokens_of([["A b.", "..."], ["b a b"]], {"a": 2, "b": 3})
    assert tokens.tolist() == [[[2, 3, 0], [1, 0, 0]], [[3, 2, 3], [0, 0, 0]]]
    with pytest.raises(ValueError, match="text 1 has no sentence: there is nothing to choose"):
        tokens_of([["a"], []], {})


def test_only_words_of_train_that_are_common_have_a_token(task):
    counts = {}
    for text in task.texts["train"]:
        for word in words_of(" ".join(text)):
            counts[word] = counts.get(word, 0) + 1
    assert set(task.numbers) == {word for word, n in counts.items() if n >= 3}
    assert sorted(task.numbers.values()) == [*range(2, 2 + len(task.numbers))]
    assert task.build(0).words.num_embeddings == 2 + len(task.numbers)
    assert task.tokens(task.texts["valid"]).equal(task.splits["valid"][0])


def test_batches_hold_each_text_once_with_what_belongs_to_it(task):
    tokens, scores = task.splits["valid"]
    for seed in (None, 3):
        places = torch.arange(len(tokens))
        seen = []
        for batch, found, at in BySentences(tokens, scores, places, size=64, seed=seed):
            _, most, longest = batch.shape
            assert batch.any(dim=0).any(dim=1).all() and batch.any(dim=0).any(dim=0).all()
            assert batch.equal(tokens[at, :most, :longest]) and found.equal(scores[at, :most])
            assert not tokens[at, most:].any() and not tokens[at, :, longest:].any()
            seen += at.tolist()
        assert sorted(seen) == places.tolist()
    one, again = (BySentences(tokens, size=64, seed=3) for _ in range(2))
    first, second, repeated = [*one], [*one], [*again]
    assert all(a.equal(b) for (a,), (b,) in zip(first, repeated, strict=True))
    assert not all(
        a.shape == b.shape and a.equal(b) for (a,), (b,) in zip(first, second, strict=True)
    )


def test_the_loss_is_what_a_drawn_sentence_lacks():
    scores = torch.tensor([[0.2, 0.6, 0.0], [0.5, 0.1, 0.0]])
    tokens = torch.tensor([[[2], [3], [4]], [[2], [3], [0]]])

    def model(tokens):
        return torch.tensor([[0.0, np.log(2), 0.0], [np.log(3), 0.0, -torch.inf]])

    expected = ((0.6 - (0.2 + 2 * 0.6) / 4) + (0.5 - (3 * 0.5 + 0.1) / 4)) / 2
    assert loss(model, (tokens, scores)).item() == pytest.approx(expected)


def test_padding_neither_counts_nor_can_be_chosen():
    network = chooser(9, 0).eval()
    tokens = torch.tensor([[[2, 3, 4], [5, 6, 0]]])
    padded = torch.nn.functional.pad(tokens, (0, 2, 0, 3))
    found = network(padded)
    torch.testing.assert_close(found[:, :2], network(tokens))
    assert found[0, 2:].tolist() == [-torch.inf] * 3
    longer = torch.tensor([[[2, 3, 4, 2, 3, 4], [5, 6, 0, 0, 0, 0]]])
    assert not torch.allclose(network(longer), network(tokens)), "it forgets the length"
    swapped = network(tokens.flip(1)).flip(1)
    assert not torch.allclose(swapped, network(tokens)), "it forgets the place"
    alone = network(tokens[:, 1:]), network(tokens.roll(1, dims=2))[:, 1:]
    assert not torch.allclose(alone[0], alone[1]), "sentences are not compared"


def test_sentences_after_the_twelfth_share_a_place():
    network = chooser(9, 0).eval()
    tokens = torch.full((1, 15, 1), 2)
    found = network(tokens)[0]
    assert found[11:].allclose(found[11]) and not found[10].allclose(found[11])


def test_the_seed_and_the_width():
    one, same, other = chooser(9, 0), chooser(9, 0), chooser(9, 1)
    assert one.words.weight.equal(same.words.weight)
    assert not one.words.weight.equal(other.words.weight)
    half = chooser(9, 0, 0.5)
    assert half.words.embedding_dim == 16 and half.blocks[0].up.out_features == 32
    assert not one.words.weight[0].any()


def test_a_network_learns_to_choose_and_an_empty_one_is_the_lead(task):
    network = task.build(0)
    untrained = task.score(network, "valid")
    task.train(network, seed=0)
    metrics = task.metrics(network, "test")
    places = task.choose(network, "test")
    assert metrics["reached"] > 0.9 > untrained + 0.3
    assert metrics["ROUGE-2"] == pytest.approx(task.scores(places, "test")[:, 1].mean())
    network.train()
    assert (task.choose(network, "test") == places).all() and network.training
    small, empty = copy.deepcopy(network), copy.deepcopy(network)
    pl.apply(small, pl.select(pl.magnitude(network), 0.5))
    assert task.score(small, "test") > 0.9
    pl.apply(
        empty, pl.select(pl.magnitude(network), 1.0)
    )  # all sentences alike: the first of equals
    assert task.score(empty, "test") == 0


def test_slices(task):
    slices, oracle = task.slices["test"], task.oracle("test")
    parts = [slices[f"best is {n}"] for n in ("first", "second or third", "later")]
    assert torch.stack(parts).sum(dim=0).eq(1).all()
    assert parts[0].tolist() == (oracle == 0).tolist()
    assert parts[2].tolist() == (oracle > 2).tolist()
    assert slices["long"].tolist() == [len(text) > 5 for text in task.texts["test"]]


# ---- SciTLDR ----


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Files as published, with the checksums that they have."""
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    folder = tmp_path / "scitldr"
    folder.mkdir()
    for split, (url, _) in datasets.SCITLDR.items():
        path = folder / url.rpartition("/")[2]
        lines = [
            {"source": s, "target": t, "paper_id": split, "source_labels": [1]} for s, t in PAPERS
        ]
        path.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
        monkeypatch.setitem(datasets.SCITLDR, split, (url, datasets._md5(path)))
    return folder


def test_papers_are_read(published):
    assert [path.name for path in sorted(published.iterdir())] == [
        "dev.jsonl",
        "test.jsonl",
        "train.jsonl",
    ]
    assert datasets.scitldr() == dict.fromkeys(["train", "valid", "test"], PAPERS)
    assert datasets.available()["scitldr"]
    (published / "dev.jsonl").unlink()
    assert not datasets.available()["scitldr"]


def test_other_papers_are_refused(published):
    (published / "test.jsonl").write_text("<html>log in</html>")
    with pytest.raises(ValueError, match=r"test\.jsonl is not the published file: delete it"):
        datasets.scitldr()
