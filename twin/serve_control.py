"""``twin serve control``: the built-in chain's acting half in a process of its own, which steers a running twin as the twin itself would."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from hal.errors import LateArrival, RemoteFault
from hal.session import Keys
from twin.agent import Agent
from twin.control import Chain
from twin.keys import given_keys, key_arguments
from twin.outside import KNOBS, Claim, Moment

__all__ = ["arguments", "run", "steer"]

STATE = "tcp://127.0.0.1:5570"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add what ``twin serve control`` takes."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = (
        "Steer a running twin from outside with a scenario's own planner and precoder. Of a run whose clock.mode is\n"
        "lockstep and whose controllers.wait_for names this one, the run hash is the same as without it."
    )
    parser.epilog = (
        "Example:\n"
        f"  twin run scenarios/smoke.yaml --state {STATE} --set clock.mode=lockstep --set controllers.wait_for=[outside] &\n"
        f"  twin serve control scenarios/smoke.yaml --to {STATE}"
    )
    parser.add_argument("file", type=Path, help="the scenario whose controller this is to be")
    parser.add_argument(
        "--to", default=STATE, metavar="ENDPOINT", help="the twin's state endpoint (default %(default)s)"
    )
    parser.add_argument("--control", metavar="ENDPOINT", help="its control endpoint, where that is not the next port")
    parser.add_argument("--name", default="outside", help="default %(default)s")
    parser.add_argument("--knobs", default=",".join(KNOBS), help="which of the site's knobs (default %(default)s)")
    parser.add_argument("--order", type=int, default=0, help="lower orders are asked first (default 0)")
    parser.add_argument(
        "--wait", type=float, default=30.0, metavar="SECONDS", help="for the twin (default %(default)g)"
    )
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", dest="sets")
    key_arguments(parser)


def run(given: argparse.Namespace) -> int:
    """Steer until the run is over or an interrupt."""
    from twin.bus import control_beside
    from twin.commands import pair
    from twin.scenario import load

    scenario = load(given.file, dict(pair(text) for text in given.sets))
    (site,) = scenario.sites
    knobs = tuple(f"{site}.{knob}" for knob in given.knobs.split(","))
    claim = Claim(name=given.name, knobs=knobs, order=given.order)
    signal.signal(signal.SIGTERM, _interrupted)
    control = given.control or control_beside(given.to)
    with contextlib.suppress(KeyboardInterrupt), _claimed(control, claim, given.wait, given_keys(given)) as agent:
        print(f"{given.name} steers {', '.join(knobs)} of run {agent.grant.run}", flush=True)
        from twin.build import parts_of

        steer(agent, Chain(parts_of(scenario), agent.grant.spec, agent.grant.numerology))
        print(f"{agent.counts['acts']} moments answered, {agent.counts['refused']} refused", flush=True)
    return 0


def steer(agent: Agent, chain: Chain) -> None:
    """Answer every moment as ``chain`` would, from the belief it brings."""
    chain.first()  # what it remembers of the rows that are loaded before the first subframe
    mine = {knob.rpartition(".")[2] for knob in agent.grant.knobs}
    for moment in agent:
        _answer(agent, chain, mine, moment)


def _answer(agent: Agent, chain: Chain, mine: set[str], moment: Moment) -> None:
    assert moment.belief is not None
    chain.belief = moment.belief
    if moment.point == "precode":
        agent.act(baseband=chain.baseband(moment.updates))
        return
    plan = chain.plan(moment) if moment.decided.plan is None else moment.decided.plan
    # designed in any case: the power over subcarriers that the baseband is to have comes with it
    beams = chain.point(moment, plan)
    agent.act(plan=plan if "plan" in mine else None, beams=beams if "beams" in mine else None)


def _claimed(control: str, claim: Claim, wait_s: float, keys: Keys | None) -> Agent:
    """The claim, as soon as there is a twin to grant it."""
    until = time.monotonic() + wait_s
    while True:
        try:
            return Agent(control, claim, keys=keys)
        except (RemoteFault, LateArrival) as error:
            if time.monotonic() > until:
                raise
            print(f"waiting for a twin at {control}: {error}", file=sys.stderr)


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
