"""ResNet-18 with channels removed, beside Torch-Pruning driven directly."""

import copy
from collections.abc import Callable

import torch
import torch_pruning as tp
from torch import nn
from torchvision.models import resnet18

import pruninglib as pl

from .measuring import side_by_side

# Channels kept by the stem with stage 1, and by stages 2 to 4. Where images are large the cost is
# in moving memory, which shrinks with the width and not with its square: so prune there more.
HALF = (32, 64, 128, 256)
CHOSEN = (16, 96, 192, 256)


def ours(model: nn.Module, example: torch.Tensor, widths: tuple[int, ...]) -> nn.Module:
    groups = pl.coupled(model, example)
    scores = pl.pool(pl.magnitude(model), groups)
    kept = {}
    for name, score in scores.items():
        stage = 1 if name.startswith("conv1") else int(name.removeprefix("layer")[0])
        kept |= pl.select({name: score}, 1 - widths[stage - 1] / len(score))
    return pl.shrink(model, pl.spread(kept, groups), example)


def theirs(model: nn.Module, example: torch.Tensor) -> nn.Module:
    model = copy.deepcopy(model)
    importance = tp.importance.MagnitudeImportance(p=1)
    pruner = tp.pruner.MagnitudePruner(
        model, example, importance, pruning_ratio=1 / 2, ignored_layers=[model.fc]
    )
    pruner.step()
    return model


def removed_channels() -> list[dict]:
    """ResNet-18 at half width: latency against Torch-Pruning's, and against the ideal."""
    torch.manual_seed(0)
    dense, example = resnet18(weights=None).eval(), torch.rand(1, 3, 224, 224)
    models = {
        "dense": dense,
        "half": ours(dense, example, HALF),
        "chosen": ours(dense, example, CHOSEN),
        "peer": theirs(dense, example),
    }
    macs = {name: pl.macs(model, example) for name, model in models.items()}
    rows = [
        {
            "work": "ResNet-18 at half width: MACs",
            "peer is": "Torch-Pruning",
            "ours": macs["half"],
            "peer": macs["peer"],
            "to reach": 1.0,
        }
    ]
    for batch, repeats in ((32, 9), (1, 50)):
        images = torch.rand(batch, 3, 224, 224)

        def run(model: nn.Module, images=images) -> Callable[[], object]:
            return torch.inference_mode()(lambda: model(images))

        seconds = side_by_side(repeats, **{name: run(model) for name, model in models.items()})
        rows.append(
            {
                "work": f"ResNet-18 at half width, batch {batch}: seconds",
                "peer is": "Torch-Pruning",
                "ours": seconds["half"],
                "peer": seconds["peer"],
                "to reach": 1.0,
            }
        )
        for name, widths in (("half", HALF), ("chosen", CHOSEN)):
            ideal, measured = macs["dense"] / macs[name], seconds["dense"] / seconds[name]
            rows.append(
                {
                    "work": f"ideal speed-up (MACs) at widths {'-'.join(map(str, widths))}, batch {batch}",
                    "peer is": "its measured speed-up",
                    "ours": ideal,
                    "peer": measured,
                    "to reach": 1 / 0.95 if (batch, name) == (32, "chosen") else None,
                    "note": f"{measured / ideal:.0%} of the ideal",
                }
            )
    return rows
