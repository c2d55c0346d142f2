"""What users may do wrong, and the names that they may give."""

import re

# Names of subjects, classes and bases become folders: none can leave its own.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class InputError(ValueError):
    """Bad input; the command line prints its message alone and exits with 2."""


class Interrupted(Exception):
    """A run was asked to stop; its state is saved and the next call goes on from there."""
