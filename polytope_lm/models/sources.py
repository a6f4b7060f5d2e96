"""Where a model's name leads: a packaged model, a directory, or the hub."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from polytope_lm.errors import PolytopeError
from polytope_lm.models import packaged

if TYPE_CHECKING:
    import torch

_PATIENCE = 5.0  # seconds for the hub's first answer
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?", re.ASCII)


@dataclass(frozen=True)
class Source:
    """What transformers is asked for.

    Attributes:
        name: what the user typed, for errors.
        where: a local directory, or a name on the hub.
        local: whether `where` is a directory.
        revision: the hub's revision asked for, or a local copy's identity; None where the hub decides.

    """

    name: str
    where: str
    local: bool
    revision: str | None


def checked_device(device: Any) -> torch.device:
    """Return a device that this machine can compute on.

    Raises:
        PolytopeError: an unknown device, or one that is not there.

    """
    import torch  # noqa: PLC0415 - slow to import

    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (AssertionError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise PolytopeError(f"device {device!r} can't be used here ({reason}): give 'cpu'") from error
    return place


def locate(name: str | Path, revision: str | None = None) -> Source:
    """Resolve a name: a packaged one first, then a path, then the hub.

    A path is a `Path`, or has a separator: `./gpt2`, `models/gpt2`. The hub's `owner/name` has one too, so a
        directory
    that is there goes before the hub, and what could be no hub name (`./x`, `/x`, `~/x`, `a/b/c`) is always a
    path.

    Raises:
        PolytopeError: a directory that is missing or is no model, or a packaged model whose extra is not
            installed.

    """
    if not isinstance(name, (str, Path)):
        raise PolytopeError(
            f"{name!r:.60} is no model name: give a string or a path; wrap() takes a loaded model"
        )
    text = str(name)
    if name in packaged.PACKAGED:
        directory = packaged.directory(text, progress=_say)
        return Source(text, str(directory), local=True, revision=packaged.revision(text))
    path = Path(name).expanduser()
    separated = os.sep in text
    if isinstance(name, Path) or (separated and (path.is_dir() or not _HUB_NAME.fullmatch(text))):
        if not path.is_dir():
            raise PolytopeError(
                f"{text}: no such directory; give a transformers model's directory or a hub name such as gpt2"
            )
        if not (path / "config.json").is_file():
            raise PolytopeError(f"{text}: no config.json here; give a directory written by save_pretrained()")
        _check_weights(text, path)
        return Source(path.resolve().name, str(path), local=True, revision=_directory_revision(path))
    if not _HUB_NAME.fullmatch(text):
        raise PolytopeError(
            f"{text!r} is no model name: give one of {', '.join(packaged.PACKAGED)}, a directory or a hub "
            f"name"
        )
    return Source(text, text, local=False, revision=revision)


def _check_weights(name: str, path: Path) -> None:
    """Refuse a directory without safetensors first: other formats may run code when they are loaded."""
    if any(path.glob("*.safetensors")):
        return
    pickles = sorted(p.name for suffix in ("*.bin", "*.pt", "*.pth") for p in path.glob(suffix))
    if pickles:
        raise PolytopeError(
            f"{name}: its weights are pickles ({pickles[0]}), which can run code when they are loaded; if "
            f"you trust them, load "
            f"them with transformers, model.save_pretrained(DIRECTORY), and give that directory"
        )
    raise PolytopeError(
        f"{name}: no weights here (model.safetensors); give a directory written by save_pretrained()"
    )


def read_model(source: Source, dtype: torch.dtype, *, trust_remote_code: bool) -> tuple[Any, Any, str | None]:
    """Load a model and its tokenizer.

    Args:
        source: from `locate`.
        dtype: the weights' number format.
        trust_remote_code: whether the repository's own Python code may run.

    Returns:
        The transformers model, its tokenizer, and the hub's commit.

    Raises:
        PolytopeError: one line that says what could not be had and what to do.

    """
    from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415
    from transformers.utils import logging  # noqa: PLC0415

    common: dict[str, Any] = {"trust_remote_code": trust_remote_code}
    common |= {"local_files_only": source.local or not _hub_answers()}
    common |= {} if source.local else {"revision": source.revision}
    bars = logging.is_progress_bar_enabled()
    if source.local:
        logging.disable_progress_bar()
    try:
        config = AutoConfig.from_pretrained(source.where, **common)
        architectures = getattr(config, "architectures", None) or [""]
        generates = architectures[0].endswith(("ForCausalLM", "LMHeadModel"))
        auto = AutoModelForCausalLM if generates else AutoModel
        model, report = auto.from_pretrained(
            source.where, dtype=dtype, use_safetensors=True, output_loading_info=True, **common
        )
        tokenizer = AutoTokenizer.from_pretrained(source.where, **common)
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        raise PolytopeError(_explain(source, error)) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise PolytopeError(
            f"{source.name}: weights missing from its files: {', '.join(missing[:3])} ({len(missing)} in all)"
        )
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        # transformers makes an empty tokenizer of the model's class where the files of one are missing
        raise PolytopeError(f"{source.name}: no tokenizer in its files; save one beside the weights")
    return model, tokenizer, None if source.local else _commit(source)


def _commit(source: Source) -> str | None:
    """Return the hub's commit that was loaded: the cache keeps its files in a directory of that name."""
    from huggingface_hub import try_to_load_from_cache  # noqa: PLC0415

    found = try_to_load_from_cache(source.where, "config.json", revision=source.revision)
    return Path(found).parent.name if isinstance(found, str) else None


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
        session.head(constants.ENDPOINT, timeout=_PATIENCE)
    except (OSError, getattr(client, "HTTPError", OSError)):
        return False
    return True


def _explain(source: Source, error: Exception) -> str:
    """Say in one line why a model could not be read."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if source.local:
        kind = "weights" if "safetensors" in first or "pytorch_model" in first else "a model"
        return (
            f"{source.name}: can't read {kind} from this directory ({first[:160]}); it needs config.json, "
            f"model.safetensors and a tokenizer"
        )
    if "gated" in first or "401" in first or "authoriz" in first.lower():
        return (
            f"{source.name}: the hub wants a licence accepted or a login for it: run `hf auth login` "
            f"({first[:120]})"
        )
    if "trust_remote_code" in str(error):
        return (
            f"{source.name}: its repository has Python code of its own; pass trust_remote_code=True if you "
            f"trust it"
        )
    return (
        f"{source.name}: not a packaged model ({', '.join(packaged.PACKAGED)}), not a directory, and the "
        f"model hub doesn't give it "
        f"({first[:120]}); check the name and the network, or pass ./DIRECTORY"
    )


def _directory_revision(path: Path) -> str:
    """Identify a directory's weights by the hash of its safetensors files and configuration."""
    digest = hashlib.sha256()
    for file in sorted([*path.glob("*.safetensors"), path / "config.json"]):
        digest.update(file.name.encode())
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return "directory-" + digest.hexdigest()[:16]


def _say(line: str) -> None:
    print(line, file=sys.stderr)
