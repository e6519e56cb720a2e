"""What is shipped to run the service in containers: it is well formed, confined, and starts what the product has."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import check_jsonschema
import dockerfile
import jsonschema
import pytest
import yaml
from dramatiq.cli import make_argument_parser
from typer.testing import CliRunner

from rag_service import __version__
from rag_service.cli import app
from rag_service.settings import Settings

ROOT = Path(__file__).parent.parent.parent
SCHEMA = Path(check_jsonschema.__file__).parent / "builtin_schemas" / "vendor" / "compose-spec.json"
# Whether they live is told by leases and by the age of due work, not by a port.
WITHOUT_PORT = {"worker", "scheduler"}

Service = dict[str, Any]


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return loaded


@pytest.fixture(scope="module")
def instructions() -> tuple[dockerfile.Command, ...]:
    parsed: tuple[dockerfile.Command, ...] = dockerfile.parse_file(str(ROOT / "Dockerfile"))
    return parsed


def ours(compose: dict[str, Any]) -> dict[str, Service]:
    return {name: service for name, service in compose["services"].items() if "build" in service}


# --- how services are confined --------------------------------------------------------------


def weaknesses(compose: dict[str, Any]) -> list[str]:
    """Everything about a compose file that gives a service more than it needs."""
    return [
        f"{name}: {told}"
        for name, service in compose["services"].items()
        for told in (*_powers(service), *_openings(service))
    ]


def _powers(service: Service) -> Iterator[str]:
    tag = service["image"].rpartition(":")[2]
    if not re.search(r"\d+\.\d+", tag):
        yield "image without a version"
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", service.get("user", "")):
        yield "runs as root, or as whoever the image says"
    if service.get("read_only") is not True:
        yield "can write its own programs"
    if service.get("cap_drop") != ["ALL"] or service.get("cap_add"):
        yield "has capabilities"
    if "no-new-privileges:true" not in service.get("security_opt", []) or len(service["security_opt"]) > 1:
        yield "may gain privileges"
    if service.get("privileged") or {"pid", "ipc", "network_mode", "devices", "userns_mode"} & set(service):
        yield "shares something with the host"


def _openings(service: Service) -> Iterator[str]:
    if not {"cpus", "memory", "pids"} <= set(service.get("deploy", {}).get("resources", {}).get("limits", {})):
        yield "has no limits"
    for volume in service.get("volumes", []):
        if not re.match(r"[a-z]+:/", volume):
            yield f"mounts a folder of the host: {volume}"
    for port in service.get("ports", []):
        if not re.match(r"\$\{\w+:-127\.0\.0\.1\}:|127\.0\.0\.1:", port):
            yield f"is open to other machines: {port}"


def test_every_service_is_confined(compose: dict[str, Any]) -> None:
    assert weaknesses(compose) == []


@pytest.mark.parametrize(
    "change",
    [
        {"image": "postgres"},
        {"image": "postgres:latest"},
        {"user": "root"},
        {"user": "0:0"},
        {"read_only": False},
        {"cap_add": ["NET_ADMIN"]},
        {"cap_drop": []},
        {"security_opt": []},
        {"security_opt": ["no-new-privileges:true", "seccomp:unconfined"]},
        {"privileged": True},
        {"network_mode": "host"},
        {"pid": "host"},
        {"deploy": {}},
        {"volumes": ["/var/run/docker.sock:/var/run/docker.sock"]},
        {"volumes": ["./data:/data"]},
        {"ports": ["5432:5432"]},
        {"ports": ["0.0.0.0:5432:5432"]},
    ],
    ids=str,
)
def test_a_service_that_has_more_than_it_needs_is_caught(compose: dict[str, Any], change: Service) -> None:
    loosened = deepcopy(compose)
    loosened["services"]["postgres"].update(change)
    assert len(weaknesses(loosened)) == 1


def test_only_the_proxy_is_published(compose: dict[str, Any]) -> None:
    assert [name for name, service in compose["services"].items() if service.get("ports")] == ["proxy"]


def test_stores_have_no_way_out(compose: dict[str, Any]) -> None:
    assert compose["networks"]["inside"]["internal"] is True
    for name in ("postgres", "redis", "qdrant"):
        assert compose["services"][name]["networks"] == ["inside"]


def test_no_secret_has_a_default(compose: dict[str, Any]) -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secret = re.compile(r"PASSWORD|KEY|SECRET|TOKEN")
    named = {name: rest for name, rest in re.findall(r"\$\{(\w+)([^}]*)\}", text) if secret.search(name)}
    passwords = {"RAG_POSTGRES_PASSWORD", "RAG_REDIS_PASSWORD"}
    assert set(named) == {"RAG_ADMIN_KEY", "RAG_SECRET_KEYS", "RAG_QDRANT_API_KEY"} | passwords
    assert all(rest.startswith(":?") for rest in named.values())
    for service in compose["services"].values():
        for name, value in service.get("environment", {}).items():
            assert not secret.search(name) or "${" in value, name
    examples = dict(line.split("=", 1) for line in (ROOT / ".env.example").read_text().splitlines() if "=" in line)
    assert examples == dict.fromkeys(named, "")


def test_the_queue_never_evicts_and_outlives_a_crash(compose: dict[str, Any]) -> None:
    command = compose["services"]["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")
    assert options["--requirepass"].startswith("${RAG_REDIS_PASSWORD:?")


def test_every_server_tells_when_it_is_ready(compose: dict[str, Any]) -> None:
    unwatched = {name for name, service in compose["services"].items() if "healthcheck" not in service}
    assert unwatched == WITHOUT_PORT


def test_what_a_service_keeps_is_in_a_volume_that_exists(compose: dict[str, Any]) -> None:
    mounted = {
        volume.partition(":")[0] for service in compose["services"].values() for volume in service.get("volumes", [])
    }
    assert mounted == set(compose["volumes"])


# --- that it starts what there is -----------------------------------------------------------


def test_the_compose_file_follows_the_specification(compose: dict[str, Any]) -> None:
    schema = json.loads(SCHEMA.read_text())
    jsonschema.validate(compose, schema)
    wrong = deepcopy(compose)
    wrong["services"]["api"]["replicas"] = 2
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def refuse_unknown(command: list[str]) -> None:
    """Raises for a command that the product does not have, or not with these options."""
    program, *arguments = command
    if program == "rag":
        # Options are read before help is shown.
        assert CliRunner().invoke(app, [*arguments, "--help"]).exit_code == 0, arguments
    elif program == "dramatiq":
        parsed = make_argument_parser().parse_args(arguments)  # type: ignore[no-untyped-call]
        assert importlib.util.find_spec(parsed.broker), parsed.broker
        assert parsed.processes == 1  # the death of one child of several takes its siblings along
    else:
        raise AssertionError(program)


def test_every_command_is_one_that_the_product_has(
    compose: dict[str, Any], instructions: tuple[dockerfile.Command, ...]
) -> None:
    for service in ours(compose).values():
        refuse_unknown(service["command"])
    refuse_unknown(list(next(each.value for each in instructions if each.cmd.upper() == "CMD")))
    assert sorted(ours(compose)) == ["api", "scheduler", "worker"]


@pytest.mark.parametrize(
    "command",
    [
        ["rag", "sevre"],
        ["rag", "serve", "--no-such"],
        ["dramatiq", "workers.man", "-p", "1"],
        ["dramatiq", "workers.main", "-p", "2"],
        ["dramatiq", "workers.main", "-p", "1", "--no-such"],
        ["bash"],
    ],
    ids=" ".join,
)
def test_a_command_that_the_product_does_not_have_is_caught(command: list[str]) -> None:
    with pytest.raises((AssertionError, SystemExit)):
        refuse_unknown(command)


def test_every_setting_that_is_given_exists(
    compose: dict[str, Any], instructions: tuple[dockerfile.Command, ...]
) -> None:
    known = {f"RAG_{name.upper()}" for name in Settings.model_fields}
    given = {name for service in ours(compose).values() for name in service["environment"]}
    given |= {word for each in instructions if each.cmd.upper() == "ENV" for word in each.value if word[:4] == "RAG_"}
    assert {"RAG_DATABASE_URL", "RAG_REDIS_URL", "RAG_QDRANT_URL", "RAG_BLOBS_URL", "RAG_MODELS_DIR"} <= given <= known


def test_servers_answer_where_they_are_looked_for(compose: dict[str, Any]) -> None:
    settings = ours(compose)["api"]["environment"]
    hosts = {re.sub(r".*[@/]", "", settings[f"RAG_{name}_URL"].rpartition(":")[0]) for name in ("REDIS", "QDRANT")}
    assert hosts == {"redis", "qdrant"} <= set(compose["services"])
    assert "@postgres:5432/rag" in settings["RAG_DATABASE_URL"]
    assert settings["RAG_BLOBS_URL"].endswith("file:///srv/blobs}")
    assert all("blobs:/srv/blobs" in service["volumes"] for service in ours(compose).values())


# --- the image ------------------------------------------------------------------------------


def test_the_image_runs_as_nobody_in_particular(instructions: tuple[dockerfile.Command, ...]) -> None:
    names = [each.cmd.upper() for each in instructions]
    last = len(names) - names[::-1].index("FROM")
    users = [each.value[0] for each in instructions[last:] if each.cmd.upper() == "USER"]
    assert users == ["10001:10001"]
    assert names.index("USER") > max(position for position, name in enumerate(names) if name == "RUN")
    assert "ADD" not in names
    assert names.count("FROM") >= 2


def test_base_images_are_pinned(instructions: tuple[dockerfile.Command, ...]) -> None:
    stages = [each.value for each in instructions if each.cmd.upper() == "FROM"]
    named = {value[2] for value in stages}
    images = {value[0] for value in stages} - named
    assert all(re.search(r":\d+\.\d+\.\d+", image) for image in images)
    assert len(images) == 1


def test_the_image_installs_what_was_tested_and_downloads_nothing_else(
    instructions: tuple[dockerfile.Command, ...],
) -> None:
    runs = [" ".join(each.value) for each in instructions if each.cmd.upper() == "RUN"]
    assert any("pip install -c constraints.txt" in run for run in runs)
    assert not [run for run in runs if re.search(r"\b(curl|wget|git|apt-get|http)", run)]


def test_what_is_copied_exists_and_passes_the_ignore_file(instructions: tuple[dockerfile.Command, ...]) -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [
        source for each in instructions if each.cmd.upper() == "COPY" and not each.flags for source in each.value[:-1]
    ]
    assert copied
    for source in copied:
        assert (ROOT / source).exists()
        assert source.split("/")[0] in allowed
    assert not {".env", ".git", ".rag", "tests"} & allowed


def test_the_tag_of_the_image_is_the_version_of_the_product(compose: dict[str, Any]) -> None:
    assert {service["image"] for service in ours(compose).values()} == {f"rag-service:{__version__}"}
