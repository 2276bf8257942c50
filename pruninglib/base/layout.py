"""Which dimension of a weight its inputs lie along.

Linear layers and convolutions hold (outputs, inputs, ...); transposed convolutions hold (inputs,
outputs of a group, ...), and a tensor of that shape does not show it. So its type does.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from .running import tensors_in


class InputsFirst(Tensor):
    """Values in the shape of a transposed convolution's weight, (inputs, outputs of a group, ...).

    What has the same shape and is computed from them is of this type, too; all else is plain.
    """

    groups = 1

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        with torch._C.DisableTorchFunctionSubclass():
            found = func(*args, **kwargs)
        if not isinstance(found, Tensor):
            return found
        for source in tensors_in((args, kwargs)):
            if isinstance(source, cls) and source.shape == found.shape:
                return _inputs_first(found, source.groups)
        return found

    def __deepcopy__(self, memo: dict) -> Tensor:
        return memo.setdefault(id(self), self.detach().clone())


def _inputs_first(tensor: Tensor, groups: int) -> InputsFirst:
    tensor = tensor.as_subclass(InputsFirst)
    tensor.groups = groups
    return tensor


def as_held(
    model: nn.Module, weights: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """A tensor of each weight's shape, by its name: that of a transposed convolution says so."""
    transposed = [m for m in model.modules() if isinstance(m, _ConvTransposeNd)]
    groups = {id(m._parameters.get("weight")): m.groups for m in transposed}
    return {
        name: _inputs_first(t, groups[id(weights[name])]) if id(weights[name]) in groups else t
        for name, t in tensors.items()
    }


def outputs_first(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """(outputs, inputs of a group, ...), as a plain convolution would hold it.

    like: whose type and groups count. What was turned is turned back by a second call with it.
    """
    like = tensor if like is None else like
    if not isinstance(like, InputsFirst):
        return tensor
    return tensor.unflatten(0, (like.groups, -1)).transpose(1, 2).flatten(0, 1)
