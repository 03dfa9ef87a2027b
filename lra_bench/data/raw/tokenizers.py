"""Tokenizers that turn text into ids: S4's character vocabularies and LRA's bytes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lra_bench.datasource import Layout, Rows
from lra_bench.errors import UserError

SPECIALS = ("<pad>", "<unk>", "<eos>")
PAD, UNKNOWN, EOS = range(3)
"""The ids of the special tokens."""

MOST_IDS = 256
"""The largest number of ids, because inputs are uint8."""

_CODEPOINTS = 0x110000
"""The number of Unicode code points."""


class Tokenizer(Protocol):
    """A tokenizer cuts a text to a length and turns it into ids."""

    @property
    def vocabulary(self) -> tuple[str, ...]:
        """The token of each id; id 0 is padding."""

    def encode(self, text: str, length: int) -> NDArray[np.uint8]:
        """Return the ids of a text, uint8 (n,) with n ≤ `length`, without padding."""


class CharacterCounts:
    """The number of times that each character occurs in the texts added so far."""

    def __init__(self) -> None:
        """Begin with a count of 0 for every character."""
        self._counts = np.zeros(_CODEPOINTS, np.int64)
        self._waiting: list[str] = []
        self._held = 0

    def add(self, text: str) -> None:
        """Count the characters of `text`. Texts are collected first, because one long text is counted faster."""
        self._waiting.append(text)
        self._held += len(text)
        if self._held > _CODEPOINTS:
            self._count()

    def _count(self) -> None:
        counts = np.bincount(_codes("".join(self._waiting)))
        self._counts[: len(counts)] += counts
        self._waiting, self._held = [], 0

    def vocabulary(self, min_freq: int) -> tuple[str, ...]:
        """Return the special tokens, then the characters by falling count, equal counts by code point.

        This is the order of torchtext's `build_vocab_from_iterator`. Characters with a count below `min_freq` are left
        out. Raises UserError if the ids do not fit in a byte; those of the published data do.
        """
        self._count()
        kept = np.flatnonzero(self._counts >= min_freq)
        ranked = kept[np.argsort(-self._counts[kept], kind="stable")]
        if len(SPECIALS) + len(ranked) > MOST_IDS:
            raise UserError(
                f"the training texts hold {len(ranked)} different characters at least {min_freq} times each; at most "
                f"{MOST_IDS - len(SPECIALS)} are possible. The published data have 95 to 132: is this another data set?"
            )
        return (*SPECIALS, *map(chr, ranked.tolist()))


@dataclass(frozen=True)
class CharacterTokenizer:
    """A tokenizer of Unicode characters with a closing `<eos>`, with the ids of S4 and S5."""

    vocabulary: tuple[str, ...]

    @cached_property
    def _table(self) -> NDArray[np.uint8]:
        table = np.full(_CODEPOINTS, UNKNOWN, np.uint8)
        for number, character in enumerate(self.vocabulary[len(SPECIALS) :], start=len(SPECIALS)):
            table[ord(character)] = number
        return table

    def encode(self, text: str, length: int) -> NDArray[np.uint8]:
        """Return the ids of at most `length` − 1 characters and `<eos>`; see `Tokenizer.encode`."""
        return np.append(self._table[_codes(text[: length - 1])], np.uint8(EOS))


@dataclass(frozen=True)
class ByteTokenizer:
    """A tokenizer of UTF-8 bytes without an end mark, with the ids of the official LRA code: the byte plus one.

    An empty text becomes one position of padding, so that every document has a position to pool over.
    """

    vocabulary = ("<pad>", *(chr(byte) if 32 <= byte < 127 else f"<0x{byte:02X}>" for byte in range(256)))

    def encode(self, text: str, length: int) -> NDArray[np.uint8]:
        """Return the ids of at most `length` bytes; see `Tokenizer.encode`."""
        # UTF-8 has no byte above 0xF4, so the sum fits.
        ids = np.frombuffer(text.encode()[:length], np.uint8) + np.uint8(1)
        return ids if len(ids) else np.array([PAD], np.uint8)


def decode_text(layout: Layout, ids: NDArray[np.uint8], length: int) -> str:
    """Return the text of one padded document. `<unk>` becomes ⁇ and `<eos>` is left out."""
    assert layout.vocabulary is not None
    if layout.vocabulary == ByteTokenizer.vocabulary:
        return (ids[:length][ids[:length] > PAD] - np.uint8(1)).tobytes().decode(errors="replace")
    shown = ["", "⁇", "", *layout.vocabulary[len(SPECIALS) :]]
    return "".join(shown[number] for number in ids[:length])


def token_problems(layout: Layout, rows: Rows) -> list[str]:
    """List faults that no document may have, one clause each naming the row.

    They are wrong lengths, ids outside the vocabulary, padding inside the text, other ids behind it, and a missing end
    mark.
    """
    assert layout.vocabulary is not None
    ends = "<eos>" in layout.vocabulary
    found = []
    inputs = rows.inputs.reshape(len(rows.labels), -1, layout.length)
    lengths = rows.lengths.reshape(len(rows.labels), -1)
    inside = np.arange(layout.length) < lengths[:, :, None]
    for problem, bad in {
        "has a document without a single step": lengths < 1,
        f"is longer than {layout.length}": lengths > layout.length,
        "has an id outside the vocabulary": (inputs >= len(layout.vocabulary)).any(axis=-1),
        "has padding inside its text": (inside & (inputs == PAD)).any(axis=-1) & (lengths > 1),
        "is not padded with zeros": (~inside & (inputs != PAD)).any(axis=-1),
        "does not end with <eos>": ends & (_last(inputs, lengths) != EOS),
    }.items():
        found += [f"row {row} {problem}" for row in np.flatnonzero(bad.any(axis=1))]
    return found


def _last(inputs: NDArray[np.uint8], lengths: NDArray[np.int32]) -> NDArray[np.uint8]:
    at = np.clip(lengths - 1, 0, inputs.shape[-1] - 1)
    return np.take_along_axis(inputs, at[:, :, None].astype(np.int64), axis=-1)[:, :, 0]


def _codes(text: str) -> NDArray[np.uint32]:
    return np.frombuffer(text.encode("utf-32-le"), np.uint32)


def utf8(raw: bytes, where: str) -> str:
    """Decode `raw`. Raises UserError beginning with `where` if it is not UTF-8."""
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise UserError(f"{where} is not UTF-8 text ({error.reason} at byte {error.start}).") from None


@lru_cache(maxsize=8)
def tokenizer_of(vocabulary: tuple[str, ...]) -> Tokenizer:
    """Return the tokenizer that has this vocabulary."""
    return ByteTokenizer() if vocabulary == ByteTokenizer.vocabulary else CharacterTokenizer(vocabulary)
