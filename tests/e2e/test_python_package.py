"""clients/python as a package: what pip makes of it, its types, and that it knows all of the schema."""

import dataclasses
import os
import pathlib
import re
import shutil
import site
import subprocess
import sys

import bantam
import pytest
from bantam import answers, codec
from conftest import CALL_LIMIT_S, ROOT, SANITIZED

pytestmark = pytest.mark.skipif(SANITIZED, reason="of the package and not of the program: the release build's run has it")
PACKAGE = ROOT / "clients/python"
FLATC = ["flatc", "--python", "--gen-object-api", "--gen-onefile", "-o"]


def run(*command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=CALL_LIMIT_S, check=False, **options)
    return done.returncode, done.stdout + done.stderr


def test_the_generated_module_is_what_flatc_makes(tmp_path):
    status, output = run(*FLATC, tmp_path, ROOT / "proto/bantam.fbs")
    assert status == 0, output
    made = (tmp_path / "bantam_generated.py").read_text()
    kept = (PACKAGE / "bantam/bantam_generated.py").read_text()
    assert made == kept, f"the schema has changed: cd clients/python/bantam && {' '.join(FLATC)} . ../../../proto/bantam.fbs"


def fields_of(table):
    """Names of a table's fields, as the schema has them."""
    return {re.sub("([A-Z])", lambda letter: "_" + letter.group(1).lower(), name) for name in vars(getattr(codec.wire, table + "T")())}


def test_every_field_of_the_schema_can_be_set():
    sampling, request = fields_of("SamplingParams"), fields_of("GenerateRequest") - {"sampling_params", "text"}
    assert set(bantam.SamplingParams.__annotations__) == sampling
    assert set(bantam.GenerateParams.__annotations__) == sampling | request | {"session", "tenant", "timeout", "metadata"}


@pytest.mark.parametrize("table,kind", [("ModelInfoResponse", answers.ModelInfo), ("ServerInfoResponse", answers.ServerInfo),
                                        ("LoadsResponse", answers.Loads), ("Timings", answers.Timings),
                                        ("KvBlock", bantam.KvBlock), ("KvEventBatch", bantam.KvEventBatch),
                                        ("KvSnapshotChunk", bantam.KvSnapshotChunk)])
def test_every_field_of_the_schema_is_read(table, kind):
    assert {field.name for field in dataclasses.fields(kind)} == fields_of(table)


def test_every_field_of_an_output_is_read():
    ours = {field.name for field in dataclasses.fields(answers.Completion)}
    assert ours == fields_of("GenerateComplete") - {"output_ids"} | {"token_ids", "request_id"}
    assert ours >= fields_of("GenerateStreamChunk")


def test_version_is_the_projects():
    assert f"project(bantam VERSION {bantam.__version__} " in (ROOT / "CMakeLists.txt").read_text()


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The python of a fresh environment in which pip has installed the package, as from a clone without a network. What it
    depends on comes from the tests' own environment."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(PACKAGE, source, ignore=shutil.ignore_patterns("__pycache__", "build", "*.egg-info"))
    python = folder / "venv/bin/python"
    assert run(sys.executable, "-m", "venv", "--without-pip", folder / "venv") == (0, "")
    [packages] = (folder / "venv/lib").glob("python3*/site-packages")
    (packages / "tests_environment.pth").write_text("\n".join(site.getsitepackages()))
    status, output = run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--no-build-isolation",
                         "--disable-pip-version-check", source)
    assert status == 0, output
    return python


def test_pip_installs_it(installed):
    status, output = run(installed, "-c", "import bantam, importlib.metadata as m, pathlib as p; print(bantam.__file__); print(m.version("
                         "'bantam-client'), p.Path(bantam.__file__).with_name('py.typed').exists())", cwd="/")
    assert status == 0, output
    path, rest = output.splitlines()
    assert pathlib.Path(path).is_relative_to(installed.parents[1]) and rest == f"{bantam.__version__} True"


def test_example_runs(installed, demo):
    status, output = run(installed, PACKAGE / "example.py", demo.target, cwd="/")
    assert status == 0, output
    for line in ("SERVING", "first words:", "perplexity", "refused: temperature", "'Once upon a time' ->", "KV blocks in use"):
        assert line in output
    status, output = run(installed, PACKAGE / "example.py", "127.0.0.1:1", cwd="/")
    assert status == 1 and output.startswith("127.0.0.1:1: UNAVAILABLE"), output


MISUSE = '''
import bantam

def ask(client: bantam.Client, other: bantam.AsyncClient) -> None:
    client.generate("x", temperatur=1.0)                            # no such parameter
    client.generate("x", max_tokens="5")                            # not a number
    client.generate_whole("x")[0].text.decode()                     # a string
    next(client.generate("x")).cached_tokens                        # of a Completion alone
    other.generate_whole("x").text                                  # not awaited
    client.loads(session="x")                                       # of generate alone
    reveal_type(client.generate_whole("x", max_tokens=5)[0].finish_reason)
'''


def test_types(tmp_path):
    """mypy --strict has nothing to say of the package and its example, and finds what a user does wrong."""
    (tmp_path / "misuse.py").write_text(MISUSE)
    status, output = run(sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", tmp_path / "cache", "-p", "bantam",
                         "-m", "example", "-m", "misuse", cwd=PACKAGE, env={**os.environ, "MYPYPATH": str(tmp_path)})
    assert status == 1
    wrong = {f"misuse.py:{number}" for number, line in enumerate(MISUSE.splitlines(), 1) if "  # " in line}
    assert set(re.findall(r"(\S+:\d+): error", output.replace(f"{tmp_path}/", ""))) == wrong, output
    assert "Literal['stop'] | Literal['length'] | Literal['abort']" in output
