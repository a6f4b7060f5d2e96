"""A path's evaluations over a shared prefix, beside TransformerLens's hooked forwards of the whole prompts.

Run with `python -m benchmarks.prefix [--model smollm2-135m] [--layers 4 15] [--repeats 3] [--json]`. One path
of 129 places between the last tokens of two prompts of 64 tokens. Ours: `h` of all later layers and the
logits, the prefix computed anew each time. Theirs: 129 whole prompts through the `TransformerBridge`, in
batches, with the activation replaced by a hook and the same `h` read by hooks. Both with all threads; every
run in turn. Codes are compared on bits with |h| > 1e-4.
"""

from __future__ import annotations

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, interleaved, median_ratio, report
from polytope_lm.paths.trace import Trace

if TYPE_CHECKING:
    from polytope_lm.paths.path import Path

PLACES, TOKENS, CLEAR = 129, 64, 1e-4
TEXTS = (
    """The committee met on Tuesday to talk about the old bridge over the river. Nobody knew how long it would
hold, and the engineers, who had measured every beam twice, would not say. There were letters from the
farmers, from the school and from the owner of the mill, and in the end the chair read them all aloud""",
    """She had kept the money in a tin under the stairs since the spring, and when the doctor came she counted
it again, slowly, as if the sum could change. Outside the children were playing a game with numbers that
only they understood; seven was home, nine was the moon, and whoever reached the gate first would win""",
)


def make_path(model: Any, layer: int) -> Path:
    """Draw the path between the last tokens of both prompts, cut to 64 tokens."""
    prompts = []
    for text in TEXTS:
        ids = model.tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS]
        prompts.append(model.tokenizer.decode(ids))
    return plm.path(model, *prompts, layer=layer)


def ours(path: Path, t: np.ndarray) -> list[np.ndarray]:
    """Evaluate all places; the prefix is computed here, too."""
    return Trace(path, logits=True).at(t)


def theirs(bridge: Any, path: Path, t: np.ndarray, batch: int) -> list[np.ndarray]:
    """Run whole prompts with the stream after attention replaced at the last position.

    What attention adds is changed by as much as the path has moved: the stream after it then is the path's,
    for the norm and for what is carried on.
    """
    sites = Trace(path, logits=True).sites
    moved = torch.as_tensor(path.points(t) - path.a).float()
    ids = torch.as_tensor(path.input_ids)
    found: dict[str, list[np.ndarray]] = {site.hook: [] for site in sites}
    logits = []
    for first in range(0, len(t), batch):
        rows = moved[first : first + batch]

        def move(value: torch.Tensor, hook: Any, rows: torch.Tensor = rows) -> torch.Tensor:  # noqa: ARG001
            value = value.clone()
            value[:, -1] += rows
            return value

        def keep(name: str, value: torch.Tensor, hook: Any) -> None:  # noqa: ARG001
            found[name].append(value[:, -1].numpy())

        hooks = [(f"blocks.{path.site.layer}.attn.hook_out", move)]
        hooks += [(site.hook, partial(keep, site.hook)) for site in sites]
        with torch.inference_mode():
            out = bridge.run_with_hooks(ids.expand(len(rows), -1), return_type="logits", fwd_hooks=hooks)
        logits.append(out[:, -1].numpy())
    return [*(np.concatenate(found[site.hook]) for site in sites), np.concatenate(logits)]


def agreement(mine: list[np.ndarray], other: list[np.ndarray]) -> tuple[int, int, int, float]:
    """Count bits, clear bits (|h| > 1e-4 in both), clear bits that differ; and the largest gap in h."""
    bits = clear = differ = 0
    gap = 0.0
    for a, b in zip(mine[:-1], other[:-1], strict=True):
        sure = (np.abs(a) > CLEAR) & (np.abs(b) > CLEAR)
        bits, clear = bits + a.size, clear + int(sure.sum())
        differ += int(((a > 0) != (b > 0))[sure].sum())
        gap = max(gap, float(np.abs(a - b).max()))
    return bits, clear, differ, gap


def main() -> None:
    """Time both in turn and compare what they read."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m", help="%(default)s")
    parser.add_argument("--layers", type=int, nargs="+", default=[4, 15], help="%(default)s")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each (%(default)s)")
    parser.add_argument("--batch", type=int, default=43, help="prompts in one full forward (%(default)s)")
    options = parser.parse_args()
    machine = describe()
    model = plm.load(options.model)
    bridge, t = model.bridge, np.linspace(0, 1, PLACES)
    figures = []
    for layer in options.layers:
        path = make_path(model, layer)
        mine, other = ours(path, t), theirs(bridge, path, t, options.batch)  # warms both up
        bits, clear, differ, gap = agreement(mine, other)
        runs = {"ours": lambda p=path: ours(p, t), "lens": lambda p=path: theirs(bridge, p, t, options.batch)}
        seconds = interleaved(runs, options.repeats)
        note = f"{model.name}, {len(path.input_ids)} tokens, {torch.get_num_threads()} threads"
        figures += [
            Figure(f"{PLACES} evaluations from layer {layer}", median(seconds["ours"]), "s",
                   peer=median(seconds["lens"]), peer_name="TransformerLens, full forwards",
                   ratio=median_ratio(seconds["lens"], seconds["ours"]), must=30, note=note),
            Figure("clear bits that differ", differ, "", must=0, bound="at most",
                   note=f"of {clear} of {bits}; h differs by at most {gap:.1e}"),
        ]  # fmt: skip
    report(figures, options.json, machine)


if __name__ == "__main__":
    main()
