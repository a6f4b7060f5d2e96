"""Maps reduced and matched: how few do an MLP's work, and is one layer's a linear function of another's.

    python -m analyses.affine_maps --out OUT [--model NAME ...] [--layers 0,2] [--ks 1,10,100,1000]

For each model and layer, tangent and secant: loss recovered with k maps in the MLP's place, beside random groups of the
same sizes, clusters by code, by cosine and by vector, one mean, one linear and one quadratic map
(`polytope_lm.geometry.reduction`). Then, of the tiny models, each layer's maps predicted from each other layer's and
from the other network's (`geometry.matching`), and put in its place: beside the mean map, which needs no source, and a
fit to shuffled tokens. Documents of the built-in sample, stretches of 128 tokens, 20 documents tested.

OUT/MODEL/LAYER-KIND/reduction.json, OUT/matching.json, OUT/affine-maps.json with the tables. A run that is stopped goes on.
"""  # noqa: E501 - a path is one word

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from analyses._running import asked, folder_name, read_json, run, teller, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.affine import inputs_of, maps_at
from polytope_lm.geometry.matching import match
from polytope_lm.geometry.reduction import OWN, Reduction, reduction
from polytope_lm.models.mlp_rows import Row, run_clean, run_rows, scores

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polytope_lm.geometry.affine import Maps
    from polytope_lm.models.gates import Mlp
    from polytope_lm.models.model import Model

MODELS = ("tiny-relu", "tiny-gpt2", "smollm2-135m")
TINY = MODELS[:2]
SMOLLM2 = (4, 14)
KINDS = ("tangent", "secant")
LENGTH, TESTED, FITTED = 128, 12, 4000
"""Of matching: tokens of a stretch, stretches tested, tokens fitted on."""


def own_options(parser: argparse.ArgumentParser) -> None:
    """Add this analysis' options."""
    parser.add_argument("--ks", default="1,10,100,1000", help="how many maps (%(default)s)")
    parser.add_argument("--fit-tokens", type=int, default=10_000, help="at most (%(default)s; k = 10,000 needs 30,000)")
    parser.add_argument("--kinds", default="tangent,secant", help="of maps (%(default)s)")


def row(found: Reduction) -> dict[str, Any]:
    """Return what the table shows of one layer."""
    arms = {
        f"{arm.name} {arm.k}" if arm.k else arm.name: {
            "recovered": None if arm.recovered is None else [round(v, 4) for v in _three(arm.recovered)],
            "lost": [round(v, 5) for v in _three(arm.lost)],
        }
        for arm in found.arms
    }
    return {
        "layer": found.site.layer, "maps": found.maps, "clean": round(found.clean, 4),
        "removed": [round(v, 4) for v in _three(found.removed)], "fitted": found.fitted, "tested": found.tested,
        "arms": arms, "premises": str(found.site.premises),
    }  # fmt: skip


def _three(estimate: Any) -> tuple[float, float, float]:
    return estimate.value, estimate.low, estimate.high


def windows(model: Model) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return stretches to fit on and to test, of different documents."""
    ids = [np.asarray(model.tokenizer(d.text[:2000])["input_ids"][:LENGTH]) for d in plm.documents("sample")]
    ids = [each for each in ids if len(each) == LENGTH]
    order = np.random.default_rng(0).permutation(len(ids))
    fitted = [ids[i] for i in order[TESTED:]][: FITTED // (LENGTH - 1)]
    return fitted, [ids[i] for i in order[:TESTED]]


def matched(source: Model, a: int, target: Model, b: int) -> dict[str, float]:
    """Return nats a token lost with layer b's maps as those of the source's layer a tell them, and the controls'."""
    fitted, tested = windows(target)
    own = maps_at(target, b, inputs_of(target, fitted, b))
    theirs = maps_at(source, a, inputs_of(source, fitted, a))
    matching = match(theirs, own)
    shuffled = match(theirs[torch.from_numpy(np.random.default_rng(0).permutation(len(theirs)))], own)
    mean = own.means(np.zeros(len(own), np.int64), 1)
    none = target.block(b).down.forward(own.post(_mlp(target, b, inputs_of(target, fitted, b)))).mean(0)
    sums = []
    for ids in tested:
        here = maps_at(source, a, inputs_of(source, [ids], a))
        clean = run_clean(target, [b], torch.as_tensor(ids))
        rows = [_standing(found) for found in (matching(here), shuffled(here), mean, mean)]
        rows[-1] = Row(lambda _layer, mlp: none.expand(len(mlp.u), -1), reads_out=True)
        base, _ = scores(clean.out, clean, target)
        sums.append([scores(out, clean, target)[0] - base for out in run_rows(target, [b], clean, rows)])
    lost = np.sum(sums, axis=0) / (len(tested) * (LENGTH - 2))
    names = ("matched", "shuffled tokens", "mean map", "mean-ablated")
    return {name: round(float(value), 4) for name, value in zip(names, lost, strict=True)}


def _standing(found: Maps) -> Row:
    return Row(lambda _layer, mlp: found.post(mlp))


def _mlp(model: Model, layer: int, u: torch.Tensor) -> Mlp:
    from polytope_lm.models.gates import mlp_of  # noqa: PLC0415 - here alone

    return mlp_of(model.block(layer), u)


def matchings(models: dict[str, Model], path: Path, tell: Callable[[int, int, str], None]) -> list[dict[str, Any]]:
    """Return every ordered pair of a model's layers, and each layer's pair in the other network."""
    done = read_json(path) if path.exists() else []
    known = {(each["source"], each["from"], each["target"], each["to"]) for each in done}
    jobs = [
        (s, a, t, b)
        for s in models
        for t in models
        for a in range(models[s].n_layers)
        for b in range(models[t].n_layers)
        if (a != b if s == t else a == b)
    ]
    for number, (s, a, t, b) in enumerate(jobs):
        if (s, a, t, b) not in known:
            done.append({"source": s, "from": a, "target": t, "to": b, **matched(models[s], a, models[t], b)})
            write_json(path, done)
        tell(number + 1, len(jobs), f"{s} {a} to {t} {b}")
    return done


def main(argv: Sequence[str] | None = None) -> None:
    """Run what is left and write the tables."""
    called = asked("affine_maps", __doc__, argv, own_options, models=MODELS, layers=None)
    given = called.given
    try:
        ks = tuple(int(part) for part in given.ks.split(","))
    except ValueError as error:
        raise PolytopeError(f"--ks {given.ks!r}: give numbers such as 1,10,100") from error
    documents = list(plm.documents("sample"))
    tables: dict[str, list[Any]] = {}
    loaded = {name: plm.load(name, device=called.given.device) for name in called.models}
    for name, model in loaded.items():
        layers = called.layers or (SMOLLM2 if "smollm2" in name else tuple(range(model.n_layers)))
        for layer in layers:
            kinds = given.kinds.split(",")
            if model.site(layer).premises.linearity == "piecewise affine":
                kinds = kinds[:1]  # behind ReLUs tangent and secant are one
            for kind in kinds:
                place = Path(given.out) / folder_name(name) / f"{layer:02d}-{kind}"
                if not (place / Reduction.file).exists():
                    found = reduction(
                        model, documents, layer, ks=ks, kind=kind, fit_tokens=given.fit_tokens, seed=given.seed,
                        progress=teller(name, "documents"),
                    )  # fmt: skip
                    found.save(place)
                found = plm.load_result(place)
                tables.setdefault(name, []).append(row(found))
                print(f"{name}: {found.headline} Own map: {found.arm(OWN).lost.value:+.1e}.", flush=True)
    tiny = {name: model for name, model in loaded.items() if name in TINY}
    pairs = matchings(tiny, Path(given.out) / "matching.json", teller("matching", "pairs")) if tiny else []
    write_json(
        Path(given.out) / "affine-maps.json",
        {"command": called.command, "sample": "Python's documentation topics", "models": tables, "matching": pairs},
    )


if __name__ == "__main__":
    run(main)
