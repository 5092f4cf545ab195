"""Work in pieces: each is written when it is done, and not done again; tables are made of all."""

import hashlib
import json
import os
import time
from pathlib import Path

import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from paper._stages import run_stage, stages
from paper._tasks import load_split, make_net
from skqfair import __version__
from skqfair.storage import fingerprint

__all__ = ["TABLES", "Study", "read_tables", "write_atomically"]

TABLES = ("models", "groups", "curvature")


class Study:
    """A folder of results.

    Parameters
    ----------
    out : path
        Tables go here, pieces and trained networks into ``out/work``.
    tasks : list of Task
        What is learned.
    n_seeds : int
        Seeds 0, 1, ...: each is another split of the data and another training.
    bits : sequence of int
        Widths.
    curvature_samples : int
        At most so many of each group for eigenvalues.
    command : str
        What makes the same study again, for the report.
    """

    def __init__(self, out, tasks, n_seeds, bits, curvature_samples, command):
        self.out, self.work = Path(out), Path(out) / "work"
        self.tasks, self.n_seeds, self.bits = tasks, n_seeds, bits
        self.curvature_samples, self.command = curvature_samples, command

    def run(self, jobs=1):
        """Do what is not done, in ``jobs`` processes of one thread each, and write the tables."""
        (self.work / "pieces").mkdir(parents=True, exist_ok=True)
        self._check_settings()
        units = [(task, seed) for seed in range(self.n_seeds) for task in self.tasks]
        first = [(*unit, "float") for unit in units]
        rest = [(*unit, stage) for unit in units for stage in stages()]
        progress = tqdm(total=len(first) + len(rest), desc="pieces", smoothing=0)
        with Parallel(n_jobs=jobs, return_as="generator_unordered") as parallel, progress:
            for pieces in (first, rest):  # each network is trained before anything is made of it
                missing = [piece for piece in pieces if not self._file(*piece).exists()]
                progress.update(len(pieces) - len(missing))
                for _ in parallel(delayed(self._piece)(*piece) for piece in missing):
                    progress.update()
                if lost := [piece for piece in missing if not self._file(*piece).exists()]:
                    raise ValueError(
                        f"--out: {len(lost)} pieces were done, but are not in {self.work}; on a cluster "
                        "it must be a folder that all workers see."
                    )
        pieces = [json.loads(self._file(*piece).read_text()) for piece in first + rest]
        for table in TABLES:
            frame = pd.DataFrame([row for piece in pieces for row in piece["tables"][table]])
            text = frame.to_csv(index=False, float_format="%.6g", lineterminator="\n")
            write_atomically(self.out / f"{table}.csv", text)
        write_atomically(self.out / "study.json", json.dumps(self._summary(), indent=1) + "\n")
        return {
            stage: [p["cpu_seconds"] for p in pieces if p["stage"] == stage]
            for stage in ("float", *stages())
        }

    def _file(self, task, seed, stage):
        return self.work / "pieces" / f"{task.name}-{seed}-{stage.replace(', ', '+')}.json"

    def _piece(self, task, seed, stage):
        torch.set_num_threads(1)  # results are the same, bit for bit, at the same number of threads
        start = time.process_time()
        split = load_split(task, seed)
        memory = str(self.work / "networks")
        options = (self.bits, self.curvature_samples, memory)
        tables = run_stage(stage, task, seed, split, *options)
        piece = {"stage": stage, "cpu_seconds": time.process_time() - start, "tables": tables}
        write_atomically(self._file(task, seed, stage), json.dumps(piece))

    def _summary(self):
        settings = {"command": self.command, "seeds": self.n_seeds}
        return {**settings, "tasks": {t.name: self._settings(t) for t in self.tasks}}

    def _settings(self, task):
        split = load_split(task, 0)
        digest = hashlib.sha256(split.X_train.tobytes())
        for array in (split.y_train, split.X_test, split.y_test):
            digest.update(array.tobytes())
        digest.update("\n".join([*split.groups_train, *split.groups_test]).encode())
        net = make_net(task)
        params = net.get_params(deep=False)
        return {
            "bits": sorted(self.bits, reverse=True),
            "curvature_samples": self.curvature_samples,
            **task.recipe,
            "n_train": len(split.y_train),
            "n_test": len(split.y_test),
            "shape": list(split.X_train.shape[1:]),
            "fingerprint": digest.hexdigest()[:16],
            "skqfair": __version__,
            "network": f"{net.module.__module__}.{net.module.__qualname__}",
            "lr": net.lr,
            "network_fingerprint": fingerprint(type(net), params)[:16],
        }

    def _check_settings(self):
        """Raise if the folder has pieces of another study; more seeds or tasks are the same study."""
        file, own = self.work / "settings.json", self._summary()["tasks"]
        found = json.loads(file.read_text()) if file.exists() else {}
        for task, settings in own.items():
            theirs = found.get(task, settings)
            if differing := [key for key in settings if theirs.get(key) != settings[key]]:
                raise ValueError(
                    f"--out: {self.out} has pieces of {task!r} with other settings or data: "
                    f"{', '.join(differing)} differ, see {file}. Give the same ones to go on, or "
                    "another folder to start anew."
                )
        write_atomically(file, json.dumps({**found, **own}, indent=1))


def write_atomically(file, text):
    """Write a file whole, or not at all."""
    part = file.with_name(f"{file.name}.{os.getpid()}.part")
    part.write_text(text)
    part.replace(file)


def read_tables(folder):
    """Return the tables and the summary that a study wrote."""
    folder = Path(folder)
    missing = [
        name for name in (*(f"{t}.csv" for t in TABLES), "study.json") if not (folder / name).exists()
    ]
    if missing:
        raise ValueError(f"--out: {folder} lacks {', '.join(missing)}; run the study to its end first.")
    tables = {name: pd.read_csv(folder / f"{name}.csv", dtype={"group": str}) for name in TABLES}
    return tables, json.loads((folder / "study.json").read_text())
