"""Long Range Arena for state space models: data, training, throughput and leaderboard tables in JAX."""

__version__ = "0.1.0"
