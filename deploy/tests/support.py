"""What the tests of this folder share: paths, tools, and rendered charts."""

import atexit
import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
CHART = ROOT / "helm" / "carillon"
FAST = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
PROFILES = sorted(path.stem for path in (ROOT / "deploy" / "profiles").glob("*.toml"))


def text(*parts):
    return ROOT.joinpath(*parts).read_text(encoding="utf-8")


def tool(name):
    """The path of a tool; a test that misses it is counted as not run."""
    own = TOOLS / name
    path = str(own) if own.exists() else shutil.which(name)
    if not path:
        raise unittest.SkipTest(f"{name} is not installed")
    return path


def carillon():
    """The binary that the Rust tests have built."""
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    binary = target / "debug" / "carillon"
    if not binary.exists():
        raise unittest.SkipTest("carillon is not built: cargo build -p carillon")
    return str(binary)


def run(*command, **options):
    """Runs a command; its output is the message of a failure."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=options.pop("timeout", 120), **options)
    output = done.stdout + done.stderr
    assert done.returncode == 0, f"{command[0]} failed:\n{output}"
    return output


def values_files():
    return ["values.yaml"] + sorted(path.name for path in CHART.glob("values-*.yaml"))


def values(name):
    """The values beyond the defaults."""
    return {} if name == "values.yaml" else yaml.safe_load(text("helm", "carillon", name))


def merged(base, extra):
    result = dict(base)
    for key, value in extra.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


@functools.cache
def chart_alone():
    """A copy of the chart without the dependency that `helm dependency update` may have put into it."""
    folder = tempfile.TemporaryDirectory(prefix="carillon-chart-")
    atexit.register(folder.cleanup)
    return shutil.copytree(CHART, pathlib.Path(folder.name, CHART.name), ignore=shutil.ignore_patterns("charts", "Chart.lock"))


@functools.cache
def chart():
    try:
        from helm_python import Chart
    except ImportError as missing:
        raise unittest.SkipTest("helm-python-sdk is not installed") from missing
    return Chart.load(chart_alone())


def render(overrides=None, name="rel"):
    """Returns all objects that the chart makes, to be looked at and not changed."""
    return rendered(json.dumps(overrides or {}), name)


@functools.cache
def rendered(overrides, name):
    manifests = chart().render(json.loads(overrides), name=name, namespace="prod")
    documents = []
    for path, manifest in sorted(manifests.items()):
        if path.endswith((".yaml", ".yml")):
            documents += [document for document in yaml.load_all(manifest, FAST) if document]
    return Objects(documents)


class Objects(list):
    """Rendered objects, found by kind and component."""

    def of(self, kind, component=None):
        found = [item for item in self if item["kind"] == kind]
        if component:
            found = [item for item in found if item["metadata"]["name"].endswith("-" + component)]
        return found

    def one(self, kind, component=None):
        found = self.of(kind, component)
        assert len(found) == 1, f"{len(found)} objects {kind} {component}"
        return found[0]
