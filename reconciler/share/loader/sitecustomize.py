"""Loader of Groundcrew: gives this interpreter the packages of its instance's build.

It is on the share as instances/<instance>/loader/sitecustomize.py and on PYTHONPATH, so that Python
imports it at start. It reads the pointer once, and pins what it found for all children. The base
always takes precedence: paths are appended. Its own folder is removed from sys.path: otherwise each
import would search it, on the share. Standard library only, Python 3.9 and newer; it never raises.

Environment: GROUNDCREW_BUILD pins a build id ("none": the bare base) and overrides the pointer;
GROUNDCREW_COMPONENT names the Airflow component if the command line does not show it;
GROUNDCREW_LOCAL and GROUNDCREW_LOCAL_LIMIT say where packs are unpacked (see groundcrew_local). It
sets GROUNDCREW_BUILD for its children, and GROUNDCREW_PYTHON, with which programs of a build start.

The first process of a component leaves a proof of what it has loaded (see groundcrew_proof);
GROUNDCREW_PROOF tells its children that this is done.
"""

from __future__ import annotations

import os
import stat
import sys

_LIMIT = 8 << 20
_COMMANDS = {
    "scheduler": "scheduler",
    "dag-processor": "dag-processor",
    "triggerer": "triggerer",
    "api-server": "api-server",
    "webserver": "webserver",
    "worker": "worker",
    "tasks": "worker",
}
_said = []  # type: ignore[var-annotated]  # what this start had to tell
_REFUSED = ("PATH", "HOME", "AIRFLOW_HOME", "AIRFLOW_CONFIG")
_REFUSED_PREFIXES = ("PYTHON", "LD_", "DYLD_", "GROUNDCREW_", "AIRFLOW__")


def _airflow() -> tuple | None:  # type: ignore[type-arg]
    """Return (version, listing) of the Airflow installed beside this interpreter, or None.

    The listing is a fingerprint of what else is installed there; inventory.py computes the same.
    """
    for folder in sys.path:
        if not folder.endswith("-packages"):
            continue
        try:
            names = sorted(n for n in os.listdir(folder) if n.endswith(".dist-info"))
        except OSError:
            continue
        for package in ("apache_airflow-", "apache_airflow_core-"):
            for name in names:
                if name.startswith(package):
                    import zlib

                    listing = "%08x" % zlib.crc32(os.fsencode("\n".join(names)))
                    return name[len(package) : -len(".dist-info")], listing
    return None


def _component() -> str:
    """Return the Airflow component that this process is, or "" if it is none."""
    return os.environ.get("GROUNDCREW_COMPONENT", "") or _commanded()


def _words() -> list:  # type: ignore[type-arg]
    """Return the command line of this process."""
    return list(getattr(sys, "orig_argv", None) or getattr(sys, "argv", None) or [])


def _commanded() -> str:
    """Return the Airflow component that the command line starts, tasks included, or ""."""
    arguments = _words()
    for index, word in enumerate(arguments):
        name = os.path.basename(word)
        module = index > 0 and arguments[index - 1] == "-m" and word == "airflow"
        if name == "airflow" or module or word.endswith("/airflow/__main__.py"):
            rest = [w for w in arguments[index + 1 :] if not w.startswith("-")]
            if rest[:2] == ["celery", "worker"]:
                return "worker"
            return _COMMANDS.get(rest[0], "") if rest else ""
        if word.startswith(("airflow.sdk.execution_time", "airflow.executors")):
            return "worker"
    return ""


def _read(path: str) -> dict | None:  # type: ignore[type-arg]  # typing costs an import
    """Return a JSON document from the share, or None."""
    import json

    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except FileNotFoundError:
        return None
    document = json.loads(data) if len(data) <= _LIMIT else None
    return document if isinstance(document, dict) else None


def _chosen(here: str, abi: str, airflow: str, listing: str) -> str | None:
    """Return the build id for this process, from the pin or the pointer; None for the bare base.

    The pointer may name builds for several bases, the newest last. The build for this base is used;
    if there is none because something was installed just now, the newest for this Python and
    Airflow.
    """
    pin = os.environ.get("GROUNDCREW_BUILD")
    if pin:
        return None if pin == "none" else pin
    pointer = _read(os.path.join(os.path.dirname(here), "pointer.json")) or {}
    component = _component()
    wanted = pointer.get("loadInto")
    if component and isinstance(wanted, list) and component not in wanted:
        os.environ["GROUNDCREW_COMPONENT"] = component
        return None
    entries = [
        entry
        for entry in (pointer.get("builds") or {}).values()
        if entry.get("abi") == abi and entry.get("airflow") == airflow
    ]
    entries = [entry for entry in entries if entry.get("listing") == listing] or entries
    build = str(entries[-1].get("build")) if entries else "none"
    return None if build == "none" else build


def _load(here: str) -> bool:
    """Find this process's build, pin it for the children, and load it.

    Return True if it is read from local folders, at least in part.
    """
    airflow = _airflow()
    if airflow is None:
        return False
    system = os.uname()
    version = sys.version_info
    abi = "cp%d%d-%s_%s" % (version[0], version[1], system.sysname.lower(), system.machine)
    build = _chosen(here, abi, *airflow)
    if not build or not build.isalnum():
        os.environ["GROUNDCREW_BUILD"] = "none"
        return False
    os.environ["GROUNDCREW_BUILD"] = build
    os.environ["GROUNDCREW_PYTHON"] = sys.executable or "python3"
    root = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    try:
        noted = _noted(root, build)
    except Exception:  # whatever it is, it is no note of ours
        noted = None
    if noted is None:
        path = os.path.join(root, "builds", build, "build.json")
        mark = _mark(path)
        manifest = _read(path)
    else:
        manifest = noted[0]
    if manifest is None or manifest.get("abi") != abi:
        why = "is not on the share" if manifest is None else "is not for %s" % abi
        _say("build %s %s; going on with the bare base" % (build, why))
        os.environ["GROUNDCREW_BUILD"] = "none"
        return False
    local = _local(root, build, manifest, mark) if noted is None else noted[1]
    _apply(root, manifest, local)
    return bool(local)


def _mark(path: str) -> list:  # type: ignore[type-arg]
    """Return a value that is unique for each file that ever had this name; [] if there is none."""
    try:
        info = os.stat(path)
    except OSError:
        return []
    return [info.st_ino, info.st_mtime_ns, info.st_size]


def _noted(root: str, build: str) -> tuple | None:  # type: ignore[type-arg]
    """Return (build.json, local folders) of a build whose packs are all unpacked here, as noted.

    None if the share has to be read: nothing was noted, a pack was evicted, or the build's
    build.json has changed since.
    """
    note = ".build-" + build
    folder = _place(root, note) if os.environ.get("GROUNDCREW_LOCAL") != "off" else None
    kept = _read(os.path.join(folder, note)) if folder is not None else None
    if folder is None or kept is None:
        return None
    mark = _mark(os.path.join(root, "builds", build, "build.json"))
    if not mark or kept["mark"] != mark or kept["manifest"]["build"] != build:
        return None
    folders = {}
    for digest, (name, data) in kept["links"].items():
        if not os.path.isdir(os.path.join(folder, data)):
            return None  # evicted
        folders[digest] = os.path.join(folder, name)
        try:
            os.utime(folders[digest], follow_symlinks=False)  # used now: evicted last
        except OSError:
            pass
    return kept["manifest"], folders


def _local(root: str, build: str, manifest: dict, mark: list) -> dict:  # type: ignore[type-arg]
    """Return local folders of store entries by digest; if anything fails, the share is used."""
    if os.environ.get("GROUNDCREW_LOCAL") == "off":
        _said.append("GROUNDCREW_LOCAL is off")
        return {}
    try:
        hot = _read(os.path.join(root, "builds", build, "hot.json"))
        packs = (hot or manifest).get("packs")  # earlier releases named whole packs in build.json
        folder = _place(root) if packs else None
        if not packs or folder is None:
            return {}
        lasting = hot and mark and not any(row.get("whole") for row in packs.values())
        import groundcrew_local  # type: ignore[import-not-found]  # beside this file

        folders: dict = groundcrew_local.localise(  # type: ignore[type-arg]
            root,
            folder,
            packs,
            ".build-" + build if lasting else "",
            {"manifest": manifest, "mark": mark},
        )
        if not folders:
            _said.append("no pack was unpacked into %s: there is no room for it" % folder)
        return folders
    except Exception as error:
        _say("using the share as it is: %s: %s" % (type(error).__name__, error))
        return {}


def _place(root: str, note: str = "") -> str | None:
    """Return the folder for a share's packs, owned by us, created if necessary; None if unusable.

    With `note`, return the folder that contains that file, and create nothing.
    """
    import zlib

    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read(8)
    except OSError:
        boot = "noboot"
    name = "%08x-%s" % (zlib.crc32(root.encode()), boot)
    for top in _tops(root):
        top = os.path.join(top, "groundcrew-%d" % os.getuid())  # an emptyDir is writable by all
        folder = os.path.join(top, name)
        try:
            if note:
                if os.path.exists(os.path.join(folder, note)) and _ours(top) and _ours(folder):
                    return folder
                continue
            _make(os.path.dirname(top), 0o755)
            for level in (top, folder, os.path.join(folder, ".data")):
                _make(level, 0o700)
            runs = not os.statvfs(folder).f_flag & os.ST_NOEXEC  # shared objects need that
            if runs and _ours(top) and _ours(folder) and os.access(folder, os.W_OK):
                return folder
            _said.append("%s takes no packs: it is noexec, read-only or open to others" % folder)
        except OSError as error:
            if not note:
                _said.append("%s takes no packs: %s" % (folder, error.strerror or error))
    return None


def _tops(root: str) -> list:  # type: ignore[type-arg]
    """Folders that may take what this machine keeps of ours, in order; none is on the share."""
    named = os.environ.get("GROUNDCREW_LOCAL", "")
    temp = os.environ.get("TMPDIR") or "/tmp"  # noqa: S108 - a folder of our own in it, which is checked
    folders = [p for p in named.split(os.pathsep) if p and p != "off"] or [temp]
    share = os.path.join(os.path.realpath(root), "")
    return [p for p in folders if not os.path.join(os.path.realpath(p), "").startswith(share)]


def _make(folder: str, mode: int) -> None:
    """Create a folder and its missing parents, each with at most this mode, whatever the umask.

    os.makedirs applies its mode to the last level only: with the umask 0002 of Airflow's official
    image the levels above become group-writable, and are then refused.
    """
    if os.path.isdir(folder):
        return
    parent = os.path.dirname(folder)
    if parent != folder:
        _make(parent, mode)
    try:
        os.mkdir(folder, mode)
    except FileExistsError:  # another process was faster
        pass


def _ours(folder: str) -> bool:
    """Return True if nobody else can have put code there."""
    info = os.lstat(folder)
    folder_of_ours = stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid()
    return folder_of_ours and not info.st_mode & 0o022


def _apply(root: str, manifest: dict, local: dict) -> None:  # type: ignore[type-arg]
    """Append the build's paths and set the variables of its definition."""
    known = set(sys.path)
    for item in manifest.get("paths", ()):
        path = os.path.join(root, item["path"])
        parts = item["path"].split("/")  # store/sha256/<ab>/<digest>/lib, or deeper in a prefix
        if len(parts) >= 5 and parts[3] in local:
            path = os.path.join(local[parts[3]], *parts[4:])
        if item.get("pth"):
            import site

            site.addsitedir(path)
        elif path not in known:
            sys.path.append(path)
    for name, value in (manifest.get("env") or {}).items():
        if name in _REFUSED or name.startswith(_REFUSED_PREFIXES):
            continue
        try:
            os.environ[name] = str(value)
        except (ValueError, OSError) as error:  # NUL, or an invalid name: the others are set
            _say("%r is not set: %s" % (name, error))
    for variable, items in (("PATH", manifest.get("bin")), ("CLASSPATH", manifest.get("jars"))):
        parts = [p for p in os.environ.get(variable, "").split(os.pathsep) if p]
        parts += [p for p in (os.path.join(root, item) for item in items or ()) if p not in parts]
        if parts:
            os.environ[variable] = os.pathsep.join(parts)


def _say(words: str) -> None:
    _said.append(words)
    try:
        sys.stderr.write("groundcrew: %s\n" % words)
    except Exception:
        pass


def _shadowed() -> None:
    """Run the sitecustomize that this one hides, if there is one."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec("sitecustomize", sys.path)
    if spec is None or spec.loader is None:
        return
    module = module_from_spec(spec)
    sys.modules["sitecustomize"] = module
    spec.loader.exec_module(module)


def _service() -> str:
    """Return the name of the long-running service that this process starts, or "".

    An Airflow component by its command line. A script may hide that: whatever a container or an
    init system starts directly counts too. Tasks do not.
    """
    arguments = _words()
    component = _commanded()
    if component and not ("tasks" in arguments or any(w.startswith("airflow.") for w in arguments)):
        return component
    if os.getpid() == 1 or os.getppid() == 1:
        return _component() or os.path.basename(arguments[0] if arguments else "python")
    return ""


def _prove(here: str, pinned: str, local: bool) -> None:
    """Leave a proof of what the first process of a service has loaded, see groundcrew_proof."""
    told = os.environ.get("GROUNDCREW_PROOF", "")
    service = _service() if told in ("", str(os.getpid())) else ""
    if not service:
        return
    os.environ["GROUNDCREW_PROOF"] = str(os.getpid())
    import groundcrew_proof  # type: ignore[import-not-found]  # beside this file

    proof = {
        "component": service,
        "build": os.environ.get("GROUNDCREW_BUILD", "none"),
        "pinned": bool(pinned),
        "local": local,
        "said": "; ".join(_said),
    }
    root = os.path.dirname(os.path.dirname(os.path.dirname(here)))
    groundcrew_proof.leave(proof, _tops(root), _make, _ours)


def _start() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    base = list(sys.path)
    pinned = os.environ.get("GROUNDCREW_BUILD", "")
    local = False
    try:
        local = _load(here)
    except Exception as error:
        sys.path[:] = base
        os.environ["GROUNDCREW_BUILD"] = "none"  # children stay on the base like this process
        _say("the bare base, because: %s: %s" % (type(error).__name__, error))
    try:
        _prove(here, pinned, local)
    except Exception:  # without it the build is loaded all the same
        pass
    sys.path[:] = [p for p in sys.path if os.path.abspath(p or ".") != here]
    try:
        _shadowed()
    except Exception as error:
        _say("sitecustomize: %s: %s" % (type(error).__name__, error))


_start()
