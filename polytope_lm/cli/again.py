"""A store's own model, loaded again for what the store does not hold."""

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

if TYPE_CHECKING:
    from polytope_lm.codes.store import CodeStore
    from polytope_lm.models.loading import Model

ModelHere = Annotated[
    str | None, typer.Option("--model", help="Where the store's model is now, if it has moved.")
]


class Needed(NamedTuple):
    """What the model is needed for, and what helps where it is gone."""

    why: str
    cure: str


def model_of(store: "CodeStore", name: str | None, needed: Needed, *, trust: bool) -> "Model":
    """Load the model that wrote a store.

    Args:
        store: the store.
        name: where the model is now; None: where it was.
        needed: said where it can't be loaded, or is another one.
        trust: run its repository's own code.

    Raises:
        PolytopeError: the model is gone, or is another one than the store's.

    """
    from polytope_lm.errors import PolytopeError  # noqa: PLC0415
    from polytope_lm.models.loading import load  # noqa: PLC0415

    was = store.provenance
    try:
        model = load(
            name or was["model"], dtype=was["dtype"], revision=was["revision"], trust_remote_code=trust
        )
    except PolytopeError as error:
        msg = f"the store's model is needed {needed.why} ({needed.cure}): {error}"
        raise PolytopeError(msg) from error
    if model.revision != was["revision"]:
        msg = (
            f"{store.path} was written by {was['model']}, revision {was['revision']}; {model.name} is now "
            f"revision {model.revision}, and the same model is needed {needed.why}: {needed.cure}"
        )
        raise PolytopeError(msg)
    return model
