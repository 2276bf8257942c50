"""How much does each layer bear? The scan that per-layer budgets are made from."""

from collections.abc import Callable, Iterable

import torch
from torch import nn

from .criteria import Scores, magnitude
from .grains import Grain, element
from .select import check_sparsity, select
from .weights import untouched, weights_of

Scan = dict[str, dict[float, float]]


def scan(
    model: nn.Module,
    metric: Callable[[nn.Module], float],
    sparsities: Iterable[float],
    *,
    scores: Scores | None = None,
    grain: Grain = element,
) -> Scan:
    """The metric with one layer pruned at a time, all others left whole.

    metric: a function of the model where higher is better, measured on validation data. (For a
        loss, pass its negative.)
    scores: whose lowest go first; default: magnitude of all prunable weights. Layers without
        scores are not scanned.

    Returns {name: {sparsity: metric}}, sparsity 0 always among them; `pandas.DataFrame(scan)`
    is the table of it. The model, its buffers and modes and the random state are left as found.
    The metric sees the same random state every time.
    """
    sparsities = sorted({*sparsities} - {0.0})
    for sparsity in sparsities:
        check_sparsity(sparsity)
    scores = magnitude(model) if scores is None else scores
    weights = weights_of(model, list(scores))

    def measure() -> float:
        with untouched(model):
            return float(metric(model))

    dense = measure()
    result = {name: {0.0: dense} for name in weights}
    for name, weight in weights.items():
        whole = weight.detach().clone()
        try:
            for sparsity in sparsities:
                mask = select({name: scores[name]}, sparsity, grain=grain)[name]
                with torch.no_grad():
                    weight.copy_(whole * mask)
                result[name][sparsity] = measure()
        finally:
            with torch.no_grad():
                weight.copy_(whole)
    return result
