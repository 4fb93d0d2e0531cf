"""How often each block of LLVM IR is executed in one call, without executing it.

Loops of a kernel have bounds that its code holds, or that follow from the counters of the loops
around them, as at the border of an image. So the integers that decide on branches are computed
here, and nothing else is: a small interpreter walks the blocks, one iteration after the other, and
takes a loop that it met before with the same integers from memory. A parallel region
(``TVMBackendParallelLaunch``) is executed by one thread that does all of its work. Sizes that only
the caller knows, such as a symbolic batch, are taken as 1.

Where a condition depends on data, both ways are counted; where a loop's bound does, one iteration
is; `Executions.exact` says whether that happened.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from .arithmetic import computed, half_known, wrapped
from .ir import Block, Instruction, IRFunction, Value, callees_of, calls_of
from .loops import Loop
from .plan import Plan, is_local

MAX_PASSES = 500_000  # iterations walked in all, a few seconds
NUM_TASK_OFFSET = 8  # of TVMParallelGroupEnv in tvm/runtime/c_backend_api.h


@dataclass
class Executions:
    """Executions of blocks, of all functions that one call reaches.

    Attributes
    ----------
    blocks : Counter
        By `Block`.
    exact : bool
        Whether no condition depended on data.
    """

    blocks: Counter = field(default_factory=Counter)
    exact: bool = True

    def add(self, other: Executions) -> None:
        """Add those of a call or a loop."""
        self.blocks.update(other.blocks)
        self.exact &= other.exact


def executions(function: IRFunction, blocks: Collection[Block]) -> Executions:
    """Executions of blocks in one call of a function, which may be others' that it calls.

    Parameters
    ----------
    function : IRFunction
        What is called.
    blocks : collection of Block
        Blocks to count, of any functions of its module; how often others are executed is found out
        only where it decides on these.
    """
    return _Machine(function.part.functions, frozenset(blocks)).call(function, {}, {})


class _Machine:
    """Calls functions; keeps what was found for each."""

    def __init__(self, functions: dict[str, IRFunction], wanted: frozenset[Block]):
        self.functions, self.wanted = functions, wanted
        self.leads: dict[IRFunction, bool] = {}
        self.plans: dict[IRFunction, Plan] = {}
        self.known: dict = {}
        self.active: set[IRFunction] = set()
        self.passes = 0

    def leads_to_wanted(self, function: IRFunction) -> bool:
        """Whether blocks to count are in a function, or in one that it calls or hands on."""
        if function not in self.leads:
            self.leads[function] = False  # while it is found out
            others = [
                f for block in function.blocks for c in calls_of(block) for f in callees_of(c)
            ]
            self.leads[function] = any(block in self.wanted for block in function.blocks) or any(
                self.leads_to_wanted(other) for other in others
            )
        return self.leads[function]

    def call(self, function: IRFunction, arguments: dict, closure: dict) -> Executions:
        """One call; ``arguments`` has integers by `Value`, ``closure`` by offset in bytes."""
        if function in self.active:
            return Executions(exact=False)  # recursion
        known = tuple(arguments.get(argument) for argument in function.arguments)
        key = (function, known, tuple(closure.items()))
        if key not in self.known:
            if function not in self.plans:
                self.plans[function] = Plan(function, self.wanted, self.leads_to_wanted)
            self.active.add(function)
            self.known[key] = _Call(self, self.plans[function], arguments, closure).run()
            self.active.discard(function)
        return self.known[key]


class _Call:
    """One call of a function."""

    def __init__(self, machine: _Machine, plan: Plan, arguments: dict, closure: dict):
        self.machine, self.plan = machine, plan
        self.arguments, self.closure = arguments, closure
        self.frames: dict[Loop | None, dict] = {None: {}}  # values of the present iteration
        self.met: dict = {}

    def run(self) -> Executions:
        entry = self.plan.function.blocks[0]
        found, _, _ = self._pass(None, {entry: []})
        return found

    def _pass(self, scope: Loop | None, reached: dict) -> tuple[Executions, dict, bool]:
        """Walk the blocks of a scope once.

        ``reached`` has blocks, each with the blocks from which control may come. Returns what is
        executed, the edges that leave the scope or go back to its header, and whether a condition
        that was known kept control within.
        """
        self.machine.passes += 1
        found, leaving, stays = Executions(), {}, False
        for item in self.plan.order[scope]:
            block = item.header if isinstance(item, Loop) else item
            if block not in reached:
                continue
            if isinstance(item, Loop):
                executed, edges = self._loop(item, reached[block])
                found.add(executed)
            else:
                if block in self.machine.wanted:
                    found.blocks[block] += 1
                edges, known = self._block(block, scope, reached[block], found)
                stays |= known
            for target, sources in edges.items():
                inside = scope is None or (target in scope.nodes and target is not scope.header)
                (reached if inside else leaving).setdefault(target, []).extend(sources)
        return found, leaving, stays

    def _block(
        self, block: Block, scope: Loop | None, sources: list[Block], found: Executions
    ) -> tuple[dict, bool]:
        """Execute a block: the edges taken, and whether a known condition kept to the scope."""
        frame = self.frames[scope]
        if sources or scope is None:
            for phi in self.plan.phis[block]:
                frame[phi] = self._incoming(phi, sources)
        for call in self.plan.calls[block]:
            self._call(call, found)
        targets = self._targets(block)
        if len(targets) > 1:
            found.exact &= not self.plan.is_choice(targets, scope)
        is_exit = scope is not None and any(s not in scope.nodes for s in block.successors)
        stays = is_exit and len(targets) == 1 and targets[0] in scope.nodes
        return {target: [block] for target in targets}, stays

    def _loop(self, loop: Loop, sources: list[Block]) -> tuple[Executions, dict]:
        """All iterations of a loop: what is executed, and the edges that leave it."""
        if not self.plan.working & loop.nodes:
            return Executions(), _exits(loop)
        frame = {phi: self._incoming(phi, sources) for phi in self.plan.phis[loop.header]}
        live = [self.value(value) for value in self.plan.live_ins[loop]]
        key = (loop, *frame.values(), *live)
        if key in self.met:
            found, edges, self.frames[loop] = self.met[key]
            return found, edges
        found = Executions()
        while True:
            self.frames[loop] = frame
            executed, leaving, stays = self._pass(loop, {loop.header: []})
            found.add(executed)
            latches = leaving.pop(loop.header, [])
            if not latches or (leaving and not stays):
                found.exact &= not latches
                edges = leaving
                break
            if self.machine.passes > MAX_PASSES:
                found.exact, edges = False, _exits(loop)
                break
            frame = {phi: self._incoming(phi, latches) for phi in self.plan.phis[loop.header]}
        self.met[key] = found, edges, self.frames[loop]
        return found, edges

    def _targets(self, block: Block) -> list[Block]:
        last = block.instructions[-1]
        if last.opcode == "br" and len(last.operands) == 3:
            condition = self.value(last.operands[0])
            if condition is not None:
                return [last.operands[2 if condition else 1]]
        return list(block.successors)

    def _incoming(self, phi: Instruction, sources: Iterable[Block]) -> int | None:
        sources = set(sources)
        values = {
            self.value(value)
            for value, block in zip(phi.operands, phi.incoming, strict=True)
            if block in sources
        }
        return values.pop() if len(values) == 1 else None

    def _call(self, call: Instruction, found: Executions) -> None:
        operands = call.operands[:-1]
        callee = self.machine.functions.get(call.callee)
        if callee is not None:
            values = {
                argument: self.value(value)
                for argument, value in zip(callee.arguments, operands, strict=False)
            }
            found.add(self.machine.call(callee, _sizes(values), {}))
            return
        for position, operand in enumerate(operands):
            if isinstance(operand, Value) and operand.name in self.machine.functions:
                region = self.machine.functions[operand.name]
                closure = self._stored(operands[position + 1])
                task = region.arguments[0]
                found.add(self.machine.call(region, {task: 0}, {"tasks": 1} | closure))

    def _stored(self, pointer) -> dict[int, int]:
        """Integers that the function stores in a structure on its stack, by offset."""
        stored = {}
        for one in self.plan.function.instructions:
            if one.opcode == "store" and one.element != "ptr" and is_local(one):
                base, offset = _base(one.operands[1])
                number = self.value(one.operands[0]) if base is pointer else None
                if number is not None:
                    stored[offset] = number
        return stored

    def value(self, value) -> int | None:
        """A scalar integer, None where it is not known."""
        if isinstance(value, Value):
            if value.kind == "argument":
                return self.arguments.get(value)
            return None if value.number is None else wrapped(value.number, value.element)
        if value.lanes != 1 or value not in self.plan.slice:
            return None
        frame = self.frames.get(self.plan.loop_of.get(value.block))
        if frame is None:
            return None
        if value not in frame:
            frame[value] = None  # while it is computed, and for a phi
            frame[value] = self._compute(value)
        return frame[value]

    def _compute(self, one: Instruction) -> int | None:
        if one.opcode == "load":
            return self._loaded(one)
        if one.opcode == "phi":
            return None
        if one.opcode == "select":
            condition = self.value(one.operands[0])
            return None if condition is None else self.value(one.operands[1 if condition else 2])
        operands = one.operands[:-1] if one.opcode == "call" else one.operands
        numbers = [self.value(operand) for operand in operands]
        if any(number is None for number in numbers):
            return half_known(one.opcode, numbers)
        return computed(one, numbers)

    def _loaded(self, load: Instruction) -> int | None:
        """An integer of a parallel region's environment, or of its closure."""
        arguments = self.plan.function.arguments
        base, offset = _base(load.operands[0])
        if "tasks" not in self.closure or base not in arguments:
            return None
        if arguments.index(base) == 1:
            return self.closure["tasks"] if offset == NUM_TASK_OFFSET else None
        return self.closure.get(offset)


def _exits(loop: Loop) -> dict:
    return {s: [block] for block in loop.nodes for s in block.successors if s not in loop.nodes}


def _sizes(values: dict) -> dict:
    """Arguments of a call: integers that are not known are sizes, taken as 1."""
    integers = {a: n for a, n in values.items() if a.element.startswith("i") and a.lanes == 1}
    return {argument: 1 if n is None else n for argument, n in integers.items()}


def _base(pointer) -> tuple[object, int]:
    """A pointer as a base and an offset in bytes, as far as LLVM spells it in bytes."""
    offset = 0
    while isinstance(pointer, Instruction) and pointer.opcode == "getelementptr":
        step = pointer.operands[1]
        if len(pointer.operands) != 2 or not isinstance(step, Value) or step.number is None:
            break
        if not re.search(r"getelementptr [\w ]*\bi8,", pointer.text):
            break
        pointer, offset = pointer.operands[0], offset + step.number
    return pointer, offset
