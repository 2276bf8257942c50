"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`."""

from .magnitude import global_threshold, masked_step, prune_exactly
from .sensitivity import (
    budget_from_scan,
    first_order_score,
    gradients_that_disagree,
    two_readings,
)
from .sentiment import f1_of, may_leave, parameters_of_a_head
from .what_is_pruning import csr_bytes, mask_from_threshold, sparsity_of

__all__ = [
    "budget_from_scan",
    "csr_bytes",
    "f1_of",
    "first_order_score",
    "global_threshold",
    "gradients_that_disagree",
    "mask_from_threshold",
    "masked_step",
    "may_leave",
    "parameters_of_a_head",
    "prune_exactly",
    "sparsity_of",
    "two_readings",
]
