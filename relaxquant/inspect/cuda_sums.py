"""Vectors that are multiplied, added to what lies in an array, and stored there again.

TVM writes ``sums = sums + a * b`` of vectors as five kinds of lines: the old sums are loaded into a
variable, the factors into others (converted, perhaps), multiplied component by component, added
component by component, and the result is stored where the sums came from.
"""

from __future__ import annotations

import re

from .cuda_lines import FLOATS, assignment

_ARITHMETIC = re.compile(r"^(\w+)\.([xyzw]) = \((\w+)\.\2([*+])(\w+)\.\2\);$")
_CONVERTED = re.compile(r"^(\w+)\.[xyzw] = \([\w ]+\)\((\w+)\.[xyzw]\);$")
_PLACE = re.compile(r"^(?:\w+\[.*\]|\*\([\w ]+\*\)\(.*\))$")


class VectorSums:
    """Follows one kernel's lines; ``types`` is its variables' scalar types, kept by the caller."""

    def __init__(self, types: dict[str, str]):
        self.types = types
        self.loaded: dict[str, str] = {}  # variable -> the place it was loaded from
        self.origin: dict[str, str] = {}  # converted variable -> what it was
        self.products: dict[str, tuple[str, str]] = {}
        self.sums: dict[str, tuple[str, str, int]] = {}  # variable -> (place, product, components)

    def follow(self, line: str) -> tuple[int, str]:
        """Components that a line stores as multiplied and added, and the type multiplied; else 0.

        Integers count as what they were before they were converted to wider ones; floats as what
        is multiplied.
        """
        name, place, value = assignment(line)
        arithmetic, converted = _ARITHMETIC.match(line), _CONVERTED.match(line)
        if arithmetic:
            self._compute(arithmetic)
        elif converted:
            self.origin[converted[1]] = converted[2]
        elif _PLACE.match(value):
            self.loaded[name] = value
        elif value in self.sums and self.sums[value][0] == place:
            _, product, components = self.sums.pop(value)
            return components, self._type(product)
        return 0, ""

    def _compute(self, match: re.Match) -> None:
        target, _, a, sign, b = match.groups()
        if sign == "*":
            self.products[target] = (a, b)
            return
        for old, product in ((a, b), (b, a)):
            if old in self.loaded and product in self.products:
                place, known, count = self.sums.get(target, (self.loaded[old], product, 0))
                self.sums[target] = (place, known, count + 1)
                return

    def _type(self, product: str) -> str:
        kinds = []
        for factor in self.products[product]:
            kind, before = self.types.get(factor, ""), self.types.get(self.origin.get(factor, ""))
            kinds.append(before if before and kind not in FLOATS else kind)
        return " ".join(kinds)
