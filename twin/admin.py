"""``twin control``: tell a running twin to pause, go on, step, keep another pace, break, change or stop."""

from __future__ import annotations

import argparse
import json
from typing import Any

import msgspec

from hal.errors import Misuse
from hal.session import Client, Keys, Patience
from twin.bus import control_beside
from twin.keys import given_keys, key_arguments

__all__ = ["arguments", "ask", "run"]

STATE = "tcp://127.0.0.1:5570"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin control`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Tell a running twin what to do; it is done at the end of the subframe. Prints how things stand then."
    )
    parser.epilog = (
        "Examples:\n"
        f"  twin control {STATE} pause\n"
        f"  twin control {STATE} step 10                   ten subframes, then pause again\n"
        f"  twin control {STATE} pace 0.5                  half as fast as the wall clock; 0: as fast as possible\n"
        f"  twin control {STATE} inject kind=dead_element half=transmit elements=[0,1]\n"
        f"  twin control {STATE} set tracker.miss_limit=8  a parameter that is live\n"
        f"  twin control {STATE} status --json"
    )
    parser.add_argument("endpoint", help="the twin's state endpoint; its control endpoint is the next port")
    parser.add_argument(
        "verb", choices=("pause", "resume", "step", "pace", "inject", "mend", "set", "snapshot", "stop", "status")
    )
    parser.add_argument(
        "values", nargs="*", metavar="VALUE", help="step: subframes; pace: factor; inject, set: KEY=VALUE ..."
    )
    parser.add_argument("--control", metavar="ENDPOINT", help="its control endpoint, where that is not the next port")
    parser.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="default %(default)g")
    parser.add_argument("--json", action="store_true", help="print the answer as JSON")
    key_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Ask, and print the answer."""
    control = given.control or control_beside(given.endpoint)
    told = ask(control, given.verb, _payload(given.verb, given.values), given.timeout, given_keys(given))
    if given.json:
        print(json.dumps(told))
    elif given.verb == "snapshot":
        for topic, seq in sorted(told["seqs"].items()):
            print(f"{topic:<24} {seq}")
    else:
        pace = f"{told['mode']}" + (f" x {told['factor']:g}" if told["mode"] == "paced" else "")
        print(
            f"subframe {told['k'] + 1} of {told['subframes']}, t = {told['t_ns'] * 1e-9:.3f} s, "
            f"{'paused' if told['paused'] else 'running'}, {pace}"
        )
        for what in told["waiting"]:
            print(f"  at the end of this subframe: {what}")
        for name, knobs in told["controllers"].items():
            print(f"  {name} holds {', '.join(knobs)}")
    return 0


def ask(
    control: str, verb: str, payload: dict[str, Any] | None = None, timeout_s: float = 5.0, keys: Keys | None = None
) -> dict[str, Any]:
    """Ask one admin question at a control endpoint and return the answer as a dict."""
    client = Client(control, Patience(warn_s=timeout_s, give_up_s=timeout_s), keys, name="admin")
    try:
        told: dict[str, Any] = msgspec.msgpack.decode(client.ask(verb, msgspec.msgpack.encode(payload or {})))
        if verb == "snapshot":
            told["documents"] = {topic: msgspec.msgpack.decode(data)["seq"] for topic, data in told["documents"]}
        return told
    finally:
        client.close()


def _payload(verb: str, values: list[str]) -> dict[str, Any]:
    """What the words on the command line say."""
    if verb in ("inject", "set"):
        pairs = [value.partition("=") for value in values]
        if not pairs or not all(key and equals for key, equals, _ in pairs):
            raise Misuse(f"{verb} {' '.join(values)}: must be KEY=VALUE, once or more")
        return {key: value if verb == "set" else _value(value) for key, _, value in pairs}
    if verb == "snapshot":
        return {"topics": values or [""]}
    wanted = {"step": "subframes", "pace": "factor"}.get(verb)
    if len(values) > (wanted is not None) or (verb == "pace" and not values):
        raise Misuse(f"{verb} {' '.join(values)}: takes {'one number' if wanted else 'nothing more'}")
    return {wanted: _value(values[0])} if wanted and values else {}


def _value(text: str) -> Any:
    """A number, list or text as YAML writes it."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise Misuse(f"{text}: {str(error).partition(chr(10))[0]}") from None
