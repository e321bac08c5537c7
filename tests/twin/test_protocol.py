"""The protocol page says what the source says, and its examples run."""

import importlib.util
import re
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import msgspec
import numpy as np
import pytest
import zmq

from hal import wire
from hal.record import Array, Float, record
from twin.bus import ZmqBus

ROOT = Path(__file__).parents[2]


def load(name):
    spec = importlib.util.spec_from_file_location(f"tools.{name}", ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


protocol = load("protocol")
PAGE = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")


def test_the_committed_page_is_what_the_source_says():
    assert PAGE == protocol.page(), "run: python -m tools.protocol"


def section(title):
    return re.search(rf"^### `?{title}`?\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL).group(1)


@pytest.mark.parametrize("name", list(protocol.records()))
def test_every_field_of_every_record_is_there_with_its_type(name):
    cls = protocol.records()[name]
    listed = dict(re.findall(r"^\| `(\w+)` \| (.+?) \| ", section(name), re.MULTILINE))
    assert list(listed) == [field.name for field in fields(cls)]
    for field in fields(cls):
        axes = re.search(r'\[Array, "(.*?)"\]', str(field.type))
        if axes:  # independent of hal.wire: the annotation's own text
            kind = str(field.type).partition("[")[0].lower()
            assert listed[field.name].startswith(f"{kind} array `[{axes.group(1).strip()}]`")


def test_every_document_is_there_with_its_keys():
    for cls in (*protocol.DOCUMENTS[1:], *protocol.ANSWERS):
        tag = cls.__struct_config__.tag or cls.__name__
        listed = re.findall(r"^\| `(\w+)` \| .+? \| (.*?) \|$", section(tag), re.MULTILINE)
        common = protocol.bus.Document.__struct_fields__ if issubclass(cls, protocol.bus.Document) else ()
        names = [name for name in cls.__struct_fields__ if name not in common]
        assert [name for name, _ in listed] == names
        assert all(meaning for _, meaning in listed)


def test_every_link_has_its_heading():
    headings = {
        re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", PAGE, re.M)
    }
    assert set(re.findall(r"\]\(#(.*?)\)", PAGE)) <= headings
    assert {name for _, name, _ in protocol.TOPICS} <= set(protocol.records())


def test_comments_are_read_where_they_stand():
    @record
    class Odd:
        plain: int
        text: str = "# not a comment"  # but this is
        wrapped: (
            Float[Array, " k"] | None  # inside the brackets
        ) = None
        # a heading, of no field
        last: int = 0  # the last

    said = protocol.comments(Odd)
    assert said == {"text": "but this is", "wrapped": "inside the brackets", "last": "the last"}
    assert [f.name for f in fields(Odd)] == ["plain", "text", "wrapped", "last"]


def test_the_check_switch_compares_and_writes_nothing(monkeypatch, tmp_path, capsys):
    assert protocol.main(["--check"]) == 0
    other = tmp_path / "protocol.md"
    other.write_text("old")
    monkeypatch.setattr(protocol, "PAGE", other)
    assert protocol.main(["--check"]) == 1
    assert "run python -m tools.protocol" in capsys.readouterr().out
    assert other.read_text() == "old"
    assert protocol.main([]) == 0
    assert other.read_text() == PAGE


@record
class Sample:
    level_db: float
    gain: Float[Array, "user 2"]


def test_the_python_example_runs_against_a_bus():
    (code,) = re.findall(r"```python\n(import msgpack.*?)```", PAGE, re.DOTALL)
    with ZmqBus("r", "tcp://127.0.0.1:0") as bus:
        code = code.replace("tcp://127.0.0.1:5570", bus.state)
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as listener:
            end, poller = time.monotonic() + 30, zmq.Poller()
            while not bus.wanted("bs0.kpi."):
                assert time.monotonic() < end
                bus.service()
                poller.poll(1)
            for k in range(3):
                bus.publish("bs0.kpi.", Sample(level_db=1.0, gain=np.ones((k, 2))), 1000 * k)
            bus.close()
            lines = listener.communicate(timeout=30)[0].splitlines()
    assert lines == [f"bs0.kpi. {1000 * k} 0 ['gain', 'level_db']" for k in range(3)]


def test_the_example_decodes_what_the_wire_encodes():
    (code,) = re.findall(r"(def arrays.*?)\n\n\n", PAGE, re.DOTALL)
    scope = {"np": np}
    exec(code, scope)
    got = scope["arrays"](msgspec.msgpack.decode(wire.encode(Sample(level_db=1.0, gain=np.arange(6.0).reshape(3, 2)))))
    np.testing.assert_array_equal(got["gain"], np.arange(6.0).reshape(3, 2))
