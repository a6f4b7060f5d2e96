"""Widgets for notebooks (Jupyter, VS Code, Colab, marimo), from the extra `widgets`: neighbours, and a path.

They are made of the report's own parts, and ask no server but the notebook's for anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polytope_lm.errors import PolytopeError, public

if TYPE_CHECKING:
    from polytope_lm.codes.codes import TokenCodes
    from polytope_lm.models.model import Model
    from polytope_lm.paths.crossings import Crossings
    from polytope_lm.paths.path import Path

__all__ = ["along", "neighbours"]


@public
def neighbours(codes: TokenCodes, *, k: int = 10, label: str | None = None, model: Model | None = None) -> Any:
    """Return a widget to browse tokens: each in context, its neighbours by code and by direction, the bits that differ.

    Type to search the tokens, or a text of your own, which the model then reads. A neighbour's number says in how many
    bits it differs; pressed, it shows which neurons these are.

    Args:
        codes: from `plm.encode`, `plm.capture` or `plm.open_store`; at most 100,000 tokens (`codes.select` takes some).
        k: neighbours on each side.
        label: a label to show beside the tokens.
        model: reads your own texts; by default the codes' own, where it is at hand.

    Raises:
        PolytopeError: too many tokens or none, an unknown label, another model, no `anywidget`.

    Examples:
        >>> import polytope_lm as plm
        >>> codes = plm.encode(plm.load("tiny-gpt2"), ["The loop ends", "The list is empty"], layers=[1, 2])
        >>> widget = plm.widgets.neighbours(codes, k=3)
        >>> [side["name"] for side in widget.answer["sides"]]
        ['by code', 'by direction']

    """
    from polytope_lm.widgets.neighbour_widget import NeighbourWidget, Searched  # noqa: PLC0415 - needs the extra

    return NeighbourWidget(Searched(codes, k=k, label=label, model=model))


@public
def along(path: Path | Crossings) -> Any:
    """Return a widget with a slider over a path's `t`: boundaries crossed so far, layer by layer, and the next token.

    Args:
        path: its crossings; or a path from `plm.path`, which is then followed to the output.

    Raises:
        PolytopeError: something else, or no `anywidget`.

    Examples:
        >>> import polytope_lm as plm
        >>> path = plm.path(plm.load("tiny-gpt2"), "We sat on the bank of the river", "We owe the bank money", layer=1)
        >>> plm.widgets.along(path).data["layers"][0]["layer"]
        1

    """
    from polytope_lm.paths.crossings import Crossings as Found  # noqa: PLC0415 - slow to import
    from polytope_lm.paths.path import Path as Drawn  # noqa: PLC0415 - slow to import
    from polytope_lm.widgets.path_widget import PathWidget  # noqa: PLC0415 - needs the extra

    found = path.crossings(downstream=path.model.has_logits) if isinstance(path, Drawn) else path
    if not isinstance(found, Found):
        raise PolytopeError(f"{type(path).__name__}: give a path from plm.path, or its crossings")
    return PathWidget(found)
