"""One small result of every kind, computed from one small store, and where each is saved."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from polytope_lm.controls.weights import permuted
from polytope_lm.documents import Document, Span

if TYPE_CHECKING:
    from pathlib import Path

_WORDS = {
    "bank": (("NOUN", "river"), ("NOUN", "money")),
    "spring": (("NOUN", "season"), ("NOUN", "coil")),
    "light": (("ADJ", "weight"), ("NOUN", "lamp")),
    "runs": (("VERB", "moves"), ("VERB", "works")),
    "the": (("DET", "the"),),
    "old": (("ADJ", "old"),),
    "near": (("ADP", "near"),),
    "keeps": (("VERB", "keeps"),),
    "very": (("ADV", "very"),),
}
PAIRS = [
    plm.pairs.Pair(f"The {a} is {b}", f"The {c} is {d}", group=f"g{i // 2}", same=i % 2 == 0)
    for i, (a, b, c, d) in enumerate(
        zip(
            ("cat", "dog", "sun", "boat") * 6, ("old", "near") * 12,
            ("tree", "river", "bank") * 8, ("new", "wet", "dry", "far") * 6, strict=True,
        )
    )
]  # fmt: skip


def documents(count: int = 24, seed: int = 0) -> list[Document]:
    """Return documents of a few ambiguous words, each word with its part of speech and its sense."""
    rng = np.random.default_rng(seed)
    made = []
    for number in range(count):
        text, spans = "", []
        for _ in range(10):
            word = str(rng.choice(list(_WORDS)))
            upos, sense = _WORDS[word][rng.integers(len(_WORDS[word]))]
            start, open_ = len(text) + bool(text), str(upos in {"NOUN", "VERB", "ADJ", "ADV"})
            text += f" {word}" if text else word
            spans.append(Span(start, len(text), {"upos": upos, "sense": sense, "word": word, "open": open_}))
        made.append(Document(f"doc-{number}", text, {}, tuple(spans)))
    return made


def captured(folder: Path, model: Any = None) -> Any:
    """Return a small store with its model at hand."""
    model = plm.load("tiny-gpt2") if model is None else model
    return plm.capture(
        model, documents(), to=folder / "store", layers=[1, 2], keep=("u", "h"), tokens="all", progress=False
    )


def every_kind(store: Any) -> dict[str, Any]:
    """Return a small result of each kind."""
    model, p = store.model, plm.predictions
    few: dict[str, Any] = {"tokens": 120, "resamples": 20}
    clusters = p.clusters(store, [1, 2], "upos", k=6, **few)
    path = plm.path(model, "The cat sat on", "The dog lay on", layer=1)
    return {
        "clusters": clusters,
        "multiverse": p.multiverse(
            store, 1, labels="upos", ks=[4, 6], sample_seeds=[0], clusterers=["k-medoids"], tokens=120
        ),
        "groups": p.groups(store, clusters, 1, encoder=model, tokens=40, items=8, draws=10, resamples=10, repeats=2),
        "overview": p.overview(store),
        "senses": p.senses(store, 1, "sense", resamples=20),
        "determination": p.determination(
            store, 1, max_tokens=24, fit_tokens=120, neurons=20, draws=2, resamples=20, together=False
        ),
        "contexts": store.neuron(1, 5, k=3),
        "selective": store.selective("upos", 1, ablate=True, draws=1, resamples=20),
        "diff": plm.diff(model, permuted(model), store, [1], resamples=20),
        "neuron": p.neuron(
            store, 1, int(store.bits(1).mean(axis=0).argmax()), label="upos", top=20, k=6, tokens=120, draws=20
        ),
        "neurons": p.rank_neurons(store, 1, label="upos", top=20, k=6, tokens=120, draws=20),
        "calibration": plm.calibrate(store, 1, "upos", runs=3, k=6, tokens=120, draws=2, resamples=20),
        "boundaries": p.boundaries(model, PAIRS, [1], resamples=20, draws=1, controls=["untrained"], shuffles=2),
        "alignment": p.alignment(model, PAIRS, 1, resamples=20, evaluations=24, steps=9),
        "directions": p.directions(
            model,
            [f"The {w} is near the {v} and keeps still" for w in _WORDS for v in ("boat", "sun", "cat")],
            3,
            prompts=20,
            tokens=8,
            draws=0,
            resamples=20,
        ),
        "trust radius": plm.trust_radius(model, "The cat sat on", 3, layer=2, measure=True),
        "change": plm.change(model, "The cat sat on", "The dog lay on", layer=2, most=4),
        "crossings": path.crossings(downstream=True),
        "slices": plm.paths.slice(
            model, "The cat sat on", "The dog lay on", "A river bank is", layer=1, zoom=0.05, grid=3
        ),
    }
