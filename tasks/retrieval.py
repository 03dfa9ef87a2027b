"""The task Retrieval: decide whether two papers are related by citation, from their texts alone.

The papers are from the ACL Anthology Network (AAN).
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import TINY_SPLITS, Drawn, TinyGenerator
from lra_bench.data.raw import lra_release
from lra_bench.data.raw.archive import files, lines
from lra_bench.data.raw.reading import Example, in_batches, no_val_fraction, wanted_counts
from lra_bench.data.raw.tokenizers import (
    SPECIALS,
    ByteTokenizer,
    CharacterCounts,
    CharacterTokenizer,
    Tokenizer,
    decode_text,
    token_problems,
    tokenizer_of,
    utf8,
)
from lra_bench.datasource import Generator, Layout, Origin, PlacedRows, Reader, RemoteFile, Request, Rows
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.spec import HealthMark, Source, SplitName, Task

TASK = Task(
    name="retrieval",
    title="Retrieval",
    version="1.0.0",
    description="Whether two papers of the ACL Anthology Network (AAN) are related by citation, from the first "
    "4,000 characters of each.",
    citation="Radev et al., The ACL Anthology Network Corpus, Language Resources and Evaluation 2013; "
    "Tay et al., Long Range Arena, ICLR 2021",
    inputs="tokens",
    documents=2,
    length=4_000,
    classes=2,
    variable_length=True,
    splits={"train": 147_086, "val": 18_090, "test": 17_437},
    majority=0.5,
    selects_on_test=False,
    column=3,
    like=None,
    health=(HealthMark(epoch=5, accuracy=70), HealthMark(epoch=10, accuracy=80)),
)

CLASSES = ("not related", "related")
"""The meaning of each label."""


FILES: dict[str, SplitName] = {"train": "train", "eval": "val", "test": "test"}
"""The split of each file, by the word in the file's name."""

FILE = re.compile(r"(?P<root>(?:.*/)?)new_aan_pairs\.(?P<split>train|eval|test)\.tsv")
PARTS = ("tsv_data", "data/aan")
"""The folders of the files: in LRA's release, and in its mirror."""

FIRST_FILE = "new_aan_pairs.train.tsv"
NAMES = tuple(f"new_aan_pairs.{part}.tsv" for part in FILES)

LONGEST = 16 << 20
"""The largest number of bytes of a row, two papers. The average one of the published files has 58,000."""

MOST_COPIES = 100
"""The number of folders with files of the task from which an archive is refused without reading on."""

_MIRROR = "https://huggingface.co/datasets/OpenNLPLab/lra/resolve/6cb133c44f406da743661488df9e977b87d98775/data/aan"

ORIGINS = (
    lra_release.ORIGIN,
    Origin(
        kind="mirror",
        name="OpenNLPLab/lra on Hugging Face",
        files=tuple(RemoteFile(f"{_MIRROR}/{name}", name) for name in (f"new_aan_pairs.{part}.tsv" for part in FILES)),
        note="10.6 GB, a copy of LRA's TSV files at a fixed revision; no checksum published, rows are counted",
    ),
)

COLUMNS = 5
"""The number of columns: label, id1, id2, text1, text2.

The files have no header and no quoting (LRA reads them with `use_quote_delim=False`).
"""

MIN_FREQUENCY = 1
"""The least number of times that a character occurs in the training texts to get an id of its own in s4."""

Pair = tuple[str, str]


def is_pairs(name: str) -> bool:
    """Whether a path inside a folder or an archive is one of the three files."""
    return FILE.fullmatch(name) is not None


def pairs(content: IO[bytes], name: str) -> Iterator[tuple[Pair, int]]:
    """Yield both texts and the label of every row. Raises UserError naming a row of another format."""
    for number, line in enumerate(lines(content, LONGEST, name), start=1):
        fields = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")
        where = f"{name}, row {number:,},"
        if len(fields) != COLUMNS:
            raise UserError(f"{where} has {len(fields)} columns instead of {COLUMNS}: the file is cut short or edited.")
        if fields[0] not in (b"0.0", b"1.0", b"0", b"1"):
            raise UserError(f"{where} has the label {fields[0][:20]!r}; 0.0 and 1.0 are possible.")
        yield (utf8(fields[3], where), utf8(fields[4], where)), int(float(fields[0]))


@dataclass(frozen=True)
class PairsReader:
    """A reader of the three TSV files, from a folder or an archive; see `lra_bench.datasource.Reader`."""

    path: Path
    root: str
    """The path of the files' folder inside `path`, with a trailing slash; empty if it is `path` itself."""
    layout: Layout
    tokenizer: Tokenizer
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples; see `Reader.batches`."""
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        encode, length = self.tokenizer.encode, self.layout.length
        for name, content in files(self.path, is_pairs):
            match = FILE.fullmatch(name)
            assert match is not None
            if match["root"] != self.root:
                continue
            split = FILES[match["split"]]
            start, count = self.layout.starts[split], self.layout.counts[split]
            for number, ((one, two), label) in enumerate(pairs(content, name)):
                if number == count:  # a smaller size takes the first rows
                    break
                yield start + number, (encode(one, length), encode(two, length)), label


@dataclass
class Contents:
    """The contents of one folder of an archive."""

    counts: dict[SplitName, int] = field(default_factory=dict)
    """The number of rows of each split."""
    characters: CharacterCounts = field(default_factory=CharacterCounts)
    """The characters of the training texts, each cut to the length of a document."""


def list_contents(path: Path, length: int) -> tuple[str, Contents]:
    """Find the folder that is meant; return its path inside `path` and its contents.

    The function makes one pass over everything. Raises UserError if a file is missing.
    """
    found: dict[str, Contents] = defaultdict(Contents)
    with Progress("Retrieval: counting rows and characters", total=None, unit="lines") as progress:
        for name, content in files(path, is_pairs):
            match = FILE.fullmatch(name)
            assert match is not None
            split, here = FILES[match["split"]], found[match["root"]]
            if len(found) > MOST_COPIES:
                raise UserError(f"{path} holds {FIRST_FILE} and so on in more than {MOST_COPIES} folders.")
            here.counts[split] = 0
            for texts, _ in pairs(content, name):
                here.counts[split] += 1
                progress.advance(1)
                if split == "train":
                    for text in texts:
                        here.characters.add(text[: length - 1])  # the last position is for `<eos>`
    root = lra_release.innermost(found, path, FIRST_FILE)
    _need_all(path, [f"new_aan_pairs.{part}.tsv" for part, split in FILES.items() if split in found[root].counts])
    return root, found[root]


def _need_all(path: Path, have: Collection[str]) -> None:
    """Raise UserError if one of the three files is not among the names `have`."""
    missing = [name for name in NAMES if name not in have]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}.")


def locate_source(path: Path) -> Path:
    """Return the archive or the folder of the three files. Raises UserError if one of them is missing."""
    try:
        source = lra_release.locate_part(path, PARTS, FIRST_FILE)
    except UserError:
        for folder in (path, *(path / part for part in PARTS)):
            if have := _present(folder):
                _need_all(folder, have)
        raise
    if source.is_dir():
        _need_all(source, _present(source))
    return source


def _present(folder: Path) -> list[str]:
    """Return which of the three files are in a folder."""
    return [name for name in NAMES if (folder / name).is_file()]


def layout_of(counts: Mapping[SplitName, int], vocabulary: tuple[str, ...], length: int) -> Layout:
    """Return the layout of pairs of documents."""
    return Layout(counts, 2, length, TASK.classes, vocabulary)


TINY_LENGTH = 128
TINY_VOCABULARY = (*SPECIALS, *" etaoinsrhldcumfpgwybvkxjqz")
TOPICS = (
    ("parser", "grammar", "syntax", "tree", "treebank", "head"),
    ("speech", "phone", "acoustic", "prosody", "voice", "vowel"),
    ("translation", "bilingual", "alignment", "phrase", "decoder", "source"),
    ("sentiment", "opinion", "review", "polarity", "subjective", "emotion"),
)


def draw_pair(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw two lists of words, each of one topic. They are related when the topics are the same."""
    assert layout.vocabulary is not None
    label, topic = int(rng.integers(2)), int(rng.integers(len(TOPICS)))
    other = topic if label else (topic + int(rng.integers(1, len(TOPICS)))) % len(TOPICS)
    tokenizer = tokenizer_of(layout.vocabulary)
    texts = [" ".join(rng.choice(TOPICS[number], size=int(rng.integers(5, 11)))) for number in (topic, other)]
    return tuple(tokenizer.encode(text, layout.length) for text in texts), label


class RetrievalData:
    """The data source of Retrieval; see `lra_bench.datasource.DataSource`."""

    origins = ORIGINS

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        source = locate_source(path)
        return [source / name for name in NAMES] if source.is_dir() else [source]

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        no_val_fraction(request, TASK)
        source = locate_source(path)
        root, found = list_contents(source, TASK.length)
        counts = wanted_counts(request, TASK.splits, TINY_SPLITS, found.counts, source)
        tokenizer: Tokenizer = (
            ByteTokenizer()
            if request.protocol == "lra"
            else CharacterTokenizer(found.characters.vocabulary(MIN_FREQUENCY))
        )
        return PairsReader(source, root, layout_of(counts, tokenizer.vocabulary, TASK.length), tokenizer)

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        no_val_fraction(request, TASK)
        if request.size != "tiny":
            return None
        vocabulary = ByteTokenizer.vocabulary if request.protocol == "lra" else TINY_VOCABULARY
        return TinyGenerator(layout_of(TINY_SPLITS, vocabulary, TINY_LENGTH), draw_pair)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List faults in ids, padding and lengths; see `DataSource.problems`."""
        del source
        return token_problems(layout, rows)

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return both texts with an empty line between them; see `DataSource.decode`."""
        return "\n\n".join(decode_text(layout, ids, int(length)) for ids, length in zip(inputs, lengths, strict=True))


DATA = RetrievalData()
