"""Ours compared with LiteRT, tensor by tensor and label by label."""

from __future__ import annotations

import pytest

pytest.importorskip("ai_edge_litert", reason="LiteRT is the other side of the comparison")

from tests.frontends.test_tflite import UINT8, picture
from tests.frontends.tflite_models import Network
from workbook.errors import WorkbookError
from workbook.litert import LiteRT, compare_labels, compare_tensors, first_difference


@pytest.fixture
def model(tmp_path):
    network = Network()
    x = network.input((1, 8, 8, 5), *UINT8)
    y = network.conv2d(x, 24, 3, weights=("uint8", 140, False))
    y = network.pool("AVERAGE", network.conv2d(y, 20, 1, weights=("uint8", 120, False)), 8)
    inputs = [picture(network.tensors[x], seed) for seed in range(4)]
    return network.save(tmp_path / "model.tflite", [y]), inputs


def test_every_tensor_is_equal_in_tflites_integers(model):
    path, inputs = model
    rows = compare_tensors(path, inputs, requantize="tflite", threads=1)
    assert [(row.name, row.shape) for row in rows] == [
        ("conv_2d/0:0", (1, 8, 8, 24)),
        ("conv_2d/1:0", (1, 8, 8, 20)),
        ("average_pool_2d/2:0", (1, 1, 1, 20)),
    ]
    assert {(row.equal, row.largest) for row in rows} == {(1.0, 0)}
    assert first_difference(rows) is None


def test_the_first_tensor_that_differs_is_found(model):
    path, inputs = model
    rows = compare_tensors(path, inputs, requantize="float", threads=1)
    first = first_difference(rows)
    assert first is not None  # some sum lies where the two roundings of TFLite are not one
    assert first.largest == 1
    assert 0.9 < first.equal < 1


def test_labels_agree_with_the_reference_kernels(model):
    path, inputs = model
    found = compare_labels(path, inputs, reference=True, requantize="tflite", threads=1)
    assert (found.equal, found.count, found.share) == (4, 4, 1.0)


def test_a_name_that_litert_has_not_is_one_error(model):
    path, inputs = model
    theirs = LiteRT(path, reference=True)
    theirs(inputs[0])
    with pytest.raises(WorkbookError, match="no tensor called 'absent'"):
        theirs.tensors(["absent"])
