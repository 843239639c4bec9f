"""The interfaces to people and machines, on a real site: command line, HTTP, metrics, Slack."""

from __future__ import annotations

import hashlib
import hmac
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from metrics.notifier import Notifier
from reconciler.core.model import Change
from reconciler.store.store import Store
from tests.fakes.airflow_rest import PASSWORD, FakeAirflow
from tests.fakes.events import event as stored_event
from tests.harness.local_daemon import BAD_IMPORT, ENVIRONMENT, INSTANCE, Site

HOOK, TOKEN = "hook-secret-of-the-test", "api-token-of-the-test"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Yield a site with 1.0 active and a 2.0 that failed to import."""
    with FakeAirflow() as airflow:
        site = Site(tmp_path_factory.mktemp("outside") / "site", airflow)
        site.commit("1.0")
        assert site.once()[0] == 0
        site.commit("2.0", BAD_IMPORT)
        assert site.once()[0] == 1
        yield site


def document(site: Site, *words: str) -> object:
    code, output = site.run(*words, "-o", "json")
    assert code == 0, output
    return json.loads(output)


# ------------------------------------------------------------------------------------ command line


def test_status_is_a_stable_document(site: Site) -> None:
    """It has the keys that the design promises, and the site's real state."""
    status = site.status()
    assert set(status) >= {"revision", "environments", "instances"}
    (instance,) = status["instances"]
    assert set(instance) >= {"build", "phase", "sync", "health", "conditions"}
    assert (instance["name"], instance["phase"], instance["health"]) == (
        INSTANCE,
        "Active",
        "Healthy",
    )
    assert {c["type"] for c in instance["conditions"]} == {"Ready", "Reconciling", "Stalled"}


def test_history_and_logs_say_why(site: Site) -> None:
    """A failed build is in the history with file and line, and its log has the traceback."""
    text = json.dumps(document(site, "history", f"environment/{ENVIRONMENT}"))
    assert "acme is not configured" in text
    assert "acme/__init__.py:3" in text
    code, output = site.run("logs", ENVIRONMENT)
    assert code == 0
    assert "RuntimeError: acme is not configured" in output


def test_the_log_of_a_failed_build_is_not_on_one_machine_only(site: Site) -> None:
    """Another replica, whose disk has no logs, shows it from the share."""
    logs = site.root / "state" / "logs"
    away = logs.rename(logs.with_name("logs-of-another-machine"))
    try:
        code, output = site.run("logs", ENVIRONMENT)
    finally:
        away.rename(logs)
    assert code == 0
    assert "RuntimeError: acme is not configured" in output


def test_validate_needs_a_checkout_only(site: Site, tmp_path: Path) -> None:
    """Exit 0 and an empty list, or exit 1 and findings with places."""
    command = [sys.executable, "-m", "reconciler.cli", "validate", str(site.repo), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    wrong = tmp_path / "repo" / "instances"
    wrong.mkdir(parents=True)
    (wrong / "x.yaml").write_text("kind: Instanz\n")
    command[4] = str(tmp_path / "repo")
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    (finding, *_) = json.loads(done.stdout)
    assert done.returncode == 1
    assert set(finding) >= {"file", "line", "column", "object", "reason", "message"}


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status"], 0),
        (["status", "--check"], 1),
        (["confirm-prune"], 1),
        (["resume", INSTANCE, "--wait", "--timeout", "1"], 3),
        (["plan"], 0),
        (["history"], 0),
        (["gc", "--dry-run"], 0),
        (["rollback", "red-dve"], 2),
        (["suspend", "environment/none"], 2),
        (["logs", "none"], 2),
        (["nonsense"], 2),
    ],
    ids=str,
)
def test_every_command_ends_with_its_code_and_no_traceback(
    words: list[str], code: int, site: Site
) -> None:
    """Wrong usage is 2, a failure 1; nobody sees a traceback or a secret."""
    exit_code, output = site.run(*words)
    assert exit_code == code, output
    assert "Traceback" not in output
    assert PASSWORD not in output


def test_a_mistyped_name_is_answered_with_the_near_one(site: Site) -> None:
    """The message for `red-dve` suggests `red-dev`."""
    _, output = site.run("rollback", "red-dve")
    assert INSTANCE in output


def test_requests_are_carried_out_by_the_daemon(site: Site) -> None:
    """A suspension shows in the status after the next run; a resumption removes it."""
    assert site.run("suspend", f"instance/{INSTANCE}")[0] == 0
    site.once()
    assert site.status()["instances"][0]["suspended"] is True
    assert site.run("resume", f"instance/{INSTANCE}")[0] == 0
    site.once()
    assert site.status()["instances"][0]["suspended"] is False


def test_settings_that_are_wrong_say_which(tmp_path: Path) -> None:
    """An unknown key in the settings is named, without a traceback."""
    config = tmp_path / "groundcrew.toml"
    config.write_text('shar = "/srv"\n')
    done = subprocess.run(
        [sys.executable, "-m", "reconciler.cli", "--config", str(config), "status"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert "shar" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "url", ["mysql://me:pa55word@h/x", "postgres:pa55word", "postgresql+psycopg://h:pa55word/x"]
)
@pytest.mark.parametrize("words", ["status", "plan", "run"])
def test_a_database_that_is_none_is_misuse(words: str, url: str, site: Site) -> None:
    """The message names the setting and not its value, which may contain a password."""
    code, output = site.run(*words.split(), GROUNDCREW_DATABASE=url)
    assert code == 2, output
    assert "GROUNDCREW_DATABASE" in output
    assert "Traceback" not in output
    assert "pa55word" not in output


READING = ["status", "plan", "history", "logs one", "gc --dry-run", "runtimes", "resume red-dev"]


@pytest.mark.parametrize("given", [True, False], ids=["named", "by default"])
@pytest.mark.parametrize("words", READING)
def test_a_command_that_reads_makes_no_records(
    words: str, given: bool, site: Site, tmp_path: Path
) -> None:
    """Without records it ends with 3; before the daemon's first run only a plan works."""
    file = tmp_path / "state" / "groundcrew.db"
    variables = {"GROUNDCREW_STATE_DIR": str(file.parent)}
    if given:
        file = tmp_path / "other.db"
        variables["GROUNDCREW_DATABASE"] = f"sqlite:///{file}"
    code, output = site.run(*words.split(), **variables)
    assert code == (0 if words == "plan" else 3), output
    assert not file.exists()
    if words == "plan":
        assert "InstanceAdded" in output
        gone = f"file://{tmp_path}/nowhere"
        assert site.run(words, **variables, GROUNDCREW_GIT__URL=gone)[0] == 3
        assert not file.exists()


# -------------------------------------------------------------------------------------------- HTTP


@pytest.fixture(scope="module")
def http(site: Site) -> Iterator[httpx.Client]:
    """Yield a client of the daemon's HTTP side, with the daemon as a process."""
    for path, text in (
        ("hooks/github", HOOK),
        ("hooks/gitlab", HOOK),
        ("api/tokens", f"{hashlib.sha256(TOKEN.encode()).hexdigest()} read tester\n"),
    ):
        (site.root / "secrets" / path).parent.mkdir(exist_ok=True)
        (site.root / "secrets" / path).write_text(text)
    log = site.root / "daemon.log"
    with log.open("wb") as out:
        daemon = subprocess.Popen(
            [sys.executable, "-m", "reconciler.cli", "run"],
            env=site.environment(GROUNDCREW_HTTP__ENABLED="true", GROUNDCREW_HTTP__PORT="0"),
            stdout=out,
            stderr=out,
        )
    try:
        deadline = time.monotonic() + 60
        while "listening on" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text()
            assert daemon.poll() is None, log.read_text()
            time.sleep(0.1)
        url = log.read_text().split("listening on ")[1].split()[0]
        with httpx.Client(base_url=url, timeout=20) as client:
            while client.get("/readyz").status_code != 200:
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield client
    finally:
        daemon.terminate()
        assert daemon.wait(timeout=60) == 0, log.read_text()
        assert HOOK not in log.read_text()


def test_the_metrics_of_the_design_are_scraped(http: httpx.Client) -> None:
    """Prometheus's own parser reads the page, which has every promised name that applies."""
    assert http.get("/metrics").status_code == 401  # it names objects, as pages do
    page = http.get("/metrics", headers={"Authorization": f"Bearer {TOKEN}"}).text
    families = {f.name: f for f in text_string_to_metric_families(page)}
    for name in (
        "environment_info",
        "instance_info",
        "build",
        "build_duration_seconds",
        "activation",
        "activation_duration_seconds",
        "rollback",
        "commit_to_active_seconds",
        "reconcile_duration_seconds",
        "source_last_success_timestamp_seconds",
        "source_poll",
        "build_queue_depth",
        "quarantined_builds",
        "notification",
        "leader",
        "store_bytes",
        "import_seconds",
    ):
        assert f"groundcrew_{name}" in families, name
    (leader,) = families["groundcrew_leader"].samples
    assert leader.value == 1.0
    (built,) = [s for s in families["groundcrew_build"].samples if s.labels["result"] == "ready"]
    assert built.value == 1.0
    assert PASSWORD not in page


def test_health_answers_without_a_token_and_the_api_does_not(http: httpx.Client) -> None:
    """Probes need no token; records do."""
    assert http.get("/healthz").status_code == 200
    assert http.get("/api/v1/status").status_code == 401
    wrong = http.get("/api/v1/status", headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401
    right = http.get("/api/v1/status", headers={"Authorization": f"Bearer {TOKEN}"})
    assert right.status_code == 200
    assert right.json()["instances"][0]["name"] == INSTANCE


def test_a_webhook_is_believed_only_with_its_signature(http: httpx.Client) -> None:
    """GitHub signs the body, GitLab sends the secret; anything else is refused."""
    body = b'{"ref": "refs/heads/main"}'
    good = "sha256=" + hmac.new(HOOK.encode(), body, hashlib.sha256).hexdigest()
    headers = {"X-GitHub-Event": "push", "Content-Type": "application/json"}
    signed = {**headers, "X-Hub-Signature-256": good}
    assert http.post("/hooks/github", content=body, headers=signed).is_success
    assert http.post("/hooks/github", content=body + b" ", headers=signed).status_code == 401
    assert http.post("/hooks/github", content=body, headers=headers).status_code == 401
    gitlab = {"X-Gitlab-Token": HOOK, "X-Gitlab-Event": "Push Hook"}
    assert http.post("/hooks/gitlab", content=body, headers=gitlab).is_success
    gitlab["X-Gitlab-Token"] = "wrong"
    assert http.post("/hooks/gitlab", content=body, headers=gitlab).status_code == 401
    assert http.post("/hooks/other", content=body).status_code == 404


# ------------------------------------------------------------------------------------------- Slack


class Slack:
    """An incoming webhook with given answers."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.texts: list[str] = []
        slack = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                """Log nothing."""

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                code = slack.answers.pop(0) if slack.answers else 200
                if code == 200:
                    slack.texts.append(body.decode())
                self.send_response(code)
                if code == 429:
                    self.send_header("Retry-After", "1")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/services/s3cret"
        Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def slack() -> Iterator[Slack]:
    slack = Slack()
    yield slack
    slack.server.shutdown()
    slack.server.server_close()


def notifier(tmp_path: Path, url: str) -> tuple[Store, Notifier]:
    """Return a notifier over a store with one failed build to report."""
    store = Store(f"sqlite:///{tmp_path}/db")
    store.migrate()
    secret = tmp_path / "secrets" / "slack"
    secret.mkdir(parents=True)
    (secret / "url").write_text(url)
    made = Notifier(store, tmp_path / "secrets", "")
    made.enqueue()
    lease = store.acquire("me", 60)
    assert lease is not None
    data = {"author": "A. Author", "subject": "use acme 2", "place": "teams/red/one.yaml:5"}
    told = stored_event(
        time.time(),
        "BuildFailed",
        "environment/one",
        "red",
        "ResolutionConflict",
        "acme<2 is not possible",
        "abc123",
        data,
    )
    store.write(lease, Change(events=(told,)))
    made.enqueue()
    made.enqueue()
    return store, made


def test_a_message_says_what_who_and_why_and_only_once(slack: Slack, tmp_path: Path) -> None:
    """One event is one message, with team, commit, author and the reason in words."""
    store, made = notifier(tmp_path, slack.url)
    made.deliver(time.time())
    made.deliver(time.time() + 1000)
    assert len(slack.texts) == 1
    for word in ("one", "red", "abc123", "A. Author", "acme", "not possible", "one.yaml:5"):
        assert word in slack.texts[0], word
    assert store.message_counts() == {"sent": 1}
    store.close()


@pytest.mark.parametrize("code", [429, 500])
def test_a_refusal_that_passes_is_tried_again(code: int, slack: Slack, tmp_path: Path) -> None:
    """Rate limits and server errors delay a message; none is lost."""
    slack.answers = [code] * 3
    store, made = notifier(tmp_path, slack.url)
    for turn in range(6):
        made.deliver(time.time() + turn * 4000)
    assert len(slack.texts) == 1
    assert store.message_counts() == {"sent": 1}
    store.close()


def test_a_dead_webhook_never_stops_anything_and_tells_no_address(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """After a closed port the message is pending; no log or record has the secret address."""
    store, made = notifier(tmp_path, "http://127.0.0.1:1/services/s3cret")
    made.deliver(time.time())
    assert store.message_counts() == {"pending": 1}
    assert "s3cret" not in caplog.text
    store.close()
    assert b"s3cret" not in (tmp_path / "db").read_bytes()
