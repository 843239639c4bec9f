"""The doctor's check of permissions in real Airflows, without creating or changing a pool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from reconciler.core.definitions import Api, Instance, Place
from reconciler.demo.airflow import USER, Bed
from reconciler.doctor.airflow import look_api
from reconciler.doctor.findings import Check
from reconciler.doctor.runner import Task, examine
from reconciler.settings import Settings
from tests.e2e.test_fake_is_true import CACHE, DAG

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

ROLES = {"op": "Op", "viewer": "Viewer"}
PASSWORD = "pa55-w0rd-of-the-test"


@dataclass
class Real:
    """Airflow with users of several roles."""

    bed: Bed
    secrets: Path

    def look(self, user: str, password: str) -> list[tuple[str, str]]:
        """Return the doctor's findings with that user's credentials."""
        secret = self.secrets / "t" / user
        secret.mkdir(parents=True, exist_ok=True)
        (secret / "username").write_text(user)
        (secret / "password").write_text(password)
        one = Instance("x", "t", Place("instances/x.yaml", 1), Api(self.bed.url, user))
        settings = Settings(secrets_dir=self.secrets)
        task = Task(Check.AIRFLOW, "instance/x", lambda: look_api(settings, one), 120.0)
        return [(str(f.level), f.reason) for f in examine([task])]


@pytest.fixture(scope="module", params=["3", "2.11"])
def real(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Real]:
    root = tmp_path_factory.mktemp("doctor")
    secrets = root / "secrets"
    bed = Bed(root / "bed", request.param, root / "share", "x", team="t", secrets=secrets)
    bed.install(CACHE)
    bed.configure()
    bed.write_dag("hello", DAG)  # without any DAG, the dag-processor of 2.11 ends at once
    _users(bed)
    try:
        bed.start()
        yield Real(bed, secrets)
    finally:
        bed.stop()


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


def test_roles_are_told_apart(real: Real) -> None:
    """An administrator and Op may do everything; Viewer reads; a wrong password is refused."""
    before = real.bed.pools()
    assert real.look(USER, real.bed.password_file.read_text()) == [("ok", "Good")]
    assert real.look("op", PASSWORD) == [("ok", "Good")]
    assert real.look("viewer", PASSWORD) == [("wrong", "AirflowRightsMissing")]
    assert real.look("op", "wrong") == [("wrong", "AirflowDenied")]
    assert real.bed.pools() == before
