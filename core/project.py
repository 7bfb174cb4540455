"""A project: the user's folder, its settings, its code and where its state lies.

The only place that reads ``headrace.yaml``, the environment and the project's own Python files.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_origin
from urllib.parse import unquote, urlsplit

import yaml
from pydantic import ValidationError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from core.clocks import ROW_CLOCK, UTC_CLOCK
from core.durations import parse_duration
from core.errors import ProjectCodeError, SettingsError
from core.records import outcome_reader
from core.setting_types import AS_WRITTEN, Section
from core.settings import Settings

FILE_NAME = "headrace.yaml"
_LIMITS = {"greater_than_equal": "must be at least", "less_than_equal": "must be at most"}
OBJECT_STORES = ("s3", "gs", "abfs", "abfss")


@dataclass(frozen=True)
class Project:
    """A loaded project folder.

    Attributes
    ----------
    folder : Path
        The user's folder; holds ``headrace.yaml``.
    settings : Settings
        What the file says.
    state : Path
        Everything that headrace writes on this host: reports, ledger, MLflow, Prefect.
    shared : Path or str
        Where tables and checkpoints are, which every worker of the project reaches: a folder, or an object store's URI.
    bootstrap_servers : str or None
        Kafka's address; None where no broker was named.
    tracking_uri : str
        MLflow's address.
    """

    folder: Path
    settings: Settings
    state: Path
    shared: Path | str
    bootstrap_servers: str | None
    tracking_uri: str

    @property
    def tables(self) -> Path | str:
        return _below(self.shared, "tables")

    @property
    def reports(self) -> Path:
        return self.state / "reports"

    @property
    def cards(self) -> Path:
        return self.state / "cards"

    @property
    def checkpoints(self) -> Path | str:
        return _below(self.shared, "checkpoints")

    @property
    def ledger(self) -> Path:
        return self.state / "ledger.sqlite"

    @property
    def status(self) -> Path:
        return self.state / "status"

    @property
    def logs(self) -> Path:
        return self.state / "logs"

    def with_broker(self, bootstrap_servers: str) -> Project:
        """Return the same project on another broker."""
        return replace(self, bootstrap_servers=bootstrap_servers)

    def load_function(self, reference: str) -> Callable[..., Any]:
        """Load ``file.py:function`` from the project folder.

        Raises
        ------
        ProjectCodeError
            If there is no such file or function, or the file does not import.
        """
        file_name, _, attribute = reference.partition(":")
        path = self.folder / file_name
        if not attribute or not path.is_file():
            raise ProjectCodeError(f"{reference!r}: expected file.py:function with the file in {self.folder}")
        module_name = f"headrace_project_{self.settings.name.replace('-', '_')}_{path.stem}"
        module = sys.modules.get(module_name)
        if module is None or getattr(module, "__file__", None) != str(path):
            spec = importlib.util.spec_from_file_location(module_name, path)
            if spec is None or spec.loader is None:
                raise ProjectCodeError(f"{path}: is not a Python file")
            module = importlib.util.module_from_spec(spec)
            sys.modules[module_name] = module
            try:
                spec.loader.exec_module(module)
            except Exception as error:
                del sys.modules[module_name]
                raise ProjectCodeError(f"{path}: does not import: {type(error).__name__}: {error}") from error
        function = getattr(module, attribute, None)
        if not callable(function):
            raise ProjectCodeError(f"{path}: has no function {attribute!r}")
        return function  # type: ignore[no-any-return]


def load_project(folder: str | Path, *, bootstrap: str | None = None, state: str | Path | None = None) -> Project:
    """Read a project folder.

    Parameters
    ----------
    folder : path
        The project folder, or its ``headrace.yaml``.
    bootstrap : str, optional
        Kafka's address; else ``HEADRACE_BOOTSTRAP_SERVERS``; else none.
    state : path, optional
        The state folder; else ``HEADRACE_STATE``; else ``.headrace`` in the project folder.

    Raises
    ------
    SettingsError
        If the file is missing, is not YAML, or a setting is wrong.
    """
    path = settings_file(folder)
    if not path.is_file():
        raise SettingsError(f"{path}: no such file; give a folder that holds a {FILE_NAME}")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: cannot be read: {error}; it must be a text file in UTF-8") from error
    settings = parse_settings(text, str(path))
    state_folder = Path(state or os.environ.get("HEADRACE_STATE") or path.parent / ".headrace").resolve()
    return Project(
        folder=path.parent,
        settings=settings,
        state=state_folder,
        shared=_shared(settings.state.uri, path) or state_folder,
        bootstrap_servers=bootstrap or os.environ.get("HEADRACE_BOOTSTRAP_SERVERS") or None,
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{state_folder / 'mlflow.sqlite'}",
    )


def settings_file(folder: str | Path) -> Path:
    """Return where the project file of a folder is, or the file itself if that was given."""
    path = Path(folder).resolve()
    return path if path.is_file() else path / FILE_NAME


def _below(place: Path | str, name: str) -> Path | str:
    return place / name if isinstance(place, Path) else f"{place}/{name}"


def _shared(uri: str | None, file: Path) -> Path | str | None:
    """Return where ``state.uri`` leads: a folder, relative to the project's, or an object store."""
    if not uri:
        return None
    parts = urlsplit(uri)
    if not parts.scheme:
        return (file.parent / uri).resolve()
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme not in OBJECT_STORES or not parts.netloc:
        known = ", ".join(f"{scheme}://" for scheme in ("file", *OBJECT_STORES))
        raise SettingsError(f"{file}: state.uri: {uri!r} leads nowhere; give a folder, or one of {known}")
    if parts.query or parts.password:
        raise SettingsError(
            f"{file}: state.uri: only bucket and path belong here; give keys and end point in the environment, "
            "such as AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL"
        )
    return uri.rstrip("/")


def parse_settings(text: str, where: str = FILE_NAME) -> Settings:
    """Read the text of a project file.

    Raises
    ------
    SettingsError
        One line for each mistake: ``file:line: key: what is wrong; the fix``.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        raise SettingsError(f"{where}:{line}: not valid YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict) or root is None:
        raise SettingsError(f"{where}:1: expected settings as 'key: value' lines, such as 'name: flights'")
    if twice := list(_keys_given_twice(root)):
        raise SettingsError("\n".join(f"{where}:{line}: {key}: is given twice; remove one" for line, key in twice))
    try:
        settings = Settings.model_validate(content, context=AS_WRITTEN)
    except ValidationError as error:
        lines = [_explain(dict(item), root, where) for item in error.errors()]
        raise SettingsError("\n".join(dict.fromkeys(lines))) from error
    missing = settings.label.missing
    if missing is not None and outcome_reader(settings)(missing) is None:
        line = _line_of(root, ["label", "missing"])
        raise SettingsError(
            f"{where}:{line}: label.missing: {missing!r} is no outcome of this task; see its label values"
        )
    return settings


def _keys_given_twice(node: Node) -> Iterator[tuple[int, str]]:
    """Yield line and key of every repetition; YAML itself would silently take the last."""
    if isinstance(node, MappingNode):
        known = set()
        for key, value in node.value:
            if isinstance(key.value, str) and key.value in known:
                yield key.start_mark.line + 1, key.value
            known.add(str(key.value))
            if value.start_mark.index > key.start_mark.index:  # an alias points back, even to itself
                yield from _keys_given_twice(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            if value.start_mark.index > node.start_mark.index:
                yield from _keys_given_twice(value)


def _explain(item: dict[str, Any], root: Node, where: str) -> str:
    location = [part for part in item["loc"] if not _is_type_tag(part)]
    key = ".".join(str(part) for part in location) or "the file"
    line, node = _place_of(root, location)
    written = node.value if isinstance(node, ScalarNode) else ""
    return f"{where}:{line}: {key}: {_problem(item, location, written)}"


def _is_type_tag(part: object) -> bool:
    return isinstance(part, str) and (part in {"bool", "int", "float", "str"} or "[" in part)


def _problem(item: dict[str, Any], location: list[Any], written: str) -> str:
    kind, message = item["type"], str(item["msg"]).removeprefix("Value error, ")
    if kind == "extra_forbidden":
        return f"unknown setting; {_nearest(location)}"
    if kind == "missing":
        return f"is missing; add '{location[-1]}: ...'"
    if kind == "string_pattern_mismatch":
        return f"{item['input']!r} does not match {item['ctx']['pattern']}; rename it"
    if kind in _LIMITS and _is_duration(written):
        clock = ROW_CLOCK if "row" in written.lower() else UTC_CLOCK
        return f"{_LIMITS[kind]} {clock.setting(next(iter(item['ctx'].values())))} (got {written!r})"
    return (
        f"{message[:1].lower()}{message[1:]} (got {item['input']!r})"
        if not isinstance(item["input"], dict)
        else message
    )


def _is_duration(written: str) -> bool:
    try:
        parse_duration(written)
    except ValueError:
        return False
    return True


def _nearest(location: list[Any]) -> str:
    import difflib

    section: Any = Settings
    inside = False  # a dict's key or a list's index follows: it names no setting
    for part in location[:-1]:
        if inside:
            inside = False
        else:
            inside = _holds_many(section, part)
            section = _subsection(section, part)
    if section is None:
        return "remove it"
    names = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), names, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(names)}"


def _subsection(section: Any, part: object) -> Any:
    """Return the settings class below `part`, or None where the file is free there."""
    if not (isinstance(section, type) and issubclass(section, Section)):
        return section
    field = section.model_fields.get(str(part))
    return None if field is None else _section_in(field.annotation)


def _holds_many(section: Any, part: object) -> bool:
    field = None if section is None else section.model_fields.get(str(part))
    return field is not None and get_origin(field.annotation) in (dict, list)


def _section_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    found = [_section_in(argument) for argument in getattr(annotation, "__args__", ())]
    return next((section for section in found if section is not None), None)


def _line_of(root: Node, location: list[Any]) -> int:
    return _place_of(root, location)[0]


def _place_of(root: Node, location: list[Any]) -> tuple[int, Node | None]:
    """Return the line of a setting and what is written there, or the line where it is missing."""
    node, line = root, 1
    for part in location:
        if isinstance(node, MappingNode):
            match = next(((key, value) for key, value in node.value if key.value == str(part)), None)
            if match is None:
                return line, None
            line, node = match[0].start_mark.line + 1, match[1]
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            return line, None
    return line, node
