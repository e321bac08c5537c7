"""Writes docs/protocol.md from the records and documents themselves: ``python -m tools.protocol``; ``--check`` only compares."""

from __future__ import annotations

import argparse
import importlib
import inspect
import re
import sys
import textwrap
import tokenize
from dataclasses import is_dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import msgspec

from hal import wire
from hal.session import PROTOCOL, Header
from twin import bus, desk

__all__ = ["MODULES", "TOPICS", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "protocol.md"

# Modules whose records travel: every record named in their ``__all__`` gets a section. Add a module here when it defines records of its own.
MODULES = ("twin.records", "twin.outside", "twin.kpi", "hal.frontend", "hal.medium", "hal.array", "hal.network")

# What is published and recorded under which topic; SITE is a site's name, as in ``bs0.kpi.``. Add a line when the loop says something new.
TOPICS = (
    ("truth.", "Truth", "each subframe: who is where; for monitors, never for controllers"),
    ("SITE.plan.", "Plan", "each subframe: the plan it was played by"),
    ("SITE.belief.", "Belief", "each subframe: what the control plane knows"),
    ("SITE.kpi.", "Kpi", "each subframe: key figures"),
    ("SITE.beam.transmit.", "BeamReport", "when beams were set: what the machine took, and from when"),
    ("SITE.beam.receive.", "BeamReport", "the same of the receive half"),
    ("SITE.memory.transmit.", "BeamReport", "once: the whole transmit memory, as it was in the first subframe"),
    (
        "SITE.echo.",
        "Reception",
        "each subframe, while somebody listens: chain outputs of the sensing dwells; recorded with record.echoes",
    ),
    ("SITE.change.", "Change", "when the run was changed while it went on: the scenario it goes by from there"),
    ("SITE.clock.", "Clock", "each subframe, while somebody listens: lag and wall time of every stage; never recorded"),
    ("SITE.invariants.", "Margins", "each subframe, while somebody listens: how near it came to what cannot be"),
    ("replay.", "Playing", "of a replay: where it stands (`twin replay`)"),
)

DOCUMENTS = (bus.Document, bus.Start, bus.Descriptor, bus.Event, bus.Heartbeat, bus.Stop)
ANSWERS = (bus.SnapshotRequest, bus.Snapshot, bus.Losses, desk.Status)


def comments(cls: type) -> dict[str, str]:
    """The ``#`` comment behind each field of a class, by field name; a comment that runs on over whole lines is joined."""
    source = textwrap.dedent(inspect.getsource(cls))
    found: dict[str, str] = {}
    field = ""
    line_of_field = depth = 0
    words: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(StringIO(source).readline):
        if token.type == tokenize.INDENT:
            depth += 1
        elif token.type == tokenize.DEDENT:
            depth -= 1
        elif token.type == tokenize.COMMENT:
            text = token.string.lstrip("# ")
            begins = len(words) > 1 and words[0].type == tokenize.NAME and words[1].string == ":"
            if begins and depth == 1:
                field, found[words[0].string] = words[0].string, text
                line_of_field = token.start[0]
            elif not words and field and token.start[0] == line_of_field + 1 and token.start[1] > 4:
                found[field] += " " + text
                line_of_field += 1
        if token.type == tokenize.NEWLINE:  # not NL, which also ends lines inside brackets
            words = []
        elif token.type not in (tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT, tokenize.NL):
            words.append(token)
    return found


def records() -> dict[str, type]:
    """The records of ``MODULES`` by name, in order."""
    made: dict[str, type] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        for public in module.__all__:
            cls = getattr(module, public)
            if isinstance(cls, type) and is_dataclass(cls) and cls.__module__ == name and hasattr(cls, "__slots__"):
                made[public] = cls
    return made


def _kind(schema: dict[str, Any], known: dict[str, type]) -> str:
    """One property of ``hal.wire.schema`` in words."""
    if "dtype" in schema:
        letters = {"b": "bool", "i": "int", "u": "int", "f": "float", "c": "complex"}
        kinds = dict.fromkeys(letters[dtype[0]] for dtype in schema["dtype"])
        return f"{' or '.join(kinds)} array `[{' '.join(map(str, schema['axes']))}]`"
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})" if name in known else name
    if "anyOf" in schema:
        return " or ".join("nil" if one.get("type") == "null" else _kind(one, known) for one in schema["anyOf"])
    if "items" in schema:
        return f"list of {_kind(schema['items'], known)}"
    if "prefixItems" in schema:
        return f"list ({', '.join(_kind(one, known) for one in schema['prefixItems'])})"
    if "additionalProperties" in schema:
        return f"map of {_kind(schema['additionalProperties'], known)}"
    words = {"integer": "int", "number": "float", "boolean": "bool", "string": "str", "binary": "bin", "null": "nil"}
    return words.get(schema["type"], str(schema["type"]))


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    cells = [[cell.replace("|", "\\|").replace("``", "`").replace("\n", " ") for cell in row] for row in rows]
    cells.insert(1, ["---"] * len(rows[0]))
    return ["| " + " | ".join(row) + " |" for row in cells]


def _text(cls: type) -> list[str]:
    doc = inspect.getdoc(cls) or ""
    return [line.replace("``", "`") for line in doc.splitlines()]


def _record(name: str, cls: type, known: dict[str, type]) -> list[str]:
    said, schema = comments(cls), wire.schema(cls)
    rows: list[tuple[str, ...]] = [("field", "type", "meaning")]
    for field, entry in schema["properties"].items():
        meaning = said.get(field, entry.get("description", ""))
        if "default" in entry and entry["default"] not in (None, ""):
            meaning += f" (default {entry['default']})"
        rows.append((f"`{field}`", _kind(entry, known), meaning.strip()))
    return [f"### {name}", "", *_text(cls), "", *_table(rows), ""]


def _struct(cls: type, own: bool = True) -> list[str]:
    said = comments(cls)
    inherited = {f.name for base in cls.__bases__ if base is not msgspec.Struct for f in msgspec.structs.fields(base)}
    rows: list[tuple[str, ...]] = [("key", "type", "meaning")]
    for field in msgspec.structs.fields(cls):
        if field.name not in inherited:
            kind = re.sub(r"dict\[str, (\w+)\]", r"map of \1", inspect.get_annotations(cls)[field.name])
            kind = kind.replace("msgspec.Raw", "map").replace("map of Any", "map").replace("bytes", "bin")
            kind = re.sub(r"(list|tuple)\[(.*)\]", r"list of \2", kind)
            kind = re.sub(r"(list|tuple)\[(.*)\]", r"(\2)", kind)
            rows.append((f"`{field.name}`", kind, said.get(field.name, "")))
    tag = cls.__struct_config__.tag if own else None  # type: ignore[attr-defined]
    title = f"### `{tag}`" if tag and cls is not bus.Document else f"### {cls.__name__}"
    return [title, "", *_text(cls), "", *_table(rows), ""]


def page() -> str:
    """The whole page."""
    known = records()
    version = ".".join(map(str, wire.VERSION))
    topics: list[tuple[str, ...]] = [("topic", "record", "when, what")]
    topics += [(f"`{topic}`", f"[{name}](#{name.lower()})", when) for topic, name, when in TOPICS]
    head = ", ".join(f"`{name}`" for name in Header.__struct_fields__)
    lines = [
        "# Protocol",
        "",
        f"What a running twin says and answers: {PROTOCOL}, version {version}. Made from the source by `python -m tools.protocol`; do not edit.",
        "Signs, axes and units: [conventions](conventions.md).",
        "",
        "## Sockets",
        "",
        "| socket | ZeroMQ | default | yours | carries |",
        "| --- | --- | --- | --- | --- |",
        "| state | XPUB, bound | `tcp://127.0.0.1:5570` | SUB | documents and flat messages |",
        "| control | ROUTER, bound | the port after state's (ipc: `<path>.control`) | DEALER | questions and answers |",
        "",
        "Loopback unless asked otherwise; an endpoint that others can reach has CURVE keys, or was opened with a word that says insecure.",
        "",
        "## State: documents",
        "",
        "Two frames: the topic, which ends in a dot (subscriptions match by prefix: `bs0.` is all of that site), and one MessagePack map. Do not",
        "set `CONFLATE`: it keeps the last frame only, and the topic is gone. Ignore keys you do not know: a minor version adds some. Refuse",
        "another major version.",
        "",
        *[line for cls in DOCUMENTS for line in _struct(cls)],
        "### Arrays",
        "",
        "`[dtype, shape, bytes]`. `dtype` is a letter (`b` bool, `i` signed, `u` unsigned, `f` float, `c` complex) and the bytes an entry takes:",
        "`f8`, `c16`, `b1`. `bytes` is in C order, little-endian; a complex entry is its real part, then its imaginary part.",
        "",
        "### What a slow listener sees",
        "",
        "A listener that is too slow loses messages. `seq` counts every document of a stream, so a gap is a loss; the heartbeat carries every",
        "stream's last `seq`, so a loss at the end shows too. Documents nobody had subscribed to are counted and not sent.",
        "",
        "### Joining late, without a gap",
        "",
        "1. Subscribe to the topics you want, to `run.`, and last to `join.<a name you make up>.`.",
        "2. Ask `snapshot` on control with that name. If the answer says `joined` = false, ask again: it is looked at once a subframe.",
        "3. Take the documents of the snapshot. Then read the state socket and leave out what has a `seq` up to the snapshot's `seqs` of its stream.",
        "",
        "### Flat messages",
        "",
        "For PlotJuggler and other generic monitors: two frames, the topic `flat.` + the stream's own, and one map of plain numbers; `t` is the",
        "simulated time in seconds, entries of short arrays are `name[k]`. No header and no `seq`.",
        "",
        "## Control: questions",
        "",
        f"Two frames each way (a DEALER adds nothing): a header, the MessagePack list of {head},",
        f'and the payload. You send `protocol` = `"{PROTOCOL}"`, `version` = `[{wire.VERSION[0]}, {wire.VERSION[1]}]`, the kind of question,',
        "and `seq` counting from 1; the rest may be left out. The answer repeats `seq`, and its kind is `answer`,",
        "or `misuse` (your question), `fault` (the twin's side) or `late`, with a sentence as payload. `hello` and `ping` are always answered.",
        "",
        "| question | payload | answer |",
        "| --- | --- | --- |",
        "| `snapshot` | [SnapshotRequest](#snapshotrequest) | [Snapshot](#snapshot) |",
        "| `losses` | [Losses](#losses) | empty |",
        "| `claim` | [Claim](#claim) | [Grant](#grant) |",
        "| `act` | [Act](#act) | none: what becomes of it is said as `applied`, or `refused` |",
        "| `bye` | empty | empty: the knobs are free |",
        "| `pause`, `resume`, `mend`, `stop`, `status` | empty map | [Status](#status) |",
        "| `step` | map: `subframes` | [Status](#status) |",
        "| `pace` | map: `factor`; 0 is as fast as possible | [Status](#status) |",
        "| `inject` | map: an entry of a scenario's `faults` | [Status](#status) |",
        "| `set` | map: path to value, as in a scenario | [Status](#status) |",
        "",
        "What the twin says unasked to who holds a knob: the same two frames, the kind of what is said, and a `seq` that answers nothing.",
        "",
        "| said | payload | when |",
        "| --- | --- | --- |",
        "| `observe` | [Moment](#moment) | at each point of a subframe where the controller has a knob; to be answered by one `act` |",
        "| `truth` | [Truth](#truth) | before `observe`, to an oracle that asked for it |",
        "| `applied` | [Applied](#applied) | at the end of a subframe |",
        "| `refused` | a sentence | an `act` could not be taken |",
        "| `dropped` | a sentence | the knobs are gone: why, or `the run is over` |",
        "| `beat` | empty | while the twin waits for an `act`; not to be answered |",
        "",
        *[line for cls in ANSWERS for line in _struct(cls, own=False)],
        "## Topics",
        "",
        *_table(topics),
        "",
        "A recording (`recording.mcap`) holds the same records under the same topics: message encoding `msgpack`, each schema inside as",
        "`jsonschema`, `log_time` the simulated time, `publish_time` the wall clock.",
        "",
        "## Records",
        "",
        "Times `_ns` are whole nanoseconds of simulated time; other units are in the names, SI but for `_db`.",
        "",
        *[line for name, cls in known.items() for line in _record(name, cls, known)],
        "## Reading it",
        "",
        "Python, with pyzmq, msgpack and NumPy; nothing of the twin:",
        "",
        "```python",
        *EXAMPLE_PYTHON.strip().splitlines(),
        "```",
        "",
        "JavaScript (Node, `npm install zeromq @msgpack/msgpack`):",
        "",
        "```javascript",
        *EXAMPLE_JAVASCRIPT.strip().splitlines(),
        "```",
        "",
        "With the twin installed, `twin.client.connect` does all of this, joining and counting included:",
        "",
        "```python",
        "from twin.client import connect",
        "",
        'with connect("tcp://127.0.0.1:5570", "bs0.") as twin:',
        "    for message in twin:",
        "        print(message.topic, message.kind, message.t_ns, message.data)",
        "```",
        "",
    ]
    return "\n".join(line.rstrip() for line in lines)


EXAMPLE_PYTHON = '''
import msgpack
import numpy as np
import zmq

ENDPOINT = "tcp://127.0.0.1:5570"


def arrays(value):
    """Turn every [dtype, shape, bytes] into an array."""
    if isinstance(value, dict):
        return {key: arrays(entry) for key, entry in value.items()}
    if isinstance(value, list) and len(value) == 3 and isinstance(value[2], bytes):
        dtype, shape, data = value
        return np.frombuffer(data, "?" if dtype == "b1" else "<" + dtype).reshape(shape)
    return [arrays(entry) for entry in value] if isinstance(value, list) else value


socket = zmq.Context().socket(zmq.SUB)
socket.connect(ENDPOINT)
socket.subscribe("")
last = {}
while True:
    topic, body = socket.recv_multipart()
    if topic.startswith(b"flat."):
        continue
    document = msgpack.unpackb(body)
    missed = document["seq"] - last.get(topic, document["seq"] - 1) - 1
    last[topic] = document["seq"]
    if document["document"] == "event":
        print(topic.decode(), document["t_ns"], missed, sorted(arrays(document["data"])))
    if document["document"] == "stop":
        break
'''

EXAMPLE_JAVASCRIPT = """
const zmq = require("zeromq");
const { decode } = require("@msgpack/msgpack");

const ENDPOINT = process.argv[2] || "tcp://127.0.0.1:5570";
const views = { f4: Float32Array, f8: Float64Array, c8: Float32Array, c16: Float64Array,
                i8: BigInt64Array, i4: Int32Array, b1: Uint8Array };

// [dtype, shape, bytes] -> {shape, values}; complex values alternate: re, im, re, im, ...
function array([dtype, shape, bytes]) {
  return { shape, values: new views[dtype](Uint8Array.from(bytes).buffer) };
}

async function main() {
  const socket = new zmq.Subscriber();
  socket.connect(ENDPOINT);
  socket.subscribe("bs0.", "run.");
  for await (const [topic, body] of socket) {
    const document = decode(body);
    if (document.document === "event") {
      for (const [name, value] of Object.entries(document.data)) {
        const isArray = Array.isArray(value) && value.length === 3 && value[2] instanceof Uint8Array;
        console.log(topic.toString(), document.t_ns, name, isArray ? array(value).values : value);
      }
    }
    if (document.document === "stop") break;
  }
  socket.close();
}

main();
"""


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--check", action="store_true", help="write nothing; fail if the page is not what the source says"
    )
    given = parser.parse_args(argv)
    text = page()
    if given.check:
        same = PAGE.exists() and PAGE.read_text(encoding="utf-8") == text
        print(f"{PAGE.name} {'is up to date' if same else 'is not what the source says: run python -m tools.protocol'}")
        return 0 if same else 1
    PAGE.write_text(text, encoding="utf-8")
    print(PAGE.name)
    return 0


if __name__ == "__main__":
    sys.exit(main())
