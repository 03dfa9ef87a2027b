"""`show TASK --examples N`: what examples of a prepared set look like, as a picture (pixels) or as text (tokens)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lra_bench.data.manifest import Manifest, find_prepared
from lra_bench.data.packed import open_arrays
from lra_bench.data.raw.pixels import square
from lra_bench.errors import UserError
from lra_bench.registry import task_module
from lra_bench.spec import Protocol, SplitName

MOST = 100
SHOWN_CHARACTERS = 600
"""Of a text on the screen; `--json` prints it whole."""

CELL = 256
"""Least side of a picture on the sheet; smaller images are enlarged by a whole number, pixel by pixel."""

CAPTION, GAP = 28, 12
PAPER, INK, FRAME = 255, 0, 160


class Example(NamedTuple):
    """Row of its split, label and its meaning, steps (one number per document), decoded text; `image` for pixels."""

    row: int
    label: int
    meaning: str
    steps: list[int]
    text: str
    image: NDArray[np.uint8] | None


def examples_of(folder: Path, manifest: Manifest, split: SplitName, n: int) -> list[Example]:
    """The first `n` examples of a split of a prepared set."""
    module, rows = task_module(manifest.task), open_arrays(folder, manifest, split)
    made_up = "made_up" in manifest.parameters  # its classes are not the task's
    found = []
    for row in range(min(n, manifest.counts[split])):
        inputs, lengths, label = rows.inputs[row], rows.lengths[row], int(rows.labels[row])
        text = module.DATA.decode(manifest.layout, np.asarray(inputs), np.asarray(lengths))
        image = square(np.asarray(inputs)) if module.TASK.inputs == "pixels" else None
        steps = np.atleast_1d(np.asarray(lengths)).tolist()
        meaning = f"made-up class {label}" if made_up else module.CLASSES[label]
        found.append(Example(row, label, meaning, steps, text, image))
    return found


def sheet(examples: list[Example]) -> Image.Image:
    """The pictures on one page, each with its row and the meaning of its label below."""
    columns = min(4, math.ceil(math.sqrt(len(examples))))
    lines = math.ceil(len(examples) / columns)
    pictures = [example.image for example in examples if example.image is not None]
    enlarged = len(pictures[0]) * math.ceil(CELL / len(pictures[0]))
    width, height = enlarged + GAP, enlarged + CAPTION + GAP
    page = Image.new("L", (columns * width + GAP, lines * height + GAP), PAPER)
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=16)
    for number, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
        x, y = GAP + number % columns * width, GAP + number // columns * height
        page.paste(Image.fromarray(picture).resize((enlarged, enlarged), Image.Resampling.NEAREST), (x, y))
        draw.rectangle((x - 1, y - 1, x + enlarged, y + enlarged), outline=FRAME)
        draw.text((x, y + enlarged + 5), f"{example.row}: {example.meaning}", INK, font)
    return page


def show_examples(
    task: str, n: int, out: Path | None = None, protocol: Protocol | None = None, as_json: bool = False
) -> None:
    """Print `n` training examples of the best prepared set of a task; pixels also go to the PNG file `out`.

    The last line printed is that file. Raises UserError where nothing is prepared, or `n` or `out` make no sense.
    """
    if not 1 <= n <= MOST:
        raise UserError(f"--examples takes a number from 1 to {MOST}; got {n}.")
    folder, manifest = find_prepared(task, protocol)
    examples = examples_of(folder, manifest, "train", n)
    pixels = examples[0].image is not None
    if out is not None and (not pixels or out.suffix.lower() != ".png"):
        raise UserError(f"--out takes a .png file, and only for tasks of pixels; got {out} for {task}.")
    if as_json:
        print(json.dumps([example._asdict() | {"image": None} for example in examples], indent=1))
    else:
        print(f"{task}, {manifest.protocol}, {manifest.source} ({manifest.origin}), first examples of train:")
        for example in examples:
            print(_described(example, pixels))
    if pixels:
        out = out or Path(f"{task}-examples.png")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            sheet(examples).save(out)
        except OSError as error:
            raise UserError(f"--out: cannot write {out} ({error.strerror}).") from None
        if not as_json:
            print(out)


def _described(example: Example, pixels: bool) -> str:
    steps = " and ".join(f"{steps:,}" for steps in example.steps)
    head = f"{example.row}: class {example.label} ({example.meaning}), {steps} steps"
    if pixels:
        return head
    more = len(example.text) - SHOWN_CHARACTERS
    ending = f" … and {more:,} characters more" if more > 0 else ""
    return f"{head}\n{example.text[:SHOWN_CHARACTERS]}{ending}\n"
