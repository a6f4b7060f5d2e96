"""What an arm knows of a layer, fitted on documents that are not tested: means, slopes, read-outs, donors.

Everything is computed from `u`, the MLP's inputs at the fitting tokens, by the layer's own modules; the activation is
checked against the model's own `post`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from polytope_lm.codes.hamming import hamming
from polytope_lm.errors import PolytopeError
from polytope_lm.models.gates import Mlp, activation, branches, mlp_of
from polytope_lm.models.hooks import pack, read
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.clustering import sampled_k_medoids
from polytope_lm.statistics.ridge import HELD_OUT, ridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float, Int64

    from polytope_lm.models.families import Block
    from polytope_lm.models.hooks import Reader, Tap
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Point

_CHUNK = 1024  # tokens at a time
_EXACT = 1e-3  # of the largest value: what the activation makes of h may be off the model's own post by so much
CLUSTERS, PER_CLUSTER = 100, 60
MEANS, PER_MEAN = 512, 8
DONORS = ("of the same cluster by code", "of the same cluster by cosine", "of the same token", "a random one")


@dataclass(frozen=True, eq=False)
class Pool:
    """The fitting tokens: the MLPs' inputs, which token each is, and which document it is from.

    Attributes:
        u: by layer.
        post: of a few tokens, by layer, as the model itself has it.

    """

    u: Mapping[int, Float[Tensor, "T D"]]
    post: Mapping[int, Float[Tensor, "few N"]]
    token_id: Int64[np.ndarray, " T"]
    document: Int64[np.ndarray, " T"]


@dataclass(frozen=True, eq=False)
class Readout:
    """Bits read out by ridge regression: `out = features @ weight + bias`."""

    features: Callable[[Mlp], Float[Tensor, "S F"]]
    weight: Float[Tensor, "F D"]
    bias: Float[Tensor, " D"]
    penalty: float

    def __call__(self, mlp: Mlp) -> Float[Tensor, "S D"]:
        """Return the MLP's output as these bits tell it."""
        return self.features(mlp) @ self.weight + self.bias


@dataclass(frozen=True, eq=False)
class Cells:
    """Numbers of each neuron's side: a row for bit 0, a row for bit 1."""

    off: Float[Tensor, " N"]
    on: Float[Tensor, " N"]

    def at(self, bits: Tensor) -> Tensor:
        """Return each neuron's number on the side that its bit says."""
        return torch.where(bits, self.on, self.off)


@dataclass(frozen=True, eq=False)
class Clusters:
    """A clustering of the pool, in which a new token has its nearest medoid's cluster."""

    members: tuple[Int64[np.ndarray, " _"], ...]
    nearest: Callable[[Float[Tensor, "S N"]], Int64[np.ndarray, " S"]]


@dataclass(frozen=True, eq=False)
class Fit:
    """What is known of one layer.

    Attributes:
        u: the MLP's inputs at the fitting tokens.
        token_id: which token each is.
        mean: of `post`.
        one_bit: of `post`, given the (gate's) bit.
        two_bits: the same given `up > 0` too, for `up` off and on; None for plain MLPs.
        slope: mean of `act'(h)` given the bit.
        intercept: mean of `act(h) - act'(h) h` given the bit.
        secant: mean of `act(h)/h` given the bit.
        negative: mean of `act(h)` where `h <= 0`.
        readouts: by name, one or several draws.
        clusters: by donor.

    """

    block: Block
    act: Callable[[Tensor], Tensor]
    u: Float[Tensor, "T D"]
    token_id: Int64[np.ndarray, " T"]
    mean: Float[Tensor, " N"]
    one_bit: Cells
    two_bits: tuple[Cells, Cells] | None
    slope: Cells
    intercept: Cells
    secant: Cells
    negative: Float[Tensor, " N"]
    readouts: Mapping[str, tuple[Readout, ...]]
    clusters: Mapping[str, Clusters]

    def post(self, h: Tensor, mlp: Mlp) -> Tensor:
        """Return `post` for other pre-activations, the up branch untouched."""
        return self.act(h) if mlp.up is None else self.act(h) * mlp.up

    def donated(self, rows: Int64[np.ndarray, " S"]) -> Float[Tensor, "S N"]:
        """Return the pre-activations of fitting tokens."""
        maps = branches(self.block, self.u[torch.as_tensor(rows, device=self.u.device)])
        return maps["gate" if "gate" in maps else "pre"]


def pool_of(
    model: Model, windows: Sequence[Int64[np.ndarray, " _"]], documents: Sequence[int], layers: Sequence[int]
) -> Pool:
    """Read the MLPs' inputs of fitting windows at all positions but the first, in one pass over the trunk."""
    found: dict[tuple[str, int], list[Tensor]] = {}

    def keep(value: Tensor, name: str, layer: int) -> None:
        found.setdefault((name, layer), []).append(value[0, 1:].clone())

    for number, ids in enumerate(windows):
        names: tuple[Point, ...] = ("u",) if number else ("u", "post")
        taps: dict[Tap, Reader] = {
            (layer, name): partial(keep, name=name, layer=layer) for layer in layers for name in names
        }
        read(model, torch.as_tensor(ids)[None], None, taps)
    lengths = [len(ids) - 1 for ids in windows]
    return Pool(
        {layer: torch.cat(found["u", layer]) for layer in layers},
        {layer: found["post", layer][0] for layer in layers},
        np.concatenate([ids[1:] for ids in windows]).astype(np.int64),
        np.repeat(np.asarray(documents, np.int64), lengths),
    )  # fmt: skip


@torch.no_grad()
def fit(model: Model, layer: int, pool: Pool, *, draws: int, seed: int) -> Fit:
    """Fit everything that the arms need of one layer."""
    block, u = model.block(layer), pool.u[layer]
    act = activation(block)
    few = pool.post[layer]
    off = (mlp_of(block, u[: len(few)]).post - few).abs().max() / few.abs().max().clamp(min=1e-30)
    if float(off) > max(_EXACT, torch.finfo(few.dtype).eps ** 0.5):
        raise PolytopeError(
            f"{model.name}, layer {layer}: post is not {block.activation} of the pre-activations (off by "
            f"{float(off):.2g} of the largest value), so what a code determines can't be asked here"
        )
    means = _Means()
    packed, out, h_all = [], [], []
    for start in range(0, len(u), _CHUNK):
        mlp = mlp_of(block, u[start : start + _CHUNK])
        with torch.enable_grad():
            h = mlp.h.detach().requires_grad_()
            on = act(h)
            (slope,) = torch.autograd.grad(on.sum(), h)
        on, z = on.detach(), mlp.h > 0
        secant = torch.where(mlp.h == 0, slope, on / torch.where(mlp.h == 0, 1.0, mlp.h))
        named = {"post": mlp.post, "slope": slope, "intercept": on - slope * mlp.h, "secant": secant, "act": on}
        for name, value in named.items():
            means.add(name, value, z)
        if mlp.up is not None:
            means.add("post, up off", mlp.post, z, mlp.up <= 0)
            means.add("post, up on", mlp.post, z, mlp.up > 0)
        packed.append(pack(mlp.h))
        h_all.append(mlp.h)
        out.append(block.down.forward(mlp.post))
    codes, h = np.concatenate(packed), torch.cat(h_all)
    gated = "up" in block.pre
    return Fit(
        block=block, act=act, u=u, token_id=pool.token_id, mean=means.whole("post"), one_bit=means.cells("post"),
        two_bits=(means.cells("post, up off"), means.cells("post, up on")) if gated else None,
        slope=means.cells("slope"), intercept=means.cells("intercept"), secant=means.cells("secant"),
        negative=means.cells("act").off,
        readouts=_readouts(pool, u, h, torch.cat(out), draws=draws, seed=seed),
        clusters=_clusters(codes, h, seed),
    )  # fmt: skip


class _Means:
    """Sums of each neuron's numbers, by the side of its bit."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, value: Tensor, bits: Tensor, where: Tensor | None = None) -> None:
        value, on = value.double(), bits.double()
        off = 1 - on
        if where is not None:
            on, off = on * where, off * where
        parts = torch.stack([(value * off).sum(0), off.sum(0), (value * on).sum(0), on.sum(0)])
        self.sums[name] = self.sums[name] + parts if name in self.sums else parts

    def whole(self, name: str) -> Tensor:
        off, n_off, on, n_on = self.sums[name]
        mean: Tensor = ((off + on) / (n_off + n_on).clamp(min=1)).float()
        return mean

    def cells(self, name: str) -> Cells:
        """Return the means of both sides; a side that no fitting token is on has the neuron's mean."""
        off, n_off, on, n_on = self.sums[name]
        mean = self.whole(name)
        sides = ((off, n_off), (on, n_on))
        return Cells(*(torch.where(n > 0, (total / n).float(), mean) for total, n in sides))


def _readouts(
    pool: Pool, u: Tensor, h: Tensor, out: Tensor, *, draws: int, seed: int
) -> dict[str, tuple[Readout, ...]]:
    held = pool.document % HELD_OUT == 0
    rates = (h > 0).float().mean(0)
    everything = Mlp(u, h, None, h)

    def made(features: Callable[[Mlp], Tensor]) -> Readout:
        weight, bias, penalty = ridge(features(everything).float().cpu().numpy(), out.float().cpu().numpy(), held)
        return Readout(features, torch.as_tensor(weight).to(u), torch.as_tensor(bias).to(u), penalty)

    def planes(draw: int) -> Callable[[Mlp], Tensor]:
        generator = np.random.default_rng(derived(seed, Purpose.BIT_PLANES, draw))
        normals = torch.as_tensor(generator.standard_normal((u.shape[1], h.shape[1]), np.float32)).to(u)
        heights = (u @ normals).sort(dim=0).values
        # The bit is on for as many of the fitting tokens as the neuron's.
        last = (len(u) - 1 - (rates * len(u)).round().long()).clamp(min=0)
        thresholds = heights.gather(0, last[None])[0]
        return lambda mlp: (mlp.u @ normals > thresholds).to(mlp.u.dtype)

    k = max(2, min(MEANS, len(u) // PER_MEAN))
    found = KMeans(k, n_init=1, max_iter=30, random_state=derived(seed, Purpose.DONOR_CLUSTERS, 1))
    centres = torch.as_tensor(found.fit(u.float().cpu().numpy()).cluster_centers_).to(u)

    def index(mlp: Mlp) -> Tensor:
        return torch.nn.functional.one_hot(torch.cdist(mlp.u, centres).argmin(-1), k).to(mlp.u.dtype)

    return {
        "code": (made(lambda mlp: (mlp.h > 0).to(mlp.u.dtype)),),
        "sign of u": (made(lambda mlp: (mlp.u > 0).to(mlp.u.dtype)),),
        "SimHash, rate-matched": tuple(made(planes(draw)) for draw in range(draws)),
        "k-means index of u": (made(index),),
    }


def _clusters(codes: np.ndarray, h: Tensor, seed: int) -> dict[str, Clusters]:
    """Cluster the pool by code and by the cosine of centred `h`: k-medoids, k = 100, or T/60 below 6,000 tokens."""
    k = max(2, min(CLUSTERS, len(codes) // PER_CLUSTER))
    start = derived(seed, Purpose.DONOR_CLUSTERS)
    centre = h.mean(0)

    def units(x: Tensor) -> np.ndarray:
        away = (x - centre).float()
        array: np.ndarray = (away / away.norm(dim=-1, keepdim=True).clamp(min=1e-30)).cpu().numpy()
        return array

    directions = units(h)
    by_code = sampled_k_medoids(
        len(codes), k, lambda a, b: hamming.distances(codes[a], codes[b]).astype(np.float32), seed=start, samples=1
    )
    by_cosine = sampled_k_medoids(
        len(codes), k, lambda a, b: 1 - directions[a] @ directions[b].T, seed=start, samples=1
    )
    code_medoids, cosine_medoids = codes[by_code.medoids], directions[by_cosine.medoids]

    def members(labels: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(np.flatnonzero(labels == number) for number in range(k))

    return {
        DONORS[0]: Clusters(members(by_code.labels), lambda x: hamming.distances(pack(x), code_medoids).argmin(1)),
        DONORS[1]: Clusters(members(by_cosine.labels), lambda x: (units(x) @ cosine_medoids.T).argmax(1)),
    }


def donors_of(
    fitted: Fit, h: Float[Tensor, "S N"], token_id: Int64[np.ndarray, " S"], rng: np.random.Generator
) -> dict[str, Int64[np.ndarray, " S"]]:
    """Return a fitting token for each tested one, by kind of donor; -1 where there is none."""
    found = {}
    for name, each in fitted.clusters.items():
        found[name] = np.array([_one(each.members[number], rng) for number in each.nearest(h)], np.int64)
    order = np.argsort(fitted.token_id, kind="stable")
    ranked = fitted.token_id[order]
    ends = (np.searchsorted(ranked, token_id, side) for side in ("left", "right"))
    found[DONORS[2]] = np.array([_one(order[a:b], rng) for a, b in zip(*ends, strict=True)], np.int64)
    found[DONORS[3]] = rng.integers(len(fitted.token_id), size=len(token_id))
    return found


def _one(rows: Int64[np.ndarray, " m"], rng: np.random.Generator) -> int:
    return int(rng.choice(rows)) if len(rows) else -1
