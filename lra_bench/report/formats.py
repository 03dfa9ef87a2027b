"""Tables as Markdown, CSV and LaTeX. Text from records is escaped, so that a model's name cannot contain markup."""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Sequence

from lra_bench.plain_text import one_line
from lra_bench.report.table import Block, Cell, Column, Table, footnotes

_MARKDOWN = re.compile(r"([\\`*_{}\[\]|~$])")
"""The characters that Markdown needs a backslash before; `<`, `>` and `&` become entities."""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "%": r"\%", "_": r"\_",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}", "`": r"\textasciigrave{}", "±": r"$\pm$", "×": r"$\times$",
    "✗": r"$\times$",
    "–": "--", "²": r"\textsuperscript{2}", "ω": r"$\omega$", "Δ": r"$\Delta$",
}  # fmt: skip
"""The letters that LaTeX cannot show as they are, and their LaTeX."""

_PLAIN_LATEX = re.compile(r"[A-Za-z0-9 .,:;/()\[\]+=*@!?\-]")
"""The ASCII letters that LaTeX shows as they are."""

PACKAGES = (
    "% needs \\usepackage[T1]{fontenc}, \\usepackage{textcomp}, \\usepackage{booktabs} and \\usepackage{graphicx}"
)


def markdown_text(text: str) -> str:
    """Return plain text as Markdown that shows it literally, also in a table cell."""
    escaped = one_line(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", escaped)


def latex_text(text: str) -> str:
    """Return plain text as LaTeX that shows it literally; a letter without a glyph in pdflatex becomes ASCII or `?`."""
    return "".join(_latex_letter(letter) for letter in one_line(text))


def _latex_letter(letter: str) -> str:
    """Return one letter as LaTeX."""
    if letter in _LATEX:
        return _LATEX[letter]
    if _PLAIN_LATEX.fullmatch(letter) or "À" <= letter <= "ÿ":
        return letter
    plain = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return "".join(_LATEX.get(part, part) for part in plain) or "?"


def csv_text(text: str) -> str:
    """Return plain text so that no spreadsheet evaluates it as a formula: a ' precedes an initial =, +, - or @."""
    flat = one_line(text)
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") and flat != "-" else flat


def markdown(table: Table) -> str:
    """Return the table as Markdown, with its heading, notes and footnotes."""
    head = [markdown_text(column.title) for column in table.columns]
    rule = ["---:" if column.numeric else ":---" for column in table.columns]
    lines = [f"## {markdown_text(table.title)}", "", _line(head), _line(rule)]
    for block in (block for block in table.blocks if block.rows):
        lines.append(_line([f"**{markdown_text(block.title)}**", *[""] * (len(head) - 1)]))
        lines.extend(_line([_markdown_cell(cell, block.quoted) for cell in row]) for row in block.rows)
    lines.append("")
    lines.extend(f"{markdown_text(note)}\n" for note in table.notes_with(table.blocks))
    lines.extend(f"<sup>{mark}</sup> {markdown_text(meaning)}\n" for mark, meaning in table.footnotes)
    return "\n".join(lines)


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


def latex(table: Table) -> str:
    """Return the table as LaTeX floats no wider than the text: one of the measured rows and one of the quoted rows."""
    measured = tuple(block for block in table.blocks if block.rows and not block.quoted)
    quoted = tuple(block for block in table.blocks if block.rows and block.quoted)
    return "\n".join(_latex_float(table, blocks) for blocks in (measured, quoted) if blocks)


def _latex_float(table: Table, blocks: Sequence[Block]) -> str:
    """Return one float with booktabs rules; `blocks` are all quoted or all measured."""
    quoted = blocks[0].quoted
    kept = [i for i, column in enumerate(table.columns) if quoted or not column.quoted_only]
    align = "".join("r" if table.columns[i].numeric else "l" for i in kept)
    head = " & ".join(latex_text(table.columns[i].title) for i in kept)
    lines = [
        r"\begin{table*}[t]",
        r"\centering\scriptsize\setlength{\tabcolsep}{3pt}\renewcommand{\arraystretch}{1.2}",
        r"\resizebox{\ifdim\width>\textwidth\textwidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        head + r" \\",
    ]
    for block in blocks:
        lines += [r"\midrule", rf"\multicolumn{{{len(align)}}}{{@{{}}l}}{{\emph{{{latex_text(block.title)}}}}} \\"]
        lines += [" & ".join(_latex_cell(row[i], quoted) for i in kept) + r" \\" for row in block.rows]
    notes = [latex_text(note) for note in ([block.note for block in blocks] if quoted else table.notes)]
    notes += [rf"\textsuperscript{{{mark}}} {latex_text(meaning)}." for mark, meaning in footnotes(blocks)]
    title = latex_text(table.title) + (" (quoted)" if quoted else "")
    lines += [r"\bottomrule", r"\end{tabular}}", rf"\caption{{{title}. {' '.join(notes)}}}", r"\end{table*}", ""]
    return "\n".join(lines)


def _latex_cell(cell: Cell, quoted: bool) -> str:
    text = latex_text(cell.text)
    if cell.rank:
        text = rf"\{'textbf' if cell.rank == 'best' else 'underline'}{{{text}}}"
    if quoted and text:
        text = rf"\textit{{{text}}}"
    return text + _latex_marks(cell.marks)


def _latex_marks(marks: str) -> str:
    return rf"\textsuperscript{{{','.join(marks)}}}" if marks else ""
