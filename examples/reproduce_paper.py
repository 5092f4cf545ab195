"""
The paper's study: every claim measured, from one command
==========================================================

Trains float networks, quantizes, prunes and fine-tunes them, measures every step by group, and writes
tables (CSV), figures and a report with a verdict on each claim of Bellam & Kim (2025)::

    python examples/reproduce_paper.py --data UTKFace --seeds 5 --jobs 2 --out study

``--data`` is a folder of UTKFace in its own layout. Without it a small version runs on Adult and on
scikit-learn's digits, in two minutes or so. A run that was interrupted goes on where it was: what is
finished lies in ``study/work`` and is not done again. More ``--seeds`` later add to what is there.

The result for faces is on the page "The paper, claim by claim" of the user guide.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

from paper._pieces import Study
from paper._report import draw, write_report
from paper._tasks import FACES, SHIPPED, Task, skipped_files


def parse(arguments=None):
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", help="folder of UTKFace; without it data that ship are used")
    parser.add_argument("--seeds", type=int, help="how many (default: 5 with --data, 3 without)")
    parser.add_argument("--bits", type=int, nargs="+", default=[16, 8, 4, 3, 2], help="widths, 2..16")
    parser.add_argument("--out", default="study", help="folder for the results (default: study)")
    parser.add_argument("--jobs", type=int, default=1, help="processes of one thread each (default: 1)")
    parser.add_argument("--tasks", nargs="+", help=f"of {FACES} with --data, of {SHIPPED} without")
    parser.add_argument("--image-size", type=int, default=32, help="of the faces (default: 32)")
    parser.add_argument("--max-samples", type=int, help="a random draw of so many samples")
    parser.add_argument("--epochs", type=int, help="of the float training")
    parser.add_argument("--finetune-epochs", type=int, help="of the fine-tuning")
    parser.add_argument(
        "--curvature-samples", type=int, default=128, help="most of each group (default: 128)"
    )
    parser.add_argument(
        "--page", help="measure nothing: write the report of the tables in --out to this file"
    )
    options = parser.parse_args(arguments)
    known = FACES if options.data else SHIPPED
    options.tasks = list(known) if options.tasks is None else options.tasks
    if unknown := set(options.tasks) - set(known):
        parser.error(f"--tasks: {sorted(unknown)} not among {known}, those of {_source(options)}")
    options.seeds = (5 if options.data else 3) if options.seeds is None else options.seeds
    if options.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if options.curvature_samples < 2:
        parser.error(f"--curvature-samples must be at least 2, got {options.curvature_samples}")
    if not all(2 <= bits <= 16 for bits in options.bits):
        parser.error(f"--bits must be 2..16, got {options.bits}")
    return options


def _source(options):
    return "UTKFace" if options.data else "the data that ship (give --data for faces)"


def main(arguments=None):
    """Run the study, or write a page of one that was run."""
    options = parse(arguments)
    out = Path(options.out)
    if options.page:
        write_report(out, options.page)
        return
    recipe = ("data", "image_size", "max_samples", "epochs", "finetune_epochs")
    recipe = {name: getattr(options, name) for name in recipe}
    tasks = [Task(name, **recipe) for name in options.tasks]
    study = Study(out, tasks, options.seeds, sorted(set(options.bits)), options.curvature_samples)
    if said := skipped_files(tasks[0]):
        print(said)
    costs = study.run(options.jobs)
    draw(out)
    write_report(out)
    total = sum(map(sum, costs.values()))
    print("CPU seconds of a stage, mean over seeds and tasks:")
    for stage, seconds in costs.items():
        print(f"  {stage:42s} {sum(seconds) / len(seconds):7.1f}")
    print(f"{total / 60:.1f} CPU minutes in all, {total / 60 / options.seeds:.1f} for each seed")
    print(f"The report is {out / 'report.md'}.")


if __name__ == "__main__":
    main()
