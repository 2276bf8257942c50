"""Exercises of lesson 13 Summarisation. Each: the judge, then the solution it belongs to."""

from collections import Counter

import torch
from torch import nn

from ...prune.masks import apply
from ...prune.select import select
from .exercise import exercise

TEXTS = [  # reference, summary
    ("the foxes beat the owls", "the owls beat the foxes on the day"),
    ("a b c d", "a b"),
    ("a a a b", "a b b"),
    ("the the cat", "the dog"),
    ("a b", "c d e"),
    ("one two three four five six", "six five four"),
]


def _shares(reference: str, summary: str) -> tuple[float, float, float]:
    one, other = Counter(reference.split()), Counter(summary.split())
    shared = (one & other).total()
    precision, recall = shared / other.total(), shared / one.total()
    return precision, recall, 2 * shared / (one.total() + other.total())


def _judge_rouge(answer) -> str | None:
    for reference, summary in TEXTS:
        try:
            got = float(answer(reference, summary))
        except ZeroDivisionError:
            return "Two texts that share no word: that is 0, not a division by zero."
        precision, recall, want = _shares(reference, summary)
        if abs(got - want) < 1e-4:
            continue
        one, other = reference.split(), summary.split()
        sets = len({*one} & {*other})
        set_f1 = 2 * sets / (len({*one}) + len({*other}))
        found = sum(word in one for word in other)  # unclipped
        loose = 2 * found / (len(one) + len(other))
        case = f"For {reference!r} and {summary!r} ROUGE-1 is {want:.4f}, not {got:.4f}"
        known = {
            set_f1: "a set counts each word once. Here words count as often as they come.",
            2
            * sets
            / (
                len(one) + len(other)
            ): "a set counts each shared word once. They count as often as both texts have them.",
            loose: "a word may count only as often as the reference has it.",
            precision: "that is the precision alone.",
            recall: "that is the recall alone.",
            (precision + recall)
            / 2: "that is the ordinary mean of precision and recall. F1 is the harmonic one.",
            want / 2: "a factor of 2 is missing.",
        }
        why = next((say for value, say in known.items() if abs(got - value) < 1e-4), None)
        if why is None and got != got:
            why = "nothing shared is 0."
        return f"{case}: {why}" if why else f"{case}. Count the shared words first."
    return None


@exercise(
    _judge_rouge,
    "`collections.Counter(text.split())` counts words; `a & b` of two counters keeps the smaller count of each.",
    "With `n` words shared, F1 is 2·n / (words of the reference + words of the summary).",
)
def rouge_1(reference: str, summary: str) -> float:
    from collections import Counter

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
        (MATCH, {}, [], "nothing is said"),
        ({"day": "friday"}, {"day": "friday", "score": ("one", "nil")}, ["day"],
         "the report gives no score, so none can be right"),
    ]  # fmt: skip
    for facts, said, want, why in cases:
        given = dict(facts), dict(said)
        got = answer(*given)
        if given != (facts, said):
            return "You changed the facts that were given: work on a copy."
        if isinstance(got, str | bool) or not hasattr(got, "__iter__"):
            return f"Return a list of kinds, not {got!r}."
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


def _judge_part(answer) -> str | None:
    for part, sparsity in (
        ("encoder", 0.5),
        ("decoder", 0.25),
        ("decoder.down", 0.75),
        ("encoder", 0.9),
    ):
        network, before, wanted = (_Parts(seed=3) for _ in range(3))
        got = answer(network, part, sparsity)
        if isinstance(got, nn.Module) and got is not network:
            return "Prune the network that is given, in place."
        inside = {
            n: w for n, w in wanted.named_parameters() if n.startswith(f"{part}.") and w.dim() > 1
        }
        apply(wanted, select({n: w.detach().abs() for n, w in inside.items()}, sparsity))
        now, old, want = (dict(m.named_parameters()) for m in (network, before, wanted))
        case = f"Part {part!r} at {sparsity:.0%}: "
        for name in now:
            if name in inside or torch.equal(now[name], old[name]):
                continue
            if name.startswith(part) and not name.startswith(f"{part}."):
                return f"{case}{name} changed, but its name begins with {part!r} only by chance: ask for the dot."
            if name.startswith(f"{part}."):
                return f"{case}{name} changed, a bias: only weights of two dimensions or more are pruned."
            return f"{case}{name} changed, and it is in another part."
        zeros, total = (
            sum(int(f(now[n])) for n in inside) for f in (lambda w: (w == 0).sum(), torch.numel)
        )
        wanted_zeros = sum(int((want[n] == 0).sum()) for n in inside)
        if zeros != wanted_zeros:
            return f"{case}{wanted_zeros} of its {total} weights should be zero, not {zeros}. The share is of the *part*."
        if any(not torch.equal(now[n][now[n] != 0], old[n][now[n] != 0]) for n in inside):
            return f"{case}weights that stay must keep their values."
        if any(not torch.equal(now[n], want[n]) for n in inside):
            largest = all(
                now[n][now[n] != 0].abs().max() <= old[n][now[n] == 0].abs().max()
                for n in inside if (now[n] == 0).any() and (now[n] != 0).any()
            )  # fmt: skip
            if largest:
                return f"{case}those are the largest weights. The smallest go."
            return f"{case}as many are zero as should be, but others: rank |w| once over the whole part, not layer by layer."
    return None


@exercise(
    _judge_part,
    '`network.named_parameters()` gives names; those of a part begin with `part + "."`.',
    "Rank once over the part: `torch.cat` of all sizes, flattened; or `pl.select` of the sizes by name, then `pl.apply`.",
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
