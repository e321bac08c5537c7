"""The wire: what is read back is what was sent, any MessagePack library reads it, and nonsense is told by its path."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import fields, replace
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hal.array import AntennaArray
from hal.errors import Misuse, RemoteFault
from hal.frontend import Beam, BeamReport, Drive, Emission, FrontendSpec, HalfSpec, Incident, Reception
from hal.medium import Paths
from hal.network import NetworkSpec
from hal.record import Array, Complex, Float, record
from hal.wire import decode, encode, schema

RNG = np.random.default_rng(7)


def complex_of(*shape: int) -> Any:
    return RNG.normal(size=shape) + 1j * RNG.normal(size=shape)


def beam(half: str = "transmit", slots: int = 2, chains: int = 1, elements: int = 8, lines: int = 2) -> Beam:
    return Beam(
        half=half,
        slot=np.arange(slots),
        delay_s=RNG.uniform(0, 1e-10, (slots, chains, lines)),
        phase_rad=RNG.uniform(-3, 3, (slots, chains, elements)),
        amplitude=RNG.uniform(0, 1, (slots, chains, elements)),
    )


def half(chains: int = 1, elements: int = 8, lines: int = 2) -> HalfSpec:
    return HalfSpec(
        array=AntennaArray(
            position_m=RNG.normal(size=(elements, 3)),
            columns=0,
            rows=0,
            spacing_m=0.0,
            rotation=np.eye(3),
            origin_m=np.zeros(3),
            element_gain_dbi=0.0,
            element_exponent=0.0,
        ),
        network=NetworkSpec(
            wired=np.ones((chains, elements), bool),
            line=np.arange(elements) % lines,
            lines=lines,
            delay_bits=4,
            delay_range_s=1e-10,
            phase_bits=6,
            amplitude_bits=0,
            loss_db=0.0,
        ),
        memory_slots=8,
    )


def nameplate() -> FrontendSpec:
    return FrontendSpec(
        name="Prüfling",
        carrier_hz=100e9,
        transmit=half(),
        receive=half(chains=2),
        transmit_power_w=1.0,
        noise_figure_db=10.0,
        isolation_db=math.inf,
        command_latency_ns=1000,
        bus_ns_per_element=2,
        settling_ns=3,
        select_ns=4,
        simulated=True,
    )


def drive(samples: bool) -> Drive:
    return Drive(
        t_ns=np.array([5, 2**62]),
        slot=np.array([0, 1]),
        frequency_hz=np.array([1e11, 1.01e11, 1.02e11]),
        power_w=RNG.uniform(size=(2, 3)),
        digital=complex_of(2, 1, 1),
        samples=complex_of(2, 1, 16) if samples else None,
        sample_rate_hz=64e6,
    )


def pair() -> tuple[Emission, Paths]:
    emission = Emission(
        source=np.array([-1, -1]), drive=drive(True), row=np.array([0, 0]), response=complex_of(1, 3, 8, 1)
    )
    paths = Paths(
        carrier_hz=1e11,
        t_ns=np.array([0, 10]),
        source=np.array([-1]),
        sink=np.array([4]),
        gain=complex_of(2, 1).astype(np.complex64),
        delay_s=np.array([1e-7]),
        doppler_hz=np.array([-3.0]),
        departure_m=RNG.normal(size=(1, 3)),
        arrival_m=RNG.normal(size=(1, 3)),
    )
    return emission, paths


def same(a: Any, b: Any) -> bool:
    """Field by field, bit by bit: written apart from ``encode``, so that a lossy encoder is seen."""
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    if hasattr(a, "__dataclass_fields__"):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return type(a) is type(b) and (a == b or (a != a and b != b))


@pytest.mark.parametrize(
    "thing", [beam(), nameplate(), drive(True), drive(False), pair()[0], pair()[1]], ids=lambda t: type(t).__name__
)
def test_what_is_read_is_what_was_sent(thing: Any) -> None:
    back: Any = decode(encode(thing), type(thing))
    assert same(thing, back)
    assert encode(back) == encode(thing)


def test_nested_records_none_and_lists() -> None:
    report = BeamReport(
        setpoint=beam(),
        readback=None,
        accepted_ns=-3,
        effective_ns=2**62,
        clipped=1,
        uncertainty_ns=0,
        fault="élément 3",
    )
    assert same(report, decode(encode(report), BeamReport))
    told = replace(report, readback=beam(half="receive"))
    assert same(told, decode(encode(told), BeamReport))
    incident = [pair(), pair()]
    assert same(incident, decode(encode(incident, Incident), Incident))
    assert same([1, 2], decode(encode([1, 2], list[int]), list[int]))
    assert decode(encode({"a": 1.0}, dict[str, float]), dict[str, float]) == {"a": 1.0}
    assert decode(encode([], Sequence[int]), Sequence[int]) == []


def test_arrays_read_back_cannot_be_written_and_are_aligned() -> None:
    back: Beam = decode(encode(beam()), Beam)
    assert not back.phase_rad.flags.writeable
    assert back.phase_rad.flags.aligned
    with pytest.raises(ValueError, match="read-only"):
        back.phase_rad[0] = 1


def test_any_messagepack_library_reads_it() -> None:
    """Decoded by hand with another library and struct-free arithmetic, as a client in another language would."""
    sent = pair()[0]
    told = msgpack.unpackb(encode(sent))
    assert sorted(told) == ["drive", "response", "row", "source"]
    dtype, shape, data = told["response"]
    assert (dtype, shape) == ("c16", [1, 3, 8, 1])
    pairs = np.frombuffer(data, "<f8").reshape(-1, 2)
    assert np.array_equal(pairs[:, 0] + 1j * pairs[:, 1], sent.response.ravel())
    dtype, shape, data = told["drive"]["t_ns"]
    assert (dtype, shape) == ("i8", [2])
    assert [int.from_bytes(data[8 * k : 8 * k + 8], "little", signed=True) for k in range(2)] == [5, 2**62]
    assert told["drive"]["sample_rate_hz"] == 64e6
    assert "samples" not in msgpack.unpackb(encode(drive(False)))  # what is optional and None stays at home
    wired = msgpack.unpackb(encode(half()))["network"]["wired"]
    assert wired == ["b1", [1, 8], b"\x01" * 8]


def test_order_and_byte_order_of_the_sender_do_not_show() -> None:
    plain = np.arange(12, dtype=float).reshape(1, 3, 4)
    sent = beam(slots=1, chains=3, elements=4)
    for other in (np.asfortranarray(plain), plain.astype(">f8"), plain[:, :, ::-1][:, :, ::-1]):
        assert encode(replace(sent, phase_rad=other)) == encode(replace(sent, phase_rad=plain))


@record
class Odd:
    """A record of the corners."""

    value: float  # any number
    count: int
    truth: bool
    field: Complex[Array, "row 2"]
    name: str = "none"
    level: Float[Array, " row"] | None = None


@given(
    value=st.floats(),
    count=st.integers(-(2**63), 2**64 - 1),
    name=st.text(),
    rows=st.integers(0, 4),
    bits=st.binary(min_size=128, max_size=128),
)
def test_every_bit_pattern_survives(value: float, count: int, name: str, rows: int, bits: bytes) -> None:
    """NaN payloads, minus zero, subnormals and empty axes included."""
    field = np.frombuffer(bits, np.complex128)[: 2 * rows].reshape(rows, 2)
    odd = Odd(
        value=value, count=count, truth=True, field=field, name=name, level=np.frombuffer(bits, np.float32)[:rows]
    )
    assert same(odd, decode(encode(odd), Odd))


def test_numpy_scalars_become_numbers() -> None:
    odd = Odd(value=np.float32(0.5), count=np.int64(3), truth=np.bool_(True), field=np.zeros((0, 2), complex))  # type: ignore[arg-type]
    back: Odd = decode(encode(odd), Odd)
    assert (back.value, back.count, back.truth) == (0.5, 3, True)


def told(**changes: Any) -> bytes:
    """An Odd as a foreign client would write it, with changes; a change to ... leaves the field out."""
    good = {"value": 1.0, "count": 2, "truth": False, "field": ["c16", [1, 2], b"\0" * 32]} | changes
    return bytes(msgpack.packb({k: v for k, v in good.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"field": ["f8", [2, 2], b"\0" * 32]}, r"Odd\.field: has dtype 'f8', must be one of c16, c8"),
        ({"field": ["O", [1, 2], b"\0" * 32]}, r"Odd\.field: has dtype 'O'"),
        ({"field": ["c16", [2], b"\0" * 32]}, r"Odd\.field: has shape \[2\], must have the 2 axes \[row 2\]"),
        ({"field": ["c16", [1, 2], b"\0" * 31]}, r"Odd\.field: 31 bytes do not fill the shape \[1, 2\] of c16"),
        ({"field": ["c16", [2**40, 2], b""]}, r"Odd\.field: 0 bytes do not fill"),
        ({"field": ["c16", [-1, -2], b"\0" * 32]}, r"Odd\.field: 32 bytes do not fill the shape \[-1, -2\]"),
        ({"field": ["c16", [2, 1], b"\0" * 32]}, r"Odd\.field: .*2 is 1 here and 2 in the record's definition"),
        ({"level": ["f8", [3], b"\0" * 24]}, r"Odd\.level: .*row is 3 here and 1 in field"),
        ({"field": ["c16", [1, 2], "text"]}, r"Odd\.field\[2\]: Expected `bytes`"),
        ({"field": [[1]]}, r"Odd\.field: Expected `array` of length 3"),
        ({"field": None}, r"Odd\.field: Expected `array`, got `None`"),
        ({"count": ...}, r"Odd: .*missing required field `count`"),
        ({"count": 1.5}, r"Odd\.count: Expected `int`, got `float`"),
        ({"truth": 1}, r"Odd\.truth: Expected `bool`, got `int`"),
        ({"value": "1.0"}, r"Odd\.value: Expected `float`, got `str`"),
        ({"name": 3}, r"Odd\.name: Expected `str"),
    ],
)
def test_nonsense_is_refused_by_its_path(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(RemoteFault, match=says):
        decode(told(**changes), Odd)


def test_a_nested_path_is_told_whole() -> None:
    report = BeamReport(setpoint=beam(), readback=beam(), accepted_ns=0, effective_ns=0, clipped=0, uncertainty_ns=0)
    tampered = msgpack.unpackb(encode(report))
    tampered["readback"]["slot"][0] = "f8"
    with pytest.raises(RemoteFault, match=r"^BeamReport\.readback\.slot: has dtype 'f8'"):
        decode(msgpack.packb(tampered), BeamReport)
    incident = msgpack.unpackb(encode([pair(), pair()], Incident))
    incident[1][0]["drive"]["power_w"][1] = [3]
    with pytest.raises(RemoteFault, match=r"\[1\]\[0\]\.drive\.power_w: has shape \[3\]"):
        decode(msgpack.packb(incident), Incident)


@given(st.binary(max_size=200))
def test_garbage_is_a_remote_fault_and_nothing_else(data: bytes) -> None:
    with pytest.raises(RemoteFault, match=r"^Odd"):
        decode(data, Odd)


@given(st.data())
def test_a_flipped_byte_is_read_or_refused_never_a_crash(data: st.DataObject) -> None:
    good = bytearray(told(level=["f8", [1], b"\0" * 8]))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] ^= data.draw(st.integers(1, 255))
    with suppress(RemoteFault):
        assert isinstance(decode(bytes(good), Odd), Odd)


def test_size_is_limited_before_anything_is_read() -> None:
    with pytest.raises(RemoteFault, match="a message of 101 bytes; the limit is 100"):
        decode(b"\0" * 101, Odd, limit_bytes=100)


def test_deep_nesting_is_refused() -> None:
    with pytest.raises(RemoteFault):
        decode(b"\x91" * 100_000, Odd)


def test_newer_and_older_minor_versions_are_read() -> None:
    """A field not known is ignored; a field with a default may be missing."""
    back: Odd = decode(told(later_hz=3.0), Odd)
    assert (back.name, back.level) == ("none", None)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"field": [[1, 2]]}, r"Odd\.field: a list, must be a NumPy array \[row 2\]"),
        ({"field": np.zeros((1, 2))}, r"Odd\.field: has dtype float64, must be one of c16, c8"),
        ({"field": np.zeros(2, complex)}, r"Odd\.field: has shape \(2,\), must have the 2 axes"),
        ({"field": np.zeros((1, 3), complex)}, r"Odd\.field: .*3 here and 2"),
        ({"level": np.zeros(3)}, r"Odd\.level: .*row is 3 here and 1 in field"),
        ({"count": 1.0}, r"Odd\.count: 1\.0 is not an integer"),
        ({"count": True}, r"Odd\.count: True is not an integer"),
        ({"count": 2**64}, r"Odd\.count: .* does not fit 64 bits"),
        ({"value": None}, r"Odd\.value: None is not a number"),
        ({"truth": 1}, r"Odd\.truth: 1 is not bool"),
    ],
)
def test_the_sender_s_own_mistake_is_misuse(changes: dict[str, Any], says: str) -> None:
    odd = replace(Odd(value=0.0, count=0, truth=True, field=np.zeros((1, 2), complex)), **changes)
    with pytest.raises(Misuse, match=says):
        encode(odd)


def test_a_type_that_cannot_travel_is_named() -> None:
    with pytest.raises(Misuse, match="object: this type does not travel"):
        encode(object())


def test_schema_names_field_dtype_and_axes() -> None:
    told = schema(Odd)
    assert told["title"] == "Odd"
    assert told["required"] == ["value", "count", "truth", "field"]
    assert told["properties"]["value"] == {"type": "number", "description": "any number"}
    assert told["properties"]["field"] == {"type": "array", "dtype": ["c16", "c8"], "axes": ["row", 2]}
    assert told["properties"]["level"]["anyOf"][1] == {"type": "null"}
    assert told["properties"]["name"]["default"] == "none"
    whole = schema(FrontendSpec)
    assert sorted(whole["$defs"]) == ["AntennaArray", "ElementPattern", "HalfSpec", "NetworkSpec"]
    assert whole["properties"]["transmit"] == {"$ref": "#/$defs/HalfSpec"}
    assert schema(Reception)["properties"]["samples"]["axes"] == ["event", "chain", "sample"]
    assert schema(Incident)["items"]["prefixItems"][1] == {"$ref": "#/$defs/Paths"}


@record
class Small:
    n: int
    x: Float[Array, " k"]


@record
class Wide:
    """More numbers in a row than one step of a form takes, and every kind of field between arrays."""

    a: int
    b: float
    c: bool
    d: int
    e: int
    f: int
    g: int
    h: int
    i: int
    j: int
    k: int
    l: int  # noqa: E741
    m: int
    n: int
    o: int
    p: int
    q: float
    array: Float[Array, "row column"]
    word: str
    small: Small
    maybe: Small | None
    point: Complex[Array, ""]
    many: tuple[Small, ...]
    flags: dict[str, float]
    silent: Float[Array, " row"] | None = None
    last: int = 0


def by_hand(value: Any) -> Any:
    """What a value is on the wire, from the definition in the module's own words."""
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"))
        return [f"{value.dtype.kind}{value.dtype.itemsize}", list(value.shape), little.tobytes(order="C")]
    if hasattr(value, "__dataclass_fields__"):
        told = {f.name: (getattr(value, f.name), f.default) for f in fields(value)}
        return {name: by_hand(v) for name, (v, default) in told.items() if not (v is None and default is None)}
    if isinstance(value, tuple):
        return [by_hand(entry) for entry in value]
    return value.item() if isinstance(value, np.generic) else value


@settings(max_examples=25)
@given(st.data())
def test_the_bytes_are_those_of_the_definition(data: st.DataObject) -> None:
    """Forms are made once and used again: records of changing shapes, layouts, byte orders and types, in any order."""
    whole, real = st.integers(-(2**63), 2**64 - 1), st.floats(width=64)
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def array(*shape: int) -> Any:
        made = rng.normal(size=shape)
        how = data.draw(st.sampled_from(["c", "fortran", "sliced", "big", "c"]))
        if how == "fortran":
            return np.asfortranarray(made)
        if how == "sliced":
            return np.repeat(made, 2, axis=0)[::2]
        return made.astype(">f8") if how == "big" else made

    def small() -> Small:
        return Small(n=data.draw(whole), x=array(data.draw(st.integers(0, 3))))

    for _ in range(3):
        rows = data.draw(st.integers(0, 20))
        numbers = {name: data.draw(whole) for name in "adefghijklmnop"}
        made = Wide(
            **numbers,
            b=data.draw(st.one_of(real, st.builds(np.float64, real))),
            c=data.draw(st.one_of(st.booleans(), st.builds(np.bool_, st.booleans()))),
            q=data.draw(real),
            array=array(rows, data.draw(st.integers(0, 300))),
            word=data.draw(st.text(st.characters(codec="utf-8"), max_size=40)),
            small=small(),
            maybe=(data.draw(st.booleans()) and small()) or None,
            point=np.array(1j),
            many=tuple(small() for _ in range(data.draw(st.integers(0, 2)))),
            flags={"x": 1.0},
            silent=data.draw(st.sampled_from([None, np.zeros(rows)])),
            last=data.draw(whole),
        )
        assert encode(made) == msgpack.packb(by_hand(made))
        pair = (made, data.draw(whole))
        assert encode(pair, tuple[Wide, int]) == msgpack.packb(by_hand(pair))


def test_what_a_known_form_does_not_cover_is_still_refused() -> None:
    """A form that fits says nothing of the numbers: those are looked at each time."""
    good = Small(n=1, x=np.zeros(2))
    for _ in range(2):
        assert encode(good)
        with pytest.raises(Misuse, match=r"Small\.n: 18446744073709551616 does not fit"):
            encode(replace(good, n=2**64))
        with pytest.raises(Misuse, match=r"Small\.n: True is not an integer"):
            encode(replace(good, n=True))
        with pytest.raises(Misuse, match=r"Small\.x: has dtype complex128"):
            encode(replace(good, x=np.zeros(2, complex)))
