import json

import numpy as np
import pandas as pd
import pytest

from portfolio_env import ArgumentError, DataError, PricePanel, load_market
from portfolio_env.data.metadata import with_categories

ROWS = [
    {"symbol": "B", "sector": "Tech ", "region": "NA", "rank": 1, "note": "x"},
    {"symbol": "A", "sector": "Energy", "region": None, "rank": 2, "note": "y"},
    {"symbol": "Z", "sector": "Health", "region": "EU", "rank": 3, "note": "z"},
]
EXPECTED = {"sector": ("Energy", "Tech", ""), "region": ("", "NA", "")}


@pytest.fixture
def panel():
    return PricePanel(np.array(["2020-01-01"], "M8[ns]"), ("A", "B", "C"), close=np.ones((1, 3)))


@pytest.fixture(params=["csv", "csv.gz", "parquet", "json", "mapping", "json mapping"])
def source(request, tmp_path):
    by_symbol = {row["symbol"]: {k: v for k, v in row.items() if k != "symbol"} for row in ROWS}
    kind = request.param
    path = tmp_path / f"meta.{kind.split()[0]}"
    if kind == "mapping":
        return by_symbol
    if kind.startswith("json"):
        path.write_text(json.dumps(by_symbol if "mapping" in kind else ROWS))
    elif kind == "parquet":
        pd.DataFrame(ROWS).to_parquet(path)
    else:
        pd.DataFrame(ROWS).to_csv(path, index=False)
    return path


def test_labels_follow_the_panel_whatever_the_source(panel, source):
    labelled = with_categories(panel, source)
    assert labelled.categories == EXPECTED
    about = labelled.provenance["metadata"]
    assert (about["columns"], about["unlabelled"]) == (["sector", "region"], ["C"])
    json.dumps(about)
    assert with_categories(panel, source, columns=["note"]).categories == {"note": ("y", "x", "")}
    assert with_categories(panel, source, columns=["rank"]).categories["rank"] == ("2", "1", "")


def test_categories_of_other_names_stay_and_those_of_the_same_are_replaced(panel):
    once = with_categories(panel, {"A": {"sector": "old", "currency": "USD"}})
    twice = with_categories(once, {"A": {"sector": "new"}})
    assert twice.categories == {"sector": ("new", "", ""), "currency": ("USD", "", "")}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("symbol,sector\nA,x\nA,y\n", "line 3: a second row for 'A'; delete"),
        ("symbol,sector\nA,x\n,y\n", "line 3: there is no symbol; name"),
        ("ticker,sector\nA,x\n", r"lacks the column symbol; it has \['ticker', 'sector'\]"),
        ("symbol,colour\nA,red\n", r"none of the labels .*'sector'.*columns="),
        ("symbol,sector\nA,1\n", "none of the labels"),
        ("symbol,sector\n", "holds no rows"),
    ],
)
def test_tables_that_cannot_be(panel, tmp_path, text, error):
    path = tmp_path / "meta.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=error) as raised:
        with_categories(panel, path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", ["3", '{"A": "Tech"}', "[1]", "{"])
def test_json_that_is_no_table(panel, tmp_path, content):
    path = tmp_path / "meta.json"
    path.write_text(content)
    with pytest.raises(DataError, match=r"is not a table of labels|cannot be read"):
        with_categories(panel, path)


def test_unknown_columns_have_near_matches(panel, source):
    with pytest.raises(ArgumentError, match="'sectr': did you mean sector"):
        with_categories(panel, source, columns=["sectr"])


def test_load_market_with_metadata_survives_saving(tmp_path):
    name = "synthetic?bars=50&assets=3"
    symbols = load_market(name).assets
    labels = {symbol: {"sector": f"s{i}"} for i, symbol in enumerate(symbols)}
    market = load_market(name, metadata=labels, assets=symbols[:0:-1])
    assert market.panel.categories == {"sector": ("s2", "s1")}
    market.save(tmp_path / "m.npz")
    assert load_market(tmp_path / "m.npz").panel.categories == {"sector": ("s2", "s1")}
    again = load_market(tmp_path / "m.npz", metadata={symbols[1]: {"region": "EU"}})
    assert again.panel.categories == {"sector": ("s2", "s1"), "region": ("", "EU")}


def test_real_sectors(shared_data):
    path = shared_data / "us_equities_meta.csv"
    market = load_market(shared_data / "us_equities_daily.csv.gz", metadata=path)
    assert list(market.panel.categories) == ["sector"]
    sectors = dict(zip(market.assets, market.panel.categories["sector"], strict=True))
    table = pd.read_csv(path).set_index("symbol")["sector"].fillna("")
    assert sectors == {symbol: table[symbol] for symbol in market.assets}
    assert len(set(sectors.values())) >= 8


def test_frames_and_series_of_labels(panel):
    table = pd.DataFrame({"symbol": [*panel.assets, "none"], "sector": "Tech"})
    named = [table, table.rename(columns={"symbol": "Ticker"}), table.set_index("symbol")]
    for source in (*named, table.set_index("symbol")["sector"]):
        assert with_categories(panel, source).categories["sector"] == ("Tech",) * len(panel.assets)
    with pytest.raises(DataError, match=r"rename\('sector'\)"):
        with_categories(panel, table.set_index("symbol")["sector"].rename(None))
