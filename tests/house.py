"""Which module of a package imports which, drawn from the source: late imports and those for typing count too."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Arrows = dict[str, set[str]]


def arrows(package_dir: Path) -> Arrows:
    """Module -> the modules of the same package that it imports, by their dotted names.

    `from package import name` asks the package for the name, so it points at the package, and at `package.name` too
    where that is a module.
    """
    files = {_name(path, package_dir): path for path in sorted(package_dir.rglob("*.py"))}
    return {
        module: {target for target in _imported(module, path, files) if target != module}
        for module, path in files.items()
    }


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Every set of modules that import one another in a circle, sorted; Tarjan's strongly connected components."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for target in arrows.get(module, ()):
            if target not in index:
                visit(target)
                low[module] = min(low[module], low[target])
            elif target in stack:
                low[module] = min(low[module], index[target])
        if low[module] == index[module]:
            at = stack.index(module)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for module in arrows:
        if module not in index:
            visit(module)
    return sorted(found)


def upward(arrows: Mapping[str, set[str]], floors: Sequence[Sequence[str]]) -> list[tuple[str, str]]:
    """The arrows (from, to) that run up or out of the house.

    Args:
        floors: rooms by floor, the ground floor first. A room is a module or a package, everything in it included; the
            longest name that fits is a module's room. Rooms of one floor do not import one another.
    """
    floor = {room: number for number, rooms in enumerate(floors) for room in rooms}

    def room(module: str) -> str:
        fits = [name for name in floor if module == name or module.startswith(f"{name}.")]
        assert fits, f"{module} is in no room of the house"
        return max(fits, key=len)

    return [
        (module, target)
        for module in sorted(arrows)
        for target in sorted(arrows[module])
        if room(module) != room(target) and floor[room(target)] >= floor[room(module)]
    ]


def _name(path: Path, package_dir: Path) -> str:
    parts = path.relative_to(package_dir.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(module: str, path: Path, files: Mapping[str, Path]) -> Iterator[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in files)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            source = ".".join([*above, *([node.module] if node.module else [])])
            for target in (source, *(f"{source}.{alias.name}" for alias in node.names)):
                if target in files:
                    yield target
