"""Word senses: the same ambiguous word in different senses, so that the word itself explains nothing.

Claim. The nearest other use of the same word, by the Hamming distance of codes, has the same sense more often
than by directions.

Score. 1-NN sense accuracy, leave-one-out: each occurrence takes the sense of the nearest occurrence of *the
same word in another document*; the mean over a word's occurrences, then over words (macro). Everything that a
representation takes from the data (means, rates, thresholds) it takes from the word's own occurrences.

Comparators. The better of raw and centred cosine of `h`, chosen inside each resample, and rate-matched
SimHash; beside them the word's most frequent sense in other documents, which needs no model.

Intervals. Percentile bootstrap, allowed because this is a mean over occurrences whose neighbours stay fixed:
words are drawn with replacement and sentences inside each word; with fewer than 10 words only sentences are
drawn, and the result speaks of these words alone. A document is a sentence here.

A causal model sees only what is left of the word. Where the sentence is given twice
(`documents.senses.twice`) its second copy is read, and the model has seen the whole sentence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from polytope_lm.documents.senses import READING
from polytope_lm.errors import PolytopeError
from polytope_lm.predictions.clusters.layers import BUILT_IN
from polytope_lm.predictions.clusters.result import BEST_COSINE, SIMHASH, Difference
from polytope_lm.predictions.clusters.sampling import check_label, label_names, layers_of, repeated_documents
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
from polytope_lm.representations.directions import COSINES
from polytope_lm.representations.distances import pairwise
from polytope_lm.representations.registry import get, registered
from polytope_lm.result import reproducible, versions
from polytope_lm.seeds import Purpose, derived
from polytope_lm.statistics.estimate import Resampled, resampled
from polytope_lm.statistics.neighbours import nearest_label
from polytope_lm.statistics.verdict import Cell, decide, one_sided_p, over_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jaxtyping import Bool, Float, Int

    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.representations.registry import Representation

MIN_WORDS = 10
"""Words are resampled themselves from here on."""


@dataclass(frozen=True)
class _Words:
    """The compared occurrences, word by word: rows in the codes, and each word's places among them.

    `weights` are those in the macro mean, of the whole sample and then of each resample; `picks` are in [0, 1).
    """

    rows: Int[np.ndarray, " n"]
    parts: Mapping[str, Int[np.ndarray, " m"]]
    senses: Int[np.ndarray, " n"]
    documents: Int[np.ndarray, " n"]
    weights: Float[np.ndarray, "draws n"]
    picks: Float[np.ndarray, " resamples"]


@reproducible("plm.predictions.senses")
def senses(
    codes: TokenCodes,
    layer: int | Sequence[int] | None = None,
    label: str = "sense",
    *,
    word: str | None = None,
    seed: int = 0,
    resamples: int = 1000,
    smallest_effect: float = 0.01,
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
        extra: registered representations to show besides, or `all`; never part of the verdict.
        progress: told `(done, total, what)` before each layer.

    Raises:
        PolytopeError: the label is absent, no word has two senses in two documents each, `u` or `h` not
            kept, NaN in the activations, an unknown representation.

    """
    layers = layers_of(codes, layer)
    wanted = [each.name for each in registered()] if extra == "all" else extra
    names = dict.fromkeys((*BUILT_IN, *([wanted] if isinstance(wanted, str) else wanted)))
    chosen = [get(name) for name in names]
    word_label = _word_label(codes, word)
    words, summaries, left_out = _compared(codes, label, word_label, resamples, seed)
    compared = []
    for number, index in enumerate(layers):
        if progress is not None:
            progress(number, len(layers), f"layer {index}")
        compared.append(_layer(codes, index, words, chosen, seed, smallest_effect))
    verdicts = over_layers([each.verdict for each in compared])
    drawn = "words and sentences" if len(summaries) >= MIN_WORDS else "sentences"
    settings = SenseSettings(label, word_label, seed, resamples, smallest_effect, drawn, _reading(codes, words))
    return SensesResult(
        settings=settings,
        words=summaries,
        words_left_out=left_out,
        layers=tuple(replace(each, verdict=v) for each, v in zip(compared, verdicts, strict=True)),
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
            f"no word by {word!r} has two values of {label!r} with two sentences each ({len(left_out)} words "
            "looked at); add sentences"
        )
    order, ends = np.concatenate(places), np.cumsum([len(each) for each in places])
    parts = {name: np.arange(end - len(each), end) for name, each, end in zip(summaries, places, ends, strict=True)}
    documents = chosen["document"].to_numpy()[order].astype(np.int32)
    ids = pd.factorize(values[order], sort=True)[0].astype(np.int32)
    weights = bootstrap_weights(list(parts.values()), documents, resamples, derived(seed, Purpose.SENTENCES))
    picks = np.random.default_rng(derived(seed, Purpose.SENSE_DRAWS)).random(resamples)
    return _Words(rows[order], parts, ids, documents, weights, picks), summaries, left_out


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
        if sum(n >= 2 for n in spread) < 2:
            left_out[name] = f"{len(places)} occurrences, fewer than two senses with two sentences each"
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
    correct: dict[str, Bool[np.ndarray, "d n"]] = {}
    left_out: dict[str, str] = {}
    for each in chosen:
        try:
            correct[each.name] = _correct(each, arrays, words, seed)
        except PolytopeError as error:
            if each.name in BUILT_IN:
                raise
            left_out[each.name] = str(error)
    correct[MAJORITY] = _majority(words)[None]
    means = {name: words.weights @ hits.T for name, hits in correct.items()}
    about = {each.name: (each.role, each.isolates) for each in chosen}
    about[MAJORITY] = ("control", "the word's most frequent sense in other sentences: no model at all")
    accuracy = {
        name: Resampled.mean_of_draws([Resampled(each[0], each[1:]) for each in found.T], words.picks)
        for name, found in means.items()
    }
    scores = tuple(
        SenseScore(
            name, *about[name], accuracy[name].by_percentiles(),
            {word: float(hits[:, part].mean()) for word, part in words.parts.items()},
            tuple(map(float, means[name][0])) if len(hits) > 1 else (),
        )
        for name, hits in correct.items()
    )  # fmt: skip
    differences = _differences(accuracy, effect)
    best = max(COSINES, key=lambda name: float(accuracy[name].value))
    site = arrays.site
    cells = [Cell(d.reference, d.score, d.estimate) for d in differences if d.representation == "code"]
    verdict = decide(
        [cell for cell in cells if cell.reference != MAJORITY], place=site.place,
        documents=len(np.unique(words.documents)), smallest_effect=effect, premises=str(site.premises),
        premises_met=site.premises.met, unit="sentences",
    )  # fmt: skip
    return LayerSenses(site, scores, differences, best, verdict, left_out)


def _differences(accuracy: Mapping[str, Resampled], effect: float) -> tuple[Difference, ...]:
    """Return all differences; the better cosine is chosen inside each resample."""
    best = Resampled.better([accuracy[name] for name in COSINES])
    references = {BEST_COSINE: best, SIMHASH: accuracy[SIMHASH], MAJORITY: accuracy[MAJORITY]}
    out = []
    for name, mine in accuracy.items():
        for reference in CHANCE:
            if name == reference or (reference == BEST_COSINE and name in COSINES):
                continue
            found = (mine - references[reference]).by_percentiles()
            out.append(Difference(name, reference, ACCURACY, found, one_sided_p(found, effect)))
    return tuple(out)


def _correct(representation: Representation, arrays: LayerArrays, words: _Words, seed: int) -> Bool[np.ndarray, "d n"]:
    """Return whether each occurrence's nearest other use has its sense, draw by draw."""
    out = np.zeros((representation.draws, len(words.rows)), dtype=bool)
    for part in words.parts.values():
        mine = arrays.part(part)
        for draw in range(representation.draws):
            rows = representation.rows(mine, seed=derived(seed, Purpose.REPRESENTATION, draw))
            distance = pairwise(rows, representation.name)
            apart = words.documents[part][:, None]
            out[draw, part] = nearest_label(distance, words.senses[part], excluded=apart).correct
    return out


def _majority(words: _Words) -> Bool[np.ndarray, " n"]:
    """Return whether the word's most frequent sense in other documents is each occurrence's own."""
    out = np.zeros(len(words.rows), dtype=bool)
    for part in words.parts.values():
        sense = np.unique(words.senses[part], return_inverse=True)[1]
        document = np.unique(words.documents[part], return_inverse=True)[1]
        inside = np.zeros((document.max() + 1, sense.max() + 1), dtype=np.int64)
        np.add.at(inside, (document, sense), 1)
        elsewhere = inside.sum(axis=0) - inside[document]
        out[part] = elsewhere.argmax(axis=1) == sense
    return out
