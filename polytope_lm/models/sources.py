"""Where a model's name leads: a packaged model, a directory, or the hub."""

from __future__ import annotations

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from polytope_lm.errors import PolytopeError
from polytope_lm.models import packaged


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


def locate(name: str, revision: str | None = None) -> Source:
    """Resolve a name: packaged first, then a path (it has a separator), then the hub.

    Raises:
        PolytopeError: a directory that is missing or is no model, or a packaged model whose extra is not installed.

    """
    if name in packaged.PACKAGED:
        directory = packaged.directory(name, progress=_say)
        return Source(name, str(directory), local=True, revision=packaged.revision(name))
    path = Path(name).expanduser()
    looks_like_path = name.startswith((".", "~", os.sep)) or os.sep * 2 in name or path.is_dir() and os.sep in name
    if looks_like_path:
        if not path.is_dir():
            raise PolytopeError(f"{name}: no such directory; give a transformers model's directory or a hub name such as gpt2")
        if not (path / "config.json").is_file():
            raise PolytopeError(f"{name}: no config.json here; give a directory written by save_pretrained()")
        return Source(name, str(path), local=True, revision=_directory_revision(path))
    return Source(name, name, local=False, revision=revision)


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
    common |= {"local_files_only": True} if source.local else {"revision": source.revision}
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
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise PolytopeError(_explain(source, error)) from error
    finally:
        if bars:
            logging.enable_progress_bar()
    missing = sorted(key for key in report["missing_keys"] if "pooler" not in key)
    if missing:
        raise PolytopeError(f"{source.name}: weights missing from its files: {', '.join(missing[:3])} ({len(missing)} in all)")
    return model, tokenizer, getattr(config, "_commit_hash", None)


def _explain(source: Source, error: Exception) -> str:
    """Say in one line why a model could not be read."""
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    if source.local:
        kind = "weights" if "safetensors" in first or "pytorch_model" in first else "a model"
        return f"{source.name}: can't read {kind} from this directory ({first[:160]}); it needs config.json, model.safetensors and a tokenizer"
    if "gated" in first or "401" in first or "authoriz" in first.lower():
        return f"{source.name}: the hub wants a licence accepted or a login for it: run `hf auth login` ({first[:120]})"
    if "trust_remote_code" in str(error):
        return f"{source.name}: its repository has Python code of its own; pass trust_remote_code=True if you trust it"
    return (
        f"{source.name}: not a packaged model ({', '.join(packaged.PACKAGED)}), not a directory, and the model hub doesn't give it "
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
    print(line, file=sys.stderr)  # noqa: T201
