"""Commands that need a cluster, checked as far as possible without one."""

from __future__ import annotations

import shlex

import yaml

from scripts.manifests import ROOT, render
from tests.docs.blocks import Block, blocks, commands, every

READ = {"username", "password", "token", "url", "key", "ssh-privatekey", "known_hosts"}
"""Files of a secret that the daemon reads."""


def lines(*programs: str) -> list[tuple[Block, list[str]]]:
    """Return the words of every line of the docs that begins with one of the programs."""
    return [
        (block, shlex.split(line.partition(" > ")[0]))
        for block in every()
        for line in (commands(block.text) if block.language == "sh" else [])
        if line.startswith(tuple(f"{program} " for program in programs))
    ]


def test_secrets_are_made_as_the_daemon_reads_them() -> None:
    """Each key is a file that the daemon reads, and the values name the secrets."""
    made = {}
    for block, arguments in lines("kubectl"):
        if "create" in arguments and "generic" in arguments:
            name = arguments[arguments.index("generic") + 1]
            sources = [w for w in arguments if w.startswith(("--from-literal=", "--from-file="))]
            assert sources, str(block)
            made[name] = {w.split("=")[1] for w in sources}
            assert arguments[arguments.index("-n") + 1] == "groundcrew", str(block)
    assert {key for keys in made.values() for key in keys} <= READ
    assert made["analytics-airflow"] == {"username", "password"}
    assert made["groundcrew-database"] == {"url"}
    values = [
        yaml.safe_load(b.text)
        for b in blocks(ROOT / "docs" / "kubernetes.md")
        if b.language == "yaml" and "secrets:" in b.text
    ]
    secrets = values[0]["secrets"]
    assert {secrets["git"], *secrets["teams"]["analytics"].values()} <= set(made)


def test_charts_and_files_that_are_named_are_there() -> None:
    """For `helm` these are the chart in the project, a values file on a page, and a namespace."""
    helm_commands = lines("helm")
    assert len(helm_commands) > 4
    for block, arguments in helm_commands:
        if arguments[1] not in ("install", "upgrade"):
            continue
        chart = arguments[3]
        assert chart == "apache-airflow/airflow" or (ROOT / chart / "Chart.yaml").is_file()
        assert "-n" in arguments, str(block)
        if "-f" in arguments:
            text = (ROOT / "docs" / "kubernetes.md").read_text()
            assert arguments[arguments.index("-f") + 1] in text, str(block)


def test_what_kubectl_is_told_to_find_is_made_by_the_chart() -> None:
    """The Deployment, the claim and the labels of the docs are those of a release."""
    (first, *_) = (b for b in blocks(ROOT / "docs" / "kubernetes.md") if b.language == "yaml")
    documents = list(render(yaml.safe_load(first.text)))
    made = {(d["kind"].lower(), d["metadata"]["name"]) for d in documents}
    assert ("deployment", "groundcrew") in made
    assert ("persistentvolumeclaim", "groundcrew-share") in made
    assert ("namespace", "groundcrew-builds") in made
    volumes = [d for d in documents if d["kind"] == "PersistentVolume"]
    assert volumes
    for one in volumes:
        assert one["metadata"]["labels"]["app.kubernetes.io/instance"] == "groundcrew"
