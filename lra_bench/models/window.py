"""Cutting a network to a window, so that each of its layers sees the steps less than w away and no others."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lra_bench.errors import UserError


@runtime_checkable
class WindowedPart(Protocol):
    """A sequence layer, or a block of a network without such layers, that can be cut to a window in evaluation.

    Steps `window` and more away are not seen in either direction; None means that all are.
    """

    window: int | None


def set_window(network: Any, window: int, model: str) -> None:
    """Cut every layer of a network to `window` steps. Raises UserError where a layer cannot be cut.

    A network of n layers then sees n·(window − 1) steps away. `model` is its name as typed.
    """
    parts = [getattr(block, "layer", block) for block in getattr(network, "blocks", [network])]
    for part in parts:
        if not isinstance(part, WindowedPart):
            raise UserError(f"{model} cannot be cut to a window. Evaluate it without --window.")
        part.window = window
