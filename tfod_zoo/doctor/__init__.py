"""Whether this machine has what the package needs."""
