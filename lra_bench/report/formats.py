"""Tables as Markdown and CSV. Text from records is escaped, so that a model's name cannot contain markup."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence

from lra_bench.plain_text import one_line
from lra_bench.report.table import Cell, Column, Table

_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~$])")
"""The characters that Markdown needs a backslash before; `<`, `>` and `&` become entities."""


def markdown_text(text: str) -> str:
    """Return plain text as Markdown that shows it literally, also in a table cell."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", escaped)


def csv_text(text: str) -> str:
    """Return plain text so that no spreadsheet evaluates it as a formula: a ' precedes an initial =, +, - or @."""
    flat = one_line(text)
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") and flat != "-" else flat


def markdown(table: Table) -> str:
    """Return the table as Markdown, with its heading, notes and footnotes."""
    head = [_heading(column) for column in table.columns]
    rule = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [f"## {markdown_text(table.title)}", "", _line(head), _line(rule)]
    for block in (block for block in table.blocks if block.rows):
        lines.append(_line([f"**{markdown_text(block.title)}**", *[""] * (len(head) - 1)]))
        lines.extend(_line([_markdown_cell(cell, block.quoted) for cell in row]) for row in block.rows)
    lines.append("")
    lines.extend(f"{markdown_text(note)}\n" for note in table.notes_with(table.blocks))
    lines.extend(f"<sup>{mark}</sup> {markdown_text(meaning)}\n" for mark, meaning in table.footnotes)
    return "\n".join(lines)


def _heading(column: Column) -> str:
    """Return the column's title, and under it its detail."""
    title = markdown_text(column.title) + _superscript(column.marks)
    return f"{title}<br>{markdown_text(column.detail)}" if column.detail else title


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown_cell(cell: Cell, quoted: bool) -> str:
    text = markdown_text(cell.long)
    if cell.rank:
        text = f"**{text}**" if cell.rank == "best" else f"<u>{text}</u>"
    if quoted and text:
        text = f"*{text}*"
    return text + _superscript(cell.marks)


def _superscript(marks: str) -> str:
    return f"<sup>{','.join(marks)}</sup>" if marks else ""


def wide_csv(table: Table) -> str:
    """Return the table as CSV, a line per row that begins with the title of its block.

    Numeric columns contain the bare number, and are empty where there is none.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["block", *(csv_text(column.title) for column in table.columns)])
    for block in table.blocks:
        for row in block.rows:
            cells = zip(row, table.columns, strict=True)
            writer.writerow([csv_text(block.title), *(_csv_cell(cell, column) for cell, column in cells)])
    return out.getvalue()


def _csv_cell(cell: Cell, column: Column) -> str:
    if not column.numeric:
        return csv_text(cell.long)
    return "" if cell.value is None else f"{cell.value:.10g}"
