"""Option keys are spelt as grpc spells them, and the two ends agree on pings and sizes."""

from __future__ import annotations

import pytest
from grpc._cython import cygrpc

from scout_core.rpc.options import (
    MAX_CHUNK_BYTES,
    MAX_MESSAGE_BYTES,
    ChannelRole,
    channel_options,
    server_options,
)

KNOWN_TO_CORE = cygrpc.__file__ or ""


@pytest.fixture(scope="module")
def library() -> bytes:
    """grpc's own library: a key it reads is a string in it."""
    with open(KNOWN_TO_CORE, "rb") as file:
        return file.read()


@pytest.mark.parametrize(
    "key",
    sorted({key for key, _ in [*server_options(65_536), *channel_options(ChannelRole.DATA)]}),
)
def test_key_is_one_that_the_library_reads(key: str, library: bytes) -> None:
    assert key.encode() + b"\0" in library


def test_a_misspelt_key_would_be_noticed(library: bytes) -> None:
    assert b"grpc.http2.min_ping_interval_without_dat_ms\0" not in library


def test_channels_of_different_roles_share_no_connection() -> None:
    options = [tuple(channel_options(role)) for role in ChannelRole]
    assert len(set(options)) == len(ChannelRole)


def test_server_permits_the_pings_that_clients_send() -> None:
    client, server = dict(channel_options(ChannelRole.CONTROL)), dict(server_options())
    permitted_ms = server["grpc.http2.min_ping_interval_without_data_ms"]
    sent_ms = client["grpc.keepalive_time_ms"]
    assert isinstance(permitted_ms, int)
    assert isinstance(sent_ms, int)
    assert permitted_ms < sent_ms


def test_control_notices_a_dead_path_before_data_gives_its_own_up() -> None:
    def noticed_ms(role: ChannelRole) -> int:
        options = dict(channel_options(role))
        keys = ("grpc.keepalive_time_ms", "grpc.http2.ping_timeout_ms")
        return sum(int(options[key]) for key in keys)

    assert noticed_ms(ChannelRole.CONTROL) <= 10_000
    # A data channel's ping may wait behind seconds of payload on a slow uplink.
    assert noticed_ms(ChannelRole.CONTROL) < noticed_ms(ChannelRole.DATA)
    for role in ChannelRole:
        assert dict(channel_options(role))["grpc.http2.max_pings_without_data"] == 0


def test_both_ends_cap_messages_and_a_chunk_fits() -> None:
    for options in (dict(channel_options(ChannelRole.DATA)), dict(server_options())):
        assert options["grpc.max_receive_message_length"] == MAX_MESSAGE_BYTES
        assert options["grpc.max_send_message_length"] == MAX_MESSAGE_BYTES
    assert 2 * MAX_CHUNK_BYTES < MAX_MESSAGE_BYTES


def test_no_copy_of_the_payload_is_kept_for_retries() -> None:
    assert dict(channel_options(ChannelRole.DATA))["grpc.enable_retries"] == 0
