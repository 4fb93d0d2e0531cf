"""What does not change between calls of a function of LLVM IR, for whoever counts executions.

The order in which its blocks can be reached, and which of its values decide on that.
"""

from __future__ import annotations

from collections.abc import Callable

from .ir import Block, Instruction, IRFunction, Value, callees_of, calls_of
from .loops import Loop, innermost, topological


class Plan:
    """A function, looked over once.

    Parameters
    ----------
    function : IRFunction
        What will be called.
    wanted : frozenset of Block
        Blocks to count, of any functions.
    leads_to_wanted : callable
        Whether such a block is in a function, or in one that it calls.

    Attributes
    ----------
    order : dict
        For each loop and for the function itself (None) the blocks directly within and the loops
        directly within, in an order in which control can reach them.
    slice : set of Instruction
        Integers that decide on branches.
    phis, calls : dict
        Block -> those of its instructions that matter.
    working : frozenset of Block
        Blocks to count, and those that call functions with such blocks.
    live_ins : dict
        Loop -> values from outside that decide what happens within.
    """

    def __init__(
        self,
        function: IRFunction,
        wanted: frozenset[Block],
        leads_to_wanted: Callable[[IRFunction], bool],
    ):
        self.function = function
        self.loops = function.loops
        self.loop_of = innermost(self.loops)
        self.slice = _deciding(function)
        self.order = {scope: self._ordered(scope) for scope in [None, *self.loops]}
        self.phis = {
            block: [i for i in block.instructions if i.opcode == "phi" and i in self.slice]
            for block in function.blocks
        }
        self.calls = {
            block: [c for c in calls_of(block) if any(map(leads_to_wanted, callees_of(c)))]
            for block in function.blocks
        }
        self.working = frozenset(
            block for block in function.blocks if block in wanted or self.calls[block]
        )
        self._reach: dict = {}
        self.live_ins = {loop: self._live_ins(loop) for loop in self.loops}

    def item(self, block: Block, scope: Loop | None) -> Block | Loop | None:
        """What stands for a block in a scope: itself, or the loop of the scope that holds it."""
        loop = self.loop_of.get(block)
        if loop is scope:
            return block
        while loop is not None and loop.parent is not scope:
            loop = loop.parent
        return loop

    def _ordered(self, scope: Loop | None) -> list[Block | Loop]:
        blocks = self.function.blocks
        nodes, header = (blocks, blocks[0]) if scope is None else (scope.nodes, scope.header)
        items: dict[Block | Loop, list] = {}
        for block in nodes:
            within = [s for s in block.successors if scope is None or s in nodes]
            back = {header} if scope is not None else set()
            following = [self.item(s, scope) for s in within if s not in back]
            items.setdefault(self.item(block, scope), []).extend(following)
        return topological(items, self.item(header, scope))

    def is_choice(self, targets: list[Block], scope: Loop | None) -> bool:
        """Whether data chooses between ways that do different work.

        An early return, and a way out of a loop that has others, do none.
        """
        if scope is not None and any(target not in scope.nodes for target in targets):
            return False
        reached = [self._reached(target, scope) & self.working for target in targets]
        return all(reached) and any(blocks != reached[0] for blocks in reached)

    def _reached(self, block: Block, scope: Loop | None) -> frozenset[Block]:
        if (block, scope) not in self._reach:
            seen, work = {block}, [block]
            while work:
                for other in work.pop().successors:
                    inside = scope is None or (other in scope.nodes and other is not scope.header)
                    if inside and other not in seen:
                        seen.add(other)
                        work.append(other)
            self._reach[block, scope] = frozenset(seen)
        return self._reach[block, scope]

    def _live_ins(self, loop: Loop) -> list:
        """Values from outside that decide what happens within."""
        found = {
            operand: None
            for block in loop.nodes
            for one in block.instructions
            if one in self.slice or one is block.instructions[-1] or one in self.calls[block]
            for operand in one.operands
            if (isinstance(operand, Instruction) and operand.block not in loop.nodes)
            or (isinstance(operand, Value) and operand.kind == "argument")
        }
        return [value for value in found if value.lanes == 1 and value.element != "ptr"]


def _deciding(function: IRFunction) -> set[Instruction]:
    """Integers that branches depend on, and calls of functions with a body."""
    work: list = [block.instructions[-1] for block in function.blocks]
    calls = [call for block in function.blocks for call in calls_of(block)]
    if calls:
        work += calls + [i for i in function.instructions if i.opcode == "store" and is_local(i)]
    found: set[Instruction] = set()
    while work:
        for operand in work.pop().operands:
            is_scalar = isinstance(operand, Instruction) and operand.lanes == 1
            if is_scalar and operand.element.startswith("i") and operand not in found:
                found.add(operand)
                if operand.opcode != "load":
                    work.append(operand)
    return found


def is_local(store: Instruction) -> bool:
    """Whether a store goes to the function's own stack."""
    pointer = store.operands[1]
    while isinstance(pointer, Instruction) and pointer.opcode == "getelementptr":
        pointer = pointer.operands[0]
    return isinstance(pointer, Instruction) and pointer.opcode == "alloca"
