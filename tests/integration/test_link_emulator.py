"""The emulator on real sockets: rate, delay, pressure, endings, live control.

Thresholds are loose where a loaded machine would make them flake; the exact figures come from
``scout link --self-test``.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import monotonic

import pytest

from scout_core.errors import PeerUnavailableError, SettingsError
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator

WRITE_BYTES = 65536
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(handler: Handler) -> AsyncGenerator[tuple[str, int]]:
    """A TCP server on a free port whose handlers are gone when the block ends."""
    running: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        running.add(task)
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            running.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in tuple(running):
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await writer.drain()


async def answer_when_complete(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read to the end, answer how many bytes came, close: needs half-close to work."""
    total = 0
    while data := await reader.read(WRITE_BYTES):
        total += len(data)
    writer.write(str(total).encode())
    await writer.drain()


async def upload_s(address: tuple[str, int], size_bytes: int) -> float:
    """Seconds to send bytes and hear their count back."""
    reader, writer = await asyncio.open_connection(*address)
    started = monotonic()
    for sent_bytes in range(0, size_bytes, WRITE_BYTES):
        writer.write(bytes(min(WRITE_BYTES, size_bytes - sent_bytes)))
        await writer.drain()
    writer.write_eof()
    answer = await asyncio.wait_for(reader.read(-1), 30)
    elapsed_s = monotonic() - started
    writer.close()
    assert int(answer) == size_bytes
    return elapsed_s


@pytest.mark.parametrize("mbps", [1.0, 10.0, 200.0])
async def test_upload_takes_the_time_of_its_rate(mbps: float) -> None:
    size_bytes = int(mbps * 1e6 / 8 * 0.6)
    async with (
        serving(answer_when_complete) as upstream,
        LinkEmulator(LinkConfig.constant(mbps, 1000.0), upstream) as link,
    ):
        elapsed_s = await upload_s(link.address, size_bytes)
    assert elapsed_s + 0.002 >= 0.6
    assert elapsed_s < 1.0


async def test_directions_have_their_own_rates() -> None:
    async with (
        serving(echo) as upstream,
        LinkEmulator(LinkConfig.constant(400.0, 4.0), upstream) as link,
    ):
        reader, writer = await asyncio.open_connection(*link.address)
        started = monotonic()
        writer.write(bytes(200_000))
        writer.write_eof()
        assert len(await asyncio.wait_for(reader.read(-1), 10)) == 200_000
        elapsed_s = monotonic() - started
        writer.close()
    assert 0.398 <= elapsed_s < 0.9


async def test_round_trip_is_the_base_rtt() -> None:
    async with (
        serving(echo) as upstream,
        LinkEmulator(LinkConfig.constant(100.0, 100.0, rtt_s=0.040), upstream) as link,
    ):
        reader, writer = await asyncio.open_connection(*link.address)
        times: list[float] = []
        for _ in range(8):
            started = monotonic()
            writer.write(b"ping")
            await asyncio.wait_for(reader.readexactly(4), 5)
            times.append(monotonic() - started)
        writer.close()
    # Each landing may be half a millisecond early (lane.EARLY_S).
    assert times[0] >= 0.078, "the first exchange also pays the handshake over the link"
    assert min(times[1:]) >= 0.039
    assert sorted(times[1:])[3] < 0.080


async def test_connections_share_one_bottleneck() -> None:
    async with (
        serving(answer_when_complete) as upstream,
        LinkEmulator(LinkConfig.constant(40.0, 100.0), upstream) as link,
        asyncio.TaskGroup() as group,
    ):
        tasks = [group.create_task(upload_s(link.address, 1_000_000)) for _ in range(4)]
    times = sorted(task.result() for task in tasks)
    assert times[-1] + 0.002 >= 0.8
    assert times[-1] < 1.4
    assert times[0] > 0.5, "nobody may take the link alone"


async def test_full_queue_blocks_the_sender_and_loses_nothing() -> None:
    received = bytearray()

    async def sink(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            received.extend(data)

    config = LinkConfig.constant(1.0, 1.0)
    async with serving(sink) as upstream, LinkEmulator(config, upstream) as link:
        reader, writer = await asyncio.open_connection(*link.address)
        writer.transport.set_write_buffer_limits(0)
        await asyncio.sleep(0.02)
        writer.write(bytes(20_000_000))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(writer.drain(), 0.3)
        up = link.statistics().up
        assert up.queue_bytes <= config.queue_bytes
        assert up.accepted_bytes < config.queue_bytes + 100_000
        payload = bytes(range(256)) * 400
        link.set_rate(up_mbps=1000.0)
        await asyncio.wait_for(writer.drain(), 10)
        writer.write(payload)
        writer.write_eof()
        await asyncio.wait_for(reader.read(), 10)
        writer.close()
    assert len(received) == 20_000_000 + len(payload)
    assert bytes(received[-len(payload) :]) == payload


async def test_rate_steps_take_effect_at_once() -> None:
    async with (
        serving(answer_when_complete) as upstream,
        LinkEmulator(LinkConfig.constant(0.1, 100.0), upstream) as link,
    ):
        task = asyncio.create_task(upload_s(link.address, 200_000))
        await asyncio.sleep(0.2)
        link.set_rate(up_mbps=100.0)
        assert await asyncio.wait_for(task, 5) < 2.0, "at 0.1 Mbit/s it takes 16 s"


async def test_outage_holds_bytes_and_then_lets_them_go() -> None:
    async with (
        serving(echo) as upstream,
        LinkEmulator(LinkConfig.constant(100.0, 100.0), upstream) as link,
    ):
        reader, writer = await asyncio.open_connection(*link.address)
        writer.write(b"a")
        await asyncio.wait_for(reader.readexactly(1), 5)
        link.outage(0.4)
        started = monotonic()
        writer.write(b"b")
        assert await asyncio.wait_for(reader.readexactly(1), 5) == b"b"
        assert 0.39 <= monotonic() - started < 1.5
        writer.close()


async def test_reset_connections_sends_a_real_reset() -> None:
    seen: asyncio.Queue[str] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read(1)
            writer.write(b"x")
            await reader.read(1)
        except ConnectionResetError:
            seen.put_nowait("reset")

    async with (
        serving(handler) as upstream,
        LinkEmulator(LinkConfig.constant(10.0, 10.0), upstream) as link,
    ):
        reader, writer = await asyncio.open_connection(*link.address)
        writer.write(b"a")
        await asyncio.wait_for(reader.readexactly(1), 5)
        assert link.reset_connections() == 1
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        assert await asyncio.wait_for(seen.get(), 5) == "reset"
        statistics = link.statistics()
        assert (statistics.open_connections, statistics.resets) == (0, 1)
        writer.close()


async def test_reset_by_the_client_reaches_the_upstream_behind_its_bytes() -> None:
    seen: asyncio.Queue[bytes | str] = asyncio.Queue()

    async def handler(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        try:
            seen.put_nowait(await reader.readexactly(3))
            await reader.read(1)
        except ConnectionResetError:
            seen.put_nowait("reset")

    config = LinkConfig.constant(10.0, 10.0, rtt_s=0.04)
    async with serving(handler) as upstream, LinkEmulator(config, upstream) as link:
        client = socket.create_connection(link.address)
        client.sendall(b"abc")
        await asyncio.sleep(0.1)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.close()
        assert await asyncio.wait_for(seen.get(), 5) == b"abc"
        assert await asyncio.wait_for(seen.get(), 5) == "reset"
        assert link.statistics().open_connections == 0


async def test_absent_upstream_resets_the_client() -> None:
    free = socket.create_server(("127.0.0.1", 0))
    address = free.getsockname()[:2]
    free.close()
    async with LinkEmulator(LinkConfig.constant(10.0, 10.0), address) as link:
        reader, writer = await asyncio.open_connection(*link.address)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(1), 5)
        writer.close()


async def test_slow_receiver_blocks_only_itself() -> None:
    stalled = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(1) == b"S":
            await stalled.wait()
        await answer_when_complete(reader, writer)

    async with (
        serving(handler) as upstream,
        LinkEmulator(LinkConfig.constant(400.0, 400.0), upstream) as link,
    ):
        slow_reader, slow_writer = await asyncio.open_connection(*link.address)
        slow_writer.write(b"S" + bytes(20_000_000))
        await asyncio.sleep(0.3)
        reader, writer = await asyncio.open_connection(*link.address)
        writer.write(b"F" + bytes(1_000_000))
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 5) == b"1000000"
        stalled.set()
        slow_writer.write_eof()
        assert await asyncio.wait_for(slow_reader.read(), 10) == b"20000000"
        writer.close()
        slow_writer.close()


async def test_leaving_the_block_leaves_no_task_and_no_socket() -> None:
    async with serving(echo) as upstream:
        before = asyncio.all_tasks()
        link = LinkEmulator(LinkConfig.constant(1.0, 1.0), upstream)
        async with link:
            address = link.address
            reader, writer = await asyncio.open_connection(*address)
            writer.write(bytes(1_000_000))
            await asyncio.sleep(0.05)
        with pytest.raises(ConnectionResetError):
            await asyncio.wait_for(reader.read(), 5)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)
        with pytest.raises(PeerUnavailableError, match="not running"):
            _ = link.address
        await asyncio.sleep(0.05)
        assert asyncio.all_tasks() <= before


async def test_unusable_addresses_are_explained() -> None:
    config = LinkConfig.constant(1.0, 1.0)
    with pytest.raises(SettingsError, match="Cannot resolve"):
        async with LinkEmulator(config, ("no-such-host.invalid", 1)):
            pass
    async with LinkEmulator(config, ("127.0.0.1", 1)) as first:
        with pytest.raises(SettingsError, match="Cannot listen"):
            async with LinkEmulator(config, ("127.0.0.1", 1), first.address):
                pass
