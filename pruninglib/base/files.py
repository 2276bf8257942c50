"""Tensors on disk, without pickle, and never half a file."""

import itertools
import json
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd


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
    the file is damaged or holds another architecture, or sizes and tensors that don't fit together.
    Of what the modules hold nothing is set but whole numbers that have become smaller.
    """
    tensors, about = read_tensors(path)
    try:
        sizes = json.loads(about.get("sizes", "{}"))
        _check_sizes(sizes)
    except ValueError as error:
        raise ValueError(
            f"the sizes in {path} can't be read ({error}): write it with save_shrunk"
        ) from None
    own = dict(model.named_parameters()) | dict(model.named_buffers())
    ours, theirs = [*_sizes(model), *sorted(own)], [*sizes, *sorted(tensors)]
    for our, their in itertools.zip_longest(ours, theirs, fillvalue="nothing"):
        if our != their:
            raise ValueError(f"{path} holds another model: {their} where this one has {our}")
    modules, smaller = dict(model.named_modules()), {}
    for (name, module), new in zip(modules.items(), sizes.values(), strict=True):
        smaller[name] = {}
        for key, old in _own_sizes(module).items():
            size = tuple(new[key]) if isinstance(new.get(key), list) else new.get(key)
            if type(size) is not type(old) or len(_flat(size)) != len(_flat(old)):
                raise ValueError(f"{path} has {size!r} as {key} of {name}, where {old} was or less")
            if size != old and all(
                0 < s <= o for s, o in zip(_flat(size), _flat(old), strict=True)
            ):
                smaller[name][key] = size
    for name, tensor in tensors.items():
        prefix, _, last = name.rpartition(".")
        holds = _own_sizes(modules[prefix]) | smaller[prefix]
        shape = _shape(modules[prefix], last, holds, tensor, own[name])
        if tensor.shape != shape:
            raise ValueError(
                f"{path} has {name} with shape {tuple(tensor.shape)}, but {tuple(shape)} is what fits"
            )
    for name, tensor in tensors.items():
        own[name].data = tensor.to(own[name].device)  # the same parameter, so that ties stay
    for name, module in modules.items():
        for key, size in smaller[name].items():
            setattr(module, key, size)
    return model


def _check_sizes(sizes) -> None:
    """Raise ValueError unless these are whole numbers, or lists of them, by module and attribute."""
    if not isinstance(sizes, dict) or not all(isinstance(of, dict) for of in sizes.values()):
        raise ValueError("they are no dict of dicts")
    for name, attributes in sizes.items():
        for key, size in attributes.items():
            if {*map(type, size if isinstance(size, list) else [size])} - {int}:
                raise ValueError(f"{key} of {name} is {size!r}, but must be a whole number")


def _shape(module: nn.Module, name: str, holds: dict, tensor: Tensor, old: Tensor) -> torch.Size:
    """The shape of a module's tensor that goes with the sizes that the module holds."""
    if isinstance(module, _ConvNd):
        ends = [holds["out_channels"], holds["in_channels"]]
        ends = ends[::-1] if module.transposed else ends
        shape = (ends[0], ends[1] // holds["groups"], *holds["kernel_size"])
        layer = {"weight": shape, "bias": (holds["out_channels"],)}
    elif isinstance(module, nn.Linear):
        layer = {"weight": (holds["out_features"], holds["in_features"])}
        layer["bias"] = layer["weight"][:1]
    elif isinstance(module, nn.Embedding):
        layer = {"weight": (holds["num_embeddings"], holds["embedding_dim"])}
    elif isinstance(module, _NormBase):
        names = ("weight", "bias", "running_mean", "running_var")
        layer = dict.fromkeys(names, (holds["num_features"],))
    else:
        layer = {}
    if name in layer:
        return torch.Size(layer[name])
    # of other modules it is known only that nothing grows
    smaller = tensor.dim() == old.dim() and all(map(int.__le__, tensor.shape, old.shape))
    return tensor.shape if smaller else old.shape


def _flat(size: int | tuple[int, ...]) -> tuple[int, ...]:
    return size if isinstance(size, tuple) else (size,)


def _own_sizes(module: nn.Module) -> dict[str, int | tuple[int, ...]]:
    """The public integers, and tuples of them, that a module holds."""
    return {
        key: value
        for key, value in vars(module).items()
        if key[0] != "_" and {*map(type, value if type(value) is tuple else [value])} == {int}
    }


def _sizes(model: nn.Module) -> dict[str, dict[str, int | tuple[int, ...]]]:
    """What each module holds, by its name and type."""
    return {f"{n} ({type(m).__name__})": _own_sizes(m) for n, m in model.named_modules()}
