"""Layer 2, measuring: training, experiments, cost, figures. Imports from prune only."""
