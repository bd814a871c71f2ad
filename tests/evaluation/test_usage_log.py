"""The log counts every use of a test range, by all runs of a folder, and forgets none."""

import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import portfolio_env as pe
from portfolio_env.errors import DataError
from portfolio_env.evaluation.usage_log import (
    Trial,
    earlier_sharpes,
    log_of,
    log_usage,
    make_usage_entry,
    range_hash,
    read_usage_log,
    usage_warning,
)
from portfolio_env.files.atomic import read_json

MARKET = pe.load_market("synthetic?assets=3&bars=60")
AGENT = Trial("ppo", "a", agent=True, sharpe=1.0)
BENCHMARK = Trial("equal_weight", "b", agent=False, sharpe=0.5)


def look(start=30, end=60, trials=(AGENT, BENCHMARK), market=MARKET):
    return make_usage_entry(
        market, start, end, date="2030-01-02T03:04:05", command="x", model="ppo", trials=trials
    )


def test_looks_at_one_range_are_counted(tmp_path):
    assert read_usage_log(tmp_path / "run") == []
    first, second = look(), look(trials=[replace(AGENT, fingerprint="c", sharpe=2.0), BENCHMARK])
    assert log_usage(tmp_path / "run", first) == []
    assert log_usage(tmp_path / "run", look(start=31)) == []  # another range
    assert log_usage(tmp_path / "run", second) == [first]
    assert log_usage(tmp_path / "run", first) == [first, second]
    assert len(read_usage_log(tmp_path / "run")) == 4
    assert read_usage_log(tmp_path / "run")[2] == second


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "runs"
    folder.mkdir()
    return folder


def agent(number):
    return replace(AGENT, fingerprint=f"agent {number}", sharpe=float(number))


def test_ten_runs_of_a_search_are_ten_trials(runs):
    for number in range(10):
        earlier = log_usage(runs / f"run_{number}", look(trials=[agent(number), BENCHMARK]))
        assert len(earlier) == number
    assert earlier_sharpes(earlier, [agent(9), BENCHMARK]) == [*map(float, range(9))]
    (runs / "run_3" / "looks.json").unlink()  # a run that is deleted was tried all the same
    assert len(log_usage(runs / "run_10", look())) == 10
    assert len(read_usage_log(runs / "run_9")) == 1  # a run's own are its own
    assert log_usage(runs / "run_10", look(start=31)) == []  # another range
    assert len(list((runs / "test_set_usage").glob("*.json"))) == 2


def test_what_runs_of_earlier_versions_keep_is_counted_once(runs, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    for number in range(2):
        log_usage(elsewhere / "old", look(trials=[agent(number)]))
    (elsewhere / "old").rename(runs / "old")  # without the log of the folder it comes from
    assert len(log_usage(runs / "new", look(trials=[agent(2)]))) == 2
    assert len(log_usage(runs / "new", look(trials=[agent(3)]))) == 3
    assert len(log_usage(runs / "old", look(trials=[agent(4)]))) == 4


def test_the_runs_of_a_walk_forward_share_the_log_of_its_neighbours(runs):
    (runs / "whole").mkdir()
    (runs / "whole" / "walk_forward.json").write_text("{}")
    part = runs / "whole" / "fold_0" / "seed_1"
    assert log_of(part, look()) == log_of(runs / "whole", look()) == log_of(runs / "run", look())


def test_damage_in_another_run_is_said_and_does_not_stop_this_one(runs, caplog):
    log_usage(runs / "one", look())
    (runs / "one" / "looks.json").write_text("{")
    assert len(log_usage(runs / "two", look())) == 1  # the log has it
    assert "evaluations of another run are not counted" in caplog.text


def test_warning_says_how_often_and_how_many_agents():
    earlier = [look()]
    again = usage_warning(earlier, look())
    assert "evaluation 2 on this test range (the first was on 2030-01-02)" in again
    assert "agents" not in again  # one and the same
    other = look(trials=[replace(AGENT, fingerprint="c")])
    assert "of 2 different agents" in usage_warning(earlier, other)


def test_what_was_tried_before_counts_once():
    other = replace(AGENT, fingerprint="c", sharpe=2.0)
    idle = replace(AGENT, fingerprint="d", sharpe=None)
    earlier = [look(trials=[other, BENCHMARK]), look(trials=[other, idle, AGENT])]
    assert earlier_sharpes(earlier, [AGENT, BENCHMARK]) == [2.0]
    assert earlier_sharpes(earlier, []) == [2.0, 0.5, 1.0]


def test_a_range_is_its_prices(tmp_path):
    own = range_hash(MARKET, 10, 20)
    assert own == range_hash(MARKET, 10, 20) == range_hash(MARKET.past(30), 10, 20)
    bare = pe.load_market(MARKET.panel, features=["return_1"])
    assert range_hash(bare, 10, 20) == own
    others = [range_hash(MARKET, 10, 21), range_hash(MARKET, 9, 20)]
    others.append(range_hash(MARKET.select(MARKET.assets[::-1]), 10, 20))
    close = MARKET.close.copy()
    close[15, 0] *= 1.0001
    close[25, 0] *= 2
    panel = replace(MARKET.panel, close=close, open=None, high=None, low=None)
    others.append(range_hash(pe.load_market(panel), 10, 20))
    assert len({own, *others}) == 5
    assert range_hash(pe.load_market(panel), 20, 25) == range_hash(MARKET, 20, 25)


@pytest.mark.parametrize("text", ["{", "{}", '[{"date": "x"}]', "[3]"])
def test_a_damaged_log_is_not_started_anew(runs, text):
    log = log_of(runs / "run", look())
    log.parent.mkdir()
    for file in (log, runs / "run" / "looks.json"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        with pytest.raises(DataError, match=rf"{file.name} is damaged"):
            log_usage(runs / "run", look())
        assert file.read_text() == text


ROOT = Path(__file__).parents[2]
FIFTY_LOOKS = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "evaluation")!r}]
from test_usage_log import look, log_usage
for number in range(50):
    log_usage(sys.argv[1] + "/" + sys.argv[2 + number % 2], look(start=10 + number % 2))
"""


@pytest.mark.slow
def test_processes_that_look_at_once_are_all_counted(tmp_path):
    each = [sys.executable, "-c", FIFTY_LOOKS, str(tmp_path), "one", "two"]
    processes = [subprocess.Popen(each, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    for process in processes:
        assert process.communicate(timeout=300)[1] == ""
        assert process.returncode == 0
    for run, start in (("one", 10), ("two", 11)):
        assert read_usage_log(tmp_path / run) == [look(start=start)] * 75
        logged = read_json(log_of(tmp_path / run, look(start=start)))["looks"]
        assert len(logged) == 75


def test_a_full_disk_leaves_the_registry_as_it_was(tmp_path):
    log_usage(tmp_path / "run", look())
    before = (tmp_path / "run" / "looks.json").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before), limits[1]))
    try:
        with pytest.raises(DataError, match=r"looks\.json cannot be written .*unchanged"):
            log_usage(tmp_path / "run", look())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "run" / "looks.json").read_bytes() == before
    assert len(log_usage(tmp_path / "run", look())) == 1


def test_a_folder_that_takes_no_file_is_named(tmp_path):
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(DataError, match="run"):
        log_usage(tmp_path / "run", look())
