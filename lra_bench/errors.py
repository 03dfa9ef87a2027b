"""The errors that end a command with one sentence, and what a disk that refuses to work is called in words."""

from __future__ import annotations

import errno


class UserError(Exception):
    """A mistake of the user. The message says what is wrong, what is legal and what to type. Exit code 2, no
    traceback."""


class WorkError(Exception):
    """A failure while working, such as a full disk, a broken download or a run that diverged. Exit code 1, one
    sentence, no traceback."""


class OutOfTime(Exception):
    """The time limit of the user is reached and everything is saved. Exit code 0, for this is what was asked for."""


class Interrupted(Exception):
    """A signal asked the program to stop and everything is saved. Exit code 128 plus the number of the signal."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum


FULL = (errno.ENOSPC, errno.EDQUOT)
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)


def disk_error(error: OSError, place: str = "") -> str:
    """One sentence for a disk that is full or refuses. `place` names the file or folder where the error does not.

    Raises the error again where it is about neither.
    """
    where = error.filename or place
    if error.errno in FULL:
        at = f" at {where}" if where else ""
        return (
            f"the disk is full{at}. Free some space, or set LRA_BENCH_HOME to a folder on a larger disk, and type the "
            "same again to continue."
        )
    if error.errno in REFUSED and where:
        return f"{where} cannot be used: {error.strerror}."
    raise error
