"""Compare our scan with S5's own algorithm: time, memory and compile time over sequence length.

    python benchmarks/recurrence.py                      # the table of docs/measured.md, about ten minutes
    python benchmarks/recurrence.py --lengths 1024,4096 --rounds 3
    python benchmarks/recurrence.py --million            # one layer of 1,048,576 steps, ours alone

Both compute one bidirectional operator, u → y. They are compiled by the same JAX in the same process and called in turn
(A B A B); the table gives medians. The reference is the algorithm of lindermanlab/S5 `s5/ssm.py`: `associative_scan` on
complex64, states of both directions concatenated, derivatives by JAX's autodiff.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lra_bench.machine.allocator import keep_freed_memory
from lra_bench.machine.xla import run_on_calling_thread

keep_freed_memory()
run_on_calling_thread()

import jax  # noqa: E402 - the allocator is set before JAX starts
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
from jax import Array, lax  # noqa: E402

from lra_bench.ssm.scan import diagonal_ssm  # noqa: E402

LENGTHS = (1024, 4096, 16384, 65536, 262144)
MILLION = 1 << 20


class Compiled(NamedTuple):
    """A compiled function, its compile seconds, and the bytes of its temporary buffers."""

    run: Callable[..., object]
    seconds: float
    temporary_bytes: int


def associative_scan_operator(Lambda_bar: tuple[Array, Array], B: Array, C: Array, C_reverse: Array, u: Array) -> Array:
    """Return the result of `diagonal_ssm` for the same arguments, computed by the published algorithm."""
    P = Lambda_bar[0].shape[0]
    Lambda = lax.complex(*Lambda_bar)
    B_bar = lax.complex(B[:, :P], B[:, P:]).T
    C_tilde = jnp.concatenate([lax.complex(w[:P], -w[P:]).T for w in (C, C_reverse)], axis=1)

    def combine(earlier: tuple[Array, Array], later: tuple[Array, Array]) -> tuple[Array, Array]:
        return later[0] * earlier[0], later[0] * earlier[1] + later[1]

    def one_example(u: Array) -> Array:
        elements = jnp.tile(Lambda, (u.shape[0], 1)), jax.vmap(lambda u_t: B_bar @ u_t)(u)
        forward = lax.associative_scan(combine, elements)[1]
        backward = lax.associative_scan(combine, elements, reverse=True)[1]
        return jax.vmap(lambda x_t: (C_tilde @ x_t).real)(jnp.concatenate([forward, backward], axis=-1))

    return jax.vmap(one_example, in_axes=1, out_axes=1)(u)


def arguments(L: int, batch: int, H: int, P: int) -> tuple:
    """Return arguments of `diagonal_ssm`: S5's initial eigenvalues −1/2 + iπn with steps log-uniform in [0.001, 0.1].

    The weights are random, and the input u (L, batch, H) is standard normal.
    """
    rng = np.random.default_rng(0)
    step = np.exp(rng.uniform(np.log(1e-3), np.log(1e-1), P))
    Lambda = np.exp((-0.5 + 1j * np.pi * np.arange(P)) * step)
    weights = (0.05 * rng.normal(size=shape) for shape in ((H, 2 * P), (2 * P, H), (2 * P, H)))
    u = rng.standard_normal((L, batch, H), np.float32)
    return (jnp.float32(Lambda.real), jnp.float32(Lambda.imag)), *map(jnp.float32, weights), jnp.asarray(u)


def compiled(function: Callable[..., object], args: Sequence[object]) -> Compiled:
    """Compile a function for these arguments."""
    traced = jax.jit(function).trace(*args)
    start = time.perf_counter()
    executable = traced.lower().compile()
    seconds = time.perf_counter() - start
    return Compiled(executable, seconds, executable.memory_analysis().temp_size_in_bytes)


def forward_and_backward(operator: Callable[..., Array]) -> Callable[..., object]:
    """Return a function that computes the operator and the gradients of all its arguments."""

    def gradients(dy: Array, *args: object) -> tuple:
        y, backward = jax.vjp(operator, *args)
        return y, backward(dy)

    return gradients


def seconds_of(run: Callable[..., object], args: Sequence[object]) -> float:
    """Return the seconds of one call."""
    start = time.perf_counter()
    jax.block_until_ready(run(*args))
    return time.perf_counter() - start


def compare(L: int, batch: int, H: int, P: int, rounds: int) -> dict[str, float]:
    """Return one row: our medians, and the ratios of the reference's to ours."""
    args = arguments(L, batch, H, P)
    row: dict[str, float] = {"L": L, "batch": batch, "H": H, "P": P}
    operators = {"reference": associative_scan_operator, "ours": diagonal_ssm}
    for part, wrap, given in (
        ("forward", lambda operator: operator, args),
        ("both", forward_and_backward, (jnp.ones_like(args[-1]), *args)),
    ):
        programs = {name: compiled(wrap(operator), given) for name, operator in operators.items()}
        times: dict[str, list[float]] = {name: [] for name in programs}
        for round_ in range(rounds + 1):
            for name, program in programs.items():
                seconds = seconds_of(program.run, given)
                if round_:  # the first round is a warm-up
                    times[name].append(seconds)
        reference, ours = programs["reference"], programs["ours"]
        row[f"{part}_ms"] = 1e3 * statistics.median(times["ours"])
        row[f"{part}_ratio"] = statistics.median(times["reference"]) / statistics.median(times["ours"])
        row[f"{part}_best_ratio"] = min(times["reference"]) / min(times["ours"])
        row[f"{part}_compile_s"] = ours.seconds
        row[f"{part}_compile_ratio"] = reference.seconds / ours.seconds
        row[f"{part}_temp_mb"] = ours.temporary_bytes / 1e6
        row[f"{part}_temp_ratio"] = reference.temporary_bytes / max(ours.temporary_bytes, 1)
    return row


def million(batch: int, H: int, P: int) -> dict[str, float]:
    """Return the time and memory of one layer of 1,048,576 steps, forward and backward, with our scan.

    The reference is not run, because it would need about 27 GB.
    """
    args = arguments(MILLION, batch, H, P)
    given = (jnp.ones_like(args[-1]), *args)
    program = compiled(forward_and_backward(diagonal_ssm), given)
    seconds = [seconds_of(program.run, given) for _ in range(2)]
    return {"L": MILLION, "both_ms": 1e3 * min(seconds), "both_temp_mb": program.temporary_bytes / 1e6}


def print_table(rows: Sequence[dict[str, float]]) -> None:
    """Print the rows as a Markdown table; from three lengths on, also print how time and memory grow with length."""
    print("| L | b | H | P | forward ms | ratio | + backward ms | ratio | temporary MB | ratio | compile s | ratio |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|")
    for r in rows:
        print(
            f"| {r['L']:,} | {r['batch']} | {r['H']} | {r['P']} | {r['forward_ms']:.1f} | {r['forward_ratio']:.1f} "
            f"| {r['both_ms']:.1f} | {r['both_ratio']:.1f} | {r['both_temp_mb']:.0f} | {r['both_temp_ratio']:.1f} "
            f"| {r['both_compile_s']:.2f} | {r['both_compile_ratio']:.1f} |",
            flush=True,
        )
    if len({row["L"] for row in rows}) > 2:
        for name in ("both_ms", "both_temp_mb"):
            slope = np.polyfit(np.log([r["L"] for r in rows]), np.log([r[name] for r in rows]), 1)[0]
            print(f"{name} grows as L^{slope:.2f}")


def main() -> None:
    """Print the table for the sizes of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=lambda text: [int(L) for L in text.split(",")], default=LENGTHS)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--H", type=int, default=128, help="features")
    parser.add_argument("--P", type=int, default=128, help="complex states")
    parser.add_argument("--rounds", type=int, default=7, help="timed runs of each, in turn")
    parser.add_argument("--million", action="store_true", help="one layer of 1,048,576 steps instead of the table")
    parser.add_argument("--json", action="store_true", help="one JSON object per row instead of a table")
    options = parser.parse_args()
    if options.million:
        rows = [million(options.batch, options.H, options.P)]
    else:
        rows = [compare(L, options.batch, options.H, options.P, options.rounds) for L in options.lengths]
    if options.json or options.million:
        for row in rows:
            print(json.dumps(row))
    else:
        print_table(rows)


if __name__ == "__main__":
    main()
