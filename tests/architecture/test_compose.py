"""What docker-compose.yml promises about the containers it starts, checked without an engine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

COMPOSE = Path(__file__).parents[2] / "docker-compose.yml"
STOP_S = 10
"""uvicorn's own stop and the lifespan's end, after the drain."""

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
EDGES = {"chat": ["chat-1", "chat-2"], "notifications": ["notifications-1", "notifications-2"]}
REPLICAS = ["auth-1", "auth-2", *EDGES["chat"], *EDGES["notifications"], "price-feed-1", "price-feed-2"]
ONE_SHOTS = ["provision", "demo-account"]


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_can_take_the_whole_machine(name: str) -> None:
    service = SERVICES[name]

    assert service["mem_limit"] == "1g"
    assert service["pids_limit"] == 512


def test_nothing_is_reachable_from_elsewhere_unless_somebody_says_so() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert published == {
        "proxy": ["${BIND:-127.0.0.1}:${PORT:-8080}:8080"],
        "nats": ["127.0.0.1:${NATS_PORT:-4222}:4222"],
    }


@pytest.mark.parametrize("name", REPLICAS)
def test_a_service_has_time_to_drain_before_it_is_killed(name: str) -> None:
    service = SERVICES[name]

    assert int(service["stop_grace_period"].removesuffix("s")) >= float(service["environment"]["DRAIN_S"]) + STOP_S


@pytest.mark.parametrize("name", REPLICAS)
def test_a_service_starts_after_the_streams_are_made_and_is_healthy_when_it_is_ready(name: str) -> None:
    service = SERVICES[name]

    assert service["depends_on"]["provision"] == {"condition": "service_completed_successfully"}
    assert "/readyz" in service["healthcheck"]["test"][-1]


@pytest.mark.parametrize("name", REPLICAS)
def test_a_service_has_its_own_user_of_nats(name: str) -> None:
    user = name.rpartition("-")[0].replace("-", "_")
    variable = f"NATS_{user.upper()}_PASSWORD"
    password = f"${{{variable}:-{user}}}"

    assert SERVICES[name]["environment"]["NATS_URL"] == f"nats://{user}:{password}@nats:4222"
    assert SERVICES["nats"]["environment"][variable] == password


def test_the_proxy_knows_every_replica() -> None:
    environment = SERVICES["proxy"]["environment"]

    upstreams = [upstream for key in environment if key.endswith("_UPSTREAMS") for upstream in environment[key].split()]

    assert upstreams == [f"{name}:8000" for name in REPLICAS if not name.startswith("price-feed")]


@pytest.mark.parametrize("name", REPLICAS)
def test_what_a_person_chooses_reaches_every_service(name: str) -> None:
    environment = SERVICES[name]["environment"]

    assert environment["FANFARE_ENV"] == "${FANFARE_ENV:-development}"
    assert environment["FANFARE_LIMITS"] == "${FANFARE_LIMITS:-on}"


def test_images_are_pinned_and_everything_that_stays_is_checked_and_restarted() -> None:
    for name, service in SERVICES.items():
        assert "build" in service or re.search(r":\d+", service["image"]), name
        if name not in ONE_SHOTS:
            assert service["restart"] == "unless-stopped", name
            assert name == "proxy" or service["healthcheck"]["test"], "the proxy's check is in its image"
