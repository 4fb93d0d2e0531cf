"""What a thread of a CUDA kernel does, read from its text: memory it touches, what it multiplies.

TVM writes a statement a line and loops with constant bounds, so counting is reading: every
statement is looked at once and weighed by the loops around it. Of an ``if`` both ways are counted,
as is a border that a guard leaves out, so that counts are upper bounds; those of one pass through a
loop are what stands there.

Counted are accesses of global memory, that is of a kernel's arguments, as a thread asks for them:
whether a cache has them, or neighbouring threads share them, is not seen here.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from .cuda import DP4A, KERNEL, MMA_SHAPE, device_functions

LOAD, STORE, LOAD_BYTES, STORE_BYTES = "loads", "stores", "bytes loaded", "bytes stored"
FLOAT_MULTIPLY, CONVERSION, DP4A_WORD, MMA_WORD = (
    "float multiplications",
    "conversions",
    "dp4a",
    "mma",
)
WARP = 32
SIZES = {
    **dict.fromkeys(("signed char", "unsigned char", "char", "uchar", "bool"), 1),
    **dict.fromkeys(("short", "ushort", "half", "nv_bfloat16"), 2),
    **dict.fromkeys(("int", "uint", "float"), 4),
    **dict.fromkeys(("int64_t", "longlong", "long long", "double"), 8),
}
# What multiplies 8-bit integers, and so on, by the declared type of the narrower factor.
PRECISIONS = {
    **dict.fromkeys(("signed char", "unsigned char", "char", "uchar"), "int8"),
    **dict.fromkeys(("short", "ushort"), "int16"),
    **dict.fromkeys(("int", "uint"), "int32"),
    "half": "float16",
    "float": "float32",
}
FLOATS = ("float", "half", "double")

_TYPE = r"(?:(?:const |unsigned |signed |long )*(?:char|short|long|int|float|half|double|\w+_t|\w+))"
_LAUNCH = re.compile(r"__launch_bounds__\((\d+)\)")
_PARAMETER = re.compile(rf"({_TYPE})\* __restrict__ (\w+)")
_LOCAL = re.compile(rf"^(?:alignas\(\d+\) )?({_TYPE}) (\w+)(?:\[\d+\])?(?: = .*)?;$")
_FOR = re.compile(r"^for \(\w+ (\w+) = 0; \1 < (.+?); (?:\+\+\1|\1\+\+)\) \{$")
_CAST = re.compile(
    r"\((?:float|half|double|u?int|u?short|u?char|(?:un)?signed char|int64_t)\)"
    r"(?!-?\d|\(?(?:thread|block)Idx)(?=[\w(])"
)
_CONVERT = re.compile(r"__(?:float2int_r\w|half2float|float2half\w*)\(")
_PRODUCT = re.compile(r"(?<=[\w)@]) ?\* ?(?=[\w(@])")
_FMA = re.compile(r"\b__fmaf_rn\(")
_POINTER = re.compile(r"\*\(([\w ]+?)\*\)\(")
_WMMA = re.compile(r"\bmma_sync\(")


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
        Of a block.
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
    def macs(self) -> Counter:
        """Multiply-accumulates of a thread by precision."""
        return _weighed((each.macs, each.times) for each in self.passes)

    @property
    def hottest(self) -> Pass:
        """The pass that multiplies and accumulates most; else the one that moves most."""
        return max(
            self.passes,
            key=lambda each: (each.times * each.macs.total(), each.times * each.counts[LOAD]),
        )

    def per_mac(self, what: str) -> float:
        """How many of a count a thread has for each multiply-accumulate; nan without any."""
        macs = self.macs.total()
        return self.counts[what] / macs if macs else float("nan")


def kernel_work(text: str) -> dict[str, KernelWork]:
    """What each kernel of a CUDA text does, in order.

    Parameters
    ----------
    text : str
        ``lib.source("cuda")``.
    """
    helpers = {name: _matrix_products(body) for name, body in device_functions(text).items()}
    parts = KERNEL.split(text)
    heads = [match[0] for match in KERNEL.finditer(text)]
    return {
        name: _Reader(name, head, helpers).read(body)
        for name, head, body in zip(parts[1::2], heads, parts[2::2], strict=True)
    }


class _Reader:
    """Reads one kernel; one use."""

    def __init__(self, name: str, head: str, helpers: Mapping[str, Counter]):
        self.name, self.helpers = name, {k: v for k, v in helpers.items() if v}
        self.threads = int(_LAUNCH.search(head)[1]) if _LAUNCH.search(head) else 0
        self.globals = {variable: _scalar(kind) for kind, variable in _PARAMETER.findall(head)}
        self.types = dict(self.globals)
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
        loop = _FOR.match(line)
        if not loop:
            self._count(line)
            self.open.append((around, guarded or "if (" in line or "else" in line))
            return
        known = loop[2].isdigit()
        self.exact = self.exact and known
        self.passes.append(Pass(around.times * (int(loop[2]) if known else 1)))
        self.open.append((self.passes[-1], guarded))

    def _count(self, line: str) -> None:
        declared = _LOCAL.match(line)
        if declared and declared[1] != "return":
            self.types.setdefault(declared[2], _scalar(declared[1]))
        around, guarded = self.open[-1]
        target, value = _assignment(line)
        for access, (name, size) in ((STORE, target), *((LOAD, each) for each in self._reads(line))):
            if name in self.globals:
                around.counts[access] += 1
                bytes_of = size or SIZES.get(self.globals[name], 0)
                around.counts[STORE_BYTES if access is STORE else LOAD_BYTES] += bytes_of
        self._count_arithmetic(line, target[0], value, around)
        macs = self._macs(line, target[0], value)
        around.macs.update(macs)
        around.guarded = around.guarded or bool(macs and guarded)

    def _reads(self, line: str) -> list[tuple[str, int]]:
        """(argument, bytes of a vector or 0) of every access but the one that is assigned."""
        found = _accesses(line, self.globals)
        return found[1:] if _assignment(line)[0][0] in self.globals else found

    def _count_arithmetic(self, line: str, target: str, value: str, around: Pass) -> None:
        plain = _without_addresses(value or line)
        around.counts[CONVERSION] += len(_CAST.findall(plain)) + len(_CONVERT.findall(plain))
        if self.types.get(target) in FLOATS:
            products = len(_PRODUCT.findall(plain)) + len(_FMA.findall(plain))
            around.counts[FLOAT_MULTIPLY] += products
        around.counts[DP4A_WORD] += len(DP4A.findall(line))
        called = [name for name in self.helpers if f"{name}(" in line]
        inline = len(MMA_SHAPE.findall(line)) + len(_WMMA.findall(line))
        around.counts[MMA_WORD] += inline + sum(self.helpers[n]["instructions"] for n in called)

    def _macs(self, line: str, target: str, value: str) -> Counter:
        found = Counter({"int8": 4 * len(DP4A.findall(line))})
        for name, products in self.helpers.items():
            if f"{name}(" in line:
                found += Counter({k: n for k, n in products.items() if k != "instructions"})
        inline = _matrix_products(line)
        found += Counter({k: n for k, n in inline.items() if k != "instructions"})
        # 16 x 16 x 16 of a warp is the only shape that TVM's rules ask of this function.
        found["float16"] += len(_WMMA.findall(line)) * 16**3 // WARP
        summed = _product_added(line)
        if summed:
            found[self._precision(summed, target)] += 1
        return +found

    def _precision(self, factors: str, target: str) -> str:
        kinds = [self.types[name] for name in re.findall(r"\w+", factors) if name in self.types]
        known = [kind for kind in kinds if kind in PRECISIONS] or [self.types.get(target, "float")]
        narrowest = min(known, key=lambda kind: SIZES[kind])
        if self.types.get(target) in FLOATS and narrowest not in FLOATS:
            narrowest = self.types[target]  # an integer that became a float before the product
        return PRECISIONS.get(narrowest, "float32")


def _weighed(pairs) -> Counter:
    total: Counter = Counter()
    for counts, times in pairs:
        for what, number in counts.items():
            total[what] += number * times
    return +total


def _matrix_products(text: str) -> Counter:
    """``mma.sync`` in a text: a thread's multiply-accumulates by precision, and instructions."""
    found: Counter = Counter()
    for m, n, k, kind in MMA_SHAPE.findall(text):
        precision = {"u8": "int8", "s8": "int8", "f16": "float16"}.get(kind, kind)
        found[precision] += int(m) * int(n) * int(k) // WARP
        found["instructions"] += 1
    return found


def _scalar(kind: str) -> str:
    """Type of a vector's elements, or the type itself."""
    plain = kind.replace("const ", "").strip()
    return plain if plain in SIZES else re.sub(r"\d+$", "", plain)


def _bytes_of(kind: str) -> int:
    count = re.search(r"(\d+)$", kind)
    vector = int(count[1]) if count and kind not in SIZES else 1
    return SIZES.get(_scalar(kind), 0) * vector


def _assignment(line: str) -> tuple[tuple[str, int], str]:
    """What a line assigns to, with a vector's bytes, and the value; names are empty without one."""
    at = line.find(" = ")
    if at < 0 or line.startswith(("if ", "for ", "}")):
        return ("", 0), ""
    left, value = line[:at], line[at + 3 :]
    pointer = re.match(r"\*\(([\w ]+?)\*\)\((\w+)", left)
    if pointer:
        return (pointer[2], _bytes_of(pointer[1])), value
    name = re.match(r"(?:[\w ]+ )?(\w+)(?:\[|\.\w+$|$)", left)
    return (name[1] if name else "", 0), value


def _accesses(line: str, arguments: Mapping[str, str]) -> list[tuple[str, int]]:
    """(argument, bytes of a vector or 0) of every access of a kernel's argument, from the left."""
    found = []
    for match in re.finditer(r"\b(\w+)(\[| \+|\))", line):
        if match[1] in arguments:
            before = re.search(r"\*\(([\w ]+?)\*\)\($", line[: match.start()])
            if before or match[2] == "[":
                found.append((match[1], _bytes_of(before[1]) if before else 0))
    return found


def _without_addresses(text: str) -> str:
    """The text without what stands in brackets, and in pointers that are read through."""
    result, at = [], 0
    while at < len(text):
        pointer = _POINTER.match(text, at)
        if pointer or text[at] == "[":
            result.append("@" if pointer else "")
            at = _closing(text, pointer.end() - 1 if pointer else at) + 1
        else:
            result.append(text[at])
            at += 1
    return "".join(result)


def _closing(text: str, at: int) -> int:
    """Where the bracket that opens at ``at`` closes."""
    opener = text[at]
    closer = {"(": ")", "[": "]"}[opener]
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] == opener) - (text[i] == closer)
        if not depth:
            return i
    return len(text)


def _product_added(line: str) -> str:
    """The factors of ``a = a + b * c``, or of ``a = fma(b, c, a)``; empty for other lines."""
    at = line.find(" = ")
    if at < 0 or not line.endswith(";"):
        return ""
    left, value = line[:at], line[at + 3 : -1]
    if value.startswith("__fmaf_rn(") and value.endswith(f", {left})"):
        return value[len("__fmaf_rn(") : -len(f", {left})")]
    start = f"({left} + "
    factors = value[len(start) : -1] if value.startswith(start) else ""
    return factors if _PRODUCT.search(_without_addresses(factors)) else ""
