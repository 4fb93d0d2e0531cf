"""Compiled networks by content: equal ones are loaded, others never met, damaged ones made anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import tvm
from torch import nn

import relaxquant as rq
from relaxquant.executors import cache, content, program
from relaxquant.executors import threads as pool
from relaxquant.executors.stamps import STAMP
from relaxquant.kernels import registry

SCRIPT = """
import sys
import numpy as np, tvm
import relaxquant as rq
module, x, y = sys.argv[1:]
np.save(y, rq.compile(tvm.ir.load_json(open(module).read()), threads=1)(np.load(x)))
"""


def tiny(seed: int = 0, batch: int = 1, dynamic: bool = False):
    """A module with one convolution."""
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU()).eval()
    x = torch.zeros(batch, 3, 4, 4)
    return rq.frontends.from_torch(network, x, dynamic_batch=dynamic)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """A cache of our own, switched on."""
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv(cache.VARIABLE, "1")
    return tmp_path / "cache" / "compiled"


@pytest.fixture
def compiled(monkeypatch) -> list[str]:
    """Names of the kernels that a program asks for from now on: those of an entry are not."""
    names, compile_one = [], program.compiled

    def spy(source):
        names.append(source.name)
        return compile_one(source)

    monkeypatch.setattr(program, "compiled", spy)
    return names


@pytest.fixture
def x() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((1, 3, 4, 4), dtype=np.float32)


def entries(folder: Path) -> list[Path]:
    return sorted(folder.glob("*"))


def warnings(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "relaxquant"]


@pytest.mark.parametrize("executor", ["graph", "vm"])
def test_an_equal_module_is_loaded(compiled, x, executor):
    first = rq.compile(tiny(), executor=executor, threads=1)
    count = len(compiled)
    assert count > 0
    second = rq.compile(tiny(), executor=executor, threads=1)
    assert len(compiled) == count
    assert second.kernels.records == first.kernels.records
    np.testing.assert_array_equal(second(x), first(x))


def test_a_hit_behaves_like_a_fresh_library(compiled, x, tmp_path):
    fresh = rq.compile(tiny(), threads=1, cache=False)
    rq.compile(tiny())
    count = len(compiled)
    hit = rq.compile(tiny(), threads=1)
    assert hit.threads == 1
    assert hit.kernels.records == fresh.kernels.records
    assert hit.memory == fresh.memory
    names = [time.record for time in fresh.profile(x, repeats=1)]
    assert [time.record for time in hit.profile(x, repeats=1)] == names
    assert len(compiled) == count
    # These need what machine code no longer tells: compiled again, once for both.
    assert hit.source("asm") == fresh.source("asm")
    np.testing.assert_array_equal(rq.load(hit.export(tmp_path / "net.so"))(x), fresh(x))
    assert compiled[count:].count(STAMP) == 1
    assert len(compiled) == count + len(hit.kernels) + 1


def test_export_copies_the_entry_where_that_is_what_it_would_write(compiled, x, folder, tmp_path):
    fresh = rq.compile(tiny(), threads=1)
    entry = next(folder.glob("*.so"))
    hit = rq.compile(tiny(), threads=1)
    count = len(compiled)
    assert hit.export(tmp_path / "same.so").read_bytes() == entry.read_bytes()
    assert len(compiled) == count
    # An entry that was damaged since, or is gone, is not handed on.
    content = entry.read_bytes()
    entry.unlink()  # the libraries above have mapped it
    entry.write_bytes(content[:-1])
    loaded = rq.load(hit.export(tmp_path / "damaged.so"))
    np.testing.assert_array_equal(loaded(x), fresh(x))


@pytest.mark.skipif(pool.available() < 2, reason="one processor has no pool of two threads")
def test_export_of_other_threads_is_written_anew(compiled, folder, tmp_path):
    rq.compile(tiny(), threads=1)
    library = rq.compile(tiny(), threads=2)
    assert rq.load(library.export(tmp_path / "net.so")).threads == 2


def test_other_content_is_another_entry(folder):
    variants = [
        (tiny(), {}),
        (tiny(seed=1), {}),
        (tiny(batch=2), {}),
        (tiny(), {"executor": "vm"}),
        (tiny(), {"executor": "naive"}),
        (tiny(), {"target": "generic"}),
        (tiny(), {"schedule": "nchw_spatial_pack"}),
    ]
    for count, (module, options) in enumerate(variants, start=1):
        rq.compile(module, **options)
        assert len(entries(folder)) == count, options


def test_one_weight_changes_the_digest():
    target = rq.target.resolve("native")
    network = nn.Conv2d(3, 4, 1).eval()
    digests = []
    for change in (0, 1e-7):
        with torch.no_grad():
            network.weight[0, 0, 0, 0] += change
        module = rq.frontends.from_torch(network, torch.zeros(1, 3, 4, 4))
        digests.append(content.digest(module, target, {}))
    assert digests[0] != digests[1]


def test_edited_code_changes_the_digest(monkeypatch):
    arguments = (tiny(), rq.target.resolve("native"), {})
    before = content.digest(*arguments)
    monkeypatch.setattr(content, "SOURCES", "edited")
    assert content.digest(*arguments) != before


def test_threads_do_not_matter(compiled, folder):
    one = rq.compile(tiny(), threads=1)
    many = rq.compile(tiny())
    assert (one.threads, len(entries(folder))) == (1, 1)
    assert many.threads == rq.compile(tiny(), cache=False).threads


def test_a_symbolic_batch_hits_too(compiled):
    module = tiny(dynamic=True)
    rq.compile(module, executor="vm")
    count = len(compiled)
    library = rq.compile(tiny(dynamic=True), executor="vm")
    assert len(compiled) == count
    assert library(np.zeros((5, 3, 4, 4), np.float32)).shape == (5, 4, 4, 4)


@pytest.mark.parametrize("damage", [b"", b"\x7fELF short", None])
def test_a_damaged_entry_is_made_anew(damage, folder, x, caplog):
    expected = rq.compile(tiny())(x)
    (entry,) = entries(folder)
    whole = entry.read_bytes()
    entry.unlink()  # the library above still maps the file it loaded
    entry.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    np.testing.assert_array_equal(rq.compile(tiny())(x), expected)
    (line,) = warnings(caplog)
    assert str(entry) in line and "is damaged" in line
    (again,) = entries(folder)
    assert again.stat().st_size == len(whole)


def test_a_whole_file_that_is_no_library_is_made_anew(folder, x, caplog):
    expected = rq.compile(tiny())(x)
    (entry,) = entries(folder)
    entry.unlink()
    key = entry.name.split(".")[0]
    cache.store(key, lambda path: path.write_text("not a library") and None)
    np.testing.assert_array_equal(rq.compile(tiny())(x), expected)
    assert "is damaged" in caplog.text


def test_the_least_recently_used_entry_goes(folder, monkeypatch):
    def store(key: str, used: int) -> Path:
        path = cache.store(key, lambda staged: staged.write_bytes(key.encode() * 100) and None)
        os.utime(path, ns=(used, used))
        return path

    a, b = store("a", used=1), store("b", used=2)
    assert cache.find("a") == a  # now the one used last
    monkeypatch.setattr(cache, "LIMIT", 250)
    c = store("c", used=3)
    assert entries(folder) == [a, c] and not b.exists()


def test_what_was_just_compiled_stays_however_large(folder, monkeypatch, x):
    monkeypatch.setattr(cache, "LIMIT", 10)
    rq.compile(tiny(seed=1))
    np.testing.assert_array_equal(rq.compile(tiny())(x), rq.compile(tiny(), cache=False)(x))
    assert len(entries(folder)) == 1


def test_two_processes_at_once(folder, tmp_path, x):
    np.save(tmp_path / "x.npy", x)
    (tmp_path / "module.json").write_text(tvm.ir.save_json(tiny()))
    files = [str(tmp_path / "module.json"), str(tmp_path / "x.npy")]
    outputs = [tmp_path / f"{name}.npy" for name in "ab"]
    root = str(Path(__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, *files, str(output)],
            env={**os.environ, "PYTHONPATH": root},
            cwd=root,
            stderr=subprocess.PIPE,
            text=True,
        )
        for output in outputs
    ]
    for process in processes:
        assert process.wait(timeout=300) == 0, process.stderr.read()
    expected = rq.compile(tiny(), threads=1)(x)
    for output in outputs:
        np.testing.assert_array_equal(np.load(output), expected)
    # One digest in all three processes; a linker may write the same code as two files.
    assert len({entry.name.split(".")[0] for entry in entries(folder)}) == 1
    assert not list(folder.parent.glob(".partial-*"))


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch, x, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path / "file" / "cache"))
    library = rq.compile(tiny())
    (line,) = warnings(caplog)
    assert "cannot be kept" in line
    np.testing.assert_array_equal(library(x), rq.compile(tiny(), cache=False)(x))


def test_the_cache_can_be_switched_off(folder, monkeypatch):
    rq.compile(tiny(), cache=False)
    monkeypatch.setenv(cache.VARIABLE, "0")
    rq.compile(tiny())
    assert not folder.exists()


def test_a_schedule_from_outside_is_never_cached(folder, monkeypatch):
    monkeypatch.setattr(registry, "SCHEDULES", registry.SCHEDULES[:])
    monkeypatch.setattr(content, "SCHEDULES", registry.SCHEDULES)
    registry.register("mine", ("fp32",))(lambda *arguments, **keywords: None)
    rq.compile(tiny())
    assert not folder.exists()
