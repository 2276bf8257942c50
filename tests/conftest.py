"""What several test files share."""

import contextlib
import os
import re
import tempfile

import matplotlib
import pytest
import torch
from hypothesis import settings
from torch import nn

matplotlib.use("Agg")
# The same examples every time, and nothing written beside the tests.
os.environ.setdefault("HYPOTHESIS_STORAGE_DIRECTORY", tempfile.gettempdir())
settings.register_profile("course", derandomize=True, database=None, deadline=None)
settings.load_profile("course")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """One worker for each group of tests. (loadgroup of pytest-xdist 3.8 is blind with pytest 9.2.)"""
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            return group_of(nodeid)

    return Scheduling(config, log)


def group_of(nodeid: str) -> str:
    """A lesson's tests share its runs, those of a cluster its time; all others stand alone."""
    lesson = re.search(r"test_notebooks\.py::.*[\[-](\d\d_\w+)\]$", nodeid)
    if lesson:
        return lesson[1]
    return "cluster" if "cluster" in nodeid else nodeid


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.fixture
def model() -> nn.Module:
    """Two prunable layers of 24 and 18 weights, with biases."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))


@pytest.fixture
def batches() -> list:
    """Eleven samples of three classes for `model`, in batches of unequal size."""
    generator = torch.Generator().manual_seed(1)
    inputs, targets = torch.randn(11, 4, generator=generator), torch.arange(11) % 3
    return [*zip(inputs.split([5, 4, 2]), targets.split([5, 4, 2]), strict=True)]


def cross_entropy(model, batch):
    inputs, targets = batch
    return nn.functional.cross_entropy(model(inputs), targets)


@pytest.fixture(name="loss")
def loss_fixture():
    return cross_entropy


@pytest.fixture
def as_found():
    """A context that fails unless the model and the random state come out as they went in."""

    def state(model):
        tensors = {n: t.detach().clone() for n, t in model.state_dict(keep_vars=True).items()}
        flags = [(p.requires_grad, p.grad, None if p.grad is None else p.grad.clone())
                 for p in model.parameters()]  # fmt: skip
        hooks = [len(p._post_accumulate_grad_hooks or ()) for p in model.parameters()]
        modes = [m.training for m in model.modules()]
        return tensors, flags, hooks, modes, torch.get_rng_state()

    @contextlib.contextmanager
    def check(model):
        tensors, flags, hooks, modes, rng = state(model)
        yield
        now = state(model)
        assert list(tensors) == list(now[0])
        for name, tensor in tensors.items():
            assert tensor.equal(now[0][name]), f"{name} changed"
            if tensor.is_floating_point():
                assert tensor.signbit().equal(now[0][name].signbit()), f"{name} changed its sign"
        for (needed, grad, value), (needed_now, grad_now, value_now) in zip(
            flags, now[1], strict=True
        ):
            assert needed == needed_now and grad is grad_now
            assert grad is None or value.equal(value_now)
        assert hooks == now[2] and modes == now[3]
        assert rng.equal(now[4]), "random numbers were drawn"

    return check


def pytest_terminal_summary(terminalreporter):
    """What the checks of each lesson cost, beside its own run."""
    reports = terminalreporter.getreports("passed") + terminalreporter.getreports("failed")
    costs = {value for r in reports for name, value in r.user_properties if name == "cost"}
    if costs:
        terminalreporter.section("CPU time: a lesson, and all its checks in times of that")
        for cost in sorted(costs):
            terminalreporter.write_line(cost)
