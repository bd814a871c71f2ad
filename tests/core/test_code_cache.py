"""Machine code kept between processes: never stale, never of another function, never needed."""

import os
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import portfolio_env

PACKAGE = Path(portfolio_env.__file__).parent
# Root writes everywhere, unless it gives this up.
LIMITED = ["setpriv", "--bounding-set", "-dac_override", "--inh-caps", "-dac_override"]
INNER = "from portfolio_env.compiled import inlined\n@inlined\ndef inner(x):\n    return x + {}\n"
OUTER = """
from portfolio_env.compiled import kernel
from portfolio_env.inner import inner
@kernel
def outer(x):
    return inner(x) * 10
"""
RUN = """
import logging, sys
logging.basicConfig(level=logging.INFO)
from portfolio_env.outer import outer
outer(1), outer(1.0)
stats = outer.stats
print(outer(1), outer(1.0), sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
"""

STEP = """
import gymnasium
env = gymnasium.make("portfolio_env:Portfolio-v0", market="synthetic?bars=50&assets=3", window=2)
observation, info = env.reset(seed=0)
shape = observation["market"].shape
print(shape[0] * shape[1], float(env.step(env.action_space.sample())[1] != 0))
"""


@pytest.fixture
def copy(tmp_path):
    """A package of two kernels, one calling the other, with this one's ways of compiling."""
    package = tmp_path / "portfolio_env"
    package.mkdir()
    for name in ("compiled", "code_cache", "errors", "checks", "names"):
        shutil.copy(PACKAGE / f"{name}.py", package)
    shutil.copytree(PACKAGE / "files", package / "files")
    (package / "__init__.py").touch()
    (package / "outer.py").write_text(OUTER)
    (package / "inner.py").write_text(INNER.format(1))
    return tmp_path


def environment(root, **settings):
    """Of a process that imports the package of a folder, without bytecode of Python's own."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith(("NUMBA", "XDG", "PYTHON"))}
    home = {"HOME": str(root / "home"), "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    return kept | home | settings


def start(root, code=RUN, before=(), **settings):
    """Begin a process, by another command where one comes before."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", code],
        cwd=root,
        env=environment(root, **settings),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def result(process):
    """The numbers it printed, and what it logged."""
    out, log = process.communicate(timeout=600)
    assert process.returncode == 0, log
    return [float(number) for number in out.split()], log


def run(root, **settings):
    return result(start(root, **settings))[0]


def files(*roots):
    return sorted(path for root in roots for path in root.rglob("*.nb*"))


@pytest.fixture
def read_only(copy):
    """Makes the package read-only, and runs code in it, without a home."""
    before = []
    if os.name != "posix":
        pytest.skip("needs the permissions of POSIX")
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root writes everywhere, and there is no setpriv to limit it")
        before = LIMITED

    def prepared(code=RUN):
        for path in (copy, *copy.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        probe = "open('portfolio_env/there', 'w')"
        process = start(copy, probe, before)
        process.communicate(timeout=60)
        if process.returncode == 0:
            pytest.skip("a folder without the right to write is written to all the same")
        return result(start(copy, code, before, HOME="/dev/null"))

    yield prepared
    for path in (copy, *copy.rglob("*")):
        path.chmod(0o755)


@pytest.mark.slow
@pytest.mark.parametrize("place", ["cache_dir", "beside", "home"])
def test_an_edited_source_takes_effect_at_once_wherever_code_is_kept(copy, place):
    settings = {"NUMBA_CACHE_DIR": str(copy / "kept")} if place == "cache_dir" else {}
    if place == "home":  # nothing can be kept beside the sources
        (copy / "portfolio_env" / "__pycache__").touch()
    folder = copy / {"cache_dir": "kept", "beside": "portfolio_env", "home": "home"}[place]
    inner = copy / "portfolio_env" / "inner.py"
    before = inner.stat()
    assert run(copy, **settings) == [20, 20, 0, 2]
    kept = files(copy)
    assert kept == files(folder)
    assert run(copy, **settings) == [20, 20, 2, 0]
    inner.write_text(INNER.format(2))  # of the same size, and no newer
    os.utime(inner, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(copy, **settings) == [30, 30, 0, 2]
    assert run(copy, **settings) == [30, 30, 2, 0]
    assert len(files(folder)) == len(kept)  # what was of no use any more is gone


@pytest.mark.slow
def test_an_installation_that_can_write_nowhere_compiles_for_itself(read_only):
    numbers, log = read_only()
    assert numbers == [20, 20, 0, 2]
    assert log.count("set NUMBA_CACHE_DIR") == 1


@pytest.mark.slow
def test_code_that_came_with_an_installation_that_cannot_be_written_is_used(copy, read_only):
    assert run(copy) == [20, 20, 0, 2]
    assert read_only()[0] == [20, 20, 2, 0]


@pytest.mark.slow
def test_the_environment_steps_where_nothing_can_be_written(copy, read_only):
    shutil.rmtree(copy / "portfolio_env")
    shutil.copytree(PACKAGE, copy / "portfolio_env", ignore=shutil.ignore_patterns("__pycache__"))
    numbers, _ = read_only(STEP)
    assert numbers == [6, 1]


@pytest.mark.slow
def test_four_processes_at_once_and_the_next_finds_what_they_made(copy):
    single = RUN.replace("outer(1), outer(1.0)", "{}", 1)
    codes = [single.format(call) for call in ("outer(1)", "outer(1.0)", "outer(1j)", "outer(1.0)")]
    for process in [start(copy, code) for code in codes]:
        assert result(process)[0][:2] == [20, 20]
    assert run(copy) == [20, 20, 2, 0]
    assert len(files(copy)) == len({path.name for path in files(copy)}) == 3


@pytest.mark.slow
def test_another_processor_has_code_of_its_own(copy):
    assert run(copy) == [20, 20, 0, 2]
    assert run(copy, NUMBA_CPU_NAME="generic") == [20, 20, 0, 2]
    for settings in ({}, {"NUMBA_CPU_NAME": "generic"}):
        assert run(copy, **settings) == [20, 20, 2, 0]
    assert run(copy, NUMBA_BOUNDSCHECK="1") == [20, 20, 0, 2]


@pytest.mark.slow
def test_damaged_code_is_compiled_again(copy):
    run(copy)
    first, second = files(copy)
    content = first.read_bytes()
    for damaged in (b"", content[:20], content[:-1], content[:500] + b"\x00" + content[501:]):
        first.write_bytes(damaged)
        assert run(copy) == [20, 20, 1, 1]
    assert first.read_bytes()[:32] != second.read_bytes()[:32]


@pytest.mark.slow
def test_importing_deletes_nothing(copy):
    run(copy)
    folder = copy / "portfolio_env" / "__pycache__"
    for name in ("outer.outer-5.py311.nbi", "outer.outer-5.py311.1.nbc", "outer.outer-0-0.nbc"):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))  # older than any source
    (copy / "portfolio_env" / "inner.py").write_text(INNER.format(3))
    before = files(copy)
    result(start(copy, "import portfolio_env.outer"))
    assert files(copy) == before


def test_every_kernel_calls_only_kernels_whose_sources_its_stamp_covers():
    from numba.core.dispatcher import Dispatcher

    names = ("baselines.online.reversion", "portfolio_env.data.generators.log_optimal")
    modules = [import_module(name) for name in (*names, "portfolio_env.features.windows")]
    modules += [m for name, m in sys.modules.items() if name.startswith("portfolio_env.")]
    kernels = {v for m in modules for v in vars(m).values() if isinstance(v, Dispatcher)}
    assert len(kernels) > 20
    folders = (PACKAGE, PACKAGE / "simulation", PACKAGE / "features")
    for kernel in kernels:
        own = Path(kernel.py_func.__code__.co_filename)
        for name in kernel.py_func.__code__.co_names:
            called = kernel.py_func.__globals__.get(name)
            if isinstance(called, Dispatcher):
                source = Path(called.py_func.__code__.co_filename)
                assert source == own or source.parent in folders, (kernel, name)
