"""Kernels compiled in parallel: the same code and the same bits as one after the other."""

from __future__ import annotations

import numpy as np
import pytest

import relaxquant as rq
from relaxquant.executors import program
from tests.networks import make


@pytest.fixture(scope="module")
def quantized():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    return rq.quantize(module, rq.QConfig.best(), calibration=[x.numpy()]), x.numpy()


def test_parallel_equals_serial(quantized, monkeypatch):
    module, x = quantized
    libraries = {}
    for workers in (1, 8):
        monkeypatch.setattr(program, "available", lambda count=workers: count)
        libraries[workers] = rq.compile(module, threads=1)
    assert libraries[1].source("asm") == libraries[8].source("asm")
    np.testing.assert_array_equal(libraries[1](x), libraries[8](x))


def test_equal_layers_are_compiled_once(quantized, monkeypatch):
    compiled, compile_one = [], program._compile

    def spy(name, function, target):
        compiled.append(name)
        return compile_one(name, function, target)

    monkeypatch.setattr(program, "_compile", spy)
    library = rq.compile(quantized[0], threads=1)
    assert len(compiled) == len(set(compiled))
    assert set(compiled) == {record.name for record in library.kernels}


def test_a_failing_kernel_is_an_error_not_a_hang(quantized, monkeypatch):
    def fail(name, function, target):
        raise rq.ModelError(f"{name} cannot be compiled")

    monkeypatch.setattr(program, "_compile", fail)
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
