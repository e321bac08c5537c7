"""Throw commands at the IIO face that no client would send: ``python -m tools.fuzz_iio [LINES] [--seed N]``.

Half of the lines are made of the protocol's own words in any order, with numbers and names that do not fit; the rest is noise, or a good line
with a byte changed. What counts as a crash: an exception the server did not foresee, or a server that a well-behaved client does not get an answer from.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import socket
import sys
import threading

from twin.iio.adar1000 import Adar1000
from twin.iio.context import Attribute, Channel, Context, Device
from twin.iio.server import Limits, Server

__all__ = ["board", "line", "main", "throw"]

PER_CONNECTION = 100
WORDS = (
    b"READ WRITE OPEN CLOSE READBUF WRBUF PRINT VERSION TIMEOUT SET GETTRIG SETTRIG HELP INPUT OUTPUT DEBUG BUFFER BUFFERS_COUNT CYCLIC "
    b"iio:device0 iio:device1 iio:device9 adar1000 csb1_chip1 receiver voltage0 voltage3 temp0 phase hardwaregain beam_pos_save rx_load_spi "
    b"label reset 0 1 -1 3 4 16 64 4096 99999999999999999999 1e9 0x10 00000003 ffffffff nan 00000000000000000003 \x00 \xff\xfe % ;"
).split(b" ")
GOOD = (
    b"READ iio:device0 INPUT voltage0 phase",
    b"WRITE iio:device0 INPUT voltage0 phase 4\n12.5",
    b"WRITE iio:device0 INPUT voltage1 beam_pos_save 12\n3,1,100,45.0",
    b"OPEN iio:device1 16 00000003",
    b"READBUF iio:device1 64",
    b"CLOSE iio:device1",
    b"READ iio:device0",
)


class _Silence:
    def read(self, samples: int, columns: list[int]) -> bytes:
        return bytes(2 * samples * len(columns))


def board() -> Context:
    """A chip and a receiver that hears nothing, at once."""
    chip = Adar1000("csb1_chip1", lambda half: None).device("iio:device0")
    channels = tuple(Channel(f"voltage{k}", attributes={"scale": Attribute(lambda: "1")}, scan=k) for k in range(2))
    return Context("fuzzed", {}, (chip, Device("iio:device1", "receiver", {}, channels, stream=_Silence)))


def line(chance: random.Random) -> bytes:
    """One line, without its end."""
    kind = chance.randrange(4)
    if kind < 2:
        return b" ".join(chance.choices(WORDS, k=chance.randrange(1, 7)))
    if kind == 2:
        return chance.randbytes(chance.choice((0, 3, 30, 300, 3000)))
    good = bytearray(chance.choice(GOOD))
    good[chance.randrange(len(good))] = chance.randrange(256)
    return bytes(good)


def throw(port: int, lines: int, seed: int) -> int:
    """Send ``lines`` lines, a new connection every 100 or whenever the server hangs up; return how many connections it took."""
    chance, sent, connections = random.Random(seed), 0, 0
    while sent < lines:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as one:
            connections += 1
            ears = threading.Thread(target=_listen, args=(one,))
            ears.start()
            with contextlib.suppress(ConnectionError):
                for _ in range(min(PER_CONNECTION, lines - sent)):
                    if not ears.is_alive():
                        break  # hung up: what is sent from here on nobody reads
                    sent += 1
                    one.sendall(line(chance) + chance.choice((b"\n", b"\r\n")))
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_WR)  # often in the middle of a value
            ears.join()
    return connections


def answers(port: int) -> bool:
    """Whether a well-behaved client is served."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as one, one.makefile("rwb") as both:
        both.write(b"READ iio:device0 label\n")
        both.flush()
        return both.readline() == b"11\n" and both.readline() == b"csb1_chip1\0\n"


class Surprises(logging.Handler):
    """Counts what the server did not foresee."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.count += 1
        print(self.format(record), file=sys.stderr)


def _listen(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while one.recv(1 << 16):
            pass


def main() -> int:
    """Fuzz; 1 if anything unforeseen happened."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz_iio", description=__doc__)
    parser.add_argument("lines", type=int, nargs="?", default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    logging.getLogger("twin.iio").addHandler(surprises := Surprises())
    server = Server(board(), "tcp://127.0.0.1:0", Limits(skipped=1 << 12, read=1 << 16))
    server.start()
    port = server.server_address[1]
    connections = throw(port, given.lines, given.seed)
    well = answers(port)
    server.stop()
    print(f"{given.lines} lines over {connections} connections: {surprises.count} surprises, served afterwards: {well}")
    return int(surprises.count > 0 or not well)


if __name__ == "__main__":
    raise SystemExit(main())
