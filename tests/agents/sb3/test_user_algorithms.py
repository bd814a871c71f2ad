"""Algorithms of users: any subclass of SB3's, with its base's defaults, saved by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch as th
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from torch import Tensor, nn

from agents import load_agent, make_agent, make_sb3_vec_env, save_agent
from agents.direct.agent import DirectAgent
from agents.sb3.classes import algorithm_class, is_on_policy, policy_class, sorted_options
from agents.tensors import load_tensors, save_tensors
from portfolio_env import Market, load_market
from portfolio_env.errors import ArgumentError, DataError


class MyPPO(PPO):
    def __init__(self, *args: Any, clip_more: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.clip_more = clip_more


class MySAC(SAC):
    pass


class Broken(PPO):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        raise LookupError("no such thing")


class Closed(PPO):
    def __init__(self, policy: Any, env: Any, policy_kwargs: Any = None) -> None:
        super().__init__(policy, env, policy_kwargs=policy_kwargs)


class Unmade(PPO):
    def _setup_model(self) -> None:
        pass


class Net(nn.Module):
    def __init__(self, n_features: int, window: int, width: int = 3) -> None:
        super().__init__()
        self.layer = nn.Linear(n_features, width)

    def forward(self, windows: Tensor, tradable: Tensor) -> Tensor:
        return self.layer(windows[:, -1])


SMALL = {"n_steps": 8, "batch_size": 16, "device": "cpu", "seed": 0}


@pytest.fixture(scope="module")
def market() -> Market:
    return load_market("synthetic?bars=80&assets=3", fit_end=60)


def lanes(market: Market) -> Any:
    return make_sb3_vec_env(market, 4, observation="index", window=2, random_start=True)


@pytest.mark.parametrize("by_name", [False, True])
def test_it_has_its_base_class_defaults_and_is_saved_by_name(
    market: Market, tmp_path: Path, by_name: bool
) -> None:
    algo: Any = f"{__name__}:MyPPO" if by_name else MyPPO
    encoder: Any = f"{__name__}:Net" if by_name else Net
    made = make_agent(
        algo, lanes(market), encoder=encoder, window=2, encoder_kwargs={"width": 5},
        clip_more=0.5, **SMALL,
    )  # fmt: skip
    assert made.gamma == 0.9 and made.clip_more == 0.5  # type: ignore[attr-defined]
    made.learn(64)
    file = tmp_path / "agent.safetensors"
    save_agent(made, file)
    recipe = load_tensors(file, kind="agent")
    assert recipe["recipe"]["algo"] == f"{__name__}:MyPPO"
    assert set(recipe["plugins"]) == {"algorithm", "encoder"}
    loaded = load_agent(file, lanes(market), device="cpu")
    assert type(loaded) is MyPPO
    weights = [agent.policy.parameters_to_vector() for agent in (made, loaded)]
    assert np.array_equal(*weights)


def test_kinds() -> None:
    assert is_on_policy(MyPPO) and is_on_policy(f"{__name__}:MyPPO") and not is_on_policy(MySAC)
    assert policy_class(MySAC, "per_asset") is policy_class("sac", "per_asset")
    assert policy_class(MyPPO, "dirichlet") is policy_class("ppo", "dirichlet")
    assert algorithm_class("trpo").__name__ == "TRPO"


def test_off_policy_defaults(market: Market) -> None:
    made = make_agent(MySAC, lanes(market), window=2, buffer_size=100, device="cpu")
    assert made.tau == 0.05 and made.batch_size == 2048  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("algo", "says"),
    [
        ("ppi", "unknown algorithm 'ppi': did you mean ppo"),
        ("os:system", "a module of Python itself"),
        (f"{__name__}:Net", "give a subclass"),
        (BaseAlgorithm, "give a subclass"),
        (7, "give a subclass"),
        (Broken, r"raised LookupError: no such thing \(test_user_algorithms.py, line \d+"),
    ],
)
def test_what_is_none_is_refused(market: Market, algo: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        make_agent(algo, lanes(market), window=2, **SMALL)


@pytest.mark.parametrize(
    ("algo", "says"),
    [
        (Closed, r"__init__ of algo .*Closed'> lacks batch_size, device, n_steps, seed, which its"),
        (Unmade, r"Unmade'> has no policy once it is made: a _setup_model of its own must call"),
    ],
)
def test_classes_that_keep_options_or_the_set_up_to_themselves(
    market: Market, algo: Any, says: str
) -> None:
    with pytest.raises(ArgumentError, match=says):
        make_agent(algo, lanes(market), window=2, **SMALL)


def test_policies_that_stand_in_for_others_are_refused() -> None:
    with pytest.raises(ArgumentError, match="choose policy 'flat_mlp'"):
        policy_class(DQN, "per_asset")
    from sb3_contrib import RecurrentPPO

    with pytest.raises(ArgumentError, match="choose policy 'flat_mlp'"):
        policy_class(RecurrentPPO, "per_asset")


def test_options_go_where_they_belong() -> None:
    given = {
        "learning_rate": 3e-4,
        "gamma": 0.99,
        "net_arch": {"pi": [8], "vf": [8]},
        "log_std_init": -1.0,
        "activation_fn": "ReLU",
    }
    own, of_policy = sorted_options("ppo", "per_asset", given)
    assert own == {"learning_rate": 3e-4, "gamma": 0.99}
    assert of_policy == {
        "net_arch": {"pi": [8], "vf": [8]},
        "log_std_init": -1.0,
        "activation_fn": nn.ReLU,
    }
    own, of_policy = sorted_options(
        "sac", "per_asset", {"train_freq": [2, "step"], "net_arch": [8]}
    )
    assert own == {"train_freq": (2, "step")} and of_policy == {"net_arch": [8]}
    assert sorted_options(MyPPO, "flat_mlp", {"clip_more": 2.0})[0] == {"clip_more": 2.0}
    assert sorted_options("tqc", "per_asset", {"n_quantiles": 5})[1] == {"n_quantiles": 5}
    assert sorted_options("trpo", "per_asset", {"cg_max_steps": 5})[0] == {"cg_max_steps": 5}


@pytest.mark.parametrize(
    ("algo", "options", "says"),
    [
        ("ppo", {"learnin_rate": 1.0}, "no option 'learnin_rate'; did you mean 'learning_rate'"),
        ("sac", {"n_epochs": 3}, "no option 'n_epochs'"),
        ("ppo", {"gamma": "high"}, "gamma='high' must be a finite number"),
        ("ppo", {"gamma": 1.5}, "gamma=1.5 must be"),
        ("ppo", {"n_steps": 2.5}, "n_steps=2.5 must be a whole number"),
        ("trpo", {"cg_max_steps": "x"}, "cg_max_steps='x'"),
        ("ppo", {"activation_fn": "Linear2"}, "activation_fn is 'Linear2'; give the name"),
        ("ppo", {"optimizer_class": "ReLU"}, "give the name of a class of torch.optim"),
        ("ppo", {"env": 3}, "no option 'env'"),
        ("ppo", {"features_extractor_kwargs": {}}, "no option 'features_extractor_kwargs'"),
        ("ppo", {"net_arch": "big"}, "net_arch='big'"),
    ],
)
def test_options_that_do_not_fit_are_refused(algo: str, options: Any, says: str) -> None:
    with pytest.raises(ArgumentError, match=says):
        sorted_options(algo, "per_asset", options)


def hostile(tree: dict[str, Any], name: str) -> dict[str, Any]:
    recipe = tree["recipe"]
    deep = {"features_extractor_kwargs": {"encoder": name}}
    return {
        "encoder": tree | {"recipe": recipe | {"encoder": name}},
        "algo": tree | {"recipe": recipe | {"algo": name}},
        "policy_kwargs": tree | {"recipe": recipe | {"policy_kwargs": deep}},
        "recorded": tree
        | {"recipe": recipe | {"encoder": name}, "plugins": {"encoder": {name: "0" * 64}}},
    }


@pytest.fixture
def payload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that leaves a trace when it runs, beside the file that names it."""
    (tmp_path / "payload_of_agent.py").write_text(
        "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"
        "import torch\nclass X(torch.nn.Module): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    return "payload_of_agent:X"


@pytest.mark.parametrize("where", ["encoder", "algo", "policy_kwargs", "recorded"])
@pytest.mark.parametrize("name", ["payload", "os:system", "torch.hub:load"])
def test_a_hostile_file_of_an_agent_imports_nothing(
    market: Market, tmp_path: Path, payload: str, where: str, name: str
) -> None:
    file = tmp_path / "agent.safetensors"
    save_agent(make_agent("ppo", lanes(market), window=2, **SMALL), file)
    tree = hostile(load_tensors(file, kind="agent"), payload if name == "payload" else name)
    save_tensors(file, tree[where], kind="agent")
    with pytest.raises((DataError, ArgumentError)) as refused:
        load_agent(file, lanes(market), device="cpu")
    assert not (tmp_path / "ran").exists()
    if (name, where) != ("torch.hub:load", "recorded"):
        says = "nothing that is loaded|nothing was imported"
        assert refused.match(says)


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", ["payload", "os:system"])
def test_a_hostile_file_of_a_direct_agent_imports_nothing(
    tmp_path: Path, payload: str, recorded: bool, name: str
) -> None:
    file = tmp_path / "direct.safetensors"
    DirectAgent(3).save(file)
    tree = load_tensors(file, kind="direct agent")
    name = payload if name == "payload" else name
    tree["config"]["encoder"] = name
    if recorded:
        tree["plugins"] = {"encoder": {name: "0" * 64}}
    save_tensors(file, tree, kind="direct agent")
    with pytest.raises(DataError, match=r"nothing that is loaded|nothing was imported"):
        DirectAgent.load(file)
    assert not (tmp_path / "ran").exists()


def test_a_direct_agent_is_saved_with_its_encoder_by_name(tmp_path: Path) -> None:
    agent = DirectAgent(3, 2, encoder=Net, encoder_kwargs={"width": 4})
    agent.save(tmp_path / "direct.safetensors")
    loaded = DirectAgent.load(tmp_path / "direct.safetensors")
    assert loaded.config["encoder"] == f"{__name__}:Net"
    for one, other in zip(agent.network.parameters(), loaded.network.parameters(), strict=True):
        assert th.equal(one, other)


def test_functions_make_agents_that_cannot_be_saved(market: Market, tmp_path: Path) -> None:
    def factory(n_features: int, window: int) -> nn.Module:
        return Net(n_features, window)

    agent = DirectAgent(3, 2, encoder=factory)
    with pytest.raises(ArgumentError, match="cannot be found again by a name"):
        agent.save(tmp_path / "direct.safetensors")
    made = make_agent("ppo", lanes(market), window=2, encoder=factory, **SMALL)
    with pytest.raises(ArgumentError, match="cannot be found again by a name"):
        save_agent(made, tmp_path / "agent.safetensors")
