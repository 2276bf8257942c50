"""Layer 3, tasks: what a lesson prunes on. One module per domain."""
