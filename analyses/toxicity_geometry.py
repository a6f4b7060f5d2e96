"""Whether a prompt's geometry tells toxic comments, and more than length, words or the vectors themselves tell.

Protocol. (1) Spline features of each text, seven a layer, into logistic regression and a random forest: a pipeline of
scikit-learn each, `plm.SplineFeatures` first. Contrasts: toxic against clean comments *of one domain*; toxic comments
against news, the *mixed* contrast, where whatever tells the two sources passes for toxicity; clean comments against
news, where nothing is toxic at all; two topics of news, one domain again. (2) Beside them each of the seven alone (in
all layers), the length, a bag of words, and the mean of `u` in the middle layer. (3) Grouped cross-validation: texts
that share eight words in a row are in one fold. AUC of held-out scores, percentile bootstrap over groups. Differences
are paired: all seven, and each alone, less the length, a bag of words and mean `u`.

    python -m analyses.toxicity_geometry --data DIR --out DIR [--model NAME ...] [--texts 500]

DATA holds `toxicity/toxicity_en.csv` (text, is_toxic) and `news/ag_news.csv` with `news/classes.txt`.
DIR/MODEL/features has what was read of each hundred texts (a run that was stopped goes on from there), DIR/result.json
all scores. Texts are not kept.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import FunctionTransformer, StandardScaler

import polytope_lm as plm
from analyses._corpora import news
from analyses._running import CAUSAL, asked, folder_name, run, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.spline_features import FEATURES
from polytope_lm.statistics.estimate import Resampled, auc_draws, resampled

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from polytope_lm.models.model import Model

SOURCE = {"mixed domains": 99.18, "one domain": 89.80}
"""AUC in the tables of Balestriero, Cosentino, Shekkizhar (2023), in per cent, of another model and other texts."""
TOPICS = ("Business", "Sci/Tech")
LONGEST = 128  # tokens of a text
FOLDS, RESAMPLES, SHARED_WORDS, AT_ONCE = 5, 1000, 8, 100
ORDER = ("sd of share on", *(name for name in FEATURES if name != "sd of share on"))
EVERY, VECTORS = "all spline features", "mean u, middle layer"
WITH_VECTORS = "mean u and all spline features"


def comments(directory: Path, each: int, seed: int) -> tuple[list[str], np.ndarray]:
    """Return so many toxic and so many clean comments, drawn by seed, and which are toxic; repeated texts once.

    Raises:
        PolytopeError: no such file; one class only.

    """
    file = directory / "toxicity" / "toxicity_en.csv"
    if not file.is_file():
        raise PolytopeError(f"{file}: no such file; put comments there with the columns text and is_toxic")
    with file.open(encoding="utf-8", newline="") as lines:
        read = {row["text"].strip(): row["is_toxic"] == "Toxic" for row in csv.DictReader(lines) if row["text"].strip()}
    found = {kind: [text for text, toxic in read.items() if toxic == kind] for kind in (True, False)}
    if not all(found.values()):
        raise PolytopeError(f"{file}: {'all' if found[True] else 'none'} of its comments are Toxic; give both classes")
    rng = np.random.default_rng(seed)
    chosen = {kind: rng.permutation(len(texts))[:each] for kind, texts in found.items()}
    texts = [found[kind][i] for kind in (True, False) for i in np.sort(chosen[kind])]
    return texts, np.repeat([True, False], [len(chosen[True]), len(chosen[False])])


def groups_of(texts: Sequence[str]) -> np.ndarray:
    """Return which group each text is in: those that share eight words in a row, directly or by others, are one."""
    group, first = np.arange(len(texts)), dict[tuple[str, ...], int]()
    for number, text in enumerate(texts):
        words = text.lower().split()
        for i in range(max(1, len(words) - SHARED_WORDS + 1)):
            other = first.setdefault(tuple(words[i : i + SHARED_WORDS]), number)
            if group[other] != group[number]:
                group[group == group[number]] = group[other]
    return group


class Texts:
    """What a model makes of texts, by text: what the pipelines look up instead of running it again in each fold.

    Attributes:
        model: the model.
        known: spline features, layer by layer, `[7 L]`.
        tokens: how many each has.
        mean_u: of the middle layer, `[D]`.

    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.known: dict[str, np.ndarray] = {}
        self.tokens: dict[str, int] = {}
        self.mean_u: dict[str, np.ndarray] = {}

    def features(self) -> plm.SplineFeatures:
        """Return the first step of a pipeline."""
        return plm.SplineFeatures(self.model, max_length=LONGEST, memory=self.known)

    def length(self, texts: Sequence[str]) -> np.ndarray:
        """Return the logarithm of the length in tokens, `[n, 1]`."""
        return np.log([[self.tokens[text]] for text in texts])

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """Return mean `u`, `[n, D]`."""
        return np.stack([self.mean_u[text] for text in texts])

    def read(self, texts: Sequence[str], kept: Path) -> None:
        """Read texts, a hundred at a time; what is kept is not read again."""
        kept.mkdir(parents=True, exist_ok=True)
        model, middle = self.model, self.model.n_layers // 2
        for start in range(0, len(texts), AT_ONCE):
            some, file = list(texts[start : start + AT_ONCE]), kept / f"{start:05d}.npz"
            if not file.is_file():
                codes = plm.encode(model, some, layers=[middle], keep=("u",), max_length=LONGEST)
                document, u = codes.tokens["document"].to_numpy(), codes.activations("u")
                counts = np.bincount(document, minlength=len(some))
                sums = np.zeros((len(some), u.shape[1]))
                np.add.at(sums, document, u)
                features = self.features().fit_transform(some)
                partial = file.with_suffix(".partial.npz")
                np.savez(partial, features=features, tokens=counts, mean_u=sums / counts[:, None])
                partial.replace(file)
                print(f"  {model.name}: {start + len(some):,} of {len(texts):,} texts", flush=True)
            with np.load(file, allow_pickle=False) as stored:
                found = {name: stored[name] for name in ("features", "tokens", "mean_u")}
            if len(found["tokens"]) != len(some):
                raise PolytopeError(f"{file} holds {len(found['tokens'])} texts, not {len(some)}: remove {kept}")
            for into, name in ((self.known, "features"), (self.tokens, "tokens"), (self.mean_u, "mean_u")):
                into.update(zip(some, found[name], strict=True))


def held_out(pipeline: Any, texts: np.ndarray, y: np.ndarray, group: np.ndarray, seed: int) -> np.ndarray:
    """Return each text's score by a pipeline that saw no text of its group."""
    scores = np.empty(len(y))
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(texts, y, group):
        scores[test] = pipeline.fit(texts[train], y[train]).predict_proba(texts[test])[:, 1]
    return scores


def predictors(read: Texts) -> dict[str, Any]:
    """Return every predictor's pipeline, from texts: the variance of `s_t` first, all of the features last."""
    linear = lambda *steps: make_pipeline(*steps, StandardScaler(), LogisticRegression(max_iter=2000))  # noqa: E731
    length, vectors = FunctionTransformer(read.length), FunctionTransformer(read.vectors)
    forest = RandomForestClassifier(300, min_samples_leaf=2, random_state=0)
    alone = {
        alone_named(name): linear(
            read.features(), FunctionTransformer(in_all_layers, kw_args={"place": FEATURES.index(name)})
        )
        for name in ORDER
    }
    return {
        **alone,
        EVERY: linear(read.features()),
        f"{EVERY}, random forest": make_pipeline(read.features(), forest),
        "length": linear(length),
        "bag of words": make_pipeline(TfidfVectorizer(sublinear_tf=True), LogisticRegression(max_iter=2000)),
        VECTORS: linear(vectors),
        WITH_VECTORS: linear(make_union(vectors, read.features())),
    }


def in_all_layers(X: np.ndarray, place: int) -> np.ndarray:
    """Return one of the seven features, of every layer."""
    return X[:, place :: len(FEATURES)]


def alone_named(feature: str) -> str:
    """Return what the predictor of one feature is called."""
    return f"{feature}, all layers"


def contrast(read: Texts, texts: Sequence[str], y: np.ndarray, seed: int) -> dict[str, Any]:
    """Score all predictors of one contrast.

    Raises:
        PolytopeError: one class only, or fewer groups than folds.

    """
    group, array = groups_of(texts), np.asarray(texts, dtype=object)
    if y.all() or not y.any() or len(np.unique(group)) < 2 * FOLDS:
        raise PolytopeError(f"{int(y.sum())} of {len(y)} texts are of the first class: both are needed, in 10 groups")
    weights = np.concatenate([np.ones((1, len(y))), resampled(group, RESAMPLES, seed=seed)])
    aucs, scores = {}, dict[str, Resampled]()
    for name, pipeline in predictors(read).items():
        area = auc_draws(held_out(pipeline, array, y, group, seed), y, weights)
        scores[name] = Resampled(float(area[0]), area[1:])
        aucs[name] = interval(scores[name])
    first = alone_named(ORDER[0])
    pairs = (
        *((one, other) for one in (*map(alone_named, ORDER), EVERY) for other in ("length", "bag of words", VECTORS)),
        (EVERY, first),
        (WITH_VECTORS, VECTORS),
    )
    ahead = {f"{one} - {other}": interval(scores[one] - scores[other]) for one, other in pairs}
    counts = {"texts": len(y), "first class": int(y.sum()), "groups": len(np.unique(group))}
    return {**counts, "AUC": aucs, "differences": ahead}


def interval(found: Resampled) -> dict[str, float]:
    """Return a number and its 95 % interval."""
    estimate = found.by_percentiles()
    return {name: round(float(getattr(estimate, name)), 4) for name in ("value", "low", "high")}


def analyse(name: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return one model's four contrasts."""
    data, out, each, seed = given.data, given.out, given.texts, given.seed
    model, (texts, toxic) = plm.load(name, device=given.device), comments(data, each, seed)
    items = [d for d in news(data, 4000, seed) if d.labels["topic"] in TOPICS]
    of_topic = {topic: [d.text for d in items if d.labels["topic"] == topic][: each // 2] for topic in TOPICS}
    clean = [text for topic in TOPICS for text in of_topic[topic]]
    folder = out / folder_name(name) / "features" / f"{each}-{seed}"
    read = Texts(model)
    read.read(texts, folder / "comments")
    read.read(clean, folder / "news")
    business = np.repeat([True, False], [len(of_topic[topic]) for topic in TOPICS])
    against_news = {}
    for kind, title in ((toxic, "toxic comments against news, mixed domains"), (~toxic, "clean comments against news")):
        sources = [text for text, own in zip(texts, kind, strict=True) if own] + clean
        against_news[title] = contrast(read, sources, np.arange(len(sources)) < kind.sum(), seed)
    return {
        "layers": model.n_layers,
        "provenance": model.provenance,
        "toxic against clean comments, one domain": contrast(read, texts, toxic, seed),
        **against_news,
        f"{TOPICS[0]} against {TOPICS[1]}, one domain": contrast(read, clean, business, seed),
    }


def show(models: Mapping[str, Mapping[str, Any]]) -> None:
    """Print every AUC."""
    for name, found in models.items():
        for title, one in found.items():
            if isinstance(one, dict) and "AUC" in one:
                print(f"{name}: {title} ({one['texts']} texts, {one['groups']} groups)")
                for kind in ("AUC", "differences"):
                    for what, e in one[kind].items():
                        print(f"  {kind:<12}{what:<52} {e['value']:.3f} [{e['low']:.3f}, {e['high']:.3f}]")


def main(argv: Sequence[str] | None = None) -> None:
    """Run the analysis."""

    def own(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--data", type=Path, required=True, help="directory with toxicity/ and news/")
        parser.add_argument("--texts", type=int, default=500, help="of each class, at most (%(default)s)")

    chosen = asked("toxicity_geometry", __doc__, argv, own, models=CAUSAL)

    def work() -> None:
        given = chosen.given
        models = {name: analyse(name, given) for name in chosen.models}
        result = {"command": chosen.command, "source's AUC, per cent": SOURCE, "models": models}
        write_json(given.out / "result.json", result)
        show(models)

    run(work)


if __name__ == "__main__":
    main()
