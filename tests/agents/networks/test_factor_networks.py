"""Factor networks: contract of encoders, sizes, codes, branches, gates, norms."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch as th
from helpers.encoder_checks import (
    ASSETS,
    BATCH,
    CHECKS,
    FEATURES,
    WINDOW,
    Make,
    attention_sums_to_one,
    build,
    inputs,
    parameters,
)
from torch import nn

from agents.networks.base import CodeEmbedding
from agents.networks.factor import BranchEncoder, FactorEncoder, MlpEncoder, ResidualMlpEncoder
from agents.networks.mlp import (
    ACTIVATIONS,
    ARCHITECTURES,
    ConfigurableMLP,
    ResidualBlock,
    ResidualMLP,
    RowBatchNorm,
)
from portfolio_env.errors import ArgumentError

GROUPS = {"price": [0, 3], "volume": [1], "news": [4]}


def branches(n_features: int, window: int, **options: Any) -> BranchEncoder:
    """Two groups, of however many features."""
    groups = {"price": range((n_features + 1) // 2), "volume": range(n_features // 2, n_features)}
    return BranchEncoder(n_features, window, groups, **options)


CODED = {"vocabulary_sizes": [3, 3], "embed_dim": 2}
BUILDERS: dict[str, Make] = {
    "mlp": MlpEncoder,
    "mlp_window": partial(MlpEncoder, architecture="pyramid", flatten=True),
    "residual_mlp": partial(ResidualMlpEncoder, blocks=2),
    "residual_mlp_codes": partial(ResidualMlpEncoder, blocks=2, flatten=True, **CODED),
    "factor": FactorEncoder,
    "factor_codes": partial(FactorEncoder, flatten=True, **CODED),
    "branches": branches,
}


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("name", BUILDERS)
def test_they_keep_the_contract_of_encoders(name: str, check: Callable[[Make], None]) -> None:
    check(BUILDERS[name])


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize(
    "cls", [MlpEncoder, ResidualMlpEncoder, FactorEncoder, BranchEncoder], ids=lambda c: c.__name__
)
def test_they_read_the_last_bar_or_the_window(cls: Make, flatten: bool) -> None:
    encoder = build(cls, flatten=flatten)
    assert encoder.bars == (WINDOW if flatten else 1)
    windows = th.randn(BATCH, WINDOW, ASSETS, FEATURES, requires_grad=True)
    tradable = th.ones(BATCH, ASSETS)
    out = encoder(windows, tradable)
    (out * th.linspace(-1, 1, encoder.channels)).sum().backward()
    read = windows.grad.abs().amax((0, 2, 3)) > 0
    assert read[-1] and (read[:-1] == flatten).all()
    th.testing.assert_close(encoder(windows[:, -encoder.bars :], tradable), out)


@pytest.mark.parametrize("norm", ["layer", "batch"])
def test_parameters_are_those_of_the_originals(norm: str) -> None:
    sizes = {
        "shallow_wide": 39_169,
        "deep_narrow": 18_689,
        "pyramid": 49_601,
        "hourglass": 18_497,
        "uniform": 36_609,
    }
    assert set(sizes) == set(ARCHITECTURES)
    for name, size in sizes.items():
        assert parameters(ConfigurableMLP(20, ARCHITECTURES[name], norm=norm)) == size
        encoder = MlpEncoder(20, 1, name, norm=norm)
        assert parameters(encoder) + encoder.channels + 1 == size
    assert parameters(ConfigurableMLP(20, [128] * 4, norm=norm)) == 53_377
    assert parameters(MlpEncoder(20, 1, depth=4, norm=norm)) == 53_377 - 129
    assert parameters(ConfigurableMLP(19, [256, 256], norm=norm)) == 72_193
    assert parameters(ConfigurableMLP(19, [64] * 6, norm=norm)) == 22_913
    assert parameters(ConfigurableMLP(19, ARCHITECTURES["pyramid"], norm=norm)) == 49_345
    assert parameters(ResidualBlock(128, norm=norm)) == 33_536
    assert parameters(ResidualMLP(20, 128, 4, norm=norm)) == 137_217
    assert parameters(ResidualMlpEncoder(20, 1, norm=norm)) == 137_217 - 129


def test_parameters_of_models_with_codes_and_branches_are_accounted_for() -> None:
    sizes = {"vocabulary_sizes": [6, 5, 4], "embed_dim": [4, 3, 2]}
    coded = MlpEncoder(15, 1, [64, 32], **sizes)
    unknown = 4 + 3 + 2  # a vector for the code 0 of each category is new
    assert parameters(coded) + 33 == 3_943 + unknown

    groups = {"price": range(12), "volume": range(12, 16), "sentiment": range(16, 19)}
    joined = BranchEncoder(19, 1, groups)
    assert parameters(joined.score) == 195
    assert parameters(joined) + 33 == 15_044

    factor = FactorEncoder(19, 1, vocabulary_sizes=[4, 3, 3])
    head = (128 * 64 + 64) + (64 + 1)
    gates_of_hidden_units = (128 * 32 + 32) + (32 * 128 + 128)
    gates_of_inputs = (43 * 32 + 32) + (32 * 19 + 19)
    assert parameters(factor.gate) == gates_of_inputs
    original = parameters(factor) - gates_of_inputs + gates_of_hidden_units + head - 3 * 8
    assert original == 123_225


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_built_by_name_one_per_layer(name: str) -> None:
    network = ConfigurableMLP(3, [4, 4], activation=name, norm=None)
    used = [part for part in network if isinstance(part, type(ACTIVATIONS[name]()))]
    assert len(used) == 2 and used[0] is not used[1]


def test_a_perceptron_is_its_layers_in_order() -> None:
    network = ConfigurableMLP(3, [5], 2, activation="leaky_relu", norm="layer")
    rows = th.randn(2, 4, 3)
    hidden = nn.functional.layer_norm(rows @ network[0].weight.T + network[0].bias, [5])
    hidden = th.where(hidden > 0, hidden, 0.1 * hidden)
    th.testing.assert_close(network(rows), hidden @ network[4].weight.T + network[4].bias)
    assert network.out_width == 2
    assert not any(isinstance(part, nn.LayerNorm) for part in ConfigurableMLP(3, [5], norm=None))


def test_a_block_starts_from_its_input() -> None:
    block = ResidualBlock(6, norm=None)
    with th.no_grad():
        for weight in block.parameters():
            weight.zero_()
    rows = th.randn(7, 6)
    th.testing.assert_close(block(rows), rows.relu())


def test_batch_norm_is_over_rows_and_only_on_request() -> None:
    rows = 3 + 2 * th.randn(20, 5, 4)
    norm = RowBatchNorm(4)
    th.testing.assert_close(norm(rows).flatten(0, 1), nn.BatchNorm1d(4)(rows.flatten(0, 1)))
    for name, make in BUILDERS.items():
        plain, batched = build(make), build(make, norm="batch")
        assert not any(isinstance(part, RowBatchNorm) for part in plain.modules()), name
        assert any(isinstance(part, RowBatchNorm) for part in batched.modules()), name
        given = inputs(batched, batch=1)
        batched.train()(*given)
        assert batched.eval()(*given).isfinite().all()


def test_codes_choose_vectors_and_zero_adds_nothing_at_first() -> None:
    embedding = CodeEmbedding([3, 5], [2, 4])
    assert embedding.width == 6
    codes = th.tensor([[[0, 4], [2, 0]]])
    found = embedding(codes)
    first, second = (table.weight for table in embedding.tables)
    assert th.equal(found[0, 0], th.cat([th.zeros(2), second[4]]))
    assert th.equal(found[0, 1], th.cat([first[2], th.zeros(4)]))
    found.sum().backward()
    assert first.grad[0].abs().min() > 0  # unknown is learned where it occurs


@pytest.mark.parametrize("cls", [MlpEncoder, ResidualMlpEncoder, FactorEncoder])
def test_codes_matter_and_missing_ones_are_unknown(cls: Make) -> None:
    encoder = build(cls, **CODED)
    assert encoder.uses_codes and not build(cls).uses_codes
    windows, tradable, codes = inputs(encoder)
    assert not th.equal(
        encoder(windows, tradable, codes), encoder(windows, tradable, (codes + 1) % 3)
    )
    unknown = encoder(windows, tradable, th.zeros_like(codes))
    assert th.equal(encoder(windows, tradable), unknown)
    with pytest.raises(ArgumentError, match="3 categories, the network knows 2"):
        encoder(windows, tradable, codes[..., [0, 1, 1]])


def test_gates_close_features_of_the_input() -> None:
    encoder = build(FactorEncoder, flatten=True, **CODED)
    windows, tradable, codes = inputs(encoder)
    gates = encoder.attention(windows, tradable, codes)["gates"]
    assert gates.shape == (BATCH, ASSETS, FEATURES) and ((gates > 0) & (gates < 1)).all()
    assert gates.std(0).min() > 0
    by_hand = encoder.network(encoder.rows(encoder.series(windows) * gates.unsqueeze(2), codes))
    th.testing.assert_close(encoder(windows, tradable, codes), by_hand)
    with th.no_grad():
        last = encoder.gate[-1]
        last.weight[1], last.bias[1] = 0.0, -1e4
        last.weight[0], last.bias[0] = 0.0, 1.0
    other = windows.clone()
    other[..., 1] += windows.flip(1)[..., 1] - windows[..., 1]  # the mean over bars is the same
    out = encoder(windows, tradable, codes)
    assert th.equal(encoder(other, tradable, codes), out)
    other = windows.clone()
    other[..., 0] = windows.flip(1)[..., 0]
    assert not th.allclose(encoder(other, tradable, codes), out)


def test_gates_can_single_out_what_is_informative() -> None:
    encoder = FactorEncoder(6, 1, channels=16, blocks=1)
    head = nn.Linear(16, 1)
    optimizer = th.optim.AdamW([*encoder.parameters(), *head.parameters()], 1e-2, weight_decay=0.1)
    for _ in range(150):
        windows = th.randn(64, 1, 3, 6)
        loss = (head(encoder(windows, th.ones(64, 3))).squeeze(-1) - windows[:, 0, :, 2]).square()
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    gates = encoder.attention(th.randn(200, 1, 3, 6), th.ones(200, 3))["gates"].mean((0, 1))
    assert gates.argmax() == 2
    assert loss.mean() < 0.2


def test_attention_weighs_the_branches() -> None:
    make = partial(BranchEncoder, groups=GROUPS)
    attention_sums_to_one(make)
    encoder = build(make)
    windows, tradable, _ = inputs(encoder)
    shares = encoder.attention(windows, tradable)["branches"]
    assert shares.shape == (BATCH, ASSETS, 3) and encoder.names == tuple(GROUPS)
    parts = [
        branch(windows[:, -1][..., columns])
        for branch, columns in zip(encoder.branches, GROUPS.values(), strict=True)
    ]
    assert [part.shape[-1] for part in parts] == [32, 16, 16]
    weighed = [3 * shares[..., k : k + 1] * part for k, part in enumerate(parts)]
    th.testing.assert_close(encoder(windows, tradable), encoder.join(th.cat(weighed, -1)))
    with th.no_grad():
        encoder.score.weight.zero_()
        encoder.score.bias.copy_(th.tensor([0.0, -1e4, 0.0]))
    other = windows.clone()
    other[..., 1] = 5.0
    out = encoder(windows, tradable)
    assert th.equal(encoder(other, tradable), out)  # no attention, no influence
    other[..., 0] = 5.0
    assert not th.allclose(encoder(other, tradable), out)


def test_branches_read_their_columns_of_every_bar() -> None:
    encoder = build(BranchEncoder, groups=GROUPS, branches={"news": [8, 4]}, flatten=True)
    assert [branch[0].in_features for branch in encoder.branches] == [2 * WINDOW, WINDOW, WINDOW]
    assert encoder.branches[2][-2].out_features == 4
    windows, tradable, _ = inputs(encoder)
    windows.requires_grad_()
    encoder(windows, tradable).sum().backward()
    read = windows.grad.abs().amax((0, 1, 2)) > 0
    assert read.tolist() == [True, True, False, True, True]
    assert not any("columns" in name for name in encoder.state_dict())


def test_bad_options_are_named() -> None:
    for make, options, part in [
        (MlpEncoder, {"activation": "rellu"}, "unknown activation 'rellu': did you mean relu"),
        (MlpEncoder, {"architecture": "tower"}, "unknown architecture 'tower'"),
        (MlpEncoder, {"architecture": "uniform", "depth": 2}, "give the architecture, or depth"),
        (MlpEncoder, {"architecture": []}, "layers=0"),
        (MlpEncoder, {"depth": 0}, "depth=0"),
        (MlpEncoder, {"norm": "group"}, "norm is 'group'"),
        (MlpEncoder, {"vocabulary_sizes": [3, 0]}, "vocabulary_size=0"),
        (MlpEncoder, {"vocabulary_sizes": [3, 2], "embed_dim": [4]}, "1 widths for 2 categories"),
        (ResidualMlpEncoder, {"blocks": 0}, "blocks=0"),
        (ResidualMlpEncoder, {"dropout": 1.0}, "dropout=1.0"),
        (FactorEncoder, {"gate_width": 0}, "layer=0"),
        (BranchEncoder, {"groups": {}}, "groups=0"),
        (BranchEncoder, {"groups": {"price": []}}, "group 'price' has columns"),
        (BranchEncoder, {"groups": {"price": [0, 0]}}, "group 'price' has columns"),
        (BranchEncoder, {"groups": {"price": [5]}}, "from 0 to 4"),
        (BranchEncoder, {"branches": {"price": [4]}}, "branch 'price'"),
        (BranchEncoder, {"branches": {"all": []}}, "branch 'all'"),
    ]:
        with pytest.raises(ArgumentError, match=part):
            make(FEATURES, WINDOW, **options)
