"""*What* is worth keeping? A criterion gives every weight a score; higher means keep.

A criterion is a function of a model that returns a dict from parameter name to a tensor of
that parameter's shape. To add one, write such a function here; nothing else has to know it.

    w    a weight                        g    the gradient of the loss with respect to w
    E    the mean over the samples       g_i  the gradient of sample i's loss alone

`loss(model, batch)` returns the mean loss over the batch, a scalar. `batches` is an iterable
of batches: tensors, or tuples, lists or dicts of tensors, with samples along dimension 0.
Gradients are taken in the mode (train or eval) in which the model is handed over. The model,
its buffers and gradients and the random state are left as they were.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from .weights import untouched, weights_of

Scores = dict[str, Tensor]
Loss = Callable[[nn.Module, Any], Tensor]


def magnitude(model: nn.Module, names: list[str] | None = None) -> Scores:
    """|w|: what is small is pruned first (Han et al., NeurIPS 2015)."""
    return {name: weight.detach().abs() for name, weight in weights_of(model, names).items()}


def random(model: nn.Module, names: list[str] | None = None, seed: int = 0) -> Scores:
    """Uniform noise in [0, 1): the control that every criterion must beat.

    Each weight's noise depends on `seed` and the order of names, never on the global
    random state, which is left alone.
    """
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.rand(weight.shape, generator=generator).to(weight.device)
        for name, weight in weights_of(model, names).items()
    }


def taylor(
    model: nn.Module,
    loss: Loss,
    batches: Iterable,
    names: list[str] | None = None,
    reading: str = "mean",
) -> Scores:
    """First-order change of the loss when a weight is removed: zeroing w changes it by -g·w.

    Three readings are in use, and they rank differently (`reading`):

    - "mean": |E[g·w]|, the change of the mean loss; near zero everywhere once training has
      converged, because samples cancel (Mozer & Smolensky, NeurIPS 1988);
    - "abs": E|g_i·w|, samples no longer cancel (Molchanov et al., ICLR 2017, per activation);
    - "square": E[(g_i·w)²] (Molchanov et al., CVPR 2019).
    """
    if reading == "mean":  # the mean over samples needs no more than the mean over batches
        gradients = _accumulate(model, loss, batches, names, lambda gradient: gradient)
    elif reading == "abs":
        gradients = _over_samples(model, loss, batches, names, torch.abs)
    elif reading == "square":
        gradients = _over_samples(model, loss, batches, names, torch.square)
    else:
        raise ValueError(f"reading is {reading!r}, but must be one of mean, abs, square")
    power = 2 if reading == "square" else 1
    weights = weights_of(model, names)
    return {
        name: (g * weights[name].detach().to(g.dtype) ** power).abs()
        for name, g in gradients.items()
    }


def snip(model: nn.Module, loss: Loss, batches: Iterable, names: list[str] | None = None) -> Scores:
    """|∂L/∂m| at m = 1 for a mask m on every weight, as a share of the sum over all of them.

    The derivative is g·w, so this is `taylor`'s first reading, meant for an untrained network
    (Lee et al., ICLR 2019). Absolute values are taken after summing over the batches. Scores
    lie in [0, 1] and add up to 1; dividing by the sum never changes the ranking.
    """
    scores = taylor(model, loss, batches, names, reading="mean")
    total = sum(float(score.double().sum()) for score in scores.values())
    if total == 0:
        raise ValueError("every gradient is zero: the loss does not depend on these weights")
    return {name: score / total for name, score in scores.items()}


def fisher(
    model: nn.Module, loss: Loss, batches: Iterable, names: list[str] | None = None
) -> Scores:
    """½·E[g_i²]·w²: the loss that removing w costs, to second order, at a minimum.

    Optimal Brain Damage (LeCun et al., NeurIPS 1989) with the diagonal of the Hessian replaced
    by that of the empirical Fisher information: the mean over *samples* of the squared gradient
    of each. Squaring a batch's mean gradient is another thing, smaller by orders of magnitude.
    In units of the loss.
    """
    information = _over_samples(model, loss, batches, names, torch.square)
    weights = weights_of(model, names)
    return {
        name: 0.5 * h * weights[name].detach().to(h.dtype) ** 2 for name, h in information.items()
    }


def _over_samples(model, loss, batches, names, transform) -> dict[str, Tensor]:
    """E[transform(g_i)]: one backward pass per sample, for what does not survive averaging."""
    samples = (sample for batch in batches for sample in _split(batch))
    return _accumulate(model, loss, samples, names, transform)


def _accumulate(model, loss, batches, names, transform) -> dict[str, Tensor]:
    """E[transform(gradient of a batch)], each sample counted once whatever the batches' sizes."""
    weights = weights_of(model, names)
    # Half precision would stop counting at a few hundred samples and square 1e-4 to zero.
    totals = {
        name: torch.zeros_like(weight, dtype=torch.promote_types(weight.dtype, torch.float32))
        for name, weight in weights.items()
    }
    count = 0
    with untouched(model), torch.enable_grad():
        for weight in weights.values():
            weight.requires_grad_(True)  # frozen layers have scores too
        for batch in batches:
            size = _size(batch)
            gradients = torch.autograd.grad(
                loss(model, batch), list(weights.values()), allow_unused=True
            )
            count += size
            for total, gradient in zip(totals.values(), gradients, strict=True):
                if gradient is not None:  # the loss may not reach every layer
                    total += size * transform(gradient.to(total.dtype))
    if count == 0:
        raise ValueError(
            "batches is empty: pass at least one batch (an iterator gives its batches only once)"
        )
    return {name: total / count for name, total in totals.items()}


def _size(batch) -> int:
    """Number of samples in a batch: the length of its first tensor."""
    while not isinstance(batch, Tensor):
        batch = next(iter(batch.values() if isinstance(batch, dict) else batch))
    return len(batch)


def _split(batch) -> Iterable:
    """The samples of a batch, each a batch of one."""
    for i in range(_size(batch)):
        yield _slice(batch, i)


def _slice(batch, i: int):
    if isinstance(batch, Tensor):
        return batch[i : i + 1]
    if isinstance(batch, dict):
        return {key: _slice(value, i) for key, value in batch.items()}
    values = [_slice(value, i) for value in batch]
    return type(batch)(*values) if hasattr(batch, "_fields") else type(batch)(values)
