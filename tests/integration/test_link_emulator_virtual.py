"""Real and virtual time agree: the same requests over the same traces, within 10 % in the median.

Six synthetic traces shaped like radio links, two of each class, run side by side in real time.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from random import Random
from statistics import median
from time import monotonic

from scout_core.testbed import generators
from scout_core.testbed.exchanges import Exchange, simulate
from scout_core.testbed.generators import RadioClass
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from scout_core.testbed.schedule import RateSchedule

HEADER = struct.Struct("<IfI")
"""Upload size, server seconds, answer size."""
TRACE_S = 10.0
CONNECTED_S = 0.3
"""The first request comes after the connection has paid its handshake."""


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            header = await reader.readexactly(HEADER.size)
            up_bytes, server_s, down_bytes = HEADER.unpack(header)
            await reader.readexactly(up_bytes - HEADER.size)
            await asyncio.sleep(server_s)
            writer.write(bytes(down_bytes))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@asynccontextmanager
async def serving() -> AsyncGenerator[tuple[str, int]]:
    async with await asyncio.start_server(answer, "127.0.0.1", 0, limit=1 << 20) as server:
        yield server.sockets[0].getsockname()[:2]


def requests(mean_mbps: float, seed: int) -> list[Exchange]:
    """Back-to-back-ish requests whose uploads take between a round trip and a second."""
    random, arrival_s, made = Random(seed), CONNECTED_S, list[Exchange]()
    while arrival_s < TRACE_S * 0.7:
        up_bytes = max(int(mean_mbps * 1e6 / 8 * random.uniform(0.05, 0.5)), HEADER.size)
        made.append(Exchange(arrival_s, up_bytes, server_s=0.05, down_bytes=200))
        arrival_s += random.uniform(0.6, 1.2)
    return made


async def real_times(config: LinkConfig, exchanges: list[Exchange]) -> list[float]:
    """Seconds from each request's arrival to its answer, over the emulator."""
    async with serving() as upstream, LinkEmulator(config, upstream) as link:
        started = monotonic()
        reader, writer = await asyncio.open_connection(*link.address)

        async def send() -> None:
            for exchange in exchanges:
                await asyncio.sleep(max(started + exchange.arrival_s - monotonic(), 0.0))
                writer.write(HEADER.pack(exchange.up_bytes, exchange.server_s, exchange.down_bytes))
                writer.write(bytes(exchange.up_bytes - HEADER.size))

        async with asyncio.TaskGroup() as group:
            group.create_task(send())
            times: list[float] = []
            for exchange in exchanges:
                await asyncio.wait_for(reader.readexactly(exchange.down_bytes), 60)
                times.append(monotonic() - started - exchange.arrival_s)
        writer.close()
    return times


async def test_transfer_times_agree_on_six_traces() -> None:
    configs: list[LinkConfig] = []
    loads: list[list[Exchange]] = []
    for seed in (1, 2):
        for radio_class in RadioClass:
            # A tenth of 5G's rate: six links at once must leave the processors idle.
            scale = 0.1 if radio_class is RadioClass.FIVE_G else 1.0
            uplink = generators.radio(radio_class, TRACE_S, seed).scaled(scale)
            configs.append(LinkConfig(uplink, RateSchedule.constant(50.0), 0.04, 0.01, seed=seed))
            loads.append(requests(uplink.mean_mbps(0.0, TRACE_S), seed))
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(real_times(config, load))
            for config, load in zip(configs, loads, strict=True)
        ]
    deviations: list[float] = []
    for config, load, task in zip(configs, loads, tasks, strict=True):
        virtual = [
            times.answered_s - exchange.arrival_s
            for times, exchange in zip(simulate(config, load), load, strict=True)
        ]
        pairs = zip(task.result(), virtual, strict=True)
        found = [abs(real_s / virtual_s - 1) for real_s, virtual_s in pairs]
        assert median(found) < 0.10
        deviations += found
    assert len(deviations) >= 30
    assert median(deviations) < 0.10
