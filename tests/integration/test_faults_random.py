"""Random resets, stalls and outages during sessions of every mode: the answers stay the same, the
outcome comes in time, and nothing is left behind.

By default a small part of the full size, which is

    SCOUT_FAULT_SESSIONS=100 pytest tests/integration/test_faults_random.py
"""

from __future__ import annotations

import asyncio
import gc
import os
import time
import tracemalloc
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

import pytest

from cloud_server.app import CloudServer
from cloud_server.session import LiveSession
from edge_agent.app import EdgeAgent
from edge_agent.attempts import SILENCE_S
from edge_agent.request_run import RequestRun
from scout_core.errors import PeerTimeoutError, PeerUnavailableError
from scout_core.modes import Execution, Mode
from scout_core.rpc.client import Ask, InferenceClient
from scout_core.rpc.session_client import SessionClient
from scout_core.rpc.session_server import ServedSession
from scout_core.testbed.link import LinkConfig
from scout_core.testbed.proxy import LinkEmulator
from tests.support.faults import Rates, Saboteur, random_faults
from tests.support.testbed import (
    CONTEXT,
    QUESTION,
    Answered,
    answer,
    eventually,
    running_cloud,
    running_edge,
)
from tests.support.tiny_models import save_tiny_model

SESSIONS: Final = int(os.environ.get("SCOUT_FAULT_SESSIONS", "8"))
FAULTS: Final = 2 * SESSIONS
LONGEST_FAULT_S: Final = 6.5 if SESSIONS >= 50 else 0.6
"""At full size some faults are longer than the 5 s after which a path counts as dead."""
MOST_PER_SESSION: Final = 4
SILENT_ROUNDS: Final = max(1, SESSIONS // 20)
SHORT_DEADLINE_S: Final = 1.0
RATES: Final = Rates(up_mbps=2.0, down_mbps=10.0)
RESUME_S: Final = 4.5 if SESSIONS < 50 else 12.0
SLACK_S: Final = 1.0
"""For the processors of a busy test machine, not for the daemons."""
KEPT_BYTES: Final = 2 * 1024 * 1024
"""Python memory that may stay: caches of compiled formats, logs, estimator samples; one session
holds about 0.3 MB while it lasts."""
GRPC_TASK: Final = "_AioCall._handle_status_once_received"
"""grpc.aio's own task of a client call. A few of them outlive Session calls that were cancelled on
a stalled connection (grpcio 1.85: 2 to 5 after 100 faults); the calls themselves have ended."""
PER_SESSION_CLASSES: Final = (RequestRun, SessionClient, LiveSession, ServedSession)

pytestmark = pytest.mark.timeout(120 if SESSIONS < 50 else 1800)

BASE: Final = Ask(QUESTION, CONTEXT, deadline_s=60, max_tokens=12)
ASKS: Final = (
    replace(BASE, mode=Mode.KV_BF16),
    replace(BASE, mode=Mode.KV_INT8),
    replace(BASE, mode=Mode.KV_INT4),
    replace(BASE, mode=Mode.KV_SELECT, retention=0.5),
    replace(BASE, mode=Mode.SCOUT, retention=0.5, execution=Execution.EVICT),
    replace(BASE, mode=Mode.SCOUT, retention=0.5, execution=Execution.SPARSE),
    replace(BASE, mode=Mode.SCOUT, retention=1.0),
    BASE,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("faults") / "llama")


@dataclass(frozen=True, slots=True)
class Linked:
    """A pair with a link between."""

    cloud: CloudServer
    link: LinkEmulator
    edge: EdgeAgent
    client: InferenceClient

    async def settled(self) -> None:
        """Returns once the cloud has forgotten every session and given back what they held."""
        host = self.cloud.host
        assert host is not None
        await eventually(
            lambda: self.cloud.live_sessions == 0 and host.sessions_in_progress == 0,
            within_s=2 * RESUME_S + 5.0,
        )
        assert host.reserved_payload_bytes == 0

    async def attached(self) -> None:
        await self.edge.wait_attached(30)

    async def ask(self, ask: Ask) -> Answered:
        """Asks, and again as long as the request is refused because the link is known to be down:
        the last session's faults may go on."""
        while True:
            await self.attached()
            try:
                return await answer(self.client, ask)
            except PeerUnavailableError as refused:
                if "not reachable" not in refused.message:
                    raise


@asynccontextmanager
async def linked(model: Path) -> AsyncGenerator[Linked]:
    config = LinkConfig.constant(RATES.up_mbps, RATES.down_mbps, 0.02)
    async with (
        running_cloud(model, heartbeat_interval_s=1.0, session_resume_s=RESUME_S) as cloud,
        LinkEmulator(config, ("127.0.0.1", cloud.port)) as link,
        running_edge(
            model,
            f"127.0.0.1:{link.address[1]}",
            resume_window_s=RESUME_S,
            policy="fixed:kv_bf16",  # where none is forced: what may switch on its way
        ) as edge,
        InferenceClient(f"127.0.0.1:{edge.port}") as client,
    ):
        yield Linked(cloud, link, edge, client)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a process holds apart from the work it is doing."""

    python_bytes: int
    sessions: int

    @classmethod
    def now(cls) -> Footprint:
        gc.collect()
        return cls(
            python_bytes=tracemalloc.get_traced_memory()[0],
            sessions=sum(type(held) in PER_SESSION_CLASSES for held in gc.get_objects()),
        )


def tasks_by_name() -> Counter[str]:
    """How many tasks there are of each coroutine."""
    return Counter(
        getattr(task.get_coro(), "__qualname__", "unnamed") for task in asyncio.all_tasks()
    )


@dataclass(slots=True)
class Record:
    """How disturbed sessions ended."""

    outcomes: Counter[str] = field(default_factory=Counter[str])
    slowest_s: float = 0.0

    def note(self, got: Answered, undisturbed: Answered, elapsed_s: float) -> None:
        """Equal, or it says why not."""
        self.slowest_s = max(self.slowest_s, elapsed_s)
        degradation = got.finished.degradation
        if got.tokens == undisturbed.tokens:
            self.outcomes["resumed" if degradation else "untouched"] += 1
            return
        assert not got.started.forced, f"a forced mode answered differently: {degradation}"
        assert "deadline_forecast" in degradation
        self.outcomes["degraded"] += 1


async def undisturbed_answers(pair: Linked) -> list[tuple[Answered, float]]:
    """Every ask without faults, and how long it took."""
    found: list[tuple[Answered, float]] = []
    for ask in ASKS:
        began_s = time.monotonic()
        found.append((await answer(pair.client, ask), time.monotonic() - began_s))
    return found


async def test_disturbed_sessions_answer_as_undisturbed_ones_and_leave_nothing_behind(
    model: Path,
) -> None:
    async with linked(model) as pair:
        idle_tasks = tasks_by_name()
        undisturbed = await undisturbed_answers(pair)
        tracemalloc.start()
        try:
            before = Footprint.now()
            saboteur = Saboteur(pair.link, RATES, random_faults(FAULTS, LONGEST_FAULT_S, 1), {})
            record, sessions = Record(), 0
            while saboteur.left or sessions < SESSIONS:
                ask = ASKS[sessions % len(ASKS)]
                expected, usual_s = undisturbed[sessions % len(ASKS)]
                began_s = time.monotonic()
                asking = asyncio.create_task(pair.ask(ask))
                await saboteur.disturb(asking, usual_s, MOST_PER_SESSION)
                got = await asyncio.wait_for(asking, BASE.deadline_s or 0.0)
                record.note(got, expected, time.monotonic() - began_s)
                sessions += 1
            await pair.settled()
            await pair.attached()
            after = Footprint.now()
        finally:
            tracemalloc.stop()
        print(f"tasks beyond the idle ones: {tasks_by_name() - idle_tasks}")
        print(f"{sessions} sessions, faults {saboteur.done}, {record}, {before}, {after}")
        assert sum(saboteur.done.values()) == FAULTS
        assert record.outcomes["resumed"] > 0
        assert after.sessions == 0
        assert (tasks_by_name() - idle_tasks)[GRPC_TASK] <= FAULTS // 10

        def ours_have_ended() -> bool:
            extra = tasks_by_name() - idle_tasks
            del extra[GRPC_TASK]
            return not extra

        # A stream whose edge came back on another connection ends when its silence is noticed.
        await eventually(ours_have_ended, within_s=12.0)
        assert after.python_bytes - before.python_bytes < KEPT_BYTES


@dataclass(slots=True)
class Watched:
    """A request, when its caller first knew what becomes of it, and what did."""

    known_s: float = 0.0
    tokens: list[int] = field(default_factory=list[int])
    degradation: str = ""
    given_up: bool = False

    async def ask(self, client: InferenceClient, ask: Ask) -> None:
        """Reads to the end. An answer that has begun is resumed, however late its deadline."""
        try:
            async for response in client.generate(ask):
                match response.WhichOneof("event"):
                    case "token":
                        self.known_s = self.known_s or time.monotonic()
                        self.tokens.append(response.token.token_id)
                    case "finished":  # of an empty answer, the first that is heard
                        self.known_s = self.known_s or time.monotonic()
                        self.degradation = response.finished.degradation
                    case _:
                        pass
        except PeerTimeoutError:
            assert not self.tokens
            self.known_s, self.given_up = time.monotonic(), True


async def test_on_a_silent_link_the_outcome_is_known_a_second_after_the_deadline(
    model: Path,
) -> None:
    """…or, if the link fell silent later than that, once the silence is sure."""
    random = Random(2)
    async with linked(model) as pair:
        undisturbed = await undisturbed_answers(pair)
        given_up = 0
        for _ in range(SILENT_ROUNDS):
            began_s = time.monotonic()
            watched = [Watched() for _ in ASKS]
            asking = [
                asyncio.create_task(one.ask(pair.client, replace(ask, deadline_s=SHORT_DEADLINE_S)))
                for one, ask in zip(watched, ASKS, strict=True)
            ]
            await asyncio.sleep(random.uniform(0.05, SHORT_DEADLINE_S))
            pair.link.set_rate(up_mbps=0.0, down_mbps=0.0)
            silent_s = time.monotonic()
            latest_s = max(began_s + SHORT_DEADLINE_S + 1.0, silent_s + SILENCE_S) + SLACK_S
            await asyncio.sleep(latest_s - time.monotonic())
            unknown = [one for one in watched if not 0.0 < one.known_s < latest_s]
            assert not unknown, f"link silent after {silent_s - began_s:.2f} s"
            pair.link.set_rate(up_mbps=RATES.up_mbps, down_mbps=RATES.down_mbps)
            await asyncio.wait_for(asyncio.gather(*asking), 20)
            for one, (expected, _) in zip(watched, undisturbed, strict=True):
                if not one.given_up and "deadline_forecast" not in one.degradation:
                    assert tuple(one.tokens) == expected.tokens
            given_up += sum(one.given_up for one in watched)
            await pair.attached()
        print(f"{given_up} of {SILENT_ROUNDS * len(ASKS)} requests were given up")
        assert given_up > 0
