"""Encoders that users bring: any module of torch, tried out, with errors told as theirs."""

import logging
import sys
from typing import Any

import pytest
import torch as th
from torch import Tensor, nn

from agents.encoding.market_encoder import MarketEncoder
from agents.networks import Encoder, encoder_class, make_encoder
from agents.networks import plugins as of_encoders
from portfolio_env.errors import ArgumentError
from tests.helpers.encoder_checks import CHECKS, build

FEATURES, WINDOW = 5, 7


class Plain(nn.Module):
    """A module that knows nothing of this package."""

    def __init__(self, n_features: int, window: int, width: int = 6, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features * window, width)
        self.drop = nn.Dropout(dropout)

    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return self.drop(self.layer(windows.transpose(1, 2).flatten(2)).tanh())


class OnlyWindows(Plain):
    def forward(self, windows: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(windows, windows)


class WithCodes(Plain):
    def forward(self, windows: Tensor, tradable: Tensor, codes: Any = None) -> Tensor:
        out = super().forward(windows, tradable)
        return out if codes is None else out + codes.float().sum(-1, keepdim=True)


class Lazy(Plain):
    def __init__(self, n_features: int, window: int, dropout: float = 0.0) -> None:
        super().__init__(n_features, window, dropout=dropout)
        self.layer = nn.LazyLinear(4)


class Own(Encoder):
    def __init__(self, n_features: int, window: int, dropout: float = 0.0) -> None:
        super().__init__(n_features, window)
        self.channels = 3
        self.layer = nn.Linear(n_features, 3)
        self.drop = nn.Dropout(dropout)

    def forward(self, windows: Tensor, tradable: Tensor, codes: Any = None) -> Tensor:
        return self.drop(self.layer(windows).mean(1))


class MixesUnsaid(Own):
    def forward(self, windows: Tensor, tradable: Tensor, codes: Any = None) -> Tensor:
        rows = super().forward(windows, tradable, codes)
        return rows - rows.mean(1, keepdim=True)


def made(kind: Any) -> Any:
    return lambda features, window, **options: make_encoder(kind, features, window, **options)


@pytest.mark.parametrize("kind", [Plain, OnlyWindows, WithCodes, Lazy, Own])
def test_they_pass_what_the_built_in_ones_pass(kind: Any) -> None:
    for check in CHECKS:
        if check.__name__ in ("untradable_assets_stay_apart", "cuda_is_equal"):
            continue
        check(made(kind))


def test_a_name_is_as_good_as_the_class() -> None:
    name = f"{__name__}:Plain"
    assert encoder_class(name) is Plain
    by_name, by_class = (build(made(kind), width=9) for kind in (name, Plain))
    assert by_name.channels == 9
    for one, other in zip(by_name.parameters(), by_class.parameters(), strict=True):
        assert th.equal(one, other)


def test_making_one_draws_what_its_class_draws() -> None:
    """Trying it out leaves the generator alone, the first time as well as later."""
    drawn = []
    for make in (Plain, made(Plain), made(Plain)):
        th.manual_seed(3)
        make(FEATURES, 2)
        drawn.append(th.rand(1))
    assert drawn[0] == drawn[1] == drawn[2]


class NoSuper(nn.Module):
    def __init__(self, n_features: int, window: int) -> None:
        self.layer = nn.Linear(1, 1)

    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor: ...


class TypeErrorInside(Plain):
    def __init__(self, n_features: int, window: int, **options: Any) -> None:
        super().__init__(n_features, window)
        self.size = len(3)  # type: ignore[arg-type]


class BatchNorm(Plain):
    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return self.norm(super().forward(windows, tradable).transpose(1, 2)).transpose(1, 2)


class FixedAssets(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable) * th.ones(4, 1)


class NotFinite(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable).log()


class Flat(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable).flatten(1)


class WidthOfAssets(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return windows[:, 0] @ windows[:, 0].transpose(1, 2)


class NoChannels(Own):
    def __init__(self, n_features: int, window: int) -> None:
        super().__init__(n_features, window)
        del self.channels


class NoWindow(nn.Linear):
    pass


class NoSuperNorWeights(NoSuper):
    def __init__(self, n_features: int, window: int) -> None: ...


class Doubles(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable).double()


class Halves(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable).half()


class Elsewhere(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable).to("meta")


class Counts(Plain):
    calls = 0

    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(windows, tradable) + self.calls


class Draws(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows, tradable) + th.rand(1)


class Writes(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return super().forward(windows.mul_(2), tradable)


class Pair(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Any:  # type: ignore[override]
        return super().forward(windows, tradable), tradable


def not_a_module(n_features: int, window: int) -> Any:
    return "a text"


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (NoSuper, r"NoSuper raised AttributeError: cannot .*test_user_encoders.py, line \d+"),
        (NoSuperNorWeights, r"must call super\(\).__init__\(\)"),
        (Doubles, r"makes torch.float64 on cpu of windows of torch.float32.*out.to\(windows\)"),
        (Halves, "makes torch.float16"),
        (Elsewhere, "on meta of windows of torch.float32 on cpu"),
        (Counts, "other numbers of the same windows the second time"),
        (Draws, "other numbers of the same windows the second time"),
        (Writes, "writes to its inputs"),
        (Pair, "makes a tuple of windows"),
        (nn.Linear(1, 1), "a Linear that is made already; give the class"),
        (TypeErrorInside, "TypeErrorInside raised TypeError: .*has no len"),
        (BatchNorm, "depends on the others of its batch in training"),
        (MixesUnsaid, "set mixes_assets = True"),
        (FixedAssets, r"makes shape \(3, 4, 6\).*must make .*\(3, 1, C\)"),
        (NotFinite, "not finite"),
        (Flat, r"makes shape \(3, 24\).*must make \(batch, assets, channels\)"),
        (WidthOfAssets, "for any number of assets"),
        (NoChannels, "set self.channels"),
        (NoWindow, r"makes shape \(3, 7, 4, 7\)"),
        (not_a_module, "not a torch module"),
        (7, "give a name"),
        (f"{__name__}:not_a_module", "must stand for a class"),
        ("os:system", "a module of Python itself"),
        ("gta", "did you mean gat"),
    ],
)
def test_what_is_wrong_is_told_as_the_users(kind: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        make_encoder(kind, FEATURES, WINDOW)


def test_options_are_checked_by_the_signature() -> None:
    with pytest.raises(ArgumentError, match="no option 'widht'; did you mean 'width'"):
        make_encoder(Plain, FEATURES, WINDOW, widht=3)
    with pytest.raises(ArgumentError, match="no option 'hiden'; did you mean 'hidden'"):
        make_encoder("lstm", FEATURES, WINDOW, hiden=3)
    with pytest.raises(ArgumentError, match=r"does not take \(n_features, window\): too many"):
        make_encoder(lambda n_features: nn.Linear(1, 1), FEATURES, WINDOW)


class PassesOn(Own):
    def __init__(self, n_features: int, window: int, scale: float = 1.0, **options: Any) -> None:
        super().__init__(n_features, window, **options)
        self.scale = scale


def test_options_of_parents_are_found_beside_a_mixin() -> None:
    class Mixin:
        pass

    mixed = type("Mixed", (PassesOn, Mixin, Own), {})
    make_encoder(mixed, FEATURES, WINDOW, scale=2.0, dropout=0.1)
    with pytest.raises(ArgumentError, match="no option 'dropuot'; did you mean 'dropout'"):
        make_encoder(mixed, FEATURES, WINDOW, dropuot=0.1)


class ByPlace(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        place = th.arange(windows.shape[2])[:, None]
        return super().forward(windows, tradable) + place


def test_what_knows_places_is_noted_once(caplog: pytest.LogCaptureFixture) -> None:
    of_encoders._say_once.cache_clear()
    for window in (3, 3, 4):
        with caplog.at_level(logging.WARNING):
            make_encoder(ByPlace, FEATURES, window)
    assert len([one for one in caplog.messages if "another order" in one]) == 1


class FailsLater(Plain):
    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        if len(windows) > 3:
            raise KeyError("too many windows")
        return super().forward(windows, tradable)


def test_errors_in_training_name_the_users_code_too() -> None:
    embeddings = MarketEncoder(make_encoder(FailsLater, FEATURES, 2))
    embeddings.bind(th.zeros(10, 3, FEATURES))
    with pytest.raises(ArgumentError, match=r"FailsLater raised KeyError: .too many windows"):
        embeddings(th.arange(4, 8))


def test_nothing_is_imported_for_a_name_of_another_form() -> None:
    with pytest.raises(ArgumentError, match="unknown encoder"):
        make_encoder("os.system", 1, 1)
    assert "antigravity" not in sys.modules
