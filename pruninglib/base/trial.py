"""Couplings tried out: units taken away from a copy against the same units silenced.

Only running the model shows what its code does with channels: a fixed size, a mean over them,
another order. All couplings are tried at once, and halves of them where that goes wrong.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode

from .coupling import Coupling, Couplings
from .running import as_written, changed, outputs_of, tensors_in
from .state import copied, same_random

TRIALS = 100  # then what is left is given up, as not tried
LOOKED_AT = 100_000  # values of each layer's output that are compared; of the model's, all
# Relative to the largest value of a tensor: what rounding in float32, or in half precision, may do.
# Code that runs in float64 often goes through float32.
TOLERANCES = {torch.float32: 3e-4, torch.float16: 2e-3, torch.bfloat16: 2e-2}
# Draws whose shape may depend on the channels that are left.
DRAWS = "bernoulli normal rand rand_like randn randn_like uniform exponential log_normal cauchy"


def without(model: nn.Module, groups: Mapping[str, Coupling], kept: Mapping[str, Tensor]) -> None:
    """Take away from a model, in place, all units but those kept: bool (units,) by group."""
    for (name, axis), keep in _slices(groups, kept).items():
        path, _, key = name.rpartition(".")
        old, places = _tensor(model, name), keep.nonzero().flatten()
        new = len(places) if isinstance(old, int) else old.index_select(axis, places.to(old.device))
        if isinstance(old, nn.Parameter):
            new = nn.Parameter(new, requires_grad=old.requires_grad)
        setattr(model.get_submodule(path), key, new)
    for path in {part.name.rpartition(".")[0] for name in kept for part in groups[name].parts}:
        _resize(model.get_submodule(path))
    for group, keep in kept.items():
        path, attributes = groups[group].counts
        for attribute in attributes:
            setattr(model.get_submodule(path), attribute, int(keep.sum()))


def _tensor(model: nn.Module, name: str) -> Tensor:
    path, _, key = name.rpartition(".")
    return getattr(model.get_submodule(path), key)


def _slices(
    groups: Mapping[str, Coupling],
    kept: Mapping[str, Tensor],
    roles: tuple[str, ...] = ("makes", "reads", "holds"),
) -> dict[tuple[str, int], Tensor]:
    """By tensor and axis which of its slices stay, bool; a tensor may lose some to several groups."""
    slices: dict[tuple[str, int], Tensor] = {}
    for group, keep in kept.items():
        keep = torch.cat([keep.cpu(), torch.ones(1, dtype=torch.bool)])  # unit -1 finds the last
        for part in groups[group].parts:
            if part.role not in roles:
                continue
            before = slices.get((part.name, part.axis), True)
            slices[part.name, part.axis] = before & keep[part.units]
    return slices


def _resize(module: nn.Module) -> None:
    """The sizes that a layer holds, from its tensors."""
    sizes = module.weight.shape if getattr(module, "weight", None) is not None else ()
    if isinstance(module, nn.Linear):
        module.out_features, module.in_features = sizes
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = sizes[1]
    elif isinstance(module, _ConvNd):
        if module.in_channels == module.groups == module.out_channels:
            module.groups = sizes[0]
        both = sizes[1] * module.groups, sizes[0]
        module.in_channels, module.out_channels = both[::-1] if module.transposed else both


class _Settled(TorchDispatchMode):
    """What is drawn inside does not depend on how many channels there are, nor on what was drawn."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__.rstrip("_")
        if name == "native_dropout":
            return args[0].clone(), torch.ones_like(args[0], dtype=torch.bool)
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.manual_seed(0)
        drawn = func(*args, **(kwargs or {}))
        if name in DRAWS.split() and drawn.is_floating_point():
            drawn.fill_(0.5)
        return drawn


class _DifferenceError(BaseException):
    """How a model without units is another than that with silent ones; no code should catch it."""


class _Seen(NamedTuple):
    """A tensor that a layer, or at the end the whole model, has given, or a sample of it."""

    name: str
    shape: torch.Size
    values: Tensor


class _Watch:
    """Sees what all layers with parameters, and then the model, give on an example.

    expected: what they should give; the first that does not ends the run with _DifferenceError.
    """

    def __init__(self, expected: list[_Seen] | None = None):
        self.seen: list[_Seen] = []
        self.expected = expected
        self.largest = max((_largest(one.values) for one in expected or ()), default=0.0)

    def run(self, model: nn.Module, example) -> list[_Seen]:
        hooks = [
            module.register_forward_hook(lambda _, __, given, name=name: self.look(name, given))
            for name, module in model.named_modules()
            if name and [*module.parameters(recurse=False)]
        ]
        try:
            self.look("", outputs_of(model, example))
        finally:
            for hook in hooks:
                hook.remove()
        if self.expected and len(self.seen) < len(self.expected):
            raise _DifferenceError("the model gives fewer outputs")
        return self.seen

    def look(self, name: str, given: Any) -> None:
        for tensor in tensors_in(given):
            values = tensor.detach()
            values = (torch.view_as_real(values) if values.is_complex() else values).flatten()
            values = values[:: 1 + len(values) // LOOKED_AT] if name else values
            self.seen.append(_Seen(name, tensor.shape, values.clone()))
            if self.expected is not None:
                wanted = self.expected[len(self.seen) - 1 : len(self.seen)]
                self.compare(self.seen[-1], *(wanted or [_Seen("nothing", torch.Size(), values)]))

    def compare(self, one: _Seen, other: _Seen) -> None:
        who = one.name or "the model"
        if one.name != other.name:
            raise _DifferenceError(f"{who} runs where {other.name or 'nothing'} did")
        if one.shape != other.shape:
            if one.name:
                return  # without the channels that are gone
            raise _DifferenceError(f"outputs are {tuple(one.shape)}, not {tuple(other.shape)}")
        new, old = one.values, other.values
        if not old.is_floating_point():
            if not new.equal(old):
                raise _DifferenceError(f"{who} gives other {old.dtype} values")
            return
        if not all(f(new).equal(f(old)) for f in (torch.isnan, torch.isposinf, torch.isneginf)):
            raise _DifferenceError(f"{who} gives infinities or NaN at other places")
        finite, scale = old.isfinite(), _largest(old)
        worst = float((new - old)[finite].abs().max()) if finite.any() else 0.0
        # what is but the rest of a difference of large values is as inexact as those
        rounding = 100 * torch.finfo(old.dtype).eps * self.largest
        if worst > max(TOLERANCES.get(old.dtype, 1e-6) * scale, rounding):
            raise _DifferenceError(f"what {who} gives, up to {scale:.3g}, differs by {worst:.3g}")


def _largest(values: Tensor) -> float:
    if not values.is_floating_point():
        return 0.0
    return float(values.nan_to_num(posinf=0, neginf=0).abs().max()) if len(values) else 0.0


class _Trials:
    """The same model and example, without the units of one set of couplings after the other."""

    def __init__(
        self,
        model: nn.Module,
        groups: Mapping[str, Coupling],
        kept: Mapping[str, Tensor],
        example: Any,
    ):
        self.model, self.groups, self.kept, self.example = model, groups, kept, example
        self.dtypes = [torch.float64, torch.float32]  # not all code runs in double precision
        self.left, self.draws = TRIALS, False

    def difference(self, names: list[str]) -> str:
        """Why some of these couplings are wrong; empty if they are right."""
        while True:
            try:
                with _default(self.dtypes[0]), _Settled() if self.draws else nullcontext():
                    return self.try_without(names)
            except Exception as error:  # whatever the model's code raises
                self.dtypes.pop(0)
                if not self.dtypes:
                    raise ValueError(
                        f"{type(self.model).__name__} runs neither in float64 nor in float32, so what "
                        f"is removed from it can't be checked ({error})"
                    ) from error

    def try_without(self, names: list[str]) -> str:
        kept, model = {name: self.kept[name] for name in names}, self.fresh()
        for (name, axis), keep in _slices(self.groups, kept, ("makes", "reads")).items():
            weight = _tensor(model, name)
            weight.index_fill_(axis, (~keep).nonzero().flatten().to(weight.device), 0)
        before = torch.get_rng_state()
        watch = _Watch(_Watch().run(model, self.inputs()))
        if not self.draws and not before.equal(torch.get_rng_state()):
            self.draws = True
            return self.difference(names)
        try:
            without(model, self.groups, kept)
            watch.run(model, self.inputs())
        except _DifferenceError as difference:
            return str(difference)
        except Exception as error:
            after = f" after {watch.seen[-1].name}" if watch.seen else ""
            return f"its code fails{after} ({type(error).__name__}: {str(error).split(chr(10))[0]})"
        return ""

    def fresh(self) -> nn.Module:
        """A copy in which no weight is zero: what nothing depends on could not be told apart."""
        model, random = copied(self.model), torch.Generator().manual_seed(0)
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.data = tensor.to(self.dtypes[0])
        for weight in model.parameters():
            if weight.is_floating_point() and (zero := weight == 0).any():
                scale = max(float(weight.flatten()[:LOOKED_AT].abs().mean()), 0.01)
                values = torch.randn(int(zero.sum()), generator=random, dtype=torch.float64)
                weight[zero] = (scale * values).to(weight)
        return model

    def inputs(self) -> Any:
        def cast(tensor: Tensor) -> Tensor:
            wide = tensor.is_floating_point()
            return tensor.to(self.dtypes[0], copy=True) if wide else tensor.clone()

        return changed(cast, self.example)

    def wrong(self, names: list[str]) -> dict[str, str]:
        """Of these couplings those that are wrong, and why."""
        if not names:
            return {}
        if not self.left:
            return dict.fromkeys(names, f"not tried: {TRIALS} trials did not tell right from wrong")
        self.left -= 1
        why = self.difference(names)
        if not why or len(names) == 1:
            return dict.fromkeys(names, why) if why else {}
        half = len(names) // 2
        found = self.wrong(names[:half]) | self.wrong(names[half:])
        return found or dict.fromkeys(names[half:], f"right alone, but with {names[0]}: {why}")


def wrong(
    model: nn.Module, groups: Mapping[str, Coupling], kept: Mapping[str, Tensor], example: Any
) -> dict[str, str]:
    """By coupling why to take its units away, but those kept, is not to silence them.

    kept: bool (units,) by coupling. Copies run on the example, from the same random state, in
    double precision where their code can; all layers' and the model's finite values must agree,
    and the others be the same. Zero weights are tried with other values. The model and the random
    state are left as found.
    """
    trials = _Trials(model, groups, kept, example)
    found: dict[str, str] = {}
    with same_random(), torch.inference_mode(False), torch.no_grad(), as_written(model):
        while new := trials.wrong([name for name in kept if name not in found]):
            found |= new  # and what was right in parts must be so together
    return found


def without_wrong(groups: Couplings, model: nn.Module, example: Any) -> Couplings:
    """The couplings that have several units and were tried; the others join those left out."""
    several = {name: group for name, group in groups.items() if group.units > 1}
    reasons = dict.fromkeys(groups.keys() - several.keys(), "it has a single unit")
    reasons |= wrong(model, several, _some_kept(several), example)
    left_out = {
        made: reasons[name]
        for name in reasons
        for made in groups[name].makes
        if _tensor(model, made).dim() > 1  # a weight
    }
    right = {name: group for name, group in groups.items() if name not in reasons}
    return Couplings(right, groups.left_out | left_out)


def _some_kept(groups: Mapping[str, Coupling]) -> dict[str, Tensor]:
    """All but about an eighth of each coupling's units, the same ones every time.

    Few, so that the network works on as before. To remove what lies like its mirror image is right
    even where code turns channels around, so places are chosen that are in no such order.
    """
    random = torch.Generator().manual_seed(0)
    kept = {}
    for name, group in groups.items():
        best = 1 << 30
        for _ in range(100):
            keep = torch.rand(group.units, generator=random) < 7 / 8
            keep[int(torch.randint(group.units, (), generator=random))] ^= keep.all() | ~keep.any()
            if (same := sum(keep[o].equal(keep) for o in _orders(group.units))) < best:
                kept[name], best = keep, same
            if not best:
                break
    return kept


def _orders(count: int) -> Iterator[Tensor]:
    """Orders in which code may put channels: mirrored, shuffled, all of them or in blocks."""
    places = torch.arange(count)
    for size in (d for d in range(2, count + 1) if count % d == 0):
        blocks = places.view(-1, size)
        for order in (blocks.t(), blocks.flip(0), blocks.flip(1)):
            if not (order := order.flatten()).equal(places):
                yield order


@contextmanager
def _default(dtype: torch.dtype):
    """What code makes without a dtype has this one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
