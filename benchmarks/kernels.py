"""Compare the kernels and convolutions of S4 and S4D with the forms of their reference code: time, memory, error.

    python benchmarks/kernels.py                        # the table of docs/measured.md, some minutes
    python benchmarks/kernels.py --length 16384 --channels 64 --rounds 3

The compared forms are called in turn (A B A B) in one process with the same float32 parameters. "forward + backward"
computes the result and the gradient of every parameter. Times and their ratio are medians. "CPU" is the ratio of the
processor times of all threads in the fastest call of each, which other work on the machine disturbs least. Memory is
the compiler's count of temporary buffers. The error is the largest difference from the float64 result, relative to the
kernel's largest tap.

* `S4D kernel, as torch`: exp of the whole (H, N, L) array, then a complex contraction, one operation after another with
  every intermediate kept for the backward pass, as eager torch runs state-spaces/s4's `log_vandermonde_naive`.
* `S4D kernel, direct`: the same operations compiled by XLA.
* `S4 kernel, direct`: the complex Cauchy sums from one (H, N, L) array, as published, compiled by XLA.
* `convolution, rfft 2L`: the convolution as published, differentiated by JAX. Inputs and outputs are time-major
  (L, b, H), as in the layers.
* `convolution, our real form`: our convolution with a real FFT of 2L points instead of a complex one of L.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parent.parent))

from lra_bench.machine.allocator import keep_freed_memory
from lra_bench.machine.xla import run_on_calling_thread

keep_freed_memory()
run_on_calling_thread()

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax import Array  # noqa: E402

from lra_bench.ssm import cauchy, convolution, hippo, vandermonde  # noqa: E402

Kernel = Callable[..., Array]


class Side(NamedTuple):
    """One of the compared forms: a call without arguments, and its temporary memory where it is compiled."""

    name: str
    run: Callable[[], object]
    temporary_bytes: int | None


def compiled(name: str, function: Callable[..., object], *arguments: object) -> Side:
    """Compile a function for these arguments."""
    program = jax.jit(function).lower(*arguments).compile()
    return Side(name, lambda: program(*arguments), program.memory_analysis().temp_size_in_bytes)


def with_gradient(kernel: Kernel, cotangent: Array) -> Callable[..., object]:
    """Return a function that computes the kernel and the gradients of all its arguments."""

    def both(*arguments: Array) -> object:
        result, vjp = jax.vjp(kernel, *arguments)
        return result, vjp(cotangent)

    return both


def compare(title: str, ours: Side, theirs: list[Side], rounds: int) -> None:
    """Time all forms in turn in the same rounds, and print a line for each of `theirs` beside `ours`."""
    sides = [ours, *theirs]
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    processor: dict[str, list[float]] = {side.name: [] for side in sides}
    for side in sides:
        jax.block_until_ready(side.run())
    for _ in range(rounds):
        for side in sides:
            start, cpu_start = time.perf_counter(), time.process_time()
            jax.block_until_ready(side.run())
            times[side.name].append(time.perf_counter() - start)
            processor[side.name].append(time.process_time() - cpu_start)
    for side in theirs:
        a, b = times[ours.name], times[side.name]
        cpu = min(processor[side.name]) / min(processor[ours.name])
        memory = " / ".join(
            "–" if s.temporary_bytes is None else f"{s.temporary_bytes / 1e6:.0f}" for s in (side, ours)
        )
        print(
            f"| {title} | {side.name} | {1e3 * statistics.median(b):.1f} / {1e3 * statistics.median(a):.1f} | "
            f"{statistics.median(b) / statistics.median(a):.1f} | {cpu:.1f} | {memory} |",
            flush=True,
        )


def parameters(H: int, N: int, seed: int = 0) -> dict[str, Array]:
    """Return the parameters of H HiPPO-LegS systems, with random C (2, H, N/2) and Δ log-uniform in [1e-3, 1e-1]."""
    random, half = np.random.default_rng(seed), N // 2
    part = hippo.normal_part(N)
    C = (random.normal(size=(2, H, half)) + 1j * random.normal(size=(2, H, half))) * 0.5**0.5
    values = {"Lambda": part.Lambda[:half], "P": part.P_tilde[:half], "B": part.B_tilde[:half], "C": C}
    dt = np.exp(random.uniform(np.log(1e-3), np.log(1e-1), H)).astype(np.float32)
    return {**{k: jnp.asarray(v, jnp.complex64) for k, v in values.items()}, "dt": jnp.asarray(dt)}


def s4d_direct(Lambda: Array, B: Array, C: Array, dt: Array, L: int) -> Array:
    """Return the kernel (2, H, L) of S4D with zero-order hold, by way of the whole array of powers (H, N/2, L)."""
    a = dt[:, None] * Lambda
    powers = jnp.exp(a[..., None] * jnp.arange(L))
    return 2.0 * jnp.einsum("chn,hnl->chl", C * (B * jnp.expm1(a) / Lambda), powers).real


def relative_error(kernel: Kernel, oracle: Kernel, arguments: list[Array]) -> float:
    """Return the largest error of the float32 kernel from the oracle in float64, relative to the largest tap."""
    single = np.asarray(jax.jit(kernel)(*arguments))
    with jax.enable_x64(True):
        wide = [np.asarray(x).astype(complex if jnp.iscomplexobj(x) else float) for x in arguments]
        exact = np.asarray(jax.jit(oracle)(*wide))
    return float(np.abs(single - exact).max() / np.abs(exact).max())


def bench_s4d(H: int, N: int, L: int, rounds: int) -> None:
    """Print the lines of the S4D kernel, and the errors."""
    p = parameters(H, N)
    arguments = [p[k] for k in ("Lambda", "B", "C", "dt")]
    ours = partial(vandermonde.diagonal_kernel, L=L, discretization="zoh")
    theirs = partial(s4d_direct, L=L)
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(2, H, L)), jnp.float32)
    title = f"S4D kernel, H={H} N={N} L={L}"
    for what, wrap in (("forward", lambda f: f), ("forward + backward", partial(with_gradient, cotangent=cotangent))):
        eager = Side("as torch", lambda wrap=wrap: wrap(theirs)(*arguments), None)
        opponents = [eager, compiled("direct", wrap(theirs), *arguments)]
        compare(f"{title}, {what}", compiled("ours", wrap(ours), *arguments), opponents, rounds)
    few = [arguments[0], arguments[1], arguments[2][:, :8], arguments[3][:8]]
    print(f"\nerror: ours {relative_error(ours, theirs, few):.1e}, direct {relative_error(theirs, theirs, few):.1e}\n")


def cauchy_from_one_array(Lambda: Array, P: Array, B: Array, C_tilde: Array, dt: Array, L: int) -> Array:
    """Compute `cauchy.cauchy_direct` with the terms of all nodes and modes in memory at once."""
    omega = cauchy._roots_of_unity(L, C_tilde.dtype)
    a, z = (dt[:, None] * Lambda)[..., None], 2.0 * (1.0 - omega)
    v = dt[:, None] * cauchy._numerators(P, B, C_tilde)
    pairs = [1.0 / (z - (1.0 + omega) * pole) for pole in (a, a.conj())]
    r = jnp.einsum("chn,hnl->chl", v, pairs[0]) + jnp.einsum("chn,hnl->chl", v.conj(), pairs[1])
    return cauchy._woodbury((1.0 + omega) * r, dt[:, None] * (B * C_tilde).real.sum(-1, keepdims=True), L)


def bench_s4(H: int, N: int, L: int, rounds: int) -> None:
    """Print the lines of the S4 kernel, and the errors."""
    p = parameters(H, N)
    arguments = [p[k] for k in ("Lambda", "P", "B", "C", "dt")]  # C stands for C̃: any numbers take the same time
    ours, theirs = (partial(kernel, L=L) for kernel in (cauchy.dplr_kernel, cauchy_from_one_array))
    cotangent = jnp.asarray(np.random.default_rng(1).normal(size=(2, H, L)), jnp.float32)
    title = f"S4 kernel, H={H} N={N} L={L}"
    for what, wrap in (("forward", lambda f: f), ("forward + backward", partial(with_gradient, cotangent=cotangent))):
        opponents = [compiled("direct", wrap(theirs), *arguments)]
        compare(f"{title}, {what}", compiled("ours", wrap(ours), *arguments), opponents, rounds)
    few = [*arguments[:3], arguments[3][:, :8], arguments[4][:8]]
    print(f"\nerror: ours {relative_error(ours, theirs, few):.1e}, direct {relative_error(theirs, theirs, few):.1e}\n")


def bench_convolution(H: int, batch: int, L: int, rounds: int) -> None:
    """Print the lines of the two-sided convolution."""
    random = np.random.default_rng(0)
    u = jnp.asarray(random.normal(size=(L, batch, H)), jnp.float32)
    k = jnp.asarray(random.normal(size=(2, H, L)) * np.exp(-np.arange(L) / 200), jnp.float32)
    cotangent = jnp.asarray(random.normal(size=(L, batch, H)), jnp.float32)

    def ours(u: Array, k: Array, form: convolution.Form = "right_angle") -> Array:
        major = convolution.channel_major
        return major(convolution.convolve(major(u), k[0], k[1], form))

    def theirs(u: Array, k: Array) -> Array:
        two_sided = jnp.pad(k[0], ((0, 0), (0, L))) + jnp.roll(jnp.pad(k[1, :, ::-1], ((0, 0), (L, 0))), -1, -1)
        spectrum = jnp.fft.rfft(u.transpose(2, 1, 0), 2 * L) * jnp.fft.rfft(two_sided)[:, None]
        return jnp.fft.irfft(spectrum, 2 * L)[..., :L].transpose(2, 1, 0)

    title = f"convolution, H={H} b={batch} L={L}"
    for what, wrap in (("forward", lambda f: f), ("forward + backward", partial(with_gradient, cotangent=cotangent))):
        opponents = [
            compiled("rfft 2L", wrap(theirs), u, k),
            compiled("our real form", wrap(partial(ours, form="real")), u, k),
        ]
        compare(f"{title}, {what}", compiled("ours", wrap(ours), u, k), opponents, rounds)


def main() -> None:
    """Print the table for the sizes of the command line; the convolutions have fixed sizes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--channels", type=int, default=512)
    parser.add_argument("--states", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    sizes = (arguments.channels, arguments.states, arguments.length, arguments.rounds)
    print("| what | beside | theirs / ours, ms | ratio | CPU | memory MB |\n|---|---|---|---|---|---|")
    bench_s4d(*sizes)
    bench_s4(*sizes)
    for H, batch, L in ((512, 4, 1024), (256, 4, 2048), (256, 2, 4000), (256, 1, 16_384)):
        bench_convolution(H, batch, L, arguments.rounds)


if __name__ == "__main__":
    main()
