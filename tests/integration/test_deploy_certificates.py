"""The certificate script's files carry a mutually authenticated call, and nothing less does."""

from __future__ import annotations

import stat
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2

from scout_core.rpc.channel import RpcServer, TlsFiles, open_channel
from scout_core.rpc.options import ChannelRole
from tests.support.programs import required_program, run_program

SCRIPT = Path(__file__).resolve().parents[2] / "deploy" / "certificates" / "make-certificates.sh"
CALL_TIMEOUT_S = 10


def _make(folder: Path, *options: str) -> None:
    required_program("openssl")
    result = run_program([SCRIPT, folder, *options])
    assert result.returncode == 0, result.stderr


def _files(folder: Path, name: str) -> TlsFiles:
    return TlsFiles(folder / f"{name}.pem", folder / f"{name}-key.pem", folder / "authority.pem")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    folder = tmp_path / "tls"
    _make(folder, "--edge", "edge-1")
    return folder


@pytest.fixture
async def secured_port(certificates: Path) -> AsyncIterator[int]:
    server = RpcServer()
    port = server.listen("127.0.0.1:0", _files(certificates, "cloud"))
    await server.start()
    yield port
    await server.stop(0)


async def _check_health(port: int, tls: TlsFiles) -> int:
    async with open_channel(f"127.0.0.1:{port}", ChannelRole.CONTROL, tls) as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
            response_deserializer=health_pb2.HealthCheckResponse.FromString,
        )
        response = await check(health_pb2.HealthCheckRequest(), timeout=CALL_TIMEOUT_S)
    return response.status


async def test_an_edge_with_its_certificate_is_served(
    certificates: Path, secured_port: int
) -> None:
    status = await _check_health(secured_port, _files(certificates, "edge-1"))
    assert status == health_pb2.HealthCheckResponse.SERVING


async def test_an_edge_without_certificate_is_refused(
    certificates: Path, secured_port: int
) -> None:
    nameless = TlsFiles(authority=certificates / "authority.pem")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _check_health(secured_port, nameless)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_an_edge_of_another_authority_is_refused(
    certificates: Path, secured_port: int, tmp_path: Path
) -> None:
    _make(tmp_path / "other", "--edge", "edge-1")
    other = _files(tmp_path / "other", "edge-1")
    stranger = TlsFiles(other.certificate, other.key, certificates / "authority.pem")
    with pytest.raises(grpc.aio.AioRpcError) as refusal:
        await _check_health(secured_port, stranger)
    assert refusal.value.code() is grpc.StatusCode.UNAVAILABLE


def test_keys_are_for_their_owner_alone(certificates: Path) -> None:
    keys = sorted(certificates.glob("*-key.pem"))
    assert [key.name for key in keys] == ["authority-key.pem", "cloud-key.pem", "edge-1-key.pem"]
    for key in keys:
        assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_a_later_run_adds_an_edge_and_keeps_the_rest(certificates: Path) -> None:
    before = {path.name: path.read_bytes() for path in certificates.iterdir()}
    _make(certificates, "--edge", "edge-2")
    after = {path.name: path.read_bytes() for path in certificates.iterdir()}
    assert after.keys() - before.keys() == {"edge-2.pem", "edge-2-key.pem"}
    assert {name: after[name] for name in before} == before


def test_the_cloud_certificate_names_what_was_asked(tmp_path: Path) -> None:
    _make(tmp_path, "--cloud", "cloud.example,10.77.0.2,fd00::2")
    command = [required_program("openssl"), "x509", "-in", tmp_path / "cloud.pem", "-noout"]
    names = run_program([*command, "-ext", "subjectAltName"]).stdout
    assert "DNS:cloud.example, IP Address:10.77.0.2, IP Address:FD00:0:0:0:0:0:0:2" in names


@pytest.mark.parametrize(
    "arguments",
    [[], ["--edge", "a"], ["out", "--edge"], ["out", "--days", "x"], ["out", "--edge", "../a"]],
)
def test_a_wrong_call_says_what_is_wrong_and_makes_nothing(
    arguments: list[str], tmp_path: Path
) -> None:
    required_program("openssl")
    result = run_program([SCRIPT, *arguments], folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("make-certificates: ")
    assert list(tmp_path.iterdir()) == []
