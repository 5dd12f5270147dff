"""The images and the composed testbed agree with each other, the settings and the tree."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_server.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from tests.support.programs import required_program, run_program

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose.yaml"
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
EDGES = ["edge-1", "edge-2", "edge-3"]
TARGETS = ["cloud", "edge", "link"]
KNOWN_VARIABLES = {
    *(f"SCOUT_CLOUD_{name.upper()}" for name in CloudSettings.model_fields),
    *(f"SCOUT_EDGE_{name.upper()}" for name in EdgeSettings.model_fields),
}


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The composed services as docker-compose understands them."""
    result = run_program([required_program("docker-compose"), "-f", COMPOSE, "config"])
    assert result.returncode == 0, result.stderr
    return yaml.safe_load(result.stdout)["services"]


@pytest.fixture(scope="module")
def stages() -> dict[str, str]:
    """The Dockerfile's stages by name."""
    text = DOCKERFILE.read_text()
    parts = re.split(r"^FROM \S+ AS (\S+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_testbed_has_one_cloud_one_link_and_three_edges(services: dict[str, Any]) -> None:
    assert set(services) == {"cloud", "link", *EDGES}


def test_every_byte_between_edge_and_cloud_crosses_the_link(services: dict[str, Any]) -> None:
    networks = {name: set(service["networks"]) for name, service in services.items()}
    for edge in EDGES:
        assert networks[edge].isdisjoint(networks["cloud"])
        assert networks[edge] & networks["link"]
    assert networks["link"] & networks["cloud"]


def test_each_edge_has_its_own_name_port_and_cache(services: dict[str, Any]) -> None:
    names = [services[edge]["environment"]["SCOUT_EDGE_AGENT_ID"] for edge in EDGES]
    ports = [str(services[edge]["ports"]) for edge in EDGES]
    caches = [str(services[edge]["volumes"]) for edge in EDGES]
    assert names == EDGES
    assert len(set(ports)) == len(set(caches)) == len(EDGES)


def test_every_service_is_confined(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name


def test_every_variable_is_a_setting(services: dict[str, Any], stages: dict[str, str]) -> None:
    composed = {key for service in services.values() for key in service.get("environment", {})}
    built = set(re.findall(r"\b(SCOUT_\w+)=", "".join(stages.values())))
    assert composed | built <= KNOWN_VARIABLES


def test_every_image_is_built_by_a_stage(services: dict[str, Any]) -> None:
    targets = {service["build"]["target"] for service in services.values()}
    assert targets == set(TARGETS)
    for service in services.values():
        context = (COMPOSE.parent / service["build"]["context"]).resolve()
        assert context == ROOT
        assert context / service["build"]["dockerfile"] == DOCKERFILE


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_an_ordinary_user_and_reports_its_health(
    target: str, stages: dict[str, str]
) -> None:
    assert re.search(r"^USER 10001:10001$", stages["base"], re.MULTILINE)
    assert not re.search(r"^USER ", stages[target], re.MULTILINE)
    assert re.search(r"^HEALTHCHECK ", stages[target], re.MULTILINE)


def test_every_copied_path_exists_and_is_in_the_build_context(stages: dict[str, str]) -> None:
    ignore = (DOCKERFILE.parent / "Dockerfile.dockerignore").read_text().splitlines()
    admitted = tuple(line[1:] for line in ignore if line.startswith("!"))
    copied = re.findall(r"^COPY (?!--from)(.+)$", "".join(stages.values()), re.MULTILINE)
    sources = [source for line in copied for source in line.split()[:-1]]
    assert len(sources) >= 6
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source.removeprefix("./").startswith(admitted), source


def test_image_installs_the_same_base_packages_as_make() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for name in ("TORCH", "BASE_WEIGHTS"):
        match = re.search(rf"^{name} [?:]= (.+)$", makefile, re.MULTILINE)
        assert match is not None
        assert f'ARG {name}="{match[1]}"\n' in DOCKERFILE.read_text()
