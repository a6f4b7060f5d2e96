"""Local maps of an MLP: what it does near one token, as one affine map, and what is left when there are only k of them.

With `h = W_in u + b`, the maps of one layer differ in what multiplies each neuron, and in nothing else:

    out(u') = W_out (d * h(u') + e) + b_out;    J = W_out diag(d) W_in,    a = W_out (e + d * b) + b_out.

| | d | e |
|---|---|---|
| tangent | `act'(h)` | `act(h) - act'(h) h` |
| secant | `act(h)/h`, the soft code | 0 |
| gated, tangent | gate `act'(g) up`, up `act(g)` | `-act'(g) up g` |
| gated, secant | gate 0, up `act(g)` (the gate's value held) | 0 |

All are exact at their token. Behind ReLUs tangent and secant are the polytope's own map, a function of the code alone.
So a map is kept as `(d, e)`, in N-space, and `D x D` matrices are made only where they are asked for. The Frobenius
distance of two maps is `|delta|^2` in `M = (W_out' W_out) * (W_in W_in')` (elementwise; gated: `W_out` twice,
`[W_gate; W_up]`), plus `|a - a'|^2` for the intercepts: `M = L L'` makes it the Euclidean distance of `(L'd, a)`, in
which k-means runs. Means of maps are maps.

Source: Sattelberg et al., "Locally linear attributes of ReLU neural networks" (Frontiers in AI 6:1255192, 2023).
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from einops import einsum
from torch import Tensor

from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.models.families import weight_and_bias
from polytope_lm.models.gates import Mlp, activation, mlp_of, rewriting
from polytope_lm.models.hooks import read

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jaxtyping import Float, Int

    from polytope_lm.models.model import Model

Kind = Literal["tangent", "secant"]
_AT_ONCE = 2048
"""Maps whose features are made together."""


@dataclass(frozen=True, eq=False, repr=False)
class Weights:
    """The maps of one MLP that all its tokens share.

    Attributes:
        w_in: `W_in`, `[N, D]`; gated: `[W_gate; W_up]`, `[2N, D]`.
        b_in: `[N]` or `[2N]`.
        w_out: `[D, N]`.
        b_out: `[D]`.

    """

    w_in: Float[Tensor, "M D"]
    b_in: Float[Tensor, " M"]
    w_out: Float[Tensor, "K N"]
    b_out: Float[Tensor, " K"]

    @classmethod
    def of(cls, model: Model, layer: int) -> Weights:
        """Read a layer's.

        Raises:
            PolytopeError: no such layer; a mixture of experts; weights that are not what the modules compute.

        """
        block = model.block(layer)
        if block.routing is not None:
            raise PolytopeError(f"{model.name}, layer {layer}: a mixture of experts has no one map, choose a dense MLP")
        if block.inexact:
            raise PolytopeError(block.inexact)
        parts = [block.numbers(kind) for kind in (("gate", "up") if "gate" in block.pre else ("pre",))]
        w_out, b_out = weight_and_bias(block.down)
        biases = [torch.zeros(len(w), device=w.device) if b is None else b for w, b in parts]
        return cls(
            torch.cat([w for w, _ in parts]).float(), torch.cat(biases).float(), w_out.float(),
            torch.zeros(len(w_out), device=w_out.device) if b_out is None else b_out.float(),
        )  # fmt: skip

    @property
    def gated(self) -> bool:
        """Whether a map has two numbers a neuron."""
        return len(self.w_in) == 2 * self.w_out.shape[1]

    @cached_property
    def root(self) -> Float[Tensor, "M M"]:
        """`L` with `L L' = (W_out' W_out) * (W_in W_in')`."""
        out = self.w_out.double().T @ self.w_out.double()
        out = out.repeat(2, 2) if self.gated else out
        metric = out * (self.w_in.double() @ self.w_in.double().T)
        # Neurons that write nothing make it singular.
        jitter = 1e-12 * metric.diagonal().mean() * torch.eye(len(metric), dtype=metric.dtype, device=metric.device)
        found: Tensor = torch.linalg.cholesky(metric + jitter).float()
        return found


@dataclass(frozen=True, eq=False, repr=False)
class Maps:
    """Affine maps of one layer's MLP, a row each.

    Attributes:
        weights: what they share.
        slope: `d`, `[n, N]`; gated `[n, 2N]`, the gate's then up's.
        shift: `e`, `[n, N]`.
        kind: tangent or secant.
        layer: the block.

    """

    weights: Weights
    slope: Float[Tensor, "n M"]
    shift: Float[Tensor, "n N"]
    kind: Kind
    layer: int

    def __len__(self) -> int:
        return len(self.slope)

    def __repr__(self) -> str:
        d = self.weights.w_in.shape[1]
        return f"Maps: {len(self):,} {self.kind} maps of layer {self.layer}'s MLP, {d} to {len(self.weights.w_out)}"

    def __getitem__(self, rows: Any) -> Maps:
        """Return some of them."""
        return replace(self, slope=self.slope[rows], shift=self.shift[rows])

    def post(self, mlp: Mlp) -> Float[Tensor, "n N"]:
        """Return what each row's map makes of the same row of pre-activations: `d * h + e`."""
        if mlp.up is None:
            return self.slope * mlp.h + self.shift
        gate, up = self.slope.chunk(2, dim=-1)
        return gate * mlp.h + up * mlp.up + self.shift

    def __call__(self, u: Float[Tensor, "n D"]) -> Float[Tensor, "n K"]:
        """Return what each row's map makes of the same row of inputs."""
        h = u @ self.weights.w_in.T + self.weights.b_in
        h, up = h.chunk(2, dim=-1) if self.weights.gated else (h, None)
        return self.post(Mlp(u, h, up, h)) @ self.weights.w_out.T + self.weights.b_out

    def matrices(self) -> Float[Tensor, "n K D"]:
        """Return every `J`, whole: `n D^2` numbers."""
        w_out = self.weights.w_out.repeat(1, 2) if self.weights.gated else self.weights.w_out
        return einsum(w_out, self.slope, self.weights.w_in, "K M, n M, M D -> n K D")

    def intercepts(self) -> Float[Tensor, "n K"]:
        """Return every `a`, the map's value at `u = 0`."""
        steady = self.slope * self.weights.b_in
        if self.weights.gated:
            gate, up = steady.chunk(2, dim=-1)
            steady = gate + up
        return (self.shift + steady) @ self.weights.w_out.T + self.weights.b_out

    def features(self) -> Float[np.ndarray, "n F"]:
        """Return points whose Euclidean distances are the Frobenius distances of `(J, a)`: `(L'd, a)`, float32."""
        parts = [
            torch.cat([part.slope @ self.weights.root, part.intercepts()], dim=1).cpu().numpy()
            for part in (self[start : start + _AT_ONCE] for start in range(0, len(self), _AT_ONCE))
        ]
        return np.concatenate(parts)

    def distances(self, others: Maps) -> Float[np.ndarray, " n"]:
        """Return the Frobenius distance of each `(J, a)` from that of the same row of others."""
        found: np.ndarray = np.linalg.norm(self.features() - others.features(), axis=1)
        return found

    def means(self, labels: Int[np.ndarray, " n"], k: int) -> Maps:
        """Return the mean map of each of k groups; a group without members has the mean of all.

        Raises:
            PolytopeError: labels outside 0 to k - 1, or not one a map.

        """
        if len(labels) != len(self) or labels.min() < 0 or labels.max() >= k:
            raise PolytopeError(
                f"{len(labels)} labels up to {labels.max()} for {len(self)} maps: give one each, below {k}"
            )
        which = torch.as_tensor(labels, device=self.slope.device)
        counts = torch.bincount(which, minlength=k)[:, None]

        def mean(values: Tensor) -> Tensor:
            sums = values.new_zeros(k, values.shape[1]).index_add_(0, which, values)
            return torch.where(counts > 0, sums / counts.clamp(min=1), values.mean(0))

        return replace(self, slope=mean(self.slope), shift=mean(self.shift))


@torch.no_grad()
def maps_at(model: Model, layer: int, u: Float[Tensor, "n D"], kind: Kind = "tangent") -> Maps:
    """Return the maps of a layer's MLP at inputs `u`.

    Args:
        model: the model.
        layer: the block.
        u: the MLP's inputs, after the norm.
        kind: tangent or secant.

    Raises:
        PolytopeError: another kind, no such layer, a mixture of experts, an activation without a formula.

    """
    if kind not in get_args(Kind):
        raise PolytopeError(f"kind={brief(kind)}: choose tangent or secant")
    weights = Weights.of(model, layer)
    block = model.block(layer)
    act = activation(block)
    mlp = mlp_of(block, u.to(model.dtype))
    h, up = mlp.h.float(), None if mlp.up is None else mlp.up.float()  # as the weights are
    on = act(h)
    slope = _slope(act, h) if kind == "tangent" or up is None else on
    if up is not None:
        if kind == "secant":
            return Maps(weights, torch.cat([torch.zeros_like(on), on], dim=-1), torch.zeros_like(on), kind, layer)
        gate = slope * up
        return Maps(weights, torch.cat([gate, on], dim=-1), -gate * h, kind, layer)
    if kind == "secant":
        soft = torch.where(h == 0, slope, on / torch.where(h == 0, 1.0, h))
        return Maps(weights, soft, torch.zeros_like(soft), kind, layer)
    return Maps(weights, slope, on - slope * h, kind, layer)


def _slope(act: Any, h: Tensor) -> Tensor:
    """Return `act'(h)`."""
    with torch.enable_grad():
        at = h.detach().requires_grad_()
        (slope,) = torch.autograd.grad(act(at).sum(), at)
    return slope.detach()


def inputs_of(model: Model, windows: Sequence[Int[np.ndarray, " _"]], layer: int) -> Float[Tensor, "T D"]:
    """Read a layer's MLP inputs `u` at all positions but the first of each sequence of token ids."""
    found: list[Tensor] = []
    for ids in windows:
        read(model, torch.as_tensor(ids)[None], None, {(layer, "u"): lambda value: found.append(value[0, 1:].clone())})
    return torch.cat(found)


@public
def maps(model: Model, text: str, layer: int, *, kind: Kind = "tangent") -> Maps:
    """Return the maps of a layer's MLP at the tokens of a text, the first token left out.

    Args:
        model: the model.
        text: what it reads.
        layer: the block.
        kind: `tangent`, the derivative at the token; `secant`, the gates held at their values.

    Raises:
        PolytopeError: fewer than two tokens; as `maps_at`.

    Examples:
        >>> import polytope_lm as plm, torch
        >>> from polytope_lm.geometry.affine import maps
        >>> found = maps(plm.load("tiny-relu"), "The river bank was steep", 1)
        >>> found.slope.shape[1], found.matrices().shape[1:]
        (512, torch.Size([128, 128]))
        >>> sorted(set(found.slope.unique().tolist()))  # behind ReLUs the slopes are the code
        [0.0, 1.0]

    """
    ids = np.asarray(model.tokenizer(text)["input_ids"])
    if len(ids) < 2:
        raise PolytopeError(f"the text {brief(text)} has {len(ids)} tokens: give 2 or more, the first is left out")
    return maps_at(model, layer, inputs_of(model, [ids], layer), kind)


@dataclass(frozen=True, eq=False, repr=False)
class Centres:
    """k maps that stand for many.

    Attributes:
        maps: the k means.
        sizes: how many maps each is the mean of, `[k]`.
        labels: which one each fitted map belongs to, `[T]`.

    """

    maps: Maps
    sizes: Int[np.ndarray, " k"]
    labels: Int[np.ndarray, " T"]

    def __repr__(self) -> str:
        sizes = f"{self.sizes.min():,} to {self.sizes.max():,}"
        return f"Centres: {len(self.maps):,} for {len(self.labels):,} maps, each of {sizes}"

    @cached_property
    def _points(self) -> Float[Tensor, "k F"]:
        return torch.from_numpy(self.maps.features())

    def nearest(self, others: Maps) -> Int[np.ndarray, " n"]:
        """Return the nearest centre of each map, under the Frobenius norm of `(J, a)`."""
        points = torch.from_numpy(others.features())
        return np.asarray(torch.cdist(points, self._points).argmin(dim=1))


@public
def reduce(found: Maps, k: int, *, seed: int = 0, iterations: int = 20) -> Centres:
    """Cluster maps by k-means under the Frobenius norm of `(J, a)`, in N-space.

    Args:
        found: the maps.
        k: how many centres.
        seed: of the first centres: maps drawn at random.
        iterations: of Lloyd's algorithm, at most.

    Raises:
        PolytopeError: k below 1 or beyond the number of maps.

    Examples:
        >>> import polytope_lm as plm
        >>> from polytope_lm.geometry.affine import maps, reduce
        >>> found = maps(plm.load("tiny-gpt2"), "The river bank was steep and the other bank was flat", 1)
        >>> len(reduce(found, 3).maps)
        3

    """
    if isinstance(k, bool) or not isinstance(k, int | np.integer) or not 1 <= k <= len(found):
        raise PolytopeError(f"k={brief(k)}: there are {len(found):,} tokens with a map, give 1 to as many")
    labels = k_means(found.features(), k, seed=seed, iterations=iterations)
    return Centres(found.means(labels, k), np.bincount(labels, minlength=k), labels)


def k_means(points: Float[np.ndarray, "n F"], k: int, *, seed: int = 0, iterations: int = 20) -> Int[np.ndarray, " n"]:
    """Return which of k clusters each point is in, by Lloyd's algorithm from k points drawn at random."""
    from sklearn.cluster import KMeans  # noqa: PLC0415 - maps alone need none
    from sklearn.exceptions import ConvergenceWarning  # noqa: PLC0415

    if k == 1:
        return np.zeros(len(points), np.int64)
    if k == len(points):
        return np.arange(k)
    found = KMeans(k, init="random", n_init=1, max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different points than k: some clusters stay empty
        labels: np.ndarray = found.fit_predict(points).astype(np.int64)
    return labels


@contextmanager
def substituting(model: Model, centres: Centres) -> Iterator[None]:
    """Run a model with k maps in an MLP's place while the context lasts: each token has the centre nearest its own map.

    The first position of a sequence keeps its own MLP.

    Examples:
        >>> import polytope_lm as plm, torch
        >>> from polytope_lm.geometry.affine import maps, reduce, substituting
        >>> model, text = plm.load("tiny-relu"), "The river bank was steep"
        >>> centres = reduce(found := maps(model, text, 1), len(found))  # each token its own map
        >>> ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        >>> clean = model.hf(ids).logits
        >>> with substituting(model, centres):
        ...     bool((model.hf(ids).logits - clean).abs().max() < 1e-4)
        True

    """

    def change(layer: int, mlp: Mlp) -> Tensor:
        post = mlp.post.clone()
        for row in range(len(post)):
            own = maps_at(model, layer, mlp.u[row, 1:], centres.maps.kind)
            post[row, 1:] = centres.maps[centres.nearest(own)].post(
                Mlp(mlp.u[row, 1:], mlp.h[row, 1:], None if mlp.up is None else mlp.up[row, 1:], post[row, 1:])
            )
        return post

    said = f"{len(centres.maps)} {centres.maps.kind} maps in the place of layer {centres.maps.layer}'s MLP"
    with rewriting(model, [centres.maps.layer], change, said=said):
        yield
