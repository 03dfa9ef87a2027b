"""The kernels of a compiled program: what each is, how often it runs, the bytes it moves and the flops it multiplies.

A fusion, a call of a library or an operation that is not fused is one kernel. The bodies of loops count as often as
they run. Flops are those of matrix products and Fourier transforms; all else is memory traffic.

A custom kernel counts its operands and results once. Of Pallas' `cost_estimate` nothing is left in a compiled Triton
kernel (JAX 0.11), but its `metadata` is kept. A kernel that reads something twice says so by
`pallas_call(..., metadata={"bytes_accessed": "…"})`, with `"flops"` and their `"rate"` where it multiplies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

from lra_bench.bench.hlo import Computation, Instruction, Program
from lra_bench.bench.products import Work, fft_passes, is_product, product_work
from lra_bench.bench.traffic import bytes_moved, roots

Kind = Literal[
    "product",
    "custom kernel",
    "FFT",
    "reduction",
    "elementwise",
    "transpose, concatenate",
    "copy, slice, gather",
    "sort, scatter",
    "collective",
    "loop, branch",
    "other",
]
"""What a kernel does. `loop, branch` is time that these take beside what is inside them, and `other` what a trace holds
but no instruction of the program is known for."""

KINDS: tuple[Kind, ...] = get_args(Kind)

_NO_KERNEL = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "opt-barrier"),
    *("partition-id", "replica-id"),
}
_MOVES = {
    *("copy", "copy-start", "slice", "dynamic-slice", "dynamic-update-slice", "gather"),
    *("pad", "reshape", "broadcast", "reverse"),
}
_COLLECTIVES = ("all-reduce", "all-gather", "all-to-all", "reduce-scatter", "collective-")
_HEAVY: dict[str, Kind] = {
    "dot": "product",
    "custom-call": "custom kernel",
    "fft": "FFT",
    "scatter": "sort, scatter",
    "sort": "sort, scatter",
    "reduce": "reduction",
    "reduce-window": "reduction",
}
"""The operations that decide what kind of kernel a fusion is, the most expensive first."""


@dataclass(frozen=True)
class Kernel:
    """A kernel of a program."""

    instruction: Instruction
    source: Instruction
    """The instruction whose name and source line stand for the kernel: in a fusion, its most expensive one."""
    kind: Kind
    times: int
    """How often the program launches it."""
    bytes_moved: int
    """The bytes that one launch reads and writes."""
    work: Work
    """The flops of one launch."""


class Count(NamedTuple):
    """The kernels of a program or a part of it, and what is uncertain about their number."""

    kernels: list[Kernel]
    notes: list[str]


def step_kernels(program: Program) -> Count:
    """The kernels of one step: of the loop over batches, whose number the compiler does not know, body and condition.

    What the program does once, before and after that loop, is left out. A program without it counts as a whole.
    """
    entry = program.computations[program.entry]
    loops = [found for found in entry.instructions.values() if found.opcode == "while" and trips(found) is None]
    parts = program.called(loops[0]) if len(loops) == 1 else [entry]
    notes: list[str] = []
    kernels = [kernel for part in parts for kernel in _kernels(program, part, 1, notes)]
    return Count(kernels, list(dict.fromkeys(notes)))


def trips(loop: Instruction) -> int | None:
    """How often a loop runs; None where the compiler does not know."""
    found = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"')
    return int(found) if found else None


def _kernels(program: Program, computation: Computation, times: int, notes: list[str]) -> Iterator[Kernel]:
    """The kernels of a computation that runs so many times. What is uncertain is added to `notes`."""
    for instruction in computation.instructions.values():
        if instruction.opcode in _NO_KERNEL or instruction.opcode.endswith("-done"):
            continue
        match instruction.opcode:
            case "while":
                n = trips(instruction)
                if n is None:
                    notes.append(f"The loop {instruction.name} runs an unknown number of times. It is counted once.")
                # The condition of a loop of known length is not computed.
                name = instruction.attribute(r"\bbody=%([\w.\-]+)")
                parts = program.called(instruction) if n is None else [program.computations[name]]
                for part in parts:
                    yield from _kernels(program, part, times * (n or 1) if n != 0 else 0, notes)
            case "conditional":
                notes.append("Of a branch, the alternative that moves the most bytes is counted.")
                branches = [list(_kernels(program, part, times, notes)) for part in program.called(instruction)]
                yield from max(branches, key=lambda kernels: sum(each.times * each.bytes_moved for each in kernels))
            case "call" | "async-start":
                for part in program.called(instruction):
                    yield from _kernels(program, part, times, notes)
            case _:
                yield kernel_of(program, computation, instruction, times)


def kernel_of(program: Program, computation: Computation, instruction: Instruction, times: int) -> Kernel:
    """The kernel that computes one instruction, run so many times. A loop or a branch itself moves nothing."""
    kind, source = kind_of(program, instruction)
    if kind == "loop, branch":
        return Kernel(instruction, source, kind, times, 0, {})
    moved = bytes_moved(program, computation, instruction)
    work = product_work(program, computation, instruction)
    if instruction.opcode == "fft":
        passes, work = fft_passes(computation, instruction)
        times *= passes
    kernel = Kernel(instruction, source, kind, times, moved, work)
    return _as_declared(kernel) if kind == "custom kernel" else kernel


def _as_declared(kernel: Kernel) -> Kernel:
    """A custom kernel with the bytes and the flops that its metadata declares, if any."""
    text = kernel.instruction.attribute(r'serialized_metadata = "((?:[^"\\]|\\.)*)"')
    declared = json.loads(re.sub(r"\\([0-9A-F]{2})", lambda code: chr(int(code[1], 16)), text)) if text else {}
    if "bytes_accessed" in declared:
        kernel = replace(kernel, bytes_moved=int(declared["bytes_accessed"]))
    if "flops" in declared:
        kernel = replace(kernel, work={declared["rate"]: float(declared["flops"])})
    return kernel


def kind_of(program: Program, instruction: Instruction) -> tuple[Kind, Instruction]:
    """What kind of kernel computes an instruction, and the instruction that stands for it."""
    if instruction.opcode in ("while", "conditional"):
        return "loop, branch", instruction
    if instruction.opcode.startswith(_COLLECTIVES):
        return "collective", instruction
    inside = list(_inside(program, instruction))
    for opcode, kind in _HEAVY.items():
        for found in inside:
            if found.opcode == opcode:
                return "product" if opcode == "custom-call" and is_product(found) else kind, found
    named = [found for found in (instruction, *reversed(inside)) if found.op_name]
    source = named[0] if named else instruction
    results = {found.opcode for _, found in roots(program, instruction)} or {instruction.opcode}
    if results & {"transpose", "concatenate"}:
        return "transpose, concatenate", source
    # What a fused gather computes is the numbers of its rows.
    if results <= {"gather", "dynamic-slice"} or {found.opcode for found in inside} - _NO_KERNEL <= _MOVES:
        return "copy, slice, gather", source
    return "elementwise", source


def _inside(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The operations of a fusion or a call, with those that it contains in turn; of any other instruction, itself."""
    if instruction.opcode not in ("fusion", "call"):
        yield instruction
        return
    for called in program.called(instruction):
        for found in called.instructions.values():
            yield from _inside(program, found)
