"""How exchanges say it: the REST endpoints for markets and candles of five of them.

Each `..._candles(server, path, query)` gives None for other paths, else the symbol, the timeframe,
the rows [opens, open, high, low, close, volume] in the exchange's order and number, the start and
the limit that were asked for, and a function that says rows as the exchange does.
"""

import re

import numpy as np

STEPS = {
    "1m": 60_000,
    "5m": 300_000,
    "15m": 900_000,
    "30m": 1_800_000,
    "1h": 3_600_000,
    "4h": 14_400_000,
    "1d": 86_400_000,
    "1w": 604_800_000,
}
COINBASE = {
    "ONE_MINUTE": "1m",
    "FIVE_MINUTE": "5m",
    "FIFTEEN_MINUTE": "15m",
    "THIRTY_MINUTE": "30m",
    "ONE_HOUR": "1h",
    "ONE_DAY": "1d",
}
KUCOIN = {"min": "m", "hour": "h", "day": "d", "week": "w"}
SYMBOLS = {
    "binance": ("BTC/USDT", "ETH/USDT", "SOL/USDT"),
    "binanceus": ("BTC/USDT", "ETH/USDT", "SOL/USDT"),
    "coinbase": ("BTC/USD", "ETH/USD"),
    "kraken": ("BTC/USD", "ETH/USD"),
    "kucoin": ("BTC/USDT", "ETH/USDT"),
}


def ms(text):
    """Milliseconds since 1970 of a date."""
    return int(np.datetime64(text, "ms").astype(np.int64))


def texts(row):
    """Numbers as the exchanges write them; what is null stays so."""
    return [None if value is None else f"{value:.8f}" for value in row]


def symbol_of(exchange, name, mark):
    """The symbol that an exchange calls by this name."""
    known = {mark(*symbol.split("/")): symbol for symbol in SYMBOLS[exchange]}
    return known.get(name)


# Binance: the next `limit` candles from startTime on, oldest first, at most 1000.


def binance_candles(server, path, query, exchange="binance"):
    if path != "api/v3/klines":
        return None
    symbol = symbol_of(exchange, query["symbol"], lambda base, quote: base + quote)
    timeframe = query["interval"]
    step, start = STEPS[timeframe], int(query["startTime"])
    limit = min(int(query["limit"]), 1000)
    first = max(start, server.listed.get(symbol, ms("2017-01-01")) - step + 1)
    end = int(query.get("endTime", server.now)) + 1
    rows = []
    while len(rows) < limit and first < end:
        upto = min(first + limit * step, end)
        more = server.times(symbol, timeframe, first, upto)
        rows += [server.candle(symbol, timeframe, t) for t in more]
        first = upto
    rows = rows[:limit]

    def say(rows):
        return [[r[0], *texts(r[1:]), r[0] + step - 1, "1.0", 9, "0.5", "0.5", "0"] for r in rows]

    return symbol, timeframe, rows, start, limit, say


def binance_markets(server, path, query, exchange="binance"):
    if path == "api/v3/time":
        return {"serverTime": server.now}
    if path in ("fapi/v1/exchangeInfo", "dapi/v1/exchangeInfo"):
        return {"timezone": "UTC", "serverTime": server.now, "symbols": []}
    if path != "api/v3/exchangeInfo":
        return None
    symbols = [
        {
            "symbol": symbol.replace("/", ""),
            "status": "TRADING",
            "baseAsset": symbol.split("/")[0],
            "baseAssetPrecision": 8,
            "quoteAsset": symbol.split("/")[1],
            "quotePrecision": 8,
            "isSpotTradingAllowed": True,
            "isMarginTradingAllowed": False,
            "orderTypes": ["LIMIT", "LIMIT_MAKER", "MARKET"],
            "filters": [
                {
                    "filterType": "PRICE_FILTER",
                    "minPrice": "0.01000000",
                    "maxPrice": "1000000.00000000",
                    "tickSize": "0.01000000",
                },
                {
                    "filterType": "LOT_SIZE",
                    "minQty": "0.00001000",
                    "maxQty": "9000.00000000",
                    "stepSize": "0.00001000",
                },
                {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
            ],
            "permissions": ["SPOT"],
        }
        for symbol in SYMBOLS[exchange]
    ]
    return {"timezone": "UTC", "serverTime": server.now, "rateLimits": [], "symbols": symbols}


# Coinbase: the candles that open in [start, end], newest first; more than 350 are refused.


def coinbase_candles(server, path, query):
    match = re.fullmatch(r"api/v3/brokerage/market/products/([^/]+)/candles", path)
    if match is None:
        return None
    symbol = symbol_of("coinbase", match[1], lambda base, quote: f"{base}-{quote}")
    timeframe = COINBASE[query["granularity"]]
    start, end = int(query["start"]) * 1000, int(query["end"]) * 1000
    assert (end - start) // STEPS[timeframe] < 350, "INVALID_ARGUMENT: less than 350 candles"
    times = server.times(symbol, timeframe, start, end + 1)
    rows = [server.candle(symbol, timeframe, t) for t in times][::-1]
    names = ("low", "high", "open", "close", "volume")
    order = (3, 2, 1, 4, 5)

    def say(rows):
        return {
            "candles": [
                {"start": str(r[0] // 1000)}
                | dict(zip(names, texts([r[i] for i in order]), strict=True))
                for r in rows
            ]
        }

    return symbol, timeframe, rows, start, 300, say


def coinbase_markets(server, path, query):
    if path == "v2/time":
        return {"data": {"epoch": server.now // 1000, "iso": ""}}
    if path == "v2/currencies":
        return {"data": [{"id": "USD", "name": "US Dollar", "min_size": "0.01"}]}
    if path == "v2/currencies/crypto":
        names = [symbol.split("/")[0] for symbol in SYMBOLS["coinbase"]]
        return {"data": [{"asset_id": n, "code": n, "name": n, "type": "crypto"} for n in names]}
    if path == "v2/exchange-rates":
        return {"data": {"currency": "USD", "rates": {"BTC": "0.00001", "ETH": "0.0003"}}}
    if path != "api/v3/brokerage/market/products":
        return None
    if query.get("product_type") == "FUTURE":
        return {"products": [], "num_products": 0}
    products = [
        {
            "product_id": symbol.replace("/", "-"),
            "price": "1.5",
            "base_increment": "0.00000001",
            "quote_increment": "0.01",
            "quote_min_size": "1",
            "quote_max_size": "150000000",
            "base_min_size": "0.00000001",
            "base_max_size": "3400",
            "status": "online",
            "trading_disabled": False,
            "product_type": "SPOT",
            "base_currency_id": symbol.split("/")[0],
            "quote_currency_id": symbol.split("/")[1],
            "alias": "",
            "alias_to": [],
            "price_increment": "0.01",
        }
        for symbol in SYMBOLS["coinbase"]
    ]
    return {"products": products, "num_products": len(products)}


# Kraken: candles after `since`, but only the newest 720, the running one included.

KRAKEN_PAIRS = {"XXBTZUSD": "BTC/USD", "XETHZUSD": "ETH/USD"}


def kraken_candles(server, path, query):
    if path != "0/public/OHLC":
        return None
    symbol = KRAKEN_PAIRS[query["pair"]]
    minutes = int(query["interval"])
    timeframe = next(name for name, step in STEPS.items() if step == minutes * 60_000)
    since = int(query["since"]) * 1000
    start = max(since + 1, server.now - 721 * STEPS[timeframe])
    times = server.times(symbol, timeframe, start, server.now + 1)[-720:]
    rows = [server.candle(symbol, timeframe, t) for t in times]

    def say(rows):
        said = []
        for row in rows:
            *prices, volume = texts(row[1:])
            said.append([row[0] // 1000, *prices, prices[0], volume, 5])
        last = rows[-1][0] // 1000 if rows else 0
        return {"error": [], "result": {query["pair"]: said, "last": last}}

    return symbol, timeframe, rows, since + minutes * 60_000, 720, say


def kraken_markets(server, path, query):
    if path == "0/public/Time":
        return {"error": [], "result": {"unixtime": server.now // 1000, "rfc1123": ""}}
    if path == "0/public/Assets":
        names = {"XXBT": "XBT", "XETH": "ETH", "ZUSD": "USD"}
        return {
            "error": [],
            "result": {
                id_: {
                    "aclass": "currency",
                    "altname": name,
                    "decimals": 10,
                    "display_decimals": 5,
                    "status": "enabled",
                }
                for id_, name in names.items()
            },
        }
    if path != "0/public/AssetPairs":
        return None
    pairs = {
        id_: {
            "altname": f"{id_[1:4]}USD",
            "wsname": f"{id_[1:4]}/USD",
            "aclass_base": "currency",
            "base": id_[:4],
            "aclass_quote": "currency",
            "quote": "ZUSD",
            "lot": "unit",
            "pair_decimals": 1,
            "lot_decimals": 8,
            "lot_multiplier": 1,
            "leverage_buy": [],
            "leverage_sell": [],
            "fees": [[0, 0.26]],
            "fees_maker": [[0, 0.16]],
            "fee_volume_currency": "ZUSD",
            "ordermin": "0.0001",
            "costmin": "0.5",
            "status": "online",
        }
        for id_ in KRAKEN_PAIRS
    }
    return {"error": [], "result": pairs}


# KuCoin: the candles that open in [startAt, endAt), newest first, at most 1500.


def kucoin_candles(server, path, query):
    if path != "api/v1/market/candles":
        return None
    symbol = symbol_of("kucoin", query["symbol"], lambda base, quote: f"{base}-{quote}")
    number, unit = re.fullmatch(r"(\d+)([a-z]+)", query["type"]).groups()
    timeframe = number + KUCOIN[unit]
    start, end = int(query["startAt"]) * 1000, int(query["endAt"]) * 1000
    times = server.times(symbol, timeframe, start, end)
    rows = [server.candle(symbol, timeframe, t) for t in times][::-1][:1500]

    def say(rows):
        said = []
        for row in rows:
            start, high, low, close, volume = texts(row[1:])
            said.append([str(row[0] // 1000), start, close, high, low, volume, "1.0"])
        return {"code": "200000", "data": said}

    return symbol, timeframe, rows, start, 1500, say


def kucoin_markets(server, path, query):
    if path == "api/v1/timestamp":
        return {"code": "200000", "msg": "success", "data": server.now}
    if path == "api/v3/currencies":
        names = ("BTC", "ETH", "USDT")
        chain = {"chainName": "X", "chainId": "x", "withdrawPrecision": 8}
        return {
            "code": "200000",
            "data": [
                {"currency": n, "name": n, "fullName": n, "precision": 8, "chains": [chain]}
                for n in names
            ],
        }
    if path == "api/v1/market/allTickers":
        tickers = [
            {
                "symbol": symbol.replace("/", "-"),
                "takerFeeRate": "0.001",
                "makerFeeRate": "0.001",
                "takerCoefficient": "1",
                "makerCoefficient": "1",
            }
            for symbol in SYMBOLS["kucoin"]
        ]
        return {"code": "200000", "data": {"time": server.now, "ticker": tickers}}
    if path == "api/v1/contracts/active":
        return {"code": "200000", "data": []}
    if path != "api/v2/symbols":
        return None
    symbols = [
        {
            "symbol": symbol.replace("/", "-"),
            "name": symbol.replace("/", "-"),
            "baseCurrency": symbol.split("/")[0],
            "quoteCurrency": symbol.split("/")[1],
            "feeCurrency": symbol.split("/")[1],
            "market": "USDS",
            "baseMinSize": "0.00001",
            "quoteMinSize": "0.01",
            "baseMaxSize": "10000000000",
            "quoteMaxSize": "99999999",
            "baseIncrement": "0.00000001",
            "quoteIncrement": "0.000001",
            "priceIncrement": "0.1",
            "isMarginEnabled": False,
            "enableTrading": True,
        }
        for symbol in SYMBOLS["kucoin"]
    ]
    return {"code": "200000", "data": symbols}


def binanceus_candles(server, path, query):
    return binance_candles(server, path, query, "binanceus")


def binanceus_markets(server, path, query):
    return binance_markets(server, path, query, "binanceus")


CANDLES = {
    "binance": binance_candles,
    "binanceus": binanceus_candles,
    "coinbase": coinbase_candles,
    "kraken": kraken_candles,
    "kucoin": kucoin_candles,
}
MARKETS = {
    "binance": binance_markets,
    "binanceus": binanceus_markets,
    "coinbase": coinbase_markets,
    "kraken": kraken_markets,
    "kucoin": kucoin_markets,
}
