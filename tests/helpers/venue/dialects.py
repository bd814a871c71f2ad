"""How Binance and Kraken say it: prices to trade at, and the endpoints of an account.

Each gives None for paths that it does not have, else a status and the content of the answer.
"""

from datetime import datetime
from decimal import Decimal

from helpers.exchange_dialects import KRAKEN_PAIRS, SYMBOLS
from helpers.venue.book import Refused

RULES = {
    "binance": (Decimal("0.00001"), Decimal("0.01"), Decimal("0.00001"), Decimal("5")),
    "kraken": (Decimal("1e-8"), Decimal("0.1"), Decimal("0.0001"), Decimal("0.5")),
}
BINANCE_REFUSALS = {
    "precision": (-1013, "Filter failure: LOT_SIZE"),
    "notional": (-1013, "Filter failure: NOTIONAL"),
    "duplicate": (-2010, "Duplicate order sent."),
    "funds": (-2010, "Account has insufficient balance for requested action."),
    "expired": (-1021, "Timestamp for this request is outside of the recvWindow."),
    "unknown": (-2011, "Unknown order sent."),
}
KRAKEN_REFUSALS = {
    "precision": "EGeneral:Invalid arguments:volume",
    "notional": "EOrder:Order minimum not met",
    "duplicate": "EOrder:Cl ord id already in use",
    "funds": "EOrder:Insufficient funds",
    "expired": "EOrder:Deadline elapsed",
    "unknown": "EOrder:Unknown order",
}
BINANCE_STATUS = {
    "open": "NEW", "filled": "FILLED", "expired": "EXPIRED", "cancelled": "CANCELED",
}  # fmt: skip
KRAKEN_STATUS = {
    "open": "open", "filled": "closed", "expired": "canceled", "cancelled": "canceled",
}  # fmt: skip
KRAKEN_CODES = {"BTC": "XXBT", "ETH": "XETH", "USD": "ZUSD"}


def rules(exchange):
    """{symbol: rules of trading} of an exchange."""
    return dict.fromkeys(SYMBOLS[exchange], RULES[exchange])


def refusal(exchange, word):
    """The answer that refuses."""
    if exchange == "kraken":
        return 200, {"error": [KRAKEN_REFUSALS[word]]}
    code, message = BINANCE_REFUSALS[word]
    return 400, {"code": code, "msg": message}


def order_asked(exchange, path, method, query, server):
    """The order that a request places, and until when it is valid; None for other requests."""
    if exchange == "binance" and (method, path) == ("POST", "api/v3/order"):
        order = {
            "client": query.get("newClientOrderId", ""),
            "symbol": of_binance(query["symbol"]),
            "side": query["side"].lower(),
            "units": query["quantity"],
            "price": query.get("price"),
            "keeps": query["type"] == "LIMIT" and query["timeInForce"] == "GTC",
        }
        return order, int(query["timestamp"]) + int(query.get("recvWindow", 5000))
    if exchange == "kraken" and path == "0/private/AddOrder":
        limit = query["ordertype"] == "limit"
        order = {
            "client": query.get("cl_ord_id", ""),
            "symbol": KRAKEN_PAIRS[query["pair"]],
            "side": query["type"],
            "units": query["volume"],
            "price": query.get("price"),
            "keeps": limit and query.get("timeinforce", "GTC") == "GTC",
        }
        deadline = query.get("deadline")
        if deadline is None:
            return order, None
        until = int(datetime.fromisoformat(deadline).timestamp() * 1000)
        assert 2_000 <= until - server.now <= 60_000 or until < server.now, "deadline 2 to 60 s"
        return order, until
    return None


def answer(exchange, venue, path, method, query):
    """Answer a request about prices, orders or the account."""
    try:
        if exchange == "binance":
            return binance(venue, path, method, query)
        return kraken(venue, path, query)
    except Refused as why:
        return refusal(exchange, str(why))


def accepted(exchange, order):
    """How an order is confirmed."""
    if exchange == "binance":
        return 200, binance_order(order)
    what = f"{order['side']} {order['units']} {order['symbol'].replace('/', '')} @ market"
    return 200, {"error": [], "result": {"descr": {"order": what}, "txid": [kraken_id(order)]}}


# Binance


def of_binance(name):
    return {symbol.replace("/", ""): symbol for symbol in SYMBOLS["binance"]}[name]


def binance_order(order):
    name = order["symbol"].replace("/", "")
    status = BINANCE_STATUS[order["status"]]
    if status == "NEW" and Decimal(order["filled"]):
        status = "PARTIALLY_FILLED"
    return {
        "symbol": name, "orderId": order["id"], "clientOrderId": order["client"],
        "price": order["price"] or "0.00000000", "origQty": order["units"],
        "executedQty": order["filled"], "cummulativeQuoteQty": order["cost"], "status": status,
        "timeInForce": "GTC", "type": "LIMIT" if order["price"] else "MARKET",
        "side": order["side"].upper(), "time": order["time"], "updateTime": order["time"],
        "transactTime": order["time"],
    }  # fmt: skip


def binance(venue, path, method, query):
    if path == "api/v3/ticker/bookTicker":
        out = []
        for symbol in SYMBOLS["binance"]:
            bid, ask = venue.quote(symbol)
            out.append({
                "symbol": symbol.replace("/", ""), "bidPrice": str(bid), "askPrice": str(ask),
                "bidQty": str(venue.depth), "askQty": str(venue.depth),
            })  # fmt: skip
        return 200, out
    if path == "api/v3/account":
        held = venue.held()
        rows = [
            {
                "asset": code,
                "free": str(units - held.get(code, 0)),
                "locked": str(held.get(code, 0)),
            }
            for code, units in venue.money().items()
        ]
        return 200, {"balances": rows, "updateTime": venue.server.now}
    if path == "api/v3/openOrders":
        own = of_binance(query["symbol"]) if "symbol" in query else None
        found = [o for o in venue.orders(open_only=True) if own in (None, o["symbol"])]
        return 200, [binance_order(order) for order in found]
    if path == "api/v3/order":
        client, number = query.get("origClientOrderId"), int(query.get("orderId", 0))
        if method == "DELETE":
            return 200, binance_order(venue.cancel(client, number))
        found = [o for o in venue.orders() if client == o["client"] or number == o["id"]]
        if not found:
            return 400, {"code": -2013, "msg": "Order does not exist."}
        return 200, binance_order(found[-1])
    if path == "api/v3/myTrades":
        since, own = int(query.get("startTime", 0)), of_binance(query["symbol"])
        found = [t for t in venue.trades(since) if t["symbol"] == own]
        if "fromId" in query:
            found = [t for t in found if t["id"] >= int(query["fromId"])]
        return 200, [
            {
                "symbol": query["symbol"], "id": t["id"], "orderId": t["order"],
                "orderListId": -1, "price": t["price"], "qty": t["units"], "quoteQty": t["cost"],
                "commission": t["fee"], "commissionAsset": t["fee_code"], "time": t["time"],
                "isBuyer": t["side"] == "buy", "isMaker": False, "isBestMatch": True,
            }
            for t in found[: int(query.get("limit", 500))]
        ]  # fmt: skip
    return None


# Kraken


def kraken_id(order):
    return f"O{order['id']:05d}-AAAAA-AAAAAA"


def kraken_order(venue, order):
    closed = order["status"] != "open"
    mine = [t for t in venue.rows("trades") if t["order"] == order["id"]]
    filled = Decimal(order["filled"])
    return {
        "cl_ord_id": order["client"], "status": KRAKEN_STATUS[order["status"]],
        "opentm": order["time"] / 1000, "vol": order["units"], "vol_exec": order["filled"],
        "cost": order["cost"], "fee": str(sum((Decimal(t["fee"]) for t in mine), Decimal(0))),
        "price": str(Decimal(order["cost"]) / filled) if filled else "0",
        "oflags": "fciq", "reason": order["status"] if closed else None,
        "descr": {
            "pair": order["symbol"].replace("/", "").replace("BTC", "XBT"), "type": order["side"],
            "ordertype": "limit" if order["price"] else "market", "price": order["price"] or "0",
        },
    } | ({"closetm": order["time"] / 1000} if closed else {})  # fmt: skip


def kraken(venue, path, query):
    if path == "0/public/Ticker":
        out = {}
        for name, symbol in KRAKEN_PAIRS.items():
            bid, ask = map(str, venue.quote(symbol))
            depth = str(venue.depth)
            out[name] = {"a": [ask, "1", depth], "b": [bid, "1", depth], "c": [ask, "1"]}
        return 200, {"error": [], "result": out}
    if not path.startswith("0/private/"):
        return None
    nonce = int(query["nonce"])
    if nonce <= getattr(venue, "nonce", 0):
        return 200, {"error": ["EAPI:Invalid nonce"]}
    venue.nonce = nonce
    result = kraken_private(venue, path.removeprefix("0/private/"), query)
    return None if result is None else (200, {"error": [], "result": result})


def kraken_private(venue, what, query):
    if what == "BalanceEx":
        held = venue.held()
        return {
            KRAKEN_CODES.get(code, code): {
                "balance": str(units), "hold_trade": str(held.get(code, 0)),
            }
            for code, units in venue.money().items()
        }  # fmt: skip
    if what in ("OpenOrders", "ClosedOrders"):
        still = what == "OpenOrders"
        found = venue.orders(query.get("cl_ord_id"))
        found = [o for o in found if (o["status"] == "open") == still]
        mine = {kraken_id(o): kraken_order(venue, o) for o in found[::-1][:50]}
        return {"open": mine} if still else {"closed": mine, "count": len(mine)}
    if what == "QueryOrders":
        found = {kraken_id(o): kraken_order(venue, o) for o in venue.orders()}
        return {query["txid"]: found[query["txid"]]}
    if what == "CancelOrder":
        number = query.get("txid", "O0")[1:6]
        venue.cancel(query.get("cl_ord_id"), int(number))
        return {"count": 1}
    if what == "TradesHistory":
        since, offset = float(query.get("start", 0)) * 1000, int(query.get("ofs", 0))
        found = [t for t in venue.rows("trades") if t["time"] > since][::-1]
        names = {symbol: name for name, symbol in KRAKEN_PAIRS.items()}
        page = found[offset : offset + 50]
        trades = {
            f"T{t['id']:05d}-AAAAA-AAAAAA": {
                "ordertxid": kraken_id({"id": t["order"]}), "postxid": "T",
                "pair": names[t["symbol"]], "time": t["time"] / 1000, "type": t["side"],
                "ordertype": "market", "price": t["price"], "cost": t["cost"], "fee": t["fee"],
                "vol": t["units"], "margin": "0", "misc": "", "maker": False,
            }
            for t in page
        }  # fmt: skip
        return {"trades": trades, "count": len(found)}
    return None
