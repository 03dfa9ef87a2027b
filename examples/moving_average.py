"""A layer of your own: lra-bench train --model moving_average:MovingAverage --task listops"""

import jax
import jax.numpy as jnp
from flax import nnx
from pydantic import BaseModel


class MovingAverage(nnx.Module):
    """An exponential moving average of each feature with a learned time constant, from (b, L, H) to (b, L, H)."""

    class Config(BaseModel):
        """The largest time constant at the start, in steps, and the dropout rate."""

        slowest: float = 100.0
        dropout_rate: float = 0.1

    def __init__(self, features, config, *, rngs):
        steps = jnp.geomspace(1.0, config.slowest, features)
        self.log_rate = nnx.Param(-jnp.log(steps), role="eigenvalues")
        self.mix = nnx.Linear(features, features, rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.dropout = nnx.Dropout(config.dropout_rate, rngs=rngs)

    def __call__(self, u):
        """Return the layer's output (b, L, H) for the input u (b, L, H)."""
        decay = jnp.exp(-jnp.exp(self.log_rate[...]))

        def step(x, u_t):
            x = decay * x + (1 - decay) * u_t
            return x, x

        _, x = jax.lax.scan(step, jnp.zeros_like(u[:, 0]), u.swapaxes(0, 1))
        return self.dropout(self.mix(self.norm(x.swapaxes(0, 1))))
