"""Long Range Arena for state space models: data, training, throughput and leaderboard tables in JAX."""

__version__ = "0.1.0"


class UserError(Exception):
    """A mistake of the user's: the message says what was wrong, what is legal and what to type. Exit code 2, no
    traceback."""


class WorkError(Exception):
    """A failure while working (a full disk, a broken download, a run that diverged). Exit code 1, one sentence, no
    traceback."""


class OutOfTime(Exception):
    """The time limit that the user set is reached, with everything saved. Exit code 0: it is what was asked for."""


class Interrupted(Exception):
    """Asked to stop by a signal, with everything saved. Exit code 128 + its number."""

    def __init__(self, signum: int, message: str):
        super().__init__(message)
        self.signum = signum
