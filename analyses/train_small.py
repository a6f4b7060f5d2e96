"""Train `small-gpt2` and its ReLU twin `small-relu` on free software's documentation and free books.

    python -m analyses.corpus WORK --download                      # the text
    python -m analyses.train_small prepare WORK                    # tokenizer and tokens
    python -m analyses.train_small train WORK OUT --minutes 3      # both twins, on a GPU where there is one
    python -m analyses.train_small place WORK OUT                  # into models/, with their cards

6 layers, width 256, 4 heads, 8,192 tokens, context 512: 6.97 million weights, 13.9 MB in half precision. The weights
after 0, 1, 2, 4, 8, ... updates are kept in OUT/checkpoints, for the analysis of training. A run that is stopped goes
on where it was.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import lzma
import math
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerFast

from analyses import train_tiny
from polytope_lm.toys.training import Training, log_spaced, train
from polytope_lm.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jaxtyping import Float, Int
    from transformers import GPT2LMHeadModel

NAMES = {"gelu_new": "small-gpt2", "relu": "small-relu"}
MODELS = Path(__file__).resolve().parents[1] / "models"
RECIPE = train_tiny.Recipe(
    steps=0, vocabulary=8192, layers=6, width=256, heads=4, context=512, batch=128, rate=3e-3, dropout=0.0
)


def prepare(work: Path, vocabulary: int) -> None:
    """Train the tokenizer on every third document and write both parts' tokens, an end token before each document."""
    texts = {
        part: [
            json.loads(line)["text"] for line in (work / f"{part}.jsonl").read_text(encoding="utf-8").split("\n")[:-1]
        ]
        for part in ("train", "held_out")
    }
    tokenizer = train_tiny.train_tokenizer(texts["train"][::3], dataclasses.replace(RECIPE, vocabulary=vocabulary))
    tokenizer.save_pretrained(work / "tokenizer")
    note = {}
    for part, documents in texts.items():
        pieces = [
            np.array([tokenizer.bos_token_id, *encoding.ids], dtype=np.uint16)
            for start in range(0, len(documents), 1000)
            for encoding in tokenizer.backend_tokenizer.encode_batch(documents[start : start + 1000])
        ]
        tokens = np.concatenate(pieces)
        packed = lzma.compress(tokens.tobytes(), preset=6)
        (work / f"{part}.tokens.xz").write_bytes(packed)
        note[part] = {"tokens": len(tokens), "bytes": sum(len(text.encode()) for text in documents)}
        print(f"{part}: {len(tokens):,} tokens, {len(packed) / 2**20:.1f} MiB", file=sys.stderr)
    (work / "tokens.json").write_text(json.dumps(note, indent=1) + "\n", encoding="utf-8")


def tokens_of(work: Path, part: str) -> Int[torch.Tensor, " n"]:
    """Return a part's tokens, one document after the other."""
    data = lzma.decompress((work / f"{part}.tokens.xz").read_bytes())
    return torch.from_numpy(np.frombuffer(data, dtype=np.uint16).astype(np.int64))


def block(
    x: Float[torch.Tensor, "B S D"], weights: Sequence[torch.Tensor], heads: int, activation: str
) -> Float[torch.Tensor, "B S D"]:
    """Return what one block of GPT-2 makes of the residual stream; written out so that one compilation serves all."""
    gain1, bias1, attn, attn_bias, proj, proj_bias, gain2, bias2, up, up_bias, down, down_bias = weights
    batch, length, width = x.shape
    u = torch.nn.functional.layer_norm(x, (width,), gain1, bias1, 1e-5)
    query, key, value = (u @ attn + attn_bias).view(batch, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
    mixed = torch.nn.functional.scaled_dot_product_attention(query, key, value, is_causal=True)
    x = x + mixed.transpose(1, 2).reshape(batch, length, width) @ proj + proj_bias
    h = torch.nn.functional.layer_norm(x, (width,), gain2, bias2, 1e-5) @ up + up_bias
    post = torch.relu(h) if activation == "relu" else torch.nn.functional.gelu(h, approximate="tanh")
    return x + post @ down + down_bias


def read_out(
    x: Float[torch.Tensor, "B S D"],
    gain: Float[torch.Tensor, " D"],
    bias: Float[torch.Tensor, " D"],
    embedding: Float[torch.Tensor, "V D"],
    targets: Int[torch.Tensor, "B S"],
) -> Float[torch.Tensor, ""]:
    """Return the mean cross-entropy in nats."""
    logits = torch.nn.functional.layer_norm(x, (x.shape[-1],), gain, bias, 1e-5) @ embedding.T
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())


def loss_of(device: torch.device, *, fast: bool) -> Callable[[GPT2LMHeadModel, torch.Tensor], torch.Tensor]:
    """Return a GPT-2's loss on windows of context + 1 tokens; `fast`: in bfloat16, its block compiled once."""
    one, last = (torch.compile(f, dynamic=False) if fast else f for f in (block, read_out))

    def loss(model: GPT2LMHeadModel, batch: Int[torch.Tensor, "B S"]) -> Float[torch.Tensor, ""]:
        trunk, config = model.transformer, model.config
        with torch.autocast(device.type, torch.bfloat16, enabled=fast):
            x = trunk.wte.weight[batch[:, :-1]] + trunk.wpe.weight[: batch.shape[1] - 1]
            for layer in trunk.h:
                x = one(x, list(layer.parameters()), config.n_head, config.activation_function)
            return last(x, trunk.ln_f.weight, trunk.ln_f.bias, trunk.wte.weight, batch[:, 1:])

    return loss


@torch.no_grad()
def held_out_loss(
    model: GPT2LMHeadModel,
    loss: Callable[[GPT2LMHeadModel, torch.Tensor], torch.Tensor],
    tokens: Int[torch.Tensor, " n"],
    batch: int,
) -> float:
    """Return the mean loss over the windows that follow one another, each token predicted once; the rest is left."""
    size = model.config.n_positions
    windows = tokens.unfold(0, size + 1, size)
    parts = [windows[start : start + batch] for start in range(0, len(windows) - batch + 1, batch)] or [windows]
    return float(np.mean([loss(model, part).item() for part in parts]))


def train_one(
    activation: str, work: Path, out: Path, training: Training, recipe: train_tiny.Recipe, device: torch.device
) -> dict[str, Any]:
    """Train one of the twins; write its weights and checkpoints, and return its record."""
    torch._dynamo.reset()
    name = NAMES[activation]
    data = {part: tokens_of(work, part).to(device) for part in ("train", "held_out")}
    model = train_tiny.build(dataclasses.replace(recipe, activation=activation)).to(device)
    loss = loss_of(device, fast=device.type == "cuda")
    places = torch.arange(recipe.context + 1, device=device)
    record: dict[str, Any] = {"held_out": {}, "seconds": {}}
    checkpoints = Checkpoints(out / "checkpoints" / name)
    began = time.monotonic()

    def batch(step: int) -> Int[torch.Tensor, "B S"]:
        generator = np.random.default_rng((recipe.seed, step))
        starts = generator.integers(0, len(data["train"]) - recipe.context, size=recipe.batch)
        return data["train"][torch.from_numpy(starts).to(device)[:, None] + places]

    def after(step: int) -> None:
        if log_spaced(step):
            checkpoints.save(step, train_tiny.weights_of(model))
            record["held_out"][step] = held_out_loss(model, loss, data["held_out"], recipe.batch)
            record["seconds"][step] = time.monotonic() - began

    losses = train(model, loss, batch, training, after=after, state=out / f"{name}.state", recipe=repr(recipe))
    halves = train_tiny.weights_of(model)
    model.load_state_dict({key: value.float().to(device) for key, value in halves.items()}, strict=False)
    save_file(halves, out / f"{name}.safetensors", metadata={"format": "pt"})
    exact = loss_of(device, fast=False)
    final = held_out_loss(model, exact, data["held_out"], min(recipe.batch, 32))
    return record | {
        "name": name,
        "steps": len(losses),
        "tokens": len(losses) * recipe.batch * recipe.context,
        "train": float(np.mean(losses[-max(1, len(losses) // 50) :])),
        "final": final,
        "losses": [float(np.mean(losses[i : i + 20])) for i in range(0, len(losses), 20)],
        "total_seconds": time.monotonic() - began,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
        "recipe": dataclasses.asdict(dataclasses.replace(recipe, activation=activation)),
        "training": dataclasses.asdict(training),
    }


def place(name: str, work: Path, out: Path) -> None:
    """Write models/NAME as an ordinary transformers directory with its card."""
    record = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    note = json.loads((work / "tokens.json").read_text(encoding="utf-8"))
    corpus = json.loads((work / "sources.json").read_text(encoding="utf-8"))
    tokenizer = PreTrainedTokenizerFast.from_pretrained(work / "tokenizer")
    model = train_tiny.build(train_tiny.Recipe(**record["recipe"]))
    model.load_state_dict(load_file(out / f"{name}.safetensors"), strict=False)
    train_tiny.save(model, tokenizer, MODELS / name)
    held_out = note["held_out"]
    rows = [
        f"| {package} | {source['version']} | {source['licences']} | {source['bytes'] / 1e6:.2f} |"
        for package, source in corpus["sources"].items()
        if source["bytes"]
    ]
    template = Path(__file__).with_name("small_card.md").read_text(encoding="utf-8")
    card = template.format(
        name=name,
        twin=next(other for other in NAMES.values() if other != name),
        premises=train_tiny.PREMISES[record["recipe"]["activation"]],
        r=record,
        recipe=train_tiny.Recipe(**record["recipe"]),
        length=f"{record['total_seconds']:.0f} seconds",
        note=note,
        epochs=record["tokens"] / note["train"]["tokens"],
        bits=record["final"] / math.log(2) * held_out["tokens"] / held_out["bytes"],
        corpus=corpus,
        sources="\n".join(rows),
        packages=len(rows),
        d_mlp=4 * record["recipe"]["width"],
        weights=sum(p.numel() for p in model.parameters()) / 1e6,
        unigram=train_tiny.unigram_loss(*(tokens_of(work, part) for part in ("train", "held_out")), len(tokenizer)),
        tokenizers=tokenizers.__version__,
    )
    (MODELS / name / "README.md").write_text(card, encoding="utf-8")


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m analyses.train_small", description=(__doc__ or "").partition("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepared = commands.add_parser("prepare", help="train the tokenizer and write the tokens")
    trained = commands.add_parser("train", help="train both twins")
    placed = commands.add_parser("place", help="put what was trained into models/")
    for command in (prepared, trained, placed):
        command.add_argument("work", type=Path, help="directory of the text and its tokens")
    prepared.add_argument("--vocabulary", type=int, default=RECIPE.vocabulary, help="tokens (%(default)s)")
    for command in (trained, placed):
        command.add_argument("out", type=Path, help="directory of the weights and checkpoints")
    trained.add_argument("--activation", choices=sorted(NAMES), help="only this one; both if not given")
    trained.add_argument("--minutes", type=float, help="of training, each")
    trained.add_argument("--steps", type=int, help="updates, each; instead of --minutes")
    trained.add_argument("--warm-up", type=int, default=200, help="updates (%(default)s)")
    trained.add_argument("--seed", type=int, default=0, help="of weights and batches (%(default)s)")
    for field in ("batch", "rate", "layers", "width", "heads", "context"):
        kind = type(getattr(RECIPE, field))
        trained.add_argument(f"--{field}", type=kind, default=getattr(RECIPE, field), help="(%(default)s)")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Prepare, train or place."""
    chosen = arguments(argv)
    if chosen.command == "prepare":
        prepare(chosen.work, chosen.vocabulary)
        return
    if chosen.command == "place":
        for name in NAMES.values():
            place(name, chosen.work, chosen.out)
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = False
    chosen.out.mkdir(parents=True, exist_ok=True)
    shape = {
        field: getattr(chosen, field) for field in ("batch", "rate", "layers", "width", "heads", "context", "seed")
    }
    vocabulary = len(PreTrainedTokenizerFast.from_pretrained(chosen.work / "tokenizer"))
    recipe = dataclasses.replace(RECIPE, vocabulary=vocabulary, **shape)
    training = Training(
        steps=chosen.steps, minutes=chosen.minutes, rate=chosen.rate, warm_up=chosen.warm_up, report=100
    )
    for activation in [chosen.activation] if chosen.activation else list(NAMES):
        record = train_one(activation, chosen.work, chosen.out, training, recipe, device)
        (chosen.out / f"{record['name']}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print({key: record[key] for key in ("name", "steps", "tokens", "train", "final", "total_seconds", "device")})


if __name__ == "__main__":
    main()
