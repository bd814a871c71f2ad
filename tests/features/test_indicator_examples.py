"""Indicators on bars whose values were computed by hand, and against the library `ta`."""

from math import log, sqrt

import numpy as np
import pandas as pd
import pytest
import ta
from helpers.panels import panel_of

from portfolio_env import PricePanel
from portfolio_env.features import select
from portfolio_env.features.bars import Bars


def panel_from(**fields):
    """The same daily bars of two assets; open is the close unless given."""
    fields.setdefault("open", fields["close"])
    days = pd.date_range("2024-01-01", periods=len(fields["close"])).as_unit("ns").to_numpy()
    columns = {name: np.array([values, values], float).T for name, values in fields.items()}
    return PricePanel(days, ("A", "B"), **columns, periods_per_year=365.0)


def values_of(name, panel):
    (feature,) = select(name, panel)
    return np.broadcast_to(feature.compute(Bars(panel)), panel.close.shape)[:, 1]


def check(panel, name, **expected):
    """Values by row, e.g. ``t3=0.5``; every row before the first is unknown."""
    values = values_of(name, panel)
    rows = [int(key[1:]) for key in expected]
    np.testing.assert_allclose(values[rows], list(expected.values()), rtol=1e-12, atol=1e-15)
    assert np.isnan(values[: min(rows)]).all(), name


def test_rsi_of_a_published_example():
    """The prices and rounded results of the widely copied example of Wilder's 14-day index."""
    closes = (
        *(44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433),
        *(46.0826, 45.8931, 46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116),
        *(46.2222, 45.6439, 46.2122, 46.2521, 45.7137, 46.4515, 45.7835, 45.3548, 44.0288),
        *(44.1783, 44.2181, 44.5672, 43.4205, 42.6628, 43.1314),
    )
    expected = (
        *(70.53, 66.32, 66.55, 69.41, 66.36, 57.97, 62.93, 63.26, 56.06, 62.38),
        *(54.71, 50.42, 39.99, 41.46, 41.87, 45.46, 37.30, 33.08, 37.77),
    )
    values = values_of("rsi_14", panel_from(close=closes))
    assert np.isnan(values[:14]).all()
    np.testing.assert_allclose(100 * values[14:], expected, atol=0.0051)


def test_rsi_by_hand():
    # steps     +2  -1  +3   0   -4
    # rises, 2 bars: (2 + 0) / 2 = 1, (1 + 3) / 2 = 2, 1, 1/2
    # falls:         (0 + 1) / 2 = 1/2, 1/4, 1/8, (1/8 + 4) / 2 = 33/16
    panel = panel_from(close=(10, 12, 11, 14, 14, 10))
    check(panel, "rsi_2", t2=2 / 3, t3=8 / 9, t4=8 / 9, t5=8 / 41)


# high 10 12 13 12 11 15, low 8 9 10 7 8 9, close 9 11 12 8 10 14
HIGH, LOW, CLOSE = (10, 12, 13, 12, 11, 15), (8, 9, 10, 7, 8, 9), (9, 11, 12, 8, 10, 14)
SIX = panel_from(open=(9, 10, 11, 11, 9, 10), high=HIGH, low=LOW, close=CLOSE)


def test_atr_by_hand():
    # true range from bar 1 on: 12-9, 13-10, 12-7, 11-8, 15-9 = 3 3 5 3 6
    # Wilder over 2: 3, (3 + 5) / 2 = 4, (4 + 3) / 2 = 3.5, (3.5 + 6) / 2 = 4.75
    check(SIX, "atr_level_2", t2=3, t3=4, t4=3.5, t5=4.75)
    check(SIX, "atr_2", t2=3 / 12, t3=4 / 8, t4=3.5 / 10, t5=4.75 / 14)
    # a gap counts: 21 - 9 and 20 - 4 are the ranges from the closes before
    gapped = panel_from(high=(10, 21, 6), low=(8, 19, 4), close=(9, 20, 5))
    check(gapped, "atr_level_2", t2=(12 + 16) / 2)


def test_directional_movement_by_hand():
    # up   +2 +1 -1 -1 +4, down -1 -1 +3 -1 -1
    # +DM   2  1  0  0  4  -> Wilder over 2:  1.5  0.75  0.375  2.1875
    # -DM   0  0  3  0  0  ->                 0    1.5   0.75   0.375
    # true range           ->                 3    4     3.5    4.75
    check(SIX, "adx_pos_2", t2=1 / 2, t3=3 / 16, t4=3 / 28, t5=35 / 76)
    check(SIX, "adx_neg_2", t2=0, t3=3 / 8, t4=3 / 14, t5=6 / 76)
    # DX  1  1/3  1/3  29/41 -> (1 + 1/3) / 2 = 2/3, (2/3 + 1/3) / 2 = 1/2, (1/2 + 29/41) / 2
    check(SIX, "adx_2", t3=2 / 3, t4=1 / 2, t5=99 / 164)
    # up and down by 2 alike: neither counts; then up by 1
    outside = panel_from(high=(10, 12, 13), low=(8, 6, 7), close=(9, 9, 10))
    check(outside, "adx_pos_2", t2=(0 + 1) / (6 + 6))
    check(outside, "adx_neg_2", t2=0)


def test_stochastic_by_hand():
    # lowest low of 3 bars 8 7 7 7, highest high 13 13 13 15
    check(SIX, "stoch_k_3", t2=4 / 5, t3=1 / 6, t4=3 / 6, t5=7 / 8)
    check(SIX, "stoch_d_3", t4=(4 / 5 + 1 / 6 + 1 / 2) / 3, t5=37 / 72)
    check(SIX, "williams_r_3", t2=-1 / 5, t3=-5 / 6, t4=-1 / 2, t5=-1 / 8)
    check(SIX, "close_location", t0=1 / 2, t1=2 / 3, t2=2 / 3, t3=1 / 5, t4=2 / 3, t5=5 / 6)


def test_macd_by_hand():
    # 100 for 33 bars, then 127: the averages move by 2/13 and 2/27 of 27, the signal by 2/10
    panel = panel_from(close=(*[100] * 33, 127, 127))
    fast, slow = 27 * 2 / 13, 2
    line = fast - slow
    signal = line / 5
    check(panel, "macd", t25=0, t32=0, t33=line / 127)
    check(panel, "macd_signal", t33=signal / 127)
    check(panel, "macd_diff", t33=(line - signal) / 127)
    # the next bar: 27 (11/13)^2 and 27 (25/27)^2 are still lacking
    line = 27 * (25 / 27) ** 2 - 27 * (11 / 13) ** 2
    check(panel, "macd_level", t25=0, t34=line)
    check(panel, "macd_signal_level", t33=signal, t34=signal + (line - signal) / 5)


def test_bollinger_bands_by_hand():
    # 2 4 4 6: mean 4, squares 4 0 0 4, standard deviation sqrt(2)
    panel = panel_from(close=(2, 4, 4, 6))
    check(panel, "bb_high_4", t3=(4 + 2 * sqrt(2)) / 6 - 1)
    check(panel, "bb_low_4", t3=(4 - 2 * sqrt(2)) / 6 - 1)
    check(panel, "bb_width_4", t3=sqrt(2))
    check(panel, "bb_percent_4", t3=0.5 + 2 / (4 * sqrt(2)))
    check(panel, "volatility_2", t2=sqrt(0.5), t3=sqrt(0.125))  # returns 1, 0, 1/2


def test_volume_by_hand():
    # typical prices 10 12 11 11 14 with volumes 5 10 20 7 3: money flows +120 -220 0 +42
    close = np.array([10, 12, 11, 11, 14])
    panel = panel_from(high=close + 1, low=close - 1, close=close, volume=(5, 10, 20, 7, 3))
    check(panel, "mfi_3", t3=120 / 340, t4=42 / 262)
    check(panel, "obv_level", t1=10, t2=-10, t3=-10, t4=-7)
    check(panel, "obv_change_3", t3=-10 / 37, t4=-17 / 30)
    check(panel, "flow_toxicity_3", t3=10 / 37, t4=17 / 30)
    check(panel, "vwap_level_2", t1=170 / 15, t2=340 / 30, t3=297 / 27, t4=119 / 10)
    check(panel, "vwap_ratio_2", t1=12 * 15 / 170 - 1, t2=33 / 34 - 1, t3=0, t4=140 / 119 - 1)
    check(panel, "volume_change", t1=log(2), t2=log(2), t3=log(0.35), t4=log(3 / 7))
    check(panel, "volume_ratio_2", t1=log(10 / 7.5), t4=log(3 / 5))
    check(panel, "volume_sma_change_2", t3=log(13.5 / 7.5), t4=log(5 / 15))
    check(panel, "liquidity_resilience_2", t2=log(3), t3=log(1.35), t4=log(0.25))
    check(panel, "volume_volatility_2", t1=sqrt(12.5) / 7.5, t4=sqrt(8) / 5)


def test_ranges_by_hand():
    # a range of e and a body of sqrt(e): ln(h / l) = 1, ln(c / o) = 1/2
    e = np.e
    panel = panel_from(open=(1.2, 1.2), high=(e, e), low=(1, 1), close=(1.2 * sqrt(e),) * 2)
    check(panel, "parkinson_2", t1=sqrt(1 / (4 * log(2))))
    check(panel, "garman_klass_2", t1=sqrt(0.5 - (2 * log(2) - 1) / 4))


@pytest.mark.parametrize("spread", [1e-4, 0.01, 0.3])
def test_corwin_schultz_finds_the_spread_of_a_price_that_stands_still(spread):
    ask, bid = 50 * (1 + spread / 2), 50 * (1 - spread / 2)
    panel = panel_from(high=[ask] * 9, low=[bid] * 9, close=[50] * 9)
    np.testing.assert_allclose(values_of("corwin_schultz_5", panel)[5:], spread, rtol=1e-9)
    np.testing.assert_allclose(values_of("hl_spread", panel), spread, rtol=1e-9)


def test_variance_ratios_of_simple_paths():
    steps = np.tile([0.01, 0.01, -0.01, -0.01], 60)
    close = 100 * np.exp(np.cumsum(steps))
    # two-bar moves are 0.02, 0, -0.02, 0 in turn: their variance is twice that of one bar
    np.testing.assert_allclose(values_of("variance_ratio_2", panel_from(close=close))[-5:], 1)
    # four-bar moves are all 0
    np.testing.assert_allclose(
        values_of("variance_ratio_4", panel_from(close=close))[-5:], 0, atol=1e-12
    )


LONG = 800
FADED = 600  # by then Wilder's average over 14 bars has forgotten its start to 1e-18


@pytest.fixture(scope="module")
def long():
    return panel_of("D", LONG, assets=2, seed=9, ragged=False)


@pytest.fixture(scope="module")
def bars(long):
    names = ("high", "low", "close", "volume")
    return {name: pd.Series(getattr(long, name)[:, 1]) for name in names}


# By convention `ta` differs as follows. RSI starts Wilder's average with a rise and a fall of 0 at
# the first bar, not with the mean of 14. ATR takes the range of the first bar into that mean. ATR
# and ADX write zeros before they are known. MFI counts the first bar as a flow of 0 and so is known
# one bar earlier. OBV adds the volume of the first bar and of bars without a change. So recursive
# ones are compared after their starts have faded.
FROM_TA = {
    "sma_level_20": (lambda h, low, c, v: ta.trend.sma_indicator(c, 20), 19),
    "ema_level_26": (lambda h, low, c, v: ta.trend.ema_indicator(c, 26), 25),
    "macd_level": (lambda h, low, c, v: ta.trend.macd(c), 25),
    "macd_signal_level": (lambda h, low, c, v: ta.trend.macd_signal(c), 33),
    "macd_diff": (lambda h, low, c, v: ta.trend.macd_diff(c) / c, 33),
    "rsi_14": (lambda h, low, c, v: ta.momentum.rsi(c, 14) / 100, FADED),
    "adx_14": (lambda h, low, c, v: ta.trend.adx(h, low, c, 14) / 100, FADED),
    "adx_pos_14": (lambda h, low, c, v: ta.trend.adx_pos(h, low, c, 14) / 100, FADED),
    "adx_neg_14": (lambda h, low, c, v: ta.trend.adx_neg(h, low, c, 14) / 100, FADED),
    "stoch_k_14": (lambda h, low, c, v: ta.momentum.stoch(h, low, c, 14) / 100, 13),
    "stoch_d_14": (lambda h, low, c, v: ta.momentum.stoch_signal(h, low, c, 14) / 100, 15),
    "williams_r_14": (lambda h, low, c, v: ta.momentum.williams_r(h, low, c, 14) / 100, 13),
    "roc_10": (lambda h, low, c, v: ta.momentum.roc(c, 10) / 100, 10),
    "bb_high_level_20": (lambda h, low, c, v: ta.volatility.bollinger_hband(c, 20), 19),
    "bb_low_level_20": (lambda h, low, c, v: ta.volatility.bollinger_lband(c, 20), 19),
    "bb_width_20": (lambda h, low, c, v: ta.volatility.bollinger_wband(c, 20) / 100, 19),
    "bb_percent_20": (lambda h, low, c, v: ta.volatility.bollinger_pband(c, 20), 19),
    "atr_level_14": (lambda h, low, c, v: ta.volatility.average_true_range(h, low, c, 14), FADED),
    "mfi_14": (lambda h, low, c, v: ta.volume.money_flow_index(h, low, c, v, 14) / 100, 14),
    "vwap_level_20": (
        lambda h, low, c, v: ta.volume.volume_weighted_average_price(h, low, c, v, 20),
        19,
    ),
}


@pytest.mark.parametrize("name", FROM_TA)
def test_agreement_with_ta(name, long, bars):
    theirs, first = FROM_TA[name]
    values = values_of(name, long)
    assert not np.isnan(values[first:]).any()
    np.testing.assert_allclose(values[first:], theirs(*bars.values())[first:], rtol=1e-9)


def test_on_balance_volume_differs_from_ta_by_a_constant(long, bars):
    theirs = ta.volume.on_balance_volume(bars["close"], bars["volume"])
    ours = values_of("obv_level", long)
    np.testing.assert_allclose(theirs[1:] - ours[1:], bars["volume"][0], rtol=1e-9)
    window = theirs.diff(20) / bars["volume"].rolling(20).sum()
    np.testing.assert_allclose(values_of("obv_change_20", long)[20:], window[20:], rtol=1e-8)
