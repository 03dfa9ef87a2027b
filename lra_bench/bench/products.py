"""The flops of matrix products and Fourier transforms in a compiled program, by the precision that computes them."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from lra_bench.bench.hlo import ArrayType, Computation, Instruction, Program

Rate = Literal["float64", "float32", "tf32_x3", "bfloat16_x6", "bfloat16_x3", "tf32", "bfloat16"]
"""The ways to multiply, each with a rate of its own on a GPU. `_x3` and `_x6` are that many products in the shorter
format for one of float32."""

RATES: tuple[Rate, ...] = get_args(Rate)

Work = Mapping[Rate, float]
"""Flops by the way in which they are multiplied."""

_ALGORITHMS: dict[str, Rate] = {
    "dot_f64_f64_f64": "float64",
    "dot_f32_f32_f32": "float32",
    "dot_tf32_tf32_f32": "tf32",
    "dot_tf32_tf32_f32_x3": "tf32_x3",
    "dot_bf16_bf16_f32": "bfloat16",
    "dot_bf16_bf16_bf16": "bfloat16",
    "dot_bf16_bf16_f32_x3": "bfloat16_x3",
    "dot_bf16_bf16_f32_x6": "bfloat16_x6",
    "dot_f16_f16_f16": "bfloat16",
    "dot_f16_f16_f32": "bfloat16",
}
"""The rate of each of XLA's algorithms for products."""

FFT_PASS = 2**12
"""The longest Fourier transform that one kernel computes within a multiprocessor. A longer one takes a kernel for each
factor of this size. It is an assumption about cuFFT, not a measurement."""


def is_product(call: Instruction) -> bool:
    """Whether a custom call is a matrix product of cuBLAS or cuBLASLt."""
    target = call.attribute(r'custom_call_target="([^"]*)"')
    return target.startswith("__cublas$") and target.endswith(("gemm", "matmul", "f8"))


def product_work(program: Program, computation: Computation, instruction: Instruction) -> Work:
    """The flops of the products that an instruction computes: a product, a call of cuBLAS, or a fusion with products.

    A fused product multiplies at the type that its operands have inside the fusion.
    """
    match instruction.opcode:
        case "dot":
            contracted = instruction.attribute(r"lhs_contracting_dims=\{([\d,]*)\}").split(",")
            precision = instruction.attribute(r"operand_precision=\{(\w+)")
            algorithm = instruction.attribute(r"\balgorithm=(\w+)")
        case "custom-call" if is_product(instruction):
            names = instruction.attribute(r'"lhs_contracting_dimensions":(\[[^\]]*\])')
            contracted = json.loads(names)
            precision = instruction.attribute(r'"operand_precision":\["(\w+)"').lower()
            algorithm = instruction.attribute(r'"algorithm":"(\w+)"').lower().replace("alg_", "")
        case "fusion" | "call":
            inside = [
                product_work(program, called, found)
                for called in program.called(instruction)
                for found in called.instructions.values()
            ]
            return total(inside)
        case _:
            return {}
    left = computation.operand(instruction, 0).types[0]
    depth = math.prod(left.shape[int(axis)] for axis in contracted if axis != "")
    flops = 2.0 * instruction.types[0].size * depth
    # A product of complex numbers is four of real ones.
    return {_rate(left, precision, algorithm): flops * (4 if left.dtype.startswith("c") else 1)}


def _rate(left: ArrayType, precision: str, algorithm: str) -> Rate:
    """The rate of a product by its algorithm, or else by the type of its left operand and its precision.

    On a GPU, float32 at any precision but the highest is rounded to TF32.
    """
    if algorithm in _ALGORITHMS:
        return _ALGORITHMS[algorithm]
    match left.dtype:
        case "f64" | "c128":
            return "float64"
        case "f32" | "c64":
            return "float32" if precision == "highest" else "tf32"
        case "bf16" | "f16":
            return "bfloat16"
    return "float32"


def fft_passes(computation: Computation, instruction: Instruction) -> tuple[int, Work]:
    """The kernels of a Fourier transform, and the flops of each: 5 n log₂ n in all, half of it for real data."""
    lengths = [int(n) for n in instruction.attribute(r"fft_length=\{([\d,]+)\}").split(",")]
    passes = sum(max(1, math.ceil(math.log2(length) / math.log2(FFT_PASS))) for length in lengths)
    half = 0.5 if instruction.attribute(r"fft_type=(\w+)") in ("RFFT", "IRFFT") else 1.0
    # Of a real transform, the real side has all n numbers and the complex one about half.
    size = max(instruction.types[0].size, computation.operand(instruction, 0).types[0].size)
    return passes, {"float32": half * 5 * size * math.log2(math.prod(lengths)) / passes}


def total(works: Sequence[Work]) -> Work:
    """The sum of several kernels' flops."""
    return {rate: flops for rate in RATES if (flops := sum(work[rate] for work in works if rate in work))}
