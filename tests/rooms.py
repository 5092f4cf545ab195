"""The rooms of the package: their levels, lines and imports. As a script it prints them."""

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1] / "skqfair"
FILES = sorted(ROOT.rglob("*.py"))
LEVELS = {  # a room may import from lower levels only, and from itself; the top files have level 0
    "quantization": 1,
    "curvature": 1,
    "metrics": 1,
    "mitigation": 1,
    "datasets": 1,
    "networks": 2,
    "storage": 2,
    "classifiers": 3,
    "diagnostics": 4,
    "export": 4,
    "displays": 4,
    "parallel": 4,
    "audit": 5,
}


def room_of(path):
    """Return the folder of a file, or its own name at the top."""
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imports(path):
    """Yield the names of all modules that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            yield node.module


def main():
    """Print each room with its level, its lines, and the rooms that it imports."""
    lines, imported = defaultdict(int), defaultdict(set)
    for path in FILES:
        room = room_of(path) if room_of(path) in LEVELS else "(top files)"
        lines[room] += len(path.read_text().splitlines())
        own = [name.split(".")[1] for name in imports(path) if name.startswith("skqfair.")]
        imported[room] |= {other for other in own if other in LEVELS and other != room}
    total = sum(lines.values())
    print(f"level  {'room':<14}{'lines':>6}{'share':>7}  imports")
    for room in sorted(lines, key=lambda room: (LEVELS.get(room, 0), -lines[room])):
        others = ", ".join(sorted(imported[room])) if room in LEVELS else ""
        level, share = LEVELS.get(room, 0), lines[room] / total
        print(f"{level:>5}  {room:<14}{lines[room]:>6}{share:>7.0%}  {others}".rstrip())
    print(f"{'':7}{'total':<14}{total:>6}")


if __name__ == "__main__":
    main()
