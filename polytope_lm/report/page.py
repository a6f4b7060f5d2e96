"""The report: one HTML file that works from disk, without a network, for years.

Everything is inside it: plotly.js, styles, scripts, data. The Content-Security-Policy allows these scripts
(by their SHA-256) and no other, and no address at all, so that nothing in a corpus can run or call out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup

from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.results import AGREEMENT, AMI, BEST_COSINE, SCORES, SIMHASH
from polytope_lm.report import browser, facts, figures, strips
from polytope_lm.report.inert import bdi, visible

if TYPE_CHECKING:
    from collections.abc import Sequence

    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.overview import CodeOverview
    from polytope_lm.predictions.results import ClustersResult, Difference, Estimate, LayerComparison

_SCRIPTS = ("core", "figures", "tables", "tabs", "search", "clusters", "map", "crossings", "start")
_HEADLINE_CELLS = ((AMI, BEST_COSINE), (AMI, SIMHASH), (AGREEMENT, BEST_COSINE), (AGREEMENT, SIMHASH))
_BARS_SHOWN = 120


def write(
    path: str | Path,
    *,
    clusters: ClustersResult | None = None,
    crossings: Sequence[Crossings] = (),
    overview: CodeOverview | None = None,
    title: str | None = None,
) -> Path:
    """Write the results as one self-contained page. Any part may be missing; its tab is then missing too.

    Args:
        path: the HTML file. It appears whole or not at all: written under another name, then renamed.
        clusters: prediction 1 put to the test.
        crossings: boundaries crossed between prompts, one a pair; the first one is on the first screen.
        overview: firing rates and ambiguous bits of each layer.
        title: stands in the page's head; the model's name by default.

    Returns:
        The path of the page.

    Raises:
        PolytopeError: there is nothing to show, or the place cannot be written to.

    """
    if clusters is None and not crossings and overview is None:
        msg = f"nothing to write to {str(path)!r}: give clusters=, crossings= or overview="
        raise PolytopeError(msg)
    html = _render(clusters, strips.pair_views(crossings), overview, title)
    return _write_whole(Path(path), html)


def _render(
    clusters: ClustersResult | None,
    pairs: Sequence[strips.PairView],
    overview: CodeOverview | None,
    title: str | None,
) -> str:
    scripts = [_inline(_plotly()), *(_inline(_static(f"{name}.js")) for name in _SCRIPTS)]
    data = _data(clusters, pairs, overview)
    page = facts.gather(clusters, pairs, overview)
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title or f"{page.model}: codes and what they are worth",
            version=page.version,
            policy=_policy(scripts),
            css=_inline(_static("report.css")),
            scripts=scripts,
            data=data,
            tabs=_tabs(clusters, pairs, overview, browsable=bool(data["layers"])),
            clusters=clusters,
            pairs=pairs,
            methods=strips.later_methods(pairs),
            overview=overview,
            browsable=bool(data["layers"]),
            scores=SCORES,
            headline_cells=_HEADLINE_CELLS,
            **page.for_template(),
        )
    )


def _data(
    clusters: ClustersResult | None, pairs: Sequence[strips.PairView], overview: CodeOverview | None
) -> dict[str, Any]:
    drawn: dict[str, figures.Figure] = {}
    if clusters is not None:
        drawn["differences"] = figures.differences_figure(clusters)
        drawn |= {f"scores-{row}": figures.scores_figure(layer) for row, layer in enumerate(clusters.layers)}
    if overview is not None:
        drawn["rates"] = figures.rates_figure(overview)
    if pairs:
        drawn["strip"] = (
            strips.layers_figure(pairs[0], 0) if clusters is None else strips.first_figure(pairs[0])
        )
        drawn |= {f"pair-{index}": strips.layers_figure(pair, index) for index, pair in enumerate(pairs)}
    return {
        "tokens": None if clusters is None else browser.tokens_data(clusters),
        "layers": [] if clusters is None else browser.layers_data(clusters),
        "crossings": [pair.packed for pair in pairs],
        "figures": drawn,
    }


def _tabs(
    clusters: ClustersResult | None, pairs: Sequence[Any], overview: CodeOverview | None, *, browsable: bool
) -> list[dict[str, str]]:
    wanted = (
        ("overview", "Verdict" if clusters is not None else "Overview", clusters is not None or bool(pairs)),
        ("controls", "Controls", clusters is not None),
        ("clusters", "Clusters", browsable),
        ("map", "Map", browsable and browser.has_map(clusters)),
        ("codes", "Codes", overview is not None),
        ("crossings", "Crossings", bool(pairs)),
        ("about", "How to read it", True),
    )
    return [{"name": name, "title": title} for name, title, there in wanted if there]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("polytope_lm.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "visible": visible,
        "bdi": bdi,
        "interval": _interval,
        "weight": _weight,
        "difference": _difference,
        "sparkbars": _sparkbars,
    }
    return environment


def _interval(estimate: Estimate, *, signed: bool = False) -> str:
    form = "+.3f" if signed else ".3f"
    return f"[{estimate.low:{form}}, {estimate.high:{form}}]"


def _weight(estimate: Estimate, smallest: float) -> str:
    """Name the style of a difference: its interval lies beyond the smallest effect of interest, or not."""
    if estimate.low > smallest:
        return "ahead"
    return "behind" if estimate.high < -smallest else "near"


def _difference(layer: LayerComparison, name: str, reference: str, score: str) -> Difference | None:
    wanted = (name, reference, score)
    return next((d for d in layer.differences if (d.representation, d.reference, d.score) == wanted), None)


def _sparkbars(sizes: Sequence[int]) -> Markup:
    """Draw cluster sizes, largest first, as small bars; the first 120 of them."""
    shown = list(sizes)[:_BARS_SHOWN]
    top = max(shown, default=1) or 1
    bars = Markup("").join(
        Markup('<rect x="{}" y="{:.1f}" width="1.6" height="{:.1f}"/>').format(
            2 * i, 20 - 20 * s / top, 20 * s / top
        )
        for i, s in enumerate(shown)
    )
    return Markup('<svg class="spark" width="{}" height="20" aria-hidden="true">{}</svg>').format(
        2 * len(shown), bars
    )


def _plotly() -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import, wanted only here

    return str(get_plotlyjs())


def _static(name: str) -> str:
    return files("polytope_lm.report").joinpath("static", name).read_text(encoding="utf-8")


def _inline(source: str) -> Markup:
    """Mark one of the package's own scripts or styles as safe; it must not be able to end its element."""
    lowered = source.lower()
    if "</script" in lowered or "</style" in lowered or "<!--" in lowered:
        msg = "a script of the report contains the end of its own element; reinstall plotly"
        raise PolytopeError(msg)
    return Markup(source.replace("\r\n", "\n"))  # noqa: S704


def _policy(scripts: Sequence[str]) -> str:
    """Allow the page's own scripts and plotly's inline styles; no network, frames, forms, or other script."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _write_whole(path: Path, html: str) -> Path:
    """Write the page under another name beside its place, then rename it: nobody ever sees half a page."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(html, encoding="utf-8", newline="\n")
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or error
        msg = f"cannot write the report to {str(path)!r}: {why}; free space or choose another place"
        raise PolytopeError(msg) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return path
