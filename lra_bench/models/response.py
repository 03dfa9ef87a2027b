"""What a trained layer does to waves: the step size of its inputs, its eigenvalues, and its gain over frequency.

Frequencies ω are in the continuous time of each input feature, whose step is dt. The S4 family has a dt for each
feature. S5, S5-PTD and LinOSS have one for each state, so all features have their median here. Others have dt = 1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.linoss import LinOSSLayer
from lra_bench.models.long_convolution import LongConvolution
from lra_bench.models.s5 import S5Layer
from lra_bench.models.shapes import PerFeature
from lra_bench.ssm.gain import gain_of_kernels, gain_of_modes
from lra_bench.ssm.hippo import Complex, Real


def input_steps(layer: Any, features: int) -> PerFeature:
    """The step size dt (H,) of each input feature of a sequence layer."""
    if isinstance(layer, LongConvolution):
        return layer.dt()
    if isinstance(layer, S5Layer):
        return jnp.full(features, jnp.exp(jnp.median(layer.log_dt[...])))
    if isinstance(layer, LinOSSLayer):
        return jnp.full(features, jax.nn.sigmoid(jnp.median(layer.s[...])))
    return jnp.ones(features)


def has_response(layer: Any) -> bool:
    """Whether `eigenvalues` and `gain` know the layer."""
    return isinstance(layer, DiagonalSSM | LongConvolution)


def in_float64(layer: Any) -> Any:
    """A copy of the layer with its parameters in float64, to be used within `jax.enable_x64(True)`."""
    structure, state = nnx.split(layer)
    return nnx.merge(structure, jax.tree.map(lambda x: jnp.asarray(np.asarray(x), jnp.float64), state))


def eigenvalues(layer: DiagonalSSM | LongConvolution) -> Complex:
    """The stored eigenvalues Λ dt, one for each state, or for each feature and state: (H, N') or (P,).

    Those of S4 are of its normal part. Their imaginary parts are angles per step, within ±π for a `DiagonalSSM`.
    """
    if isinstance(layer, LongConvolution):
        return np.asarray(layer.Lambda() * layer.dt()[:, None])
    re, im = layer.discretized()[0]
    return np.log(np.asarray(re) + 1j * np.asarray(im))


def last_frequency(layer: DiagonalSSM | LongConvolution) -> float:
    """The largest frequency ω of an eigenvalue, in the continuous time of the layer's inputs."""
    if isinstance(layer, LongConvolution):
        return float(np.abs(np.asarray(layer.Lambda()).imag).max())
    return float(np.abs(eigenvalues(layer).imag).max() / np.asarray(input_steps(layer, 1))[0])


def gain(layer: DiagonalSSM | LongConvolution, L: int, omega: Real) -> Real:
    """The gain (F,) of the layer on data of length L (`ssm/gain.py`)."""
    D = np.asarray(layer.D[...])
    dt = np.asarray(input_steps(layer, len(D)))
    if isinstance(layer, LongConvolution):
        kernels = np.array(layer.kernel(L))
        kernels[0, :, 0] += D
        return gain_of_kernels(kernels, dt[:, None] * omega)
    (re, im), B, C, C_reverse = layer.discretized()
    P = len(re)
    into, out = np.asarray(B[:, :P] + 1j * B[:, P:]).T, np.asarray(C[:P] - 1j * C[P:]).T
    back = None if C_reverse is None else np.asarray(C_reverse[:P] - 1j * C_reverse[P:]).T
    return gain_of_modes(np.asarray(re) + 1j * np.asarray(im), into, out, back, D, L, dt[0] * omega)
