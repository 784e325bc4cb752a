"""Who imports whom, and the rules that imports keep. Functions of texts, so that mutants are texts."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = "defectbench"
Sources = Mapping[str, str]
"""Module below the root -> its text: "stores.s3", "stores" for a package's top, "" for the root's own."""


def read_sources(folder: Path) -> dict[str, str]:
    """Return the texts of all modules below ``folder``."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path.read_text()
    return found


def package_of(module: str) -> str:
    """Return the layer's name: the first part.

    >>> package_of("models.training.balance"), package_of("doctor")
    ('models', 'doctor')
    """
    return module.partition(".")[0]


def all_imports(text: str) -> set[str]:
    """Return every name that a text imports: at its top, in functions and for type checking alike."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "relative imports hide what they name"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def imports(sources: Sources) -> dict[str, set[str]]:
    """Return module -> the modules of the root that it imports.

    A name that is no module counts for the module or package's top that defines it.
    """
    return {name: set(_own(text, sources)) for name, text in sources.items()}


def _own(text: str, sources: Sources) -> Iterator[str]:
    for name in all_imports(text):
        root, _, rest = name.partition(".")
        if root != ROOT:
            continue
        while rest and rest not in sources:
            rest = rest.rpartition(".")[0]
        yield rest


def upward(sources: Sources, layers: tuple[str, ...]) -> list[str]:
    """Return the imports of a package that does not stand above the importing one."""
    height = {name: place for place, name in enumerate(layers)}
    return [
        f"{one} imports {other}, a higher layer: a module imports its own layer and those before it in LAYERS"
        for one, others in imports(sources).items()
        for other in sorted(others)
        if one and other and height[package_of(other)] > height[package_of(one)]
    ]


def tops(sources: Sources) -> list[str]:
    """Return the imports of a package's top from inside the package."""
    found = []
    for one, others in imports(sources).items():
        own = {".".join(one.split(".")[:length]) for length in range(one.count(".") + 1)}
        for other in sorted(own & others):
            top = f"{ROOT}.{other}".strip(".")
            found.append(f"{one} imports {top}, the top of its own package: name the module")
    return found


def bases(sources: Sources) -> list[str]:
    """Return the imports of an implementation by the base that it implements."""
    graph = imports(sources)
    return [
        f"{one} imports {other}: a base never imports its implementations"
        for one, others in graph.items()
        if one.rpartition(".")[2] == "base"
        for other in sorted(others)
        if package_of(other) == package_of(one) and one in reachable(graph, other)
    ]


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """Return all that is imported from ``start`` on."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        for name in graph.get(waiting.pop(), set()) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


def cycles(sources: Sources) -> list[str]:
    """Return the imports by which a module imports itself."""
    graph = imports(sources)
    return [
        f"{one} imports {other}, and so itself: no cycles"
        for one, others in graph.items()
        for other in sorted(others)
        if one == other or one in reachable(graph, other)
    ]


def package_cycles(sources: Sources) -> list[str]:
    """Return the imports by which a package inside a package imports itself by way of others."""
    graph = imports(sources)
    folded: dict[str, set[str]] = {}
    for one, others in graph.items():
        own = folded.setdefault(_folder(one), set())
        own |= {_folder(other) for other in others if _folder(other) != _folder(one)}
    return [
        f"{one} imports {other}, and so {_folder(one)} imports itself: no cycles"
        for one, others in graph.items()
        for other in sorted(others)
        if _folder(one) != _folder(other) and _folder(one) in reachable(folded, _folder(other))
    ]


def _folder(module: str) -> str:
    """Return the package inside a package that a module lies in, else the module itself."""
    parts = module.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 else module


def summary(folder: Path) -> str:
    """Say how many packages there are, and how many arrows of imports between them and between modules."""
    graph = imports(read_sources(folder))
    packages = {package_of(name) for name in graph} - {""}
    arrows = {(one, other) for one, others in graph.items() for other in others if one and other}
    between = {(package_of(one), package_of(other)) for one, other in arrows}
    crossing = sum(one != other for one, other in between)
    return (
        f"{len(packages)} packages, {crossing} arrows between them; "
        f"{len(graph)} modules, {len(arrows)} arrows between them"
    )


if __name__ == "__main__":
    print(summary(Path(sys.argv[1])))
