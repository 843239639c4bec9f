"""Translation of errors into messages for users of the command line, instead of tracebacks."""

from __future__ import annotations

import os
import tomllib
from difflib import get_close_matches
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsError

from reconciler.cli.exit_codes import Exit, Misuse
from reconciler.core.errors import GroundcrewError, Retryable
from reconciler.settings import Settings, config_path


def explain(error: Exception) -> tuple[Exit, str] | None:
    """Return exit code and message for an expected error, or None for a bug."""
    match error:
        case Misuse():
            return Exit.MISUSE, str(error)
        case GroundcrewError():
            usual = Exit.UNREACHABLE if isinstance(error, Retryable) else Exit.WRONG
            code = error.reason.policy.exit
            return usual if code is None else code, f"{error} [{error.reason}]"
        case ValidationError() if error.title == Settings.__name__:
            return Exit.MISUSE, _settings_words(error)
        case SettingsError():
            return Exit.MISUSE, (
                f"the settings cannot be read: {error}; in a variable, write a list as JSON, such "
                f"as GROUNDCREW_LOCAL__ALLOW='[\"/opt/airflow/bin/*\"]'"
            )
        case tomllib.TOMLDecodeError():
            path = os.environ.get("GROUNDCREW_CONFIG", "groundcrew.toml")
            return Exit.MISUSE, f"the settings file {path} is not TOML: {error}"
        case OSError() if error.filename is not None:
            return Exit.UNREACHABLE, f"{error.filename}: {error.strerror}"
        case _:
            return None


def _settings_words(error: ValidationError) -> str:
    """Return one line per invalid setting: key, variable, the mistake and its correction."""
    lines = []
    for one in error.errors(include_url=False):
        keys = [str(part) for part in one["loc"] if not isinstance(part, int)]
        lines.append(f"{_location(keys)}{_mistake(one, keys)}")
    return "the settings are wrong\n" + "\n".join(f"  {line}" for line in lines)


def _mistake(one: ErrorDetails, keys: list[str]) -> str:
    """Return the key, its variable, the mistake and its correction."""
    if one["type"] == "extra_forbidden":
        return f"no setting {'.'.join(keys)}{_meant(keys)}"
    variable = f"GROUNDCREW_{'__'.join(keys).upper()}"
    if one["type"] == "value_error":  # of a whole section: what is in it is not shown
        return f"{'.'.join(keys)}: {one['msg'].removeprefix('Value error, ')}"
    message = one["msg"][:1].lower() + one["msg"][1:]
    return f"{'.'.join(keys)} ({variable}) is {one['input']!r}: {message}{_about(keys)}"


def _location(keys: list[str]) -> str:
    """Return "file:line: " of a key in the settings file; "" if it is not there or overridden."""
    if f"GROUNDCREW_{'__'.join(keys).upper()}" in os.environ:
        return ""
    try:
        lines = config_path().read_text(errors="replace").splitlines()
    except OSError:
        return ""
    section = ""
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if text.startswith("["):
            section = text.strip("[] ")
        elif [*filter(None, section.split(".")), text.partition("=")[0].strip()] == keys:
            return f"{config_path()}:{number}: "
    return ""


def _meant(keys: list[str]) -> str:
    section = _section(keys[:-1])
    if section is None:
        return ""
    close = get_close_matches(keys[-1], section.model_fields, 1)
    known = f"; did you mean {'.'.join([*keys[:-1], close[0]])}?" if close else ""
    return known or f"; there are {', '.join(sorted(section.model_fields))}"


def _about(keys: list[str]) -> str:
    section = _section(keys[:-1])
    field = section.model_fields.get(keys[-1]) if section is not None else None
    return f" ({field.description})" if field is not None and field.description else ""


def _section(keys: list[str]) -> type[BaseModel] | None:
    """Return the model that contains the settings below `keys`, or None."""
    model: type[BaseModel | BaseSettings] = Settings
    for key in keys:
        field = model.model_fields.get(key)
        if field is None:
            return None
        kinds = [field.annotation, *get_args(field.annotation)]
        inner = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if not inner:
            return None
        model = inner[0]
    return model
