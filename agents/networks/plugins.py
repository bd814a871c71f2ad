"""User-defined encoders: wrapped as an ``Encoder``, and tested when they are built."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from copy import deepcopy
from functools import cache
from typing import Any

import torch as th
from torch import Tensor, nn

from agents.networks.base import Encoder
from portfolio_env import errors
from portfolio_env.errors import ArgumentError
from portfolio_env.names import check_keywords

Maker = Callable[..., nn.Module]
_LOGGER = logging.getLogger(__name__)
_BATCH, _ASSETS = 3, 4  # sizes of an encoder's test run
_tried: set[tuple[Any, ...]] = set()


class ModuleEncoder(Encoder):
    """Any torch module as an ``Encoder``; its output width is found by a test run.

    Args:
        module: Module whose ``forward`` takes windows (B, W, N, F), and, where it has parameters
            for them, tradable (B, N) and codes, which are None where there are none; it returns (B,
            N, C).
        n_features: See ``Encoder``.
        window: See ``Encoder``.
    """

    mixes_assets = True  # nothing is known of it

    def __init__(self, module: nn.Module, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.module = module
        parameters = inspect.signature(module.forward).parameters.values()
        several = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        placed = [each for each in parameters if each.kind in (0, 1)]  # those given by position
        self.takes = 3 if several else min(3, len(placed))
        self.uses_codes = self.takes == 3

    def forward(self, windows: Tensor, tradable: Tensor, codes: Tensor | None = None) -> Tensor:
        """Encode windows; see ``Encoder``."""
        if codes is not None and not codes.shape[-1]:
            codes = None
        out: Tensor = self.module(*(windows, tradable, codes)[: self.takes])
        return out


def user_encoder(
    maker: Maker, called: str, n_features: int, window: int, options: dict[str, Any]
) -> Encoder:
    """Return the encoder that a user's class or function makes, after a test run.

    Args:
        maker: Takes ``n_features``, ``window`` and the options.
        called: Name in messages.
        n_features: Features per asset and bar.
        window: Bars the encoder sees.
        options: Options of the encoder.

    Raises:
        ArgumentError: If it does not take these, raises an error, or is not an encoder; the message
            says where in the user's file.
    """
    check_options(maker, called, n_features, window, options)
    with user_code(f"encoder {called}"):
        network = maker(n_features, window, **options)
    if not isinstance(network, nn.Module):
        raise ArgumentError(f"encoder {called} gives {network!r:.60}, which is not a torch module")
    if "_modules" not in vars(network):
        raise ArgumentError(f"encoder {called} must call super().__init__() in its __init__")
    encoder = (
        network if isinstance(network, Encoder) else ModuleEncoder(network, n_features, window)
    )
    encoder.name_in_messages = called
    if any(each.device.type == "meta" for each in encoder.parameters()):
        return encoder  # it holds no numbers
    key = (maker, n_features, window, repr(sorted(options.items())))
    with th.random.fork_rng(devices=[]):
        out = _run(encoder.eval(), *_inputs(encoder, _ASSETS))
        if isinstance(encoder, ModuleEncoder) and out.ndim:
            encoder.channels = out.shape[-1]
        if key not in _tried:
            _try_out(encoder, called)
            _tried.add(key)
    return encoder.train()


def check_options(
    maker: Maker, called: str, n_features: int, window: int, options: dict[str, Any]
) -> None:
    """Raise ArgumentError unless a signature takes these options."""
    try:
        signature = inspect.signature(maker)
    except ValueError:  # without a signature that Python can inspect
        return
    named, whole = _option_names(maker)
    if whole:
        check_keywords(f"encoder {called}", "option", options, named)
    try:
        signature.bind(n_features, window, **options)
    except TypeError as error:
        given = ", ".join(["n_features", "window", *options])
        raise ArgumentError(
            f"encoder {called} does not take ({given}): {error}; its class takes n_features, "
            "window and its options by keyword"
        ) from error


def _option_names(maker: Maker) -> tuple[list[str], bool]:
    """Return the options that a maker names, and whether these are all that it takes.

    A class of the package hands further options on to the class that it is derived from.
    """
    kinds: list[Maker] = [maker]
    if isinstance(maker, type) and issubclass(maker, Encoder):
        kinds = [kind for kind in maker.__mro__ if "__init__" in vars(kind)]
    found: list[str] = []
    for kind in kinds:
        parameters = inspect.signature(kind).parameters
        found += [name for name, one in parameters.items() if one.kind in (1, 3)][2:]
        if not any(one.kind is one.VAR_KEYWORD for one in parameters.values()):
            return found, True
    return found, False


def user_code(what: str) -> AbstractContextManager[None]:
    """Attribute an error in a user's code to it, unless memory is lacking."""
    return errors.user_code(what, leave=(errors.PortfolioError, MemoryError, th.OutOfMemoryError))


def _inputs(encoder: Encoder, assets: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return windows, tradable flags and no codes of some assets, drawn the same each time."""
    device = next(encoder.parameters(), th.empty(0)).device
    generator = th.Generator().manual_seed(assets)
    shape = (_BATCH, encoder.bars, assets, encoder.n_features)
    tradable = th.ones(_BATCH, assets, device=device)
    tradable[1:, -1] = 0.0
    return th.randn(shape, generator=generator, device="cpu").to(device), tradable, None


def _type(thing: object) -> str:
    return type(thing).__name__


def _run(encoder: Encoder, windows: Tensor, tradable: Tensor, codes: Tensor | None) -> Tensor:
    """Return (batch, assets, channels) of a batch, without a gradient; the shape is checked."""
    called, (batch, _, assets, _) = encoder.name_in_messages, windows.shape
    before = windows.clone(), tradable.clone()
    with user_code(f"encoder {called}"), th.no_grad():
        out = encoder(windows, tradable, codes)
    if not isinstance(out, Tensor) or out.ndim != 3 or out.shape[:2] != (batch, assets):
        given = f"shape {tuple(out.shape)}" if isinstance(out, Tensor) else f"a {_type(out)}"
        raise ArgumentError(
            f"encoder {called} makes {given} of windows {tuple(windows.shape)} (batch, bars, "
            f"assets, features); it must make (batch, assets, channels), ({batch}, {assets}, C)"
        )
    channels = getattr(encoder, "channels", out.shape[2])
    if out.shape[2] != channels or channels < 1 or not out.is_floating_point():
        raise ArgumentError(
            f"encoder {called} makes {out.shape[2]} channels of {out.dtype} for {assets} assets; "
            f"it must make {channels if channels > 0 else 'at least 1'} of float32, for any number "
            "of assets"
        )
    if out.dtype != windows.dtype or out.device != windows.device:
        raise ArgumentError(
            f"encoder {called} makes {out.dtype} on {out.device} of windows of {windows.dtype} on "
            f"{windows.device}; it must make the same: return out.to(windows)"
        )
    if not (th.equal(windows, before[0]) and th.equal(tradable, before[1])):
        raise ArgumentError(
            f"encoder {called} writes to its inputs, which others read as well; compute anew, e.g. "
            "2 * windows, not windows.mul_(2)"
        )
    if not bool(out.isfinite().all()):
        raise ArgumentError(
            f"encoder {called} makes numbers that are not finite of features around 0, of "
            f"{assets} asset{'s' * (assets > 1)}"
        )
    return out


def _try_out(encoder: Encoder, called: str) -> None:
    """Reject an encoder that violates the contract of ``Encoder``.

    Raises:
        ArgumentError: With what is wrong.
    """
    if not isinstance(getattr(encoder, "channels", None), int):
        raise ArgumentError(
            f"encoder {called} has no channels: set self.channels to the width of its vectors, or "
            "subclass torch's nn.Module, for which it is found"
        )
    for assets in (1, 2 * _ASSETS + 1):
        _run(encoder, *_inputs(encoder, assets))
    windows, tradable, codes = _inputs(encoder, _ASSETS)
    first, second = (_run(encoder, windows, tradable, codes) for _ in range(2))
    if not th.allclose(first, second, rtol=1e-4, atol=1e-5):
        raise ArgumentError(
            f"encoder {called} makes other numbers of the same windows the second time; in "
            "evaluation mode it may draw nothing and keep nothing of earlier calls"
        )
    other = windows.clone()
    other[1:] = 3.0 - 2.0 * other[1:]
    for training in (False, True):
        outputs = []
        for batch in (windows, other):
            copy = deepcopy(encoder).train(training)
            th.manual_seed(0)  # for dropout
            outputs.append(_run(copy, batch, tradable, codes)[0])
        if not th.allclose(outputs[0], outputs[1], rtol=1e-3, atol=1e-4):
            raise ArgumentError(
                f"encoder {called}: what it makes of one window depends on the others of its batch"
                f"{' in training' * training}, as with batch normalisation; normalise within a "
                "window, e.g. by LayerNorm"
            )
    if not encoder.mixes_assets:
        alone = _run(encoder, windows[:, :, :1], tradable[:, :1], codes)
        if not th.allclose(alone, first[:, :1], rtol=1e-3, atol=1e-4):
            raise ArgumentError(
                f"encoder {called}: the vector of an asset depends on the other assets; set "
                "mixes_assets = True in its class, or only drawn assets would be encoded"
            )
    order = th.arange(_ASSETS).roll(1)
    moved = _run(encoder, windows[:, :, order], tradable[:, order], codes)
    if not th.allclose(moved, first[:, order], rtol=1e-3, atol=1e-4):
        _say_once(
            f"encoder {called} makes other vectors where the assets come in another order: it may "
            "learn which asset stands where, which does not carry over to other markets"
        )


@cache
def _say_once(message: str) -> None:
    _LOGGER.warning(message)
