"""The dashboard's page: a drawn element that streams frames, and the controls above it. Everything it needs is served from here."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import msgspec
import nicegui
from fastapi import WebSocket, WebSocketDisconnect
from nicegui import app, run, ui

from hal.errors import LateArrival, Misuse, RemoteFault
from hal.health import Kind
from hal.session import Client, Patience
from twin.dash.feed import Feed

__all__ = ["Hand", "View", "serve"]

HERE = Path(__file__).parent
PACES = {0.1: "0.1 ×", 0.25: "¼ ×", 0.5: "½ ×", 1.0: "1 ×", 2.0: "2 ×", 5.0: "5 ×", 0.0: "max"}


class View(
    ui.element,
    component="view.js",
    esm={"twin-dash": "js", "nicegui-scene": str(Path(nicegui.__file__).parent / "elements" / "scene" / "dist")},
):
    """The drawn part of the page (``view.js``)."""


class Hand:
    """Asks the twin to do things, one question at a time, on a connection of its own that is opened when it is first needed."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed
        self.paused = False  # a running twin, as it last answered
        self.factor: float | None = None  # its pace; 0: free; None: never asked
        self._client: Client | None = None
        self._turn = asyncio.Lock()

    @property
    def may(self) -> list[str]:
        """The questions this twin takes from us."""
        return list(self.feed.scene.about.get("controls") or [])

    async def ask(self, kind: str, /, **payload: Any) -> Any:
        """The answer's document, or None where it was refused; then the page says why."""
        async with self._turn:
            try:
                answer = await run.io_bound(self._ask, kind, msgspec.msgpack.encode(payload))
            except (Misuse, RemoteFault, LateArrival) as error:
                ui.notify(str(error), type="warning", multi_line=True)
                return None
        told = msgspec.msgpack.decode(answer) if answer else {}
        if "paused" in told:  # a running twin's status; a replay says where it stands on a topic of its own
            self.paused, self.factor = bool(told["paused"]), float(told["factor"]) if told["mode"] == "paced" else 0.0
        return told

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, kind: str, payload: bytes) -> bytes:
        try:
            if self._client is None:
                self._client = Client(
                    self.feed.control, Patience(warn_s=5.0, give_up_s=5.0), self.feed.keys, name="dash"
                )
            return self._client.ask(kind, payload)
        except (RemoteFault, LateArrival):
            self.close()
            raise


def serve(feed: Feed, host: str, port: int) -> None:
    """Serve the page until Ctrl-C."""
    hand = Hand(feed)
    app.add_static_files("/twin", HERE)

    @app.websocket("/frames")
    async def frames(socket: WebSocket) -> None:
        await stream(socket, feed)

    @ui.page("/")
    def page() -> None:
        compose(feed, hand)

    app.on_startup(feed.start)
    app.on_shutdown(hand.close)
    address = f"http://{'127.0.0.1' if host in ('0.0.0.0', '::') else host}:{port}"
    app.on_startup(lambda: print(f"dashboard of {feed.endpoint} on {address}; stop it with Ctrl-C", flush=True))
    ui.run(
        host=host,
        port=port,
        title="twin dash",
        reload=False,
        show=False,
        show_welcome_message=False,
        favicon="📡",
        ws_per_message_deflate=False,
    )


async def stream(socket: WebSocket, feed: Feed) -> None:
    """Send the newest frame whenever the last one has been drawn: old frames are never queued."""
    origin = socket.headers.get("origin")
    if origin is not None and origin.partition("://")[2] != socket.headers.get("host"):
        await socket.close(code=1008)  # another site's page has no business here
        return
    await socket.accept()
    fresh, loop, number = asyncio.Event(), asyncio.get_running_loop(), 0

    def told() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is over
            loop.call_soon_threadsafe(fresh.set)

    feed.watch(told)
    try:
        while True:
            while feed.number == number or not feed.number:
                fresh.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(fresh.wait(), 1.0)
            number = feed.number
            await socket.send_text(feed.frame.decode())
            await socket.receive_text()
    except (WebSocketDisconnect, RuntimeError):
        pass
    finally:
        feed.unwatch(told)


def compose(feed: Feed, hand: Hand) -> None:
    """One visitor's page."""
    ui.add_head_html('<link rel="stylesheet" href="/twin/dash.css">')
    dark = ui.dark_mode(None)

    async def chosen(event: Any) -> None:
        feed.user = int(event.args)

    async def sought(event: Any) -> None:
        await hand.ask("seek", t_ns=int(event.args))

    with ui.element("header").classes("twin-head"):
        ui.html('<b id="twin-title"></b>', sanitize=False)
        ui.html('<span id="twin-badge">NO TWIN YET</span>', sanitize=False)
        ui.html('<span id="twin-time"></span>', sanitize=False)
        ui.space()
        buttons = controls(feed, hand)
        ui.button(icon="dark_mode", on_click=lambda: dark.set_value(dark.value is not True)).props(
            "flat dense"
        ).tooltip("dark or light")
    View().on("choose", chosen).on("seek", sought, throttle=0.15)
    ui.timer(0.5, buttons)


def controls(feed: Feed, hand: Hand) -> Callable[[], None]:
    """Buttons for what the twin lets us do; what it returns shows and hides them as the twin changes."""

    async def toggle() -> None:
        await hand.ask("pause" if playing() else "resume")

    async def step() -> None:
        await hand.ask("step", subframes=1)

    async def paced(event: Any) -> None:
        if event.value != speed():
            await hand.ask("pace", factor=float(event.value))

    def playing() -> bool:
        return not hand.paused if feed.replay is None else bool(feed.replay["playing"])

    def speed() -> float | None:
        if feed.replay is not None:
            return float(feed.replay["speed"])
        clock = feed.scene.about.get("clock") or {}
        return (
            (float(clock.get("factor", 1.0)) if clock.get("mode") == "paced" else 0.0)
            if hand.factor is None
            else hand.factor
        )

    breaking, setting = fault_dialog(feed, hand), value_dialog(hand)
    pause = ui.button(icon="pause", on_click=toggle).props("flat dense").mark("pause")
    once = ui.button(icon="skip_next", on_click=step).props("flat dense").tooltip("one subframe").mark("step")
    pace = (
        ui.select(PACES, value=1.0, on_change=paced)
        .props("dense options-dense borderless")
        .tooltip("simulated over wall time")
        .mark("pace")
    )

    inject = ui.button(icon="bolt", on_click=breaking).props("flat dense").tooltip("break something").mark("inject")
    mend = (
        ui.button(icon="healing", on_click=lambda: hand.ask("mend"))
        .props("flat dense")
        .tooltip("mend everything")
        .mark("mend")
    )
    put = (
        ui.button(icon="tune", on_click=setting)
        .props("flat dense")
        .tooltip("change precoder, plan, tracker while it runs")
        .mark("set")
    )

    def refresh() -> None:
        may = hand.may
        for verb, shown in (
            ("pause", pause),
            ("step", once),
            ("pace", pace),
            ("inject", inject),
            ("mend", mend),
            ("set", put),
        ):
            shown.set_visibility(verb in may and feed.scene.condition not in ("gone", "stopped", "waiting"))
        pause.props(f"icon={'pause' if playing() else 'play_arrow'}")
        now = speed()
        if now is not None and pace.value != now:
            pace.set_options({**PACES, now: PACES.get(now, f"{now:g} ×")}, value=now)

    refresh()
    return refresh


def fault_dialog(feed: Feed, hand: Hand) -> Callable[[], object]:
    """Asks which fault, where; what it returns opens it."""
    with ui.dialog() as dialog, ui.card().classes("w-96"):
        ui.label("Break something now").classes("text-lg")
        kind = ui.select(list(get_args(Kind)), value="dead_element", label="kind").classes("w-full").mark("kind")
        half = ui.toggle(["transmit", "receive"], value="transmit")
        elements = (
            ui.input("elements, from to", value="0 63")
            .classes("w-full")
            .props('hint="of dead and stuck elements; the first is 0"')
        )
        chain = ui.number("chain", value=0, min=0, precision=0).classes("w-full")
        lasts = ui.number("mended after, ms (0: never)", value=0, min=0).classes("w-full")

        async def strike() -> None:
            given: dict[str, Any] = {"kind": kind.value, "half": half.value}
            if kind.value in ("dead_element", "stuck_phase", "stuck_bit"):
                edges = [int(n) for n in elements.value.replace("-", " ").split() if n.isdigit()]
                if not edges:
                    ui.notify("elements: write two numbers, e.g. 0 63", type="warning")
                    return
                given["elements"] = list(range(edges[0], edges[-1] + 1))
            elif kind.value == "chain_off":
                given["chain"] = int(chain.value or 0)
            if lasts.value and feed.scene.kpi is not None:
                given["until_ms"] = int(feed.scene.kpi["t_ns"]) * 1e-6 + float(lasts.value)
            if await hand.ask("inject", **given) is not None:
                dialog.close()

        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat")
            ui.button("Break it", on_click=strike).mark("strike")
    return dialog.open


def value_dialog(hand: Hand) -> Callable[[], object]:
    """Asks for a path and a value to change while the twin runs; what it returns opens it."""
    with ui.dialog() as dialog, ui.card().classes("w-[34rem]"):
        ui.label("Change a parameter while it runs").classes("text-lg")
        path = ui.input("path", value="precoder.kind").classes("w-full").mark("path")
        value = ui.input("value", placeholder="no_ttd").classes("w-full").mark("value")
        ui.label(
            "Precoders: no_ttd, delay_phase, direct, sa_opt, cbs, sensing_dedicated; planners: fixed, dual_scale "
            "(planner.kind). The twin refuses what is not live, and says what is."
        ).classes("text-sm")

        async def change() -> None:
            if await hand.ask("set", **{path.value: value.value}) is not None:
                dialog.close()

        with ui.row().classes("w-full justify-end"):
            ui.button("Cancel", on_click=dialog.close).props("flat")
            ui.button("Change it", on_click=change).mark("change")

    return dialog.open
