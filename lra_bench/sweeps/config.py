"""The description of a sweep: models × tasks × seeds × settings, from a TOML file and from a command line.

model = ["s5", "s4d"]
task = ["listops"]
seed = [0, 1, 2]

[set]
n_layers = [4, 6]       # each is trained; a plain value is the same as a list of one

[range.lr]              # for random search
low = 1e-4
high = 1e-2
scale = "log"

[random]
draws = 20
seed = 0
"""

from __future__ import annotations

import itertools
import math
import random
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError, model_validator

from lra_bench.errors import UserError
from lra_bench.overrides import parse_overrides
from lra_bench.plain_text import shortened
from lra_bench.runs.pretraining import Objective
from lra_bench.spec import Frozen, Name, Precision, Protocol, Seed, explain, unknown

LARGEST = 1 << 20
"""The most bytes of a file that describes a sweep."""

DIGITS = 4
"""The significant digits of a number that is drawn, so that a command stays short."""

MOST_SETTINGS = 10_000
"""The most combinations of settings. More is a typing error."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


class Range(Frozen):
    """The range that random search draws a setting from: whole numbers where both ends are whole, and both included."""

    low: Annotated[int | float, Field(ge=-1e18, le=1e18)]
    high: Annotated[int | float, Field(ge=-1e18, le=1e18)]
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _is_a_range(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low must be less than high, got {self.low} and {self.high}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"a range on a log scale begins above 0, got low = {self.low}")
        return self

    def at(self, share: float) -> int | float:
        """The number at a share in [0, 1) of the way from low to high."""
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        low, high = float(self.low), float(self.high) + whole
        if self.scale == "log":
            value = math.exp(math.log(low) + share * (math.log(high) - math.log(low)))
        else:
            value = low + share * (high - low)
        return min(math.floor(value), int(self.high)) if whole else float(f"{value:.{DIGITS}g}")


class RandomSearch(Frozen):
    """Random search: how many combinations of settings are drawn, and the seed of the drawing."""

    draws: int = Field(ge=1, le=MOST_SETTINGS)
    seed: Seed = 0


class Sweep(Frozen):
    """What a sweep trains: every model on every task with every seed and every combination of settings."""

    model: Annotated[list[Name], BeforeValidator(_listed)] = Field(min_length=1)
    task: Annotated[list[Name], BeforeValidator(_listed)] = Field(default=[])
    seed: Annotated[list[int], BeforeValidator(_listed)] = Field(default=[0], min_length=1)
    set: dict[str, Annotated[list[Any], BeforeValidator(_listed)]] = Field(default={})
    range: dict[str, Range] = Field(default={})
    random: RandomSearch | None = None
    protocol: Protocol | None = None
    size: Name | None = None
    data: Name | None = None
    precision: Precision | None = None
    pretrain: Objective | None = None

    @model_validator(mode="after")
    def _each_setting_once(self) -> Sweep:
        for key, values in self.set.items():
            if not values:
                raise ValueError(f"set.{key} lists no value")
            if key in self.range:
                raise ValueError(f"{key} is both in set and in range")
        if self.range and self.random is None:
            raise ValueError("a range is drawn from: say how often, as in --random 20, or draws = 20 below [random]")
        return self

    def combinations(self) -> list[dict[str, Any]]:
        """The combinations of settings: all of them, or those that random search draws, in a fixed order.

        The same seed draws the same on every machine. Raises UserError where there are too many.
        """
        if self.random is None:
            number = math.prod(len(values) for values in self.set.values())
            if number > MOST_SETTINGS:
                raise UserError(
                    f"these settings have {number:,} combinations; at most {MOST_SETTINGS:,} are legal. "
                    "Draw from them: --random 20."
                )
            return [dict(zip(self.set, values, strict=True)) for values in itertools.product(*self.set.values())]
        source = random.Random(self.random.seed)
        # Only random() gives the same numbers in every version of Python.
        return [
            {key: values[int(source.random() * len(values))] for key, values in self.set.items()}
            | {key: each.at(source.random()) for key, each in self.range.items()}
            for _ in range(self.random.draws)
        ]

    def one_combination(self, file: Path | None) -> dict[str, Any]:
        """The settings, where there is one combination of them. Raises UserError where `file` describes several."""
        combinations = self.combinations()
        if self.random is not None or len(combinations) > 1:
            several = "a random search" if self.random is not None else f"{len(combinations)} combinations of settings"
            raise UserError(
                f"{file} describes {several}, and `train` takes one combination. "
                f"To train each: lra-bench sweep --config {file}"
            )
        return combinations[0]


def sweep_of(file: Path | None, typed: Mapping[str, Any]) -> Sweep:
    """The sweep of a TOML file and of what was typed, which replaces what the file says, setting by setting.

    What is None was not typed. Raises UserError for a file that cannot be read, an unknown key (with the legal ones),
    a value that is not legal, and where no model is named.
    """
    values = {} if file is None else _read(file)
    given = {key: value for key, value in typed.items() if value not in (None, {}, [])}
    for table in ("set", "random"):
        if isinstance(values.get(table), dict) and table in given:
            given[table] = {**values[table], **given[table]}
    values |= given
    if "model" not in values:
        raise UserError('no model is named. Type --model s5-ptd, or a line model = "s5-ptd" in the file of --config.')
    where = "" if file is None else f"{file}: "
    ranges = values.get("range")
    _check_keys(values, Sweep, where)
    _check_keys(values.get("random"), RandomSearch, where)
    for each in ranges.values() if isinstance(ranges, dict) else ():
        _check_keys(each, Range, where)
    try:
        return Sweep.model_validate(values, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}{explain(error)}") from None


def _check_keys(values: Any, kind: type[Frozen], where: str) -> None:
    """Check the keys of a table. What is no table is left to pydantic. Raises UserError with the legal keys."""
    for key in values if isinstance(values, dict) else ():
        if key not in kind.model_fields:
            raise UserError(f"{where}{unknown('key', shortened(key), kind.model_fields)}")


def _read(file: Path) -> dict[str, Any]:
    """The tables of a TOML file. Raises UserError where it cannot be read or is none."""
    try:
        with file.open("rb") as opened:
            content = opened.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise UserError(f"{file} has more than {LARGEST:,} bytes.")
        return tomllib.loads(content.decode("utf-8-sig"))
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UserError(f"{file} is not TOML: it is not UTF-8 text.") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError is one, and so is a number of 5,000 digits
        raise UserError(f"{file} is not TOML: {shortened(str(error))}.") from None


def choices(pairs: Iterable[str]) -> dict[str, list[Any]]:
    """The items of `--set` as choices: a key that is given more than once has each of its values.

    Raises UserError as `parse_overrides`.
    """
    found: dict[str, list[Any]] = {}
    for pair in pairs:
        for key, value in parse_overrides([pair]).items():
            found.setdefault(key, []).append(value)
    return found
