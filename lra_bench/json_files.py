"""Reading JSON from disk: every record, manifest and description of a run passes through the one function here.

A file may come from elsewhere, so that size, depth, numbers and names are bounded before anything is made of it.
"""

from __future__ import annotations

import json
import math
import re
import stat
from pathlib import Path
from typing import Any

from lra_bench.errors import UserError
from lra_bench.plain_text import shortened

LARGEST = 16 << 20
"""The most bytes of a JSON file. The record of a run over 10,000 epochs has about 3 MB."""

DEEPEST = 32
"""The most lists and objects inside each other. Records have six."""

LONGEST = 1 << 16
"""The most characters of one text."""

WIDEST = 2**63
"""The bound of whole numbers, those of 64 bits."""

_HIDDEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069]")
"""Control characters except tab and line break, and characters that turn the direction of writing."""

_SURROGATE = re.compile("[\ud800-\udfff]")
"""Halves of characters, which no file and no terminal can be given."""


def read_json(path: Path, *, control_characters: bool = False) -> Any:
    """Read a JSON file.

    Raises UserError, with the path and the reason, where it cannot be read or is not as `parse_json` says.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for, for ever
            raise UserError(f"{path} is no file.")
        if found.st_size > LARGEST:
            raise UserError(f"{path} has {found.st_size:,} bytes; at most {LARGEST:,} are legal.")
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}.") from None
    return parse_json(content, str(path), control_characters=control_characters)


def parse_json(content: bytes | str, name: str, *, control_characters: bool = False) -> Any:
    """Return the value that JSON text holds. `name` is what error messages call it.

    Raises UserError where it is not JSON, is too large or too deep, names a key twice, or holds a number that is not
    finite or has more than 64 bits, or (unless `control_characters`) a character that a terminal would obey.
    """
    if len(content) > LARGEST:
        raise UserError(f"{name} has more than {LARGEST:,} bytes.")
    try:
        text = content.decode("utf-8") if isinstance(content, bytes) else content
        value = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse_constant)
        _check(value, control_characters)
    except UnicodeDecodeError:
        raise UserError(f"{name} is not JSON: it is not UTF-8 text.") from None
    except RecursionError:
        raise UserError(f"{name} is nested deeper than {DEEPEST} levels.") from None
    except _Refused as error:
        raise UserError(f"{name} {error}.") from None
    except ValueError as error:
        raise UserError(f"{name} is not JSON: {shortened(str(error))}.") from None
    return value


class _Refused(Exception):
    """JSON that is legal elsewhere and not here; the message continues "NAME …"."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        # Programs differ in which of the two they believe.
        names = [key for key, _ in pairs]
        twice = next(key for key in names if names.count(key) > 1)
        raise _Refused(f"names the key {shortened(twice)!r} twice")
    return made


def _refuse_constant(name: str) -> Any:
    raise _Refused(f"holds {name}, which is no finite number")


def _check(value: Any, control_characters: bool) -> None:
    """Check every number, every text and the depth. It keeps a list of its own, because the value may be deep."""
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if isinstance(item, str):
            _check_text(item, control_characters)
        elif isinstance(item, float):
            if not math.isfinite(item):
                raise _Refused("holds a number too large to be finite")
        elif isinstance(item, int):
            if not -WIDEST <= item < WIDEST:
                raise _Refused("holds a whole number of more than 64 bits")
        elif item is not None:
            if depth > DEEPEST:
                raise _Refused(f"is nested deeper than {DEEPEST} levels")
            if isinstance(item, dict):
                waiting.extend((key, depth + 1) for key in item)
                item = list(item.values())
            waiting.extend((part, depth + 1) for part in item)


def _check_text(text: str, control_characters: bool) -> None:
    if len(text) > LONGEST:
        raise _Refused(f"holds a text of {len(text):,} characters; at most {LONGEST:,} are legal")
    if _SURROGATE.search(text):
        raise _Refused("holds half a character (a surrogate)")
    if not control_characters and _HIDDEN.search(text):
        raise _Refused("holds control characters, such as escape codes of a terminal")
