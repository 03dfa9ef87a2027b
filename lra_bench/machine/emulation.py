"""TF32 products on a CPU, which has none: the factors are rounded as a GPU's tensor cores round them.

It shows on a CPU what a precision does to gradients and to training. It makes nothing faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend import core

from lra_bench.machine.platform import default_product_precision, target_platform

EXPONENT_BITS, MANTISSA_BITS = 8, 10
"""The format TF32."""


def emulated(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make `function` round the factors of its float32 products to TF32, on a CPU where TF32 is asked for.

    The precision is that of `jax.default_matmul_precision` where the result is traced. Products with a precision of
    their own, and programs for other platforms, are left as they are.
    """

    def rounded(*arguments: Any) -> Any:
        if target_platform() != "cpu" or default_product_precision() != "tensorfloat32":
            return function(*arguments)
        program, shape = jax.make_jaxpr(function, return_shape=True)(*arguments)
        return jax.tree.unflatten(jax.tree.structure(shape), _evaluate(program, jax.tree.leaves(arguments)))

    return rounded


def _evaluate(program: core.ClosedJaxpr, arguments: list[Array]) -> list[Array]:
    """Run a traced program with rounded products."""
    values: dict[Any, Any] = dict(zip(program.jaxpr.constvars, program.consts, strict=True))
    values.update(zip(program.jaxpr.invars, arguments, strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, core.Literal) else values[variable]

    for equation in program.jaxpr.eqns:
        inputs = [read(variable) for variable in equation.invars]
        if equation.primitive.name == "dot_general" and _is_tf32(equation.params["precision"]):
            inputs = [_rounded(x) for x in inputs]
        if equation.primitive.name.startswith("custom_"):
            # It is called, not differentiated, so its rule for derivatives has no use.
            program_inside = next(value for value in equation.params.values() if isinstance(value, core.ClosedJaxpr))
            values.update(zip(equation.outvars, _evaluate(program_inside, inputs), strict=True))
            continue
        if equation.primitive.name == "shard_map":  # it has transforms only, no products (`machine/mesh.py`)
            alone = core.Jaxpr([], equation.invars, equation.outvars, [equation])
            results = core.jaxpr_as_fun(core.ClosedJaxpr(alone, []))(*inputs)
            values.update(zip(equation.outvars, results, strict=True))
            continue
        parameters = {name: _with_rounding(value) for name, value in equation.params.items()}
        results = equation.primitive.bind(*inputs, **parameters)
        results = results if equation.primitive.multiple_results else [results]
        values.update(zip(equation.outvars, results, strict=True))
    return [read(variable) for variable in program.jaxpr.outvars]


def _is_tf32(precision: Any) -> bool:
    return precision in ((lax.Precision.HIGH, lax.Precision.HIGH), lax.Precision.HIGH)


def _rounded(x: Array) -> Array:
    return lax.reduce_precision(x, EXPONENT_BITS, MANTISSA_BITS) if x.dtype == jnp.float32 else x


def _with_rounding(value: Any) -> Any:
    """The same parameter of an operation, with rounding in every program that it holds."""
    if isinstance(value, core.ClosedJaxpr):
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in value.jaxpr.invars]
        return jax.make_jaxpr(lambda *inner: _evaluate(value, list(inner)))(*shapes)
    if isinstance(value, core.Jaxpr):
        return _with_rounding(core.ClosedJaxpr(value, [])).jaxpr
    if isinstance(value, tuple) and any(isinstance(item, core.ClosedJaxpr) for item in value):
        return tuple(_with_rounding(item) for item in value)
    return value
