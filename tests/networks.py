"""Small torch networks that together hold every pattern the lowering knows."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Residual(nn.Module):
    """Stem, max pool, a basic block with a downsampling shortcut, global pool, dense."""

    def __init__(self, channels: int = 16, classes: int = 10):
        super().__init__()
        wide = 2 * channels
        self.stem = nn.Conv2d(3, channels, 7, 2, 3, bias=False)
        self.norm = nn.BatchNorm2d(channels)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.conv1 = nn.Conv2d(channels, wide, 3, 2, 1)
        self.norm1 = nn.BatchNorm2d(wide)
        self.conv2 = nn.Conv2d(wide, wide, 3, 1, 1)
        self.shortcut = nn.Conv2d(channels, wide, 1, 2)
        self.dense = nn.Linear(wide, classes)

    def forward(self, x):
        x = self.pool(F.relu(self.norm(self.stem(x))))
        y = self.conv2(F.relu(self.norm1(self.conv1(x))))
        x = F.relu(y + self.shortcut(x))
        return self.dense(torch.flatten(F.adaptive_avg_pool2d(x, 1), 1))


class InvertedResidual(nn.Module):
    """MobileNet-like: 1x1, depthwise 3x3, linear 1x1, residual add; odd channel count."""

    def __init__(self, channels: int = 24, expand: int = 40):
        super().__init__()
        self.stem = nn.Conv2d(3, channels, 3, 2, 1)
        self.expand = nn.Conv2d(channels, expand, 1)
        self.depthwise = nn.Conv2d(expand, expand, 3, 1, 1, groups=expand)
        self.project = nn.Conv2d(expand, channels, 1)
        self.dense = nn.Linear(channels, 7)

    def forward(self, x):
        x = F.relu6(self.stem(x))
        y = F.relu6(self.depthwise(F.relu6(self.expand(x))))
        x = x + self.project(y)
        return self.dense(x.mean([2, 3]))


class Branches(nn.Module):
    """Concatenation, average pooling, grouped and dilated convolutions, softmax left to TVM."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 20, 3, padding=1)
        self.left = nn.Conv2d(20, 12, 1)
        self.right = nn.Conv2d(20, 16, 3, padding=2, dilation=2, groups=2)
        self.last = nn.Conv2d(28, 5, (3, 1), padding=(1, 0))

    def forward(self, x):
        x = F.relu(self.first(x))
        x = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        x = F.avg_pool2d(x, 3, 2, 1)
        return torch.softmax(torch.flatten(self.last(x).mean([2, 3]), 1), -1)


class FlattenDense(nn.Module):
    """VGG-like end: flatten of a feature map into two dense layers."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.hidden = nn.Linear(6 * 4 * 4, 33)
        self.dense = nn.Linear(33, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return self.dense(F.relu(self.hidden(torch.flatten(x, 1))))


NETWORKS = {
    "residual": (Residual, (3, 32, 32)),
    "inverted_residual": (InvertedResidual, (3, 18, 18)),
    "branches": (Branches, (3, 11, 9)),
    "flatten_dense": (FlattenDense, (3, 8, 8)),
}


def make(name: str, batch: int = 2, seed: int = 0) -> tuple[nn.Module, torch.Tensor]:
    """A network in evaluation mode with lively batch norms, and an input for it."""
    torch.manual_seed(seed)
    build, shape = NETWORKS[name]
    network = build()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.5, 2)
    return network.eval(), torch.randn(batch, *shape)
