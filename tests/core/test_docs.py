"""README and docs: Python blocks run, commands are accepted, links lead somewhere."""

import doctest
import importlib
import itertools
import json
import re
import runpy
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from portfolio_env.simulation.dynamics import LEDGER

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
TEXTS = [*PAGES, ROOT / "CONTRIBUTING.md"]
NOTEBOOKS = sorted((DOCS / "tutorials").glob("*.ipynb"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INDENTED = re.compile(r". +(?=\S)")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
SHORTER = {
    ".learn(200_000)": ".learn(512)",
    ".learn(20_000)": ".learn(64)",
    "num_envs=256": "num_envs=4",
    "    env,\n    policy_kwargs": "    env,\n    n_steps=64,\n    policy_kwargs",
}
"""What the blocks do at length, and the tests in short."""
LARGEST_NOTEBOOK = 200_000  # bytes
# Words of an earlier version of these pages that the field does not use.
OWN_WORDS = re.compile(
    r"\b(mend(s|ed|ing)?|twins?|contest(s|ants)?|hand(s|ed)? on|is told|are told|stretch(es)?)\b"
)


def blocks(page: Path, kind: str) -> list[tuple[int, str]]:
    """The line and the text of every block of a kind, but for sessions (``>>>``)."""
    text = page.read_text()
    found = [m for m in BLOCK.finditer(text) if m[1] == kind and not m[2].startswith(">>>")]
    return [(text.count("\n", 0, m.start()) + 1, m[2]) for m in found]


def name(path: Path) -> str:
    return path.stem


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of."""
    monkeypatch.chdir(tmp_path)
    days = pd.date_range("2021-01-01", "2024-01-15", freq="D")
    draw = np.random.default_rng(0)
    close = 100 * np.exp(np.cumsum(draw.normal(0, 0.02, (len(days), 3)), axis=0))
    parts = []
    for i, symbol in enumerate(("AAA", "BBB", "CCC")):
        spread = close[:, i] * draw.uniform(0.001, 0.02, len(days))
        bar = {"open": close[:, i], "high": close[:, i] + spread, "low": close[:, i] - spread}
        volume = draw.integers(100, 1000, len(days))
        parts.append(
            pd.DataFrame({"date": days, "symbol": symbol, **bar, "close": close[:, i]}).assign(
                volume=volume
            )
        )
    bars = pd.concat(parts)
    bars.to_csv("prices.csv", index=False)
    folder = tmp_path / "data" / "binance" / "1d"
    folder.mkdir(parents=True)
    for symbol, own in bars.groupby("symbol"):
        own.drop(columns="symbol").to_parquet(folder / f"{symbol}.parquet", index=False)
    known = {"date": days[::30], "symbol": "*", "name": "sentiment", "value": 0.5}
    pd.DataFrame({**known, "known_at": days[::30]}).to_csv("sentiment.csv", index=False)
    labels = {"symbol": ["AAA", "BBB", "CCC"], "sector": ["energy", "tech", "tech"]}
    pd.DataFrame(labels).to_csv("assets.csv", index=False)
    return tmp_path


def train_first_run() -> None:
    """The run that the page on evaluation opens."""
    from agents.training.config import TrainConfig
    from agents.training.train import train

    market = "synthetic?bars=600&assets=3"
    train(TrainConfig(market=market, timesteps=256, num_envs=4, out="runs/first"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",  # the blocks of extending.md are modules, see test_extending.py
    [p for p in PAGES if blocks(p, "python") and p.stem != "extending"],
    ids=name,
)
def test_every_python_block_runs(page, workplace):
    found = blocks(page, "python")
    if any("runs/first" in text for _, text in found):
        train_first_run()
    here: dict[str, object] = {}
    for line, text in found:
        for long, short in SHORTER.items():
            text = text.replace(long, short)
        exec(compile("\n" * line + text, str(page), "exec"), here)


def test_what_is_shortened_stands_on_a_page():
    text = "".join(page.read_text() for page in PAGES)
    assert all(long in text for long in SHORTER)


@pytest.mark.parametrize("page", [p for p in PAGES if ">>> " in p.read_text()], ids=name)
def test_examples_run(page):
    found = doctest.testfile(str(page), module_relative=False)
    assert found.attempted > 0 and found.failed == 0


def commands() -> list[tuple[str, str]]:
    """Every command of a shell block, with the page it stands on."""
    found = []
    for page in TEXTS:
        for _, text in blocks(page, "sh"):
            lines = text.replace("\\\n", " ").splitlines()
            split = (shlex.split(line, comments=True) for line in lines)
            found += [(page.name, shlex.join(words)) for words in split if words]
    return found


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_every_command_is_accepted(page, command):
    """Read, not run: a flag or verb that does not exist is an error."""
    words = [word for word in shlex.split(command) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if words[0] == "make":
        verbs = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert words[1] in verbs
    elif words[0] == "python":
        accept(words[1:])
    else:
        assert words[0] in ("tensorboard", "source", "pip")


def accept(words: list[str]) -> None:
    from agents.store.cli import Command as StoreCommand
    from agents.supervised.__main__ import Command as SupervisedCommand
    from agents.trading.commands import COMMANDS
    from benchmarks.tables.__main__ import parser
    from evaluate import EvaluateConfig
    from portfolio_env.command_line import read_arguments
    from portfolio_env.data.cli import Command as DataCommand
    from sweep import Command as SweepCommand
    from trade import TradeConfig
    from train import Command

    match words:
        case ["train.py", *given]:
            read_arguments(Command, args=given)
        case ["evaluate.py", *given]:
            read_arguments(EvaluateConfig, args=given)
        case ["sweep.py", *given]:
            read_arguments(SweepCommand, args=given)
        case ["trade.py", command, *given] if command in COMMANDS:
            read_arguments(COMMANDS[command], args=given)
        case ["trade.py", *given]:
            read_arguments(TradeConfig, args=given)
        case ["-m", "agents.supervised", *given]:
            read_arguments(SupervisedCommand, args=given)
        case ["-m", "agents.store", *given]:
            read_arguments(StoreCommand, args=given)
        case ["-m", "portfolio_env.data", *given]:
            read_arguments(DataCommand, args=given)
        case ["-m", "benchmarks.tables", *given]:
            parser().parse_args(given)
        case ["-m", module, *_]:
            assert module == "pytest"
        case [script, *_]:
            assert (ROOT / script).is_file()


HELP = ["train", "evaluate", "trade", "sweep"] + [
    f"{module} {verb}".strip()
    for module, verbs in (
        ("trade", "replay,paper,status,verify,export,halt,resume,reconcile,flatten,resolve"),
        ("portfolio_env.data", ",fetch,update,list,report,convert"),
        ("agents.supervised", ""),
        ("sweep", "run,work,status,retry,search"),
        ("agents.store", ",list,show,card,export,import,delete,convert"),
    )
    for verb in verbs.split(",")
]


@pytest.mark.skipif(version("tyro").startswith("0."), reason="tyro before 1 lays it out otherwise")
@pytest.mark.parametrize("command", HELP)
def test_help_is_running_text_of_80_columns(command, monkeypatch, capsys):
    """A line ends where the next word does not fit, or where its text ends."""
    module, *verb = command.split()
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    script = importlib.import_module(f"{module}.__main__" if "." in module else module)
    monkeypatch.setattr(sys, "argv", ["it", *verb, "--help"])
    with pytest.raises(SystemExit) as found:
        script.main()
    assert found.value.code == 0
    _, _, told = capsys.readouterr().out.partition("\n\n")  # the usage line is for the terminal
    lines = told.splitlines()
    assert max(map(len, lines)) <= 80 and "``" not in told and "{None}" not in told
    for line, after in itertools.pairwise(lines):
        place, text, words = INDENTED.match(line), line[1:-1].rstrip(), after[1:-1].split()
        if place and words and INDENTED.match(after) and len(place[0]) > 5:
            same = place[0] == INDENTED.match(after)[0] and not text.endswith((".", ")"))
            assert not same or len(text) + len(words[0]) >= 76, (line, after)


@pytest.mark.parametrize("script", ["train.py", "sweep.py", "evaluate.py", "trade.py"])
def test_a_command_without_its_libraries_names_the_extra(script, monkeypatch):
    monkeypatch.setitem(sys.modules, "tyro", None)
    with pytest.raises(SystemExit, match=r"needs the extra rl; pip install -e '\.\[rl\]'"):
        runpy.run_path(str(ROOT / script), run_name="__main__")


def test_training_starts_without_the_compiler_of_torch():
    """It takes seconds to import, before a mistyped option is told."""
    code = "import sys, train; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.parametrize("page", TEXTS, ids=name)
def test_every_link_leads_somewhere(page):
    for target in LINK.findall(page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.parent == DOCS / "api":
            continue  # written when the site is built
        assert file.exists(), target
        if anchor and file.suffix == ".md":
            assert anchor in anchors(file), target


def anchors(page: Path) -> set[str]:
    """The anchors that a code host and the site give to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", [p for p in PAGES if p.parent == DOCS], ids=name)
def test_pages_use_the_words_of_the_field(page):
    assert not OWN_WORDS.search(page.read_text())


def test_the_sizes_of_presets_are_those_of_the_page():
    from portfolio_env.features import PRESETS, table

    rows = re.findall(r"^\| `(\w+)`[^|]*\| (\d+) \|", (DOCS / "features.md").read_text(), re.M)
    assert {preset: int(size) for preset, size in rows} == {p: len(table(p)) for p in PRESETS}


def test_the_table_of_info_names_the_entries_of_the_ledger():
    section = (DOCS / "environment.md").read_text().partition("## What info holds")[2]
    table = section.partition("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == LEDGER


def test_every_public_package_has_a_page():
    frozen = json.loads((ROOT / "tests" / "core" / "public_names.json").read_text())
    source = (DOCS / "site_pages.py").read_text()
    listed = re.search(r"ROOMS = \((.*?)\)", source, re.DOTALL)
    assert listed is not None
    assert set(re.findall(r'"([\w.]+)"', listed[1])) == set(frozen)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_are_small_and_without_errors(path):
    assert path.stat().st_size < LARGEST_NOTEBOOK
    cells = json.loads(path.read_text())["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", ())]
    assert outputs, "execute it: make tutorials"
    assert all(output["output_type"] != "error" for output in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=name)
def test_notebooks_run(path, workplace):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(workplace)}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
