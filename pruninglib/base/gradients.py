"""What data say of a model: the gradient of the mean loss, of each sample's loss, and inputs.

`weights` are parameters of the model by name; results have the same names. `loss(model, batch)`
returns the mean loss over a batch, a scalar. The model and the random state are left as found.
`samples` says how many a batch has, where its tensors don't (`running.size`).
"""

import contextlib
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad
from torch.nn.modules.batchnorm import _BatchNorm

from .checks import some
from .layout import as_held
from .running import Samples, as_written, call, changed, normal, size, take, tensors_in
from .state import untouched

Loss = Callable[[nn.Module, Any], Tensor]
Named = dict[str, Tensor]
Weights = dict[str, nn.Parameter]

CHECKED = 4  # samples of each batch on which the fast per-sample gradients must equal the loop's
AT_ONCE = 2**20  # elements of per-sample gradients at a time: few enough to stay in the cache


def mean_gradients(
    model: nn.Module,
    weights: Weights,
    loss: Loss,
    batches: Iterable,
    of: Callable[[Named], Tensor] | None = None,
    samples: Samples | None = None,
) -> Named:
    """E[g]: each sample counts once whatever the batches' sizes. In float32 or wider.

    of: a scalar function of a batch's gradients; then its gradient is what is averaged.
    """
    loss = _Watched(loss)

    def sums(batch) -> list[Tensor]:
        if of is None:
            found = _grad(loss(model, batch), weights)
        else:
            with sdpa_kernel(SDPBackend.MATH):  # fused attention can't be differentiated twice
                value = loss(model, batch)
                _check_twice(value)
                first = _grad(value, weights, create_graph=True)
                second = of(first)  # of a loss without curvature it is a constant
                found = (
                    _grad(second, weights)
                    if second.requires_grad
                    else {n: torch.zeros_like(w) for n, w in weights.items()}
                )
        return [size(batch, samples) * g.to(wide(g)) for g in found.values()]

    return _mean(model, weights, batches, sums, loss, samples)


ONCE = once_differentiable(lambda ctx: None).__code__  # what the decorator makes of any function


def _check_twice(value: Tensor) -> None:
    """Raise NotImplementedError if a function in the graph has a gradient without a gradient.

    Torch itself notices that only where the gradient that comes in depends on the weights.
    """
    seen, todo = set(), [value.grad_fn]
    while todo:
        node = todo.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        todo += [following for following, _ in node.next_functions]
        function = getattr(type(node), "_forward_cls", None)
        if getattr(getattr(function, "backward", None), "__code__", None) is ONCE:
            raise NotImplementedError(f"{function.__name__} is not implemented twice")


def over_samples(
    model: nn.Module,
    weights: Weights,
    loss: Loss,
    batches: Iterable,
    transform: Callable[[Tensor], Tensor],
    samples: Samples | None = None,
) -> Named:
    """E[transform(g_i)] for an elementwise transform with t(a·b) = t(a)·t(b): abs, square.

    For Linear, convolution and Embedding weights, one backward pass per batch gives the layers'
    inputs and the gradients of their outputs, and those each sample's gradient. That this
    equals the loop over samples is checked in every batch, on samples drawn at random; where it
    does not (another kind of layer, a loss that is no mean over samples, dropout) the loop is what
    runs, over all of the batches.
    """
    if any(isinstance(m, _BatchNorm) and m.training for m in model.modules()):
        raise ValueError(
            "a sample has no gradient of its own while BatchNorm takes its statistics from the "
            "batch: call model.eval() first"
        )
    loss = _Watched(loss)
    batches = list(batches) if iter(batches) is batches else batches  # they may be needed again
    generator = torch.Generator().manual_seed(0)

    def loop(batch) -> list[Tensor]:
        totals = [torch.zeros_like(w, dtype=wide(w)) for w in weights.values()]
        count = size(batch, samples)
        if count != 1 and count != size(batch):
            raise ValueError(
                f"a batch of {count} samples can't be taken apart by its tensors, which have length "
                f"{size(batch)}: pass batches of one sample"
            )
        for i in range(count):
            sample = take(batch, torch.tensor([i])) if count > 1 else batch
            for total, g in zip(totals, _grad(loss(model, sample), weights).values(), strict=True):
                total += transform(g.to(total.dtype))
        return totals

    def fast(batch) -> list[Tensor] | None:
        return _sums(model, loss, batch, weights, transform)

    def checked(batch) -> list[Tensor]:
        if size(batch, samples) < 2:  # from one sample no loss shows how it joins many
            return loop(batch)
        order = torch.randperm(size(batch), generator=generator)
        few = take(batch, order[:CHECKED])
        quick = fast(few)
        if quick is None or not all(map(_close, quick, loop(few))):
            raise _NotApart
        if not _is_mean(model, loss, batch, order):
            raise _NotApart
        return fast(batch)

    try:
        return _mean(model, weights, batches, checked, loss, samples)
    except _NotApart:
        return _mean(model, weights, batches, loop, loss, samples)


class _NotApart(Exception):
    """The fast way does not give each sample's gradient."""


def _is_mean(model: nn.Module, loss: Loss, batch, order: Tensor) -> bool:
    """Whether the loss of a batch is the mean of those of two random halves, by their sizes.

    A mean over tokens with padding, or over weighted classes, is none: samples weigh unequally.
    """
    halves = order.tensor_split(2)
    with torch.no_grad():
        whole, *parts = (loss(model, b) for b in (batch, *(take(batch, half) for half in halves)))
        mean = sum(len(half) * part.double() for half, part in zip(halves, parts, strict=True))
        tolerance = torch.finfo(whole.dtype).eps ** 0.5
        return torch.allclose(mean / len(order), whole.double(), rtol=tolerance, atol=1e-12)


def each_input(
    model: nn.Module,
    weights: Weights,
    loss: Loss,
    batches: Iterable,
    use: Callable[[str, Tensor], None],
) -> None:
    """use(name, inputs of shape (positions, features)) each time that a Linear layer is run.

    Warns of layers that no input reaches, an expert that no token was sent to. Raises ValueError if none
    reaches any.
    """
    unseen, hooks = set(weights), []

    def see(name: str, module: nn.Module, args: tuple, kwargs: dict) -> None:
        unseen.discard(name)
        x = (*args, *kwargs.values())[0]
        use(name, x.reshape(-1, module.in_features).to(wide(x)))

    owners = {name: owners_of(model, weight) for name, weight in weights.items()}
    for name, modules in owners.items():
        if not modules or any(type(m) is not nn.Linear for m in modules):
            raise ValueError(
                f"{name} is not the weight of Linear layers alone: leave it out of names"
            )
    try:
        for name, modules in owners.items():
            hook = partial(see, name)
            hooks += [m.register_forward_pre_hook(hook, with_kwargs=True) for m in modules]
        with untouched(model), as_written(model, loss), slow_attention(), torch.no_grad():
            for batch in batches:
                loss(model, batch)
    finally:
        for handle in hooks:
            handle.remove()
    if unseen == set(weights):
        raise ValueError(
            f"no input reached {some(sorted(unseen))}: batches is empty (an iterator gives "
            "its batches only once), or the model does not run the layer"
        )
    if unseen:
        warnings.warn(
            f"no input reached {some(sorted(unseen))} on these batches: of them only the weights are known",
            stacklevel=3,
        )


@contextlib.contextmanager
def slow_attention():
    """Without the fused path of nn.MultiheadAttention, which runs past its layers."""
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def plain_linear(model: nn.Module, names: Iterable[str]) -> list[str]:
    """Those of the names that are weights of `nn.Linear` itself alone: no other kind of layer, nor
    a subclass, has them too. Raises ValueError if there is none."""
    weights = dict(model.named_parameters(remove_duplicate=False))
    found = [n for n in names if {type(m) for m in owners_of(model, weights[n])} == {nn.Linear}]
    if not found:
        raise ValueError(f"{type(model).__name__} has no Linear layer with a weight of its own")
    return found


def second_moments(model: nn.Module, weight: Weights, loss: Loss, batches: Iterable) -> Tensor:
    """Σ x xᵀ over all inputs x of one Linear layer, (in, in), float64."""
    sums = []

    def add(_, x: Tensor) -> None:
        x = x.double()
        sums[:] = [sums[0] + x.T @ x if sums else x.T @ x]

    each_input(model, weight, loss, batches, add)
    return sums[0]


def wide(tensor: Tensor) -> torch.dtype:
    """Half precision would stop counting at a few hundred samples and square 1e-4 to zero."""
    return torch.promote_types(tensor.dtype, torch.float32)


def absolute_flow(model: nn.Module, weights: Weights, example) -> Named:
    """|w·∂R/∂w| for R, the summed outputs of the model of absolute values, parameters and buffers, on
    an example of ones, in evaluation mode and float64."""
    inner = model.module if isinstance(model, nn.DataParallel) else model
    tensors = {**dict(inner.named_parameters()), **dict(inner.named_buffers())}

    def absolute(t: Tensor) -> Tensor:
        return t.detach().double().abs() if t.is_floating_point() else t

    def one(t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64) if t.is_floating_point() else t

    with torch.inference_mode(False), untouched(model), as_written(model), torch.enable_grad():
        absolutes = {name: absolute(t) for name, t in tensors.items()}
        at = {id(t): absolutes[n] for n, t in tensors.items()}  # a tied weight has one name here
        leaves = [at[id(weight)].requires_grad_(True) for weight in weights.values()]

        def run(*args, **kwargs):
            return functional_call(inner, absolutes, args, kwargs)

        model.eval()
        outputs = tensors_in(call(run, changed(one, normal(example))))
        total = sum(t.sum() for t in outputs if t.is_floating_point())
        gradients = torch.autograd.grad(total, leaves, materialize_grads=True)
        products = [(g * w.detach()).abs() for g, w in zip(gradients, leaves, strict=True)]
        return as_held(model, weights, dict(zip(weights, products, strict=True)))


class _Watched:
    """A loss that remembers whether any of its values had a gradient."""

    def __init__(self, loss: Loss):
        self.loss, self.differentiable = loss, False

    def __call__(self, model: nn.Module, batch) -> Tensor:
        value = self.loss(model, batch)
        self.differentiable |= value.requires_grad
        return value


def _mean(
    model: nn.Module,
    weights: Weights,
    batches: Iterable,
    sums: Callable[[Any], Iterable[Tensor]],
    loss: _Watched,
    samples: Samples | None,
) -> Named:
    """The sums over all batches divided by the number of samples."""
    eager = as_written(model, loss.loss)
    with eager, torch.inference_mode(False), untouched(model), torch.enable_grad():
        totals = {n: torch.zeros_like(w, dtype=wide(w)) for n, w in weights.items()}
        count = 0
        for weight in weights.values():
            weight.requires_grad_(True)  # frozen layers have scores too
        for batch in map(normal, batches):
            count += size(batch, samples)
            for total, value in zip(totals.values(), sums(batch), strict=True):
                total += value.detach()
        if count == 0:
            raise ValueError(
                "batches is empty: pass at least one batch (an iterator gives its batches only once)"
            )
        if not loss.differentiable:
            raise ValueError(
                "the loss has no gradient: it was computed under no_grad, was detached, or does not "
                "depend on the model"
            )
        return as_held(model, weights, {name: total / count for name, total in totals.items()})


def _grad(value: Tensor, weights: Weights, create_graph: bool = False) -> Named:
    if not value.requires_grad:
        return {name: torch.zeros_like(weight) for name, weight in weights.items()}
    # materialized: the loss may not reach every layer
    found = torch.autograd.grad(
        value, list(weights.values()), create_graph=create_graph, materialize_grads=True
    )
    return dict(zip(weights, found, strict=True))


def _sums(model, loss, batch, weights, transform) -> list[Tensor] | None:
    """Σ transform(g_i) over a batch without a loop; None where that is not known."""
    runs: dict[int, list[tuple[nn.Module, Tensor, Tensor]]] = {id(w): [] for w in weights.values()}

    def remember(module, args, kwargs, output):
        if output.requires_grad:
            x = (*args, *kwargs.values())[0]
            runs[id(module.weight)].append((module, x.detach(), output))
        return output.clone()  # what comes next may write into it

    owners = [owners_of(model, weight) for weight in weights.values()]
    if not all(modules and {type(m) for m in modules} <= set(_RULES) for modules in owners):
        return None
    hooks = [m.register_forward_hook(remember, with_kwargs=True) for ms in owners for m in ms]
    try:
        value = loss(model, batch)
    finally:
        for hook in hooks:
            hook.remove()
    flat = [run for uses in runs.values() for run in uses]
    samples = size(batch)
    alike = all(_has_samples(module, a, samples) for module, a, _ in flat)
    if not (flat and alike and value.requires_grad):
        return None
    outputs = [output for _, _, output in flat]
    scale = torch.full_like(value, samples)  # here, for in half precision later is too late
    deltas = torch.autograd.grad(value, outputs, scale, materialize_grads=True)
    deltas, sums = iter(deltas), []
    for weight in weights.values():
        uses = [
            (module, a.to(wide(a)) if a.is_floating_point() else a, d.to(wide(d)))
            for (module, a, _), d in zip(runs[id(weight)], deltas, strict=False)
        ]
        sums.append(_sum_of(weight, uses, transform, samples))
    return sums


def _sum_of(weight, uses, transform, samples: int) -> Tensor:
    if len(uses) == 1 and type(uses[0][0]) is nn.Linear and uses[0][1].dim() == 2:
        _, a, d = uses[0]  # (samples, in), (samples, out)
        return transform(d).T @ transform(a)  # g_i = d_i a_iᵀ, so t(g_i) = t(d_i) t(a_i)ᵀ
    total = torch.zeros_like(weight, dtype=wide(weight))
    if not uses:
        return total
    step = max(1, AT_ONCE // max([weight.numel(), *(_cost(*use) for use in uses)]))
    for start in range(0, samples, step):
        part = slice(start, start + step)
        gradients = sum(_RULES[type(m)](m, a[part], d[part]) for m, a, d in uses)
        total += transform(gradients).sum(dim=0)
    return total


def _has_samples(module: nn.Module, a: Tensor, samples: int) -> bool:
    """Whether the input has samples along dimension 0, as far as its shape says."""
    least = {nn.Linear: 2, nn.Embedding: 1}.get(type(module), module.weight.dim())
    return a.dim() >= least and len(a) == samples


def _cost(module: nn.Module, a: Tensor, d: Tensor) -> int:
    """Elements that one sample needs on the way to its gradient."""
    return d[0].numel() * module.weight[0].numel()


def _linear(module: nn.Linear, a: Tensor, d: Tensor) -> Tensor:
    return torch.einsum("bto,bti->boi", _positions(d), _positions(a))


def _positions(t: Tensor) -> Tensor:
    """(samples, ..., features) -> (samples, positions, features)"""
    return t.reshape(len(t), -1, t.shape[-1])


def _embedding(module: nn.Embedding, a: Tensor, d: Tensor) -> Tensor:
    tokens, d = a.reshape(len(a), -1), _positions(d)
    if module.padding_idx is not None:
        d = d * (tokens != module.padding_idx).unsqueeze(-1)
    samples = torch.arange(len(tokens), device=tokens.device).unsqueeze(1).expand_as(tokens)
    empty = d.new_zeros(len(tokens), *module.weight.shape)
    return empty.index_put((samples, tokens), d, accumulate=True)


def _convolution(module, a: Tensor, d: Tensor) -> Tensor:
    places, taps = "xyz"[: a.dim() - 2], "uvw"[: a.dim() - 2]
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    a = pad(a, module._reversed_padding_repeated_twice, mode=mode)
    for i, (k, stride, gap) in enumerate(
        zip(module.kernel_size, module.stride, module.dilation, strict=True)
    ):
        a = a.unfold(2 + i, gap * (k - 1) + 1, stride)[..., ::gap]
    # (samples, groups, channels in or out of a group, places..., taps...)
    a, d = a.unflatten(1, (module.groups, -1)), d.unflatten(1, (module.groups, -1))
    gradient = torch.einsum(f"bgi{places}{taps},bgo{places}->bgoi{taps}", a, d)
    return gradient.flatten(1, 2)


_RULES = {
    nn.Linear: _linear,
    nn.Embedding: _embedding,
    nn.Conv1d: _convolution,
    nn.Conv2d: _convolution,
    nn.Conv3d: _convolution,
}


def owners_of(model: nn.Module, weight: nn.Parameter) -> list[nn.Module]:
    # a look at a computed weight computes it, which may change what it is made from
    return [m for m in model.modules() if m._parameters.get("weight") is weight]


def _close(one: Tensor, other: Tensor) -> bool:
    scale = float(other.abs().max())
    return torch.allclose(one, other, rtol=1e-3, atol=1e-5 * scale)
