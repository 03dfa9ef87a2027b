"""`leaderboard.json`: every table and every cell in full precision, for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lra_bench.report.published import published
from lra_bench.report.seeds import CellStatistics, as_json
from lra_bench.report.table import Table

FORMAT = 1


def json_text(tables: Sequence[Table], cells: Mapping[str, Sequence[CellStatistics]], protocol: str) -> str:
    """Cells by selection protocol, tables as shown, and published numbers with their sources."""
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
    """Each row with its block and its texts by column; `values` has the bare numbers of the columns that have them."""
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
    own = [*table.notes, *(block.note for block in table.blocks if block.note and block.rows)]
    return {"title": table.title, "notes": own, "footnotes": dict(table.footnotes)}


def _published() -> dict[str, Any]:
    book = published().model_dump(mode="json")
    return {"sources": [{"key": key, **value} for key, value in book["sources"].items()], "rows": book["rows"]}


def _lines(lists: dict[str, list[Any]]) -> str:
    """An object of lists, an item to a line: readable, and a changed number is one changed line."""
    parts = [f"{_line(name)}: [\n" + ",\n".join(_line(item) for item in items) + "\n]" for name, items in lists.items()]
    return "{\n" + ",\n".join(parts) + "\n}"


def _digits(value: Any) -> Any:
    """Floats to 12 digits, which every platform agrees on."""
    if isinstance(value, dict):
        return {key: _digits(part) for key, part in value.items()}
    return float(f"{value:.12g}") if isinstance(value, float) else value


def _line(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
