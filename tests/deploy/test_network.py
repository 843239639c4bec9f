"""Network access in the rendered chart: services and network policies."""

from __future__ import annotations

import tomllib

import pytest

from reconciler.settings import Settings
from scripts.manifests import example
from tests.deploy.rendered import NAMES, Json, job_of, one, pod_of, release, text_of


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    """Return each of deploy/helm/examples."""
    return str(request.param)


def selects(selector: Json, labels: Json) -> bool:
    """Return True if matchLabels select something with these labels."""
    return bool(selector.get("matchLabels", {}).items() <= labels.items())


def test_jobs_reach_the_indexes_and_nothing_else(name: str) -> None:
    """The policies select what the daemon really creates, and name the port it listens on."""
    documents = release(name)
    if not example(name).get("networkPolicy", {}).get("enabled", True):
        assert not [d for d in documents if d["kind"] == "NetworkPolicy"]
        return
    job = job_of(documents)
    labels = job["spec"]["template"]["metadata"]["labels"]
    daemon = one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"]
    home = one(documents, "Deployment")["metadata"]["namespace"]
    policy = one(documents, "NetworkPolicy", "groundcrew-builds")
    assert policy["metadata"]["namespace"] == job["metadata"]["namespace"]
    assert selects(policy["spec"]["podSelector"], labels)
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in policy["spec"]
    (rule,) = policy["spec"]["egress"]
    assert rule["ports"] == [{"port": 8086, "protocol": "TCP"}]
    (peer,) = rule["to"]
    assert selects(peer["podSelector"], daemon)
    assert selects(peer["namespaceSelector"], {"kubernetes.io/metadata.name": home})
    theirs = one(documents, "NetworkPolicy", "groundcrew")["spec"]
    assert selects(theirs["podSelector"], daemon)
    assert not selects(theirs["podSelector"], labels)
    (jobs,) = (r for r in theirs["ingress"] if r["ports"][0]["port"] == "indexes")
    peer, *others = jobs["from"]
    assert selects(peer["podSelector"], labels)
    assert others == example(name).get("networkPolicy", {}).get("indexesFrom", [])


def test_the_daemon_reaches_names_on_openshift_too() -> None:
    """A policy applies to the port of the name server's pod, which is 5353 there."""
    rules = one(release("small"), "NetworkPolicy", "groundcrew")["spec"]["egress"]
    ports = {(p["port"], p["protocol"]) for r in rules if "to" not in r for p in r["ports"]}
    assert ports >= {(port, kind) for port in (53, 5353) for kind in ("UDP", "TCP")}


def test_the_service_leads_to_the_daemon_alone(name: str) -> None:
    """Its selector matches the daemon's pods, and neither the test's pod nor a Job's."""
    documents = release(name)
    selector = {"matchLabels": one(documents, "Service", "groundcrew")["spec"]["selector"]}
    assert selects(selector, one(documents, "Deployment")["spec"]["template"]["metadata"]["labels"])
    assert not selects(selector, job_of(documents)["metadata"]["labels"])


def test_a_further_clusters_jobs_reach_the_port_that_they_are_told() -> None:
    """A Service for it has the daemon's own port, which is in the URL that Jobs get."""
    documents = release("clusters")
    settings = Settings(**tomllib.loads(text_of(documents)))
    assert settings.kubernetes.cluster("west").index_host == "groundcrew-indexes.example.com"
    spec = one(documents, "Service", "groundcrew-indexes")["spec"]
    assert [p["port"] for p in spec["ports"]] == [settings.kubernetes.jobs.index_port]
    assert spec["ports"][0]["targetPort"] in {
        p["name"] for c in pod_of(documents)["containers"] for p in c["ports"]
    }
    assert spec["selector"] == one(documents, "Service", "groundcrew")["spec"]["selector"]
    assert [d["metadata"]["name"] for d in release("large") if d["kind"] == "Service"] == [
        "groundcrew"
    ]
