"""Whether what is counted of polytopes says more than a smooth number of the same thing does.

Protocol. Words of a labelled treebank, at most eight a document, are measured (`plm.measure`): each count beside its
smooth twin. Asked is what each tells of the next token's loss, of the entropy, and of a label (content word or not):
by rank correlation, and beyond the twin and the position in the text, cross-fitted with whole documents left out, as
partial rank correlation and as gain in rank correlation; the same for the twin beyond the count; and the difference of
the two gains, which says which of them tells more. Documents are asked the same, of their mean loss and entropy and
their genre: each of the seven spline features beside the same statistic of its smooth number, distinct codes beside
distinct tokens, the Linear Mapping Number beside mean linearity, crossings from token to token beside the Jacobian's
variation on the way, beyond the length. Percentile bootstrap over documents.

    python -m analyses.counts_beyond_slopes --data DIR --out DIR [--model NAME ...] [--layers 1,2] [--documents 400]

DIR/MODEL/r=RADIUS/ has what was measured of each layer (a run that was stopped goes on from there), DIR/result.json all
scores. Texts are not kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

import polytope_lm as plm
from analyses._corpora import treebank
from analyses._running import CAUSAL, asked, folder_name, run, words_drawn, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.local_complexity import RADIUS
from polytope_lm.geometry.token_measures import SMOOTH, SMOOTH_OF_PROMPTS, Settings
from polytope_lm.predictions.directions.predicting import beyond
from polytope_lm.statistics.confounders import fold_numbers
from polytope_lm.statistics.estimate import Resampled, resampled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from polytope_lm.documents import Document
    from polytope_lm.models.model import Model

WORDS, LONGEST, RESAMPLES = 8, 400, 1000  # words of a document that are measured, its characters, resamples
CONTENT = {"NOUN", "PROPN", "VERB", "ADJ", "ADV"}


@dataclass(frozen=True)
class Question:
    """Who is asked about what."""

    count: str
    smooth: str
    target: str


def sample(directory: Path, documents: int, seed: int) -> list[Document]:
    """Return documents of a treebank with a few of their words, drawn by seed among the short ones."""
    short = [one for one in treebank(directory) if 40 <= len(one.text) <= LONGEST]
    if len(short) < 20:
        raise PolytopeError(f"{directory}: {len(short)} documents of 40 to {LONGEST} characters: 20 are needed")
    chosen = np.random.default_rng(seed).permutation(len(short))[:documents]
    return words_drawn([short[i] for i in np.sort(chosen)], WORDS, seed)


def measured(
    model: Model, documents: Sequence[Document], layer: int, per: str, kept: Path, radius: float
) -> pd.DataFrame:
    """Return the measures of one layer's tokens or documents; what is kept is not measured again."""
    file = kept / f"{per}-{layer:02d}.parquet"
    if not file.is_file():
        rule = "word-final" if per == "token" else "all"
        codes = plm.encode(model, documents, layers=[layer], keep=(), tokens=rule)
        which = None if per == "token" else ("boundary", "jacobian", "path", "output")
        frame = plm.measure(codes, per=per, most=None, which=which, settings=Settings(radius=radius))
        frame = frame.drop(columns=["token"], errors="ignore")
        kept.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")
        frame.to_parquet(partial, index=False)
        partial.replace(file)
        print(f"  {model.name}, layer {layer}: {len(frame):,} {per}s", flush=True)
    found = pd.read_parquet(file)
    pairs = SMOOTH_OF_PROMPTS.items() if per == "prompt" else SMOOTH.items()
    if lacking := [f"{name!r}" for pair in pairs for name in pair if pair[0] in found and name not in found]:
        raise PolytopeError(f"{file} has no {', '.join(lacking)}: remove the file, the run makes it again")
    return found


def answered(frame: pd.DataFrame, one: Question, seed: int) -> dict[str, Any] | None:
    """Answer one question; None where too little of it varies."""
    own = frame[[one.count, one.smooth, one.target, "document", "position"]].dropna()
    if len(own) < 40 or any(own[name].nunique() < 2 for name in (one.count, one.smooth, one.target)):
        return None
    document = own["document"].to_numpy()
    fold, weights = fold_numbers(document, seed=seed), resampled(document, RESAMPLES, seed=seed)
    y, count, smooth, position = (own[n].to_numpy(float) for n in (one.target, one.count, one.smooth, "position"))
    found = {"of": one.count, "beside": one.smooth, "target": one.target, "rows": len(own)}
    gains: list[Resampled] = []
    for name, x, other in (("count", count, smooth), ("smooth", smooth, count)):
        more = beyond(y, x, {"other": other, "position": position}, fold, weights)
        found[f"rank correlation, {name}"] = round(float(spearmanr(x, y).statistic), 4)
        found[f"partial, {name} beyond the other"] = interval(more.partial)
        found[f"gain, {name} beyond the other"] = interval(more.gain)
        gains.append(more.gain)
    found["gain, count's less smooth's"] = interval(gains[0] - gains[1])
    return found


def interval(found: Resampled) -> dict[str, float]:
    """Return a number and its 95 % interval."""
    estimate = found.by_percentiles()
    return {name: round(float(getattr(estimate, name)), 4) for name in ("value", "low", "high")}


def analyse(name: str, documents: Sequence[Document], given: argparse.Namespace, layers: Any) -> list[dict[str, Any]]:
    """Return one model's answers, layer by layer."""
    model, rows, seed = plm.load(name, device=given.device), [], given.seed
    kept = given.out / folder_name(name) / f"r={given.radius:g}"
    for layer in (1, model.n_layers - 2) if layers is None else layers:
        tokens = measured(model, documents, layer, "token", kept, given.radius)
        tokens["content word"] = tokens["upos"].isin(CONTENT).astype(float).where(tokens["upos"].notna())
        asked_of = [
            (tokens, Question(count, smooth, target))
            for count, smooth in SMOOTH.items()
            for target in ("loss", "entropy", "content word")
        ]
        prompts = measured(model, documents, layer, "prompt", kept, given.radius)
        most = prompts["genre"].mode()[0]
        prompts[f"genre {most}"] = (prompts["genre"] == most).astype(float)
        prompts["position"] = prompts["tokens"]  # longer texts have more of everything
        asked_of += [
            (prompts, Question(count, smooth, target))
            for count, smooth in SMOOTH_OF_PROMPTS.items()
            for target in ("mean loss", "mean entropy", f"genre {most}")
        ]
        for frame, question in asked_of:
            if question.count in frame and (found := answered(frame, question, seed)) is not None:
                rows.append({"layer": layer, **found})
    return rows


def show(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Print every answer in a line."""
    for name, rows in models.items():
        for row in rows:
            count, smooth, more = (
                "{value:+.3f} [{low:+.3f}, {high:+.3f}]".format(**row[f"gain, {which}"])
                for which in ("count beyond the other", "smooth beyond the other", "count's less smooth's")
            )
            print(f"{name} {row['layer']:>2} {row['target']:<16} {row['of']:<34} {count}   {row['beside']}: {smooth}")
            print(f"{'':<{len(name)}}    {'':<16} {'less the twin':<34} {more}")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis."""

    def own(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="directory with treebank/")
        parser.add_argument("--radius", type=float, default=RADIUS, help="of frames, over the norm (%(default)s)")
        parser.add_argument("--documents", type=int, default=400, help="of the treebank, at most (%(default)s)")

    chosen = asked("counts_beyond_slopes", __doc__, argv, own, models=CAUSAL, layers=None)

    def work() -> None:
        given = chosen.given
        documents = sample(given.data, given.documents, given.seed)
        models = {name: analyse(name, documents, given, chosen.layers) for name in chosen.models}
        write_json(given.out / "result.json", {"command": chosen.command, "models": models})
        show(models)

    run(work)


if __name__ == "__main__":
    main()
