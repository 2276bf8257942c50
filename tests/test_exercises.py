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
    "precision_and_recall": {
        "swapped": (lambda m, c: exercises.precision_and_recall.solve(m, c)[::-1], "swapped"),
        "recall twice": (lambda m, c: (exercises.precision_and_recall.solve(m, c)[1],) * 2, "twice"),
        "share of all": (lambda m, c: (m[c, c] / m.sum(), m[c, c] / m[c].sum()), "0.3 and 0.75"),
        "0 / 0": (lambda m, c: (m[c, c] / m[:, c].sum(), m[c, c] / m[c].sum()), "before you divide"),
        "0 / 0 in a row": (
            lambda m, c: (m[c, c] / max(1, m[:, c].sum()), m[c, c] / m[c].sum()), "recall is 0",
        ),
        "one number": (lambda m, c: m[c, c] / m[c].sum(), "two numbers"),
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
