"""The shapes of arrays in the signatures of this package, checked when the tests run (tests/conftest.py).

The letters are L for the length, b for the batch, H for features, N or P for states, and c for kernels, of which there
is one per direction. A dimension `2*P` holds the real parts of P complex numbers, then their imaginary parts.
"""

from __future__ import annotations

from jax import Array
from jaxtyping import Complex, Float, Inexact

Features = Float[Array, "L b H"]
"""Activations, time first."""

FeaturesAt = Float[Array, "b H"]
"""Activations at one step."""

ChannelMajor = Float[Array, "H b L"]
"""Activations, time last: the layout of a Fourier transform."""

Kernel = Float[Array, "H L"]
"""One convolution kernel for each feature."""

Kernels = Float[Array, "c H L"]
"""The convolution kernels of every direction."""

States = Float[Array, "L b 2*P"]
"""Packed states, or packed inputs to the states, at every step."""

DirectedStates = Float[Array, "L b 2*P"] | Float[Array, "L b 4*P"]
"""Packed states of the forward direction, or of both directions, forward first."""

StatesAt = Float[Array, "b 2*P"]
"""Packed states at one step."""

InputMatrix = Float[Array, "H 2*P"]
"""B̄ as `[Re B̄ᵀ | Im B̄ᵀ]`."""

OutputMatrix = Float[Array, "2*P H"]
"""C as `[Re Cᵀ; −Im Cᵀ]`."""

DirectedOutputMatrix = Float[Array, "2*P H"] | Float[Array, "4*P H"]
"""C of the forward direction, or of both directions, forward first."""

ModeWeights = Complex[Array, "c H N"]
"""One complex weight for each kernel, feature and state."""

Modes = Complex[Array, "H N"]
"""One complex number for each feature and state."""

FeatureExponents = Float[Array, " H"]
"""One real exponent for each feature."""

SharedModes = Inexact[Array, "... #N"]
"""One number for each state, with or without a leading axis of features: (N,), (1, N) or (H, N)."""

Drive = Float[Array, "2*P"]
"""A constant packed input to the states."""

StateVector = Float[Array, "P"]
"""One real number for each state."""

Pair = tuple[StateVector, StateVector]
"""The real and the imaginary part of one complex vector, each (P,)."""

StepSizes = Float[Array, "H"]
"""The step size dt of each feature."""

Denominators = Float[Array, "c S n"]
"""The coefficients a of the denominators of every direction."""

Numerators = Float[Array, "c H n"]
"""The coefficients b of the numerators of every direction."""

Coefficients = Float[Array, "H n"]
"""The coefficients of one polynomial for each feature."""

FeedThrough = Float[Array, "c H"]
"""The part of each feature that passes without delay, of every direction."""

MarkovParameters = Complex[Array, "c S n"]
"""The first n Markov parameters of every direction."""

DirectedStepSizes = Float[Array, "#c H"]
"""The step size dt of each feature, of every direction or of both."""

Spectra = Complex[Array, "c H L"]
"""The spectrum of one kernel for each direction and feature."""

CircularKernel = Float[Array, "H M"]
"""One kernel for each feature, of a circular convolution over M steps."""

PairedFeatures = Float[Array, "L b 2*H"]
"""Activations from a sequence, beside those from its reversal at the same position."""

Averages = Float[Array, "c H n"]
"""A parameter of the moving averages of each feature, of every direction."""

StatesOfFeatures = Float[Array, "H N"]
"""One real number for each feature and state."""

BlockVectors = Float[Array, "L b G N"]
"""One vector over the states for each block of features, at every step."""

RealArray = Float[Array, "*axes"]
"""Real numbers of any shape."""
