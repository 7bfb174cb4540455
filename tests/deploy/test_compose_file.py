"""What docker-compose.yml promises, held without a container engine."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import tomllib
from pathlib import Path

import jsonschema
import pytest
from compose_file import ROOT, MissingVariableError, raw, resolved, variables

HERE = Path(__file__).parent
SECRETS = {"POSTGRES_PASSWORD", "HEADRACE_STATE_KEY"}
GIVEN = {"POSTGRES_PASSWORD": "of the user's", "HEADRACE_STATE_KEY": "also the user's"}
SECRET_NAME = re.compile(r"PASSWORD|PASSWD|PGPASS|SECRET|TOKEN|_KEY$|AUTH_STRING", re.IGNORECASE)
OURS = {"mlflow", "prefect-server", "prefect-worker", "prefect-deploy", "worker", "monitor"}
# a service that need not have a health check, and why
WITHOUT_HEALTHCHECK = {"prefect-deploy": "ends by itself; others wait for its success"}
DOCUMENT = ROOT / "docs" / "deployment.md"


def services() -> dict:
    return resolved(GIVEN)["services"]


def schema_errors(content: dict) -> list[str]:
    schema = json.loads((HERE / "compose-spec.json").read_text(encoding="utf-8"))
    return [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft202012Validator(schema).iter_errors(content)
    ]


def test_the_file_fits_the_compose_specification():
    assert schema_errors(raw()) == []
    assert schema_errors(resolved(GIVEN)) == []


def test_the_schema_is_the_published_one():
    digest = hashlib.sha256((HERE / "compose-spec.json").read_bytes()).hexdigest()
    assert digest in (HERE / "compose-spec.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("service", "mistake"),
    [
        ("worker", {"helthcheck": {}}),
        ("worker", {"depends_on": {"kafka": {"condition": "healthy"}}}),
        ("kafka", {"ports": {"29092": "29092"}}),
        ("mlflow", {"volumes": [{"source": "artifacts"}]}),
    ],
)
def test_the_schema_notices_mistakes(service, mistake):
    content = raw()
    content["services"][service] |= mistake
    assert schema_errors(content)


def test_every_service_of_the_design_is_there():
    assert set(services()) == {"kafka", "postgres"} | OURS


def test_ours_run_from_one_image_locked_down():
    ours = {name: service for name, service in services().items() if "build" in service}
    assert set(ours) == OURS
    assert len({(service["image"], service["build"]) for service in ours.values()}) == 1
    for name, service in ours.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
    image_version = next(iter(ours.values()))["image"].partition(":")[2]
    assert image_version == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_images_are_pinned():
    named = [service["image"] for service in services().values()]
    named += re.findall(r"^FROM (\S+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    for image in named:
        assert re.fullmatch(r"[\w./-]+:\d+\.\d+(\.\d+)?(-[\w.-]+)?", image), image


def test_every_service_says_when_it_is_well():
    for name, service in services().items():
        check = service.get("healthcheck", {})
        if name in WITHOUT_HEALTHCHECK:
            assert check.get("disable") is True
            assert service["restart"] == "no"
            continue
        assert check["test"][0] == "CMD", name
        assert {"interval", "timeout", "retries", "start_period"} <= set(check), name
        assert service["restart"] == "unless-stopped", name


def test_services_wait_until_what_they_need_is_well():
    every = services()
    for name, service in every.items():
        for needed, how in service.get("depends_on", {}).items():
            ends = needed in WITHOUT_HEALTHCHECK
            assert how["condition"] == ("service_completed_successfully" if ends else "service_healthy"), (name, needed)
    # the stream predicts before Prefect or a champion exists
    assert set(every["worker"]["depends_on"]) == {"kafka"}


def test_each_address_that_a_service_is_given_is_that_of_a_service_it_waits_for():
    every = services()
    for name, service in every.items():
        text = " ".join(str(value) for value in service.get("environment", {}).values())
        waited_for = _waited_for(every, name)
        for other in set(every) - {name}:
            if re.search(rf"(?:^|[/@ ]){other}:\d", text) and (name, other) != ("worker", "mlflow"):
                assert other in waited_for, (name, other)


def _waited_for(every: dict, name: str) -> set[str]:
    direct = set(every[name].get("depends_on", {}))
    return direct.union(*(_waited_for(every, other) for other in direct))


def test_no_secret_has_a_default_or_stands_in_the_file():
    assert {variable.name for variable in variables() if SECRET_NAME.search(variable.name)} == SECRETS
    for variable in variables():
        if variable.name in SECRETS:
            assert variable.kind == ":?", variable
            assert variable.rest, "say what to do"
    for name, service in raw()["services"].items():
        for key, value in service.get("environment", {}).items():
            if SECRET_NAME.search(key):
                assert [found.name in SECRETS for found in variables(value)] == [True], (name, key)
            assert not re.search(r"://[^/@]*:[^/@]+@", value), f"{name}: {key} has a password in its address"


@pytest.mark.parametrize("left_out", sorted(SECRETS))
@pytest.mark.parametrize("value", [None, ""])
def test_without_a_secret_nothing_starts(left_out, value):
    given = {name: text for name, text in GIVEN.items() if name != left_out}
    with pytest.raises(MissingVariableError, match=left_out):
        resolved(given if value is None else {**given, left_out: value})


def test_the_example_of_the_env_file_names_the_variables_and_gives_no_secret():
    lines = (ROOT / ".env.example").read_text(encoding="utf-8").splitlines()
    values = dict(line.lstrip("# ").split("=", 1) for line in lines if re.match(r"(# )?[A-Z_]+=", line))
    assert set(values) == {variable.name for variable in variables()}
    assert {name for name, value in values.items() if not value} == SECRETS
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_ports_are_open_on_this_machine_only():
    published = [port for service in services().values() for port in service.get("ports", [])]
    assert published
    for port in published:
        assert re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port), port


def test_data_is_in_named_volumes_and_only_the_project_is_mounted_read_only():
    declared, used = set(raw()["volumes"]), set()
    for name, service in services().items():
        for volume in service.get("volumes", []):
            if isinstance(volume, dict):
                assert (volume["type"], volume["target"], volume["read_only"]) == ("bind", "/project", True), name
                assert (ROOT / volume["source"] / "headrace.yaml").is_file()
            else:
                used.add(volume.partition(":")[0])
    assert used == declared
    assert {name for name, service in services().items() if "state:/state" in service.get("volumes", [])} == {
        "worker",
        "monitor",
        "prefect-worker",
    }


def test_vendors_are_not_told_anything():
    for name in OURS:
        environment = services()[name]["environment"]
        assert environment["DO_NOT_TRACK"] == "1", name
        assert environment["MLFLOW_DISABLE_TELEMETRY"] == "true", name
        assert environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false", name


def test_every_variable_is_documented():
    text = DOCUMENT.read_text(encoding="utf-8")
    used = {key for service in services().values() for key in service.get("environment", {})}
    used |= {variable.name for variable in variables()}
    assert {name for name in used if f"`{name}`" not in text} == set()


def test_prefect_gets_what_its_file_asks_for():
    asked = set(re.findall(r"\{\{ \$(\w+) \}\}", (ROOT / "prefect.yaml").read_text(encoding="utf-8")))
    given = set(services()["prefect-deploy"]["environment"])
    script = (ROOT / "deploy" / "flows.sh").read_text(encoding="utf-8")
    assert asked - given == {"HEADRACE_NAME"}
    assert "export HEADRACE_NAME" in script


def test_the_image_has_every_package_and_no_secret_reaches_its_build():
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    setup = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    for package in {name.partition(".")[0] for name in setup["packages"]}:
        assert re.search(rf"^COPY {package} {package}/$", dockerfile, re.MULTILINE), package
        assert f"!{package}" in ignored, package
    for module in setup["py-modules"]:
        assert f"{module}.py" in dockerfile, module
        assert f"!{module}.py" in ignored, module
    assert "--no-deps --require-hashes -r constraints.txt" in dockerfile
    assert re.search(r"^USER headrace$", dockerfile, re.MULTILINE)
    assert next(line for line in ignored if line and not line.startswith("#")) == "*"
    assert not [line for line in ignored if line.startswith("!.env")]


def test_continuous_integration_runs_the_test_command_of_the_readme():
    script = ROOT / ".ci" / "run"
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    assert script.stat().st_mode & stat.S_IXUSR
    assert lines[-1] == "make test"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert re.search(r"^\$ make test\b", readme, re.MULTILINE), "the README names another test command"
