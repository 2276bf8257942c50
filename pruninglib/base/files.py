"""Tensors on disk, without pickle, and never half a file."""

import itertools
import json
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn


def write_tensors(
    tensors: dict[str, Tensor], path: str | os.PathLike, about: dict[str, str] | None = None
) -> None:
    """Write a safetensors file. An earlier file is replaced only by a whole one."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"the folder {path.parent} does not exist: make it first")
    part = path.with_name(path.name + ".part")
    # copies, for the format refuses tensors that share memory
    plain = {
        n: t.detach().cpu().clone(memory_format=torch.contiguous_format) for n, t in tensors.items()
    }
    try:
        safetensors.torch.save_file(plain, part, about)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_tensors(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What `write_tensors` wrote: tensors and `about`. Raises ValueError for a damaged file."""
    try:
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is no whole safetensors file ({error}): save it again") from None


def save_shrunk(model: nn.Module, path: str | os.PathLike) -> None:
    """Write a model's tensors, and the sizes that its modules hold, to a safetensors file."""
    # a tied tensor is written once
    tensors = dict(model.named_parameters()) | dict(model.named_buffers())
    write_tensors(tensors, path, {"sizes": json.dumps(_sizes(model))})


def load_shrunk(model: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Give a freshly built, full-size model the tensors and sizes that `save_shrunk` wrote.

    Returns the model, with the file's dtypes. Raises ValueError, before anything is changed, if
    the file is damaged or holds another architecture.
    """
    tensors, about = read_tensors(path)
    sizes = json.loads(about.get("sizes", "{}"))
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    ours, theirs = [*_sizes(model), *sorted(own)], [*sizes, *sorted(tensors)]
    for our, their in itertools.zip_longest(ours, theirs, fillvalue="nothing"):
        if our != their:
            raise ValueError(f"{path} holds another model: {their} where this one has {our}")
    for name, tensor in tensors.items():
        own[name].data = tensor.to(own[name].device)  # the same parameter, so that ties stay
    for module, attributes in zip(model.modules(), sizes.values(), strict=True):
        for key, size in attributes.items():
            setattr(module, key, tuple(size) if isinstance(size, list) else size)
    return model


def _sizes(model: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    """The public integers, and tuples of them, that each module holds."""
    return {
        f"{name} ({type(module).__name__})": {
            key: value
            for key, value in vars(module).items()
            if key[0] != "_" and {*map(type, value if type(value) is tuple else [value])} == {int}
        }
        for name, module in model.named_modules()
    }
