"""Loops of a control-flow graph, of LLVM IR's blocks as of assembly's."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

Graph = Mapping[Hashable, Iterable[Hashable]]


@dataclass(eq=False)
class Loop:
    """A natural loop.

    Attributes
    ----------
    header : hashable
        The node through which it is entered.
    nodes : frozenset
        All its nodes, those of inner loops included.
    parent : Loop or None
        The loop around it.
    depth : int
        1 for an outermost loop.
    inner : list of Loop
        The loops directly within it.
    """

    header: Hashable
    nodes: frozenset
    parent: Loop | None = field(repr=False)
    depth: int
    inner: list[Loop] = field(default_factory=list, repr=False)


def find_loops(graph: Graph, entry: Hashable) -> list[Loop]:
    """Loops of a graph, each before those within it.

    A loop is a strongly connected component; without the edges back to its header, the components
    of what remains are the loops within. That is the definition by dominators for every graph that
    compilers make of structured code; of a cycle that is entered at several nodes, the first of
    these is called the header.

    Parameters
    ----------
    graph : mapping
        Successors of each node, in program order; a successor that is no key is ignored.
    entry : hashable
        Where the function is entered.
    """
    edges = {node: [s for s in successors if s in graph] for node, successors in graph.items()}
    found: list[Loop] = []
    _nest(edges, entry, None, found)
    return found


def innermost(loops: Iterable[Loop]) -> dict[Hashable, Loop]:
    """The deepest loop around each node; nodes outside of all loops are missing."""
    by_depth = sorted(loops, key=lambda loop: loop.depth)
    return {node: loop for loop in by_depth for node in loop.nodes}


def _nest(edges: dict, entry: Hashable, parent: Loop | None, found: list[Loop]) -> None:
    for component in components(edges):
        if len(component) == 1 and component[0] not in edges[component[0]]:
            continue
        nodes = frozenset(component)
        header = _header(edges, nodes, entry)
        loop = Loop(header, nodes, parent, parent.depth + 1 if parent else 1)
        found.append(loop)
        if parent:
            parent.inner.append(loop)
        within = {
            node: [s for s in edges[node] if s in nodes and s != header]
            for node in edges
            if node in nodes
        }
        _nest(within, header, loop, found)


def _header(edges: dict, nodes: frozenset, entry: Hashable) -> Hashable:
    if entry in nodes:
        return entry
    entered = {s for node, successors in edges.items() if node not in nodes for s in successors}
    inside = [node for node in edges if node in nodes]
    return next((node for node in inside if node in entered), inside[0])


def topological(graph: Graph, first: Hashable) -> list:
    """Nodes reached from the first, each after all that lead to it; there must be no cycle."""
    order, seen = [], {first}
    work = [(first, iter(graph.get(first, ())))]
    while work:
        node, following = work[-1]
        other = next((s for s in following if s is not None and s not in seen), None)
        if other is None:
            work.pop()
            order.append(node)
        else:
            seen.add(other)
            work.append((other, iter(graph.get(other, ()))))
    return order[::-1]


def components(edges: Mapping[Hashable, Iterable[Hashable]]) -> list[list]:
    """Strongly connected components in program order (Tarjan 1972, without recursion)."""
    index: dict = {}
    low: dict = {}
    stack: list = []
    on_stack: set = set()
    found: list[list] = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            node, successors = work[-1]
            for successor in successors:
                if successor not in index:
                    index[successor] = low[successor] = len(index)
                    stack.append(successor)
                    on_stack.add(successor)
                    work.append((successor, iter(edges[successor])))
                    break
                if successor in on_stack:
                    low[node] = min(low[node], index[successor])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    found.append(_popped(stack, on_stack, node))
    order = {node: position for position, node in enumerate(edges)}
    return sorted(found, key=lambda component: min(order[node] for node in component))


def _popped(stack: list, on_stack: set, root: Hashable) -> list:
    component = []
    while not component or component[-1] != root:
        component.append(stack.pop())
        on_stack.discard(component[-1])
    return component
