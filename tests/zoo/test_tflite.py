"""TFLite models of the zoo: from a package, from a file, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from relaxquant import zoo
from relaxquant.zoo import tflite
from tests.frontends.tflite_models import Network

UINT8 = ("uint8", 0.0078125, 128)


def classifier(path, classes=1001, dtype="uint8"):
    network = Network()
    x = network.input((1, 8, 8, 3), dtype, *UINT8[1:])
    y = network.conv2d(x, classes, 8, padding=1, weights=("uint8", 128, False))
    return network.save(path, [y])


def test_a_package_is_asked_by_the_name_of_its_model(serve, tmp_path, monkeypatch):
    content = classifier(tmp_path / "made.tflite").read_bytes()
    serve("carrier", {"package/assets/graph.lite": content}, registry="npm")
    monkeypatch.setitem(tflite.MODELS, "tiny", "carrier")
    model = zoo.load_tflite("tiny")
    assert model.path.read_bytes() == content
    assert (model.input_shape, model.first_class) == ((3, 8, 8), 1)
    assert model.weights == "npm carrier 1.0"
    assert zoo.load_tflite("tiny", offline=True).path == model.path
    assert serve.downloads == ["carrier"]


def test_a_file_is_taken_and_images_fit_it(tmp_path):
    model = zoo.load_tflite(classifier(tmp_path / "mine.tflite", classes=1000))
    assert (model.name, model.first_class) == ("mine", 0)
    images = zoo.evaluation_images(model, 3, images="synthetic")
    pixels = model.pixels(images.x)
    assert (pixels.shape, pixels.dtype) == ((3, 8, 8, 3), np.uint8)
    assert np.ptp(pixels) > 100


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("inception_v4", "did you mean 'inception_v3'"),
        ("/nowhere/model.tflite", "no TFLite model or file"),
        ("inception_v3", "no network"),
    ],
)
def test_what_cannot_be_had_is_one_error(name, message):
    with pytest.raises(zoo.ZooError, match=message):
        zoo.load_tflite(name)


def test_a_model_of_something_else_is_one_error(tmp_path):
    path = classifier(tmp_path / "other.tflite", classes=10)
    with pytest.raises(zoo.ZooError, match="no ImageNet classifier"):
        zoo.load_tflite(path)
