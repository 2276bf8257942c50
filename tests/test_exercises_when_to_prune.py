"""Right answers of lesson 04's exercises pass, in whatever type they come, and every time."""

import numpy as np
import pytest
import torch

from pruninglib.course import exercises
from pruninglib.course.exercises.exercise import CORRECT

cubic, front = exercises.cubic_by_step.solve, exercises.pareto_front.solve


def put_in_place(model, early, masks):
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(early[name])
            parameter[~masks.get(name, torch.ones_like(parameter, dtype=torch.bool))] = 0
    return model


def loaded_masked(model, early, masks):
    model.load_state_dict({n: p.clone() * masks.get(n, 1) for n, p in early.items()})


def drawn(masks):
    new = {}
    for name, mask in masks.items():
        places = np.random.default_rng(len(new)).permutation(mask.numel())[: int(mask.sum())]
        new[name] = torch.zeros(mask.numel(), dtype=torch.bool)
        new[name][places.tolist()] = True
        new[name] = new[name].view(mask.shape)
    return new


RIGHT = {
    "cubic_by_step": [
        lambda *given: np.float64(cubic(*given)),
        lambda *given: torch.tensor(cubic(*given), dtype=torch.float64),
        lambda *given: torch.tensor(cubic(*given)),
        lambda s, b, e, f: f - f * (1 - np.clip((s - b) / (e - b), 0, 1)) ** 3,
    ],
    "rewind": [put_in_place, loaded_masked],
    "shuffle_within_layers": [drawn],
    "pareto_front": [
        lambda *given: tuple(front(*given)),
        lambda *given: np.array(front(*given)),
        lambda *given: torch.tensor(front(*given)),
        lambda *given: [int(value) for value in front(*given)],
    ],
}
ANSWERS = [pytest.param(n, a, id=f"{n} {i}") for n in RIGHT for i, a in enumerate(RIGHT[n])]


@pytest.mark.parametrize(("name", "answer"), ANSWERS)
def test_right_answers_of_every_usual_type_pass(name, answer):
    verdict = getattr(exercises, name).check(answer)
    assert verdict == CORRECT, verdict.message


def test_no_random_order_is_taken_for_an_order():
    for seed in range(300):
        torch.manual_seed(seed)
        assert (
            exercises.shuffle_within_layers.check(exercises.shuffle_within_layers.solve) == CORRECT
        )
