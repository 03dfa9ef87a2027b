"""The file leaderboard.json: every table and every cell in full precision, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lra_bench.report.published import published
from lra_bench.report.seeds import CellStatistics, as_json
from lra_bench.report.table import Table

FORMAT = 1
"""The version of the file's format, its first field."""


def json_text(tables: Sequence[Table], cells: Mapping[str, Sequence[CellStatistics]], protocol: str) -> str:
    """Return the file's content: cells by selection protocol, tables as shown, published numbers with their sources."""
    lines = [
        "{",
        f'"format": {FORMAT},',
        f'"protocol": {_line(protocol)},',
        f'"cells": {_lines({name: [_digits(as_json(cell)) for cell in found] for name, found in cells.items()})},',
        f'"tables": {_lines({table.name: _rows(table) for table in tables})},',
        f'"notes": {_line({table.name: _notes(table) for table in tables})},',
        f'"published": {_lines(_published())}',
        "}",
    ]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[dict[str, Any]]:
    """Return each row as an object: its block, and texts, numbers and marks by column where there are any."""
    columns = [column.title for column in table.columns]
    rows = []
    for block in table.blocks:
        for row in block.rows:
            cells = list(zip(columns, row, strict=True))
            rows.append(
                {
                    "block": block.title,
                    "quoted": block.quoted,
                    "text": {name: cell.long for name, cell in cells},
                    "values": {name: _digits(cell.value) for name, cell in cells if cell.value is not None},
                    "marks": {name: cell.marks for name, cell in cells if cell.marks},
                }
            )
    return rows


def _notes(table: Table) -> dict[str, Any]:
    notes = table.notes_with(table.blocks)
    return {"title": table.title, "notes": notes, "footnotes": dict(table.footnotes)}


def _published() -> dict[str, Any]:
    book = published().model_dump(mode="json")
    return {"sources": [{"key": key, **value} for key, value in book["sources"].items()], "rows": book["rows"]}


def _lines(lists: dict[str, list[Any]]) -> str:
    """Return a JSON object of lists with one item per line, so that a changed number changes one line."""
    parts = [f"{_line(name)}: [\n" + ",\n".join(_line(item) for item in items) + "\n]" for name, items in lists.items()]
    return "{\n" + ",\n".join(parts) + "\n}"


def _digits(value: Any) -> Any:
    """Round all floats to 12 digits, which are the same on every platform."""
    if isinstance(value, dict):
        return {key: _digits(part) for key, part in value.items()}
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
