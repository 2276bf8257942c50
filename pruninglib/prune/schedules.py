"""*When*? A schedule is a function from progress t in [0, 1] to the sparsity due by then.

t = 0 is the start of pruning and t = 1 its end; sparsity is of the original weights and never
falls. To add a schedule, write a function here that returns such a function.
"""

import math
from collections.abc import Callable

from .select import check_sparsity

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
    check_sparsity(initial)
    check_sparsity(final)
    if initial > final:
        raise ValueError(f"initial is {initial}, above final {final}: sparsity never falls")
    return lambda t: final + (initial - final) * (1 - _progress(t)) ** 3


def _progress(t: float) -> float:
    if not 0 <= t <= 1:
        raise ValueError(f"t is {t}, but progress runs from 0 to 1")
    return t
