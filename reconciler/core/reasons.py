"""Reasons: one word for why something failed, is refused, or is waited for, with its policy.

Every error, problem and finding carries a `Reason`. What follows from it stands beside the member
and nowhere else: whether a build is blamed, how long it is waited for, the exit code, the advice.
A reason's value is a condition's reason, a label of metrics and part of the API: it is never
renamed lightly. `scripts/docs/reasons.py` says for users what each one means.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Self


class Exit(IntEnum):
    """Exit code of a command."""

    DONE = 0
    WRONG = 1
    MISUSE = 2
    UNREACHABLE = 3


@dataclass(frozen=True, slots=True)
class Policy:
    """Consequences of a reason.

    `blameless`: an activation that failed is retried after a while, as its build is not at fault.
    `login`: the same, but only a few times if the build before it could log in to Airflow.
    `ordinary`: a step waits for it, up to its own deadline, while nothing is wrong.
    `patient`: a rollout may recover from it by itself, so it is waited for. `withdraws`: an
    activation ends without a failure, because its replacement follows at once. `restartable`: a
    restart of the process may remove it. `credential`: a secret or certificate has to be renewed.
    `unreachable`: something did not respond, which `doctor` tells apart from what is wrong. `exit`
    is the exit code of a command that ends with it; None: that of the kind of error.
    """

    blameless: bool = False
    login: bool = False
    ordinary: bool = False
    patient: bool = False
    withdraws: bool = False
    restartable: bool = False
    credential: bool = False
    unreachable: bool = False
    exit: Exit | None = None


PLAIN = Policy()
BLAMELESS = Policy(blameless=True)
ORDINARY = Policy(ordinary=True)
RECOVERING = Policy(blameless=True, patient=True)
WITHDRAWS = Policy(withdraws=True)
MISLOADED = Policy(blameless=True, restartable=True)
CREDENTIAL = Policy(credential=True)
LOGIN = Policy(blameless=True, login=True, credential=True)
SILENT = Policy(unreachable=True)
ABSENT = Policy(exit=Exit.UNREACHABLE)
MISUSE = Policy(exit=Exit.MISUSE)


class Reason(StrEnum):
    """A reason with its `policy`, and `advice` for users ("" if the message has to say it)."""

    policy: Policy
    advice: str

    # Nothing is wrong
    READY = "Ready"
    NOT_READY = "NotReady"
    IDLE = "Idle"
    NO_PROBLEM = "NoProblem"

    # Definitions
    CREDENTIALS_TAKEN = "CredentialsTaken"
    DUPLICATE_KEY = "DuplicateKey"
    DUPLICATE_NAME = "DuplicateName"
    FOREIGN_INSTANCE = "ForeignInstance"
    INSTANCE_TAKEN = "InstanceTaken"
    INVALID_VALUE = "InvalidValue"
    INVALID_YAML = "InvalidYaml"
    LFS_POINTER_REFUSED = "LfsPointerRefused"
    MISSING_FILE = "MissingFile"
    MISSING_KEY = "MissingKey"
    NOT_ALLOWED = "NotAllowed", BLAMELESS, "add it to local.allow, if the platform team agrees"
    NOT_LISTED = (
        "NotListed",
        PLAIN,
        "add `name @ ./path` to the requirements, or describe the index that has it in `indexes`",
    )
    READ_FAILED = "ReadFailed"
    RECORD_UNREADABLE = "RecordUnreadable"
    SUBMODULE_REFUSED = "SubmoduleRefused"
    SYMLINK_REFUSED = "SymlinkRefused"
    TOO_EXPENSIVE = "TooExpensive"
    TOO_LARGE = "TooLarge"
    UNKNOWN_FRAGMENT = "UnknownFragment"
    UNKNOWN_INSTANCE = "UnknownInstance"
    UNKNOWN_KEY = "UnknownKey"
    WRONG_TYPE = "WrongType"

    # The environments repo
    BRANCH_MISSING = "BranchMissing", PLAIN, "push the branch, or set git.branch"
    MIRROR_DAMAGED = "MirrorDamaged"
    MIRROR_SLOW = "MirrorSlow"
    NOT_LOCAL = "NotLocal"
    PRUNE_HELD = "PruneHeld"
    SOURCE_CERTIFICATE = (
        "SourceCertificate",
        CREDENTIAL,
        "renew the certificate or host key; or name its authority by SSL_CERT_FILE, or "
        "<secrets_dir>/git/known_hosts for ssh",
    )
    SOURCE_DENIED = (
        "SourceDenied",
        CREDENTIAL,
        "renew the token or ssh-privatekey in <secrets_dir>/git/; it needs to read the repo",
    )
    SOURCE_EMPTY = (
        "SourceEmpty",
        PLAIN,
        "push the environments repo; `groundcrew init DIR` writes one to start from",
    )
    SOURCE_MISSING = (
        "SourceMissing",
        PLAIN,
        "set git.url in groundcrew.toml, or GROUNDCREW_GIT__URL",
    )
    SOURCE_TOO_LARGE = "SourceTooLarge"
    SOURCE_UNKNOWN = (
        "SourceUnknown",
        MISUSE,
        "write another address into git.url, or its scheme into git.allow_schemes",
    )
    SOURCE_UNREACHABLE = (
        "SourceUnreachable",
        SILENT,
        "see that git.url is the repo's address and that the daemon's network reaches it",
    )
    SOURCE_UNSAFE = "SourceUnsafe"

    # Resolving and indexes
    ADDRESS_REFUSED = "AddressRefused"
    BASE_UNREADABLE = "BaseUnreadable"
    FILE_CERTIFICATE = "FileCertificate", CREDENTIAL
    FILE_UNREACHABLE = "FileUnreachable"
    HASH_MISMATCH = "HashMismatch"
    INDEX_CERTIFICATE = "IndexCertificate", CREDENTIAL
    INDEX_DENIED = "IndexDenied", CREDENTIAL
    INDEX_PORT_TAKEN = "IndexPortTaken"
    INDEX_UNREACHABLE = "IndexUnreachable"
    INDEX_UNREADABLE = "IndexUnreadable"
    INVALID_CERTIFICATE = "InvalidCertificate", CREDENTIAL
    LOCK_LOST = "LockLost"
    LOCK_UNREADABLE = "LockUnreadable"
    NOT_FOUND = "NotFound", PLAIN, "if it is a package of your own, describe its index in `indexes`"
    RESOLUTION_CONFLICT = "ResolutionConflict"
    RESOLVE_TIMEOUT = "ResolveTimeout"
    RESOLVER_FAILED = "ResolverFailed"
    RUNTIMES_UNREACHABLE = "RuntimesUnreachable"
    SECRET_MISSING = "SecretMissing", CREDENTIAL
    SOURCE_BUILD_REFUSED = (
        "SourceBuildRefused",
        PLAIN,
        "choose a version that has a wheel, or add the name to sourceBuilds",
    )
    UV_MISSING = "UvMissing"

    # Building and verifying
    BUILDER_USER = "BuilderUser"
    CANCELLED = "Cancelled"
    COMPILE_TIMEOUT = "CompileTimeout"
    DISK_ERROR = "DiskError"
    BUILD_DISK_QUOTA = "BuildDiskQuota"
    DISK_FULL = "DiskFull"
    IMPORT_BUDGET_EXCEEDED = "ImportBudgetExceeded"
    IMPORT_REGRESSION = "ImportRegression"
    INTERNAL_ERROR = "InternalError"
    INVALID_WHEEL = "InvalidWheel"
    JOB_DEADLINE = "JobDeadline"
    JOB_LOST = "JobLost"
    JOB_NOT_STARTED = "JobNotStarted"
    JOB_OUT_OF_DISK = "JobOutOfDisk"
    JOB_OUT_OF_MEMORY = "JobOutOfMemory"
    JOB_SILENT = "JobSilent"
    NOT_A_PROGRAM = "NotAProgram"
    NO_PROCESS = "NoProcess"
    PACKAGE_BUILD_FAILED = "PackageBuildFailed"
    SANDBOX_MISSING = "SandboxMissing"
    UNSAFE_WHEEL = "UnsafeWheel"
    VERIFICATION_FAILED = "VerificationFailed"
    WORKER_LOST = "WorkerLost"

    # The share
    BUILDS_RUNNING = "BuildsRunning"
    BUILD_MISSING = "BuildMissing", BLAMELESS
    DRIFTED = "Drifted"
    GARBAGE_COLLECTION = "GarbageCollection", BLAMELESS
    GC_PAUSED = "GcPaused"
    QUOTA_REACHED = "QuotaReached"
    SHARE_CORRUPT = "ShareCorrupt", BLAMELESS
    SHARE_FULL = "ShareFull", BLAMELESS, "free space on the share, or run `groundcrew gc`"
    SHARE_MISSING = "ShareMissing", BLAMELESS
    SHARE_UNREACHABLE = (
        "ShareUnreachable",
        Policy(blameless=True, unreachable=True),
        "see that the share is mounted and that its server answers",
    )
    SHARE_UNWRITABLE = (
        "ShareUnwritable",
        Policy(blameless=True, exit=Exit.UNREACHABLE),
        "mount the share read-write for the daemon, owned by the daemon's user",
    )
    UNSAFE_ENTRY = "UnsafeEntry"

    # Records and the daemon
    ALREADY_RUNNING = "AlreadyRunning", ABSENT
    CONFLICT = "Conflict"
    DATABASE_DAMAGED = (
        "DatabaseDamaged",
        PLAIN,
        "restore a backup, or move it away: an empty one adopts the share",
    )
    DATABASE_UNAVAILABLE = (
        "DatabaseUnavailable",
        SILENT,
        "see that it runs and that the setting database is its address",
    )
    DATABASE_UNKNOWN = "DatabaseUnknown", MISUSE
    HTTP_UNAVAILABLE = "HttpUnavailable", ABSENT
    LEASE_LOST = "LeaseLost"
    NO_RECORDS = "NoRecords", ABSENT
    SCHEMA_TOO_NEW = "SchemaTooNew", ABSENT, "run the newer Groundcrew, or restore a backup"
    SCHEMA_TOO_OLD = "SchemaTooOld"
    STATE_UNWRITABLE = "StateUnwritable", ABSENT

    # Airflow
    AIRFLOW_CERTIFICATE = (
        "AirflowCertificate",
        LOGIN,
        "renew the certificate, or name its authority by SSL_CERT_FILE",
    )
    AIRFLOW_DENIED = (
        "AirflowDenied",
        LOGIN,
        "renew username and password, or the token, of an Airflow user with the role Op in the "
        "team's secret; Airflow 2 also needs airflow.api.auth.backend.basic_auth in "
        "api.auth_backends",
    )
    AIRFLOW_UNEXPECTED = (
        "AirflowUnexpected",
        PLAIN,
        "see that spec.api.url is the address of Airflow's API server, with the path it is "
        "served under, and that no login page stands in front of it",
    )
    AIRFLOW_UNREACHABLE = (
        "AirflowUnreachable",
        SILENT,
        "see that Airflow's API server runs, that spec.api.url is its address, and that network "
        "policies let the daemon through",
    )

    # Activations
    ABORTED = "Aborted"
    BASE_CHANGED = "BaseChanged", WITHDRAWS
    COMPONENT_DOWN = "ComponentDown", ORDINARY
    CRASH_LOOP = "CrashLoop"
    DRAINING = "Draining", ORDINARY
    DRAIN_TIMEOUT = "DrainTimeout"
    GATE_FAILED = "GateFailed"
    GATE_TIMEOUT = "GateTimeout"
    LOADER_FELL_BACK = "LoaderFellBack", MISLOADED
    LOADER_MISSING = "LoaderMissing", BLAMELESS
    NEW_IMPORT_ERRORS = "NewImportErrors"
    NOT_LOADED = "NotLoaded", ORDINARY
    NOT_PARSED = "NotParsed", ORDINARY
    OTHER_BUILD_LOADED = "OtherBuildLoaded", MISLOADED
    RESTARTING = "Restarting", ORDINARY
    RESTART_FAILED = "RestartFailed"
    ROLLED_BACK_BY_OPERATOR = "RolledBackByOperator"
    SETTLING = "Settling", ORDINARY
    STATUS_UNKNOWN = "StatusUnknown"
    SUPERSEDED = "Superseded", WITHDRAWS
    UNHEALTHY = "Unhealthy", ORDINARY
    WATCHING = "Watching", ORDINARY

    # Kubernetes
    ALREADY_EXISTS = "AlreadyExists"
    CLUSTER_BUSY = "ClusterBusy", SILENT, "look again; if it lasts, see what loads the API server"
    CLUSTER_DENIED = (
        "ClusterDenied",
        CREDENTIAL,
        "renew the daemon's credentials: its service account, or the kubeconfig",
    )
    CLUSTER_UNEXPECTED = (
        "ClusterUnexpected",
        PLAIN,
        "see what answers at the address of the API server, and which webhook or operator changes "
        "the object that is named",
    )
    CLUSTER_UNREACHABLE = (
        "ClusterUnreachable",
        SILENT,
        "see that the API server runs and that the daemon's network reaches it",
    )
    CONTAINER_CONFIG = "ContainerConfig", BLAMELESS
    CONTEXT_UNKNOWN = (
        "ContextUnknown",
        PLAIN,
        "name a context of the kubeconfig in spec.kubernetes.context, and set "
        "kubernetes.kubeconfig",
    )
    EXPIRED = "Expired"
    FAILED_CREATE = "FailedCreate"
    FORBIDDEN = (
        "Forbidden",
        PLAIN,
        "let the Helm chart make its Roles: list the namespace in airflowNamespaces",
    )
    IMAGE_PULL = "ImagePull", BLAMELESS
    MIXED_IMAGES = "MixedImages"
    NAMESPACE_MISSING = "NamespaceMissing"
    NOT_RESTARTABLE = "NotRestartable"
    NO_PODS = "NoPods"
    PODS_REFUSED = "PodsRefused", BLAMELESS
    POD_FAILED = "PodFailed", Policy(patient=True)
    POD_STUCK = "PodStuck", BLAMELESS
    PROGRESS_DEADLINE = "ProgressDeadline"
    QUOTA_EXCEEDED = "QuotaExceeded", RECOVERING
    REFUSED = "Refused"
    RELEASE_MISSING = "ReleaseMissing"
    ROLLOUT_TIMEOUT = "RolloutTimeout"
    SIDECAR_CRASH_LOOP = "SidecarCrashLoop", RECOVERING
    UNSCHEDULABLE = "Unschedulable", RECOVERING

    # Findings of `doctor`
    ADDRESS_WRONG = "AddressWrong"
    AIRFLOW_HOME_MISSING = "AirflowHomeMissing"
    AIRFLOW_RIGHTS_MISSING = "AirflowRightsMissing"
    AIRFLOW_UNHEALTHY = "AirflowUnhealthy"
    CERTIFICATE_WRONG = "CertificateWrong"
    CHECK_FAILED = "CheckFailed"
    CLOCK_SKEW = "ClockSkew"
    CREDENTIALS_MISSING = "CredentialsMissing"
    DATABASE_DENIED = "DatabaseDenied"
    DATABASE_READ_ONLY = "DatabaseReadOnly"
    DEFINITIONS_WRONG = "DefinitionsWrong"
    EXCLUSIVE_BROKEN = "ExclusiveBroken"
    EXTRA_MISSING = "ExtraMissing"
    FILLING = "Filling"
    FORGE_UNREACHABLE = "ForgeUnreachable"
    GOOD = "Good"
    LOADER_NOT_SET = "LoaderNotSet"
    LOCK_IGNORED = "LockIgnored"
    LOCK_LOCAL = "LockLocal"
    LOCK_REFUSED = "LockRefused"
    MAY_NOT_PUSH = "MayNotPush"
    MODES_LOST = "ModesLost"
    NOT_EXECUTABLE = "NotExecutable"
    NOT_USED = "NotUsed"
    NOT_WORLD_READABLE = "NotWorldReadable"
    PROJECT_HIDDEN = "ProjectHidden"
    PROJECT_UNKNOWN = "ProjectUnknown"
    READ_FROM_SHARE = "ReadFromShare"
    RECEIVER_UNREACHABLE = "ReceiverUnreachable"
    RENAME_BROKEN = "RenameBroken"
    RIGHTS_MISSING = "RightsMissing"
    SANDBOX_OFF = "SandboxOff"
    SCOPE_MISSING = "ScopeMissing"
    SHARE_NOT_MOUNTED = "ShareNotMounted"
    STATE_REMOTE = "StateRemote"
    SYSTEM_ERROR = "SystemError"
    TIMED_OUT = "TimedOut"
    TOKEN_REFUSED = "TokenRefused"  # noqa: S105 - a reason, not a password

    # Responses of the HTTP server
    BAD_REQUEST = "BadRequest"
    HOOK_DENIED = "HookDenied"
    HOOK_INCOMPLETE = "HookIncomplete"
    HOOK_TOO_LARGE = "HookTooLarge"
    HOOK_TOO_SLOW = "HookTooSlow"
    HOOK_UNKNOWN = "HookUnknown"
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    TOO_MANY_REQUESTS = "TooManyRequests"
    UNAUTHORIZED = "Unauthorized"
    UNAVAILABLE = "Unavailable"

    # A server that the command line asks
    SERVER_CERTIFICATE = "ServerCertificate", ABSENT
    SERVER_UNKNOWN = "ServerUnknown", ABSENT
    SERVER_UNREACHABLE = "ServerUnreachable"

    def __new__(cls, value: str, policy: Policy = PLAIN, advice: str = "") -> Self:
        """Create a member from its value, its policy and its advice."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.policy, member.advice = policy, advice
        return member

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Return a reason that another version recorded: its text, without a policy."""
        if not isinstance(value, str):
            return None
        unknown = str.__new__(cls, value)
        unknown._name_, unknown._value_ = "UNKNOWN", value
        unknown.policy, unknown.advice = PLAIN, ""
        return unknown
