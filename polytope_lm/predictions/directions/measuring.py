"""What is measured at each prompt and layer: radii, remainders in the layer, scaling; then effects at many tokens."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from polytope_lm.changes.flips import in_layer
from polytope_lm.changes.radius import Look, look
from polytope_lm.changes.readout import readout
from polytope_lm.changes.trust_radius import radii
from polytope_lm.controls.perturbations import equal_norm, equal_output, flips_of_planes
from polytope_lm.controls.planes import Planes, rate_matched_planes
from polytope_lm.errors import PolytopeError
from polytope_lm.models.derivatives import Onward
from polytope_lm.models.families import weight_and_bias
from polytope_lm.models.gates import mlp_of
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.model import Model

KINDS = ("another prompt", "random", "neuron")
"""Directions of every prompt: towards another prompt, of the prompts' covariance, what a neuron writes."""
STEP = 0.1
"""Of `|x|`: the step at which the error, its sign and its share are looked at."""
FACTORS = (0.5, 0.8, 1.25, 2.0)
"""By which `u` and `post` are scaled."""
AS_LONG, AS_MUCH = "as long", "that changes the MLP's output as much"
"""Pushes that scaling is compared with."""


@dataclass(frozen=True, eq=False)
class Prompts:
    """Prompts as the model reads them, and their activations at the last token.

    Attributes:
        ids: of each prompt.
        x: what each layer's norm reads, by layer, `[P, D]`.
        u: what each layer's MLP reads.
        planes: rate-matched hyperplanes of the layers from the first one on; None without draws.

    """

    ids: Sequence[Int[np.ndarray, " S"]]
    x: dict[int, Float[np.ndarray, "P D"]]
    u: dict[int, Float[np.ndarray, "P D"]]
    planes: Planes | None


def read_prompts(
    model: Model, ids: Sequence[Int[np.ndarray, " S"]], layers: Sequence[int], *, draws: int, seed: int
) -> Prompts:
    """Read every prompt once: the sample that random directions and hyperplanes are drawn from."""
    first = min(layers)
    there = range(first, model.n_layers)
    taps: list[Tap] = [(n, point) for n in there for point in ("x", "u", "h")]
    read: dict[Tap, list[np.ndarray]] = {tap: [] for tap in taps}
    for one in ids:
        found = Onward(model, torch.as_tensor(one), first).clean(taps).taps
        for tap in taps:
            read[tap].append(found[tap][0, -1].float().cpu().numpy())
    values = {tap: np.stack(rows) for tap, rows in read.items()}
    planes = None
    if draws:
        planes = rate_matched_planes(
            {n: values[n, "u"] for n in there}, {n: values[n, "h"] > 0 for n in there}, draws=draws,
            seed=derived(seed, Purpose.DIRECTION_PLANES),
        )  # fmt: skip
    x, u = ({n: values[n, point].astype(np.float64) for n in there} for point in ("x", "u"))
    return Prompts(ids, x, u, planes)


def measure(model: Model, prompts: Prompts, layer: int, number: int, tau: float, seed: int) -> dict[str, Any]:
    """Return everything about one prompt at one layer, as plain data."""
    rng = np.random.default_rng([derived(seed, Purpose.DIRECTIONS), layer, number])
    x = prompts.x[layer]
    out = weight_and_bias(model.block(layer).down)[0]
    # Texts that begin alike are one prompt once they are cut: the next that differs gives the direction.
    other = next((row for row in np.roll(x, -number, axis=0) if not np.array_equal(row, x[number])), None)
    if other is None:
        raise PolytopeError(f"all {len(x)} prompts are equal once they are cut; give other texts, or more tokens")
    rows = np.stack(
        [
            other - x[number],
            equal_norm(x, 1.0, seed=rng),
            out[:, int(rng.integers(out.shape[1]))].double().cpu().numpy(),
        ]
    )
    onward = Onward(model, torch.as_tensor(prompts.ids[number]), layer)
    seen = look(onward, readout(model, "logprob"), rows, inputs=prompts.planes is not None)
    lengths = [float(np.linalg.norm(row)) for row in rows]
    found = radii(seen, tau, names=KINDS, lengths=lengths, prompt=number, token="", measure=True, drawn=False)
    others = _by_planes(seen, prompts.planes, layer, tau)
    steps = torch.full((len(rows), 1), STEP * seen.norm, dtype=torch.float64)
    true, first = seen.true_change(steps)[:, 0], seen.first_order(steps)[:, 0]
    mass = seen.mass(steps)
    shares, parts = _in_layer(model, prompts, seen, layer, number)
    triples = []
    for n, one in enumerate(found):
        assert one.measured is not None  # noqa: S101 - it was asked for
        assert one.by_curvature is not None  # noqa: S101 - a number is read
        assert one.by_flips is not None  # noqa: S101
        assert one.by_remainders is not None  # noqa: S101
        triples.append(
            {
                "kind": one.direction, "measured": one.measured.value, "beyond": one.measured.beyond,
                "predicted": one.predicted.value, "curvature": one.by_curvature.value, "flips": one.by_flips.value,
                "smooth": one.by_remainders.value, "norm": one.norm, "slope": abs(one.slope), "cosine": one.cosine,
                "scale": abs(one.scale), "boundary": one.boundary, "planes": [each[n] for each in others],
                "true": float(true[n]), "first": float(first[n]), "mass": float(mass.flip[n, 0]),
                "flipped": int(mass.flips[n, 0]), "share": shares[n], "share of planes": parts[n],
            }
        )  # fmt: skip
    return {
        "layer": layer,
        "prompt": number,
        "triples": triples,
        "scaling": _scaling(model, prompts, layer, number, rng),
    }


def _by_planes(seen: Look, planes: Planes | None, layer: int, tau: float) -> list[list[float]]:
    """Return the flip radius of each direction by each draw of random hyperplanes."""
    if planes is None:
        return []
    found = []
    for number in range(planes.draws):
        excess = seen.flip_radius(tau, lambda steps, n=number: flips_of_planes(planes, n, seen.layers, layer, steps))  # type: ignore[misc]
        found.append([float(one) for one in excess.radius])
    return found


def _in_layer(
    model: Model, prompts: Prompts, seen: Look, layer: int, number: int
) -> tuple[list[float | None], list[float | None]]:
    """Return the share of the MLP's own error that sits in flipped neurons, and in those that random planes flip."""
    onward = seen.onward
    tap: Tap = (layer, "u")
    moved = onward.run((onward.x.double() + STEP * seen.norm * seen.v.to(onward.x.device)).to(onward.x.dtype), [tap])
    other = moved.taps[tap][:, 0].double().cpu()
    u = torch.as_tensor(prompts.u[layer][number]).expand_as(other)
    parts = in_layer(model, layer, u, other)
    mine = [_number(one) for one in parts.share.tolist()]
    if prompts.planes is None:
        return mine, [None] * len(mine)
    normals = torch.as_tensor(prompts.planes.normals[layer], dtype=torch.float64)
    heights = torch.as_tensor(prompts.planes.thresholds[layer], dtype=torch.float64)
    flips = ((other @ normals.T > heights) != (u @ normals.T > heights)).reshape(len(other), prompts.planes.draws, -1)
    out = weight_and_bias(model.block(layer).down)[0].double().cpu().T
    theirs = ((parts.remainder[:, None] * flips) @ out * parts.error[:, None]).sum(-1)
    share = theirs.mean(1) / parts.error.square().sum(-1)
    return mine, [_number(one) for one in share.tolist()]


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _scaling(
    model: Model, prompts: Prompts, layer: int, number: int, rng: np.random.Generator
) -> list[dict[str, float | str]]:
    """Scale `u` and `post`, and push in a random direction: KL and flips of each.

    A push is as long as the scaling, or changes the MLP's output by as much. Scaled `post` is told where the block
    adds the MLP's output to its stream as it is: there the two are one. Its flips are the next layers', those of
    `u` this layer's own.
    """
    ids = torch.as_tensor(prompts.ids[number])
    found = []
    u = prompts.u[layer]
    x = u[number]
    deltas = [(f - 1) * x for f in FACTORS]
    long = [equal_norm(u, float(np.linalg.norm(delta)), seed=rng) for delta in deltas]
    output = _output(model, layer)
    sizes = [float(np.linalg.norm(output(x + delta) - output(x))) for delta in deltas]
    much = [equal_output(output, x, push, size) for push, size in zip(long, sizes, strict=True)]
    pushes = {AS_LONG: long, AS_MUCH: much}
    found += _pushed(Onward(model, ids, layer, at="mlp_in"), "u", layer, deltas, pushes)
    if layer + 1 < model.n_layers:
        taps: list[Tap] = [(layer, "x"), (layer, "post"), (layer, "resid_post")]
        read = {
            tap[1]: value[0, -1].double().cpu() for tap, value in Onward(model, ids, layer).clean(taps).taps.items()
        }
        weight, bias = weight_and_bias(model.block(layer).down)
        own = read["post"] @ weight.double().cpu().T
        added = own if bias is None else own + bias.double().cpu()
        if torch.allclose(
            read["x"] + added, read["resid_post"], rtol=1e-3, atol=1e-3 * float(read["resid_post"].abs().max())
        ):
            deltas = [(f - 1) * own.numpy() for f in FACTORS]
            sample = prompts.x[layer + 1]
            long = [equal_norm(sample, float(np.linalg.norm(delta)), seed=rng) for delta in deltas]
            found += _pushed(Onward(model, ids, layer + 1, at="embed"), "post", layer + 1, deltas, {AS_LONG: long})
    return found


def _output(model: Model, layer: int) -> Callable[[Float[np.ndarray, " D"]], Float[np.ndarray, " D"]]:
    """Return a layer's MLP as a function of one vector."""
    block = model.block(layer)
    like = weight_and_bias(block.down)[0]

    @torch.no_grad()
    def output(at: Float[np.ndarray, " D"]) -> Float[np.ndarray, " D"]:
        post = mlp_of(block, torch.as_tensor(at[None]).to(like)).post
        return np.asarray(block.down.forward(post)[0].double().cpu())

    return output


def _pushed(
    onward: Onward, what: str, layer: int, deltas: Sequence[np.ndarray], pushes: Mapping[str, Sequence[np.ndarray]]
) -> list[dict[str, float | str]]:
    """Return the KL and the flips of a layer for scaled and for pushed versions of a place."""
    tap: Tap = (layer, "h")
    clean = onward.clean([tap])
    x = onward.x.double().cpu()
    rows = torch.stack([x + torch.as_tensor(one) for one in (*deltas, *chain.from_iterable(pushes.values()))])
    ran = onward.run(rows.to(onward.x.dtype), [tap])
    kl = readout(onward.model, "kl").change(ran.out.double(), clean.out.double()).tolist()
    flips = ((ran.taps[tap][:, 0] > 0) != (clean.taps[tap][:, 0] > 0)).sum(-1).tolist()
    count = len(deltas)
    return [
        {
            "what": what, "push": push, "factor": FACTORS[n], "scaled": kl[n], "scaled flips": flips[n],
            "pushed": kl[count * which + n], "pushed flips": flips[count * which + n],
        }
        for which, push in enumerate(pushes, 1)
        for n in range(count)
    ]  # fmt: skip


def effects(
    model: Model, ids: Int[np.ndarray, " S"], layer: int, positions: Sequence[int], push: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "n V"]:
    """Return what one push does to the logits of each of a prompt's tokens at that token, each pushed alone."""
    found = []
    for position in positions:
        onward = Onward(model, torch.as_tensor(ids), layer, position, read_at=position)
        ran = onward.run(torch.stack([onward.x, onward.x + torch.as_tensor(push).to(onward.x)]))
        effect = (ran.out[1] - ran.out[0]).double().cpu()
        found.append((effect - effect.mean()).float().numpy())
    return np.stack(found)
