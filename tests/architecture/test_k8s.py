"""What an operator relies on when they apply `infra/k8s`: every object is valid, and every promise is in it."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from tests.support.programs import find_or_install, in_path

ROOT = Path(__file__).parents[2]
K8S = ROOT / "infra" / "k8s"
FOLDERS = sorted(path.parent for path in (ROOT / "infra").rglob("kustomization.yaml") if "components" not in path.parts)
SERVICES = ["auth", "chat", "notifications", "price_feed"]
DEPLOYMENTS = ["auth", "chat", "notifications", "price-feed", "web"]
SERVERS = [*DEPLOYMENTS, "nats"]
WORKLOADS = [*SERVERS, "provision"]
STOP_S = 10
"""uvicorn's own stop and the lifespan's end, after the drain; measured below 5 s."""

Manifest = dict[str, Any]


def below_infra(folder: Path) -> str:
    """Return the folder's path below infra, the id of a test case."""
    return str(folder.relative_to(ROOT / "infra"))


@cache
def kubectl() -> str:
    """Return kubectl, installed first where this machine lets us."""
    return find_or_install(in_path("kubectl"), "kubernetes-client")


@cache
def render(folder: Path) -> list[Manifest]:
    """Return the objects that `kubectl apply -k` would send."""
    done = subprocess.run([kubectl(), "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def of_kind(folder: Path, *kinds: str) -> list[Manifest]:
    """Return the rendered objects of these kinds."""
    return [manifest for manifest in render(folder) if manifest["kind"] in kinds]


def workloads() -> dict[str, Manifest]:
    """Return everything that makes pods, by name."""
    return {found["metadata"]["name"]: found for found in of_kind(K8S, "Deployment", "StatefulSet", "Job")}


def pod(workload: Manifest) -> Manifest:
    """Return the specification of its pods."""
    spec: Manifest = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Manifest) -> Manifest:
    """Return its only container."""
    (only,) = pod(workload)["containers"]
    return dict(only)


def variables(workload: Manifest) -> dict[str, str]:
    """Return the variables that stand in the manifest, not those from secrets."""
    return {entry["name"]: entry["value"] for entry in container(workload).get("env", []) if "value" in entry}


# -- every object -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("folder", FOLDERS, ids=below_infra)
def test_each_folder_renders_and_every_object_is_valid(folder: Path) -> None:
    manifests = render(folder)

    assert manifests
    for manifest in manifests:
        kubernetes_validate.validate(manifest, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("service", [*SERVICES, "web"])
def test_each_service_deploys_alone(service: str) -> None:
    folder = K8S / "services" / service

    kinds = {manifest["kind"] for manifest in render(folder)}
    names = {manifest["metadata"]["name"] for manifest in of_kind(folder, "Deployment", "Service")}

    assert kinds >= {"Deployment", "Service", "ServiceAccount", "PodDisruptionBudget"}
    assert names == {service.replace("_", "-")}, "a folder deploys its own service and nothing else"


def test_the_tests_below_know_everything_that_makes_pods() -> None:
    assert workloads().keys() == set(WORKLOADS)


def test_all_of_it_is_one_namespace_without_secrets() -> None:
    for manifest in render(K8S):
        assert manifest["kind"] != "Secret", "secrets are made by the operator, never committed"
        if manifest["kind"] != "Namespace":
            assert manifest["metadata"]["namespace"] == "fanfare"


# -- pods -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_run_without_privileges(name: str) -> None:
    workload = workloads()[name]
    context, own = pod(workload)["securityContext"], container(workload)["securityContext"]

    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] > 0
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["readOnlyRootFilesystem"] is True
    assert own["capabilities"]["drop"] == ["ALL"]
    assert pod(workload)["automountServiceAccountToken"] is False
    assert pod(workload)["serviceAccountName"] == workload["metadata"]["name"]


@pytest.mark.parametrize("name", WORKLOADS)
def test_pods_have_limits_and_a_pinned_image(name: str) -> None:
    workload = workloads()[name]
    resources = container(workload)["resources"]

    assert resources["requests"].keys() == resources["limits"].keys() == {"cpu", "memory"}
    assert re.search(r":\d+\.\d+", container(workload)["image"])


@pytest.mark.parametrize("name", SERVERS)
def test_pods_are_probed_and_spread(name: str) -> None:
    workload = workloads()[name]
    probes = container(workload)

    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= probes.keys()
    assert probes["readinessProbe"] != probes["livenessProbe"]
    assert "kubernetes.io/hostname" in {rule["topologyKey"] for rule in pod(workload)["topologySpreadConstraints"]}


@pytest.mark.parametrize("name", WORKLOADS)
def test_variables_refer_only_to_what_stands_before_them(name: str) -> None:
    """Kubernetes leaves `$(NAME)` as it is when NAME comes later in the list."""
    workload = workloads()[name]
    known: set[str] = set()
    from_secrets = bool(container(workload).get("envFrom"))
    for entry in container(workload).get("env", []):
        assert from_secrets or set(re.findall(r"\$\((\w+)\)", entry.get("value", ""))) <= known
        known.add(entry["name"])


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_ready_by_what_it_depends_on_and_alive_by_itself(service: str) -> None:
    (deployment,) = of_kind(K8S / "services" / service, "Deployment")
    probes = container(deployment)

    assert probes["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert probes["startupProbe"]["httpGet"]["path"] == "/healthz"


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_has_time_to_drain_before_it_is_killed(service: str) -> None:
    (deployment,) = of_kind(K8S / "services" / service, "Deployment")
    pre_stop_s = container(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]

    grace_s = pod(deployment)["terminationGracePeriodSeconds"]

    assert pre_stop_s > 0
    assert grace_s >= pre_stop_s + float(variables(deployment)["DRAIN_S"]) + STOP_S


@pytest.mark.parametrize("name", DEPLOYMENTS)
def test_a_rollout_takes_no_replica_away_before_its_successor_is_ready(name: str) -> None:
    assert workloads()[name]["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_uses_its_own_user_of_nats_in_production_mode(service: str) -> None:
    (deployment,) = of_kind(K8S / "services" / service, "Deployment")
    (password,) = (entry for entry in container(deployment)["env"] if entry["name"] == "NATS_PASSWORD")

    assert variables(deployment)["NATS_URL"] == f"nats://{service}:$(NATS_PASSWORD)@nats:4222"
    assert password["valueFrom"]["secretKeyRef"]["key"] == f"NATS_{service.upper()}_PASSWORD"
    assert variables(deployment)["FANFARE_ENV"] == "production"


# -- the whole --------------------------------------------------------------------------------------------------------


def test_no_service_or_ingress_is_sticky() -> None:
    for service in of_kind(K8S, "Service"):
        assert service["spec"].get("sessionAffinity", "None") == "None"
    for ingress in of_kind(K8S, "Ingress"):
        assert not any("affinity" in key for key in ingress["metadata"].get("annotations", {}))


def test_everything_that_stays_survives_a_node_being_drained() -> None:
    budgets = {
        budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/name"]
        for budget in of_kind(K8S, "PodDisruptionBudget")
    }

    assert budgets == set(SERVERS)


def test_every_selector_finds_its_pods() -> None:
    pods = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads().values()]
    selectors = [manifest["spec"]["selector"] for manifest in of_kind(K8S, "Service")]
    selectors += [manifest["spec"]["selector"]["matchLabels"] for manifest in of_kind(K8S, "PodDisruptionBudget")]
    selectors += [manifest["spec"]["podSelector"].get("matchLabels", {}) for manifest in of_kind(K8S, "NetworkPolicy")]

    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector


def test_every_autoscaler_has_a_target_that_fixes_no_number_of_replicas() -> None:
    deployments = {deployment["metadata"]["name"]: deployment for deployment in of_kind(K8S, "Deployment")}

    for scaler in of_kind(K8S, "HorizontalPodAutoscaler"):
        target = deployments[scaler["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in target["spec"], "each apply would undo what the autoscaler did"
        assert scaler["spec"]["minReplicas"] >= 2


def test_everything_is_denied_first_and_monitoring_of_nats_is_for_the_kubelet_alone() -> None:
    policies = {policy["metadata"]["name"]: policy["spec"] for policy in of_kind(K8S, "NetworkPolicy")}

    assert policies["default-deny"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    assert [port["port"] for rule in policies["nats"]["ingress"] for port in rule["ports"]] == ["client", "cluster"]


def test_nats_keeps_a_majority_and_its_data() -> None:
    (nats,) = of_kind(K8S, "StatefulSet")
    (provision,) = of_kind(K8S, "Job")

    assert nats["spec"]["replicas"] == 3
    assert nats["spec"]["volumeClaimTemplates"]
    assert variables(provision)["NATS_REPLICAS"] == "3"
    for ordinal in range(3):
        assert f"@nats-{ordinal}.{nats['spec']['serviceName']}:6222" in variables(nats)["NATS_ROUTES"]


def test_a_rollout_of_nats_waits_until_a_node_has_caught_up_with_its_streams() -> None:
    """`/healthz` with a `js-…` option is 200 as soon as the server runs, seconds before its copies are current."""
    probes = container(workloads()["nats"])

    assert probes["startupProbe"]["httpGet"]["path"] == "/healthz"
    assert probes["readinessProbe"]["httpGet"]["path"] == "/healthz?js-server-only=true"
    assert probes["livenessProbe"]["httpGet"]["path"] == "/healthz?js-enabled-only=true"


def test_nats_has_time_for_its_lame_duck_mode() -> None:
    (nats,) = of_kind(K8S, "StatefulSet")
    (config,) = (manifest for manifest in of_kind(K8S, "ConfigMap") if "nats.conf" in manifest["data"])
    settings = dict(re.findall(r'^(lame_duck_\w+): "(\d+)s"$', config["data"]["nats.conf"], re.MULTILINE))

    # The grace period is part of the duration.
    assert pod(nats)["terminationGracePeriodSeconds"] >= int(settings["lame_duck_duration"]) + STOP_S


def test_the_ingress_and_the_proxy_send_the_same_paths_to_the_same_services() -> None:
    """The proxy names the exact paths; the ingress, which knows prefixes only, must cover them and no service more."""
    caddyfile = (ROOT / "infra" / "proxy" / "Caddyfile").read_text()
    routes = {
        path.removesuffix("/*"): service
        for service, paths in re.findall(r"@(\w+) path (.+)", caddyfile)
        if service != "immutable"
        for path in paths.split()
    }
    (ingress,) = of_kind(K8S, "Ingress")
    paths = {
        rule["path"]: rule["backend"]["service"]["name"]
        for rule in ingress["spec"]["rules"][0]["http"]["paths"]
        if rule["path"] != "/"
    }

    assert paths == routes
