"""Assembly: instructions by class, in loops and outside, and the loop that multiplies most.

`parse` takes what ``lib.source("asm")`` gives: GNU assembler text of LLVM, for x86 (AT&T operands)
or AArch64, the files of all kernels joined. It is lexed, comments and strings first, and cut into
basic blocks at labels and jumps; loops are those of the graph of these blocks. Jumps by a table
(``jmp *``) end a block and lead nowhere.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property

from ..errors import InputError
from .classes import AARCH64, MULTIPLIES, X86, classify, width
from .loops import Loop, find_loops, innermost

_STRING = r'"(?:\\.|[^"\\\n])*"'
_COMMENT = {X86: r"/\*.*?\*/|#[^\n]*", AARCH64: r"/\*.*?\*/|//[^\n]*"}
_PIECES = re.compile(rf"(?:{_STRING}|[^;\"])+", re.DOTALL)
_LABEL = re.compile(rf"\s*({_STRING}|[\w.$@]+):")
_TYPE = re.compile(rf"\.type\s+({_STRING}|[^\s,]+)\s*,\s*[@%]function")
_SYMBOL = re.compile(r"[A-Za-z_.$][\w.$]*")
_PREFIX = re.compile(r"(?:\{\w+\}|rep\w*|lock|notrack)\s+")
# Conditional jumps go on with the next block, the others do not.
_JUMP = {X86: re.compile(r"j\w+|loop\w*"), AARCH64: re.compile(r"b(?:\.\w+)?|cbn?z|tbn?z|br")}
_ENDS = {X86: re.compile(r"jmpq?|ret[ql]?|ud2"), AARCH64: re.compile(r"b|br|ret|brk|udf")}
_STACK = {X86: r"\(%rsp[,)]", AARCH64: r"\[sp(?:, [^\]]*)?\](?![!,])"}  # a push is none
_FRAME = {X86: r"\(%rbp[,)]", AARCH64: r"\[x29(?:, [^\]]*)?\](?![!,])"}
_SETS_FRAME = {X86: "%rsp, %rbp", AARCH64: "x29, sp"}
_ARCH = {X86: re.compile(r"%(?:[re][a-ds]\w|[xyz]mm\d)"), AARCH64: re.compile(r"\b[xwv]\d+[,.]")}


@dataclass(frozen=True, slots=True)
class AsmInstruction:
    """An instruction: mnemonic, operands as text, and its class, empty for those of none."""

    mnemonic: str
    operands: str
    kind: str
    macs: float = 0.0

    @property
    def text(self) -> str:
        """The instruction, mnemonic and operands in columns."""
        return f"{self.mnemonic:<14} {self.operands}".rstrip()


@dataclass(eq=False)
class AsmBlock:
    """A basic block: its labels, its instructions, and the loops around it."""

    labels: list[str] = field(default_factory=list)
    instructions: list[AsmInstruction] = field(default_factory=list)
    successors: tuple[AsmBlock, ...] = field(default=(), repr=False)
    depth: int = 0


@dataclass(frozen=True)
class HotLoop:
    """The loop that multiplies most.

    Attributes
    ----------
    function : str
        Symbol of its function.
    depth : int
        1 for a loop within no other.
    classes : Counter
        Its instructions by class, "other" for those of none.
    macs : float
        Multiply-accumulates of one pass that its instructions can do, look-ups and counts of bits
        by the bytes or lanes they handle.
    spills : int
        Instructions that read or write the stack.
    text : str
        Its labels and instructions, for reading.
    """

    function: str
    depth: int
    classes: Counter
    macs: float
    spills: int
    text: str = field(repr=False)


class AsmFunction:
    """A function.

    Attributes
    ----------
    name : str
        Symbol.
    part : int
        Which of the joined files it stands in, from 0.
    blocks : list of AsmBlock
        In program order.
    """

    def __init__(self, name: str, part: int, arch: str):
        self.name, self.part, self.arch = name, part, arch
        self.blocks = [AsmBlock()]

    def __repr__(self) -> str:
        return f"AsmFunction({self.name!r})"

    @property
    def instructions(self) -> list[AsmInstruction]:
        """All instructions in program order."""
        return [one for block in self.blocks for one in block.instructions]

    @cached_property
    def loops(self) -> list[Loop]:
        """Natural loops, each before those within it; nodes are blocks."""
        return find_loops({block: block.successors for block in self.blocks}, self.blocks[0])

    @cached_property
    def symbols(self) -> frozenset[str]:
        """Words of its operands, symbols it refers to among them."""
        return frozenset(s for one in self.instructions for s in _SYMBOL.findall(one.operands))

    def count(self, kind: str | None = None, in_loop: bool | None = None) -> int:
        """Instructions of a class, or of all; in loops, outside, or both."""
        return sum(
            kind in (None, one.kind)
            for block in self.blocks
            if in_loop in (None, block.depth > 0)
            for one in block.instructions
        )

    def classes(self, in_loop: bool | None = None) -> Counter:
        """Instructions by class, "other" for those of none."""
        blocks = [b for b in self.blocks if in_loop in (None, b.depth > 0)]
        return _classes(blocks)

    def spills(self, in_loop: bool | None = None) -> int:
        """Instructions that read or write the stack by its pointer, or by a frame pointer.

        Most are registers that were spilled; arguments on the stack, and local arrays, look alike.
        """
        return sum(
            self._touches_stack(one)
            for block in self.blocks
            if in_loop in (None, block.depth > 0)
            for one in block.instructions
        )

    @cached_property
    def hot_loop(self) -> HotLoop | None:
        """The innermost loop with the most multiply-accumulates a pass; None without any.

        Of loops that multiply alike it is the deepest. Loops around another that multiplies are
        left out, and with them what only they multiply.
        """
        multiplying = [loop for loop in self.loops if _macs(loop.nodes)]
        leaves = [loop for loop in multiplying if not any(_macs(i.nodes) for i in loop.inner)]
        if not leaves:
            return None
        loop = max(leaves, key=lambda loop: (_macs(loop.nodes), loop.depth))
        blocks = [block for block in self.blocks if block in loop.nodes]
        return HotLoop(
            function=self.name,
            depth=loop.depth,
            classes=_classes(blocks),
            macs=_macs(blocks),
            spills=sum(self._touches_stack(one) for b in blocks for one in b.instructions),
            text=_text(blocks),
        )

    @cached_property
    def _stack(self) -> re.Pattern:
        framed = any(one.operands == _SETS_FRAME[self.arch] for one in self.instructions)
        return re.compile(_STACK[self.arch] + (f"|{_FRAME[self.arch]}" if framed else ""))

    def _touches_stack(self, one: AsmInstruction) -> bool:
        return not one.mnemonic.startswith("lea") and bool(self._stack.search(one.operands))


class AsmModule:
    """All functions of assembly text, in order; names may repeat between its parts.

    Attributes
    ----------
    functions : list of AsmFunction
    arch : str
        ``"x86"`` or ``"aarch64"``.
    """

    def __init__(self, functions: list[AsmFunction], arch: str):
        self.functions, self.arch = functions, arch

    def classes(self, in_loop: bool | None = None) -> Counter:
        """Instructions of all functions by class, "other" for those of none."""
        return sum((function.classes(in_loop) for function in self.functions), Counter())

    def rows(self) -> list[dict]:
        """A row for each class: instructions in loops and outside, the most frequent first."""
        inside, outside = self.classes(True), self.classes(False)
        rows = [
            {"class": kind, "in_loops": inside[kind], "outside": outside[kind]}
            for kind in inside | outside
        ]
        return sorted(rows, key=lambda row: (-row["in_loops"] - row["outside"], row["class"]))

    def reached_from(self, name: str) -> list[AsmFunction]:
        """A function and those of its part that it calls or hands on, directly or not.

        Raises
        ------
        InputError
            If no function is called ``name``.
        """
        first = next((f for f in self.functions if f.name == name), None)
        if first is None:
            raise InputError(f"the assembly has no function {name!r}")
        part = {f.name: f for f in self.functions if f.part == first.part}
        reached, work = {first.name: first}, [first]
        while work:
            for symbol in sorted(work.pop().symbols & part.keys() - reached.keys()):
                reached[symbol] = part[symbol]
                work.append(part[symbol])
        return [f for f in part.values() if f.name in reached]


def parse(text: str, arch: str | None = None) -> AsmModule:
    """Read assembly.

    Parameters
    ----------
    text : str
        One file or several, joined.
    arch : str, optional
        ``"x86"`` or ``"aarch64"``; default: by the registers that it names.

    Raises
    ------
    InputError
        If there is no function with instructions in it.
    """
    arch = arch or max(_ARCH, key=lambda name: len(_ARCH[name].findall(text)))
    reader = _Reader(arch)
    for line in _without_comments(text, arch).splitlines():
        for statement in _PIECES.findall(line):
            reader.read(statement)
    functions = [f for f in reader.functions if f.instructions]
    if not functions:
        raise InputError(
            "there is no function in this text, it is empty or no assembly: take it whole from "
            "lib.source('asm')"
        )
    for function in functions:
        _connect(function)
    return AsmModule(functions, arch)


def hottest(functions: Iterable[AsmFunction]) -> HotLoop | None:
    """Of the hot loops of functions the one with the most multiply-accumulates a pass."""
    loops = [function.hot_loop for function in functions]
    return max(filter(None, loops), key=lambda loop: (loop.macs, loop.depth), default=None)


class _Reader:
    """Takes statements in order and cuts them into functions and blocks."""

    def __init__(self, arch: str):
        self.arch = arch
        self.functions: list[AsmFunction] = []
        self.declared: set[str] = set()
        self.part = -1
        self.inside = False

    def read(self, statement: str) -> None:
        while match := _LABEL.match(statement):
            self._label(match[1].strip('"'))
            statement = statement[match.end() :]
        statement = statement.strip()
        if statement.startswith("."):
            self._directive(statement)
        elif statement and self.inside and not re.match(r"[\w.$]+\s*=", statement):
            self._instruction(_PREFIX.sub("", statement))

    def _label(self, name: str) -> None:
        if name in self.declared:
            self.functions.append(AsmFunction(name, max(self.part, 0), self.arch))
            self.declared.discard(name)
            self.inside = True
        if self.inside:
            blocks = self.functions[-1].blocks
            if blocks[-1].instructions:
                blocks.append(AsmBlock())
            blocks[-1].labels.append(name)

    def _directive(self, statement: str) -> None:
        if match := _TYPE.match(statement):
            self.declared.add(match[1].strip('"'))
        elif re.match(r'\.file\s+"', statement):
            self.part += 1
        elif re.match(r"\.size\s", statement) and self.inside:
            self.inside = statement.split(None, 1)[1].split(",")[0].strip('" ') != (
                self.functions[-1].name
            )

    def _instruction(self, statement: str) -> None:
        mnemonic, _, operands = statement.partition(" " if " " in statement else "\t")
        if "\t" in mnemonic:
            mnemonic, _, operands = statement.partition("\t")
        operands = " ".join(operands.split())
        kind = classify(mnemonic, self.arch)
        macs = MULTIPLIES.get(kind, 0) * width(mnemonic, operands, self.arch)
        blocks = self.functions[-1].blocks
        blocks[-1].instructions.append(AsmInstruction(mnemonic, operands, kind, macs))
        if _is_jump(mnemonic, self.arch):
            blocks.append(AsmBlock())


def _without_comments(text: str, arch: str) -> str:
    pattern = re.compile(f"({_STRING})|{_COMMENT[arch]}", re.DOTALL)
    return pattern.sub(lambda match: match[1] or " ", text)


def _is_jump(mnemonic: str, arch: str) -> bool:
    return bool(_JUMP[arch].fullmatch(mnemonic) or _ENDS[arch].fullmatch(mnemonic))


def _connect(function: AsmFunction) -> None:
    """Find the blocks' successors and their depth in loops."""
    function.blocks = [b for b in function.blocks if b.labels or b.instructions]
    by_label = {label: block for block in function.blocks for label in block.labels}
    following = dict(zip(function.blocks, [*function.blocks[1:], None], strict=True))
    for block, after in following.items():
        last = block.instructions[-1] if block.instructions else None
        targets = []
        if last and _JUMP[function.arch].fullmatch(last.mnemonic):
            words = _SYMBOL.findall(last.operands)
            targets = [by_label[word] for word in words if word in by_label]
        if after and not (last and _ENDS[function.arch].fullmatch(last.mnemonic)):
            targets.append(after)
        block.successors = tuple(dict.fromkeys(targets))
    for block, loop in innermost(function.loops).items():
        block.depth = loop.depth


def _classes(blocks: Iterable[AsmBlock]) -> Counter:
    return Counter(one.kind or "other" for block in blocks for one in block.instructions)


def _macs(blocks: Iterable[AsmBlock]) -> float:
    return sum(one.macs for block in blocks for one in block.instructions)


def _text(blocks: list[AsmBlock]) -> str:
    """Blocks with the labels that something in them jumps to."""
    wanted = {w for b in blocks for one in b.instructions for w in _SYMBOL.findall(one.operands)}
    lines = []
    for block in blocks:
        lines += [f"{label}:" for label in block.labels if label in wanted]
        lines += [f"    {one.text}" for one in block.instructions]
    return "\n".join(lines)
