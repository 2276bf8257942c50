"""A model's state: left as it was by whatever looks at a model."""

import contextlib

import torch
from torch import nn


@contextlib.contextmanager
def untouched(model: nn.Module):
    """Leave the block with the model and the random state as they were on entering it.

    Restores parameters and buffers (values), train / eval mode of every module,
    `requires_grad`, and the random generators of the CPU and of the current GPU. Gradients
    are left alone: what runs inside uses `torch.autograd.grad`, which never writes `.grad`.
    """
    tensors = [*model.parameters(), *model.buffers()]
    # a module may put another tensor in a buffer's place instead of writing into it
    places = [(m._buffers, n, b) for m in model.modules() for n, b in m._buffers.items()]
    values = [t.detach().clone() for t in tensors]
    needed = [(p, p.requires_grad) for p in model.parameters()]
    modes = [(module, module.training) for module in model.modules()]
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus):
        try:
            yield model
        finally:
            for buffers, name, buffer in places:
                buffers[name] = buffer
            with torch.no_grad():
                for tensor, value in zip(tensors, values, strict=True):
                    tensor.copy_(value)
            for parameter, flag in needed:
                parameter.requires_grad_(flag)
            for module, mode in modes:
                module.training = mode
