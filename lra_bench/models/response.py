"""What a trained layer does to waves: the step size of its inputs, its eigenvalues, and its gain over frequency.

Frequencies ω are in the continuous time of each input feature, whose step is dt. The S4 family has a dt for each
feature, and so has HOPE-SSM; where its directions have one each, the geometric mean is taken. S5, S5-PTD and LinOSS
have one for each state, so all features have their median here. That of S6 and B²S6 depends on the input; here it is
that of an input of zero. Others, S4D-DFouT among them, have dt = 1.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from lra_bench.models.diagonal import DiagonalSSM
from lra_bench.models.hope import HankelConvolution
from lra_bench.models.linoss import LinOSSLayer
from lra_bench.models.long_convolution import LongConvolution, dt_of
from lra_bench.models.s5 import S5Layer
from lra_bench.models.selective import SelectiveSSM
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
    if isinstance(layer, HankelConvolution):
        return jnp.exp(jnp.log(dt_of(layer.inv_dt[...], layer.config)).mean(0))
    if isinstance(layer, SelectiveSSM):
        return jax.nn.softplus(layer.b[...])
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
    re, im = jax.jit(layer.discretized)()[0]
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
        kernels = np.array(jax.jit(lambda: layer.kernel(L))())
        kernels[0, :, 0] += D
        return gain_of_kernels(kernels, dt[:, None] * omega)
    (re, im), B, C, C_reverse = jax.tree.map(np.asarray, jax.jit(layer.discretized)())
    P = len(re)
    into, out = (B[:, :P] + 1j * B[:, P:]).T, (C[:P] - 1j * C[P:]).T
    back = None if C_reverse is None else (C_reverse[:P] - 1j * C_reverse[P:]).T
    return gain_of_modes(re + 1j * im, into, out, back, D, L, dt[0] * omega)
