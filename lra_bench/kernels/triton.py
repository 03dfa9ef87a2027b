"""Pallas' Triton dialect: all that this package uses of it.

The dialect is deprecated from JAX 0.12 on. Its heirs are Mosaic GPU, which runs on Hopper and later only, and the
package `jax_triton`. Where it is missing, or elsewhere than on one GPU, `usable` sends callers to their plain twins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl

from lra_bench.machine.platform import target_has_bfloat16_products

try:
    from jax.experimental.pallas import triton
except ImportError:  # a JAX that has dropped the dialect
    triton = None  # type: ignore[assignment]

Shape = jax.ShapeDtypeStruct
"""The shape and dtype of an output."""

program_id = pl.program_id
"""The place of the running program along an axis of the grid."""


def usable(largest: int) -> bool:
    """Whether programs that are traced now can have these kernels: for one GPU, with a JAX that has the dialect.

    largest: the numbers in the largest array of a kernel. Its indices are integers of 32 bits.
    XLA compiles the dialect for NVIDIA's GPUs of compute capability 8.0 or more only. With several devices, JAX would
    gather all arguments of a kernel on each of them.
    """
    here = triton is not None and target_has_bfloat16_products() and jax.device_count() == 1
    return here and largest < 2**31


class Interpreter:
    """The switch that lets tests run the kernels without a GPU."""

    on = False


def load(array: Any, index: Any, mask: Any = None) -> Array:
    """Load the numbers of a flat array at these indices; zero where the mask is false."""
    return triton.load(array.at[index], mask=mask, other=None if mask is None else 0)


def store(array: Any, index: Any, value: Array, mask: Any = None) -> None:
    """Store numbers, in the array's dtype, at these indices of a flat array, where the mask is true."""
    triton.store(array.at[index], value.astype(array.dtype), mask=mask)


def wait_for_stores() -> None:
    """Let every thread of a program see what the others have stored before. The interpreter needs no such wait."""
    if not Interpreter.on:
        triton.debug_barrier()


class Work(NamedTuple):
    """What a kernel does beyond reading its arguments and writing its outputs once, for `bench --target`."""

    bytes_again: int = 0
    """The bytes that it reads or writes a second time."""
    flops: int = 0
    """The flops of its products."""


def call(
    kernel: Callable[..., None],
    name: str,
    grid: tuple[int, ...],
    arguments: Sequence[Array],
    outputs: Sequence[Shape],
    warps: int,
    work: Work,
) -> list[Array]:
    """Run `kernel(*argument refs, *output refs)` once for each place of the grid. All arrays are flat."""
    options: dict[str, Any] = {"interpret": True}
    if not Interpreter.on:
        options = {"compiler_params": triton.CompilerParams(num_warps=warps, num_stages=1)}
    flat = [argument.reshape(-1) for argument in arguments]
    moved = sum(map(_nbytes, (*flat, *outputs))) + work.bytes_again
    metadata = {"bytes_accessed": str(moved)}
    if work.flops:
        rate = "bfloat16" if outputs[0].dtype == jnp.bfloat16 else "tf32"
        metadata |= {"flops": str(work.flops), "rate": rate}
    return pl.pallas_call(kernel, out_shape=list(outputs), grid=grid, name=name, metadata=metadata, **options)(*flat)


def _nbytes(array: Any) -> int:
    return array.size * array.dtype.itemsize
