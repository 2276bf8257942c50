"""Every exercise: the solution passes, the stub is not attempted, named wrong answers are told why."""

import re

import nbformat
import pytest
import torch

from pruninglib.course import exercises
from pruninglib.course.exercises.exercise import CORRECT, NOT_ATTEMPTED, WRONG
from pruninglib.course.runner import find_lessons


def gradient_only(weight, mask, optimizer):
    weight.grad.mul_(mask)
    optimizer.step()


def every_step_at_a_later_sparsity(scan, allowed):
    return {n: max(s for s in v if v[0.0] - v[s] <= allowed) for n, v in scan.items()}


def weights_of(model):
    return [p for p in model.parameters() if p.dim() >= 2]


# name of the exercise -> named mistake -> (answer, a word of the message that helps)
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
    },
    "mask_from_threshold": {
        "sign kept": (lambda w, t: w > t, "absolute"),
        "inverted": (lambda w, t: w.abs() <= t, "wrong way round"),
        "threshold kept": (lambda w, t: w.abs() >= t, "exactly at the threshold"),
        "strictly inverted": (lambda w, t: w.abs() < t, "wrong way round"),
        "pruned weight": (lambda w, t: w * (w.abs() > t), "the mask itself"),
        "float mask": (lambda w, t: (w.abs() > t).float(), "torch.bool"),
        "pruned in place": (lambda w, t: w.mul_(w.abs() > t) != 0, "changed the weight"),
    },
    "csr_bytes": {
        "no indices": (lambda w: 4 * int(w.count_nonzero()), "indices"),
        "no row pointers": (lambda w: 8 * int(w.count_nonzero()), "each row begin"),
        "one pointer short": (lambda w: 8 * int(w.count_nonzero()) + 4 * len(w), "last row"),
        "dense": (lambda w: 4 * w.numel(), "dense size"),
        "numbers, not bytes": (lambda w: exercises.csr_bytes.solve(w) // 4, "4 bytes"),
        "columns": (lambda w: 8 * int(w.count_nonzero()) + 4 * (w.shape[1] + 1), "per row"),
        "coordinates": (lambda w: 12 * int(w.count_nonzero()), "Row pointers"),
    },
    "global_threshold": {
        "off by one": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).sort().values[
                int(p * sum(t.numel() for t in s.values()))
            ],
            "5th smallest",
        ),
        "one for each layer": (
            lambda s, p: {n: t.flatten().kthvalue(round(p * t.numel())).values for n, t in s.items()},
            "one number",
        ),
        "median": (
            lambda s, p: torch.cat([t.flatten() for t in s.values()]).quantile(p),
            "between two scores",
        ),
    },
    "prune_exactly": {
        "threshold": (lambda s, k: s > s.flatten().sort().values[max(k - 1, 0)], "equal scores"),
        "inverted": (lambda s, k: ~exercises.prune_exactly.solve(s, k), "wrong way round"),
        "highest": (lambda s, k: exercises.prune_exactly.solve(-s, k), "the lowest"),
    },
    "masked_step": {
        "gradient only": (gradient_only, "After the step"),
        "no step": (lambda w, m, o: None, "optimizer.step"),
    },
    "first_order_score": {
        "sign kept": (lambda w, g: g * w, "sign"),
        "slope only": (lambda w, g: g.abs(), "slope"),
        "magnitude": (lambda w, g: w.abs(), "magnitude"),
        "squared": (lambda w, g: (g * w) ** 2, "unit of the loss"),
    },
    "two_readings": {
        "swapped": (lambda g, w: exercises.two_readings.solve(g, w)[::-1], "swapped"),
        "no weight": (lambda g, w: (g.mean(0).abs(), g.abs().mean(0)), "left out the weight"),
        "no outer abs": (lambda g, w: ((g * w).mean(0), (g * w).abs().mean(0)), "has a sign"),
        "sums": (lambda g, w: ((g * w).sum(0).abs(), (g * w).abs().sum(0)), "sums"),
        "same twice": (lambda g, w: ((g * w).mean(0).abs(),) * 2, "cancel"),
        "wrong dimension": (lambda g, w: ((g * w).mean(1).abs(), (g * w).abs().mean(1)), "shape"),
    },
    "gradients_that_disagree": {
        "samples agree": (lambda: torch.tensor([[3.0, 1.0], [3.0, 1.0]]), "Let its samples cancel"),
        "other way round": (lambda: torch.tensor([[5.0, 1.0], [-5.0, 1.0]]), "first weight above"),
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
                (s for s in t if t[s]["all"] <= o and t[s]["head"] + t[s]["tail"] <= 2 * w),
                default=0.0,
            ),
            "worst",
        ),
        "tail alone": (
            lambda t, o, w: max(
                (s for s in t if t[s]["all"] <= o and t[s]["tail"] <= w), default=0.0
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
    },
    "budget_from_scan": {
        "exactly allowed": (
            lambda s, a: exercises.budget_from_scan.solve(s, a * 0.999),
            "exactly what is allowed",
        ),
        "best of all": (every_step_at_a_later_sparsity, "jumpy"),
        "too generous": (lambda s, a: exercises.budget_from_scan.solve(s, 2.5 * a), "more than 0.01"),
        "too strict": (lambda s, a: exercises.budget_from_scan.solve(s, a if "edge" in s else a / 4), "bears 0.8"),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", exercises.__all__)
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


@pytest.mark.parametrize("name", exercises.__all__)
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


@pytest.mark.parametrize("name", exercises.__all__)
def test_hints_come_one_by_one_and_the_solution_is_its_source(name):
    exercise = getattr(exercises, name)
    exercise._shown = 0
    shown = [exercise.hint().data for _ in range(len(exercise.hints) + 1)]
    assert len(exercise.hints) >= 2 and len(set(shown)) == len(exercise.hints)
    source = exercise.solution().data
    assert source.startswith(f"```python\ndef {name}(") and source.endswith("```")
    scope = {"torch": torch, "Tensor": torch.Tensor, "nn": torch.nn}
    exec(source.removeprefix("```python").removesuffix("```"), scope)
    assert exercise.check(scope[name]) == CORRECT  # what is shown is what works


def test_every_exercise_is_asked_once_and_its_stub_says_so():
    asked = []
    for lesson in find_lessons():
        for cell in nbformat.read(lesson.path, as_version=4).cells:
            for name in re.findall(r"pl\.exercises\.(\w+)\.check", cell.source):
                asked.append(name)
                assert "Not attempted" in str(cell.outputs), name
    assert sorted(asked) == sorted(exercises.__all__)
