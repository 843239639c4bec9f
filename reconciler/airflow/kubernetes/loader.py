"""Whether a workload's pods can have the instance's loader, as far as its pod template tells.

Only a hint for the doctor: an image may bring PYTHONPATH itself. The proof is in `proofs`.
"""

from __future__ import annotations

from reconciler.cluster.connection import Json
from reconciler.cluster.diagnose import main_of


def loaderless(workload: Json, instance: str, share: str) -> bool:
    """Return True if nothing in the pod template can bring the loader onto PYTHONPATH.

    What the template does not hold (a ConfigMap, a Secret, another variable) may bring it, and so
    may the command itself.
    """
    template = workload["spec"]["template"]
    name = main_of(template)
    containers = template["spec"].get("containers") or []
    main: Json = next((c for c in containers if c["name"] == name), {})
    loader = f"{share}/instances/{instance}/loader"
    arguments = [*(main.get("command") or []), *(main.get("args") or [])]
    if any(loader in word for word in arguments):
        return False
    entries = [e for e in main.get("env") or [] if e.get("name") == "PYTHONPATH"]
    if not entries:
        return not main.get("envFrom")
    value = str(entries[-1].get("value") or "")  # Kubernetes takes the last, before envFrom
    is_named = loader in (entry.rstrip("/") for entry in value.split(":"))
    return not ("valueFrom" in entries[-1] or "$(" in value or is_named)
