"""Writes what can be made from the code: the tree in README.md and the command reference in docs/cli.md.

python docs/generate.py            # write both
python docs/generate.py --check    # write nothing, and fail where either is out of date
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.main import get_command

from lra_bench.cli import app

ROOT = Path(__file__).parent.parent
README, CLI = ROOT / "README.md", ROOT / "docs" / "cli.md"
BEGIN, END = "<!-- tree: made by docs/generate.py -->", "<!-- end of tree -->"

FOLDERS = {
    "benchmarks": "our code beside the published code; the kit for rented accelerators",
    "docs": "architecture, how to add a model or a task, references, measurements, commands",
    "examples": "a layer of your own, in a file of yours; a search over settings with Optuna",
    "results": "result records, and the tables made from them",
    "tests": "a file per module, contracts over every model and task, golden numbers",
}
"""Folders whose files are not listed one by one."""


def first_sentence(path: Path) -> str:
    """The first sentence of a module's docstring, without its period."""
    text = " ".join((ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split())
    return re.split(r"(?<!et al)(?<=[^.])\.(?:\s|$)", text, maxsplit=1)[0]


def lines_of(folder: Path, indent: str) -> Iterator[tuple[str, str]]:
    """(name, what it is) of every module below a folder: files first, then packages with theirs."""
    for path in sorted(folder.glob("*.py")):
        if not path.name.startswith("__"):
            yield f"{indent}{path.name}", first_sentence(path)
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        yield f"{indent}{package.name}/", first_sentence(package / "__init__.py")
        yield from lines_of(package, indent + "  ")


def tree() -> str:
    """The annotated tree of the repository."""
    rows = [("tasks/", first_sentence(ROOT / "tasks" / "__init__.py")), *lines_of(ROOT / "tasks", "  ")]
    rows += [("lra_bench/", ""), *lines_of(ROOT / "lra_bench", "  ")]
    rows += [(f"{name}/", what) for name, what in FOLDERS.items()]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:{width}}{what}".rstrip() for name, what in rows)


def option_row(parameter: Any) -> str:
    """One line of a command's table: the names of an option or argument, and its help."""
    names = ", ".join(f"`{name}`" for name in [*parameter.opts, *parameter.secondary_opts])
    if parameter.param_type_name == "argument":
        names = f"`{(parameter.metavar or parameter.name).upper()}`"
    default = parameter.default
    shown = default not in (None, False, True, ()) and not callable(default)
    text = " ".join((getattr(parameter, "help", None) or "").split()).replace("|", "\\|")
    return f"| {names} | {text}{f' Default: `{default}`.' if shown else ''} |"


def cli_reference() -> str:
    """Every command with its arguments and options, as Markdown."""
    parts = ["# Commands", "", "Made by `docs/generate.py` from the code; do not edit.", ""]
    for name, command in get_command(app).commands.items():  # type: ignore[attr-defined]
        parts += [f"## `lra-bench {name}`", "", " ".join((command.help or "").split()), ""]
        rows = [option_row(parameter) for parameter in command.params if parameter.name != "help"]
        if rows:
            parts += ["| option | what it does |", "|---|---|", *rows, ""]
    return "\n".join(parts)


def readme_with_tree() -> str:
    """README.md with its tree made anew."""
    text = README.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n```\n{tree()}\n```\n{END}{after}"


def main() -> None:
    """Write both, or check both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, and fail where a file is out of date")
    check = parser.parse_args().check
    for path, text in ((README, readme_with_tree()), (CLI, cli_reference())):
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            sys.exit(f"{path.relative_to(ROOT)} is out of date. Type: python docs/generate.py")


if __name__ == "__main__":
    main()
