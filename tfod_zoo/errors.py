"""The errors a user is meant to read: one sentence each, shown by the command line without a trace."""


class ZooError(Exception):
    """An expected failure; its message says what is wrong, where, and what to do. The command line exits with 1."""


class UsageError(ZooError):
    """A call that cannot be right as written (a misspelt name, contradicting flags). The command line exits with 2."""


def reason_of(error: Exception) -> str:
    """Another library's error in a few words: of the many that some say, the first line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
