"""The count that proves nothing: words for dtypes as substrings of generated code.

A study of quantized ResNet-50 kernels counted "float32", "int32", "int16" and "int8" in the text of
a host module. LLVM IR has no such types (it says ``float``, ``i32``); what is found are texts of
error messages, debug records, and names. `count` repeats the count and says where each hit is.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass, field

from .text import Region, regions

WORDS = ("float32", "int32", "int16", "int8")
PLACES = ("string constant", "other string", "comment", "metadata", "identifier", "type", "other")
_WORD = re.compile(r"[-\w$.]")
_TYPE = re.compile(r"i\d+|half|bfloat|float|double|fp128|x86_fp80|ptr|void|x")


@dataclass(frozen=True)
class SubstringCount:
    """Hits of each word, by place.

    Attributes
    ----------
    hits : dict
        Word -> place -> hits. Places are those of `PLACES`: ``"string constant"`` is ``c"..."``,
        the bytes of a constant such as an error message; ``"other string"`` an attribute or a file
        name; ``"metadata"`` debug information and its names; ``"type"`` a type of LLVM.
    unsigned : dict
        Word -> hits that are part of a longer word for an unsigned type, as "int8" in "uint8".
    """

    hits: dict[str, Counter] = field(default_factory=dict)
    unsigned: dict[str, int] = field(default_factory=dict)

    def total(self, word: str | None = None) -> int:
        """Hits of a word, or of all words: what the study counted."""
        return sum(self.hits[w].total() for w in ([word] if word else self.hits))

    def share(self, place: str) -> float:
        """Share of all hits that are in a place, 0 to 1; 0 where there are no hits."""
        total = self.total()
        return sum(places[place] for places in self.hits.values()) / total if total else 0.0

    def rows(self) -> list[dict]:
        """A row for each word: hits in all, how many are unsigned, and hits by place."""
        return [
            {"word": word, "hits": places.total(), "unsigned": self.unsigned[word]}
            | {place: places[place] for place in PLACES}
            for word, places in self.hits.items()
        ]


def count(text: str, words: tuple[str, ...] = WORDS) -> SubstringCount:
    """Count words in LLVM IR as substrings, and find out where they are.

    Parameters
    ----------
    text : str
        LLVM IR, of one module or several.
    words : tuple of str
        What to count; a hit within a longer word counts, too.
    """
    found = list(regions(text))
    starts = [region.start for region in found]
    result = SubstringCount()
    for word in words:
        hits = [match.start() for match in re.finditer(re.escape(word), text)]
        result.hits[word] = Counter(_place(text, hit, found, starts) for hit in hits)
        result.unsigned[word] = sum(text[hit - 1 : hit] == "u" for hit in hits)
    return result


def _place(text: str, hit: int, found: list[Region], starts: list[int]) -> str:
    before = bisect_right(starts, hit) - 1
    region = found[before] if before >= 0 and hit < found[before].end else None
    if region is not None and region.comment:
        return "comment"
    if _is_metadata(text, hit):
        return "metadata"
    return _word_place(text, hit) if region is None else _string_place(text, region)


def _is_metadata(text: str, hit: int) -> bool:
    """Whether the line defines metadata or is a debug record."""
    line = text[text.rfind("\n", 0, hit) + 1 : hit].lstrip()
    return line.startswith(("!", "#dbg_"))


def _string_place(text: str, region: Region) -> str:
    mark = text[region.start - 1 : region.start]
    if mark == "c" and not _WORD.match(text[region.start - 2 : region.start - 1] or " "):
        return "string constant"
    return {"@": "identifier", "%": "identifier", "!": "metadata"}.get(mark, "other string")


def _word_place(text: str, hit: int) -> str:
    start, end = hit, hit
    while start and _WORD.match(text[start - 1]):
        start -= 1
    while end < len(text) and _WORD.match(text[end]):
        end += 1
    if text[start - 1 : start] == "!":
        return "metadata"
    if text[start - 1 : start] in ("@", "%", "$") or text[end : end + 1] == ":":
        return "identifier"
    return "type" if _TYPE.fullmatch(text[start:end]) else "other"
