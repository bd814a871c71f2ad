"""Tables that papers print, reproduced where their data are; the form of the data files."""

import json

import numpy as np
import pandas as pd
import pytest

from benchmarks.tables import __main__ as command
from benchmarks.tables import dgu2009, hrp2016, sood2023
from benchmarks.tables.table import Table


@pytest.fixture
def papers(shared_data):
    """The folder of the papers' data."""
    folder = shared_data.parent / "papers"
    if not folder.is_dir():
        pytest.skip("the papers' data are not beside the repository (../shared/papers)")
    return folder


def columns(folder, months=126, name="other"):
    """Writes a column of the form of the paper's, three assets and the bill."""
    rng = np.random.default_rng(0)
    days = pd.date_range("1990-12-31", periods=months, freq="ME", name="date")
    bill = pd.DataFrame({"rf": rng.uniform(0.002, 0.006, months - 1)}, days[1:])
    returns = bill.to_numpy() + rng.normal(0.006, 0.04, (months - 1, 3))
    for kind, part in (("", returns), ("excess_", returns - bill.to_numpy())):
        close = np.vstack([np.full(3, 100.0), 100 * np.cumprod(1 + part, axis=0)])
        frame = pd.DataFrame(close, days, ["A", "B", "C"])
        frame.to_csv(folder / f"dgu_{name}_{kind}monthly.csv.gz")
    bill.to_csv(folder / f"dgu_{name}_rf.csv.gz")


@pytest.mark.slow
def test_every_printed_number_of_the_sectors_follows(papers):
    table = next(dgu2009.tables(papers, name="sp_sectors"))
    assert table.ours.keys() == table.printed.keys()
    for row, numbers in table.printed.items():
        for column, number in numbers.items():
            digits = 2 if column == "p" or number > 1 else 4
            if not np.isnan(number):
                own = round(table.ours[row][column], digits)
                assert own == pytest.approx(number), (row, column)


def test_another_column_of_that_form_is_read(tmp_path):
    """Of total returns with the bill and of excess returns the accounts earn the same."""
    columns(tmp_path)
    printed = {key: {"mv": {"other": 0.5}, "1/N": {"other": 0.25}} for key in dgu2009.RENAMED}
    (tmp_path / "dgu2009.json").write_text(json.dumps(printed))
    (whole,) = dgu2009.tables(tmp_path)
    assert whole.printed["mv"]["Sharpe"] == 0.5 and np.isnan(whole.printed["min"]["p"])
    (excess,) = dgu2009.tables(tmp_path / "dgu_other_excess_monthly.csv.gz", name="other")
    for row, numbers in whole.ours.items():
        for column in ("Sharpe", "CEQ", "p"):
            other = excess.ours[row][column]
            assert numbers[column] == pytest.approx(other, rel=1e-4, nan_ok=True), (row, column)


def test_a_bill_that_is_too_short_is_refused(tmp_path):
    columns(tmp_path)
    file = tmp_path / "dgu_other_rf.csv.gz"
    pd.read_csv(file, index_col=0).iloc[:-1].to_csv(file)
    with pytest.raises(command.ArgumentError, match="no return of the bill for 2001-05"):
        next(dgu2009.tables(tmp_path))


def test_all_weights_of_the_example_follow():
    table = hrp2016.example()
    for asset, numbers in table.printed.items():
        for name, number in numbers.items():
            assert table.ours[asset][name] == pytest.approx(number, abs=0.0051), (asset, name)
    apart = [abs(row["HRP"] - row[hrp2016.OWN_TREE]) for row in table.ours.values()]
    assert max(apart) == pytest.approx(7.83, abs=0.01)


def test_the_monte_carlo_has_a_row_of_equal_weights(monkeypatch):
    monkeypatch.setattr(hrp2016, "DAYS", 30)
    monkeypatch.setattr(hrp2016, "EVERY", 15)
    table = hrp2016.monte_carlo(2)
    assert table.ours.keys() == {*hrp2016.VARIANCES, hrp2016.OWN_TREE, hrp2016.NAIVE}
    assert table.ours["1/N"]["variance"] > 0 and "1/N" not in table.printed
    assert table.ours == hrp2016.monte_carlo(2).ours


@pytest.mark.slow
def test_sectors_without_the_agent_are_near_what_is_printed(papers):
    free, costly = sood2023.tables(papers, seeds=0, steps=0)
    assert free.ours["MVO"]["return"] == pytest.approx(0.0653, abs=0.003)
    assert free.ours["1/N"]["Sharpe"] == pytest.approx(1.122, abs=2e-3)
    assert costly.ours["MVO"]["Sharpe"] < free.ours["MVO"]["Sharpe"]
    assert not costly.printed


def test_what_is_missing_is_named(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["tables", "dgu2009", "--data", str(tmp_path)])
    command.main()
    assert "dgu2009: skipped, --data has no dgu_NAME_monthly" in capsys.readouterr().out
    monkeypatch.setattr("sys.argv", ["tables", "online", "--data", str(tmp_path / "none")])
    with pytest.raises(SystemExit, match=r"error: --data=.*none does not exist"):
        command.main()


def test_a_table_has_what_is_printed_beside_what_is_ours():
    table = Table(
        "T", {"a": {"x": 0.12}}, {"a": {"x": 0.1234, "y": 2e7}, "b": {"x": 1.0}}, {"x": 2}
    )
    lines = table.text().splitlines()
    assert lines[2] == "|  | x, printed | ours | y |"
    assert lines[4:6] == ["| a | 0.12 | 0.12 | 2e+07 |", "| b |  | 1.00 |  |"]
