"""The line between parent and child: JSON, a line each, apart from what native code prints."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO

from workbook.errors import WorkbookError


def claim_stdout() -> TextIO:
    """Return standard output for answers, and send what anybody prints to standard error."""
    answers = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)
    return answers


def answer(stream: TextIO, **content: Any) -> None:
    """Write one answer."""
    stream.write(json.dumps(content) + "\n")
    stream.flush()


def requests() -> Iterator[dict[str, Any]]:
    """Yield the parent's requests until it closes the line."""
    for line in sys.stdin:
        yield json.loads(line)


def reason(error: BaseException) -> str:
    """One line on what went wrong."""
    if isinstance(error, WorkbookError):
        return str(error)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
