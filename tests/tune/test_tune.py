"""rq.tune and compile(tuned=...): what is timed and kept, and what a network becomes of it."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

import relaxquant as rq
from relaxquant.kernels import tuned as tuned_file
from relaxquant.kernels.conv2d_reference import plain_loops
from relaxquant.kernels.intrinsics import instruction_set
from relaxquant.kernels.intrinsics.avx2 import AVX2
from relaxquant.kernels.registry import implement_conv2d
from relaxquant.kernels.tile import Tile, possible_tiles
from relaxquant.kernels.tuned import Tuned, layer_key
from relaxquant.lower import conv_layers, lower
from relaxquant.measure.samples import Ratio
from relaxquant.tune import session
from relaxquant.tune.bench import Bench
from relaxquant.tune.candidates import candidates
from relaxquant.tune.device import LocalDevice
from relaxquant.tune.race import Result
from tests.kernels.harness import conv_layer
from tests.networks import make


@pytest.fixture(scope="module")
def modules():
    """A network in fp32 and int8, and an input."""
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x)
    calibration = [torch.randn(2, 3, 32, 32, generator=torch.manual_seed(1)).numpy()]
    return module, rq.quantize(module, rq.QConfig.best(), calibration=calibration), x.numpy()


class Races:
    """Stands in for the timing: says which candidate wins, and logs the layers."""

    def __init__(self, winner: int = 0, fail_after: int | None = None):
        self.winner, self.fail_after, self.fields = winner, fail_after, []

    def __call__(self, candidates, budget_s: float) -> Result:
        if len(self.fields) == self.fail_after:
            raise KeyboardInterrupt
        names = [name for name, _ in candidates]
        self.fields.append(names)
        winner = names[min(self.winner, len(names) - 1)]
        ratio = None if winner == names[0] else Ratio(0.8, 0.75, 0.85, 20, 0.95)
        return Result(winner, ratio, dict.fromkeys(names, 1.0))


@pytest.fixture
def races(monkeypatch):
    """Replace the timing; returns a function that does."""

    def use(**arguments) -> Races:
        made = Races(**arguments)
        monkeypatch.setattr(session, "race", made)
        return made

    return use


def tune(module, path, **arguments) -> Tuned:
    return rq.tune(module, threads=1, path=path, **arguments)


def kernels(module, tuned: Tuned | None = None) -> list:
    """The table that a compiled network would have, without compiling it."""
    return lower(module, rq.target.resolve("native"), "auto", tuned).kernels


def test_end_to_end_outputs_stay_and_the_table_says_what_was_timed(modules, tmp_path):
    fp32, _, x = modules
    found = tune(fp32, tmp_path / "t.json", budget_s=0.05)
    library = rq.compile(fp32, threads=1, tuned=found)
    expected = rq.compile(fp32, threads=1)(x)
    np.testing.assert_allclose(library(x), expected, rtol=0, atol=1e-4 * abs(expected).max())
    layers = [record for record in library.kernels if record.op in ("conv2d", "dense")]
    assert len(layers) == 5
    assert all(record.chosen.startswith("tuned: ") for record in layers)


def test_a_winner_replaces_the_rules_choice_in_the_compiled_network(modules, tmp_path, races):
    races(winner=2)
    _, int8, x = modules
    found = tune(int8, tmp_path / "t.json")
    library, by_rule = (rq.compile(int8, threads=1, tuned=t) for t in (found, None))
    stems = [made.kernels.where(op="conv2d")[0] for made in (library, by_rule)]
    assert (stems[0].schedule, stems[0].tile) != (stems[1].schedule, stems[1].tile)
    schedule = f"{stems[1].schedule} {stems[1].tile}"
    assert stems[0].chosen == f"tuned: 1.25x of the rule's choice ({schedule})"
    np.testing.assert_array_equal(library(x), by_rule(x))


def test_the_file_serves_as_well_as_the_result(modules, tmp_path, races):
    races(winner=1)
    module = modules[0]
    found = tune(module, tmp_path / "t.json")
    library = rq.compile(module, threads=1, tuned=str(tmp_path / "t.json"))
    assert list(library.kernels) == kernels(module, found)
    stored = tuned_file.read(tmp_path / "t.json")
    assert stored == found
    assert stored.fingerprint() == found.fingerprint()


def test_equal_layers_are_timed_once_and_known_ones_not_again(modules, tmp_path, races):
    timed = races()
    fp32, int8, _ = modules
    tune(fp32, tmp_path / "t.json")
    assert len(timed.fields) == 5
    tune(fp32, tmp_path / "t.json")
    assert len(timed.fields) == 5
    tune(int8, tmp_path / "t.json")
    assert len(timed.fields) == 10
    assert len(tuned_file.read(tmp_path / "t.json").choices) == 10


def test_an_interrupted_tuning_goes_on_where_it_stopped(modules, tmp_path, races):
    first = races(fail_after=2)
    with pytest.raises(KeyboardInterrupt):
        tune(modules[0], tmp_path / "t.json")
    assert len(tuned_file.read(tmp_path / "t.json").choices) == 2
    second = races()
    tune(modules[0], tmp_path / "t.json")
    assert len(first.fields) + len(second.fields) == 5
    assert first.fields[0] not in second.fields, "the stem is known already"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"setting": {}, "layers": {}}', "null"])
def test_a_corrupt_file_is_one_warning_and_timed_anew(modules, tmp_path, races, text):
    timed = races()
    path = tmp_path / "t.json"
    path.write_text(text)
    with pytest.warns(UserWarning, match="t.json holds no tuning result") as caught:
        tune(modules[0], path)
    assert len(caught) == 1
    assert len(timed.fields) == 5
    assert len(json.loads(path.read_text())["layers"]) == 5


def test_compile_warns_of_a_corrupt_file_and_goes_by_the_rules(modules, tmp_path):
    path = tmp_path / "t.json"
    path.write_text("not json")
    with pytest.warns(UserWarning, match="holds no tuning result"):
        library = rq.compile(modules[0], threads=1, tuned=path)
    assert list(library.kernels) == kernels(modules[0])


def test_other_versions_are_not_used_and_timed_anew(modules, tmp_path, races, monkeypatch):
    timed = races()
    found = tune(modules[0], tmp_path / "t.json")
    monkeypatch.setattr(tuned_file, "versions", lambda: "TVM 9, kernels 0")
    monkeypatch.setattr(session, "versions", lambda: "TVM 9, kernels 0")
    with pytest.warns(UserWarning, match="TVM 9, kernels 0, and is not used"):
        assert tuned_file.load(found) is None
    tune(modules[0], tmp_path / "t.json")
    assert len(timed.fields) == 10
    assert tuned_file.read(tmp_path / "t.json").setting.versions == "TVM 9, kernels 0"


def test_what_does_not_fit_is_one_error(modules, tmp_path, races):
    races()
    found = tune(modules[0], tmp_path / "t.json")
    with pytest.raises(rq.InputError, match="with 3 threads, compiled for"):
        rq.compile(modules[0], tuned=replace_setting(found, threads=3), threads=1, schedule="auto")
    with pytest.raises(rq.InputError, match="compiled for 'x86-64'"):
        rq.compile(modules[0], "generic", tuned=found, threads=1)
    with pytest.raises(rq.InputError, match="'reference' was asked for: leave one out"):
        rq.compile(modules[0], schedule="reference", tuned=found, threads=1)
    with pytest.raises(rq.InputError, match="there is no file"):
        rq.compile(modules[0], tuned=tmp_path / "absent.json")
    with pytest.raises(rq.InputError, match="not a int"):
        rq.compile(modules[0], tuned=3)
    with pytest.raises(rq.InputError, match="budget_s must be"):
        rq.tune(modules[0], budget_s=0)


def replace_setting(found: Tuned, **changes) -> Tuned:
    return Tuned(replace(found.setting, **changes), found.choices)


def test_a_tile_that_no_longer_fits_leaves_the_layer_to_the_rules(modules, tmp_path, races):
    races()
    found = tune(modules[0], tmp_path / "t.json")
    odd = {key: replace(c, tile="7x3") for key, c in found.choices.items()}
    assert kernels(modules[0], Tuned(found.setting, odd)) == kernels(modules[0])


def test_a_symbolic_batch_must_be_bound(races, tmp_path):
    races()
    network, x = make("residual")
    module = rq.frontends.from_torch(network, x, dynamic_batch=True)
    with pytest.raises(rq.InputError, match="symbolic: pass batch="):
        tune(module, tmp_path / "t.json")
    found = tune(module, tmp_path / "t.json", batch=2)
    assert {choice.layer for choice in found.choices.values()} >= {"32x1x1 -> 10"}


def test_a_target_that_does_not_run_here_is_one_error(modules, monkeypatch):
    monkeypatch.setattr(session.targets, "features", lambda target: frozenset())
    monkeypatch.setattr(session, "instruction_set", lambda target: AVX2)
    with pytest.raises(rq.TargetError, match="avx2 cannot be timed here"):
        rq.tune(modules[0], threads=1)


def test_the_default_file_lies_in_the_cache_folder(modules, tmp_path, races, monkeypatch):
    races()
    monkeypatch.setenv("RELAXQUANT_CACHE", str(tmp_path / "cache"))
    found = rq.tune(modules[0], threads=1)
    assert found.path.parent == tmp_path / "cache" / "tuned"
    assert tuned_file.read(found.path) == found
    assert [path.name for path in found.path.parent.iterdir()] == [found.path.name]


def key(layer, isa=AVX2) -> str:
    return layer_key(layer.spec, layer.weights, isa)


def test_what_a_layer_is_known_by():
    same = conv_layer(padding=(1, 1, 1, 1), zero_point=3, weight_max=60, seed=1)
    assert key(same) == key(conv_layer(padding=(1, 1, 1, 1), zero_point=200, weight_max=64, seed=2))
    others = [
        conv_layer(padding=(1, 1, 1, 1), zero_point=0, weight_max=60),
        conv_layer(padding=(1, 1, 1, 1), zero_point=3, weight_max=127),  # another dot product
        conv_layer(zero_point=3, weight_max=60),
        conv_layer(padding=(1, 1, 1, 1), zero_point=3, weight_max=60, residual="uint8"),
        conv_layer(padding=(1, 1, 1, 1), dtype="float32"),
        conv_layer(padding=(1, 1, 1, 1), zero_point=3, weight_max=60, batch=2),
    ]
    assert len({key(layer) for layer in [same, *others]}) == 1 + len(others)
    native = instruction_set(rq.target.resolve("generic"))
    assert key(same, native) != key(same)


def test_candidates_are_the_rules_choice_then_every_tile():
    layer = conv_layer(channels=32, out_channels=64, size=(8, 14), weight_max=60)
    found = [str(c) for c in candidates(layer.spec, layer.weights, AVX2)]
    choice = implement_conv2d(layer.spec, layer.weights, AVX2)
    assert found[0] == f"{choice.schedule} {choice.tile}"
    assert len(found) == len(set(found))
    tiles = possible_tiles(layer.spec, AVX2, AVX2.dots[0])
    assert {f"nchw_spatial_pack {tile}" for tile in tiles} <= set(found)
    assert not any(name.startswith("reference") for name in found)


def test_a_layer_that_only_the_reference_takes_has_one_candidate():
    layer = conv_layer(groups=4)
    assert [str(c) for c in candidates(layer.spec, layer.weights, AVX2)] == ["reference"]


def test_a_bench_runs_the_kernel_with_residual_and_all():
    target = rq.target.resolve("native")
    layer = conv_layer(residual="uint8", padding=(1, 1, 1, 1), clip=True, zero_point=2)
    isa = instruction_set(target)
    bench = Bench(LocalDevice(1), layer.spec, layer.weights, isa, target)
    run = bench.runner(implement_conv2d(layer.spec, layer.weights, isa))
    run()
    reference = bench.runner(plain_loops(layer.spec, layer.weights, isa))
    found = bench.output.numpy()
    reference()
    np.testing.assert_array_equal(bench.output.numpy(), found)


def test_layers_of_a_network_are_those_of_its_kernel_table(modules):
    for module in modules[:2]:
        table = [record for record in kernels(module) if record.macs]
        layers = conv_layers(module)
        assert [layer.shape for layer in layers] == [record.shape for record in table]
        assert [layer.spec.macs_per_image for layer in layers] == [record.macs for record in table]


def test_tiles_are_read_back_as_written():
    assert Tile.parse(str(Tile(2, 11))) == Tile(2, 11)
    for text in ("", "2", "2x", "axb", "1x2x3"):
        with pytest.raises(ValueError):
            Tile.parse(text)


def test_nothing_is_said_where_all_is_well(modules, tmp_path, races):
    races()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tune(modules[0], tmp_path / "t.json")
        tune(modules[0], tmp_path / "t.json")


def test_layers_with_a_faster_dot_product_in_some_places_are_others():
    """A trace for two dot products does not fit a layer that has but the one for all weights."""
    few, all_large = (conv_layer(channels=32, weight_max=w) for w in (16, 127))
    few.weights.weight[0, 4:6, 1, 1] = 127
    keys = {layer_key(layer.spec, layer.weights, AVX2) for layer in (few, all_large)}
    assert len(keys) == 2
