"""Virtual time: exact where a transfer is alone, and equal to the piecewise model where not."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from random import Random
from time import perf_counter

import pytest

from scout_core.errors import LocalProtocolError
from scout_core.testbed import generators
from scout_core.testbed.bottleneck import Bottleneck
from scout_core.testbed.exchanges import Exchange, simulate
from scout_core.testbed.generators import RadioClass
from scout_core.testbed.link import SEGMENT_BYTES, DirectionConfig, LinkConfig
from scout_core.testbed.queueing import Discipline, FlowId
from scout_core.testbed.schedule import RateSchedule
from scout_core.testbed.virtual import VirtualDirection

A, B = FlowId(1), FlowId(2)
EIGHT = RateSchedule.constant(8.0)  # 1,000,000 bytes a second


@dataclass(frozen=True)
class Sent:
    at_s: float
    flow: FlowId
    size_bytes: int


def virtual_times(config: DirectionConfig, sent: list[Sent]) -> list[float]:
    link = VirtualDirection(config)
    indices = {
        link.submit(item.flow, item.size_bytes, item.at_s): index for index, item in enumerate(sent)
    }
    times = [math.inf] * len(sent)
    for done in link.advance(1e6):
        times[indices[done.transfer]] = done.at_s
    return times


class Senders:
    """Blocked senders of the piecewise model, read in turns as ``lane`` reads them."""

    def __init__(self, config: DirectionConfig, sent: list[Sent]) -> None:
        self.link = Bottleneck(config, 0.0)
        self.coming = deque(sorted(enumerate(sent), key=lambda item: item[1].at_s))
        self.ready: deque[FlowId] = deque()
        self.pending: dict[FlowId, int] = {}
        self.landed: dict[FlowId, int] = {}
        self.total: dict[FlowId, int] = {}
        self.marks: dict[FlowId, deque[tuple[int, int]]] = {}
        self.times = [math.inf] * len(sent)

    def run(self) -> list[float]:
        now = 0.0
        while self.coming or self.ready or self.link.backlog_bytes or self.link.flying_bytes:
            self.link.advance(now)
            self.land(now)
            self.arrive(now)
            self.read()
            now += 0.001
        return self.times

    def land(self, now: float) -> None:
        for piece in self.link.pop_due(now):
            self.landed[piece.flow] = self.landed.get(piece.flow, 0) + piece.size_bytes
            marks = self.marks[piece.flow]
            while marks and marks[0][0] <= self.landed[piece.flow]:
                self.times[marks.popleft()[1]] = piece.at_s

    def arrive(self, now: float) -> None:
        while self.coming and self.coming[0][1].at_s <= now:
            index, item = self.coming.popleft()
            if not self.pending.get(item.flow):
                self.ready.append(item.flow)
            self.pending[item.flow] = self.pending.get(item.flow, 0) + item.size_bytes
            self.total[item.flow] = self.total.get(item.flow, 0) + item.size_bytes
            self.marks.setdefault(item.flow, deque()).append((self.total[item.flow], index))

    def read(self) -> None:
        passed_over: list[FlowId] = []
        while self.ready:
            flow = self.ready.popleft()
            room_bytes = self.link.room_bytes(flow)
            if room_bytes < SEGMENT_BYTES:
                passed_over.append(flow)
                continue
            size_bytes = min(room_bytes, self.pending[flow])
            self.link.enqueue(flow, size_bytes)
            self.pending[flow] -= size_bytes
            if self.pending[flow]:
                self.ready.append(flow)
        self.ready.extend(passed_over)


def test_lone_transfer_takes_service_plus_delay() -> None:
    link = VirtualDirection(DirectionConfig(EIGHT, delay_s=0.01))
    link.submit(A, 500_000, 1.0)
    assert link.next_event_s() == pytest.approx(1.51)
    assert link.advance(1.5) == ()
    (done,) = link.advance(1.52)
    assert (done.flow, done.at_s) == (A, pytest.approx(1.51))
    assert link.next_event_s() == math.inf


def test_transfers_of_one_flow_go_one_after_another() -> None:
    sent = [Sent(0.0, A, 500_000), Sent(0.1, A, 500_000), Sent(3.0, A, 100_000)]
    times = virtual_times(DirectionConfig(EIGHT), sent)
    assert times == pytest.approx([0.5, 1.0, 3.1])


def test_blocked_senders_share_equally_behind_the_queue() -> None:
    config = DirectionConfig(EIGHT, queue_bytes=100_000)
    times = virtual_times(config, [Sent(0.0, A, 500_000), Sent(0.0, B, 300_000)])
    # A fills the queue alone; then both are admitted at half the rate.
    assert times == pytest.approx([0.8, 0.7], abs=1e-6)


def test_small_transfer_waits_for_the_fifo_queue_but_not_for_a_fair_one() -> None:
    sent = [Sent(0.0, A, 500_000), Sent(0.1, B, 100)]
    assert virtual_times(DirectionConfig(EIGHT, queue_bytes=100_000), sent)[1] == pytest.approx(
        0.2002, abs=1e-6
    )
    fair = DirectionConfig(EIGHT, queue_bytes=100_000, discipline=Discipline.FAIR)
    assert virtual_times(fair, sent)[1] == pytest.approx(0.1002, abs=1e-6)


def test_rate_change_and_outage_in_mid_transfer_are_exact() -> None:
    link = VirtualDirection(DirectionConfig(EIGHT))
    link.submit(A, 1_000_000, 0.0)
    link.set_schedule(RateSchedule.constant(4.0), 0.5)
    link.start_outage(2.0, 1.0)
    assert link.next_event_s() == pytest.approx(3.5)
    assert [done.at_s for done in link.advance(10.0)] == pytest.approx([3.5])


def test_dead_link_never_completes() -> None:
    link = VirtualDirection(DirectionConfig(RateSchedule.constant(0.0)))
    link.submit(A, 1, 0.0)
    assert link.next_event_s() == math.inf
    assert link.advance(1e9) == ()


@pytest.mark.parametrize("discipline", list(Discipline))
@pytest.mark.parametrize(
    "schedule",
    [RateSchedule.constant(50.0), generators.radio(RadioClass.FIVE_G, 60.0, 3)],
    ids=["constant", "5g"],
)
def test_competing_flows_finish_when_the_piecewise_model_says(
    discipline: Discipline, schedule: RateSchedule
) -> None:
    random, at_s, sent = Random(4), 0.0, list[Sent]()
    for _ in range(40):
        at_s += random.expovariate(8.0)
        size_bytes = random.choice([60, 4_000, 400_000, 3_000_000])
        sent.append(Sent(at_s, FlowId(random.randrange(4)), size_bytes))
    config = DirectionConfig(schedule, 0.010, 0.005, discipline=discipline, seed=3)
    expected = Senders(config, sent).run()
    assert max(expected) < math.inf
    assert virtual_times(config, sent) == pytest.approx(expected, abs=0.020)


def test_exchange_adds_upload_server_and_answer() -> None:
    config = LinkConfig(EIGHT, RateSchedule.constant(0.8), rtt_s=0.040)
    (times,) = simulate(config, [Exchange(1.0, 500_000, server_s=0.3, down_bytes=10_000)])
    assert times.uploaded_s == pytest.approx(1.52)
    assert times.answered_s == pytest.approx(1.52 + 0.3 + 0.1 + 0.02)


def test_overlapping_exchanges_keep_their_order_of_request() -> None:
    config = LinkConfig.constant(8.0, 8.0)
    exchanges = [Exchange(0.5, 100_000), Exchange(0.0, 400_000), Exchange(0.1, 400_000, flow=A)]
    times = simulate(config, exchanges)
    assert times[1].uploaded_s < times[0].uploaded_s
    assert max(item.uploaded_s for item in times) == pytest.approx(0.9)


def test_virtual_time_runs_a_thousand_times_faster_than_real_time() -> None:
    config = LinkConfig(generators.radio(RadioClass.LTE, 600.0, 1), EIGHT, 0.02, 0.005)
    exchanges = [
        Exchange(index * 1.5, 100_000, 0.1, 500, FlowId(index % 8)) for index in range(1000)
    ]
    started = perf_counter()
    times = simulate(config, exchanges)
    elapsed_s = perf_counter() - started
    assert times[-1].answered_s / elapsed_s > 1000


def test_misuse_is_refused() -> None:
    link = VirtualDirection(DirectionConfig(EIGHT))
    with pytest.raises(LocalProtocolError, match="at least one byte"):
        link.submit(A, 0, 0.0)
    link.submit(A, 1000, 5.0)
    with pytest.raises(LocalProtocolError, match="went back"):
        link.advance(4.0)
