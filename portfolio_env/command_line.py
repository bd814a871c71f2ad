"""Command lines: every error ends in a one-line message."""

from __future__ import annotations

import os
import re
import select
import shlex
import sys
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from dataclasses import fields, is_dataclass, replace
from functools import partial
from inspect import ismethod
from io import StringIO
from typing import Any, get_args, get_type_hints

from portfolio_env.errors import ArgumentError, PortfolioError
from portfolio_env.files.safe_names import printable

BESIDE_RESUME = "--resume goes on with its own settings: leave the others out"
_LONGEST = 2000  # characters of a line
_NULL = "embedded null"  # Python's message for a path that no system can open
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")
_OPTION = re.compile(r"^--[\w.-]+", re.MULTILINE)
_PLAINLY = (  # words of tyro and Python, and plainer ones
    (r"^Error parsing ", ""),
    (r" \(required\)", ""),
    (r"\. Expected 1 values?", ""),
    (r"invalid literal for int\(\) with base 10: (.*)", r"\1 is not an integer"),
    (r"could not convert string to float: (.*)", r"\1 is not a number"),
    (
        r"no type matching FLOAT\|.*STR FLOAT.* could be instantiated from \[(.*)\]",
        r"\1 is not a number, numbers, or names each followed by a number",
    ),
)
_ALLOCATOR = ("allocate", "out of memory", "Storage size calculation overflowed")


def find_own_modules() -> None:
    """Let Python find modules in the working directory, after all others, for plug-ins.

    A script finds those beside itself only. Processes that it starts inherit this.
    """
    here = os.getcwd()
    if here not in sys.path:
        sys.path.append(here)


def command_text() -> str:
    """Return the command line of this process as it can be typed again, ``-m`` included."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    if spec is not None and sys.argv[0] == spec.origin:
        return shlex.join(["python", "-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]])
    return shlex.join(sys.argv)


def read_arguments(kind: Any, **options: Any) -> Any:
    """Return the settings of a command line, read by ``tyro``.

    Bad options end in one line on stderr, as every error does, with the exit status 2.
    Its ``--help`` shows the docstrings of fields as running text: ``tyro`` itself keeps the line
    breaks of those that are indented, as they are below a field. An option that may be left out is
    shown as ``--out PATH``, not as ``--out {None}|PATH``.

    Args:
        kind: A dataclass of settings, or a union of such classes, one for each subcommand.
        options: The other arguments of ``tyro.cli``, e.g. ``args``, ``default``, ``description``.
    """
    import docstring_parser  # comes with tyro
    import tyro

    _refuse_empty(kind, sys.argv[1:] if options.get("args") is None else options["args"])
    for settings in _settings_classes(kind):
        for parent in filter(is_dataclass, reversed(settings.__mro__)):
            own = {field.name: field for field in fields(settings)}
            for param in docstring_parser.parse_from_object(parent).params:
                if param.arg_name in own and param.description:
                    text = " ".join(param.description.replace("``", "").split())
                    own[param.arg_name].metadata = {"help": text}  # type: ignore[assignment]  # tyro
    told = StringIO()
    try:
        with _optional_as_plain(), redirect_stderr(told):
            return tyro.cli(kind, **options)
    except SystemExit:
        if told.getvalue():
            print(f"error: {_unframed(told.getvalue())}", file=sys.stderr)
        raise


def refuse_beside_resume(*allowed: str) -> None:
    """Refuse options of the command line beside ``--resume``, before any of them is checked.

    Args:
        allowed: Names of options that may stand beside it, e.g. ``"processes"``.

    Raises:
        ArgumentError: If there are others, but for ``--help``.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    for name in ("resume", *allowed):
        parser.add_argument(f"--{name}", nargs="?")
    known, others = parser.parse_known_args(sys.argv[1:])
    if known.resume is not None and others and not {"-h", "--help"} & {*others}:
        raise ArgumentError(BESIDE_RESUME)


def _refuse_empty(kind: Any, arguments: Sequence[str]) -> None:
    """Refuse an empty argument: an unset variable of a shell, which as a path would be ``.``.

    Options whose default is empty take one.
    """
    own = (each for settings in _settings_classes(kind) for each in fields(settings))
    may = {each.name for each in own if each.default == ""}
    for at, argument in enumerate(arguments):
        name, is_set, value = argument.partition("=")
        if argument == "":
            name = arguments[at - 1] if at else ""
        elif not is_set or value or not name.startswith("--"):
            continue
        option = name if name.startswith("--") else "an argument"
        if option.removeprefix("--").replace("-", "_") not in may:
            print(f"error: {option} is empty; give a value or leave it out", file=sys.stderr)
            raise SystemExit(2)


def _unframed(box: str) -> str:
    """Return in one line what ``tyro`` says in a frame: the reason, similar options, the help."""
    parts: list[list[str]] = [[]]
    for row in _COLOUR.sub("", box).splitlines()[1:]:  # without the title
        text = row.strip("╭╮╰╯│|+ ")  # in ASCII where the output is
        if text.strip("─-"):
            parts[-1].append(text)
        else:
            parts.append([])
    said = [part for part in parts if part]
    if not said:
        return " ".join(box.split())
    reason = " ".join(said[0])
    for pattern, plain in _PLAINLY:
        reason = re.sub(pattern, plain, reason)
    reason = reason.rstrip(".")
    similar, see = [], ""
    for part in said[1:]:
        if part[0].startswith("Perhaps you meant"):
            similar = list(dict.fromkeys(_OPTION.findall("\n".join(part))))
        elif part[0].startswith("For full helptext"):
            words = " ".join(part).partition(", ")[2].split()[1:]
            see = f"; see {' '.join(words)}"
        elif part[0].startswith(("Unrecognized options", "Available subcommands")):
            added = " ".join(part)
            reason += f"; {added[:1].lower()}{added[1:]}"
    nearest = f"; perhaps {' or '.join(similar)} is meant" if similar else ""
    return reason[:1].lower() + reason[1:] + nearest + see


def _optional_as_plain() -> AbstractContextManager[None]:
    """Return rules by which ``tyro`` shows ``X | None`` as X; None can be given all the same."""
    from tyro.constructors import (
        ConstructorRegistry,
        PrimitiveConstructorSpec,
        PrimitiveTypeInfo,
    )

    if not ismethod(ConstructorRegistry.get_primitive_spec):  # tyro before 1
        return nullcontext()
    registry, within = ConstructorRegistry(), set()

    @registry.primitive_rule
    def optional(info: Any) -> Any:
        kinds = get_args(info.type)
        if type(None) not in kinds or info.type in within:
            return None
        within.add(info.type)  # the rules of tyro itself come next
        try:
            spec = ConstructorRegistry.get_primitive_spec(info)
        finally:
            within.discard(info.type)
        if not isinstance(spec, PrimitiveConstructorSpec):
            return spec
        plain = spec.metavar.replace("{None}|", "", 1).replace("{None,", "{", 1)
        spec = replace(spec, metavar=plain)
        if len(kinds) != 2 or spec.nargs != 1:
            return spec
        kind = next(each for each in kinds if each is not type(None))
        own = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(kind, set()))
        if not isinstance(own, PrimitiveConstructorSpec):
            return spec

        def read(words: list[str]) -> Any:  # an error is that of the kind alone
            return None if words == ["None"] else own.instance_from_str(words)

        choices = None if own.choices is None else (*own.choices, "None")
        return replace(spec, instance_from_str=read, choices=choices)

    return registry


def _settings_classes(hint: Any) -> Iterator[Any]:
    """Return the dataclasses in a type: itself, those of a union, those of its fields."""
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
        hints = tuple(get_type_hints(hint).values())
    else:
        hints = get_args(hint)
    for inner in hints:
        yield from _settings_classes(inner)


def exit_status(work: Callable[[], int | None], *, stopped: str) -> int:
    """Run a command line; print an error in one line on stderr; return the exit status.

    Errors in the program itself keep their traceback; a lack of memory is none, whichever library
    says so: Python and NumPy raise ``MemoryError``, torch a ``RuntimeError`` of its allocator. Nor
    is a path with a null character, for which Python raises a ``ValueError``. Where nobody reads
    what is printed any more (``... | head``), the command ends without a message.

    Args:
        work: Returns the exit status; None is 0.
        stopped: Message when the user interrupts it.

    Returns:
        The exit status: that of the work, 1 after an error, 130 after an interruption, 141 when
        the output is closed.
    """
    before = threading.excepthook
    threading.excepthook = partial(_say_in_thread, before)
    try:
        try:
            return _status(work, stopped)
        finally:
            sys.stdout.flush()  # or Python would at its end, and complain by itself
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in filter(_is_closed, (sys.stdout, sys.stderr)):
            os.dup2(nowhere, stream.fileno())
        return 141  # 128 + SIGPIPE
    finally:
        threading.excepthook = before


def _say_in_thread(usual: Callable[[Any], Any], error: threading.ExceptHookArgs) -> None:
    """Leave out the traceback of a thread that the system refused something, e.g. on a full disk.

    TensorBoard writes in a thread, and raises its error where it is waited for.
    """
    if not isinstance(error.exc_value, OSError):
        usual(error)


def _is_closed(stream: Any) -> bool:
    """Return whether nobody reads the other end of a stream; False where it cannot be asked."""
    try:
        poll = select.poll()
        poll.register(stream, select.POLLOUT)
        return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))
    except (AttributeError, OSError, ValueError):  # Windows; no file, as under a test
        return False


def _status(work: Callable[[], int | None], stopped: str) -> int:
    try:
        return work() or 0
    except (PortfolioError, OSError) as error:
        if isinstance(error, BrokenPipeError) and any(map(_is_closed, (sys.stdout, sys.stderr))):
            raise
        message = f"error: {_line(error)}"
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(text in str(error) for text in _ALLOCATOR):
            raise
        message = (
            f"error: there is not enough memory{f' ({_line(error)})' * bool(str(error))}; give "
            "fewer lanes or bars, a shorter window or a smaller network"
        )
    except ValueError as error:
        if _NULL not in str(error):
            raise
        message = f"error: a path or a name holds a null character ({_line(error)}); remove it"
    except KeyboardInterrupt:
        print(stopped, file=sys.stderr)
        return 130
    print(message, file=sys.stderr)
    return 1


def _line(error: Exception) -> str:
    text = str(error) if isinstance(error, PortfolioError) else str(error).partition("\n")[0]
    if isinstance(error, OSError) and error.filename is not None:
        text = (
            f"{error.filename} cannot be read or written ({error.strerror}); check that it is "
            "there, its rights and the room on its disk"
        )
    shown = printable(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]}..."
