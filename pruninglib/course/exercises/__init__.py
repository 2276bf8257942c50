"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`."""

from .image_classification import exemplars_of, may_go_out, precision_and_recall
from .magnitude import global_threshold, masked_step, prune_exactly
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
    "exemplars_of",
    "first_order_score",
    "global_threshold",
    "gradients_that_disagree",
    "mask_from_threshold",
    "masked_step",
    "may_go_out",
    "precision_and_recall",
    "prune_exactly",
    "sparsity_of",
    "two_readings",
]
