"""REST API of a release, as its administrator sees it."""

from __future__ import annotations

from dataclasses import dataclass

import httpx

from tests.harness.kube_api import Json
from tests.harness.node.airflow_release import ADMIN


@dataclass(frozen=True, slots=True)
class AirflowRest:
    """Client of the REST API at an address, for Airflow 2 and 3."""

    address: str
    airflow: str

    @property
    def url(self) -> str:
        """The address as Airflow's definitions name it."""
        return f"http://{self.address}:8080"

    def request(self, method: str, path: str, body: Json | None = None) -> Json:
        """Send a request; raise what HTTPX raises if Airflow cannot be reached or refuses it."""
        with httpx.Client(timeout=60) as client:
            if self.airflow.startswith("2."):
                answer = client.request(
                    method, f"{self.url}/api/v1{path}", json=body, auth=(ADMIN, ADMIN)
                )
            else:
                user = {"username": ADMIN, "password": ADMIN}
                login = client.post(f"{self.url}/auth/token", json=user)
                login.raise_for_status()
                token = {"Authorization": f"Bearer {login.json()['access_token']}"}
                answer = client.request(
                    method, f"{self.url}/api/v2{path}", json=body, headers=token
                )
            answer.raise_for_status()
            document: Json = answer.json()
            return document

    def is_running(self, dag: str) -> bool:
        """Return True once Airflow knows a DAG, and does not hold its runs."""
        try:
            return not self.request("GET", f"/dags/{dag}")["is_paused"]
        except httpx.HTTPError:
            return False

    def start(self, dag: str, run: str) -> bool:
        """Start a run of a DAG; return False if the API did not answer, as in a restart.

        The run has an id, so that it is safe to try again.
        """
        body: Json = {"dag_run_id": run}
        if not self.airflow.startswith("2."):
            body["logical_date"] = None
        try:
            self.request("POST", f"/dags/{dag}/dagRuns", body)
        except httpx.HTTPStatusError as error:
            return error.response.status_code == httpx.codes.CONFLICT  # the last try has started it
        except httpx.HTTPError:
            return False
        return True

    def state(self, dag: str, run: str) -> str:
        """Return the state of a run; "" while the API does not answer, as in a restart."""
        try:
            return str(self.request("GET", f"/dags/{dag}/dagRuns/{run}")["state"])
        except httpx.HTTPError:
            return ""
