"""Preprocessing against torchvision's own transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from relaxquant.zoo import ZooError
from relaxquant.zoo._torchvision import import_torchvision
from relaxquant.zoo.preprocess import CIFAR10, IMAGENET, IMAGENET_CAFFE

import_torchvision()


def _picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("size", [(300, 451), (451, 300), (224, 224), (97, 500), (257, 256)])
def test_imagenet_is_torchvisions_transform(size):
    from torchvision.transforms._presets import ImageClassification

    picture = Image.fromarray(_picture(*size))
    expected = ImageClassification(crop_size=224, resize_size=256)(picture).numpy()
    got = IMAGENET([picture])
    assert got.dtype == np.float32
    assert got.shape == (1, 3, 224, 224)
    np.testing.assert_allclose(got[0], expected, atol=1e-6)


def test_caffe_is_bgr_in_0_to_255_less_the_mean():
    picture = np.zeros((224, 224, 3), np.uint8)
    picture[...] = (10, 20, 30)
    got = IMAGENET_CAFFE([picture])[0]
    expected = np.float32([30 - 103.939, 20 - 116.779, 10 - 123.68])
    np.testing.assert_allclose(got[:, 112, 112], expected, atol=1e-4)


def test_cifar_leaves_32_by_32_pixels_as_they_are():
    picture = _picture(32, 32)
    np.testing.assert_allclose(CIFAR10([picture])[0], picture.transpose(2, 0, 1) / 255, atol=1e-7)


def test_arrays_pictures_and_batches_give_the_same():
    pictures = np.stack([_picture(40, 60, seed) for seed in range(3)])
    from_batch = CIFAR10(pictures)
    from_list = CIFAR10([Image.fromarray(picture) for picture in pictures])
    np.testing.assert_array_equal(from_batch, from_list)
    assert len(CIFAR10([])) == 0


def test_grey_and_transparent_pictures_become_rgb():
    grey = Image.fromarray(_picture(40, 40)[..., 0])
    assert CIFAR10([grey, grey.convert("RGBA")]).shape == (2, 3, 32, 32)


@pytest.mark.parametrize(
    "bad",
    [
        _picture(40, 40).astype(np.float32),
        _picture(40, 40)[..., 0],
        torch.zeros(3, 4, 4),
        "cat.jpg",
    ],
    ids=["float", "grey array", "tensor", "path"],
)
def test_other_things_are_refused(bad):
    with pytest.raises(ZooError, match="PIL image or a uint8 array"):
        CIFAR10([bad])
