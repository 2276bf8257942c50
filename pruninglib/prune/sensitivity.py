"""How much does each layer bear? The scan that per-layer budgets are made from."""

from collections.abc import Callable, Iterable

from torch import nn

from ..base.checks import check_sparsity
from ..base.layout import as_held
from ..base.state import State
from .criteria import Scores, magnitude
from .grains import Grain, element
from .masks import paired
from .select import Masks, select
from .weights import weights_of

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
    scores = as_held(model, weights, scores)
    state = State(model)  # one for the whole scan: taking it costs as much as a copy

    def measure(masks: Masks | None = None) -> float:
        try:
            for weight, mask in paired(model, masks) if masks else ():
                weight.data.masked_fill_(~mask.to(weight.device), 0)  # unseen by autograd, as State
            return float(metric(model))
        finally:
            state.restore()

    dense = measure()
    result = {name: {0.0: dense} for name in weights}
    for name in weights:
        for sparsity in sparsities:
            masks = select({name: scores[name]}, sparsity, grain=grain)
            result[name][sparsity] = measure(masks)
    return result
