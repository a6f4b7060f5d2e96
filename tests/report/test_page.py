"""One file, whole or not at all, that runs its own scripts only."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from markupsafe import escape

from polytope_lm import report
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import ClustersResult
from polytope_lm.report import write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from polytope_lm.codes.overview import CodeOverview
    from polytope_lm.paths.crossings import Crossings

SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
DATA = re.compile(r'<script type="application/json" id="data">(.*?)</script>', re.DOTALL)


def bdi(text: str) -> str:
    return f"<bdi>{escape(text)}</bdi>"


def test_every_script_is_allowed_by_its_own_hash_and_no_other_is(
    tmp_path: Path, clusters_result: Callable[..., ClustersResult]
) -> None:
    html = report.write(tmp_path / "r.html", clusters=clusters_result()).read_text(encoding="utf-8")
    found = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert found is not None
    policy = found[1].replace("&#39;", "'")
    assert "default-src 'none'" in policy
    sources = policy.split("script-src ")[1].split(";")[0].split()
    digests = [base64.b64encode(hashlib.sha256(s.encode()).digest()).decode() for s in SCRIPT.findall(html)]
    assert [f"'sha256-{digest}'" for digest in digests] == sources
    assert "http:" not in policy
    assert "https:" not in policy
    assert "unsafe-eval" not in policy


def test_nothing_in_the_page_points_elsewhere(
    tmp_path: Path, clusters_result: Callable[..., ClustersResult], overview_result: CodeOverview
) -> None:
    html = report.write(tmp_path / "r.html", clusters=clusters_result(), overview=overview_result).read_text("utf-8")
    markup = SCRIPT.sub("", html)
    assert not re.search(r'(src|href)="(?!#)', markup)
    assert "@import" not in markup
    assert "url(" not in markup


def test_data_survives_the_way_through_the_page(tmp_path: Path, clusters_result: Callable[..., ClustersResult]) -> None:
    html = report.write(tmp_path / "r.html", clusters=clusters_result()).read_text(encoding="utf-8")
    blocks = DATA.findall(html)
    assert len(blocks) == 1
    assert not re.search("[<>&']", blocks[0])
    tokens = json.loads(blocks[0])["tokens"]["token"]
    assert tokens[:3] == ["<script>window.hurt = 1</script>", "<img src=x onerror='window.hurt = 1'>", r"\u202egnp.exe"]
    assert tokens[5] == "</script><script>window.hurt = 1</script>"
    assert tokens[6:8] == ["${window.hurt = 1}", "{{ 7 * 7 }}"]


def test_names_and_prompts_are_escaped_too(
    tmp_path: Path, clusters_result: Callable[..., ClustersResult], crossings_result: Callable[..., Crossings]
) -> None:
    bad = "<script>window.hurt = 1</script>\u202e\ud800"
    pair = crossings_result(prompts=(bad, "b"))
    html = report.write(tmp_path / "r.html", clusters=clusters_result(), crossings=[pair], title=bad).read_text("utf-8")
    assert "<script>window.hurt" not in html
    assert "\u202e" not in html
    assert r"&lt;script&gt;window.hurt = 1&lt;/script&gt;\u202e\ud800" in html


def test_the_same_results_give_the_same_bytes(tmp_path: Path, clusters_result: Callable[..., ClustersResult]) -> None:
    one = report.write(tmp_path / "1.html", clusters=clusters_result(tokens=120))
    two = report.write(tmp_path / "2.html", clusters=clusters_result(tokens=120))
    assert one.read_bytes() == two.read_bytes()


def test_negative_verdicts_and_premises_are_printed(
    tmp_path: Path, clusters_result: Callable[..., ClustersResult]
) -> None:
    result = clusters_result()
    assert {"mixed", "inconclusive"} <= {verdict.outcome for verdict in result.verdicts}
    html = report.write(tmp_path / "r.html", clusters=result).read_text(encoding="utf-8")
    assert 'class="outcome mixed"' in html
    assert "gated (silu), without biases, RMSNorm before it; outside the paper" in html
    assert result.command in html


def test_the_table_has_every_score_and_interval(tmp_path: Path, clusters_result: Callable[..., ClustersResult]) -> None:
    result = clusters_result((4,), tokens=120)
    html = report.write(tmp_path / "r.html", clusters=result).read_text(encoding="utf-8")
    for one in result.layers[0].representations:
        for score in one.scores:
            estimate = score.estimate
            assert f"{estimate.value:.3f}<br><small>[{estimate.low:.3f}, {estimate.high:.3f}]" in html
    for found in result.layers[0].differences:
        if found.score != "AMI with token identity":
            assert f"[{found.estimate.low:+.3f}, {found.estimate.high:+.3f}]" in html


@pytest.mark.parametrize("part", ["clusters", "crossings", "overview", "clusters without tokens"])
def test_parts_may_be_missing(
    part: str,
    tmp_path: Path,
    clusters_result: Callable[..., ClustersResult],
    crossings_result: Callable[..., Crossings],
    overview_result: CodeOverview,
) -> None:
    bare = ClustersResult.from_dict(clusters_result(tokens=60).to_dict())
    parts = {
        "clusters": ({"clusters": clusters_result(tokens=60)}, {"overview", "controls", "clusters", "map", "about"}),
        "clusters without tokens": ({"clusters": bare}, {"overview", "controls", "about"}),
        "crossings": ({"crossings": [crossings_result(change=False)]}, {"overview", "crossings", "about"}),
        "overview": ({"overview": overview_result}, {"codes", "about"}),
    }
    given, tabs = parts[part]
    html = report.write(tmp_path / "r.html", **given).read_text(encoding="utf-8")
    assert set(re.findall(r'id="tab-(\w+)"', html)) == tabs


def test_nothing_to_show_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PolytopeError, match=r"nothing to write to .*r\.html"):
        report.write(tmp_path / "r.html")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_page_and_nothing_else(
    tmp_path: Path, crossings_result: Callable[..., Crossings], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "r.html"
    page.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pathlib.Path.replace", full)
    with pytest.raises(PolytopeError, match="No space left on device; free space"):
        report.write(page, crossings=[crossings_result()])
    assert page.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]


def test_an_impossible_place_is_one_clear_line(tmp_path: Path, crossings_result: Callable[..., Crossings]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PolytopeError, match=r"cannot write the report to .*file/r\.html"):
        report.write(tmp_path / "file" / "r.html", crossings=[crossings_result()])


def test_the_report_loads_no_model_library() -> None:
    code = "import sys, polytope_lm.report; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_how_later_layers_were_searched_is_said_as_it_was(
    crossings_result: Callable[..., Crossings], tmp_path: Path
) -> None:
    found = crossings_result()
    grid = write(tmp_path / "a.html", crossings=[found]).read_text(encoding="utf-8")
    later = [part for part in found.layers if part.method != "closed form"]
    assert f"({bdi(later[0].method)})" in grid
    how = "17 Chebyshev nodes, 7 held out"
    layers = tuple(part if part not in later else replace(part, method=how) for part in found.layers)
    page = write(tmp_path / "b.html", crossings=[replace(found, layers=layers)]).read_text(encoding="utf-8")
    assert f"({bdi(how)})" in page
    own = tuple(part for part in found.layers if part not in later)
    page = write(tmp_path / "c.html", crossings=[replace(found, layers=own)]).read_text(encoding="utf-8")
    assert "later layers were not searched" in page


def test_extras_that_a_layer_could_not_give_are_listed(
    clusters_result: Callable[..., ClustersResult], tmp_path: Path
) -> None:
    result = clusters_result()
    first = replace(result.layers[0], left_out={"<b>mine": "layer 0 is not gated"})
    page = write(tmp_path / "r.html", clusters=replace(result, layers=(first, *result.layers[1:])))
    text = page.read_text(encoding="utf-8")
    assert f"Left out: {bdi('<b>mine')} ({bdi('layer 0 is not gated')})." in text
    assert text.count("Left out:") == 1
