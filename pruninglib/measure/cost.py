"""What training costs: its steps, and the arithmetic of its forward and backward passes."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.optim.optimizer import register_optimizer_step_post_hook

from ..base.running import as_written
from .training import evaluating


@dataclass
class TrainingCost:
    """steps: of optimizers. macs: multiply-accumulates as executed. ideal: if zeros were free."""

    steps: int = 0
    macs: int = 0
    ideal: int = 0


@contextlib.contextmanager
def training_cost() -> Iterator[TrainingCost]:
    """Count what is trained inside the block, whatever trains it, on any model.

        with pl.training_cost() as cost:
            task.train(model, seed=0)
        print(cost.steps, cost.macs, cost.ideal)

    macs: of each Linear layer and convolution that runs, one pass forward and, if gradients are
        being recorded, one for the gradient of its weight and one for that of its input, where
        they are needed (a first layer's input needs none): three times the forward pass less one
        layer, which is what torch's flop counter counts. A mask changes nothing here.
    ideal: the same, with each weight counting only while it isn't zero: what hardware or kernels
        that skip zeros could at best come down to.

    All forward passes count, those of scores and evaluations too; a gradient of a gradient
    (`grasp`) counts as one. Products outside such layers (attention) are left out. What
    torch.compile made runs uncompiled inside the block, where each layer is seen.
    """
    cost = TrainingCost()

    def see_layer(module, args, output):
        if not isinstance(module, nn.Linear | _ConvNd):
            return
        with evaluating(module):  # a computed weight may change when it is computed in training
            weight, transposed = module.weight, getattr(module, "transposed", False)
        places = (args[0] if transposed else output).numel()  # each meets one row of the weight
        passes = 1
        if torch.is_grad_enabled():
            passes += weight.requires_grad + args[0].requires_grad
        cost.macs += passes * places * weight[0].numel()
        cost.ideal += passes * places * int(weight.count_nonzero()) // len(weight)

    def see_step(optimizer, args, kwargs):
        cost.steps += 1

    hooks = [
        nn.modules.module.register_module_forward_hook(see_layer),
        register_optimizer_step_post_hook(see_step),
    ]
    try:
        with as_written():
            yield cost
    finally:
        for hook in hooks:
            hook.remove()
