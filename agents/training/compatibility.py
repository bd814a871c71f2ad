"""Settings of a training run that do not go together, with what to change."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agents.sb3.classes import ALGORITHMS, policy_class
from portfolio_env.checks import shortened
from portfolio_env.errors import ArgumentError
from portfolio_env.names import names_plugin
from portfolio_env.simulation.costs import TransactionCosts

if TYPE_CHECKING:
    from agents.training.config import TrainConfig


def check_compatible(config: TrainConfig) -> None:
    """Reject settings that are each valid, but not together.

    Raises:
        ArgumentError: For the first of them.
    """
    _check_costs(config)
    _check_encoder(config)
    _check_policy(config)
    _check_positions(config)
    _check_accumulation(config)
    _check_differentiable(config)


def _check_costs(config: TrainConfig) -> None:
    if config.cost_options != "{}" and config.cost_model is None:
        raise ArgumentError(f"cost_options are {config.cost_options}: name their cost_model")
    if config.cost_model is not None and config.costs != TransactionCosts():
        raise ArgumentError(
            f"cost_model {shortened(config.cost_model)} stands in place of costs: leave one of "
            "them out"
        )


def _check_encoder(config: TrainConfig) -> None:
    of_encoder = config.curriculum != "3" or config.prediction_weight or config.freeze_encoder
    if not config.has_encoder and of_encoder:
        raise ArgumentError(
            f"curriculum {config.curriculum}, prediction_weight {config.prediction_weight} and "
            f"freeze_encoder {config.freeze_encoder} are about an encoder; policy "
            f"{config.policy!r} with encoder {shortened(config.encoder)} has none to train: choose "
            "e.g. encoder gat"
        )
    if config.policy == "flat_mlp" and config.encoder != "per_asset":
        raise ArgumentError(
            f"policy 'flat_mlp' has no encoder, encoder is {shortened(config.encoder)}; leave "
            "one of them out"
        )
    if config.prediction_weight and config.observation != "index":
        raise ArgumentError(
            f"prediction_weight is {config.prediction_weight}: forecasts need the market that "
            f'index observations refer to; choose observation "index", not '
            f"{config.observation!r}, or prediction_weight 0"
        )


def _check_policy(config: TrainConfig) -> None:
    if config.policy == "dirichlet" and config.algo in ALGORITHMS:
        policy_class(config.algo, config.policy)  # rejects algorithms that cannot train it
    if config.algo == "direct" and config.policy != "per_asset":
        raise ArgumentError(
            f"policy {config.policy!r} is not for direct, which trains 'per_asset' only"
        )
    if config.algo == "direct" and config.reward != type(config).reward:
        raise ArgumentError(
            f"reward {shortened(config.reward)} has no effect on direct, which maximises net "
            "growth itself: leave it out"
        )
    if config.policy == "flat_mlp" and config.observation == "index":
        raise ArgumentError(
            'policy "flat_mlp" cannot read index observations; pass observation "flat"'
        )
    if config.policy == "flat_mlp" and config.universe:
        raise ArgumentError(
            f"universe is {config.universe}: policy 'flat_mlp' is made for all assets of the "
            "market; leave universe out"
        )


def _check_positions(config: TrainConfig) -> None:
    limits, asked = config.constraints, config.positions
    shorts, borrows = not limits.long_only, limits.max_leverage > 1
    if asked == "long_only" and (shorts or borrows):
        raise ArgumentError(
            f"positions is 'long_only': constraints.long_only is {limits.long_only} and "
            f"constraints.max_leverage {limits.max_leverage:g}; leave these at True and 1, or "
            "choose positions 'long_short' or 'levered'"
        )
    if asked == "levered" and (shorts or not borrows):
        raise ArgumentError(
            f"positions is 'levered': constraints.long_only is {limits.long_only} and "
            f"constraints.max_leverage {limits.max_leverage:g}; give a max_leverage above 1 "
            "without short positions, or choose positions 'long_short'"
        )
    if config.policy == "dirichlet" and (shorts or borrows or asked == "long_short"):
        raise ArgumentError(
            "policy 'dirichlet' draws long-only weights without leverage; choose policy "
            "'per_asset' for short positions or leverage"
        )


def _check_accumulation(config: TrainConfig) -> None:
    takes_parts = config.algo in ("ppo", "a2c", "direct") or names_plugin("algorithm", config.algo)
    if config.compute.accumulation != 1 and (not takes_parts or config.policy == "flat_mlp"):
        raise ArgumentError(
            f"compute.accumulation is {config.compute.accumulation}: it is for ppo, a2c and "
            f"direct with a policy per asset, not for {config.algo} with policy "
            f"{config.policy!r}; leave it out, or give a smaller batch: --algo-options "
            "'{\"batch_size\": 256}'"
        )


def _check_differentiable(config: TrainConfig) -> None:
    """Reject rules of trading through which net growth has no gradient, where that is followed."""
    if config.algo != "direct" and "2" not in config.curriculum:
        return
    turnover = config.constraints.max_period_turnover
    later = "leave them out and evaluate with them, or train with RL without stage 2"
    rules = (
        (
            turnover is not None,
            f"constraints.max_period_turnover is {turnover}",
            "this limit is not differentiable",
            "use constraints.max_turnover, or RL without stage 2",
        ),
        (
            config.constraints.group_bounds is not None,
            "constraints.group_bounds",
            "they are not differentiable",
            "leave them out, or train with RL without stage 2",
        ),
        (not config.fills.complete, f"fills are {config.fills}", "every order is filled", later),
        (
            config.delay > 0,
            f"delay is {config.delay}",
            "the last bar is observed",
            later.replace("them", "it"),
        ),
    )
    for given, setting, why, fix in rules:
        if given:
            raise ArgumentError(
                f"{setting}: algo {config.algo} with curriculum {config.curriculum} follows the "
                f"gradient of net growth, where {why}; {fix}"
            )
