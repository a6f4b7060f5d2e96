"""HDBSCAN on the Hamming distance of codes, neighbours included: ours against scikit-learn's.

`python -m benchmarks.density [--json]`. Ours: exact neighbours on the packed bits, then density clusters on
their graph. The peer: `sklearn.cluster.HDBSCAN(metric="hamming")` on the unpacked bits. Each runs in a
process of its own after a first run on 1,000 tokens (imports; numba compiles or reads its cache). Memory is
what the timed run adds to the process's resident set at its peak.

The codes have something to find: clusters of Zipf sizes around prototypes, each member with a share of bits
flipped that is its cluster's own (8 to 20 %), and a background of 5 % without a cluster. The two are compared
with each other, and each with what was planted, over all tokens, noise counted as a cluster of its own. Whole
numbers have ties, which scikit-learn breaks by the order of the tokens: in a larger background it finds
clusters that vanish when the distances are jittered by a thousandth of a bit. With 15 % the two agree to .93
on 4,000 tokens as they are; jittered, they were compared on 2,000, and agree to .998.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.metrics import adjusted_mutual_info_score

from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.codes.hamming import hamming

if TYPE_CHECKING:
    from collections.abc import Callable

_FASTER, _SMALLER, _AGREEMENT = 100.0, 10.0, 0.95
_CLUSTERS, _ALONE, _ON = 40, 0.05, 0.3
_PEER = "scikit-learn"


@dataclass(frozen=True)
class Planted:
    """Codes with known clusters.

    Attributes:
        packed: the codes.
        width: their bits.
        labels: the cluster of each, -1 for background.

    """

    packed: np.ndarray
    width: int
    labels: np.ndarray

    @classmethod
    def draw(cls, tokens: int, width: int, seed: int = 0) -> Planted:
        """Draw clusters whose sizes fall as 1/rank, and the background."""
        rng = np.random.default_rng(seed)
        share = 1 / np.arange(1, _CLUSTERS + 1)
        labels = rng.choice(_CLUSTERS, size=tokens, p=share / share.sum())
        flipped = rng.uniform(0.08, 0.2, _CLUSTERS)[labels]
        prototypes = rng.random((_CLUSTERS, width)) < _ON
        bits = prototypes[labels] ^ (rng.random((tokens, width)) < flipped[:, None])
        alone = rng.random(tokens) < _ALONE
        bits[alone] = rng.random((int(alone.sum()), width)) < _ON
        return cls(hamming.pack(bits), width, np.where(alone, -1, labels))


@dataclass(frozen=True)
class Run:
    """One process's timed run.

    Attributes:
        seconds: of the clustering, neighbours included.
        megabytes: peak of the resident set above what it was before, 10^6 bytes.
        labels: cluster ids, -1 for noise.

    """

    seconds: float
    megabytes: float
    labels: np.ndarray


def ours(packed: np.ndarray) -> np.ndarray:
    """Return the clusters by the package's own settings."""
    from polytope_lm.representations.distances import in_blocks  # noqa: PLC0415
    from polytope_lm.representations.registry import Rows  # noqa: PLC0415
    from polytope_lm.statistics.clustering import NEIGHBOURS, hdbscan  # noqa: PLC0415

    near = hamming.nearest(packed, packed, NEIGHBOURS, exclude_self=True)
    between = in_blocks(Rows(packed, "Hamming"))
    return hdbscan(near.indices, near.distances, between)


def peer(bits: np.ndarray) -> np.ndarray:
    """Return scikit-learn's clusters with the same settings."""
    from sklearn.cluster import HDBSCAN  # noqa: PLC0415

    from polytope_lm.statistics.clustering import MIN_CLUSTER_SIZE as SIZE  # noqa: PLC0415

    model = HDBSCAN(metric="hamming", min_cluster_size=SIZE, min_samples=SIZE, copy=False)
    return np.asarray(model.fit(bits).labels_)


def child(which: str, codes: Path, width: int) -> None:
    """Warm up, time one run in this process, and print what it took; the labels go beside the codes."""
    packed = np.load(codes)
    run: Callable[[np.ndarray], np.ndarray] = ours if which == "ours" else peer
    given = packed if which == "ours" else hamming.unpack(packed, width)
    run(given[:1000])
    before = _rewind_peak()
    start = perf_counter()
    labels = run(given)
    seconds = perf_counter() - start
    megabytes = peak_memory() - before
    np.save(codes.with_name(f"{which}.npy"), labels)
    sys.stdout.write(json.dumps({"seconds": seconds, "megabytes": megabytes}) + "\n")


def _rewind_peak() -> float:
    """Set the process's peak memory back to what it holds now, and return that in 10^6 bytes."""
    refs = Path("/proc/self/clear_refs")
    if refs.exists():
        refs.write_text("5", encoding="ascii")
    return peak_memory()


def measure(planted: Planted, which: str, folder: Path) -> Run:
    """Run one of the two in a process of its own."""
    codes = folder / "codes.npy"
    np.save(codes, planted.packed)
    command = [sys.executable, "-m", "benchmarks.density", "--child", which, "--codes", str(codes)]
    done = subprocess.run([*command, "--width", str(planted.width)], check=True, stdout=subprocess.PIPE, text=True)
    took: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return Run(took["seconds"], took["megabytes"], np.load(codes.with_name(f"{which}.npy")))


def figures(planted: Planted, mine: list[Run], theirs: Run) -> list[Figure]:
    """Compare the two with each other and with what was planted."""
    what = f"{len(planted.labels):,} codes of {planted.width:,} bits"
    return [*_costs(what, mine, theirs), *_findings(planted.labels, mine[0].labels, theirs.labels)]


def _costs(what: str, mine: list[Run], theirs: Run) -> list[Figure]:
    seconds, memory = median(run.seconds for run in mine), max(run.megabytes for run in mine)
    return [
        Figure(
            f"HDBSCAN by Hamming distance, neighbours included, {what}",
            seconds,
            "s",
            theirs.seconds,
            _PEER,
            theirs.seconds / seconds,
            _FASTER,
            note=f"median of {len(mine)} processes, warm; {_PEER} once",
        ),
        Figure(
            "peak memory that it adds",
            memory,
            "MB",
            theirs.megabytes,
            _PEER,
            theirs.megabytes / memory,
            _SMALLER,
            note=f"largest of {len(mine)}",
        ),
    ]


def _findings(planted: np.ndarray, mine: np.ndarray, theirs: np.ndarray) -> list[Figure]:
    ami = adjusted_mutual_info_score
    found = [len(set(labels[labels >= 0])) for labels in (mine, theirs)]
    note = f"planted: {_CLUSTERS}, and {_noise(planted):.0%} background"
    agree = f"AMI with {_PEER}'s labels, noise as one cluster"
    return [
        Figure(agree, ami(mine, theirs), "", must=_AGREEMENT),
        Figure("AMI with the planted clusters", ami(planted, mine), "", ami(planted, theirs), _PEER),
        Figure("share called noise", _noise(mine), "", _noise(theirs), _PEER),
        Figure("clusters", found[0], "", found[1], _PEER, note=note),
    ]


def _noise(labels: np.ndarray) -> float:
    return float((labels < 0).mean())


def main() -> None:
    """Read the options, measure, print."""
    parser = arguments((__doc__ or "").splitlines()[0])
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--width", type=int, default=3072, help="bits of a code")
    parser.add_argument("--repeats", type=int, default=3, help="processes of ours")
    parser.add_argument("--child", choices=("ours", "peer"), help="run one of the two in this process")
    parser.add_argument("--codes", type=Path, help="packed codes of a child")
    options = parser.parse_args()
    if options.child:
        child(options.child, options.codes, options.width)
        return
    machine = describe()
    planted = Planted.draw(options.tokens, options.width)
    with TemporaryDirectory() as folder:
        # Ours before and after, so that a busy machine is busy for both.
        mine = [measure(planted, "ours", Path(folder))]
        theirs = measure(planted, "peer", Path(folder))
        mine += [measure(planted, "ours", Path(folder)) for _ in range(options.repeats - 1)]
    report(figures(planted, mine, theirs), options.json, machine)


if __name__ == "__main__":
    main()
