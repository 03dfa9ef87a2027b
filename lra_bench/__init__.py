"""Long Range Arena for state space models: data, training, throughput and leaderboard tables in JAX."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lra_bench.api import evaluate, load, load_model, predict, prepare, train

__version__ = "0.1.0"
__all__ = ["evaluate", "load", "load_model", "predict", "prepare", "train"]


def __getattr__(name: str) -> Any:
    """The names of `lra_bench.api`, imported where they are first used, so that `import lra_bench` takes no time."""
    if name not in __all__:
        raise AttributeError(f"module 'lra_bench' has no attribute {name!r}")
    from lra_bench import api

    return getattr(api, name)
