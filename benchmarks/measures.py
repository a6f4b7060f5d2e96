"""Local complexity of 1,000 tokens from a layer to the next; what reading spline features costs beside a capture."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import numpy as np

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm.geometry.local_complexity import token_complexity
from polytope_lm.geometry.spline_features import MarginReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import torch

    from polytope_lm.models.model import Model

SECONDS, SHARE = 60.0, 0.05


def sequences(model: Model, length: int, total: int) -> Iterator[np.ndarray]:
    """Yield stretches of the built-in sample's text, of so many tokens each."""
    ids: list[int] = []
    for document in plm.documents("sample"):
        ids += model.tokenizer(document.text, add_special_tokens=False)["input_ids"]
        if len(ids) > total:
            break
    for start in range(0, total - length + 1, length):
        yield np.array(ids[start : start + length])


def complexity(model: Model, layer: int, tokens: int) -> Figure:
    """Time local complexity of so many tokens, in sequences of 125, here and one layer on."""
    places = np.arange(125)
    warm = next(sequences(model, 125, 125))
    token_complexity(model, warm[:8], np.array([3, 5]), layer)
    start, processor = perf_counter(), process_time()
    counts = [token_complexity(model, ids, places, layer).counts for ids in sequences(model, 125, tokens)]
    seconds, processor = perf_counter() - start, process_time() - processor
    mean = np.concatenate(counts).mean(axis=0)
    note = f"P = 25, r = .005 |x|, sequences of 125; {processor:.0f} s of processor time, all threads; "
    note += f"mean counts {mean[0]:.1f} here, {mean[1]:.1f} one layer on"
    name = f"local complexity of {tokens:,} tokens, layers {layer} to {layer + 1}, {model.name}"
    return Figure(name, seconds, "s", must=SECONDS, bound="at most", note=note)


class Clock:
    """Adds up the seconds that readers take inside passes."""

    def __init__(self) -> None:
        self.seconds = Counter[str]()

    def timed(self, taps: Callable[..., dict[Any, Any]]) -> Callable[..., dict[Any, Any]]:
        """Return the same taps with their readers' seconds counted."""

        def timed(*given: Any) -> dict[Any, Any]:
            def clocked(reader: Any) -> Any:
                def run(value: torch.Tensor) -> None:
                    start = perf_counter()
                    reader(value)
                    self.seconds["readers"] += perf_counter() - start

                return run

            return {tap: clocked(reader) for tap, reader in taps(*given).items()}

        return timed


def features(model: Model, texts: list[str]) -> Figure:
    """Compare the seconds that reading all layers takes inside a pass with a capture's of the same texts.

    Only the readers are timed: neither the pass itself, nor a prompt's seven statistics afterwards.
    """
    transformer = plm.SplineFeatures(model).fit(texts)
    transformer.transform(texts[:2])
    clock, plain = Clock(), MarginReader.taps
    MarginReader.taps = lambda self, *given: clock.timed(plain.__get__(self))(*given)  # type: ignore[method-assign]
    try:
        start = perf_counter()
        transformer.transform(texts)
        whole = perf_counter() - start
    finally:
        MarginReader.taps = plain  # type: ignore[method-assign]
    start = perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        plm.capture(model, texts, to=Path(folder) / "store", progress=False)
        seconds = perf_counter() - start
    note = f"{len(texts)} texts, all layers; texts to features {whole:.1f} s"
    return Figure(
        f"spline features, {model.name}", clock.seconds["readers"], "s", seconds, "a capture",
        clock.seconds["readers"] / seconds, SHARE, "at most", note,
    )  # fmt: skip


def main() -> None:
    """Measure both."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m", help="(%(default)s)")
    parser.add_argument("--layer", type=int, default=9, help="of local complexity (%(default)s)")
    parser.add_argument("--tokens", type=int, default=1000, help="of local complexity (%(default)s)")
    parser.add_argument("--texts", type=int, default=30, help="of the features (%(default)s)")
    parser.add_argument("--only", choices=("complexity", "features"), help="one of the two")
    given = parser.parse_args()
    machine, model = describe(), plm.load(given.model)
    figures = []
    if given.only != "features":
        figures.append(complexity(model, given.layer, given.tokens))
    if given.only != "complexity":
        texts = [model.tokenizer.decode(ids) for ids in sequences(model, 60, 60 * given.texts)]
        figures.append(features(model, texts))
    report(figures, given.json, machine)


if __name__ == "__main__":
    main()
