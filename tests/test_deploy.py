"""The files in deploy/ fit the server: its options, its ports, its metrics."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from prometheus_client import Metric

import attnpriv
from attnpriv_server.address import Address
from attnpriv_server.cli import app
from attnpriv_server.operations import Operations
from attnpriv_server.telemetry import Telemetry

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
DASHBOARD = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
MARGIN_SECONDS = 10  # to close after the grace


def manifests(name: str) -> dict[str, dict[str, Any]]:
    """The objects of a manifest by their kinds."""
    found = list(yaml.safe_load_all((DEPLOY / name).read_text()))
    return {manifest["kind"]: manifest for manifest in found}


KUBERNETES = manifests("kubernetes.yaml")
KSERVE = manifests("kserve.yaml")
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
CONTAINERS = {
    "kubernetes": POD["containers"][0],
    "kserve": KSERVE["ServingRuntime"]["spec"]["containers"][0],
}
SECONDS_TO_KILL = {
    "kubernetes": POD["terminationGracePeriodSeconds"],
    "kserve": KSERVE["InferenceService"]["spec"]["predictor"]["terminationGracePeriodSeconds"],
}


def docker(instruction: str) -> list[str]:
    """The arguments of the last such instruction in JSON form."""
    return json.loads(re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)[-1])


COMMANDS = {
    "docker": docker("ENTRYPOINT") + docker("CMD"),
    **{name: docker("ENTRYPOINT") + each["args"] for name, each in CONTAINERS.items()},
}


def options(command: list[str]) -> dict[str, Any]:
    """What the server's own command line reads in these arguments; fails where it reads none."""
    program, *arguments = command
    assert program == "attnpriv-server"
    return typer.main.get_command(app).make_context(program, arguments).params


def port(address: str) -> int:
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_server_knows_every_option(name) -> None:
    found = options(COMMANDS[name])

    assert found["models"].is_absolute()
    assert port(found["listen"]) != port(found["operations_listen"])
    secured = found["tls_certificate"] and found["tls_key"] and found["principals"]
    assert secured or found["insecure"]


@pytest.mark.parametrize("name", CONTAINERS)
def test_probes_and_ports_are_those_the_server_listens_on(name) -> None:
    container, found = CONTAINERS[name], options(COMMANDS[name])
    ports = {each["name"]: each["containerPort"] for each in container["ports"]}

    assert port(found["listen"]) in ports.values()
    for probe, path in (("startup", "livez"), ("readiness", "readyz"), ("liveness", "livez")):
        check = container[f"{probe}Probe"]["httpGet"]
        assert check["path"] == f"/{path}"
        assert ports.get(check["port"], check["port"]) == port(found["operations_listen"])


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_pod_is_not_killed_before_its_grace_is_over(name) -> None:
    pause = CONTAINERS[name].get("lifecycle", {}).get("preStop", {}).get("exec", {})
    grace = options(COMMANDS[name])["grace"]

    seconds = int(pause.get("command", ["sleep", "0"])[1])
    assert SECONDS_TO_KILL[name] >= seconds + grace + MARGIN_SECONDS


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_are_confined_and_fit_their_memory(name) -> None:
    container = CONTAINERS[name]
    user = re.findall(r"^USER (\d+):", DOCKERFILE, re.MULTILINE)[-1]
    context = POD["securityContext"] | container["securityContext"]

    assert context["runAsNonRoot"]
    assert str(context["runAsUser"]) == user
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert container["image"] == f"attnpriv-server:{attnpriv.__version__}"
    limit = int(container["resources"]["limits"]["memory"].removesuffix("Gi")) * 1024
    assert 2 * options(COMMANDS[name])["memory_budget"] <= limit


def test_every_file_that_the_server_reads_is_mounted_read_only() -> None:
    found = options(COMMANDS["kubernetes"])
    mounts = {each["mountPath"]: each for each in CONTAINERS["kubernetes"]["volumeMounts"]}
    volumes = {each["name"] for each in POD["volumes"]}

    assert {each["name"] for each in mounts.values()} == volumes
    read = (found["models"], *(found[key].parent for key in ("tls_key", "principals")))
    assert all(mounts[str(path)]["readOnly"] for path in read)


def test_service_and_network_policy_meet_the_pods() -> None:
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    ports = {each["name"] for each in CONTAINERS["kubernetes"]["ports"]}
    policy = KUBERNETES["NetworkPolicy"]["spec"]

    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert {each["targetPort"] for each in KUBERNETES["Service"]["spec"]["ports"]} == {"grpc"}
    assert policy["podSelector"]["matchLabels"] == labels
    assert {each["port"] for rule in policy["ingress"] for each in rule["ports"]} == ports
    assert "egress" not in policy
    assert "Egress" in policy["policyTypes"]


def test_the_service_of_kserve_asks_for_its_runtime() -> None:
    runtime = KSERVE["ServingRuntime"]
    model = KSERVE["InferenceService"]["spec"]["predictor"]["model"]

    assert model["runtime"] == runtime["metadata"]["name"]
    assert model["protocolVersion"] in runtime["spec"]["protocolVersions"]
    formats = runtime["spec"]["supportedModelFormats"]
    assert model["modelFormat"] in [
        {key: each[key] for key in ("name", "version")} for each in formats
    ]


def test_the_image_is_built_from_files_that_are_there() -> None:
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
    sources = {source for line in copied for source in line.split()}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()

    assert all((ROOT / source).exists() for source in sources)
    assert sources == {line.removeprefix("!") for line in ignored if line.startswith("!")}


@pytest.mark.parametrize("ready", [True, False])
def test_the_health_check_asks_whether_the_server_is_ready(ready) -> None:
    health_check = re.search(r"^HEALTHCHECK .*?CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)
    program, flag, code = json.loads(health_check[1])
    given = port(options(COMMANDS["docker"])["operations_listen"])
    assert (program, flag) == ("python", "-c")
    assert f":{given}/" in code

    async def run() -> int:
        operations = Operations(Telemetry(), lambda: ready)
        found = await operations.start(Address("127.0.0.1", 0))
        check = [sys.executable, flag, code.replace(f":{given}/", f":{found}/")]
        process = await asyncio.create_subprocess_exec(*check, stderr=asyncio.subprocess.DEVNULL)
        try:
            return await process.wait()
        finally:
            await operations.stop()

    assert (asyncio.run(run()) == 0) is ready


def test_the_readme_builds_with_the_dockerfile() -> None:
    commands = (DEPLOY / "README.md").read_text().replace("\\\n", " ")
    build = shlex.split(re.search(r"^docker build .*$", commands, re.MULTILINE)[0])
    run = shlex.split(re.search(r"^docker run .*$", commands, re.MULTILINE)[0])

    assert (ROOT / build[build.index("-f") + 1]).is_file()
    assert build[build.index("-t") + 1] == run[-1] == CONTAINERS["kubernetes"]["image"]
    found = options(COMMANDS["docker"])
    mounted = {each.split(":")[1] for each in run if each.endswith(":ro")}
    read = (found["models"], *(found[key].parent for key in ("tls_key", "principals")))
    assert mounted == {str(path) for path in read}


# Metrics


def all_metrics() -> list[Metric]:
    """Every metric that a server can have, each with a sample."""
    telemetry = Telemetry(["/a/B"])
    telemetry.call_finished("/a/B", "OK", 0.5)
    telemetry.batch_finished("predict", "mail", 1, 2, 0.5)
    telemetry.waited("predict", 0.5)
    telemetry.refused("predict")
    telemetry.dropped("predict", "deadline")
    telemetry.watch_queue("predict", lambda: 0)
    telemetry.model_loaded("mail", "1", 2.0, 4096)
    telemetry.load_failed("mail")
    telemetry.look_failed()
    telemetry.charge_finished("charged", 0.5)
    return list(telemetry.registry.collect())


METRICS = all_metrics()
SAMPLES = {sample.name for metric in METRICS for sample in metric.samples}
SUFFIXES = {"counter": "_total", "info": "_info"}
OURS = {
    metric.name + SUFFIXES.get(metric.type, ""): metric
    for metric in METRICS
    if metric.name.startswith("attnpriv_server_")
}
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


@pytest.mark.parametrize("query", QUERIES)
def test_the_dashboard_asks_for_metrics_that_exist(query) -> None:
    asked = set(re.findall(r"\w+(?=\{)", query))

    assert asked
    assert asked <= SAMPLES


def test_the_dashboard_shows_every_metric() -> None:
    assert [name for name in OURS if name not in " ".join(QUERIES)] == []


def test_panels_are_well_formed_and_do_not_overlap() -> None:
    panels = DASHBOARD["panels"]
    taken = [{(x, y) for x in columns(panel) for y in rows(panel)} for panel in panels]

    assert len({panel["id"] for panel in panels}) == len(panels)
    assert all(max(columns(panel)) < 24 for panel in panels)
    assert not any(one & other for one, other in combinations(taken, 2))
    variables = {f"${{{each['name']}}}" for each in DASHBOARD["templating"]["list"]}
    sources = {panel["datasource"]["uid"] for panel in panels if panel["type"] != "row"}
    assert sources <= variables


def columns(panel: dict[str, Any]) -> range:
    return range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])


def rows(panel: dict[str, Any]) -> range:
    return range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])


def test_the_documentation_lists_every_metric_with_its_labels() -> None:
    text = (ROOT / "docs" / "operations.md").read_text()
    table = re.findall(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", text, re.MULTILINE)
    documented = {
        f"attnpriv_server_{name}": (kind, set(re.findall(r"\w+", labels)))
        for name, kind, labels in table
    }

    assert documented == {
        name: (metric.type.replace("info", "gauge"), labels_of(metric))
        for name, metric in OURS.items()
    }


def labels_of(metric: Metric) -> set[str]:
    return {label for sample in metric.samples for label in sample.labels} - {"le"}
