"""Maps reduced and matched: how few do an MLP's work, and is one layer's a linear function of another's.

    python -m analyses.affine_maps --out OUT [--model NAME ...] [--layers 0,2] [--ks 1,10,100,1000]

For each model and layer, tangent and secant: loss recovered with k maps in the MLP's place, beside random groups of the
same sizes, clusters by code, by cosine and by vector, one mean, one linear and one quadratic map
(`polytope_lm.geometry.reduction`). Then each layer's maps predicted from each other layer's, and the tiny networks'
from each other's (`geometry.matching`): the share of them explained, and what is lost with them in the MLP's place,
beside the mean map, which needs no source, and a fit to shuffled tokens. Documents of the built-in sample, stretches of
128 tokens, 20 documents tested; intervals over tested documents.

OUT/MODEL/LAYER-KIND/reduction.json, OUT/matchings.json, OUT/affine-maps.json with the tables. A run that is stopped
goes on.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from analyses._running import asked, folder_name, read_json, run, teller, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.affine import inputs_of, maps_at
from polytope_lm.geometry.matching import match
from polytope_lm.geometry.reduction import LEAST, OWN, Reduction, reduction
from polytope_lm.models.gates import mlp_of
from polytope_lm.models.mlp_rows import Row, run_clean, run_rows, scores
from polytope_lm.statistics.estimate import Resampled, resampled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from polytope_lm.geometry.affine import Kind, Maps
    from polytope_lm.models.model import Model

MODELS = ("tiny-relu", "tiny-gpt2", "smollm2-135m")
TINY = MODELS[:2]
SMOLLM2 = (4, 14)
KINDS = ("tangent", "secant")
LENGTH, TESTED, FITTED = 128, 20, 10_000
"""Of matching: tokens of a stretch, documents tested, tokens fitted on."""
RESAMPLES = 1000
ARMS = ("matched", "shuffled tokens", "mean map", "mean-ablated")
"""What stands in the target's place."""


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


@dataclass(frozen=True, eq=False)
class Place:
    """A layer of a model that reads the sample.

    Attributes:
        name: the model's.
        model: the model.
        layer: whose MLP.

    """

    name: str
    model: Model
    layer: int

    @cached_property
    def windows(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """Stretches to fit on, and one of each tested document."""
        ids = [
            np.asarray(self.model.tokenizer(each.text, verbose=False)["input_ids"]) for each in plm.documents("sample")
        ]
        long = [each for each in ids if len(each) >= LENGTH]
        order = np.random.default_rng(0).permutation(len(long))
        most = max(map(len, long)) // LENGTH
        parts = [long[i][n * LENGTH :][:LENGTH] for n in range(most) for i in order[TESTED:]]
        whole = [each for each in parts if len(each) == LENGTH]
        return whole[: -(-FITTED // (LENGTH - 1))], [long[i][:LENGTH] for i in order[:TESTED]]

    @cached_property
    def fitted(self) -> torch.Tensor:
        """The MLP's inputs at the tokens to fit on."""
        return inputs_of(self.model, self.windows[0], self.layer)

    @cached_property
    def tested(self) -> list[torch.Tensor]:
        """The MLP's inputs at each tested document's tokens."""
        return [inputs_of(self.model, [ids], self.layer) for ids in self.windows[1]]

    def maps(self, u: torch.Tensor, kind: Kind) -> Maps:
        """Return the maps at some inputs."""
        return maps_at(self.model, self.layer, u, kind)


def matched(source: Place, target: Place, kind: Kind) -> dict[str, Any]:
    """Fit the target's maps as a linear function of the source's, and put them in the target's place.

    Returns: the share of the target's maps explained (`geometry.matching`), the nats a token lost and the loss
    recovered, of the matching and of its controls, each with its percentile interval over tested documents.
    """
    own = target.maps(target.fitted, kind)
    theirs = source.maps(source.fitted, kind)
    matching = match(theirs, own)
    shuffled = match(theirs[torch.from_numpy(np.random.default_rng(0).permutation(len(theirs)))], own)
    mean = own.means(np.zeros(len(own), np.int64), 1)
    block = target.model.block(target.layer)
    none = block.down.forward(mlp_of(block, target.fitted).post).mean(0)
    sums = []
    for ids, here, there in zip(target.windows[1], source.tested, target.tested, strict=True):
        true, seen = target.maps(there, kind), source.maps(here, kind)
        told = [matching(seen), shuffled(seen), mean[np.zeros(len(there), np.int64)]]
        clean = run_clean(target.model, [target.layer], torch.as_tensor(ids))
        rows = [_standing(found) for found in told]
        rows.append(Row(lambda _layer, mlp: none.expand(len(mlp.u), -1), reads_out=True))
        base, _ = scores(clean.out, clean, target.model)
        lost = [scores(o, clean, target.model)[0] - base for o in run_rows(target.model, [target.layer], clean, rows)]
        off = [float((found.distances(true).astype(float) ** 2).sum()) for found in told]
        sums.append((len(ids) - 2, *lost, *off))
    return {"penalty": matching.penalty, "fitted": len(own), **over_documents(np.array(sums))}


def over_documents(sums: np.ndarray) -> dict[str, Any]:
    """Return shares and losses with intervals from the documents' sums: tokens, nats lost and squared distances."""
    times = resampled(np.arange(len(sums)), RESAMPLES, seed=0)
    whole = np.concatenate([np.ones((1, len(sums))), times]) @ sums
    lost, off = whole[:, 1:5] / whole[:, [0]], whole[:, 5:]

    def told(values: np.ndarray) -> list[float]:
        return [round(v, 4) for v in _three(Resampled(values[0], values[1:]).by_percentiles())]

    removed = lost[:, -1]
    ratio = removed[0] >= LEAST and removed.min() > 0
    return {
        "tested": int(whole[0, 0]), "documents": len(sums),
        "lost": {name: told(lost[:, i]) for i, name in enumerate(ARMS)},
        "recovered": {name: told(1 - lost[:, i] / removed) for i, name in enumerate(ARMS[:-1])} if ratio else None,
        "explained": {name: told(1 - off[:, i] / off[:, -1]) for i, name in enumerate(ARMS[:2])},
    }  # fmt: skip


def _standing(found: Maps) -> Row:
    return Row(lambda _layer, mlp: found.post(mlp))


def matchings(
    places: Sequence[Place], kinds: Sequence[str], path: Path, tell: Callable[[int, int, str], None]
) -> list[dict[str, Any]]:
    """Return every ordered pair of a model's layers, and each layer's pair in the other tiny network.

    A kind that is the same as the one before in both places, as behind ReLUs, is left out.
    """
    done = read_json(path) if path.exists() else []
    known = {(each["maps"], each["source"], each["from"], each["target"], each["to"]) for each in done}
    jobs = [
        (kind, source, target)
        for kind in kinds
        for source in places
        for target in places
        if (source.layer != target.layer if source.name == target.name else _twins(source, target))
        if kind == kinds[0] or not (_affine(source) and _affine(target))
    ]
    for number, (kind, source, target) in enumerate(jobs):
        ends = {"source": source.name, "from": source.layer, "target": target.name, "to": target.layer}
        if (kind, *ends.values()) not in known:
            done.append({"maps": kind, **ends, **matched(source, target, kind)})
            write_json(path, done)
        tell(number + 1, len(jobs), f"{source.name} {source.layer} to {target.name} {target.layer}, {kind}")
    return done


def _twins(source: Place, target: Place) -> bool:
    """Whether two networks read the same tokens, layer by layer."""
    return source.name in TINY and target.name in TINY and source.layer == target.layer


def _affine(place: Place) -> bool:
    """Whether tangent and secant are one."""
    return place.model.site(place.layer).premises.linearity == "piecewise affine"


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
    loaded = {name: plm.load(name, device=given.device) for name in called.models}
    kinds = given.kinds.split(",")
    places = [
        Place(name, model, layer)
        for name, model in loaded.items()
        for layer in called.layers or (SMOLLM2 if "smollm2" in name else tuple(range(model.n_layers)))
    ]
    for place in places:
        for kind in kinds[:1] if _affine(place) else kinds:
            kept = Path(given.out) / folder_name(place.name) / f"{place.layer:02d}-{kind}"
            if not (kept / Reduction.file).exists():
                found = reduction(
                    place.model, documents, place.layer, ks=ks, kind=kind, fit_tokens=given.fit_tokens,
                    seed=given.seed, progress=teller(place.name, "documents"),
                )  # fmt: skip
                found.save(kept)
            found = plm.load_result(kept)
            tables.setdefault(place.name, []).append(row(found))
            print(f"{place.name}: {found.headline} Own map: {found.arm(OWN).lost.value:+.1e}.", flush=True)
    pairs = matchings(places, kinds, Path(given.out) / "matchings.json", teller("matchings", "pairs"))
    write_json(
        Path(given.out) / "affine-maps.json",
        {"command": called.command, "sample": "Python's documentation topics", "models": tables, "matching": pairs},
    )


if __name__ == "__main__":
    run(main)
