"""Retrieval: are two papers of the ACL Anthology Network (AAN) related by citation, judged from their texts alone."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import TINY_SPLITS, Drawn, TinyGenerator
from lra_bench.data.raw import lra_release
from lra_bench.data.raw.archive import files
from lra_bench.data.raw.reading import Example, in_batches, no_val_fraction, wanted_counts
from lra_bench.data.raw.tokenizers import (
    SPECIALS,
    Bytes,
    CharacterCounts,
    Characters,
    Encoder,
    decoded,
    encoder_of,
    token_problems,
    utf8,
)
from lra_bench.datasource import Generator, Layout, Origin, PlacedRows, Reading, RemoteFile, Request, Rows
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.spec import Source, SplitName, Task

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
)

CLASSES = ("not related", "related")


FILES: dict[str, SplitName] = {"train": "train", "eval": "val", "test": "test"}
FILE = re.compile(r"(?P<root>(?:.*/)?)new_aan_pairs\.(?P<split>train|eval|test)\.tsv")
PARTS = ("tsv_data", "data/aan")
FIRST_FILE = "new_aan_pairs.train.tsv"

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
"""label, id1, id2, text1, text2; no header, no quoting (LRA reads them with `use_quote_delim=False`)."""

MIN_FREQUENCY = 1

Pair = tuple[str, str]


def is_pairs(name: str) -> bool:
    return FILE.fullmatch(name) is not None


def pairs(lines: IO[bytes], name: str) -> Iterator[tuple[Pair, int]]:
    """Both texts and the label of every row. Raises UserError naming the row that is not as it should be."""
    for number, line in enumerate(lines, start=1):
        fields = line.removesuffix(b"\n").removesuffix(b"\r").split(b"\t")
        where = f"{name}, row {number:,},"
        if len(fields) != COLUMNS:
            raise UserError(f"{where} has {len(fields)} columns instead of {COLUMNS}: the file is cut short or edited.")
        if fields[0] not in (b"0.0", b"1.0", b"0", b"1"):
            raise UserError(f"{where} has the label {fields[0][:20]!r}; 0.0 and 1.0 are possible.")
        yield (utf8(fields[3], where), utf8(fields[4], where)), int(float(fields[0]))


@dataclass(frozen=True)
class PairsReading:
    """`root` is the folder of the three files inside `path`."""

    path: Path
    root: str
    layout: Layout
    encoder: Encoder
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        encode, length = self.encoder.encode, self.layout.length
        for name, content in files(self.path, is_pairs):
            match = FILE.fullmatch(name)
            assert match is not None
            if match["root"] != self.root:
                continue
            split = FILES[match["split"]]
            start, count = self.layout.starts[split], self.layout.counts[split]
            for number, ((one, two), label) in enumerate(pairs(content, name)):
                if number == count:
                    break
                yield start + number, (encode(one, length), encode(two, length)), label


@dataclass
class Survey:
    """What one folder of an archive holds: rows of each split, characters of the training texts cut to length."""

    counts: dict[SplitName, int] = field(default_factory=dict)
    characters: CharacterCounts = field(default_factory=CharacterCounts)


def survey(path: Path, length: int) -> tuple[str, Survey]:
    """The folder that is meant, and what it holds; one pass over everything."""
    found: dict[str, Survey] = defaultdict(Survey)
    with Progress("Retrieval: counting rows and characters", total=None, unit="lines") as progress:
        for name, content in files(path, is_pairs):
            match = FILE.fullmatch(name)
            assert match is not None
            split, here = FILES[match["split"]], found[match["root"]]
            here.counts[split] = 0
            for texts, _ in pairs(content, name):
                here.counts[split] += 1
                progress.advance(1)
                if split == "train":
                    for text in texts:
                        here.characters.add(text[: length - 1])
    root = lra_release.innermost(found, path, FIRST_FILE)
    missing = [f"new_aan_pairs.{part}.tsv" for part, split in FILES.items() if split not in found[root].counts]
    if missing:
        raise UserError(f"{path} holds no {' and no '.join(missing)}.")
    return root, found[root]


def layout_of(counts: Mapping[SplitName, int], vocabulary: tuple[str, ...], length: int) -> Layout:
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
    """Two lists of words, each of one topic; they are related when the topics are the same."""
    assert layout.vocabulary is not None
    label, topic = int(rng.integers(2)), int(rng.integers(len(TOPICS)))
    other = topic if label else (topic + int(rng.integers(1, len(TOPICS)))) % len(TOPICS)
    encoder = encoder_of(layout.vocabulary)
    texts = [" ".join(rng.choice(TOPICS[number], size=int(rng.integers(5, 11)))) for number in (topic, other)]
    return tuple(encoder.encode(text, layout.length) for text in texts), label


class RetrievalData:
    """Where Retrieval comes from (`lra_bench.datasource.DataSource`)."""

    origins = ORIGINS

    def locate(self, path: Path) -> list[Path]:
        folder = lra_release.locate_part(path, PARTS, FIRST_FILE)
        return [folder / f"new_aan_pairs.{part}.tsv" for part in FILES] if folder.is_dir() else [folder]

    def read(self, path: Path, request: Request) -> Reading:
        no_val_fraction(request, TASK)
        source = lra_release.locate_part(path, PARTS, FIRST_FILE)
        root, found = survey(source, TASK.length)
        counts = wanted_counts(request, TASK.splits, TINY_SPLITS, found.counts, source)
        encoder: Encoder = (
            Bytes() if request.protocol == "lra" else Characters(found.characters.vocabulary(MIN_FREQUENCY))
        )
        return PairsReading(source, root, layout_of(counts, encoder.vocabulary, TASK.length), encoder)

    def generator(self, request: Request) -> Generator | None:
        no_val_fraction(request, TASK)
        if request.size != "tiny":
            return None
        vocabulary = Bytes.vocabulary if request.protocol == "lra" else TINY_VOCABULARY
        return TinyGenerator(layout_of(TINY_SPLITS, vocabulary, TINY_LENGTH), draw_pair)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        return token_problems(layout, rows)

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        return "\n\n".join(decoded(layout, ids, int(length)) for ids, length in zip(inputs, lengths, strict=True))


DATA = RetrievalData()
