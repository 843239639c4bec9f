"""Regular expressions of the product: found in its source, and timed with hostile input."""

from __future__ import annotations

import ast
import importlib
import re
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import islice, product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("gitsource", "metrics", "reconciler")
FUNCTIONS = {
    "compile",
    "findall",
    "finditer",
    "fullmatch",
    "match",
    "search",
    "split",
    "sub",
    "subn",
}
WHOLE = {"finditer": "findall", "split": "findall", "sub": "findall", "subn": "findall"}
SAMPLE = "sample-1.0"  # replaces the variable part of a pattern in an f-string
SIZE = 4000  # characters of an attack
LARGER = 8  # times that, if an attack seems to work
REFERENCE = re.compile(r"(?:ab|a|[^\x00])*")  # takes a few steps for each character
ODD = 10  # times the reference: measured again
SLOW = 0.05  # seconds of a larger attack: linear work takes a few milliseconds
COARSE = 0.02  # seconds
GROWTH = 3 * LARGER  # of the time of a larger attack; quadratic work grows by LARGER ** 2


@dataclass(frozen=True, slots=True)
class Regex:
    """A pattern, its place in the source, and the way it is applied."""

    location: str
    pattern: str | bytes
    method: str
    flags: int = 0

    def __str__(self) -> str:
        return f"{self.location} {self.method}"


# ----------------------------------------------------------------------------------- search


@cache
def sources() -> list[tuple[Path, ast.Module]]:
    """Return each module of the product."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return [(path, ast.parse(path.read_text())) for path in paths]


def regexes() -> list[Regex]:
    """Return every use of the module re. Raises ValueError for a pattern that is not constant."""
    methods = _methods()
    uses = []
    for path, tree in sources():
        names = {id(n.value): _target(n) for n in ast.walk(tree) if isinstance(n, ast.Assign)}
        constants = _constants(tree)
        for call in ast.walk(tree):
            if not (isinstance(call, ast.Call) and _is_re(call.func)):
                continue
            assert isinstance(call.func, ast.Attribute)
            location = f"{path.relative_to(ROOT)}:{call.lineno}"
            pattern = _text(call.args[0], constants, location)
            name = names.get(id(call), "")
            method = call.func.attr
            used = sorted(methods[name]) or ["search"] if method == "compile" else [method]
            flags = _flags(call)
            uses += [Regex(location, pattern, WHOLE.get(one, one), flags) for one in used]
    return uses


def _is_re(function: ast.expr) -> bool:
    return (
        isinstance(function, ast.Attribute)
        and isinstance(function.value, ast.Name)
        and function.value.id == "re"
        and function.attr in FUNCTIONS
    )


def _methods() -> Mapping[str, set[str]]:
    """Return the methods that are called on each name, anywhere in the product."""
    methods: dict[str, set[str]] = defaultdict(set)
    for _, tree in sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in FUNCTIONS - {"compile"}:
                owner = node.value
                name = getattr(owner, "id", getattr(owner, "attr", ""))
                methods[name].add(node.attr)
    return methods


def _target(assign: ast.Assign) -> str:
    target = assign.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _constants(tree: ast.Module) -> Mapping[str, object]:
    """Return the module's string constants by name, including imported ones."""
    constants: dict[str, object] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
            constants[_target(node)] = node.value.value
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PACKAGES:
            module = importlib.import_module(str(node.module))
            constants |= {a.asname or a.name: getattr(module, a.name, None) for a in node.names}
    return constants


def _text(node: ast.expr, constants: Mapping[str, object], location: str) -> str | bytes:
    if isinstance(node, ast.Name) and isinstance(constants.get(node.id), str):
        return str(constants[node.id])
    if isinstance(node, ast.JoinedStr):
        return "".join(
            str(part.value) if isinstance(part, ast.Constant) else re.escape(SAMPLE)
            for part in node.values
        )
    if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
        return node.value
    raise ValueError(f"{location}: write the pattern as a literal, so that it can be tested")


def _flags(call: ast.Call) -> int:
    flags = 0
    for node in [*call.args[1:], *(k.value for k in call.keywords if k.arg == "flags")]:
        for one in ast.walk(node):
            if isinstance(one, ast.Attribute) and isinstance(
                getattr(re, one.attr, None), re.RegexFlag
            ):
                flags |= getattr(re, one.attr)
    return flags


# ----------------------------------------------------------------------------------- timing


def slowest(regex: Regex, size: int = SIZE) -> str:
    """Return evidence that a pattern takes more than linear time, or "" if there is none."""
    apply = getattr(re.compile(regex.pattern, regex.flags), regex.method)
    encode = isinstance(regex.pattern, bytes)
    reference = _seconds(REFERENCE.match, "ab" * (size // 2))
    for prefix, pump, suffix in attacks(regex):
        texts = [prefix + pump * (n // len(pump)) + suffix for n in (size, size * LARGER)]
        short, long = [t.encode("latin-1", "replace") if encode else t for t in texts]
        if _seconds(apply, short, 1) < ODD * reference:
            continue
        seconds = _seconds(apply, long)
        if seconds > max(SLOW, GROWTH * _seconds(apply, short)):
            size *= LARGER
            return f"{prefix!r} + {pump!r} * n + {suffix!r}: {seconds:.3f} s for {size} characters"
    return ""


def _seconds(apply: Any, text: str | bytes, times: int = 4) -> float:
    """Return the shortest of several measurements, as others use the machine too.

    CPU time may have a coarse clock: it is only used for long measurements.
    """

    def once() -> float:
        begun, used = time.perf_counter(), time.process_time()
        apply(text)
        elapsed, seconds = time.perf_counter() - begun, time.process_time() - used
        return min(elapsed, seconds) if elapsed > COARSE else elapsed

    return min(once() for _ in range(times))


def attacks(regex: Regex) -> Iterator[tuple[str, str, str]]:
    """Yield attacks (prefix, repeated text, suffix) of texts that parts of the pattern match."""
    parser = importlib.import_module("re._parser")
    nodes = list(parser.parse(regex.pattern, regex.flags))
    prefixes = {"": None} | {_example(nodes[:n]): None for n in range(1, len(nodes) + 1)}
    pumps = dict.fromkeys(_pumps(nodes))
    pumps |= {p: None for p in prefixes if p}
    pumps |= {f"{p} ": None for p in pumps if len(p) > 1}
    singles = [p for p in pumps if len(p) == 1][:8]
    pumps |= {f"{a}{b}": None for a, b in product(singles, singles) if a != b}
    suffixes = ("", "\x00", "\n!")
    yield from islice(product(prefixes, [p for p in pumps if p], suffixes), 500)


def _pumps(nodes: list[Any]) -> Iterator[str]:
    """Yield texts that parts of the pattern match, down to the smallest parts."""
    for node in nodes:
        yield _example([node])
        for inner in _bodies(node):
            yield _example(inner)
            yield from _pumps(inner)


def _bodies(node: Any) -> list[list[Any]]:
    """Return the parts inside a part."""
    kind, value = str(node[0]), node[1]
    match kind:
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return [list(value[2])]
        case "SUBPATTERN":
            return [list(value[3])]
        case "ATOMIC_GROUP":
            return [list(value)]
        case "BRANCH":
            return [list(one) for one in value[1]]
        case "IN":
            return [[one] for one in value if str(one[0]) in ("LITERAL", "RANGE", "CATEGORY")]
        case _:
            return []


def _example(nodes: list[Any]) -> str:
    """Return a text that these parts match, one after the other."""
    return "".join(map(_example_of, nodes))


def _character(kind: str, value: Any) -> str:
    """Return a character that a part matches, or "" if it matches longer texts or none."""
    match kind:
        case "LITERAL":
            return chr(value)
        case "RANGE":
            return chr(value[0])
        case "NOT_LITERAL":
            return "a" if value != ord("a") else "b"
        case "ANY":
            return "a"
        case "CATEGORY":
            name = str(value).removeprefix("CATEGORY_")
            return {"DIGIT": "0", "SPACE": " ", "WORD": "a"}.get(name, "!")
        case "IN" if str(value[0][0]) == "NEGATE":
            taken = {_example_of(one) for one in value[1:]}
            return next(c for c in "ab0-. !" if c not in taken)
        case "IN":
            return _example_of(value[0])
        case _:
            return ""


def _example_of(node: Any) -> str:
    kind, value = str(node[0]), node[1]
    match kind:
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            repeats: int = max(1, min(value[0], 64))
            return _example(list(value[2])) * repeats
        case "BRANCH":
            return _example(list(value[1][0]))
        case "SUBPATTERN" | "ATOMIC_GROUP":
            return _example(_bodies(node)[0])
        case _:
            return _character(kind, value)
