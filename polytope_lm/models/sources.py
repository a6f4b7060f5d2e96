"""Where a model's name leads: a packaged model, a directory, or the hub; and what a revision says of it."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polytope_lm import files
from polytope_lm.errors import PolytopeError, brief, visible
from polytope_lm.models import packaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)
_REVISION = re.compile(r"(?P<weights>.*?)(?: config-(?P<config>\w+) tokenizer-(?P<tokenizer>\w+))?", re.DOTALL)
_CONFIG, _WEIGHTS, _INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
_READ = {".json", ".safetensors", ".txt", ".model", ".jinja"}  # suffixes of files that are read
_COUNTS = re.compile(r"layer|depth|expert")
_MOST = 10_000  # layers, or experts of one; what has more is no model but a trap for memory


@dataclass(frozen=True)
class Source:
    """What transformers is asked for: a local directory, or a name on the hub.

    Attributes:
        name: what the user typed, for errors.
        revision: the hub's revision asked for, or the identity of a local copy's weights; None where the hub decides.
        formerly: how stores that say nothing of config and tokenizer name the weights, if otherwise.
        origin: what was done to the weights before they came here, if anything.

    """

    name: str
    where: str
    local: bool
    revision: str | None
    formerly: str = ""
    origin: str = ""


def locate(name: str | Path, revision: str | None = None) -> Source:
    """Resolve a name: a packaged one first, then a path, then the hub.

    A path is a `Path`, or has a separator: `./gpt2`, `models/gpt2`. The hub's `owner/name` has one too, so a directory
    that is there goes before the hub, and what could be no hub name (`./x`, `/x`, `~/x`, `a/b/c`) is always a path.
    """
    if not isinstance(name, (str, Path)):
        raise PolytopeError(f"{name!r:.60} is no model name: give a string or a path; wrap() takes a loaded model")
    text = str(name)
    if name in packaged.PACKAGED:
        directory, origin = packaged.directory(text, progress=_say), packaged.PACKAGED[text].origin
        if origin:
            _say(f"{text}: its weights are {origin}")
        return Source(text, str(directory), local=True, revision=packaged.revision(text), origin=origin)
    path = files.expand(name, "name") if isinstance(name, Path) or os.sep in text else None
    if path and (isinstance(name, Path) or path.is_dir() or not _HUB_NAME.fullmatch(text)):
        if not path.is_dir():
            raise PolytopeError(
                f"{text}: no such directory; give a transformers model's directory or a hub name such as gpt2"
            )
        weights, formerly = _checked_directory(text, path)
        return Source(path.resolve().name, str(path), local=True, revision=weights, formerly=formerly)
    if not _HUB_NAME.fullmatch(text):
        raise PolytopeError(
            f"{text!r} is no model name: give one of {', '.join(packaged.PACKAGED)}, a directory or a hub name"
        )
    return Source(text, text, local=False, revision=revision and revision_parts(revision)["weights"])


def revision_parts(revision: str) -> dict[str, str | None]:
    """Return the identity of weights, config and tokenizer; the last two are None in stores made long ago."""
    found = _REVISION.fullmatch(revision)
    return found.groupdict() if found else {"weights": revision, "config": None, "tokenizer": None}


def changed_parts(was: str, now: str, formerly: str = "") -> tuple[list[str], bool]:
    """Compare a store's revision with a model's; `formerly` as in `Source`.

    Return which of `weights`, `config` and `tokenizer` are others, and whether all three could be compared.
    """
    old, new = revision_parts(was), revision_parts(now)
    if old["config"] is None and formerly:
        new["weights"] = formerly  # it covers the configuration's file too
    changed = [part for part, value in old.items() if value is not None and value != new[part]]
    return changed, None not in {old["config"], new["config"]}


def _checked_directory(name: str, path: Path) -> tuple[str, str]:
    """Return the identity of a directory's weights, of now and of old, once nothing in it can harm.

    What is not a regular file and an index that names pickles or files elsewhere are refused: pickles run code, and
    what lies elsewhere is not what the user gave. Links are followed, as the hub's cache consists of them, and the
    content behind them is hashed.
    """
    for file in sorted([*path.iterdir(), *path.glob("additional_chat_templates/*")]):
        if file.suffix in _READ or file.name == "adapter_config.json":
            files.open_regular(file, "model's file").close()
    if not (path / _CONFIG).is_file():
        raise PolytopeError(f"{name}: no {_CONFIG} here; give a directory written by save_pretrained()")
    if (path / "adapter_config.json").exists():
        raise PolytopeError(
            f"{name}: adapter_config.json: an adapter, whose base model lies elsewhere; merge them by peft's "
            "merge_and_unload(), save_pretrained(DIRECTORY), and give that directory"
        )
    config = files.read_json(path / _CONFIG, "configuration")
    check_config(name, config)
    weights = [path / str(given)] if (given := config.get("transformers_weights")) else [path / _WEIGHTS]
    if given:
        files.inside(path, str(given), "transformers_weights")
    elif not weights[0].is_file() and (path / _INDEX).is_file():
        weights = [path / shard for shard in checked_shards(name, files.read_bytes(path / _INDEX, "index", 2**28))]
    if not all(file.is_file() for file in weights):
        pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth") for p in path.glob(suffix))
        raise PolytopeError(
            f"{name}: its weights are pickles ({pickles[0]}), which can run code when loaded; if you "
            "trust them, load them by transformers, model.save_pretrained(DIRECTORY), and give that directory"
            if pickles
            else f"{name}: no weights here ({_WEIGHTS}); give a directory written by save_pretrained()"
        )
    sums = {file: _digest(file) for file in sorted({*path.glob("*.safetensors"), *weights, path / _CONFIG})}
    return (
        "files-" + _sum({file.name: sums[file] for file in sorted(weights)}),
        "directory-" + _sum({file.name: found for file, found in sums.items()}),
    )


def check_config(name: str, config: Any) -> None:
    """Refuse a `config.json` that asks for more layers or experts than any model has."""
    if not isinstance(config, dict):
        raise PolytopeError(f"{name}: {_CONFIG} holds {brief(config)}: give one written by save_pretrained()")
    for key, value in config.items():
        if isinstance(value, dict):
            check_config(name, value)
        elif isinstance(value, (int, float)) and value > _MOST and _COUNTS.search(key) and "size" not in key:
            raise PolytopeError(f"{name}: {_CONFIG} has {key} = {brief(value)}, more than {_MOST:,}: mend it")


def checked_shards(name: str, index: bytes) -> list[str]:
    """Return the weights' files that `model.safetensors.index.json` names: only safetensors beside it."""
    found = files.parse_json(index, f"{name}: {_INDEX}")
    named = found.get("weight_map") if isinstance(found, dict) else None
    if not isinstance(named, dict) or not named:
        raise PolytopeError(f"{name}: {_INDEX} has no weight_map: give a directory written by save_pretrained()")
    for key, file in named.items():
        if not isinstance(file, str) or not re.fullmatch(r"[^/\\:\0]+\.safetensors", file):
            raise PolytopeError(
                f"{name}: {_INDEX} takes {brief(key)} from {brief(file)}: only safetensors beside it count, "
                "as pickles can run code and other places are not this model's"
            )
    return sorted(set(named.values()))


@dataclass(frozen=True)
class SmallFiles:
    """What is read of a model before its weights: its configuration and its tokenizer."""

    config: Any
    tokenizer: Any
    options: dict[str, Any]  # for what reads the rest


def read_small(source: Source, *, trust_remote_code: bool) -> SmallFiles:
    """Read a model's configuration and tokenizer."""
    from transformers import AutoConfig, AutoTokenizer  # noqa: PLC0415

    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    common |= {"local_files_only": source.local or not _hub_answers()}
    common |= {} if source.local else {"revision": source.revision}
    with _reading(source):
        if not source.local:
            _check_hub(source, common["local_files_only"])
        config = AutoConfig.from_pretrained(source.where, **common)
        tokenizer = AutoTokenizer.from_pretrained(source.where, **common)
    return SmallFiles(config, tokenizer, common)


def read_model(source: Source, dtype: torch.dtype, *, trust_remote_code: bool) -> tuple[Any, Any, str | None]:
    """Load a transformers model and its tokenizer; also return the hub's commit."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415
    from transformers import AutoModel, AutoModelForCausalLM  # noqa: PLC0415

    small = read_small(source, trust_remote_code=trust_remote_code)
    config, tokenizer = small.config, small.tokenizer
    with _reading(source):
        architectures = getattr(config, "architectures", None) or [""]
        # A language model that also takes images has its text model's head beside it.
        wraps_text = config.get_text_config() is not config and not getattr(config, "is_encoder_decoder", False)
        heads = ("ForCausalLM", "LMHeadModel", *(("ForConditionalGeneration",) if wraps_text else ()))
        auto = AutoModelForCausalLM if architectures[0].endswith(heads) else AutoModel
        model, report = auto.from_pretrained(
            source.where, config=config, dtype=dtype, use_safetensors=True, output_loading_info=True, **small.options
        )
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise PolytopeError(
            f"{source.name}: weights missing from its files: {', '.join(missing[:3])} ({len(missing)} in all)"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer of the model's class where the files of one are missing
        raise PolytopeError(f"{source.name}: no tokenizer in its files; save one beside the weights")
    # The hub's cache keeps a commit's files in a directory of its name.
    found = None if source.local else try_to_load_from_cache(source.where, _CONFIG, revision=source.revision)
    return model, tokenizer, Path(found).parent.name if isinstance(found, str) else None


@contextlib.contextmanager
def _reading(source: Source) -> Iterator[None]:
    """Turn whatever transformers or a file's parser raise into one line; show no bar for the moment of a local copy."""
    from transformers.utils import logging  # noqa: PLC0415

    bars = logging.is_progress_bar_enabled()
    if source.local:
        logging.disable_progress_bar()
    try:
        yield
    except PolytopeError:
        raise
    except Exception as error:
        raise PolytopeError(_explain(source, error)) from error
    finally:
        if bars:
            logging.enable_progress_bar()


def _check_hub(source: Source, offline: bool) -> None:
    """Look at a hub's small files before transformers acts on them, as for a directory."""
    from transformers.utils import cached_file  # noqa: PLC0415

    options = {"revision": source.revision, "local_files_only": offline}
    config = cached_file(source.where, _CONFIG, **options)
    check_config(source.name, files.read_json(config, "configuration"))
    maybe = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
    if cached_file(source.where, _WEIGHTS, **options, **maybe) is None:
        index = cached_file(source.where, _INDEX, **options, **maybe)
        if index is not None:
            checked_shards(source.name, files.read_bytes(index, "index", 2**28))


def _hub_answers() -> bool:
    """Ask the hub once; without an answer its cache is used, and no minute is spent on asking again."""
    import huggingface_hub  # noqa: PLC0415 - slow to import
    from huggingface_hub import constants  # noqa: PLC0415

    if constants.HF_HUB_OFFLINE:
        return False
    session = huggingface_hub.get_session()
    # The client's library has changed before (requests, httpx); its errors are found where it comes from.
    client = importlib.import_module(type(session).__module__.partition(".")[0])
    try:
        session.head(constants.ENDPOINT, timeout=5.0)
    except (OSError, getattr(client, "HTTPError", OSError)):
        return False
    return True


def _explain(source: Source, error: Exception) -> str:
    """Say in one line why a model could not be read."""
    first = visible(" ".join(str(error).split()) or type(error).__name__)[:200]
    if source.local:
        kind = "weights" if "safetensors" in first or "pytorch_model" in first else "a model"
        return (
            f"{source.name}: can't read {kind} from this directory ({first[:160]}); it needs config.json, "
            "model.safetensors and a tokenizer"
        )
    if "gated" in first or "401" in first or "authoriz" in first.lower():
        return f"{source.name}: the hub wants a licence accepted or a login for it: run `hf auth login` ({first[:120]})"
    if "trust_remote_code" in str(error):
        return f"{source.name}: its repository has Python code of its own; pass trust_remote_code=True if you trust it"
    return (
        f"{source.name}: not a packaged model ({', '.join(packaged.PACKAGED)}), not a directory, and the "
        f"model hub doesn't give it ({first[:120]}); check the name and the network, or pass ./DIRECTORY"
    )


def _digest(file: Path) -> bytes:
    with files.open_regular(file, "model's file") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _sum(digests: dict[str, bytes]) -> str:
    found = hashlib.sha256()
    for name, digest in digests.items():
        found.update(name.encode() + digest)
    return found.hexdigest()[:16]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
