"""Reading captured tokens again with the model at hand, in the very windows in which they were captured."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from polytope_lm.codes.forward import begin, in_memory, specs
from polytope_lm.codes.plan import BATCH_TOKENS
from polytope_lm.documents import Document
from polytope_lm.errors import PolytopeError
from polytope_lm.tokens.tokenising import specials
from polytope_lm.tokens.windowing import Windowing, batches, parse_rule

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from jaxtyping import Float, Int64

    from polytope_lm.codes.forward import Spec
    from polytope_lm.codes.readable import Readable
    from polytope_lm.models.model import Model
    from polytope_lm.models.sites import Site
    from polytope_lm.tokens.windowing import Batch, Window

_DOCUMENTS = 64  # tokenised at one time


def at_hand(codes: Readable, model: Model | None = None) -> Model:
    """Return the model that made these codes, to run again."""
    found = model if model is not None else codes.model
    if found is None:
        made_by = str(codes.provenance.get("model"))
        raise PolytopeError(
            f"these codes were opened without their model; pass model=plm.load({made_by!r}) or use "
            "codes.capture.with_model"
        )
    found.check_made("these codes were made", codes.provenance)
    return found


def read_again(
    codes: Readable, rows: Int64[np.ndarray, " R"], model: Model, *, alike: bool = False
) -> Iterator[tuple[Batch, Int64[np.ndarray, " K"], tuple[Int64[np.ndarray, " K"], Int64[np.ndarray, " K"]]]]:
    """Yield batches of windows that hold some tokens, and where in them these are.

    Args:
        codes: where the tokens are.
        rows: rows of the tokens, each once.
        model: from `at_hand`.
        alike: make the capture's very batches if all its tokens are asked for, so that every bit of every
            number comes out the same; else a causal model does not read what follows the last asked token.

    Yields:
        A batch; indices into `rows` of its tokens, `[K]`; their rows and columns in the batch, each `[K]`.

    Raises:
        PolytopeError: the codes do not say how their texts were cut, the tokenizer cuts them otherwise now,
            or it finds another token there.

    """
    cut_as_before, size, budget = windowing(codes, model), _DOCUMENTS, BATCH_TOKENS
    if alike:
        budget = int(codes.provenance.get("batch_tokens", BATCH_TOKENS))
        size = int(codes.provenance.get("shard_documents", max(1, len(codes.ids))))
    chosen = codes.tokens.iloc[rows]
    document, position, ids = (chosen[name].to_numpy() for name in ("document", "position", "token_id"))
    index = {(int(d), int(p)): i for i, (d, p) in enumerate(zip(document, position, strict=True))}
    order = np.argsort(document, kind="stable")
    held, first = np.unique(document[order], return_index=True)
    positions = dict(zip(held.tolist(), np.split(position[order], first[1:]), strict=False))
    pad = model.tokenizer.pad_token_id or 0
    done = 0
    cuts = np.flatnonzero(np.diff((held if alike else np.arange(len(held))) // size)) + 1
    for some in np.split(held, cuts):
        documents = [Document(id=str(d), text=codes.texts[d]) for d in some.tolist()]
        cut = cut_as_before.apply(documents, 0, model.tokenizer).windows
        kept = [_only(w, positions[int(some[w.document])], shorten=model.causal and not alike) for w in cut]
        for batch in batches([w for w in kept if len(w.keep)], token_budget=budget, pad_id=pad):
            at = [[index[int(some[w.document]), int(p)] for p in w.position] for w in batch.windows]
            found = np.array([i for part in at for i in part], dtype=np.int64)
            read = np.concatenate([w.token_id for w in batch.windows])
            if (other := read != ids[found]).any():
                token = chosen.iloc[found[other][0]]
                place = f"position {token['position']} of document {token['document']}"
                raise _otherwise(model, f"another token at {place} than {token['token']!r}")
            which = np.repeat(np.arange(len(at)), [len(part) for part in at])
            done += len(found)
            yield batch, found, (which, np.concatenate([w.keep for w in batch.windows]))
    if done != len(rows):
        raise _otherwise(model, f"only {done} of {len(rows)} tokens")


def arrays(codes: Readable, wanted: Sequence[Spec], model: Model) -> dict[str, np.ndarray]:
    """Read all tokens of codes again in the capture's batches, by their model or a control, a row a token."""
    token = codes.tokens.groupby(["document", "position"], sort=False).ngroup().to_numpy()  # some may be there twice
    _, once = np.unique(token, return_index=True)
    out = in_memory(wanted, len(once))
    end: Callable[[], None] | None = None
    for batch, rows, _ in read_again(codes, once, model, alike=True):
        before, end = end, begin(model, batch, rows, wanted, out)
        if before is not None:
            before()
    if end is not None:
        end()
    return out if len(once) == len(token) else {name: array[token] for name, array in out.items()}


def activations(codes: Readable, name: str, site: Site, model: Model) -> Float[np.ndarray, "T W"]:
    """Read activations that were not kept, as the capture would have kept them in float32."""
    (wanted,) = (spec for spec in specs(model, (site,), (name,), "float32") if not spec.bits)
    return arrays(codes, [wanted], at_hand(codes, model))[wanted.name]


def windowing(codes: Readable, model: Model) -> Windowing:
    """Return the capture's windows, of all tokens: the rule that chose some may ask for spans."""
    was = codes.provenance
    try:
        around = [was["special_tokens"][side] for side in ("before", "after")]
        length, least = int(was["max_length"]), int(was["min_context"])
        usual = specials(model.tokenizer, model.bos)
        bos = model.bos if [list(usual.prefix), list(usual.suffix)] == around else bool(was["bos"])
        now = specials(model.tokenizer, bos)
    except KeyError as error:
        raise PolytopeError(
            f"these codes do not say {error.args[0]!r}, so their texts can't be read again; capture them "
            "with plm.capture or plm.encode"
        ) from error
    if [list(now.prefix), list(now.suffix)] != around:
        raise _otherwise(model, f"other special tokens than {around[0]} and {around[1]}")
    return Windowing(parse_rule("all"), length, least, bos, labels=(), causal=model.causal)


def _otherwise(model: Model, what: str) -> PolytopeError:
    return PolytopeError(
        f"{model.name}: its tokenizer now finds {what} where the codes were captured; give the tokenizer of the capture"
    )


def _only(window: Window, positions: Int64[np.ndarray, " P"], *, shorten: bool) -> Window:
    """Keep some of a window's tokens, and only what comes before the last of them if it is shortened."""
    here = np.isin(window.position, positions)
    chosen = {name: getattr(window, name)[here] for name in ("keep", "token_id", "position", "start", "end")}
    end = int(chosen["keep"][-1]) + 1 if shorten and here.any() else len(window.input_ids)
    return replace(window, input_ids=window.input_ids[:end], **chosen)
