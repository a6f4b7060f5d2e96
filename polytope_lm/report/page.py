"""The report: one HTML file that works from disk, without a network, for years.

Everything is inside it: plotly.js, styles, scripts, data. The Content-Security-Policy allows these scripts
(by their SHA-256) and no other, and no address at all, so that nothing in a corpus can run or call out.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import jinja2
from markupsafe import Markup, escape

from polytope_lm.errors import PolytopeError, visible
from polytope_lm.files import expand
from polytope_lm.predictions.clusters.result import AGREEMENT, AMI, SCORES, SHORT
from polytope_lm.report import browser, drawings, facts
from polytope_lm.report.contents import Results, read_all

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from polytope_lm.codes.overview import CodeOverview
    from polytope_lm.geometry.slices import Slice
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.alignment.result import AlignmentResult
    from polytope_lm.predictions.boundaries.result import BoundariesResult
    from polytope_lm.predictions.clusters.result import ClustersResult, Difference, Estimate, LayerComparison
    from polytope_lm.predictions.clusters.specifications import Multiverse
    from polytope_lm.predictions.groups.result import GroupScores
    from polytope_lm.result import Result

_STYLES = ("colours", "parts", "report")
_SCRIPTS = (
    "core", "data", "figures", "tables", "tabs", "neighbours", "search", "clusters", "map", "crossings", "print",
    "start",
)  # fmt: skip
_BARS_SHOWN = 120


def write(  # noqa: PLR0913 - one argument for each kind of result
    path: str | Path,
    *,
    clusters: ClustersResult | None = None,
    crossings: Sequence[Crossings] = (),
    overview: CodeOverview | None = None,
    multiverse: Multiverse | None = None,
    groups: Sequence[GroupScores] = (),
    boundaries: BoundariesResult | None = None,
    alignment: AlignmentResult | None = None,
    slices: Sequence[Slice] = (),
    others: Sequence[Result] = (),
    title: str | None = None,
) -> Path:
    """Write the results as one self-contained page. Any part may be missing; its tab is then missing too.

    Args:
        path: the HTML file. It appears whole or not at all: written under another name, then renamed.
        clusters: prediction 1 put to the test.
        crossings: boundaries crossed between prompts, one a pair; the first one is on the first screen.
        overview: firing rates and ambiguous bits of each layer.
        multiverse: every choice that could have been made otherwise.
        groups: further scores of the clusters, one a layer.
        boundaries: prediction 2 put to the test.
        alignment: whether boundaries are dense where the output changes.
        slices: planes through three prompts' activations, cut by one layer's boundaries.
        others: results of any other kind, such as word senses; a tab a kind.
        title: stands in the page's head; the model's name by default.

    Returns:
        The path of the page.

    Raises:
        PolytopeError: there is nothing to show, or the place cannot be written to.

    """
    results = Results(
        clusters, tuple(crossings), overview, multiverse, tuple(groups), boundaries, alignment,
        tuple(slices), tuple(others),
    )  # fmt: skip
    if not results:
        msg = f"nothing to write to {str(path)!r}: give a result, such as clusters= or crossings="
        raise PolytopeError(msg)
    return _write_whole(expand(path), _render(results, title))


def from_directories(directories: Iterable[str | Path], path: str | Path, *, title: str | None = None) -> Path:
    """Write one page from saved results.

    Directories hold results of any kind, as `plm.load_results` reads them. One page has one of each kind, but
    crossings, slices and scores of groups add up. `path` and `title` are those of `write`.

    Raises:
        PolytopeError: a directory has no result, a file is none, or two directories have one of a kind.

    """
    return write(path, **read_all(directories), title=title)


def _render(results: Results, title: str | None) -> str:
    from plotly.offline import get_plotlyjs  # noqa: PLC0415 - slow to import, wanted only here

    scripts = [_inline(get_plotlyjs()), *(_inline(static(f"{name}.js")) for name in _SCRIPTS)]
    pairs = [drawings.pair_view(one) for one in results.crossings]
    data = _data(results, pairs)
    page = facts.gather(results, pairs)
    browsable = bool(data["layers"])
    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title or f"{page.model}: codes and what they are worth",
            policy=_policy(scripts),
            css=_inline("\n".join(static(f"{name}.css") for name in _STYLES)),
            scripts=scripts,
            data=data,
            tabs=_tabs(results, browsable=browsable),
            pairs=pairs,
            methods=drawings.later_methods(pairs),
            browsable=browsable,
            mapped=browser.mapped(results.clusters),
            scores=SCORES,
            glossary=[(name, meaning) for name, meaning in facts.TERMS.items() if name != "spline codes"],
            headline_cells=()
            if results.clusters is None
            else [(s, one, SHORT[one]) for s in (AMI, AGREEMENT) for one in results.clusters.layers[0].references],
            heights={name: figure["layout"]["height"] for name, figure in data["figures"].items()},
            **vars(results),
            **vars(page),
        )
    )


def _data(results: Results, pairs: Sequence[drawings.PairView]) -> dict[str, Any]:
    clusters = results.clusters
    return {
        "tokens": None if clusters is None else browser.tokens_data(clusters),
        "layers": [] if clusters is None else browser.layers_data(clusters),
        "crossings": [pair.packed for pair in pairs],
        "figures": drawings.figures(results),
    }


def _tabs(results: Results, *, browsable: bool) -> list[dict[str, str]]:
    clusters, boundaries, pairs = results.clusters, results.boundaries, results.crossings
    tested = any(one is not None for one in (clusters, boundaries, results.alignment))
    wanted = (
        ("overview", "Verdict" if tested else "Overview", tested or bool(pairs) or bool(results.others)),
        ("controls", "Controls", clusters is not None),
        ("clusters", "Clusters", browsable),
        ("map", "Map", browsable and bool(browser.mapped(clusters))),
        ("groups", "More scores", bool(results.groups)),
        ("multiverse", "Other choices", results.multiverse is not None),
        ("codes", "Codes", results.overview is not None),
        ("boundaries", "Boundaries", boundaries is not None or results.alignment is not None),
        ("crossings", "Crossings", bool(pairs)),
        ("slices", "Slices", bool(results.slices)),
        ("about", "How to read it", True),
    )
    tabs = [{"name": name, "title": title, "page": name} for name, title, there in wanted if there]
    kinds = dict.fromkeys(one.tab or one.kind for one in results.others)
    tabs[-1:-1] = [
        {"name": f"others-{number}" if number else "others", "title": title, "page": "others"}
        for number, title in enumerate(kinds)
    ]
    return tabs


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
        "terms": _terms,
        "score_names": _score_names,
        "bdi": _bdi,
        "own": Markup,  # a result's own HTML, which it has escaped
        "interval": _interval,
        "weight": _weight,
        "difference": _difference,
        "sparkbars": _sparkbars,
    }
    return environment


def _bdi(text: object) -> Markup:
    """Return the text escaped for HTML in a `<bdi>`, so that its direction ends with it."""
    return Markup("<bdi>{}</bdi>").format(visible(text))


_TERM = re.compile(
    r"\b(" + "|".join(sorted(map(re.escape, facts.TERMS), key=len, reverse=True)) + r")\b", re.IGNORECASE
)
_MEANT = {name.lower(): meaning for name, meaning in facts.TERMS.items()}


def _terms(text: object) -> Markup:
    """Return the text as `_bdi` does; what a word means is shown when it is pointed at or has the focus."""
    seen: set[str] = set()

    def explained(found: re.Match[str]) -> str:
        meant = _MEANT[found[0].lower()]
        if meant in seen:  # once in a text is enough
            return found[0]
        seen.add(meant)
        return str(Markup('<abbr tabindex="0" title="{}">{}</abbr>').format(meant, Markup(found[0])))  # noqa: S704

    return Markup("<bdi>{}</bdi>").format(Markup(_TERM.sub(explained, str(escape(visible(text))))))  # noqa: S704


def _score_names(scored: GroupScores) -> list[str]:
    """Return each score's name once, in the order of the representations' own lists."""
    return list(dict.fromkeys(score.name for each in scored.representations for score in each.scores))


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
        Markup('<rect x="{}" y="{:.1f}" width="1.6" height="{:.1f}"/>').format(2 * i, 20 - 20 * s / top, 20 * s / top)
        for i, s in enumerate(shown)
    )
    return Markup('<svg class="spark" width="{}" height="20" aria-hidden="true">{}</svg>').format(2 * len(shown), bars)


def static(name: str) -> str:
    """Return one of the page's own scripts or styles; the widgets are made of some of them."""
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
