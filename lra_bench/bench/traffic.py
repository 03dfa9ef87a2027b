"""The bytes that a kernel of a compiled program moves between its registers and memory.

A kernel reads each operand once and writes its result once; what caches save or miss is not known. Where it takes only
slices or rows of an operand, those count, and where it changes a part of a buffer in place, that part counts.
"""

from __future__ import annotations

from collections.abc import Iterator

from lra_bench.bench.hlo import Computation, Instruction, Program
from lra_bench.bench.products import is_product

_TAKES_PARTS = frozenset(("slice", "dynamic-slice", "gather"))
_PASSES_ON = frozenset(("bitcast", "reshape", "copy", "convert"))
"""Operations inside a fusion whose result is read where it is used, and not kept."""


def bytes_moved(program: Program, computation: Computation, instruction: Instruction) -> int:
    """The bytes that an instruction reads and writes if it is one kernel."""
    if instruction.opcode.endswith("-start"):
        return 2 * sum(computation.instructions[name].nbytes for name in instruction.operands)
    if instruction.opcode == "custom-call" and is_product(instruction):
        written = instruction.types[0].nbytes  # what follows it is cuBLAS's workspace
    elif instruction.opcode == "fusion":
        written = sum(bytes_written(called, root) for called, root in roots(program, instruction))
    else:
        written = bytes_written(computation, instruction)
    # An operand that is named twice is read once.
    numbers = {name: number for number, name in reversed(list(enumerate(instruction.operands)))}
    whole = {name: computation.instructions[name].nbytes for name in numbers}
    read = sum(min(whole[name], bytes_read(program, computation, instruction, name)) for name in numbers)
    return written + read


def bytes_read(program: Program, computation: Computation, user: Instruction, name: str) -> int:
    """The bytes of operand `name` that an instruction reads."""
    whole, first = computation.instructions[name].nbytes, user.operands[0] == name
    if user.opcode in _TAKES_PARTS and first:
        return user.nbytes
    if user.opcode == "dynamic-update-slice" and first:
        return 0
    if user.opcode == "scatter" and first:
        return computation.operand(user, -1).nbytes
    if user.opcode == "fusion":
        (called,) = program.called(user)
        numbers = [number for number, operand in enumerate(user.operands) if operand == name]
        return sum(bytes_used(program, called, called.parameter(number).name) for number in numbers)
    return whole


def bytes_used(program: Program, fused: Computation, name: str) -> int:
    """The bytes of the value `name` that the instructions of a fusion read; at most all of them."""
    users = [found for found in fused.instructions.values() if name in found.operands]
    read = 0
    for user in users:
        if user.opcode in _PASSES_ON and user.name != fused.root:
            # A bitcast may be followed by slices only.
            read += bytes_used(program, fused, user.name) * fused.instructions[name].nbytes // max(user.nbytes, 1)
        else:
            read += bytes_read(program, fused, user, name)
    return min(read, fused.instructions[name].nbytes)


def bytes_written(computation: Computation, result: Instruction) -> int:
    """The bytes that an instruction writes as the result of a kernel: of a buffer changed in place, the change."""
    match result.opcode:
        case "dynamic-update-slice":
            return computation.operand(result, 1).nbytes
        case "scatter":
            return computation.operand(result, -1).nbytes
        case "parameter":
            return 0
    return result.nbytes


def roots(program: Program, fusion: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """The instructions that make the results of a fusion, each with its computation; none for other instructions."""
    if fusion.opcode != "fusion":
        return
    for called in program.called(fusion):
        root = called.instructions[called.root]
        for name in root.operands if root.opcode == "tuple" else [root.name]:
            found = called.instructions[name]
            while found.opcode == "bitcast":
                found = called.operand(found, 0)
            yield called, found
