"""Tables of what NVIDIA's compiler makes of CUDA kernels."""

from __future__ import annotations

import pytest

import relaxquant as rq
from relaxquant.executors import nvidia, nvrtc
from tests.networks import make
from workbook import cuda_machine


@pytest.fixture(scope="module")
def library():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    config = rq.QConfig.best(calibrate_mode="global_scale")
    return rq.compile(rq.quantize(module, config), target="sm_80")


@pytest.mark.skipif(
    not nvrtc.available() or nvidia.disassembler() is None,
    reason=f"NVRTC or nvdisasm is not installed: {nvrtc.PACKAGES}",
)
def test_layers_have_their_instructions_in_both_texts(library):
    lines = cuda_machine.layer_lines(library)
    assert len(lines) == 5
    for line in lines:
        by_mma = line["schedule"] == "cuda_mma"
        assert bool(line["mma in PTX"]) == bool(line[cuda_machine.IN_SASS["mma"]]) == by_mma
        assert bool(line["dp4a in PTX"]) == bool(line[cuda_machine.IN_SASS["dp4a"]]) != by_mma
    (whole,) = cuda_machine.network_lines({"ours": library})
    assert whole["kernels"] == len(library.launches)
    assert whole["mma in PTX"] == sum(line["mma in PTX"] for line in lines)
    assert cuda_machine.words(library) == "Of 9 kernels none spills registers to memory."


def test_without_a_compiler_one_sentence_says_so(library, monkeypatch):
    monkeypatch.setattr(nvrtc, "available", lambda: False)
    nvrtc.compiled.cache_clear()  # what was compiled before needs no compiler
    assert "NVRTC is not installed" in cuda_machine.words(library)
    (line,) = cuda_machine.network_lines({"ours": library})
    assert line["kernels"].startswith("not compiled: NVRTC is not installed")
    with pytest.raises(rq.TargetError, match="NVRTC is not installed"):
        cuda_machine.layer_lines(library)
