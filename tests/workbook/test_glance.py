from __future__ import annotations

from relaxquant.measure import machine
from workbook import glance


def test_the_facts_that_decide_a_figure_are_there():
    found = {line["what"]: line["here"] for line in glance.lines("znver3", 3)}
    about = machine.facts()
    assert about["cpu"]["model"] in found["processor"]
    assert f"apache-tvm {about['packages']['apache-tvm']}" in found["packages"]
    assert found["compiled for"] == "znver3, 3 threads"
    assert all(found.values())
