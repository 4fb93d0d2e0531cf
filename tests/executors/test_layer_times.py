"""Time stamps around kernels: where they are, what they leave alone, and how ticks get seconds."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import tvm
from tvm import relax

import relaxquant as rq
from relaxquant.executors import layer_times
from relaxquant.executors.compiled_kernel import compiled
from relaxquant.executors.naive import stock_records
from relaxquant.executors.stamps import STAMP, stamp_source
from relaxquant.lower import KernelRecord, KernelTable
from tests.networks import make

AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}


@pytest.fixture(scope="module")
def quantized():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    return rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()]), x.numpy()


@pytest.fixture(scope="module", params=["graph", "vm", "naive"])
def library(request, quantized):
    return rq.compile(quantized[0], executor=request.param, threads=1)


def test_stamps_change_no_output(library, quantized):
    np.testing.assert_array_equal(library.stamped(quantized[1]), library(quantized[1]))


def test_each_call_ends_before_the_next_begins(library, quantized):
    library.stamped(quantized[1])
    stamps = library._stamped._stamps
    assert len(stamps) == 2 * len(library._stamped.names) > 0
    assert (np.diff(stamps) >= 0).all()
    assert (library._stamped.ticks() > 0).all()


def test_stamps_of_an_earlier_run_are_overwritten(library, quantized):
    library.stamped(quantized[1])
    last = library._stamped._stamps[-1]
    library.stamped(quantized[1])
    assert (library._stamped._stamps > last).all()


def test_the_stamp_is_no_part_of_the_generated_code_that_is_shown(library):
    for form in ("ll", "asm"):
        assert STAMP not in library.source(form)
        assert "readcyclecounter" not in library.source(form)


def test_any_batch_is_stamped():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    library = rq.compile(module, executor="vm", threads=1)
    for batch in (1, 3):
        x = torch.randn(batch, *x.shape[1:])
        np.testing.assert_array_equal(library.stamped(x), library(x))
        assert [time.record for time in library.profile(x, repeats=1)] == list(library.kernels)


@pytest.mark.parametrize(
    ("target", "counter"), [("x86-64-v3", "rdtsc"), (AARCH64, "cntvct_el0")], ids=["x86", "arm"]
)
def test_a_stamp_reads_the_counter_once(target, counter):
    kernel = compiled(stamp_source(rq.target.resolve(target)))
    assert kernel.source("asm").lower().count(counter) == 1


def test_a_cross_compiled_network_runs_no_stamps(quantized):
    library = rq.compile(quantized[0], target=AARCH64)
    with pytest.raises(rq.TargetError, match="cannot be run on this machine"):
        library.stamped(quantized[1])


def test_no_repeats_are_one_error(library, quantized):
    with pytest.raises(rq.InputError, match="repeats must be at least 1, got 0"):
        library.profile(quantized[1], repeats=0)


def test_wrong_inputs_are_one_error(library, quantized):
    with pytest.raises(rq.InputError, match="must have shape"):
        library.stamped(quantized[1][:1])


def test_stock_calls_have_their_records(quantized):
    library = rq.compile(quantized[0], executor="naive", threads=1)
    times = library.profile(quantized[1], repeats=1)
    heavy = [time.record for time in times if time.record.macs]
    assert heavy == [record for record in library.kernels if record.macs]
    text = library.source("asm")
    assert all(f"__tvm_ffi_{time.record.name}:" in text for time in times)


def test_variables_of_one_name_have_their_own_functions():
    builder, shape = relax.BlockBuilder(), relax.TensorType((1, 4), "float32")
    x, first, second = (relax.Var(name, shape) for name in ("x", "lv", "lv"))
    calls = [(first, relax.op.nn.relu(x)), (second, relax.op.exp(first))]
    block = relax.BindingBlock([relax.VarBinding(v, builder.normalize(c)) for v, c in calls])
    main = relax.Function([x], relax.SeqExpr([block], second), shape)
    module = tvm.IRModule({"main": main.with_attr("global_symbol", "main")})
    assert [record.name for record in stock_records(module)] == ["relu", "tir_exp"]


def test_records_without_a_call_are_left_out():
    records = [_record(name) for name in ("conv2d", "reshape", "relu", "conv2d")]
    times = layer_times.match(KernelTable(records), ["conv2d", "relu", "conv2d"], [1, 2, 3])
    assert [time.record for time in times] == [records[0], records[2], records[3]]
    assert [time.seconds for time in times] == [1.0, 2.0, 3.0]


def test_calls_that_do_not_fit_are_known_by_their_functions():
    times = layer_times.match(KernelTable([_record("conv2d")]), ["conv2d", "relu1"], [1, 2])
    assert [(t.record.name, t.record.op, t.record.layer) for t in times] == [
        ("conv2d", "conv2d", ""), ("relu1", "relu", ""),
    ]  # fmt: skip


def _record(name: str) -> KernelRecord:
    return KernelRecord(name, f"layer of {name}", name, "", "NCHW", "tvm default", "fp32", macs=1)


def test_ticks_are_weighed_against_pythons_clock(monkeypatch):
    moment = [0.0]

    def now(stamps):
        # The counter is read in the middle between the two readings of the clock.
        moment[0] += 0.25
        np.from_dlpack(stamps)[0] = 1000 + round(moment[0] * 4e6)
        moment[0] += 0.25

    monkeypatch.setattr(layer_times.time, "perf_counter", lambda: moment[0])
    clock = layer_times.Clock(now)
    moment[0] += 10
    assert clock.seconds_per_tick() == pytest.approx(1 / 4e6)
