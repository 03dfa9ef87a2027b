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

_ESCAPED = re.compile(r"\\(?:[bf]|u(?:00[01789]|20[0-6]|[dD][89abAB]))")
"""How JSON writes such a character where it does not hold it as itself. Few files have it."""


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
        value = json.loads(
            text, object_pairs_hook=_object, parse_float=_float, parse_int=_int, parse_constant=_refuse_constant
        )
        _check_depth(value)
        plain = (text.isascii() and "\x7f" not in text) or text.isprintable()
        if not plain or len(text) > LONGEST or _ESCAPED.search(text):
            _check_texts(value, control_characters)
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


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise _Refused("holds a number too large to be finite")
    return value


def _int(text: str) -> int:
    value = int(text) if len(text) < 21 else WIDEST  # int refuses very long texts in words of its own
    if not -WIDEST <= value < WIDEST:
        raise _Refused("holds a whole number of more than 64 bits")
    return value


def _check_depth(value: Any) -> None:
    """Check the depth. It goes down by levels instead of calling itself, because the value may be deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(DEEPEST):
        below = []
        for item in level:
            for part in item.values() if type(item) is dict else item:
                if type(part) is dict or type(part) is list:
                    below.append(part)
        if not below:
            return
        level = below
    raise _Refused(f"is nested deeper than {DEEPEST} levels")


def _check_texts(value: Any, control_characters: bool) -> None:
    """Check every text and every key of a value that is not too deep."""
    if isinstance(value, str):
        _check_text(value, control_characters)
    elif isinstance(value, dict):
        for key, part in value.items():
            _check_text(key, control_characters)
            _check_texts(part, control_characters)
    elif isinstance(value, list):
        for part in value:
            _check_texts(part, control_characters)


def _check_text(text: str, control_characters: bool) -> None:
    if len(text) > LONGEST:
        raise _Refused(f"holds a text of {len(text):,} characters; at most {LONGEST:,} are legal")
    if _SURROGATE.search(text):
        raise _Refused("holds half a character (a surrogate)")
    if not control_characters and _HIDDEN.search(text):
        raise _Refused("holds control characters, such as escape codes of a terminal")
