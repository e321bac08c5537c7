"""``twin keys``: make keys, and say who may reach a twin from other computers."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from hal.errors import Misuse
from hal.gate import ROLES
from hal.keys import KEY, allow, allowed, asking, folder, new, pair, public, revoke
from hal.session import Keys

__all__ = ["arguments", "given_keys", "key_arguments", "run"]


def key_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what a command that talks to a twin takes: ``--key`` and ``--server``."""
    parser.add_argument("--key", metavar="NAME", help="the key to come with, where the twin has a door (twin keys)")
    parser.add_argument(
        "--server",
        metavar="NAME",
        default="twin",
        help="whose public key the twin must have: name, file or key (default %(default)s)",
    )


def given_keys(given: argparse.Namespace) -> Keys | None:
    """The keys that ``key_arguments``'s arguments name; None for none."""
    return None if given.key is None else asking(given.key, given.server)


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin keys`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Make keys, and say who may reach a twin from other computers. Takes effect when a twin starts."
    )
    parser.epilog = (
        "Examples:\n"
        "  twin keys new twin                               the twin's own; hand out twin.pub\n"
        "  twin keys new laptop                             on the laptop; hand laptop.pub to the twin's computer\n"
        "  twin keys allow laptop.pub --role monitor        there\n"
        "  twin run scenarios/street.yaml --state tcp://0.0.0.0:5570 --set bus.keys=twin\n"
        "  twin keys revoke laptop\n\n"
        "Roles: a monitor listens; a controller claims knobs as well; a device key drives a served machine; an admin may do everything."
    )
    parser.add_argument("verb", choices=("new", "list", "allow", "revoke"))
    parser.add_argument("name", nargs="?", help="new, revoke: a name; allow: a .pub file, a name or the key itself")
    parser.add_argument("--role", choices=ROLES, help="allow: what it may do")
    parser.add_argument("--as", dest="called", metavar="NAME", help="allow: its name on the list (default: the file's)")
    parser.add_argument(
        "--dir", type=Path, help="where keys are kept (default: $ISAC_TWIN_KEYS or ~/.config/isac-twin/keys)"
    )
    parser.add_argument("--json", action="store_true", help="list: as JSON, without secrets")


def run(given: argparse.Namespace) -> int:
    """Do it, and say what was done."""
    where = given.dir or folder()
    if given.verb == "list":
        return _list(where, given.json)
    if given.name is None:
        raise Misuse(f"twin keys {given.verb}: name which")
    if given.verb == "new":
        print(f"{where / given.name}.key is yours alone; hand out {where / given.name}.pub: {new(where, given.name)}")
    elif given.verb == "allow":
        if given.role is None:
            raise Misuse(f"twin keys allow {given.name}: say --role {' | '.join(ROLES)}")
        key = public(where, given.name)
        called = given.called or (
            "key-" + re.sub(r"\W", "", key)[:8] if KEY.fullmatch(given.name) else Path(given.name).stem
        )
        allow(where, key, given.role, called)
        print(f"{called} is let in as {given.role}, from the next start of a twin on")
    else:
        revoke(where, given.name)
        print(f"{given.name} is let in no more, from the next start of a twin on")
    return 0


def _list(where: Path, as_json: bool) -> int:
    own = {file.stem: pair(where, file.stem)[0].decode() for file in sorted(where.glob("*.key"))}
    lines = allowed(where)
    if as_json:
        print(json.dumps({"dir": str(where), "own": own, "allowed": [line._asdict() for line in lines]}, indent=1))
        return 0
    for name, key in own.items():
        print(f"own         {name:<20} {key}")
    for line in lines:
        print(f"{line.role:<11} {line.name:<20} {line.key}")
    if not own and not lines:
        print(f"{where}: no keys yet; twin keys new NAME")
    return 0
