"""The report: verdicts, the comparisons behind them, and figures; all computed from the tables."""

import hashlib
import io
import os
from pathlib import Path

import numpy as np

from paper._claims import CLAIMS
from paper._pieces import TABLES, read_tables, write_atomically
from paper._results import Results
from paper._stages import mitigated_bits
from paper._verdicts import judge

__all__ = ["digest", "draw", "render", "write_report"]

_TASKS = {
    "ethnicity": "faces (UTKFace), ethnicity as target and as group",
    "gender": "faces (UTKFace), gender as target, ethnicity as group",
    "adult": "Adult, income as target, race as group",
    "digits": "scikit-learn's digits, the digit as target and as group, some made rare",
}
_COMMAND = "python examples/reproduce_paper.py --data UTKFace --seeds 5 --jobs 2"
_INTRODUCTION = """\
# The paper, claim by claim

Does what the paper claims hold here? Bellam & Kim, *Explaining how quantization disparately skews a
model* (2025, arXiv:2509.07222), name a chain of effects by which fewer bits widen the gaps between
groups. Here each claim is measured with this package alone, by one command,
`{command}`
(without `--data` on data that ship, in two minutes). Every number below is computed from the tables
that it wrote.

A gap is measured on these data and this network. A claim that is not seen here may hold elsewhere, and
the other way round. Where the verdict is "not seen", the claim may also be too small for so few seeds.
"""
_RULE = """\
## How a verdict is made

Each claim has comparisons, each a number for every seed, signed so that positive is what the claim says.
A comparison holds if the 95 % t-interval of its mean over the seeds lies above 0, and is opposite if it
lies below. The claim *holds* if all its comparisons hold; it *holds in part* if at least a quarter hold,
and more than are opposite; else it is *not seen*. The rule is code, written before the results were
seen; after a trial with one seed only the bound for "extreme" was changed, since twice an FVO above 0.5
cannot be reached. Every seed is another split of the data and another training; test samples are used
for nothing but these measurements, and nothing is selected. The splits overlap, so the intervals are
somewhat too short; and of many comparisons some hold by chance.

FVO is the largest difference of accuracy between two groups. "Plain" is a scale for each tensor from its
largest magnitude, "default" a scale for each output channel with the least squared error, as in
`QuantizedClassifier`. "Few bits" are those up to 4. Both round to nearest; what better rounding leaves
of the chain stands in the guide's page on quantization, "Where the cascade ends".
"""


def digest(folder):
    """Return a fingerprint of the tables in a folder; every figure carries that of its tables."""
    content = b"".join((Path(folder) / f"{name}.csv").read_bytes() for name in TABLES)
    return hashlib.sha256(content).hexdigest()


def draw(folder):
    """Draw the figures of the tables in a folder, beside them; few colors keep the files small."""
    from PIL import Image, PngImagePlugin

    from paper._figures import FIGURES

    folder = Path(folder)
    results = Results(read_tables(folder)[0])
    source = PngImagePlugin.PngInfo()
    source.add_text("Source", digest(folder))
    for name, (function, _) in FIGURES.items():
        drawn = io.BytesIO()
        function(results).savefig(drawn)
        image = Image.open(drawn).convert("RGB").quantize(64, Image.Quantize.MAXCOVERAGE)
        image.save(folder / f"{name}.png", optimize=True, pnginfo=source)


def write_report(folder, page=None):
    """Write report and tables of verdicts into the folder of a study, or the report to another page."""
    folder = Path(folder)
    verdicts, comparisons = judge(read_tables(folder)[0], CLAIMS)
    if page is not None:
        images = Path(os.path.relpath(folder, Path(page).parent)).as_posix() + "/"
        write_atomically(Path(page), render(folder, images))
        return
    options = {"index": False, "float_format": "%.4g", "lineterminator": "\n"}
    write_atomically(folder / "verdicts.csv", verdicts.to_csv(**options))
    write_atomically(folder / "comparisons.csv", comparisons.to_csv(**options))
    write_atomically(folder / "report.md", render(folder))


def render(folder, images=""):
    """Return the report of the tables in a folder as Markdown; ``images`` is put before figure names."""
    from paper._figures import FIGURES

    tables, summary = read_tables(folder)
    verdicts, comparisons = judge(tables, CLAIMS)
    numbers = {name: i for i, name in enumerate(FIGURES, 1)}
    command = summary.get("command", _COMMAND)
    lines = [
        _INTRODUCTION.format(command=command),
        _described(summary),
        _models(tables, summary),
        "## Verdicts\n",
    ]
    lines.append(
        f"Seeds: {summary['seeds']}; tasks: {', '.join(summary['tasks'])}. Of the comparisons behind a "
        "claim the least and the greatest mean over the seeds, with its 95 % t interval, which knows no "
        "bounds: that of a correlation may pass ±1; positive is as claimed.\n"
    )
    lines.append("| claim | what was measured | hold | least to greatest | verdict | figure |")
    lines.append("|---|---|---|---|---|---|")
    for claim, row in zip(CLAIMS, verdicts.itertuples(), strict=True):
        own = comparisons[comparisons["claim"] == claim.key].dropna(subset="mean").sort_values("mean")
        ends = " to ".join(_estimate(end) for end in own.iloc[[0, -1]].itertuples()) if len(own) else ""
        count = f"{row.hold} of {row.comparisons}"
        count += f", {row.opposite} opposite" if row.opposite else ""
        number = numbers[claim.figure]
        cells = (claim.text, claim.measured, count, ends, f"**{row.verdict}**")
        lines.append("| " + " | ".join(cells) + f" | [{number}](#figure-{number}) |")
    lines += [
        "",
        _RULE,
        "## Figures\n",
        "Means over the seeds; whiskers are 95 % t-intervals, left out where lines are groups.\n",
    ]
    for name, (_, caption) in FIGURES.items():
        heading = f"### Figure {numbers[name]}\n"
        lines += [heading, f"{caption}\n", f"![{caption}]({images}{name}.png)\n"]
    lines += ["## The comparisons\n", "Mean over the seeds and 95 % interval; positive is as claimed.\n"]
    for claim in CLAIMS:
        lines += [f"### {claim.text}\n", f"{_sentence(claim.measured)}\n"]
        lines += ["| task | comparison | seeds | mean | interval | |", "|---|---|---|---|---|---|"]
        for row in comparisons[comparisons["claim"] == claim.key].itertuples():
            sign = "holds" if row.holds else "opposite" if row.opposite else ""
            interval = f"{_number(row.low)} to {_number(row.high)}" if row.seeds > 1 else ""
            cells = (row.task, row.comparison, row.seeds, _number(row.mean), interval, sign)
            lines.append("| " + " | ".join(map(str, cells)) + " |")
        lines.append("")
    return "\n".join(lines).rstrip("\n") + "\n"


def _described(summary):
    """Say which data, networks and seeds."""
    seeds, lines = summary["seeds"], ["## Data and networks\n"]
    if seeds == 1:
        lines.append("**One seed only: nothing has an interval, so there is no verdict.**\n")
    for name, task in summary["tasks"].items():
        shape = " × ".join(map(str, task["shape"]))
        what = _TASKS.get(name) or task["description"] or name
        lines.append(
            f"- **{name}**: {what}. {task['n_train']:,} samples to train on, {task['n_test']:,} "
            f"to measure on, of shape {shape}; {task['epochs']} epochs, {task['finetune_epochs']} of "
            f"fine-tuning. Eigenvalues on at most {task['curvature_samples']} samples of each group."
        )
    bits = next(iter(summary["tasks"].values()))["bits"]
    lines.append(
        f"\nSeeds: {seeds}. Bits: {', '.join(map(str, bits))}; mitigations at {mitigated_bits(bits)} "
        "bits per weight. Pruned networks are as small as those of the default quantizer, or smaller.\n"
    )
    return "\n".join(lines)


def _models(tables, summary):
    """Return tables of accuracy and FVO, with a mark where one class is predicted for everybody."""
    lines = [
        "## The models\n",
        "Accuracy / FVO, means over the seeds; weights alone are quantized; pruned networks have no "
        "more bytes than the default quantizer at these bits. **†**: in some seeds each group is served "
        "wholly right or wholly wrong; where the group is the target, one class is predicted for "
        "everybody. That is a network that broke: a comparison with it says little about disparity, "
        "whatever its verdict. Where accuracy is near that of guessing and FVO is small, all groups are "
        "served badly alike.\n",
    ]
    for name, task in summary["tasks"].items():
        models, groups = (tables[t][tables[t]["task"] == name] for t in ("models", "groups"))
        sizes = groups[groups["method"] == "float"].groupby("group")["n_train"].mean().sort_values()
        listed = ", ".join(f"{group} {size:,.0f}" for group, size in sizes.items())
        lines.append(f"**{name}**. Training samples of the groups, mean over the seeds: {listed}.\n")
        lines += ["| | float | " + " | ".join(f"{bits} bits" for bits in task["bits"]) + " |"]
        lines += ["|---" * (len(task["bits"]) + 2) + "|"]
        for method in ("plain", "default", "pruned"):
            steps = [("float", 32), *((method, bits) for bits in task["bits"])]
            cells = [_cell(models, groups, *step) for step in steps]
            lines.append(f"| {method} | " + " | ".join(cells) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(models, groups, method, bits):
    """Return accuracy and FVO of a method, and whether some seeds predict one class."""
    own, parts = (
        t[(t["method"] == method) & (t["weights"] == bits) & (t["activations"] == 32)]
        for t in (models, groups)
    )
    broken = parts["accuracy"].isin([0, 1]).groupby(parts["seed"]).all().any()
    return f"{own['accuracy'].mean():.3f} / {own['fvo'].mean():.3f}" + " †" * bool(broken)


def _estimate(row):
    if row.seeds < 2:
        return _number(row.mean)
    return f"{_number(row.mean)} ({_number(row.low)}, {_number(row.high)})"


def _number(value):
    if np.isnan(value):
        return ""
    return f"{value:.3f}" if abs(value) >= 0.0005 or not value else f"{value:.0e}"


def _sentence(text):
    return text[0].upper() + text[1:] + "."
