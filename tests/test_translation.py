"""The grammar of the generated sentences, and the task that is made from them."""

import itertools
import runpy
from pathlib import Path

import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.transformer import BEGIN, END, PADDING, UNKNOWN
from pruninglib.tasks.translation import (
    PHENOMENA,
    corpus_scores,
    encode,
    marked,
    natural,
    right_words,
    shifted,
    vocabulary,
)

GRAMMAR = runpy.run_path(str(Path(pl.__file__).parents[1] / "data" / "grammar.py"))
VOWELS = tuple("aeiouéèêâîôœh")


@pytest.fixture(scope="module")
def pairs():
    return datasets.generated_translations()


@pytest.fixture(scope="module")
def task():
    return pl.translation()


def of_letter(pairs, letter):
    return [
        (sentence, i)
        for sentence, marks in zip(pairs["french"], pairs["marks"], strict=True)
        for i, mark in enumerate(marks)
        if letter in mark
    ]


def test_sentences_are_whole_and_come_once(pairs):
    assert len(pairs) == 20_000
    assert not pairs["english"].str.join(" ").duplicated().any()
    assert not pairs["french"].str.join(" ").duplicated().any()
    assert (pairs["french"].str.len() == pairs["marks"].str.len()).all()
    assert pairs["english"].str.len().max() == pairs["french"].str.len().max() == 14


@pytest.mark.parametrize(
    ("n", "english", "french"),
    [
        (17, "seventeen", "dix - sept"),
        (21, "twenty - one", "vingt et un"),
        (70, "seventy", "soixante - dix"),
        (71, "seventy - one", "soixante et onze"),
        (79, "seventy - nine", "soixante - dix - neuf"),
        (80, "eighty", "quatre - vingts"),
        (81, "eighty - one", "quatre - vingt - un"),
        (91, "ninety - one", "quatre - vingt - onze"),
        (99, "ninety - nine", "quatre - vingt - dix - neuf"),
    ],
)
def test_numbers_in_words(n, english, french):
    assert [" ".join(words) for words in GRAMMAR["number"](n)] == [english, french]


def test_elision_wherever_a_vowel_follows_and_nowhere_else(pairs):
    elided = {"l'", "n'", "j'", "d'", "qu'"}
    whole = {"le", "la", "ne", "je", "de", "que"}
    for sentence in pairs["french"]:
        for word, after in itertools.pairwise(sentence):
            vowel = after.startswith(VOWELS) and after not in ("huit", "onze")
            assert not (word in elided and not vowel), sentence
            assert not (word in whole and vowel), sentence


def test_negation_has_two_words(pairs):
    english = pairs["english"].map(lambda words: bool({"not", "never"} & set(words)))
    french = pairs["french"].map(lambda words: bool({"ne", "n'"} & set(words)))
    assert english.equals(french) and 0.2 < english.mean() < 0.4
    for words, marks in zip(pairs["french"][french], pairs["marks"][french], strict=True):
        marked = [word for word, mark in zip(words, marks, strict=True) if "n" in mark]
        assert marked[0] in ("ne", "n'") and marked[1] in ("pas", "jamais")
        assert set(marked[2:]) <= {"de", "d'"}


def test_articles_and_adjectives_fit_the_noun(pairs):
    genders = {}
    for noun in (
        *GRAMMAR["_PEOPLE"], *GRAMMAR["_ANIMALS"], *GRAMMAR["_THINGS"],
        *GRAMMAR["_RARE_BEINGS"], *GRAMMAR["_RARE_THINGS"],
    ):  # fmt: skip
        genders[noun.un], genders[noun.des] = noun.gender, noun.gender
    articles = {"le": "m", "un": "m", "ce": "m", "cet": "m", "la": "f", "une": "f", "cette": "f"}
    seen = 0
    for sentence, i in of_letter(pairs, "a"):
        if sentence[i] in articles:
            noun = next(word for word in sentence[i + 1 :] if word in genders)
            assert genders[noun] == articles[sentence[i]], sentence
            seen += 1
    assert seen > 5000
    forms = {f: g for _, table, _ in GRAMMAR["_AFTER"] for g, f in table.items()}
    for sentence, i in of_letter(pairs, "o"):
        if sentence[i] in genders and sentence[i + 1] in forms:
            same = [table for _, table, _ in GRAMMAR["_AFTER"] if sentence[i + 1] in table.values()]
            fits = {g[0] for table in same for g, form in table.items() if form == sentence[i + 1]}
            assert genders[sentence[i]] in fits, sentence


def test_agreement_over_distance_is_not_that_of_the_nearest_noun(pairs):
    verbs = {"est": "sont", "sont": "est", "a": "ont", "ont": "a", "va": "vont", "vont": "va"}
    found = of_letter(pairs, "d")
    assert len(found) > 1500
    assert sum(sentence[i] in verbs for sentence, i in found) > 300


def test_rare_words_are_rare(pairs):
    train = pairs[:18_500]["french"].explode().value_counts()
    rare = {sentence[i] for sentence, i in of_letter(pairs, "r")}
    assert len(rare) > 150 and train.reindex(list(rare)).fillna(0).max() < 60
    assert train.reindex(list(rare)).fillna(0).mean() < 25


def test_natural_sentences():
    words = ["l'", "homme", "n'", "a", "pas", "vu", "vingt", "-", "six", "arbres", "."]
    assert natural(words) == "l'homme n'a pas vu vingt-six arbres."
    assert natural(["où", "?"]) == "où ?"


def test_splits_and_texts_belong_together(task, pairs):
    assert {split: len(source) for split, (source, _) in task.splits.items()} == {
        "train": 18_500, "valid": 500, "test": 1000,
    }  # fmt: skip
    source, target = task.splits["test"]
    assert task.words(target) == task.texts["test"][1] == list(pairs["french"][19_000:])
    ends = (source == END).long()
    assert (ends.sum(dim=1) == 1).all()
    assert (source[ends.cumsum(dim=1).bool() & (ends == 0)] == PADDING).all()
    assert task.phenomena["test"].keys() == set(PHENOMENA.values())
    rare = task.phenomena["test"]["rare words"]
    assert task.slices["test"]["rare words"].equal(rare.any(dim=1))
    assert {int(flags.sum() > 90) for flags in task.phenomena["test"].values()} == {1}
    marks = list(pairs["marks"][19_000:])
    assert rare.nonzero().tolist() == [
        [row, i] for row, text in enumerate(marks) for i, m in enumerate(text) if "r" in m
    ]


def test_what_is_rare_counts_as_rare_alone():
    marks = [["a", "ro", ""], ["r", "go"]]
    flags = {letter: marked(marks, letter, 4).int().tolist() for letter in "aor"}
    assert flags["a"] == [[1, 0, 0, 0], [0] * 4] and flags["o"] == [[0] * 4, [0, 1, 0, 0]]
    assert flags["r"] == [[0, 1, 0, 0], [1, 0, 0, 0]]


def test_words_and_tokens():
    texts = [["b", "a", "b"], ["c"]]
    words = vocabulary(texts)
    assert words == ["[PAD]", "[UNK]", "[BEGIN]", "[END]", "b", "a", "c"]
    assert encode([["a", "x"], ["b"]], words, 4).tolist() == [
        [5, UNKNOWN, END, PADDING], [4, END, PADDING, PADDING],
    ]  # fmt: skip
    target = torch.tensor([[5, 4, END], [6, END, PADDING]])
    assert shifted(target).tolist() == [[BEGIN, 5, 4], [BEGIN, 6, END]]


def test_right_words_by_hand():
    target = torch.tensor([[7, 8, 9, 5, END, 0], [7, 8, END, 0, 0, 0], [5, 6, END, 0, 0, 0]])
    written = torch.tensor([[7, 6, 8, 9, END, 0], [7, 8, END, 0, 0, 0], [9, 9, 9, 9, 9, 9]])
    assert right_words(written, target).tolist() == [
        [True, True, True, False, True, False],
        [True, True, True, False, False, False],
        [False] * 6,
    ]


def test_scores_of_a_corpus():
    texts = ["le chat dort dans le jardin.", "la clé est lourde."]
    assert corpus_scores(texts, texts) == pytest.approx({"BLEU": 1, "chrF": 1})
    worse = corpus_scores(["le chat dort dans le pré.", "la clé est lourd."], texts)
    assert 0.3 < worse["BLEU"] < 0.8 and worse["BLEU"] < worse["chrF"] < 1


def test_forced_and_written_agree_up_to_the_first_mistake(task):
    """A network that has learned a little: what it writes is right where forcing says so."""
    network = task.build(0)
    few = {split: tuple(part[:300] for part in parts) for split, parts in task.splits.items()}
    few["train"] = tuple(part[:2000] for part in task.splits["train"])
    task.splits.update(few)  # the task's own dict: metrics and translate read it
    try:
        task.train(network, seed=0, epochs=3)
        target = task.splits["test"][1]
        forced, written = task.forced(network, "test"), task.translate(network, "test")
        right = (forced == target) | (target == PADDING)
        assert ((written == target).all(dim=1) == right.all(dim=1)).float().mean() > 0.99
        first = (~right).long().argmax(dim=1)
        for row, upto in enumerate(first.tolist()):
            assert written[row, :upto].equal(target[row, :upto])
        assert 0.02 < right.float().mean() < 0.98
        loss = task.loss(network.eval(), task.splits["test"])
        source, target = task.splits["test"]
        chances = network(source, shifted(target)).log_softmax(dim=-1)
        chosen = chances.gather(2, target[..., None]).squeeze(2)[target != PADDING]
        torch.testing.assert_close(loss, -chosen.mean())
    finally:
        task.splits.update(pl.translation().splits)


def test_what_is_not_there():
    with pytest.raises(ValueError, match="data is 'half', but must be 'bundled'"):
        pl.translation("half")
