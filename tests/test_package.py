"""The shape of the package: who imports whom, how long files are, what is public and documented."""

import ast
import doctest
import importlib
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from numpydoc.validate import validate
from rooms import FILES, LEVELS, ROOT, imports, room_of

import skqfair

TESTS = Path(__file__).parent
PUBLIC = ["skqfair", *(f"skqfair.{p.parent.name}" for p in ROOT.glob("*/__init__.py"))]


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_downward(path):
    """A package is used through its face, by those above it; the face of all is used by none."""
    own = room_of(path)
    if own in ("__init__", "__main__"):
        return
    for name in imports(path):
        assert name != "skqfair", "the package face is imported"
        if name.startswith("skqfair."):
            other, *private = name.split(".")[1:]
            assert other == own or LEVELS.get(other, 0) < LEVELS.get(own, 0.5), f"{own} imports {other}"
            assert other == own or not private, f"{own} imports a private file, {name}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_metrics_and_displays_never_import_torch(path):
    if room_of(path) in (
        "metrics",
        "displays",
        "datasets",
        "_validation",
        "_groups",
        "_losses",
        "audit",
        "__main__",
    ):
        assert not any(name.split(".")[0] in ("torch", "skorch") for name in imports(path))


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path):
    assert len(path.read_text().splitlines()) < 400


def public_objects():
    for module in PUBLIC:
        for name in importlib.import_module(module).__all__:
            obj = getattr(importlib.import_module(module), name)
            if callable(obj) and f"{module}.{name}" not in ("skqfair.networks.prediction_view",):
                yield f"{module}.{name}"


IGNORED = {
    *("GL01", "SA01", "SA04", "ES01", "EX01"),  # sections where they help
    *("RT02", "PR06"),  # styles of naming returns and types
}


@pytest.mark.parametrize("name", sorted(set(public_objects())))
def test_docstrings(name):
    ignored = IGNORED | ({"PR01"} if name.endswith("BatchLoader") else set())  # they are torch's
    errors = [e for e in validate(name)["errors"] if e[0] not in ignored]
    assert not errors


@pytest.mark.parametrize("name", sorted(set(public_objects())))
def test_what_came_after_the_first_version_says_since_when(name):
    if name not in (TESTS / "names_of_0_1.txt").read_text().split():
        module, _, attribute = name.rpartition(".")
        assert ".. versionadded::" in inspect.getdoc(getattr(importlib.import_module(module), attribute))


FIRST = [f"skqfair.{name}" for name in skqfair.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", [*FIRST, "skqfair.quantization.quantize"])
def test_the_first_names_have_examples(name):
    module, _, attribute = name.rpartition(".")
    assert ">>>" in inspect.getdoc(getattr(importlib.import_module(module), attribute))


@pytest.mark.parametrize("name", FIRST)
def test_their_examples_run(name):
    """By name: pytest looks for them where the file is, not where their public name is."""
    obj = getattr(skqfair, name.rpartition(".")[2])
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    runner = doctest.DocTestRunner(optionflags=flags)
    examples = doctest.DocTestFinder(recurse=False).find(obj, name, globs={})
    assert sum(runner.run(example).attempted for example in examples) > 0
    assert runner.summarize(verbose=False).failed == 0


def test_public_names_are_sorted_and_there():
    for module in PUBLIC:
        names = importlib.import_module(module).__all__
        assert all(hasattr(importlib.import_module(module), name) for name in names)


LIGHT = ["", ".audit", ".metrics", ".displays", ".datasets", ".exceptions"]


def test_no_torch_is_loaded_by_what_needs_none():
    """Who reads a table of predictions does not wait for torch; skqfair alone loads nothing at all."""
    code = f"""
import os, sys
heavy = {{"torch", "skorch", "matplotlib"}}
import skqfair
print("skqfair", *(heavy | {{"numpy", "pandas", "sklearn"}}) & sys.modules.keys(), flush=True)
import pandas, sklearn.base  # once for all that follow, each of which is imported alone
for name in {LIGHT[1:]}:
    if not os.fork():
        __import__("skqfair" + name)
        print("skqfair" + name, *heavy & sys.modules.keys(), flush=True)
        os._exit(0)
    os.wait()
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == [f"skqfair{name}" for name in LIGHT], run.stderr


def test_names_and_submodules_are_loaded_when_used():
    """Each in a fresh interpreter: as an attribute, from an import, and in the list of names."""
    checks = """
import skqfair
assert {*skqfair.__all__, *skqfair._SUBMODULES} <= {*dir(skqfair)}
skqfair.metrics.group_report
from skqfair import QuantizedClassifier, displays
assert QuantizedClassifier is skqfair.classifiers.QuantizedClassifier
assert not hasattr(skqfair, "nothing")
"""
    subprocess.run([sys.executable, "-W", "error", "-c", checks], check=True)
    assert {f"skqfair.{name}" for name in skqfair._SUBMODULES} - {"skqfair.exceptions"} == {*PUBLIC[1:]}


@pytest.mark.parametrize(
    ("file", "homes"),
    [
        ("__init__.py", skqfair._HOME),
        ("metrics/__init__.py", skqfair.metrics._LATER),
        ("exceptions.py", dict.fromkeys(skqfair.exceptions._OF_SKLEARN, "skqfair._sklearn_exceptions")),
    ],
)
def test_editors_read_the_names_that_are_loaded_when_used(file, homes):
    """What stands under TYPE_CHECKING says the same as the table of homes."""
    block = next(node for node in ast.parse((ROOT / file).read_text()).body if isinstance(node, ast.If))
    assert homes == {alias.name: node.module for node in block.body for alias in node.names}
    if file == "__init__.py":
        assert {*skqfair.__all__} == {*homes, "__version__"}


def test_unknown_names_are_refused():
    for module in (skqfair, skqfair.metrics, skqfair.exceptions):
        with pytest.raises(AttributeError, match=f"'{module.__name__}' has no attribute 'nothing'"):
            _ = module.nothing


def test_the_oldest_versions_are_those_of_pyproject():
    """What make test-oldest installs is what is promised: no bound is untested, and none is stricter."""
    project = tomllib.loads((ROOT.parent / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    peers = [
        bound
        for bound in extras["test"]
        if bound.startswith(("cooper", "distributed", "polars", "pyarrow"))
    ]
    promised = [*project["dependencies"], *extras["plot"], *extras["images"], *extras["save"], *peers]
    for file, bounds in (("oldest.txt", promised), ("oldest-onnx.txt", extras["onnx"])):
        lines = [line for line in (TESTS / file).read_text().splitlines() if not line.startswith("#")]
        pinned = dict(line.split("==") for line in lines)
        lowest = dict(bound.split(">=") for bound in bounds)
        assert pinned.keys() == lowest.keys()
        for name, version in lowest.items():
            assert pinned[name] in (version, f"{version}.0", f"{version}.0.0")


ANNOTATED = ["datasets", "mitigation", "quantization"]  # rooms are added, never removed


def annotated_functions():
    """Yield the public functions, and the public methods and properties of the public classes."""
    for room in ANNOTATED:
        module = importlib.import_module(f"skqfair.{room}")
        for name in module.__all__:
            obj = getattr(module, name)
            if not inspect.isclass(obj):
                found = {name: obj}
            else:
                found = {f"{name}.{key}": value for key, value in vars(obj).items() if key[0] != "_"}
                found[f"{name}.__init__"] = obj.__init__
            for key, value in found.items():
                function = getattr(value, "fget", None) or getattr(value, "__func__", value)
                if inspect.isfunction(function) and function.__module__.startswith("skqfair"):
                    yield pytest.param(function, id=f"{room}.{key}")


@pytest.mark.parametrize("function", [*annotated_functions()])
def test_public_functions_are_annotated(function):
    signature = inspect.signature(function)
    missing = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.annotation is parameter.empty and name not in ("self", "cls")
    ]
    assert not missing
    assert function.__name__ == "__init__" or signature.return_annotation is not signature.empty


def plain(signature):
    """Return a signature without its annotations."""
    bare = [p.replace(annotation=p.empty) for p in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=signature.empty)


def test_contract():
    """Names, order and defaults that users rely on."""
    signature = str(inspect.signature(skqfair.QuantizedClassifier))
    assert signature == (
        "(estimator=None, *, weight_bits=8, activation_bits=None, layer_bits=None, bit_budget=None, "
        "granularity='per_channel', calibration='mse', calibration_size=1024, "
        "calibration_groups='balanced', rounding='nearest', rounding_inputs='quantized', "
        "bias_correction=False, "
        "activation_scheme='symmetric', activation_calibration=None, "
        "quantize_parameters=None, recalibrate_batchnorm=False, memory=None, random_state=None, "
        "verbose=0)"
    )
    signature = str(inspect.signature(skqfair.FairQATClassifier))
    assert signature == (
        "(estimator=None, *, weight_bits=4, activation_bits=None, layer_bits=None, bit_budget=None, "
        "granularity='per_channel', calibration_size=1024, calibration='mse', finetune_epochs=5, "
        "finetune_lr=None, sampling=None, mitigation_weight=0.0, balance='group', gap_penalty=0.0, "
        "accuracy_bound=None, distillation=0.0, temperature=2.0, teacher=None, "
        "validation_fraction=None, rounding='nearest', activation_scheme='symmetric', "
        "activation_calibration=None, quantize_parameters=None, memory=None, "
        "random_state=None, verbose=0)"
    )
    signature = str(plain(inspect.signature(skqfair.quantization.allocate_bits)))
    assert signature.startswith("(sensitivity, n_weights, *, budget, choices=(2, 3, 4, 6, 8)")
    signature = str(inspect.signature(skqfair.make_fairness_scorer))
    assert (
        "*, sensitive_features=None, greater_is_better=False, response_method='predict', " in signature
    )


@pytest.mark.filterwarnings("ignore::skqfair.exceptions.NoModelWithinLimitsWarning")
def test_the_readme_runs(tmp_path, monkeypatch, capsys):
    """Its ten lines, on fewer people."""
    import pandas as pd

    import skqfair.datasets

    readme = (ROOT.parent / "README.md").read_text()
    code = readme.split("```python\n")[1].split("```")[0]
    adult = skqfair.datasets.load_adult()
    for name in ("data", "target", "sensitive_features"):
        assert isinstance(adult[name], pd.DataFrame | pd.Series)
        adult[name] = adult[name].iloc[:600]
    monkeypatch.setattr(skqfair.datasets, "load_adult", lambda: adult)
    monkeypatch.chdir(tmp_path)
    with pytest.warns(skqfair.exceptions.NoModelWithinLimitsWarning):
        exec(code, {"__name__": "readme"})
    assert "fvo_high" in capsys.readouterr().out


def test_the_citation_and_the_changelog_name_this_version():
    version = skqfair.__version__
    assert f"\nversion: {version}\n" in (ROOT.parent / "CITATION.cff").read_text()
    assert f"\n## {version}" in (ROOT.parent / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "page", sorted((ROOT.parent / "docs" / "user_guide").glob("*.md")), ids=lambda p: p.stem
)
def test_the_guide_reads_as_plain_markdown(page):
    """No roles of Sphinx: names are linked by docs/literal_links.py."""
    assert not re.findall(r"\{[a-z:]+\}`", page.read_text())


def test_the_benchmark_page_is_there():
    """Written by make bench, not by hand."""
    assert "Written by `make bench`" in (ROOT.parent / "docs" / "benchmarks.md").read_text()
