"""Our CIFAR ResNet-18 against torchvision's ResNet with its stem exchanged."""

from __future__ import annotations

import torch
from torch import nn

from relaxquant.zoo._torchvision import import_torchvision
from relaxquant.zoo.cifar_resnet import CifarResNet18


def test_it_computes_what_torchvisions_resnet_does():
    torch.manual_seed(0)
    ours = CifarResNet18().eval()
    for buffer in ours.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    reference = import_torchvision().models.resnet18(num_classes=10).eval()
    reference.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    reference.maxpool = nn.Identity()
    renamed = {
        name.replace("shortcut", "downsample").replace("linear", "fc"): value
        for name, value in ours.state_dict().items()
    }
    reference.load_state_dict(renamed)
    x = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), reference(x))
