"""Is this a front end? Rules that any machine must keep, each with a verdict, the numbers behind it and a sentence.

``check(frontend)`` runs the machine's rules on any front end, in this process or behind ``hal.devices.remote``; with an ``endpoint`` it runs
the session's rules too. The suite sets beams, sends and listens: run it on a machine that nobody uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from xml.etree import ElementTree

from hal.conformance import beams, machine, session
from hal.conformance.bench import Bench, Broken, Finding, Skipped, Verdict
from hal.errors import LateArrival, Misuse, RemoteFault
from hal.frontend import Frontend

__all__ = ["RULES", "SESSION_RULES", "Verdict", "check", "junit"]

RULES: dict[str, Callable[[Bench], Finding]] = {**machine.RULES, **beams.RULES}
SESSION_RULES: dict[str, Callable[[Bench], Finding]] = {**session.RULES}
LAST: dict[str, Callable[[Bench], Finding]] = {**machine.LAST}


def check(
    frontend: Frontend,
    endpoint: str | None = None,
    only: Iterable[str] | None = None,
    latency_limit_s: float = 0.1,
    start_ns: int = 10**9,
    fresh: bool = False,
    closing: bool = False,
    told: Callable[[Verdict], None] | None = None,
) -> list[Verdict]:
    """One verdict a rule, in a fixed order; ``told`` hears each as it falls. Its slots are overwritten.

    ``endpoint`` is where ``frontend`` is served, None leaves the session's rules out; ``only`` names rules to run. ``latency_limit_s`` bounds
    the 99th percentile of the round trip, ``start_ns`` is the first time commands carry, later than any the machine has heard.
    ``fresh``: the machine was just started, so slots must be dark. ``closing`` runs the rule ``close`` last, which ends the front end.
    Raises Misuse for a rule that is not there.
    """
    rules = {**RULES, **(SESSION_RULES if endpoint is not None else {}), **(LAST if closing else {})}
    wanted = list(rules) if only is None else list(only)
    unknown = [name for name in wanted if name not in {**RULES, **SESSION_RULES, **LAST}]
    if unknown:
        raise Misuse(f"rule {unknown[0]!r}: is not one of {', '.join([*RULES, *SESSION_RULES, *LAST])}")
    bench = Bench(frontend, endpoint, latency_limit_s, start_ns, fresh)
    verdicts = []
    for name, rule in rules.items():
        if name in wanted:
            verdicts.append(_judge(name, rule, bench))
            if told is not None:
                told(verdicts[-1])
    return verdicts


def _judge(name: str, rule: Callable[[Bench], Finding], bench: Bench) -> Verdict:
    try:
        found = rule(bench)
        return Verdict(name, "pass", found.says, found.numbers)
    except Skipped as reason:
        return Verdict(name, "skip", str(reason), {})
    except Broken as flaw:
        return Verdict(name, "fail", str(flaw), flaw.numbers)
    except (Misuse, RemoteFault, LateArrival) as error:
        return Verdict(name, "fail", f"a question that must be answered was not: {type(error).__name__}: {error}", {})
    except Exception as error:  # the machine may answer anything; the verdict must come all the same
        return Verdict(name, "fail", f"what was answered makes no sense: {type(error).__name__}: {error}", {})


def junit(verdicts: list[Verdict], name: str) -> str:
    """The verdicts as JUnit XML, a test case a rule; ``name`` is the machine's."""
    count = {kind: sum(v.verdict == kind for v in verdicts) for kind in ("fail", "skip")}
    suite = ElementTree.Element(
        "testsuite",
        name=f"conformance of {name}",
        tests=str(len(verdicts)),
        failures=str(count["fail"]),
        errors="0",
        skipped=str(count["skip"]),
    )
    for v in verdicts:
        case = ElementTree.SubElement(suite, "testcase", classname="conformance", name=v.rule)
        numbers = "".join(f"\n{key} = {value:.9g}" for key, value in v.numbers.items())
        if v.verdict == "fail":
            ElementTree.SubElement(case, "failure", message=_clean(v.says)).text = _clean(v.says + numbers)
        elif v.verdict == "skip":
            ElementTree.SubElement(case, "skipped", message=_clean(v.says))
        else:
            ElementTree.SubElement(case, "system-out").text = _clean(v.says + numbers)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _clean(text: str) -> str:
    """A machine's own words may hold what XML cannot."""
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in text)
