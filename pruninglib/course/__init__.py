"""Layer 4, the course: what lessons say and ask, and the program that runs them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]  # the clone: notebooks, data and lock lie in it
