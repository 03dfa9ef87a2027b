"""Training runs: what identifies one, planning what to train, moving runs between machines. No JAX."""
