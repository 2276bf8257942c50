"""Writes the generated sets of the bundled tier, reviews.tsv, ratings.csv, ..., beside itself.

Nothing here was written or rated by anyone. Only whole numbers are drawn and compared, so the
files are the same on every platform, byte for byte; a test says so.
"""

from bisect import bisect
from itertools import accumulate
from pathlib import Path

import numpy as np
from grammar import sentence

HERE = Path(__file__).parent
words = str.split

# ---- reviews ----

REVIEWS = 10_000
FLIPPED = 40  # one label of so many is wrong

NOUNS = words("""plot acting script score pacing ending dialogue humour editing cast opening story villain
lighting romance mystery costume soundtrack chemistry direction climax setting message finale
atmosphere photography premise lead""")

COMMON = {  # strength: words
    2: words("wonderful brilliant gripping superb moving excellent delightful stunning"),
    1: words("good nice pleasant clever solid charming fun decent enjoyable warm"),
    -1: words("bad weak slow flat thin clumsy predictable bland messy dull"),
    -2: words("awful terrible dreadful horrible unbearable boring pathetic painful"),
}
RARE = {
    2: words("""transcendent sublime exhilarating luminous mesmerising spellbinding rapturous peerless
    virtuosic majestic electrifying ravishing resplendent triumphant bewitching impeccable masterful
    dazzling beguiling exquisite"""),
    1: words("""spry winsome nimble droll affable sprightly jaunty lively poised supple piquant buoyant
    genial deft crisp breezy tender lucid chipper sincere"""),
    -1: words("""turgid stilted hackneyed insipid vapid leaden contrived mawkish plodding trite perfunctory
    muddled listless drab shoddy tepid stale garbled sappy humdrum"""),
    -2: words("""execrable abysmal atrocious insufferable odious excruciating ghastly repellent wretched
    abominable loathsome stupefying appalling deplorable hideous inept unwatchable grotesque
    lamentable disastrous"""),
}
# How much a word counts: once if weakened, twice alone, three times if strengthened.
DEGREES = [(2, ""), (2, ""), (2, ""), (1, "slightly"), (1, "somewhat"), (3, "very"), (3, "utterly")]

PLAIN = [
    "the {noun} is {degree} {word}",
    "the {noun} was {degree} {word}",
    "i found the {noun} {degree} {word}",
    "how {word} the {noun} is",
    "there is no doubt that the {noun} is {degree} {word}",
]
NEGATED = [  # turn the word round and count it once: "not good" is milder than "bad"
    "the {noun} is not {word}",
    "the {noun} was not very {word}",
    "the {noun} is never really {word}",
    "i would not call the {noun} {word}",
    "there is nothing {word} about the {noun}",
    "the {noun} is far from {word}",
]
CONTRASTS = [  # only {main} counts
    "{conceded} , but {main}",
    "{conceded} ; still , {main}",
    "although {conceded} , {main}",
    "{main} , even though {conceded}",
]
ASIDES = [
    "i saw it on a {day} with my {person}",
    "my {person} picked it for {day} night",
    "it was shown twice last {day}",
    "we watched it at home on {day}",
    "it is set in a small town by the sea",
    "it runs for two hours",
    "i had read the book before",
]
DAYS = words("monday tuesday wednesday thursday friday saturday sunday")
PEOPLE = words("sister brother neighbour mother father cousin friend")


class Draw:
    """Random whole numbers from the raw stream of PCG64, which NumPy promises never to change."""

    def __init__(self, seed: int):
        self.raw = np.random.PCG64(seed).random_raw

    def below(self, n: int) -> int:
        return int(self.raw()) % n

    def one_in(self, n: int) -> bool:
        return self.below(n) == 0

    def choice(self, items):
        return items[self.below(len(items))]

    def shuffled(self, items) -> list:
        items = list(items)
        return [items.pop(self.below(len(items))) for _ in range(len(items))]


def opinion(draw: Draw, sign: int) -> tuple[str, int, bool, bool]:
    """A clause that says something good (sign 1) or bad (-1): text, value, negated, rare."""
    negated, rare = draw.one_in(5), draw.one_in(8)
    strength = draw.choice((1, 2)) * (-sign if negated else sign)
    times, degree = draw.choice(DEGREES)
    form = draw.choice(NEGATED if negated else PLAIN)
    if "{degree}" not in form:
        times, degree = (1 if negated else 2), ""
    word = draw.choice((RARE if rare else COMMON)[strength])
    text = form.format(noun=draw.choice(NOUNS), degree=degree, word=word)
    return " ".join(text.split()), times * (-strength if negated else strength), negated, rare


def review(draw: Draw) -> tuple[str, int, bool, bool, bool]:
    """Text, value (good if above 0), and whether it has negation, contrast and a rare word."""
    sign = draw.choice((-1, 1))
    contrast = draw.one_in(4)
    if contrast:
        main, conceded = opinion(draw, sign), opinion(draw, -sign)
        text = draw.choice(CONTRASTS).format(main=main[0], conceded=conceded[0])
        said, value = [main, conceded], main[1]
    else:  # one opinion or two, which may disagree
        said = [opinion(draw, sign)]
        if draw.one_in(3):
            said.append(opinion(draw, -sign if draw.one_in(4) else sign))
        text = draw.choice((" and ", " . ")).join(clause[0] for clause in said)
        value = sum(clause[1] for clause in said)
    asides = [
        draw.choice(ASIDES).format(day=draw.choice(DAYS), person=draw.choice(PEOPLE))
        for _ in range(draw.choice((0, 0, 0, 1)))
    ]
    text = " . ".join(draw.shuffled([text, *asides])) + " ."
    return text, value, any(c[2] for c in said), contrast, any(c[3] for c in said)


def reviews(seed: int = 11) -> str:
    """The file of reviews: half of the labels are 0, half 1, and no text comes twice."""
    draw, seen, rows, counts = Draw(seed), set(), [], [0, 0]
    while len(rows) < REVIEWS:
        text, value, *slices = review(draw)
        flipped = draw.one_in(FLIPPED)
        label = int((value > 0) != flipped)
        if value == 0 or text in seen or counts[label] == REVIEWS // 2:
            continue
        seen.add(text)
        counts[label] += 1
        rows.append("\t".join([*(str(int(v)) for v in (label, flipped, *slices)), text]))
    head = "label\tflipped\tnegation\tcontrast\trare\ttext"
    return "\n".join([head, *draw.shuffled(rows)]) + "\n"


# ---- ratings ----

USERS, ITEMS = 800, 400
TASTES = 6  # dimensions, each disliked (-1), not minded (0) or liked (1)


def ratings(seed: int = 15) -> str:
    """The file of ratings: who took what when (hours), no pair of user and item twice.

    An item's chance is its popularity, times three for each taste that it and the user share and
    a third for each on which they differ; one choice in ten is by popularity alone.
    """
    draw, rows = Draw(seed), ["user,item,time"]
    popularity = draw.shuffled(12_000 // (12 + rank) for rank in range(ITEMS))
    items = [[draw.below(3) - 1 for _ in range(TASTES)] for _ in range(ITEMS)]
    by_popularity = list(accumulate(popularity))
    for user in range(USERS):
        likes = [draw.below(3) - 1 for _ in range(TASTES)]
        shared = [sum(a * b for a, b in zip(likes, item, strict=True)) for item in items]
        by_taste = list(
            accumulate(p * 3 ** (TASTES + s) for p, s in zip(popularity, shared, strict=True))
        )
        chosen, wanted = {}, 10 + draw.below(8) * draw.below(8) * draw.below(4)
        while len(chosen) < wanted:
            chances = by_popularity if draw.one_in(10) else by_taste
            chosen[bisect(chances, draw.below(chances[-1]))] = True
        time = draw.below(365 * 24)
        for item in draw.shuffled(chosen):
            rows.append(f"{user},{item},{time}")
            time += 24 * (1 + draw.below(30)) if draw.one_in(4) else 1 + draw.below(3)
    return "\n".join(rows) + "\n"


# ---- translations ----

PAIRS = 20_000
LONGEST = 14  # words, of either language, with the full stop


def translations(seed: int = 12) -> str:
    """The file of English and French: no sentence of either language comes twice."""
    draw, seen, rows = Draw(seed), set(), ["english\tfrench\tmarks"]
    while len(rows) <= PAIRS:
        english, french = sentence(draw)
        pair = {" ".join(english), " ".join(word.text for word in french)}
        if max(len(english), len(french)) > LONGEST or pair & seen:
            continue
        seen |= pair
        marks = ",".join(word.marks for word in french)
        rows.append(f"{' '.join(english)}\t{' '.join(word.text for word in french)}\t{marks}")
    return "\n".join(rows) + "\n"


FILES = {"reviews.tsv": reviews, "ratings.csv": ratings, "translations.tsv": translations}

if __name__ == "__main__":
    for name, made in FILES.items():
        (HERE / name).write_text(made(), encoding="utf-8", newline="\n")
