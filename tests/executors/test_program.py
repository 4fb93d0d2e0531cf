"""Kernels compiled in parallel: the same code and the same bits as one after the other."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from relaxquant.executors import program
from relaxquant.executors.compiled_kernel import KERNELS, KernelSource
from relaxquant.executors.stamps import STAMP
from tests.networks import make


@pytest.fixture(scope="module")
def quantized():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    return rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()]), x.numpy()


def spy(monkeypatch) -> list[str]:
    """Names of the kernels that LLVM is given from now on; none is there yet."""
    names, compile_one = [], KernelSource.compile

    def compile_(source):
        names.append(source.name)
        return compile_one(source)

    KERNELS.clear()
    monkeypatch.setattr(KernelSource, "compile", compile_)
    return names


def test_parallel_equals_serial(quantized, monkeypatch):
    module, x = quantized
    libraries = {}
    for workers in (1, 8):
        monkeypatch.setattr(program, "available", lambda count=workers: count)
        KERNELS.clear()
        libraries[workers] = rq.compile(module, threads=1)
    assert libraries[1].source("asm") == libraries[8].source("asm")
    np.testing.assert_array_equal(libraries[1](x), libraries[8](x))


def test_equal_layers_are_compiled_once(quantized, monkeypatch):
    compiled = spy(monkeypatch)
    library = rq.compile(quantized[0], threads=1)
    assert len(compiled) == len(set(compiled))
    assert set(compiled) == {record.name for record in library.kernels} | {STAMP}


def test_a_failing_kernel_is_an_error_not_a_hang(quantized, monkeypatch):
    def fail(source):
        raise rq.ModelError(f"{source.name} cannot be compiled")

    KERNELS.clear()
    monkeypatch.setattr(KernelSource, "compile", fail)
    with pytest.raises(rq.ModelError, match="cannot be compiled"):
        rq.compile(quantized[0])


@pytest.mark.parametrize("executor", ["graph", "vm", "naive"])
def test_a_library_from_a_file_profiles_like_the_original(quantized, executor, tmp_path):
    module, x = quantized
    library = rq.compile(module, executor=executor, threads=1)
    loaded = rq.load(library.export(tmp_path / "net.so"))
    np.testing.assert_array_equal(loaded(x), library(x))
    names = [time.record.name for time in library.profile(x, repeats=1)]
    assert [time.record.name for time in loaded.profile(x, repeats=1)] == names


def test_a_network_without_kernels_compiles():
    network, x = make("flatten_dense")
    network.forward = lambda x: x
    module = rq.frontends.from_torch(network, x)
    np.testing.assert_array_equal(rq.compile(module)(x), x)
