"""What goes through the model: training steps, per-sample gradients, scans."""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy
from torch.nn.utils import prune as peer
from torchvision.models import resnet18

import pruninglib as pl

from .measuring import side_by_side


def masked_step() -> list[dict]:
    """One training step with masks kept."""
    task = pl.digits(model="cnn")
    batch = tuple(t[:64] for t in task.splits["train"])
    dense = task.build(0, width=4)
    masks = pl.select(pl.magnitude(dense), 0.9)
    kept, reparametrised = copy.deepcopy(dense), copy.deepcopy(dense)
    for name, mask in masks.items():
        module = reparametrised.get_submodule(name.removesuffix(".weight"))
        peer.custom_from_mask(module, "weight", mask)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> Callable[[], None]:
        def run():
            optimizer.zero_grad()
            task.loss(model, batch).backward()
            optimizer.step()

        return run

    runs = {
        name: step(model, task.optimizer(model.parameters()))
        for name, model in (("dense", dense), ("reparametrised", reparametrised))
    }
    optimizer = task.optimizer(kept.parameters())
    with pl.keep(kept, masks, optimizer):
        seconds = side_by_side(100, kept=step(kept, optimizer), **runs)
    work = "training step with masks kept, CNN, batch 64: seconds"
    return [
        {
            "work": work,
            "peer is": "the dense step",
            "ours": seconds["kept"],
            "peer": seconds["dense"],
            "to reach": 1.05,
        },
        {
            "work": work,
            "peer is": "torch.nn.utils.prune's reparametrisation",
            "ours": seconds["kept"],
            "peer": seconds["reparametrised"],
            "to reach": 1.0,
        },
    ]


def fisher_of(kind: str, to_reach: float) -> list[dict]:
    task = pl.digits(model=kind)
    model = task.build(0).eval()
    images, classes = (t[:1000] for t in task.splits["train"])
    weights = {n: w.detach() for n, w in pl.weights_of(model).items()}

    def loop():
        total = {n: torch.zeros_like(w) for n, w in weights.items()}
        for i in range(1000):
            model.zero_grad()
            task.loss(model, (images[i : i + 1], classes[i : i + 1])).backward()
            for name, weight in pl.weights_of(model).items():
                total[name] += weight.grad**2
        return {n: total[n] / 1000 * w**2 / 2 for n, w in weights.items()}

    def one_loss(weights, image, label):
        return cross_entropy(functional_call(model, weights, (image[None],)), label[None])

    @torch.no_grad()
    def vmapped():
        gradients = vmap(grad(one_loss), in_dims=(None, 0, 0), chunk_size=250)(
            weights, images, classes
        )
        return {n: (g**2).mean(0) * weights[n] ** 2 / 2 for n, g in gradients.items()}

    def ours():
        return pl.fisher(model, task.loss, [(images, classes)])

    results = [run() for run in (ours, loop, vmapped)]
    differ = max(
        float((a[n] - b[n]).abs().max() / b[n].abs().max())
        for a, b in ((results[0], results[1]), (results[0], results[2]))
        for n in weights
    )
    seconds = side_by_side(5, ours=ours, loop=loop, vmapped=vmapped)
    work = f"per-sample Fisher, {kind.upper()}, 1,000 samples: seconds"
    return [
        {
            "work": work,
            "peer is": "a loop over samples",
            "ours": seconds["ours"],
            "peer": seconds["loop"],
            "to reach": to_reach,
            "note": f"scores differ by {differ:.0e} of the largest at most",
        },
        {
            "work": work,
            "peer is": "vmap(grad), 250 samples at once",
            "ours": seconds["ours"],
            "peer": seconds["vmapped"],
            "to reach": None,
        },
    ]


def fisher_mlp() -> list[dict]:
    """Per-sample Fisher information of the lesson's MLP."""
    return fisher_of("mlp", 1 / 20)


def fisher_cnn() -> list[dict]:
    """Per-sample Fisher information of the lesson's CNN."""
    return fisher_of("cnn", 1 / 5)


def sensitivity_scan() -> list[dict]:
    """Every layer at nine sparsities."""
    sparsities = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    task = pl.digits()
    small = task.build(0)
    task.train(small, seed=0, epochs=5)
    images = torch.rand(64, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    large = resnet18(weights=None, num_classes=10).eval()

    @torch.no_grad()
    def large_metric(model: nn.Module) -> float:
        return -float(model(images).logsumexp(dim=1).mean())

    cases = {
        "the lesson's MLP": (small, lambda model: -task.metrics(model, "valid")["loss"], 5),
        "ResNet-18, 64 images": (large, large_metric, 1),
    }
    rows = []
    for name, (model, metric, repeats) in cases.items():

        def ours(model=model, metric=metric):
            return pl.scan(model, metric, sparsities)

        def copies(model=model, metric=metric):
            found = {}
            for layer, score in pl.magnitude(model).items():
                found[layer] = {0.0: metric(model)}
                for sparsity in sparsities:
                    pruned = copy.deepcopy(model)
                    pl.apply(pruned, pl.select({layer: score}, sparsity))
                    found[layer][sparsity] = metric(pruned)
            return found

        rows.append(
            {
                "work": f"sensitivity scan, {name}, 9 sparsities: seconds",
                "peer is": "a copy of the model for each point",
                **side_by_side(repeats, ours=ours, peer=copies),
                "to reach": 1.0,
                "note": f"the same numbers: {ours() == copies()}",
            }
        )
    return rows
