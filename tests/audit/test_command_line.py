"""From a table of predictions to an exit status."""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from skqfair import CompressionAudit
from skqfair.audit import main


@pytest.fixture
def table():
    rng = np.random.default_rng(0)
    y = rng.choice(["no", "yes"], 600)
    other = np.where(y == "yes", "no", "yes")
    return pd.DataFrame(
        {
            "label": y,
            "float": np.where(rng.random(600) < 0.1, other, y),
            "int8": np.where(rng.random(600) < 0.1, other, y),
            "score": np.clip((y == "yes") * 0.5 + rng.random(600) * 0.5, 0.001, 0.999),
            "race": rng.choice(["a", "b"], 600),
            "sex": rng.choice(["f", "m"], 600),
            "weight": (rng.random(600) + 0.1).round(3),  # old parsers of CSV are not exact at 17 digits
        }
    )


def arguments(path, *more, compressed=("int8",), groups=("race",)):
    return [
        "audit",
        str(path),
        "--y-true",
        "label",
        "--reference",
        "float",
        "--compressed",
        *compressed,
        "--groups",
        *groups,
        *more,
    ]


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_it_says_what_the_audit_says(table, tmp_path, capsys, suffix):
    path = tmp_path / f"predictions.{suffix}"
    if suffix == "csv":
        table.to_csv(path, index=False)
    else:
        table.to_parquet(path)
    page, data = tmp_path / "audit.html", tmp_path / "audit.json"
    more = ["--sample-weight", "weight", "--html", str(page), "--json", str(data)]
    assert main(arguments(path, *more, groups=["race", "sex"])) == 0
    audit = CompressionAudit.from_predictions(
        table["label"],
        {"float": table["float"], "int8": table["int8"]},
        sensitive_features=table[["race", "sex"]],
        sample_weight=table["weight"],
    )
    assert capsys.readouterr().out.splitlines() == audit.verdicts
    back = CompressionAudit.from_json(data)
    pd.testing.assert_frame_equal(back.changes, audit.changes)
    assert back.context["data_sha256"] == audit.context["data_sha256"]
    assert "Whom did compression harm?" in page.read_text()


def test_one_model_alone(table, tmp_path, capsys):
    table.to_csv(tmp_path / "predictions.csv", index=False)
    words = arguments(
        tmp_path / "predictions.csv", "--json", str(tmp_path / "audit.json"), compressed=()
    )
    words.remove("--compressed")
    assert main(words) == 0
    alone = CompressionAudit.from_predictions(
        table["label"], {"float": table["float"]}, sensitive_features=table[["race"]]
    )
    assert capsys.readouterr().out.splitlines() == alone.verdicts
    assert json.loads((tmp_path / "audit.json").read_text())["tables"]["changes"]["index"] == []
    assert main([*words, "--require", "max_fvo=0.5"]) == 0
    assert "float: max_fvo=0.5 is kept; it is " in capsys.readouterr().out
    assert main([*words, "--require", "max_flip_rate=0.5"]) == 2
    said = capsys.readouterr()
    assert "of one model alone require max_fvo" in said.err
    assert not said.out


def test_a_page_says_which_file_which_call_and_which_limits(table, tmp_path, capsys):
    table["race"] = table["race"].where(table.index > 2)
    path, page = tmp_path / "predictions.csv", tmp_path / "audit.html"
    table.to_csv(path, index=False)
    words = arguments(path, "--missing-groups", "not said", "--html", str(page))
    assert main([*words, "--require", "max_flip_rate=0.01", "max_fvo=1"]) == 1
    text = page.read_text()
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    assert "skqfair audit " in text
    assert "--missing-groups" in text
    assert "int8: max_flip_rate=0.01 is exceeded" in text
    assert "int8: max_fvo=1 is kept" in text
    assert "not said" in text


def test_limits_decide_the_exit_status(table, tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    table.to_csv(path, index=False)
    assert main(arguments(path, "--require", "max_fvo=0.5", "max_accuracy_drop=0.2")) == 0
    assert main(arguments(path, "--require", "max_flip_rate=0.01", "max_fvo=0.5")) == 1
    said = capsys.readouterr().err
    assert "int8: max_flip_rate=0.01 is exceeded" in said
    assert "max_fvo" not in said
    assert main(arguments(path, "--require", "max_fvo=0.06", "--on", "upper")) == 1


@pytest.mark.parametrize(("limit", "status"), [("max_fvo=0.5", 0), ("max_flip_rate=0.01", 1)])
def test_a_reader_that_stops_early_changes_neither_status_nor_page(table, tmp_path, limit, status):
    path, page = tmp_path / "predictions.csv", tmp_path / "audit.html"
    table.to_csv(path, index=False)
    read, write = os.pipe()
    os.close(read)
    words = arguments(path, "--html", str(page), "--require", limit)
    run = subprocess.run([sys.executable, "-m", "skqfair", *words], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (run.returncode, b"Broken pipe" in run.stderr) == (status, False)
    assert limit.split("=")[0] in page.read_text()


def test_probabilities_and_the_positive_label(table, tmp_path, capsys):
    path = tmp_path / "predictions.csv"
    table.to_csv(path, index=False)
    out = tmp_path / "a.json"
    more = ["--json", str(out), "--metrics", "selection_rate", "--pos-label", "no"]
    assert main(arguments(path, *more, compressed=["score"])) == 0
    models = CompressionAudit.from_json(out).models
    assert models.loc["float", "selection_rate"] == pytest.approx(np.mean(table["float"] == "no"))
    assert models.loc["score", "selection_rate"] == pytest.approx(np.mean(table["score"] >= 0.5))
    assert main(arguments(path, "--pos-label", "perhaps")) == 2
    assert "--pos-label 'perhaps' is no label" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--require", "max_gap=1"], "--require takes LIMIT=NUMBER"),
        (["--require", "max_fvo=low"], "got 'max_fvo=low'"),
        (["--require", "max_fvo=nan"], "max_fvo must be a share"),
        (["--groups", "gender"], r"--groups: predictions.csv has no column ['gender']; it has ['label'"),
        (["--groups", "holes"], "--groups: 3 of 600 values of 'holes' are missing"),
        (["--metrics", "nonsense"], "'nonsense' is none of"),
        (["--html", "absent/page.html"], "cannot write 'absent/page.html'"),
        (["--compressed", "float"], "name a column twice"),
        (["--confidence", "95"], "confidence must be"),
        (["--nonsense"], "unrecognized arguments"),
    ],
)
def test_bad_input_is_said(table, tmp_path, capsys, monkeypatch, more, message):
    monkeypatch.chdir(tmp_path)
    table["holes"] = table["race"].where(table.index > 2)
    table.to_csv("predictions.csv", index=False)
    assert main(arguments("predictions.csv", *more)) == 2
    assert message in capsys.readouterr().err


def test_no_file_and_no_rows(table, tmp_path, capsys):
    assert main(arguments(tmp_path / "absent.csv")) == 2
    table.iloc[:0].to_csv(tmp_path / "empty.csv", index=False)
    assert main(arguments(tmp_path / "empty.csv")) == 2
    (tmp_path / "nothing.csv").write_text("")
    assert main(arguments(tmp_path / "nothing.csv")) == 2
    (tmp_path / "bad.parquet").write_text("no parquet")
    assert main(arguments(tmp_path / "bad.parquet")) == 2
    said = capsys.readouterr().err
    assert "has no row" in said
    assert "bad.parquet' cannot be read" in said
    (tmp_path / "latin.csv").write_bytes("label,float,int8,race\n1,1,0,wei\xdf\n".encode("latin-1"))
    assert main(arguments(tmp_path / "latin.csv")) == 2
    assert "latin.csv' cannot be read: 'utf-8'" in capsys.readouterr().err
    (tmp_path / "ragged.csv").write_text("label,float,int8,race\n1,1,0,a\n1,1,0,a,5\n")
    assert main(arguments(tmp_path / "ragged.csv")) == 2
    assert "ragged.csv' cannot be read: Error tokenizing" in capsys.readouterr().err


def test_columns_of_any_kind(table, tmp_path, capsys):
    """An index in Parquet, categories, and texts beyond the rows that types are told from."""
    table.to_csv(tmp_path / "plain.csv", index=False)
    assert main(arguments(tmp_path / "plain.csv")) == 0
    wanted = capsys.readouterr().out
    table.set_index("race").to_parquet(tmp_path / "indexed.parquet")
    table.astype({"race": "category", "int8": "category"}).to_parquet(tmp_path / "categories.parquet")
    for name in ("indexed", "categories"):
        assert main(arguments(tmp_path / f"{name}.parquet")) == 0
        assert capsys.readouterr().out == wanted
    coded = table.replace({"no": 0, "yes": 1}).infer_objects()
    late = pd.concat([coded, coded], ignore_index=True).astype({"int8": object})
    late.loc[len(late) - 1, "int8"] = "maybe"
    late.to_csv(tmp_path / "late.csv", index=False)
    assert main(arguments(tmp_path / "late.csv")) == 2
    assert "y_true holds number labels and y_pred of 'int8' text" in capsys.readouterr().err


@pytest.mark.parametrize("column", ["label", "float", "int8", "race", "weight"])
def test_missing_values_are_refused_in_every_column(table, tmp_path, capsys, column):
    table.loc[3:4, column] = None
    table.to_csv(tmp_path / "holes.csv", index=False)
    assert main(arguments(tmp_path / "holes.csv", "--sample-weight", "weight")) == 2
    assert f"2 of 600 values of '{column}' are missing" in capsys.readouterr().err


def test_as_a_module_without_what_is_slow_to_load(table, tmp_path):
    path = tmp_path / "predictions.csv"
    table.to_csv(path, index=False)
    code = (
        "import runpy, sys; sys.argv[0] = 'skqfair'\n"
        "try: runpy.run_module('skqfair', run_name='__main__')\n"
        "finally: print({'torch', 'skorch', 'matplotlib', 'sklearn', 'scipy.stats', 'fairlearn'}"
        " & sys.modules.keys(), file=sys.stderr)"
    )
    more = ["--json", str(tmp_path / "a.json"), "--html", str(tmp_path / "a.html")]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments(path, *more)], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "set()\n")
    assert json.loads((tmp_path / "a.json").read_text())["reference"] == "float"
    run = subprocess.run([sys.executable, "-m", "skqfair"], capture_output=True, text=True)
    assert run.returncode == 2
    assert "usage: skqfair" in run.stderr


def test_warnings_are_said_in_a_line(table, tmp_path, capsys):
    table.loc[0, "int8"] = "maybe"
    table.loc[table["label"] == "yes", "race"] = "a"
    table.to_csv(tmp_path / "predictions.csv", index=False)
    assert main(arguments(tmp_path / "predictions.csv")) == 0
    said = capsys.readouterr().err.splitlines()
    assert (
        "warning: y_pred of 'int8' has labels that y_true lacks: ['maybe']; they count as wrong." in said
    )
    assert "warning: true_positive_rate is undefined in the group(s) b, and NaN there." in said
    assert len(said) == 2
