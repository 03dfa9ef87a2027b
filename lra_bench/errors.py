"""The errors that end a command with one sentence, and the sentences for errors of the disk."""

from __future__ import annotations

import errno
import signal


class UserError(Exception):
    """A mistake of the user.

    The message states what is wrong, what is legal and what to type. The command ends with exit code 2 and no
    traceback.
    """


class WorkError(Exception):
    """A failure during the work, such as a full disk, a broken download or a run that diverged.

    The message is one sentence. The command ends with exit code 1 and no traceback.
    """


class OutOfTime(Exception):
    """The user's time limit was reached and everything is saved.

    The command ends with exit code 0, because it did what was asked for.
    """


class Interrupted(Exception):
    """A signal stopped the program and everything is saved.

    The command ends with exit code 128 plus the number of the signal.
    """

    def __init__(self, signum: int, message: str):
        """Keep the number of the signal beside the message."""
        super().__init__(message)
        self.signum = signum


STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGALRM", "SIGVTALRM")
    if hasattr(signal, name)  # Windows has the first two only
)
"""The signals that ask a program to stop: Ctrl-C, a terminal that closes, and what schedulers send before a limit."""

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error numbers of a full disk, an exhausted quota, and a file larger than its file system or limit allows."""

REFUSED = (
    errno.ENOENT,
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
)
"""The error numbers of a path that cannot be read or written."""


def disk_error(error: OSError, place: str = "") -> str:
    """Return one sentence for an error of a full disk or a path that cannot be used.

    `place` names the file or folder in case the error does not. Raises `error` again if it is of another kind.
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
