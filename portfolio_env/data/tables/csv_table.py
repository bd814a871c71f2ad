"""CSV tables of any dialect: what separates columns and decimals, and where the header is."""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd

from portfolio_env.data.tables.fields import DATE, SYMBOL, field_of, is_field, with_letters
from portfolio_env.data.tables.numbers import (
    NOTHING,
    decimal_of,
    is_decimal_point,
    thousands_by_points,
)
from portfolio_env.data.tables.origin import Origin
from portfolio_env.files.csv_files import original, with_texts

LEVELS = ("Price", "Ticker")  # the two header rows that yfinance writes
_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_SAMPLE = 200  # lines that tell the dialect
_NUMBER = re.compile(r"\s*[+-]?[$€£¥]?\d[\d.,\s']*([eE][+-]?\d+)?\s*%?\s*")
_DAY = re.compile(r"\d{4}-\d\d-\d\d")
_WHEN = re.compile(
    r"\d{4}[-./]\d|\d{1,2}([./-])\d{1,2}\1\d{2,4}|\d{8,}(\.\d*)?$|[A-Za-z]{3,9} \d{1,2}, \d{4}|"
    r"\d{1,2}[- ][A-Za-z]{3,9}[- ]\d"
)


def read_csv(content: bytes, origin: Origin) -> tuple[pd.DataFrame, int]:
    """Return the table, columns of dates and symbols as text, and the line of its first row.

    Separators (comma, semicolon, tab, bar; a line ``sep=``), lines above the header, decimal commas
    and what separates thousands are found out and noted; two header rows become two levels.

    Raises:
        DataError: If it is no table.
    """
    try:
        first = [line for _, line in zip(range(_SAMPLE), _stream(content), strict=False)]
        sep, skip = _layout(first)
        rows, lines = _rows(content, sep, skip, 3)
        header, used = _header(rows)
        names = header if isinstance(header, list) else header.get_level_values(0)
        _check(list(names) if isinstance(header, list) else [], rows, origin)
        frame = _read(content, sep, lines[used - 1], len(names), _texts(header), origin)
    except UnicodeError:
        origin.fail("is not text in UTF-8; save it again in this encoding ('CSV UTF-8' in Excel)")
    except (csv.Error, pd.errors.EmptyDataError, pd.errors.ParserError) as error:
        origin.fail(
            f"is not a CSV table ({str(error).strip()}); "
            "give a header and rows of as many fields, in UTF-8"
        )
    frame.columns = pd.Index(header) if isinstance(header, list) else header
    if isinstance(header, list):  # an export may end every line with a separator
        blank = [not name and frame.iloc[:, at].isna().all() for at, name in enumerate(header)]
        frame = frame.loc[:, [not drop or not at for at, drop in enumerate(blank)]]
    if sep != ",":
        origin.note(f"columns are separated by {_SEPARATORS.get(sep, sep)}")
    if skip and not first[0].casefold().startswith(("sep=", '"sep=')):
        origin.note(f"the header is in line {skip + 1}")
    return (with_texts(frame, original) if b"'" in content else frame), lines[used - 1] + 1


def _stream(content: bytes) -> io.TextIOWrapper:
    """Return the text, which is decoded as far as it is read and never held as a whole."""
    utf16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    encoding = "utf-16" if utf16 else "utf-8-sig"
    return io.TextIOWrapper(io.BytesIO(content), encoding, newline="")


def _layout(lines: Sequence[str]) -> tuple[str, int]:
    """Return the separator of columns and the number of lines above the header."""
    if not any(line.strip() for line in lines):
        raise pd.errors.EmptyDataError("it is empty")
    said = re.fullmatch(r'"?sep=(.)"?\s*', lines[0], re.IGNORECASE) if lines else None
    if said is not None:
        return said[1], 1
    best, found = (0.0, 0), (",", 0)
    for sep in _SEPARATORS:
        reader = csv.reader(lines, delimiter=sep)
        rows, begins, line = [], [], 0
        try:
            for row in reader:
                if any(cell.strip() for cell in row):
                    rows.append(row)
                    begins.append(line)
                line = reader.line_num
        except csv.Error:  # a field of over 128 kB: a header of 20,000 names has other separators
            continue
        counts = Counter(map(len, rows[1:] or rows))
        width, often = max(counts.items(), key=lambda item: (item[1], item[0]), default=(0, 0))
        if width < 2:
            continue
        share = (often + (len(rows) > 1 and len(rows[0]) == width)) / len(rows)
        if (share, 0) > best:
            best = (share, 0)
            found = sep, begins[_header_row(rows, width)]
    return found


def _header_row(rows: Sequence[Sequence[str]], width: int) -> int:
    """Return the row of the header: the first one, unless one as wide as the data looks like it."""
    named = any(cell.strip() for cell in rows[0][1:])
    if len(rows[0]) == width and named and not _is_prose(rows[0]):
        return 0
    for at, row in enumerate(rows):
        blank = sum(not cell.strip() for cell in row)
        if _is_prose(row):
            continue
        if len(row) == width and blank <= 1 and not any(map(_NUMBER.fullmatch, row)):
            return at
    return 0


def _is_prose(row: Sequence[str]) -> bool:
    return any(len(cell.split()) > 4 for cell in row)


def _rows(content: bytes, sep: str, skip: int, count: int) -> tuple[list[list[str]], list[int]]:
    """Return the first rows after some lines, and the number of lines up to the end of each."""
    stream = _stream(content)
    for _ in range(skip):
        stream.readline()
    reader = csv.reader(stream, delimiter=sep)
    rows, lines = [], []
    for row in reader:
        rows.append(row)
        lines.append(skip + reader.line_num)
        if len(rows) == count:
            break
    return rows or [[]], lines or [skip + 1]


def _header(rows: Sequence[Sequence[str]]) -> tuple[list[str] | pd.MultiIndex, int]:
    """Return names of columns, in one or two levels, and how many rows they take."""
    first = [cell.strip() for cell in rows[0]]
    if len(rows) < 2 or len(rows[1]) != len(first) or not _is_second_level(first, rows[1]):
        return with_letters(first), 1
    second = [cell.strip() for cell in rows[1]]
    for at in range(2, len(first)):  # spreadsheets write a name once for several columns
        first[at] = first[at] or first[at - 1]
    names = [first[0], second[0]] if {first[0], second[0]} == set(LEVELS) else [None, None]
    third = rows[2] if len(rows) > 2 else ["", "x"]
    named = not any(cell.strip() for cell in third[1:])  # line 3 may name the index
    return pd.MultiIndex.from_arrays([first, second], names=names), 2 + named


def _is_second_level(first: Sequence[str], second: Sequence[str]) -> bool:
    if len(first) > 1 and {first[0], second[0].strip()} == set(LEVELS):
        return True
    cells = [cell.strip() for cell in second[1:]]
    above = first[1:]
    if not all(cells) or not above or not above[0] or any(map(_NUMBER.fullmatch, cells)):
        return False
    if set(cells) <= set(NOTHING) or _DAY.match(second[0]):
        return False
    repeated = len(set(above)) < len(above) or len(set(cells)) < len(cells)
    return repeated and (all(map(is_field, filter(None, above))) or all(map(is_field, cells)))


def _check(names: list[str], rows: Sequence[Sequence[str]], origin: Origin) -> None:
    if names and _WHEN.match(names[0]):
        origin.fail("has no header: its first line holds values; name the columns")
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        origin.fail(f"has more than one column called {twice}; delete or rename them")


def _texts(header: list[str] | pd.MultiIndex) -> set[int]:
    """Return the places of columns that are no numbers: dates and symbols."""
    if not isinstance(header, list):
        return {0}
    fields = [field_of(name) for name in header]
    is_bars = SYMBOL in fields or sum(map(is_field, header)) * 2 > len(header) - 1
    named = {at for at, field in enumerate(fields) if field in (DATE, SYMBOL)}
    if is_bars:
        return named or {0}
    return {0} | {at for at in named if header[at].casefold() in ("date", "datetime", "timestamp")}


def _read(
    content: bytes, sep: str, skip: int, width: int, texts: set[int], origin: Origin
) -> pd.DataFrame:
    """Return the rows below the header; columns are numbered."""

    def read(kinds: Mapping[int, type]) -> pd.DataFrame:
        frame = pd.read_csv(
            _stream(content),
            sep=sep,
            header=None,
            names=list(range(width)),
            skiprows=skip,
            dtype=kinds,
            keep_default_na=False,  # NA and NAN are possible symbols
            na_values=[""],
            skip_blank_lines=False,  # else line numbers would be wrong
            skipinitialspace=True,
            low_memory=False,
        )
        if not isinstance(frame.index, pd.RangeIndex):
            origin.fail("its rows have more fields than its header; name every column")
        return frame

    below = _stream(content)
    for _ in range(skip):
        below.readline()
    sample = [line for _, line in zip(range(_SAMPLE), below, strict=False)]
    if not sample:
        return pd.DataFrame(columns=list(range(width)))
    frame = read(dict.fromkeys(texts, str))
    numbers = sorted(set(range(width)) - texts)
    odd = [at for at in numbers if frame[at].dtype.kind not in "ifb"]
    cells = {cell for at in odd for cell in frame[at].dropna().astype(str).unique()}
    plain = [
        cell
        for row in csv.reader(sample, delimiter=sep)
        for at, cell in enumerate(row)
        if at not in texts
    ]
    decimal = decimal_of(cells, plain) if odd else None
    is_comma = decimal == ","
    if decimal == "," or (decimal == "." and any("," in cell for cell in cells)):
        what = "decimals are written with" if is_comma else "thousands are separated by"
        origin.note(f"{what} commas")
    elif decimal is None and _points_group(frame, plain, numbers, read, width, sep, skip, origin):
        is_comma = True
        origin.note("thousands are separated by points")
    else:
        return frame
    # As text: the parser of pandas loses the last bit where it skips thousands.
    frame = read(dict.fromkeys(range(width), str))
    for at in numbers:
        cells_of = frame[at].str.replace("." if is_comma else ",", "", regex=False)
        frame[at] = cells_of.str.replace(",", ".", regex=False)
    return frame


def _points_group(
    frame: pd.DataFrame,
    plain: Sequence[str],
    numbers: Sequence[int],
    read: Callable[[Mapping[int, type]], pd.DataFrame],
    width: int,
    sep: str,
    skip: int,
    origin: Origin,
) -> bool:
    """Return whether points separate thousands; refuse the table if it leaves that open."""
    if any(map(is_decimal_point, plain)) or all(frame[at].dtype.kind in "ib" for at in numbers):
        return False
    texts = read(dict.fromkeys(range(width), str))
    found = thousands_by_points((texts[at] for at in numbers), likely=sep != ",")
    if isinstance(found, bool):
        return found
    pointed = [cell for cell in texts.iloc[found, list(numbers)].dropna() if "." in cell]
    unclear = np.arange(len(texts)) == found
    Origin(origin.name, "line", skip + 1).refuse(
        unclear,
        "the point may separate thousands or decimals, and no other number tells:",
        "write thousands without it, or another number of decimals; or read the file yourself with "
        f"pandas.read_csv(..., sep={sep!r}), with thousands='.' if it does, and give the frame",
        lambda _: pointed[0],
    )
    return False
