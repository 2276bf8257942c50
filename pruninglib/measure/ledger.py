"""What a model costs: parameters, bytes stored, arithmetic, time and memory."""

import gzip
import itertools
import json
import math
import os
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import safetensors.torch
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from ..base.running import call
from ..base.state import untouched


def ledger(model: nn.Module, example, *, repeats: int = 30) -> dict[str, float]:
    """The cost of a model on `example`: a batch of inputs, a tuple or a mapping of them.

    - parameters, nonzeros: counts, tied weights once;
    - bytes_dense: all parameters and buffers as they lie in memory;
    - bytes_sparse: the same with every weight matrix stored in the cheaper of two ways, dense
      or compressed rows (values, a 4-byte column index each, 4 bytes per row and one more);
    - bytes_gzip: the weights' file (safetensors) after gzip;
    - macs: multiply-accumulates of one forward pass. Zeros are multiplied too;
    - latency_ms, with latency_low_ms and latency_high_ms: median and quartiles of `repeats`
      forward passes after a warm-up;
    - peak_bytes: parameters, buffers and the most that a forward pass holds beside them.

    Everything is measured in evaluation mode; the model and random state are left as found.
    """
    # a tied weight is one tensor under several names, and counts once
    tensors = [
        t.detach() for t in {id(t): t for t in (*model.parameters(), *model.buffers())}.values()
    ]
    parameters = list(model.parameters())
    standing = sum(_dense_bytes(t) for t in tensors)
    with untouched(model), torch.no_grad():
        model.eval()
        times = latencies(lambda: call(model, example), repeats)
        low, median, high = statistics.quantiles(times, n=4)
        return {
            "parameters": sum(p.numel() for p in parameters),
            "nonzeros": sum(int(p.count_nonzero()) for p in parameters),
            "bytes_dense": standing,
            "bytes_sparse": sum(_sparse_bytes(t) for t in tensors),
            "bytes_gzip": _gzip_bytes(tensors),
            "macs": macs(model, example),
            "latency_ms": median * 1e3,
            "latency_low_ms": low * 1e3,
            "latency_high_ms": high * 1e3,
            "peak_bytes": standing + peak_allocation(lambda: call(model, example)),
        }


def macs(model: nn.Module, example) -> int:
    """Multiply-accumulates of one forward pass on `example`: matrix products, convolutions, attention.

    Half of what torch's flop counter counts, with what it leaves out: recurrent layers, Bilinear,
    products with vectors. Additions of biases, norms and activations are left out. Counted in
    evaluation mode; the model and random state are left as found. Raises ValueError for a product
    that can't be counted (sparse, quantized).
    """
    # The fused path of nn.MultiheadAttention hides its products from the counter.
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        counter = FlopCounterMode(display=False, custom_mapping=_FLOPS)
        with untouched(model), _Products() as products, counter, torch.no_grad():
            model.eval()
            call(model, example)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
    if missed := [str(p) for p in products.seen if p not in counter.flop_registry]:
        raise ValueError(f"the multiplications of {', '.join(sorted(missed))} can't be counted")
    return counter.get_total_flops() // 2


class _Products(TorchDispatchMode):
    """Remembers which operators that multiply matrices are run."""

    def __init__(self):
        super().__init__()
        self.seen = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        packet = func.overloadpacket
        if _PRODUCT.search(packet.__name__):
            self.seen.add(packet)
        return func(*args, **(kwargs or {}))


_PRODUCT = re.compile(
    r"(^|_)(b?mm|addb?mm|baddbmm|mv|addmv|v?dot|trilinear|linear|matmul|rnn|attention|conv[123]d|convolution)(_|$)"
)


def _two_for_each(*shapes) -> int:
    return 2 * math.prod(itertools.chain(*shapes))


def _of_recurrence(x, *weights) -> int:
    """Each matrix once for each sample and step."""
    return _two_for_each(x[:-1]) * sum(math.prod(w) for w in weights if len(w) == 2)


def _of_trilinear(a, b, c, *missing, **_) -> int:
    """Three tensors, each without some of the dimensions of their product."""
    return _two_for_each(
        torch.broadcast_shapes(
            *(_with_ones(shape, dims) for shape, dims in zip((a, b, c), missing, strict=False))
        )
    )


def _with_ones(shape, dims) -> list[int]:
    shape = [*shape]
    for dim in sorted(dims):
        shape.insert(dim, 1)
    return shape


aten = torch.ops.aten
_FLOPS = {  # of the shapes of an operator's tensors; two operations make one multiply-accumulate
    aten.mv: lambda matrix, vector, **_: _two_for_each(matrix),
    aten.addmv: lambda start, matrix, vector, *_, **__: _two_for_each(matrix),
    aten.dot: lambda one, other, **_: _two_for_each(one),
    aten.vdot: lambda one, other, **_: _two_for_each(one),
    aten.addbmm: lambda start, a, b, *_, **__: _two_for_each(a, b[-1:]),
    aten._trilinear: _of_trilinear,
    aten.mkldnn_rnn_layer: lambda x, w0, w1, *_, **__: _of_recurrence(x, w0, w1),
    aten._cudnn_rnn: lambda x, weights, *_, **__: _of_recurrence(x, *weights),
}


def latencies(run: Callable[[], object], repeats: int = 30) -> list[float]:
    """Seconds of each of `repeats` calls (at least two), after three that warm up."""
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for _ in range(max(2, repeats) + 3):
        wait()
        start = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - start)
    return times[3:]


def in_turn(
    jobs: dict[str, Callable[[], object]], rounds: int = 30, repeats: int = 3
) -> pd.DataFrame:
    """Seconds of each job, a row a round: the best of `repeats` calls, on one thread.

    Jobs take turns, in an order drawn anew for every round, so that whatever else the machine does
    hits all: compare within a row. Of several threads one would wait for another.
    """
    rng, names, rows = np.random.default_rng(0), list(jobs), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(rounds):
            order = [names[i] for i in rng.permutation(len(names))]
            rows.append({name: min(latencies(jobs[name], repeats)) for name in order})
    finally:
        torch.set_num_threads(threads)
    return pd.DataFrame(rows, columns=names)


def peak_allocation(run: Callable[[], object]) -> int:
    """The most bytes that `run()` holds at one moment beside what was there before.

    On the CPU and, if there is one, on the GPU; the two are added up.
    """
    gpu = torch.cuda.is_available()
    if gpu:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    # Else the profiler writes about missing GPUs to the output of whoever measures memory.
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    changes = sorted(
        (e["ts"], e["args"]["Bytes"])
        for e in events
        if e["name"] == "[memory]" and e["args"]["Device Type"] == 0  # 0 is the CPU
    )
    peak = max(itertools.accumulate((change for _, change in changes), initial=0))
    return peak + (torch.cuda.max_memory_allocated() - before if gpu else 0)


def _dense_bytes(tensor: torch.Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _sparse_bytes(tensor: torch.Tensor) -> int:
    if tensor.dim() < 2:
        return _dense_bytes(tensor)
    index = 4  # bytes: a column for each value, and where each row begins, and the last one ends
    compressed = int(tensor.count_nonzero()) * (tensor.element_size() + index)
    compressed += (len(tensor) + 1) * index
    return min(_dense_bytes(tensor), compressed)


def _gzip_bytes(tensors: list[torch.Tensor]) -> int:
    # copies, for the format refuses tensors that share memory
    copies = [t.cpu().clone(memory_format=torch.contiguous_format) for t in tensors]
    named = {str(i): t for i, t in enumerate(copies)}
    return len(gzip.compress(safetensors.torch.save(named), mtime=0))
