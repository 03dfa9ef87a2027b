"""The command `show TASK --examples N`: examples of a prepared set as a picture (pixels) or as text (tokens)."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lra_bench.data.integrity import open_checked
from lra_bench.data.manifest import Manifest, find_prepared
from lra_bench.data.raw.pixels import picture_of
from lra_bench.errors import UserError
from lra_bench.plain_text import plain
from lra_bench.registry import task_module
from lra_bench.spec import Protocol, SplitName

MOST = 100
"""The largest number of examples that can be shown."""

SHOWN_CHARACTERS = 600
"""The number of characters of a text that are printed. `--json` prints the whole text."""

CELL = 256
"""The least side of a picture on the sheet in pixels. Smaller images are enlarged by a whole number."""

CAPTION, GAP = 28, 12
"""The height of a caption and the space between pictures, in pixels."""

PAPER, INK, FRAME = 255, 0, 160
"""The shades of gray of the sheet, its text and the frames of its pictures."""


class Example(NamedTuple):
    """One example of a split, decoded for people."""

    row: int
    """The row of its split."""
    label: int
    meaning: str
    """The meaning of the label in words."""
    lengths: list[int]
    """The length of each document in positions."""
    text: str
    image: NDArray[np.uint8] | None
    """The image, uint8 (height, width) or (height, width, 3); None for tokens."""


def examples_of(folder: Path, manifest: Manifest, split: SplitName, n: int) -> list[Example]:
    """Return the first `n` examples of a split of a prepared set, fewer if the split has fewer.

    Raises UserError where the set is not what was prepared.
    """
    module, rows = task_module(manifest.task), open_checked(folder, manifest.fingerprint)[split]
    made_up = "made_up" in manifest.parameters  # a tiny set whose classes are not the task's
    found = []
    for row in range(min(n, manifest.counts[split])):
        inputs, lengths, label = rows.inputs[row], rows.lengths[row], int(rows.labels[row])
        text = module.DATA.decode(manifest.layout, np.asarray(inputs), np.asarray(lengths))
        image = picture_of(np.asarray(inputs)) if module.TASK.inputs == "pixels" else None
        each = np.atleast_1d(np.asarray(lengths)).tolist()
        meaning = f"made-up class {label}" if made_up else module.CLASSES[label]
        found.append(Example(row, label, meaning, each, text, image))
    return found


def sheet(examples: list[Example]) -> Image.Image:
    """Draw the pictures on one page, each with its row and the meaning of its label below."""
    columns = min(4, math.ceil(math.sqrt(len(examples))))
    lines = math.ceil(len(examples) / columns)
    pictures = [example.image for example in examples if example.image is not None]
    factor = math.ceil(CELL / pictures[0].shape[1])
    high, wide = (factor * side for side in pictures[0].shape[:2])
    width, height = wide + GAP, high + CAPTION + GAP
    mode = "L" if pictures[0].ndim == 2 else "RGB"
    page = Image.new(mode, (columns * width + GAP, lines * height + GAP), (PAPER,) * len(mode))
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(size=16)
    for number, (example, picture) in enumerate(zip(examples, pictures, strict=True)):
        x, y = GAP + number % columns * width, GAP + number // columns * height
        page.paste(Image.fromarray(picture).resize((wide, high), Image.Resampling.NEAREST), (x, y))
        draw.rectangle((x - 1, y - 1, x + wide, y + high), outline=(FRAME,) * len(mode))
        draw.text((x, y + high + 5), f"{example.row}: {example.meaning}", (INK,) * len(mode), font)
    return page


def show_examples(
    task: str, n: int, out: Path | None = None, protocol: Protocol | None = None, as_json: bool = False
) -> None:
    """Print `n` training examples of the best prepared set of a task.

    Examples of pixels are also drawn into the PNG file `out`, whose path is the last line printed; with `as_json` only
    where it is given. Raises UserError if
    nothing is prepared, if `n` or `out` is not allowed, or if `out` cannot be written.
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
        print(plain(f"{task}, {manifest.protocol}, {manifest.source} ({manifest.origin}), first examples of train:"))
        for example in examples:
            print(plain(_described(example, pixels)))
    if pixels and (out is not None or not as_json):
        out = out or Path(f"{task}-examples.png")
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            sheet(examples).save(out)
        except OSError as error:
            raise UserError(f"--out: cannot write {out} ({error.strerror}).") from None
        if not as_json:
            print(out)


def _described(example: Example, pixels: bool) -> str:
    lengths = " and ".join(f"{length:,}" for length in example.lengths)
    head = f"{example.row}: class {example.label} ({example.meaning}), length {lengths}"
    if pixels:
        return head
    more = len(example.text) - SHOWN_CHARACTERS
    ending = f" … and {more:,} characters more" if more > 0 else ""
    return f"{head}\n{example.text[:SHOWN_CHARACTERS]}{ending}\n"
