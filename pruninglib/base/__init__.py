"""Layer 0, what stands under all others and knows nothing of pruning.

A model's state, gradients from data, and files. Depends on torch, numpy and safetensors alone.
"""
