"""Run all benchmarks, print their tables, and write them to docs/benchmarks.md."""

import platform
import sys
from importlib import import_module
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch

# ruff: noqa: E501
HEAD = """# Benchmarks

Written by `make bench`. Interleaved in one run on one thread: medians of the ratio within a round. Times in
milliseconds say something about this machine only ({processor}, torch {torch}).
"""


def processor():
    """The name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main():
    """Run those named on the command line, or all."""
    names = sys.argv[1:] or sorted(p.stem for p in Path(__file__).parent.glob("bench_*.py"))
    parts = [HEAD.format(processor=processor(), torch=torch.__version__)]
    for name in names:
        for title, rows in import_module(name).tables():
            lines = [f"## {title.strip()}", "", "| | measured | aim | peer |", "|---|---|---|---|"]
            lines += [f"| {r.what} | {r.ratio} | {r.target} | {r.peers} |" for r in rows]
            parts.append("\n".join(lines) + "\n")
            print(parts[-1], flush=True)
    if not sys.argv[1:]:
        target = Path(__file__).parents[2] / "docs" / "benchmarks.md"
        target.write_text("\n".join(parts))
        print("written:", target.name)


if __name__ == "__main__":
    main()
