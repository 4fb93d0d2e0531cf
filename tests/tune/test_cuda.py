"""Tuning for a GPU: the whole way, with an emulator in the GPU's place."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import tvm

import relaxquant as rq
from relaxquant import measure
from relaxquant.kernels.cuda.bind import for_machine
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.registry import implement_conv2d
from relaxquant.kernels.tuned import read
from relaxquant.lower import ConvLayer
from relaxquant.tune import device, metaschedule, rpc
from relaxquant.tune.bench import Bench, WrongResult
from relaxquant.tune.candidates import rules_choice
from relaxquant.tune.device import DeviceTimed, LocalDevice
from relaxquant.tune.study import DIRECT, OURS, RULES, STOCK, LayerStudy
from tests.executors.test_cuda import WITHOUT_GPU, emulated, quantized
from tests.kernels.cuda_emulator import needs_compiler
from tests.kernels.harness import conv_layer
from tests.tune.emulated_gpu import EmulatedGpu


@pytest.fixture
def gpu(monkeypatch):
    """A GPU, and searches so small that compiling for it takes seconds."""
    monkeypatch.setattr(metaschedule, "POPULATION", 16)
    monkeypatch.setattr(metaschedule, "STOCK_GPU_POPULATION", 64)
    monkeypatch.setattr(metaschedule, "GENERATIONS", 1)
    monkeypatch.setattr(metaschedule, "BATCH", 2)
    monkeypatch.setattr(device, "LocalGpu", EmulatedGpu)


@pytest.fixture(scope="module")
def residual():
    return quantized("residual")


def tune(module, path, **options):
    settings = {"target": "sm_80", "threads": 1, "budget_s": 0.05, "path": path}
    return rq.tune(module, **settings, **options)


@needs_compiler
def test_a_network_is_searched_compiled_and_right(gpu, residual, tmp_path, monkeypatch):
    module, x = residual
    search = {"method": "metaschedule", "trials": 2}
    found = tune(module, tmp_path / "t.json", **search)
    assert found.setting.machine == "an emulator"
    assert (found.setting.target, found.setting.isa) == ("cuda sm_80", "cuda_mma_sm80")
    searched = [choice for choice in found.choices.values() if choice.trace]
    assert len(searched) == 4, "all but the first layer, whose image is not blocked"
    assert read(tmp_path / "t.json") == found
    forced = {"schedule": "metaschedule", "tuned": found}
    library = rq.compile(module, target="sm_80", threads=1, **forced)
    layers = [record for record in library.kernels if record.macs]
    assert [record.schedule for record in layers].count("metaschedule") == 4
    assert {record.instructions for record in layers} == {"dp4a"}
    assert rq.proof(library).integer_share == 1
    got = emulated(module, "sm_80", x, **forced)
    np.testing.assert_array_equal(got, rq.compile(module, threads=1)(x))
    monkeypatch.setattr(metaschedule.Search, "_search", lambda *_: pytest.fail("searched again"))
    assert tune(module, tmp_path / "t.json", **search) == found


@needs_compiler
def test_schedules_written_by_hand_race_on_a_gpu(gpu, residual, tmp_path):
    found = tune(residual[0], tmp_path / "t.json")
    raced = {choice.layer: choice for choice in found.choices.values()}
    assert raced["32x4x4 -> 32x4x4, 3x3"].candidates >= 2, "dp4a and tensor cores"
    assert {choice.schedule for choice in raced.values()} <= {"cuda_dp4a", "cuda_mma"}
    library = rq.compile(residual[0], target="sm_80", threads=1, tuned=found)
    assert library.kernels.tuned == 5


@needs_compiler
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_both_searches_of_a_layer_give_kernels_beside_ours(gpu, dtype, tmp_path):
    layer = conv_layer(channels=16, size=(4, 4), padding=(1, 1, 1, 1), dtype=dtype, out_dtype=dtype)
    study = LayerStudy(ConvLayer("layer", "shape", layer.spec, layer.weights), "sm_61", 1, tmp_path)
    assert study.search(OURS, 2).best_after(2)
    assert len(study.search(STOCK, 2).ms) == 2
    runners = study.runners()
    assert {DIRECT, RULES, OURS} <= set(runners)
    for run in runners.values():
        run()
    assert set(study.ours_ms()) == {DIRECT, RULES}


@needs_compiler
def test_a_wrong_kernel_is_not_timed_on_a_gpu_either():
    layer = conv_layer(channels=16, size=(4, 4), seed=1)
    other = replace(layer.weights, bias=layer.weights.bias + 5000)
    target = rq.target.resolve("sm_61")
    isa = instruction_set(target)
    bench = Bench(EmulatedGpu(target), layer.spec, layer.weights, isa, target)
    wrong, right = (implement_conv2d(layer.spec, w, isa) for w in (other, layer.weights))
    kernel = for_machine(right.build, isa.machine)
    with pytest.raises(WrongResult):
        bench.checked_seconds(kernel, wrong.arguments, 1.0)
    assert bench.checked_seconds(kernel, right.arguments, 1.0)


def test_a_device_that_keeps_the_time_is_asked_for_it():
    """On a CPU, whose evaluator is TVM's as well."""
    layer = conv_layer(channels=16, size=(4, 4))
    target = rq.target.resolve("native")
    isa = instruction_set(target)
    bench = Bench(LocalDevice(1), layer.spec, layer.weights, isa, target)
    kernel = rules_choice(layer.spec, layer.weights, isa).implement()
    module, arguments = bench._prepared(kernel.build(), kernel.arguments)
    run = DeviceTimed(module, tvm.cpu(), arguments)
    assert 0 < run() < 10
    assert 0 < run.elapsed_ns(3) < 30e9
    assert measure.interleaved({"it": run}, min_sample_s=1e-4).samples["it"].min() > 0


@WITHOUT_GPU
@pytest.mark.parametrize("method", ["candidates", "metaschedule"])
def test_without_a_gpu_it_says_so(residual, method):
    with pytest.raises(rq.TargetError, match=r"no CUDA device here to tune for sm_61.*'rpc'"):
        rq.tune(residual[0], target="sm_61", method=method)


def test_a_gpu_of_another_capability_is_named(monkeypatch):
    class Device:
        exist, compute_version = True, "9.0"

    monkeypatch.setattr(device.tvm, "cuda", lambda _index: Device)
    with pytest.raises(rq.TargetError, match=r"for sm_80 cannot .* which is sm_90: .*'cuda'"):
        device.LocalGpu(rq.target.resolve("sm_80"))


class _Session:
    """A server's session, of which only what boards are asked for first is there."""

    def __init__(self, has_gpu: bool):
        self.device = type("Device", (), {"exist": has_gpu})
        self.closed = False

    def get_function(self, name: str):
        if name == "CloseRPCConnection":
            self.closed = True
        return lambda *_: None

    def cuda(self):
        return self.device


@pytest.mark.parametrize(("gpus", "found"), [([False, True], [2]), ([True, False], [1])])
def test_servers_without_a_gpu_are_left_out(gpus, found, monkeypatch):
    sessions = servers(monkeypatch, gpus)
    boards = rpc.boards("localhost:1", "gpu", 1, on_gpu=True)
    assert [board.name for board in boards] == [f"server {n} of 2 with key 'gpu'" for n in found]
    assert [session.closed for session in sessions] == [not has_gpu for has_gpu in gpus]


def test_servers_without_any_gpu_are_one_error(monkeypatch):
    servers(monkeypatch, [False])
    with pytest.raises(rq.TargetError, match=r"server 1 of 1 .* has no CUDA device"):
        rpc.boards("localhost:1", "gpu", 1, on_gpu=True)


def servers(monkeypatch, gpus: list[bool]) -> list[_Session]:
    """A tracker with a free server for each."""
    sessions = [_Session(has_gpu) for has_gpu in gpus]
    waiting = iter(sessions)
    tracker = SimpleNamespace(request=lambda _key, **_: next(waiting))
    monkeypatch.setattr(rpc, "_free_servers", lambda *_: (tracker, len(sessions)))
    return sessions
