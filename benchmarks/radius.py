"""The predicted trust radius beside the measured one, on a real model.

Run with `python -m benchmarks.radius [--to FILE] [--json]`; with `--to` it goes on where it was stopped.
Prompts are beginnings of the built-in sample's documents. At each of three layers three kinds of directions:
towards another prompt's activation, what a neuron writes, and a random mixture with the prompts' covariance.

- curvature: the radius of a quadratic with the same slope and curvature, the peer that a reader would compute
  from a Hessian-vector product.
- flips: what flip mass along the tangent adds to norm, slope, the norm's scale and curvature, as in the test of
  directions, without its reference of random hyperplanes.
- cost: positions times layers that were run to predict, beside those of one plain forward pass of each triple.
"""

from __future__ import annotations

from functools import partial
from math import exp
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import spearmanr

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.changes.radius import look
from polytope_lm.changes.readout import readout
from polytope_lm.changes.trust_radius import radii
from polytope_lm.models.derivatives import Onward
from polytope_lm.models.families import weight_and_bias
from polytope_lm.paths.path import draw
from polytope_lm.paths.resume import resumable
from polytope_lm.predictions.directions.predicting import first_question

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from polytope_lm.models.model import Model

LAYERS = (4, 12, 20)
KINDS = ("another prompt", "random", "neuron")
TAU = 0.1


def prompts_of(model: Model, count: int) -> list[np.ndarray]:
    """Return beginnings of documents, 12 to 36 tokens each."""
    rng, found = np.random.default_rng(0), []
    for document in plm.documents("sample"):
        ids = model.tokenizer(document.text)["input_ids"][20:]
        length = int(rng.integers(12, 37))
        if len(ids) > length:
            found.append(np.asarray(ids[:length]))
    return found[:count]


def entry(model: Model, prompts: Sequence[np.ndarray], layer: int, number: int, x: np.ndarray) -> dict[str, Any]:
    """Predict and measure the radii of one prompt at one layer along the three kinds of directions."""
    rng = np.random.default_rng([layer, number])
    out = weight_and_bias(model.block(layer).down)[0]
    rows = np.stack(
        [
            x[(number + 1) % len(x)] - x[number],
            draw(x, rng) - draw(x, rng),
            out[:, int(rng.integers(out.shape[1]))].double().numpy(),
        ]
    )
    onward = Onward(model, torch.as_tensor(prompts[number]), layer)
    began = perf_counter()
    seen = look(onward, readout(model, "logprob"), rows)
    passes, seconds = onward.passes, perf_counter() - began
    found = radii(
        seen, TAU, names=KINDS, lengths=[float(np.linalg.norm(row)) for row in rows], prompt=number, token="",
        measure=True, drawn=False,
    )  # fmt: skip
    triples = []
    for one in found:
        assert one.measured is not None
        lengths = {"predicted": one.predicted, "curvature": one.by_curvature, "measured": one.measured}
        lengths |= {"flips": one.by_flips, "smooth": one.by_remainders}
        triples.append(
            {name: [each.value, each.beyond] for name, each in lengths.items() if each is not None}
            | {"kind": one.direction, "norm": one.norm, "slope": one.slope, "cosine": one.cosine, "scale": one.scale}
        )
    # The clean prompt once, then one token at a time from the layer on.
    work = passes * (model.n_layers - layer) + len(prompts[number]) * model.n_layers
    return {
        "layer": layer, "prompt": number, "seconds": seconds, "passes": passes, "triples": triples,
        "work": work, "forward": len(prompts[number]) * model.n_layers,
    }  # fmt: skip


def measured(name: str, count: int, to: str | None) -> list[dict[str, Any]]:
    """Run, or go on with, all places."""
    model = plm.load(name)
    prompts = prompts_of(model, count)
    places = [(layer, number) for number in range(len(prompts)) for layer in LAYERS]
    clean: dict[int, np.ndarray] = {}

    def x_of(layer: int) -> np.ndarray:
        if layer not in clean:
            rows = [Onward(model, torch.as_tensor(ids), layer).x.double().numpy() for ids in prompts]
            clean[layer] = np.stack(rows)
        return clean[layer]

    def work(left: Sequence[int]) -> Iterator[tuple[int, Callable[[], dict[str, Any]]]]:
        for each in left:
            layer, number = places[each]
            yield each, partial(entry, model, prompts, layer, number, x_of(layer))

    head = {"pairs": len(places), "model": model.revision, "layers": list(LAYERS), "tau": TAU, "prompts": len(prompts)}
    return resumable(
        head, work, to=to, workers=1, told=lambda done: print(f"{done} of {len(places)} places", flush=True)
    )


def figures(entries: Sequence[dict[str, Any]]) -> list[Figure]:
    """Compare predictions with what was measured, censored triples left out."""
    triples = [{**one, "layer": each["layer"], "prompt": each["prompt"]} for each in entries for one in each["triples"]]
    known = [one for one in triples if not one["measured"][1]]
    censored = len(triples) - len(known)

    def compared(name: str, part: Sequence[dict[str, Any]]) -> tuple[float, float]:
        ours, theirs = (np.array([one[which][0] for one in part]) for which in (name, "measured"))
        return float(spearmanr(ours, theirs)[0]), float(np.median(np.abs(np.log(ours / theirs))))

    shown = []
    for part, label in [(known, "all"), *(([o for o in known if o["layer"] == n], f"layer {n}") for n in LAYERS)]:
        (rho, off), (other_rho, other_off) = compared("predicted", part), compared("curvature", part)
        note = f"{len(part)} triples; {censored} of {len(triples)} in all are censored and left out"
        peer = "the quadratic of curvature alone"
        whole = label == "all"
        shown.append(
            Figure(f"rank correlation, {label}", rho, "rho", other_rho, peer, must=0.9 if whole else None, note=note)
        )
        shown.append(
            Figure(
                f"median |ln ratio|, {label}", off, "natural log", other_off, peer, must=0.25 if whole else None,
                bound="at most", note=f"a factor of {exp(off):.2f}",
            )
        )  # fmt: skip
    for layer in LAYERS:
        shown += beyond_curvature([one for one in known if one["layer"] == layer], layer)
    passes = sum(each["passes"] for each in entries) / len(triples)
    share = sum(each["work"] for each in entries) / sum(each["forward"] * len(each["triples"]) for each in entries)
    shown.append(
        Figure(
            "forward passes a triple", passes, "passes", must=3, bound="at most",
            note=f"and a third of a backward; with the clean prompt they are {share:.2f} of a plain forward's work",
        )
    )  # fmt: skip
    return shown


def beyond_curvature(known: Sequence[dict[str, Any]], layer: int) -> list[Figure]:
    """Return what flips tell of the radius beyond smooth covariates, with intervals over prompts."""
    number = lambda name: np.array([one[name][0] for one in known])  # noqa: E731
    covariates = {name: np.abs([one[name] for one in known]) for name in ("norm", "slope", "scale")}
    covariates["curvature"] = number("curvature")
    cells, _ = first_question(
        number("measured"), number("flips"), [], covariates, np.array([one["prompt"] for one in known]), seed=0,
        resamples=1000,
    )  # fmt: skip
    return [
        Figure(f"flips, layer {layer}: {cell.score}", cell.difference.value, "",
               note=f"95 % over prompts: {cell.difference.low:.3f} to {cell.difference.high:.3f}")
        for cell in cells
    ]  # fmt: skip


def main() -> None:
    """Measure and print."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--to", help="a file that keeps finished places")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--prompts", type=int, default=60, help="three layers and three directions each (60)")
    asked = parser.parse_args()
    machine = describe()
    report(figures(measured(asked.model, asked.prompts, asked.to)), asked.json, machine)


if __name__ == "__main__":
    main()
