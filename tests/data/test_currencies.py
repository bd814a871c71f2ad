"""Assets in different currencies: refused, or converted so that returns are the owner's."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from portfolio_env import ArgumentError, DataError, PricePanel, load_market
from portfolio_env.data import cli
from portfolio_env.data.currencies import absolute, currencies_of
from portfolio_env.data.load import load_panel

DAYS = pd.bdate_range("2024-01-02", periods=3)
CLOSES = pd.DataFrame({"SAP": [100.0, 110.0, 99.0], "MSFT": [200.0, 210.0, 220.0]}, DAYS)
EUROS = [1.10, 1.20, 1.00]  # dollars
LABELS = {"SAP": {"currency": "EUR"}, "MSFT": {"currency": "USD"}}
BY_HAND = [[110.0, 200.0], [132.0, 210.0], [99.0, 220.0]]


def in_dollars(rates, frame=CLOSES, **options):
    options = {"metadata": LABELS, "assets": ["SAP", "MSFT"]} | options
    return load_panel(frame, base_currency="USD", exchange_rates=rates, **options)


def test_different_currencies_are_refused_with_the_mend():
    mend = r"EUR: SAP; USD: MSFT.*base_currency='.*exchange_rates={'...': \.\.\.}"
    with pytest.raises(DataError, match=mend):
        load_market(CLOSES, metadata=LABELS)
    assert load_market(CLOSES, metadata=LABELS, assets=["SAP"]).assets == ("SAP",)
    assert load_market(CLOSES, metadata={"SAP": {"currency": "EUR"}}).n_assets == 2


def long_of(name, *, shape="long"):
    long = CLOSES.stack().rename("close").rename_axis(["date", "symbol"]).reset_index()
    long[name] = np.where(long["symbol"] == "SAP", "eur", "USD")
    if shape == "each":
        return [own.drop(columns="symbol") for _, own in long.groupby("symbol")]
    return long


@pytest.mark.parametrize("name", ["currency", "Currency", "ccy", "quote_currency", "quoteCurrency"])
def test_a_column_of_currencies_is_read(tmp_path, name):
    long = long_of(name)
    long.to_csv(tmp_path / "long.csv", index=False)
    own = {str(at): frame for at, frame in long.groupby("symbol")}
    for symbol, frame in own.items():
        (tmp_path / "folder").mkdir(exist_ok=True)
        frame.drop(columns="symbol").to_csv(tmp_path / "folder" / f"{symbol}.csv", index=False)
    levels = long.rename(columns={name: "currency"}).pivot(index="date", columns="symbol")
    for source in (long, tmp_path / "long.csv", tmp_path / "folder", own, levels):
        with pytest.raises(DataError, match=r"different currencies \(EUR: SAP; USD: MSFT\)"):
            load_market(source)
        assert load_market(source, assets=["SAP"]).n_assets == 1
        made = load_panel(
            source, base_currency="USD", exchange_rates={"EUR": pd.Series(EUROS, DAYS)}
        )
        places = [made.assets.index(asset) for asset in ("SAP", "MSFT")]
        np.testing.assert_allclose(made.close[:, places], BY_HAND, rtol=1e-15)
    repaired = {"repair": {"drop_duplicates": "first"}}
    with pytest.raises(DataError, match="different currencies"):
        load_market(tmp_path / "long.csv", **repaired)
    labels = {"SAP": {"currency": "USD"}, "MSFT": {"currency": "USD"}}
    assert load_market(long, metadata=labels).n_assets == 2


def test_an_asset_is_quoted_in_one_currency(tmp_path):
    long = long_of("currency").assign(currency=["EUR", "USD", "EUR", "", "GBP", "USD"])
    long.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(DataError, match=r"line 6.*currency of 'SAP: GBP after EUR'; give each"):
        load_market(tmp_path / "long.csv")
    halves = [long.iloc[:2], long.iloc[4:]]
    with pytest.raises(DataError, match="quotes SAP in GBP, another table in EUR: convert"):
        load_market(halves)
    same = long.assign(currency=["USD", "usd", np.nan, "USD", None, "N/A"])
    assert currencies_of(load_panel(same)) == ["USD", "USD"]


@pytest.mark.parametrize(
    ("names", "is_refused"),
    [
        (("BTC/USDT", "ETH/BTC"), True),
        (("BTC/USDT", "ETH/USDT"), False),
        (("BTC/USDT:USDT", "ETH/USD"), True),
        (("EURUSD=X", "USDJPY=X"), True),
        (("AAA", "BRK-B"), False),
    ],
)
def test_names_of_pairs_tell_what_they_are_quoted_in(names, is_refused):
    frame = CLOSES.set_axis(names, axis=1)
    if not is_refused:
        assert load_market(frame).n_assets == 2
        return
    with pytest.raises(DataError, match="quoted in different currencies"):
        load_market(frame)


@pytest.fixture(params=["series", "asset", "turned", "slash", "csv", "table", "pair table"])
def euros(request, write):
    """A frame, and rates of the euro in one of the ways to give them."""
    kind, frame = request.param, CLOSES
    lines = [f"{day:%Y-%m-%d},{rate!r}" for day, rate in zip(DAYS, EUROS, strict=True)]
    if kind == "series":
        return frame, {"EUR": pd.Series(EUROS, DAYS)}
    if kind == "csv":
        return frame, {"EUR": write("date,rate", *lines)}
    if kind == "table":
        return frame, write("date,EUR", *lines)
    if kind == "pair table":
        return frame, pd.DataFrame({"EURUSD=X": EUROS, "GBPUSD=X": 2.0}, DAYS)
    name = {"asset": "EURUSD", "slash": "EUR/USD", "turned": "USDEUR"}[kind]
    rates = np.array(EUROS) ** (-1 if kind == "turned" else 1)
    return frame.assign(**{name: rates}), {"EUR": name}


def test_returns_are_those_in_the_base_currency_by_hand(euros):
    frame, rates = euros
    panel = in_dollars(rates, frame)
    np.testing.assert_allclose(panel.close, BY_HAND, rtol=1e-15)
    growth = panel.close[1:] / panel.close[:-1]  # of SAP: 1.1 x 1.2 / 1.1, and 0.9 x 1.0 / 1.2
    np.testing.assert_allclose(growth[:, 0], [1.2, 0.75], rtol=1e-15)
    assert currencies_of(panel) == ["USD", "USD"]
    assert load_market(panel).assets == panel.assets  # it is not refused again


def test_a_rate_among_the_assets_stays_one_unless_it_is_turned_over():
    frame = CLOSES.assign(EURUSD=EUROS)
    panel = in_dollars({"EUR": "EURUSD"}, frame, assets=None)
    assert panel.assets == ("SAP", "MSFT", "EURUSD")
    np.testing.assert_array_equal(panel.close[:, 2], EUROS)
    frame = CLOSES.assign(USDEUR=1 / np.array(EUROS))
    assert in_dollars({"EUR": "USDEUR"}, frame, assets=None).assets == ("SAP", "MSFT")


def test_all_prices_are_scaled_and_volume_is_not():
    bars = {
        "open": [[9.0], [11.0]], "high": [[12.0], [12.0]], "low": [[8.0], [9.0]],
        "close": [[10.0], [10.0]], "volume": [[5.0], [6.0]],
    }  # fmt: skip
    panel = PricePanel(
        DAYS[:2].to_numpy("M8[ns]"), ("X/EUR",), **{k: np.array(v) for k, v in bars.items()}
    )
    made = load_panel(
        panel, base_currency="USD", exchange_rates={"EUR": pd.Series([2.0, 4.0], DAYS[:2])}
    )
    for name, values in bars.items():
        expected = np.array(values) * ([[1], [1]] if name == "volume" else [[2.0], [4.0]])
        np.testing.assert_array_equal(getattr(made, name), expected)


def test_pence_are_hundredths_of_pounds():
    labels = {"SAP": {"currency": "GBp"}, "MSFT": {"currency": "GBP"}}
    assert load_panel(CLOSES, metadata=labels).assets == ("SAP", "MSFT")  # one currency
    panel = in_dollars({"GBP": 1.25}, metadata=labels)
    np.testing.assert_allclose(panel.close, CLOSES * [0.0125, 1.25], rtol=1e-15)


def test_a_rate_holds_for_a_week_and_not_longer():
    days = pd.bdate_range("2024-01-02", periods=9)
    frame = pd.DataFrame({"SAP": 100.0, "MSFT": 1.0}, days)
    first = pd.Series([1.5], [days[0]])
    panel = in_dollars({"EUR": first}, frame.iloc[:6])
    np.testing.assert_array_equal(panel.close[:, 0], 150)
    with pytest.raises(DataError, match=r"no rate of EUR for SAP at 2024-01-10.*a later start"):
        in_dollars({"EUR": first}, frame)
    with pytest.raises(DataError, match="no rate of EUR for SAP at 2024-01-02"):
        in_dollars({"EUR": pd.Series([1.5], [days[1]])}, frame)


def test_daily_rates_are_known_at_the_end_of_their_day():
    hours = pd.date_range("2024-01-02T22:00", periods=4, freq="h")
    frame = pd.DataFrame({"SAP": 100.0, "MSFT": 1.0}, hours)
    rates = pd.Series([1.0, 2.0, 3.0], pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-03"]))
    np.testing.assert_array_equal(
        in_dollars({"EUR": rates}, frame).close[:, 0], [100, 100, 200, 200]
    )


def test_daily_bars_take_the_last_rate_of_their_day():
    hours = pd.date_range("2024-01-01T12:00", "2024-01-04T20:00", freq="h")
    rates = pd.Series(hours.day + hours.hour / 100, hours)
    panel = in_dollars({"EUR": rates}, pd.DataFrame({"SAP": 100.0, "MSFT": 1.0}, DAYS))
    np.testing.assert_allclose(panel.close[:, 0], [223, 323, 420])


@pytest.mark.parametrize("name", ["USDEUR", "USD/EUR", "EUR=X", "EURUSD", "EUR", "rate", None])
def test_the_name_of_a_series_tells_its_way_as_that_of_a_column_does(name):
    turned = name in ("USDEUR", "USD/EUR", "EUR=X")
    rates = pd.Series(np.array(EUROS) ** (-1 if turned else 1), DAYS, name=name)
    for own in (rates, rates.to_frame(name or "EUR")):
        np.testing.assert_allclose(in_dollars({"EUR": own}).close, BY_HAND, rtol=1e-15)


@pytest.mark.parametrize("name", ["EURJPY", "GBP/USD", "DEXUSEU", "USDCHF=X"])
def test_a_pair_of_other_currencies_is_no_rate(name):
    rates = pd.Series(EUROS, DAYS, name=name)
    for own in (rates, rates.to_frame()):
        with pytest.raises(ArgumentError, match=f"{name} is no rate of EUR in USD by its name"):
            in_dollars({"EUR": own})


def test_codes_are_written_in_capitals_but_for_hundredths():
    labels = {"SAP": {"currency": "eur"}, "MSFT": {"currency": "USD"}}
    np.testing.assert_allclose(
        in_dollars({"eur": pd.Series(EUROS, DAYS)}, metadata=labels).close, BY_HAND, rtol=1e-15
    )
    labels = {"SAP": {"currency": "usd"}, "MSFT": {"currency": "USD"}}
    assert load_market(CLOSES, metadata=labels).n_assets == 2
    labels = {"SAP": {"currency": "GBp"}, "MSFT": {"currency": "USD"}}
    with pytest.raises(ArgumentError, match="GBp is a hundredth of GBP: give the rate of GBP"):
        in_dollars({"GBp": 0.0125}, metadata=labels)
    for base in ("GBp", "usd"):
        with pytest.raises(ArgumentError, match=f"base_currency='{base}' must be the code"):
            load_panel(CLOSES, metadata=labels, base_currency=base)


@given(st.integers(0, 999), st.integers(1, 28))
def test_a_later_rate_changes_nothing_before_it(seed, row):
    rng = np.random.default_rng(seed)
    days = pd.bdate_range("2024-01-02", periods=30)
    frame = pd.DataFrame(np.exp(rng.normal(0, 0.1, (30, 2)).cumsum(0)), days, ["SAP", "MSFT"])
    kept = (rng.random(30) > 0.3) | (np.arange(30) % 5 == 0)  # one of each week
    rates = pd.Series(rng.uniform(0.5, 2, 30), days)[kept]
    changed = rates.where(rates.index <= days[row], rates * 3)
    one, other = (in_dollars({"EUR": each}, frame).close for each in (rates, changed))
    np.testing.assert_array_equal(one[: row + 1], other[: row + 1])
    known = rates.sort_index().reindex(days).ffill().to_numpy()
    np.testing.assert_allclose(one[:, 0], frame["SAP"] * known, rtol=1e-15)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"exchange_rates": {}}, "no rate of EUR in USD: give exchange_rates={'EUR'"),
        ({"exchange_rates": {"EUR": "EURUSD"}}, "'EURUSD' must be a number, an asset or a file"),
        ({"exchange_rates": {"EUR": "MSFT"}}, "MSFT is no rate of EUR in USD by its name"),
        ({"exchange_rates": {"EUR": 0}}, r"exchange_rates\['EUR'\]=0"),
        ({"base_currency": "US dollar"}, "must be the code of a currency"),
        ({"base_currency": None, "exchange_rates": {"EUR": 1}}, "are for base_currency"),
        ({"metadata": {"SAP": {"currency": "EUR"}}}, r"currency of \['MSFT'\] \(1\) is unknown"),
    ],
)
def test_what_cannot_be_converted_is_refused(options, text):
    given = {"base_currency": "USD", "exchange_rates": {"EUR": 1.1}, "metadata": LABELS} | options
    with pytest.raises((ArgumentError, DataError), match=text):
        load_panel(CLOSES, **given)


def test_a_converted_market_is_not_converted_twice(tmp_path):
    market = load_market(CLOSES, metadata=LABELS, base_currency="USD", exchange_rates={"EUR": 2.0})
    market.save(tmp_path / "market.npz")
    again = load_panel(tmp_path / "market.npz", base_currency="USD", exchange_rates={"EUR": 2.0})
    np.testing.assert_array_equal(again.close, market.close)
    with pytest.raises(ArgumentError, match="the prices are in USD already"):
        load_panel(tmp_path / "market.npz", base_currency="EUR")


def test_the_command_line_converts(write, tmp_path):
    rows = [f"{day:%Y-%m-%d},{name},{CLOSES.at[day, name]}" for day in DAYS for name in CLOSES] + [
        f"{day:%Y-%m-%d},EURUSD,{rate}" for day, rate in zip(DAYS, EUROS, strict=True)
    ]
    source = write("date,symbol,close", *rows)
    labels = tmp_path / "labels.csv"
    labels.write_text("symbol,currency\nSAP,EUR\nMSFT,USD\n")
    out = tmp_path / "market.npz"
    options = {"metadata": labels, "base_currency": "USD", "exchange_rates": "EUR=EURUSD"}
    assert cli.Convert(str(source), out, assets="SAP,MSFT", **options).run() == 0
    np.testing.assert_allclose(load_market(out).close, BY_HAND, rtol=1e-15)


def test_settings_keep_files_of_rates_by_their_whole_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "jpy.csv").write_text("date,rate\n")
    expected = f"EUR=EURUSD=X,JPY={tmp_path / 'jpy.csv'},USDT=1"
    assert absolute("EUR=EURUSD=X, JPY=jpy.csv,USDT=1") == expected
    assert absolute("jpy.csv") == str(tmp_path / "jpy.csv")
