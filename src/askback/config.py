"""One TOML file and a few flags -> Options.

Takes: a run file's text and `table.key=value` strings.  Gives: `Options`, checked once.
Never: accepts an unknown key: it names the file, the key and the nearest valid one.
"""

import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from askback.embedded import fill_in
from askback.errors import ConfigError
from askback.options import Options, Table

MAX_RUN_FILE_BYTES = 256 * 1024


def load_options(
    file: Path | None = None, settings: Iterable[str] = (), defaults: Mapping[str, Any] | None = None
) -> Options:
    """Read a run file, lay `table.key=value` settings over it, and check the whole once.

    Raises:
        ConfigError: unreadable file, unknown key (with the nearest valid one) or impossible value.
    """
    raw: dict[str, Any] = _merge({}, defaults or {})
    if file is not None:
        raw = _merge(raw, _read_toml(file))
    for setting in settings:
        raw = _merge(raw, _parse_setting(setting))
    return check_options(raw, where=str(file) if file else "the command line")


def check_options(raw: Mapping[str, Any], where: str) -> Options:
    """Return the options, or a ConfigError that names place, key and remedy."""
    try:
        return Options.model_validate(fill_in(raw))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key `{path}`{_nearest(path)}") from None
        raise ConfigError(f"{where}: `{path}`: {first['msg']}; got {first['input']!r}") from None


def to_toml(options: Options) -> str:
    """Return the options as a run file that gives the same options when it is read."""
    lines = [f"random_seed = {options.random_seed}"]
    for name, table in options.model_dump(mode="json").items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]", *(f"{key} = {to_toml_value(value)}" for key, value in table.items())]
    return "\n".join(lines) + "\n"


def to_toml_value(value: Any) -> str:
    """Return a string, number, boolean, list or table as TOML: JSON, but for what the two write differently."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {to_toml_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def known_keys(table: type[BaseModel] = Options, prefix: str = "") -> dict[str, tuple[Any, str]]:
    """Return every `table.key` with its default and its explanation."""
    keys: dict[str, tuple[Any, str]] = {}
    for name, field in table.model_fields.items():
        if isinstance(field.default, Table):
            keys |= known_keys(type(field.default), f"{prefix}{name}.")
        else:
            keys[prefix + name] = (field.default, field.description or "")
    return keys


def _nearest(path: str) -> str:
    near = difflib.get_close_matches(path, [*Options.model_fields, *known_keys()], n=1, cutoff=0.5)
    return f"; did you mean `{near[0]}`?" if near else f"; valid tables: {', '.join(Options.model_fields)}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > MAX_RUN_FILE_BYTES:
            raise ConfigError(f"{file}: a run file is at most {MAX_RUN_FILE_BYTES} bytes long")
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{file}: cannot read the run file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not a TOML file: {error}") from error


def _parse_setting(setting: str) -> dict[str, Any]:
    name, equals, text = setting.partition("=")
    if not equals:
        raise ConfigError(f"--set {setting}: want table.key=value, such as curate.keep_from=4.5")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text  # a bare word is a string: --set backward.layout=plain
    for part in reversed(name.strip().split(".")):
        value = {part: value}
    return dict(value)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged
