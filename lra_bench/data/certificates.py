"""The check of the certificates that an environment variable names for downloads."""

from __future__ import annotations

import os
import ssl
from pathlib import Path

from lra_bench.errors import WorkError


def check_certificates(url: str) -> None:
    """Check the file or folder of certificates that a variable names for connections. Raises WorkError if it is none.

    No try would succeed with it.
    """
    if not url.startswith("https:"):
        return
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):  # in this order requests looks for them
        chosen = os.environ.get(variable)
        if not chosen:
            continue
        try:
            folder = Path(chosen).is_dir()
            ssl.create_default_context(cafile=None if folder else chosen, capath=chosen if folder else None)
        except OSError as error:
            why = (
                error.strerror if isinstance(error, FileNotFoundError | PermissionError) else "it holds no certificate"
            )
            raise WorkError(
                f"{url} cannot be reached: {variable} names {chosen}, which cannot be used ({why}). "
                "Unset it, or name a file of certificates."
            ) from None
        return
