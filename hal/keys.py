"""Keys on disk: who may reach a twin or a machine from other computers. Key pairs, and the list of public keys let in, each with its role.

A folder holds ``NAME.key`` (secret and public half, for its owner alone), ``NAME.pub`` (to be handed out) and ``allowed`` (a line a key:
role, name, public key). Keys are CURVE's, 40 characters of Z85.
"""

from __future__ import annotations

import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import zmq

from hal.errors import Misuse
from hal.gate import ROLES
from hal.session import Keys

__all__ = ["KEY", "Allowed", "allow", "allowed", "answering", "asking", "folder", "new", "pair", "public", "revoke"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
LIST = "allowed"
MOST_BYTES = 1 << 20
_log = logging.getLogger("hal.keys")


class Allowed(NamedTuple):
    """A line of the allow-list."""

    role: str
    name: str
    key: str


def folder() -> Path:
    """Where keys are kept: ``$ISAC_TWIN_KEYS``, or ``isac-twin/keys`` among the user's configuration."""
    chosen = os.environ.get("ISAC_TWIN_KEYS")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "isac-twin" / "keys"


def new(where: Path, name: str) -> str:
    """Make a key pair, readable by its owner alone, and return the public half. Misuse if there is one of that name: keys are never overwritten."""
    _named(name)
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    public, secret = (half.decode() for half in zmq.curve_keypair())
    for file, text, mode in (
        (where / f"{name}.key", f"public {public}\nsecret {secret}\n", 0o600),
        (where / f"{name}.pub", f"public {public}\n", 0o644),
    ):
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        except FileExistsError:
            raise Misuse(f"{file}: exists already, and a key is never overwritten; choose another name") from None
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(text)
    return public


def public(where: Path, named: str) -> str:
    """The public key that is meant: 40 characters of Z85, a file with one, or the name of one in the folder."""
    if KEY.fullmatch(named):
        return named
    file = Path(named) if os.sep in named or named.endswith((".pub", ".key")) else where / f"{named}.pub"
    try:
        found = _pairs(file, _read(file)).get("public", "")
    except OSError as error:
        raise Misuse(
            f"{named}: is no public key of 40 characters, and there is no file {file} ({error.strerror})"
        ) from None
    return found


def allowed(where: Path) -> list[Allowed]:
    """The allow-list; empty if there is none. Misuse for a list that others than its owner may write, or a line that is wrong."""
    try:
        text = _read(where / LIST, stat.S_IWGRP | stat.S_IWOTH, "written by others than its owner: chmod go-w it")
    except FileNotFoundError:
        return []
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            words = line.split()
            if len(words) != 3 or words[0] not in ROLES or not KEY.fullmatch(words[2]):
                raise Misuse(f"{where / LIST}:{number}: must be ROLE NAME KEY, the role one of {', '.join(ROLES)}")
            found.append(Allowed(*words))
    return found


def allow(where: Path, key: str, role: str, name: str) -> None:
    """Let a public key in with a role; one that is in already gets this role. Running twins see it at once."""
    _named(name)
    if role not in ROLES:
        raise Misuse(f"role = {role!r}: must be one of {', '.join(ROLES)}")
    others = [line for line in allowed(where) if line.key != key]
    if any(line.name == name for line in others):
        raise Misuse(f"name = {name!r}: is another key's in {where / LIST}; choose another, or revoke that one")
    _write(where, [*others, Allowed(role, name, key)])


def revoke(where: Path, name: str) -> None:
    """Let a key in no more, by its name on the list or by itself. What it asks of a running twin from now on is refused."""
    before = allowed(where)
    rest = [line for line in before if name not in (line.name, line.key)]
    if len(rest) == len(before):
        known = ", ".join(line.name for line in before) or "nobody"
        raise Misuse(f"revoke {name}: is not on the list {where / LIST}, which has {known}")
    _write(where, rest)


def answering(name: str, where: Path | None = None) -> Keys:
    """The keys a twin, or a served machine, answers with: its own pair, and who is let in, which follows the list. Misuse if nobody is."""
    where = where or folder()
    mine, listed = pair(where, name), Listed(where)
    if not listed:
        raise Misuse(f"{where / LIST}: lets nobody in; twin keys allow NAME.pub --role monitor")
    return Keys(*mine, allowed=listed)


class Listed(Mapping[bytes, str]):
    """Roles by public key, read from the allow-list again whenever it has changed.

    A list that cannot be read as it is lets in whom the last good one did, and the log says why; one that is gone lets nobody in.
    Raises Misuse where the first is wrong.
    """

    def __init__(self, where: Path) -> None:
        self._where = where
        self._mark = self._marked()
        self._roles = self._read()

    def __getitem__(self, key: bytes) -> str:
        return self._now()[key]

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._now())

    def __len__(self) -> int:
        return len(self._now())

    def _now(self) -> dict[bytes, str]:
        mark = self._marked()
        if mark != self._mark:
            self._mark = mark
            try:
                self._roles = self._read()
            except (Misuse, OSError) as wrong:
                _log.error("%s; who was let in before still is", wrong)
        return self._roles

    def _read(self) -> dict[bytes, str]:
        return {line.key.encode(): line.role for line in allowed(self._where)}

    def _marked(self) -> tuple[int, ...]:
        try:
            found = os.stat(self._where / LIST)
        except OSError:
            return ()
        return found.st_mtime_ns, found.st_size, found.st_ino, found.st_mode


def asking(name: str, server: str, where: Path | None = None) -> Keys:
    """The keys a client asks with: its own pair, and the public key of whom it means to talk to (a name, a file or the key)."""
    where = where or folder()
    return Keys(*pair(where, name), server=public(where, server).encode())


def _named(name: str) -> None:
    if not NAME.fullmatch(name):
        raise Misuse(f"name = {name!r}: must be letters, digits, dots, dashes and underscores, 1 .. 64")


def pair(where: Path, name: str) -> tuple[bytes, bytes]:
    """A pair's public and secret half. Misuse where others than the owner may read it: then it is no secret."""
    _named(name)
    file = where / f"{name}.key"
    try:
        found = _pairs(
            file,
            _read(
                file,
                stat.S_IRWXG | stat.S_IRWXO,
                "open to others than its owner, so it is no secret: make a new key, or chmod 600 it",
            ),
        )
    except FileNotFoundError:
        raise Misuse(f"{file}: there is no such key; twin keys new {name}") from None
    if "secret" not in found or zmq.curve_public(found["secret"].encode()).decode() != found["public"]:
        raise Misuse(f"{file}: its halves do not belong together; make a new key")
    return found["public"].encode(), found["secret"].encode()


def _pairs(file: Path, text: str) -> dict[str, str]:
    found = {key: value for key, _, value in (line.partition(" ") for line in text.splitlines())}
    if "public" not in found or not all(KEY.fullmatch(found[half]) for half in ("public", "secret") if half in found):
        raise Misuse(f"{file}: is no key; must have the line: public KEY, of 40 characters")
    return found


def _read(file: Path, forbidden: int = 0, flaw: str = "") -> str:
    """The text of a file, whose mode is looked at before a byte is believed."""
    with file.open("rb") as stream:
        found = os.fstat(stream.fileno())
        if found.st_mode & forbidden:
            raise Misuse(f"{file}: mode {stat.S_IMODE(found.st_mode):o}, {flaw}")
        if forbidden and found.st_uid not in (os.geteuid(), 0):
            raise Misuse(f"{file}: belongs to another user")
        return stream.read(MOST_BYTES).decode("ascii", "replace")


def _write(where: Path, lines: list[Allowed]) -> None:
    """Put a new list in the old one's place, whole or not at all."""
    where.mkdir(parents=True, exist_ok=True, mode=0o700)
    draft = where / f".{LIST}.{os.getpid()}"
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
        stream.writelines(_lines(lines))
    os.replace(draft, where / LIST)


def _lines(lines: list[Allowed]) -> Iterator[str]:
    for line in lines:
        yield f"{line.role} {line.name} {line.key}\n"
