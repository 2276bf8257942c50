"""What a lesson asks: `exercises.NAME.check(answer)`, `.hint()`, `.solution()`.

`exercises.foundations`, `exercises.vision` and `exercises.language` hold the questions of the self-tests,
by number.
"""

from .click_prediction import (
    normalised_entropy,
    prune_rarely_read,
    smallest_release,
    table_bytes,
)
from .foundations import QUESTIONS as foundations
from .image_classification import exemplars_of, may_go_out, prune_but
from .language import QUESTIONS as language
from .language_models import block_to_drop, perplexity_of, prune_2_of_4, wanda_mask
from .magnitude import global_threshold, masked_step, prune_exactly
from .object_detection import prune_in_units, right_boxes, threshold_for
from .promise import memorised_share, stopping_epoch, verdict_for
from .ranking import highest_release, ndcg_of_one, prune_dimensions, row_pruned_bytes
from .segmentation import columns_left, outline_iou, prune_skip
from .sensitivity import (
    budget_from_scan,
    first_order_score,
    gradients_that_disagree,
    two_readings,
)
from .sentiment import f1_of, may_leave, without_heads
from .structure import chain_without, speed_ups, two_of_four
from .summarisation import facts_right, prune_part, rouge_1
from .tracking import needed_factor, prune_while, switches_and_fragments
from .translation import dies_first, ngram_precision, prune_cross
from .vision import QUESTIONS as vision
from .what_is_pruning import csr_bytes, mask_from_threshold, sparsity_of
from .when_to_prune import cubic_by_step, pareto_front, rewind, shuffle_within_layers

__all__ = [
    "block_to_drop",
    "budget_from_scan",
    "chain_without",
    "columns_left",
    "csr_bytes",
    "cubic_by_step",
    "dies_first",
    "exemplars_of",
    "f1_of",
    "facts_right",
    "first_order_score",
    "foundations",
    "global_threshold",
    "gradients_that_disagree",
    "highest_release",
    "language",
    "mask_from_threshold",
    "masked_step",
    "may_go_out",
    "may_leave",
    "memorised_share",
    "ndcg_of_one",
    "needed_factor",
    "ngram_precision",
    "normalised_entropy",
    "outline_iou",
    "pareto_front",
    "perplexity_of",
    "prune_2_of_4",
    "prune_but",
    "prune_cross",
    "prune_dimensions",
    "prune_exactly",
    "prune_in_units",
    "prune_part",
    "prune_rarely_read",
    "prune_skip",
    "prune_while",
    "rewind",
    "right_boxes",
    "rouge_1",
    "row_pruned_bytes",
    "shuffle_within_layers",
    "smallest_release",
    "sparsity_of",
    "speed_ups",
    "stopping_epoch",
    "switches_and_fragments",
    "table_bytes",
    "threshold_for",
    "two_of_four",
    "two_readings",
    "verdict_for",
    "vision",
    "wanda_mask",
    "without_heads",
]
