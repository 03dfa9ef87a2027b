"""Reading the text of a compiled program: its computations, instructions, and the source lines they come from.

XLA prints a compiled program as one instruction per line, `%name = type opcode(%operands), attributes`, in computations
that instructions call. Before them stand tables of files, functions and source locations, to which the metadata of
an instruction refers. The text is the only public form of a compiled program, and the same on every device.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

_COMPUTATION = re.compile(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"\s+(ROOT )?%?([\w.\-]+) = ")
_ARRAY = re.compile(r"\b([a-z]+)(\d*)(\w*)\[([\d,]*)\]")
_NAME = re.compile(r"%([\w.\-]+)")
_TABLE_ROW = re.compile(r'(\d+) (?:"(.*)"|\{(.*)\})$')
_CALLED = re.compile(r"\b(?:calls|to_apply|body|condition|true_computation|false_computation)=%([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_METADATA = re.compile(r'\bmetadata=\{(?:[^{}"]|"(?:[^"\\]|\\.)*")*\}')


class ArrayType(NamedTuple):
    """The type of an array, such as `bf16[64,128]`."""

    dtype: str
    shape: tuple[int, ...]
    bits: int
    """The bits of one element."""

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The bytes of the array."""
        return -(-self.size * self.bits // 8)


class Frame(NamedTuple):
    """A line of source on the call stack of an operation."""

    function: str
    """The qualified name, such as `Block.__call__`."""
    file: str
    line: int


@dataclass(frozen=True)
class Instruction:
    """One instruction of a computation."""

    name: str
    types: tuple[ArrayType, ...]
    """The arrays of the result: several for a tuple."""
    opcode: str
    operands: tuple[str, ...]
    arguments: str
    """The text between the parentheses, such as the number of a parameter."""
    attributes: str
    """The text after the parentheses."""

    @property
    def nbytes(self) -> int:
        """The bytes of the result."""
        return sum(array.nbytes for array in self.types)

    @property
    def called(self) -> list[str]:
        """The names of the computations that it calls, in the order of the text."""
        names = _CALLED.findall(self.attributes)
        branches = _BRANCHES.search(self.attributes)
        return names + (_NAME.findall(branches[1]) if branches else [])

    @property
    def op_name(self) -> str:
        """JAX's name of the operation, such as `jit(loop)/while/body/jvp()/dot_general`; "" where there is none."""
        return self._metadata(r'op_name="((?:[^"\\]|\\.)*)"')

    @property
    def frame_id(self) -> int:
        """The number of its stack frame; 0 where there is none."""
        return int(self._metadata(r"stack_frame_id=(\d+)") or 0)

    def attribute(self, pattern: str) -> str:
        """The first group of the pattern in the attributes; "" where it is not found."""
        found = re.search(pattern, self.attributes)
        return found[1] if found else ""

    def _metadata(self, pattern: str) -> str:
        metadata = _METADATA.search(self.attributes)
        found = re.search(pattern, metadata[0]) if metadata else None
        return found[1] if found else ""


@dataclass
class Computation:
    """A computation: its instructions by name, in the order in which they run."""

    name: str
    instructions: dict[str, Instruction] = field(default_factory=dict)
    root: str = ""
    """The name of the instruction whose result is the computation's."""

    def operand(self, instruction: Instruction, index: int) -> Instruction:
        """The instruction that makes an operand."""
        return self.instructions[instruction.operands[index]]

    def parameter(self, number: int) -> Instruction:
        """The parameter of this number. Raises KeyError where there is none."""
        for instruction in self.instructions.values():
            if instruction.opcode == "parameter" and instruction.arguments == str(number):
                return instruction
        raise KeyError(number)


@dataclass
class Program:
    """A compiled program."""

    name: str = ""
    """The name of the module, as a trace has it, such as `jit_loop`."""
    computations: dict[str, Computation] = field(default_factory=dict)
    entry: str = ""
    """The name of the computation that runs first."""
    frames: dict[int, tuple[Frame, ...]] = field(default_factory=dict)
    """The call stacks by their number, outermost call first."""
    places: dict[str, str] = field(default_factory=dict)
    """The computation of each instruction. No two instructions have the same name."""
    callers: dict[str, Instruction] = field(default_factory=dict)
    """An instruction that calls each computation."""

    def find(self, name: str) -> tuple[Computation, Instruction] | None:
        """The instruction of this name and its computation; None where there is none."""
        if name not in self.places:
            return None
        computation = self.computations[self.places[name]]
        return computation, computation.instructions[name]

    def attributed(self, instruction: Instruction) -> Instruction:
        """The instruction itself, or, where its source is not known, the nearest one around it whose source is.

        Copies that the compiler adds to the body of a loop have no source, and the loop has one.
        """
        found: Instruction | None = instruction
        while found is not None and found.frame_id not in self.frames:
            place = self.places[found.name]
            found = self.callers.get(place)
        return found or instruction

    def called(self, instruction: Instruction) -> list[Computation]:
        """The computations that an instruction calls."""
        return [self.computations[name] for name in instruction.called]

    def stack(self, instruction: Instruction) -> tuple[Frame, ...]:
        """The call stack of the operation that an instruction comes from, outermost call first; () if not known."""
        return self.frames.get(instruction.frame_id, ())


def parse(text: str) -> Program:
    """Parse the text of a compiled program, as `compiled.as_text()` gives it.

    Raises ValueError where the text has no entry computation.
    """
    program, current, table = Program(), None, ""
    tables: dict[str, dict[int, str]] = {}
    for line in text.splitlines():
        if line.startswith("HloModule "):
            program.name = line.split()[1].rstrip(",")
        elif line in ("FileNames", "FunctionNames", "FileLocations", "StackFrames"):
            table = line
        elif table and (row := _TABLE_ROW.match(line)):
            tables.setdefault(table, {})[int(row[1])] = row[2] if row[3] is None else row[3]
        elif header := _COMPUTATION.match(line):
            current, table = Computation(header[2]), ""
            program.computations[header[2]] = current
            if header[1]:
                program.entry = header[2]
        elif current is not None and (head := _INSTRUCTION.match(line)):
            instruction = _instruction(head[2], line[head.end() :])
            current.instructions[instruction.name] = instruction
            program.places[instruction.name] = current.name
            program.callers.update(dict.fromkeys(instruction.called, instruction))
            if head[1]:
                current.root = instruction.name
    if not program.entry:
        raise ValueError("the text is no compiled program: it has no entry computation.")
    program.frames = _stacks(tables)
    return program


def arrays(text: str) -> tuple[ArrayType, ...]:
    """The arrays that are named in the text of a type. Tokens and other types without bytes are left out."""
    found = []
    for kind, digits, rest, dimensions in _ARRAY.findall(text):
        if digits or kind == "pred":
            shape = tuple(int(size) for size in dimensions.split(",") if size)
            found.append(ArrayType(kind + digits + rest, shape, int(digits or 8)))
    return tuple(found)


def _instruction(name: str, text: str) -> Instruction:
    """Parse `type opcode(operands), attributes`."""
    end_of_type = _closing(text, 0) + 1 if text.startswith("(") else text.index(" ")
    opens = text.index("(", end_of_type)
    closes = _closing(text, opens)
    arguments = text[opens + 1 : closes]
    operands = tuple(_NAME.findall(arguments))
    return Instruction(
        name, arrays(text[:end_of_type]), text[end_of_type:opens].strip(), operands, arguments, text[closes + 1 :]
    )


def _closing(text: str, opens: int) -> int:
    """The index of the parenthesis that closes the one at `opens`. Parentheses in quoted text do not count."""
    depth, quoted, i = 0, False, opens
    while i < len(text):
        letter = text[i]
        if quoted:
            i += letter == "\\"
            quoted = letter != '"'
        elif letter == '"':
            quoted = True
        elif letter in "()":
            depth += 1 if letter == "(" else -1
            if depth == 0:
                return i
        i += 1
    raise ValueError(f"a parenthesis is not closed in {text[:80]!r}.")


def _stacks(tables: dict[str, dict[int, str]]) -> dict[int, tuple[Frame, ...]]:
    """The call stacks by number, from the four tables before the computations."""
    if "StackFrames" not in tables:
        return {}
    rows = {number: _numbers(text) for number, text in tables["StackFrames"].items()}
    locations = {number: _numbers(text) for number, text in tables["FileLocations"].items()}
    # XLA prints the number of a frame's caller plus one, so that 1 stands for none.
    none = min(row["parent_frame_id"] for row in rows.values())
    stacks: dict[int, tuple[Frame, ...]] = {}
    for number, row in sorted(rows.items()):
        place = locations[row["file_location_id"]]
        frame = Frame(
            tables["FunctionNames"][place["function_name_id"]],
            tables["FileNames"][place["file_name_id"]],
            place["line"],
        )
        caller = row["parent_frame_id"] - none
        stacks[number] = (*(stacks[caller] if caller else ()), frame)
    return stacks


def _numbers(text: str) -> dict[str, int]:
    return {name: int(value) for name, value in re.findall(r"(\w+)=(\d+)", text)}
