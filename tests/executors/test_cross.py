"""Networks compiled for another architecture: what can be had of them without it."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from tvm.target import codegen

import relaxquant as rq
from tests.networks import make

TRIPLE = "aarch64-linux-gnu"
PI = {"kind": "llvm", "mtriple": TRIPLE, "mcpu": "cortex-a76"}
pytestmark = [
    pytest.mark.skipif(
        not codegen.llvm_is_valid_cpu("generic", TRIPLE), reason="TVM's LLVM cannot compile for ARM"
    ),
    pytest.mark.skipif(
        codegen.llvm_get_system_triple().startswith("aarch64"), reason="ARM is at home here"
    ),
]


@pytest.fixture(scope="module")
def library():
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    config = rq.QConfig.best(calibrate_mode="global_scale")
    return rq.compile(rq.quantize(module, config), target=PI, threads=1), x


def test_it_can_be_looked_into(library):
    library, _ = library
    assert {record.instructions for record in library.kernels if record.macs} == {"sdot"}
    assert len(re.findall(r"\bsdot\b", library.source("asm"))) > 100
    assert TRIPLE in library.source("ll")
    assert library.memory is not None


def test_it_refuses_to_run_and_says_what_to_do(library):
    library, x = library
    for use in (library, library.profile):
        with pytest.raises(rq.TargetError, match=r"aarch64-linux-gnu cannot be .*lib\.export"):
            use(x)


def test_threads_are_the_other_machines():
    """More than this one has are no error, but none at all are."""
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    assert rq.compile(module, target=PI, threads=64).threads == 64
    with pytest.raises(rq.InputError, match="threads must be"):
        rq.compile(module, target=PI, threads=-1)


def test_export_names_the_linker_that_is_missing(library, tmp_path):
    with pytest.raises(rq.InputError, match="no compiler 'no-such-g\\+\\+'"):
        library[0].export(tmp_path / "x.so", compiler="no-such-g++")


def test_export_writes_a_file_of_the_target(library, tmp_path):
    linkers = [name for name in (f"{TRIPLE}-g++", f"{TRIPLE}-gcc") if shutil.which(name)]
    if not linkers:
        pytest.skip(f"there is no {TRIPLE}-g++")
    for again in ("a.so", "b.so"):
        written = library[0].export(tmp_path / again, compiler=linkers[0]).read_bytes()
        assert written[:4] == b"\x7fELF"
        assert int.from_bytes(written[18:20], "little") == 183, "e_machine is AArch64"


def test_a_linker_of_choice_at_home(tmp_path):
    linker = next((name for name in ("g++", "gcc", "clang") if shutil.which(name)), None)
    if linker is None:
        pytest.skip("there is no compiler to choose")
    network, x = make("residual")
    library = rq.compile(rq.frontends.from_torch(network, x), threads=1, cache=False)
    loaded = rq.load(library.export(tmp_path / "x.so", compiler=linker))
    np.testing.assert_array_equal(loaded(x), library(x))
