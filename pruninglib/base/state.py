"""A model's state: left as it was by whatever looks at a model."""

import contextlib
import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from .running import tensors_in


class State:
    """A model and the random generators as they are now, to go back to as often as needed.

    Holds the values of parameters and buffers, train / eval mode of every module,
    `requires_grad`, and the random state of the CPU and of the current GPU. Gradients are left
    alone: look with `torch.autograd.grad`, which never writes `.grad`.
    """

    def __init__(self, model: nn.Module):
        self.values = [(t, t.detach().clone()) for t in (*model.parameters(), *model.buffers())]
        # a module may put another tensor in a buffer's place instead of writing into it
        self.places = [(m._buffers, n, b) for m in model.modules() for n, b in m._buffers.items()]
        self.needed = [(p, p.requires_grad) for p in model.parameters()]
        self.modes = [(module, module.training) for module in model.modules()]
        self.random = torch.get_rng_state()
        self.random_gpu = torch.cuda.get_rng_state() if torch.cuda.is_available() else None

    def restore(self) -> None:
        for buffers, name, buffer in self.places:
            buffers[name] = buffer
        for tensor, value in self.values:
            tensor.data.copy_(value)  # unseen by autograd: a graph that needs it may be waiting
        for parameter, flag in self.needed:
            parameter.requires_grad_(flag)
        for module, mode in self.modes:
            module.training = mode
        torch.set_rng_state(self.random)
        if self.random_gpu is not None:
            torch.cuda.set_rng_state(self.random_gpu)


@contextlib.contextmanager
def untouched(model: nn.Module):
    """Leave the block with the model and the random state as they were on entering it."""
    state = State(model)
    try:
        yield model
    finally:
        state.restore()


@contextlib.contextmanager
def same_random():
    """Leave the block with the random state of the CPU and of the current GPU as it was."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(gpus):
        yield


def copied(model: nn.Module) -> nn.Module:
    """A copy, also of a model that keeps tensors inside which hang on an autograd graph.

    Such as a bias that is computed once and then kept; copy.deepcopy refuses those. Tensors of
    inference mode become ordinary ones.
    """
    memo: dict[int, Tensor] = {}
    for module in model.modules():
        for tensor in tensors_in(vars(module)):
            if not tensor.is_leaf:
                memo[id(tensor)] = tensor.detach().clone()
    return copy.deepcopy(model, memo)


def unwrapped(optimizer):
    """The optimizer itself, out of a wrapper such as accelerate's."""
    # a wrapper may be a subclass of Optimizer in name only, without the hooks of one
    while "_optimizer_step_post_hooks" not in vars(optimizer) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def trainer(optimizer, weights: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """`unwrapped`, where it trains some of the weights.

    Raises ValueError if it is no optimizer, or trains none of the weights.
    """
    inner = unwrapped(optimizer)
    if not isinstance(inner, torch.optim.Optimizer):
        raise ValueError(
            f"the optimizer is a {type(optimizer).__name__}, but must be a torch.optim.Optimizer, or "
            "hold one as its .optimizer"
        )
    trained = {id(p) for group in inner.param_groups for p in group["params"]}
    if not any(id(weight) in trained for weight in weights):
        raise ValueError(
            "the optimizer trains none of the weights to prune: was it made for another model?"
        )
    return inner
