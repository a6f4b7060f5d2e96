"""What can be counted of a token's or a prompt's polytopes, each count beside a smooth number that might say the same.

Groups of a token's measures:

- `boundary`: the share of neurons that are on; the distance to the nearest boundary in `u`-space,
  `min_i |h_i|/||w_i||`, and whose it is. Smooth: the norm of `u`; beside the share the norm of the MLP's Jacobian.
- `complexity`: local complexity here and one layer on, with its radius. Smooth: the norm of the Jacobian of `h` with
  respect to `x`, from the same vertices (`local_complexity`).
- `path`: boundaries crossed on the line in `u`-space from the token before (the Hamming distance of the two). Smooth:
  the variation of the MLP's Jacobian on that line (`jacobian`), the distance of `h`.
- `jacobian`: smooth itself, the norm of the MLP's Jacobian.
- `output`: next-token loss and entropy, in nats: what the others may tell.

Of a prompt: the seven spline features, each beside the same statistic of the smooth number; distinct codes beside
distinct tokens; the Linear Mapping Number of the MLP between a dozen of its tokens beside their mean linearity; means
of what its tokens have. How distinct codes grow with the number of tokens: `distinct`.

Region density alone is known to fail as a measure of nonlinearity (Gamba et al. 2202.11749), so no count stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from polytope_lm.codes.capture import encode
from polytope_lm.codes.codes import TokenCodes
from polytope_lm.codes.reread import at_hand, read_again
from polytope_lm.errors import PolytopeError, brief, public
from polytope_lm.geometry.jacobian import MlpJacobian
from polytope_lm.geometry.linear_mapping import linear_mapping_number, linearity_matrix, run_of
from polytope_lm.geometry.local_complexity import RADIUS, signed_taps, token_complexity
from polytope_lm.geometry.spline_features import FEATURES, MarginReader, features, read_batch
from polytope_lm.models.logits import logits_at
from polytope_lm.models.model import Model
from polytope_lm.progress import stepwise
from polytope_lm.seeds import Purpose, derived

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pandas as pd
    from jaxtyping import Float, Int

    from polytope_lm.documents.source import Source
    from polytope_lm.models.hooks import Tap
    from polytope_lm.models.sites import Site

GROUPS = ("boundary", "jacobian", "path", "complexity", "output")
SMOOTH = {
    "share on": "norm of the Jacobian",
    "boundary distance": "norm of u",
    "local complexity": "norm of dh/dx",
    "local complexity, next layer": "norm of dh/dx, next layer",
    "crossings from the token before": "variation of the Jacobian from the token before",
}
"""Each count of a token, and its smooth twin."""
SMOOTH_OF_PROMPTS = {
    **{name: name.replace("share on", "norm of the Jacobian").replace("boundary distance", "norm of u")
       for name in FEATURES},
    "distinct codes": "distinct tokens",
    "linear mapping number": "mean linearity",
    "mean crossings from the token before": "mean variation of the Jacobian from the token before",
}  # fmt: skip
"""Each count of a prompt, and its smooth twin: of a spline feature the same statistic of its token's smooth number."""
_SPREAD: dict[str, Callable[[np.ndarray], Any]] = {"least": np.min, "greatest": np.max, "sd of": np.std}
SAMPLES = 12
"""Tokens of a prompt between which linearity is taken."""
_ROWS = 256


@dataclass(frozen=True)
class Settings:
    """How measures are taken.

    Attributes:
        radius: of local complexity's frames, over `|x|`.
        directions: P, of these frames.
        nodes: points on the line from the token before at which the Jacobian is taken.
        seed: of the frames' directions and of the draw of tokens or prompts.

    """

    radius: float = RADIUS
    directions: int = 25
    nodes: int = 9
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what measures nothing."""
        if not (isinstance(self.radius, (int, float)) and 0 < self.radius < np.inf):
            raise PolytopeError(f"radius={brief(self.radius)}: give a share of the norm above 0, such as {RADIUS}")
        for name, least in (("directions", 1), ("nodes", 2)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
                raise PolytopeError(f"{name}={brief(value)}: give a whole number from {least}")


@public
def measure(
    of: Model | TokenCodes,
    texts: Source | None = None,
    *,
    layers: Sequence[int] | int | None = None,
    per: Literal["token", "prompt"] = "token",
    which: Sequence[str] | str | None = None,
    most: int | None = 1000,
    model: Model | None = None,
    settings: Settings | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> pd.DataFrame:
    """Measure the polytopes of tokens or prompts, each count beside a smooth number.

    Args:
        of: codes, of `capture` or `encode`; or a model, with `texts`.
        texts: what a model reads: a text, a list, whatever `documents` reads from memory.
        layers: one, several, or None: all that there are.
        per: a row a `token`, or a row a `prompt` (document).
        which: groups of measures: `boundary`, `jacobian`, `path`, `complexity`, `output`; by default all that the model
            has (an encoder has neither `complexity` nor `output`; a prompt's default leaves `complexity` out).
        most: at most so many tokens or prompts, drawn at random; None: all.
        model: the one that made the codes, where they don't bring it.
        settings: radius, directions, nodes, seed.
        progress: called as `(done, total, what)`.

    Returns:
        A row a token or prompt and layer: where it is, the measures, then the labels. NaN where one does not exist: no
        token before the first, no next token after the last, no layer after the last.

    Raises:
        PolytopeError: codes without their model; no such layer or group; a mixture of experts; a radius of 0.

    Examples:
        >>> import polytope_lm as plm
        >>> found = plm.measure(plm.load("tiny-gpt2"), "The river bank is wet", layers=1)
        >>> {"local complexity", "norm of dh/dx"} <= set(found)
        True

    """
    codes, ready = _codes(of, texts, layers, model), settings or Settings()
    if per not in {"token", "prompt"}:
        raise PolytopeError(f"per={brief(per)}: give 'token' or 'prompt'")
    ran = at_hand(codes, model if isinstance(of, TokenCodes) else of)
    sites = _sites(ran, codes, layers)
    chosen = _groups(ran, which, prompt=per == "prompt")
    rows = _rows(codes, per, most, ready.seed)
    steps = len(sites) * ("complexity" in chosen) + 1 + ("output" in chosen) + (per == "prompt") * len(sites)
    taken = _Taken(codes, rows, ran, sites, ready, stepwise(progress, steps))
    taken.from_the_trunk(chosen, vectors=per == "prompt")
    if "complexity" in chosen:
        taken.complexity()
    if "output" in chosen:
        taken.output()
    return _tokens(taken) if per == "token" else _prompts(taken)


@dataclass(eq=False)
class _Taken:
    """What was measured, a column a measure, `[T, L]`."""

    codes: TokenCodes
    rows: Int[np.ndarray, " T"]
    model: Model
    sites: tuple[Site, ...]
    settings: Settings
    tell: Callable[[str], None]
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    u: dict[int, np.ndarray] = field(default_factory=dict)

    def new(self, name: str) -> np.ndarray:
        """Return a column to be filled."""
        self.columns[name] = np.full((len(self.rows), len(self.sites)), np.nan)
        return self.columns[name]

    def from_the_trunk(self, groups: Sequence[str], *, vectors: bool) -> None:
        """Measure what one pass through the trunk shows."""
        self.tell("boundaries")
        model, margins = self.model, MarginReader(self.model, self.sites, len(self.rows))
        readers: list[_LayerReader] = []
        names = {
            "norm of u": "boundary" in groups or vectors, "norm of the Jacobian": "jacobian" in groups,
            "crossings from the token before": "path" in groups,
            "variation of the Jacobian from the token before": "path" in groups,
            "distance of h from the token before": "path" in groups,
        }  # fmt: skip
        for name, wanted in names.items():
            if wanted:
                self.new(name)
        for column, site in enumerate(self.sites):
            jacobian = MlpJacobian(model, site.layer) if {"jacobian", "path"} & set(groups) else None
            readers.append(_LayerReader(self, column, jacobian, signed_taps(model, site)))
            if vectors:
                self.u[site.layer] = np.zeros((len(self.rows), model.d_model), np.float32)
        for batch, rows, place in read_again(self.codes, self.rows, model, alike=True):
            taps: dict[Tap, list[Callable[[torch.Tensor], None]]] = {}
            for some in (margins.taps(rows, place), *(one.taps(rows, place) for one in readers)):
                for tap, reader in some.items():
                    taps.setdefault(tap, []).append(reader)
            read_batch(model, batch, {tap: _each(those) for tap, those in taps.items()})
        if "path" in groups:
            squares = "distance of h from the token before"
            self.columns[squares] = np.sqrt(self.columns[squares])
        if "boundary" in groups or vectors:
            shown = (margins.share, margins.distance, margins.neuron)
            self.columns |= dict(zip(("share on", "boundary distance", "boundary neuron"), shown, strict=True))

    def complexity(self) -> None:
        """Measure local complexity, layer by layer, of each token in its window."""
        last, names = self.model.n_layers - 1, ("local complexity", "norm of dh/dx")
        here, there = ([self.new(f"{name}{where}") for name in names] for where in ("", ", next layer"))
        radius = self.new("radius")
        for column, site in enumerate(self.sites):
            self.tell(f"local complexity, layer {site.layer}")
            for batch, rows, (which, columns) in read_again(self.codes, self.rows, self.model, alike=True):
                for number, window in enumerate(batch.windows):
                    own = rows[which == number]
                    found = token_complexity(
                        self.model, window.input_ids, columns[which == number], site.layer,
                        onward=int(site.layer < last), kind=site.kind, share=self.settings.radius,
                        directions=min(self.settings.directions, self.model.d_model),
                        seed=derived(self.settings.seed, Purpose.FRAMES, int(self.rows[own[0]])),
                    )  # fmt: skip
                    radius[own, column] = found.radius
                    for part, into in enumerate((here, there)[: found.counts.shape[1]]):
                        into[0][own, column], into[1][own, column] = found.counts[:, part], found.jacobian[:, part]

    def output(self) -> None:
        """Measure the loss of the next token, where there is one in the window, and the entropy."""
        self.tell("loss and entropy")
        loss, entropy = self.new("loss"), self.new("entropy")
        for batch, rows, (which, columns) in read_again(self.codes, self.rows, self.model, alike=True):
            ids = torch.from_numpy(batch.input_ids)
            lengths = batch.attention_mask.sum(axis=1)[which]
            following = batch.input_ids[which, np.minimum(columns + 1, batch.input_ids.shape[1] - 1)]
            logits = logits_at(self.model, ids, torch.from_numpy(which), torch.from_numpy(columns))
            for start in range(0, len(rows), _ROWS):
                some = slice(start, start + _ROWS)
                logs = torch.log_softmax(logits[some].double().cpu(), dim=-1)
                surprise = -logs[torch.arange(len(logs)), torch.from_numpy(following[some])].numpy()
                there = columns[some] + 1 < lengths[some]
                loss[rows[some]] = np.where(there, surprise, np.nan)[:, None]
                entropy[rows[some]] = -(logs.exp() * logs).sum(-1).numpy()[:, None]


@dataclass(eq=False)
class _LayerReader:
    """Reads one layer's inputs and what stands at the token before."""

    taken: _Taken
    column: int
    jacobian: MlpJacobian | None
    signs: list[Tap]

    def taps(self, rows: np.ndarray, place: Any) -> dict[Tap, Callable[[torch.Tensor], None]]:
        """Return the readers of one batch, whose tokens at `place` are these rows."""
        columns, layer = self.taken.columns, self.taken.sites[self.column].layer
        which, at = place
        has = at > 0
        own, before = (which[has], at[has]), (which[has], at[has] - 1)
        after = rows[has]

        def inputs(value: torch.Tensor) -> None:
            u = value[place].float()
            if "norm of u" in columns:
                columns["norm of u"][rows, self.column] = u.norm(dim=1).cpu().numpy()
            if layer in self.taken.u:
                self.taken.u[layer][rows] = u.cpu().numpy()
            if self.jacobian is None:
                return
            for start in range(0, len(rows), _ROWS):
                some = slice(start, start + _ROWS)
                if "norm of the Jacobian" in columns:
                    norm = self.jacobian.norm(self.jacobian.diagonal(u[some]))
                    columns["norm of the Jacobian"][rows[some], self.column] = norm.cpu().numpy()
            name = "variation of the Jacobian from the token before"
            for start in range(0, len(after) if name in columns else 0, _ROWS):
                some = slice(start, start + _ROWS)
                a, b = (value[side[0][some], side[1][some]].float()[:, None] for side in (before, own))
                line = a + torch.linspace(0, 1, self.taken.settings.nodes, device=a.device)[:, None] * (b - a)
                columns[name][after[some], self.column] = (
                    self.jacobian.variation(self.jacobian.diagonal(line)).cpu().numpy()
                )

        def signs(value: torch.Tensor) -> None:
            a, b = value[before].float(), value[own].float()
            for name, found in (
                ("crossings from the token before", ((a > 0) != (b > 0)).sum(1)),
                ("distance of h from the token before", (b - a).square().sum(1)),
            ):
                column = columns[name][:, self.column]
                column[after] = np.nan_to_num(column[after]) + found.cpu().numpy()

        path = "crossings from the token before" in columns
        return {(layer, "u"): inputs, **(dict.fromkeys(self.signs, signs) if path else {})}


def _each(readers: Sequence[Callable[[torch.Tensor], None]]) -> Callable[[torch.Tensor], None]:
    def read_all(value: torch.Tensor) -> None:
        for reader in readers:
            reader(value)

    return read_all


def _codes(of: Any, texts: Any, layers: Any, model: Any) -> TokenCodes:
    if isinstance(of, TokenCodes):
        if texts is not None:
            raise PolytopeError("texts were given beside codes, which have theirs: leave one of the two out")
        return of
    if not isinstance(of, Model):
        raise PolytopeError(
            f"of={brief(of)} is neither codes nor a model: give plm.capture's, plm.encode's or plm.load's"
        )
    if texts is None or model is not None:
        raise PolytopeError("a model measures texts: measure(model, texts), and no second model")
    return encode(of, texts, layers="all" if layers is None else layers, keep=())


def _sites(model: Model, codes: TokenCodes, layers: Any) -> tuple[Site, ...]:
    if layers is None:
        found = codes.sites
    else:
        wanted = [int(layers)] if isinstance(layers, (int, np.integer)) else list(layers)
        found = tuple(codes.site(layer) for layer in wanted)
    for site in found:
        signed_taps(model, site)
    return found


def _groups(model: Model, which: Any, *, prompt: bool) -> tuple[str, ...]:
    able = [
        name for name in GROUPS
        if not (name == "complexity" and not model.causal) and not (name == "output" and not model.has_logits)
    ]  # fmt: skip
    if which is None:
        return tuple(name for name in able if not (prompt and name == "complexity"))
    wanted = (which,) if isinstance(which, str) else tuple(which)
    for name in wanted:
        if name not in GROUPS:
            raise PolytopeError(f"which={brief(name)} is no group of measures: choose among {', '.join(GROUPS)}")
        if name not in able:
            raise PolytopeError(f"{model.name} can't give {name!r}: it needs a causal model with an LM head")
    return wanted


def _rows(codes: TokenCodes, per: str, most: int | None, seed: int) -> Int[np.ndarray, " T"]:
    """Return the rows of the tokens that are measured."""
    documents = codes.tokens["document"].to_numpy()
    units = np.arange(len(documents)) if per == "token" else np.unique(documents)
    if most is not None and (isinstance(most, bool) or not isinstance(most, (int, np.integer)) or most < 1):
        raise PolytopeError(f"most={brief(most)}: give a whole number from 1, or None for all")
    if not len(units):
        raise PolytopeError("the codes have no tokens: nothing to measure")
    if most is not None and most < len(units):
        rng = np.random.default_rng(derived(seed, Purpose.TOKENS))
        units = np.sort(rng.choice(units, most, replace=False))
    return units if per == "token" else np.flatnonzero(np.isin(documents, units))


def _places(taken: _Taken) -> pd.DataFrame:
    return taken.codes.tokens.iloc[taken.rows].reset_index(drop=True)


def _labels(table: pd.DataFrame) -> list[str]:
    own = {"document", "position", "start", "end", "token_id", "token"}
    return [name for name in table.columns if name not in own]


def _tokens(taken: _Taken) -> pd.DataFrame:
    """Return one row a token and layer."""
    import pandas as pd  # noqa: PLC0415

    table, parts = _places(taken), []
    for column, site in enumerate(taken.sites):
        where = table[["document", "position", "token"]].assign(layer=site.layer, site=site.key)
        values = {name: array[:, column] for name, array in taken.columns.items()}
        parts.append(pd.concat([where, pd.DataFrame(values), table[_labels(table)]], axis=1))
    found = pd.concat(parts, ignore_index=True)
    whole = [name for name in ("boundary neuron",) if name in found]
    return found.astype(dict.fromkeys(whole, np.int64))


def _prompts(taken: _Taken) -> pd.DataFrame:
    """Return one row a prompt and layer."""
    import pandas as pd  # noqa: PLC0415

    table, rows = _places(taken), []
    token = table["token_id"].to_numpy()
    means = [n for n in taken.columns if n not in {"share on", "boundary distance", "boundary neuron", "radius"}]
    constant = [name for name in _labels(table) if (table.groupby("document")[name].nunique(dropna=False) == 1).all()]
    for column, site in enumerate(taken.sites):
        taken.tell(f"linearity, layer {site.layer}")
        run, packed = run_of(taken.model.block(site.layer)), taken.codes.rows(site, taken.rows)
        owner = table["document"].to_numpy()
        for document in np.unique(owner).tolist():
            index = np.flatnonzero(owner == document)
            own = {name: taken.columns[name][index, column] for name in ("share on", "boundary distance")}
            seven = features(own["share on"][:, None], own["boundary distance"][:, None])[0]
            picked = index[np.unique(np.linspace(0, len(index) - 1, SAMPLES).round().astype(int))]
            matrix = np.ones((1, 1)) if len(picked) < 2 else linearity_matrix(run, taken.u[site.layer][picked])
            off = ~np.eye(len(matrix), dtype=bool)
            mean = {f"mean {name}": _mean(taken.columns[name][index, column]) for name in means}
            spread = {
                f"{word} {name}": float(of(taken.columns[name][index, column]))
                for name in ("norm of the Jacobian", "norm of u")
                if name in taken.columns
                for word, of in _SPREAD.items()
            }
            rows.append(
                {
                    "document": document, "id": taken.codes.ids[document], "layer": site.layer, "site": site.key,
                    "tokens": len(index), **dict(zip(FEATURES, seven, strict=True)),
                    "distinct codes": len(np.unique(packed[index], axis=0)),
                    "distinct tokens": len(np.unique(token[index])),
                    "linear mapping number": linear_mapping_number(matrix),
                    "mean linearity": float(matrix[off].mean()) if off.any() else 1.0,
                    **mean, **spread, **{name: table[name].iloc[index[0]] for name in constant},
                }
            )  # fmt: skip
    return pd.DataFrame(rows)


def _mean(values: Float[np.ndarray, " n"]) -> float:
    """Return the mean of what exists."""
    there = values[np.isfinite(values)]
    return float(there.mean()) if len(there) else float("nan")
