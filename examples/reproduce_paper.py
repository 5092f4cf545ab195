"""
The paper's study: every claim measured, from one command
==========================================================

Trains float networks, quantizes, prunes and fine-tunes them, measures every step by group, and writes
tables (CSV), figures and a report with a verdict on each claim of Bellam & Kim (2025)::

    python examples/reproduce_paper.py --data UTKFace --seeds 5 --jobs 2 --out study

Run it from a clone: it needs the folder ``paper`` that is beside it there.
``--data`` is a folder of UTKFace in its own layout. Without it a small version runs on Adult and on
scikit-learn's digits, in two minutes or so. A run that was interrupted goes on where it was: what is
finished lies in ``study/work`` and is not done again. More ``--seeds`` later add to what is there.
``--dask ADDRESS`` does the pieces on a Dask cluster, with the same figures; all of its workers must have
skqfair, and see the folders of ``--out`` and ``--data``.

Your own data and network: write a class as in ``examples/paper/own_adult.py``, and give it by
``--own my_task.py:MyTask``.

The result for faces is on the page "The paper, claim by claim" of the user guide.
"""

# sphinx_gallery_thumbnail_path = "paper/cascade.png"

import argparse
import contextlib
import importlib
import os
import shlex
import shutil
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).parent))

try:
    from paper._pieces import Study
    from paper._report import draw, write_report
    from paper._tasks import FACES, SHIPPED, OwnTask, Task, skipped_files
except ModuleNotFoundError as error:
    if error.name not in ("paper", "paper._pieces"):
        raise
    raise SystemExit(
        "The folder 'paper' is not beside this script: run examples/reproduce_paper.py from a clone of "
        "skqfair."
    ) from None


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
    parser.add_argument("--dask", metavar="ADDRESS", help="of a Dask scheduler, to work on its cluster")
    parser.add_argument("--tasks", nargs="+", help=f"of {FACES} with --data, of {SHIPPED} without")
    parser.add_argument("--own", metavar="FILE.py:CLASS", help="a class with data and network of yours")
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
    if options.own:
        if options.data or options.tasks:
            parser.error("--own is a study of its own; give it without --data and --tasks")
        try:
            options.own_class = _own_class(options.own)
        except (ImportError, AttributeError, TypeError, ValueError) as error:
            parser.error(f"--own: {error}")
    known = FACES if options.data else SHIPPED
    options.tasks = list(known) if options.tasks is None else options.tasks
    if unknown := set(options.tasks) - set(known):
        parser.error(f"--tasks: {sorted(unknown)} not among {known}, those of {_source(options)}")
    options.seeds = (5 if options.data else 3) if options.seeds is None else options.seeds
    if options.seeds < 1 or options.jobs < 1:
        parser.error("--seeds and --jobs must be at least 1")
    if options.dask and options.jobs != 1:
        parser.error("--jobs is of this machine; with --dask the cluster has as many as it has threads")
    if options.curvature_samples < 2:
        parser.error(f"--curvature-samples must be at least 2, got {options.curvature_samples}")
    if not all(2 <= bits <= 16 for bits in options.bits):
        parser.error(f"--bits must be 2..16, got {options.bits}")
    return options


def _own_class(name):
    """Return the class of FILE.py:CLASS; its folder becomes one that workers import from."""
    file, _, name = name.rpartition(":")
    file = Path(file).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise ValueError(f"there is no file {file.name}; give FILE.py:CLASS")
    sys.path.insert(0, str(file.parent))
    found = getattr(importlib.import_module(file.stem), name)
    if not (isinstance(found, type) and issubclass(found, OwnTask)):
        raise TypeError(f"{name} must be a subclass of paper.OwnTask")
    return found


def command_of(options):
    """Return the command of a study, without what changes no figure: folders and processes."""
    words = ["python", "examples/reproduce_paper.py"]
    words += ["--data", "UTKFace"] if options.data else []
    words += ["--own", Path(options.own).name] if options.own else ["--tasks", *options.tasks]
    names = ["seeds", "bits", "curvature_samples", "max_samples", "epochs", "finetune_epochs"]
    names += ["image_size"] if options.data else []
    for name in names:
        value = getattr(options, name)
        if value is not None:
            values = value if isinstance(value, list) else [value]
            words += [f"--{name.replace('_', '-')}", *map(str, values)]
    return shlex.join(words)


@contextlib.contextmanager
def workers_of(options):
    """Let joblib work on the cluster, whose workers get the code of the study, or in processes here."""
    if not options.dask:
        yield
        return
    try:
        import joblib
        from distributed import Client
        from distributed.diagnostics.plugin import UploadFile

        import skqfair.parallel  # noqa: F401 registers the backend
    except ImportError as error:
        raise SystemExit(f"--dask: {error}; pip install '.[dask]' from the clone.") from None
    try:
        client = Client(options.dask)
    except (OSError, ValueError) as error:
        raise SystemExit(
            f"--dask: no scheduler answers at {options.dask!r} ({error}); start one there, `dask "
            "scheduler`, and `dask worker ADDRESS` on each machine."
        ) from None
    with client, tempfile.TemporaryDirectory() as folder:
        here = Path(__file__).resolve().parent
        code = [shutil.make_archive(f"{folder}/study_of_paper", "zip", here, "paper")]
        code += [str(Path(options.own.rpartition(":")[0]).resolve())] if options.own else []
        for file in code:  # also for workers that join later
            client.register_plugin(UploadFile(file), name=Path(file).name)
        with joblib.parallel_config(backend="dask_resilient"):
            yield


def _source(options):
    return "UTKFace" if options.data else "the data that ship (give --data for faces)"


def main(arguments=None):
    """Run the study, or write a page of one that was run."""
    options = parse(arguments)
    out = Path(options.out)
    if options.dask:  # the same folders from wherever a worker was started
        out, options.data = out.resolve(), options.data and str(Path(options.data).resolve())
    if options.page:
        write_report(out, options.page)
        return
    recipe = {name: getattr(options, name) for name in ("max_samples", "epochs", "finetune_epochs")}
    if options.own:
        tasks = [options.own_class(**recipe)]
    else:
        recipe |= {"data": options.data, "image_size": options.image_size}
        tasks = [Task(name, **recipe) for name in options.tasks]
    command = command_of(options)
    print(command)
    bits = sorted(set(options.bits))
    study = Study(out, tasks, options.seeds, bits, options.curvature_samples, command)
    if said := skipped_files(tasks[0]):
        print(said)
    with workers_of(options):
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
