"""Word senses: the same ambiguous word in different senses, so that the word itself explains nothing.

Claim. The nearest other use of the same word, by the Hamming distance of codes, has the same sense more often
than by directions.

Score. 1-NN sense accuracy, leave-one-out: each occurrence takes the sense of the nearest occurrence of *the
same word in another document*; the mean over a word's occurrences, then over words (macro). Everything that a
representation takes from the data (means, rates, thresholds) it takes from the word's own occurrences.

It counts from its own null: its mean over 20 exchanges of senses between the sentences of a word.

Comparators. Raw and centred cosine of `h`, each on its own, and rate-matched SimHash; beside them the word's most
frequent sense in other documents, which needs no model (the accuracy itself is compared with it, not what it has
beyond its null). The neuron lens, the direction lens and the cosine of `post` get verdicts of their own, and so do two
further claims: the codes of this layer and all later ones that were captured, beside this layer's alone and the
references; and of gated MLPs the code of both branches beside the cosine of `(g, up)`.

Intervals. A mean over occurrences whose neighbours stay fixed: words are drawn with replacement and sentences
inside each word; with fewer than 10 words only sentences are drawn, and the result speaks of these words alone.
Bounds are `value +/- t sd`, sd over these resamples, Student's t of one degree of freedom less than there are
words (sentences), and how many words (sentences) would settle a layer is said in this unit. A document is a sentence.

A causal model sees only what is left of the word. Where the sentence is given twice
(`documents.senses.twice`) its second copy is read, and the model has seen the whole sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.controls.labels import EXCHANGES, exchanged_between_documents
from polytope_lm.documents.senses import READING
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.arguments import asked
from polytope_lm.predictions.clusters.layers import BESIDE, COMPARATORS, not_kept
from polytope_lm.predictions.clusters.result import REFERENCES, Difference
from polytope_lm.predictions.clusters.sampling import check_label, label_names, layers_of, repeated_documents
from polytope_lm.predictions.clusters.scoring import BUILT_IN
from polytope_lm.predictions.layered import Comparator, with_holm
from polytope_lm.predictions.senses.result import (
    ACCURACY,
    CHANCE,
    MAJORITY,
    LayerSenses,
    SenseScore,
    SenseSettings,
    SensesResult,
    WordSummary,
)
from polytope_lm.representations.arrays import LayerArrays
from polytope_lm.representations.binary import CODE
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get, registered
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived, tie_order
from polytope_lm.statistics.estimate import Resampled, effective_number, resampled
from polytope_lm.statistics.neighbours import strict_neighbours
from polytope_lm.statistics.verdict import Cell, decide

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.representations.registry import Representation
    from polytope_lm.statistics.verdict import Verdict

MIN_WORDS = 10
"""Words are resampled themselves from here on."""
MIN_OCCURRENCES = 10
"""A word with fewer has too few neighbours, and too few senses to exchange, to count as much as the others."""


@dataclass(frozen=True)
class _Words:
    """The compared occurrences, word by word: rows in the codes, and each word's places among them.

    `labelings` are the senses and then their exchanges between a word's sentences; `weights` those in the macro mean,
    of the whole sample and then of each resample; `picks` are in [0, 1). `freedom` is of Student's t, and `widen`
    what the bootstrap of few units loses.
    """

    rows: Int[np.ndarray, " n"]
    parts: Mapping[str, Int[np.ndarray, " m"]]
    labelings: Int[np.ndarray, "m n"]
    documents: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, "draws n"]
    picks: Float[np.ndarray, " resamples"]
    effective: float

    @property
    def unit(self) -> str:
        """What is drawn with replacement and counted: words, or the sentences of few words."""
        return "words" if len(self.parts) >= MIN_WORDS else "sentences"

    @property
    def units(self) -> int:
        """How many of them there are."""
        return len(self.parts) if self.unit == "words" else len(np.unique(self.documents))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the intervals: effective units less one."""
        return self.effective - 1

    @property
    def widen(self) -> float:
        """What a bootstrap of so few units is too narrow by."""
        return float(np.sqrt(self.effective / (self.effective - 1)))


@reproducible("plm.predictions.senses")
@asked
def senses(  # noqa: PLR0913 -- each is a choice that moves a number
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "sense",
    *,
    word: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
    smallest_effect: float = 0.01,
    comparators: bool = True,
    extra: Sequence[str] | str = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> SensesResult:
    """Tell the senses of ambiguous words apart by code and by direction.

    Args:
        codes: codes in memory or a store, captured with `keep=("u", "h")`, of sentences with labelled words.
        layer: one layer, several, or all (None).
        label: the label that is a sense.
        word: the label that says which word it is; by default `word`, `lemma` or `form`, whichever there is,
            else the token's surface; letters' case does not count.
        seed: of every random choice.
        resamples: bootstrap resamples.
        smallest_effect: the smallest difference of accuracy of interest.
        comparators: whether the paper's own comparators are measured, with verdicts of their own.
        extra: registered representations to show besides, or `all`; never part of the verdict.
        progress: told `(done, total, what)` before each layer.

    Raises:
        PolytopeError: the label is absent, no word has 10 occurrences and two senses in two documents each, `u` or
            `h` not kept, NaN in the activations, an unknown representation.

    """
    layers = layers_of(codes, layer)
    wanted = [each.name for each in registered()] if extra == "all" else extra
    unavailable = not_kept(codes) if comparators else {}
    beside = [name for name in BESIDE if name not in unavailable] if comparators else []
    names = dict.fromkeys((*BUILT_IN, *beside, *([wanted] if isinstance(wanted, str) else wanted)))
    chosen = [get(name) for name in names]
    word_label = _word_label(codes, word)
    words, summaries, left_out = _compared(codes, label, word_label, resamples, seed)
    compared = []
    for number, index in enumerate(layers):
        if progress is not None:
            progress(number, len(layers), f"layer {index}")
        each = _layer(codes, index, words, chosen, seed, smallest_effect)
        compared.append(replace(each, left_out=unavailable | dict(each.left_out)))
    drawn = "words and sentences" if words.unit == "words" else "sentences"
    settings = SenseSettings(label, word_label, seed, resamples, smallest_effect, drawn, _reading(codes, words))
    return SensesResult(
        settings=settings,
        words=summaries,
        words_left_out=left_out,
        layers=with_holm(compared),
        provenance=dict(codes.provenance),
        versions=versions("numpy", "scipy", "numba", "kmedoids"),
        command="",
    )


def _word_label(codes: TokenCodes, word: str | None) -> str:
    there = label_names(codes)
    if word is not None:
        check_label(codes, word, " to name the word")
    return word or next((name for name in ("word", "lemma", "form") if name in there), "surface")


def _compared(
    codes: TokenCodes, label: str, word: str, resamples: int, seed: int
) -> tuple[_Words, dict[str, WordSummary], dict[str, str]]:
    """Choose the occurrences: of words with two senses in two documents each, repeated texts once."""
    table = codes.tokens
    check_label(codes, label)
    fresh = ~np.isin(table["document"].to_numpy(), list(repeated_documents(codes.texts)))
    column = "token" if word == "surface" else word
    rows = np.flatnonzero(fresh & table[[label, column]].notna().all(axis=1).to_numpy())
    chosen = table.iloc[rows]
    named = chosen[column].astype(str).str.strip().str.casefold().to_numpy(object)
    values = chosen[label].astype(str).to_numpy(object)
    summaries, left_out, places = _by_word(named, values, chosen["document"].to_numpy())
    if not places:
        raise PolytopeError(
            f"no word by {word!r} has {MIN_OCCURRENCES} occurrences and two values of {label!r} with two sentences "
            f"each ({len(left_out)} words looked at); add sentences"
        )
    order, ends = np.concatenate(places), np.cumsum([len(each) for each in places])
    parts = {name: np.arange(end - len(each), end) for name, each, end in zip(summaries, places, ends, strict=True)}
    documents = chosen["document"].to_numpy()[order].astype(np.int32)
    ids = pd.factorize(values[order], sort=True)[0].astype(np.int32)
    labelings = np.tile(ids, (EXCHANGES + 1, 1))
    for number, part in enumerate(parts.values()):
        labelings[1:, part] = exchanged_between_documents(
            ids[part], documents[part], EXCHANGES, seed=derived(seed, Purpose.EXCHANGES, number)
        )
    effective = float(len(parts)) if len(parts) >= MIN_WORDS else effective_number(documents)
    weights = bootstrap_weights(list(parts.values()), documents, resamples, derived(seed, Purpose.SENTENCES))
    picks = np.random.default_rng(derived(seed, Purpose.SENSE_DRAWS)).random(resamples)
    return _Words(rows[order], parts, labelings, documents, weights, picks, effective), summaries, left_out


def _by_word(
    named: np.ndarray, values: np.ndarray, documents: Int[np.ndarray, " n"]
) -> tuple[dict[str, WordSummary], dict[str, str], list[Int[np.ndarray, " m"]]]:
    """Return the words that can be compared, those that can't, and the places of each that can."""
    summaries: dict[str, WordSummary] = {}
    left_out: dict[str, str] = {}
    kept: list[Int[np.ndarray, " m"]] = []
    for name in sorted(set(named)):
        places = np.flatnonzero(named == name)
        found, counts = np.unique(values[places], return_counts=True)
        spread = [len(set(documents[places[values[places] == sense]])) for sense in found]
        if len(places) < MIN_OCCURRENCES or sum(n >= 2 for n in spread) < 2:
            few = f"fewer than {MIN_OCCURRENCES}" if len(places) < MIN_OCCURRENCES else None
            why = few or "fewer than two senses with two sentences each"
            left_out[name] = f"{len(places)} occurrences, {why}"
            continue
        senses_of = {str(sense): int(n) for sense, n in zip(found, counts, strict=True)}
        summaries[name] = WordSummary(len(places), senses_of)
        kept.append(places)
    return summaries, left_out, kept


def bootstrap_weights(
    parts: Sequence[Int[np.ndarray, " m"]], documents: Int[np.ndarray, " n"], resamples: int, seed: int
) -> Float[np.ndarray, "draws n"]:
    """Return each occurrence's weight in the macro mean: on the whole sample, then on each resample.

    A weight is `m_w / sum(m) * c_i / sum_w(c)`, with `m_w` how often the word was drawn (1 where words are
    fewer than 10) and `c_i` how often the occurrence's document was. `parts` are each word's places.
    """
    rng = np.random.default_rng(seed)
    count = len(parts)
    times = np.ones((resamples + 1, count))
    if count >= MIN_WORDS:
        times[1:] = resampled(np.arange(count), resamples, seed=rng)
    out = np.empty((resamples + 1, len(documents)))
    for number, part in enumerate(parts):
        inside = np.ones((resamples + 1, len(part)))
        if len(set(documents[part])) > 1:
            inside[1:] = resampled(documents[part], resamples, seed=rng)
        out[:, part] = inside / inside.sum(axis=1, keepdims=True) * times[:, [number]]
    result: Float[np.ndarray, "draws n"] = out / times.sum(axis=1, keepdims=True)
    return result


def _reading(codes: TokenCodes, words: _Words) -> str:
    if READING not in codes.tokens:
        return "once"
    return ", ".join(sorted(codes.tokens[READING].iloc[words.rows].fillna("once").unique()))


def _layer(
    codes: TokenCodes, layer: int, words: _Words, chosen: Sequence[Representation], seed: int, effect: float
) -> LayerSenses:
    arrays = LayerArrays(codes, layer, words.rows)
    hits: dict[str, Float[np.ndarray, "d both n"]] = {}
    left_out: dict[str, str] = {}
    for each in chosen:
        try:
            hits[each.name] = _hits(each, arrays, words, seed)
        except PolytopeError as error:
            if each.name in BUILT_IN:
                raise
            left_out[each.name] = str(error)
    # A majority is the same whatever senses are exchanged, so it has no null: others' accuracies meet it as they are.
    hits[MAJORITY] = np.stack([_majority(words).astype(float), np.zeros(len(words.rows))])[None]
    about = {each.name: (each.role, each.isolates) for each in chosen}
    about[MAJORITY] = ("control", "the word's most frequent sense in other sentences: no model at all")
    level, beyond = (
        {name: _accuracy(each[:, 0] - less * each[:, 1], words) for name, each in hits.items()} for less in (0, 1)
    )
    scores = tuple(
        SenseScore(
            name, *about[name], beyond[name].by_spread(words.freedom, words.widen),
            {word: float(each[:, 0][:, part].mean()) for word, part in words.parts.items()},
            tuple(map(float, (each[:, 0] - each[:, 1]) @ words.weights[0])) if len(each) > 1 else (),
            float(level[name].value), float(level[name].value - beyond[name].value),
        )
        for name, each in hits.items()
    )  # fmt: skip
    claims = {
        claim: [there for group in groups if (there := tuple(name for name in group if name in hits))]
        for claim, groups in COMPARATORS.items()
        if claim in hits
    }
    further = [(claim, name) for claim, groups in claims.items() for group in groups for name in group]
    differences = _differences(level, beyond, further, words, effect)
    best = max(COSINES, key=lambda name: float(beyond[name].value))
    seen = max(each.estimate.high for each in scores if each.name in BUILT_IN)

    def verdict(claim: str, references: Sequence[str], whom: str = "") -> Verdict:
        cells = [
            Cell(d.reference, d.score, d.estimate)
            for d in differences
            if d.representation == claim and d.reference in references
        ]
        premises = arrays.site.premises
        return decide(
            cells, place=f"{arrays.site.place}{whom}", documents=words.units, smallest_effect=effect,
            premises=str(premises), premises_met=premises.met, unit=words.unit, seen=seen, effective=words.effective,
            weights=str(codes.provenance.get("weights") or ""),
        )  # fmt: skip

    beside = tuple(
        Comparator(claim, group, verdict(claim, group, f", {claim} against {' and '.join(group)}"))
        for claim, groups in claims.items()
        for group in groups
    )
    return LayerSenses(arrays.site, scores, differences, best, verdict(CODE, REFERENCES), left_out, beside)


def _accuracy(draws: Float[np.ndarray, "d n"], words: _Words) -> Resampled:
    """Return the macro mean, of the whole sample and on each resample, over a random control's draws."""
    means = words.weights @ draws.T
    return Resampled.mean_of_draws([Resampled(each[0], each[1:]) for each in means.T], words.picks)


def _differences(
    level: Mapping[str, Resampled],
    beyond: Mapping[str, Resampled],
    further: Sequence[tuple[str, str]],
    words: _Words,
    effect: float,
) -> tuple[Difference, ...]:
    """Return all differences, beyond the nulls but from the majority."""
    wanted = [(name, reference) for name in beyond for reference in CHANCE]
    out = []
    for name, reference in dict.fromkeys((*wanted, *further)):
        if name == reference:
            continue
        each = level if MAJORITY in (name, reference) else beyond
        found = (each[name] - each[reference]).by_spread(words.freedom, words.widen)
        out.append(Difference(name, reference, ACCURACY, found, found.p_above(effect)))
    return tuple(out)


def _hits(
    representation: Representation, arrays: LayerArrays, words: _Words, seed: int
) -> Float[np.ndarray, "d both n"]:
    """Return, draw by draw, whether each occurrence's nearest other use has its sense, and how often exchanged ones.

    Of uses at the same distance the first in a random order is nearest.
    """
    out = np.zeros((representation.draws, 2, len(words.rows)))
    for part in words.parts.values():
        mine = arrays.part(part)
        order = tie_order(len(part), seed)
        own = words.labelings[:, part]
        for draw in range(representation.draws):
            rows = representation.rows(mine, seed=derived(seed, Purpose.REPRESENTATION, draw))
            distance = pairwise(rows, representation.name)
            near = strict_neighbours(distance, words.documents[part][:, None], 1, order)[:, 0]
            same = (own[:, near] == own) & (near >= 0)
            out[draw, 0, part], out[draw, 1, part] = same[0], same[1:].mean(axis=0)
    return out


def _majority(words: _Words) -> Bool[np.ndarray, " n"]:
    """Return whether the word's most frequent sense in other documents is each occurrence's own."""
    out = np.zeros(len(words.rows), dtype=bool)
    for part in words.parts.values():
        sense = np.unique(words.labelings[0, part], return_inverse=True)[1]
        document = np.unique(words.documents[part], return_inverse=True)[1]
        inside = np.zeros((document.max() + 1, sense.max() + 1), dtype=np.int64)
        np.add.at(inside, (document, sense), 1)
        elsewhere = inside.sum(axis=0) - inside[document]
        out[part] = elsewhere.argmax(axis=1) == sense
    return out
