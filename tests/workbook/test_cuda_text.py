"""What notebook 11 reads from generated CUDA text."""

from __future__ import annotations

import pytest

import relaxquant as rq
from tests.networks import make
from tests.workbook.subjects import recording_run
from workbook import cuda_text
from workbook.cuda_variants import NAIVE

COMMON = {"model": "residual", "trained": False, "batch": 2, "precision": "w8a8"}


@pytest.fixture(scope="module")
def libraries():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    module = rq.quantize(module, rq.QConfig.best(calibrate_mode="global_scale"))
    return {
        NAIVE: rq.compile(module, target="sm_80", executor="naive"),
        "ours": rq.compile(module, target="sm_80"),
    }


def test_stock_has_no_integer_products_and_ours_nothing_else(libraries):
    assert cuda_text.integer_share(libraries[NAIVE]) == 0
    assert cuda_text.integer_share(libraries["ours"]) == 100


def test_a_line_for_every_distinct_layer(libraries):
    lines = cuda_text.layer_lines(libraries["ours"])
    assert sum(line["times"] for line in lines) == 5
    assert all(line["dp4a"] or line["mma"] for line in lines)


def test_shares_are_kept(libraries):
    run, rows = recording_run()
    cuda_text.keep(run, libraries, COMMON)
    assert [(row["executor"], row["value"]) for row in rows] == [("naive", 0), ("graph", 100)]


def test_words_of_packed_weights_are_four_inputs_of_one_output():
    lines = cuda_text.packed_lines()
    dp4a, mma = lines[:5], lines[5:]
    assert [line["output channel"] for line in dp4a] == [0, 1, 2, 3, 0]
    assert [line["input channels"] for line in dp4a[::4]] == ["0 to 3", "4 to 7"]
    # A thread's inputs 0 to 3 and 16 to 19 of its column in both products, then the next thread's.
    assert [line["output channel"] for line in mma] == [0, 0, 2, 2, 0]
    assert [line["input channels"] for line in mma[:2]] == ["0 to 3", "16 to 19"]
    assert mma[4]["input channels"] == "4 to 7"
