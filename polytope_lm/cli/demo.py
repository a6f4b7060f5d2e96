"""`polytope-lm demo`: the whole job on the built-in sample, from a model to one page."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polytope_lm.cli.options import Json
from polytope_lm.cli.terminal import Stages, complain, emit, say, say_verdict
from polytope_lm.files import expand
from polytope_lm.progress import progress

if TYPE_CHECKING:
    from polytope_lm.codes.store.reader import CodeStore
    from polytope_lm.documents import Document, Documents
    from polytope_lm.models.model import Model
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.predictions.clusters.result import ClustersResult

DemoOut = Annotated[Path, typer.Option("--out", help="Directory for the store, the results and report.html.")]
DemoModel = Annotated[
    str | None, typer.Option("--model", help="Another model than smollm2-135m (tiny-gpt2 if that is not installed).")
]

PREFERRED, ALWAYS_THERE = "smollm2-135m", "tiny-gpt2"
CHARACTERS = 1500
"""Of each document: a 135M-parameter model reads some 400 tokens a second on two cores."""
TOKENS, CLUSTERS, SEED = "random:80", 30, 0
LABELS = {"group": 6000, "class": 3000}
"""Labels, and how many tokens are compared at most. The first one's verdict is the demo's: chosen here,
before any run. The other is shown beside it and decides nothing."""
LABEL, BESIDE = LABELS
KEEP = ("u", "h")

PAIRS = (
    ("After lunch they rested on the bank", "She paid the cheque into the bank"),
    ("The doctor said that he would recover soon", "According to the physician, he should be well again soon"),
    ("She tuned her violin before the concert", "The function returns an empty list"),
)
"""One word in two senses; one meaning in two wordings; nothing in common."""


@dataclass(frozen=True)
class Demo:
    """What the demo found.

    Attributes:
        clusters: the comparison that the verdict is about.
        beside: the same tokens scored against the other label.
        crossings: one a pair of prompts.
        page: the report.
        seconds: by stage.

    """

    clusters: "ClustersResult"
    beside: "ClustersResult"
    crossings: "tuple[Crossings, ...]"
    page: Path
    seconds: dict[str, float]


def demo(*, out: DemoOut = Path("polytope-demo"), model: DemoModel = None, json: Json = False) -> None:
    """Do the whole job on the built-in sample: capture, compare, cross, and write report.html.

    A few minutes with smollm2-135m (see `polytope-lm models`), about one with tiny-gpt2. Run again,
    it goes on.

    \b
    Examples:
      polytope-lm demo
      polytope-lm demo --model tiny-gpt2 --out tiny
    """  # noqa: D301
    write = _nothing if json else say
    name = model or _installed(complain if json else say)
    stages = Stages(5, write)
    found = run(name, out, stages)
    if json:
        emit(_facts(found, name, out), "demo")
        return
    say()
    say_verdict(found.clusters)
    say(f"Scored against {BESIDE!r} instead, which is shown only: {found.beside.verdict}")
    say(f"{stages.elapsed:.0f} s in all; open {found.page.resolve().as_uri()}")


def _nothing(_: str) -> None:
    """Print nothing: stdout is for JSON."""


def _installed(write: Callable[[str], None]) -> str:
    """Return the model to show: the real one where its extra is installed."""
    from polytope_lm.models.packaged import PACKAGED  # noqa: PLC0415

    if PACKAGED[PREFERRED].installed:
        return PREFERRED
    write(
        f"{PREFERRED} is not installed ({PACKAGED[PREFERRED].install}): using {ALWAYS_THERE}, "
        "which shows how it works but says nothing about large models"
    )
    return ALWAYS_THERE


def run(name: str, out: Path, stages: Stages) -> Demo:
    """Capture, compare, cross and write, stage by stage."""
    from polytope_lm.models.loading import load  # noqa: PLC0415
    from polytope_lm.report import write  # noqa: PLC0415

    out = expand(out, "--out")
    out.mkdir(parents=True, exist_ok=True)
    with stages.stage("model", f"loading {name}") as done:
        model = load(name)
        done(f"{model}; {model.sites[0].premises}")
    layers = spread(model.n_layers)
    store = _capture(model, layers, out, stages)
    results = _compare(store, out, stages, f"polytope-lm demo --model {name} --out {out}")
    crossings = _cross(model, layers[0], out, stages)
    with stages.stage("page", "report.html, one file that works offline") as done:
        from polytope_lm.geometry.distinct import distinct_codes  # noqa: PLC0415
        from polytope_lm.predictions import overview  # noqa: PLC0415

        seen, grown = overview(store), distinct_codes(store)
        seen.save(out)
        grown.save(out)
        page = write(out / "report.html", clusters=results[0], crossings=crossings, overview=seen, others=[grown])
        done(str(page))
    return Demo(*results, tuple(crossings), page, dict(stages.seconds))


def spread(n_layers: int) -> list[int]:
    """Return an early, a middle and a late layer (fewer in a very shallow model)."""
    return sorted({n_layers // 6, n_layers // 2, n_layers - 1 - n_layers // 6})


def sample(characters: int | None = None) -> "Documents":
    """Return the built-in sample, each document cut to its first characters; described with SHA-256."""
    characters = CHARACTERS if characters is None else characters
    from polytope_lm.documents import Documents, documents  # noqa: PLC0415

    whole = documents("sample")

    def read() -> "Iterator[Document]":
        return (cut(document, characters) for document in whole)

    how = f"first {characters:,} characters of each"
    digest = Documents("sample", read, options=how).sha256
    return Documents("sample", read, options=f"{how}; sha256 {digest}")


def cut(document: "Document", characters: int) -> "Document":
    """Return the start of a document, up to the last white space, with the labels that fit."""
    text = document.text
    if len(text) > characters:
        head = text[:characters]
        text = head[: max(head.rfind(" "), head.rfind("\n"), 0)] or head
    spans = (replace(span, end=min(span.end, len(text))) for span in document.spans if span.start < len(text))
    return replace(document, text=text, spans=tuple(spans))


def _capture(model: "Model", layers: Sequence[int], out: Path, stages: Stages) -> "CodeStore":
    from polytope_lm.codes.capture import capture  # noqa: PLC0415

    texts = sample()
    which = f"layers {', '.join(map(str, layers))} of {model.n_layers}"
    doing = f"codes of {which}; tokens {TOKENS} of each document's first {CHARACTERS:,} characters"
    with stages.stage("capture", doing) as done:
        store = capture(
            model, texts, to=out / "store", layers=layers, keep=KEEP, tokens=TOKENS, seed=SEED, progress=None
        )
        read = f"{texts.tally.documents} documents of Python's documentation"
        done(f"{len(store):,} tokens of {read}, in {store.path}")
    return store


def _compare(store: "CodeStore", out: Path, stages: Stages, command: str) -> "tuple[ClustersResult, ClustersResult]":
    """Score the same codes against both labels; the first result is the one that is decided."""
    from polytope_lm.predictions import clusters, with_maps  # noqa: PLC0415

    results: list[Any] = []
    doing = f"clusters by code against clusters by direction, k = {CLUSTERS}, labels {LABEL} and {BESIDE}"
    with stages.stage("compare", doing) as done:
        for label, tokens in LABELS.items():
            with progress(f"compare, {label}") as told:
                result = clusters(store, None, label, k=CLUSTERS, tokens=tokens, seed=SEED, progress=told)
                if label == LABEL:
                    result = with_maps(store, result, result.layers[len(result.layers) // 2].layer)
            result = replace(result, command=command)
            result.save(out if label == LABEL else out / label)
            results.append(result)
        done(f"{results[0].sample.tokens:,} tokens of {results[0].sample.documents} documents compared")
    return results[0], results[1]


def _cross(model: "Model", layer: int, out: Path, stages: Stages) -> "list[Crossings]":
    from polytope_lm.paths.path import path  # noqa: PLC0415

    found = []
    with stages.stage("cross", f"{len(PAIRS)} pairs of prompts, from layer {layer} on") as done:
        for number, (a, b) in enumerate(PAIRS, 1):
            with progress(f"cross, pair {number} of {len(PAIRS)}"):
                crossings = path(model, a, b, layer=layer).crossings(downstream=model.causal)
            crossings.save(out / f"crossings-{number}.json")
            found.append(crossings)
            counts = f"{crossings.counts(layer):,} in layer {layer}, {len(crossings):,} in all layers looked at"
            done(f"crossings: {counts}; {a!r} -> {b!r}")
    return found


def _facts(found: Demo, name: str, out: Path) -> dict[str, Any]:
    crossings = [{"prompts": list(c.prompts), "layer": c.site.layer, "crossings": len(c)} for c in found.crossings]
    return {
        "model": name, "out": str(out), "verdict": found.clusters.verdict, "label": LABEL,
        "beside": {"label": BESIDE, "verdict": found.beside.verdict},
        "documents": found.clusters.provenance["documents"], "crossings": crossings,
        "seconds": {stage: round(seconds, 1) for stage, seconds in found.seconds.items()},
        "report": str(found.page),
    }  # fmt: skip
