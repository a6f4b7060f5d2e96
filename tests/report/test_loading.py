"""A page from saved results, and one clear line about each directory that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from polytope_lm import report
from polytope_lm.errors import PolytopeError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from polytope_lm.codes.overview import CodeOverview
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.clusters.result import ClustersResult


@pytest.fixture
def saved(
    tmp_path: Path,
    clusters_result: Callable[..., ClustersResult],
    crossings_result: Callable[..., Crossings],
    overview_result: CodeOverview,
) -> Path:
    folder = tmp_path / "out"
    clusters_result((4, 8), tokens=120, first=()).save(folder)
    crossings_result(seed=1).save(folder / "crossings-1.json")
    crossings_result(seed=2).save(folder / "crossings-2.json")
    overview_result.save(folder)
    return folder


def test_saved_results_give_the_page_of_the_results_themselves(
    saved: Path,
    tmp_path: Path,
    clusters_result: Callable[..., ClustersResult],
    crossings_result: Callable[..., Crossings],
    overview_result: CodeOverview,
) -> None:
    loaded = report.from_directories([saved], tmp_path / "loaded.html")
    direct = report.write(
        tmp_path / "direct.html",
        clusters=clusters_result((4, 8), tokens=120, first=()),
        crossings=[crossings_result(seed=1), crossings_result(seed=2)],
        overview=overview_result,
    )
    assert loaded.read_bytes() == direct.read_bytes()


def test_parts_may_lie_in_several_directories(
    saved: Path, tmp_path: Path, crossings_result: Callable[..., Crossings]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    crossings_result(seed=5, prompts=("a third", "pair")).save(other / "crossings.json")
    html = report.from_directories([saved, other], tmp_path / "r.html").read_text(encoding="utf-8")
    assert "all layers and 3 pairs" in html
    assert "a third" in html


def test_two_comparisons_on_one_page_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(PolytopeError, match="second clusters result"):
        report.from_directories([saved, saved], tmp_path / "r.html")


def test_a_directory_without_results_is_named(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(PolytopeError, match=r"no result in '.*empty'"):
        report.from_directories([empty], tmp_path / "r.html")
    with pytest.raises(PolytopeError, match=r"'.*nowhere' is not a directory"):
        report.from_directories([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(PolytopeError, match="no directories given"):
        report.from_directories([], tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


@pytest.mark.parametrize("name", ["result.json", "crossings-1.json", "overview.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[]"])
def test_a_broken_file_is_named(saved: Path, tmp_path: Path, name: str, text: str) -> None:
    (saved / name).write_text(text)
    with pytest.raises(PolytopeError, match=name):
        report.from_directories([saved], tmp_path / "r.html")
