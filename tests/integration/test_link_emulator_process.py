"""``scout link`` as a process: control lines, reports, ending; and its command line."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from scout_core.cli import link as link_cli
from scout_core.errors import PeerUnavailableError, SettingsError
from scout_core.testbed.child import LinkProcess

PROGRAM = (sys.executable, "-m", "scout_core.cli.link")


@asynccontextmanager
async def counting_server() -> AsyncGenerator[tuple[str, int]]:
    """Answers how many bytes it received once the sender has ended."""

    async def count(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        total = 0
        while data := await reader.read(65536):
            total += len(data)
        writer.write(str(total).encode())
        writer.close()

    async with await asyncio.start_server(count, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[:2]


async def upload_s(address: tuple[str, int], size_bytes: int) -> float:
    reader, writer = await asyncio.open_connection(*address)
    started = monotonic()
    writer.write(bytes(size_bytes))
    writer.write_eof()
    assert int(await asyncio.wait_for(reader.read(), 20)) == size_bytes
    writer.close()
    return monotonic() - started


def arguments(upstream: tuple[str, int], *more: str) -> tuple[str, ...]:
    return (*PROGRAM, "--upstream", f"{upstream[0]}:{upstream[1]}", *more)


async def test_parent_steps_the_rate_of_its_child() -> None:
    async with (
        counting_server() as upstream,
        LinkProcess(arguments(upstream, "--child", "--up-mbps", "8", "--rtt-ms", "0")) as link,
    ):
        assert 0.39 <= await upload_s(link.address, 400_000) < 1.2
        await link.set_rate(up_mbps=80.0)
        assert await upload_s(link.address, 400_000) < 0.35
        statistics = await link.statistics()
        assert statistics["up"]["delivered_bytes"] == 800_000
        assert statistics["up"]["rate_mbps"] == 80.0
        assert statistics["total_connections"] == 2


async def test_parent_makes_outages_and_resets() -> None:
    async with (
        counting_server() as upstream,
        LinkProcess(arguments(upstream, "--child", "--rtt-ms", "0")) as link,
    ):
        await link.outage(0.4)
        assert 0.38 <= await upload_s(link.address, 1000) < 1.5
        reader, writer = await asyncio.open_connection(*link.address)
        for _ in range(500):
            if (await link.statistics())["open_connections"]:
                break
            await asyncio.sleep(0.01)
        await link.reset_connections()
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()


async def test_refused_command_says_why_and_the_link_goes_on() -> None:
    async with LinkProcess(arguments(("127.0.0.1", 1), "--child")) as link:
        with pytest.raises(SettingsError, match="up_mbps"):
            await link.set_rate(up_mbps=-1.0)
        assert (await link.statistics())["up"]["rate_mbps"] == 20.0


async def test_child_that_cannot_start_or_has_died_is_reported() -> None:
    with pytest.raises(PeerUnavailableError, match="ended"):
        async with LinkProcess(arguments(("no-such-host.invalid", 1), "--child")):
            pass
    link = LinkProcess(arguments(("127.0.0.1", 1), "--child"))
    with pytest.raises(PeerUnavailableError, match="not running"):
        _ = link.address


async def test_child_ends_when_its_parent_goes_away() -> None:
    pipe = asyncio.subprocess.PIPE
    command = arguments(("127.0.0.1", 1), "--child")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    assert process.stdin is not None
    assert process.stdout is not None
    assert json.loads(await asyncio.wait_for(process.stdout.readline(), 20))["event"] == "ready"
    process.stdin.close()
    assert await asyncio.wait_for(process.wait(), 5) == 0


async def test_by_hand_it_reports_on_stderr_and_ends_on_a_signal() -> None:
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *arguments(("127.0.0.1", 1), "--status-s", "0.1", "--up-mbps", "7"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=pipe,
        stderr=pipe,
    )
    assert process.stderr is not None
    report = json.loads(await asyncio.wait_for(process.stderr.readline(), 20))
    assert report["event"] == "link_status"
    assert report["up"]["rate_mbps"] == 7.0
    process.terminate()
    assert await asyncio.wait_for(process.wait(), 5) == 0
    # communicate() closes the pipes, which a warning would otherwise complain of.
    await process.communicate()


async def test_overlong_line_is_refused_and_the_next_obeyed() -> None:
    pipe = asyncio.subprocess.PIPE
    command = arguments(("127.0.0.1", 1), "--status-s", "0")
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    output, _ = await asyncio.wait_for(
        process.communicate(b"x" * 9000 + b"\n" + b'{"stop": true}\n'), 20
    )
    replies = [json.loads(line) for line in output.splitlines()[1:]]
    assert "at most" in replies[0]["error"]
    assert replies[-1]["ok"] is True
    assert process.returncode == 0


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(link_cli.command, list[str](words))
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ((), "--upstream"),
        (("--upstream", "nowhere"), "not HOST:PORT"),
        (("--upstream", "a:1", "--steps", "100"), "not MBPS:SECONDS"),
        (("--upstream", "a:1", "--steps", "100:-1,3:5"), "must increase"),
        (("--upstream", "a:1", "--steps", "3:5", "--generate", "lte"), "one of a trace"),
        (("--upstream", "a:1", "--trace", "absent.csv"), "Cannot read the trace"),
        (("--upstream", "a:1", "--queue-kib", "0"), "queue_bytes"),
        (("--upstream", "a:1", "--up-mbps", "-3"), "Rate 0"),
    ],
)
def test_command_line_errors_say_what_to_do(words: Sequence[str], complaint: str) -> None:
    code, output = run(*words)
    assert code != 0
    assert complaint in output


async def test_trace_and_steps_shape_the_uplink(tmp_path: Path) -> None:
    trace = tmp_path / "up.csv"
    trace.write_text("t_s,mbps\n0,5\n1000,6\n", encoding="utf-8")
    for words, mbps in ((("--trace", str(trace)), 5.0), (("--steps", "9:1000,1:5"), 9.0)):
        async with LinkProcess(arguments(("127.0.0.1", 1), "--child", *words)) as link:
            assert (await link.statistics())["up"]["rate_mbps"] == mbps
