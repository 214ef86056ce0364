"""docker-compose.yml says what the Procfile and the devstack say. No engine runs here: this is how far it is checked."""

import re
from pathlib import Path
from string import Template
from typing import Any

import pytest
import yaml

from devstack import kafka, passwords, postgres, stack
from devstack.home import Home
from devstack.service import Site
from devstack.supervisor import read_procfile

REPO = Path(__file__).resolve().parents[2]
SERVICES = {kind.name for kind in stack.CLASSES}


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((REPO / "docker-compose.yml").read_text())
    return loaded


def test_the_services_are_the_devstack_s_and_the_processes_the_procfile_s(compose: dict[str, Any]) -> None:
    processes = read_procfile(REPO / "Procfile")
    assert set(compose["services"]) == SERVICES | set(processes) | {"bucket"}
    variables = compose["x-variables"]
    for name, command in processes.items():
        assert compose["services"][name]["command"] == Template(command).substitute(variables)


def test_the_variables_are_those_of_dotenv(compose: dict[str, Any], tmp_path: Path) -> None:
    ports = dict.fromkeys((*SERVICES, "web", "flower"), 1)
    site = Site(Home(tmp_path), ports, passwords.load(tmp_path / "secrets.json"))
    expected = stack.variables(site)
    assert set(compose["x-variables"]) == set(expected)
    for name, value in compose["x-variables"].items():
        assert shape(value) == shape(expected[name]), name
    for name in read_procfile(REPO / "Procfile"):
        assert compose["services"][name]["environment"] == compose["x-variables"]


def shape(value: str) -> str:
    """A value without its port, password and directory."""
    value = re.sub(r"\$\{\w+:-\w+\}|[0-9a-f]{32}", "PASSWORD", value)
    return re.sub(r":\d+|^\d+$", ":PORT", value) if not value.startswith("/") else "PATH"


def test_everything_listens_on_loopback(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["network_mode"] == "host"
        assert "ports" not in service
        assert "0.0.0.0" not in str(service), name


def test_everything_that_is_waited_for_can_say_that_it_is_well(compose: dict[str, Any]) -> None:
    services = compose["services"]
    for service in services.values():
        for need, how in service.get("depends_on", {}).items():
            assert need in services
            assert how["condition"] == "service_completed_successfully" or "healthcheck" in services[need]
    for name in SERVICES:
        assert services[name]["healthcheck"]["test"]


def test_the_broker_has_the_devstack_s_settings(compose: dict[str, Any]) -> None:
    """Save how the quorum is found: the image formats its log for a fixed one."""
    lines = (Path(kafka.__path__[0]) / "server.properties").read_text().splitlines()
    settings = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    del settings["controller.quorum.bootstrap.servers"]
    given = compose["services"]["kafka"]["environment"]
    places = {"port": 19092, "controller": 19093, "data": "/var/lib/kafka/data"}
    for name, value in settings.items():
        assert given[f"KAFKA_{name.upper().replace('.', '_')}"] == Template(value).substitute(places)


def test_postgres_has_the_devstack_s_limits(compose: dict[str, Any]) -> None:
    command = compose["services"]["postgres"]["command"]
    for name in (
        "shared_buffers",
        "max_connections",
        "max_prepared_transactions",
        "wal_level",
        "max_wal_size",
    ):
        value = re.search(rf"^{name} = (\S+)$", postgres.CONFIGURATION, re.MULTILINE)
        assert value is not None
        assert f"-c {name}={value[1]}" in command


def test_no_image_names_a_registry(compose: dict[str, Any]) -> None:
    images = [service["image"] for service in compose["services"].values()]
    for dockerfile in (REPO / "docker").glob("*.Dockerfile"):
        images += re.findall(r"^FROM (\S+)", dockerfile.read_text(), re.MULTILINE)
    assert all("." not in image.partition("/")[0] or "/" not in image for image in images)
