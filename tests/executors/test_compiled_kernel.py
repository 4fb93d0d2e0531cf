"""Kernels that programs share: which ones are, that none is mixed up, and that sharing shows in
nothing but the time it saves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from torch import nn

import relaxquant as rq
from relaxquant.executors.compiled_kernel import KERNELS, KernelSource, compiled
from relaxquant.executors.stamps import STAMP


@pytest.fixture
def asked(monkeypatch) -> list[KernelSource]:
    """The kernels that LLVM is given; none is there yet."""
    sources, compile_one = [], KernelSource.compile

    def spy(source):
        sources.append(source)
        return compile_one(source)

    KERNELS.clear()
    monkeypatch.setattr(KernelSource, "compile", spy)
    return sources


def module(seed: int = 0, **settings):
    """Two convolutions and a dense layer, quantized, and an input."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 12, 1), nn.Flatten(), nn.Linear(48, 5)]
    x = torch.randn(1, 3, 4, 4)
    fp32 = rq.frontends.from_torch(nn.Sequential(*layers).eval(), x)
    config = rq.QConfig.best(calibrate_mode="global_scale", reduce_range=False, **settings)
    return rq.quantize(fp32, config), x.numpy()


def test_a_network_of_other_weights_and_scales_compiles_nothing(asked):
    first, _ = module()
    one = rq.compile(first)
    count = len(asked)
    assert {source.name for source in asked} == {r.name for r in one.kernels} | {STAMP}
    assert count == len({source.name for source in asked})
    other, x = module(seed=1, global_scale=3.0)
    shared = rq.compile(other)
    assert len(asked) == count
    KERNELS.clear()
    np.testing.assert_array_equal(shared(x), rq.compile(other)(x))


def test_a_layer_that_changes_compiles_what_is_new_only(asked):
    rq.compile(module()[0])
    count = len(asked)
    mixed = rq.compile(module(skip_conv_layers=(1,))[0])
    new = {source.name for source in asked[count:]}
    # The convolution in float, and those around it that now give and take float.
    assert {r.name for r in mixed.kernels if r.op == "conv2d" and r.precision == "fp32"} <= new


def test_another_target_is_another_kernel(asked):
    quantized, _ = module()
    rq.compile(quantized, target="x86-64-v3")
    count = len(asked)
    generic = rq.compile(quantized, target="generic")
    assert len(asked) == 2 * count
    assert "<16 x i16> @llvm.x86.avx2.pmadd" not in generic.source()


def test_equal_names_do_not_make_equal_kernels():
    a, b = (next(iter(sources_of_one_name(size))) for size in (4, 8))
    assert a != b and a == next(iter(sources_of_one_name(4)))
    kernels = [compiled(source) for source in (a, b, a)]
    assert kernels[0] is kernels[2] is not kernels[1]


def sources_of_one_name(size):
    """Sources of one name and target whose functions differ by a number."""
    from tvm.script import tirx as T

    @T.prim_func
    def scale(x: T.Buffer((size,), "float32"), y: T.Buffer((size,), "float32")):
        for i in range(size):
            y[i] = x[i] * T.float32(2)

    yield KernelSource("scale", scale, rq.target.resolve("native"))


def test_programs_that_share_kernels_export_and_show_their_own(tmp_path):
    """One exported network must not hold what another one imported."""
    networks = [module(), module(skip_conv_layers=(1,))]
    libraries = [rq.compile(quantized) for quantized, _ in networks]
    names = [{record.name for record in library.kernels} for library in libraries]
    assert names[0] & names[1] and names[0] - names[1] and names[1] - names[0]
    for i, (library, own, (_, x)) in enumerate(zip(libraries, names, networks, strict=True)):
        text = library.source("asm")
        assert {name for name in names[0] | names[1] if f"__tvm_ffi_{name}:" in text} == own
        loaded = rq.load(library.export(tmp_path / f"{i}.so"))
        np.testing.assert_array_equal(loaded(x), library(x))


def test_threads_look_at_shared_kernels(tmp_path):
    libraries = [rq.compile(module(seed=seed)[0]) for seed in range(2)] * 4

    def work(index):
        return libraries[index].source("asm"), libraries[index].export(tmp_path / f"{index}.so")

    with ThreadPoolExecutor(len(libraries)) as pool:
        results = list(pool.map(work, range(len(libraries))))
    assert len({text for text, _ in results}) == 1
    x = module()[1]
    np.testing.assert_array_equal(rq.load(results[-1][1])(x), libraries[-1](x))
