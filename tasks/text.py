"""The task Text: decide whether a film review of the IMDB is positive, from its characters (s4) or bytes (lra)."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lra_bench.data.generators.tiny import TINY_SPLITS, Drawn, TinyGenerator
from lra_bench.data.raw.archive import files, whole, without_mark
from lra_bench.data.raw.reading import MANY, Example, balanced, global_indices, in_batches, wanted_counts
from lra_bench.data.raw.splits import holdout, torch_permutation
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
from lra_bench.datasource import Generator, Layout, Origin, PlacedRows, Reader, RemoteFile, Request, Rows, counts_for
from lra_bench.errors import UserError
from lra_bench.progress import Progress
from lra_bench.spec import HealthMark, Protocol, Source, SplitName, Task

TASK = Task(
    name="text",
    title="Text",
    version="1.0.0",
    description="Whether a film review of the IMDB is positive, from its characters. The published protocol has no "
    "validation split: the checkpoint is chosen on the test split.",
    citation="Maas et al., Learning Word Vectors for Sentiment Analysis, ACL 2011; "
    "Tay et al., Long Range Arena, ICLR 2021",
    inputs="tokens",
    documents=1,
    length=4096,
    classes=2,
    variable_length=True,
    splits={"train": 25_000, "val": 25_000, "test": 25_000},
    majority=0.5,
    selects_on_test=True,
    column=2,
    like=None,
    health=(HealthMark(epoch=3, accuracy=75), HealthMark(epoch=10, accuracy=80)),
    official={"s4": "2ee2250e11f78c73", "lra": "63c9f1d54301b414"},
)

CLASSES = ("negative", "positive")
"""The meaning of each label."""


ORIGINS = (
    Origin(
        kind="official",
        name="aclImdb_v1.tar.gz",
        files=(
            RemoteFile(
                "http://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                "aclImdb_v1.tar.gz",
                84_125_825,
                "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
            ),
        ),
        note="84 MB; checksum as in TensorFlow Datasets' imdb_reviews 1.0.0",
    ),
)

LENGTHS: dict[Protocol, int] = {"s4": 4_096, "lra": 4_000}
"""The length of a document by protocol.

s4 includes `<eos>`. lra has the paper's 4,000 bytes; the configuration in LRA's repository has 1,000.
"""

MIN_FREQUENCY = 15
"""The least number of times that a character occurs in the training reviews to get an id of its own in s4.

The reviews are cut to length first. The full set has 134 ids.
"""

LABELS = ("neg", "pos")
"""The folder of each label."""

FILE = re.compile(
    r"(?P<root>(?:.*/)?)(?P<split>train|test)/(?P<label>neg|pos)/(?P<number>[0-9]{1,9})_(?P<stars>[0-9]{1,2})\.txt"
)

STARS = (range(5), range(7, 11))
"""The stars that a review of each label can have. The archive has none with five or six."""

LARGEST = 1 << 20
"""The largest number of bytes of a review. The longest one of the archive has 13,704 characters."""

MEAN_LENGTHS = (900.0, 1_700.0)
"""The possible mean lengths of `MANY` reviews. Those of the whole archive, cut to length, have about 1,250."""

MOST_REVIEWS = 1_000_000
"""The number of reviews from which a source is refused without reading on. The archive has 50,000."""


@dataclass(frozen=True, order=True)
class Review:
    """A review as its file's path identifies it.

    Reviews are ordered by these fields: negative ones first, then by number.
    """

    label: int
    number: int
    stars: int


def review_of(name: str) -> tuple[str, Review] | None:
    """Return the split (train or test) and the review of a path in the archive; None for its other files."""
    match = FILE.fullmatch(name)
    if match is None:
        return None
    return match["split"], Review(LABELS.index(match["label"]), int(match["number"]), int(match["stars"]))


def is_review(name: str) -> bool:
    """Whether a path in the archive is a labeled review."""
    return FILE.fullmatch(name) is not None


def reviews(path: Path) -> Iterator[tuple[str, Review, str]]:
    """Yield split, review and text of every labeled review in `path`."""
    for name, content in files(path, is_review, skip=lambda folder: folder.endswith("/unsup")):
        known = review_of(name)
        assert known is not None
        _, review = known
        where = f"{path}: {name}"
        if review.stars not in STARS[review.label]:
            raise UserError(
                f"{where} has {review.stars} stars, which no review in the folder {LABELS[review.label]} has."
            )
        yield *known, utf8(without_mark(whole(content, LARGEST, where), where), where)


@dataclass(frozen=True)
class ImdbReader:
    """A reader of the archive aclImdb or its folder; see `lra_bench.datasource.Reader`."""

    path: Path
    protocol: Protocol
    layout: Layout
    tokenizer: Tokenizer
    index_of: Mapping[tuple[str, Review], int]
    """The global index of each review to read, by its folder (train or test)."""
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[PlacedRows]:
        """Yield all examples; see `Reader.batches`."""
        return in_batches(self._examples(), self.layout.length)

    def _examples(self) -> Iterator[Example]:
        for split, review, text in reviews(self.path):
            index = self.index_of.get((split, review))
            if index is not None:
                # TFDS, which lra uses, strips ASCII white space; Hugging Face's `datasets`, which s4 uses, does not.
                cleaned = text.strip(string.whitespace) if self.protocol == "lra" else text
                yield index, (self.tokenizer.encode(cleaned, self.layout.length),), review.label


def list_contents(path: Path, length: int) -> tuple[dict[str, list[Review]], CharacterCounts]:
    """Return the reviews of each split in order, and the characters of the training reviews.

    The reviews are cut so that they have `length` positions with `<eos>`. Raises UserError if a split is empty or twice
    in `path`.
    """
    found: dict[str, list[Review]] = {"train": [], "test": []}
    counts = CharacterCounts()
    with Progress("Text: counting characters", total=None, unit="files") as progress:
        for split, review, text in reviews(path):
            found[split].append(review)
            if split == "train":
                counts.add(text[: length - 1])
            progress.advance(1)
            if progress.done > MOST_REVIEWS:
                raise UserError(f"{path} holds more than {MOST_REVIEWS:,} reviews: it is another data set.")
    for split, names in found.items():
        names.sort()
        if not names:
            raise UserError(f"{path} holds no {split} reviews; looked for {split}/pos/0_9.txt and the like.")
        if len(set(names)) < len(names):
            raise UserError(f"{path} holds the {split} reviews twice. Give the folder aclImdb itself, or the archive.")
    return found, counts


def read(path: Path, request: Request) -> ImdbReader:
    """Open the archive or the extracted folder; see `DataSource.read`."""
    length = LENGTHS[request.protocol]
    found, characters = list_contents(path, length)
    n_train, n_test = len(found["train"]), len(found["test"])
    train, val, test = orders(found, request)
    published, tiny = splits_of(TASK.splits, request), splits_of(TINY_SPLITS, request)
    have: dict[SplitName, int] = {"train": len(train), "val": len(val), "test": n_test}
    if request.val_fraction is None:
        have["val"] = n_test
    counts = wanted_counts(request, published, tiny, have, path)
    tokenizer: Tokenizer = (
        ByteTokenizer() if request.protocol == "lra" else CharacterTokenizer(characters.vocabulary(MIN_FREQUENCY))
    )
    first = [train[: counts["train"]], val[: counts["val"]], n_train + test[: counts["test"]]]
    index_of = global_indices(n_train + n_test, first)
    if request.val_fraction is None:  # leave a gap for val, into which `prepare` copies test
        index_of[index_of >= counts["train"]] += counts["val"]
    keys = [*(("train", review) for review in found["train"]), *(("test", review) for review in found["test"])]
    return ImdbReader(
        path,
        request.protocol,
        layout_of(request, counts, tokenizer.vocabulary, length),
        tokenizer,
        {key: int(index) for key, index in zip(keys, index_of, strict=True) if index >= 0},
    )


def orders(found: Mapping[str, list[Review]], request: Request) -> list[NDArray[np.int64]]:
    """Return the order of the train, val and test reviews, as indices into `found` of their folder.

    A whole set keeps the order of the files. A smaller one takes its examples from the beginning of an order in which
    the classes alternate, because the files are sorted by class.
    """
    n_train, n_test = len(found["train"]), len(found["test"])
    train, val, test = np.arange(n_train), np.arange(0), np.arange(n_test)
    if request.val_fraction is not None:
        train, val = holdout(n_train, request.val_fraction)
    if request.size == "full":
        return [train, val, test]
    if request.val_fraction is None:
        train = torch_permutation(n_train)
    labels = {split: np.array([review.label for review in names]) for split, names in found.items()}
    return [
        balanced(train, labels["train"]),
        balanced(val, labels["train"]),
        balanced(torch_permutation(n_test), labels["test"]),
    ]


def splits_of(full: Mapping[SplitName, int], request: Request) -> dict[SplitName, int]:
    """Return the splits of a whole set. val is test unless a fraction of train is held out."""
    if request.val_fraction is None:
        return {"train": full["train"], "val": full["test"], "test": full["test"]}
    train, val = holdout(full["train"], request.val_fraction)
    return {"train": len(train), "val": len(val), "test": full["test"]}


def layout_of(request: Request, counts: Mapping[SplitName, int], vocabulary: tuple[str, ...], length: int) -> Layout:
    """Return the layout of reviews; val is test unless a fraction of train is held out."""
    return Layout(counts, 1, length, TASK.classes, vocabulary, validation_is_test=request.val_fraction is None)


TINY_LENGTH = 192
TINY_VOCABULARY = (*SPECIALS, *" etaoinshrdlucmfwypgbvkxjqz.")
PRAISE = ("superb", "moving", "funny", "brilliant", "lovely", "gripping")
BLAME = ("dull", "clumsy", "boring", "dreadful", "shallow", "wooden")
SUBJECTS = ("the film", "the plot", "the cast", "the ending", "the music", "every scene")


def draw_review(rng: np.random.Generator, layout: Layout) -> Drawn:
    """Draw sentences of praise and blame. The more frequent of the two is the label."""
    assert layout.vocabulary is not None
    label, sentences = int(rng.integers(2)), int(rng.integers(3, 7))
    minority = int(rng.integers((sentences - 1) // 2 + 1))
    kinds = rng.permutation([label] * (sentences - minority) + [1 - label] * minority)
    text = " ".join(
        f"{SUBJECTS[rng.integers(len(SUBJECTS))]} was {(BLAME, PRAISE)[kind][rng.integers(len(PRAISE))]}."
        for kind in kinds
    )
    return (tokenizer_of(layout.vocabulary).encode(text, layout.length),), label


class TextData:
    """The data source of Text; see `lra_bench.datasource.DataSource`."""

    origins = ORIGINS

    def locate(self, path: Path) -> list[Path]:
        """Find the raw files; see `DataSource.locate`."""
        if not path.is_dir():
            return [path]
        archive = path / "aclImdb_v1.tar.gz"
        for folder in (path, path / "aclImdb"):
            if all((folder / split / label).is_dir() for split in ("train", "test") for label in LABELS):
                return [folder]
        if archive.is_file():
            return [archive]
        raise UserError(f"{path} holds neither train/pos, train/neg, test/pos, test/neg nor aclImdb_v1.tar.gz.")

    def read(self, path: Path, request: Request) -> Reader:
        """Open the raw files; see `DataSource.read`."""
        (source,) = self.locate(path)
        return read(source, request)

    def generator(self, request: Request) -> Generator | None:
        """Return the generator; see `DataSource.generator`."""
        if request.size != "tiny":
            return None
        counts = counts_for("tiny", TASK.splits, splits_of(TINY_SPLITS, request))
        vocabulary = ByteTokenizer.vocabulary if request.protocol == "lra" else TINY_VOCABULARY
        return TinyGenerator(layout_of(request, counts, vocabulary, TINY_LENGTH), draw_review)

    def problems(self, layout: Layout, rows: Rows, source: Source) -> list[str]:
        """List faults in ids, padding and lengths, and texts of another length; see `DataSource.problems`."""
        found = token_problems(layout, rows)
        mean = float(rows.lengths.mean())
        if source != "generated" and len(rows.lengths) >= MANY and not MEAN_LENGTHS[0] <= mean <= MEAN_LENGTHS[1]:
            found.append(
                f"{len(rows.lengths):,} reviews have {mean:,.0f} steps on average; those of the IMDB have about 1,250"
            )
        return found

    def decode(self, layout: Layout, inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> str:
        """Return a review as text; see `DataSource.decode`."""
        return decode_text(layout, inputs, int(lengths))


DATA = TextData()
