"""Pictures to network input, without torch: resize, centre crop, scale, normalise, NCHW."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .errors import ZooError

Picture = Image.Image | np.ndarray


@dataclass(frozen=True)
class Preprocess:
    """One network's preprocessing; call it on a list of pictures.

    The geometry is that of torchvision's ``ImageClassification`` transform on PIL images: the
    shorter edge is resized to `resize` with antialiasing, then the centre is cropped.

    Attributes
    ----------
    resize, crop : int
        Shorter edge after resizing, and edge of the square crop, in pixels.
    mean, std : tuple of 3 floats
        ``(pixel * scale - mean) / std`` per channel, in the order of `channels`.
    scale : float
        1/255 for pixels in [0, 1], 1 for pixels in [0, 255].
    channels : str
        ``"rgb"`` or ``"bgr"``.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    scale: float = 1 / 255
    channels: str = "rgb"

    def __call__(self, pictures: Sequence[Picture]) -> np.ndarray:
        """Return pictures as one float32 array.

        Parameters
        ----------
        pictures : sequence of PIL images or uint8 HWC arrays (or one uint8 NHWC array)

        Returns
        -------
        numpy.ndarray
            float32, NCHW, ``(len(pictures), 3, crop, crop)``.

        Raises
        ------
        ZooError
            If a picture is neither a PIL image nor a uint8 array of shape (H, W, 3).
        """
        x = np.empty((len(pictures), 3, self.crop, self.crop), np.float32)
        for i, picture in enumerate(pictures):
            x[i] = self._normalise(self.view(picture))
        return x

    def _normalise(self, pixels: np.ndarray) -> np.ndarray:
        """Turn uint8 HWC RGB into float32 CHW in the network's range and channel order."""
        if self.channels == "bgr":
            pixels = pixels[..., ::-1]
        mean, std = (np.float32(values).reshape(3, 1, 1) for values in (self.mean, self.std))
        return (pixels.transpose(2, 0, 1) * np.float32(self.scale) - mean) / std

    def view(self, picture: Picture) -> np.ndarray:
        """Return what the network sees of a picture: uint8 HWC RGB, ``(crop, crop, 3)``."""
        image = resize_shorter_edge(as_rgb(picture), self.resize)
        left = round((image.width - self.crop) / 2)
        top = round((image.height - self.crop) / 2)
        return np.asarray(image.crop((left, top, left + self.crop, top + self.crop)))


def as_rgb(picture: Picture) -> Image.Image:
    """Return a picture as an RGB PIL image; see `Preprocess.__call__` for what is taken."""
    if isinstance(picture, Image.Image):
        return picture.convert("RGB")
    good = isinstance(picture, np.ndarray) and picture.dtype == np.uint8
    if not good or picture.ndim != 3 or picture.shape[2] != 3:
        what = (
            f"{picture.dtype} array of shape {picture.shape}"
            if isinstance(picture, np.ndarray)
            else type(picture).__name__
        )
        raise ZooError(f"a picture is a PIL image or a uint8 array of shape (H, W, 3), not {what}")
    return Image.fromarray(picture)


def resize_shorter_edge(image: Image.Image, edge: int) -> Image.Image:
    """Resize so that the shorter edge is `edge` pixels, as torchvision's ``Resize(int)`` does."""
    short, long = sorted(image.size)
    if short == edge:
        return image
    other = int(edge * long / short)
    size = (edge, other) if image.width <= image.height else (other, edge)
    return image.resize(size, Image.Resampling.BILINEAR)


IMAGENET = Preprocess(256, 224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
# Caffe's convention, kept by the original Keras models: BGR, 0..255, mean subtracted.
IMAGENET_CAFFE = Preprocess(256, 224, mean=(103.939, 116.779, 123.68), scale=1.0, channels="bgr")
# What Inception V3 was trained on; torchvision gets there from `IMAGENET` within the network.
INCEPTION = Preprocess(342, 299, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
CIFAR10 = Preprocess(32, 32)
