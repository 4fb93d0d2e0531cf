"""Where comments and quoted strings are in the text of LLVM IR, which a parser does not keep."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

# LLVM writes a quote within a string as \22: the next quote always ends it. A string may hold a
# semicolon and a comment may hold a quote, so both are looked for at once.
_REGION = re.compile(r'"[^"]*"?|;[^\n]*')


@dataclass(frozen=True)
class Region:
    """A comment, or a quoted string with its quotes: ``text[start:end]``."""

    comment: bool
    start: int
    end: int


def regions(text: str) -> Iterator[Region]:
    """Comments and quoted strings in order; no two overlap.

    A last string whose quote is missing ends with the text.
    """
    for match in _REGION.finditer(text):
        yield Region(match[0][0] == ";", match.start(), match.end())


def parts(text: str) -> list[str]:
    """The modules of LLVM IR that holds several, one after the other.

    LLVM begins each with a comment, ``; ModuleID = 'name'``, at the start of a line. Text without
    one is a single part.
    """
    starts = [
        region.start
        for region in regions(text)
        if region.comment
        and text.startswith("; ModuleID = ", region.start)
        and text[region.start - 1 : region.start] in ("", "\n")
    ]
    bounds = [0, *starts, len(text)]
    pieces = [text[a:b] for a, b in pairwise(bounds)]
    return [piece for piece in pieces if piece.strip()]
