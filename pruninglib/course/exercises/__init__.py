"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`."""

from .magnitude import global_threshold, masked_step, prune_exactly
from .sensitivity import (
    budget_from_scan,
    first_order_score,
    gradients_that_disagree,
    two_readings,
)
from .structure import chain_without, speed_ups, two_of_four
from .what_is_pruning import csr_bytes, mask_from_threshold, sparsity_of

__all__ = [
    "budget_from_scan",
    "chain_without",
    "csr_bytes",
    "first_order_score",
    "global_threshold",
    "gradients_that_disagree",
    "mask_from_threshold",
    "masked_step",
    "prune_exactly",
    "sparsity_of",
    "speed_ups",
    "two_of_four",
    "two_readings",
]
