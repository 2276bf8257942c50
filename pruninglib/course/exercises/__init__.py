"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`."""

from .foundations import (
    budget_from_scan,
    csr_bytes,
    first_order_score,
    global_threshold,
    gradients_that_disagree,
    mask_from_threshold,
    masked_step,
    prune_exactly,
    sparsity_of,
    two_readings,
)

__all__ = [
    "budget_from_scan",
    "csr_bytes",
    "first_order_score",
    "global_threshold",
    "gradients_that_disagree",
    "mask_from_threshold",
    "masked_step",
    "prune_exactly",
    "sparsity_of",
    "two_readings",
]
