"""The protocol on plain sockets: every answer as IIOD's, and nothing a client does holds up another."""

from __future__ import annotations

import logging
import socket
import struct
from collections.abc import Iterator
from xml.etree import ElementTree

import pytest

from hal.errors import Misuse
from tools.fuzz_iio import Surprises, answers, board, throw
from twin.iio.adar1000 import Adar1000
from twin.iio.context import Attribute, Channel, Context, Device
from twin.iio.server import Limits, Server


class Ramp:
    """Samples that tell their place: 4 scan elements, value = 4 n + element."""

    def __init__(self) -> None:
        self.n = 0

    def read(self, samples: int, columns: list[int]) -> bytes:
        first, self.n = self.n, self.n + samples
        return b"".join((4 * n + c).to_bytes(2, "little") for n in range(first, first + samples) for c in columns)


def context() -> Context:
    def broken() -> str:
        raise RuntimeError("a bug")

    chip = Adar1000("csb1_chip1", lambda half: None).device("iio:device0")
    channels = tuple(Channel(f"voltage{k}", attributes={"scale": Attribute(lambda: "0.5")}, scan=k) for k in range(4))
    receiver = Device("iio:device1", "receiver", {"bug": Attribute(broken)}, channels, stream=Ramp)
    return Context('said "so" & more', {"who": "<test>"}, (chip, receiver))


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(context(), "tcp://127.0.0.1:0", Limits(clients=8, skipped=1 << 16))
    made.start()
    yield made
    made.stop()


class Talk:
    """A bare client."""

    def __init__(self, server: Server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.server_address[1]), timeout=20)
        self.file = self.socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def ask(self, line: str) -> int:
        self.send(line.encode() + b"\r\n")
        return int(self.file.readline())

    def value(self, line: str) -> bytes:
        out = self.file.read(self.ask(line))
        assert self.file.read(1) == b"\n"
        return out

    def close(self) -> None:
        self.file.close()
        self.socket.close()


@pytest.fixture
def talk(server: Server) -> Iterator[Talk]:
    made = Talk(server)
    yield made
    made.close()


def test_the_xml_is_whole_and_names_everything(talk: Talk) -> None:
    root = ElementTree.fromstring(talk.value("PRINT"))
    assert root.get("description") == 'said "so" & more'
    assert root.find("context-attribute").attrib == {"name": "who", "value": "<test>"}
    chip, receiver = root.findall("device")
    assert chip.get("label") == "csb1_chip1"
    assert {c.get("type") for c in chip.findall("channel")} == {"input", "output"}
    assert [c.find("scan-element").get("format") for c in receiver.findall("channel")] == ["le:S16/16>>0"] * 4


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("TIMEOUT 500", 0),
        ("TIMEOUT -1", -22),
        ("TIMEOUT", -22),
        ("NONSENSE", -22),
        ("\x00\x01", -22),
        ("READ iio:device9 label", -19),
        ("READ iio:device0 INPUT voltage9 phase", -6),
        ("READ iio:device0 INPUT temp0 phase", -2),
        ("READ iio:device0 no_such_attribute", -2),
        ("READ iio:device0 DEBUG direct_reg_access", -2),
        ("READ iio:device0 INPUT voltage0 beam_pos_save", -13),
        ("READ iio:device0 INPUT", -22),
        ("READ", -22),
        ("WRITE iio:device0 label", -22),
        ("WRITE iio:device0 label -3", -22),
        ("GETTRIG iio:device0", -2),
        ("GETTRIG iio:device7", -19),
        ("SET iio:device1 BUFFERS_COUNT 4", 0),
        ("SET iio:device1 BUFFERS_COUNT 0", -22),
        ("OPEN iio:device7 16 00000001", -19),
        ("OPEN iio:device0 16 00000001", -22),  # a device without a buffer
        ("OPEN iio:device1 16 00000000", -22),  # nothing chosen
        ("OPEN iio:device1 16 00000010", -22),  # a channel that is not there
        ("OPEN iio:device1 16 1", -22),  # half a mask
        ("OPEN iio:device1 0 00000001", -22),
        ("OPEN iio:device1 99999999 00000001", -12),
        ("OPEN iio:device1 16 00000001 CYCLIC", -22),
        ("CLOSE iio:device1", -6),
        ("READBUF iio:device1 64", -9),
        ("WRBUF iio:device1 64", -9),
    ],
)
def test_answers_as_iiod_does(talk: Talk, line: str, code: int) -> None:
    assert talk.ask(line) == code
    assert talk.value("READ iio:device0 label") == b"csb1_chip1\0"  # and the next command is understood


def test_writes_take_what_they_announce(talk: Talk) -> None:
    talk.send(b"WRITE csb1_chip1 INPUT voltage0 phase 5\n61.6\0")
    assert int(talk.file.readline()) == 5
    assert talk.value("READ csb1_chip1 INPUT voltage0 phase") == b"61.875000\0"
    talk.send(b"WRITE csb1_chip1 INPUT voltage0 phase 4\nfour")
    assert int(talk.file.readline()) == -22
    talk.send(b"WRITE csb1_chip1 INPUT voltage0 hardwaregain 3\n128")
    assert int(talk.file.readline()) == -22
    talk.send(b"WRITE csb1_chip1 label 1\nx")
    assert int(talk.file.readline()) == -13
    talk.send(b"WRITE csb1_chip1 INPUT voltage9 phase 5\n\n\n\n\n\n")  # the value looks like commands
    assert int(talk.file.readline()) == -6
    assert talk.value("READ csb1_chip1 INPUT voltage0 phase") == b"61.875000\0"


def test_an_oversize_write_is_refused_and_skipped(talk: Talk) -> None:
    talk.send(b"WRITE csb1_chip1 INPUT voltage0 phase 60000\n" + b"\nREAD x\n" * 7500)
    assert int(talk.file.readline()) == -12
    assert talk.value("READ iio:device0 label") == b"csb1_chip1\0"
    talk.send(b"WRITE csb1_chip1 INPUT voltage0 phase 99999999999\n")
    assert int(talk.file.readline()) == -12
    assert talk.file.read() == b""  # nobody will wait for that much


def test_read_all_packs_lengths_and_errors(talk: Talk) -> None:
    packed = talk.value("READ iio:device0 INPUT voltage1")
    assert packed[:8] == (2).to_bytes(4, "big") + b"0\0\0\0"  # hardwaregain
    assert (-13).to_bytes(4, "big", signed=True) in packed  # beam_pos_save


def test_buffers_carry_the_chosen_channels(talk: Talk) -> None:
    assert talk.ask("OPEN iio:device1 3 0000000a") == 0
    assert talk.ask("OPEN iio:device1 3 0000000a") == -16
    talk.send(b"READBUF iio:device1 20\r\n")
    assert [talk.file.readline() for _ in range(2)] == [b"12\n", b"0000000a\n"]
    first = talk.file.read(12)
    assert talk.file.readline() == b"8\n"  # the rest without a mask
    assert struct.unpack("<10h", first + talk.file.read(8)) == tuple(4 * n + c for n in range(5) for c in (1, 3))
    assert talk.ask("READBUF iio:device1 7") == -22
    assert talk.ask("CLOSE iio:device1") == 0


def test_a_bug_in_a_device_costs_one_answer(talk: Talk, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.CRITICAL, "twin.iio"):
        assert talk.ask("READ receiver bug") == -5
    assert talk.value("READ iio:device0 label") == b"csb1_chip1\0"


def test_half_a_command_holds_up_nobody(server: Server, talk: Talk) -> None:
    half, value, cut, endless = (Talk(server) for _ in range(4))
    half.send(b"READ iio:dev")
    value.send(b"WRITE iio:device0 INPUT voltage0 phase 100\nabc")
    assert cut.ask("OPEN iio:device1 4096 0000000f") == 0
    cut.send(b"READBUF iio:device1 32768000\n")
    cut.file.read(100)
    endless.send(b"x" * 1024)  # never a line's end
    assert int(endless.file.readline()) == -22
    assert talk.value("READ iio:device0 label") == b"csb1_chip1\0"
    for one in (half, value, cut, endless):
        one.close()  # in the middle of a buffer, of a value, of a line
    assert talk.value("READ iio:device0 label") == b"csb1_chip1\0"
    assert talk.value("READ iio:device0 INPUT voltage0 phase") == b"0.000000\0"  # half a value changed nothing


def test_one_client_too_many_is_turned_away_and_room_comes_back(server: Server) -> None:
    crowd = [Talk(server) for _ in range(8)]
    for one in crowd:
        assert one.value("READ iio:device0 label") == b"csb1_chip1\0"
    late = Talk(server)
    assert late.file.read() == b""
    late.close()
    for one in crowd:
        one.send(b"EXIT\n")
        assert one.file.read() == b""
        one.close()
    for _ in range(1000):
        again = Talk(server)
        again.send(b"VERSION\n")
        said = again.file.readline()
        again.close()
        if said:
            break
    assert said.startswith(b"0.24.")


def test_only_this_computer_is_served() -> None:
    for wrong in ("tcp://0.0.0.0:0", "tcp://127.0.0.1", "udp://127.0.0.1:1", "tcp://127.0.0.1:99999"):
        with pytest.raises(Misuse, match="--endpoint"):
            Server(context(), wrong)


def test_a_few_thousand_fuzzed_lines() -> None:
    surprises = Surprises()
    logging.getLogger("twin.iio").addHandler(surprises)
    made = Server(board(), "tcp://127.0.0.1:0", Limits(skipped=1 << 12, read=1 << 16))
    made.start()
    try:
        throw(made.server_address[1], 3000, seed=1)
        assert answers(made.server_address[1])
        assert surprises.count == 0
    finally:
        made.stop()
        logging.getLogger("twin.iio").removeHandler(surprises)
