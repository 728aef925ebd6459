"""Why a process of a sweep ended before its work was done."""

import signal


def death_reason(process: str, returncode: int, log: str) -> str:
    """Half a sentence from an exit code other than 0, or the negative number of a signal, and what it printed.

    Args:
      process: which one it was, such as `worker`.
    """
    if returncode < 0:
        name = signal.Signals(-returncode).name
        memory = "; the machine was probably out of memory, try a smaller batch or model" if name == "SIGKILL" else ""
        return f"the {process} process was ended by {name}{memory}"
    last = (log.strip().splitlines() or ["it printed nothing"])[-1]
    return f"the {process} process exited with {returncode}: {last}"
