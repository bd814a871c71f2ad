"""The demo measures what it says: the rule that knows the signal is ahead, and it runs briefly."""

import sys
from pathlib import Path

import pytest

from portfolio_env.data.generators.planted import PlantedMarket

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import demo


def test_the_rule_has_an_edge_where_there_is_a_signal_and_none_without():
    def edge(**options):
        drawn, ahead = PlantedMarket.draw(seed=5, bars=2 * demo.EPISODE + 1, **options), 0.0
        for market in (drawn.market, drawn.mirrored().market):
            own, equal = (
                demo.growth(act(market), market, action="weights")
                for act in (demo.rule, demo.equal_weight)
            )
            ahead += (own - equal) / 2
        return ahead

    assert edge() > 0.2
    assert edge(kappa=0.0) < 0


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_the_demo_ends_with_the_commands_to_type_next(monkeypatch, capsys, tmp_path):
    settings = ["--timesteps", "3840", "--market", "synthetic?assets=3&bars=300"]
    monkeypatch.setattr(sys, "argv", ["demo.py", "--run", str(tmp_path / "run"), "--", *settings])
    demo.main()
    told = capsys.readouterr().out
    assert "of the edge of that rule" in told
    assert (tmp_path / "run" / "evaluation" / "test" / "report.html").exists()
    last = [line.split()[0] for line in told.splitlines()[-4:]]
    assert last == ["source", "python", "python", "tensorboard"]
