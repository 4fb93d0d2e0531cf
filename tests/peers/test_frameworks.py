"""Each framework for real, on a tiny network, in the processes it is measured in."""

from __future__ import annotations

import contextlib
import os
import shutil

import numpy as np
import pytest

from tests import waiting
from workbook.errors import WorkbookError
from workbook.peers import bind, litert, registry, torch_eager, torch_inductor, worker
from workbook.peers.job import Job
from workbook.peers.remote import Child, Worker, WorkerError

FRAMEWORKS = [
    (name, precision)
    for name in ("ours", "onnxruntime", "openvino")
    for precision in ("fp32", "w8a8")
]


@pytest.mark.parametrize(("peer", "precision"), FRAMEWORKS)
def test_framework_computes_the_network_in_a_process_of_its_own(peer, precision, job):
    for package in registry.PEERS[peer].packages[precision]:
        pytest.importorskip(package, reason=f"{package} is not installed: 'make peers'")
    wanted = job(peer, precision, batch=2)
    assert registry.obstacle(wanted) == ""
    adapter = registry.PEERS[peer].adapter()
    path = adapter.artifact(wanted)
    if not path.exists():
        adapter.prepare([wanted])
    assert path.is_file()
    with contextlib.closing(Worker(wanted, 7)) as process:
        about = process.ready()
        assert about["images"] == 7
        assert about["agreed"] >= (7 if precision == "fp32" else 4)
        assert 0 < about["added_bytes"] < about["peak_bytes"]
        assert process.elapsed_ns(3) > 0


@pytest.mark.skipif(len(bind.processors(2)) < 2, reason="there is one processor only")
def test_our_main_thread_stays_on_its_core(job):
    """TVM gives it all of them back when its pool is configured, and binds the others."""
    wanted = job("ours", "fp32", threads=2)
    adapter = registry.PEERS["ours"].adapter()
    if not adapter.artifact(wanted).exists():
        adapter.prepare([wanted])
    with contextlib.closing(Worker(wanted, 1)) as process:
        process.ready()
        process.elapsed_ns(3)
        assert os.sched_getaffinity(process._child._process.pid) == set(bind.processors(2)[:1])


@pytest.mark.usefixtures("_zoo")
def test_torch_eager_gives_the_expected_logits(job):
    wanted = job("torch", "fp32", batch=2)
    x = np.load(wanted.path("images.npy"))[:2]
    expected = np.load(wanted.path("expected.npy"))[:2]
    np.testing.assert_allclose(torch_eager.load(wanted, None).run(x), expected, atol=1e-5)


@pytest.mark.usefixtures("_zoo")
@pytest.mark.skipif(not shutil.which("g++"), reason="Inductor needs a C++ compiler")
def test_inductor_int8_is_near_the_expected_logits(job, monkeypatch):
    pytest.importorskip("torchao", reason="torchao is not installed: 'make peers'")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "set by load, put back here")
    wanted = job("inductor", "w8a8", batch=2)
    x = np.load(wanted.path("images.npy"))[:2]
    expected = np.load(wanted.path("expected.npy"))[:2]
    run = torch_inductor.load(wanted, None).run
    np.testing.assert_allclose(run(x), expected, atol=0.05 * np.abs(expected).max())
    assert (run(x) != expected).any()  # it was quantized


@pytest.mark.usefixtures("_zoo")
def test_a_missing_tflite_file_is_named():
    with pytest.raises(WorkbookError, match=r"put tflite/tiny\.tflite"):
        litert.prepare([Job("x", "litert", "w8a8", "tiny")])


def test_tflite_tensors_are_quantized_by_their_own_scale():
    tensor = {"quantization": (0.5, 3), "dtype": np.int8}
    q = litert.quantize(np.float32([-1000, -0.5, 0, 0.5, 1000]), tensor)
    assert (q.dtype, q.tolist()) == (np.int8, [-128, 2, 3, 4, 127])
    assert litert.dequantize(q, tensor)[1:4].tolist() == [-0.5, 0, 0.5]


def test_a_worker_that_cannot_load_says_why(made):
    nowhere = Job("x", "ours", "fp32", "tiny", folder=made.folder, schedule="missing")
    missing = pytest.raises(WorkerError, match="ModelError: there is no file")
    with contextlib.closing(Worker(nowhere, 0)) as process, missing:
        process.ready()


def test_a_process_that_dies_leaves_a_reason():
    with contextlib.closing(Child("workbook.peers.worker", {})) as child:
        child._process.kill()
        with pytest.raises(WorkerError, match="ended by SIGKILL"):
            child.receive(waiting.SECONDS)
    unknown = pytest.raises(WorkerError, match=r"status 1: .*No module named")
    with contextlib.closing(Child("workbook.peers.no_such_module", {})) as child, unknown:
        child.receive(waiting.SECONDS)


def test_a_process_that_is_silent_is_killed():
    with contextlib.closing(Child("workbook.peers.worker", {})) as child:
        with pytest.raises(WorkerError, match="no answer in 0 s"):
            child.receive(0.2)
        assert child._process.poll() is not None


def test_wrong_outputs_are_refused():
    expected = np.float32([[1.0, -2.0]])
    worker.check(expected + 0.01, expected, "fp32")
    worker.check(expected + 0.5, expected, "w8a8")
    with pytest.raises(ValueError, match="shape"):
        worker.check(expected[0], expected, "fp32")
    with pytest.raises(ValueError, match="not finite"):
        worker.check(expected * np.nan, expected, "w8a8")
    with pytest.raises(ValueError, match="off by 25"):
        worker.check(expected + 0.5, expected, "fp32")
