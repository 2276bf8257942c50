"""How the benchmarks measure: side by side in time, apart in memory."""

import ctypes
import gc
import multiprocessing
import statistics
import time
from collections.abc import Callable


def side_by_side(repeats: int, **runs: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each run, taken in turn; the first round only warms up."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats + 1):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in times.items()}


def extra_memory(prepare: Callable[[], Callable[[], object]]) -> int | None:
    """Most bytes of physical memory that `prepare()()` takes beside what `prepare` left behind.

    Of the whole process, a new one, so that memory which no profiler of torch sees is counted
    too. None where the system does not tell (it needs Linux). `prepare` is a function of a module.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_extra_memory, [prepare])


def _extra_memory(prepare: Callable[[], Callable[[], object]]) -> int | None:
    run = prepare()
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # or free memory of before would be taken first
        with open("/proc/self/clear_refs", "w") as peak:
            peak.write("5")
        before = _peak()
        result = run()
        after = _peak()
    except OSError:
        return None
    del result  # until here, for it counts
    return after - before


def _peak() -> int:
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024
