"""Safe forms of names for display and storage: those of assets, events and labels hold anything."""

import hashlib
from urllib.parse import quote

_LONGEST = 200  # characters of a file's name, most file systems take 255 bytes
_DEVICES = {
    "CON",
    "PRN",
    "AUX",
    "NUL",
    *(f"{port}{n}" for port in ("COM", "LPT") for n in "0123456789"),
}


def printable(text: str) -> str:
    r"""Return a text in one line, with invisible characters escaped; "(empty)" if it is.

    >>> print(printable("a\tb\x1b[31m"))
    a\tb\x1b[31m
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text
    )
    return shown or "(empty)"


def file_name(name: str, safe: str = " ()+,=@") -> str:
    """Return a file or folder name for a name, valid on every system, without path separators.

    Different names have different files, on systems that distinguish upper and lower case. What is
    unusual in names of files is percent-encoded; names beyond 200 characters end in their SHA-256.

    Args:
        name: Any text.
        safe: Characters that are kept, beside letters, digits and ``_.-~``.

    >>> file_name("BRK.B"), file_name("../x"), file_name("CON")
    ('BRK.B', '%2E.%2Fx', '%43ON')
    """
    found = quote(name.encode(errors="surrogatepass"), safe=safe)
    if found[:1] in (".", " ") or found.partition(".")[0].strip().upper() in _DEVICES:
        found = f"%{ord(found[0]):02X}{found[1:]}"
    if found[-1:] in (".", " "):
        found = f"{found[:-1]}%{ord(found[-1]):02X}"
    if len(found) > _LONGEST:
        found = f"{found[: _LONGEST - 66]}%~{hashlib.sha256(found.encode()).hexdigest()}"
    return found or "%"
