"""Exercises of lesson 13 Summarisation. Each: the judge, then the solution it belongs to."""

import math
from collections import Counter
from collections.abc import Mapping

import torch
from torch import nn

from ...prune.masks import apply
from ...prune.select import select
from .exercise import exercise, number

TEXTS = [  # reference, summary
    ("the owls beat the foxes at home", "the foxes beat the bears on the day"),
    ("a b c d", "a b"),
    ("a a a b", "a b b"),
    ("the the cat", "the dog"),
    ("a b", "c d e"),
    ("one two three four five six", "six five four"),
]


def _shares(one: Counter, other: Counter) -> tuple[float, float]:
    """Precision and recall."""
    shared = (one & other).total()
    return shared / other.total(), shared / one.total()


ROUGE_MISTAKES = {  # of the counted words of reference and summary
    "That is the precision alone.": lambda a, b: _shares(a, b)[0],
    "That is the recall alone.": lambda a, b: _shares(a, b)[1],
    "That is the ordinary mean of precision and recall. F1 is the harmonic one.": lambda a, b: (
        sum(_shares(a, b)) / 2
    ),
    "That is the geometric mean of precision and recall. F1 is the harmonic one.": lambda a, b: (
        math.prod(_shares(a, b)) ** 0.5
    ),
    "That is shared words by the words of both together (Jaccard). F1 is another ratio.": lambda a, b: (
        (a & b).total() / (a | b).total()
    ),
    "A set counts each word once. Words count as often as they come.": lambda a, b: (
        2 * len({*a} & {*b}) / (len(a) + len(b))
    ),
    "A set counts each shared word once. They count as often as both texts have them.": lambda a, b: (
        2 * len({*a} & {*b}) / (a + b).total()
    ),
    "A word may count only as often as the reference has it.": lambda a, b: (
        2 * sum(b[word] for word in a) / (a + b).total()
    ),
    "A word may count only as often as the summary has it.": lambda a, b: (
        2 * sum(a[word] for word in b) / (a + b).total()
    ),
    "A factor of 2 is missing.": lambda a, b: (a & b).total() / (a + b).total(),
    "That is in percent. Return a share.": lambda a, b: 200 * (a & b).total() / (a + b).total(),
}


def _judge_rouge(answer) -> str | None:
    found = []
    for texts in TEXTS:
        try:
            got = answer(*texts)
            found.append(None if got is None or isinstance(got, str) else number(got))
        except ZeroDivisionError:
            return "Two texts that share no word: that is 0, not a division by zero."
    if None in found:
        return "Return one number."
    if math.isnan(found[4]):  # of the two that share no word
        return "Nothing shared is 0."
    counted = [tuple(Counter(text.split()) for text in texts) for texts in TEXTS]
    wanted = [2 * (a & b).total() / (a + b).total() for a, b in counted]
    off = [abs(got - want) for got, want in zip(found, wanted, strict=True)]
    if max(off) < 1e-4:
        return None
    if max(off) < 0.006:
        return "Nearly. Return the number as it is, not rounded."
    for advice, mistake in ROUGE_MISTAKES.items():
        if all(abs(got - mistake(*c)) < 1e-4 for got, c in zip(found, counted, strict=True)):
            return advice
    worst = next(i for i, value in enumerate(off) if not value < 1e-4)
    (reference, summary), want, got = TEXTS[worst], wanted[worst], found[worst]
    return (
        f"For {reference!r} and {summary!r} ROUGE-1 is {want:.4f}, not {got:.4f}. Count the shared "
        "words first."
    )


@exercise(
    _judge_rouge,
    "`collections.Counter(text.split())` counts words; `a & b` of two counters keeps the smaller count of each.",
    "With `n` words shared, F1 is 2·n / (words of the reference + words of the summary).",
)
def rouge_1(reference: str, summary: str) -> float:
    one, other = Counter(reference.split()), Counter(summary.split())
    return 2 * (one & other).total() / (one.total() + other.total())


MATCH = {
    "teams": ("red foxes", "blue owls"),
    "score": ("three", "one"),
    "day": "sunday",
    "scorer": "anna keller",
}


def _judge_facts(answer) -> str | None:
    turned = MATCH | {"teams": MATCH["teams"][::-1], "score": MATCH["score"][::-1]}
    swapped = MATCH | {"teams": MATCH["teams"][::-1]}
    draw = MATCH | {"score": ("one", "one")}
    alike = {"day": "monday", "teams": ("grey bears", "pink bears"), "score": ("nil", "two")}
    cases = [  # facts, said, right, what a mistake there means
        (MATCH, MATCH, list(MATCH), "all are right"),
        (MATCH, MATCH | {"day": "monday"}, ["teams", "score", "scorer"], "the day alone is wrong"),
        (MATCH, turned, list(MATCH), "it is told from the other team's side, and all is right"),
        (MATCH, swapped, ["teams", "day", "scorer"],
         "the teams are turned round and the score is not: it gives the wrong team three goals"),
        (MATCH, MATCH | {"score": ("one", "three")}, ["teams", "day", "scorer"],
         "the score is turned round and the teams are not: three to one is not one to three"),
        (MATCH, {"day": "sunday"}, ["day"], "a kind that is missing is wrong"),
        (MATCH, turned | {"teams": ("red foxes", "blue bears")}, ["day", "scorer"],
         "one team is wrong, so nothing says that it is told from the other side"),
        (draw, draw | {"teams": draw["teams"][::-1]}, list(draw), "one to one is the same from both sides"),
        (alike, {"score": ("two", "nil"), "teams": ("pink bears", "grey bears")}, ["teams", "score"],
         "both are turned round, and the day is missing"),
        (MATCH, {"scorer": "keller anna", "day": "sunday "[:6]}, ["day"], "a name has an order, too"),
        (MATCH, turned | {"teams": ("blue owls", "green bears")}, ["day", "scorer"],
         "one team is wrong, so nothing says that it is told from the other side"),
        (MATCH, turned | {"teams": ("green bears", "red foxes")}, ["day", "scorer"],
         "one team is wrong, so nothing says that it is told from the other side"),
        (MATCH, MATCH | {"teams": ("red foxes", "green bears")}, ["score", "day", "scorer"],
         "one team is wrong, and the score is as the report has it"),
        (MATCH, {"score": ("three", "one")}, ["score"], "no teams are said, and the score is as the report has it"),
        (MATCH, {"score": ("one", "three")}, [], "no teams are said, so nothing says that it is told from the other side"),
        (MATCH, {"teams": MATCH["teams"][::-1]}, ["teams"], "the teams are turned round, and no score is said"),
        (MATCH, {}, [], "nothing is said"),
        ({"day": "friday"}, {"day": "friday", "score": ("one", "nil")}, ["day"],
         "the report gives no score, so none can be right"),
    ]  # fmt: skip
    for facts, said, want, why in cases:
        given = dict(facts), dict(said)
        got = answer(*given)
        if given != (facts, said):
            return "You changed the facts that were given: work on a copy."
        if isinstance(got, str | Mapping | set | frozenset) or not hasattr(got, "__iter__"):
            return f"Return a list of kinds, in the order of `facts`, not {got!r}."
        got = list(got)
        if all(isinstance(kind, bool) for kind in got) and want:
            return f"Return the names of the kinds that are right, not {got!r}."
        got = [str(kind) for kind in got]
        if got == want:
            continue
        if sorted(got) == sorted(want):
            return f"Those are the kinds, but in the order of `facts`: {want}."
        return f"Facts {facts}, said {said}: {why}. Right are {want}, not {got}."
    return None


@exercise(
    _judge_facts,
    'Are `said["teams"]` the pair of `facts` turned round? Then compare the score turned round, too.',
    "`pair[::-1]` turns a pair round, and `said.get(kind)` is None where the kind is missing.",
)
def facts_right(facts: dict, said: dict) -> list[str]:
    said = dict(said)
    if said.get("teams") and said["teams"] == facts.get("teams", ())[::-1]:
        said |= {kind: said[kind][::-1] for kind in ("teams", "score") if kind in said}
    return [kind for kind in facts if kind in said and said[kind] == facts[kind]]


class _Parts(nn.Module):
    """Three parts, of which one has a name that begins like another's."""

    def __init__(self, seed: int):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
            self.encoder_norm = nn.Linear(5, 3)
            self.decoder = nn.ModuleDict({"up": nn.Linear(3, 8), "down": nn.Linear(8, 2)})
        with torch.no_grad():
            self.encoder[2].weight.mul_(5)  # so that one ranking differs from one for each layer
            self.decoder["down"].weight.mul_(0.1)


PARTS = (("encoder", 0.5), ("decoder", 0.25), ("decoder.down", 0.75), ("encoder", 0.9))
PARTS += (("encoder", 0.435), ("encoder_norm", 0.4))  # 23.49 of 54 weights; a part that is a layer


def _part(network: nn.Module, part: str) -> dict[str, torch.Tensor]:
    found = network.named_parameters()
    return {n: w for n, w in found if n.startswith(f"{part}.") and w.dim() > 1}


def _by(ranking, sparsity: float, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return select({n: ranking(w.detach()) for n, w in weights.items()}, sparsity)


PART_MISTAKES = {  # how one may have ranked
    "Those are the largest weights. The smallest go.": lambda w: -w.abs(),
    "Those are the lowest values, with their sign. The *size* counts: rank |w|.": lambda w: w,
    "Those are the highest values, with their sign. The *size* counts: rank |w|.": lambda w: -w,
}


def _judge_part(answer) -> str | None:
    for part, sparsity in PARTS:
        network, before, wanted = (_Parts(seed=3) for _ in range(3))
        got = answer(network, part, sparsity)
        inside = _part(wanted, part)
        masks = _by(torch.abs, sparsity, inside)
        apply(wanted, masks)
        now, old, want = (dict(m.named_parameters()) for m in (network, before, wanted))
        case = f"Part {part!r} at {sparsity:.1%}: "
        if now.keys() != old.keys():
            return f"{case}the parameters have other names now. After `torch.nn.utils.prune`, call `prune.remove`."
        elsewhere = [n for n in now if not n.startswith(part) and not torch.equal(now[n], old[n])]
        if elsewhere:
            return f"{case}{elsewhere[0]} changed, and it is in another part."
        for name in now:
            if name in inside or torch.equal(now[name], old[name]):
                continue
            if name.startswith(f"{part}."):
                return f"{case}{name} changed, a bias: only weights of two dimensions or more are pruned."
            return f"{case}{name} changed, but its name begins with {part!r} only by chance: ask for the dot."
        zeros = {n: now[n] == 0 for n in inside}
        total, gone, due = (
            sum(int(t.sum()) for t in found)
            for found in (map(torch.ones_like, zeros.values()), zeros.values(), (~m for m in masks.values()))
        )  # fmt: skip
        if not gone and isinstance(got, nn.Module) and got is not network:
            return "Prune the network that is given, in place, not a copy of it."
        if not gone:
            return f"{case}nothing changed. Set weights of the given network to zero, in place."
        if abs(gone - due) == 1:
            return f"{case}{due} of its {total} weights should be zero, not {gone}: round `sparsity` times the number of weights."
        if gone == total - due != due:
            return f"{case}{gone} of its {total} weights are zero. `sparsity` is the share that goes, not the share that stays."
        if gone != due:
            return f"{case}{due} of its {total} weights should be zero, not {gone}. The share is of the *part*."
        if any(not torch.equal(now[n][~zeros[n]], old[n][~zeros[n]]) for n in inside):
            return f"{case}weights that stay must keep their values."
        if all(torch.equal(now[n], want[n]) for n in inside):
            continue
        for advice, ranking in PART_MISTAKES.items():
            masks = _by(ranking, sparsity, _part(before, part))
            if all(torch.equal(~masks[n], zeros[n]) for n in inside):
                return f"{case}{advice[0].lower()}{advice[1:]}"
        each = [select({n: w.detach().abs()}, sparsity) for n, w in _part(before, part).items()]
        if all(torch.equal(~m, zeros[n]) for masks in each for n, m in masks.items()):
            return f"{case}rank once over the whole part, not layer by layer."
        return f"{case}as many are zero as should be, but others. The smallest |w| of the part go."
    return None


@exercise(
    _judge_part,
    '`network.named_parameters()` gives names; those of a part begin with `part + "."`.',
    "Rank once over the part: `torch.cat` of all sizes, flattened; or `pl.select` of the sizes by name, then `pl.apply`. "
    "Weights are changed in place under `torch.no_grad()`.",
)
def prune_part(network: nn.Module, part: str, sparsity: float) -> None:
    weights = [
        weight.data
        for name, weight in network.named_parameters()
        if name.startswith(f"{part}.") and weight.dim() > 1
    ]
    sizes = torch.cat([weight.abs().flatten() for weight in weights])
    keep = torch.ones(len(sizes), dtype=torch.bool)
    keep[sizes.argsort(stable=True)[: round(sparsity * len(sizes))]] = False
    parts = keep.split([weight.numel() for weight in weights])
    for weight, kept in zip(weights, parts, strict=True):
        weight[~kept.view_as(weight)] = 0
