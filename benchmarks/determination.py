"""All arms of what a code determines at one layer, beside as many plain forwards with a hook.

Run with `python -m benchmarks.determination [--model smollm2-135m] [--layer 14] [--documents 40] [--json]`. Documents
of the built-in sample, at most 128 tokens each; fitting on the others is part of the time. The peer runs the whole
transformers model once an arm and document with a hook on the down projection, in batches of the same size, on some of
the documents; it writes nothing anew and scores nothing.
"""

from __future__ import annotations

from time import perf_counter

import torch

import polytope_lm as plm
from benchmarks._machine import Figure, arguments, describe, peak_memory, report
from polytope_lm.documents import Document
from polytope_lm.predictions.determination.arms import arms

TOKENS, CHARACTERS, BATCH, TRIED = 128, 1500, 8, 2


def plain(model: plm.models.model.Model, layer: int, count: int, texts: list[str]) -> float:
    """Return the seconds that plain forwards of `count` arms take, of the mean document."""
    handle = model.block(layer).down.register_forward_pre_hook(lambda _module, args: (args[0] * 1.0, *args[1:]))
    start = perf_counter()
    try:
        with torch.inference_mode():
            for text in texts:
                ids = torch.tensor([model.tokenizer(text)["input_ids"][:TOKENS]])
                for first in range(0, count, BATCH):
                    model.hf(ids.expand(min(BATCH, count - first), -1))
    finally:
        handle.remove()
    return (perf_counter() - start) / len(texts)


def main() -> None:
    """Time one layer's test and the plain forwards that it stands for."""
    parser = arguments(__doc__ or "")
    parser.add_argument("--model", default="smollm2-135m", help="%(default)s")
    parser.add_argument("--layer", type=int, default=14, help="%(default)s")
    parser.add_argument("--documents", type=int, default=40, help="%(default)s")
    options = parser.parse_args()
    machine = describe()
    model = plm.load(options.model)
    given = [Document(each.id, each.text[:CHARACTERS]) for each in plm.documents("sample")]
    # 40 are tested of 80 at least: the sample's later stretches stand in for documents that it lacks.
    given += [
        Document(f"{each.id}, later", each.text[CHARACTERS : 2 * CHARACTERS])
        for each in plm.documents("sample")
        if len(each.text) > 2 * CHARACTERS
    ]
    given = given[: max(16, 2 * options.documents)]
    codes = plm.encode(model, given, layers=[options.layer], tokens="random:1")
    start = perf_counter()
    found = plm.predictions.determination(codes, documents=options.documents, max_tokens=TOKENS, together=False)
    seconds = perf_counter() - start
    count = len(arms(gated="up" in model.block(options.layer).pre, draws=3, neurons=100))
    each = plain(model, options.layer, count, [each.text for each in given[:TRIED]])
    s = found.settings
    note = f"{s.documents} documents, {s.tokens:,} tokens, {count} arms, {torch.get_num_threads()} threads"
    peer = each * s.documents
    report(
        [
            Figure(f"{model.name}, layer {options.layer}, all arms", seconds, "s", peer=peer, must=600, bound="at most",
                   peer_name=f"plain forwards, from {TRIED} documents", note=note),
            Figure("plain forwards' time against ours", peer / seconds, "times"),
            Figure("peak memory", peak_memory() / 1000, "GB", must=5, bound="at most"),
        ],
        options.json, machine,
    )  # fmt: skip


if __name__ == "__main__":
    main()
