"""What the kernels of a training step cost, predicted or measured, and sums of it by kind of kernel or by module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lra_bench.bench.hlo import Program
from lra_bench.bench.kernels import Kernel, Kind
from lra_bench.bench.modules import Pass, module_of, pass_of


class Cost(NamedTuple):
    """What kernels cost in a training step."""

    kernels: float
    """The number of launches."""
    bytes_moved: float
    flops: float
    seconds: float


class KernelCost(NamedTuple):
    """Kernels that are alike, of one kind and module with the same bytes and flops, and their cost together."""

    kind: Kind
    module: str
    part: Pass
    op_name: str
    """JAX's name of one of them."""
    result: str
    """The type and shape of the first result, as in `f32[64,128]`."""
    cost: Cost


def total(costs: Iterable[Cost]) -> Cost:
    """The sum of costs."""
    rows = list(costs)
    return Cost(
        sum(row.kernels for row in rows),
        sum(row.bytes_moved for row in rows),
        sum(row.flops for row in rows),
        sum(row.seconds for row in rows),
    )


def alike(program: Program, network: Any, priced: Sequence[tuple[Kernel, float]], steps: int = 1) -> list[KernelCost]:
    """Put kernels together that are alike, the most expensive first.

    priced: each kernel, with the seconds of all of its launches. steps: the training steps that they come from.
    """
    found: dict[tuple[Any, ...], tuple[KernelCost, list[Cost]]] = {}
    for kernel, seconds in priced:
        flops, array = sum(kernel.work.values()), (kernel.instruction.types or (None,))[0]
        times = kernel.times / steps
        cost = Cost(times, times * kernel.bytes_moved, times * flops, seconds / steps)
        result = f"{array.dtype}[{','.join(map(str, array.shape))}]" if array else ""
        source = program.attributed(kernel.source)
        module, part = module_of(program, source, network), pass_of(source)
        one = KernelCost(kernel.kind, module, part, source.op_name, result, cost)
        key = kernel.kind, module, part, kernel.bytes_moved, flops, result
        found.setdefault(key, (one, []))[1].append(cost)
    kernels = [one._replace(cost=total(costs)) for one, costs in found.values()]
    return sorted(kernels, key=lambda kernel: -kernel.cost.seconds)


def summed(kernels: Sequence[KernelCost], key: Callable[[KernelCost], str]) -> dict[str, Cost]:
    """The cost of the kernels of each key, the most expensive first."""
    names = dict.fromkeys(key(kernel) for kernel in kernels)
    sums = {name: total(kernel.cost for kernel in kernels if key(kernel) == name) for name in names}
    return dict(sorted(sums.items(), key=lambda item: -item[1].seconds))
