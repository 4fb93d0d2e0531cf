from __future__ import annotations

import pytest

from workbook import paths, reached

FILES = {
    "__init__.py": "",
    "bars.py": "from workbook import ink\n",
    "ink.py": "from workbook.bars import draw\n",  # in a circle
    "later.py": "def f():\n    import workbook.deep.down\n",
    "deep/__init__.py": "",
    "deep/down.py": "X = 1\n",
    "alone.py": "",
    "peers/__init__.py": "",
    "peers/plan.py": "",
    "peers/ours.py": "import workbook.alone",
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / "workbook" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("from workbook import bars", ["__init__", "bars", "ink"]),
        ("from workbook.bars import draw", ["__init__", "bars", "ink"]),
        ("import workbook.later as l", ["deep/down", "later"]),
        ("from workbook.deep import down", ["deep/__init__", "deep/down"]),
        ("%matplotlib inline\n!ls\nfrom workbook import alone", ["__init__", "alone"]),
        ("import workbook.peers.plan", ["alone", "peers/__init__", "peers/ours", "peers/plan"]),
        ("import numpy\nfrom workbookish import bars", []),
        ("from workbook import nothing_there", ["__init__"]),
        ("this is no Python", []),
    ],
)
def test_modules_that_code_reaches(checkout, source, found):
    files = reached.modules([source], checkout)
    names = [path.relative_to(checkout / "workbook").with_suffix("").as_posix() for path in files]
    assert names == found


def test_a_notebook_reaches_its_figures_and_not_the_runner():
    files = reached.modules(["from workbook import bit_sweep, story_plots"], paths.root())
    names = {path.stem for path in files}
    assert {"bit_sweep", "widths", "story_plots", "paper", "headline", "figures"} <= names
    assert not {"runner", "cli", "bench", "chromium"} & names
