"""The options that XLA is given, and functions that stop it from undoing what the code says.

Each was measured on two CPU cores; `docs/measured.md` has the tables. The figures in the docstrings are the losses
without it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from lra_bench.machine.emulation import emulated
from lra_bench.machine.precision import matmul_precision
from lra_bench.spec import Precision

CompilerOptions = dict[str, str | bool]
"""XLA's options by name."""


class Cost(NamedTuple):
    """The compiler's account of a program."""

    compile_seconds: float
    peak_bytes: int
    """The bytes of arguments, outputs and temporaries on one device, as the compiler estimates them."""
    flops: float
    """The floating point operations. The compiler counts the body of each loop once, which is one step of the training
    program, and of a recurrence one of its L steps, whose work is about 1 % of the products around it."""
    bytes_accessed: float
    """The bytes read and written, counted in the same way."""


def run_on_calling_thread() -> None:
    """Let JAX run a CPU's programs on the thread that calls them, which then also allocates their arrays.

    Only the main thread's arena of glibc keeps large arrays. Every other one maps arrays above 64 MB again each time,
    whatever the setting, and a training step of ListOps takes 1.4 times as long. One arena for all threads would help
    too, but the compiler's threads would wait for each other: compiling takes 1.4 times as long. Call this before JAX
    makes its first array.
    """
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def use_compilation_cache(folder: Path) -> None:
    """Keep compiled programs in `folder`, or where JAX_COMPILATION_CACHE_DIR says, so that a program is compiled only
    once on a machine.

    On a GPU JAX also keeps there which algorithms of products XLA found the fastest. XLA's own cache of kernels stays
    off, as is JAX's default: its kernels can be those of another program (openxla/xla#33220) or GPU.
    """
    jax.config.update("jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR") or str(folder))


def compiler_options(batched_products: bool, training: bool) -> CompilerOptions:
    """The options for a program on a CPU; none on other devices.

    The memory-optimized scheduler takes an eighth to a fifth less memory in the same time. The default one orders
    operations so that they can run side by side.

    By default XLA gives matrix products and sums to the library YNNPACK. With products elsewhere, S5's evaluation takes
    4–20 % less time and its training up to 7 % less. A Transformer's evaluation would take 1.7 times as long, so a
    network with `batched_products` keeps the default. Sums stay in the library in training, where a step of ListOps
    would otherwise take a third longer. In evaluation the library's sums would merge the last block into one slow
    kernel.
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
    """Compile `function` ahead of time for arguments of these shapes; returns the program and its cost."""
    with matmul_precision(precision):
        started = time.perf_counter()
        compiled = jax.jit(emulated(function), donate_argnums=donate).lower(*arguments).compile(options)
        seconds = time.perf_counter() - started
    memory, analysis = compiled.memory_analysis(), compiled.cost_analysis() or {}
    peak = 0
    if memory is not None:
        peak = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        peak -= memory.alias_size_in_bytes
    flops, traffic = (float(analysis[name]) if name in analysis else 0.0 for name in ("flops", "bytes accessed"))
    return compiled, Cost(seconds, int(peak), flops, traffic)


def computed_once(draw: Callable[[Array], list[Array]], key: Array, shape: tuple[int, ...], dtype: Any) -> list[Array]:
    """Compute draw(key), a list of arrays that stack to this shape, once, and keep it in memory on a CPU.

    Otherwise XLA would compute the random numbers again in each kernel that uses them, and compile those kernels for
    each block. It does keep the value of a branch. The condition always holds, but the compiler cannot know that.
    """

    def behind_branch(key: Array) -> list[Array]:
        words, never = jax.random.key_data(key), [jnp.zeros(shape[1:], dtype)] * shape[0]
        return lax.cond(words.min() <= words.max(), draw, lambda _: never, key)

    return lax.platform_dependent(key, cpu=behind_branch, default=draw)


def not_before(first: Any, x: Array) -> Array:
    """A copy of x that depends on all arrays of `first`.

    The compiler cannot compute it before them, nor merge it with x itself. On a CPU, XLA drops its optimization
    barriers before it merges equal computations, so there a branch has the effect of a barrier.
    """

    def behind_branch(first: Any, x: Array) -> Array:
        # The condition is false only with a NaN, which spoils the gradient anyway. The compiler cannot know its value.
        total = sum(array.sum() for array in jax.tree.leaves(first))
        return lax.cond(total <= total + 1, lambda: x, lambda: jnp.zeros_like(x))

    def behind_barrier(first: Any, x: Array) -> Array:
        return lax.optimization_barrier((first, x))[1]

    return lax.platform_dependent(first, x, cpu=behind_branch, default=behind_barrier)


def all_finite(tree: Any) -> Array:
    """Whether every number of every array of the tree is finite, as one bool ().

    It is one maximum over all arrays in a row, because a reduction for each array takes the compiler a second longer.
    It is not the sum of squares, because that overflows where the norm exceeds 1.8e19.
    """
    flat = jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])
    return jnp.isfinite(jnp.abs(flat).max())
