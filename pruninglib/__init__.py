"""Helpers of the pruning course: what, at what grain, how much from each layer, when.

The layers import downwards only: course, tasks, measure, prune.
"""

__version__ = "0.1.0"

from .course import exercises
from .course.lesson import claim, record, say
from .measure import plots
from .measure.experiment import at_random, by_magnitude, compare, prune_method, small_dense
from .measure.ledger import latencies, ledger, macs, peak_allocation
from .measure.stats import advantage, interval
from .measure.training import Batches, classification_metrics, evaluate, fit
from .prune.budgets import erk, from_scan, global_budget, uniform
from .prune.criteria import fisher, magnitude, random, snip, taylor
from .prune.grains import channel, element, row
from .prune.masks import apply, keep, load_masks, masks_of, save_masks
from .prune.schedules import cubic, iterative, one_shot
from .prune.select import select
from .prune.sensitivity import scan
from .prune.weights import prunable, sparsity, weights_of
from .tasks.digits import digits
