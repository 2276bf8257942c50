"""Tatoeba's sentences: cut into words, kept once, split, and phenomena found by rules; on made ones."""

import hashlib
import re
from collections import Counter

import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import datasets, tatoeba, translation
from pruninglib.tasks.transformer import END, PADDING, UNKNOWN
from tests.test_tasks import files_in, server, zipped  # noqa: F401

# ---- words ----


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("L'arbre n’est pas là.", "l' arbre n' est pas là ."),
        ("Aujourd'hui, est-ce qu'il vient\u202f?", "aujourd'hui , est - ce qu' il vient ?"),
        ("Quelqu'un a vu Zoe\u0301\xa0!", "quelqu'un a vu zoé !"),
        ("Elle a 20 ans.", "elle a 20 ans ."),
    ],
)
def test_french_words(text, words):
    assert tatoeba.french_words(text) == words.split()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I can't see Ann's dog.", "i ca n't see ann 's dog ."),
        ("You’ll go, won't you?", "you 'll go , wo n't you ?"),
        ("Isn't it o'clock?", "is n't it o ' clock ?"),
    ],
)
def test_english_words(text, words):
    assert tatoeba.english_words(text) == words.split()


def test_words_as_one_writes_them():
    assert translation.natural(split("i do n't see ann 's dog .")) == "i don't see ann's dog."
    assert translation.natural(split("est - ce qu' il n' a pas vu ?")) == (
        "est-ce qu'il n'a pas vu ?"
    )


# ---- each sentence once ----


def cut(pairs):
    return [(one.split(), other.split()) for one, other in pairs]


def test_no_sentence_is_kept_twice_in_either_language():
    pairs = cut(
        [
            ("run !", "cours !"),
            ("run .", "courez !"),  # the English is the same but for its punctuation
            ("flee .", "cours ."),  # the French is
            ("flee !", "fuyez !"),  # both are new, and joined to the first by the third
            ("sit .", "assis !"),
            ("flee .", "sauvez - vous !"),
        ]
    )
    kept, groups = tatoeba.one_to_one(pairs)
    assert kept == [pairs[0], pairs[3], pairs[4]]
    assert groups[0] == groups[1] != groups[2]


def test_a_pair_is_as_long_as_its_longer_side():
    pairs = cut([("a b c", "d e f g"), ("a b , c !", "d' e f ."), ("!", "d"), ("a b", "g - h - i")])
    assert tatoeba.one_to_one(pairs, longest=3)[0] == [pairs[1], pairs[3]]
    assert tatoeba.one_to_one(pairs, longest=2)[0] == []
    assert len(tatoeba.one_to_one([])[0]) == 0


# ---- rules ----

split = str.split
KNOWN = {
    *split("fatigué fatiguée heureux heureuse bon bonne premier première neuf neuve partis partie"),
    *split("dans danse grave une un vus vue tard tarde blanc blanche sport"),
}


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        # le and la are pronouns before a verb: no articles there
        (tatoeba.articles, "*la* clé est dans *le* tiroir , je la vois ."),
        (tatoeba.articles, "il va le faire avec *une* amie de *ma* mère ."),
        (tatoeba.articles, "les amis *du* roi ont l' or ."),  # no gender to be seen
        (tatoeba.agreement, "elle est *fatiguée* ."),
        (tatoeba.agreement, "nous ne sommes pas très *heureux* ."),
        (tatoeba.agreement, "elle est une bonne amie ."),  # not the article, nor what is behind it
        (tatoeba.agreement, "il est dans le train , c' est grave ."),  # danse is not dans's feminine
        (tatoeba.agreement, "ils ont été *vus* , la bonne est *partie* ."),
        (tatoeba.agreement, "en été bonne chance ."),  # summer, not been
        (tatoeba.agreement, "elle a été *première* ."),
        (tatoeba.agreement, "le mur est *blanc* , bon travail ."),
        (tatoeba.negation, "je *ne* l' ai *pas* vu ."),
        (tatoeba.negation, "*rien* *n'* est vrai ."),
        (tatoeba.negation, "il n' a que deux amis , et plus d' argent ."),  # only, and more
        (tatoeba.negation, "pas de chance , un pas de plus ."),
        (tatoeba.negation, "il *ne* boit *jamais* rien ."),  # the first of both
        (tatoeba.elision, "aujourd'hui *l'* homme *qu'* on voit , quelqu'un '"),
        (tatoeba.order, "je *le* vois , il ne *m'* a pas vu ."),
        (tatoeba.order, "je me lave , vous vous levez , nous nous voyons ."),  # the subject itself
        (tatoeba.order, "il y a un chat dans la rue , avez - vous le livre ?"),
        (tatoeba.order, "la clé , c' est la bonne ; nous *vous* voyons ; dites - le ."),
        (tatoeba.numbers, "elle a *vingt* - *six* ans et un chat neuf , en *1999* ."),
        (tatoeba.questions, "est - *ce* que tu viens ?"),
        (tatoeba.questions, "où va - t - *elle* ?"),
        (tatoeba.questions, "asseyez - vous , dit - il ."),  # nobody asks
        (tatoeba.questions, "tu viens là - bas ?"),
    ],
)  # fmt: skip
def test_a_rule_marks_what_it_can_tell(rule, sentence):
    words = [word.strip("*") for word in sentence.split()]
    expected = [i for i, word in enumerate(sentence.split()) if word != words[i]]
    assert sorted(rule(words, KNOWN)) == expected


def test_words_are_rare_by_train():
    counts = {"un": 900, "chat": 20, "gris": 21, "?": 3}
    marks = tatoeba.marks_of(split("un chat gris inconnu ?"), set(), counts, rare=20)
    assert marks == ["a", "r", "", "", ""]


# ---- the task ----

SIZES = {"train": 300, "valid": 40, "test": 50}


@pytest.fixture
def made(server, tmp_path, monkeypatch):  # noqa: F811
    """The full tier of a small file: generated sentences, some with a second translation."""
    monkeypatch.setenv("PRUNINGLIB_DATA", str(tmp_path))
    rows = datasets.generated_translations()
    short = (rows[side].str.len() <= translation.LONGEST for side in ("english", "french"))
    rows = rows[next(short) & next(short)][:800]
    natural = translation.natural
    pairs = [(natural(e), natural(f)) for e, f in zip(rows["english"], rows["french"], strict=True)]
    # 300 that others join by twos, and second translations, of which none is kept
    pairs += [(pairs[i][0].replace(".", "!"), pairs[i + 1][1].upper()) for i in range(0, 300, 2)]
    pairs += [(pairs[i][0], f"{pairs[i][1]} Bon.") for i in range(300, 800)]
    text = "".join(f"{english}\t{french}\n" for english, french in pairs)
    body = zipped({"_about.txt": "CC BY", "fra.txt": text})
    server.answers["/fra-eng.zip"] = (200, body, len(body))
    md5 = hashlib.md5(text.encode()).hexdigest()
    monkeypatch.setattr(datasets, "TATOEBA", (server.url + "fra-eng.zip", md5))
    monkeypatch.setattr(translation, "TATOEBA_SIZES", SIZES)
    server.pairs, server.folder = pairs, tmp_path
    return server


def test_the_archive_is_downloaded_verified_and_read(made):
    assert not datasets.available()["tatoeba"]
    assert datasets.tatoeba() == datasets.tatoeba() == made.pairs
    assert made.asked == ["/fra-eng.zip"] and datasets.available()["tatoeba"]
    path = made.folder / "tatoeba" / "fra-eng.zip"
    assert files_in(made.folder) == ["tatoeba/fra-eng.zip"]
    body = path.read_bytes()
    # the same sentences, packed in another way
    path.write_bytes(zipped({"fra.txt": "".join(f"{e}\t{f}\n" for e, f in made.pairs)}))
    assert path.read_bytes() != body and datasets.tatoeba() == made.pairs


@pytest.mark.parametrize(
    "body",
    [zipped({"fra.txt": "Go.\tVa !\tCC BY\n"}), zipped({"spa.txt": ""}), b"<html>", b""],
    ids=["another edition", "another language", "a page", "nothing"],
)
def test_an_archive_of_something_else(body, made):
    made.answers["/fra-eng.zip"] = (200, body, len(body))
    with pytest.raises(ValueError, match=r"not the published file.*29 September 2017.*by hand"):
        datasets.tatoeba()
    assert files_in(made.folder) == []
    path = made.folder / "tatoeba" / "fra-eng.zip"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"delete it to download it again.*29 September 2017"):
        datasets.tatoeba()


def test_without_a_network(made):
    made.answers["/fra-eng.zip"] = (404, b"gone", 4)
    with pytest.raises(OSError, match=r"fra-eng\.zip could not be downloaded.*by hand"):
        pl.translation("full")
    assert pl.translation("bundled").name == "translation-bundled"


def plain(text):
    return re.sub(r"[^\w ]", "", " ".join(text))


def test_no_sentence_of_either_language_is_in_two_splits(made):
    task = pl.translation("full")
    assert {split: len(source) for split, (source, _) in task.splits.items()} == SIZES
    for side in (0, 1):
        all_of = [plain(text) for split in SIZES for text in task.texts[split][side]]
        assert len(all_of) == len(set(all_of)) == sum(SIZES.values())
    # what another pair joins is in train
    joined = {plain(tatoeba.english_words(english)) for english, _ in made.pairs[:300]}
    for split in ("valid", "test"):
        assert not joined & {plain(text) for text in task.texts[split][0]}
    assert joined & {plain(text) for text in task.texts["train"][0]}
    # of any length, at random
    assert len({len(text) for text in task.texts["test"][0]}) > 4


def test_tokens_marks_and_scores(made):
    task = pl.translation("full")
    english, french = task.texts["train"]
    for words, texts in zip(task.vocabularies, (english, french), strict=True):
        counts = Counter(word for text in texts for word in text)
        assert set(words[4:]) == {word for word, count in counts.items() if count >= 4}
    source, target = task.splits["test"]
    assert (target == UNKNOWN).any() and (source == UNKNOWN).any()
    known = [[word if word in task.vocabularies[1] else "[UNK]" for word in text]
             for text in task.texts["test"][1]]  # fmt: skip
    assert task.words(target) == known
    marks = task.phenomena["test"]
    assert list(marks) == ["articles", "agreement", "negation", "elision", "word order", "numbers",
                           "rare words", "questions"]  # fmt: skip
    for flags in marks.values():
        assert flags.shape == target.shape and not flags[target <= END].any()
    rare = marks["rare words"]
    counts = Counter(word for text in french for word in text)
    for row, place in rare.nonzero().tolist():
        assert 4 <= counts[task.texts["test"][1][row][place]] <= 20
        assert not any(flags[row, place] for name, flags in marks.items() if name != "rare words")
    negated = [row for row, text in enumerate(task.texts["test"][1]) if {"ne", "n'"} & set(text)]
    assert task.slices["test"]["negation"].nonzero().flatten().tolist() == negated


def test_a_sentence_with_an_unknown_word_is_never_exact(made, monkeypatch):
    task = pl.translation("full")
    target = task.splits["test"][1]
    monkeypatch.setattr(type(task), "translate", lambda self, network, split: target)
    unknown = (target == UNKNOWN).any(dim=1)
    assert 0 < unknown.float().mean() < 1
    assert task.outcomes(None, "test").equal(~unknown)
    metrics = task.metrics(None, "test")
    assert metrics["exact"] == pytest.approx((~unknown).float().mean().item())
    assert metrics["words"] == 1 and 0.05 < metrics["BLEU"] < 0.9


def test_batches_are_of_equal_lengths_and_it_learns(made):
    task = pl.translation("full")
    seen, padded = [], 0
    for source, target in task.batches("train", seed=0):
        lengths = (target != PADDING).sum(dim=1)
        padded += int((lengths.max() - lengths).sum())
        assert source.shape[1] == (source != PADDING).sum(dim=1).max()
        seen += target.tolist()
    assert sorted(seen) == sorted(task.splits["train"][1].tolist())
    by_source = 0
    for _, target in translation.ByLength(*task.splits["train"], size=50, seed=0):
        lengths = (target != PADDING).sum(dim=1)
        by_source += int((lengths.max() - lengths).sum())
    assert padded < 0.85 * by_source
    network = task.build(0)
    valid = task.splits["valid"]
    with torch.no_grad():
        before = task.loss(network, valid)
    task.train(network, seed=0, epochs=2)
    with torch.no_grad():
        assert task.loss(network, valid) < before - 1
    small = task.build(0, 0.5)
    assert sum(p.numel() for p in small.parameters()) < 0.6 * sum(
        p.numel() for p in network.parameters()
    )


def test_sizes_of_a_network_are_parameters():
    task = pl.translation()
    wide = task.build(0, channels=96, heads=4, hidden=192)
    assert wide.output.weight.shape[1] == 96 and wide.encoder[0].up.weight.shape == (192, 96)


PUBLISHED = pytest.mark.skipif(not datasets.available()["tatoeba"], reason="no tatoeba there")


@PUBLISHED
def test_the_published_sentences():
    pairs = datasets.tatoeba()
    assert len(pairs) == 142_787 and pairs[0] == ("Go.", "Va !")
    assert {len(pair) for pair in pairs} == {2}
