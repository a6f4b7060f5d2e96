"""Results as the predictions would return them, from random numbers: the page's tests need no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import pytest
from pages import FIRST_SCREEN, Opened

from polytope_lm import report
from polytope_lm.codes.overview import CodeOverview, LayerOverview
from polytope_lm.models.sites import Premises, Site
from polytope_lm.paths.crossings import Crossings, LayerMethod, OutputChange
from polytope_lm.predictions.clusters.result import (
    AGREEMENT,
    AMI,
    REFERENCES,
    SCORES,
    SIMHASH,
    ClustersResult,
    Difference,
    Hubs,
    LayerComparison,
    RepresentationResult,
    SampleSummary,
    Score,
    Settings,
)
from polytope_lm.statistics.estimate import Estimate
from polytope_lm.statistics.verdict import Cell, decide, over_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from playwright.sync_api import Browser

NASTY = (
    "<script>window.hurt = 1</script>",
    "<img src=x onerror='window.hurt = 1'>",
    "\u202egnp.exe",
    "a\x00b",
    "\ud800",
    "</script><script>window.hurt = 1</script>",
    "${window.hurt = 1}",
    "{{ 7 * 7 }}",
    "👩‍💻🏳️‍🌈",
    "<!--",
    "%{x}",
)
"""Tokens that would run, reorder or break a page that is not careful."""

WORDS = {
    "NOUN": ("river", "bank", "money", "window", "question", "garden", "letter", "teacher"),
    "VERB": ("walked", "borrowed", "opened", "answered", "carried", "forgot", "painted"),
    "ADJ": ("quiet", "yellow", "careful", "narrow", "distant", "simple"),
    "ADV": ("slowly", "never", "almost", "together", "again"),
    "PROPN": ("Anna", "Lisbon", "Peter", "Norway"),
    "ADP": ("under", "between", "across", "beside"),
    "PRON": ("she", "they", "nobody"),
    "DET": ("every", "another", "the"),
    "CCONJ": ("and", "but"),
    "NUM": ("seven", "1912"),
}
NAMES = ("code", "rate-standardised code", "cosine of h", "centred cosine of h", SIMHASH)
ROLES = ("claim", "claim", "reference", "reference", "control")


def site(layer: int) -> Site:
    premises = Premises("gated", "silu", biased=False, norm="RMSNorm")
    return Site(layer, "gate", f"blocks.{layer}.mlp.hook_gate", 1536, 576, premises)


def estimate(value: float, sd: float) -> Estimate:
    return Estimate(value, sd, value - 1.96 * sd, value + 1.96 * sd)


def _representations(base: float, ahead: dict[str, float], k: int, tokens: int, rng: np.random.Generator):
    out = []
    for name, role in zip(NAMES, ROLES, strict=True):
        value = base + ahead.get(name, 0.0)
        draws = tuple(value + rng.normal(0, 0.004, 5)) if role == "control" else ()
        scores = tuple(
            Score(score, estimate(value * scale, 0.008), tokens, draws)
            for score, scale in zip(SCORES, (1, 1.6, 1.2), strict=True)
        )
        sizes = tuple(int(s) for s in rng.multinomial(tokens, rng.dirichlet(np.ones(k))))
        hubs = Hubs(int(rng.integers(20, 90)), float(rng.uniform(1, 3)), float(rng.uniform(0.01, 0.2)))
        metric = "Hamming" if name in {"code", SIMHASH} else "cosine"
        out.append(RepresentationResult(name, role, f"what {name} isolates", metric, scores, sizes, hubs))
    return tuple(out)


def _differences(ahead: dict[str, float], sd: float) -> tuple[Difference, ...]:
    out = []
    for name in NAMES:
        for reference in REFERENCES:
            level = ahead.get(reference, 0.0)
            if name == reference:
                continue
            out.extend(
                Difference(name, reference, score, estimate((ahead.get(name, 0.0) - level) * scale, sd), 0.5)
                for score, scale in zip(SCORES, (1, 1.6, 1.2), strict=True)
            )
    return tuple(out)


def _comparison(layer: int, k: int, tokens: int, seed: int) -> LayerComparison:
    rng = np.random.default_rng([seed, layer])
    drift = 0.05 * np.sin(layer / 3)
    ahead = dict(zip(NAMES, (drift, drift + 0.012, -0.01, 0.0, drift - 0.022), strict=True))
    differences = _differences(ahead, 0.006)
    cells = [
        Cell(d.reference, d.score, d.estimate)
        for d in differences
        if d.representation == "code" and d.score in {AMI, AGREEMENT} and d.reference in REFERENCES
    ]
    place = site(layer)
    verdict = decide(
        cells,
        place=f"Layer {layer}",
        documents=60,
        smallest_effect=0.01,
        premises=str(place.premises),
        premises_met=place.premises.met,
    )
    best = dict.fromkeys(SCORES, NAMES[3])
    return LayerComparison(place, k, _representations(0.21 + drift, ahead, k, tokens, rng), differences, best, verdict)


def _token_table(layers: Sequence[int], k: int, tokens: int, seed: int, first: Sequence[str]) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    labels = rng.choice(list(WORDS), tokens, p=np.arange(len(WORDS), 0, -1) / 55)
    words = [str(rng.choice(WORDS[label])) for label in labels]
    words[: len(first)] = first
    every = [word for group in WORDS.values() for word in group]
    table = pd.DataFrame(
        {
            "row": np.arange(tokens),
            "document": [f"doc-{i % 60}" for i in range(tokens)],
            "position": rng.integers(5, 400, tokens),
            "left": [" ".join(rng.choice(every, 7)) + " " for _ in range(tokens)],
            "token": pd.Series(words, dtype=object),  # a lone surrogate fits no Arrow string
            "right": [" " + " ".join(rng.choice(every, 7)) for _ in range(tokens)],
            "upos": labels,
        }
    )
    columns = {}
    for layer in layers:
        key = site(layer).key
        points = {name: rng.normal(size=(tokens, 12)) for name in ("code", "cosine")}
        shift = pd.factorize(table["upos"])[0]
        for name, at in points.items():
            at[np.arange(tokens), shift % 12] += 2.0
            distance = ((at[:, None] - at[None]) ** 2).sum(-1) if tokens <= 1000 else rng.random((tokens, 64))
            np.fill_diagonal(distance, np.inf)
            nearest = np.argsort(distance, axis=1)[:, :10]
            columns[f"{key}/neighbours/{name}"] = list(nearest)
            values = np.take_along_axis(distance, nearest, axis=1)
            columns[f"{key}/distances/{name}"] = list(np.round(20 * values) if name == "code" else values / 60)
        for name, at in points.items():
            columns[f"{key}/map/{name}"] = list(at[:, :2] / np.abs(at).max())
        for name in NAMES:
            columns[f"{key}/cluster/{name}"] = np.where(rng.random(tokens) < 0.6, shift, rng.integers(0, k, tokens))
    return pd.concat([table, pd.DataFrame(columns)], axis=1)


def make_clusters(
    layers: Sequence[int] = (0, 4, 8, 11), tokens: int = 600, seed: int = 0, first: Sequence[str] = NASTY
) -> ClustersResult:
    k = max(len(WORDS), tokens // 60)
    compared = [_comparison(layer, k, tokens, seed) for layer in layers]
    verdicts = over_layers([one.verdict for one in compared])
    compared = [
        LayerComparison(c.site, c.k, c.representations, c.differences, c.best_cosine, v)
        for c, v in zip(compared, verdicts, strict=True)
    ]
    table = _token_table(layers, k, tokens, seed, first)
    counts = {str(name): int(count) for name, count in table["upos"].value_counts().items()}
    return ClustersResult(
        settings=Settings("upos", k, 10, 6000, seed, 200, 0.01, "surface", "lemma"),
        sample=SampleSummary(tokens, 60, tokens + 40, 2, 12, 5, 23, counts),
        layers=tuple(compared),
        provenance={"model": "smollm2-135m", "revision": "packaged", "dtype": "float32", "attention": "sdpa"},
        versions={"polytope_lm": "0.1.0", "numpy": np.__version__},
        command="polytope-lm test clusters store --label upos --layers 0,4,8,11 --seed 0 --out out",
        tokens=table,
    )


def make_overview(layers: Sequence[int] = (0, 4, 8, 11)) -> CodeOverview:
    rng = np.random.default_rng(3)
    out = []
    for layer in layers:
        rates = rng.beta(1 + layer / 4, 2.5, 1536)
        histogram = tuple(int(n) for n in np.histogram(rates, 20, (0, 1))[0])
        share = float(rng.uniform(0.36, 0.77))
        out.append(LayerOverview(site(layer), 4800, histogram, 3 + layer, 1, float(rates.sum()), 4790, share))
    return CodeOverview(tuple(out), 60, 12, {"model": "smollm2-135m", "dtype": "float32"})


def make_crossings(
    layers: Sequence[int] = (4, 5, 6, 7, 8, 9, 10, 11),
    prompts: tuple[str, str] = ("We sat on the bank of the river", "We owe the bank a lot of money"),
    *,
    change: bool = True,
    seed: int = 0,
) -> Crossings:
    rng = np.random.default_rng(seed)
    counts = rng.integers(200, 420, len(layers))
    total = int(counts.sum())
    places = np.linspace(0, 1, 34)
    js = 0.3 * np.exp(-(((places[1:] - 0.5) / 0.2) ** 2)) + 0.02 * rng.random(33)
    output = OutputChange(places, js, (" and",) * 20 + (" to",) * 14, np.linspace(0.2, 0.4, 34))
    methods = tuple(
        LayerMethod(site(layer), "grid of 33 steps" if row else "closed form", None if row else 0, int(counts[row]) - 2)
        for row, layer in enumerate(layers)
    )
    return Crossings(
        prompts=prompts,
        tokens=(" river", " money"),
        site=site(layers[0]),
        at="resid_mid",
        space="resid_mid",
        scope="stream",
        shape="line",
        length=31.4,
        t=np.concatenate([np.sort(rng.beta(2.2, 2.2, n)) for n in counts]),
        layer=np.repeat(np.array(layers), counts).astype(np.int16),
        neuron=rng.integers(0, 1536, total).astype(np.int32),
        on=rng.random(total) < 0.5,
        layers=methods,
        output_change=output if change else None,
        provenance={"model": "smollm2-135m", "revision": "packaged", "dtype": "float32"},
    )


@pytest.fixture(scope="session")
def clusters_result() -> Callable[..., ClustersResult]:
    """Builds a comparison; its first tokens are markup, controls and other traps."""
    return make_clusters


@pytest.fixture(scope="session")
def overview_result() -> CodeOverview:
    return make_overview()


@pytest.fixture(scope="session")
def crossings_result() -> Callable[..., Crossings]:
    """Builds the crossings of one pair of prompts: the first layer in closed form, later ones on a grid."""
    return make_crossings


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens an address of a file and keeps every error and every request; both are checked at the end."""
    opened: list[Opened] = []

    def open_page(path: Path, anchor: str = "", size: dict[str, int] = FIRST_SCREEN, scheme: str = "light") -> Opened:
        page = browser.new_page(viewport=size, color_scheme=scheme)
        one = Opened(page, [], [])
        page.on("console", lambda m: one.trouble.append(m.text) if m.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: one.trouble.append(str(error)))
        page.on("request", lambda request: one.requests.append(request.url))
        page.goto(path.as_uri() + anchor)
        page.wait_for_selector("html.ready")
        opened.append(one)
        return one

    yield open_page
    for one in opened:
        assert one.page.evaluate("window.hurt") is None
        one.page.close()
        assert one.trouble == []
        assert [url for url in one.requests if not url.startswith("file:")] == []
        assert len(one.requests) == 1


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory,
    clusters_result: Callable[..., ClustersResult],
    crossings_result: Callable[..., Crossings],
    overview_result: CodeOverview,
) -> Path:
    pairs = [crossings_result(), crossings_result(seed=1, prompts=("<b>one</b>", "two"))]
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report.write(path, clusters=clusters_result(), crossings=pairs, overview=overview_result)
