"""What XLA is told, and how it is kept from undoing what the code says. Each trick with the compiler has a name here.

Each was measured on two CPU cores; `docs/measured.md` has the tables. The figures in the docstrings say what is lost
without it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.spec import Precision

MATMUL_PRECISIONS: dict[Precision, str] = {"float32": "highest", "tf32": "tensorfloat32"}
"""JAX's name of each precision of matrix products."""

CompilerOptions = dict[str, str | bool]


class Cost(NamedTuple):
    """What the compiler says of a program."""

    compile_seconds: float
    peak_bytes: int
    """Arguments, outputs and temporaries on one device, as the compiler estimates them."""
    flops: float
    bytes_accessed: float
    """The compiler counts the body of each loop once, here and in `flops`: one step of the training program, and of a
    recurrence one of L steps, whose work is about 1 % of the products around it."""


def matmul_precision(precision: Precision) -> contextlib.AbstractContextManager[None]:
    """A context in which float32 matrices are multiplied at this precision. Without it an accelerator may round them to
    TF32 or bfloat16."""
    return jax.default_matmul_precision(MATMUL_PRECISIONS[precision])


def run_on_calling_thread() -> None:
    """Let JAX run a CPU's programs on the thread that calls them, which then also allocates their arrays.

    Of glibc's arenas only the main thread's keeps large arrays: another maps what exceeds 64 MB anew each time,
    whatever the setting, and a training step of ListOps takes 1.4 times as long. One arena for all threads would do as
    well, but the compiler's threads would wait for each other: 1.4 times as long. Call it before JAX makes its first
    array.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in `folder`, so that the same program is compiled once on a machine."""
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def compiler_options(batched_products: bool, training: bool) -> CompilerOptions:
    """What XLA is told about a program on a CPU; nothing on other devices.

    The scheduler that keeps memory low takes an eighth to a fifth less of it in the same time; the default one orders
    for operations that run side by side.

    By default XLA gives matrix products and sums to the library YNNPACK. Without products there, S5's evaluation takes
    4–20 % less time and its training up to 7 %, but a Transformer's evaluation takes 1.7 times as much: it has
    `batched_products`. Sums stay with the library in training, where a step of ListOps would else take a third longer;
    in evaluation they draw the last block into one slow kernel.
    """
    if jax.default_backend() != "cpu":
        return {}
    options: CompilerOptions = {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}
    if not batched_products:
        options["xla_cpu_experimental_ynn_fusion_type"] = "LIBRARY_FUSION_TYPE_REDUCE" if training else ""
    return options


def compile_program(
    function: Callable[..., Any],
    arguments: Sequence[Any],
    precision: Precision,
    options: CompilerOptions,
    donate: int | tuple[int, ...] = (),
) -> tuple[Any, Cost]:
    """`function` compiled ahead of time for arguments of these shapes, and what the compiler says of it."""
    with matmul_precision(precision):
        started = time.perf_counter()
        compiled = jax.jit(function, donate_argnums=donate).lower(*arguments).compile(options)
        seconds = time.perf_counter() - started
    memory, analysis = compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = 0
    if memory is not None:
        peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        peak -= memory.alias_size_in_bytes
    flops, traffic = (float(analysis[name]) if name in analysis else 0.0 for name in ("flops", "bytes accessed"))
    return compiled, Cost(seconds, int(peak), flops, traffic)


def computed_once(draw: Callable[[Array], list[Array]], key: Array, shape: tuple[int, ...], dtype: Any) -> list[Array]:
    """draw(key), a list of arrays of this shape, computed once and kept in memory on a CPU.

    XLA would otherwise compute random numbers again in each kernel that uses them, and compile those kernels for each
    block. What a branch returns is kept. The condition always holds, but the compiler does not know it.
    """

    def behind_branch(key: Array) -> list[Array]:
        words, never = jax.random.key_data(key), [jnp.zeros(shape[1:], dtype)] * shape[0]
        return lax.cond(words.min() <= words.max(), draw, lambda _: never, key)

    return lax.platform_dependent(key, cpu=behind_branch, default=draw)


def not_before(first: Any, x: Array) -> Array:
    """x, which the compiler can neither have before all arrays of `first` nor merge with the x that it has already.

    On a CPU, XLA drops its optimization barriers before it merges equal computations, so a branch stands in for one.
    """

    def behind_branch(first: Any, x: Array) -> Array:
        # The condition holds unless there is a NaN, and then the gradient is lost anyway; the compiler knows neither.
        total = sum(array.sum() for array in jax.tree.leaves(first))
        return lax.cond(total <= total + 1, lambda: x, lambda: jnp.zeros_like(x))

    def behind_barrier(first: Any, x: Array) -> Array:
        return lax.optimization_barrier((first, x))[1]

    return lax.platform_dependent(first, x, cpu=behind_branch, default=behind_barrier)


def all_finite(tree: Any) -> Array:
    """Whether every number of every array of the tree is finite, as one bool.

    One product over all arrays laid end to end: a reduction for each array takes the compiler a second longer.
    """
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    return jnp.isfinite(jnp.vdot(flat, flat))
