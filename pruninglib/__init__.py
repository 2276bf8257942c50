"""Helpers of the pruning course: what, at what grain, how much from each layer, when.

The layers import downwards only: course, tasks, measure, prune, base.
"""

__version__ = "0.1.0"

from .base.files import load_shrunk, save_shrunk
from .course import exercises
from .course.lesson import claim, record, say
from .measure import boxes, plots, regions, tracks
from .measure.cost import training_cost
from .measure.damage import by_slice, changed, damage
from .measure.experiment import (
    at_random,
    before_training,
    by_magnitude,
    compare,
    prune_method,
    shuffled,
    small_dense,
    tuned,
    with_recipe,
)
from .measure.int8 import int8, stored_bytes
from .measure.ledger import in_turn, latencies, ledger, macs, peak_allocation
from .measure.stats import Interval, advantage, interval, outcomes_of, over_pictures, over_samples
from .measure.training import Batches, classification_metrics, evaluate, fit, recalibrate
from .prune.budgets import erk, from_scan, global_budget, lamp, uniform, with_floor
from .prune.criteria import (
    fisher,
    gradient,
    grasp,
    magnitude,
    movement,
    random,
    snip,
    synflow,
    taylor,
    wanda,
)
from .prune.grains import block, channel, element, in_rows, n_of_m, row
from .prune.masks import apply, keep, load_masks, masks_of, save_masks
from .prune.reconstruct import least_squares, reconstruct
from .prune.schedules import cosine, cubic, iterative, one_shot, regrow
from .prune.select import select
from .prune.sensitivity import scan
from .prune.shrink import coupled, pool, shrink, spread
from .prune.weights import prunable, sparsity, weights_of
from .tasks.choosing import choosing
from .tasks.clicks import clicks
from .tasks.detection import detect, detection
from .tasks.digits import digits
from .tasks.language import language
from .tasks.pretrained import cut_down, pretrained
from .tasks.ranking import ranking
from .tasks.segmentation import segment, segmentation
from .tasks.sentiment import sentiment
from .tasks.summarisation import summarisation
from .tasks.tracking import Tracker, moving, track, truth_of
from .tasks.translation import translation
