"""Tatoeba's sentences, English and French: cut into words, each kept once, phenomena found by rules.

In: pairs of texts as published. Out: pairs of lists of words with their groups, and of each French
word the letters of the phenomena that it shows (`translation.PHENOMENA`). The rules see words, not
grammar: each marks where it can tell, and leaves the rest.
"""

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Text = list[str]  # words

# typographic apostrophes; characters without width
_PLAIN = {0x2018: "'", 0x2019: "'", 0x200B: None, 0xAD: None}
_FRENCH = re.compile(r"aujourd'hui|quelqu'une?\b|\w+'|\w+|[^\w\s]")
_ENGLISH = re.compile(r"n't\b|'(?:s|m|re|ve|ll|d)\b|\w+|[^\w\s]")


def french_words(text: str) -> Text:
    """In small letters; elided words (l', qu'), hyphens and other punctuation stand alone."""
    return _FRENCH.findall(_small(text))


def english_words(text: str) -> Text:
    """In small letters; n't, 's, 'm, 're, 've, 'll, 'd and punctuation stand alone."""
    return _ENGLISH.findall(re.sub(r"(?<=\w)n't\b", " n't", _small(text)))


def _small(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower().translate(_PLAIN)


def one_to_one(
    pairs: Sequence[tuple[Text, Text]], longest: int = 10
) -> tuple[list[tuple[Text, Text]], np.ndarray]:
    """Pairs of at most so many words a side, each English and each French sentence in one of them.

    Punctuation is no word, and sentences that differ in nothing else are the same one. Of the pairs
    in their order, one is kept if neither of its sentences is in one that is kept already.

    Returns those, and the group of each, int: pairs are of one group if they share a sentence, or
    are joined by others that do, those that were not kept included.
    """
    plain = [tuple(" ".join(filter(_spoken, words)) for words in pair) for pair in pairs]
    short = [i for i, key in enumerate(plain) if all(k and k.count(" ") < longest for k in key)]
    number: list[dict[str, int]] = [{}, {}]
    places = np.zeros((len(short), 2), dtype=int)
    for row, i in enumerate(short):
        places[row] = [
            side.setdefault(k, len(side)) for side, k in zip(number, plain[i], strict=True)
        ]
    english, french = places.T
    total = sum(map(len, number))
    shared = coo_array((np.ones(len(short)), (english, len(number[0]) + french)), (total, total))
    groups = connected_components(shared, directed=False)[1][english]
    taken: tuple[set[int], set[int]] = (set(), set())
    kept = []
    for row, (one, other) in enumerate(places.tolist()):
        if one not in taken[0] and other not in taken[1]:
            taken[0].add(one)
            taken[1].add(other)
            kept.append(row)
    return [pairs[short[row]] for row in kept], groups[kept]


def _spoken(word: str) -> bool:
    return word[0].isalnum() or word[-1].isalnum()


# ---- phenomena of a French sentence, by rules ----

_words = str.split
GENDERED = {*_words("un une cet cette mon ma ton ta son sa du au")}  # can't be pronouns
AFTER_THESE = {*_words("dans sur sous avec vers contre entre depuis pendant derrière devant chez")}
NEGATIONS = {*_words("pas jamais rien plus personne aucun aucune guère point nulle nul")}
SUBJECTS = {*_words("je j' tu il elle on nous vous ils elles")}
OBJECTS = {*_words("me m' te t' le la l' les lui leur nous vous y en")}
NO_OBJECTS = {
    "je": "me m'",
    "j'": "me m'",
    "tu": "te t'",
    "nous": "nous",
    "vous": "vous",
    "il": "y",
}
NUMBERS = {
    *_words("deux trois quatre cinq six sept huit dix onze douze treize quatorze quinze seize"),
    *_words("vingt vingts trente quarante cinquante soixante cent cents mille million millions"),
}  # not un and une, which are articles, nor neuf, which may mean new
AVOIR = {*_words("ai as a avons avez ont avais avait avions aviez avaient aurai aura aurait")}
ETRE = {
    *_words(
        "suis es est sommes êtes sont étais était étions étiez étaient serai seras sera serons"
    ),
    *_words("serez seront serais serait seraient sois soit soyez soient fus fut furent"),
}
BETWEEN = {  # être and what agrees with its subject
    *_words("pas plus jamais rien très trop si aussi bien mal déjà toujours encore vraiment assez"),
    *_words("plutôt tellement presque complètement moins peu"),
}
NEVER_AGREE = {
    *_words("un une dans par pour sur sous en à de du des avec chez ici là loin près tard tôt"),
    *_words("que qui quand comme tout mon ma ton ta son sa le la les ce cet cette"),
    *_words("bien mal mieux point temps or sans vers contre avant après"),
}
ASKED = {*_words("je tu il elle on nous vous ils elles ce")}


def marks_of(words: Text, known: Collection[str], counts: Mapping[str, int], rare: int) -> Text:
    """Of each word of a French sentence the letters of the phenomena that it shows.

    known: the words of train, where the other gender of a form is looked for. counts: how often each
    word comes in train; those that come 1 to `rare` times are rare.
    """
    found = [""] * len(words)
    for letter, rule in RULES.items():
        for place in rule(words, known):
            found[place] += letter
    for place, word in enumerate(words):
        if _spoken(word) and 0 < counts.get(word, 0) <= rare:
            found[place] += "r"
    return found


def articles(words: Text, known: Collection[str]) -> list[int]:
    """Determiners of one gender: un, cette, ma, du, ...; le and la where they are no pronouns: at the
    beginning or after a preposition."""
    return [
        i
        for i, word in enumerate(words)
        if word in GENDERED or (word in ("le", "la") and (i == 0 or words[i - 1] in AFTER_THESE))
    ]


def agreement(words: Text, known: Collection[str]) -> list[int]:
    """A word after être, at most two adverbs between, whose other gender is known, too."""
    found = []
    for i, word in enumerate(words):
        been = word == "été" and any(w in AVOIR for w in words[max(0, i - 2) : i])
        if word not in ETRE and not been:
            continue
        after = i + 1
        while after < len(words) and after < i + 3 and words[after] in BETWEEN:
            after += 1
        if after < len(words) and words[after] not in NEVER_AGREE and _genders(words[after], known):
            found.append(after)
    return found


def _genders(word: str, known: Collection[str]) -> bool:
    """Whether the word is known in the other gender, too."""
    forms = {word, word.removesuffix("s")}
    others = set()
    for form in forms:
        others |= {form + "e", form + form[-1] + "e", re.sub("eux$", "euse", form)}
        others |= {re.sub("f$", "ve", form), re.sub("er$", "ère", form), re.sub("c$", "che", form)}
        if form.endswith("e"):
            others |= {form[:-1], re.sub("euse$", "eux", form), re.sub("ve$", "f", form)}
            others |= {re.sub("ère$", "er", form), re.sub("che$", "c", form)}
            if len(form) > 3 and form[-2] == form[-3]:
                others.add(form[:-2])
    return any(len(w) > 1 and (w in known or w + "s" in known) for w in others - forms)


def negation(words: Text, known: Collection[str]) -> list[int]:
    """Ne or n', and its other word: the first within four words, or rien and personne before it."""
    found = []
    for i, word in enumerate(words):
        if word not in ("ne", "n'"):
            continue
        behind = (k for k in range(i + 1, min(i + 5, len(words))) if words[k] in NEGATIONS)
        other = next(behind, None)
        if other is None and i and words[i - 1] in ("rien", "personne"):
            other = i - 1
        if other is not None:
            found += [i, other]
    return found


def elision(words: Text, known: Collection[str]) -> list[int]:
    """L', d', j', qu', n', s', ...: whatever ends with an apostrophe."""
    return [i for i, word in enumerate(words) if len(word) > 1 and word.endswith("'")]


def order(words: Text, known: Collection[str]) -> list[int]:
    """A pronoun that is the object, before its verb, where English has it behind: directly after a
    subject, or after its ne; not one that means the subject itself (je me, nous nous), nor il y a."""
    found = []
    for i, word in enumerate(words):
        before = i - 2 if i > 1 and words[i - 1] in ("ne", "n'") else i - 1
        if word not in OBJECTS or before < 0 or words[before] not in SUBJECTS:
            continue
        subject = words[before]
        asked = before > 0 and words[before - 1] == "-"  # avez-vous le livre: an article
        last = i + 1 == len(words) or not _spoken(words[i + 1])
        if not asked and not last and word not in NO_OBJECTS.get(subject, "").split():
            found.append(i)
    return found


def numbers(words: Text, known: Collection[str]) -> list[int]:
    """Numbers in digits, and in words from two on."""
    return [i for i, word in enumerate(words) if word in NUMBERS or word.isdecimal()]


def questions(words: Text, known: Collection[str]) -> list[int]:
    """The subject behind its verb, after a hyphen, in a sentence that asks: as-tu, est-ce que."""
    if words[-1] != "?":
        return []
    return [i for i in range(1, len(words)) if words[i - 1] == "-" and words[i] in ASKED]


RULES: dict[str, Callable[[Text, Collection[str]], list[int]]] = {
    "a": articles,
    "g": agreement,
    "n": negation,
    "e": elision,
    "o": order,
    "7": numbers,
    "q": questions,
}
