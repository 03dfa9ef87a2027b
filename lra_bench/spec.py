"""The definitions of a task and of a recipe. They are frozen and validated, and nothing is hidden in defaults.

JAX is not imported here, so that `ls` and `--help` stay fast.
"""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lra_bench.errors import UserError
from lra_bench.plain_text import shortened

SplitName = Literal["train", "val", "test"]
Protocol = Literal["s4", "lra"]
Source = Literal["official", "mirror", "generated", "user"]
T = TypeVar("T", bound="Frozen")

SPLITS: tuple[SplitName, ...] = get_args(SplitName)

Role = Literal["eigenvalues", "input", "output", "low_rank", "dt", "skip", "filter", "norm", "bias"]
"""The role of a parameter. For a state space it is the letter in the papers: Λ, B, C, P (rank-one part), Δ (dt) or D.

`filter` is the exponent of a filter over frequencies. `norm` is the scale and the bias of a norm. `bias` is the bias of
a dense layer between the encoder and the head.
"""

Discretization = Literal["zoh", "bilinear"]
"""The rules from continuous to discrete time: zero-order hold, and the trapezoidal rule."""

DiagonalInit = Literal["diag-legs", "legs", "inv", "lin", "real"]
"""The initializations of S4D: S4D-LegS with B = 1 and with HiPPO's B, S4D-Inv, S4D-Lin and S4D-Real."""

LowRankInit = Literal["legs", "fout"]
"""The initializations of S4: S4-LegS and S4-FouT."""

GateKind = Literal["full_glu", "half_glu1", "half_glu2", "gelu"]
"""The nonlinearities of the S5 block (lindermanlab/S5 s5/layers.py)."""

Group = Literal["regular", "regular_no_decay", "ssm", "ssm_decay", "frozen"]
"""An optimizer group. It decides the learning rate, `lr` or `ssm_lr`, and whether weight decay applies.

`regular` has `lr` and decay, `regular_no_decay` has `lr` alone, `ssm` has `ssm_lr` alone, `ssm_decay` has both.
`frozen` is not trained.
"""

NoiseKind = Literal["cosine", "gaussian"]
"""The kinds of noise under which a run is tested: one Fourier mode, or independent normal numbers."""

NoisePlace = Literal["layers", "input"]
"""Where noise is added: to the input of every sequence layer, or to the pixels."""

Precision = Literal["float32", "tf32", "bfloat16"]
"""The precision of a run.

`float32` multiplies matrices exactly. `tf32` rounds the factors of products of float32 matrices to 10 bits of mantissa;
JAX does so by default on the GPUs that the papers used. `bfloat16` keeps activations and saved states in 16 bits;
parameters, optimizer, statistics, the carry of scans and the loss stay in float32, and products of float32 matrices are
those of `tf32`.
"""

PUBLISHED_PRECISIONS: frozenset[Precision] = frozenset({"float32", "tf32"})
"""The precisions in which a published recipe is run as published."""

Placement = Literal["auto", "device", "host"]
"""The place of the examples while training: the device, the host's disk (read buffer by buffer), or the device if they
fit. It changes no number, so it is no part of a run."""

TEXT_FIELDS = {"reference", "published", "notes"}
"""The fields of a recipe that describe it and change no number. They are in no digest."""

LATER_SETTINGS: dict[str, Any] = {"real_transform": "exp", "skip": True}
"""Settings of layers that did not always exist, with the value of before. With that value they are in no digest."""

DEEPEST, WIDEST = 1_000, 65_536
"""The most layers, and the most features or states. More is a typing error, and some sizes end the process inside XLA
with no error to catch."""


SEEDS = 2**32
"""The number of different seeds. JAX keeps only the last 32 bits of a seed, so 2³² would repeat run 0."""

Name = Annotated[str, Field(max_length=200)]
"""A short name, such as that of a task or a model."""

Label = Annotated[str, Field(max_length=1_000)]
"""What something calls itself, such as a device or a version."""

Text = Annotated[str, Field(max_length=10_000)]
"""A text for people, such as a note or a command."""

Size = Annotated[str, Field(pattern=r"^(full|tiny|synthetic|[1-9][0-9]{0,11})$")]
"""The size of a set: `full`, `tiny`, or a number of examples; `synthetic` for the random examples of benchmarks."""

Seed = Annotated[int, Field(ge=0, lt=SEEDS)]
"""A seed of a run."""

Count = Annotated[int, Field(ge=0, le=10**15)]
"""A number of things, such as examples, steps or parameters."""

Positive = Annotated[int, Field(ge=1, le=10**9)]
"""A number of things of which there is at least one."""

Share = Annotated[float, Field(ge=0, le=1)]
"""A share in [0, 1], such as an accuracy."""

Amount = Annotated[float, Field(ge=0, le=1e18)]
"""A time or a rate. The bound keeps sums and squares finite."""

Loss = Annotated[float, Field(ge=-1e-3, le=1e39)]
"""A mean cross-entropy, which rounding may take just below 0. The largest float32 is 3.4e38."""


class Frozen(BaseModel):
    """The base of every configuration and record. It is immutable, an unknown key is an error, and so is NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class HealthMark(Frozen):
    """The validation accuracy that a run which learns has reached once an epoch is over.

    Those of the tasks lie below what state-spaces/s4 models/s4/experiments.md says its runs reach by then.
    """

    epoch: float = Field(gt=0, le=1e9)
    accuracy: float = Field(gt=0, le=100, description="in %")


class Task(Frozen):
    """The description of a task. Each module of `tasks/` has one."""

    name: str
    title: str = Field(description="the column heading in the LRA paper's table")
    version: str = Field(
        description="the version of the examples' definition; results of different versions never share a table"
    )
    description: str
    citation: str
    inputs: Literal["tokens", "pixels"]
    documents: Literal[1, 2] = Field(
        description="the number of documents in an example: 2 in Retrieval, where a pair is classified"
    )
    length: int = Field(gt=0, description="the length L of a padded document in the s4 protocol")
    classes: int = Field(gt=1)
    variable_length: bool = Field(
        description="whether true lengths differ, so that models pool over each document's own length only"
    )
    splits: dict[SplitName, int]
    majority: float = Field(gt=0, lt=1, description="the share of the most frequent class in the full test split")
    selects_on_test: bool = Field(
        description="whether the published protocol has no validation split and selects on the test split"
    )
    column: int | None = Field(description="the place in the LRA paper's table, from 1; None for a task beyond it")
    like: str | None = Field(description="another task whose recipes are used for this one; None where it has its own")
    official: dict[Protocol, str] = Field(
        default={}, description="the fingerprint of the full set of the official files by protocol, where it is known"
    )
    health: tuple[HealthMark, ...] = Field(
        default=(), description="below one of these, a run of a published recipe does not learn"
    )
    channels: Literal[1, 3] = Field(default=1, description="the numbers at each position: 3 for images in color")
    pooling: Literal["last_half"] | None = Field(default=None, description="the pooling that the task demands")
    generated_differs: str = Field(
        default="", description="what is known to differ between the examples made here and the released ones; or empty"
    )


class Recipe(Frozen):
    """Everything that decides a training run, except the data and the seed.

    Durations are in epochs, so that they scale with the data.
    """

    reference: str = Field(
        description="the paper and table, or the repository path @ commit, that these settings come from"
    )
    published: float | None = Field(
        ge=0, le=100, description="the test accuracy in % reported there; None where none was found"
    )
    notes: str = Field(description="known hard cases, and where code and paper disagree; empty if there are none")

    n_layers: int = Field(ge=1, le=DEEPEST)
    d_model: int = Field(ge=1, le=WIDEST, description="the number H of features")
    norm: Literal["batch", "layer", "scale"]
    prenorm: bool
    residual: bool = Field(default=True, description="whether a block adds its input to its output")
    norm_decay: float = Field(
        ge=0, lt=1, description="the share of the old running statistics that BatchNorm keeps at each step"
    )
    bidirectional: bool
    pooling: Literal["mean", "first", "last", "last_half", "cls"] = Field(
        description="what the head reads: the mean over all positions or over the last half, the first or the last "
        "position, or (cls) a trained token that is put before the first"
    )
    embedding: int | None = Field(description="the rows of the token table; None where pixels enter as real numbers")
    pixels: Literal["unit", "signed", "standard", "color"] | None = Field(
        description="the scale of real pixels: [0, 1], [-1, 1], or by CIFAR-10's mean and deviation, gray or in color"
    )
    dropout: float = Field(ge=0, lt=1)
    layer: dict[str, Any] = Field(description="the settings of the sequence layer, checked by the model's own Config")

    batch_size: int = Field(ge=1, le=10**9)
    epochs: float = Field(gt=0, le=1e9)
    lr: float = Field(gt=0, description="the peak learning rate of the regular groups")
    ssm_lr: float = Field(gt=0, description="the peak learning rate of the ssm groups")
    weight_decay: float = Field(ge=0)
    adam_b2: float = Field(gt=0, lt=1, description="the decay of Adam's second moment; the first moment's is 0.9")
    adam_eps: float = Field(gt=0, description="the ε that Adam adds to the root of the second moment")
    schedule: Literal[
        "reference", "cosine", "torch-cosine", "linear", "quadratic-linear", "rsqrt", "warmup-constant", "constant"
    ]
    warmup_epochs: float = Field(ge=0)
    decay_epochs: float = Field(gt=0, description="the duration of the whole schedule, warm-up included")
    groups: dict[Role, Group] = Field(
        description="the optimizer group of each role; roles that are not named are regular"
    )
    role_lr: dict[Role, Annotated[float, Field(gt=0)]] = Field(
        default={}, description="the peak learning rate of roles that have one of their own, instead of their group's"
    )

    clip_norm: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="the norm to which the gradient of all parameters is clipped; None means not at all"
    )

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Recipe:
        if (self.embedding is None) == (self.pixels is None):
            raise ValueError("exactly one of embedding and pixels must be set")
        return self

    @model_validator(mode="after")
    def _no_rate_of_what_is_frozen(self) -> Recipe:
        frozen = sorted(role for role in self.role_lr if self.groups.get(role) == "frozen")
        if frozen:
            raise ValueError(f"role_lr gives a rate to {', '.join(frozen)}, which groups says is frozen")
        return self

    def identity(self) -> dict[str, Any]:
        """The fields that change numbers, as JSON values. Digests are made of them.

        Left out are `role_lr`, `clip_norm` and `residual` where they change nothing, and `LATER_SETTINGS`: digests are
        those of versions that did not have them.
        """
        unused = {key for key in ("role_lr", "clip_norm") if not getattr(self, key)}
        unused |= {"residual"} if self.residual else set()
        fields = self.model_dump(mode="json", exclude=TEXT_FIELDS | unused)
        fields["layer"] = dict(item for item in fields["layer"].items() if item not in LATER_SETTINGS.items())
        return fields


class DataInfo(Frozen):
    """The examples that were used. Records with different fingerprints never share a table cell."""

    task: Name
    version: Name
    protocol: Protocol
    source: Source
    size: Size = Field(description="`full`, `tiny`, or a number of examples")
    fingerprint: Name
    length: Positive = Field(description="the length L of a padded document")
    classes: Positive
    counts: dict[SplitName, Count]
    validation_is_test: bool = Field(
        description="whether the validation split is the test split, as in Text as published"
    )

    @model_validator(mode="after")
    def _counts_every_split(self) -> DataInfo:
        if set(self.counts) != set(SPLITS):
            raise ValueError(f"counts must have {', '.join(SPLITS)}")
        return self


def digest_of(value: object) -> str:
    """The first 12 hex digits of the SHA-256 of `value`, written as canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def nearest_name(name: str, legal: Iterable[str]) -> str | None:
    """The legal name that a mistyped one is most like, whatever its case; None where none is like it."""
    by_lower = {each.lower(): each for each in legal}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return by_lower[near[0]] if near else None


def unknown(kind: str, name: str, legal: Iterable[str]) -> UserError:
    """The error for a name that is not legal. It suggests the nearest legal name and lists them all."""
    legal = list(legal)
    near = nearest_name(name, legal)
    hint = f" Did you mean {near!r}?" if near else ""
    return UserError(f"unknown {kind} {name!r}.{hint} Legal: {', '.join(legal)}.")


def validated(model: type[T], values: Mapping[str, Any]) -> T:
    """Make a `model` of these values. Raises UserError, in one sentence, where they are not legal."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise UserError(explain(error)) from None


MOST_MISTAKES = 3
"""The most mistakes of one file that a sentence lists."""

_WHOLE, _NUMBER, _SWITCH = "must be a whole number", "must be a number", "must be true or false"

WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "greater_than": "must be more than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "multiple_of": "must be a multiple of {multiple_of}",
    "literal_error": "must be {expected}",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "dict_type": "must be a dictionary",
    "list_type": "must be a list",
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), _WHOLE),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("bool_type", "bool_parsing"), _SWITCH),
}
"""What a value must be, by pydantic's name for the kind of error. Braces name what pydantic tells of the limit."""


def explain(error: ValidationError) -> str:
    """Turn pydantic's error into one sentence that says where it is, what is legal and what was given."""
    parts = []
    problems = sorted(error.errors(), key=lambda problem: problem["type"] == "missing")  # what is there tells more
    for problem in problems[:MOST_MISTAKES]:
        where = shortened(".".join(str(step) for step in problem["loc"] if step != "[key]"))
        words = WORDS.get(problem["type"])
        if words is None:
            message = shortened(problem["msg"].removeprefix("Value error, "))
            parts.append(f"{where}: {message}" if where else message)
        else:
            given = "" if problem["type"] == "missing" else f", got {shortened(repr(problem['input']))}"
            parts.append(f"{where or 'it'} {words.format(**problem.get('ctx', {}))}{given}")
    if len(problems) > MOST_MISTAKES:
        parts.append(f"and {len(problems) - MOST_MISTAKES} more")
    return "; ".join(parts) + "."
