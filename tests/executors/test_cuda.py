"""Networks compiled for CUDA: what is in their code, and that it computes what a CPU's does."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax

import relaxquant as rq
from relaxquant import target as targets
from relaxquant.executors import cuda
from relaxquant.executors.launches import kernel_of
from relaxquant.inspect.classes import DP4A, MMA
from relaxquant.inspect.cuda_work import kernel_work
from relaxquant.lower import lower
from tests.kernels.cuda_emulator import emulate, needs_compiler
from tests.networks import make

WITH_GPU = pytest.mark.skipif(not tvm.cuda(0).exist, reason="there is no CUDA device")
WITHOUT_GPU = pytest.mark.skipif(tvm.cuda(0).exist, reason="there is a CUDA device")


def quantized(name: str, **options):
    """A small network in int8, all its layers quantized, and an input."""
    network, x = make(name)
    module = rq.frontends.from_torch(network, x)
    config = rq.QConfig.best(calibrate_mode="global_scale", **options)
    return rq.quantize(module, config), x.numpy()


@pytest.fixture(scope="module")
def residual():
    return quantized("residual")


@pytest.fixture(scope="module")
def library(residual):
    return rq.compile(residual[0], target="sm_80")


def emulated(module: tvm.IRModule, arch: str, x: np.ndarray, **options) -> np.ndarray:
    """A lowered network's output, kernel by kernel in `cuda_emulator`; all its layers are ours."""
    target = targets.resolve(arch)
    lowered = lower(module, target, **options).module
    functions = {
        variable.name_hint: function
        for variable, function in lowered.functions.items()
        if isinstance(function, tvm.tirx.PrimFunc)
    }
    kernels, main = emulate(functions, target), lowered["main"]
    values = {main.params[0]: x}
    for block in main.body.blocks:
        for binding in block.bindings:
            if not isinstance(binding.value, relax.Call):
                values[binding.var] = values[binding.value]
                continue
            function, arguments = binding.value.args
            arrays = [values[a] if a in values else a.value.numpy() for a in arguments]
            kind = binding.value.ty_args[0]
            output = np.zeros([int(size) for size in kind.shape], str(kind.dtype))
            kernels[function.name_hint](*map(np.ascontiguousarray, arrays), output)
            values[binding.var] = output
    return values[main.body.body]


@needs_compiler
@pytest.mark.parametrize(
    ("name", "arch", "options"),
    [
        ("residual", "sm_61", {}),
        ("residual", "sm_80", {}),
        ("inverted_residual", "sm_75", {}),
        ("flatten_dense", "sm_80", dict(nbit_weight=4, nbit_input=4)),
        ("residual", "sm_61", dict(nbit_input=16)),
    ],
)
def test_the_integers_are_those_of_a_cpu(name, arch, options):
    module, x = quantized(name, **options)
    np.testing.assert_array_equal(emulated(module, arch, x), rq.compile(module)(x))


@needs_compiler
@pytest.mark.parametrize(("name", "arch"), [("residual", "sm_80"), ("inverted_residual", "sm_61")])
def test_tflites_integers_are_those_of_a_cpu(name, arch):
    module, x = quantized(name)
    expected = rq.compile(module, requantize="tflite")(x)
    np.testing.assert_array_equal(emulated(module, arch, x, requantize="tflite"), expected)


@needs_compiler
def test_fp32_is_that_of_a_cpu():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    got = emulated(module, "sm_80", x.numpy())
    np.testing.assert_allclose(got, rq.compile(module)(x), rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize(
    ("name", "arch"),
    [("residual", "sm_80"), ("inverted_residual", "sm_80"), ("flatten_dense", "sm_61")],
)
def test_half_is_fp32_but_for_rounding(name, arch):
    """Weights and outputs of up to six layers are rounded to 11 bits: by 0.05 % each, at most."""
    network, x = make(name)
    fp32 = rq.frontends.from_torch(network, x)
    got = emulated(rq.frontends.in_half(fp32), arch, x.numpy())
    expected = rq.compile(fp32)(x)
    assert 0 < np.abs(got - expected).max() < 0.005 * np.abs(expected).max()


def test_half_has_its_tensor_cores_and_its_proof():
    network, x = make("inverted_residual")
    half = rq.frontends.in_half(rq.frontends.from_torch(network, x))
    library = rq.compile(half, target="sm_80")
    assert {record.precision for record in library.kernels} == {"fp16"}
    layers = [record for record in library.kernels if record.macs]
    schedules = ["cuda_direct", "cuda_mma", "cuda_direct", "cuda_mma", "cuda_direct"]
    assert [record.schedule for record in layers] == schedules  # depthwise in the middle
    executed = {"cuda_direct": "float32", "cuda_mma": "float16"}
    rows = rq.proof(library).rows
    assert [row.precision for row in rows] == [executed[name] for name in schedules]
    assert all(row.executed[row.precision] >= row.macs for row in rows)
    older = rq.compile(half, target="sm_75")
    assert {record.schedule for record in older.kernels if record.macs} == {"cuda_direct"}


@WITH_GPU
@pytest.mark.parametrize("name", ["residual", "inverted_residual", "flatten_dense", "branches"])
def test_a_gpus_half_is_fp32_but_for_rounding(name):
    network, x = make(name)
    fp32 = rq.frontends.from_torch(network, x)
    got, expected = rq.compile(rq.frontends.in_half(fp32), target="cuda")(x), rq.compile(fp32)(x)
    assert 0 < np.abs(got - expected).max() < 0.005 * np.abs(expected).max()


@WITH_GPU
@pytest.mark.parametrize("name", ["residual", "inverted_residual", "flatten_dense", "branches"])
@pytest.mark.parametrize("executor", ["graph", "vm"])
def test_a_gpu_computes_what_a_cpu_does(name, executor):
    module, x = quantized(name)
    got = rq.compile(module, target="cuda", executor=executor)(x)
    np.testing.assert_allclose(got, rq.compile(module)(x), rtol=1e-6)


def test_every_convolution_has_its_instruction_in_its_own_kernel(library):
    works = kernel_work(library.source("cuda"))
    layers = [record for record in library.kernels if record.macs]
    assert len(layers) == 5
    for record in layers:
        written = works[kernel_of(record.name)].written
        (instruction,) = (word for word in (DP4A, MMA) if written[word])
        assert record.instructions.startswith(instruction)
        assert {DP4A: "cuda_dp4a", MMA: "cuda_mma"}[instruction] == record.schedule
    assert "mma.sync.aligned.m16n8k32" in library.source("cuda")


def test_stock_tvm_has_no_integer_products(residual):
    stock = rq.compile(residual[0], target="sm_80", executor="naive")
    works = kernel_work(stock.source("cuda"))
    assert sum("conv2d" in name for name in works) == 4
    assert not any(work.written[word] for work in works.values() for word in (DP4A, MMA))
    assert all(record.precision == "fp32" for record in stock.kernels)


def test_the_proof_reads_the_text_of_cuda(library, residual):
    proof = rq.proof(library)
    assert (len(proof.rows), proof.integer_share) == (5, 1)
    assert {row.instructions.split()[-1] for row in proof.rows} == {"dp4a", "mma"}
    # Channels are padded to blocks and pixels to tiles: more is executed than asked for.
    assert all(row.executed["int8"] >= row.macs for row in proof.rows)
    stock = rq.proof(rq.compile(residual[0], target="sm_80", executor="naive"))
    assert (len(stock.rows), stock.integer_share) == (5, 0)
    assert stock.macs == proof.macs
    assert {row.precision for row in stock.rows} == {"float32"}
    assert all(row.executed["float32"] >= row.macs for row in stock.rows)


def test_every_kernel_is_launched_with_blocks_and_threads(library, residual):
    for each in (library, rq.compile(residual[0], target="sm_80", executor="naive")):
        found = kernel_work(each.source("cuda"))
        assert each.launches.keys() == found.keys()
        assert all(launch.blocks >= 1 <= launch.threads for launch in each.launches.values())
        assert set(map(kernel_of, each.calls)) <= found.keys()
    conv = next(record for record in library.kernels if record.schedule == "cuda_mma")
    assert library.launches[kernel_of(conv.name)].threads == 128


def test_a_symbolic_batch_leaves_the_blocks_open():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    library = rq.compile(module, target="sm_80", executor="vm")
    assert {launch.blocks for launch in library.launches.values()} == {None}
    assert not any(row.exact for row in rq.proof(library).rows)


def test_a_runner_runs_on_what_is_on_the_device_already(library, residual):
    module, x = residual
    cpu = rq.compile(module)
    # In the place of a GPU: what is tested is which tensors are handed over, and when.
    library.__dict__["_on_gpu"] = (cpu._main, tvm.cpu())
    try:
        run = library.runner(x)
        np.testing.assert_array_equal(cuda.arrays_of(run()), cpu(x))
        with pytest.raises(rq.InputError, match="must have shape"):
            library.runner(x[:1])
    finally:
        del library.__dict__["_on_gpu"]


@pytest.mark.parametrize("name", ["residual", "inverted_residual"])
def test_half_multiplies_in_sixteen_bits_and_is_for_fp32_modules(residual, name):
    network, x = make(name)
    module = rq.frontends.from_torch(network, x)
    half = rq.frontends.in_half(module)
    got = rq.compile(half, executor="naive")(x.numpy())
    np.testing.assert_allclose(got, rq.compile(module)(x), rtol=0.02, atol=0.02)
    assert not np.array_equal(got, rq.compile(module)(x))
    layers = rq.compile(half, executor="naive").kernels.where(precision="fp16")
    assert sum(bool(record.macs) for record in layers) == 5
    with pytest.raises(rq.ModelError, match="quantized module does not become float16"):
        rq.frontends.in_half(residual[0])


@WITHOUT_GPU
def test_without_a_gpu_it_says_so(library, residual):
    with pytest.raises(rq.TargetError, match=r"no CUDA device here.*lib\.source\('cuda'\)"):
        library(residual[1])
    with pytest.raises(rq.InputError, match="must have shape"):
        library(residual[1][:1])


def test_what_is_not_for_gpus_says_what_is(library, residual, tmp_path):
    for use in (library.profile, library.stamped):
        with pytest.raises(rq.TargetError, match=r"cannot be profiled.*whole calls"):
            use(residual[1])
    with pytest.raises(rq.TargetError, match=r"cannot be exported.*on the machine"):
        library.export(tmp_path / "net.so")
    with pytest.raises(rq.InputError, match=r"'cuda', 'ptx', 'sass'.*got 'asm'"):
        library.source("asm")


@pytest.mark.parametrize("arch", ["sm_60", "sm_77", "sm_x"])
def test_unknown_compute_capabilities_are_named(arch):
    for target in (arch, {"kind": "cuda", "arch": arch}):
        with pytest.raises(rq.TargetError, match=f"'{arch}'.*dp4a came with sm_61.*sm_75"):
            targets.resolve(target)


@WITHOUT_GPU
def test_cuda_without_a_gpu_is_sm_80():
    assert targets.name(targets.resolve("cuda")) == "cuda sm_80"
    assert (
        targets.resolve(tvm.target.Target({"kind": "cuda", "arch": "sm_75"})).attrs["arch"]
        == "sm_75"
    )


def test_the_compilers_settings_are_put_back(monkeypatch):
    monkeypatch.setattr(cuda.shutil, "which", lambda _name: "/somewhere/nvcc")
    monkeypatch.setenv("TVM_CUDA_COMPILE_MODE", "nvrtc")
    monkeypatch.delenv("TVM_CUDA_NVCC_NO_FAST_MATH", raising=False)
    with cuda.exact_compiler():
        assert cuda.os.environ["TVM_CUDA_COMPILE_MODE"] == "nvrtc"
        assert cuda.os.environ["TVM_CUDA_NVCC_NO_FAST_MATH"] == "1"
    assert "TVM_CUDA_NVCC_NO_FAST_MATH" not in cuda.os.environ
    monkeypatch.setattr(cuda.shutil, "which", lambda _name: None)
    monkeypatch.delenv("TVM_CUDA_NVRTC_EXTRA_OPTS", raising=False)
    with cuda.exact_compiler():
        assert "--prec-div=true" in cuda.os.environ["TVM_CUDA_NVRTC_EXTRA_OPTS"]
    assert "TVM_CUDA_NVRTC_EXTRA_OPTS" not in cuda.os.environ


def test_what_is_asked_for_in_nhwc_still_compiles(residual):
    library = rq.compile(residual[0], target="sm_80", schedule="nhwc_quantized_interleaved")
    schedules = {record.schedule for record in library.kernels if record.macs}
    assert "reference" in schedules and schedules <= {"reference", "cuda_dp4a", "cuda_mma"}


def test_the_batch_may_be_symbolic():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    module = rq.quantize(module, rq.QConfig.best(calibrate_mode="global_scale"))
    library = rq.compile(module, target="sm_80", executor="vm")
    assert {record.instructions for record in library.kernels if record.macs} == {
        "dp4a",
        "mma.sync.m16n8k32",
    }
    assert len(kernel_work(library.source("cuda"))) >= 8


def test_the_host_of_a_gpu_may_be_another_cpu(residual):
    host = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a78ae"}
    jetson = targets.resolve({"kind": "cuda", "arch": "sm_87", "host": host})
    assert targets.triple(jetson) == "aarch64-linux-gnu"
    assert not targets.runs_here(jetson)
    assert targets.triple(targets.resolve(jetson)) == "aarch64-linux-gnu", "also when given again"
    assert targets.runs_here(targets.resolve("sm_87"))
    library = rq.compile(residual[0], target=jetson, threads=4)
    assert library.source("cuda") == rq.compile(residual[0], target="sm_87").source("cuda")
    with pytest.raises(rq.TargetError, match="no CPU 'cortex-x'"):
        targets.resolve({"kind": "cuda", "arch": "sm_87", "host": host | {"mcpu": "cortex-x"}})
