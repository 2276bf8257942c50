"""Layer 1, pruning itself: what, at what grain, how much from each layer, when.

Depends on torch alone (and safetensors, for masks on disk).
"""
