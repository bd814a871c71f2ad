"""Names of the columns of tables: of dates, symbols, currencies and fields of bars."""

from __future__ import annotations

import re

DATE, SYMBOL, ADJUSTED, CURRENCY = "date", "symbol", "adj_close", "currency"

_WORDS = {
    DATE: (
        "date datetime timestamp opentime opentimestamp snappedat tradedate tradingdate pricedate "
        "datum fecha gmttime localtime caldt datadate formatteddate time day month period unix "
        "epoch ts unixtime unixtimestamp"
    ),
    SYMBOL: (
        "symbol ticker tic tickersymbol assetname asset instrument security stock stockcode tscode "
        "code pair coin name"
    ),
    CURRENCY: "currency currencycode ccy quotecurrency quoteccy quotedcurrency pricecurrency",
    "open": "open openprice openingprice pxopen priceopen",
    "high": "high highprice pxhigh dayhigh pricehigh",
    "low": "low lowprice pxlow daylow pricelow",
    "close": (
        "close closeprice closingprice priceclose closelast last lastprice pxlast price settle "
        "settlement settlementprice prc"
    ),
    "volume": (
        "volume vol totalvolume tradingvolume volumetraded sharevolume shares pxvolume basevolume "
        "volumefrom tickvol tickvolume"
    ),
    ADJUSTED: "adjclose adjustedclose closeadj adjclosingprice adjustedclosingprice closeadjusted",
    "split": "split splits stocksplits splitratio splitfactor splitcoefficient",
    "dividend": "dividend dividends divcash dividendamount exdividend cashdividend",
}
_KNOWN = {word: (field, rank) for field, words in _WORDS.items()
          for rank, word in enumerate(words.split())}  # fmt: skip
_LETTERS = dict(zip("ohlcv", ("open", "high", "low", "close", "volume"), strict=True))

FIELDS = ("open", "high", "low", "close", "volume", ADJUSTED, "split", "dividend")
"""Fields of bars that mean something here, beside date and symbol."""

_OTHERS = frozenset(
    "marketcap marketcapitalization vwap openint openinterest quotevolume quoteassetvolume "  # noqa: SIM905
    "numberoftrades tradecount trades closetime prevclose previousclose adjopen adjhigh adjlow "
    "adjvolume capitalgains takerbuybaseassetvolume takerbuyquoteassetvolume changepercent "
    "pctchange volumeto".split()
)
_QUOTES = frozenset(["bid", "ask", "bidprice", "askprice", "bestbid", "bestask", "offer"])
_RATES = frozenset(
    "change chg pctchg netchange pricechange dailychange spread turnover return returns ret rets "  # noqa: SIM905
    "logreturn logreturns logret dailyreturn dailyreturns simplereturn totalreturn pctreturn rf "
    "riskfree riskfreerate mktrf count amount".split()
)
_VAGUE = frozenset("value average ignore mid wap n".split()) | _QUOTES | _RATES  # noqa: SIM905
_TICKERS_TOO = frozenset(["open", "high", "low", "last"])  # OPEN and LOW are companies

_FIELD = r"(stock[ _]splits?|capital[ _]gains|market[ _]cap|(?:adj(?:usted)?[ _.]*)?[A-Za-z]+%s)"
HEAD = _FIELD % "(?:[ _]close)?" + r"[ _\-.:|](.+)"  # Close_AAPL
TAIL = r"(.+?)[ _\-.:|]" + _FIELD % ""  # AAPL Close


def key_of(name: object) -> str:
    """Return a name without case, blanks, brackets, points and leading numbers.

    >>> key_of(" <CLOSE> "), key_of("5. adjusted close"), key_of("Close/Last"), key_of("Adj_Close")
    ('close', 'adjustedclose', 'closelast', 'adjclose')
    """
    text = re.sub(r"^\d+[.)]\s+", "", str(name).strip().casefold())
    return re.sub(r"[\s<>_\-./%*()\[\]]+", "", text)


def field_of(name: object) -> str | None:
    """Return the field that a column holds by its name; None if it is another one."""
    known = _KNOWN.get(key_of(name))
    if known is not None:
        return known[0]
    return "volume" if unit_of_volume(name) else None


def rank_of(name: object) -> int:
    """Return the rank of a column among several of one field; the lowest is taken."""
    return _KNOWN.get(key_of(name), ("", 99))[1]


def unit_of_volume(name: object) -> str:
    """Return the unit of a volume, if its name says so.

    >>> unit_of_volume("Volume BTC"), unit_of_volume("Volume")
    ('BTC', '')
    """
    found = re.fullmatch(r"vol(?:ume)?[ _(]+([A-Za-z]{2,10})\)?", str(name).strip(), re.IGNORECASE)
    return found[1].upper() if found and key_of(name) not in _KNOWN else ""


def is_field(name: object) -> bool:
    """Return whether a name is that of a field of bars, used here or not, and not of an asset."""
    field = field_of(name)
    return field in (*FIELDS, CURRENCY) or key_of(name) in _OTHERS | _VAGUE


def is_no_asset(name: object) -> bool:
    """Return whether a name can be that of a field only."""
    key = key_of(name)
    return (field_of(name) in (*FIELDS, CURRENCY) or key in _OTHERS) and key not in _TICKERS_TOO


def is_quote(name: object) -> bool:
    """Return whether a name can be that of a bid or an ask."""
    return key_of(name) in _QUOTES


def is_rate(name: object) -> bool:
    """Return whether a name can be that of a change, a rate or a count, which is no price."""
    return key_of(name) in _RATES


def is_time(name: object) -> bool:
    """Return whether a name is that of a date or a time; DAY and TS are tickers.

    >>> is_time("Timestamp"), is_time("day"), is_time("DAY"), is_time("AAA")
    (True, True, False, False)
    """
    if field_of(name) != DATE:
        return False
    return rank_of(name) < _KNOWN["time"][1] or not str(name).isupper()


def with_letters(names: list[str]) -> list[str]:
    """Return names with o, h, l, c and v written out, where all of o, h, l, c are there."""
    if not set("ohlc") <= set(names):
        return names
    return [_LETTERS.get(name, {"t": DATE, "s": SYMBOL}.get(name, name)) for name in names]


def several_fields(names: list[str]) -> list[str]:
    """Return the columns of the first symbol that has a price and other fields, if there is one.

    Prices are a close, a bid beside an ask, or a column called after the symbol alone.
    """
    for pattern, field_at in ((HEAD, 1), (TAIL, 2)):
        columns: dict[str, list[str]] = {}
        fields: dict[str, set[str]] = {}
        for name in names:
            match = re.fullmatch(pattern, name, re.IGNORECASE)
            if match and (is_field(match[field_at]) or key_of(match[field_at]) == "adjusted"):
                field = match[field_at]
                columns.setdefault(match[3 - field_at], []).append(name)
                fields.setdefault(match[3 - field_at], set()).add(field_of(field) or key_of(field))
        for symbol, found in fields.items():
            quotes = {name for name in found if is_quote(name)}
            if ("close" in found and len(found) > 1) or len(quotes) > 1:
                return columns[symbol]
            if symbol in names and found & (_RATES | _QUOTES):
                return [symbol, *columns[symbol]]
    return []
