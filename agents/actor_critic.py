"""An actor and a critic with weights shared over assets, in plain torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch as th
from torch import Tensor, nn

from agents.encoding.market_rows import MarketRows, Observation
from agents.networks import AssetHead, RowMlp, masked_mean
from agents.networks.heads import bounded_scores, orthogonal
from portfolio_env.checks import check_number

LOG_STD_INIT = -0.5  # noise of logits in [-1, 1]: wide, or learning takes far longer
SCORER = (32, 32)


class ActorCriticRows(nn.Module):
    """Hidden layers over per-asset rows: separate rows for the actor, pooled rows for the critic.

    Args:
        width: Numbers in a row, whose last is the tradable flag.
        net_arch: Layer widths ``{"pi": [...], "vf": [...]}``.
        activation: Between layers.
        critic_gradient: Share of the critic's gradient that reaches rows which the actor reads as
            well. Its loss is the larger one and mostly noise: an encoder that learns from all of
            both captured 0.58 of a planted signal, one without the critic's 0.80.

    Attributes:
        latent_dim_pi: Width of the actor's hidden rows.
        latent_dim_vf: Width of the critic's pooled rows.
    """

    def __init__(
        self,
        width: int,
        net_arch: Mapping[str, Sequence[int]],
        activation: type[nn.Module],
        critic_gradient: float = 0.0,
    ) -> None:
        super().__init__()
        self.critic_gradient = check_number("critic_gradient", critic_gradient, 0, 1)
        self.policy_net = RowMlp(width, list(net_arch["pi"]), activation)
        self.value_net = RowMlp(width, list(net_arch["vf"]), activation)
        self.latent_dim_pi = self.policy_net.out_width
        self.latent_dim_vf = self.value_net.out_width

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return what ``forward_actor`` and ``forward_critic`` return, of rows shared by both."""
        shared = rows
        if self.critic_gradient < 1:
            shared = rows.detach()
        if 0 < self.critic_gradient < 1:
            shared = th.lerp(shared, rows, self.critic_gradient)
        return self.forward_actor(rows), self.forward_critic(shared)

    def forward_actor(self, rows: Tensor) -> Tensor:
        """Return the actor's rows (batch, assets, latent_dim_pi) of rows (batch, assets, width)."""
        latent: Tensor = self.policy_net(rows)
        return latent

    def forward_critic(self, rows: Tensor) -> Tensor:
        """Return the critic's vector (batch, latent_dim_vf), the mean over the tradable assets."""
        return masked_mean(self.value_net(rows), rows[..., -1])


def action_means(scores: Tensor) -> Tensor:
    """Return the means of logits for scores (batch, 1 + assets), in the middle of [-1, 1].

    Their weights are those of ``bounded_scores``, the actions of ``DirectAgent``; the shift leaves
    as much room for noise above the largest as below the smallest. Scores as they are would leave
    the box that the environment clips to, by 42 to 72 % of them after stage 2 of a curriculum, and
    change what was learned.

    >>> action_means(th.tensor([[3.0, 2.5, 2.0]])).tolist()
    [[0.5, 0.0, -0.5]]
    """
    logits = bounded_scores(scores)
    return logits - (1.0 + logits.amin(1, keepdim=True)) / 2


def noise_parameter(log_std_init: float) -> nn.Parameter:
    """Return the log standard deviations of the action noise: of cash, and of every asset."""
    return nn.Parameter(th.full((2,), float(log_std_init)))


def noise_of(log_std: Tensor, assets: int) -> Tensor:
    """Return the numbers of ``noise_parameter`` for cash and every asset, (1 + assets,)."""
    return th.cat([log_std[:1], log_std[1:].expand(assets)])


class PerAssetActorCritic(nn.Module):
    """Actor-critic over rows of any number of assets: means of actions, their noise and a value.

    The networks of ``agents.PerAssetActorCriticPolicy``, for a training loop of one's own. Means
    follow the order of the assets; the value is pooled over those that can be traded.

    Args:
        rows: Makes rows of observations.
        critic_rows: Rows of the critic; default the actor's.
        net_arch: Layer widths ``{"pi": [...], "vf": [...]}``; default two of 32 each.
        log_std_init: Log standard deviation of the noise at the start, on logits in [-1, 1].
        activation: Between layers.
        critic_gradient: See ``ActorCriticRows``.

    >>> from portfolio_env import PortfolioVectorEnv
    >>> env = PortfolioVectorEnv(3, "synthetic?bars=300&assets=4", window=5, observation="index")
    >>> net = PerAssetActorCritic(MarketRows.of(env))
    >>> mean, log_std, value = net(env.reset(seed=0)[0])
    >>> tuple(mean.shape), tuple(log_std.shape), tuple(value.shape)
    ((3, 5), (3, 5), (3,))
    """

    def __init__(
        self,
        rows: MarketRows,
        critic_rows: MarketRows | None = None,
        *,
        net_arch: Mapping[str, Sequence[int]] | None = None,
        log_std_init: float = LOG_STD_INIT,
        activation: type[nn.Module] = nn.Tanh,
        critic_gradient: float = 0.0,
    ) -> None:
        super().__init__()
        self.rows = rows
        self.critic_rows = critic_rows
        layers = net_arch or {"pi": SCORER, "vf": SCORER}
        self.mlp_extractor = ActorCriticRows(rows.width, layers, activation, critic_gradient)
        self.action_net = AssetHead(self.mlp_extractor.latent_dim_pi)
        self.value_net = nn.Linear(self.mlp_extractor.latent_dim_vf, 1)
        orthogonal(self.value_net, 1.0)
        self.log_std = noise_parameter(log_std_init)

    def forward(self, observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
        """Return means of actions, their log standard deviations and values.

        Args:
            observation: A batch of any mode, arrays or tensors.

        Returns:
            Means (batch, 1 + assets), cash first; log standard deviations of the same shape; values
            (batch,).
        """
        rows = self.rows(observation)
        if self.critic_rows is None:
            latent, latent_value = self.mlp_extractor(rows)
        else:
            latent = self.mlp_extractor.forward_actor(rows)
            latent_value = self.mlp_extractor.forward_critic(self.critic_rows(observation))
        mean: Tensor = self.action_net(latent)
        log_std = noise_of(self.log_std, mean.shape[1] - 1).expand_as(mean)
        value: Tensor = self.value_net(latent_value)
        return mean, log_std, value.squeeze(-1)
