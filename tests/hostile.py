"""Files that nobody should have: JSON that is damaged, too large, too deep, of wrong kinds, or full of escape codes."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

ESCAPES = "\x1b[31mred\x1b[0m \x1b]0;title\x07 \x9b2J \u202egnp.exe [bold]rich[/bold] \r\nlra-bench: forged line"
"""Escape codes of two kinds, a bare C1 code, a reversed direction, rich's markup, and a line of its own."""

LOUD = ("\x1b", "\x9b", "\x07", "\u202e")
"""Characters that must not reach the terminal."""


def _strings(value: Any, text: str) -> Any:
    """Every text of a value that is free, replaced."""
    if isinstance(value, dict):
        return {key: part if key in ("kind", "task") else _strings(part, text) for key, part in value.items()}
    if isinstance(value, list):
        return [_strings(part, text) for part in value]
    return text if isinstance(value, str) else value


def _numbers(value: Any, number: Any) -> Any:
    """Every number of a value but the version, replaced."""
    if isinstance(value, dict):
        return {key: part if "version" in key else _numbers(part, number) for key, part in value.items()}
    if isinstance(value, list):
        return [_numbers(part, number) for part in value]
    return number if isinstance(value, int | float) and not isinstance(value, bool) else value


def hostile_files(values: dict[str, Any]) -> dict[str, bytes]:
    """Hostile contents by name, made of the JSON values of a sound file."""
    text = json.dumps(values)
    some = next(key for key, value in values.items() if isinstance(value, str) and key not in ("kind", "task"))

    def put(change: Callable[[dict[str, Any]], Any]) -> bytes:
        changed = copy.deepcopy(values)
        change(changed)
        return json.dumps(changed).encode()

    found: dict[str, bytes] = {
        "empty": b"",
        "space": b" \n",
        "brace": b"{",
        "cut": text[: len(text) // 2].encode(),
        "null": b"null",
        "list": b"[]",
        "text": b'"text"',
        "number": b"17",
        "list of itself": f"[{text}]".encode(),
        "binary": bytes(range(256)) * 8,
        "utf-16": text.encode("utf-16"),
        "bom": b"\xef\xbb\xbf" + text.encode(),
        "nul after": text.encode() + b"\x00",
        "two": (text + text).encode(),
        "deep lists": b"[" * 100_000 + b"]" * 100_000,
        "deep objects": b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
        "rather deep": put(lambda v: v.update({some: json.loads("[" * 60 + "]" * 60)})),
        "huge integer": text.replace("1", "1" * 5000, 1).encode(),
        "long integer": put(lambda v: v.update({some: 10**4000})),
        "1e999": text[:-1].encode() + b', "more": 1e999}',
        "key twice": text[:-1].encode() + f', "{some}": "again"}}'.encode(),
        "large text": put(lambda v: v.update({some: "x" * 3_000_000})),
        "large file": text.encode() + b" " * 20_000_000,
        "surrogate": text[:-1].encode() + b', "\\ud800": "\\udfff"}',
        "escapes in texts": json.dumps(_strings(values, ESCAPES)).encode(),
        "escapes raw": json.dumps(_strings(values, ESCAPES), ensure_ascii=False).encode(),
        "escapes in a key": put(lambda v: v.update({ESCAPES: 1})),
        "markup": json.dumps(_strings(values, "[red]x[/blink] [/]")).encode(),
        "paths": json.dumps(_strings(values, "../../../etc/passwd")).encode(),
        "no keys": b"{}",
        "unknown keys": put(lambda v: v.update({f"k{i}": i for i in range(5000)})),
        "all numbers NaN": json.dumps(_numbers(values, float("nan"))).encode(),
        "all numbers infinite": json.dumps(_numbers(values, float("inf"))).encode(),
        "all numbers zero": json.dumps(_numbers(values, 0)).encode(),
        "all numbers negative": json.dumps(_numbers(values, -7)).encode(),
        "all numbers 1e300": json.dumps(_numbers(values, 1e300)).encode(),
        "all numbers 2^62": json.dumps(_numbers(values, 2**62)).encode(),
        "numbers as texts": json.dumps(_numbers(values, "nan")).encode(),
        "numbers as lists": json.dumps(_numbers(values, [])).encode(),
        "numbers true": json.dumps(_numbers(values, True)).encode(),
        "every value null": json.dumps(dict.fromkeys(values)).encode(),
        "every value a list": json.dumps({key: [] for key in values}).encode(),
        "every value an object": json.dumps({key: {} for key in values}).encode(),
    }
    return found
