"""What a diff costs beside one capture: GPT-2 small's shape, 12 layers, 20,000 tokens, random weights.

    python -m benchmarks.diff

Each runs in a process of its own, from directories, so that a model's loading counts and peaks do not mix. Time is
processor time (user and system) beside wall time: other processes do not count. The nulls are left out.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks._machine import Figure, arguments, describe, report

if TYPE_CHECKING:
    from collections.abc import Sequence

_WORDS = ("river", "bank", "wide", "boat", "ran", "under", "old", "stone", "bridge", "near", "quiet", "town", "night")


def write_models(folder: Path, *, small: bool) -> None:
    """Write two models of random weights with one tokenizer."""
    import torch  # noqa: PLC0415
    from transformers import GPT2Config, GPT2LMHeadModel  # noqa: PLC0415

    import polytope_lm as plm  # noqa: PLC0415

    tokenizer = plm.load("tiny-gpt2").tokenizer
    shape = {"n_layer": 2, "n_embd": 64, "n_head": 2} if small else {}
    for seed, name in enumerate(("a", "b")):
        torch.manual_seed(seed)
        GPT2LMHeadModel(GPT2Config(**shape)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)


def texts(tokens: int) -> list[str]:
    """Return texts of about so many tokens in all, 400 words each."""
    import numpy as np  # noqa: PLC0415

    rng = np.random.default_rng(0)
    return [" ".join(rng.choice(_WORDS, 400)) for _ in range(max(2, tokens // 700))]


def job(what: str, folder: Path, tokens: int) -> None:
    """Do one of the two and print what it cost."""
    import polytope_lm as plm  # noqa: PLC0415

    read = texts(tokens)
    began = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_SELF)
    if what == "capture":
        model = plm.load(folder / "a")
        count = len(plm.capture(model, read, to=folder / "store", progress=False))
    else:
        count = plm.diff(folder / "a", folder / "b", read, nulls=(), resamples=100).settings.tokens
    wall, now = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    processor = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    print(json.dumps({"wall": wall, "processor": processor, "peak": now.ru_maxrss / 1e6, "tokens": count}))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both and print them side by side."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--small", action="store_true", help="a tiny shape, to see that it runs")
    parser.add_argument("--job", nargs=2, metavar=("WHAT", "FOLDER"), help="what a process of its own does")
    given = parser.parse_args(argv)
    if given.job:
        job(given.job[0], Path(given.job[1]), given.tokens)
        return
    machine = describe()
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder), small=given.small)
        for what in ("capture", "diff"):
            command = [sys.executable, "-m", "benchmarks.diff", "--job", what, folder, "--tokens", str(given.tokens)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found[what] = json.loads(done.stdout.splitlines()[-1])
    one, two = found["capture"], found["diff"]
    note = f"{two['tokens']:,} tokens"
    bounds: dict[str, tuple[str, str, float | None]] = {
        "processor": ("processor time", "s", 2.1), "wall": ("wall time", "s", None), "peak": ("peak memory", "GB", 1.2),
    }  # fmt: skip
    figures = [
        Figure(f"diff, {name}", two[key], unit, one[key], "one capture", two[key] / one[key], must, "at most", note)
        for key, (name, unit, must) in bounds.items()
    ]
    report(figures, given.json, machine)


if __name__ == "__main__":
    main()
