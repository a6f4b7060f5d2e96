"""Train `tiny-gpt2` and its twins `tiny-relu` and `tiny-moe` on Python's own documentation, in minutes on 2 cores.

    python -m analyses.train_tiny                      # tiny-gpt2
    python -m analyses.train_tiny --activation relu    # tiny-relu
    python -m analyses.train_tiny --activation silu    # tiny-moe, a mixture of experts
    python -m analyses.train_tiny --out DIR --checkpoints CHECKPOINTS    # keeps the weights of updates 0, 1, 2, 4, ...

A run that was cut short goes on where it left off, to the same bytes, when it is started again.

The models are for tests, documentation and anyone without a larger model: they stand in for no other model.
Weights are rounded to float16 before they are measured and stored, and loaded as float32, so the figures in
the model card are those of the stored weights.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import platform
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from pydoc_data.topics import topics as python_topics
from typing import TYPE_CHECKING

import numpy as np
import tokenizers
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    OlmoeConfig,
    OlmoeForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from polytope_lm.toys import training as training_loop
from polytope_lm.toys.training import Training, log_spaced
from polytope_lm.training.checkpoints import Checkpoints

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from jaxtyping import Float, Int

NAMES = {"gelu_new": "tiny-gpt2", "relu": "tiny-relu", "silu": "tiny-moe"}
PREMISES = {
    "relu": "A ReLU MLP with biases is piecewise affine: inside one code it is one affine map, exactly.",
    "gelu_new": "GELU is smooth: a code says on which side of 0 each pre-activation is, and no more.",
}
DATA = Path(__file__).resolve().parents[1] / "polytope_lm" / "data"
END = "<|endoftext|>"
RUN = 60  # characters; a run of this length in two topics is a copied passage, not a common phrase
# Topics of several kinds that repeat no passage of another one: nothing of them is seen in training.
HELD_OUT = (
    "binary",
    "booleans",
    "dict",
    "global",
    "import",
    "lambda",
    "objects",
    "shifting",
    "slicings",
    "subscriptions",
    "yield",
)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, besides the text and the library versions.

    Attributes:
        activation: `gelu_new` and `relu` make a GPT-2, `silu` an OLMoE: a mixture of gated experts.
        experts: of each layer of a mixture; `chosen` of them read a token, each of width `expert_width`.
        balance: the weight of the load-balancing loss (Fedus et al., "Switch Transformers", 2022).

    """

    activation: str = "gelu_new"
    steps: int = 1000
    seed: int = 0
    vocabulary: int = 1024
    layers: int = 4
    width: int = 128
    heads: int = 4
    context: int = 256
    batch: int = 8
    rate: float = 3e-3
    decay: float = 0.1
    dropout: float = 0.1
    experts: int = 8
    chosen: int = 2
    expert_width: int = 96
    balance: float = 0.02

    @property
    def mixture(self) -> bool:
        """Whether it makes a mixture of experts."""
        return self.activation == "silu"


@dataclass(frozen=True)
class Figures:
    """What was measured on the stored weights, in nats per token.

    Attributes:
        train: mean over the last tenth of the training steps, with dropout on.
        held_out: on the held-out topics.
        unigram: of the training text's token frequencies (add one) on the held-out topics.
        tokens: training tokens, each seen `epochs` times.
        held_out_tokens: held-out tokens.
        characters: of the held-out text.
        copied: share of the held-out text's 60-character runs that the training text has too.
        loads: of a mixture, by layer and expert: the share of held-out tokens that the expert reads.

    """

    train: float
    held_out: float
    unigram: float
    tokens: int
    epochs: float
    held_out_tokens: int
    characters: int
    copied: float
    loads: tuple[tuple[float, ...], ...] = ()

    @property
    def bits_per_character(self) -> float:
        """The held-out loss per character, in bits: it does not depend on the vocabulary."""
        return self.held_out / math.log(2) * self.held_out_tokens / self.characters


def runs(text: str) -> set[str]:
    """Return all stretches of `RUN` characters."""
    return {text[i : i + RUN] for i in range(max(1, len(text) - RUN + 1))}


def split(topics: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return training and held-out topics.

    Many topics are excerpts of a longer one (`try` of `compound`). From long to short, a topic is left out of
    training when most of its runs have been taken already, so that no passage counts several times.
    """
    held_out = {name: topics[name] for name in HELD_OUT if name in topics}
    train: dict[str, str] = {}
    seen: set[str] = set()
    for name in sorted(topics.keys() - held_out.keys(), key=lambda name: (-len(topics[name]), name)):
        own = runs(topics[name])
        if len(own & seen) <= len(own) / 2:
            train[name] = topics[name]
            seen |= own
    return dict(sorted(train.items())), held_out


def copied_share(train: Mapping[str, str], held_out: Mapping[str, str]) -> float:
    """Return the share of the held-out text's runs that the training text has too."""
    seen = set().union(*map(runs, train.values()))
    own = set().union(*map(runs, held_out.values()))
    return len(own & seen) / len(own)


def train_tokenizer(texts: Sequence[str], recipe: Recipe) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE in GPT-2's manner: any text is encoded; a leading space is the token's."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.post_processor = processors.ByteLevel(trim_offsets=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=END, eos_token=END, unk_token=END, model_max_length=recipe.context
    )


def stream(tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> Int[torch.Tensor, " n"]:
    """Return the texts' tokens one after the other, an end token before each."""
    pieces = [[tokenizer.bos_token_id, *tokenizer(text, verbose=False).input_ids] for text in texts]
    return torch.tensor([token for piece in pieces for token in piece])


def build(recipe: Recipe) -> PreTrainedModel:
    """Return an untrained model of the recipe's shape; the global random generator is left as it was."""
    ends = {"vocab_size": recipe.vocabulary, "bos_token_id": 0, "eos_token_id": 0, "dtype": "float32"}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.mixture:
            mixture = OlmoeConfig(
                max_position_embeddings=recipe.context,
                hidden_size=recipe.width,
                num_hidden_layers=recipe.layers,
                num_attention_heads=recipe.heads,
                hidden_act=recipe.activation,
                intermediate_size=recipe.expert_width,
                num_experts=recipe.experts,
                num_experts_per_tok=recipe.chosen,
                router_aux_loss_coef=recipe.balance,
                tie_word_embeddings=True,
                pad_token_id=None,
                **ends,
            )
            return OlmoeForCausalLM(mixture)
        config = GPT2Config(
            n_positions=recipe.context,
            n_embd=recipe.width,
            n_layer=recipe.layers,
            n_head=recipe.heads,
            activation_function=recipe.activation,
            resid_pdrop=recipe.dropout,
            embd_pdrop=recipe.dropout,
            attn_pdrop=0.0,  # the fast attention of the CPU has no dropout
            **ends,
        )
        return GPT2LMHeadModel(config)


@contextmanager
def dropping(model: PreTrainedModel, recipe: Recipe) -> Iterator[None]:
    """Give a mixture GPT-2's dropout while it trains: of the embedding and of what each sublayer adds."""

    def drop(_module: torch.nn.Module, _args: object, out: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.dropout(out, recipe.dropout, model.training)

    with ExitStack() as stack:
        if recipe.mixture:
            trunk = model.base_model
            for module in (trunk.embed_tokens, *(m for b in trunk.layers for m in (b.self_attn.o_proj, b.mlp))):
                stack.callback(module.register_forward_hook(drop).remove)
        yield


def draws(tokens: Int[torch.Tensor, " n"], recipe: Recipe) -> Iterator[Int[torch.Tensor, "B S"]]:
    """Yield the batches: windows of the context's length at random places."""
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.steps):
        starts = rng.integers(0, len(tokens) - recipe.context + 1, size=recipe.batch)
        yield torch.stack([tokens[start : start + recipe.context] for start in starts])


def next_token_loss(model: PreTrainedModel, batch: Int[torch.Tensor, "B S"]) -> Float[torch.Tensor, ""]:
    """Return the mean cross-entropy in nats of every token but the windows' first."""
    logits = model(input_ids=batch[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())


@contextmanager
def routing(model: PreTrainedModel, recipe: Recipe) -> Iterator[list[tuple[torch.Tensor, ...]]]:
    """Collect what a mixture's routers return, layer by layer: logits, weights and indices of the chosen."""
    seen: list[tuple[torch.Tensor, ...]] = []
    with ExitStack() as stack:
        for block in model.base_model.layers if recipe.mixture else ():
            hook = block.mlp.gate.register_forward_hook(lambda _m, _args, out: seen.append(out))
            stack.callback(hook.remove)
        yield seen


def imbalance(logits: Float[torch.Tensor, "T E"], chosen: Int[torch.Tensor, "T k"]) -> Float[torch.Tensor, ""]:
    """Return E times the sum over experts of share of choices times mean probability; 1 at equal loads."""
    experts = logits.shape[-1]
    shares = torch.nn.functional.one_hot(chosen, experts).float().mean((0, 1))
    return experts * (shares * logits.softmax(-1).mean(0)).sum()


def train(
    recipe: Recipe,
    tokens: Int[torch.Tensor, " n"],
    *,
    report: int = 50,
    unfinished: Path | None = None,
    checkpoints: Checkpoints | None = None,
) -> tuple[PreTrainedModel, list[float]]:
    """Train on random windows and return the model, rounded to float16 and in eval mode, with its losses.

    Every `report` steps the state is kept in the file `unfinished`, from which a later call goes on; the weights go to
    `checkpoints` at log-spaced steps and at the end.
    """
    model, batches = build(recipe), draws(tokens, recipe)
    training = Training(recipe.steps, rate=recipe.rate, decay=recipe.decay, seed=recipe.seed + 1, report=report)

    with dropping(model, recipe), routing(model, recipe) as routed:

        def loss(model: PreTrainedModel, batch: Int[torch.Tensor, "B S"]) -> Float[torch.Tensor, " parts"]:
            routed.clear()
            parts = [next_token_loss(model, batch)]
            if recipe.mixture:
                parts.append(recipe.balance * torch.stack([imbalance(r, chosen) for r, _, chosen in routed]).mean())
            return torch.stack(parts)

        def after(step: int) -> None:
            if checkpoints is not None and (log_spaced(step) or step == recipe.steps):
                checkpoints.save(step, weights_of(model))

        losses = training_loop.train(
            model, loss, lambda _step: next(batches), training, after=after, state=unfinished, recipe=repr(recipe)
        )
    return model.half().float().eval(), losses


@torch.no_grad()
def held_out_loss(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, texts: Sequence[str]) -> float:
    """Return the mean loss per token in nats.

    Windows of a text are taken one after the other, the first behind an end token. Each window's first token
    is the last one of the window before, so that every token of the text is predicted exactly once.
    """
    size = model.config.max_position_embeddings
    total, count = 0.0, 0
    for text in texts:
        tokens = stream(tokenizer, [text])
        for start in range(0, len(tokens) - 1, size - 1):
            window = tokens[start : start + size][None]
            total += next_token_loss(model, window).item() * (window.shape[1] - 1)
            count += window.shape[1] - 1
    return total / count


@torch.no_grad()
def expert_loads(
    model: PreTrainedModel, tokens: Int[torch.Tensor, " n"], recipe: Recipe
) -> tuple[tuple[float, ...], ...]:
    """Return the share of the tokens that each expert reads, by layer and expert; they sum to `chosen` in a layer."""
    counts = torch.zeros(recipe.layers, recipe.experts, dtype=torch.int64)
    with routing(model, recipe) as routed:
        for window in torch.split(tokens, recipe.context):
            routed.clear()
            model(input_ids=window[None])
            counts += torch.stack([torch.bincount(c.flatten(), minlength=recipe.experts) for _, _, c in routed])
    return tuple(tuple(count / len(tokens) for count in layer) for layer in counts.tolist())


def unigram_loss(train_tokens: Int[torch.Tensor, " n"], held_out: Int[torch.Tensor, " m"], vocabulary: int) -> float:
    """Return the loss per token in nats of the training text's token frequencies (add one)."""
    counts: Float[torch.Tensor, " V"] = torch.bincount(train_tokens, minlength=vocabulary).double() + 1
    return float(-torch.log(counts / counts.sum())[held_out].mean())


def measure(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    recipe: Recipe,
    losses: Sequence[float],
    topics: Mapping[str, str],
) -> Figures:
    """Return the figures of the model card, measured on the rounded weights."""
    seen, held_out = split(topics)
    tokens = stream(tokenizer, list(seen.values()))
    ends = tokenizer.bos_token_id
    unseen = stream(tokenizer, list(held_out.values()))
    unseen = unseen[unseen != ends]
    return Figures(
        train=float(np.mean(losses[-max(1, len(losses) // 10) :])),
        held_out=held_out_loss(model, tokenizer, list(held_out.values())),
        unigram=unigram_loss(tokens, unseen, recipe.vocabulary),
        tokens=len(tokens),
        epochs=recipe.steps * recipe.batch * recipe.context / len(tokens),
        held_out_tokens=len(unseen),
        characters=sum(map(len, held_out.values())),
        copied=copied_share(seen, held_out),
        loads=expert_loads(model, unseen, recipe) if recipe.mixture else (),
    )


def weights_of(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Return the weights in half precision, the tied embedding once."""
    return {name: p.detach().half().cpu().contiguous() for name, p in model.named_parameters()}


def save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, directory: Path) -> None:
    """Write an ordinary transformers directory: config, weights, tokenizer; no paths and no dates."""
    directory.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(directory)
    # The config says float32, so that is what is loaded.
    save_file(weights_of(model), directory / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save_pretrained(directory)


def _dense_words(recipe: Recipe) -> dict[str, str]:
    """Return what the card of a GPT-2 says of its shape."""
    twin = "tiny-gpt2" if recipe.activation == "relu" else "tiny-relu"
    return {
        "shape": (
            f"A GPT-2 ({recipe.layers} layers, d_model {recipe.width}, {recipe.heads} heads, context {recipe.context}, "
            f"`{recipe.activation}`, LayerNorm,\nbiases, learned positions, tied embeddings)"
        ),
        "premises": PREMISES[recipe.activation],
        "twin": f"`{twin}` is its twin: same script, data, tokenizer, seed and shape, another activation.",
        "original": "OpenAI's GPT-2",
        "others": "another model",
        "balance": "",
        "loads": "",
    }


def _mixture_words(recipe: Recipe, figures: Figures) -> dict[str, str]:
    """Return what the card of a mixture of experts says of its shape, and a table of its experts' loads."""
    rows = [f"| {n} | " + " | ".join(f"{load:.1%}" for load in loads) + " |" for n, loads in enumerate(figures.loads)]
    even = recipe.chosen / recipe.experts
    return {
        "shape": (
            f"A mixture of experts of OLMoE's shape ({recipe.layers} layers, d_model {recipe.width}, "
            f"{recipe.heads} heads, context {recipe.context}, RMSNorm,\n"
            f"no biases, rotary positions, tied embeddings; each layer has {recipe.experts} experts of width "
            f"{recipe.expert_width}, `{recipe.activation}` gated, of which\n"
            f"its router chooses {recipe.chosen} for each token)"
        ),
        "premises": "A router's code says which experts it chose.",
        "twin": "`tiny-gpt2` and `tiny-relu` are its twins: same script, data, tokenizer, seed, layers and d_model.",
        "original": "OLMoE",
        "others": "another model, least of all about a large\nmixture",
        "balance": (
            f';\n  the load-balancing loss of Fedus et al. ("Switch Transformers", 2022), layer by layer, weighs '
            f"{recipe.balance:g}"
        ),
        "loads": "\n".join(
            (
                f"Share of the held-out tokens that each expert reads (all alike would be {even:.1%}):",
                "",
                "| layer | " + " | ".join(map(str, range(recipe.experts))) + " |",
                "|---" * (recipe.experts + 1) + "|",
                *rows,
                "",
                "",
            )
        ),
    }


def card(recipe: Recipe, figures: Figures, topics: Mapping[str, str]) -> str:
    """Return the model card."""
    text = "".join(f"{name}\0{topics[name]}\0" for name in sorted(topics))
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    template = Path(__file__).with_name("tiny_card.md").read_text(encoding="utf-8")
    return template.format(
        name=NAMES[recipe.activation],
        **(_mixture_words(recipe, figures) if recipe.mixture else _dense_words(recipe)),
        held_out_names=", ".join(f"`{name}`" for name in HELD_OUT if name in topics),
        left_out=len(topics) - len(split(topics)[0]) - sum(name in topics for name in HELD_OUT),
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        python=platform.python_version(),
        versions=f"{versions}, tokenizers {tokenizers.__version__}",
        r=recipe,
        f=figures,
    )


def tokenized(recipe: Recipe, topics: Mapping[str, str]) -> tuple[PreTrainedTokenizerFast, Recipe]:
    """Return the tokenizer of the topics trained on, and the recipe with its size."""
    tokenizer = train_tokenizer(list(split(topics)[0].values()), recipe)
    # A small text may give fewer merges than were asked for.
    return tokenizer, replace(recipe, vocabulary=len(tokenizer))


def run(
    recipe: Recipe, topics: Mapping[str, str], directory: Path, *, checkpoints: Checkpoints | None = None
) -> Figures:
    """Train, measure and write one model; return the card's figures."""
    seen, _ = split(topics)
    tokenizer, recipe = tokenized(recipe, topics)
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / "unfinished.pt"
    tokens = stream(tokenizer, list(seen.values()))
    model, losses = train(recipe, tokens, unfinished=unfinished, checkpoints=checkpoints)
    figures = measure(model, tokenizer, recipe, losses, topics)
    save(model, tokenizer, directory)
    (directory / "README.md").write_text(card(recipe, figures, topics), encoding="utf-8")
    unfinished.unlink(missing_ok=True)
    return figures


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m analyses.train_tiny", description=summary)
    parser.add_argument(
        "--activation", choices=sorted(NAMES), default="gelu_new", help="gelu_new, its twin relu, or silu: a mixture"
    )
    parser.add_argument("--steps", type=int, default=Recipe.steps, help="training steps (%(default)s)")
    parser.add_argument("--seed", type=int, default=Recipe.seed, help="of weights, batches, dropout (%(default)s)")
    parser.add_argument("--out", type=Path, help="directory (the package's own data directory)")
    parser.add_argument("--checkpoints", type=Path, help="directory of checkpoints, for the analysis of training")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> None:
    """Train one of the models and print its figures."""
    chosen = arguments(argv)
    torch.set_num_threads(1)  # how sums are ordered depends on it, and the twin has the other core
    torch.use_deterministic_algorithms(mode=True)
    recipe = Recipe(activation=chosen.activation, steps=chosen.steps, seed=chosen.seed)
    directory = chosen.out or DATA / NAMES[recipe.activation]
    kept = chosen.checkpoints and Checkpoints(chosen.checkpoints / NAMES[recipe.activation])
    figures = run(recipe, python_topics, directory, checkpoints=kept)
    size = (directory / "model.safetensors").stat().st_size
    print(f"{directory}: {size / 1e6:.2f} MB")
    print(f"held-out {figures.held_out:.3f} nats per token, unigram {figures.unigram:.3f}, {figures}")


if __name__ == "__main__":
    main()
