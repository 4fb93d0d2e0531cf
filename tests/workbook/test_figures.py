"""The palette is told apart by whoever sees it, as far as a simulation can say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from workbook import proof_plots, schedule_plots
from workbook.figures import COLOURS, colour

# Machado, Oliveira and Fernandes (2009), complete lack of one cone, in linear RGB.
SIGHT = {
    "all cones": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750],
     [0.0193339, 0.1191920, 0.9503041]]
)  # fmt: skip
WHITE = XYZ @ np.ones(3)
# Of CIE 1976; about 2 is just seen side by side, and bars of a legend are apart.
APART = 15


def lab(name, sight):
    """CIELAB of a colour as it is seen."""
    rgb = np.array(to_rgb(name))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(sight) @ linear, 0, 1)
    x, y, z = np.cbrt(np.maximum(XYZ @ seen / WHITE, 0.008856))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(first, second, sight):
    return np.linalg.norm(lab(first, sight) - lab(second, sight))


@pytest.mark.parametrize("sight", SIGHT)
def test_colours_are_apart_to_every_eye(sight):
    found = {
        pair: distance(COLOURS[pair[0]], COLOURS[pair[1]], SIGHT[sight])
        for pair in combinations(COLOURS, 2)
    }
    assert {pair: d for pair, d in found.items() if d < APART} == {}


@pytest.mark.parametrize("sight", SIGHT)
def test_what_is_multiplied_is_apart_to_every_eye(sight):
    roles = [colour(role) for role in proof_plots.ROLES.values()]
    shades = [*roles, proof_plots.OTHERWISE, proof_plots.NOTHING]
    assert min(distance(a, b, SIGHT[sight]) for a, b in combinations(shades, 2)) > APART


def test_the_simulation_finds_what_is_confused():
    assert distance("#9A9A9A", COLOURS["other"], SIGHT["deuteranopia"]) < APART
    assert distance("#9A9A9A", COLOURS["other"], SIGHT["all cones"]) > APART
    assert distance("white", "black", np.eye(3)) > 90


def test_more_schedules_than_colours_still_look_different():
    names = [f"schedule_{i}" for i in range(2 * len(COLOURS) + 1)]
    looks = schedule_plots.looks([*names, "schedule_0_int"])
    assert len({tuple(look.values()) for look in looks.values()}) == len(names)
    assert looks["schedule_0_int"] == looks["schedule_0"]
    assert [look["hatch"] for look in looks.values()][: len(COLOURS)] == [""] * len(COLOURS)
