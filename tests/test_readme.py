"""The README's figures are those of the reference run."""

from __future__ import annotations

import ast
import dataclasses
from pathlib import Path

import pytest

import relaxquant as rq
from workbook import bench_reference, reference
from workbook.errors import WorkbookError

ROOT = Path(__file__).resolve().parent.parent


def test_readme_shows_the_reference_run():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split(reference.START)[1].split(reference.END)[0].strip()
    assert block == reference.markdown(ROOT / "outputs" / "reference").strip()


def test_readme_shows_the_kept_benchmark():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text.split(bench_reference.START)[1].split(bench_reference.END)[0].strip()
    kept = ROOT / "outputs" / "reference" / "bench"
    assert block == bench_reference.markdown(kept).strip()


def test_a_run_that_is_no_benchmark_is_refused(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(f"{bench_reference.START}{bench_reference.END}", encoding="utf-8")
    with pytest.raises(WorkbookError, match=r"lacks results\.csv"):
        bench_reference.keep(tmp_path, tmp_path / "bench", readme)
    with pytest.raises(WorkbookError, match="no time ratios"):
        bench_reference.keep(ROOT / "outputs" / "reference", tmp_path / "bench", readme)


def test_files_the_readme_names_exist():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = {part.split(")")[0] for part in text.split("](")[1:]}
    assert targets
    assert [name for name in targets if not (ROOT / name).exists()] == []


def test_a_run_that_lacks_a_notebook_is_refused(tmp_path):
    with pytest.raises(WorkbookError, match=r"lacks results\.csv"):
        reference.keep(tmp_path, tmp_path / "reference", ROOT / "README.md")


def test_fields_of_relay_quantize_have_their_defaults():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text.split("## Coming from relay.quantize")[1].split("\n## ")[0]
    lines = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    said = {name.strip(" `"): ast.literal_eval(value.strip(" `")) for name, value in lines}
    assert len(said) == len(lines) == 17
    config = rq.QConfig()
    for name, value in said.items():
        found = getattr(config, name)
        assert (list(found) if isinstance(found, tuple) else found) == value, name
    listed = section.split("New beside them:")[1].split(";")[0].split("`")[1::2]
    assert listed and set(listed) <= {field.name for field in dataclasses.fields(config)}
