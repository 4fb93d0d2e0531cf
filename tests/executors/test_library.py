"""rq.compile and the library it gives: running, looking inside, saving, loading, refusing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

import relaxquant as rq
from tests.networks import NETWORKS, make


@pytest.fixture(scope="module")
def residual():
    network, x = make("residual")
    return rq.frontends.from_torch(network, x), x.numpy()


@pytest.fixture(scope="module")
def library(residual):
    return rq.compile(residual[0], threads=1)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("target", ["native", "generic"])
def test_executors_agree_with_torch(name, target):
    network, x = make(name)
    module = rq.frontends.from_torch(network, x)
    with torch.no_grad():
        expected = network(x).numpy()
    for executor in ("graph", "naive"):
        found = rq.compile(module, target=target, executor=executor)(x)
        assert abs(found - expected).max() <= 1e-4 * abs(expected).max(), executor


def test_kernels_list_every_layer_in_order(library):
    table = library.kernels
    assert [record.op for record in table if record.macs] == ["conv2d"] * 4 + ["dense"]
    assert table.where(op="max_pool2d")[0].shape == "16x16x16 -> 16x8x8, 3x3/2"
    assert {record.precision for record in table} == {"fp32"}
    stem = table.where(op="conv2d")[0]
    assert stem.macs == 3 * 16 * 49 * 16 * 16
    assert stem.reason == "not quantized"
    assert "3x32x32 -> 16x16x16, 7x7/2" in repr(table)


def test_what_stays_with_tvm_is_listed_with_the_reason():
    network, x = make("branches")
    table = rq.compile(rq.frontends.from_torch(network, x)).kernels
    softmax = table.where(op="nn.softmax")[0]
    reason = "softmax of something else than quantized vectors"
    assert (softmax.schedule, softmax.reason) == ("tvm default", reason)
    assert table.where(schedule="reference")[0].shape.endswith("groups 2")


def test_naive_kernels_say_that_nothing_is_scheduled(residual):
    table = rq.compile(residual[0], executor="naive").kernels
    assert {record.schedule for record in table} == {"tvm default"}
    assert sum(record.macs for record in table) == sum(
        record.macs for record in rq.compile(residual[0]).kernels
    )


def test_sources_hold_the_kernels(library):
    name = library.kernels.where(op="conv2d")[0].name
    assert name in library.source("ll")
    assert "define" in library.source("ll")
    assert name in library.source("asm")
    with pytest.raises(rq.InputError, match="'ll' or 'asm', got 'ptx'"):
        library.source("ptx")


def test_export_and_load_in_a_process_without_torch(library, residual, tmp_path):
    path = library.export(tmp_path / "net.so")
    np.save(tmp_path / "x.npy", residual[1])
    script = (
        "import sys\n"
        "sys.modules['torch'] = None  # as on a machine that does not have it\n"
        "import numpy as np, relaxquant as rq\n"
        "lib = rq.load(sys.argv[1])\n"
        "np.save(sys.argv[3], lib(np.load(sys.argv[2])))\n"
        "print(len(lib.kernels), lib.threads)\n"
    )
    arguments = [str(path), str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(len(library.kernels)), "1"]
    np.testing.assert_array_equal(np.load(tmp_path / "y.npy"), library(residual[1]))


def test_a_loaded_library_runs_but_holds_no_source(library, residual, tmp_path):
    loaded = rq.load(library.export(tmp_path / "net.so"))
    np.testing.assert_array_equal(loaded(residual[1]), library(residual[1]))
    assert loaded.kernels.records == library.kernels.records
    for call in (loaded.source, lambda: loaded.export("x")):
        with pytest.raises(rq.InputError, match="loaded from a file"):
            call()


def test_profile_has_one_time_for_each_kernel(library, residual):
    times = library.profile(residual[1], repeats=3)
    assert [time.record for time in times] == list(library.kernels)
    assert all(time.seconds > 0 for time in times)


def test_outputs_do_not_share_memory_between_calls(library, residual):
    first = library(residual[1])
    kept = first.copy()
    library(residual[1] + 1)
    np.testing.assert_array_equal(first, kept)


def test_a_runner_runs_as_a_call_does(library, residual):
    np.testing.assert_array_equal(library.runner(residual[1])(), library(residual[1]))


def test_vm_takes_any_batch_and_graph_binds_one():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    flexible = rq.compile(module, executor="vm")
    fixed = rq.compile(module, batch=3)
    x = torch.randn(3, *x.shape[1:])
    np.testing.assert_array_equal(flexible(x), fixed(x))
    assert flexible(x[:1]).shape == (1, 10)
    with pytest.raises(rq.InputError, match=r"shape \(3, 3, 32, 32\), got \(1, 3, 32, 32\)"):
        fixed(x[:1])
    with pytest.raises(rq.InputError, match="symbolic: pass batch="):
        rq.compile(module)


def test_wrong_inputs_are_one_error_each(library, residual):
    x = residual[1]
    with pytest.raises(
        rq.InputError, match=r"must have shape \(2, 3, 32, 32\), got \(2, 3, 8, 8\)"
    ):
        library(x[:, :, :8, :8])
    with pytest.raises(rq.InputError, match="must be float32, got float64"):
        library(x.astype("float64"))
    with pytest.raises(rq.InputError, match="takes 1 inputs, got 2"):
        library(x, x)


def test_wrong_names_are_one_error_with_the_near_name(residual):
    with pytest.raises(rq.InputError, match="'grpah'; did you mean 'graph'"):
        rq.compile(residual[0], executor="grpah")
    with pytest.raises(rq.InputError, match="did you mean 'nchw_spatial_pack'"):
        rq.compile(residual[0], schedule="nchw_spatial_pak")
    with pytest.raises(rq.TargetError, match="knows no CPU 'zen99'"):
        rq.compile(residual[0], target="zen99")
    with pytest.raises(rq.TargetError, match="'opencl' is not supported"):
        rq.compile(residual[0], target={"kind": "opencl"})
    with pytest.raises(rq.InputError, match="static batch of 2, not 5"):
        rq.compile(residual[0], batch=5)


def test_more_threads_than_the_pool_has_is_one_error(residual):
    with pytest.raises(rq.InputError, match="threads must be 1 to"):
        rq.compile(residual[0], threads=10_000)


def test_files_that_are_no_libraries_are_one_error(tmp_path):
    with pytest.raises(rq.ModelError, match="there is no file"):
        rq.load(tmp_path / "absent.so")
    (tmp_path / "corrupt.so").write_bytes(b"not a library")
    with pytest.raises(rq.ModelError, match="not a library written by"):
        rq.load(tmp_path / "corrupt.so")


def test_export_into_a_missing_folder_is_one_error(library, tmp_path):
    with pytest.raises(rq.InputError, match="there is no folder"):
        library.export(tmp_path / "absent" / "net.so")
