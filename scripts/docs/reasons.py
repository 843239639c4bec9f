"""Generator of docs/reasons.md: the meaning of each reason, its consequences and advice.

The meanings are defined here; consequences and advice come from the reasons themselves. The tests
compare the reasons here with those of the code.
"""

from __future__ import annotations

from reconciler.core.reasons import Exit, Reason

R = Reason

TABLES: dict[str, dict[Reason, str]] = {
    "Nothing is wrong": {
        R.READY: "the object is as the newest revision asks",
        R.NOT_READY: "it is not; the other conditions say why",
        R.IDLE: "nothing is in progress for it",
        R.NO_PROBLEM: "nobody has to do anything about it",
    },
    "Definitions": {
        R.CREDENTIALS_TAKEN: "an index uses the secret of an Airflow API",
        R.DUPLICATE_KEY: "a file has the same key twice",
        R.DUPLICATE_NAME: "two files define an object of one name",
        R.FOREIGN_INSTANCE: "the rollout names an instance of another team",
        R.INSTANCE_TAKEN: "another rollout, or an earlier wave, names the instance already",
        R.INVALID_VALUE: "a value has the right type, but is not allowed",
        R.INVALID_YAML: "the file is not YAML, or uses a part of YAML that is not allowed",
        R.LFS_POINTER_REFUSED: "the file is a Git LFS pointer",
        R.MISSING_FILE: "the definition names a file that is not in the repo",
        R.MISSING_KEY: "a required key is absent",
        R.NOT_ALLOWED: "the settings or the definition do not permit it",
        R.NOT_LISTED: "a package of the repo is needed, but the requirements do not list it",
        R.READ_FAILED: "reading the file failed in an unexpected way; the daemon's log says how",
        R.RECORD_UNREADABLE: "the object's record cannot be read, so it is left as it is",
        R.SUBMODULE_REFUSED: "the path is a git submodule",
        R.SYMLINK_REFUSED: "the path is a symlink",
        R.TOO_EXPENSIVE: "reading it needs more time or memory than allowed",
        R.TOO_LARGE: "it is larger than allowed",
        R.UNKNOWN_FRAGMENT: "`extends` names a fragment that is not defined",
        R.UNKNOWN_INSTANCE: "the rollout names an instance that is undefined or has errors",
        R.UNKNOWN_KEY: "the key does not exist",
        R.WRONG_TYPE: "the value has another type than the key needs",
    },
    "The environments repo": {
        R.BRANCH_MISSING: "the branch does not exist",
        R.MIRROR_DAMAGED: "the local copy of the repo is damaged and is fetched again",
        R.MIRROR_SLOW: "git did not finish in time in the local copy of the repo",
        R.NOT_LOCAL: "the repo is not on this machine, so it cannot be watched",
        R.PRUNE_HELD: "the revision removes most definitions and waits for a confirmation",
        R.SOURCE_CERTIFICATE: "the certificate or host key of the repo's server is not trusted",
        R.SOURCE_DENIED: "the repo's server refuses the credentials",
        R.SOURCE_EMPTY: "the repo has no definitions",
        R.SOURCE_MISSING: "no environments repo is set",
        R.SOURCE_TOO_LARGE: "the repo has more files than allowed",
        R.SOURCE_UNKNOWN: "the repo's address is not valid",
        R.SOURCE_UNREACHABLE: "the repo's server does not respond",
        R.SOURCE_UNSAFE: "the repo belongs to another user of this machine",
    },
    "Resolving": {
        R.ADDRESS_REFUSED: "a build may not connect to that address",
        R.BASE_UNREADABLE: "the packages of the instance's image or interpreter cannot be read",
        R.FILE_CERTIFICATE: "the certificate of a file's server is not trusted",
        R.FILE_UNREACHABLE: "a file cannot be downloaded",
        R.HASH_MISMATCH: "a downloaded file is not the one that is pinned",
        R.INDEX_CERTIFICATE: "the certificate of a package index is not trusted",
        R.INDEX_DENIED: "a package index refuses the credentials",
        R.INDEX_PORT_TAKEN: "the port on which Jobs reach the indexes is in use",
        R.INDEX_UNREACHABLE: "a package index does not respond, or responds with an error",
        R.INDEX_UNREADABLE: "a package index responds with something that is not an index page",
        R.INVALID_CERTIFICATE: "`caBundle` is not a certificate in PEM format",
        R.LOCK_LOST: "the lock is gone; the build is resolved again",
        R.LOCK_UNREADABLE: "code that ran while the build was resolved wrote the lock",
        R.NOT_FOUND: "no index has the package; of a request: there is no such object",
        R.RESOLUTION_CONFLICT: "no versions satisfy all requirements beside the base",
        R.RESOLVE_TIMEOUT: "resolving took longer than allowed",
        R.RESOLVER_FAILED: "uv failed in an unexpected way",
        R.RUNTIMES_UNREACHABLE: "the list of runtimes for `plan` cannot be fetched",
        R.SECRET_MISSING: "a secret's file is not there",
        R.SOURCE_BUILD_REFUSED: "there is only an sdist, and `sourceBuilds` does not allow it",
        R.UV_MISSING: "uv is not installed",
    },
    "Building and verifying": {
        R.BUILDER_USER: "a daemon of root has no other user to build as",
        R.CANCELLED: "the daemon stopped the work itself",
        R.COMPILE_TIMEOUT: "compiling the modules took longer than allowed",
        R.DISK_ERROR: "the local disk for builds fails",
        R.DISK_FULL: "the local disk for builds is full",
        R.IMPORT_BUDGET_EXCEEDED: "importing the build costs more than its limits allow",
        R.IMPORT_REGRESSION: "importing the build costs clearly more than the one before",
        R.INTERNAL_ERROR: "a bug in Groundcrew; the daemon's log has the traceback",
        R.INVALID_WHEEL: "a wheel is broken",
        R.JOB_DEADLINE: "the build's Job ran longer than allowed",
        R.JOB_LOST: "the build's Job was deleted or evicted",
        R.JOB_NOT_STARTED: "the build's Job did not start in time",
        R.BUILD_DISK_QUOTA: "the team's builds use the local disk that they may use",
        R.JOB_OUT_OF_DISK: "the build's Job used more disk than allowed",
        R.JOB_OUT_OF_MEMORY: "the build's Job used more memory than allowed",
        R.JOB_SILENT: "the build's Job does not respond",
        R.NOT_A_PROGRAM: "a file that should be a program is an archive",
        R.NO_PROCESS: "the machine cannot start another process",
        R.PACKAGE_BUILD_FAILED: "the build backend of a package failed",
        R.SANDBOX_MISSING: "this machine cannot confine builds",
        R.UNSAFE_WHEEL: "a wheel contains something that wheels may not contain",
        R.VERIFICATION_FAILED: "the build does not import, or a DAG fails with it",
        R.WORKER_LOST: "another program ended a process that was reading input",
    },
    "The share": {
        R.BUILDS_RUNNING: "garbage is collected later, because a build is being placed",
        R.BUILD_MISSING: "the share does not have the complete build",
        R.DRIFTED: "the share is not as recorded: somebody else changed it",
        R.GARBAGE_COLLECTION: "the build waits until garbage was collected",
        R.GC_PAUSED: "an operator paused the collection; `groundcrew gc --resume` ends that",
        R.QUOTA_REACHED: "the team's builds use the space that it may use",
        R.SHARE_CORRUPT: "a file on the share does not have the contents that were written",
        R.SHARE_FULL: "the share is full",
        R.SHARE_MISSING: "the share is not mounted, or is another one",
        R.SHARE_UNREACHABLE: "the share does not respond",
        R.SHARE_UNWRITABLE: "the daemon may not write to the share",
        R.UNSAFE_ENTRY: "a package contains a symlink",
    },
    "Records and the daemon": {
        R.ALREADY_RUNNING: "another daemon runs on this machine",
        R.CONFLICT: "something else changed the object at the same moment",
        R.DATABASE_DAMAGED: "the database is damaged",
        R.DATABASE_UNAVAILABLE: "the database does not respond",
        R.DATABASE_UNKNOWN: "the setting `database` does not name a supported database",
        R.HTTP_UNAVAILABLE: "the daemon cannot listen on its HTTP address",
        R.LEASE_LOST: "another daemon leads now",
        R.NO_RECORDS: "no daemon has run yet",
        R.SCHEMA_TOO_NEW: "a newer Groundcrew has used the database",
        R.SCHEMA_TOO_OLD: "no daemon of this version has used the database yet",
        R.STATE_UNWRITABLE: "the daemon may not write to its state directory",
    },
    "Airflow": {
        R.AIRFLOW_CERTIFICATE: "the certificate of Airflow's API is not trusted",
        R.AIRFLOW_DENIED: "Airflow refuses the credentials",
        R.AIRFLOW_UNEXPECTED: "the response is not one of Airflow's API",
        R.AIRFLOW_UNREACHABLE: "Airflow's API does not respond",
    },
    "Activations": {
        R.ABORTED: "the activation was given up",
        R.BASE_CHANGED: "the instance's base changed during the activation",
        R.COMPONENT_DOWN: "a component does not run",
        R.CRASH_LOOP: "a component ends each time it is started",
        R.DRAINING: "running tasks are waited for",
        R.DRAIN_TIMEOUT: "running tasks did not end in time",
        R.GATE_FAILED: "the instance was not healthy",
        R.GATE_TIMEOUT: "the instance was not healthy in time",
        R.LOADER_FELL_BACK: "a component runs on the bare base instead of the build",
        R.LOADER_MISSING: "a component runs without Groundcrew's loader",
        R.NEW_IMPORT_ERRORS: "DAG files fail that did not fail before",
        R.NOT_LOADED: "declared providers or plugins are not loaded yet",
        R.NOT_PARSED: "DAGs are not parsed again yet",
        R.OTHER_BUILD_LOADED: "a component runs another build",
        R.RESTARTING: "components are being restarted",
        R.RESTART_FAILED: "the command that restarts a component failed",
        R.ROLLED_BACK_BY_OPERATOR: "an operator rolled the instance back from the build",
        R.SETTLING: "the last of the old pods are waited for",
        R.STATUS_UNKNOWN: "it is not known whether a component runs",
        R.SUPERSEDED: "something newer is wanted",
        R.UNHEALTHY: "a component does not report that it is healthy yet",
        R.WATCHING: "the instance is watched after the switch",
    },
    "Kubernetes": {
        R.ALREADY_EXISTS: "the object exists already",
        R.CLUSTER_BUSY: "the cluster's API server asks to come back later",
        R.CLUSTER_DENIED: "the cluster refuses the daemon's credentials",
        R.CLUSTER_UNEXPECTED: "the cluster's API server sent an object that cannot be read",
        R.CLUSTER_UNREACHABLE: "the cluster's API server does not respond",
        R.CONTAINER_CONFIG: "a container cannot be created from its configuration",
        R.CONTEXT_UNKNOWN: "the kubeconfig does not have the context",
        R.EXPIRED: "a list of objects is too old to continue from",
        R.FAILED_CREATE: "Kubernetes refuses to create the pod",
        R.FORBIDDEN: "the daemon does not have the right; of a request: nor does the token",
        R.IMAGE_PULL: "an image cannot be pulled",
        R.MIXED_IMAGES: "the release's pods run several images: it is being upgraded",
        R.NAMESPACE_MISSING: "the namespace does not exist",
        R.NOT_RESTARTABLE: "a component has an update strategy with which no restart has effect",
        R.NO_PODS: "the release has no running pod that tells its image",
        R.PODS_REFUSED: "Kubernetes refuses the new pods",
        R.POD_FAILED: "a pod has failed",
        R.POD_STUCK: "a pod does not end, because its node does not respond",
        R.PROGRESS_DEADLINE: "Kubernetes gave up on a rollout",
        R.QUOTA_EXCEEDED: "the namespace's quota is used up",
        R.REFUSED: "the cluster's API server refuses the request",
        R.RELEASE_MISSING: "the Helm release does not exist",
        R.ROLLOUT_TIMEOUT: "the rollout did not end in time",
        R.SIDECAR_CRASH_LOOP: "a container beside Airflow's ends each time it is started",
        R.UNSCHEDULABLE: "no node has room for the pod",
    },
    "Findings of `doctor`": {
        R.ADDRESS_WRONG: "a secret does not contain a valid address",
        R.AIRFLOW_HOME_MISSING: "the instance's `airflowHome` is not there",
        R.AIRFLOW_RIGHTS_MISSING: "the Airflow user may not do what activations need",
        R.AIRFLOW_UNHEALTHY: "Airflow reports an unhealthy component",
        R.CERTIFICATE_WRONG: "the server's certificate is not trusted",
        R.CHECK_FAILED: "a bug in the check itself",
        R.CLOCK_SKEW: "two clocks differ",
        R.CREDENTIALS_MISSING: "the instance has no usable credentials",
        R.DATABASE_DENIED: "the database refuses the credentials",
        R.DATABASE_READ_ONLY: "the database accepts no writes",
        R.DEFINITIONS_WRONG: "the repo has definitions with mistakes",
        R.EXCLUSIVE_BROKEN: "the share lets two processes create the same file",
        R.EXTRA_MISSING: "an optional library is not installed",
        R.FILLING: "little space is left",
        R.FORGE_UNREACHABLE: "GitHub or GitLab does not respond",
        R.GOOD: "everything is fine",
        R.LOADER_NOT_SET: "the release does not set `PYTHONPATH` to the loader",
        R.LOCK_IGNORED: "the share does not honour locks",
        R.LOCK_LOCAL: "locks on the share hold on this machine only",
        R.LOCK_REFUSED: "the share refuses locks",
        R.MAY_NOT_PUSH: "the token may not report on commits",
        R.MODES_LOST: "the share does not keep the modes of files",
        R.NOT_EXECUTABLE: "the instance's interpreter cannot be executed",
        R.NOT_USED: "the subject of the check is not in use",
        R.NOT_WORLD_READABLE: "other users cannot read what the daemon writes",
        R.PROJECT_HIDDEN: "the token does not see the project",
        R.PROJECT_UNKNOWN: "the project's name does not follow from `git.url`",
        R.READ_FROM_SHARE: "processes read their build from the share, which is slower",
        R.RECEIVER_UNREACHABLE: "Slack or the webhook does not respond",
        R.RENAME_BROKEN: "the share does not replace files by renaming",
        R.RIGHTS_MISSING: "the daemon's Role lacks rights",
        R.SANDBOX_OFF: "a setting turns the confinement of builds off",
        R.SCOPE_MISSING: "the token lacks a scope",
        R.SHARE_NOT_MOUNTED: "the release does not mount the share",
        R.STATE_REMOTE: "the state directory is on a network file system",
        R.SYSTEM_ERROR: "the operating system refused something to the check",
        R.TIMED_OUT: "the check did not end in time",
        R.TOKEN_REFUSED: "the token is not accepted",
    },
    "Responses of the HTTP server": {
        R.BAD_REQUEST: "the request is not valid",
        R.HOOK_DENIED: "the webhook's signature does not fit the secret",
        R.HOOK_INCOMPLETE: "the webhook's connection ended early",
        R.HOOK_TOO_LARGE: "the webhook's body is too large",
        R.HOOK_TOO_SLOW: "the webhook's body did not arrive in time",
        R.HOOK_UNKNOWN: "there is no secret for this webhook",
        R.METHOD_NOT_ALLOWED: "the address does not take this method",
        R.TOO_MANY_REQUESTS: "the client sends too many requests",
        R.UNAUTHORIZED: "a token or a login is required",
        R.UNAVAILABLE: "the server cannot respond now",
    },
    "A server that the command line asks": {
        R.SERVER_CERTIFICATE: "the server's certificate is not trusted",
        R.SERVER_UNKNOWN: "it is not a Groundcrew server, or one of another version",
        R.SERVER_UNREACHABLE: "the server does not respond",
    },
}
MEANINGS = {reason: means for table in TABLES.values() for reason, means in table.items()}

HEAD = """\
# Reasons

Every error, problem and finding has a reason: one word, which `groundcrew status`, the
[API](api.md), the [metrics](metrics.md) and the [events](events.md) share. The message
beside it names the object and says what to do; this page says what each word means and what follows
from it. The [runbooks](runbooks/Reasons.md) say what to do about most of them. Generated by
`make generate`; the tests compare it with the code.
"""


def page() -> str:
    """Return the whole page."""
    parts = [HEAD]
    for title, reasons in TABLES.items():
        parts.append(
            f"\n## {title}\n\n| reason | means | consequence | advice |\n|---|---|---|---|\n"
        )
        for reason, meaning in reasons.items():
            advice = reason.advice.replace("<", "&lt;")
            parts.append(f"| `{reason}` | {meaning} | {consequences(reason)} | {advice} |\n")
    return "".join(parts)


def consequences(reason: Reason) -> str:
    """Return what follows from a reason by its policy; "" if nothing special does."""
    policy = reason.policy
    rows = [
        (policy.blameless, "an activation is retried, as the build is not at fault"),
        (policy.login, "after a few attempts it counts against the build"),
        (policy.ordinary, "it is waited for until the step's deadline; nothing is wrong"),
        (policy.patient, "a rollout may recover by itself, so it is given time"),
        (policy.withdraws, "the activation ends without a failure"),
        (policy.restartable, "a restart may remove it"),
        (
            policy.credential,
            "alert [GroundcrewCredentialRefused](runbooks/GroundcrewCredentialRefused.md)",
        ),
        (policy.unreachable, "`doctor` calls it unreachable"),
        (policy.exit is Exit.MISUSE, "a command exits with 2"),
        (policy.exit is Exit.UNREACHABLE, "a command exits with 3"),
    ]
    return "; ".join(row for applies, row in rows if applies)
