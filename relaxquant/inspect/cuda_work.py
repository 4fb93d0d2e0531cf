"""What a thread of a CUDA kernel does, read from its text: memory it touches, what it multiplies.

Every statement is looked at once and weighed by the loops around it. Of an ``if`` both ways are
counted, as is a border that a guard leaves out, so that counts are upper bounds; those of one pass
through a loop are what stands there.

Counted are accesses of global memory, that is of a kernel's arguments, and of memory that a block
shares, as a thread asks for them: whether a cache has them, or neighbouring threads ask for the
same, is not seen here.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from . import cuda_lines as lines
from .classes import DP4A, MMA
from .cuda_sums import VectorSums

LOAD, STORE, LOAD_BYTES, STORE_BYTES = "loads", "stores", "bytes loaded", "bytes stored"
SHARED, SHARED_BYTES = "shared memory accesses", "bytes of shared memory"
FLOAT_MULTIPLY, CONVERSION = "float multiplications", "conversions"
# What multiplies 8-bit integers, and so on, by the type of the narrower factor.
PRECISIONS = {
    **dict.fromkeys(("signed char", "unsigned char", "char", "uchar"), "int8"),
    **dict.fromkeys(("short", "ushort"), "int16"),
    **dict.fromkeys(("int", "uint"), "int32"),
    "half": "float16",
    "float": "float32",
}
WMMA_MACS = 16 * 16 * 16 // lines.WARP  # the one shape that TVM's rules ask of this function

_KERNEL = re.compile(r'extern "C" __global__ [^;{]*?(\w+)\([^)]*\) \{')
_FUNCTION = re.compile(r"__device__ void (\w+)\(")
_DP4A = re.compile(r"\b__dp4a\(")
_LAUNCH = re.compile(r"__launch_bounds__\((\d+)\)")
_PARAMETER = re.compile(r"((?:(?:const|unsigned|signed) )*\w+)\* __restrict__ (\w+)")
_WMMA = re.compile(r"\bmma_sync\(\w+\[.*?\], (\w+)\[")
_NUMBER = re.compile(r"\w+")


@dataclass
class Pass:
    """One pass through a loop's own statements, those of loops inside it left out.

    Attributes
    ----------
    times : int
        How often a thread passes through it; once a loop whose bound the text does not tell.
    counts : Counter
        Of `LOAD`, `STORE`, `CONVERSION` and so on.
    macs : Counter
        Multiply-accumulates by precision; a thread's share of a warp's.
    guarded : bool
        Whether an ``if`` decides on its multiply-accumulates.
    """

    times: int = 1
    counts: Counter = field(default_factory=Counter)
    macs: Counter = field(default_factory=Counter)
    guarded: bool = False


@dataclass(frozen=True)
class KernelWork:
    """What one kernel's threads do.

    Attributes
    ----------
    name : str
    threads : int
        Of a block, as far as the text bounds them; 0 where it does not.
    passes : tuple of Pass
        The kernel's own statements, and those of each loop, in order.
    exact : bool
        Whether all bounds are numbers, and no ``if`` decides on a multiply-accumulate.
    """

    name: str
    threads: int
    passes: tuple[Pass, ...] = field(repr=False)
    exact: bool = True

    @property
    def counts(self) -> Counter:
        """Of a thread, through all loops."""
        return _weighed((each.counts, each.times) for each in self.passes)

    @property
    def written(self) -> Counter:
        """Of the text, whatever loops are around: each statement once."""
        return _weighed((each.counts, 1) for each in self.passes)

    @property
    def macs(self) -> Counter:
        """Multiply-accumulates of a thread by precision."""
        return _weighed((each.macs, each.times) for each in self.passes)

    @property
    def hottest(self) -> Pass:
        """The pass that multiplies and accumulates most; else the one that loads most."""

        def weight(each: Pass) -> tuple[int, int]:
            return each.times * each.macs.total(), each.times * each.counts[LOAD]

        return max(self.passes, key=weight)

    def per_mac(self, *what: str) -> float:
        """How many of some counts a thread has for each multiply-accumulate; nan without any."""
        macs = self.macs.total()
        return sum(self.counts[each] for each in what) / macs if macs else float("nan")


@functools.lru_cache(maxsize=16)  # a network's text takes a second to read
def kernel_work(text: str) -> dict[str, KernelWork]:
    """What each kernel of a CUDA text does, in order.

    Parameters
    ----------
    text : str
        ``lib.source("cuda")``.
    """
    parts = _KERNEL.split(text)
    heads = [match[0] for match in _KERNEL.finditer(text)]
    helpers = _functions_with_products(parts[0])
    return {
        name: _Reader(name, head, helpers).read(body)
        for name, head, body in zip(parts[1::2], heads, parts[2::2], strict=True)
    }


def _functions_with_products(text: str) -> dict[str, tuple[int, Counter]]:
    """Functions that kernels call to have matrices multiplied, and `lines.matrix_products`."""
    parts = _FUNCTION.split(text)
    found = zip(parts[1::2], map(lines.matrix_products, parts[2::2]), strict=True)
    return {name: products for name, products in found if products[0]}


class _Reader:
    """Reads one kernel; one use."""

    def __init__(self, name: str, head: str, helpers: Mapping[str, tuple[int, Counter]]):
        self.name, self.helpers = name, helpers
        bound = _LAUNCH.search(head)
        self.threads = int(bound[1]) if bound else 0
        self.globals = {name: lines.scalar(kind) for kind, name in _PARAMETER.findall(head)}
        self.shared: dict[str, str] = {}
        self.types = dict(self.globals)
        self.sums = VectorSums(self.types)
        self.passes = [Pass()]
        # What each open brace is: the pass it is of, and whether an ``if`` lies between.
        self.open = [(self.passes[0], False)]
        self.exact = True

    def read(self, body: str) -> KernelWork:
        for line in map(str.strip, body.splitlines()):
            if line.startswith("}"):
                self.open.pop()
                if not self.open:
                    break
            if line.endswith("{"):
                self._enter(line)
            else:
                self._count(line)
        self.exact = self.exact and not any(each.guarded for each in self.passes)
        return KernelWork(self.name, self.threads, tuple(self.passes), self.exact)

    def _enter(self, line: str) -> None:
        around, guarded = self.open[-1] if self.open else (self.passes[0], False)
        bound = lines.loop_bound(line)
        if bound is None:
            self._count_accesses(line, around)
            self.open.append((around, guarded or "if (" in line or "else" in line))
            return
        self.exact = self.exact and bound.isdigit()
        self.passes.append(Pass(around.times * (int(bound) if bound.isdigit() else 1)))
        self.open.append((self.passes[-1], guarded))

    def _count(self, line: str) -> None:
        kind, name = lines.declaration(line)
        if name:
            self.types.setdefault(name, kind)
            if line.startswith("__shared__"):
                self.shared[name] = kind
                return
        around, guarded = self.open[-1]
        self._count_accesses(line, around)
        self._count_arithmetic(line, around)
        macs = self._macs(line)
        around.macs.update(macs)
        around.guarded = around.guarded or bool(macs and guarded)

    def _count_accesses(self, line: str, around: Pass) -> None:
        target, place, _ = lines.assignment(line)
        writes = lines.accesses(place, self.globals) if target in self.globals else []
        found = lines.accesses(line, self.globals)
        for index, (name, bytes_) in enumerate(found):
            count, total = (STORE, STORE_BYTES) if index < len(writes[:1]) else (LOAD, LOAD_BYTES)
            around.counts[count] += 1
            around.counts[total] += bytes_ or lines.SIZES.get(self.globals[name], 0)
        for name, bytes_ in lines.accesses(line, self.shared):
            around.counts[SHARED] += 1
            around.counts[SHARED_BYTES] += bytes_ or lines.SIZES.get(self.shared[name], 0)

    def _count_arithmetic(self, line: str, around: Pass) -> None:
        target, _, value = lines.assignment(line)
        plain = lines.without_addresses(value or line)
        around.counts[CONVERSION] += lines.conversions(plain)
        if self.types.get(target) in lines.FLOATS:
            around.counts[FLOAT_MULTIPLY] += lines.products(plain)
        around.counts[DP4A] += len(_DP4A.findall(line))
        around.counts[MMA] += lines.matrix_products(line)[0] + len(_WMMA.findall(line))
        around.counts[MMA] += sum(count for count, _ in self._called(line))

    def _called(self, line: str) -> list[tuple[int, Counter]]:
        return [found for name, found in self.helpers.items() if f"{name}(" in line]

    def _macs(self, line: str) -> Counter:
        found = Counter(int8=4 * len(_DP4A.findall(line)))
        for _, products in [*self._called(line), lines.matrix_products(line)]:
            found.update(products)
        for fragment in _WMMA.findall(line):
            found[PRECISIONS.get(self.types.get(fragment, ""), "float16")] += WMMA_MACS
        factors = lines.product_added(line)
        if factors:
            found[self._precision(factors, lines.assignment(line)[0])] += 1
        components, kinds = self.sums.follow(line)
        if components:
            known = [kind for kind in kinds.split() if kind in PRECISIONS] or ["float"]
            found[PRECISIONS[min(known, key=lines.SIZES.get)]] += components
        return +found

    def _precision(self, factors: str, target: str) -> str:
        kinds = [self.types[name] for name in _NUMBER.findall(factors) if name in self.types]
        sum_kind = self.types.get(target, "float")
        if sum_kind in lines.FLOATS:  # whatever it was before, this is what is multiplied
            return PRECISIONS.get(sum_kind, "float32")
        known = [kind for kind in kinds if kind in PRECISIONS] or ["int"]
        return PRECISIONS[min(known, key=lines.SIZES.get)]


def _weighed(pairs: Iterable[tuple[Counter, int]]) -> Counter:
    total: Counter = Counter()
    for counts, times in pairs:
        for what, number in counts.items():
            total[what] += number * times
    return +total
