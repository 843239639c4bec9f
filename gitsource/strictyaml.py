"""Strict YAML: no aliases or duplicate keys, `no` is a string, every value has a place.

The parser is PyYAML's C loader; only `true` and `false` are booleans, and dates stay text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

import yaml

from reconciler.core.definitions import Finding, Place
from reconciler.core.reasons import Reason

Path = tuple[str | int, ...]
NODES = 20_000
DEPTH = 30
DIGITS = 400  # of a number
UNREADABLE = re.compile("[^\t\n\x20-\x7e\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
INT = re.compile(r"^[-+]?(0|[1-9][0-9]*)$")
FLOAT = re.compile(r"^[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?$")


class YamlProblem(Exception):
    """The text is not valid in this YAML subset; contains the finding."""

    def __init__(self, reason: Reason, message: str, place: Place) -> None:
        super().__init__(message)
        self.finding = Finding(place, place.file, reason, message)


@dataclass(slots=True)
class Document:
    """Parsed document: its value, and line and column, from 1, of each of its parts."""

    file: str
    value: object
    places: dict[Path, tuple[int, int]] = field(default_factory=dict)

    def place(self, path: Path) -> Place:
        """Return the place of the part at `path`, or of the nearest part around it."""
        while path and path not in self.places:
            path = path[:-1]
        return Place(self.file, *self.places.get(path, (1, 1)))


def parse(file: str, text: str) -> Document:
    """Parse one YAML document. Raises YamlProblem."""
    loader = yaml.CSafeLoader(text)
    try:
        _refuse_aliases(file, text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        location = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        raise YamlProblem(
            Reason.INVALID_YAML, f"{error.problem or error}; check indentation and quotes", location
        ) from error
    except yaml.reader.ReaderError as error:
        before = text.encode()[: error.position].decode(errors="ignore")
        line = before.count("\n") + 1
        location = Place(file, line, len(before) - before.rfind("\n"))
        raise YamlProblem(Reason.INVALID_YAML, f"{error.reason}; remove it", location) from error
    except (yaml.YAMLError, UnicodeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise YamlProblem(
            Reason.INVALID_YAML, f"not readable as YAML: {message}", Place(file)
        ) from error
    finally:
        loader.dispose()
    if node is None:
        raise YamlProblem(
            Reason.INVALID_YAML, "the file is empty; write one object", Place(file, 1, 1)
        )
    document = Document(file, None)
    document.value = _Builder(document).build(node, (), 0)
    return document


def _refuse_aliases(file: str, text: str) -> None:
    """Refuse aliases by the events, before an alias bomb is composed."""
    if len(text) * 3 < NODES and "&" not in text and "*" not in text:
        return  # too short to contain too much, and without the characters of anchors and aliases
    for count, event in enumerate(yaml.parse(text, Loader=yaml.CSafeLoader)):
        mark = event.start_mark
        location = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file)
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlProblem(
                Reason.INVALID_YAML,
                "anchors and aliases are not allowed; write the value out",
                location,
            )
        if count > NODES:
            raise YamlProblem(Reason.TOO_LARGE, f"more than {NODES} values in one file", location)


class _Builder:
    def __init__(self, document: Document) -> None:
        self.document = document

    def _problem(self, reason: Reason, message: str, node: yaml.Node) -> YamlProblem:
        location = Place(self.document.file, node.start_mark.line + 1, node.start_mark.column + 1)
        return YamlProblem(reason, message, location)

    def _note(self, path: Path, node: yaml.Node) -> None:
        mark = node.start_mark
        self.document.places[path] = (mark.line + 1, mark.column + 1)

    def build(self, node: yaml.Node, path: Path, depth: int) -> object:
        self._note(path, node)
        if depth > DEPTH:
            raise self._problem(Reason.TOO_LARGE, f"nested deeper than {DEPTH} levels", node)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(n, (*path, i), depth + 1) for i, n in enumerate(node.value)]
        assert isinstance(node, yaml.MappingNode), "YAML has no other nodes"
        return self._mapping(node, path, depth)

    def _mapping(self, node: yaml.MappingNode, path: Path, depth: int) -> dict[str, object]:
        mapping: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._problem(Reason.WRONG_TYPE, "a key must be a string", key_node)
            key = self._text(key_node)
            if key in mapping:
                raise self._problem(
                    Reason.DUPLICATE_KEY, f"{key!r} appears twice; remove one", key_node
                )
            mapping[key] = self.build(value_node, (*path, key), depth + 1)
            self._note((*path, key, "__key__"), key_node)
        return mapping

    def _text(self, node: yaml.ScalarNode) -> str:
        """Return a scalar's text, which any database, file and terminal accepts."""
        text: str = node.value
        match = UNREADABLE.search(text)
        if match is not None:
            message = f"the character U+{ord(match[0]):04X} is in it; remove it"
            raise self._problem(Reason.INVALID_VALUE, message, node)
        return text

    def _scalar(self, node: yaml.ScalarNode) -> object:
        text = self._text(node)
        if node.style:  # quoted or a block; "" is plain
            return text
        if text in ("", "~", "null"):
            return None
        if text in ("true", "false"):
            return text == "true"
        if INT.fullmatch(text) or FLOAT.fullmatch(text):
            if len(text) > DIGITS:
                message = f"a number of more than {DIGITS} digits; write it in quotes if it is text"
                raise self._problem(Reason.INVALID_VALUE, message, node)
            return int(text) if INT.fullmatch(text) else float(text)
        return text
