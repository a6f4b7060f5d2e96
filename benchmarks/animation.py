"""The film of a training: how long it takes to make, how large its page is, how fast a browser plays it.

`python -m benchmarks.animation [--json]`. 300 frames of a 2-8-8-8-1 network on the circle; the page is then played in a
headless chromium and its drawn frames are counted. The peer paints the same frames in Python (Pillow), as a GIF.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time

import numpy as np

from benchmarks._machine import Figure, arguments, describe, report
from polytope_lm import toys
from polytope_lm.geometry.relu_network import ReluNetwork

FRAMES = 300


def played(page_path: Path) -> tuple[float, float]:
    """Return how many frames a second the page draws while it plays, and what a frame takes of all processors, in ms.

    The second is what a busy machine does not change. NaN without a browser.
    """
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 - the rest does without

    found = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        return float("nan"), float("nan")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1200})
        page.goto(page_path.as_uri())
        page.wait_for_timeout(1000)
        before, began = _computing(), perf_counter()
        drawn = page.evaluate(
            "() => new Promise((done) => { const was = film.drawn; film.show(0); film.play(true);"
            " const look = () => film.playing ? setTimeout(look, 20) : done(film.drawn - was); look(); })"
        )
        seconds, computing = perf_counter() - began, _computing() - before
        browser.close()
    return drawn / seconds, 1000 * computing / drawn


def _computing() -> float:
    """Return the processor seconds of all processes below this one, the browser's; 0 where there is no /proc."""
    parents, seconds = {}, {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        pid = int(entry.parent.name)
        parents[pid], seconds[pid] = int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    below = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in below} - below:
        below |= more
    return sum(seconds[pid] for pid in below - {os.getpid()})


def regions_timed() -> tuple[float, float, int]:
    """Return the seconds that the regions of a 2-64-64-1 network take us and regioncam, and how many there are."""
    import regioncam  # noqa: PLC0415 - the peer
    import torch  # noqa: PLC0415

    torch.manual_seed(0)
    linear, relu = torch.nn.Linear, torch.nn.ReLU
    network = ReluNetwork.read(torch.nn.Sequential(linear(2, 64), relu(), linear(64, 64), relu(), linear(64, 1)))
    began = perf_counter()
    found = toys.regions(network, (-1, 1, -1, 1))
    ours = perf_counter() - began
    began = perf_counter()
    camera = regioncam.Regioncam(size=1.0)
    for weight, bias in zip(network.weights, network.biases, strict=True):
        camera.add(regioncam.Linear(weight.T.astype(np.float32).copy(), bias.astype(np.float32)))
        camera.add(regioncam.ReLU())
    return ours, perf_counter() - began, len(found)


def main() -> None:
    """Measure and print."""
    options = arguments(__doc__ or "").parse_args()
    machine = describe()
    with TemporaryDirectory() as directory:
        began, computing = perf_counter(), process_time()
        film = toys.record(toys.task("circle"), (8, 8, 8), frames=FRAMES)
        path = film.save_html(Path(directory) / "film.html")
        seconds, computing = perf_counter() - began, process_time() - computing
        size = path.stat().st_size / 1e6
        began = perf_counter()
        heavy = film.save_gif(Path(directory) / "film.gif", every=1).stat().st_size / 1e6
        peer = perf_counter() - began
        note = f"{len(film.frame(-1))} regions in the last frame, {computing:.1f} s of computing"
        rate, each = played(path)
        ours, theirs, many = regions_timed()
        report(
            [
                Figure(f"{FRAMES} frames of 3 x 8 neurons, trained and written", seconds, "s", must=120,
                       bound="at most", peer=peer, peer_name="the same frames as a GIF", note=note),
                Figure("regions of a 2-64-64-1 network in a window", ours, "s", peer=theirs,
                       peer_name="regioncam, float32", note=f"{many:,} regions, float64"),
                Figure("the page", size, "MB", must=8, bound="at most"),
                Figure("the GIF, written", peer, "s", must=120, bound="at most"),
                Figure("the GIF", heavy, "MB", must=8, bound="at most"),
                Figure("played headless", rate, "frames a second", must=30,
                       note=f"load {os.getloadavg()[0]:.0f} while it played"),
                Figure("a frame, of all processors", each, "ms", must=1000 / 30, bound="at most"),
            ],
            options.json, machine,
        )  # fmt: skip


if __name__ == "__main__":
    main()
