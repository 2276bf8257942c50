"""Right answers of lesson 03's exercises pass, in whatever type they come."""

import numpy as np
import pytest
import torch

from pruninglib.course import exercises
from pruninglib.course.exercises.exercise import CORRECT

score, readings = exercises.first_order_score.solve, exercises.two_readings.solve
budget = exercises.budget_from_scan.solve
DISAGREE = [[1, 5], [1, -5]]

RIGHT = {
    "first_order_score": [
        lambda w, g: score(w, g).numpy(),
        lambda w, g: score(w, g).tolist(),
        lambda w, g: score(w.double(), g.double()),
        lambda w, g: (w.requires_grad_() * g).abs(),
        lambda w, g: w.mul_(g).abs_(),
    ],
    "two_readings": [
        lambda g, w: torch.stack(readings(g, w)),
        lambda g, w: list(readings(g, w)),
        lambda g, w: np.stack([r.numpy() for r in readings(g, w)]),
        lambda g, w: [r.tolist() for r in readings(g, w)],
        lambda g, w: (r.double() for r in readings(g, w)),
        lambda g, w: (g.mean(0).abs() * w.abs(), g.abs().mean(0) * w.abs()),
    ],
    "gradients_that_disagree": [
        lambda: DISAGREE,
        lambda: tuple(map(tuple, DISAGREE)),
        lambda: np.array(DISAGREE),
        lambda: torch.tensor(DISAGREE),
        lambda: [torch.tensor(row) for row in DISAGREE],
        lambda: [np.array(row, dtype=np.float32) for row in DISAGREE],
        lambda: torch.tensor([[-2.0, 3.0], [-2.0, -3.0], [0.0, 0.1]], requires_grad=True),
    ],
    "budget_from_scan": [
        lambda s, a: {n: np.float64(v) for n, v in budget(s, a).items()},
        lambda s, a: {n: torch.tensor(v) for n, v in budget(s, a).items()},
        lambda s, a: {n: v or 0 for n, v in budget(s, a).items()},
        lambda s, a: dict(reversed(budget(s, a).items())),
    ],
}
ANSWERS = [pytest.param(n, a, id=f"{n} {i}") for n in RIGHT for i, a in enumerate(RIGHT[n])]


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_right_answers_of_every_usual_type_pass(name, answer):
    verdict = getattr(exercises, name).check(answer)
    assert verdict == CORRECT, verdict.message
