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


# ---- reports ----

REPORTS = 7_000
COLOURS = words("red blue green black white golden silver grey brown pink violet scarlet")
ANIMALS = words("falcons herons wolves bears foxes ravens otters lynxes hawks bulls tigers owls")
FIRST = words("anna ben carl dora emil fay gus hana ivo june kai lena milo nora oscar pia")
LAST = words("""keller moreau novak rossi silva berg costa dahl evans fischer garcia haas ito jansen kovac
lund marsh olsen park quinn""")
SYLLABLES = words("ba ce di fo gu ha je ki lo mu na pe ri so tu va we zi")
NUMBERS = words("nil one two three four five six seven")

MEETINGS = [
    "{day} saw the {hosts} receive the {guests}",
    "the {hosts} met the {guests} at home on {day}",
    "the {guests} came to the {hosts} on {day}",
    "on {day} the {guests} were guests of the {hosts}",
]
EXPECTED = [  # {f} is where the favourite plays: "home" or "away"
    "all expected {a} {f} win",
    "the {f} side led the table",
    "few doubted the {f} side",
]
WON = [  # {w} won: "hosts" or "guests"
    "the {w} won {more} to {less}",
    "it was {more} to {less} for the {w}",
    "the {w} were ahead at the end , {more} to {less}",
    "the {l} lost {less} to {more}",
]
DRAWN = ["neither side won : {more} to {less}", "it was {more} to {less} at the end"]
OPENED = ["{scorer} scored first", "the first goal was by {scorer}", "{scorer} opened the score"]
CANCELLED = ["an early goal by {other} did not count", "{other} seemed to score first but did not"]
ELSE = [
    "{other} was ill",
    "{other} scored the last goal",
    "at the break it was {few} to {fewer}",
    "their last game was {few} to {fewer}",
    "the next game is on {another}",
    "tickets were gone by {another}",
]


def player(draw: Draw) -> tuple[str, bool]:
    """Name, and whether its second word is made up, so that hardly another report has it."""
    rare = draw.one_in(4)
    last = "".join(draw.choice(SYLLABLES) for _ in range(3)) if rare else draw.choice(LAST)
    return f"{draw.choice(FIRST)} {last}", rare


def report(draw: Draw) -> list:
    """Text, the places of what belongs in a summary, and what is known of the report.

    Places count words from 0: of the first word of hosts, guests and scorer, of the day, and of
    the goals of hosts and guests. Then favourite (0 hosts, 1 guests), cancelled, rare.
    """
    (c, d), (a, b) = draw.shuffled(COLOURS)[:2], draw.shuffled(ANIMALS)[:2]
    hosts, guests = f"{c} {a}", f"{d} {b}"
    sides = ("hosts", "guests")
    favourite = draw.below(2)
    more, less = 1 + draw.below(5), draw.below(5)
    more, less = max(more, less), min(more, less)
    beaten = draw.one_in(3)  # the favourite
    winner = 1 - favourite if beaten else favourite
    day, another = draw.shuffled(DAYS)[:2]
    (scorer, rare), (other, _) = player(draw), player(draw)
    while other.split()[0] == scorer.split()[0] or other.split()[1] == scorer.split()[1]:
        other, _ = player(draw)
    few, fewer = 1 + draw.below(5), draw.below(5)
    while {few, fewer} == {more, less}:
        few = 1 + draw.below(5)
    names = {"hosts": hosts, "guests": guests, "day": day, "another": another, "scorer": scorer}
    names |= {"other": other, "f": ("home", "away")[favourite], "a": ("a", "an")[favourite]}
    names |= {"w": sides[winner], "l": sides[1 - winner]}
    names |= {"more": NUMBERS[more], "less": NUMBERS[less]}
    names |= {"few": NUMBERS[few], "fewer": NUMBERS[fewer]}
    meeting = draw.choice(MEETINGS)
    forms = [draw.choice(part) for part in (EXPECTED, WON if more > less else DRAWN, OPENED)]
    cancelled = draw.one_in(3)
    if cancelled:
        forms.append(draw.choice(CANCELLED))
    elif draw.one_in(3):
        forms.append(draw.choice(ELSE[:2]))
    if draw.one_in(3):
        forms.append(draw.choice(ELSE[2:]))
    forms = draw.shuffled(forms)
    forms.insert(0 if draw.one_in(2) else draw.below(len(forms) + 1), meeting)
    text, places = [], {}
    for word in " . ".join([*forms, ""]).split():
        if word[0] == "{":
            places[word[1:-1]] = len(text)
            text += names[word[1:-1]].split()
        else:
            text.append(word)
    goals = [places["more"], places["less"]]
    goals = goals if winner == 0 else goals[::-1]
    found = [places[name] for name in ("hosts", "guests", "day", "scorer")]
    return [*found, *goals, favourite, int(cancelled), int(rare), " ".join(text)]


def reports(seed: int = 13) -> str:
    """The file of reports: no text comes twice."""
    draw, rows = Draw(seed), {}
    while len(rows) < REPORTS:
        *known, text = report(draw)
        rows[text] = "\t".join([*map(str, known), text])
    head = words("hosts guests day scorer goals against favourite cancelled rare report")
    return "\n".join(["\t".join(head), *rows.values()]) + "\n"


FILES = {
    "reviews.tsv": reviews,
    "ratings.csv": ratings,
    "translations.tsv": translations,
    "reports.tsv": reports,
}

if __name__ == "__main__":
    for name, made in FILES.items():
        (HERE / name).write_text(made(), encoding="utf-8", newline="\n")
