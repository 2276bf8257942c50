"""Every exercise: the solution passes, the stub is not attempted, named wrong answers are told why."""

import copy
import itertools
import math
import re
from collections import Counter
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
from torch.nn.utils import prune

import pruninglib as pl
from pruninglib.course import exercises
from pruninglib.course.exercises.exercise import CORRECT, NOT_ATTEMPTED, WRONG, Exercise, Question
from pruninglib.course.runner import find_lessons
from pruninglib.measure.stats import interval

ROOT = Path(__file__).parents[1]
EXERCISES = [n for n in exercises.__all__ if isinstance(getattr(exercises, n), Exercise)]
SELF_TESTS = {  # name of the questions -> notebook
    "foundations": "1_foundations/self_test.ipynb",
    "vision": "2_vision/self_test.ipynb",
    "language": "3_language/self_test.ipynb",
}
QUESTIONS = [
    pytest.param(name, number, id=f"{name} {number}")
    for name in SELF_TESTS
    for number in getattr(exercises, name)
]
question = pytest.mark.parametrize(("name", "number"), QUESTIONS)


def share_of(written, references, n, right, all_of=lambda pieces: pieces.total(), total=None):
    """Of the pieces that were written, the share that is right, by another idea of right."""
    pieces = [
        [Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in side]
        for side in (written, references)
    ]
    total = total[0] if total else sum(map(all_of, pieces[0]))
    return sum(right(a, b) for a, b in zip(*pieces, strict=True)) / total


def nats(prior, clicks):
    """Log-loss of whoever always says the prior."""
    rate = float(np.mean(np.asarray(clicks)))
    return -(rate * math.log(prior) + (1 - rate) * math.log(1 - prior))


def rows_kept(table, scores, keep):
    stays = torch.as_tensor(scores).argsort(descending=True, stable=True)[:keep]
    return torch.zeros_like(table).index_copy(0, stays, table[stays])


def gradient_only(weight, mask, optimizer):
    weight.grad.mul_(mask)
    optimizer.step()


def kept_frozen(weight, mask, optimizer):
    weight.grad *= ~mask
    optimizer.step()
    weight.data *= mask


def every_step_at_a_later_sparsity(scan, allowed):
    return {n: max(s for s in v if v[0.0] - v[s] <= allowed) for n, v in scan.items()}


def scanned(damage, order=sorted):
    """A budget from a scan with another idea of damage, or of the order."""

    def answer(scan, allowed):
        budget = {}
        for name, values in scan.items():
            budget[name] = before = 0.0
            for sparsity in order(values):
                if damage(values, before, sparsity) > allowed:
                    break
                budget[name] = before = sparsity
        return budget

    return answer


def cubic(t):
    return 1 - (1 - min(1, max(0, t))) ** 3


def rewound(model, values, masks, biases=True):
    """The model with these values, masked; the biases only if asked."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in masks or biases:
                parameter.copy_(values[name] * masks.get(name, 1))


def masked_first(model, early, masks):
    for name, mask in masks.items():
        early[name].mul_(mask)
    model.load_state_dict(early)


def shuffled_over_layers(masks):
    row = torch.cat([m.flatten() for m in masks.values()])
    parts = row[torch.randperm(len(row))].split([m.numel() for m in masks.values()])
    return {n: p.view(masks[n].shape) for n, p in zip(masks, parts, strict=True)}


def share(model, spared, sparsity):
    """Of the weights that are not spared, so that `sparsity` of all are gone."""
    sizes = {name: w.numel() for name, w in pl.weights_of(model).items()}
    return sparsity * sum(sizes.values()) / (sum(sizes.values()) - sizes[spared])


def lost_in(dense, pruned, part):
    return (dense[part].float().mean() - pruned[part].float().mean()).item()


def pruned_but(model, spared, images, sparsity, score=torch.abs, budget=pl.global_budget):
    weights = pl.weights_of(model)
    scores = {name: score(w.detach()) for name, w in weights.items() if name != spared}
    pl.apply(model, pl.select(scores, sparsity, budget=budget))
    if images is not None:
        pl.recalibrate(model, [images])
    return model


def verdict_of(low, high, worth):
    return "holds" if low > worth else "contradicted" if high < worth else "open"


def around(a, b, errors):
    gains = np.subtract(a, b)
    half = errors * gains.std(ddof=1) / len(gains) ** 0.5
    return gains.mean() - half, gains.mean() + half


def stopped_without_reset(scores, patience):
    best, waited = 1, 0
    for epoch, score in enumerate(scores, start=1):
        if score > scores[best - 1]:
            best = epoch
        elif epoch > 1:
            waited += 1
        if waited == patience:
            break
    return best


def weights_of(model):
    return [p for p in model.parameters() if p.dim() >= 2]


def chain(conv1, norm, conv2):
    layers = {"conv1": conv1, "norm": norm, "conv2": conv2}
    named = {f"{n}.{k}": t for n, m in layers.items() for k, t in m.state_dict().items()}
    return {n: named[n] for n in exercises.chain_without.solve(conv1, norm, conv2, ...)}


def cut_in_place(conv1, norm, conv2, keep):
    shrunk = exercises.chain_without.solve(conv1, norm, conv2, keep)
    conv1.weight.data = shrunk["conv1.weight"].data
    return shrunk


def kept_dimensions(users, items, scores, keep):
    mask = torch.zeros_like(scores)
    mask[scores.argsort(descending=True, stable=True)[:keep]] = 1
    return users * mask, items * mask


def kept_rows(state, heads, keep):
    each = len(state["key.bias"]) // heads
    return [h * each + i for h in keep for i in range(each)]


def heads_cut(state, heads, keep, rows=None):
    """The heads removed as they should be, or these rows."""
    rows = kept_rows(state, heads, keep) if rows is None else rows
    small = {n: v[rows] for n, v in state.items()}
    return small | {
        "output.weight": state["output.weight"][:, rows],
        "output.bias": state["output.bias"],
    }


def while_pruned(
    model,
    levels,
    metric,
    most,
    *,
    order=sorted,
    stop=False,
    fine=None,
    budget=None,
    score=pl.magnitude,
):
    """`prune_while` with one thing changed."""
    fine = fine or (lambda now, whole, before: now >= whole - most - 1e-9)
    best, whole, before = copy.deepcopy(model), metric(model), metric(model)
    for level in order(levels):
        tried = copy.deepcopy(model)
        pl.apply(tried, pl.select(score(tried), level, budget=budget or pl.global_budget))
        if fine(metric(tried), whole, before):
            best, before = tried, metric(tried)
        elif stop:
            break
    return best


def kept_apart(pruned, whole):
    """The pruned network; if nothing is, the one that is given."""
    return pruned if any((w == 0).any() for w in pl.weights_of(pruned).values()) else whole


def pruned_by_torch(model, levels, metric, most):
    """`prune_while` with torch's own pruning, which writes the weights behind the biases."""
    best, layers = copy.deepcopy(model), range(len(model))
    for level in sorted(levels):
        tried = copy.deepcopy(model)
        parts = [(tried[i], "weight") for i in layers]
        prune.global_unstructured(parts, prune.L1Unstructured, amount=level)
        for part in parts:
            prune.remove(*part)
        if metric(tried) >= metric(model) - most - 1e-9:
            best = tried
    return best


def gaps_in(found_by, ends=True):
    """Runs of -1 with a name before (and, unless `ends`, after)."""
    inside = [g for g, _ in itertools.groupby(found_by)]
    last = len(inside) - 1
    return sum(g == -1 and i > 0 and (ends or i < last) for i, g in enumerate(inside))


def changes(names):
    return sum(a != b for a, b in itertools.pairwise(names))


def skip_masked(model, part, sparsity, grain=pl.element):
    """Prune some columns of layer 2 by some scores: part(weight) -> scores, columns."""
    weight = model[2].weight.detach()
    scores, columns = part(weight)
    mask = torch.ones(weight.shape, dtype=torch.bool)
    mask[:, columns] = pl.select({"": scores.contiguous()}, sparsity, grain=grain)[""]
    pl.apply(model, {"2.weight": mask})
    return 0


def in_each_row(scores, sparsity):
    gone = scores.argsort(dim=1)[:, : round(sparsity * scores.shape[1])]
    return torch.ones(scores.shape, dtype=torch.bool).scatter_(1, gone, False)


def iou_of(one, other):
    return float((one & other).sum() / (one | other).sum()) if (one | other).any() else 1.0


def crossed(region, distance):
    """An outline to which corners do not belong."""
    left = region.clone()
    for _ in range(distance):
        p = torch.nn.functional.pad(left, (1, 1, 1, 1))
        left = left & p[:-2, 1:-1] & p[2:, 1:-1] & p[1:-1, :-2] & p[1:-1, 2:]
    return region & ~left


def first_failure(scores, right, precision):
    found = float("inf")
    for score in scores.sort(descending=True).values.unique().flip(0):
        if right[scores >= score].double().mean() < precision - 1e-9:
            break
        found = float(score)
    return found


def one_by_one(scores, right, precision):
    order = scores.argsort(stable=True).flip(0)
    share = right[order].cumsum(0) / torch.arange(1, len(order) + 1)
    fine = scores[order][share >= precision - 1e-9]
    return fine.min() if len(fine) else float("inf")


def first_free(overlaps, least):
    left, right = overlaps.clone(), []
    for i in range(len(left)):
        fits = (left[i] >= least).nonzero()
        right.append(bool(len(fits)))
        left[:, fits[:1].flatten()] = -1
    return right


# name of the exercise -> named mistake -> (answer, a word of the message that helps)
def shared_words(reference, summary):
    return (Counter(reference.split()) & Counter(summary.split())).total()


def part_pruned(model, sparsity, wanted, budget=pl.global_budget, sign=1):
    scores = {n: sign * w.detach().abs() for n, w in model.named_parameters() if wanted(n, w)}
    pl.apply(model, pl.select(scores, sparsity, budget=budget))


MISTAKES = {
    "sparsity_of": {
        "share kept": (
            lambda m: sum(int((w != 0).sum()) for w in weights_of(m))
            / sum(w.numel() for w in weights_of(m)),
            "share of weights kept",
        ),
        "mean over layers": (
            lambda m: sum(float((w == 0).float().mean()) for w in weights_of(m))
            / len(weights_of(m)),
            "averaged over layers",
        ),
        "biases counted": (
            lambda m: sum(int((p == 0).sum()) for p in m.parameters())
            / sum(p.numel() for p in m.parameters()),
            "biases",
        ),
        "count, not share": (
            lambda m: sum(int((w == 0).sum()) for w in weights_of(m)),
            "between 0 and 1",
        ),
        "negatives counted": (
            lambda m: sum(int((w <= 0).sum()) for w in weights_of(m))
            / sum(w.numel() for w in weights_of(m)),
            "negative weights",
        ),
        "matrices alone": (
            lambda m: sum(int((w == 0).sum()) for w in weights_of(m) if w.dim() == 2)
            / sum(w.numel() for w in weights_of(m) if w.dim() == 2),
            "convolution",
        ),
        "a constant": (lambda m: 11 / 18, "instead of"),
    },
    "mask_from_threshold": {
        "sign kept": (lambda w, t: w > t, "absolute"),
        "inverted": (lambda w, t: w.abs() <= t, "wrong way round"),
        "threshold kept": (lambda w, t: w.abs() >= t, "exactly at the threshold"),
        "strictly inverted": (lambda w, t: w.abs() < t, "wrong way round"),
        "pruned weight": (lambda w, t: w * (w.abs() > t), "the mask itself"),
        "float mask": (lambda w, t: (w.abs() > t).float(), "torch.bool"),
        "pruned in place": (lambda w, t: w.mul_(w.abs() > t) != 0, "changed the weight"),
        "own threshold": (lambda w, t: w.abs() > 0.2, "threshold is given"),
        "flat": (lambda w, t: w.flatten()[None].abs() > t, "the weight's shape"),
        "zeros kept": (lambda w, t: (w.abs() > t) | (w == 0), "should be"),
    },
    "csr_bytes": {
        "no indices": (lambda w: 4 * int(w.count_nonzero()), "indices"),
        "no row pointers": (lambda w: 8 * int(w.count_nonzero()), "each row begin"),
        "one pointer short": (lambda w: 8 * int(w.count_nonzero()) + 4 * len(w), "last row"),
        "dense": (lambda w: 4 * w.numel(), "dense size"),
        "numbers, not bytes": (lambda w: exercises.csr_bytes.solve(w) // 4, "4 bytes"),
        "columns": (lambda w: 8 * int(w.count_nonzero()) + 4 * (w.shape[1] + 1), "per row"),
        "coordinates": (lambda w: 12 * int(w.count_nonzero()), "Row pointers"),
        "positive ones": (lambda w: 8 * int((w > 0).sum()) + 4 * (len(w) + 1), "Negative values"),
        "a constant": (lambda w: 92, "you returned 92"),
    },
    "global_threshold": {
        "off by one": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).sort().values[
                int(p * sum(t.numel() for t in s.values()))
            ],
            "number 3",
        ),
        "one for each layer": (
            lambda s, p: {n: t.flatten().kthvalue(round(p * t.numel())).values for n, t in s.items()},
            "one number",
        ),
        "median": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).quantile(p),
            "between two scores",
        ),
        "mean of the layers": (
            lambda s, p: sum(t.flatten().kthvalue(round(p * t.numel())).values for t in s.values())
            / len(s),
            "one row first",
        ),
        "sparsity ignored": (
            lambda s, p: exercises.global_threshold.solve(s, 0.5),
            "`sparsity` was 0.25",
        ),
        "a constant": (lambda s, p: 0.7, "you returned 0.7"),
        "absolute": (
            lambda s, p: exercises.global_threshold.solve({n: t.abs() for n, t in s.items()}, p),
            "absolute values",
        ),
        "cut off": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).kthvalue(
                int(p * sum(t.numel() for t in s.values()))
            ).values,
            "use `round`",
        ),
        "from the largest": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).sort(descending=True).values[
                round(p * sum(t.numel() for t in s.values())) - 1
            ],
            "from the largest",
        ),
        "different scores": (
            lambda s, p: (row := torch.cat([t.flatten() for t in s.values()]).unique())[
                min(len(row), round(p * sum(t.numel() for t in s.values()))) - 1
            ],
            "counting from the smallest",
        ),
    },
    "prune_in_units": {
        "a copy": (lambda m, u, s: exercises.prune_in_units.solve(copy.deepcopy(m), u, s) or 0, "not a copy"),
        "no units": (lambda m, u, s: pl.apply(m, pl.select(pl.magnitude(m), s)) or 0, "as they are"),
        "divided": (lambda m, u, s: exercises.prune_in_units.solve(m, {k: 1 / v for k, v in u.items()}, s) or 0, "divided"),
        "largest": (lambda m, u, s: pl.apply(m, pl.select({k: -v * u.get(k, 1) for k, v in pl.magnitude(m).items()}, s)) or 0, "wrong way"),
        "too few": (lambda m, u, s: exercises.prune_in_units.solve(m, u, s / 2) or 0, "should be gone"),
        "each layer alike": (
            lambda m, u, s: pl.apply(m, pl.select({k: v * u.get(k, 1) for k, v in pl.magnitude(m).items()}, s, budget=pl.uniform)) or 0, "one ranking",
        ),
        "scaled": (lambda m, u, s: exercises.prune_in_units.solve(m, u, s) or m[3].weight.data.mul_(10).sum(), "keep their values"),
        "bias too": (lambda m, u, s: exercises.prune_in_units.solve(m, u, s) or m[3].bias.data.zero_().sum(), "3.bias changed"),
    },
    "right_boxes": {
        "all above": (lambda o, t: (o >= t).any(1), "found once"),
        "best box first": (lambda o, t: (o == o.amax(0)).any(1) & (o.amax(1) >= t), "For"),
        "first that is free": (first_free, "fits it best"),
        "only its best": (lambda o, t: [bool(v >= t) and int(a) not in o[:i].argmax(1).tolist() for i, (v, a) in enumerate(zip(*o.max(1), strict=True))], "For"),
        "more than the limit": (lambda o, t: exercises.right_boxes.solve(o, t + 1e-6), "limit is enough"),
        "a half": (lambda o, t: exercises.right_boxes.solve(o, 0.5), "limit that is given"),
        "positions": (lambda o, t: exercises.right_boxes.solve(o, t).nonzero(), "truth for each"),
    },
    "threshold_for": {
        "first that fails": (lambda s, r, p: first_failure(s, r, p), "fall and rise"),
        "more than": (lambda s, r, p: exercises.threshold_for.solve(s, r, p + 1e-6), "equal to"),
        "highest": (lambda s, r, p: max((float(x) for x in s if r[s >= x].double().mean() >= p - 1e-9), default=float("inf")), "For scores"),
        "above it": (lambda s, r, p: min((float(x) for x in s if (s > x).any() and r[s > x].double().mean() >= p), default=float("inf")), "that very score"),
        "one by one": (one_by_one, "in whatever order"),
        "never none": (lambda s, r, p: exercises.threshold_for.solve(s, r, p) if (s[r] >= 0.7).any() or p > 0.7 else 0.0, "is inf, not"),
        "a list": (lambda s, r, p: s.tolist(), "one number"),
    },
    "prune_while": {
        "in place": (lambda m, levels, f, most: pl.apply(m, pl.select(pl.magnitude(m), max(levels))) or m, "prune a copy"),
        "first that fails": (lambda *a: while_pruned(*a, stop=True), "try them all"),
        "a share": (lambda m, levels, f, most: while_pruned(m, levels, f, most, fine=lambda now, whole, _: now >= whole * (1 - most) - 1e-9), "not a share"),
        "less than most": (lambda m, levels, f, most: while_pruned(m, levels, f, most - 1e-6), "is allowed"),
        "in their order": (lambda *a: while_pruned(*a, order=list), "any order"),
        "against the last": (lambda m, levels, f, most: while_pruned(m, levels, f, most, fine=lambda now, _, before: now >= before - most - 1e-9), "should be zero"),
        "the highest": (lambda m, levels, f, most: while_pruned(m, levels, f, 1e9), "should be zero"),
        "itself": (lambda m, levels, f, most: m, "Return a copy"),
        "each layer alike": (lambda *a: while_pruned(*a, budget=pl.uniform), "smallest weights of all layers"),
        "largest": (lambda *a: while_pruned(*a, score=lambda m: {k: -v for k, v in pl.magnitude(m).items()}), "smallest weights"),
        "a number": (lambda m, levels, f, most: max(levels), "Return the pruned network"),
        "the same weights": (lambda m, *rest: kept_apart(while_pruned(m, *rest), copy.copy(m)), "shares no weights"),
        "what to keep": (lambda m, levels, *rest: while_pruned(m, [0.9 * level for level in levels], *rest), "of its 80 weights"),
    },
    "switches_and_fragments": {
        "the other way round": (lambda f: exercises.switches_and_fragments.solve(f)[::-1], "switches first"),
        "names alone": (lambda f: (max(0, len({*f} - {-1}) - 1), gaps_in(f, ends=False)), "comes back"),
        "gaps at the end": (lambda f: (changes([x for x in f if x >= 0]), gaps_in(f)), "no gap between boxes"),
        "a gap is a switch": (lambda f: (changes(f), gaps_in(f, ends=False)), "no switch"),
        "every frame of a gap": (lambda f: (changes([x for x in f if x >= 0]), "".join(" x"[x >= 0] for x in f).strip().count(" ")), "counts once"),
        "0 is nothing": (lambda f: (changes([x for x in f if x > 0]), gaps_in(f, ends=False)), "like any other"),
        "one number": (lambda f: exercises.switches_and_fragments.solve(f)[0], "two numbers"),
        "their sum": (lambda f: (sum(exercises.switches_and_fragments.solve(f)), 0), "counts once"),
        "more by a half": (lambda f: [v + 0.5 for v in exercises.switches_and_fragments.solve(f)], "counts once"),
        "in words": (lambda f: str(exercises.switches_and_fragments.solve(f)), "two numbers"),
        "own error": (lambda f: f >= 0, "TypeError"),
    },
    "needed_factor": {
        "Amdahl forwards": (lambda d, r, w: (d + r) / (d / w + r), "For detector"),
        "wanted itself": (lambda d, r, w: w, "must become 1"),
        "never infinite": (lambda d, r, w: exercises.needed_factor.solve(d, r, w) if (d + r) / w > r else 0.0, "out of reach"),
        "negative": (lambda d, r, w: d / ((d + r) / w - r) if (d + r) / w != r else float("inf"), "can't be had"),
        "at least one": (lambda d, r, w: max(1.0, exercises.needed_factor.solve(d, r, w)), "Slower is allowed"),
        "both": (lambda d, r, w: (d, r), "one number"),
        "unguarded": (lambda d, r, w: max(d / ((d + r) / w - r), 0) or float("inf"), "just out of reach"),
        "in words": (lambda d, r, w: str(exercises.needed_factor.solve(d, r, w)), "one number"),
    },
    "wanda_mask": {
        "magnitude": (lambda w, x, s: in_each_row(w.abs(), s), "That is magnitude"),
        "signed": (lambda w, x, s: in_each_row(w * x.norm(dim=0), s), "without its sign"),
        "whole layer": (lambda w, x, s: pl.select({"": w.abs() * x.norm(dim=0)}, s)[""], "within an output's row"),
        "sum": (lambda w, x, s: in_each_row(w.abs() * x.sum(dim=0).abs(), s), "inputs of both signs"),
        "largest": (lambda w, x, s: in_each_row(-w.abs() * x.norm(dim=0), s), "wrong way round"),
        "inverted": (lambda w, x, s: ~exercises.wanda_mask.solve(w, x, s), "wrong way round"),
        "no root": (lambda w, x, s: in_each_row(w.abs() * x.square().sum(dim=0), s), "root is missing"),
        "sum of sizes": (lambda w, x, s: in_each_row(w.abs() * x.abs().sum(dim=0), s), "sum of the inputs' sizes"),
        "rounded down": (lambda w, x, s: in_each_row(w.abs() * x.norm(dim=0), int(s * w.shape[1] + 1e-9) / w.shape[1]), "From each row"),
        "what stays": (lambda w, x, s: in_each_row(w.abs() * x.norm(dim=0), 1 - s), "From each row"),
        "scores": (lambda w, x, s: w.abs() * x.norm(dim=0), "True or False"),
        "a row": (lambda w, x, s: exercises.wanda_mask.solve(w, x, s)[0], "weight's shape"),
    },
    "perplexity_of": {
        "mean of perplexities": (lambda d: np.mean([math.exp(-np.mean(x)) for x in d]), "mean of the documents' perplexities"),
        "documents alike": (lambda d: math.exp(-np.mean([np.mean(x) for x in d])), "weigh by tokens"),
        "sign": (lambda d: 1 / exercises.perplexity_of.solve(d), "The sign"),
        "loss": (lambda d: math.log(exercises.perplexity_of.solve(d)), "mean loss"),
        "base two": (lambda d: 2 ** math.log(exercises.perplexity_of.solve(d)), "power of 2"),
        "sum": (lambda d: math.exp(-sum(map(sum, d))), "Divide by the number"),
        "each": (lambda d: [math.exp(-np.mean(x)) for x in d] * 2, "one number"),
        "a constant": (lambda d: 2.0, "it is"),
    },
    "prune_2_of_4": {
        "a copy": (lambda m: exercises.prune_2_of_4.solve(copy.deepcopy(m)) or 0, "not a copy"),
        "unstructured": (lambda m: pl.apply(m, pl.select(pl.magnitude(m, ["1.weight", "5.weight"]), 0.5, budget=pl.uniform)) or 0, "two of every four"),
        "embedding too": (lambda m: pl.apply(m, pl.select(pl.magnitude(m, ["0.weight", "1.weight", "5.weight"]), 0.5, grain=pl.n_of_m(2, 4))) or 0, "looked up"),
        "largest": (lambda m: pl.apply(m, pl.select({n: -s for n, s in pl.magnitude(m, ["1.weight", "5.weight"]).items()}, 0.5, grain=pl.n_of_m(2, 4))) or 0, "two smallest"),
        "signed": (lambda m: pl.apply(m, pl.select({n: w.detach() for n, w in pl.weights_of(m, ["1.weight", "5.weight"]).items()}, 0.5, grain=pl.n_of_m(2, 4))) or 0, "without the sign"),
        "the outermost alone": (lambda m: pl.apply(m, pl.select(pl.magnitude(m, [f"{n}.weight" for n, c in m.named_children() if isinstance(c, torch.nn.Linear) and c.in_features % 4 == 0]), 0.5, grain=pl.n_of_m(2, 4))) or 0, "wherever it stands"),
        "the middle": (lambda m: exercises.prune_2_of_4.solve(m) or m[3].weight.data.zero_().sum(), "does not divide"),
        "biases": (lambda m: exercises.prune_2_of_4.solve(m) or m[5].bias.data.zero_().sum(), "biases"),
        "scaled": (lambda m: exercises.prune_2_of_4.solve(m) or m[5].weight.data.mul_(2).sum(), "keep their values"),
    },
    "block_to_drop": {
        "unweighted": (lambda d, w, t, x: exercises.block_to_drop.solve(d, w, [1] * len(t), x), "by their tokens"),
        "most": (lambda d, w, t, x: int(np.argmax([np.average(v, weights=t) for v in w])), "costs most"),
        "no limit": (lambda d, w, t, x: exercises.block_to_drop.solve(d, w, t, 9), "return -1"),
        "never": (lambda d, w, t, x: -1, "limit allows"),
        "the first within": (lambda d, w, t, x: next((i for i, v in enumerate(w) if np.average(v, weights=t) - np.average(d, weights=t) <= x), -1), "costs less"),
        "below the limit": (lambda d, w, t, x: (lambda b: b if b >= 0 and np.average(w[b], weights=t) - np.average(d, weights=t) < x else -1)(exercises.block_to_drop.solve(d, w, t, x)), "limit allows"),
        "a share of the loss": (lambda d, w, t, x: exercises.block_to_drop.solve(d, w, t, x * np.average(d, weights=t)), "return -1"),
        "infinite": (lambda d, w, t, x: float("inf"), "number of a block"),
        "last of equal": (lambda d, w, t, x: len(w) - 1 - exercises.block_to_drop.solve(d, w[::-1], t, x) if exercises.block_to_drop.solve(d, w, t, x) >= 0 else -1, "of equal ones the first"),
        "a cost": (lambda d, w, t, x: 0.5, "number of a block"),
    },
    "prune_skip": {
        "a copy": (lambda m, n, f, s: exercises.prune_skip.solve(copy.deepcopy(m), n, f, s) or 0, "not a copy"),
        "from below": (lambda m, n, f, s: skip_masked(m, lambda w: (w[:, :f].abs(), slice(None, f)), s), "from below"),
        "all columns": (lambda m, n, f, s: pl.apply(m, pl.select(pl.magnitude(m, [n]), s)) or 0, "from below"),
        "all layers": (lambda m, n, f, s: pl.apply(m, pl.select(pl.magnitude(m), s)) or 0, "0.weight changed"),
        "outputs": (lambda m, n, f, s: m[2].weight.data[-1:].zero_() is None or 0, "dimension 1"),
        "signed": (lambda m, n, f, s: skip_masked(m, lambda w: (w[:, f:], slice(f, None)), s), "without the sign"),
        "largest": (lambda m, n, f, s: skip_masked(m, lambda w: (-w[:, f:].abs(), slice(f, None)), s), "wrong way"),
        "each row": (lambda m, n, f, s: skip_masked(m, lambda w: (w[:, f:].abs(), slice(f, None)), s, pl.in_rows), "one ranking"),
        "of all weights": (lambda m, n, f, s: exercises.prune_skip.solve(m, n, f, s / 2) or 0, "should be gone"),
        "scaled": (lambda m, n, f, s: exercises.prune_skip.solve(m, n, f, s) or m[2].weight.data.mul_(2).sum(), "keep their values"),
        "last layer": (lambda m, n, f, s: exercises.prune_skip.solve(m, n, f, s) or m[3].weight.data.zero_().sum(), "3.weight changed"),
    },
    "outline_iou": {
        "regions": (lambda a, b, d: iou_of(a, b), "outlines, not of the regions"),
        "four neighbours": (lambda a, b, d: iou_of(crossed(a, d), crossed(b, d)), "across the corner"),
        "one pixel": (lambda a, b, d: exercises.outline_iou.solve(a, b, 1), "distance that is given"),
        "border inside": (lambda a, b, d: iou_of(*(pl.regions.outline(torch.nn.functional.pad(r[None].float(), [d] * 4, mode="replicate").bool(), d)[:, d:-d, d:-d] for r in (a, b))), "beyond the picture"),
        "empty is nothing": (lambda a, b, d: exercises.outline_iou.solve(a, b, d) if (a | b).any() else 0.0, "Neither has an outline"),
        "one empty is right": (lambda a, b, d: exercises.outline_iou.solve(a, b, d) if a.any() and b.any() else 1.0, "nothing is shared"),
        "a constant": (lambda a, b, d: 1.0, "Take the outline"),
        "both": (lambda a, b, d: (a, b), "one number"),
    },
    "ngram_precision": {
        "not clipped": (lambda w, r, n: share_of(w, r, n, lambda a, b: sum(c for p, c in a.items() if p in b)), "clip"),
        "sets": (lambda w, r, n: share_of(w, r, n, lambda a, b: len(set(a) & set(b)), lambda a: len(set(a))), "Five of six"),
        "mean of sentences": (lambda w, r, n: float(np.mean([*map(lambda a, b: exercises.ngram_precision.solve([a], [b], n), w, r)])), "Add up over the corpus"),
        "words": (lambda w, r, n: exercises.ngram_precision.solve(w, r, 1), "pairs of neighbours"),
        "recall": (lambda w, r, n: exercises.ngram_precision.solve(r, w, n), "clip"),
        "up to three": (lambda w, r, n: exercises.ngram_precision.solve(w, r, min(n, 3)), "n may be 4"),
        "short ones take away": (lambda w, r, n: share_of(w, r, n, lambda a, b: (a & b).total(), None, [sum(len(t) - n + 1 for t in w)]) if any(len(t) >= n for t in w) else 0.0, "takes nothing away"),
        "unordered": (lambda w, r, n: exercises.ngram_precision.solve(*[[sorted(t) for t in x] for x in (w, r)], n) if n == 2 and len(w[0]) == 2 else exercises.ngram_precision.solve(w, r, n), "order of the words"),
        "a dict": (lambda w, r, n: {n: 1.0}, "one number"),
        "nothing written": (lambda w, r, n: share_of(w, r, n, lambda a, b: (a & b).total()), "ZeroDivisionError"),
        "per cent": (lambda w, r, n: 100 * exercises.ngram_precision.solve(w, r, n), "Five of six"),
        "all pieces": (lambda w, r, n: w, "one number"),
    },
    "prune_cross": {
        "a copy": (lambda m, s: exercises.prune_cross.solve(copy.deepcopy(m), s) or 0, "not a copy"),
        "all layers": (lambda m, s: pl.apply(m, pl.select(pl.magnitude(m), s)) or 0, "may go"),
        "self-attention": (lambda m, s: pl.apply(m, pl.select(pl.magnitude(m, [n for n in pl.prunable(m) if "attention" in n]), s)) or 0, "may go"),
        "each layer": (lambda m, s: pl.apply(m, pl.select(pl.magnitude(m, [n for n in pl.prunable(m) if ".cross." in n]), s, budget=pl.uniform)) or 0, "all cross-attentions together"),
        "signed": (lambda m, s: pl.apply(m, pl.select({n: w.detach() for n, w in pl.weights_of(m).items() if ".cross." in n}, s)) or 0, "without the sign"),
        "largest": (lambda m, s: pl.apply(m, pl.select({n: -w.detach().abs() for n, w in pl.weights_of(m).items() if ".cross." in n}, s)) or 0, "wrong way"),
        "at random": (lambda m, s: pl.apply(m, pl.select(pl.random(m, [n for n in pl.prunable(m) if ".cross." in n]), s)) or 0, "not the smallest"),
        "too few": (lambda m, s: exercises.prune_cross.solve(m, s / 2) or 0, "should be gone"),
        "what stays": (lambda m, s: exercises.prune_cross.solve(m, 1 - s + 0.01) or 0, "the share that goes"),
        "not made for good": (lambda m, s: prune.l1_unstructured(m.decoder[0].cross.query, "weight", s) and 0, "prune.remove"),
        "scaled": (lambda m, s: exercises.prune_cross.solve(m, s) or m.decoder[0].cross.key.weight.data.mul_(2).sum(), "keep their values"),
        "biases": (lambda m, s: exercises.prune_cross.solve(m, s) or m.decoder[1].cross.key.bias.data.zero_().sum(), "no biases"),
    },
    "dies_first": {
        "points": (lambda b, a: max(b, key=lambda k: (b[k][0] - a[k][0]) / b[k][1]), "shares of what was right"),
        "counts": (lambda b, a: max(b, key=lambda k: b[k][0] - a[k][0]), "shares of what was right"),
        "all of them": (lambda b, a: max(b, key=lambda k: 1 - a[k][0] / max(1, b[k][0])), "fewer than 30"),
        "gains": (lambda b, a: next((k for k in b if exercises.dies_first.solve(b, a) in (k, "none")), "none"), "Nothing was lost"),
        "last of equals": (lambda b, a: exercises.dies_first.solve(dict(reversed(b.items())), a), "the one given first"),
        "a share": (lambda b, a: 0.5, "the name of a phenomenon"),
        "more than 30": (lambda b, a: exercises.dies_first.solve({k: (r, w - 1) for k, (r, w) in b.items()}, a), "30 words: enough"),
        "29 will do": (lambda b, a: exercises.dies_first.solve({k: (r, w + 1) for k, (r, w) in b.items()}, a), "29 words, fewer"),
        "30 right": (lambda b, a: exercises.dies_first.solve({k: (r, r) for k, (r, w) in b.items()}, a), "30 words"),
        "a constant": (lambda b, a: "b", "For"),
    },
    "columns_left": {
        "own numbers": (lambda z, r: [c for c in range(sum(z)) if c not in {x for v in r.values() for x in v}], "8 + 3"),
        "order turned": (lambda z, r: exercises.columns_left.solve(z[::-1], {len(z) - 1 - k: v for k, v in r.items()}), "For sizes"),
        "equal sizes": (lambda z, r: [c for c in range(sum(z)) if c not in {z[0] * k + x for k, v in r.items() for x in v}], "begins where"),
        "what goes": (lambda z, r: sorted(set(range(sum(z))) - set(exercises.columns_left.solve(z, r))), "For sizes"),
        "unordered": (lambda z, r: exercises.columns_left.solve(z, r)[::-1], "in order"),
        "how many": (lambda z, r: len(exercises.columns_left.solve(z, r)), "list of whole numbers"),
        "truths": (lambda z, r: [c in exercises.columns_left.solve(z, r) for c in range(sum(z))], "whole numbers"),
    },
    "prune_exactly": {
        "threshold": (lambda s, k: s > s.flatten().sort().values[max(k - 1, 0)], "equal scores"),
        "inverted": (lambda s, k: ~exercises.prune_exactly.solve(s, k), "wrong way round"),
        "highest": (lambda s, k: exercises.prune_exactly.solve(-s, k), "the lowest"),
        "last of equals": (
            lambda s, k: exercises.prune_exactly.solve(s.flatten().flip(0), k).flip(0).view(s.shape),
            "the *first* go",
        ),
        "absolute": (lambda s, k: exercises.prune_exactly.solve(s.abs(), k), "no absolute value"),
        "float": (lambda s, k: exercises.prune_exactly.solve(s, k).float(), "a bool tensor"),
    },
    "masked_step": {
        "gradient only": (gradient_only, "After the step"),
        "no step": (lambda w, m, o: None, "optimizer.step"),
        "gradient of the kept masked": (kept_frozen, "gradients alone"),
        "twice": (
            lambda w, m, o: [exercises.masked_step.solve(w, m, o) for _ in range(2)] and None,
            "once",
        ),
        "the mask inverted": (
            lambda w, m, o: exercises.masked_step.solve(w, ~m, o),
            "alive after the step",
        ),
    },
    "first_order_score": {
        "sign kept": (lambda w, g: g * w, "sign"),
        "slope only": (lambda w, g: g.abs(), "slope"),
        "magnitude": (lambda w, g: w.abs(), "magnitude"),
        "squared": (lambda w, g: (g * w) ** 2, "unit of the loss"),
        "in place": (lambda w, g: w.mul_(g).abs(), "changed what it was given"),
        "a constant": (lambda w, g: torch.ones_like(w), "Which step"),
    },
    "two_readings": {
        "swapped": (lambda g, w: exercises.two_readings.solve(g, w)[::-1], "swapped"),
        "no weight": (lambda g, w: (g.mean(0).abs(), g.abs().mean(0)), "left out the weight"),
        "no outer abs": (lambda g, w: ((g * w).mean(0), (g * w).abs().mean(0)), "has a sign"),
        "sums": (lambda g, w: ((g * w).sum(0).abs(), (g * w).abs().sum(0)), "sums"),
        "same twice": (lambda g, w: ((g * w).mean(0).abs(),) * 2, "cancel"),
        "wrong dimension": (lambda g, w: ((g * w).mean(1).abs(), (g * w).abs().mean(1)), "shape"),
        "a constant": (lambda g, w: (torch.zeros_like(w), torch.ones_like(w)), "over the samples"),
    },
    "gradients_that_disagree": {
        "samples agree": (lambda: torch.tensor([[3.0, 1.0], [3.0, 1.0]]), "Let its samples cancel"),
        "other way round": (lambda: torch.tensor([[5.0, 1.0], [-5.0, 1.0]]), "first weight above"),
    },
    "normalised_entropy": {
        "the log-loss": (lambda p, y, q: exercises.normalised_entropy.solve(p, y, q) * nats(q, y), "log-loss itself"),
        "turned round": (lambda p, y, q: 1 / exercises.normalised_entropy.solve(p, y, q), "Turned round"),
        "the gain": (lambda p, y, q: 1 - exercises.normalised_entropy.solve(p, y, q), "what was gained"),
        "these clicks' own rate": (
            lambda p, y, q: exercises.normalised_entropy.solve(p, y, q) * nats(q, y) / nats(float(np.mean(np.asarray(y))), y),
            "known before",
        ),
        "the prior's entropy": (
            lambda p, y, q: exercises.normalised_entropy.solve(p, y, q) * nats(q, y)
            / -(q * math.log(q) + (1 - q) * math.log(1 - q)),
            "on these clicks",
        ),
        "no sign": (lambda p, y, q: -exercises.normalised_entropy.solve(p, y, q), "The sign"),
        "a constant": (lambda p, y, q: 1.0, "NE is"),
        "no number": (lambda p, y, q: [1.0, 2.0], "one number"),
    },
    "prune_rarely_read": {
        "in place": (lambda t, c, k: t.mul_(0), "work on a copy"),
        "the rarely read stay": (lambda t, c, k: rows_kept(t, -torch.as_tensor(c), k), "the rarely read"),
        "the longest": (lambda t, c, k: rows_kept(t, t.norm(dim=1), k), "longest rows"),
        "later of equal ones": (
            lambda t, c, k: rows_kept(t, torch.as_tensor(c) + 0.01 * torch.arange(len(c)), k),
            "the earlier stays",
        ),
        "all of equal ones": (
            lambda t, c, k: t * (torch.as_tensor(c) >= sorted(c)[-k])[:, None] if k else t * 0,
            "Exactly",
        ),
        "taken out": (
            lambda t, c, k: t[torch.as_tensor(c).argsort(descending=True, stable=True)[:k]],
            "keeps its shape",
        ),
        "ones": (lambda t, c, k: (exercises.prune_rarely_read.solve(t, c, k) != 0).float(), "values and all"),
    },
    "table_bytes": {
        "bits": (lambda r, c, k, b: k * c * b + (4 * k if b < 32 else 0) + r, "Those are bits"),
        "no bitmap": (lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, b) - -(-r // 8), "bitmap is missing"),
        "a bitmap of kept rows": (
            lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, b) - -(-r // 8) - -(-k // 8) * -1,
            "for *every* row",
        ),
        "a byte for each row": (lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, b) - -(-r // 8) + r, "not a byte"),
        "no scale": (lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, 32) - 4 * k * c + -(-k * c * b // 8), "has a scale"),
        "always a scale": (
            lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, b) + (4 * k if b == 32 else 0),
            "need no scale",
        ),
        "a scale for all rows": (
            lambda r, c, k, b: exercises.table_bytes.solve(r, c, k, b) + (4 * (r - k) if b < 32 else 0),
            "gone need no scale",
        ),
        "parts of bytes": (lambda r, c, k, b: k * c * b / 8 + r / 8 + (4 * k if b < 32 else 0), "Bytes are whole"),
        "rounded down": (lambda r, c, k, b: k * c * b // 8 + r // 8 + (4 * k if b < 32 else 0), "Round up"),
        "a constant": (lambda r, c, k, b: 64125, "not 64125"),
    },
    "smallest_release": {
        "all alone": (
            lambda t, a, b: exercises.smallest_release.solve(
                {n: r | {"NE": {"all": r["NE"]["all"]}} for n, r in t.items()}, a, b
            ),
            "not at `all` alone",
        ),
        "too high alone": (
            lambda t, a, b: exercises.smallest_release.solve(
                {n: r | {"calibration": {k: max(1, v) for k, v in r["calibration"].items()}} for n, r in t.items()}, a, b
            ),
            "Too low",
        ),
        "too low alone": (
            lambda t, a, b: exercises.smallest_release.solve(
                {n: r | {"calibration": {k: min(1, v) for k, v in r["calibration"].items()}} for n, r in t.items()}, a, b
            ),
            "its calibration is 1.14",
        ),
        "the first that passes": (
            lambda t, a, b: next((n for n, r in t.items() if exercises.smallest_release.solve({n: r}, a, b) == n), "no go"),
            "is smaller than",
        ),
        "the last that passes": (
            lambda t, a, b: ["no go", *(n for n, r in t.items() if exercises.smallest_release.solve({n: r}, a, b) == n)][-1],
            "whatever order",
        ),
        "gains are losses": (
            lambda t, a, b: exercises.smallest_release.solve(
                {n: r | {"NE": {k: abs(v) for k, v in r["NE"].items()}} for n, r in t.items()}, a, b
            ),
            "passes as well",
        ),
        "strict": (lambda t, a, b: exercises.smallest_release.solve(t, a - 1e-9, b - 1e-9), "exactly at its limit"),
        "never None": (lambda t, a, b: exercises.smallest_release.solve(t, a, b) .replace("no go", "dense"), "nothing passes"),
        "a number": (lambda t, a, b: 0, "name of a candidate"),
    },
    "ndcg_of_one": {
        "recall": (lambda s, i, k: float((s > s[i]).sum() < k), "full marks"),
        "reciprocal of the place": (
            lambda s, i, k: float((s > s[i]).sum() < k) / (1 + int((s > s[i]).sum())),
            "reciprocal",
        ),
        "places from 0": (
            lambda s, i, k: exercises.ndcg_of_one.solve(torch.cat([s, s.max()[None] + 1]), i, k + 1),
            "places begin at 1",
        ),
        "no end": (lambda s, i, k: exercises.ndcg_of_one.solve(s, i, len(s)), "that counts 0"),
        "one place short": (lambda s, i, k: exercises.ndcg_of_one.solve(s, i, k - 1), "still among"),
        "natural logarithm": (
            lambda s, i, k: 0.6931 * exercises.ndcg_of_one.solve(s, i, k) or 0.0,
            "counts 1",
        ),
        "the 1 outside": (
            lambda s, i, k: float((s >= s[i]).sum() <= k)
            / (1 + float((s >= s[i]).sum().float().log2())),
            "belongs inside",
        ),
        "absolute scores": (lambda s, i, k: exercises.ndcg_of_one.solve(s.abs(), i, k), "below zero"),
        "ties won": (
            lambda s, i, k: exercises.ndcg_of_one.solve(
                torch.where(torch.arange(len(s)) == i, s + 1e-4, s), i, k
            ),
            "equal score",
        ),
        "ties by position": (
            lambda s, i, k: exercises.ndcg_of_one.solve(
                -s.argsort(descending=True, stable=True).argsort(), i, k
            ),
            "equal score",
        ),
        "a constant": (lambda s, i, k: 1.0, "full marks"),
    },
    "row_pruned_bytes": {
        "dense": (lambda t: 4 * t.numel(), "dense size"),
        "no numbers": (lambda t: 32 * int(t.any(dim=1).sum()), "number of each"),
        "a number for every row": (lambda t: 32 * int(t.any(dim=1).sum()) + 4 * len(t), "gone"),
        "an index for every value": (lambda t: 8 * int(t.count_nonzero()), "single values"),
        "zeros left out": (
            lambda t: 4 * int(t.count_nonzero()) + 4 * int(t.any(dim=1).sum()),
            "stored whole",
        ),
        "numbers, not bytes": (lambda t: exercises.row_pruned_bytes.solve(t) // 4, "4 bytes"),
        "a constant": (lambda t: 1440, "the answer is 48 bytes"),
        "rows of 8": (lambda t: 36 * int(t.any(dim=1).sum()), "the answer is"),
        "sums of rows": (lambda t: (4 * t.shape[1] + 4) * int((t.sum(dim=1) != 0).sum()), "add up"),
        "positive rows": (lambda t: (4 * t.shape[1] + 4) * int((t > 0).any(dim=1).sum()), "below zero"),
        "first values": (lambda t: (4 * t.shape[1] + 4) * int((t[:, 0] != 0).sum()), "begin with zero"),
        "first two values": (
            lambda t: (4 * t.shape[1] + 4) * int(t[:, :2].any(dim=1).sum()),
            "begin with zero",
        ),
        "first half": (
            lambda t: (4 * t.shape[1] + 4) * int(t[:, : t.shape[1] // 2].any(dim=1).sum()),
            "begin with zero",
        ),
    },
    "prune_dimensions": {
        "each table its own": (
            lambda u, i, k: (
                exercises.prune_dimensions.solve(u, u, k)[0],
                exercises.prune_dimensions.solve(i, i, k)[0],
            ),
            "different dimensions",
        ),
        "by users alone": (
            lambda u, i, k: tuple(t * (exercises.prune_dimensions.solve(u, u, k)[0] != 0).any(0) for t in (u, i)),
            "both tables are",
        ),
        "means, not sums": (
            lambda u, i, k: tuple(
                t * (exercises.prune_dimensions.solve(u / len(u) ** 0.5, i / len(i) ** 0.5, k)[0] != 0).any(0)
                for t in (u, i)
            ),
            "both tables are",
        ),
        "sums with signs": (lambda u, i, k: kept_dimensions(u, i, u.sum(0) + i.sum(0), k), "both tables are"),
        "absolute values": (
            lambda u, i, k: kept_dimensions(u, i, u.abs().sum(0) + i.abs().sum(0), k),
            "both tables are",
        ),
        "the smallest": (
            lambda u, i, k: kept_dimensions(u, i, -(u.square().sum(0) + i.square().sum(0)), k),
            "the largest",
        ),
        "the later of equal ones": (
            lambda u, i, k: tuple(
                t.flip(1) for t in exercises.prune_dimensions.solve(u.flip(1), i.flip(1), k)
            ),
            "the earlier stays",
        ),
        "as many gone": (
            lambda u, i, k: exercises.prune_dimensions.solve(u, i, u.shape[1] - k),
            "dimensions stay",
        ),
        "in place": (
            lambda u, i, k: tuple(
                t.copy_(p) for t, p in zip((u, i), exercises.prune_dimensions.solve(u, i, k), strict=True)
            ),
            "that you were given",
        ),
        "taken out": (
            lambda u, i, k: tuple(t[:, t.any(0)] for t in exercises.prune_dimensions.solve(u, i, k)),
            "keep their shape",
        ),
        "masks": (
            lambda u, i, k: tuple(t != 0 for t in exercises.prune_dimensions.solve(u, i, k)),
            "values and all",
        ),
        "users only": (lambda u, i, k: exercises.prune_dimensions.solve(u, i, k)[0], "two tables"),
    },
    "highest_release": {
        "slices not looked at": (
            lambda t, o, w: max((s for s in t if t[s]["all"] <= o), default=0.0),
            "the worst slice",
        ),
        "all not looked at": (
            lambda t, o, w: exercises.highest_release.solve(t, 1, w),
            "`all` *and*",
        ),
        "mean of the slices": (
            lambda t, o, w: max(
                (s for s in t if t[s]["all"] <= o and sum(t[s].values()) - t[s]["all"] <= (len(t[s]) - 1) * w),
                default=0.0,
            ),
            "worst",
        ),
        "tail alone": (
            lambda t, o, w: max(
                (s for s in t if t[s]["all"] <= o and t[s].get("tail", 0) <= w), default=0.0
            ),
            "Any slice may be the worst",
        ),
        "lowest": (
            lambda t, o, w: min(
                (s for s in t if t[s]["all"] <= o and max(t[s].values()) <= w), default=0.0
            ),
            "prunes more",
        ),
        "strictly below": (
            lambda t, o, w: exercises.highest_release.solve(t, o, w - 1e-9),
            "exactly at its limit",
        ),
        "stops at the first failure": (
            lambda t, o, w: max(
                itertools.takewhile(
                    lambda s: t[s]["all"] <= o and max(t[s].values()) <= w, sorted(t)
                ),
                default=0.0,
            ),
            "a lower sparsity may fail",
        ),
        "the last that passes": (
            lambda t, o, w: [0.0, *(s for s in t if exercises.highest_release.solve({s: t[s]}, o, w))][-1],
            "in whatever order",
        ),
        "own names": (
            lambda t, o, w: max(
                (s for s in t if t[s]["all"] <= o and max(t[s].get(n, -1) for n in ("head", "tail")) <= w),
                default=0.0,
            ),
            "whatever the slices' names",
        ),
        "a word": (lambda t, o, w: "0.75", "one number"),
    },
    "prune_but": {
        "a copy": (lambda m, n, s, i: exercises.prune_but.solve(copy.deepcopy(m), n, s, i) or 0, "not a copy"),
        "nothing spared": (
            lambda m, n, s, i: pl.apply(m, pl.select(pl.magnitude(m), s)) or pl.recalibrate(m, [i]) or 0,
            "is spared",
        ),
        "of the others": (lambda m, n, s, i: pruned_but(m, n, i, s), "made up for"),
        "too few": (lambda m, n, s, i: exercises.prune_but.solve(m, n, s / 2, i) or 0, "should be gone"),
        "signed": (lambda m, n, s, i: pruned_but(m, n, i, share(m, n, s), lambda w: w), "whatever the sign"),
        "largest": (lambda m, n, s, i: pruned_but(m, n, i, share(m, n, s), lambda w: -w.abs()), "wrong way round"),
        "each layer alike": (
            lambda m, n, s, i: pruned_but(m, n, i, share(m, n, s), budget=pl.uniform), "one ranking",
        ),
        "all at random": (
            lambda m, n, s, i: pruned_but(m, n, i, share(m, n, s), lambda w: torch.rand_like(w)), "not the smallest",
        ),
        "scaled": (
            lambda m, n, s, i: exercises.prune_but.solve(m, n, s, i) or m.conv2.weight.data.mul_(2).sum(), "keep their values",
        ),
        "bias too": (
            lambda m, n, s, i: exercises.prune_but.solve(m, n, s, i) or m.output.bias.data.zero_().sum(), "output.bias changed",
        ),
        "stale": (lambda m, n, s, i: pruned_but(m, n, None, share(m, n, s)), "still those of the whole"),
        "averages first": (
            lambda m, n, s, i: pl.recalibrate(m, [i]) or pruned_but(m, n, None, share(m, n, s)), "prune first",
        ),
        "another batch": (
            lambda m, n, s, i: exercises.prune_but.solve(m, n, s, i[:4]) or 0, "neither the old ones",
        ),
    },
    "exemplars_of": {
        "bool mask": (lambda d, p: (d.float().mean(0) > 0.5) & (p.float().mean(0) <= 0.5), "positions"),
        "half is enough": (
            lambda d, p: ((d.float().mean(0) >= 0.5) & (p.float().mean(0) <= 0.5)).nonzero().flatten(),
            "more than half",
        ),
        "all wrong ones": (lambda d, p: (p.float().mean(0) <= 0.5).nonzero().flatten(), "Image 3"),
        "all right ones": (
            lambda d, p: ((d.float().mean(0) > 0.5) & (p.float().mean(0) > 0.5)).nonzero().flatten(),
            "right before and after",
        ),
        "in every network": (lambda d, p: (d & ~p).all(0).nonzero().flatten(), "Some are missing"),
        "a tie of the pruned": (
            lambda d, p: ((d.float().mean(0) > 0.5) & (p.float().mean(0) <= 0.5)).nonzero().flatten(), "Image 6",
        ),
        "a fall of a quarter": (lambda d, p: (d.float().mean(0) - p.float().mean(0) > 0.5).nonzero(), "Some are missing"),
        "a fall and a majority before": (
            lambda d, p: ((d.float().mean(0) > 0.5) & (d.float().mean(0) - p.float().mean(0) > 0.24)
                          & (p.float().mean(0) < 0.5)).nonzero(),
            "a majority turned",
        ),
        "hard-coded": (lambda d, p: [0, 1, 2], "majority turned"),
        "hard-coded by size": (lambda d, p: {7: [0, 1, 2], 2: [0, 1], 4: []}[d.shape[1]], "compute the positions"),
        "descending": (lambda d, p: exercises.exemplars_of.solve(d, p).flip(0), "ascending"),
        "a set": (lambda d, p: {*exercises.exemplars_of.solve(d, p).tolist()}, "no order"),
        "0.59 before": (
            lambda d, p: ((d.float().mean(0) > 0.59) & (p.float().mean(0) < 0.5)).nonzero(), "Four of seven",
        ),
        "0.42 after": (
            lambda d, p: ((d.float().mean(0) > 0.5) & (p.float().mean(0) < 0.42)).nonzero(), "Four of seven",
        ),
    },
    "may_go_out": {
        "inverted": (lambda *a: not exercises.may_go_out.solve(*a), "wrong way round"),
        "of all images": (
            lambda d, p, s, a, b: all((d & ~p & m).float().mean() <= b for m in s.values())
            and (d & ~p).float().mean() <= a + 1e-6,
            "own size",
        ),
        "mean of slices": (
            lambda d, p, s, a, b: sum((d & ~p)[m].float().mean() for m in s.values()) / len(s)
            <= (b if len(s) == 1 else 0.3),
            "look at the worst",
        ),
        "slices alone": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, s, 1.0, b),
            "limit for the whole",
        ),
        "mean of the slices' losses": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, {}, a, b)
            and sum((d[m].float().mean() - p[m].float().mean()).nan_to_num() for m in s.values()) / max(1, len(s)) <= b + 1e-6,
            "look at the worst",
        ),
        "first slice": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, dict([*s.items()][:1]), a, b),
            "look at the worst",
        ),
        "the wider limit": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, s, a, max(a, b)),
            "however much the whole may lose",
        ),
        "slices of one skipped": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, {n: m for n, m in s.items() if m.sum() > 1}, a, b),
            "slice of one image",
        ),
        "rounded to points": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, s, 1.0, b)
            and round((d.float().mean() - p.float().mean()).item(), 2) <= a + 1e-6,
            "don't round",
        ),
        "below the limit": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, s, a, b - 1e-3),
            "exactly at the limit",
        ),
        "empty slice": (
            lambda d, p, s, a, b: all((d[m].float().mean() - p[m].float().mean()) <= b for m in s.values())
            and (d.float().mean() - p.float().mean()) <= a,
            "without images",
        ),
        "any change": (
            lambda d, p, s, a, b: all((d ^ p)[m].float().mean() <= b for m in s.values() if m.any())
            and (d ^ p).float().mean() <= a + 1e-6,
            "has a sign",
        ),
        "relative": (
            lambda d, p, s, a, b: all(
                (d[m].float().mean() - p[m].float().mean()) / d[m].float().mean().clamp(min=0.01) <= v + 1e-6
                for m, v in [(torch.ones_like(d), a), *((m, b) for m in s.values() if m.any())]
            ),
            "the difference",
        ),
        "losses alone": (
            lambda d, p, s, a, b: all((d & ~p)[m].float().mean() <= b + 1e-6 for m in s.values() if m.any())
            and (d & ~p).float().mean() <= a + 1e-6,
            "two gained",
        ),
        "strictly below in all": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, s, a - 1e-3, b), "All lose 25 points",
        ),
        "beyond the whole's": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(
                d, p, s, a, b + max(0.0, (d.float().mean() - p.float().mean()).item())
            ),
            "beyond the others",
        ),
        "beyond the rest's": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, {}, a, b) and all(
                lost_in(d, p, m) - (lost_in(d, p, ~m) if (~m).any() else 0) <= b + 1e-6 for m in s.values() if m.any()
            ),
            "",
        ),
        "small slices skipped": (
            lambda d, p, s, a, b: exercises.may_go_out.solve(d, p, {n: m for n, m in s.items() if m.sum() >= 5}, a, b),
            "However small",
        ),
    },
    "budget_from_scan": {
        "exactly allowed": (
            lambda s, a: exercises.budget_from_scan.solve(s, a * 0.999),
            "exactly what is allowed",
        ),
        "best of all": (every_step_at_a_later_sparsity, "jumpy"),
        "too generous": (lambda s, a: exercises.budget_from_scan.solve(s, 2.5 * a), "more than 0.01"),
        "too strict": (lambda s, a: exercises.budget_from_scan.solve(s, a if "edge" in s else a / 4), "bears 0.8"),
        "against the step before": (scanned(lambda v, before, s: v[before] - v[s]), "the step before"),
        "against the best": (scanned(lambda v, before, s: max(v.values()) - v[s]), "*better* at 0.3"),
        "any change": (scanned(lambda v, before, s: abs(v[0.0] - v[s])), "*better* at 0.3"),
        "relative": (scanned(lambda v, before, s: (v[0.0] - v[s]) / v[0.0]), "plain difference"),
        "unsorted": (scanned(lambda v, before, s: v[0.0] - v[s], order=list), "any order"),
        "known values": (lambda s, a: {"robust": 0.8, "fragile": 0.0, "jumpy": 0.0} if "jumpy" in s else dict.fromkeys(s, 0.5), "*better*"),
    },
    "cubic_by_step": {
        "linear": (lambda s, b, e, f: f * min(1, max(0, (s - b) / (e - b))), "straight line"),
        "cube of the time gone": (
            lambda s, b, e, f: f * min(1, max(0, (s - b) / (e - b))) ** 3,
            "begins slowly",
        ),
        "what is left": (
            lambda s, b, e, f: f * (1 - cubic((s - b) / (e - b))),
            "at the final sparsity already",
        ),
        "no beginning": (lambda s, b, e, f: f * cubic(s / e), "not at step 0"),
        "to one": (lambda s, b, e, f: cubic((s - b) / (e - b)), "goes to 1"),
        "negative before": (
            lambda s, b, e, f: f * (1 - (1 - min(1, (s - b) / (e - b))) ** 3),
            "Before `begin`",
        ),
        "on after the end": (
            lambda s, b, e, f: f * (1 - (1 - max(0, (s - b) / (e - b))) ** 3),
            "After `end`",
        ),
        "square": (
            lambda s, b, e, f: f * (1 - (1 - min(1, max(0, (s - b) / (e - b)))) ** 2),
            "Half way",
        ),
        "constant between the ends": (
            lambda s, b, e, f: 0 if s < b else f if s > e else 0.875 * f,
            "Half way it is right",
        ),
        "always the same": (lambda s, b, e, f: 0.5, "Half way"),
    },
    "rewind": {
        "masks only": (
            lambda m, e, k: rewound(m, {n: p.clone() for n, p in m.named_parameters()}, k),
            "as trained",
        ),
        "no masks": (lambda m, e, k: m.load_state_dict(e) and None, "pruned ones must be zero"),
        "early changed": (masked_first, "changed `early`"),
        "inverted": (
            lambda m, e, k: rewound(m, e, {n: ~mask for n, mask in k.items()}),
            "wrong way round",
        ),
        "biases as trained": (lambda m, e, k: rewound(m, e, k, biases=False), "biases"),
        "nothing": (lambda m, e, k: None, "as it was"),
        "biases share memory": (
            lambda m, e, k: [
                setattr(p, "data", e[n] * k[n] if n in k else e[n]) for n, p in m.named_parameters()
            ],
            "same memory",
        ),
        "new weights": (
            lambda m, e, k: rewound(m, {n: p + 7 for n, p in e.items()}, k),
            "early values where",
        ),
    },
    "shuffle_within_layers": {
        "transposed": (
            lambda k: {n: m.flatten(1).t().reshape(m.shape) for n, m in k.items()},
            "moved in order",
        ),
        "rolled": (
            lambda k: {
                **exercises.shuffle_within_layers.solve(k),
                "filters": k["filters"].flatten().roll(7).view_as(k["filters"]),
            },
            "moved in order",
        ),
        "one layer left out": (
            lambda k: {**exercises.shuffle_within_layers.solve(k), "block": k["block"].clone()},
            "block is as it was",
        ),
        "nothing moved": (lambda k: {n: m.clone() for n, m in k.items()}, "Nothing has moved"),
        "whole rows": (
            lambda k: {n: m[torch.arange(len(m)).roll(3)] for n, m in k.items()},
            "whole rows",
        ),
        "whole columns": (
            lambda k: {n: m.roll(1, 0).roll(3, 1) if n == "columns" else
                       exercises.shuffle_within_layers.solve(k)[n] for n, m in k.items()},
            "whole columns",
        ),
        "over layers": (shuffled_over_layers, "inside each layer"),
        "drawn anew": (
            lambda k: {n: torch.rand(m.shape) < m.float().mean() / 3 for n, m in k.items()},
            "inside each layer",
        ),
        "in place": (
            lambda k: {n: m.copy_(m.flatten().flip(0).view(m.shape)) for n, m in k.items()},
            "changed the masks",
        ),
        "flat": (
            lambda k: {n: m.flatten()[torch.randperm(m.numel())] for n, m in k.items()},
            "of shape",
        ),
        "float": (lambda k: {n: m.float() for n, m in k.items()}, "bool mask"),
    },
    "pareto_front": {
        "best only": (lambda c, s: [v == max(s) for v in s], "best score alone"),
        "inverted": (
            lambda c, s: [not v for v in exercises.pareto_front.solve(c, s)],
            "wrong way round",
        ),
        "all": (lambda c, s: [True] * len(c), "it is beaten"),
        "cheap ones left out": (lambda c, s: [v > 0.92 for v in s], "cheapest"),
        "equals beaten": (
            lambda c, s: [
                not any(d <= a and t >= b for j, (d, t) in enumerate(zip(c, s, strict=True))
                        if j != i)
                for i, (a, b) in enumerate(zip(c, s, strict=True))
            ],
            "keep both",
        ),
        "dearer equals kept": (
            lambda c, s: [
                not any((d <= a and t > b) for d, t in zip(c, s, strict=True))
                for a, b in zip(c, s, strict=True)
            ],
            "dearer",
        ),
        "better for the same money": (
            lambda c, s: [
                not any((d < a and t >= b) for d, t in zip(c, s, strict=True))
                for a, b in zip(c, s, strict=True)
            ],
            "same money",
        ),
        "sizes of the scores": (
            lambda c, s: exercises.pareto_front.solve(c, [abs(v) for v in s]),
            "negative",
        ),
        "always the same": (lambda c, s: [True, True, False, True, False, True], "2 values"),
        "names": (lambda c, s: [1, 2], "6 values"),
    },
    "memorised_share": {
        "of all images": (lambda a, g, t: ((a == g) & (g != t)).float().mean(), "all images"),
        "agreement": (lambda a, g, t: (a == g).float().mean(), "equal the given label"),
        "the true class": (lambda a, g, t: (a == t)[g != t].float().mean(), "*true* class"),
        "accuracy": (lambda a, g, t: (a == t).float().mean(), "accuracy"),
        "noise": (lambda a, g, t: (g != t).float().mean(), "that are wrong"),
        "count": (lambda a, g, t: ((a == g) & (g != t)).sum(), "Divide"),
        "a constant": (lambda a, g, t: 0.25, "you returned 0.25"),
    },
    "stopping_epoch": {
        "best of all": (lambda s, p: s.index(max(s)) + 1, "never seen"),
        "from 0": (lambda s, p: exercises.stopping_epoch.solve(s, p) - 1, "from 0"),
        "where it stops": (lambda s, p: exercises.stopping_epoch.solve(s, p) + p, "Kept are the weights"),
        "last of equals": (lambda s, p: max(range(1, exercises.stopping_epoch.solve(s, p) + (2 if s[1] == s[2] else 1)), key=lambda e: (s[e - 1], e)), "only as good"),
        "score": (lambda s, p: max(s), "whole number"),
        "a counter never reset": (stopped_without_reset, "back to 0"),
        "from zero": (lambda s, p: 0 if max(s) < 0 else exercises.stopping_epoch.solve(s, p), "not with 0"),
        "always the second": (lambda s, p: 2, "you returned 2"),
    },
    "verdict_for": {
        "unpaired": (lambda a, b, w: verdict_of(interval(a).low - interval(b).high, interval(a).high - interval(b).low, w), "drops out"),
        "zero": (lambda a, b, w: verdict_of(*interval(x - y for x, y in zip(a, b, strict=True))[1:], 0), "not with zero"),
        "mean alone": (lambda a, b, w: verdict_of(*[sum(a) / len(a) - sum(b) / len(b)] * 2, w), "reaches below"),
        "sign": (lambda a, b, w: exercises.verdict_for.solve(b, a, w), "less `without`"),
        "size of the gain": (lambda a, b, w: exercises.verdict_for.solve([max(x, y) for x, y in zip(a, b, strict=True)], [min(x, y) for x, y in zip(a, b, strict=True)], w), "less `without`"),
        "open if it has zero": (lambda a, b, w: "open" if (g := interval(x - y for x, y in zip(a, b, strict=True))).low < 0 < g.high else exercises.verdict_for.solve(a, b, w), "contains zero"),
        "two answers": (lambda a, b, w: "holds" if exercises.verdict_for.solve(a, b, w) == "holds" else "contradicted", "reaches below"),
        "worth is one": (lambda a, b, w: exercises.verdict_for.solve(a, b, 1.0), "whatever it is"),
        "a bool": (lambda a, b, w: exercises.verdict_for.solve(a, b, w) == "holds", "'open'"),
        "1.96 standard errors": (lambda a, b, w: verdict_of(*around(a, b, 1.96), w), "Student's t"),
        "one standard error": (lambda a, b, w: verdict_of(*around(a, b, 1), w), "Student's t"),
        "smallest and largest": (lambda a, b, w: verdict_of(min(g := np.subtract(a, b)), max(g), w), "of the *mean*"),
        "the old word": (lambda a, b, w: "does not hold" if (v := exercises.verdict_for.solve(a, b, w)) == "contradicted" else v, "'contradicted'"),
    },
    "two_of_four": {
        "half of all": (lambda s: exercises.prune_exactly.solve(s, s.numel() // 2), "not two in every four"),
        "threshold": (lambda s: s >= s.view(-1, 4).sort().values[:, 2].repeat_interleave(4).view(s.shape), "Ties"),
        "inverted": (lambda s: ~exercises.two_of_four.solve(s), "wrong way round"),
        "always the first": (lambda s: torch.arange(s.numel()).view(s.shape) % 4 < 2, "not the highest"),
        "other shape": (lambda s: exercises.two_of_four.solve(s).view(-1, 4), "shape"),
        "absolute": (lambda s: exercises.two_of_four.solve(s.abs()), "no absolute value"),
        "float": (lambda s: exercises.two_of_four.solve(s).float(), "bool tensor"),
        "down the columns": (lambda s: exercises.two_of_four.solve(s.T.contiguous()).T if len(s) == 4 else exercises.two_of_four.solve(s), "not two in every four"),
    },
    "chain_without": {
        "zeroed": (lambda a, n, b, k: {m: t * k.view(-1, *[1] * (t.dim() - 1)) for m, t in chain(a, n, b).items()}, "remove, don't zero"),
        "inverted": (lambda a, n, b, k: exercises.chain_without.solve(a, n, b, ~k), "wrong way round"),
        "rows of the reader": (lambda a, n, b, k: {m: t[k] for m, t in chain(a, n, b).items()}, "dimension 1"),
        "norm forgotten": (lambda a, n, b, k: {m: t for m, t in exercises.chain_without.solve(a, n, b, k).items() if "running" not in m}, "running_mean"),
        "bias of the reader": (lambda a, n, b, k: exercises.chain_without.solve(a, n, b, k) | {"conv2.bias": b.bias}, "no output"),
        "in place": (cut_in_place, "changed the layers"),
        "hard-coded": (lambda a, n, b, k: exercises.chain_without.solve(a, n, b, torch.arange(len(k)) != 1), "in their order"),
        "reversed": (lambda a, n, b, k: {m: t.flip(0) for m, t in exercises.chain_without.solve(a, n, b, k).items()}, "in their order"),
    },
    "speed_ups": {
        "inverted": (lambda a, b, s, t: exercises.speed_ups.solve(b, a, t, s), "wrong way round"),
        "mean": (lambda a, b, s, t: (a / b, (s / t).mean(), 0), "mean over the pairs"),
        "medians divided": (lambda a, b, s, t: (a / b, s.median() / t.median(), 0), "pair by pair"),
        "share of the ideal": (lambda a, b, s, t: (a / b, (s / t).median(), (s / t).median() * b / a), "Count from 1"),
        "two numbers": (lambda a, b, s, t: (a / b, (s / t).median()), "three numbers"),
        "constants": (lambda a, b, s, t: (4, 2.5, 0.5), "9,000 to 1,500"),
        "best of the pairs": (lambda a, b, s, t: (a / b, (s / t).max(), 0), "best of the pairs"),
        "cut off at zero": (lambda a, b, s, t: (*(r := exercises.speed_ups.solve(a, b, s, t))[:2], max(0, r[2])), "below 0"),
    },
    "f1_of": {
        "precision": (lambda t, c: float(t[c, c] / max(1, t[:, c].sum())), "precision"),
        "recall": (lambda t, c: float(t[c, c] / max(1, t[c].sum())), "recall"),
        "ordinary mean": (lambda t, c: float(t[c, c] / max(1, t[c].sum()) + t[c, c] / max(1, t[:, c].sum())) / 2, "ordinary mean"),
        "factor": (lambda t, c: exercises.f1_of.solve(t, c) / 2, "factor of 2"),
        "accuracy": (lambda t, c: float(t.trace() / t.sum()) if t[:, c].any() else 0.0, "accuracy"),
        "always class 0": (lambda t, c: exercises.f1_of.solve(t, 0) if t[:, c].any() else 0.0, "use `c`"),
        "known values": (lambda t, c: (0.7692, 0.4615, 0.0)[c] if len(t) == 3 else 0.0, "use `c`"),
        "not a number": (lambda t, c: exercises.f1_of.solve(t, c) if t[c].any() else float("nan"), "0 / 0"),
        "not a number where nothing is": (
            lambda t, c: exercises.f1_of.solve(t, c) if t[c].any() or t[:, c].any() else float("nan"), "0 / 0",
        ),
    },
    "without_heads": {
        "output's rows": (lambda s, h, k: heads_cut(s, h, k) | {"output.weight": s["output.weight"][kept_rows(s, h, k)]}, "columns, not its rows"),
        "output's bias": (lambda s, h, k: heads_cut(s, h, k) | {"output.bias": s["output.bias"][kept_rows(s, h, k)]}, "belongs to no head"),
        "output forgotten": (lambda s, h, k: heads_cut(s, h, k) | {"output.weight": s["output.weight"]}, "columns"),
        "zeroed": (lambda s, h, k: {n: v * 0 for n, v in s.items()}, "cut them out"),
        "biases forgotten": (lambda s, h, k: heads_cut(s, h, k) | {"key.bias": s["key.bias"]}, "key.bias"),
        "every other row": (lambda s, h, k: heads_cut(s, h, k, [r for i in k for r in range(i, len(s["key.bias"]), h)]), "from 4·h on"),
        "the others kept": (lambda s, h, k: heads_cut(s, h, [i for i in range(h) if i not in k] or k), "outputs differ"),
        "always the first": (lambda s, h, k: heads_cut(s, h, list(range(len(k)))), "outputs differ"),
        "in place": (lambda s, h, k: [v.zero_() for v in s.values()] and heads_cut(s, h, k), "changed the weights"),
        "a list": (lambda s, h, k: list(s.values()), "same names"),
    },
    "may_leave": {
        "mean decides": (lambda c, m: [n for n in c if c[n][0] > m[n]], "Ask `high`"),
        "low decides": (lambda c, m: [n for n in c if c[n][1] > m[n]], "Ask `high`"),
        "one and a half times the mean": (lambda c, m: [n for n in c if 1.5 * c[n][0] > m[n]], "Ask `high`"),
        "worst slice alone": (lambda c, m: [n for n in [max(c, key=lambda k: c[k][0])] if c[n][2] > m[n]], "Ask `high`"),
        "worst by its high alone": (lambda c, m: [n for n in [max(c, key=lambda k: c[k][2])] if c[n][2] > m[n]], "Ask `high`"),
        "at the limit": (lambda c, m: [n for n in c if c[n][2] >= m[n]], "exactly"),
        "unsorted": (lambda c, m: [n for n in c if c[n][2] > m[n]], "comes first"),
        "sorted by the ratio": (lambda c, m: sorted(exercises.may_leave.solve(c, m), key=lambda n: -c[n][2] / m[n]), "comes first"),
        "sorted by high": (lambda c, m: sorted((n for n in c if c[n][2] > m[n]), key=lambda n: -c[n][2]), "comes first"),
        "ties turned round": (lambda c, m: exercises.may_leave.solve(dict(reversed(c.items())), m), "comes first"),
        "ties by name": (lambda c, m: sorted(exercises.may_leave.solve(c, m), key=lambda n: (m[n] - c[n][2], n)), "comes first"),
        "limits by place": (
            lambda c, m: exercises.may_leave.solve(c, dict(zip(c, m.values(), strict=True))), "Ask `high`",
        ),
        "one limit": (lambda c, m: exercises.may_leave.solve(c, dict.fromkeys(c, 0.05)), "its limit is"),
        "nobody": (lambda c, m: [], "Ask `high`"),
        "yes or no": (lambda c, m: not exercises.may_leave.solve(c, m), "list of names"),
        "numbers": (lambda c, m: [m[n] for n in exercises.may_leave.solve(c, m)], "no slice"),
    },
    "rouge_1": {
        "sets": (lambda r, s: 2 * len({*r.split()} & {*s.split()}) / (len({*r.split()}) + len({*s.split()})), "counts each word once"),
        "shared words as a set": (lambda r, s: 2 * len({*r.split()} & {*s.split()}) / (len(r.split()) + len(s.split())), "each shared word once"),
        "not clipped": (lambda r, s: 2 * sum(w in r.split() for w in s.split()) / (len(r.split()) + len(s.split())), "only as often"),
        "precision": (lambda r, s: shared_words(r, s) / len(s.split()), "precision alone"),
        "recall": (lambda r, s: shared_words(r, s) / len(r.split()), "recall alone"),
        "ordinary mean": (lambda r, s: shared_words(r, s) * (1 / len(s.split()) + 1 / len(r.split())) / 2, "harmonic"),
        "factor": (lambda r, s: exercises.rouge_1.solve(r, s) / 2, "factor of 2"),
        "0 / 0": (lambda r, s: 2 / (len(r.split()) / shared_words(r, s) + len(s.split()) / shared_words(r, s)), "not a division"),
        "not a number": (lambda r, s: exercises.rouge_1.solve(r, s) or float("nan"), "Nothing shared is 0"),
        "letters": (lambda r, s: exercises.rouge_1.solve(" ".join(r), " ".join(s)), "shared words first"),
        "a constant": (lambda r, s: 8 / 15, "shared words first"),
        "by the longer": (lambda r, s: shared_words(r, s) / max(len(r.split()), len(s.split())), "shared words first"),
        "Jaccard": (lambda r, s: (lambda n: n / (len(r.split()) + len(s.split()) - n))(shared_words(r, s)), "Jaccard"),
        "geometric mean": (lambda r, s: shared_words(r, s) / (len(r.split()) * len(s.split())) ** 0.5, "geometric"),
        "percent": (lambda r, s: 100 * exercises.rouge_1.solve(r, s), "percent"),
        "rounded": (lambda r, s: round(exercises.rouge_1.solve(r, s), 2), "not rounded"),
        "three numbers": (lambda r, s: (0.5, 0.5, 0.5), "one number"),
    },
    "facts_right": {
        "as they stand": (lambda f, s: [k for k in f if k in s and s[k] == f[k]], "other team's side"),
        "any order": (lambda f, s: [k for k in f if k in s and (s[k] == f[k] or (k in ("teams", "score") and s[k][::-1] == f[k]))], "turned round"),
        "sets": (lambda f, s: [k for k in f if k in s and {*s[k]} == {*f[k]}], "turned round"),
        "teams alone": (lambda f, s: [k for k in f if k in s and (s[k] == f[k] or (k == "teams" and s[k][::-1] == f[k]))], "other team's side"),
        "the order of what is said": (lambda f, s: [k for k in s if k in exercises.facts_right.solve(f, s)], "order of `facts`"),
        "a number": (lambda f, s: len(exercises.facts_right.solve(f, s)), "list of kinds"),
        "truths": (lambda f, s: [k in exercises.facts_right.solve(f, s) for k in f], "names of the kinds"),
        "a set": (lambda f, s: {*exercises.facts_right.solve(f, s)}, "list of kinds"),
        "a dict": (lambda f, s: dict.fromkeys(exercises.facts_right.solve(f, s)), "list of kinds"),
        "one team is enough": (lambda f, s: exercises.facts_right.solve(f, s | {"teams": f.get("teams", ())[::-1]} if s.get("teams", (0, 0))[0] == f.get("teams", (0, 0))[1] else s) if s.get("teams", (0, 0))[0] != f.get("teams", (0, 0))[1] or s["teams"] == f["teams"][::-1] else [k for k in f if k != "teams" and (s[k] == f[k] or (k == "score" and s[k][::-1] == f[k]))], "one team is wrong"),
        "no score without teams": (lambda f, s: [k for k in exercises.facts_right.solve(f, s) if k != "score" or "teams" in exercises.facts_right.solve(f, s)], "as the report has it"),
        "missing is right": (lambda f, s: [k for k in f if k not in s or k in exercises.facts_right.solve(f, s)], "missing"),
        "in place": (lambda f, s: (s.update({k: s[k][::-1] for k in ("teams", "score") if k in s and s.get("teams") == f.get("teams", ())[::-1]}) or [k for k in f if s.get(k) == f[k]]), "work on a copy"),
        "all": (lambda f, s: list(f), "day alone"),
    },
    "prune_part": {
        "without the dot": (lambda m, p, s: part_pruned(m, s, lambda n, w: n.startswith(p) and w.dim() > 1), "ask for the dot"),
        "biases too": (lambda m, p, s: part_pruned(m, s, lambda n, w: n.startswith(f"{p}.")), "a bias"),
        "everything": (lambda m, p, s: part_pruned(m, s, lambda n, w: w.dim() > 1), "changed"),
        "each layer alike": (lambda m, p, s: part_pruned(m, s, lambda n, w: n.startswith(f"{p}.") and w.dim() > 1, budget=pl.uniform), "not layer by layer"),
        "largest": (lambda m, p, s: part_pruned(m, s, lambda n, w: n.startswith(f"{p}.") and w.dim() > 1, sign=-1), "largest"),
        "a copy": (lambda m, p, s: exercises.prune_part.solve(copy.deepcopy(m), p, s), "nothing changed"),
        "lowest values": (lambda m, p, s: pl.apply(m, pl.select({n: w.detach() for n, w in m.named_parameters() if n.startswith(f"{p}.") and w.dim() > 1}, s)), "with their sign"),
        "at random": (lambda m, p, s: pl.apply(m, pl.select({n: torch.rand(w.shape) for n, w in m.named_parameters() if n.startswith(f"{p}.") and w.dim() > 1}, s)), "but others"),
        "rounded down": (lambda m, p, s: exercises.prune_part.solve(m, p, int(s * sum(w.numel() for n, w in m.named_parameters() if n.startswith(f"{p}.") and w.dim() > 1)) / sum(w.numel() for n, w in m.named_parameters() if n.startswith(f"{p}.") and w.dim() > 1)), "round"),
        "torch's own, left on": (lambda m, p, s: torch.nn.utils.prune.l1_unstructured(m.encoder[0], "weight", s), "prune.remove"),
        "a copy given back": (lambda m, p, s: (lambda c: exercises.prune_part.solve(c, p, s) or c)(copy.deepcopy(m)), "in place"),
        "half": (lambda m, p, s: exercises.prune_part.solve(m, p, 0.5), "should be zero"),
        "what to keep": (lambda m, p, s: exercises.prune_part.solve(m, p, 1 - s), "share that goes"),
        "scaled": (lambda m, p, s: exercises.prune_part.solve(m, p, s) or m.get_parameter("decoder.down.weight" if p.startswith("decoder") else "encoder.2.weight").data.mul_(2) * 0, "keep their values"),
        "the other part": (lambda m, p, s: exercises.prune_part.solve(m, "encoder" if p.startswith("decoder") else "decoder", s), "another part"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", EXERCISES)
def test_solution_passes_stub_is_not_attempted_and_mistakes_are_named(name):
    exercise = getattr(exercises, name)
    assert exercise.check(exercise.solve) == CORRECT
    assert exercise.check(lambda *inputs: ...) == NOT_ATTEMPTED
    assert exercise.check(...) == NOT_ATTEMPTED
    assert len(MISTAKES[name]) >= 2
    for mistake, (answer, word) in MISTAKES[name].items():
        verdict = exercise.check(answer)
        assert verdict == WRONG, mistake
        assert word in verdict.message, f"{mistake}: {verdict.message}"


@pytest.mark.parametrize("name", EXERCISES)
def test_nonsense_is_wrong_and_never_raises(name):
    exercise = getattr(exercises, name)
    for nonsense in (
        lambda *inputs: None,
        lambda *inputs: "?",
        lambda one, too, many, inputs: 1,
        7,
    ):
        assert exercise.check(nonsense) == WRONG


def test_a_forgotten_return_is_said():
    assert "`return`" in exercises.sparsity_of.check(lambda model: None).message


NUMBERS = (
    float,
    np.float64,
    torch.tensor,
    lambda v: np.array(float(v)),
    lambda v: torch.tensor([v]),
)
MASKS = (torch.clone, np.asarray, torch.Tensor.tolist)


@pytest.mark.parametrize(
    "name",
    [
        "sparsity_of",
        "csr_bytes",
        "global_threshold",
        "f1_of",
        "ndcg_of_one",
        "normalised_entropy",
        "table_bytes",
        "row_pruned_bytes",
        "highest_release",
        "threshold_for",
        "needed_factor",
        "outline_iou",
        "ngram_precision",
        "rouge_1",
        "perplexity_of",
    ],
)
@pytest.mark.parametrize("as_type", NUMBERS)
def test_right_numbers_of_other_types_pass(name, as_type):
    exercise = getattr(exercises, name)
    assert exercise.check(lambda *inputs: as_type(float(exercise.solve(*inputs)))) == CORRECT


@pytest.mark.parametrize("as_type", NUMBERS)
def test_right_shares_of_other_types_pass(as_type):
    exercise = exercises.memorised_share
    assert exercise.check(lambda *inputs: as_type(float(exercise.solve(*inputs)))) == CORRECT


@pytest.mark.parametrize("as_type", [np.int64, np.array, torch.tensor])
def test_right_epochs_of_other_types_pass(as_type):
    exercise = exercises.stopping_epoch
    assert exercise.check(lambda *inputs: as_type(exercise.solve(*inputs))) == CORRECT


@pytest.mark.parametrize("as_type", [list, np.array, torch.tensor])
def test_right_speed_ups_of_other_types_pass(as_type):
    exercise = exercises.speed_ups
    assert exercise.check(lambda *inputs: as_type(exercise.solve(*inputs))) == CORRECT


@pytest.mark.parametrize("as_type", [lambda m: m.T.contiguous().T, np.asarray, torch.Tensor.tolist])
def test_a_right_mask_of_two_in_four_may_lie_in_memory_as_it_likes(as_type):
    exercise = exercises.two_of_four
    assert exercise.check(lambda scores: as_type(exercise.solve(scores))) == CORRECT


def with_keep(weight, mask, optimizer):
    holder = torch.nn.Module()
    holder.weight = weight
    with pl.keep(holder, {"weight": mask}, optimizer):
        optimizer.step()


def by_new_data(weight, mask, optimizer):
    optimizer.step()
    weight.data = torch.where(mask, weight.data, 0.0)


@pytest.mark.parametrize("as_type", MASKS)
def test_right_masks_of_other_types_pass(as_type):
    for exercise in (exercises.mask_from_threshold, exercises.prune_exactly, exercises.wanda_mask):
        assert exercise.check(lambda *inputs, e=exercise: as_type(e.solve(*inputs))) == CORRECT


@pytest.mark.parametrize(
    "as_type", [*MASKS, torch.Tensor.int, torch.Tensor.bfloat16, list, lambda t: (*t.numpy(),)]
)
def test_right_truths_of_other_types_pass(as_type):
    exercise = exercises.right_boxes
    assert exercise.check(lambda *inputs: as_type(exercise.solve(*inputs))) == CORRECT


def test_weights_may_be_scaled_and_back_in_their_unit():
    def answer(model, units, sparsity):
        weights = pl.weights_of(model)
        for name, factor in units.items():
            weights[name].data *= factor
        pl.apply(model, pl.select(pl.magnitude(model), sparsity))
        for name, factor in units.items():
            weights[name].data /= factor

    assert exercises.prune_in_units.check(answer) == CORRECT


@pytest.mark.parametrize("as_type", [*MASKS, torch.Tensor.double])
@pytest.mark.parametrize("pair", [tuple, list])
def test_right_tables_of_other_types_pass(pair, as_type):
    exercise = exercises.prune_dimensions
    assert exercise.check(lambda *i: pair(as_type(t) for t in exercise.solve(*i))) == CORRECT


@pytest.mark.parametrize("as_type", MASKS)
def test_right_scores_of_other_types_pass(as_type):
    score, readings = exercises.first_order_score, exercises.two_readings
    assert score.check(lambda *inputs: as_type(score.solve(*inputs))) == CORRECT
    assert readings.check(lambda *i: [as_type(t) for t in readings.solve(*i)]) == CORRECT
    assert readings.check(lambda *i: as_type(torch.stack(readings.solve(*i)))) == CORRECT
    disagree = exercises.gradients_that_disagree
    assert disagree.check(lambda: as_type(disagree.solve())) == CORRECT


@pytest.mark.parametrize("as_type", [list, tuple, np.array])
def test_names_of_slices_in_other_containers_pass(as_type):
    answer = exercises.may_leave.solve
    assert exercises.may_leave.check(lambda c, m: as_type(answer(c, m))) == CORRECT


@pytest.mark.parametrize(
    "as_type", [torch.clone, np.asarray, torch.Tensor.tolist, torch.nn.Parameter]
)
def test_smaller_heads_of_other_types_and_in_another_order_pass(as_type):
    for turn in (1, -1):  # the order of the heads does not matter
        assert exercises.without_heads.check(
            lambda s, h, k, turn=turn: {n: as_type(v) for n, v in heads_cut(s, h, k[::turn]).items()}
        ) == CORRECT  # fmt: skip


@pytest.mark.parametrize("as_type", [list, np.array, torch.tensor])
def test_right_counts_of_other_types_pass(as_type):
    exercise = exercises.switches_and_fragments
    assert exercise.check(lambda *inputs: as_type(exercise.solve(*inputs))) == CORRECT


def test_torch_prunes_as_well():
    assert exercises.prune_while.check(pruned_by_torch) == CORRECT


@pytest.mark.parametrize("answer", [with_keep, by_new_data])
def test_other_ways_to_step_pass(answer):
    assert exercises.masked_step.check(answer) == CORRECT


@pytest.mark.parametrize("name", EXERCISES)
def test_hints_come_one_by_one_and_the_solution_is_its_source(name):
    exercise = getattr(exercises, name)
    exercise._shown = 0
    shown = [exercise.hint().data for _ in range(len(exercise.hints) + 1)]
    assert len(exercise.hints) >= 2 and len(set(shown)) == len(exercise.hints)
    source = exercise.solution().data
    assert source.startswith(f"```python\ndef {name}(") and source.endswith("```")
    scope = {"torch": torch, "Tensor": torch.Tensor, "nn": torch.nn, "pl": pl, "Counter": Counter}
    exec(source.removeprefix("```python").removesuffix("```"), scope)
    assert exercise.check(scope[name]) == CORRECT  # what is shown is what works


def test_every_exercise_is_asked_once_and_its_stub_says_so():
    asked = []
    for lesson in find_lessons():
        for cell in nbformat.read(lesson.path, as_version=4).cells:
            for name in re.findall(r"pl\.exercises\.(\w+)\.check", cell.source):
                asked.append(name)
                assert "Not attempted" in str(cell.outputs), name
    assert sorted(asked) == sorted(EXERCISES)


def test_what_is_exported_is_an_exercise_or_the_questions_of_a_self_test():
    assert sorted(exercises.__all__) == sorted([*EXERCISES, *SELF_TESTS])


# ------------------------------------------------------------------------ questions

EXAMPLE = Question("Why?", {"a": ("so", "not so"), "b": ("thus", "indeed")}, "b", "03_x.ipynb")


def test_a_question_judges_letters():
    assert EXAMPLE.check(...) == NOT_ATTEMPTED
    assert (EXAMPLE.check("a"), EXAMPLE.check("a").message) == (WRONG, "not so")
    for answer in ("b", " B "):
        assert EXAMPLE.check(answer) == CORRECT
    assert EXAMPLE.check("b").message == "indeed [Lesson 03](03_x.ipynb) shows it."
    assert EXAMPLE._repr_markdown_() == "Why?\n\n- **a** so\n- **b** thus"
    with pytest.raises(ValueError, match="right is 'c', but must be one of a, b"):
        Question(EXAMPLE.text, EXAMPLE.options, "c", EXAMPLE.lesson)


@pytest.mark.parametrize(
    "nonsense", [None, 7, "", "c", "ab", ["a"], {}, torch.ones(2), lambda: "b"]
)
def test_nonsense_for_a_letter_is_told_which_there_are(nonsense):
    verdict = EXAMPLE.check(nonsense)
    assert verdict == WRONG
    assert verdict.message == 'Answer with a letter in quotes: `"a"` or `"b"`.'


@question
def test_each_option_has_a_reason_of_its_own_and_one_is_right(name, number):
    asked = getattr(exercises, name)[number]
    assert list(asked.options) == ["a", "b", "c", "d"]
    verdicts = {letter: asked.check(letter) for letter in asked.options}
    assert [letter for letter, v in verdicts.items() if v == CORRECT] == [asked.right]
    assert len({verdict.message for verdict in verdicts.values()}) == 4
    assert len({says for says, _ in asked.options.values()}) == 4
    assert all(len(verdict.message.split()) >= 8 for verdict in verdicts.values())


@question
def test_a_right_answer_links_to_a_lesson_that_is_there(name, number):
    lesson = getattr(exercises, name)[number].lesson
    assert ((ROOT / "notebooks" / SELF_TESTS[name]).parent / lesson).is_file()


@pytest.mark.parametrize("name", SELF_TESTS)
def test_a_self_test_asks_each_question_once_as_it_is_now(name):
    questions = getattr(exercises, name)
    assert [*questions] == [*range(1, len(questions) + 1)] and len(questions) >= 10
    rights = [asked.right for asked in questions.values()]
    assert all(1 <= rights.count(letter) <= 4 for letter in "abcd")  # guessing one letter won't do
    cells = nbformat.read(ROOT / "notebooks" / SELF_TESTS[name], as_version=4).cells
    shown = {cell.source: str(cell.outputs) for cell in cells if "outputs" in cell}
    text = {cell.source: o.data.get("text/markdown") for cell in cells if "outputs" in cell
            for o in cell.outputs}  # fmt: skip
    for number, asked in questions.items():
        assert text[f"questions[{number}]"] == asked._repr_markdown_()
        assert "Not attempted" in shown[f"questions[{number}].check(...)"]
    assert sum(".check(" in source for source in shown) == len(questions)
