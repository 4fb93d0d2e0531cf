"""Time by what is multiplied: shares by hand, and the join of a proof with a profile."""

from __future__ import annotations

import pytest

import relaxquant as rq
from relaxquant.executors.accounting import MemoryUse
from relaxquant.executors.layer_times import LayerTime
from relaxquant.inspect.proof import LayerProof, Proof
from relaxquant.inspect.timed import NO_MACS, timed
from relaxquant.lower import KernelRecord
from tests.networks import make


def record(name: str, macs: int = 0) -> KernelRecord:
    return KernelRecord(name, name, "conv2d", "1x1 -> 1x1", "NCHW", "s", "", macs=macs)


def proved(name: str, macs: int, **executed: int) -> LayerProof:
    return LayerProof(record(name, macs), macs, executed, True)


ROWS = (
    proved("a", 100, int8=120),
    proved("b", 50, int8=10, float32=30),
    proved("c", 50, float32=50),
)
SECONDS = {"a": 1.0, "pool": 3.0, "b": 4.0, "c": 2.0}


@pytest.fixture
def joined():
    times = [LayerTime(record(n), s) for n, s in SECONDS.items()]
    by_name = {row.record.name: row.record for row in ROWS}
    times = [LayerTime(by_name.get(t.record.name, t.record), t.seconds) for t in times]
    return timed(Proof(ROWS, MemoryUse({}, None)), times)


def test_shares_by_hand(joined):
    found = {line["precision"]: line for line in joined.by_precision()}
    assert list(found) == ["float32", NO_MACS, "int8"], "most time first"
    assert found["int8"]["seconds"] == pytest.approx(1 + 4 * 10 / 40)
    assert found["float32"]["seconds"] == pytest.approx(2 + 4 * 30 / 40)
    assert found["int8"]["time_share"] == pytest.approx(0.2)
    assert found["int8"]["macs_share"] == pytest.approx((100 + 12.5) / 200)
    assert found[NO_MACS]["macs_share"] == 0
    assert joined.integer_share == pytest.approx(0.2)
    assert joined.multiplying_share == pytest.approx(0.7)
    assert "int8: 56.2 % of the MACs, 20.0 % of the time" in str(joined)


def test_every_call_is_a_line_in_order(joined):
    lines = joined.lines()
    assert [line["layer"] for line in lines] == list(SECONDS)
    assert [line["precision"] for line in lines] == ["int8", NO_MACS, "float32", "float32"]
    assert sum(line["time_share"] for line in lines) == pytest.approx(1)
    assert sum(line["macs_share"] for line in lines) == pytest.approx(1)


def test_code_without_multiplications_is_unknown():
    proof = Proof((proved("a", 10),), MemoryUse({}, None))
    line = timed(proof, [LayerTime(record("a", 10), 1.0)]).by_precision()[0]
    assert (line["precision"], line["macs_share"], line["time_share"]) == ("unknown", 1, 1)


def test_the_profile_of_another_library_is_refused():
    proof = Proof(ROWS, MemoryUse({}, None))
    with pytest.raises(rq.InputError, match="no time of layer 'b'"):
        timed(proof, [LayerTime(ROWS[0].record, 1.0)])


@pytest.mark.parametrize(("executor", "share"), [("graph", 1.0), ("vm", 1.0), ("naive", 0.0)])
def test_a_quantized_network(executor, share):
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    module = rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()])
    library = rq.compile(module, executor=executor, threads=1)
    proof = rq.proof(library)
    found = timed(proof, library.profile(x, repeats=1))
    assert found.macs == proof.macs
    assert sum(row.proof is not None for row in found.rows) == len(proof.rows)
    integers = sum(row.seconds for row in found.rows if row.proof and row.proof.integer_share)
    assert found.integer_share == pytest.approx(integers / found.seconds)
    assert (found.integer_share > 0) == (share > 0)
    assert proof.integer_share == share
