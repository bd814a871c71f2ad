"""Searches: the same again after a stop, with any workers, and blind to the test range."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.search import search as module
from agents.search.commands import told
from agents.search.options import SearchOptions
from agents.search.page import write_search_page
from agents.search.scores import Account, inner_market
from agents.search.search import CHOSEN, FILE, changed, read_search, search
from agents.search.space import Space
from agents.search.space_files import make_space
from agents.settings.files import read_settings, settings_of
from agents.sweep.plan import Cell, cells
from agents.sweep.workers import Counts
from agents.training.config import TrainConfig
from portfolio_env.data.bars import frame_of_panel
from portfolio_env.data.generators.synthetic import synthetic_panel
from portfolio_env.errors import ArgumentError, DataError, PortfolioError
from portfolio_env.files.atomic import read_json, write_json

SPACE = make_space(
    {
        "encoder": ["per_asset", "mlp"],
        "adjustment": {"low": 0.05, "high": 1.0},
        "encoder_options.architecture": {
            "each": [8, 16],
            "length": [1, 2],
            "when": {"encoder": "mlp"},
        },
    }
)
QUICK = '{"n_steps": 8, "batch_size": 64, "n_epochs": 1}'


def config(out: Path, **changes: Any) -> TrainConfig:
    base = TrainConfig(
        market="synthetic?bars=200&assets=3",
        timesteps=128,
        num_envs=16,
        algo_options=QUICK,
        episode_length=20,
        validation_every=10**6,
        checkpoint_every=10**6,
        device="cpu",
        out=str(out),
    )
    return replace(base, **changes)


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Nothing is trained; accounts depend on the settings alone. The n-th call can be a stop."""
    calls = {"left": -1}

    def account(folder: Path, model: str, kept: Path) -> Account:
        calls["left"] -= 1
        if calls["left"] == 0:
            raise KeyboardInterrupt
        plan = read_json(folder.parents[1] / "walk_forward.json")["config"]
        text = json.dumps([plan["adjustment"], plan["encoder_options"], folder.name])
        seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
        noise = np.random.default_rng(seed).normal(0, 0.002, 60)
        edge = -abs(plan["adjustment"] - 0.3) / 60
        equal = np.full(60, 0.001)
        return Account(equal + noise + edge, equal, 1.0)

    def run_cells(root: Path, *_: Any, **__: Any) -> Counts:
        return Counts(0, 0, 0)

    monkeypatch.setattr(module, "account", account)
    monkeypatch.setattr(module, "run_cells", run_cells)
    monkeypatch.setattr(module, "compute_accounts", lambda *_: None)
    monkeypatch.setattr(Space, "check", lambda *_: None)

    def stop_after(accounts: int) -> None:
        calls["left"] = accounts

    return stop_after


@pytest.mark.parametrize("method", ["tpe", "halving"])
def test_a_search_goes_on_as_if_it_had_not_been_stopped(
    tmp_path: Path, untrained: Callable[[int], None], method: Any
) -> None:
    pytest.importorskip("optuna")
    options = SearchOptions(method=method, trials=6, folds=2)
    whole = search(SPACE, config(tmp_path / "whole"), options, seeds=(0, 1))
    for stop in (7, 16):
        untrained(stop)
        with pytest.raises(KeyboardInterrupt):
            search(SPACE, config(tmp_path / "cut"), options, seeds=(0, 1))
        assert read_search(tmp_path / "cut")["choice"] is None
        with pytest.raises(DataError, match="not finished"):
            write_search_page(tmp_path / "cut")
    untrained(-1)
    cut = search(SPACE, config(tmp_path / "cut"), options, seeds=(0, 1))
    assert (cut / FILE).read_bytes() == (whole / FILE).read_bytes()
    record = read_search(cut)
    assert [trial["number"] for trial in record["trials"]] == list(range(7))
    states = [trial["state"] for trial in record["trials"]]
    assert states.count("stopped early") == (0 if method == "tpe" else 5)
    wanted = {(cell.setting, cell.fold, cell.seed) for cell in cells(cut / "trials")}
    assert len(wanted) == sum(len(trial["cells"]) for trial in record["trials"])


def test_a_retried_failure_leaves_no_trace(
    tmp_path: Path, untrained: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What TPE asked for without the score is asked for anew with it."""
    pytest.importorskip("optuna")
    options = SearchOptions(trials=9, folds=1, batch=2)
    whole = search(SPACE, config(tmp_path / "whole"), options)
    first = read_search(whole)["trials"][1]["setting"]

    def no_room(root: Path, wanted: list[Cell]) -> dict[Cell, str]:
        return {cell: "no room" for cell in wanted if cell.setting == first}

    with monkeypatch.context() as patched:
        patched.setattr(module, "failures", no_room)
        search(SPACE, config(tmp_path / "cut"), options)
    failed = read_search(tmp_path / "cut")["trials"]
    assert failed[1]["state"] == "failed" and failed[1]["error"].endswith("no room")
    assert failed[-1]["options"] != read_search(whole)["trials"][-1]["options"]
    cut = search(SPACE, config(tmp_path / "cut"), options)
    assert (cut / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_a_setting_that_cannot_be_trained_is_a_failed_trial(
    tmp_path: Path, untrained: Callable[[int], None]
) -> None:
    """The draws that try a space out may miss it."""
    space = make_space({"universe": [1, 2, 9]})
    options = SearchOptions(method="grid", trials=3, folds=1)
    record = read_search(search(space, config(tmp_path / "a"), options))
    assert [each["state"] for each in record["trials"]] == ["complete"] * 3 + ["failed"]
    assert "universe=9" in record["trials"][3]["error"]


def test_another_search_is_not_mixed_into_a_folder(
    tmp_path: Path, untrained: Callable[[int], None]
) -> None:
    options, given = SearchOptions(method="random", trials=2, folds=1), config(tmp_path / "a")
    path = search(SPACE, given, options)
    before = (path / FILE).read_bytes()
    with pytest.raises(ArgumentError, match="another trials_asked"):
        search(SPACE, config(tmp_path / "a"), replace(options, trials=3))
    with pytest.raises(ArgumentError, match=r"another config \(episode_length\)"):
        search(SPACE, config(tmp_path / "a", episode_length=21), options)
    with pytest.raises(ArgumentError, match=r"another space \(adjustment\)"):
        search(make_space({**SPACE.stated, "adjustment": [0.1]}), config(tmp_path / "a"), options)
    assert (path / FILE).read_bytes() == before
    record = read_json(path / FILE)
    for edited in ({"environment": "x"}, {"trials": None}, {"seeds": None}):  # without a checksum
        (path / FILE).write_text(json.dumps(record | edited))
        for command in (told, write_search_page, lambda path: search(SPACE, given, options)):
            with pytest.raises(DataError, match=f"{min(edited)} is missing or of a wrong kind"):
                command(path)


def test_what_cannot_be_searched_is_told_before_there_is_a_folder(tmp_path: Path) -> None:
    options = SearchOptions(method="random", trials=2)
    with pytest.raises(ArgumentError, match="give a longer train"):
        search(SPACE, config(tmp_path / "a", train=0.3, validation=0.4), options)
    with pytest.raises(ArgumentError, match="too few for folds=30"):
        search(SPACE, config(tmp_path / "a"), replace(options, folds=30))
    with pytest.raises(ArgumentError, match="cannot be trained"):
        search(make_space({"encoder": ["mlpp"]}), config(tmp_path / "a"), options)
    rare = {"low": 0.2, "high": 1.0001}  # too high at its end alone
    for stated, reason in (({"universe": [1, 9]}, "universe=9"), ({"adjustment": rare}, "1.0001")):
        with pytest.raises(ArgumentError, match=rf"cannot be trained: .*{reason}"):
            search(make_space(stated), config(tmp_path / "a"), options)
    assert not (tmp_path / "a").exists()


def test_the_inner_walk_forward_ends_where_the_test_begins() -> None:
    base = TrainConfig(market="synthetic?bars=200&assets=3")
    inner = inner_market(base, 2)
    market, ranges = inner.config.load_market()
    assert ranges == {"train": (0, 80), "validation": (80, 120), "test": (120, 160)}
    assert market.n_bars == 160
    assert inner.facts["test_bars_unseen"] == 40
    weekly = replace(
        base, market="synthetic?bars=900&assets=3", data=replace(base.data, timeframe="1w")
    )
    whole = weekly.load_market()[1]
    assert inner_market(weekly, 2).config.load_market()[0].n_bars == whole["test"][0]


def test_changed_settings_are_those_of_the_file(tmp_path: Path) -> None:
    given = config(tmp_path, encoder="mlp", costs=replace(TrainConfig().costs, commission_bps=3.0))
    write_json(tmp_path / CHOSEN, changed(given))
    assert settings_of(TrainConfig, read_settings(tmp_path / CHOSEN), "chosen") == given
    assert changed(given)["costs"] == {"commission_bps": 3.0}


def test_the_page_is_escaped_and_whole(
    tmp_path: Path, untrained: Callable[[int], None], undrawn: None
) -> None:
    path = search(SPACE, config(tmp_path / "a"), SearchOptions(method="random", trials=7, folds=2))
    record = read_json(path / FILE)
    record["trials"][1]["options"]["encoder"] = "<script>alert(1)</script>"
    record["trials"][2] |= {"state": "failed", "error": "<b>no memory</b>", "score": None}
    write_json(path / FILE, record)
    page = write_search_page(path).read_text()
    assert "<script>alert" not in page
    assert "<b>no memory" not in page
    assert "&lt;b&gt;no memory" in page
    for heading in ("History", "Parameters", "Trials", "How to repeat it"):
        assert f">{heading}<" in page
    assert all(trial["setting"] in page for trial in record["trials"])  # its folder
    assert "--walk-forward 1" in told(path)
    del record["market"]
    write_json(path / FILE, record)
    with pytest.raises(DataError, match="market is missing"):
        write_search_page(path)


def test_the_test_range_has_no_influence(tmp_path: Path) -> None:
    """All prices of the test range are rewritten; not a byte of search.json changes."""
    frame = frame_of_panel(synthetic_panel(seed=1, bars=200, assets=3))
    file = tmp_path / "bars.csv"
    fields = ["open", "high", "low", "close"]
    space = make_space({"adjustment": [0.2, 1.0]})
    options = SearchOptions(method="random", trials=1, folds=1)
    dates = frame["date"].to_numpy()

    def rewrite(first: int, scale: float) -> None:
        late = dates >= np.unique(dates)[first]
        growth = 1 + (scale - 1) * np.linspace(0.5, 1, late.sum())
        changed = frame.copy()
        changed.loc[late, fields] *= growth[:, None]
        changed.to_csv(file, index=False)

    found = []
    for name, scale in (("before", 1.0), ("after", 7.0)):
        rewrite(160, scale)
        path = search(space, config(tmp_path / name, market=str(file)), options, workers=1)
        found.append((path / FILE).read_bytes())
    assert found[0] == found[1]
    rewrite(159, 2.0)  # the record notices what is changed before
    facts = inner_market(config(tmp_path, market=str(file)), 1).facts
    assert facts != json.loads(found[0])["market"]


@pytest.mark.slow
def test_any_number_of_workers_finds_the_same(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    options = SearchOptions(trials=5, folds=2, batch=2)
    one, two = (
        search(SPACE, config(tmp_path / str(workers)), options, workers=workers)
        for workers in (1, 2)
    )
    assert (one / FILE).read_bytes() == (two / FILE).read_bytes()


def test_a_search_without_a_score_says_why(
    tmp_path: Path, untrained: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "failures", lambda root, wanted: dict.fromkeys(wanted, "no memory"))
    with pytest.raises(PortfolioError, match="no memory"):
        search(SPACE, config(tmp_path / "a"), SearchOptions(method="random", trials=2, folds=1))
