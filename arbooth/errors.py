"""What users may do wrong, and the names that they may give."""

import re

# Names of subjects, classes and bases become folders and words of a command: none can leave its place.
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
NAME_RULE = "use 1 to 64 of a-z, 0-9, _ and -, and begin with a letter or a digit"


class InputError(ValueError):
    """Bad input; the command line prints its message alone and exits with 2."""


class Interrupted(Exception):
    """A run was asked to stop; its state is saved and the next call resumes it."""


class DvcFailed(RuntimeError):
    """DVC ended with an error; its last lines are in `lines`. A stage's own sentence comes first."""

    def __init__(self, what: str, code: int, lines: list[str]) -> None:
        first = next((k for k, line in enumerate(lines) if line.startswith("error: ")), None)
        if first is None:
            super().__init__(f"{what} exited with {code}" + "".join(f" | {line}" for line in lines))
        else:
            ours = [line for line in lines[first:] if not line.startswith("ERROR: ")]
            super().__init__(f"{' '.join(' '.join(ours).split()).removeprefix('error: ')} ({what})")
        self.lines = lines


class RemoteFailed(RuntimeError):
    """Another machine does not give what is needed; it may later."""


def printable(text: str) -> str:
    """Text for a terminal: control characters and broken encodings, say of a file's name, become `?`."""
    return "".join(c if c.isprintable() or c in "\n\t" else "?" for c in text)


def checked_name(name: str, kind: str) -> str:
    """The name itself.

    Raises:
        InputError: it could leave its folder, or mean something to a shell.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(f"{kind} can't be named {name!r}: {NAME_RULE}")
    return name
