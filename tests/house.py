"""How a package is built, from its imports: arrows between modules, circles, arrows that run up its floors."""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

Arrows = dict[str, set[str]]
"""Module -> the modules of the same package that it imports, all by their full names."""


def arrows(package_dir: Path) -> Arrows:
    """Every import of a module by another of the package: late ones, relative ones and those for types alone included.

    A text that is a module's full name counts too, since that is how `import_module` is given one. `from a.b import c`
    is an arrow to `a.b.c` where that is a module, and to `a.b` otherwise. That Python runs the packages around a module
    first is no arrow.
    """
    paths = {_name(path, package_dir): path for path in sorted(package_dir.rglob("*.py"))}
    found: Arrows = {}
    for name, path in paths.items():
        package = name if path.name == "__init__.py" else name.rpartition(".")[0]
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        found[name] = {target for target in _targets(tree, package, paths) if target != name}
    return found


def circles(arrows: Mapping[str, Collection[str]]) -> list[list[str]]:
    """The groups of modules of which each reaches the others (strongly connected, more than one), sorted."""
    reached = {start: _reached(start, arrows) for start in arrows}
    groups = {frozenset({one, *(other for other in reached[one] if one in reached[other])}) for one in arrows}
    return sorted(sorted(group) for group in groups if len(group) > 1)


def rooms(arrows: Mapping[str, Collection[str]]) -> Arrows:
    """The arrows between rooms: the modules and folders that stand directly in the package, by their short names.

    The package's own `__init__` is the room "".
    """
    found: Arrows = {_room(module): set() for module in arrows}
    for module, targets in arrows.items():
        found[_room(module)] |= {_room(target) for target in targets} - {_room(module)}
    return found


def upward(arrows: Mapping[str, Collection[str]], floors: Sequence[Collection[str]]) -> list[tuple[str, str]]:
    """The arrows (module, module) that do not run down: a room may import what stands on lower floors, and itself.

    Args:
        floors: the names of the rooms on each floor, from the ground up.

    Raises:
        ValueError: a room stands on no floor or on two, or a floor names a room that is not there.
    """
    level = {room: height for height, floor in enumerate(floors) for room in floor}
    standing = rooms(arrows).keys() - {""}
    if sum(map(len, floors)) != len(level):
        raise ValueError("a room stands on two floors")
    if level.keys() != standing:
        homeless, missing = sorted(standing - level.keys()), sorted(level.keys() - standing)
        raise ValueError(f"rooms on no floor: {homeless}; rooms of a floor that are not there: {missing}")
    level[""] = len(floors)
    return sorted(
        (module, target)
        for module, targets in arrows.items()
        for target in targets
        if _room(module) != _room(target) and level[_room(module)] <= level[_room(target)]
    )


def outside(package_dir: Path, packages: Collection[str]) -> dict[str, dict[str, bool]]:
    """Module -> {package of `packages` that it imports: whether already when the module itself is imported}."""
    found: dict[str, dict[str, bool]] = {}
    for path in sorted(package_dir.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
        early = set(_at_import(tree))
        for node in ast.walk(tree):
            for name in _imported(node, ""):
                if (package := name.partition(".")[0]) in packages:
                    uses = found.setdefault(_name(path, package_dir), {})
                    uses[package] = uses.get(package, False) or node in early
    return found


def _name(path: Path, package_dir: Path) -> str:
    parts = (package_dir.name, *path.relative_to(package_dir).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _targets(tree: ast.AST, package: str, modules: Collection[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        for name in _imported(node, package):
            # `from a.b import c`: c is a module, or something that a.b holds.
            known = name if name in modules else name.rpartition(".")[0]
            if known in modules:
                yield known
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and "." in node.value
            and node.value in modules
        ):
            yield node.value


def _imported(node: ast.AST, package: str) -> Iterator[str]:
    """Full names that a statement imports; of `from a import b`, `a.b`."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split(".")
        above = parents[: len(parents) - node.level + 1] if node.level else []
        base = ".".join([*above, *([node.module] if node.module else [])])
        yield from (base if alias.name == "*" else f"{base}.{alias.name}" for alias in node.names)


def _at_import(node: ast.AST) -> Iterator[ast.AST]:
    """What runs when the module is imported: not the bodies of functions, nor what is for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        yield child
        yield from _at_import(child)


def _reached(start: str, arrows: Mapping[str, Collection[str]]) -> set[str]:
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        new = set(arrows.get(waiting.pop(), ())) - seen
        seen |= new
        waiting += new
    return seen
