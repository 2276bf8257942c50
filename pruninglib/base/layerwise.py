"""Layers changed one after another, each by what the changed ones before it give, in one run.

Every batch runs through the model in a thread of its own and stops where a layer is to be changed.
When all have come there, their inputs are at hand, the layer is changed, and they go on: time for one
run whatever the depth, and memory for what lies between two layers. One thread runs at a time.
"""

import contextlib
import contextvars
import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from graphlib import CycleError, TopologicalSorter

import torch
from torch import Tensor, nn

from .gradients import Loss, Weights, each_input, owners_of, second_moments, slow_attention, wide
from .running import as_written
from .state import untouched

Random = tuple[Tensor, Tensor | None]


def layer_by_layer(
    model: nn.Module,
    weights: Weights,
    loss: Loss,
    batches: Iterable,
    solve: Callable[[str, Tensor], Tensor],
) -> dict[str, Tensor]:
    """The weights of Linear layers that `solve` gives, in the order in which the layers run.

    solve(name, moments): moments is Σ x xᵀ over all inputs x of the layer, (in, in), float64, with the
    weights solved before it in their places. The model and the random state are left as found.
    Layers that no input reaches are left out; `each_input` warns of them.
    """
    batches, orders, states, before = list(batches), [], [], _versions(model)
    kept_as_it_was = []

    def watched() -> Iterator:
        for batch in batches:
            orders.append([])
            states.append(_random())
            yield batch
        kept_as_it_was.append(_versions(model) == before)

    each_input(model, weights, loss, watched(), lambda name, _: orders[-1].append(name))
    order, agreed = _joined(orders)
    again = {name for names in orders for name in names if names.count(name) > 1}
    # What a run changes in the model (running statistics) is another thing when batches take turns.
    if not (agreed and kept_as_it_was[0]):
        again = set(order)
    solved = {}

    def change(name: str, moments: Tensor) -> None:
        try:
            solved[name] = solve(name, moments).to(weights[name].dtype)
        except torch.linalg.LinAlgError:
            raise ValueError(f"the inputs of {name} have no inverse: raise damping") from None
        weights[name].data.copy_(solved[name])

    with untouched(model), as_written(model, loss), slow_attention(), torch.no_grad():
        if again == set(order):
            for name in order:
                change(name, second_moments(model, {name: weights[name]}, loss, batches))
            return solved
        place, reached = {name: i for i, name in enumerate(order)}, -1

        def see(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
            lane = getattr(_here, "lane", None)
            if lane is not None and place[name] > reached:
                lane.wait(name, (*args, *kwargs.values())[0])

        lanes, hooks = [], []
        try:
            for name in order:
                for module in owners_of(model, weights[name]):
                    hook = module.register_forward_pre_hook(partial(see, name), with_kwargs=True)
                    hooks.append(hook)
            for batch, state in zip(batches, states, strict=True):
                lanes.append(_Lane(partial(loss, model, batch), state))
            for lane in lanes:
                lane.go_on()
            for reached, name in enumerate(order):  # noqa: B007, for see looks at it
                waiting = [lane for lane in lanes if lane.at == name]
                if name in again:  # it has more inputs than the first, at which the lanes wait
                    change(name, second_moments(model, {name: weights[name]}, loss, batches))
                elif waiting:
                    change(name, sum(_moments(lane.x) for lane in waiting))
                for lane in waiting:
                    lane.go_on()
        finally:
            for lane in lanes:
                lane.end()
            for hook in hooks:
                hook.remove()
    return solved


_here = threading.local()


class _Ended(BaseException):
    """A lane is no longer needed."""


class _Lane:
    """One run that stops and goes on, with grad modes, autocast and random numbers of its own."""

    def __init__(self, run: Callable[[], object], random: Random):
        self.run, self.random, self.error, self.ended = run, random, None, False
        self.at, self.x = None, None
        self.mine, self.theirs = threading.Semaphore(0), threading.Semaphore(0)
        context, modes = contextvars.copy_context(), _modes()
        self.thread = threading.Thread(target=context.run, args=(self._run, modes), daemon=True)
        self.thread.start()

    def _run(self, modes: list) -> None:
        _here.lane = self
        self.mine.acquire()
        try:
            if not self.ended:
                with contextlib.ExitStack() as stack:
                    for mode in modes:
                        stack.enter_context(mode())
                    _set_random(self.random)
                    self.run()
        except _Ended:
            pass
        except BaseException as error:
            self.error = error
        self.at, self.x = None, None
        self.theirs.release()

    def wait(self, name: str, x: Tensor) -> None:
        """Called by the run: stop here."""
        self.at, self.x, self.random = name, x, _random()
        self.theirs.release()
        self.mine.acquire()
        if self.ended:
            raise _Ended
        _set_random(self.random)

    def go_on(self) -> None:
        """Called by the others: run to the next stop, or to the end."""
        self.x, outside = None, _random()
        self.mine.release()
        self.theirs.acquire()
        _set_random(outside)
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        self.ended = True
        self.mine.release()
        self.thread.join()


def _moments(x: Tensor) -> Tensor:
    x = x.reshape(-1, x.shape[-1]).to(wide(x)).double()
    return x.T @ x


def _joined(orders: list[list[str]]) -> tuple[list[str], bool]:
    """One order of layers from those of all batches, and whether all agree with it."""
    sorter = TopologicalSorter()
    for names in orders:
        names = list(dict.fromkeys(names))
        for earlier, later in zip([None, *names], names, strict=False):
            sorter.add(later, *([earlier] if earlier else []))
    try:
        return list(sorter.static_order()), True
    except CycleError:
        return list(dict.fromkeys(name for names in orders for name in names)), False


def _versions(model: nn.Module) -> list[tuple[int, int]]:
    tensors = (*model.parameters(), *model.buffers())
    return [(id(t), 0 if t.is_inference() else t._version) for t in tensors]


def _random() -> Random:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _set_random(state: Random) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1])


def _modes() -> list[Callable]:
    """What this thread has switched on, for another one: to be entered there."""
    # in this order, for leaving inference mode turns gradients on, and with them the graph is kept
    modes = [partial(torch.inference_mode, torch.is_inference_mode_enabled()), torch.no_grad]
    for kind in ("cpu", "cuda"):
        if torch.is_autocast_enabled(kind):
            modes.append(partial(torch.autocast, kind, torch.get_autocast_dtype(kind)))
    if torch.get_default_device().type != "cpu":
        modes.append(partial(torch.device, torch.get_default_device()))
    return modes
