"""The committed manifest is complete and consistent."""

from __future__ import annotations

import re

import pytest

from relaxquant.zoo import cifar10, samples, tflite
from relaxquant.zoo.manifest import packages
from relaxquant.zoo.registry import MODELS
from relaxquant.zoo.sources import PackageWeights


@pytest.mark.parametrize("name", packages())
def test_a_package_is_pinned_in_full(name):
    package = packages()[name]
    digests = [package.archive_sha256, *package.files.values()]
    assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in digests)
    assert package.files
    assert package.registry in ("pypi", "npm")
    assert re.fullmatch(r"\d+(\.\d+)+", package.version)
    assert not any(member.startswith("/") or ".." in member for member in package.files)


def test_every_package_a_model_or_image_set_names_is_there():
    named = {
        source.package
        for spec in MODELS.values()
        for source in spec.sources
        if isinstance(source, PackageWeights)
    }
    named |= {*samples._PACKAGE.values(), *tflite.MODELS.values(), cifar10.PACKAGE, "scikit-image"}
    assert named == set(packages())


def test_providers_of_one_model_have_different_names():
    for spec in MODELS.values():
        providers = [source.provider for source in spec.sources]
        assert len(set(providers)) == len(providers)


def test_sample_files_carry_labels_of_their_dataset():
    sizes = {}
    for purpose, dataset in samples._PATTERN:
        members = samples.members_for(purpose, dataset)
        labels = [samples.label_of(member) for member in members]
        assert max(labels) < (1000 if dataset == "imagenet" else 10)
        sizes[purpose, dataset] = len(members)
    assert sizes == {
        ("calibration", "imagenet"): 20,
        ("calibration", "cifar10"): 17,
        ("evaluation", "imagenet"): 50,
        ("evaluation", "cifar10"): 50,
    }


@pytest.mark.parametrize("dataset", ["imagenet", "cifar10"])
def test_calibration_and_evaluation_samples_share_no_content(dataset):
    one, other = (
        {
            packages()[samples._PACKAGE[purpose]].files[m]
            for m in samples.members_for(purpose, dataset)
        }
        for purpose in ("calibration", "evaluation")
    )
    assert one
    assert other
    assert not one & other
