"""LLVM IR read by LLVM's own parser: functions, blocks, loops and typed instructions.

`parse` takes what ``lib.source("ll")`` gives, the modules of all kernels joined. The parser is
llvmlite's binding of LLVM (https://llvmlite.readthedocs.io), whose version must be at least that of
the LLVM in TVM.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..errors import InputError, not_installed
from .loops import Loop, find_loops, innermost
from .tally import Tally, merged
from .text import parts

_VECTOR = re.compile(r"<(?:vscale x )?(\d+) x (.+)>")
_STRING = re.compile(r'constant \[\d+ x i8\] c"([^"]*)"')
_DEFINITION = re.compile(r'^define [^\n]*?@("[^"\n]*"|[-\w$.]+)\(', re.MULTILINE)
_GLOBAL = re.compile(r'@("[^"]*"|[-\w$.]+)')
_PREDICATE = re.compile(r"icmp (?:samesign )?(\w+)")
_ESCAPE = re.compile(r"\\([0-9A-Fa-f]{2}|\\)")
WAY_OUT = "take it whole from lib.source('ll')"
# What is compared or stored says more of them than what they return.
_BY_OPERAND = ("store", "icmp", "fcmp")


@dataclass(eq=False, slots=True)
class Value:
    """An operand that no instruction computes.

    Attributes
    ----------
    kind : str
        ``"argument"``, ``"constant"``, ``"function"``, ``"global"`` or ``"other"``.
    name : str
        Without ``@`` or ``%``; empty for constants.
    element : str
        As of an `Instruction`.
    lanes : int
        As of an `Instruction`.
    number : int or None
        Value of a constant scalar integer, signed.
    """

    kind: str
    name: str
    element: str
    lanes: int
    number: int | None = None


@dataclass(eq=False, slots=True)
class Instruction:
    """An instruction.

    Attributes
    ----------
    opcode : str
        As LLVM spells it: ``fmul``, ``call``, ``getelementptr``.
    element : str
        Type of an element of what it computes (of what is compared, or stored): ``float``, ``i8``,
        ``ptr``; ``void`` where there is nothing.
    lanes : int
        Elements of the vector; 1 for a scalar.
    callee : str
        Function that a call names; empty for a call by pointer and for all else.
    operands : tuple
        `Instruction`, `Value` and `Block`, as LLVM orders them; a call's callee is the last.
    block : Block
        Where it stands.
    """

    opcode: str
    element: str
    lanes: int
    callee: str
    block: Block = field(repr=False)
    operands: tuple = field(default=(), repr=False)
    incoming: tuple = field(default=(), repr=False)  # blocks of a phi's operands
    ref: Any = field(default=None, repr=False)
    _predicate: str = field(default="", repr=False)

    @property
    def text(self) -> str:
        """The instruction as LLVM prints it."""
        return str(self.ref).strip()

    @property
    def predicate(self) -> str:
        """How an ``icmp`` compares: ``eq``, ``slt``."""
        if not self._predicate:  # printing is the slowest question to LLVM
            self._predicate = _PREDICATE.search(self.text)[1]
        return self._predicate


@dataclass(eq=False, slots=True)
class Block:
    """A basic block; ``depth`` counts the loops around it."""

    index: int
    name: str
    function: IRFunction = field(repr=False)
    instructions: list[Instruction] = field(default_factory=list, repr=False)
    successors: tuple[Block, ...] = field(default=(), repr=False)
    depth: int = 0


class IRFunction:
    """A function with a body; read when first asked for.

    Attributes
    ----------
    name : str
        Symbol.
    part : IRPart
        The module it stands in.
    """

    def __init__(self, ref: Any, part: IRPart):
        self._ref, self.part, self.name = ref, part, ref.name

    def __repr__(self) -> str:
        return f"IRFunction({self.name!r})"

    @cached_property
    def _read(self) -> tuple[list[Value], list[Block], list[Loop]]:
        reader = _Reader(self)
        blocks = reader.read()
        loops = find_loops({block: block.successors for block in blocks}, blocks[0])
        for block, loop in innermost(loops).items():
            block.depth = loop.depth
        return reader.arguments, blocks, loops

    @property
    def arguments(self) -> list[Value]:
        """What it takes, in order."""
        return self._read[0]

    @property
    def blocks(self) -> list[Block]:
        """Blocks in program order."""
        return self._read[1]

    @property
    def loops(self) -> list[Loop]:
        """Natural loops, each before those within it; nodes are blocks."""
        return self._read[2]

    @property
    def instructions(self) -> Iterator[Instruction]:
        """All instructions in program order."""
        return (instruction for block in self.blocks for instruction in block.instructions)

    @property
    def text(self) -> str:
        """Its LLVM IR: faster to search than its instructions are to read."""
        return self.part.bodies.get(self.name) or str(self._ref)

    def reached(self) -> list[IRFunction]:
        """Itself and the functions of its module that it refers to, directly or not."""
        functions, found, work = self.part.functions, {self: None}, [self]
        while work:
            for name in dict.fromkeys(_GLOBAL.findall(work.pop().text)):
                other = functions.get(name.strip('"'))
                if other is not None and other not in found:
                    found[other] = None
                    work.append(other)
        return list(found)

    @cached_property
    def tally(self) -> Tally:
        """Its instructions, counted."""
        return Tally.of(self.instructions)


def calls_of(block: Block) -> list[Instruction]:
    """Calls in a block of functions with a body, or that are handed one."""
    return [one for one in block.instructions if one.opcode == "call" and callees_of(one)]


def callees_of(call: Instruction) -> list[IRFunction]:
    """Functions with a body that an instruction calls, or hands on to be called."""
    functions = call.block.function.part.functions
    names = [o.name for o in call.operands if isinstance(o, Value) and o.kind == "function"]
    return [functions[name] for name in names if name in functions]


class IRPart:
    """One LLVM module.

    Attributes
    ----------
    functions : dict of str to IRFunction
        By symbol; declarations are left out.
    strings : list of str
        Its string constants, escapes undone.
    """

    def __init__(self, text: str):
        self._text = text
        module, context = _parsed(text)
        # In this order, whichever the garbage collector would take.
        weakref.finalize(self, lambda: (module.close(), context.close()))
        self._module = module
        self.functions = {
            ref.name: IRFunction(ref, self)
            for ref in self._module.functions
            if not ref.is_declaration
        }

    @cached_property
    def bodies(self) -> dict[str, str]:
        """Text of functions by symbol, as far as it can be told without parsing."""
        found: dict[str, str] = {}
        for match in _DEFINITION.finditer(self._text):
            name = match[1].strip('"')
            end = self._text.find("\n}", match.end())
            found[name] = "" if name in found else self._text[match.start() : end + 2]
        return found

    @cached_property
    def strings(self) -> list[str]:
        """String constants, escapes undone, without the final zero byte."""
        texts = (_STRING.search(str(ref)) for ref in self._module.global_variables)
        return [_unescaped(match[1]).removesuffix("\0") for match in texts if match]


class IRModule:
    """All parts of LLVM IR.

    Attributes
    ----------
    parts : tuple of IRPart
        LLVM modules, in order of the text.
    """

    def __init__(self, modules: list[IRPart]):
        self.parts = tuple(modules)

    @property
    def functions(self) -> list[IRFunction]:
        """Functions with a body; names may repeat between parts."""
        return [function for part in self.parts for function in part.functions.values()]

    @property
    def strings(self) -> list[str]:
        """String constants of all parts."""
        return [string for part in self.parts for string in part.strings]

    @cached_property
    def tally(self) -> Tally:
        """Instructions of all functions, counted."""
        return merged(function.tally for function in self.functions)


def parse(text: str) -> IRModule:
    """Read LLVM IR.

    Parameters
    ----------
    text : str
        One module or several, joined.

    Raises
    ------
    InputError
        If the text is empty, ends early, or is no LLVM IR; or if llvmlite is missing.
    """
    if not text.strip():
        raise InputError(f"there is no LLVM IR to read, the text is empty: {WAY_OUT}")
    modules = [IRPart(part) for part in parts(text)]
    if not any(part.functions for part in modules):
        raise InputError(f"LLVM IR without any function that has a body: {WAY_OUT}")
    return IRModule(modules)


def _parsed(text: str):
    llvm = _llvm()
    context = llvm.create_context()  # the global one would keep all that it has seen
    try:
        return llvm.parse_assembly(text, context), context
    except RuntimeError as error:
        found = str(error).replace("LLVM IR parsing error\n", "").strip()
        line = re.match(r"<string>:(\d+):", found)
        last = len(text.rstrip().splitlines())
        early = line and int(line[1]) >= last
        what = "LLVM IR ends early" if early else "LLVM cannot read this as LLVM IR"
        raise InputError(f"{what}: {WAY_OUT}\n{found}") from error


def _llvm():
    try:
        import llvmlite.binding as llvm
    except ImportError as error:
        raise InputError(not_installed("llvmlite", "LLVM IR is read")) from error
    return llvm


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda m: "\\" if m[1] == "\\" else chr(int(m[1], 16)), text)


class _Reader:
    """Copies a function out of LLVM: an access there costs ten times one to a Python object."""

    def __init__(self, function: IRFunction):
        self.function = function
        self.ref = function._ref
        self.known: dict = {}  # LLVM value -> Instruction, Value or Block
        self.types: dict = {}
        self.arguments: list[Value] = []

    def read(self) -> list[Block]:
        for ref in self.ref.arguments:
            value = Value("argument", ref.name, *self._type(ref.type))
            self.known[ref] = value
            self.arguments.append(value)
        pending: list[Instruction] = []
        blocks = []
        for index, block_ref in enumerate(self.ref.blocks):
            block = Block(index, block_ref.name, self.function)
            self.known[block_ref] = block
            blocks.append(block)
            for ref in block_ref.instructions:
                instruction = Instruction(ref.opcode, *self._type(ref.type), "", block, ref=ref)
                self.known[ref] = instruction
                block.instructions.append(instruction)
                pending.append(instruction)
        for instruction in pending:
            self._complete(instruction)
        for block in blocks:
            last = block.instructions[-1].operands
            block.successors = tuple(dict.fromkeys(o for o in last if isinstance(o, Block)))
        return blocks

    def _complete(self, instruction: Instruction) -> None:
        instruction.operands = tuple(self._value(ref) for ref in instruction.ref.operands)
        if instruction.opcode in _BY_OPERAND:
            first = instruction.operands[0]
            instruction.element, instruction.lanes = first.element, first.lanes
        elif instruction.opcode == "phi":
            blocks = instruction.ref.incoming_blocks
            instruction.incoming = tuple(self.known[block] for block in blocks)
        elif instruction.opcode in ("call", "invoke"):
            callee = instruction.operands[-1]
            if isinstance(callee, Value) and callee.kind == "function":
                instruction.callee = callee.name

    def _value(self, ref) -> Instruction | Value | Block:
        if ref not in self.known:
            self.known[ref] = self._other(ref)
        return self.known[ref]

    def _other(self, ref) -> Value:
        kind = ref.value_kind.name
        if kind == "function":
            return Value("function", ref.name, "ptr", 1)
        if kind.startswith("global"):
            return Value("global", ref.name, "ptr", 1)
        if kind == "constant_int":
            element, lanes = self._type(ref.type)
            number = ref.get_constant_value(signed_int=True) if lanes == 1 else None
            return Value("constant", "", element, lanes, number)
        if ref.is_constant or kind.startswith(("constant", "poison", "undef")):
            return Value("constant", "", *self._type(ref.type))
        return Value("other", "", "", 1)  # metadata, inline assembly

    def _type(self, ref) -> tuple[str, int]:
        if ref not in self.types:
            text = str(ref)
            vector = _VECTOR.fullmatch(text)
            self.types[ref] = (vector[2], int(vector[1])) if vector else (text, 1)
        return self.types[ref]
