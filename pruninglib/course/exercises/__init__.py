"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`."""

from .magnitude import global_threshold, masked_step, prune_exactly
from .ranking import highest_release, ndcg_of_one, row_pruned_bytes
from .sensitivity import (
    budget_from_scan,
    first_order_score,
    gradients_that_disagree,
    two_readings,
)
from .what_is_pruning import csr_bytes, mask_from_threshold, sparsity_of

__all__ = [
    "budget_from_scan",
    "csr_bytes",
    "first_order_score",
    "global_threshold",
    "gradients_that_disagree",
    "highest_release",
    "mask_from_threshold",
    "masked_step",
    "ndcg_of_one",
    "prune_exactly",
    "row_pruned_bytes",
    "sparsity_of",
    "two_readings",
]
