"""The module of the network that an instruction of a compiled program comes from, by its call stack.

XLA keeps the Python call stack of each operation, and gradients have that of the operation that they belong to. So the
names need no marks in the models' code: where blocks keep a BatchNorm as `norm`, what `Block.__call__` →
`BatchNorm.__call__` computes is `blocks/norm`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePath
from typing import Any, Literal

from flax import nnx

from lra_bench.bench.hlo import Frame, Instruction, Program

Pass = Literal["forward", "backward", "other"]
"""The part of a training step: `other` is the optimizer and the books of the epoch."""

DEPTH = 2
"""The most modules in a name, such as `blocks/gate`. Behind them, the file of the mathematics is named, if any."""

_PASSING_ON = {"triton"}
"""The files of mathematics that only pass a call on, so that the file before them names the kernel."""

UNKNOWN = "(unknown)"
"""The name where XLA keeps no call stack, as for copies that the compiler added."""


def pass_of(instruction: Instruction) -> Pass:
    """The part of a training step that an instruction belongs to, by the transformations in JAX's name of it."""
    if "transpose(" in instruction.op_name:
        return "backward"
    return "forward" if "jvp(" in instruction.op_name else "other"


def module_of(program: Program, instruction: Instruction, network: nnx.Module) -> str:
    """The name of the module of `network` that an instruction comes from, or what else a training step does there."""
    stack = program.stack(instruction)
    if not stack:
        return UNKNOWN
    path: list[str] = []
    module, inside, below = network, False, ""
    for frame in stack:
        # A gradient rule's stack starts anew at the network.
        if _is_method(frame, network):
            path, module, inside, below = [], network, True, ""
        elif inside and len(path) < DEPTH and (found := _child(module, frame)):
            path, module, below = [*path, found[0]], found[1], ""
        elif inside:
            below = _below(frame, len(path)) or below
    if not inside:
        return _outside(stack)
    return "/".join([*(path or ["network"]), *([below] if below else [])])


def _below(frame: Frame, depth: int) -> str:
    """What stands behind the module in a name: the file of the mathematics, or, short of DEPTH, a models' function."""
    place = PurePath(frame.file)
    function, _, rest = frame.function.partition(".")
    if place.parent.name in ("ssm", "kernels"):
        return "" if place.stem in _PASSING_ON else place.stem
    is_function = not function.startswith("_") and (not rest or rest.startswith("<locals>"))
    return function if place.parent.name == "models" and is_function and depth < DEPTH else ""


def _is_method(frame: Frame, module: nnx.Module) -> bool:
    """Whether a frame is a method of the module's class or of a class that it inherits from."""
    owner, _, method = frame.function.partition(".")
    return bool(method) and owner in {cls.__name__ for cls in type(module).__mro__}


def _child(module: nnx.Module, frame: Frame) -> tuple[str, nnx.Module] | None:
    """The attribute of `module` whose method a frame is, and that attribute's module; None where there is none."""
    for name, child in _children(module):
        if _is_method(frame, child):
            return name, child
    return None


def _children(module: nnx.Module) -> Iterator[tuple[str, nnx.Module]]:
    """The modules that a module keeps as attributes or in lists. Those of a list share its name."""
    for name, value in vars(module).items():
        values: list[Any] = list(value) if isinstance(value, nnx.List | list | tuple) else [value]
        yield from ((name, child) for child in values if isinstance(child, nnx.Module))


def _outside(stack: tuple[Frame, ...]) -> str:
    """What a step does outside the network: `optimizer`, `loss`, or else the name of the function."""
    files = [PurePath(frame.file).parts for frame in stack]
    if any("optax" in parts and "losses" in parts for parts in files):
        return "loss"
    if any("optax" in parts for parts in files):
        return "optimizer"
    ours = [frame for frame, parts in zip(stack, files, strict=True) if "lra_bench" in parts]
    return (ours or list(stack))[-1].function.partition(".<locals>")[0]
