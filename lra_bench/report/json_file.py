"""`leaderboard.json`: every table and every cell in full precision, for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from lra_bench.report.published import published
from lra_bench.report.seeds import CellStatistics, as_json
from lra_bench.report.table import Table

FORMAT = 1


def json_text(tables: Sequence[Table], cells: dict[str, Sequence[CellStatistics]], protocol: str) -> str:
    """Cells by selection protocol, tables as shown, and published numbers with their sources."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "protocol": protocol,
        "cells": {selection: [as_json(cell) for cell in found] for selection, found in cells.items()},
        "tables": {table.name: _as_json(table) for table in tables},
        "published": published().model_dump(mode="json"),
    }
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _as_json(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "columns": [column.title for column in table.columns],
        "rows": [
            {"block": block.title, "quoted": block.quoted, "cells": [_filled(asdict(cell)) for cell in row]}
            for block in table.blocks
            for row in block.rows
        ],
        "notes": [*table.notes, *(block.note for block in table.blocks if block.note and block.rows)],
        "footnotes": dict(table.footnotes),
    }


def _filled(cell: dict[str, Any]) -> dict[str, Any]:
    """Without what says nothing; the text is always there."""
    return {key: value for key, value in cell.items() if key == "text" or value not in (None, "", ())}
