"""What one layer is compared with: representations, controls of labels and words, other weights.

A representation's clusters and neighbours know no label, so several labels of the same tokens cost little
more than one. Two controls need no other representation of the tokens and say what words alone would score:

- *labels permuted* among tokens of the same word in the same document: the code's own clusters against labels
  that know word and document but not the token in its context. Drawn several times.
- *token identity*: each token takes the commonest label that its token has in *other* documents (the
  commonest label of all where it occurs in no other): the AMI that a lexicon reaches without any model. A
  lexicon makes no difference between strict neighbours, which are all other tokens, so they are drawn at
  random among those allowed: its agreement is the chance level of that score.

What learning adds to architecture: the same comparison in the model with *permuted weights*, or *untrained*,
read at the compared tokens with the capture's own settings. Their activations are held for as many layers at
a time as fit `BYTES_AT_ONCE`, so the model is read once for each such block of layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.codes import Codes
from polytope_lm.controls import weights
from polytope_lm.controls.labels import permuted_labels
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.result import REFERENCES, references_of
from polytope_lm.predictions.clusters.scoring import (
    BUILT_IN,
    Layout,
    at,
    laid_out,
    nearest_others,
    scored,
    scores_of,
    summed_up,
)
from polytope_lm.representations import binary as code
from polytope_lm.representations import controls as simhash
from polytope_lm.representations import directions as cosine
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.registry import get
from polytope_lm.representations.routers import ON_ROWS
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.agreement import amis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from jaxtyping import Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.predictions.clusters.sampling import Sample
    from polytope_lm.predictions.clusters.scoring import Measured, Task
    from polytope_lm.representations.registry import Representation

LABELS_PERMUTED = "code, labels permuted in word and document"
TOKEN_IDENTITY = "token identity"  # noqa: S105 -- a token of text, no secret
NULLS = (LABELS_PERMUTED, TOKEN_IDENTITY)
DRAWS = 5

_WORD, _DOCUMENT = 1, 3
"""Columns of `Sample.groups`."""


def labels_permuted(code: Layout, task: Task) -> Measured:
    """Score the code's clusters against labels permuted among the tokens that share word and document."""
    sample = task.sample
    within = sample.groups[:, _WORD], sample.groups[:, _DOCUMENT]
    drawn = [
        permuted_labels(sample.labels, *within, seed=derived(task.seed, Purpose.PERMUTED_LABELS, number))
        for number in range(DRAWS)
    ]
    if drawn[0].movable == 0:
        raise PolytopeError(
            "no label can move: tokens of one word in one document all have the same; choose another label"
        )
    draws = [
        scores_of(code, task, np.concatenate([each.values[None], task.labelings[1:]]).astype(np.int32))
        for each in drawn
    ]
    isolates = (
        f"the null of these very data: {drawn[0].movable:,} of {len(sample.labels):,} labels could move, the "
        "others are alike within word and document"
    )
    return summed_up((LABELS_PERMUTED, "control", isolates), code, draws, task)


def token_identity(task: Task) -> Measured:
    """Score what the token alone says: its commonest label elsewhere, and neighbours drawn at random."""
    sample, rng = task.sample, np.random.default_rng(derived(task.seed, Purpose.TIES, 1))
    near, _ = nearest_others(lambda some: rng.random((len(some), len(task.order)), dtype=np.float32), task)
    away = np.where(near < 0, np.nan, 1).astype(np.float32)
    guesses = majority_elsewhere(sample)
    halves = np.where(task.inside, guesses, -1)
    lexical = np.array([float(amis(each, sample.token[None])[0]) for each in (guesses, *halves)])
    layout = Layout(guesses, halves, near, away, lexical, "same token or not")
    isolates = "the lexicon alone: each token's commonest label in other documents, neighbours at random"
    draws = [scores_of(layout, task, task.labelings)]
    return summed_up((TOKEN_IDENTITY, "control", isolates), layout, draws, task)


def majority_elsewhere(sample: Sample) -> Int[np.ndarray, " n"]:
    """Return each token's commonest label in other documents, the commonest of all where there is none.

    Ties go to the label that is commoner in the whole sample.
    """
    common = np.bincount(sample.labels)
    order = np.argsort(-common, kind="stable")
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    here = rank[sample.labels]  # label 0 is the commonest, so that argmax breaks ties as it should
    token = np.unique(sample.token, return_inverse=True)[1]
    pair = np.unique(np.stack([token, sample.documents]), axis=1, return_inverse=True)[1].ravel()
    everywhere = np.zeros((token.max() + 1, len(common)), dtype=np.int64)
    inside = np.zeros((pair.max() + 1, len(common)), dtype=np.int64)
    np.add.at(everywhere, (token, here), 1)
    np.add.at(inside, (pair, here), 1)
    guesses: Int[np.ndarray, " n"] = order[(everywhere[token] - inside[pair]).argmax(axis=1)]
    return guesses.astype(np.int32)


MAKERS: dict[str, tuple[Callable[..., Model], str, str]] = {
    "permuted": (weights.permuted, "weights permuted", "learning: every matrix keeps its entries, in another order"),
    "untrained": (weights.untrained, "untrained", "learning (weakly): the configuration, initialised anew"),
}
"""How to make each control of the weights, what its rows are called, what it isolates."""

SHOWN = (code.CODE, *cosine.COSINES, simhash.SIMHASH)
"""What is measured in each."""

BYTES_AT_ONCE = 2**29
KEEP = ("u", "h")


def row_name(representation: str, control: str) -> str:
    """Return what a result calls one representation of a control, such as `code, weights permuted`."""
    return f"{representation}, {MAKERS[control][1]}"


class Controls:
    """The model with other weights, read at the compared tokens when a layer is first asked for.

    `names` are of `MAKERS`; `layers` come in the order asked for; `model` is by default the one of the codes.
    """

    def __init__(
        self,
        codes: TokenCodes,
        rows: Int[np.ndarray, " n"],
        layers: Sequence[int],
        names: Sequence[str],
        model: Model | None,
        seed: int,
    ) -> None:
        for name in names:
            if name not in MAKERS:
                raise PolytopeError(f"no control of the weights {name!r}; there are {', '.join(map(repr, MAKERS))}")
        self.names = tuple(names)
        self._model = None if not names else codes.model if model is None else model
        if names and self._model is None:
            raise PolytopeError(
                "permuted and untrained weights need the model, which these codes do not have at hand; give "
                "model=plm.load(...), or on the command line --model NAME"
            )
        if self._model is not None and codes.provenance.get("revision") is not None:
            self._model.check_made("these codes are", codes.provenance)
        self._codes, self._rows, self._layers, self._seed = codes, rows, tuple(layers), seed
        self._read: dict[str, Codes] = {}

    def site(self, layer: int) -> Site:
        """Return a layer's site."""
        return self._codes.site(layer)

    def arrays(self, name: str, layer: int) -> LayerArrays:
        """Return one control's arrays of one layer at the compared tokens."""
        if name not in self._read or layer not in self._read[name].layers:
            self._read.pop(name, None)  # the block before, so that two are never held
            self._read[name] = self._captured(name, self._block(layer))
        read = self._read[name]
        return LayerArrays(read, layer, np.arange(len(read)))

    def _block(self, layer: int) -> tuple[int, ...]:
        """Return the layers to read at once: this one and as many of those after it as fit."""
        start, used = self._layers.index(layer), 0
        for end in range(start, len(self._layers)):
            site = self._codes.site(self._layers[end])
            used += len(self._rows) * 4 * (site.width + site.d_model)
            if end > start and used > BYTES_AT_ONCE:
                return self._layers[start:end]
        return self._layers[start:]

    def _captured(self, name: str, layers: Sequence[int]) -> Codes:
        if self._model is None:
            raise PolytopeError(f"{name!r} was not asked for; name it in weights=")
        codes = self._codes
        table = codes.tokens.iloc[self._rows].reset_index(drop=True)
        sites = tuple(codes.site(layer) for layer in layers)
        wanted = Codes(sites, table, {}, codes.ids, codes.texts, KEEP, codes.provenance)
        made = MAKERS[name][0](self._model, derived(self._seed, Purpose.WEIGHTS, list(MAKERS).index(name)))
        return replace(weights.recaptured(wanted, made), model=None)  # its weights may go


COMPARATORS: dict[str, tuple[tuple[str, ...], ...]] = {
    code.CODE: ((cosine.TOP_NEURON,), (cosine.NMF_NAME,), (cosine.K_MEANS_NAME,), cosine.POST),
    code.THROUGH: ((code.CODE,), REFERENCES),
    code.BOTH: (cosine.BOTH,),
}
"""Further claims and, for each, the groups of references that get a verdict: the neuron lens, the direction lens as
the paper drew it, the cosine of `post`; joined codes beside one layer's; the two-bit code beside both vectors."""

BESIDE = tuple(
    dict.fromkeys(
        name
        for claim, groups in COMPARATORS.items()
        for name in (claim, *(each for group in groups for each in group))
        if name not in BUILT_IN
    )
)
"""What those verdicts need besides the built-in representations."""


def comparators_of(site: Site) -> Mapping[str, tuple[tuple[str, ...], ...]]:
    """Return a site's further claims and comparators: `COMPARATORS`, of a router the two directions of its input."""
    if site.kind != "router":
        return COMPARATORS
    return {code.CODE: (cosine.U, ON_ROWS), code.THROUGH: ((code.CODE,), references_of(site))}


def not_kept(codes: TokenCodes, among: Sequence[Representation] | None = None) -> dict[str, str]:
    """Return the comparators that nothing was kept for: the model is not run again for them unasked."""
    return {
        each.name: f'{array} was not kept; capture with keep=("u", "h", "{array}")'
        for each in (map(get, BESIDE) if among is None else among)
        for array in ("post", "up")
        if array in each.needs and array not in codes.kept
    }


@dataclass(frozen=True)
class Menu:
    """What is measured in each layer: the built-in representations first, and why other rows can be had in none."""

    representations: tuple[Representation, ...]
    nulls: tuple[str, ...]
    controls: Controls
    unavailable: Mapping[str, str]

    @property
    def steps(self) -> int:
        """How many rows there will be."""
        return len(self.representations) + len(self.nulls) + len(self.controls.names) * len(SHOWN)


@dataclass(frozen=True)
class Row:
    """What one layer's row is before a label is looked at: laid out, or the reason why not.

    Attributes:
        about: its name, role and what it isolates.
        layouts: of each draw; none for a null, which takes the code's.
        must: whether a run without it is none.
        reason: why it can't be had; empty if it can.

    """

    about: tuple[str, str, str]
    layouts: Sequence[Layout] = ()
    must: bool = False
    reason: str = ""


def rows_of(
    menu: Menu, arrays: LayerArrays, task: Task, clock: Callable[[str, float], None], tell: Callable[[int, str], None]
) -> Iterator[Row]:
    """Lay out one layer's rows, one by one; labels play no part, so any of the labels' tasks will do.

    Raises:
        PolytopeError: a built-in representation that can't be had.

    """
    step = 0

    def made(representation: Representation, arrays: LayerArrays, *, must: bool) -> Row:
        nonlocal step
        tell(step, representation.name)
        step += 1
        about = (representation.name, representation.role, representation.isolates)
        try:
            return Row(about, laid_out(representation, arrays, task, clock), must)
        except PolytopeError as error:
            if must:
                raise
            return Row(about, reason=str(error))

    for representation in menu.representations:
        yield made(representation, arrays, must=representation.name in at(arrays.site, BUILT_IN))
    for name in menu.nulls:
        tell(step, name)
        step += 1
        yield Row((name, "control", ""))
    for control in menu.controls.names:
        names = {name: row_name(name, control) for name in at(arrays.site, SHOWN)}
        try:
            others = menu.controls.arrays(control, arrays.site.layer)
        except PolytopeError as error:
            for name in names.values():
                tell(step, name)
                step += 1
                yield Row((name, "control", ""), reason=str(error))
            continue
        for name, shown in names.items():
            as_control = replace(get(name), name=shown, role="control", isolates=MAKERS[control][2])
            yield made(as_control, others, must=False)


class LayerScores:
    """One layer's rows, label by label, as they come in: `measured`, or the reason in `left_out`.

    The tasks, by label, have the same tokens, halves and k.
    """

    def __init__(self, tasks: Mapping[str, Task], clock: Callable[[str, float], None]) -> None:
        self.measured: dict[str, dict[str, Measured]] = {label: {} for label in tasks}
        self.left_out: dict[str, dict[str, str]] = {label: {} for label in tasks}
        self._tasks, self._clock = tasks, clock

    def run(self, rows: Iterable[Row], unavailable: Mapping[str, str]) -> None:
        """Score what was laid out; what can't be scored says why, but the built-in representations raise."""
        first: Sequence[Layout] = ()
        for row in rows:
            first = first or row.layouts
            for label in self._tasks:
                self._add(label, row, first)
        for reasons in self.left_out.values():
            reasons.update(unavailable)

    def _add(self, label: str, row: Row, first: Sequence[Layout]) -> None:
        name, task = row.about[0], self._tasks[label]
        if row.reason:
            self.left_out[label][name] = row.reason
            return
        try:
            if row.layouts:
                self.measured[label][name] = scored(row.about, row.layouts, task, self._clock)
            else:
                self.measured[label][name] = (
                    token_identity(task) if name == TOKEN_IDENTITY else labels_permuted(first[0], task)
                )
        except PolytopeError as error:
            if row.must:
                raise
            self.left_out[label][name] = str(error)


def beside_code(measured: Mapping[str, Measured]) -> tuple[str, ...]:
    """Return the controls over which the code's lead is shown: other weights, other labels, the lexicon."""
    wanted = (*(row_name(code.CODE, control) for control in MAKERS), LABELS_PERMUTED, TOKEN_IDENTITY)
    return tuple(name for name in wanted if name in measured)
