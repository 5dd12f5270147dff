"""A daemon as systemd would run it: a child process that says over a socket when it is ready."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Self

READY_TIMEOUT_S = 90
STOP_TIMEOUT_S = 30
SCRIPTS = Path(sys.executable).parent


class SupervisedDaemon:
    """``scout-cloud`` or ``scout-edge`` with NOTIFY_SOCKET set; use as ``with``.

    Args:
        program: name of the console script.
        folder: where its socket and log go.
        flags: its command line.
    """

    def __init__(self, program: str, folder: Path, *flags: str) -> None:
        self.log = folder / f"{program}.log"
        self.port = 0
        self._command = [str(SCRIPTS / program), "--listen", "127.0.0.1:0", *flags]
        self._address = str(folder / f"{program}.notify")
        self._notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self._notices.bind(self._address)
        environment = os.environ | {"NOTIFY_SOCKET": self._address, "OMP_NUM_THREADS": "1"}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self._command, env=environment, stderr=log, stdin=subprocess.DEVNULL
            )
        ready = self._first_notice()
        assert ready.startswith("READY=1\nSTATUS=")
        port = re.search(r"127\.0\.0\.1:(\d+)", ready)
        assert port is not None
        self.port = int(port[1])
        return self

    def __exit__(self, *_: object) -> None:
        process = self.process
        if process.poll() is None:
            process.kill()
        process.wait(STOP_TIMEOUT_S)
        self._notices.close()

    def _first_notice(self) -> str:
        self._notices.settimeout(0.2)
        give_up_s = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < give_up_s:
            try:
                return self.notice()
            except TimeoutError:
                assert self.process.poll() is None, self.log.read_text(encoding="utf-8")[-2_000:]
            finally:
                self._notices.settimeout(STOP_TIMEOUT_S)
            self._notices.settimeout(0.2)
        raise AssertionError("the daemon was not ready in time")

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def notice(self) -> str:
        """The next message to systemd."""
        return self._notices.recv(4_096).decode()

    def terminate(self) -> None:
        """As ``systemctl stop``."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self) -> int:
        return self.process.wait(STOP_TIMEOUT_S)


def run_scout(*arguments: str, within_s: float = 60) -> subprocess.CompletedProcess[str]:
    """``scout`` with arguments, to its end."""
    return subprocess.run(
        [str(SCRIPTS / "scout"), *arguments],
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def wait_for(condition: object, within_s: float = 20) -> None:
    """Polls a callable until it returns something true."""
    assert callable(condition)
    give_up_s = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < give_up_s, "it did not happen in time"
        time.sleep(0.1)
