"""How fast this machine is, in a unit that every machine can measure.

The unit is one training of the bundled digits network on one thread. Lessons state their time in
seconds of the reference machine; a machine's factor says how many seconds one of those takes there.
"""

import time
from collections.abc import Callable

import torch

from ..tasks.digits import digits

REFERENCE = 0.18  # seconds of a unit on the machine that the lessons were made with:
# a virtual machine with two cores of an AMD EPYC, with nothing else running
BUDGET = 330  # units that a lesson may cost: a minute on the reference machine


def unit(clock: Callable[[], float] = time.perf_counter, repeats: int = 3) -> float:
    """Seconds of one unit on this machine, the best of `repeats`, by `clock`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = digits()
        seconds = []
        for _ in range(repeats + 1):  # the first one warms up
            model = task.build(0)
            began = clock()
            task.train(model, seed=0)
            seconds.append(clock() - began)
        return min(seconds[1:])
    finally:
        torch.set_num_threads(threads)


def factor() -> float:
    """How many seconds a second of the reference machine takes here."""
    return unit() / REFERENCE
