"""The study of the paper from end to end, in small: interruptions, faces, the page of the guide."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import reproduce_paper
from paper import _pieces
from paper._claims import CLAIMS
from paper._report import digest, render
from paper._stages import MITIGATIONS, QUANTIZERS, run_stage, stages
from paper._tasks import Task

from skqfair.networks import ConvNet

ROOT = Path(__file__).parents[2]
CSV = ("models.csv", "groups.csv", "curvature.csv", "verdicts.csv", "comparisons.csv")


def test_a_study_has_all_versions_and_a_verdict_on_every_claim(study):
    models = pd.read_csv(study / "models.csv")
    assert set(models["seed"]) == {0, 1}
    methods = {"float", *QUANTIZERS, "zeros", "rounding", "zeros at random", "pruned"}
    assert set(models["method"]) == methods | {"pruned, fine-tuned", *MITIGATIONS}
    groups = pd.read_csv(study / "groups.csv", dtype={"group": str})
    assert set(groups["group"]) == set("0123456789")
    keys = ["task", "seed", "method", "weights", "activations"]
    by_group = groups.groupby(keys)["accuracy"].agg(lambda a: a.max() - a.min())
    np.testing.assert_allclose(by_group, models.set_index(keys).sort_index()["fvo"], atol=2e-6)
    verdicts = pd.read_csv(study / "verdicts.csv")
    assert list(verdicts["claim"]) == [claim.key for claim in CLAIMS]
    assert set(verdicts["verdict"]) <= {"holds", "holds in part", "not seen", "no verdict"}
    assert verdicts.set_index("claim")["comparisons"]["moderate"] == 4  # 2 quantizers, 2 each at 8 bits
    report = (study / "report.md").read_text()
    for claim in CLAIMS:
        assert f"| {claim.text} |" in report
        assert (study / f"{claim.figure}.png").exists()


def test_pruned_networks_are_no_larger_than_quantized_ones(study):
    models = pd.read_csv(study / "models.csv")
    size = models[models["activations"] == 32].set_index(["method", "seed", "weights"])["bytes"]
    assert (size.loc["pruned"] <= size.loc["default"].loc[size.loc["pruned"].index]).all()


def test_killed_and_started_again_gives_the_same_bytes(study, tmp_path, tiny):
    command = [sys.executable, str(ROOT / "examples" / "reproduce_paper.py"), *tiny, "--jobs", "2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = (tmp_path / "log").open("wb")
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        env=environment,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    pieces = tmp_path / "out" / "work" / "pieces"
    try:
        while len(list(pieces.glob("*.json"))) < 7:
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        log.close()
    done = {file: file.stat().st_mtime_ns for file in pieces.glob("*.json")}
    assert 7 <= len(done) < 2 * (1 + len(stages()))
    assert not (tmp_path / "out" / "models.csv").exists()

    reproduce_paper.main([*tiny, "--out", str(tmp_path / "out")])
    assert {file: file.stat().st_mtime_ns for file in done} == done  # nothing is done again
    for name in (*CSV, "study.json", "report.md"):
        assert (tmp_path / "out" / name).read_bytes() == (study / name).read_bytes(), name


def test_a_failing_piece_keeps_what_is_done(tmp_path, monkeypatch, tiny):
    calls = []

    def failing(stage, *args):
        calls.append(stage)
        if stage == "pruned":
            raise RuntimeError("no more power")
        return run_stage(stage, *args)

    arguments = [*tiny, "--seeds", "1", "--bits", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(_pieces, "run_stage", failing)
    with pytest.raises(RuntimeError, match="no more power"):
        reproduce_paper.main(arguments)
    assert calls == ["float", "quantized", "zeros", "pruned"]
    calls.clear()
    monkeypatch.setattr(
        _pieces, "run_stage", lambda stage, *args: calls.append(stage) or run_stage(stage, *args)
    )
    reproduce_paper.main(arguments)
    assert calls == stages()[stages().index("pruned") :]
    assert set(pd.read_csv(tmp_path / "verdicts.csv")["verdict"]) == {"no verdict"}  # of one seed
    assert "One seed only" in (tmp_path / "report.md").read_text()


def test_a_folder_of_faces(tmp_path, capsys):
    image = pytest.importorskip("PIL.Image")
    faces, rng = tmp_path / "faces", np.random.default_rng(0)
    faces.mkdir()
    for i in range(120):
        name = f"{i % 90}_{i % 2}_{i // 2 % 5}_20170109{i:09}.jpg.chip.jpg"
        image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(faces / name, "JPEG")
    good = next(faces.iterdir()).read_bytes()
    (faces / "61_1_20170109142408075.jpg.chip.jpg").write_bytes(good)
    (faces / "30_0_0_20170109150557335.jpg.chip.jpg").write_bytes(good[: len(good) // 2])
    (faces / "31_0_1_20170109150557336.jpg.chip.jpg").write_text("not an image")
    (faces / "README").write_text("faces")
    arguments = "--seeds 1 --bits 2 --image-size 8 --epochs 1 --finetune-epochs 1 --tasks gender"
    out = tmp_path / "out"
    options = ["--data", str(faces), "--curvature-samples", "2", "--out", str(out)]
    reproduce_paper.main([*options, *arguments.split()])
    task = json.loads((out / "study.json").read_text())["tasks"]["gender"]
    assert (task["n_train"], task["n_test"], task["shape"]) == (84, 36, [3, 8, 8])
    printed = capsys.readouterr().out
    assert "4 files are skipped" in printed
    assert "'README': the name is not" in printed
    groups = pd.read_csv(out / "groups.csv")
    assert set(groups["group"]) == {"White", "Black", "Asian", "Indian", "Others"}
    assert str(faces) not in "".join((out / name).read_text() for name in (*CSV, "report.md"))


@pytest.mark.slow
@pytest.mark.skipif("SKQFAIR_UTKFACE" not in os.environ, reason="SKQFAIR_UTKFACE names no folder")
def test_a_real_folder(tmp_path):
    options = [
        "--seeds",
        "2",
        "--jobs",
        "2",
        "--bits",
        "8",
        "2",
        "--max-samples",
        "1500",
        "--epochs",
        "3",
        "--finetune-epochs",
        "1",
    ]
    folder = os.environ["SKQFAIR_UTKFACE"]
    options += ["--curvature-samples", "20", "--data", folder, "--out", str(tmp_path)]
    reproduce_paper.main(options)
    verdicts = pd.read_csv(tmp_path / "verdicts.csv").set_index("claim")["verdict"]
    assert verdicts["sparsity"] in ("holds", "holds in part")
    models = pd.read_csv(tmp_path / "models.csv").set_index(["task", "method", "weights"]).sort_index()
    for task in ("ethnicity", "gender"):
        assert models.loc[(task, "float", 32), "accuracy"].min() > 0.5


def test_other_settings_in_the_same_folder_are_an_error(study, tiny):
    with pytest.raises(ValueError, match="pieces of 'digits' with other settings or data: epochs"):
        reproduce_paper.main([*tiny, "--epochs", "2", "--out", str(study)])


def test_another_network_in_the_same_folder_is_an_error(study, tiny, monkeypatch):
    make_net = _pieces.make_net
    for change, named in (
        ({"lr": 0.5}, "lr, network_fingerprint"),
        ({"module__widths": (3,)}, "network_fingerprint"),
        ({"module": Other}, "network, network_fingerprint"),
    ):
        monkeypatch.setattr(_pieces, "make_net", lambda task, c=change: make_net(task).set_params(**c))
        with pytest.raises(ValueError, match=f"other settings or data: {named} differ"):
            reproduce_paper.main([*tiny, "--out", str(study)])


class Other(ConvNet):
    pass


def test_the_command_makes_the_same_study_again(study, tiny):
    command = json.loads((study / "study.json").read_text())["command"]
    assert command.startswith("python examples/reproduce_paper.py --tasks digits --seeds 2 --bits 8 2")
    assert f"`{command}`" in (study / "report.md").read_text()
    again = reproduce_paper.parse(shlex.split(command)[2:])
    own = reproduce_paper.parse(tiny)
    assert vars(again) == vars(own)


def test_own_data_and_network(tmp_path, capsys):
    own = f"{ROOT / 'examples' / 'paper' / 'own_adult.py'}:Income"
    options = [
        "--seeds",
        "1",
        "--bits",
        "2",
        "--max-samples",
        "300",
        "--epochs",
        "1",
        "--curvature-samples",
        "2",
    ]
    reproduce_paper.main(["--own", own, *options, "--out", str(tmp_path)])
    assert "examples/reproduce_paper.py --own own_adult.py:Income --seeds 1" in capsys.readouterr().out
    assert set(pd.read_csv(tmp_path / "groups.csv")["group"]) == {"Female", "Male"}
    assert "**income**: Adult, six columns" in (tmp_path / "report.md").read_text()


OWN = """
import numpy as np
from paper import OwnTask
class NoName(OwnTask):
    pass
class Nothing(OwnTask):
    name = "nothing"
class Uneven(Nothing):
    def load(self, seed):
        return np.zeros((9, 2)), np.zeros(8), np.zeros(9)
class Rare(Nothing):
    def load(self, seed):
        return np.zeros((9, 2)), np.arange(9) % 2, ["a"] * 8 + ["b"]
"""


def test_own_classes_that_do_not_do(tmp_path, capsys):
    (tmp_path / "own_classes.py").write_text(OWN)
    for name, error, message in (
        ("NoName", ValueError, "NoName needs a name"),
        ("Nothing", NotImplementedError, r"Nothing needs a method load\(self, seed\)"),
        ("Uneven", ValueError, "must return X, y and groups of one length, got 9, 8 and 9"),
        ("Rare", ValueError, r"the group 'b' has 0 sample\(s\) of the class 1, too few"),
    ):
        options = ["--own", f"{tmp_path / 'own_classes.py'}:{name}", "--out", str(tmp_path / "out")]
        with pytest.raises(error, match=message):
            reproduce_paper.main(options)
    for own, message in (
        ("own_classes.py:np", "np must be a subclass of paper.OwnTask"),
        ("own_classes.py:Other", "has no attribute 'Other'"),
        ("nowhere.py:Other", "there is no file nowhere.py; give FILE.py:CLASS"),
    ):
        with pytest.raises(SystemExit):
            reproduce_paper.parse(["--own", str(tmp_path / own)])
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        reproduce_paper.parse(["--own", f"{tmp_path / 'own_classes.py'}:Rare", "--tasks", "adult"])
    with pytest.raises(ValueError, match=r"no task 'income'; there are ethnicity, .* OwnTask"):
        Task("income")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "gender"], "--tasks: ['gender'] not among ('adult', 'digits')"),
        (["--bits", "1"], "--bits must be 2..16, got [1]"),
        (["--curvature-samples", "1"], "--curvature-samples must be at least 2, got 1"),
        (["--seeds", "0"], "--seeds and --jobs must be at least 1"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit):
        reproduce_paper.parse(arguments)
    assert message in capsys.readouterr().err


def test_a_page_is_written_from_the_tables_alone(study, tmp_path):
    with pytest.raises(ValueError, match=r"lacks models.csv, .*run the study to its end first"):
        reproduce_paper.main(["--out", str(tmp_path), "--page", str(tmp_path / "page.md")])
    reproduce_paper.main(["--out", str(study), "--page", str(tmp_path / "page.md")])
    relative = os.path.relpath(study, tmp_path)
    expected = (study / "report.md").read_text().replace("](", f"]({relative}/")
    expected = expected.replace(f"]({relative}/#", "](#")
    assert (tmp_path / "page.md").read_text() == expected


def test_the_page_of_the_guide_is_what_its_tables_say():
    """Remake it with ``reproduce_paper.py --out docs/paper --page docs/user_guide/paper.md``."""
    image = pytest.importorskip("PIL.Image")
    folder = ROOT / "docs" / "paper"
    assert (ROOT / "docs" / "user_guide" / "paper.md").read_text() == render(folder, "../paper/")
    figures = list(folder.glob("*.png"))
    assert {figure.stem for figure in figures} == {claim.figure for claim in CLAIMS}
    for figure in figures:
        with image.open(figure) as drawn:
            assert drawn.info["Source"] == digest(folder), figure.name
    assert sum(figure.stat().st_size for figure in figures) < 300_000
