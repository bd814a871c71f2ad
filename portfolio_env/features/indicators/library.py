"""Group "ta": further indicators of the library ``ta``, by its own code, made stationary.

They are no part of the preset "full": switch them on by name ("ta", "cci_20"). ``ta`` is called on
each asset's runs of bars without a gap, and what it writes before an indicator has seen enough of
them is dropped. It works on one series at a time: one bar more takes about a second on 20 assets,
so that the group is not for bars of seconds. It updates its windows from bar to bar, so that a move
by orders of magnitude leaves rounding errors behind, unlike in the other groups.

``ta`` fills the bars before the first with the mean of the whole series in KST, TRIX, DPO and
Vortex, and with the last ones in KAMA: the future. In TRIX and DPO only rows that are dropped see
this; in the others bars that are NaN are put before the first to keep it out. Left out are

- ``IchimokuIndicator(visual=True)``, whose shifted spans start with the mean of the whole series;
- ``PSARIndicator`` and ``NegativeVolumeIndexIndicator``, which depend on all bars ever and are
  Python loops, half a second and 0.2 seconds for an asset with 8,000;
- the other running totals (accumulation/distribution, volume-price trend, cumulative return), which
  have no level to return to: Chaikin's money flow and ``obv_change`` are their stationary forms;
- ``WMAIndicator``, 0.3 seconds for an asset, and ``PercentagePriceOscillator``, which is MACD;
- what the other groups have.
"""

from __future__ import annotations

from typing import Any

from portfolio_env.features.indicators.library_runs import Run, from_ta, ta

HLC = "high low close"
HLCV = "high low close volume"


@from_ta(
    "(p - mean(p, w)) / (1.5 mean(|p - mean(p, w)|, w)), p = (h + l + c) / 3",
    inputs=HLC,
    source="Lambert 1980, Commodities 9:10",
    windows=(20,),
)
def cci(run: Run, w: int) -> Any:
    """Commodity channel index / 100; unknown while the price stands still."""
    typical = (run.high + run.low + run.close) / 3
    moves = typical.rolling(w).max() > typical.rolling(w).min()
    return (ta().trend.cci(run.high, run.low, run.close, w) / 100).where(moves)


_CHANDE = "Chande 1995, Stocks & Commodities 13:9"


@from_ta(
    "1 - (bars since max(h, w + 1)) / w",
    inputs="high low",
    source=_CHANDE,
    windows=(25,),
    lookback=lambda w: w,
)
def aroon_up(run: Run, w: int) -> Any:
    """Aroon up / 100, in [0, 1]: how recent the highest high is."""
    return ta().trend.aroon_up(run.high, run.low, w) / 100


@from_ta(
    "1 - (bars since min(l, w + 1)) / w",
    inputs="high low",
    source=_CHANDE,
    windows=(25,),
    lookback=lambda w: w,
)
def aroon_down(run: Run, w: int) -> Any:
    """Aroon down / 100, in [0, 1]: how recent the lowest low is."""
    return ta().trend.aroon_down(run.high, run.low, w) / 100


_VORTEX = "Botes & Siepman 2010, Stocks & Commodities 28:1"


@from_ta(
    "sum(|h - l_(t-1)|, w) / sum(true range, w)",
    inputs=HLC,
    source=_VORTEX,
    windows=(14,),
    lookback=lambda w: w,
    pad=lambda _: 1,
)
def vortex_pos(run: Run, w: int) -> Any:
    """Positive vortex indicator, near 1."""
    return ta().trend.vortex_indicator_pos(run.high, run.low, run.close, w)


@from_ta(
    "sum(|l - h_(t-1)|, w) / sum(true range, w)",
    inputs=HLC,
    source=_VORTEX,
    windows=(14,),
    lookback=lambda w: w,
    pad=lambda _: 1,
)
def vortex_neg(run: Run, w: int) -> Any:
    """Negative vortex indicator, near 1."""
    return ta().trend.vortex_indicator_neg(run.high, run.low, run.close, w)


@from_ta(
    "e_t / e_(t-1) - 1, e = ema(ema(ema(c, w), w), w)",
    source="Hutson 1983, Stocks & Commodities 1:5",
    windows=(15,),
    lookback=lambda w: 3 * w - 2,
    memory=lambda w: 25 * (w + 1),
)
def trix(run: Run, w: int) -> Any:
    """Return of a price that was smoothed three times."""
    return ta().trend.trix(run.close, w) / 100


@from_ta(
    "sum(ema(h - l, 9) / ema(ema(h - l, 9), 9), w) / w - 1",
    inputs="high low",
    source="Dorsey 1992, Stocks & Commodities 10:6",
    windows=(25,),
    lookback=lambda w: w + 15,
    memory=lambda w: w + 250,
)
def mass_index(run: Run, w: int) -> Any:
    """Mass index against its neutral value: ranges that widen are positive."""
    return ta().trend.mass_index(run.high, run.low, 9, w) / w - 1


@from_ta("(c_(t - w // 2 - 1) - mean(c, w)) / c", windows=(20,), smallest=4)
def dpo(run: Run, w: int) -> Any:
    """Detrended price oscillator, relative to the close; the causal form, not shifted back."""
    return ta().trend.dpo(run.close, w) / run.close


_PRING = "Pring 1992, Stocks & Commodities 10:9"


@from_ta(
    "(R(10, 10) + 2 R(15, 10) + 3 R(20, 10) + 4 R(30, 15)) / 10, R(k, w) = mean(return_k, w)",
    source=_PRING,
    lookback=lambda _: 44,
    pad=lambda _: 30,
)
def kst(run: Run, _: int) -> Any:
    """Know sure thing, as a weighted mean of returns."""
    return ta().trend.kst(run.close) / 1000


@from_ta("mean(kst, 9)", source=_PRING, lookback=lambda _: 52, pad=lambda _: 30)
def kst_signal(run: Run, _: int) -> Any:
    """Signal line of the know sure thing."""
    return ta().trend.kst_sig(run.close) / 1000


@from_ta(
    "ema(%K of ema(%K of (ema(c, 23) - ema(c, 50)), 3), 3), %K over 10 bars",
    source="Schaff, as in the library ta",
    lookback=lambda _: 71,
    memory=lambda _: 1100,
)
def stc(run: Run, _: int) -> Any:
    """Schaff trend cycle / 100, in [0, 1]; stays as it is in a trend without pause."""
    return ta().trend.stc(run.close) / 100


_HOSODA = "Hosoda 1969, Ichimoku kinko hyo"


@from_ta("(max(h, 9) + min(l, 9)) / 2 / c - 1", inputs=HLC, source=_HOSODA, lookback=lambda _: 8)
def ichimoku_conversion(run: Run, _: int) -> Any:
    """Conversion line (tenkan), relative to the close."""
    return ta().trend.ichimoku_conversion_line(run.high, run.low) / run.close - 1


@from_ta("(max(h, 26) + min(l, 26)) / 2 / c - 1", inputs=HLC, source=_HOSODA, lookback=lambda _: 25)
def ichimoku_base(run: Run, _: int) -> Any:
    """Base line (kijun), relative to the close."""
    return ta().trend.ichimoku_base_line(run.high, run.low) / run.close - 1


@from_ta(
    "(conversion line + base line) / 2 / c - 1",
    inputs=HLC,
    source=_HOSODA,
    lookback=lambda _: 25,
)
def ichimoku_a(run: Run, _: int) -> Any:
    """Leading span A, not shifted, relative to the close."""
    return ta().trend.ichimoku_a(run.high, run.low) / run.close - 1


@from_ta("(max(h, 52) + min(l, 52)) / 2 / c - 1", inputs=HLC, source=_HOSODA, lookback=lambda _: 51)
def ichimoku_b(run: Run, _: int) -> Any:
    """Leading span B, not shifted, relative to the close."""
    return ta().trend.ichimoku_b(run.high, run.low) / run.close - 1


_BLAU = "Blau 1991, Stocks & Commodities 9:11"


@from_ta(
    "ema(ema(c_t - c_(t-1), 25), 13) / ema(ema(|c_t - c_(t-1)|, 25), 13)",
    source=_BLAU,
    lookback=lambda _: 37,
    memory=lambda _: 700,
)
def tsi(run: Run, _: int) -> Any:
    """True strength index / 100, in [-1, 1]."""
    return ta().momentum.tsi(run.close) / 100


@from_ta(
    "(4 B(7) + 2 B(14) + B(28)) / 7, B(w) = sum(c - min(l, c_(t-1)), w) / sum(true range, w)",
    inputs=HLC,
    source="Williams 1985, Stocks & Commodities 3:4",
    lookback=lambda _: 28,
)
def ultimate_oscillator(run: Run, _: int) -> Any:
    """Ultimate oscillator / 100, in [0, 1]."""
    return ta().momentum.ultimate_oscillator(run.high, run.low, run.close) / 100


_KROLL = "Chande & Kroll 1994, The New Technical Trader"


@from_ta(
    "(x - min(x, w)) / (max(x, w) - min(x, w)), x = rsi_w",
    source=_KROLL,
    windows=(14,),
    lookback=lambda w: 2 * w - 2,
    memory=lambda w: 45 * w,
)
def stochrsi(run: Run, w: int) -> Any:
    """Place of the RSI in its range, in [0, 1]; RSI starts from the first bar, not as a mean."""
    return ta().momentum.stochrsi(run.close, w)


@from_ta(
    "mean(stochrsi_w, 3)",
    source=_KROLL,
    windows=(14,),
    lookback=lambda w: 2 * w,
    memory=lambda w: 45 * w,
)
def stochrsi_k(run: Run, w: int) -> Any:
    """Smoothed place of the RSI in its range, in [0, 1]."""
    return ta().momentum.stochrsi_k(run.close, w)


@from_ta(
    "mean(stochrsi_k_w, 3)",
    source=_KROLL,
    windows=(14,),
    lookback=lambda w: 2 * w + 2,
    memory=lambda w: 45 * w,
)
def stochrsi_d(run: Run, w: int) -> Any:
    """Twice smoothed place of the RSI in its range, in [0, 1]."""
    return ta().momentum.stochrsi_d(run.close, w)


@from_ta(
    "ema(v, 12) / ema(v, 26) - 1",
    inputs="volume",
    lookback=lambda _: 25,
    memory=lambda _: 405,
)
def pvo(run: Run, _: int) -> Any:
    """Percentage volume oscillator, as a fraction."""
    return ta().momentum.pvo(run.volume) / 100


@from_ta("ema(pvo, 9)", inputs="volume", lookback=lambda _: 33, memory=lambda _: 555)
def pvo_signal(run: Run, _: int) -> Any:
    """Signal line of the percentage volume oscillator, as a fraction."""
    return ta().momentum.pvo_signal(run.volume) / 100


@from_ta("pvo - pvo_signal", inputs="volume", lookback=lambda _: 33, memory=lambda _: 555)
def pvo_diff(run: Run, _: int) -> Any:
    """Histogram of the percentage volume oscillator, as a fraction."""
    return ta().momentum.pvo_hist(run.volume) / 100


@from_ta(
    "c / kama(c, w) - 1, from span 30 without a trend to span 2 in a straight one",
    source="Kaufman 1995, Smarter Trading",
    windows=(10,),
    lookback=lambda w: w + 1,
    memory=lambda w: w + 6700,
    pad=lambda w: w,
)
def kama_ratio(run: Run, w: int) -> Any:
    """Close over Kaufman's adaptive moving average, less 1."""
    return run.close / ta().momentum.kama(run.close, w) - 1


@from_ta(
    "(mean(m, 5) - mean(m, 34)) / c, m = (h + l) / 2",
    inputs=HLC,
    source="Williams 1998, New Trading Dimensions",
    lookback=lambda _: 33,
)
def awesome_oscillator(run: Run, _: int) -> Any:
    """Awesome oscillator, relative to the close."""
    return ta().momentum.awesome_oscillator(run.high, run.low) / run.close


@from_ta(
    "sqrt(mean((c / max(c, w) - 1)^2, w))",
    source="Martin & McCann 1989, The Investor's Guide to Fidelity Funds",
    windows=(14,),
    lookback=lambda w: 2 * w - 2,
)
def ulcer_index(run: Run, w: int) -> Any:
    """Root mean square of drawdowns, as a fraction."""
    return ta().volatility.ulcer_index(run.close, w) / 100


_KELTNER = "Keltner 1960, How to Make Money in Commodities"


@from_ta(
    "(c - lower) / (upper - lower), bands at mean((h + l + c) / 3, w) -+ mean(h - l, w)",
    inputs=HLC,
    source=_KELTNER,
    windows=(20,),
)
def keltner_percent(run: Run, w: int) -> Any:
    """Place of the close in the Keltner channel: 0 on the lower, 1 on the upper band."""
    return ta().volatility.keltner_channel_pband(run.high, run.low, run.close, w)


@from_ta("2 mean(h - l, w) / mean((h + l + c) / 3, w)", inputs=HLC, source=_KELTNER, windows=(20,))
def keltner_width(run: Run, w: int) -> Any:
    """Width of the Keltner channel, relative to its middle."""
    return ta().volatility.keltner_channel_wband(run.high, run.low, run.close, w) / 100


_DONCHIAN = "Donchian 1960, Commodity Year Book"


@from_ta("(c - min(l, w)) / (max(h, w) - min(l, w))", inputs=HLC, source=_DONCHIAN, windows=(20,))
def donchian_percent(run: Run, w: int) -> Any:
    """Place of the close in the Donchian channel, in [0, 1]; as stoch_k at the same window."""
    return ta().volatility.donchian_channel_pband(run.high, run.low, run.close, w)


@from_ta("(max(h, w) - min(l, w)) / mean(c, w)", inputs=HLC, source=_DONCHIAN, windows=(20,))
def donchian_width(run: Run, w: int) -> Any:
    """Width of the Donchian channel, relative to the average close."""
    return ta().volatility.donchian_channel_wband(run.high, run.low, run.close, w) / 100


@from_ta(
    "sum(v (2 c - h - l) / (h - l), w) / sum(v, w)",
    inputs=HLCV,
    source="Chaikin, as in the library ta",
    windows=(20,),
)
def cmf(run: Run, w: int) -> Any:
    """Chaikin money flow, in [-1, 1]."""
    return ta().volume.chaikin_money_flow(run.high, run.low, run.close, run.volume, w)


@from_ta(
    "ema(v (c_t - c_(t-1)), w) / (c ema(v, w))",
    inputs="close volume",
    source="Elder 1993, Trading for a Living",
    windows=(13,),
    lookback=lambda w: w,
    memory=lambda w: 15 * (w + 1),
)
def force_index(run: Run, w: int) -> Any:
    """Force index, relative to the close and the average volume."""
    force = ta().volume.force_index(run.close, run.volume, w)
    return force / (run.close * ta().trend.ema_indicator(run.volume, w))


@from_ta(
    "mean((m_t - m_(t-1)) (h - l) / v, w) mean(v, w) / mean(h - l, w)^2, m = (h + l) / 2",
    inputs="high low volume",
    source="Arms 1996, Trading Without Fear",
    windows=(14,),
    lookback=lambda w: w,
)
def ease_of_movement(run: Run, w: int) -> Any:
    """Ease of movement, in average ranges per average volume."""
    mean = ta().trend.sma_indicator
    ease = ta().volume.sma_ease_of_movement(run.high, run.low, run.volume, w) / 1e8
    return ease * mean(run.volume, w) / mean(run.high - run.low, w) ** 2
