"""What runs in a fresh process to see its memory; nothing is imported here that is not needed."""

from __future__ import annotations


def load(path: str):
    """Load a library that was exported; compiling is in another process."""
    import relaxquant as rq

    return rq.load(path)


def run(library, shape: tuple[int, ...]) -> None:
    """Run it twice: the second run sees all that stays allocated."""
    import numpy as np

    x = np.zeros(shape, np.float32)
    for _ in range(2):
        library(x)


def nothing() -> None:
    """A process without a network: Python, TVM's runtime and this library."""
    import relaxquant  # noqa: F401
