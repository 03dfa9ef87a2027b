"""Where the published accuracies of recipes and tables were read, and the footnote letters that say so."""

from __future__ import annotations

from typing import Literal

PublishedStatus = Literal["read", "secondary", "memory"]
"""Where a published accuracy was read: in a results table of a paper that is named as its source, second-hand (in a
later paper's table that was not noted, or in a text that quotes the model's own paper), or nowhere."""

STATUS_MARKS: dict[PublishedStatus, str] = {"read": "", "secondary": "s", "memory": "n"}
"""The footnote letter of a published accuracy of each status."""

STATUS_MEANINGS = {
    "s": "secondary: read in a later paper's table that was not noted, or in a text that quotes the model's own paper",
    "n": "not verified: no source was read for this number",
}
"""The meaning of each of these letters."""


def with_meaning(mark: str) -> str:
    """A letter of `STATUS_MEANINGS` with its meaning, as in `n, not verified: no source was read for this number`."""
    return f"{mark}, {STATUS_MEANINGS[mark]}"
