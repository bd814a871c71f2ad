"""Rendering: what the text says, what the picture shows, and where there is no window."""

import pickle
import sys
from types import SimpleNamespace

import gymnasium as gym
import numpy as np
import pytest

from portfolio_env import PortfolioEnv, PortfolioVectorEnv, rendering
from portfolio_env.errors import PortfolioError
from portfolio_env.rendering import Frame, History, Window, draw, render_ansi, render_rgb

MARKET = "synthetic?bars=200&assets=3&seed=1"


def frame(values=(10_000.0, 10_500.0, 9_500.0), start="2021-05-02", unit="D"):
    """An account of two assets, at most three bars long."""
    bars = len(values)
    return Frame(
        assets=("AAA", "LONGNAME"),
        timestamps=(np.datetime64(start) + np.arange(bars).astype(f"m8[{unit}]")).astype("M8[ns]"),
        prices=np.array([[50.0, np.nan], [55.0, 2.0], [45.0, 3.0]])[:bars],
        values=np.array(values),
        weights=np.array([[1.0, 0.0, 0.0], [0.3, 0.9, -0.2], [0.2, 0.9, -0.1]])[:bars],
        costs=np.array([0.0, 7.0, 5.0])[:bars],
    )


def drawn(account):
    from portfolio_env.plotting.figures import new_figure

    figure = new_figure((10, 6), 50)
    draw(figure, account)
    figure.canvas.draw()
    return {axes.get_title(loc="left"): axes for axes in figure.axes}


def test_text_shows_date_value_drawdown_and_every_weight():
    lines = render_ansi(frame()).splitlines()
    assert lines[0] == "2021-05-04  value 9,500.00 (-5.00%)  drawdown 9.52%"
    assert [line.split()[0] for line in lines[1:]] == ["cash", "AAA", "LONGNAME"]
    assert [line.count("#") for line in lines[1:]] == [6, 27, 3]
    assert "-10.00%" in lines[3]


def test_text_shows_the_time_of_intraday_bars():
    assert render_ansi(frame(start="2021-05-04T11:30", unit="h")).startswith("2021-05-04 13:30  ")


def test_the_picture_shows_prices_value_drawdown_costs_and_weights():
    axes = drawn(frame())
    assert list(axes) == [
        "prices, each from 1",
        "value 9,500.00",
        "drawdown 9.5%, below in %",
        "costs so far 12.00",
        "weights now",
        "weights so far",
    ]
    prices, value, losses, costs, now, _ = axes.values()
    assert [line.get_ydata().tolist()[-1] for line in prices.lines] == [0.9, 1.5]
    assert value.lines[0].get_ydata().tolist() == [10_000, 10_500, 9_500]
    assert losses.lines[0].get_ydata() == pytest.approx([0, 0, -100 * (1 - 9_500 / 10_500)])
    assert costs.lines[0].get_ydata().tolist() == [0, 7, 12]
    assert [bar.get_width() for bar in now.patches] == [0.2, 0.9, -0.1]
    assert [text.get_text() for text in now.get_yticklabels()] == ["cash", "AAA", "LONGNAME"]


def test_pixels():
    first, again = render_rgb(frame()), render_rgb(frame())
    assert first.shape == (576, 960, 3)
    assert first.dtype == np.uint8
    assert first.std() > 10  # something is drawn
    assert (first == again).all()
    assert not np.shares_memory(first, again)
    alone = frame(values=(10_000.0,))  # a reset: one value, nothing to connect
    assert (render_rgb(alone) != first).any()


def test_pixels_without_matplotlib_say_what_to_install(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PortfolioError, match="pip install matplotlib"):
        render_rgb(frame())


def test_a_history_holds_what_the_environment_told():
    env = PortfolioEnv(MARKET, window=3, action="weights")
    history = History(env.simulator)
    for episode in range(2):
        _, info = env.reset(seed=episode)
        history.record(fresh=True)
        told = [info]
        for _ in range(5):
            told.append(env.step(np.array([0.1, 0.3, 0.3, 0.3]))[-1])
            history.record()
    seen, t = history.frame(), env.simulator.t[0]
    assert seen.values.tolist() == [each["portfolio_value"] for each in told]
    assert seen.costs.tolist() == [each["cost"] for each in told]
    assert seen.drawdowns == pytest.approx([each["drawdown"] for each in told])
    assert (seen.weights[-1] == env.weights).all()
    assert (seen.timestamps == env.market.timestamps[t - 5 : t + 1]).all()
    assert (seen.prices == env.market.close[t - 5 : t + 1]).all()


def test_lanes_draw_the_assets_that_they_trade():
    envs = PortfolioVectorEnv(4, MARKET, window=3, universe=2, render_mode="ansi")
    envs.reset(seed=0)
    envs.step(envs.action_space.sample())
    for lane, text in enumerate(envs.render()):
        names = [line.split()[0] for line in text.splitlines()[1:]]
        assert names == ["cash", *envs.simulator.asset_names[lane]]


# ---- a window


@pytest.fixture
def human():
    env = gym.make("portfolio_env:Portfolio-v0", market=MARKET, window=3, render_mode="human")
    yield env
    env.close()


def test_without_a_display_it_warns_once_and_goes_on(human, monkeypatch):
    monkeypatch.setattr(rendering, "_opened_window", lambda: None)
    with pytest.warns(UserWarning, match="needs a display and a toolkit"):
        human.reset(seed=0)
    human.step(human.action_space.sample())  # a second warning would be an error
    assert human.render() is None


def test_this_backend_has_no_window(monkeypatch):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    monkeypatch.setattr(rendering, "_in_notebook", lambda: False)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pyplot, "figure", lambda **options: (_ for _ in ()).throw(ImportError("tk")))
        assert rendering._opened_window() is None
    pyplot.switch_backend("agg")
    assert rendering._opened_window() is None
    assert pyplot.get_fignums() == []


def test_the_window_follows_the_episode_until_it_is_closed(human, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(rendering, "_opened_window", lambda: pyplot.figure())
    human.reset(seed=0)
    (number,) = pyplot.get_fignums()
    for step in range(1, 4):
        human.step(human.action_space.sample())
        assert pyplot.figure(number)._suptitle.get_text().endswith(f"step {step}")
    pyplot.close(number)  # by hand
    human.step(human.action_space.sample())
    assert pyplot.get_fignums() == []
    human.unwrapped.close()
    human.reset()
    assert len(pyplot.get_fignums()) == 1
    human.close()
    assert pyplot.get_fignums() == []


def test_a_notebook_shows_the_picture_below_its_cell(monkeypatch):
    shown = []
    monkeypatch.setitem(
        sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=1))
    )
    display = SimpleNamespace(clear_output=lambda wait: shown.append("clear"), display=shown.append)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    Window().show(frame())
    assert shown[0] == "clear"
    assert shown[1]._repr_png_().startswith(b"\x89PNG")


def test_an_environment_with_a_window_can_be_pickled(human, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.setattr(rendering, "_opened_window", lambda: pyplot.figure())
    human.reset(seed=0)
    copy = pickle.loads(pickle.dumps(human.unwrapped))
    assert copy._window._figure is None
    assert copy.simulator.t[0] == human.unwrapped.simulator.t[0]
