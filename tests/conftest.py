"""What all tests share: real data where present, a small market, the hypothesis profile."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

from portfolio_env import Market, load_market

settings.register_profile("portfolio", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=40)
settings.register_profile("brief", deadline=None, max_examples=10)  # where "thorough" comes after
settings.register_profile(  # a fault is to be found, not explained
    "mutants", deadline=None, phases=(Phase.explicit, Phase.reuse, Phase.generate)
)
settings.load_profile("portfolio")

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real market data, which is not part of the repository."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real market data are not beside the repository (../shared/data)")
    return SHARED_DATA


@pytest.fixture(autouse=True)
def _torch(request):
    """In tests of agents torch has one thread, and every test the same draws."""
    if "agents" in request.path.parts:
        import torch as th

        th.set_num_threads(1)
        th.manual_seed(0)


@pytest.fixture(scope="session")
def market() -> Market:
    """A small synthetic market: 300 bars of 4 assets, 2 of them listed late or delisted."""
    return load_market("synthetic?seed=1&bars=300&assets=4&ragged=true", fit_end=200)


@pytest.fixture(scope="session")
def loopback():
    """A server that speaks as exchanges do, and the exchanges of ccxt that speak to it, by name."""
    from helpers.exchange_server import ExchangeServer

    exchanges: dict[str, Any] = {}
    with ExchangeServer() as running:
        yield running, exchanges
        for exchange in exchanges.values():
            exchange.session.close()


@pytest.fixture
def server(loopback):
    """The server, with nothing wrong."""
    loopback[0].reset()
    return loopback[0]


@pytest.fixture
def link(server, loopback):
    """Gives exchanges of ccxt that speak to the server and do not know its markets yet."""
    from helpers.exchange_server import connect

    def linked(name="binance"):
        exchanges = loopback[1]
        if name not in exchanges:
            exchanges[name] = connect(name, server.base)
        exchanges[name].markets = None
        # Short only where it is to pass: on a busy machine an answer may take a while.
        exchanges[name].timeout = 2_000 if "timeout" in server.faults.values() else 10_000
        return exchanges[name]

    return linked


@pytest.fixture
def waits(monkeypatch):
    """The waits before requests are made again, which do not take place."""
    from portfolio_env.data.downloads import exchange
    from portfolio_env.data.downloads.client import Retry

    seconds: list[float] = []
    monkeypatch.setattr(exchange, "Retry", lambda: Retry(sleep=seconds.append, random=lambda: 0.0))
    return seconds


@pytest.fixture
def redirected(monkeypatch, link, waits):
    """The exchanges of commands speak to the server."""
    from portfolio_env.data.downloads import exchange

    known = exchange.public_exchange

    def connected(name, symbols):
        return link(known(name, symbols).id)

    monkeypatch.setattr(exchange, "public_exchange", connected)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures stay blank: for tests of what surrounds them, as drawing takes most of a report."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "draw", lambda self, renderer: None)


@pytest.fixture
def write(tmp_path):
    """Writes lines to a file and gives its path."""

    def write(*lines, name="bars.csv"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write


@pytest.fixture
def own_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """Writes a module of a name and a source where Python finds it, for the length of a test."""
    folder = tmp_path / "own"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    written = set()

    def write(name: str, source: str) -> Path:
        file = folder / f"{name}.py"
        file.write_text(source)
        written.add(name)
        return file

    yield write
    for name in written & set(sys.modules):
        del sys.modules[name]
