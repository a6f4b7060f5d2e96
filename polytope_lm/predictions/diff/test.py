"""Two models, or two checkpoints of one, on the same tokens: which bits of their codes differ.

For a token, a layer and a neuron i a bit *flips* where `z_i xor z'_i`, `z_i = 1[h_i > 0]` in model A and `z'_i` in
model B. Flips are counted by layer, neuron and token.

Most flips of two models that are close lie near a boundary: the share of the flips with `|h_i| < 0.5` (and `0.05`)
in model A stands beside that share of *all* bits. Two controls say how much change is nothing learned:

- *random weight change*: model A with Gaussian noise of the same Frobenius norm, parameter by parameter, as
  `W_B - W_A`. What flips beyond it is not explained by how far the weights moved.
- *rounding*: model A's own weights in another number format.

The models are loaded one after the other. Model A's packed bits, 3/8 byte a neuron and token with those that are
near the boundary, wait in a file while model B runs. The unit of every interval is the document.

Flips are counted on the tokens that the rule stores, at the forward's own precision: half precision flips bits by
itself (0.2 to 0.5 % in bfloat16), which *rounding* shows.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from polytope_lm.codes.capture import check_text, unread
from polytope_lm.codes.codes import Codes, TokenCodes
from polytope_lm.codes.plan import make_plan
from polytope_lm.codes.reread import at_hand
from polytope_lm.codes.store.layout import MANIFEST
from polytope_lm.codes.store.reader import open_store
from polytope_lm.codes.store.tables import NUMBERS
from polytope_lm.controls.weights import norms_of_change, nudged, rounded
from polytope_lm.documents import documents
from polytope_lm.errors import PolytopeError, brief
from polytope_lm.files import expand
from polytope_lm.predictions.diff.passes import BITS, Flips, Run
from polytope_lm.predictions.diff.result import (
    NEAR,
    NEAREST,
    RANDOM,
    ROUNDING,
    DiffResult,
    DiffSettings,
    LayerFlips,
    LayerNull,
    Share,
    resamples_of,
)
from polytope_lm.predictions.diff.sides import Kind, Side, check_cut, check_kinds, check_outlines
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from polytope_lm.documents.source import Source
    from polytope_lm.models.loading import Outline
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site

NULLS = {"weights": RANDOM, "rounding": ROUNDING}
_CONTEXT = 48  # characters kept on each side of a token


@reproducible("plm.diff")
def diff(  # noqa: PLR0913 - settings, by name
    model_a: Model | str | Path,
    model_b: Model | str | Path,
    source: Source | TokenCodes,
    layers: Sequence[int] | int | None = None,
    *,
    kind: str | None = None,
    tokens: str = "all",
    nulls: Sequence[str] = ("weights", "rounding"),
    draws: int = 1,
    seed: int = 0,
    resamples: int = 1000,
    max_length: int | None = None,
    bos: bool | None = None,
    revision_a: str | None = None,
    revision_b: str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    to: str | Path | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> DiffResult:
    """Compare the codes of two models of one architecture and tokenizer on the same tokens.

    Args:
        model_a: a model, or a name as `load` takes it: named models are loaded one after the other.
        model_b: the other one.
        source: what `documents` reads; or codes, or a store (or its directory), that model A made: their very tokens
            are read again.
        layers: one, several, or all (None).
        kind: code kind of a gated MLP, as in `encode`; of codes, their own.
        tokens: the rule, as in `encode`: `all`, `word-final`, `random:80`; of codes, their own.
        nulls: which controls: `weights`, `rounding`, both or none. Each is one more pass of model A; `weights` holds
            both models' weights at once.
        draws: of the random weight change.
        seed: of every random choice.
        resamples: bootstrap resamples of the documents behind each interval.
        max_length: the longest window in tokens.
        bos: as in `encode`.
        revision_a: the hub's revision of a named model A, such as a checkpoint's.
        revision_b: the same of model B.
        device: where named models go.
        dtype: their number format.
        to: a directory for finished batches, with model A's bits (3/8 byte a neuron and token): a run that was stopped
            goes on from there, and gives the same result.
        progress: told `(done, total, what)`.

    Raises:
        PolytopeError: models that differ in architecture or tokenizer; a text that their tokenizers cut otherwise;
            codes that model A did not make; a layer that is not there; `to` has another diff's passes.

    Examples:
        >>> import polytope_lm as plm
        >>> model = plm.load("tiny-gpt2")
        >>> found = plm.diff(model, model, ["The loop ends", "The loop stops"], layers=1, nulls=())
        >>> found.layers[0].flips
        0

    """
    if unknown := set(wanted := (nulls,) if isinstance(nulls, str) else tuple(nulls)) - set(NULLS):
        raise PolytopeError(f"nulls {sorted(map(str, unknown))}: choose among {', '.join(NULLS)}")
    for name, value, least in (("draws", draws, 1), ("resamples", resamples, 2)):
        if not isinstance(value, int) or value < least:
            raise PolytopeError(f"{name} = {brief(value)}: give a whole number from {least}")
    sides = [
        Side.of(model, name, revision, device, dtype)
        for model, name, revision in ((model_a, "model_a", revision_a), (model_b, "model_b", revision_b))
    ]
    outlines = [side.outline() for side in sides]
    check_outlines(*outlines)
    options = {"kind": kind, "tokens": tokens, "max_length": max_length, "bos": bos, "seed": seed}
    place = None if to is None else expand(to, "to")
    asked_for = _Wanted(wanted, draws, seed, resamples, place, progress)
    with _bits_of_a(place) as bits:
        return _compared(sides, outlines, source, layers, options, asked_for, bits)


def _bits_of_a(place: Path | None) -> IO[bytes]:
    """Open the file in which model A's bits wait."""
    if place is None:
        return tempfile.TemporaryFile(prefix="polytope-lm-diff-")
    file = place / BITS
    try:
        place.mkdir(parents=True, exist_ok=True)
        if file.is_symlink() or (file.exists() and not file.is_file()):
            raise PolytopeError(f"{str(file)!r} is no regular file: name another directory")
        file.touch()
        return file.open("r+b")
    except OSError as error:
        raise PolytopeError(f"{str(place)!r} can't be written: {error.strerror or error}") from None


@dataclass(frozen=True)
class _Wanted:
    """What is made of the flips."""

    nulls: tuple[str, ...]
    draws: int
    seed: int
    resamples: int
    to: Path | None
    progress: Callable[[int, int, str], None] | None


def _compared(
    sides: Sequence[Side], outlines: Sequence[Outline], source: Any, layers: Any, options: dict[str, Any],
    wanted: _Wanted, bits: IO[bytes],
) -> DiffResult:  # fmt: skip
    """Run both models, and model A's controls, one after the other."""
    model = sides[0].model()
    frame, sites = _frame(model, source, layers, options)
    check_cut(frame.ids, frame.texts, *outlines)
    steps = 2 + ("weights" in wanted.nulls) * wanted.draws + ("rounding" in wanted.nulls)
    run = Run(model, frame, sites, bits, steps, wanted.to, wanted.progress)
    about_a, kind, rounding = model.provenance, Kind.of(model), _other_format(model)
    run.reference(model)
    del model
    model = sides[1].model()
    check_kinds(kind, Kind.of(model))
    about_b = model.provenance
    found = run.flips(model, "model-b", f"model B, {model.name}", {"model_b": about_b})
    nulls: dict[str, list[Flips]] = {}
    change: float | None = None
    norms: dict[str, float] = {}
    first = sides[0].model() if wanted.nulls else None
    if first is not None and "weights" in wanted.nulls:
        norms = norms_of_change(first, model)
        own = sum(float(weight.detach().float().square().sum()) for weight in first.hf.parameters())
        change = float(np.sqrt(sum(norm**2 for norm in norms.values()) / own))
    del model
    if first is not None and "weights" in wanted.nulls:
        seeds = [derived(wanted.seed, Purpose.NUDGES, draw) for draw in range(wanted.draws)]
        nulls[RANDOM] = [
            run.flips(nudged(first, norms, seed), f"weights-{draw}", RANDOM, {"seed": seed, "norms": norms})
            for draw, seed in enumerate(seeds)
        ]
    if first is not None and "rounding" in wanted.nulls:
        nulls[ROUNDING] = [run.flips(rounded(first, rounding), "rounding", f"{ROUNDING} to {rounding}", {})]
    settings = DiffSettings(
        len(frame), int(frame.tokens["document"].nunique()), wanted.draws, rounding, wanted.seed, wanted.resamples
    )
    return DiffResult(
        settings=settings,
        layers=_layers(run, found, nulls, settings),
        models=(about_a, about_b),
        relative_change=change,
        provenance=dict(frame.provenance),
        versions=versions("numpy", "torch", "transformers"),
        command="",
        neuron_table=_neuron_table(run, found, nulls),
        token_table=_token_table(frame, found),
    )


def _other_format(model: Model) -> str:
    return "bfloat16" if model.provenance["dtype"] == "float32" else "float32"


def _frame(model: Model, source: Any, layers: Any, options: dict[str, Any]) -> tuple[Codes, tuple[Site, ...]]:
    """Return the tokens that are compared, once each, without bits, and the sites."""
    if isinstance(source, str | Path) and (expand(source) / MANIFEST).is_file():
        source = open_store(source)
    if not isinstance(source, TokenCodes):
        texts = list(documents(source))
        for number, one in enumerate(texts):
            check_text(f"text {number}", one.text)
        plan = make_plan(model, layers="all" if layers is None else layers, keep=(), **options)
        return replace(unread(plan, texts), model=None), plan.sites
    given = [name for name, value in options.items() if value not in {None, "all"} and name != "seed"]
    if given:
        raise PolytopeError(f"{given[0]} = {brief(options[given[0]])}: codes have their own; leave it out")
    at_hand(source, model)
    there = [part for site in source.sites for part in site.components]
    wanted = source.layers if layers is None else np.atleast_1d(layers).tolist()
    for layer in wanted:
        if layer not in {site.layer for site in there}:
            raise PolytopeError(f"no codes of layer {layer!r} here; there are {', '.join(map(str, source.layers))}")
    sites = tuple(site for site in there if site.layer in wanted)
    # A token that has several labels may be there twice.
    table = source.tokens.drop_duplicates(["document", "position"]).reset_index(drop=True)
    return Codes(sites, table, {}, source.ids, source.texts, (), source.provenance), sites


def _layers(run: Run, found: Flips, nulls: dict[str, list[Flips]], settings: DiffSettings) -> tuple[LayerFlips, ...]:
    """Sum up by layer, with intervals over documents."""
    _, where = np.unique(run.frame.tokens["document"].to_numpy(), return_inverse=True)
    count = settings.documents
    times = resamples_of(count, settings)
    out = []
    for site in run.sites:
        key, bits = site.key, np.bincount(where, minlength=count) * site.width
        mine = np.bincount(where, found.tokens[key], count)
        controls = []
        for name, draws in nulls.items():
            theirs = np.mean([np.bincount(where, each.tokens[key], count) for each in draws], axis=0)
            flips = sum(int(each.neurons[key].sum()) for each in draws)
            near = sum(each.near[key, NEAR] for each in draws) if (key, NEAR) in found.near else None
            controls.append(
                LayerNull(
                    name, Share.of(theirs, bits, times), _share(near, flips), Share.of(mine - theirs, bits, times)
                )
            )
        flips = int(found.neurons[key].sum())
        out.append(
            LayerFlips(
                site, Share.of(mine, bits, times), flips, _share(found.near.get((key, NEAR)), flips),
                _share(found.near.get((key, NEAREST)), flips),
                _share(run.ambiguous.get(key), int(bits.sum())), tuple(controls),
            )
        )  # fmt: skip
    return tuple(out)


def _share(part: int | None, whole: int) -> float | None:
    return None if part is None or not whole else part / whole


def _neuron_table(run: Run, found: Flips, nulls: dict[str, list[Flips]]) -> pd.DataFrame:
    parts = []
    for site in run.sites:
        key = site.key
        columns = {
            "layer": site.layer, "neuron": np.arange(site.width), "flips": found.neurons[key],
            "share": found.neurons[key] / len(run.frame), "turned_on": found.turned_on[key],
        }  # fmt: skip
        drawn = {name: np.mean([each.neurons[key] for each in draws], axis=0) for name, draws in nulls.items()}
        parts.append(pd.DataFrame({**columns, **drawn}))
    return pd.concat(parts, ignore_index=True)


def _token_table(frame: Codes, found: Flips) -> pd.DataFrame:
    tokens = frame.tokens
    contexts = frame.contexts(np.arange(len(frame)), _CONTEXT)
    labels = {name: tokens[name] for name in tokens.columns if name not in {*NUMBERS, "token"}}
    return pd.DataFrame(
        {
            "document": tokens["document"],
            "id": [frame.ids[number] for number in tokens["document"]],
            "position": tokens["position"],
            **{side: [one[i] for one in contexts] for i, side in enumerate(("left", "token", "right"))},
            **labels,
            **found.tokens,
        }
    )
