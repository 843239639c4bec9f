"""Checks of each instance's Airflow: its API and permissions, and local executables.

Nothing is changed. The permission to change pools is tested on a pool that does not exist: a user
without it is refused (403) before Airflow reports that the pool is missing (404). Airflow's audit
log records that.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from reconciler.airflow.local import LocalDriver
from reconciler.airflow.rest import AirflowApi
from reconciler.core.definitions import Environment, Instance
from reconciler.core.errors import Retryable
from reconciler.core.reasons import Reason
from reconciler.doctor.findings import Check, Finding, Level, good
from reconciler.secrets import login
from reconciler.settings import Settings

NO_POOL = "groundcrew-doctor-there-is-no-such-pool"
SKEW = 5.0  # seconds that a heartbeat may be in the future


def look_api(settings: Settings, instance: Instance) -> Iterator[Finding]:
    """Check that the API responds, accepts the credentials, and permits an activation's calls."""
    about = f"instance/{instance.name}"
    name = instance.api.credentials
    secret = settings.secrets_dir / instance.team / name if name else None
    if secret is not None and login(secret) is None:
        yield Finding(
            Check.AIRFLOW,
            about,
            Level.WRONG,
            Reason.CREDENTIALS_MISSING,
            f"the secret {secret} has neither a token nor a password",
            f"write the files username and password, or token, into {secret}",
        )
        return
    with AirflowApi(instance.api.url, secret, team=instance.team) as api:
        health = api.health()
        troubles = list(_rights(api, about))
    sick = sorted(k for k, s in health.items() if s.status not in ("healthy", "None"))
    if sick:
        troubles.append(
            Finding(
                Check.AIRFLOW,
                about,
                Level.WARNING,
                Reason.AIRFLOW_UNHEALTHY,
                f"Airflow says of itself that {', '.join(sick)} is not healthy",
                "mend Airflow first: an activation there would be taken back",
            )
        )
    ahead = max((s.heartbeat for s in health.values()), default=0.0) - time.time()
    if ahead > SKEW:
        troubles.append(
            Finding(
                Check.CLOCK,
                about,
                Level.WRONG,
                Reason.CLOCK_SKEW,
                f"Airflow's newest heartbeat lies {ahead:.0f} s ahead of this machine's clock",
                "let both machines keep time by NTP; heartbeats are compared with restarts",
            )
        )
    yield from troubles
    if not troubles:
        yield good(Check.AIRFLOW, about, f"{instance.api.url} answers and takes the credentials")


def _rights(api: AirflowApi, about: str) -> Iterator[Finding]:
    """Yield the calls of an activation that are refused; if all are, the credentials are wrong."""
    asked: dict[str, Callable[[], object]] = {
        "read pools": api.pools,
        "read task instances": api.busy,
        "read import errors": api.import_errors,
        "read DAGs": api.dags,
        "read providers": api.providers,
        "read plugins": api.plugins,
        "change pools": lambda: api.set_pool(NO_POOL, 0),
    }
    refused = []
    for doing, question in asked.items():
        try:
            question()
        except Retryable as error:
            if error.reason is not Reason.AIRFLOW_DENIED:
                raise
            refused.append(doing)
            last = error
    if len(refused) == len(asked):
        raise last
    if refused:
        yield Finding(
            Check.AIRFLOW,
            about,
            Level.WRONG,
            Reason.AIRFLOW_RIGHTS_MISSING,
            f"the credentials are taken, but may not {', '.join(refused)}",
            "give this Airflow user the role Op, or these rights",
        )


def look_local(settings: Settings, instance: Instance) -> Iterator[Finding]:
    """Check that an instance's local executables exist and that the settings allow them."""
    assert instance.local is not None, "asked of local instances only"
    about = f"instance/{instance.name}"
    driver = LocalDriver(settings.local, settings.secrets_dir, share=settings.share)
    driver.permit(instance)
    missing = driver.unloaded(instance, instance.load_into)
    executables = {instance.local.python}
    for component in instance.local.components:
        executables |= {argv[0] for argv in (component.restart, component.status) if argv}
    gone = sorted(w for w in executables if not (Path(w).is_file() and os.access(w, os.X_OK)))
    if gone:
        yield Finding(
            Check.LOCAL,
            about,
            Level.WRONG,
            Reason.NOT_EXECUTABLE,
            f"{', '.join(gone)} cannot be run here",
            f"mend local.python or the components' commands in {instance.place}, or install it",
        )
    elif not Path(instance.local.airflow_home).is_dir():
        yield Finding(
            Check.LOCAL,
            about,
            Level.WARNING,
            Reason.AIRFLOW_HOME_MISSING,
            f"{instance.local.airflow_home} is not a directory on this machine",
            f"mend local.airflowHome in {instance.place}",
        )
    elif missing is not None:
        yield Finding(
            Check.LOCAL,
            about,
            Level.WRONG,
            missing.reason,
            missing.message,
            "set PYTHONPATH where the component's service is defined, then restart it",
        )
    else:
        yield good(Check.LOCAL, about, "its interpreter and commands are there and allowed")


def look_indexes(settings: Settings, environment: Environment) -> Iterator[Finding]:
    """Check that the credentials of an environment's indexes exist."""
    for index in environment.recipe.indexes:
        if not index.credentials:
            continue
        secret = settings.secrets_dir / environment.team / index.credentials
        about = f"environment/{environment.name}"
        if login(secret) is not None:
            yield good(Check.INDEX, about, f"index {index.name} has its credentials")
        else:
            yield Finding(
                Check.INDEX,
                about,
                Level.WRONG,
                Reason.CREDENTIALS_MISSING,
                f"index {index.name}: the secret {secret} has neither a token nor a password",
                f"write the files username and password, or token, into {secret}",
            )
