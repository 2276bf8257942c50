"""Layer 4, the course: what lessons say and ask, and the program that runs them."""
