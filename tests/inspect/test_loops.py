"""Loops of graphs drawn by hand."""

from __future__ import annotations

from relaxquant.inspect.loops import find_loops, innermost, topological


def shape(graph: dict, entry: str = "a") -> list[tuple]:
    loops = find_loops(graph, entry)
    return [(loop.header, "".join(sorted(loop.nodes)), loop.depth) for loop in loops]


def test_a_line_has_no_loop():
    assert shape({"a": "b", "b": "c", "c": ""}) == []


def test_a_block_that_jumps_to_itself():
    assert shape({"a": "b", "b": "bc", "c": ""}) == [("b", "b", 1)]


def test_a_nest_with_two_loops_inside():
    graph = {"a": "b", "b": "c", "c": "cd", "d": "e", "e": "dbf", "f": ""}
    assert shape(graph) == [("b", "bcde", 1), ("c", "c", 2), ("d", "de", 2)]


def test_two_back_edges_to_one_header_are_one_loop():
    assert shape({"a": "b", "b": "cd", "c": "b", "d": "be", "e": ""}) == [("b", "bcd", 1)]


def test_a_cycle_entered_twice_is_one_loop():
    assert shape({"a": "bc", "b": "c", "c": "bd", "d": ""}) == [("b", "bc", 1)]


def test_the_entry_may_be_a_header_and_unknown_successors_are_ignored():
    assert shape({"a": "ab?"} | {"b": ""}) == [("a", "a", 1)]


def test_innermost_loop_of_each_node():
    loops = find_loops({"a": "b", "b": "c", "c": "cbd", "d": ""}, "a")
    assert {node: loop.depth for node, loop in innermost(loops).items()} == {"b": 1, "c": 2}


def test_long_chains_need_no_recursion():
    count = 5000
    graph = {i: [i + 1] for i in range(count)} | {count: [0]}
    (loop,) = find_loops(graph, 0)
    assert loop.header == 0 and len(loop.nodes) == count + 1


def test_topological_order_leaves_out_what_is_not_reached():
    graph = {"d": "", "c": "d", "a": "cb", "b": "c", "x": "a"}
    assert topological(graph, "a") == ["a", "b", "c", "d"]
