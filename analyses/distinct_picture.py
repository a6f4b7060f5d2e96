"""Draw how the number of different codes grows with the number of tokens, beside both controls.

Draws `docs/pictures/distinct-codes.svg` from what `analyses.distinct_codes` wrote and `analyses/results` keeps: a layer
a panel; its first 8, 16, 32 neurons and all of them, beside independent neurons (dashed) and random hyperplanes
(dotted, with the range of their draws).

    python -m analyses.distinct_picture docs/pictures/distinct-codes.svg analyses/results/distinct-codes-*.json
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analyses._running import read_json, run
from polytope_lm.errors import PolytopeError
from polytope_lm.plotting import COLOURS, GRID

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

COLUMNS = 3


def figure(models: Mapping[str, Mapping[str, Any]]) -> Any:
    """Return matplotlib's figure, one panel a model and layer.

    Args:
        models: what `distinct_codes` found, by model.

    Raises:
        PolytopeError: nothing to draw, or no matplotlib.

    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - comes with mlxtend
        from matplotlib.lines import Line2D  # noqa: PLC0415
    except ImportError:
        raise PolytopeError(
            "matplotlib is not installed: pip install -c constraints.txt 'polytope-lm[mnist]'"
        ) from None
    layers: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for name, found in models.items():
        for row in found["growths"]:
            if row["layer"] is not None:
                layers.setdefault((name, row["layer"]), []).append(row)
    if not layers:
        raise PolytopeError("no layer in these files: give what analyses.distinct_codes wrote")
    rows = -(-len(layers) // COLUMNS)
    whole = Figure(figsize=(3.3 * COLUMNS, 2.6 * rows + 0.6), layout="constrained")
    panels = whole.subplots(rows, COLUMNS, squeeze=False).ravel()
    for panel, ((name, layer), growths) in zip(panels, layers.items(), strict=False):
        at = models[name]["at"]
        for colour, row in zip(COLOURS, sorted(growths, key=lambda one: one["neurons"]), strict=False):
            label = str(row["neurons"])
            panel.plot(at, row["distinct codes"], color=colour, label=label)
            panel.plot(at, row["independent, mean"], color=colour, linestyle="--", linewidth=1)
            panel.plot(at, row["planes, mean"], color=colour, linestyle=":", linewidth=1.4)
            panel.fill_between(at, row["planes, least"], row["planes, greatest"], color=colour, alpha=0.2, linewidth=0)
        panel.set(xscale="log", yscale="log", title=f"{name}, layer {layer}")
        panel.grid(color=GRID)
        panel.legend(title="neurons", fontsize=8, title_fontsize=8, loc="upper left", frameon=False)
    for panel in panels[len(layers) :]:
        panel.set_axis_off()
    for panel in panels[max(0, len(layers) - COLUMNS) : len(layers)]:
        panel.set_xlabel("tokens")
    whole.supylabel("different codes", fontsize=10)
    kinds = ("the layer", "independent neurons of the same rates", "random hyperplanes of the same rates")
    shown = [Line2D([], [], color="black", dashes=dashes) for dashes in ((None, None), (4, 2), (1, 1.5))]
    whole.legend(shown, kinds, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return whole


def main(argv: Sequence[str] | None = None) -> None:
    """Draw the picture."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.distinct_picture", description=summary)
    parser.add_argument("picture", type=Path, help="where the picture goes (.svg, .png)")
    parser.add_argument("numbers", type=Path, nargs="+", help="result.json of analyses.distinct_codes")
    chosen = parser.parse_args(argv)

    def work() -> None:
        models = {model: found for path in chosen.numbers for model, found in read_json(path)["models"].items()}
        drawn = figure(models)
        from matplotlib import rc_context  # noqa: PLC0415 - comes with mlxtend

        with rc_context({"svg.fonttype": "none", "svg.hashsalt": "distinct codes"}):  # the same file every time
            drawn.savefig(chosen.picture, metadata={"Date": None} if chosen.picture.suffix == ".svg" else None)

    run(work)


if __name__ == "__main__":
    main()
