"""One convention for what runs a model, wherever one is run.

An *example* is what a model is called with: a mapping goes in as `model(**example)`, a tuple as
`model(*example)`, and all else (a tensor, a list of images) as `model(example)`. A *batch* is an
example, or a tuple or list that begins with one: (inputs, targets). Parts that are no tensors
(strings, None, numbers) stay as they are. Outputs may be tuples, lists, mappings and dataclasses.
"""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Samples = Callable[[Any], int]  # the number of samples of a batch


def call(model: nn.Module, example) -> Any:
    """The model's outputs on an example."""
    if isinstance(example, Mapping):
        return model(**example)
    return model(*example) if isinstance(example, tuple) else model(example)


@contextlib.contextmanager
def as_written(*things: nn.Module | Callable):
    """Inside the block what torch.compile made of models, of parts of them, or of functions that run
    them is run uncompiled; without arguments, of whatever runs.

    Compiled code may call no hooks of modules that came later, has no autograd functions of single
    operations, and can't be differentiated twice.
    """
    eager = not things or any(map(_compiled, things))
    with torch.compiler.set_stance("force_eager") if eager else contextlib.nullcontext():
        yield


def _compiled(thing: nn.Module | Callable) -> bool:
    if isinstance(thing, nn.Module):
        modules = [*thing.modules()]
        return any(m._compiled_call_impl for m in modules) or any(
            _compiled(m.forward) for m in modules
        )
    return hasattr(thing, "_torchdynamo_orig_callable")


def outputs_of(model: nn.Module, example) -> list[Any]:
    """The outputs in evaluation mode and, where layers were idle, in training mode if that runs.

    In training mode a network may have further heads. Norms keep their own statistics there.
    Leaves the model in another mode, and its buffers as the passes left them.
    """
    used: set[nn.Module] = set()
    hooks = [m.register_forward_pre_hook(lambda m, _: used.add(m)) for m in model.modules()]
    try:
        outputs = [call(model.eval(), example)]
    finally:
        for hook in hooks:
            hook.remove()
    idle = {m for m in model.modules() if [*m.parameters(recurse=False)]} - used
    if idle and not all(
        isinstance(m, nn.modules.linear.NonDynamicallyQuantizableLinear) for m in idle
    ):
        for module in model.train().modules():
            module.training = not isinstance(module, _NormBase)
        with contextlib.suppress(Exception):  # it may need targets, or take other inputs
            outputs.append(call(model, example))
    return outputs


def inputs_of(batch) -> Any:
    """The example that a batch is, or begins with."""
    return batch[0] if isinstance(batch, tuple | list) else batch


def tensors_in(tree) -> Iterator[Tensor]:
    """Every tensor in tuples, lists, mappings and dataclasses, in their order."""
    if isinstance(tree, Tensor):
        yield tree
    elif parts := _parts(tree):
        for part in parts:
            yield from tensors_in(part)


def changed(change: Callable[[Tensor], Tensor], tree) -> Any:
    """The same tree with other tensors."""
    if isinstance(tree, Tensor):
        return change(tree)
    return _rebuilt(tree, lambda part: changed(change, part))


def size(batch, samples: Samples | None = None) -> int:
    """The number of samples in a batch: what `samples` says or, without it, what all its tensors
    have as their length.

    A list inside a batch may hold one tensor for each sample (images of several sizes), or several
    for all of them: what agrees with the rest of the batch counts.
    Raises ValueError where nothing does, or more than one number.
    """
    if samples is not None:
        return int(samples(batch))
    found = _lengths(tuple(batch) if isinstance(batch, list) else batch)
    if found is None:
        raise ValueError(
            f"a batch is a {type(batch).__name__} without tensors: pass an iterable of batches, for "
            "one batch a list with it"
        )
    if len(found) != 1:
        seen = ", ".join(str(tuple(t.shape)) for t in tensors_in(batch))
        raise ValueError(
            f"the tensors of a batch, {seen}, do not agree on a number of samples: give it, as "
            "samples=, a function of the batch"
        )
    return found.pop()


def take(batch, picked: Tensor) -> Any:
    """The samples at these places, int64 (n,), of a batch whose `size` is known without being told."""
    count = size(batch)
    # a list of as many tensors, each of this length, may be samples or inputs: with a tensor beside
    # it, such as targets that a loader has stacked, it is inputs
    stacked = any(isinstance(part, Tensor) and part.dim() for part in _parts(batch))

    def some(part, inside: bool = True):
        if isinstance(part, Tensor):
            return part[picked.to(part.device)] if part.dim() else part
        if inside and isinstance(part, list):
            inputs = _common(map(_lengths, part)) == {count} and (stacked or len(part) != count)
            if not inputs:
                return [part[i] for i in picked.tolist()] if len(part) == count else part
        return _rebuilt(part, some)

    return some(batch, inside=False)


def _rebuilt(tree, change: Callable) -> Any:
    """The same tree with other parts."""
    if isinstance(tree, Mapping):
        other = copy.copy(tree)  # of the same type
        other.update({key: change(value) for key, value in tree.items()})
        return other
    if isinstance(tree, tuple | list):
        values = [change(value) for value in tree]
        return type(tree)(*values) if hasattr(tree, "_fields") else type(tree)(values)
    return tree


def _parts(tree) -> list:
    if isinstance(tree, Mapping):
        return [*tree.values()]
    if isinstance(tree, tuple | list):
        return [*tree]
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        return [getattr(tree, field.name) for field in dataclasses.fields(tree)]
    return []


def _lengths(part) -> set[int] | None:
    """The numbers of samples that a part of a batch may have; None where any will do."""
    if isinstance(part, Tensor):
        return {len(part)} if part.dim() else None
    common = _common(map(_lengths, _parts(part)))
    if isinstance(part, list) and common is not None:
        return {len(part), *common}
    return common


def _common(found) -> set[int] | None:
    known = [lengths for lengths in found if lengths is not None]
    return set.intersection(*known) if known else None


def normal(tree) -> Any:
    """The same tree with tensors that autograd takes: those of inference mode are copied."""
    with torch.inference_mode(False):
        return changed(lambda t: t.clone() if t.is_inference() else t, tree)
