"""*When*? A schedule is a function from progress t in [0, 1] to the sparsity due by then.

t = 0 is the start of pruning and t = 1 its end; sparsity is of the original weights and never
falls. To add a schedule, write a function here that returns such a function. Sparse training
moves its zeros instead: `regrow` is one such step, and `cosine` says how many to move by when.
"""

import math
from collections.abc import Callable

from ..base.checks import check_masks, check_scores, check_sparsity
from ..base.exact import keep_highest
from .criteria import Scores
from .select import Masks

Schedule = Callable[[float], float]


def one_shot(final: float) -> Schedule:
    """Everything at once, at the start."""
    check_sparsity(final)

    def schedule(t: float) -> float:
        _progress(t)
        return final

    return schedule


def iterative(final: float, rounds: int) -> Schedule:
    """In `rounds` equal shares of what is left: round i is due by t = i / rounds.

    Each round removes the same fraction of the weights still alive, so that after round i a
    fraction (1 - final)^(i / rounds) is left (Han et al., NeurIPS 2015; Frankle & Carbin,
    ICLR 2019). Between two rounds nothing is pruned.
    """
    check_sparsity(final)
    if rounds < 1 or rounds != int(rounds):
        raise ValueError(f"rounds is {rounds}, but must be a whole number, at least 1")

    def schedule(t: float) -> float:
        # 1e-9: at t = i / rounds, rounding must not start the next round
        done = math.ceil(_progress(t) * rounds - 1e-9)
        return final if done == rounds else 1 - (1 - final) ** (done / rounds)

    return schedule


def cubic(final: float, initial: float = 0.0) -> Schedule:
    """final + (initial - final)·(1 - t)³: fast while there is much to spare, then ever slower.

    The gradual schedule of Zhu & Gupta (ICLR workshop 2018).
    """
    check_sparsity(initial, "initial")
    check_sparsity(final)
    if initial > final:
        raise ValueError(f"initial is {initial}, above final {final}: sparsity never falls")
    return lambda t: final + (initial - final) * (1 - _progress(t)) ** 3


def cosine(initial: float = 0.3) -> Schedule:
    """initial/2·(1 + cos(π·t)): the fraction of the weights that `regrow` moves, down to none.

    RigL's choice (Evci et al., ICML 2020), with 0.3 as its default.
    """
    check_sparsity(initial, "initial")
    return lambda t: initial / 2 * (1 + math.cos(math.pi * _progress(t)))


def regrow(masks: Masks, fraction: float, *, drop: Scores, grow: Scores) -> Masks:
    """New masks with as many weights in every layer, some of them in other places.

    Of the n weights that a layer keeps, the round(fraction·n) with the lowest `drop` scores go
    and as many of the others come, those with the highest `grow` scores; a weight that has gone
    may come back. RigL (Evci et al., ICML 2020) drops by `magnitude` and grows by `gradient`;
    SET (Mocanu et al., Nature Communications 2018) grows at `random`. `apply` the new masks
    before training goes on: weights that come start from zero.
    """
    check_sparsity(fraction, "fraction")
    check_masks(masks)
    new = {}
    for name, mask in masks.items():
        for scores in (drop, grow):
            if name not in scores or scores[name].shape != mask.shape:
                raise ValueError(
                    f"drop and grow need scores of {name} of shape {tuple(mask.shape)}"
                )
            check_scores({name: scores[name]})
        kept = int(mask.count_nonzero())
        moved = round(fraction * kept)
        stays, pruned = drop[name].masked_fill(~mask, -math.inf), mask.numel() - kept
        stays = keep_highest([stays.flatten()], pruned + moved)[0].view(mask.shape)
        comes = grow[name].masked_fill(stays, math.inf)  # the best of the others beside what stays
        new[name] = keep_highest([comes.flatten()], pruned)[0].view(mask.shape)
    return new


def _progress(t: float) -> float:
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}, but progress runs from 0 to 1")
    return t
