"""The way of a newcomer: download, train, and the next bar update and trade, in one command."""

import json
import sys

import numpy as np
import pandas as pd
import pytest
from helpers.exchange_dialects import STEPS
from helpers.small_runs import made_run

import trade
from portfolio_env.data.__main__ import main as data_main


@pytest.mark.parametrize(("timeframe", "since"), [("1d", "2023-08-01"), ("1h", "2023-12-24")])
def test_a_store_that_is_updated_gives_the_orders_of_its_new_bar(
    server, redirected, tmp_path, monkeypatch, capsys, timeframe, since
):
    store = tmp_path / "data"
    asked = ["--exchange", "binance", "--symbols", "BTC/USDT,ETH/USDT", "--since", since]
    fetched = ["fetch", *asked, "--timeframe", timeframe, "--store", str(store)]
    assert data_main(fetched) == 0
    folder = store / "binance" / timeframe
    run = made_run(tmp_path / "run", market=str(folder), observation="index")
    last = np.datetime64(server.now // STEPS[timeframe] * STEPS[timeframe], "ms")
    server.now += STEPS[timeframe]
    as_of = str(np.datetime64(server.now, "ms").astype("M8[s]"))

    def orders(*options):
        arguments = [run, "today", "--data", folder, "--as-of", as_of, "--lot", 0.001, *options]
        monkeypatch.setattr(sys, "argv", ["trade.py", *map(str, arguments)])
        status = trade.main()
        assert status in (0, trade.ALERT), capsys.readouterr().err
        return json.loads((run / "evaluation" / "today" / "today.json").read_text())

    before = orders("--capital", 10_000)
    capsys.readouterr()
    after = orders("--capital", 10_000, "--update")
    bars = [np.datetime64(each["bar"]) for each in (before, after)]
    step = np.timedelta64(STEPS[timeframe], "ms")
    assert bars == [last - step, last]
    table = pd.read_csv(run / "evaluation" / "today" / "orders.csv", index_col="asset")
    truth = {name: server.truth(name, timeframe, since)[1][-1, 3] for name in table.index[:-1]}
    assert table["price"].iloc[:-1].to_dict() == pytest.approx(truth)
    held = tmp_path / "h.csv"
    table["units_after"].rename("units").to_csv(held)
    again = orders("--holdings", held, "--update")
    assert again["value"] == pytest.approx(after["value"] - float(after["cost"]), rel=1e-12)
