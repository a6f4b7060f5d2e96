"""A slider over a path: the boundaries crossed so far, layer by layer, and the likeliest next token, in a notebook."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from polytope_lm.errors import visible
from polytope_lm.plotting import stretches
from polytope_lm.report.browser import pack
from polytope_lm.widgets.parts import anywidget, module, styles, traitlets

if TYPE_CHECKING:
    from polytope_lm.paths.crossings import Crossings


def along_t(found: Crossings) -> dict[str, Any]:
    """Return what the browser needs of a path: each layer's crossings in order of t, and the next tokens."""
    layers = []
    for method in found.layers:
        here = np.flatnonzero(found.layer == method.layer)
        here = here[np.argsort(found.t[here], kind="stable")]
        numbers = {"t": found.t[here].astype(np.float32), "neuron": found.neuron[here], "on": found.on[here]}
        layers.append(
            {
                "layer": method.layer,
                "width": method.site.width,
                "differ": method.hamming,
                "missed": method.missed,
                **{name: pack(values) for name, values in numbers.items()},
            }
        )
    change = found.output_change
    following = None
    if change is not None:
        runs = [{"token": visible(s.token), "start": s.start, "end": s.end} for s in stretches(change)]
        following = {
            "t": pack(change.t.astype(np.float32)),
            "probability": pack(change.top_probability.astype(np.float32)),
            "js": pack(change.js.astype(np.float32)),
            "stretches": runs,
        }
    return {
        "prompts": [visible(prompt) for prompt in found.prompts],
        "what": f"{found.shape} in {found.space} of layer {found.site.layer}",
        "layers": layers,
        "next": following,
    }


class PathWidget(anywidget.AnyWidget):  # type: ignore[misc]
    """See `plm.widgets.along`.

    Attributes:
        data: crossings by layer, next tokens along the path.
        t: where the slider is, from 0 to 1.

    """

    _esm = module("core", "path_widget")
    _css = styles()
    data = traitlets.Dict().tag(sync=True)
    t = traitlets.Float(0.0, min=0.0, max=1.0).tag(sync=True)

    def __init__(self, found: Crossings) -> None:
        super().__init__(data=along_t(found))
