"""The task ListOps: find the value, one of ten digits, of nested list operations on digits.

Examples are generated here by the official grammar, or read from the TSV files of LRA.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import rng_of
from lra_bench.data.raw import archive, lra_release
from lra_bench.data.raw.reading import MANY, Example, in_batches, no_val_fraction
from lra_bench.datasource import Generator, Layout, PlacedRows, Reader, Request, Rows, counts_for, pad_rows
from lra_bench.errors import UserError
from lra_bench.spec import SPLITS, HealthMark, Protocol, Source, SplitName, Task

TASK = Task(
    name="listops",
    title="ListOps",
    version="1.0.0",
    description="Expressions of MIN, MAX, MED (median) and SM (sum modulo 10) over digits, up to ten levels deep; "
    "the class is the expression's value.",
    citation="Nangia and Bowman, ListOps: A Diagnostic Dataset for Latent Tree Learning, NAACL SRW 2018; "
    "Tay et al., Long Range Arena, ICLR 2021",
    inputs="tokens",
    documents=1,
    length=2048,
    classes=10,
    variable_length=True,
    splits={"train": 96_000, "val": 2_000, "test": 2_000},
    majority=0.169,
    selects_on_test=False,
    column=1,
    like=None,
    health=(HealthMark(epoch=10, accuracy=45),),
)


CLASSES = tuple("0123456789")
"""The meaning of each label."""


TOKENS = ("X", "0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "[MAX", "[MED", "[MIN", "[SM")
"""The tokens by falling expected frequency; tokens of equal frequency are sorted by their text.

X (`]`) comes first, because there is one per operator. Each digit is half as frequent; the operators come last. This is
torchtext's order (S4's vocabulary) without the sampling noise between equally likely tokens.
"""


@dataclass(frozen=True)
class Grammar:
    """The parameters of the grammar.

    An expression has at most `max_depth` levels, and an operator has 2 … `max_arguments` arguments. The number of
    tokens lies strictly between `min_length` and `max_length`; `]` counts, eos does not. `p_operator` is the
    probability that a node above the last level is an operator.
    """

    max_depth: int = 10
    max_arguments: int = 10
    min_length: int = 500
    max_length: int = 2000
    p_operator: float = 0.25


GRAMMAR = Grammar()
"""The published grammar."""

TINY_GRAMMAR = Grammar(max_depth=3, max_arguments=5, min_length=6, max_length=40)
TINY_SPLITS: dict[SplitName, int] = {"train": 2_000, "val": 500, "test": 500}
TINY_LENGTH = 40

FILES: dict[SplitName, str] = {split: f"basic_{split}.tsv" for split in SPLITS}
"""The name of each split's TSV file."""

FOLDERS = ("", "listops-1000", "lra_release/listops-1000", "lra_release/lra_release/listops-1000")
"""The folders of the TSV files below the given folder or archive. The two copies in the release are the same."""

SPLIT_OF = {str(PurePosixPath(folder, name)): split for folder in FOLDERS for split, name in FILES.items()}
"""The split of each path inside a folder or an archive."""

ONE_BYTE = {b"[MAX": b"\x01", b"[MED": b"\x02", b"[MIN": b"\x03", b"[SM": b"\x04"}
TOKEN_BYTES = b"]0123456789\x01\x02\x03\x04"
"""One byte per token, in the order of TOKENS. Operators have bytes that do not occur in a text file."""

NO_TOKEN = 255
NUMBER_OF_BYTE = np.full(256, NO_TOKEN, np.uint8)
NUMBER_OF_BYTE[list(TOKEN_BYTES)] = np.arange(len(TOKEN_BYTES))
"""The token number of each byte, uint8 (256,)."""

HEADER = b"Source\tTarget"

LONGEST = 1 << 20
"""The largest number of bytes of a line. An official line has some 20,000, most of them parentheses."""

LENGTHS = (501, 1_999)
"""The least and the largest number of tokens of an official expression."""


def layout_of(protocol: Protocol, counts: Mapping[SplitName, int], length: int | None = None) -> Layout:
    """Return the layout of a protocol.

    s4 has 18 ids and L = 2,048 with eos. lra has 17 ids and L = 2,000 without eos. `length` overrides L for tiny sets.
    """
    vocabulary = ("<pad>", "<unk>", "<eos>", *TOKENS) if protocol == "s4" else ("<pad>", *TOKENS, "<oov>")
    length = length or (TASK.length if protocol == "s4" else 2_000)
    return Layout(counts=counts, documents=1, length=length, classes=TASK.classes, vocabulary=vocabulary)


def encode(tokens: NDArray[np.uint8], layout: Layout) -> NDArray[np.uint8]:
    """Turn token numbers (n,) into ids of the layout's vocabulary; append eos if the vocabulary has one."""
    assert layout.vocabulary is not None
    ids = tokens + np.uint8(layout.vocabulary.index(TOKENS[0]))
    return np.append(ids, np.uint8(layout.vocabulary.index("<eos>"))) if "<eos>" in layout.vocabulary else ids


def tokens_of(inputs: NDArray[np.uint8], length: int, layout: Layout) -> NDArray[np.uint8]:
    """Return the token numbers of one padded row; the inverse of `encode`.

    An id that is not a token becomes a number outside TOKENS, because uint8 wraps around.
    """
    assert layout.vocabulary is not None
    end = length - 1 if "<eos>" in layout.vocabulary else length
    return inputs[:end] - np.uint8(layout.vocabulary.index(TOKENS[0]))


@dataclass(frozen=True)
class ListOpsGenerator:
    """The ListOps generator; see `lra_bench.datasource.Generator`.

    Example i takes its random numbers from the i-th block of the Philox stream of the seed.
    """

    layout: Layout
    grammar: Grammar
    distinct: bool = True
    chunk: int = 2_000
    seconds_per_example: float = 1.1e-4

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of the grammar, for the manifest."""
        return asdict(self.grammar)

    def generate(self, seed: int, start: int, stop: int) -> Rows:
        """Make the examples start … stop − 1; see `Generator.generate`."""
        # Imported here because numba is slow to import and `ls` needs TASK only.
        from lra_bench.data.generators.listops_grammar import draw_kept_tree

        g = self.grammar
        tokens = np.zeros(g.max_length + 2 * g.max_depth, np.uint8)
        documents, labels = [], []
        for index in range(start, stop):
            length, value = draw_kept_tree(
                rng_of(seed, index), g.max_depth, g.max_arguments, g.min_length, g.max_length, g.p_operator, tokens
            )
            documents.append((encode(tokens[:length], self.layout),))
            labels.append(value)
        return pad_rows(documents, labels, self.layout.length)


def parse_row(line: bytes, where: str) -> tuple[NDArray[np.uint8], int]:
    """Return the token numbers (n,) and the label of one TSV line; parentheses are dropped.

    The label is computed from the expression and compared with the file's. Raises UserError beginning with `where`.
    """
    from lra_bench.data.generators.listops_grammar import evaluate

    source, tab, target = line.rstrip(b"\r\n").partition(b"\t")
    if not tab or not line.endswith(b"\n"):
        raise UserError(f"{where} is cut off: it must be an expression, a tab, its value and a line end.")
    text = source.replace(b"( ", b"").replace(b" )", b"")
    for token, byte in ONE_BYTE.items():
        text = text.replace(token, byte)
    # Tokens are one byte each now, so they stand at the even positions and spaces at the odd ones.
    symbols = np.frombuffer(text, np.uint8)
    numbers = NUMBER_OF_BYTE[symbols[::2]]
    if len(symbols) % 2 == 0 or (symbols[1::2] != ord(" ")).any() or (numbers == NO_TOKEN).any():
        raise UserError(f"{where} holds something that is no ListOps token.")
    value = int(evaluate(numbers))
    if value < 0:
        raise UserError(f"{where} is not a complete expression.")
    if target != b"%d" % value:
        raise UserError(f"{where} has the value {value}, but the file says {target[:20].decode(errors='replace')!r}.")
    return numbers, value


@dataclass(frozen=True)
class TsvReader:
    """A reader of the three TSV files, from a folder or an archive; see `lra_bench.datasource.Reader`.

    Every label is computed again and compared.
    """

    path: Path
    layout: Layout
    whole: bool
    """Whether the files must hold exactly the layout's counts, not at least these."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples; see `Reader.batches`."""
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        for split, name, content in open_files(self.path):
            lines = archive.lines(content, LONGEST, name)
            if next(lines, b"").rstrip(b"\r\n") != HEADER:
                raise UserError(
                    f"{name} does not begin with the header Source, tab, Target: it is no ListOps file of LRA."
                )
            wanted = self.layout.counts[split]
            for row in range(wanted):
                line = next(lines, b"")
                if not line:
                    raise UserError(
                        f"{name} ends after row {row:,}; {wanted:,} rows are expected: the file is cut off."
                    )
                where = f"{name}, row {row + 1},"
                tokens, value = parse_row(line, where)
                document = encode(tokens, self.layout)
                if len(document) > self.layout.length:
                    raise UserError(f"{where} has {len(document)} steps; at most {self.layout.length} are possible.")
                yield self.layout.starts[split] + row, (document,), value
            if self.whole and next(lines, b""):
                raise UserError(f"{name} goes on after row {wanted:,}: it is not LRA's file.")


def open_files(path: Path) -> Iterator[tuple[SplitName, str, IO[bytes]]]:
    """Yield split, name for messages, and content of each TSV file, in the order of the folder or archive.

    Raises UserError if a file is missing.
    """
    missing = dict(FILES)
    for name, content in archive.files(path, SPLIT_OF.__contains__, skip=lambda _: True):
        split = SPLIT_OF[name]
        if missing.pop(split, None):  # the second copy in the release is skipped
            yield split, f"{path.name}/{name}", content
        if not missing:
            return
    raise UserError(f"{path} holds no {', '.join(missing.values())}, neither itself nor in {', '.join(FOLDERS[1:])}.")


class ListOpsData:
    """The data source of ListOps; see `lra_bench.datasource.DataSource`."""

    origins = (lra_release.ORIGIN,)

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        path = path.parent if path.suffix == ".tsv" else path
        if not path.is_dir():
            return [path]
        for folder in FOLDERS:
            found = [path / folder / name for name in FILES.values()]
            if all(file.is_file() for file in found):
                return found
        raise UserError(f"{path} holds no {', '.join(FILES.values())}, neither itself nor in {', '.join(FOLDERS[1:])}.")

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        no_val_fraction(request, TASK)
        layout = layout_of(request.protocol, counts_for(request.size, TASK.splits, TINY_SPLITS))
        located = self.locate(path)
        content = located[0] if len(located) == 1 else located[0].parent
        return TsvReader(content, layout, whole=request.size == "full")

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        no_val_fraction(request, TASK)
        counts = counts_for(request.size, TASK.splits, TINY_SPLITS)
        if request.size == "tiny":
            return ListOpsGenerator(layout_of(request.protocol, counts, TINY_LENGTH), TINY_GRAMMAR)
        return ListOpsGenerator(layout_of(request.protocol, counts), GRAMMAR)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List expressions that are incomplete or have another value than the label, and files of short expressions.

        See `DataSource.problems`.
        """
        from lra_bench.data.generators.listops_grammar import evaluate

        found = []
        for row, (inputs, length, label) in enumerate(zip(*rows, strict=True)):
            tokens = tokens_of(inputs, int(length), layout)
            value = int(evaluate(tokens)) if (tokens < len(TOKENS)).all() else -1
            if value < 0:
                found.append(f"row {row} is not a complete expression")
            elif value != label:
                found.append(f"row {row} has the value {value} but the label {label}")
        assert layout.vocabulary is not None
        n = rows.lengths - ("<eos>" in layout.vocabulary)
        if source != "generated" and len(n) >= MANY and (n.min() < LENGTHS[0] or n.max() > LENGTHS[1]):
            found.append(f"expressions have {n.min():,} … {n.max():,} tokens; LRA's have {LENGTHS[0]} … {LENGTHS[1]:,}")
        return found

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return an expression as text; see `DataSource.decode`."""
        tokens = tokens_of(inputs, int(lengths), layout)
        return " ".join("]" if TOKENS[token] == "X" else TOKENS[token] for token in tokens)


DATA = ListOpsData()
