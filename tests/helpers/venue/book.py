"""Accounts and orders of a pretend exchange, in a file that outlives whoever talks to it.

Prices are those of the server's candles: the running one's open, less or plus half a spread. What
is left of an order that takes liquidity is cancelled, limits that are not reached rest. A client's
order id is refused only while an order of that id is open, as on Binance and Kraken.
"""

import json
import sqlite3
import threading
from contextlib import suppress
from decimal import Decimal

from helpers.exchange_dialects import STEPS

HALF_SPREAD = Decimal("0.0005")
FEE = Decimal("0.001")
THIRD_PRICE = Decimal("0.5")  # of the coin that fees can be paid in, in quote currency
TABLES = """
CREATE TABLE IF NOT EXISTS money (code TEXT PRIMARY KEY, units TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS trades (id INTEGER PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS late (id INTEGER PRIMARY KEY, due INTEGER, body TEXT NOT NULL);
"""


class Refused(Exception):
    """The venue refuses an order; says why in one word."""


def step_of(number, step):
    """Whether a number is a multiple of a step."""
    return number % step == 0


class Venue:
    """One account on one exchange.

    Attributes:
        server: gives the time and the candles.
        rules: {symbol: (lot, tick, minimum units, minimum notional)}.
        fee_in: the currency fees are paid in: "quote", "received" (of purchases the coin bought) or
            the name of a third one.
        timeframe: of the candles whose opens are traded at.
        depth: units that one order finds at the best price; the rest of it is cancelled.
        pieces: trades that a fill consists of.
    """

    def __init__(self, path, server, rules, money, fee_in="quote", timeframe="1h"):
        self.server, self.rules, self.fee_in = server, rules, fee_in
        self.timeframe, self.step = timeframe, STEPS[timeframe]
        self.depth, self.pieces = Decimal(10**9), 1
        self.lock = threading.RLock()
        self.file = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self.file.executescript(TABLES)
        for code, units in money.items():
            self.file.execute("INSERT OR IGNORE INTO money VALUES (?, ?)", (code, str(units)))

    def close(self):
        self.file.close()

    # what there is

    def rows(self, table):
        found = self.file.execute(f"SELECT id, body FROM {table} ORDER BY id").fetchall()
        return [json.loads(body) | {"id": number} for number, body in found]

    def money(self):
        """{currency: units} in all."""
        return {code: Decimal(u) for code, u in self.file.execute("SELECT code, units FROM money")}

    def held(self):
        """{currency: units} that open orders hold."""
        out = {}
        for order in self.orders(open_only=True):
            base, quote = order["symbol"].split("/")
            left = Decimal(order["units"]) - Decimal(order["filled"])
            code = base if order["side"] == "sell" else quote
            need = left if order["side"] == "sell" else left * Decimal(order["price"])
            out[code] = out.get(code, Decimal(0)) + need
        return out

    def orders(self, client=None, *, open_only=False):
        found = [o for o in self.rows("orders") if client in (None, o["client"])]
        return [o for o in found if o["status"] == "open"] if open_only else found

    def trades(self, since=0):
        return [t for t in self.rows("trades") if t["time"] >= since]

    def quote(self, symbol):
        """Best bid and ask."""
        tick = self.rules[symbol][1]
        opens = self.server.now // self.step * self.step
        mid = Decimal(str(self.server.candle(symbol, self.timeframe, opens)[1]))
        bid, ask = mid * (1 - HALF_SPREAD), mid * (1 + HALF_SPREAD)
        return bid // tick * tick, -(-ask // tick) * tick

    # what can be done

    def place(self, order, *, valid_until=None):
        """Accept an order, or refuse it: {client, symbol, side, kind, units, price, keeps}."""
        if valid_until is not None and self.server.now > valid_until:
            raise Refused("expired")
        lot, tick, least, notional = self.rules[order["symbol"]]
        units = Decimal(order["units"])
        _, ask = self.quote(order["symbol"])
        price = Decimal(order["price"]) if order.get("price") else None
        if not units > 0 or not step_of(units, lot) or (price and not step_of(price, tick)):
            raise Refused("precision")
        if units < least or units * (price or ask) < notional:
            raise Refused("notional")
        if order["client"] and self.orders(order["client"], open_only=True):
            raise Refused("duplicate")
        base, money_code = order["symbol"].split("/")
        buys = order["side"] == "buy"
        code = money_code if buys else base
        free = self.money().get(code, Decimal(0)) - self.held().get(code, Decimal(0))
        if free < (units * (price or ask) if buys else units):
            raise Refused("funds")
        body = order | {"filled": "0", "cost": "0", "status": "open", "time": self.server.now}
        del body["keeps"]
        body["price"] = None if price is None else str(price)
        done = self.file.execute("INSERT INTO orders (body) VALUES (?)", (json.dumps(body),))
        return self.match(body | {"id": done.lastrowid}, keeps=order["keeps"])

    def match(self, order, *, keeps):
        """Fill what the book has for an order now; what is left rests or is cancelled."""
        bid, ask = self.quote(order["symbol"])
        buys = order["side"] == "buy"
        price, limit = (ask if buys else bid), order["price"]
        crosses = limit is None or (price <= Decimal(limit) if buys else price >= Decimal(limit))
        left = Decimal(order["units"]) - Decimal(order["filled"])
        lot = self.rules[order["symbol"]][0]
        units = min(left, self.depth // lot * lot) if crosses else Decimal(0)
        for piece in range(self.pieces if units else 0):
            part = units / self.pieces // lot * lot
            own = units - part * (self.pieces - 1) if piece == self.pieces - 1 else part
            if own:
                self.trade(order, own, price)
        filled = Decimal(order["filled"]) + units
        cost = Decimal(order["cost"]) + units * price
        whole = filled == Decimal(order["units"])
        status = "filled" if whole else "open" if keeps else "expired"
        return self.save(order | {"filled": str(filled), "cost": str(cost), "status": status})

    def trade(self, order, units, price):
        base, quote = order["symbol"].split("/")
        buys = order["side"] == "buy"
        cost = units * price
        if self.fee_in == "quote":
            code, fee = quote, cost * FEE
        elif self.fee_in == "received":
            code, fee = (base, units * FEE) if buys else (quote, cost * FEE)
        else:
            code, fee = self.fee_in, (cost * FEE / THIRD_PRICE)
        fee = fee.quantize(Decimal("1e-8"))
        moved = {base: units if buys else -units, quote: -cost if buys else cost}
        moved[code] = moved.get(code, Decimal(0)) - fee
        money = self.money()
        for name, change in moved.items():
            row = (name, str(money.get(name, Decimal(0)) + change))
            self.file.execute("INSERT OR REPLACE INTO money VALUES (?, ?)", row)
        body = {
            "order": order["id"], "client": order["client"], "symbol": order["symbol"],
            "side": order["side"], "units": str(units), "price": str(price), "cost": str(cost),
            "fee": str(fee), "fee_code": code, "time": self.server.now,
        }  # fmt: skip
        self.file.execute("INSERT INTO trades (body) VALUES (?)", (json.dumps(body),))

    def save(self, order):
        body = {name: value for name, value in order.items() if name != "id"}
        row = (json.dumps(body), order["id"])
        self.file.execute("UPDATE orders SET body = ? WHERE id = ?", row)
        return order

    def cancel(self, client=None, number=None):
        """Cancel an open order; ``Refused`` if there is none."""
        for order in self.orders(open_only=True):
            if order["id"] == number or (client is not None and order["client"] == client):
                return self.save(order | {"status": "cancelled"})
        raise Refused("unknown")

    def send_later(self, order, valid_until, due):
        """Let an order arrive late, after its sender has given up."""
        body = json.dumps(order | {"valid_until": valid_until})
        self.file.execute("INSERT INTO late (due, body) VALUES (?, ?)", (due, body))

    def settle(self):
        """Let come what is late, and fill resting orders that the market has come to."""
        due = self.file.execute(
            "SELECT id, due, body FROM late WHERE due <= ?", (self.server.now,)
        ).fetchall()
        for number, moment, body in due:
            self.file.execute("DELETE FROM late WHERE id = ?", (number,))
            order = json.loads(body)
            with suppress(Refused):
                if moment <= order.pop("valid_until"):
                    self.place(order)
        for order in self.orders(open_only=True):
            self.match(order, keeps=True)
