"""Tensors on disk, without pickle, and never half a file."""

import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor


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
