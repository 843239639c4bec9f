"""The tests' fake Airflow answers like real ones: same statuses, same keys, same types.

The doctor's check of permissions uses the same real ones, since each takes a minute to start.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from reconciler.airflow.rest import AirflowApi
from reconciler.core.definitions import Api, Instance, Place
from reconciler.core.errors import Retryable
from reconciler.demo.airflow import USER, Bed
from reconciler.doctor.airflow import look_api
from reconciler.doctor.findings import Check
from reconciler.doctor.runner import Task, examine
from reconciler.settings import Settings
from tests.fakes import airflow_rest
from tests.fakes.airflow_rest import FakeAirflow

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROLES = {"op": "Op", "viewer": "Viewer"}
PASSWORD = "pa55-w0rd-of-the-test"
CACHE = Path(__file__).parents[2] / ".cache"
DAG = """
from datetime import datetime
from airflow import DAG

with DAG("hello", start_date=datetime(2024, 1, 1), schedule=None):
    pass
"""
PLUGIN = """
from airflow.plugins_manager import AirflowPlugin

class Acme(AirflowPlugin):
    name = "another name"
"""


class Pair:
    """Real Airflow and a fake one in the same state, with the same requests."""

    def __init__(self, bed: Bed, fake: FakeAirflow) -> None:
        self.bed = bed
        self.fake = fake
        self.three = bed.airflow == "3"
        self.prefix = "/api/v2" if self.three else "/api/v1"
        passwords = (bed.password_file.read_text(), airflow_rest.PASSWORD)
        self.real, self.made = (
            Side(url, self.three, user, password)
            for url, user, password in zip(
                (bed.url, fake.url), (USER, airflow_rest.USER), passwords, strict=True
            )
        )

    def same(self, method: str, path: str, access: str = "right", **arguments: Any) -> None:
        """Check that the fake's status and type equal the real one's, and that it adds no key."""
        real, made = (s.ask(method, path, access, **arguments) for s in (self.real, self.made))
        asked = f"{method} {path} {access} {arguments}"
        assert made.status_code == real.status_code, f"{asked}: {real.text[:500]}"
        assert kind(made) == kind(real), asked
        if kind(real) == "json" and real.status_code < 400:
            assert shape(made.json()) <= shape(real.json()), asked


class Side:
    def __init__(self, url: str, three: bool, user: str, password: str) -> None:
        self.http = httpx.Client(base_url=url, timeout=30)
        self.ways: dict[str, dict[str, Any]] = {"none": {}}
        if three:
            body = {"username": user, "password": password}
            token = self.http.post("/auth/token", json=body).json()["access_token"]
            self.ways["right"] = {"headers": {"Authorization": f"Bearer {token}"}}
            self.ways["wrong"] = {"headers": {"Authorization": "Bearer wrong"}}
        else:
            self.ways["right"] = {"auth": (user, password)}
            self.ways["wrong"] = {"auth": (user, "wrong")}

    def ask(self, method: str, path: str, access: str, **arguments: Any) -> httpx.Response:
        return self.http.request(method, path, **self.ways[access], **arguments)


def kind(answer: httpx.Response) -> str:
    content_type = answer.headers.get("Content-Type", "")
    return "json" if "json" in content_type else content_type.split(";")[0]


def shape(document: object, at: str = "") -> set[str]:
    """Return every path of keys to a value, with the value's type; rows of a listing are alike."""
    if isinstance(document, dict):
        return {part for key, value in document.items() for part in shape(value, f"{at}.{key}")}
    if isinstance(document, list):
        return {part for row in document for part in shape(row, f"{at}[]")}
    return {f"{at}: {type(document).__name__}"}


def wait(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 90
    while not what():
        assert time.monotonic() < deadline, "the real Airflow did not get there"
        time.sleep(0.5)


@pytest.fixture(scope="module", params=["3", "2.11"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    root = tmp_path_factory.mktemp("true")
    bed = Bed(root / "bed", request.param, root / "share", "x", team="t", secrets=root / "secrets")
    bed.install(CACHE)
    bed.configure()
    _plugin(root / "share" / "instances" / "x" / "loader")
    bed.write_dag("hello", DAG)
    bed.write_dag("bad", "import no_such_module  # for an airflow dag\n")
    _users(bed)
    try:
        bed.start()
        bed.wait_for_dag("hello")
        with FakeAirflow("3" if request.param == "3" else "2") as fake:
            pair = Pair(bed, fake)
            try:
                _same_state(pair)
                yield pair
            finally:
                pair.real.http.close()
                pair.made.http.close()
    finally:
        bed.stop()


def _plugin(site: Path) -> None:
    info = site / "acme_plugin-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme_plugin.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: Acme.Plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[airflow.plugins]\nacme = acme_plugin:Acme\n")


def _users(bed: Bed) -> None:
    """Create users in addition to the administrator, before Airflow starts."""
    if bed.airflow != "3":
        bed._airflow("sync-perm", "--verbose")  # creates the roles
        for name, role in ROLES.items():
            bed._airflow(
                "users",
                "create",
                "--username",
                name,
                "--password",
                PASSWORD,
                "--role",
                role,
                "--firstname",
                name,
                "--lastname",
                name,
                "--email",
                f"{name}@example.com",
            )
        return
    users = [f"{USER}:admin", *(f"{name}:{name}" for name in ROLES)]
    bed._environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = ",".join(users)
    passwords = json.loads((bed.root / "passwords.json").read_text())
    passwords |= dict.fromkeys(ROLES, PASSWORD)
    (bed.root / "passwords.json").write_text(json.dumps(passwords))
    bed.supervise()


def _same_state(pair: Pair) -> None:
    pools = {"default_pool": 128, "small": 3, "a/b": 4}
    for name in ("small", "a/b"):
        body = {"name": name, "slots": pools[name], "include_deferred": True}
        pair.real.ask("POST", f"{pair.prefix}/pools", "right", json=body).raise_for_status()
    errors = f"{pair.prefix}/importErrors"
    wait(lambda: pair.real.ask("GET", errors, "right").json()["total_entries"] == 1)
    state = pair.fake.state
    state.pools = pools
    state.errors = {"bad.py" if pair.three else "/dags/bad.py": ("boom", 1.0)}
    state.plugins, state.providers = ["acme-plugin"], {"apache-airflow-providers-common-io": "1.0"}


LISTINGS = ("pools", "dags", "importErrors", "plugins", "providers")


def test_listings_are_alike(pair: Pair) -> None:
    """Every listing, its pages and what is beyond its end."""
    for listing in LISTINGS:
        for params in ({}, {"limit": "1", "offset": "0"}, {"limit": "100", "offset": "5000"}):
            pair.same("GET", f"{pair.prefix}/{listing}", params=params)
    tasks = f"{pair.prefix}/dags/~/dagRuns/~/taskInstances"
    pair.same("GET", tasks, params=[("state", "running"), ("state", "queued"), ("limit", "1")])


def test_refusals_are_alike(pair: Pair) -> None:
    """They are without credentials and with wrong ones, for a listing, a change and the log-in."""
    for access in ("none", "wrong"):
        for listing in LISTINGS:
            pair.same("GET", f"{pair.prefix}/{listing}", access)
        pair.same("PATCH", f"{pair.prefix}/pools/small", access, json={"name": "small", "slots": 1})
    pair.same("POST", "/auth/token", "none", json={"username": "x", "password": "wrong"})
    pair.same("POST", "/auth/token", "none", json={"token": "x"})


def test_versions_health_and_unknown_paths_are_alike(pair: Pair) -> None:
    """The differences between Airflow versions, and responses for unknown paths."""
    for path in ("/api/v1/version", "/api/v2/version", "/health", "/api/v2/monitor/health"):
        pair.same("GET", path, "none")
    for path in ("/no/such/path", "/nope", "/api/v1/nope", "/api/v2/nope"):
        pair.same("GET", path, "none")
        pair.same("GET", path)


def test_changes_of_pools_are_alike(pair: Pair) -> None:
    """Accepted bodies, for the default pool, another, one with a slash and none."""
    mask = {"update_mask": "slots"}
    for name in ("default_pool", "small", "a/b", "gone"):
        path = f"{pair.prefix}/pools/{name.replace('/', '%2F')}"
        for body in (
            {"name": name, "slots": 2, "include_deferred": False},
            {"name": name, "slots": 2},
            {"slots": 2},
        ):
            pair.same("PATCH", path, params=mask, json=body)
    other = {"name": "other", "slots": 2, "include_deferred": False}
    pair.same("PATCH", f"{pair.prefix}/pools/small", params=mask, json=other)


def test_the_client_understands_the_real_one(pair: Pair) -> None:
    """Files of DAGs and of import errors are named alike; plugins and providers by distribution."""
    with AirflowApi(pair.bed.url, pair.bed.password_file.parent) as api:
        (broken,) = api.import_errors()
        (dag,) = api.dags()
        assert dag.id == "hello"
        assert dag.file == broken.file.replace("bad.py", "hello.py")
        assert dag.parsed_at > 0
        assert broken.at > 0
        assert "no_such_module" in broken.text
        assert api.busy() == 0
        assert api.plugins() == {"acme-plugin"}
        assert "apache-airflow-providers-common-io" in api.providers()
        assert {"scheduler", "triggerer", "dag_processor"} <= api.health().keys()


def test_a_pool_keeps_all_but_its_slots(pair: Pair) -> None:
    """Pausing and restoring a team's pool changes nothing else of it."""
    path = f"{pair.prefix}/pools/small"
    before = pair.real.ask("GET", path, "right").json()
    with AirflowApi(pair.bed.url, pair.bed.password_file.parent) as api:
        slots = api.pools()["small"]
        for wanted in (0, slots):
            api.set_pool("small", wanted)
            assert api.pools()["small"] == wanted
    after = pair.real.ask("GET", path, "right").json()
    assert before["include_deferred"] is True
    assert after == before


def test_pools_without_limit_are_alike(pair: Pair) -> None:
    """3.x lists them; 2.x fails, and the client says what to do."""
    mask = {"update_mask": "slots"}
    body = {"name": "small", "slots": -1, "include_deferred": True}
    try:
        pair.same("PATCH", f"{pair.prefix}/pools/small", params=mask, json=body)
        pair.same("GET", f"{pair.prefix}/pools")
        with AirflowApi(pair.bed.url, pair.bed.password_file.parent) as api:
            if pair.three:
                assert api.pools()["small"] == -1
            else:
                with pytest.raises(Retryable, match="no limit"):
                    api.pools()
    finally:
        pair.same("PATCH", f"{pair.prefix}/pools/small", params=mask, json={**body, "slots": 3})


def findings(pair: Pair, secrets: Path, user: str, password: str) -> list[tuple[str, str]]:
    """Return the doctor's findings about the real Airflow with that user's credentials."""
    secret = secrets / "t" / user
    secret.mkdir(parents=True, exist_ok=True)
    (secret / "username").write_text(user)
    (secret / "password").write_text(password)
    one = Instance("x", "t", Place("instances/x.yaml", 1), Api(pair.bed.url, user))
    settings = Settings(secrets_dir=secrets)
    task = Task(Check.AIRFLOW, "instance/x", lambda: look_api(settings, one), 120.0)
    return [(str(f.level), f.reason) for f in examine([task])]


def test_roles_are_told_apart_by_the_doctor(pair: Pair, tmp_path: Path) -> None:
    """An administrator and Op may do everything; Viewer reads; a wrong password is refused.

    No pool is created or changed to find that out.
    """
    before = pair.bed.pools()
    administrator = pair.bed.password_file.read_text()
    assert findings(pair, tmp_path, USER, administrator) == [("ok", "Good")]
    assert findings(pair, tmp_path, "op", PASSWORD) == [("ok", "Good")]
    assert findings(pair, tmp_path, "viewer", PASSWORD) == [("wrong", "AirflowRightsMissing")]
    assert findings(pair, tmp_path, "op", "wrong") == [("wrong", "AirflowDenied")]
    assert pair.bed.pools() == before
