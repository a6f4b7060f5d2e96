"""What all results share: records that save, load and show themselves, and the call that makes them again.

A result is a frozen dataclass that derives from `Result`. Saved, it is one JSON file with sorted keys, the
same bytes for the same numbers, and a Parquet file beside it for each large table. Its `checksum` is the
SHA-256 of the canonical JSON of all that is in the file but the checksum and `timings`, which nothing shows;
`files` has the digests of the tables. Files of format 1 have no checksum: a result loaded from one says so.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib
import inspect
import io
import json
import math
import os
import platform
import secrets
import warnings
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, Self, TypeVar, get_args, get_origin, get_type_hints

import numpy as np

from polytope_lm.errors import PolytopeError, brief, escaped, public
from polytope_lm.files import MEGABYTE, expand, parse_json, read_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd
    import plotly.graph_objects as go

FORMAT = 2
MOST = 256 * MEGABYTE
"""Bytes that a saved file may have."""
CURE = "restore the file, or run what made it again"
_HOMES = {
    "alignment": "polytope_lm.predictions.alignment.result",
    "boundaries": "polytope_lm.predictions.boundaries.result",
    "calibration": "polytope_lm.predictions.calibration.result",
    "change": "polytope_lm.changes.result",
    "clusters": "polytope_lm.predictions.clusters.result",
    "contexts": "polytope_lm.codes.neuron_contexts",
    "crossings": "polytope_lm.paths.crossings",
    "determination": "polytope_lm.predictions.determination.result",
    "diff": "polytope_lm.predictions.diff.result",
    "directions": "polytope_lm.predictions.directions.result",
    "distinct": "polytope_lm.geometry.distinct",
    "groups": "polytope_lm.predictions.groups.result",
    "multiverse": "polytope_lm.predictions.clusters.specifications",
    "neuron": "polytope_lm.predictions.neurons.result",
    "neurons": "polytope_lm.predictions.neurons.result",
    "overview": "polytope_lm.codes.overview",
    "selective": "polytope_lm.codes.selective",
    "senses": "polytope_lm.predictions.senses.result",
    "reduction": "polytope_lm.geometry.reduction",
    "slices": "polytope_lm.geometry.slices",
    "trust radius": "polytope_lm.changes.result",
}
"""Every kind of result, and the module that has its record: imported when a file of that kind is read."""
_KINDS: dict[str, type[Result]] = {}
_UNSEALED = "Saved before results had a checksum: whether its numbers were changed since cannot be told."
_ASIDE = frozenset({"progress", "workers", "keep", "to"})  # arguments that move no number
_LONGEST = 2000  # characters of an argument that a command spells out
_WIDEST = 2**63 - 1
_WORDS = {bool: "true or false", int: "whole number", float: "number", str: "text"}

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_origin: Callable[[Any], Any] = get_origin


class Result:
    """A result that saves, loads and shows itself; the base of every kind's frozen dataclass.

    Attributes:
        kind: its name in files, unique.
        file: the file that `save(directory)` writes.
        tab: of a report, under which it is shown.
        question: what was asked, in a reader's words; empty: the tab says it.
        several: whether one page may hold more than one.
        tables: fields that are kept as Parquet beside the JSON, and their files.
        columns_formerly: of these tables, by the names that older files give them.
        indent: of the JSON; None for kinds that are mostly arrays.
        derived: properties that the JSON says too, for readers without this package; `load` leaves them.
        notice: what a reader must know about how it was loaded; empty otherwise.

    """

    kind: ClassVar[str]
    file: ClassVar[str] = "result.json"
    tab: ClassVar[str] = ""
    question: ClassVar[str] = ""
    several: ClassVar[bool] = False
    tables: ClassVar[Mapping[str, str]] = {}
    columns_formerly: ClassVar[Mapping[str, str]] = {}
    derived: ClassVar[tuple[str, ...]] = ()
    indent: ClassVar[int | None] = 1
    notice: ClassVar[str] = ""

    def __init_subclass__(cls) -> None:
        _KINDS[cls.kind] = cls

    @property
    def headline(self) -> str:
        """What came out, in a sentence or two of plain text."""
        return str(getattr(self, "verdict", "")) or repr(self).strip("<>")

    def to_frame(self) -> pd.DataFrame:
        """Return the numbers as a table."""
        raise NotImplementedError

    def rows(self) -> list[tuple[str, ...]]:
        """Return the numbers as rows of plain text, the heads first: what a notebook and a report show."""
        frame = self.to_frame()
        return [tuple(map(str, frame.columns)), *(tuple(map(_cell, row)) for row in frame.itertuples(index=False))]

    def notes(self) -> list[str]:
        """Return what a reader needs to know beside the rows, in sentences of plain text."""
        return []

    def html(self) -> str:
        """Return a picture of its own in HTML, every text escaped, for what no figure shows; by default none."""
        return ""

    def figures(self) -> dict[str, go.Figure]:
        """Return the figures by name, in the order in which they are shown."""
        plot = getattr(self, "plot", None)
        return {} if plot is None else {self.kind: plot()}

    def _repr_html_(self) -> str:
        notes = [*self.notes(), *([self.notice] if self.notice else [])]
        return f"<p><strong>{escaped(self.headline)}</strong></p>{table(self.rows())}" + "".join(
            f"<p>{escaped(note)}</p>" for note in notes
        )

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data without the tables; `from_dict` is its inverse.

        Raises:
            PolytopeError: a number that is not finite; the message names the field.

        """
        return {"format": FORMAT, "kind": self.kind, **plain(self, leave=tuple(self.tables))}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], **kept: pd.DataFrame | None) -> Self:
        """Rebuild a result from `to_dict`'s data, and its tables where they are at hand.

        Raises:
            PolytopeError: a field that is missing or has a value of another type; the message names it.

        """
        found = structured(cls, {name: value for name, value in data.items() if name not in cls.tables})
        return replace(found, **kept) if kept else found  # type: ignore[type-var]

    def save(self, where: str | Path) -> Path:
        """Write the result into a directory (or as the `.json` file that is named); return the file's path.

        Every file appears whole or not at all. The same numbers give the same bytes, `timings` apart.

        Raises:
            PolytopeError: a number that is not finite, or a place that can't be written to.

        """
        path = self._path(where)
        data, digests = self.to_dict(), {}
        for name, file in self.tables.items():
            kept = getattr(self, name)
            if kept is not None:
                stream = io.BytesIO()
                kept.to_parquet(stream, index=False)
                digests[file] = hashlib.sha256(stream.getvalue()).hexdigest()
                write_whole(path.with_name(file), stream.getvalue())
        data |= {"files": digests} if digests else {}
        data["checksum"] = digest(data)
        how: dict[str, Any] = {"sort_keys": True, "allow_nan": False, "ensure_ascii": False}
        text = json.dumps(data, indent=self.indent, **how)
        return write_whole(path, f"{text}\n".encode())

    @classmethod
    def load(cls, where: str | Path) -> Self:
        """Read what `save` wrote: a directory, or the file itself.

        Raises:
            PolytopeError: no such file, one of another kind or format, one that was changed after it was
                saved, or one whose values have another type or do not fit together.

        """
        path = cls._path(where)
        found = _read(path, _data(path))
        if not isinstance(found, cls):
            raise PolytopeError(f"{path}: kind {found.kind!r}, not {cls.kind!r}; plm.load_result reads any kind")
        return found

    @classmethod
    def _path(cls, where: str | Path) -> Path:
        path = expand(where)
        return path if path.suffix == ".json" else path / cls.file


@public
def load_result(where: str | Path) -> Any:
    """Load a saved result, whatever its kind.

    Args:
        where: a file; or a directory, whose `result.json` is loaded, or else the only result in it.

    Raises:
        PolytopeError: no result there, several (`load_results` loads them all), or what `Result.load` raises.

    Examples:
        >>> import tempfile
        >>> import polytope_lm as plm
        >>> crossings = plm.path(plm.load("tiny-gpt2"), "The loop ends", "The loop stops", layer=2).crossings()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = crossings.save(folder)
        ...     plm.load_result(folder).prompts
        ('The loop ends', 'The loop stops')

    """
    path = expand(where)
    if path.is_dir():
        names = [file.name for file in _files(path)]
        if "result.json" not in names and len(names) > 1:
            raise PolytopeError(
                f"{path} holds {len(names)} results: name one of {', '.join(names)}, or use plm.load_results"
            )
        path /= "result.json" if "result.json" in names else names[0]
    return _read(path, _data(path))


@public
def load_results(where: str | Path) -> dict[str, Any]:
    """Load every result in a directory, by its file's name; those in `layer-*/` below it too.

    Args:
        where: a directory that `save`, `polytope-lm test`, `cross` or `demo` wrote.

    Raises:
        PolytopeError: no such directory, no result in it, or what `Result.load` raises.

    """
    path = expand(where)
    return {file.relative_to(path).as_posix(): _read(file, _data(file)) for file in _files(path)}


def _files(folder: Path) -> list[Path]:
    """Return the JSON files of a directory that are called like a result's: `result.json`, `slice-2.json`."""
    if not folder.is_dir():
        raise PolytopeError(f"{str(folder)!r} is not a directory; give one that holds saved results")
    for home in _HOMES.values():
        importlib.import_module(home)
    stems = tuple(dict.fromkeys(_KINDS[kind].file.removesuffix(".json") for kind in _HOMES))
    # `result.json`, what the directory is about, comes first.
    there = [file for pattern in ("result.json", "*.json", "layer-*/*.json") for file in sorted(folder.glob(pattern))]
    named = [file for file in dict.fromkeys(there) if file.name.startswith(stems)]
    if not named:
        raise PolytopeError(f"no result in {str(folder)!r} (no {'*.json, '.join(stems)}*.json); save one there")
    return named


def _data(path: Path) -> dict[str, Any]:
    """Return a file's data, of one of the formats that can be read."""
    data = parse_json(read_bytes(path, "saved result", MOST), os.fspath(path))
    if not isinstance(data, dict):
        raise PolytopeError(f"{path}: {brief(data)} is no saved result; {CURE}")
    if data.get("format", 1) not in (1, FORMAT):
        raise PolytopeError(f"{path}: format {brief(data['format'])}, not 1 or {FORMAT}; update polytope-lm")
    return data


def _kind_of(path: Path, data: Mapping[str, Any]) -> type[Result]:
    """Return the kind that a file says it is; in format 1 some were known by the file's name alone."""
    names = ("kind",) if data.get("format") == FORMAT else ("prediction", "scores", "result")
    kind = next((data[name] for name in names if name in data), None)
    if kind is None and data.get("format") != FORMAT:
        kind = next((name for name in ("crossings", "slices", "overview") if path.name.startswith(name[:5])), None)
    if not isinstance(kind, str) or kind not in _HOMES:
        raise PolytopeError(f"{path}: {names[0]} {brief(kind)} is no kind of result ({', '.join(_HOMES)}); {CURE}")
    importlib.import_module(_HOMES[kind])
    return _KINDS[kind]


def _read(path: Path, data: dict[str, Any]) -> Result:
    """Rebuild a result from its file's data, its tables with it; refuse what was changed."""
    cls, sealed = _kind_of(path, data), data.get("format") == FORMAT
    try:
        files = data.get("files", {}) if sealed else dict.fromkeys(cls.tables.values())
        if not isinstance(files, dict) or (not sealed and "checksum" in data):
            raise PolytopeError("files or checksum: not what `save` writes")  # noqa: TRY301
        kept = {
            name: _parquet(path.with_name(file), files[file], cls.columns_formerly)
            for name, file in cls.tables.items()
            if file in files
        }
        found = cls.from_dict(data, **kept)
        if sealed and data.get("checksum") != digest(data):
            raise PolytopeError("was changed after it was saved: its checksum does not fit")  # noqa: TRY301
        _check_shown(found)
    except PolytopeError as error:
        raise PolytopeError(f"{path}: {error}; {CURE}") from None
    if not sealed:
        object.__setattr__(found, "notice", _UNSEALED)
    return found


def _parquet(path: Path, sha256: object, formerly: Mapping[str, str]) -> pd.DataFrame | None:
    """Return a saved table; None where it is gone."""
    import pandas as pd  # noqa: PLC0415 -- slow to import
    import pyarrow as pa  # noqa: PLC0415

    if not path.exists():
        return None
    content = read_bytes(path, "saved table", MOST)
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise PolytopeError(f"{path.name} was changed after it was saved: its checksum does not fit")
    try:
        return pd.read_parquet(io.BytesIO(content)).rename(columns=dict(formerly))
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise PolytopeError(f"{path.name} is no table ({error})") from None


def _check_shown(found: Result) -> None:
    """Show a result once, so that values that do not fit together are found here and now."""
    try:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _ = found.headline, found.to_frame(), found._repr_html_(), found.figures()
    except PolytopeError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever comes of values that nobody foresaw
        raise PolytopeError(f"values that do not fit together ({type(error).__name__}: {error})") from None


def digest(data: Mapping[str, Any]) -> str:
    """Return the SHA-256 of the canonical JSON of a file's data, but for `checksum` and `timings`."""
    kept = {name: value for name, value in data.items() if name not in {"checksum", "timings"}}
    text = json.dumps(kept, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()


def write_whole(path: Path, content: bytes) -> Path:
    """Write a file under another name beside its place, then rename it: nobody ever sees half a file."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as stream:  # never through a link that somebody laid there
            stream.write(content)
        temporary.replace(path)
    except OSError as error:
        why = error.strerror or error
        raise PolytopeError(f"{path}: cannot be written ({why}); free space or choose another place") from None
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
    return path


def plain(value: Any, place: str = "", leave: tuple[str, ...] = ()) -> Any:
    """Return a record as plain JSON data: fields and `derived` properties, arrays and tables as lists.

    `place` is where it stands, for the error: a number that is not finite, or something that is no data.
    """
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (str, int)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if (is_dataclass(value) and not hasattr(value, "to_dict")) or isinstance(value, Result):
        names = (*(each.name for each in fields(value)), *getattr(value, "derived", ()))  # type: ignore[arg-type]
        value = {name: getattr(value, name) for name in names if name not in leave}
    elif hasattr(value, "to_dict"):
        # In a table what is missing is null.
        table = hasattr(value, "columns")
        value = value.astype(object).where(value.notna(), None).to_dict("list") if table else value.to_dict()
    if isinstance(value, Mapping):
        return {str(name): plain(one, f"{place}.{name}" if place else str(name)) for name, one in value.items()}
    if isinstance(value, (list, tuple, range)):
        return [plain(one, f"{place}[{number}]") for number, one in enumerate(value)]
    raise PolytopeError(
        f"{place}: {brief(value)} can't be saved: give a finite number, text, a list, mapping or record"
    )


def structured(cls: type[T], data: Mapping[str, Any]) -> T:
    """Rebuild a record from `plain`'s data; every value must have the type that its field states."""
    from cattrs import transform_error  # noqa: PLC0415 -- wanted only where something is loaded
    from jaxtyping import jaxtyped  # noqa: PLC0415

    try:
        plain(data)
        found: T = _converter().structure(data, cls)
    except RecursionError:
        raise PolytopeError("values nested too deep") from None
    except PolytopeError:
        raise
    except Exception as error:  # noqa: BLE001 -- whatever comes of values that nobody foresaw
        first = transform_error(
            error, format_exception=lambda why, _: f"missing {why}" if isinstance(why, KeyError) else str(why)
        )[0]
        what, _, place = first.rpartition(" @ $")
        raise PolytopeError(f"{place.lstrip('.') or 'the whole'}: {what or first}") from None
    inner = (getattr(found, each.name) for each in fields(cls))  # type: ignore[arg-type]
    for record in (found, *(one for one in inner if is_dataclass(one))):
        hints = get_type_hints(type(record))
        with jaxtyped("context"):  # dimensions of one name are equal
            for name, kind in hints.items():
                array = getattr(record, name)
                if _is_array(kind) and not isinstance(array, kind):
                    raise PolytopeError(f"{name}: shape {array.shape}, where the others ask for [{kind.dim_str}]")
    return found


def _is_array(kind: Any) -> bool:
    from jaxtyping import AbstractArray  # noqa: PLC0415 -- slow to import

    return isinstance(kind, type) and issubclass(kind, AbstractArray)


@functools.cache
def _converter() -> Any:
    """Return what rebuilds records: strict where the library would convert (`"3"` is no number)."""
    from cattrs import Converter  # noqa: PLC0415

    made = Converter()
    for kind in (bool, int, str, float):
        made.register_structure_hook(kind, _scalar)
    made.register_structure_hook_func(_is_array, _array)
    made.register_structure_hook_func(lambda kind: hasattr(kind, "from_dict") and kind not in _KINDS.values(), _own)
    made.register_structure_hook_factory(lambda kind: hasattr(kind, "formerly"), lambda kind: _renamed(kind, made))
    made.register_structure_hook_factory(lambda kind: _origin(kind) is tuple, lambda kind: _sequence(kind, made))
    made.register_structure_hook_factory(
        lambda kind: _origin(kind) in {dict, Mapping}, lambda kind: _mapping(kind, made)
    )
    return made


def _renamed(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    """Read a record some of whose fields had another name once (`formerly`, new names by old)."""
    from cattrs.gen import make_dict_structure_fn  # noqa: PLC0415

    read = make_dict_structure_fn(kind, converter)

    def renamed(value: Any, _: Any) -> Any:
        if not isinstance(value, dict):
            return read(value, kind)
        return read({kind.formerly.get(name, name): one for name, one in value.items()}, kind)

    return renamed


def _scalar(value: Any, kind: Any) -> Any:
    if kind is float and type(value) is int and abs(value) <= _WIDEST:
        return float(value)
    if type(value) is not kind or (kind is int and abs(value) > _WIDEST):
        raise TypeError(f"{brief(value)}, where a {_WORDS[kind]} belongs")
    return value


def _own(value: Any, kind: Any) -> Any:
    """Rebuild a record that reads its own data: a `Site`, a table."""
    if not isinstance(value, dict):
        raise TypeError(f"{brief(value)}, where a mapping belongs")
    return kind.from_dict(value)


def _array(value: Any, kind: Any) -> Any:
    if not isinstance(value, list):
        raise TypeError(f"{brief(value)}, where a list of numbers belongs")
    dtype = next(one for one in (np.bool_, np.int64, np.float64) if np.dtype(one).name in kind.dtypes)
    found = np.array(value)
    if not found.size:
        return np.zeros([int(each) if each.isdigit() else 0 for each in kind.dim_str.split()], dtype)
    if found.dtype.kind not in {"b": "b", "i": "i", "f": "if"}[np.dtype(dtype).kind]:
        raise TypeError(f"{brief(value)}, where numbers of type {np.dtype(dtype).name} belong")
    return found.astype(dtype)


def _sequence(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    kinds = get_args(kind)
    endless = kinds[-1] is Ellipsis

    def read(value: Any, _: Any) -> Any:
        from cattrs import IterableValidationError  # noqa: PLC0415
        from cattrs.errors import IterableValidationNote  # noqa: PLC0415

        if not isinstance(value, (list, tuple)) or (not endless and len(value) != len(kinds)):
            raise TypeError(f"{brief(value)}, where a list{'' if endless else f' of {len(kinds)}'} belongs")
        found = []
        for number, one in enumerate(value):
            wanted = kinds[0 if endless else number]
            try:
                found.append(converter.structure(one, wanted))
            except Exception as error:
                error.add_note(IterableValidationNote("", number, wanted))
                raise IterableValidationError("", [error], kind) from error
        return tuple(found)

    return read


def _mapping(kind: Any, converter: Any) -> Callable[[Any, Any], Any]:
    key, item = get_args(kind)

    def read(value: Any, _: Any) -> Any:
        if not isinstance(value, Mapping):
            raise TypeError(f"{brief(value)}, where a mapping belongs")
        return {key(name): converter.structure(one, item) for name, one in value.items()}  # JSON's keys are texts

    return read


def table(rows: Sequence[tuple[str, ...]], most: int = 40) -> str:
    """Return rows of text, the heads first, as an HTML table of `most` rows at most, everything escaped."""
    heads, *body = rows
    head = "".join(f"<th>{escaped(cell)}</th>" for cell in heads)
    lines = "".join(f"<tr>{''.join(f'<td>{escaped(cell)}</td>' for cell in row)}</tr>" for row in body[:most])
    more = f"<p>{len(body) - most:,} more rows: .to_frame() has all.</p>" if len(body) > most else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>{more}"


def _cell(value: Any) -> str:
    """Write one value of a table shortly; nothing where there is none."""
    if isinstance(value, float):
        small = 0 < abs(value) < 0.001
        return "" if math.isnan(value) else f"{value:.1e}" if small else f"{value:.3f}"
    return "" if value is None or str(value) == "<NA>" else str(value)


def reproducible(name: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function write into its result's `command` the call that gives it again: its bound arguments.

    Arguments at their default, and those that move no number (`progress`, `workers`, where files go), are
    left out. Whatever has a `command` is written as that: a model, a store, a result. What can't be written
    in a line (codes in memory, arrays, functions) stands as the parameter's name.

    Args:
        name: how the function is called, such as `plm.predictions.clusters`.

    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        signature, checked = inspect.signature(function), public(function)

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            made: R = _with_command(checked(*args, **kwargs), _call(name, signature.bind(*args, **kwargs)))
            return made

        return call

    return decorate


def _with_command(result: Any, command: str) -> Any:
    if isinstance(result, dict):
        return {key: _with_command(one, f"{command}[{key!r}]") for key, one in result.items()}
    return replace(result, command=command)


def _call(name: str, bound: inspect.BoundArguments) -> str:
    """Write a call as Python would be told it."""
    parts: list[str] = []
    positional = True
    for parameter, value in bound.arguments.items():
        about = bound.signature.parameters[parameter]
        if about.kind is about.VAR_KEYWORD:
            parts += [f"{each}={_written(one) or each}" for each, one in value.items()]
            continue
        same = type(value) is type(about.default) and value == about.default
        positional &= about.kind is about.POSITIONAL_OR_KEYWORD and not same
        if not same and parameter not in _ASIDE:
            written = _written(value) or parameter
            parts.append(written if positional and not parts[1:2] else f"{parameter}={written}")
    return f"{name}({', '.join(parts)})"


def _written(value: Any) -> str | None:
    """Write an argument as Python reads it; None for what can't be written in a line."""
    if isinstance(value, np.generic):
        value = value.item()
    text: str | None = None
    if value is None or isinstance(value, (bool, int, float, str, range)):
        text = repr(value)
    elif isinstance(value, Path):
        text = repr(str(value))
    elif isinstance(value, (list, tuple)):
        parts = [_written(one) for one in value]
        text = None if None in parts else f"[{', '.join(map(str, parts))}]"
    elif str(getattr(value, "command", "")).startswith("plm."):
        return str(value.command)
    return text if text is not None and len(text) <= _LONGEST else None


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of what computes a result, this package first."""
    return {"python": platform.python_version(), **{name: version(name) for name in ("polytope-lm", *packages)}}
