"""``skqfair audit``: from a table of predictions to verdicts, documents and an exit status."""

import argparse
import hashlib
import os
import shlex
import sys
import warnings
from pathlib import Path

import pandas as pd

from skqfair._optional import import_extra
from skqfair._version import __version__
from skqfair.audit._audit import CompressionAudit
from skqfair.audit._gate import LIMITS
from skqfair.exceptions import AuditFailure

__all__ = ["main"]

_WITHIN, _BEYOND, _BAD_INPUT = 0, 1, 2


def main(argv=None):
    """Run the command line.

    Parameters
    ----------
    argv : list of str, default=None
        Arguments; None takes those of the process.

    Returns
    -------
    int
        0 within the limits (or without any), 1 beyond one, 2 for bad input.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as stop:  # argparse has said why
        return _BAD_INPUT if stop.code else _WITHIN
    with warnings.catch_warnings():
        warnings.simplefilter("default", UserWarning)
        warnings.showwarning = _Said()
        try:
            return _audit(options, sys.argv[1:] if argv is None else argv)
        except BrokenPipeError as error:  # whoever reads has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _BEYOND if isinstance(error.__context__, AuditFailure) else _WITHIN
        except AuditFailure as failure:
            print(f"beyond the limits:\n{failure}", file=sys.stderr)
            return _BEYOND
        except (ValueError, TypeError, OSError, ImportError) as error:
            print(f"skqfair audit: {error}", file=sys.stderr)
            return _BAD_INPUT


class _Said:
    """Prints each warning once, on a line."""

    def __init__(self):
        self.said = set()

    def __call__(self, message, *_, **__):
        if str(message) not in self.said:
            self.said.add(str(message))
            print(f"warning: {message}", file=sys.stderr)


def _parser():
    parser = argparse.ArgumentParser("skqfair", description="Fairness of compressed classifiers.")
    parser.add_argument("--version", action="version", version=f"skqfair {__version__}")
    commands = parser.add_subparsers(required=True, metavar="audit")
    audit = commands.add_parser(
        "audit",
        help="compare compressed models with a reference, by group",
        description="Compare compressed models with a reference, by group. Exit status: 0 within the "
        "limits of --require, 1 beyond one, 2 for bad input.",
    )
    add = audit.add_argument
    add("table", metavar="FILE", help="a CSV or Parquet file, a row for each sample")
    add("--y-true", required=True, metavar="COLUMN", help="true labels")
    add("--reference", required=True, metavar="COLUMN", help="predictions of the reference")
    add(
        "--compressed",
        nargs="+",
        default=[],
        metavar="COLUMN",
        help="of the compressed models; without any the reference alone is described",
    )
    add("--groups", required=True, nargs="+", metavar="COLUMN", help="several mean intersections")
    add("--missing-groups", metavar="NAME", help="what missing groups are called; default: an error")
    add("--metrics", nargs="+", metavar="NAME", help="beside accuracy; default: those that fit")
    add("--sample-weight", metavar="COLUMN", help="weights of the samples")
    add(
        "--pos-label",
        metavar="LABEL",
        help="what rates count; default: the second label, sorted",
    )
    add("--confidence", type=float, default=0.95, help="of all intervals (%(default)s)")
    add("--html", metavar="PATH", help="write a self-contained page")
    add("--json", metavar="PATH", help="write everything as JSON")
    add("--require", nargs="+", default=[], metavar="LIMIT=NUMBER", help=", ".join(LIMITS))
    add("--on", choices=["estimate", "upper"], default="estimate", help="what must be within a limit")
    return parser


def _audit(options, words):
    limits = dict(map(_limit, options.require))
    columns = {
        "--y-true": [options.y_true],
        "--reference": [options.reference],
        "--compressed": options.compressed,
        "--groups": options.groups,
        "--sample-weight": [options.sample_weight] if options.sample_weight else [],
    }
    table = _read(Path(options.table), columns, options.missing_groups)
    models = [options.reference, *options.compressed]
    if len(set(models)) < len(models):
        raise ValueError(f"--reference and --compressed name a column twice: {models}.")
    y_true = table[options.y_true]
    audit = CompressionAudit.from_predictions(
        y_true,
        {name: table[name] for name in models},
        sensitive_features=table[options.groups],
        reference=options.reference,
        metrics=options.metrics,
        sample_weight=table[options.sample_weight] if options.sample_weight else None,
        pos_label=_label(options.pos_label, y_true),
        confidence=options.confidence,
    )
    with open(options.table, "rb") as file:
        audit.context["file_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    audit.context["call"] = shlex.join(["skqfair", *words])
    try:
        if limits:
            audit.require(**limits, on=options.on)
    finally:
        if "limits" in audit.context or not limits:
            if options.html:
                audit.to_html(options.html)
            if options.json:
                audit.to_json(options.json)
            print("\n".join([*audit.verdicts, *audit.context.get("limits", [])]))
    return _WITHIN


def _limit(text):
    name, _, value = text.partition("=")
    try:
        if name not in LIMITS:
            raise ValueError
        return name, float(value)
    except ValueError:
        raise ValueError(
            f"--require takes LIMIT=NUMBER with LIMIT one of {', '.join(LIMITS)} and a share as NUMBER, "
            f"0.01 for one percent; got {text!r}."
        ) from None


def _open(path):
    """Return the columns of a file, and what reads some of them."""
    if path.suffix.lower() in (".parquet", ".pq"):
        parquet = import_extra("pyarrow.parquet", "parquet")
        return parquet.read_schema(path).names, lambda wanted: parquet.read_table(
            path, columns=wanted
        ).to_pandas(ignore_metadata=True)  # of an index too
    head = pd.read_csv(path, nrows=1000)
    text = [name for name in head if not pd.api.types.is_numeric_dtype(head[name])]

    def read(wanted):  # each text is made once, not a million times
        once = {name: "category" for name in text if name in wanted}
        return pd.read_csv(path, usecols=wanted, dtype=once)

    return list(head), read


def _unreadable(path, error):
    return ValueError(
        f"FILE {str(path)!r} cannot be read: {str(error).strip()}. CSV needs commas and UTF-8; Parquet "
        "the suffix .parquet."
    )


def _texts(categorical):
    """Return the texts of a categorical without missing values as objects."""
    return pd.Series(categorical.categories.to_numpy(dtype=object)[categorical.codes], dtype=object)


def _named(groups, name):
    """Return the groups with a name in the place of missing values."""
    return groups.astype(object).where(groups.notna(), name) if groups.isna().any() else groups


def _label(text, y_true):
    """Return the label of y_true that a text stands for."""
    if text is None:
        return None
    labels = pd.unique(y_true)
    found = [label for label in labels if str(label) == text]
    if not found:
        raise ValueError(f"--pos-label {text!r} is no label of y_true: it has {list(labels[:10])}.")
    return found[0]


def _read(path, columns, missing_groups):
    """Read the columns that are named, each of which must be there and have no missing value."""
    if not path.is_file():
        raise ValueError(f"FILE {str(path)!r} does not exist, or is no file.")
    try:
        there, read = _open(path)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    for option, names in columns.items():
        absent = [name for name in names if name not in there]
        if absent:
            commas = " Columns are separated by commas." if len(there) == 1 else ""
            raise ValueError(f"{option}: {path.name} has no column {absent}; it has {there}.{commas}")
    wanted = list(dict.fromkeys(name for names in columns.values() for name in names))
    try:
        table = read(wanted)
    except (ValueError, OSError) as error:
        raise _unreadable(path, error) from error
    if not len(table):
        raise ValueError(f"{path.name} has no row.")
    if missing_groups is not None:
        table = table.assign(
            **{name: _named(table[name], missing_groups) for name in columns["--groups"]}
        )
    for option, names in columns.items():
        for name in names:
            if missing := int(table[name].isna().sum()):
                remedy = ", or name missing groups by --missing-groups" if option == "--groups" else ""
                raise ValueError(
                    f"{option}: {missing} of {len(table)} values of {name!r} are missing (empty, or "
                    f"words such as NA and None); drop these rows{remedy}."
                )
    groups = columns["--groups"]
    labels = [name for name in wanted if name not in groups and table[name].dtype == "category"]
    return table.assign(**{name: _texts(table[name].array) for name in labels})
