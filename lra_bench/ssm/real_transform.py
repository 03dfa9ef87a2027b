"""The functions from a trained number w to −Re Λ > 0, the decay of a mode, so that no mode can grow.

The gradient of w is at most a constant times |f'(w)| / f(w)² with f(w) = Re Λ. For slow modes that grows as the
inverse of the decay under `exp` and `softplus`. Under `best` it is 2 |w| for every mode, the same share of w.

Sources: state-spaces/s4 `src/models/sequence/kernels/ssm.py` (`real_transform`: `exp`, `softplus`); Wang & Li 2024
(StableSSM, arXiv 2311.14495: `best`, −1 / (a w² + b) with a = 1 and b = 1/2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

BEST_OFFSET = 0.5
"""The b of `best`. No mode decays faster than 1/b."""


class Transform(NamedTuple):
    """A function from w to −Re Λ, its inverse for the initial values, and the limit that −Re Λ stays below."""

    decay: Callable[[Array], Array]
    weight: Callable[[np.ndarray], np.ndarray]
    limit: float


REAL_TRANSFORMS: dict[str, Transform] = {
    "exp": Transform(jnp.exp, np.log, np.inf),
    "softplus": Transform(jax.nn.softplus, lambda decay: decay + np.log(-np.expm1(-decay)), np.inf),
    "best": Transform(
        lambda w: 1.0 / (w * w + BEST_OFFSET), lambda decay: np.sqrt(1.0 / decay - BEST_OFFSET), 1.0 / BEST_OFFSET
    ),
}
"""The functions by the name that a recipe gives them."""
