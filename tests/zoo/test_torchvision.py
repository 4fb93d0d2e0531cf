"""torchvision imports beside a CPU torch; torch's absence is one clear error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from relaxquant.zoo import ZooError, _torchvision, class_names


def test_it_imports_in_a_fresh_process():
    code = (
        "from relaxquant.zoo._torchvision import import_torchvision as imp\n"
        "assert imp() is imp()\n"
        "print(imp().models.squeezenet1_1(weights=None).num_classes)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1000"


@pytest.mark.parametrize("module", ["torch", "torchvision"])
def test_an_absent_package_says_what_to_install(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ZooError, match=r"pip install .*torchvision"):
        _torchvision.import_torch()
        _torchvision.import_torchvision()


def test_class_names():
    imagenet = class_names("imagenet")
    assert len(imagenet) == 1000
    assert (imagenet[0], imagenet[285], imagenet[999]) == ("tench", "Egyptian cat", "toilet tissue")
    assert class_names("cifar10")[3] == "cat"
    assert len(class_names("cifar10")) == 10
    with pytest.raises(ZooError, match=r"'mnist'; known: imagenet, cifar10"):
        class_names("mnist")
