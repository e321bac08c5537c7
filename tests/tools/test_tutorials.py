"""Tutorials can be followed: their Python and shell blocks run one after the other, as a reader would run them, and say what is printed there."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from twin.__main__ import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = ("start.md", "tutorials/researcher.md", "tutorials/controller.md", "tutorials/testbed.md")
NEEDS = {"tutorials/researcher.md": ("pyarrow",)}
PORT = re.compile(r"(?<=tcp://127\.0\.0\.1:)\d+")


def blocks(page: Path) -> list[tuple[str, str]]:
    """What stands in fences, with the fence's word: ``python`` and ``sh`` are run, ``console`` needs more than is sure to be there."""
    return re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)


def free_ports(count: int) -> int:
    """The first of some neighbouring ports that nobody uses."""
    while True:
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", 0)))).getsockname()[1]
            for port in range(first + 1, first + count):
                stack.enter_context(contextlib.closing(socket.create_server(("127.0.0.1", port))))
            return int(first)


def until(port: int, process: subprocess.Popen[bytes], limit_s: float = 120.0) -> None:
    """Wait until somebody listens there."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1.0).close()
            return
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.05)
    raise AssertionError(f"nobody listens at port {port}")


class Reader:
    """Somebody who types every block of a page, and leaves what runs in the background alone until the end."""

    def __init__(self, page: Path) -> None:
        self.known: dict[str, Any] = {"__name__": "__notebook__"}
        self.behind: list[subprocess.Popen[bytes]] = []
        named = sorted({int(port) for _, text in blocks(page) for port in PORT.findall(text)})
        first = free_ports(len(named)) if named else 0
        self.port = {str(port): str(first + n) for n, port in enumerate(named)}

    def reads(self, kind: str, text: str) -> str:
        """Run a block; return what it printed."""
        text = PORT.sub(lambda found: self.port[found[0]], text)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            if kind == "python":
                exec(compile(text, "<tutorial>", "exec"), self.known)
            else:
                for line in text.splitlines():
                    self.types(line.partition(" #")[0].strip(), said)
        return said.getvalue()

    def types(self, line: str, said: io.StringIO) -> None:
        """One line of a shell."""
        background = line.endswith("&")
        words = shlex.split(line.removesuffix("&"))
        if words[0] == "twin" and not background:
            assert main(words[1:]) == 0, line
            return
        command = [sys.executable, *(["-m", "twin"] if words[0] == "twin" else []), *words[1:]]
        if background:
            self.behind.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
            until(int(PORT.findall(line)[-1]), self.behind[-1])
        else:
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, line + done.stderr
            said.write(done.stdout)

    def leaves(self) -> None:
        """End what still runs."""
        for process in self.behind:
            process.terminate()
            process.wait(60)


def frame(text: str) -> list[str]:
    """Words without the numbers in them: what another computer, and a later commit, prints too."""
    return re.findall(r"[A-Za-z_]{3,}", text)


@pytest.mark.slow
@pytest.mark.parametrize("name", PAGES)
def test_every_block_runs_and_prints_what_the_page_says(name, tmp_path, monkeypatch):
    for package in NEEDS.get(name, ()):
        pytest.importorskip(package)
    for folder in ("scenarios", "tools"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", ""))))
    page = DOCS / name
    reader, said = Reader(page), ""
    try:
        for kind, text in blocks(page):
            if kind in ("python", "sh"):
                said = reader.reads(kind, text)
                if kept := os.environ.get("TUTORIAL_OUTPUT"):
                    with open(kept, "a", encoding="utf-8") as stream:
                        stream.write(f"--- {text.splitlines()[0]}\n{said}\n")
            elif kind == "text":
                missing = set(frame(text)) - set(frame(said))
                assert not missing, f"{name} shows {sorted(missing)}, which were not printed:\n{said}"
    finally:
        reader.leaves()


def test_what_does_not_run_is_marked_as_such():
    for name in PAGES:
        kinds = {kind for kind, _ in blocks(DOCS / name)}
        assert kinds <= {"python", "sh", "console", "text", "yaml"}, name
        assert "sh" in kinds or "python" in kinds
