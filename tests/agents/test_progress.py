"""A training that takes hours says so once, from the time of its first updates."""

import logging

import pytest
from helpers.small_runs import small

from agents import progress
from agents.progress import Outlook, bar, duration
from agents.training.curriculum import shorter
from agents.training.train import train


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand."""
    now = [100.0]
    monkeypatch.setattr(progress, "perf_counter", lambda: now[0])
    return now


def looks(clock, outlook, seconds, updates=4, size=100):
    """Updates of so many seconds each; the first look comes before them."""
    for number in range(updates):
        outlook.look(size * number)
        clock[0] += seconds


def test_hours_are_said_once_with_ways_to_save_them(clock, caplog):
    looks(clock, Outlook("This training", 100_300, ["fewer steps"]), seconds=36)
    (record,) = caplog.records
    assert "This training will take about 10 h 0 min more (300 of 100,300 done)" in record.message
    assert record.message.endswith("\n  - fewer steps")


def test_what_takes_less_than_an_hour_is_not_mentioned(clock, caplog):
    looks(clock, Outlook("This training", 10_000, []), seconds=36)  # 99 updates: 59 minutes
    assert not caplog.records


def test_a_moment_is_too_short_to_tell(clock, caplog):
    outlook = Outlook("This training", 10**9, [])
    looks(clock, outlook, seconds=3, updates=4)  # 9 s at the last look
    assert not caplog.records
    outlook.look(400)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("slow", [0, 1, 2])
def test_one_slow_update_is_not_taken_for_all(slow, clock, caplog):
    outlook = Outlook("Stage 2", 150, [])
    outlook.look(1)
    for update in range(3):
        clock[0] += 27 if update == slow else 0.4  # compiles: at this pace, an hour
        outlook.look(2 + update)
    assert not caplog.records


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(4.2, "4.2 s"), (100, "1 min 40 s"), (3599.9, "1 h 0 min"), (7000, "1 h 57 min"),
     (86_399, "1 d 0 h"), (900_000, "10 d 10 h")],
)  # fmt: skip
def test_times_are_written_as_people_say_them(seconds, text):
    assert duration(seconds) == text


def test_a_bar_is_shown_on_stderr_or_not_at_all(capsys):
    for shown in (True, False):
        with bar("stage 1", 10, shown=shown) as advance:
            advance(4)
            advance(12)  # the last rollout may go beyond
        out, err = capsys.readouterr()
        assert out == ""
        assert ("stage 1" in err and "10/10" in err) == shown


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("algo", ["ppo", pytest.param("sac", marks=pytest.mark.slow), "direct"])
def test_every_algorithm_is_measured_on_its_first_updates(algo, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "HOUR", 0.0)
    monkeypatch.setattr(progress, "MEASURED", 0.0)
    sizes = {"ppo": 4 * 8192, "sac": 1024, "direct": 6 * 64 * 30}
    with caplog.at_level(logging.WARNING):
        train(small(tmp_path / algo, algo=algo, timesteps=sizes[algo]))
    (said,) = [each.message for each in caplog.records if "will take about" in each.message]
    assert f"train for less: --timesteps below {sizes[algo]:,}" in said


def test_the_ways_are_those_of_the_settings(tmp_path):
    encoder = small(tmp_path, encoder="gat", curriculum="1,2,3").resolved()
    assert any("--window below 60" in way for way in shorter(encoder))
    assert "--stages.epochs below 20" in shorter(encoder, "stage_1")[0]
    assert not any("--window" in way for way in shorter(small(tmp_path).resolved()))
