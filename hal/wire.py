"""Record <-> bytes: MessagePack that any MessagePack library reads, checked against the record's own annotations.

A record is a map from field name to value. Scalars, strings, None and lists are MessagePack's own. An array is the
triple ``[dtype, shape, bytes]``: ``dtype`` is one letter (``b`` bool, ``i`` integer, ``f`` float, ``c`` complex) with
the bytes an entry takes (``"f8"``, ``"c16"``); ``bytes`` is the array in C order, little-endian, a complex entry as its
real part followed by its imaginary part. The type to read is an argument, never a part of the message: nothing on the
wire can choose what is built, and there is no pickle.

Within one major version a reader ignores fields it does not know, and a field that is missing takes its default if it
has one; so a minor version may only add fields with defaults. A field that is None by default travels only when it is
something else: adding one changes no byte of the records that leave it out, nor a run's hash.
"""

from __future__ import annotations

import contextlib
import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, cast

import msgspec
import numpy as np

from hal.errors import Misuse, RemoteFault

__all__ = ["LIMIT_BYTES", "VERSION", "decode", "encode", "schema"]

VERSION = (1, 0)  # major, minor: another major is refused, another minor is read
LIMIT_BYTES = 256 * 1024 * 1024  # of one message
AGREED = 256  # a record's plan remembers this many sets of shapes

T = TypeVar("T")

_LETTER = {
    **{f"int{8 * n}": f"i{n}" for n in (1, 2, 4, 8)},
    **{f"uint{8 * n}": f"u{n}" for n in (1, 2, 4, 8)},
    **{f"float{8 * n}": f"f{n}" for n in (2, 4, 8)},
    **{f"complex{8 * n}": f"c{n}" for n in (8, 16)},
    "bool": "b1",
}
_DTYPE = {letter: np.dtype("?" if letter == "b1" else f"<{letter}") for letter in _LETTER.values()}
_ArrayOnWire = tuple[str, tuple[int, ...], bytes]


class _FlawError(Exception):
    """What is wrong, and the path to it, built from the inside out."""

    def __init__(self, text: str, path: str = "") -> None:
        self.text = text
        self.path = path

    def under(self, name: str) -> _FlawError:
        return _FlawError(self.text, f"{name}{self.path}")


@dataclass(frozen=True)
class _Plan:
    """How one annotation travels: the type msgspec checks, the way there and the way back."""

    wire: Any
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]
    axes: tuple[str, ...] | None = None  # of an array; None for anything else
    add: Callable[[Any, list[Any]], None] | None = None  # of what holds records: append what its bytes are joined from


def encode(record: object, as_type: Any = None) -> bytes:
    """Return the bytes of ``record``; ``as_type`` is needed only where ``type(record)`` does not say it all (a list).

    Raises Misuse, naming the path, where a value is not what its annotation says.
    """
    kind: Any = type(record) if as_type is None else as_type
    plan = _plan(kind)
    try:
        if plan.add is not None:
            with contextlib.suppress(_FlawError, TypeError, ValueError, OverflowError):  # said below, with its path
                pieces: list[Any] = []
                plan.add(record, pieces)
                return b"".join(pieces)
        return _ENCODER.encode(plan.pack(record))
    except _FlawError as flaw:
        raise Misuse(f"{_name(kind)}{flaw.path}: {flaw.text}") from None
    except UnicodeEncodeError as error:
        raise Misuse(f"{_name(kind)}: text that has no UTF-8: {error.reason}") from None


def decode(data: bytes | memoryview, as_type: type[T] | Any, limit_bytes: int = LIMIT_BYTES) -> T:
    """Return the ``as_type`` that ``data`` holds, its arrays read-only.

    Raises RemoteFault, naming the path: not MessagePack, longer than ``limit_bytes``, a field missing or of another
    type, a dtype this field does not take, a wrong number of axes, bytes that do not fill the shape, or one axis with
    two lengths in one record.
    """
    if not len(data) <= limit_bytes:
        raise RemoteFault(f"{_name(as_type)}: a message of {len(data)} bytes; the limit is {limit_bytes}")
    kind: Any = as_type
    try:
        return cast(T, _plan(kind).unpack(_decoder(kind).decode(data)))
    except _FlawError as flaw:
        raise RemoteFault(f"{_name(as_type)}{flaw.path}: {flaw.text}") from None
    except msgspec.DecodeError as error:  # ValidationError is one: it names the path as `$.field`
        text, _, where = str(error).partition(" - at ")
        raise RemoteFault(f"{_name(as_type)}{where.strip('`').removeprefix('$')}: {text}") from None
    except UnicodeDecodeError as error:
        raise RemoteFault(f"{_name(as_type)}: text that is not UTF-8: {error.reason}") from None
    except RecursionError:
        raise RemoteFault(f"{_name(as_type)}: nested too deeply") from None


def schema(as_type: Any) -> dict[str, Any]:
    """Return a JSON-Schema-like description of ``as_type`` from its annotations; nested records stand under ``$defs``.

    An array is ``{"type": "array", "dtype": [...], "axes": [...]}``: the dtypes it may have on the wire, and the name
    (or the fixed length) of each axis. A field's ``description`` is the comment beside it in the source, if any.
    """
    known: dict[str, Any] = {}
    top = _describe(as_type, known)
    if not (is_dataclass(as_type) and isinstance(as_type, type)):
        return {**top, "$defs": known}
    own = known.pop(as_type.__name__)
    return {**own, "$defs": known} if known else own


# ---------------------------------------------------------------------------------------------------------------- plans

_ENCODER = msgspec.msgpack.Encoder()


@cache
def _decoder(as_type: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(_plan(as_type).wire)


@cache
def _plan(tp: Any) -> _Plan:
    """The plan of one annotation; built once a type."""
    if tp is None or tp is type(None):
        return _Plan(None, _keep, _keep)
    if tp in _SCALARS:
        return _SCALARS[tp]
    if hasattr(tp, "dim_str"):
        return _array_plan(tp)
    if is_dataclass(tp) and isinstance(tp, type):
        return _record_plan(tp)
    origin, arguments = typing.get_origin(tp), typing.get_args(tp)
    if origin is typing.Annotated:
        return _plan(arguments[0])
    if origin in (typing.Union, types.UnionType) and len(arguments) == 2 and type(None) in arguments:
        inner = _plan(arguments[0] if arguments[1] is type(None) else arguments[1])
        return _Plan(
            inner.wire | None,
            lambda value: None if value is None else inner.pack(value),
            lambda value: None if value is None else inner.unpack(value),
            inner.axes,
            inner.add,
        )
    if origin is typing.Literal and all(isinstance(word, str) for word in arguments):
        return _Plan(tp, _one_of(arguments), _keep)
    if origin in (list, Sequence) or (origin is tuple and len(arguments) == 2 and arguments[1] is Ellipsis):
        return _sequence_plan(_plan(arguments[0]), tuple if origin is tuple else list)
    if origin is tuple:
        return _tuple_plan([_plan(argument) for argument in arguments])
    if origin is dict and arguments[0] is str:
        return _map_plan(_plan(arguments[1]))
    takes = "scalars, str, words to choose from, arrays, records, lists, tuples and maps from str"
    raise Misuse(f"{_name(tp)}: this type does not travel; records hold {takes}")


def _keep(value: Any) -> Any:
    return value


def _integer(value: Any) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        whole = operator.index(value)
    except TypeError:
        raise _FlawError(f"{value!r} is not an integer") from None
    if not -(2**63) <= whole < 2**64:
        raise _FlawError(f"{whole} does not fit 64 bits")
    return whole


def _real(value: Any) -> float:
    if isinstance(value, (float, int, np.floating, np.integer)) and not isinstance(value, bool):
        return float(value)
    raise _FlawError(f"{value!r} is not a number")


def _exactly(kind: type, *also: type) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if isinstance(value, (kind, *also)):
            return kind(value)
        raise _FlawError(f"{value!r} is not {kind.__name__}")

    return check


def _one_of(words: tuple[str, ...]) -> Callable[[Any], Any]:
    def check(value: Any) -> Any:
        if value in words:
            return value
        raise _FlawError(f"{value!r} is not one of {', '.join(words)}")

    return check


_SCALARS: dict[Any, _Plan] = {
    int: _Plan(int, _integer, _keep),
    float: _Plan(float, _real, _keep),
    bool: _Plan(bool, _exactly(bool, np.bool_), _keep),
    str: _Plan(str, _exactly(str), _keep),
    bytes: _Plan(bytes, _exactly(bytes), _keep),
}
_PLAIN = (int, float, bool)  # of exactly these types a number travels as it is


def _array_plan(tp: Any) -> _Plan:
    letters = {_LETTER[name] for name in tp.dtypes if name in _LETTER}
    little = {letter: _DTYPE[letter] for letter in letters}
    letter_of = {dtype: letter for letter, dtype in little.items()}
    letter_of |= {dtype.newbyteorder(">"): letter for letter, dtype in little.items()}
    sizes = {letter: _DTYPE[letter].itemsize for letter in letters}
    axes = tuple(tp.dim_str.split())
    rank = len(axes)
    takes = ", ".join(sorted(letters))
    ndarray = np.ndarray

    def pack(value: Any) -> tuple[str, tuple[int, ...], bytes | memoryview]:
        if not isinstance(value, np.ndarray):
            raise _FlawError(f"a {type(value).__name__}, must be a NumPy array [{' '.join(axes)}]")
        letter = letter_of.get(value.dtype)
        if letter is None:
            raise _FlawError(f"has dtype {value.dtype}, must be one of {takes}")
        if value.ndim != rank:
            raise _FlawError(f"has shape {value.shape}, must have the {rank} axes [{' '.join(axes)}]")
        if value.dtype is not little[letter] and value.dtype != little[letter]:
            value = value.astype(little[letter])
        if not value.size or not value.flags.c_contiguous:
            return letter, value.shape, value.tobytes()
        return letter, value.shape, value.data  # no copy: the encoder reads it in place

    fits: dict[tuple[str, tuple[int, ...], int], Any] = {}  # dtypes of what was found to be right

    def unpack(value: _ArrayOnWire) -> Any:
        letter, shape, data = value
        dtype = fits.get((letter, shape, len(data)))
        if dtype is None:
            dtype = little.get(letter)
            if dtype is None:
                raise _FlawError(f"has dtype {letter!r}, must be one of {takes}")
            if len(shape) != rank:
                raise _FlawError(f"has shape {list(shape)}, must have the {rank} axes [{' '.join(axes)}]")
            if math.prod(shape) * sizes[letter] != len(data) or (rank and min(shape) < 0):
                raise _FlawError(f"{len(data)} bytes do not fill the shape {list(shape)} of {letter}")
            if len(fits) < AGREED:
                fits[letter, shape, len(data)] = dtype
        return ndarray(shape, dtype, data)  # of bytes, so read-only

    return _Plan(_ArrayOnWire, pack, unpack, axes)


def _record_plan(cls: Any) -> _Plan:
    hints = typing.get_type_hints(cls, include_extras=True)
    parts = [(f.name, _plan(hints[f.name])) for f in fields(cls)]
    optional = {f.name for f in fields(cls) if f.default is not MISSING or f.default_factory is not MISSING}
    silent = {f.name for f in fields(cls) if f.default is None}
    struct: Any = msgspec.defstruct(
        cls.__name__,
        [
            (name, plan.wire | msgspec.UnsetType, msgspec.UNSET) if name in optional else (name, plan.wire)
            for name, plan in sorted(parts, key=lambda part: part[0] in optional)
        ],
        gc=False,
    )
    axes = [(name, plan.axes) for name, plan in parts if plan.axes is not None]
    agreed: set[tuple[Any, ...]] = set()  # shapes that were found to fit each other

    def agree(record: Any) -> None:
        shapes = tuple([getattr(getattr(record, name), "shape", None) for name, _ in axes])
        if shapes not in agreed:
            _agree(axes, record)
            if len(agreed) < AGREED:
                agreed.add(shapes)

    def pack(record: Any) -> Any:
        if not isinstance(record, cls):
            raise _FlawError(f"a {type(record).__name__}, must be a {cls.__name__}")
        made = {}
        for name, plan in parts:
            if name in silent and getattr(record, name) is None:
                continue
            try:
                made[name] = plan.pack(getattr(record, name))
            except _FlawError as flaw:
                raise flaw.under(f".{name}") from None
        agree(record)
        return made

    def unpack(wire: Any) -> Any:
        made = {}
        for name, plan in parts:
            value = getattr(wire, name)
            if value is msgspec.UNSET:
                continue
            try:
                made[name] = plan.unpack(value)
            except _FlawError as flaw:
                raise flaw.under(f".{name}") from None
        record = cls(**made)
        agree(record)
        return record

    return _Plan(struct, pack, unpack, add=_adder(cls, parts, silent, pack))


def _adder(
    cls: Any, parts: list[tuple[str, _Plan]], silent: set[str], pack: Callable[[Any], Any]
) -> Callable[[Any, list[Any]], None]:
    """What a record's bytes are joined from, by a form made once for each set of dtypes, shapes and types that its values have.

    Arrays go in as they are and are read in place; everything that does not change from record to record is bytes already.
    """
    names = [name for name, _ in parts]
    fetch: Callable[[Any], tuple[Any, ...]] = (
        operator.attrgetter(*names) if len(names) > 1 else lambda record: tuple([getattr(record, n) for n in names])
    )
    forms: dict[tuple[Any, ...], list[tuple[Any, int, Any]]] = {}
    ndarray = np.ndarray

    def add(record: Any, pieces: list[Any]) -> None:
        if record.__class__ is not cls:
            raise TypeError
        values = fetch(record)
        key = tuple([(v.dtype, v.shape) if v.__class__ is ndarray else v.__class__ for v in values])
        form = forms.get(key)
        if form is None:
            pack(record)  # raises what is wrong with it
            form = made(values)
            if len(forms) < AGREED:
                forms[key] = form
        for head, k, rest in form:
            if rest is None:
                pieces += (head, values[k])
            elif rest.__class__ is int:
                pieces.append(_ENCODER.encode(dict(zip(head, values[k:rest], strict=True)))[1:])
            else:
                pieces.append(head)
                rest(values[k], pieces)

    def made(values: tuple[Any, ...]) -> list[tuple[Any, int, Any]]:
        """Steps: (head, k, None) an array after its head; (names, first, last) plain numbers; (head, k, what adds the rest)."""
        here = [k for k, value in enumerate(values) if not (value is None and names[k] in silent)]
        form: list[tuple[Any, int, Any]] = []
        head = _map_head(len(here))
        for k in here:
            (name, plan), value = parts[k], values[k]
            if value.__class__ in _PLAIN and _SCALARS[value.__class__] is plan:
                if form and form[-1][2] == k and k - form[-1][1] < 15:
                    form[-1] = ((*form[-1][0], name), form[-1][1], k + 1)
                else:
                    if head:
                        form.append((head, k, _nothing))
                    form.append(((name,), k, k + 1))
                head = b""
                continue
            head += _ENCODER.encode(name)
            if isinstance(value, np.ndarray) and value.dtype.isnative:
                packed = _ENCODER.encode(plan.pack(value))
                form.append((head + packed[: len(packed) - value.nbytes], k, None))
            elif plan.add is not None and value is not None:
                form.append((head, k, plan.add))
            else:
                form.append((head, k, _adding(plan.pack)))
            head = b""
        return form if here else [(head, 0, _nothing)]

    return add


def _map_head(entries: int) -> bytes:
    return bytes([0x80 | entries]) if entries < 16 else b"\xde" + entries.to_bytes(2, "big")


def _list_head(entries: int) -> bytes:
    return bytes([0x90 | entries]) if entries < 16 else b"\xdc" + entries.to_bytes(2, "big")


def _nothing(value: Any, pieces: list[Any]) -> None:
    """Nothing follows."""


def _adding(pack: Callable[[Any], Any]) -> Callable[[Any, list[Any]], None]:
    def add(value: Any, pieces: list[Any]) -> None:
        pieces.append(_ENCODER.encode(pack(value)))

    return add


def _agree(axes: list[tuple[str, tuple[str, ...]]], record: Any) -> None:
    """Raise if one axis name has two lengths in ``record``, or a numbered axis has another length than its number."""
    seen: dict[str, tuple[int, str]] = {}
    for name, names in axes:
        value = getattr(record, name)
        if value is None:
            continue
        for axis, length in zip(names, value.shape, strict=True):
            if axis.isdigit():
                want, where = int(axis), "the record's definition"
            else:
                want, where = seen.setdefault(axis, (length, name))
            if want != length:
                raise _FlawError(
                    f"has shape {value.shape} over [{' '.join(names)}]: {axis} is {length} here and {want} in {where}",
                    f".{name}",
                )


def _walk(steps: Iterable[tuple[str, Callable[[Any], Any], Any]]) -> list[Any]:
    """Apply each step to its value; a flaw is told with the place it was found at."""
    made = []
    for where, step, value in steps:
        try:
            made.append(step(value))
        except _FlawError as flaw:
            raise flaw.under(where) from None
    return made


def _sequence_plan(inner: _Plan, kind: type) -> _Plan:
    def over(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(values: Any) -> Any:
            if not isinstance(values, (list, tuple)):
                raise _FlawError(f"a {type(values).__name__}, must be a list")
            return kind(_walk((f"[{k}]", step, value) for k, value in enumerate(values)))

        return run

    return _Plan(types.GenericAlias(list, (inner.wire,)), over(inner.pack), over(inner.unpack))


def _tuple_plan(inner: list[_Plan]) -> _Plan:
    def over(steps: list[Callable[[Any], Any]]) -> Callable[[Any], Any]:
        def run(values: Any) -> Any:
            if not isinstance(values, (list, tuple)) or len(values) != len(steps):
                raise _FlawError(f"must be a tuple of {len(steps)}")
            pairs = zip(steps, values, strict=True)
            return tuple(_walk((f"[{k}]", step, value) for k, (step, value) in enumerate(pairs)))

        return run

    head, adders = _list_head(len(inner)), [plan.add or _adding(plan.pack) for plan in inner]

    def add(values: Any, pieces: list[Any]) -> None:
        pieces.append(head)
        for step, value in zip(adders, values, strict=True):
            step(value, pieces)

    wire = types.GenericAlias(tuple, tuple(plan.wire for plan in inner))
    packs, unpacks = ([getattr(plan, way) for plan in inner] for way in ("pack", "unpack"))
    records = any(plan.add for plan in inner)
    return _Plan(wire, over(packs), over(unpacks), add=add if records else None)


def _map_plan(inner: _Plan) -> _Plan:
    def over(step: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def run(values: Any) -> Any:
            if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
                raise _FlawError("must be a map from str")
            made = _walk((f"[{key!r}]", step, value) for key, value in values.items())
            return dict(zip(values, made, strict=True))

        return run

    return _Plan(types.GenericAlias(dict, (str, inner.wire)), over(inner.pack), over(inner.unpack))


# --------------------------------------------------------------------------------------------------------- description


def _name(tp: Any) -> str:
    return tp.__name__ if isinstance(tp, type) else str(tp).replace("typing.", "")


def _describe(tp: Any, known: dict[str, Any]) -> dict[str, Any]:
    simple = {
        int: "integer",
        float: "number",
        bool: "boolean",
        str: "string",
        bytes: "binary",
        type(None): "null",
        None: "null",
    }
    if tp in simple:
        return {"type": simple[tp]}
    if hasattr(tp, "dim_str"):
        axes = [int(axis) if axis.isdigit() else axis for axis in tp.dim_str.split()]
        return {"type": "array", "dtype": sorted(_LETTER[name] for name in tp.dtypes if name in _LETTER), "axes": axes}
    if is_dataclass(tp) and isinstance(tp, type):
        if tp.__name__ not in known:
            known[tp.__name__] = {}  # a placeholder: a record may hold itself
            known[tp.__name__] = _describe_record(tp, known)
        return {"$ref": f"#/$defs/{tp.__name__}"}
    origin, arguments = typing.get_origin(tp), typing.get_args(tp)
    if origin is typing.Annotated:
        return _describe(arguments[0], known)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_describe(argument, known) for argument in arguments]}
    if origin is tuple and Ellipsis not in arguments:
        return {"type": "array", "prefixItems": [_describe(argument, known) for argument in arguments]}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": _describe(arguments[0], known)}
    if origin is typing.Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _describe(arguments[1], known)}
    _plan(tp)  # raises: this type does not travel
    raise AssertionError(tp)


@cache
def _comments(cls: Any) -> dict[str, str]:
    """Beside each field in the source; a class's source is found by parsing its whole module."""
    try:
        return dict(re.findall(r"^    (\w+): [^\n]*?  # ([^\n]+)$", inspect.getsource(cls), re.MULTILINE))
    except OSError:  # source not shipped: the description alone is lost
        return {}


def _describe_record(cls: Any, known: dict[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    beside = _comments(cls)
    properties, required = {}, []
    for f in fields(cls):
        properties[f.name] = _describe(hints[f.name], known)
        if f.name in beside:
            properties[f.name]["description"] = beside[f.name]
        if f.default is MISSING and f.default_factory is MISSING:
            required.append(f.name)
        elif f.default is not MISSING:
            properties[f.name]["default"] = f.default
    text = (inspect.getdoc(cls) or "").partition("\n")[0]
    return {
        "title": cls.__name__,
        "description": text,
        "type": "object",
        "properties": properties,
        "required": required,
    }
