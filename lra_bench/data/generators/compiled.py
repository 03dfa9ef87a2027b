"""Compilation of the generators with numba, kept on disk where that is possible."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile `function` to machine code, which is kept on disk if numba finds a folder that it may write to.

    A change of the function's file makes the kept code invalid, but a change of the constants that it imports does not.
    Remove `__pycache__` after changing one of those.
    """
    try:
        return numba.njit(function, nogil=True, cache=True)
    except RuntimeError:  # the installation is read-only and there is no user cache folder
        return numba.njit(function, nogil=True)
