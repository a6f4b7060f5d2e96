"""What polytopes do while a network is trained: a ReLU network on digits, and small language models.

    python -m analyses.training_dynamics digits OUT
    python -m analyses.training_dynamics language OUT --name small-relu --work WORK --trained TRAINED [--data DATA]
    python -m analyses.training_dynamics language OUT --name tiny-gpt2 --checkpoints CHECKPOINTS [--data DATA]
    python -m analyses.training_dynamics page OUT      # OUT/training-dynamics.html and .json of all that was measured

`digits` trains a network 64-128-128-10 on scikit-learn's digits (1,797 images of 8 x 8 pixels, a third held out), in a
minute. `language` reads what `analyses.train_small` left in TRAINED and WORK, or `analyses.train_tiny` in CHECKPOINTS;
with DATA also prediction 1 is put to the test, on a labelled treebank. Checkpoints are at 0, 1, 2, 4, 8, ... updates. A
run that is stopped goes on.

Every combinatorial number stands beside a smooth one: bits that change beside the weights' own change and beside a
rate-matched SimHash of the same vectors (planes that do not learn), local complexity beside the Jacobian's norm.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from pydoc_data.topics import topics as python_topics
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from transformers import PreTrainedTokenizerFast

import polytope_lm as plm
from analyses import train_small, train_tiny, training_page
from analyses._corpora import treebank
from analyses._running import run
from polytope_lm.codes.hamming.hamming import unpack
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.boundary import decision_points, nearest_boundary
from polytope_lm.geometry.local_complexity import local_complexity
from polytope_lm.geometry.relu_network import ReluNetwork
from polytope_lm.paths.profile import sharpness
from polytope_lm.representations.controls import simhash_rate_matched
from polytope_lm.statistics.estimate import Estimate, resampled
from polytope_lm.toys.training import Training, log_spaced, train
from polytope_lm.training.checkpoints import Checkpoints, measured
from polytope_lm.training.measures import bits_changed, relative_change, settled, within_over_between

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Int

    from polytope_lm.models.model import Model

SEED = 0
SMALL = sorted(train_small.NAMES.values())
TINY = [train_tiny.NAMES[activation] for activation in ("gelu_new", "relu")]
HIDDEN = (128, 128)
STEPS = 2**12
RADII = {"r = 0.005 |x|": 0.005, "r = 0.05 |x|": 0.05}
POINTS = 200  # of each kind, for local complexity
PATHS, NODES = 50, 65  # paths between two points, and equal steps along each, for sharpness
WINDOWS, LENGTH = 16, 128  # of held-out tokens: the fixed batch of a language model
NEAR, CROSSED = 150, 12  # points of each kind for local complexity, and paths for sharpness, of a language model
CONTEXT, APART = 32, 30  # tokens of a path's context, the last of which moves; and between its two tokens in the text
BOUNDARY, ELSEWHERE, HALVINGS = "decision boundary", "same paths elsewhere", 30
DRAWS = 500  # bootstrap resamples of windows
TREEBANK_TOKENS = 1500


# ---------------------------------------------------------------- what both kinds of network share


class Settling:
    """Bits, SimHash bits and weights of each checkpoint, compared with the checkpoint before and with the last."""

    def __init__(self, last: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]) -> None:
        self.last, self.before = last, last

    def compared(self, now: tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]], *, first: bool) -> dict[str, float]:
        """Return the changes; the first checkpoint has none before it."""
        found = {}
        for name, other in (("to the last", self.last), ("since the one before", self.before)):
            if name == "to the last" or not first:
                found[f"bits changed {name}"] = bits_changed(now[0], other[0])
                found[f"SimHash bits changed {name}"] = bits_changed(now[1], other[1])
                found[f"weights' relative change {name}"] = relative_change(other[2], now[2])
        self.before = now
        return found


def simhash_bits(u: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Return bits of random hyperplanes, the same ones at every checkpoint, each on as often as its neuron."""
    return unpack(simhash_rate_matched(u.astype(np.float32), bits, SEED).values, bits.shape[1])


def mean_sharpness(outputs: Sequence[np.ndarray]) -> float:
    """Return the mean of `max d'(t) / d(1)` over paths, of which each gives its outputs at equal steps."""
    distances = [np.linalg.norm(one - one[0], axis=1) for one in outputs]
    return float(np.mean([sharpness(one) for one in distances if one[-1] > 0]))


def difference(a: np.ndarray, b: np.ndarray, of_a: np.ndarray, of_b: np.ndarray) -> Estimate:
    """Return the mean of `a` less that of `b`, its interval by a bootstrap of windows.

    Args:
        a: numbers.
        b: numbers.
        of_a: the window of each; where `b` has the same ones, they are drawn together.
        of_b: the same.

    """
    windows = np.concatenate([of_a, of_b])
    times = resampled(windows, DRAWS, seed=SEED)
    for_a, for_b = times[:, : len(a)], times[:, len(a) :]
    kept = for_a.any(axis=1) & for_b.any(axis=1)
    drawn = for_a[kept] @ a / for_a[kept].sum(axis=1) - for_b[kept] @ b / for_b[kept].sum(axis=1)
    return Estimate.around(a.mean() - b.mean(), drawn.std(ddof=1), len(np.unique(windows)) - 1)


# ---------------------------------------------------------------- digits


@dataclasses.dataclass(frozen=True)
class Digits:
    """Images and classes, in two parts; pixels from 0 to 1."""

    train: np.ndarray
    train_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray


def digits() -> Digits:
    """Return scikit-learn's digits, a third held out at random."""
    from sklearn.datasets import load_digits  # noqa: PLC0415 - the language models do without
    from sklearn.model_selection import train_test_split  # noqa: PLC0415

    images, labels = load_digits(return_X_y=True)
    x, test, y, test_labels = train_test_split(images / 16, labels, test_size=1 / 3, random_state=SEED, stratify=labels)
    return Digits(x, y, test, test_labels)


def digit_network() -> torch.nn.Sequential:
    """Return the untrained network."""
    widths = (64, *HIDDEN)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        hidden = [module for i, o in pairwise(widths) for module in (torch.nn.Linear(i, o), torch.nn.ReLU())]
        return torch.nn.Sequential(*hidden, torch.nn.Linear(widths[-1], 10))


def train_digits(out: Path, steps: int) -> Checkpoints:
    """Train the network and return its checkpoints."""
    data, model, checkpoints = digits(), digit_network(), Checkpoints(out / "digits" / "checkpoints")
    x, y = torch.from_numpy(data.train).float(), torch.from_numpy(data.train_labels)

    def loss(model: torch.nn.Module, chosen: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(model(x[chosen]), y[chosen])

    def batch(step: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((SEED, step)).integers(0, len(x), 64))

    def after(step: int) -> None:
        if log_spaced(step):
            checkpoints.save(step, model.state_dict())

    training = Training(steps=steps, rate=1e-3, decay=0.01, warm_up=64, report=1024)
    train(model, loss, batch, training, after=after, state=out / "digits" / "run.state")
    return checkpoints


class DigitMeasure:
    """Everything that is measured of one checkpoint of the network on digits."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.data, rng = digits(), np.random.default_rng(SEED)
        chosen = {"training": self.data.train, "test": self.data.test}
        self.points = {name: x[rng.choice(len(x), POINTS, replace=False)] for name, x in chosen.items()}
        self.points["random"] = rng.uniform(0, 1, (POINTS, 64))
        self.first, self.second = (rng.choice(len(self.data.test), 4 * POINTS) for _ in range(2))
        self.settling = Settling(self.codes(checkpoints.load(checkpoints.steps[-1])))
        self.steps = checkpoints.steps

    def layers(self, weights: Mapping[str, torch.Tensor]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each layer's weight and bias."""
        arrays = {name: value.double().numpy() for name, value in weights.items()}
        return [(arrays[f"{2 * i}.weight"], arrays[f"{2 * i}.bias"]) for i in range(len(HIDDEN) + 1)]

    def codes(self, weights: Mapping[str, torch.Tensor]) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return bits and SimHash bits of the test points in all hidden layers, and the weights that make them."""
        layers = self.layers(weights)
        network = ReluNetwork(*zip(*layers[:-1], strict=True))
        hidden = network.pre(self.data.test)
        inputs = [self.data.test, *(np.maximum(h, 0) for h in hidden[:-1])]
        planes = [simhash_bits(u, h > 0) for u, h in zip(inputs, hidden, strict=True)]
        arrays = {f"{i}": np.column_stack(layer) for i, layer in enumerate(layers[:-1])}
        return np.concatenate([h > 0 for h in hidden], axis=1), np.concatenate(planes, axis=1), arrays

    def __call__(self, step: int, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the numbers of one checkpoint."""
        data, layers = self.data, self.layers(weights)
        network = ReluNetwork(*zip(*layers[:-1], strict=True))
        last, bias = layers[-1]

        def scores(x: np.ndarray) -> np.ndarray:
            return np.maximum(network.pre(x)[-1], 0) @ last.T + bias

        found: dict[str, float] = {}
        for name, x, y in (("training", data.train, data.train_labels), ("test", data.test, data.test_labels)):
            logits = torch.from_numpy(scores(x))
            found[f"loss, {name}"] = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y)).item()
            found[f"accuracy, {name}"] = float((logits.argmax(1).numpy() == y).mean())
            hidden = network.pre(x)
            found[f"within over between classes, {name}"] = within_over_between(np.maximum(hidden[-1], 0), y)
            inputs = [x, *(np.maximum(h, 0) for h in hidden[:-1])]
            for layer, (h, u) in enumerate(zip(hidden, inputs, strict=True)):
                own = nearest_boundary(h, layers[layer][0]).distance / np.linalg.norm(u, axis=1)
                found[f"boundary distance over |u|, layer {layer}, {name}"] = float(np.median(own))
        points = dict(self.points)
        a, b = data.test[self.first], data.test[self.second]
        apart = np.flatnonzero(scores(a).argmax(1) != scores(b).argmax(1))[:POINTS]
        if len(apart):
            crossed = decision_points(scores, a[apart], b[apart])
            points[BOUNDARY] = crossed.points
            # As far along those paths, and on no boundary: what being between two images does by itself.
            points[ELSEWHERE] = a[apart] + np.roll(crossed.t, 1)[:, None] * (b[apart] - a[apart])
        jacobian = torch.func.vmap(torch.func.jacrev(self.forward(layers)))
        for name, x in points.items():
            for label, radius in RADII.items():
                counts = local_complexity(network.pre, x, radius=radius * np.linalg.norm(x, axis=1), seed=SEED)
                found[f"local complexity, {label}, {name}"] = float(counts.sum(1).mean())
            norms = torch.linalg.matrix_norm(jacobian(torch.from_numpy(x)))
            found[f"norm of the Jacobian, {name}"] = float(norms.mean())
        share = np.linspace(0, 1, NODES)[:, None]
        found["sharpness"] = mean_sharpness([scores(a[i] + share * (b[i] - a[i])) for i in range(PATHS)])
        return found | self.settling.compared(self.codes(weights), first=step == self.steps[0])

    def forward(self, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Any:
        """Return the network as a function of one point, for derivatives."""
        tensors = [(torch.from_numpy(w), torch.from_numpy(b)) for w, b in layers]

        def run(x: torch.Tensor) -> torch.Tensor:
            for w, b in tensors[:-1]:
                x = torch.relu(w @ x + b)
            return tensors[-1][0] @ x + tensors[-1][1]

        return run


# ---------------------------------------------------------------- language models


@dataclasses.dataclass(frozen=True)
class Layer:
    """What one layer's MLP reads: the MLP norm's input, its output, and the pre-activations, a row a token."""

    x: np.ndarray
    u: np.ndarray
    h: np.ndarray


@contextmanager
def reading(trunk: torch.nn.Module) -> Iterator[dict[tuple[int, str], np.ndarray]]:
    """Collect `x`, `u` and `h` of each layer while a GPT-2 runs, by layer and letter."""
    seen: dict[tuple[int, str], np.ndarray] = {}
    with ExitStack() as stack:
        for number, block in enumerate(trunk.h):

            def on_norm(_module: Any, args: Any, out: torch.Tensor, number: int = number) -> None:
                seen[number, "x"], seen[number, "u"] = (v.flatten(0, 1).numpy() for v in (args[0], out))

            def on_linear(_module: Any, _args: Any, out: torch.Tensor, number: int = number) -> None:
                seen[number, "h"] = out.flatten(0, 1).numpy()

            stack.callback(block.ln_2.register_forward_hook(on_norm).remove)
            stack.callback(block.mlp.c_fc.register_forward_hook(on_linear).remove)
        yield seen


def keys_of(context: Any, rows: np.ndarray) -> Any:
    """Return some rows of a cache of keys and values, to which a forward may add without changing the cache."""
    lent = copy.copy(context)
    lent.layers = [copy.copy(layer) for layer in context.layers]
    for layer in lent.layers:
        layer.keys, layer.values = layer.keys[rows], layer.values[rows]
    return lent


@dataclasses.dataclass(frozen=True)
class Subject:
    """A language model whose checkpoints were kept, and the texts that it learned from and never read, as tokens."""

    name: str
    recipe: train_tiny.Recipe
    checkpoints: Checkpoints
    tokenizer: PreTrainedTokenizerFast
    training: Int[torch.Tensor, " m"]
    held_out: Int[torch.Tensor, " n"]

    @classmethod
    def small(cls, name: str, work: Path, trained: Path) -> Subject:
        """Return what `analyses.train_small` left in two directories."""
        record = trained / f"{name}.json"
        if not record.is_file():
            raise PolytopeError(f"{record} is missing: give --trained the directory that `analyses.train_small` wrote")
        recipe = json.loads(record.read_text(encoding="utf-8"))["recipe"]
        tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
        checkpoints = Checkpoints(trained / "checkpoints" / name)
        texts = (train_small.tokens_of(work, part) for part in ("train", "held_out"))
        return cls(name, train_tiny.Recipe(**recipe), checkpoints, tokenizer, *texts)

    @classmethod
    def tiny(cls, name: str, checkpoints: Path) -> Subject:
        """Return what `analyses.train_tiny` left in a directory; its tokenizer and text are made again."""
        activation = next(key for key, value in train_tiny.NAMES.items() if value == name)
        tokenizer, recipe = train_tiny.tokenized(train_tiny.Recipe(activation=activation), python_topics)
        texts = (train_tiny.stream(tokenizer, list(part.values())) for part in train_tiny.split(python_topics))
        return cls(name, recipe, Checkpoints(checkpoints / name), tokenizer, *texts)


@dataclasses.dataclass(frozen=True)
class OnPaths:
    """Places on straight paths between the embeddings of two tokens, which end the same context.

    Attributes:
        share: of all the pairs that were looked at, those whose two tokens have two different next tokens.
        window: of each path, the window whose first tokens are the context, `[n]`.
        places: where in the window its two tokens are, `[n, 2]`.
        t: where on the path the likeliest next token changes, `[n]`.
        x: by kind of place, what each layer's MLP norm reads there, `[n, D]` a layer.

    """

    share: float
    window: Int[np.ndarray, " n"]
    places: Int[np.ndarray, "n 2"]
    t: np.ndarray
    x: Mapping[str, Sequence[np.ndarray]]


class LanguageMeasure:
    """Everything that is measured of one checkpoint of a small language model."""

    def __init__(self, subject: Subject, data: Path | None) -> None:
        self.name, self.recipe, self.tokenizer = subject.name, subject.recipe, subject.tokenizer
        self.checkpoints = subject.checkpoints
        self.windows = {}
        for name, tokens in (("training", subject.training), ("held out", subject.held_out)):
            starts = np.random.default_rng(SEED).integers(0, len(tokens) - LENGTH - 1, WINDOWS)
            self.windows[name] = torch.stack([tokens[start : start + LENGTH + 1] for start in starts])
        self.documents = None if data is None else treebank(data)[:120]
        if not any(self.checkpoints.steps):
            raise PolytopeError(f"{self.checkpoints.directory} has no checkpoint of trained weights: train again")
        if 0 not in self.checkpoints.steps:  # the untrained weights follow from the seed
            self.checkpoints.save(0, train_tiny.weights_of(train_tiny.build(self.recipe)))
        self.steps = self.checkpoints.steps
        self.settling = Settling(self.codes(self.model(self.checkpoints.load(self.steps[-1]))))

    def model(self, weights: Mapping[str, torch.Tensor]) -> Model:
        """Return the model with a checkpoint's weights."""
        hf = train_tiny.build(self.recipe)
        hf.load_state_dict(weights, strict=False)  # the tied embedding is there once
        return plm.wrap(hf.eval(), self.tokenizer, name=self.name)

    @torch.no_grad()
    def layers(self, model: Model, text: str = "held out") -> tuple[list[Layer], torch.Tensor, torch.Tensor]:
        """Return the MLPs' activations on a text's fixed batch, the final norm's output, and the scores."""
        with reading(model.hf.transformer) as seen:
            final = model.hf.transformer(input_ids=self.windows[text][:, :-1]).last_hidden_state.flatten(0, 1)
        found = [Layer(*(seen[number, name] for name in "xuh")) for number in range(model.n_layers)]
        return found, final, model.hf.lm_head(final)

    def codes(self, model: Model) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
        """Return bits and SimHash bits of the held-out batch in all layers, and the weights that make the bits."""
        layers, _, _ = self.layers(model)
        bits = [layer.h > 0 for layer in layers]
        planes = [simhash_bits(layer.u, on) for layer, on in zip(layers, bits, strict=True)]
        blocks = model.hf.transformer.h
        weights = {
            f"{i}": np.vstack([b.mlp.c_fc.weight.detach(), b.mlp.c_fc.bias.detach()]) for i, b in enumerate(blocks)
        }
        return np.concatenate(bits, axis=1), np.concatenate(planes, axis=1), weights

    def __call__(self, step: int, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return the numbers of one checkpoint, but for prediction 1's."""
        model, found, by_text = self.model(weights), {}, {}
        for text, windows in self.windows.items():
            by_text[text], final, scores = self.layers(model, text)
            labels = windows[:, 1:].flatten()
            found[f"loss, {text}"] = torch.nn.functional.cross_entropy(scores, labels).item()
            names, counts = np.unique(labels.numpy(), return_counts=True)
            frequent = np.isin(labels.numpy(), names[counts >= 10])
            found[f"within over between next tokens, {text}"] = within_over_between(
                final.numpy()[frequent], labels.numpy()[frequent]
            )
        paths = self.on_paths(model)
        found["pairs with two next tokens"] = paths.share
        for number in range(model.n_layers):
            found |= self.of_layer(model, number, {text: each[number] for text, each in by_text.items()}, paths)
        found["sharpness"] = self.sharpness(model)
        return found | self.settling.compared(self.codes(model), first=step == self.steps[0])

    @torch.no_grad()
    def on_paths(self, model: Model) -> OnPaths:
        """Find by bisection, in float64, where the likeliest next token changes between two tokens.

        Beside these places stand the paths' starts, which are tokens in the same context, and places on the same paths
        at other paths' `t`: as far from the tokens, and on no boundary.
        """
        exact, windows = copy.deepcopy(model.hf).double(), self.windows["held out"]
        trunk, rng = exact.transformer, np.random.default_rng(SEED)
        firsts = range(CONTEXT + 4, LENGTH - APART, 6)
        pairs = rng.permutation([(window, first, first + APART) for window in range(WINDOWS) for first in firsts])
        a, b = (trunk.wte(windows[pairs[:, 0], pairs[:, end]]).numpy() for end in (1, 2))
        # The context does not move: its keys and values are computed once.
        out = trunk(input_ids=windows[:, : CONTEXT - 1], use_cache=True)
        name, context = next((key, value) for key, value in out.items() if key in {"cache", "past_key_values"})

        def scores(points: np.ndarray) -> np.ndarray:
            known = {name: keys_of(context, pairs[:, 0])}
            final = trunk(inputs_embeds=torch.from_numpy(points)[:, None], use_cache=True, **known)
            return exact.lm_head(final.last_hidden_state[:, 0]).numpy()

        apart = scores(a).argmax(1) != scores(b).argmax(1)
        chosen = np.flatnonzero(apart)[:NEAR]
        a, b, pairs = a[chosen], b[chosen], pairs[chosen]
        if not len(chosen):
            return OnPaths(0.0, pairs[:, 0], pairs[:, 1:], np.empty(0), {})
        found = decision_points(scores, a, b, halvings=HALVINGS)
        places = {BOUNDARY: found.points, "paths' starts": a}
        if len(np.unique(pairs[:, 0])) > 1:
            places[ELSEWHERE] = a + np.roll(found.t, 1)[:, None] * (b - a)
        x = {}
        for kind, points in places.items():
            with reading(trunk) as seen:
                scores(points)
            x[kind] = [seen[number, "x"] for number in range(model.n_layers)]
        return OnPaths(float(apart.mean()), pairs[:, 0], pairs[:, 1:], found.t, x)

    @torch.no_grad()
    def of_layer(self, model: Model, number: int, layers: Mapping[str, Layer], paths: OnPaths) -> dict[str, float]:
        """Return distance to the boundary, and counts and derivatives near tokens and other points."""
        block, found = model.hf.transformer.h[number], {}
        for text, layer in layers.items():
            distance = nearest_boundary(layer.h, block.mlp.c_fc.weight.T.numpy()).distance
            relative = np.median(distance / np.linalg.norm(layer.u, axis=1))
            found[f"boundary distance over |u|, layer {number}, {text}"] = float(relative)
        rng, x = np.random.default_rng(SEED), layers["held out"].x
        chosen = rng.choice(len(x), NEAR, replace=False)
        points = {text: layer.x[chosen] for text, layer in layers.items()}
        spread = np.linalg.cholesky(np.cov(x.T) + 1e-6 * np.trace(np.cov(x.T)) * np.eye(x.shape[1]))
        points["random"] = x.mean(0) + rng.standard_normal((NEAR, x.shape[1])) @ spread.T
        points["between tokens"] = x[rng.choice(len(x), (2, NEAR))].mean(0)
        points |= {kind: of_layers[number] for kind, of_layers in paths.x.items()}

        def pre(x: np.ndarray) -> list[np.ndarray]:
            return [block.mlp.c_fc(block.ln_2(torch.from_numpy(x).float())).numpy()]

        w_in, w_out = block.mlp.c_fc.weight, block.mlp.c_proj.weight  # [D, N] and [N, D]
        metric = (w_out @ w_out.T) * (w_in.T @ w_in)  # the Frobenius norm of W_out diag(d) W_in is d' M d
        measures: dict[str, dict[str, np.ndarray]] = {}
        for kind, near in points.items():
            for label, radius in RADII.items():
                counts = local_complexity(pre, near, radius=radius * np.linalg.norm(near, axis=1), seed=SEED)[:, 0]
                measures.setdefault(f"local complexity, {label}", {})[kind] = counts
            h = torch.from_numpy(pre(near)[0])
            with torch.enable_grad():
                asked = h.requires_grad_()
                (slope,) = torch.autograd.grad(block.mlp.act(asked).sum(), asked)
            norms = torch.einsum("tn,nm,tm->t", slope, metric, slope).clamp(min=0).sqrt()
            measures.setdefault("norm of the Jacobian", {})[kind] = norms.numpy()
        texts = chosen // LENGTH  # the windows
        for name, values in measures.items():
            found |= {f"{name}, layer {number}, {kind}": float(each.mean()) for kind, each in values.items()}
            less = {
                "training less held out": difference(values["training"], values["held out"], texts, texts + WINDOWS)
            }
            if ELSEWHERE in values:
                ends = values[BOUNDARY], values[ELSEWHERE]
                less["boundary less elsewhere"] = difference(*ends, paths.window, paths.window)
            for what, each in less.items():
                title = f"differences of {name}, layer {number}, {what}"
                found |= {title: each.value, f"{title}, low": each.low, f"{title}, high": each.high}
        return found

    @torch.no_grad()
    def sharpness(self, model: Model) -> float:
        """Return how sharply the final stream changes between two tokens at the end of the same context."""
        trunk, share, windows = model.hf.transformer, torch.linspace(0, 1, NODES)[:, None], self.windows["held out"]
        paths = []
        for number in range(CROSSED):
            context = trunk.wte(windows[number, :CONTEXT])
            a, b = (trunk.wte(windows[number, place]) for place in (60, 60 + APART))
            rows = context.repeat(NODES, 1, 1)
            rows[:, -1] = a + share * (b - a)
            paths.append(trunk(inputs_embeds=rows).last_hidden_state[:, -1].numpy())
        return mean_sharpness(paths)

    def prediction_1(self, _step: int, weights: Mapping[str, torch.Tensor]) -> dict[str, float]:
        """Return how far the code is ahead of the best cosine, by AMI with the part of speech, in the middle layer."""
        model = self.model(weights)
        layer = model.n_layers // 2
        codes = plm.encode(model, self.documents, layers=[layer], keep=("u", "h"), tokens="word-final")
        result = plm.predictions.clusters(codes, layer, tokens=TREEBANK_TOKENS, resamples=20, seed=SEED)
        compared = result.layer(layer)
        lead = compared.difference("code").estimate
        return {
            "code minus best cosine, AMI": lead.value,
            "code minus best cosine, AMI, low": lead.low,
            "code minus best cosine, AMI, high": lead.high,
            "code, AMI": compared.representation("code").score("AMI").estimate.value,
        }


# ---------------------------------------------------------------- one page


def summary(table: pd.DataFrame) -> dict[str, float]:
    """Return when bits, SimHash bits and weights have settled, in updates, and their ratio."""
    wide = table.pivot(index="step", columns="quantity", values="value").sort_index()
    steps = [int(step) for step in wide.index]
    found = {
        name: settled(steps, list(wide[f"{name} to the last"]))
        for name in ("bits changed", "SimHash bits changed", "weights' relative change")
    }
    return {f"settled: {name}": float(step) for name, step in found.items()}


def page(out: Path) -> None:
    """Write one page with every number over steps, and the numbers."""
    numbers = {}
    for rows in sorted(out.glob("*/rows.jsonl")):
        steps: dict[int, dict[str, float]] = {}
        for path in (rows, rows.with_name("prediction.jsonl")):
            for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
                entry = json.loads(line)
                steps.setdefault(entry["step"], {}).update(entry["values"])
        entries = [
            {"step": step, "values": {key: float(f"{value:.5g}") for key, value in steps[step].items()}}
            for step in sorted(steps)
        ]
        table = pd.DataFrame(
            [(step, name, value) for step, values in steps.items() for name, value in values.items()],
            columns=["step", "quantity", "value"],
        )
        numbers[rows.parent.name] = {"settled": summary(table), "steps": entries}
    if not numbers:
        raise PolytopeError(f"{out} has no NAME/rows.jsonl: run `digits` or `language` first")
    training_page.write(numbers, out / "training-dynamics.html")
    (out / "training-dynamics.json").write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print(json.dumps({name: found["settled"] for name, found in numbers.items()}, indent=1))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one network, or write the page."""
    summary_line = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.training_dynamics", description=summary_line)
    parser.add_argument("what", choices=("digits", "language", "page"))
    parser.add_argument("out", type=Path, help="directory of what is measured")
    parser.add_argument("--steps", type=int, default=STEPS, help="updates of the network on digits (%(default)s)")
    parser.add_argument("--name", choices=[*SMALL, *TINY], default=SMALL[-1], help="(%(default)s)")
    parser.add_argument("--work", type=Path, help="directory of the tokens, for a small model")
    parser.add_argument("--trained", type=Path, help="directory of what `train_small` left, for a small model")
    parser.add_argument("--checkpoints", type=Path, help="directory of what `train_tiny` kept, for a tiny model")
    parser.add_argument("--data", type=Path, help="directory with a labelled treebank, for prediction 1")
    chosen = parser.parse_args(argv)
    if chosen.what == "language":
        needed = ("checkpoints",) if chosen.name in TINY else ("work", "trained")
        if any(getattr(chosen, each) is None for each in needed):
            parser.error(f"{chosen.name} needs " + " and ".join(f"--{each}" for each in needed))
    run(lambda: _work(chosen))


def _work(chosen: argparse.Namespace) -> None:
    if chosen.what == "page":
        page(chosen.out)
    elif chosen.what == "digits":
        checkpoints = train_digits(chosen.out, chosen.steps)
        measured(checkpoints, DigitMeasure(checkpoints), chosen.out / "digits" / "rows.jsonl")
    else:
        if chosen.name in TINY:
            subject = Subject.tiny(chosen.name, chosen.checkpoints)
        else:
            subject = Subject.small(chosen.name, chosen.work, chosen.trained)
        measure, there = LanguageMeasure(subject, chosen.data), chosen.out / chosen.name
        measured(measure.checkpoints, measure, there / "rows.jsonl")
        if chosen.data is not None:
            measured(measure.checkpoints, measure.prediction_1, there / "prediction.jsonl")


if __name__ == "__main__":
    main()
