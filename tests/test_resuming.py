"""Trainings that were stopped go on where they were."""

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_runs import MARKET, ROOT, command, small
from stable_baselines3 import SAC

from agents import load_run
from agents.run_folder import latest_checkpoint
from agents.training import resume, train


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["ppo", "sac"])
def test_a_killed_run_is_resumed_to_its_end(algo: str, tmp_path: Path) -> None:
    """SIGKILL in mid-run loses at most one checkpoint interval, and the schedules go on."""
    out, steps, every = tmp_path / "run", {"ppo": 80_000, "sac": 6_000}[algo], 1000
    arguments = ["--algo", algo, "--market", MARKET, "--timesteps", str(steps), "--num-envs", "64"]
    arguments += ["--checkpoint-every", str(every), "--validation-every", str(10 * steps)]
    arguments += ["--episode-length", "50", "--device", "cpu", "--out", str(out)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command(*arguments), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 300
        while latest_checkpoint(out) is None and process.poll() is None:
            assert time.monotonic() < deadline, "no checkpoint within five minutes"
            time.sleep(0.02)
        time.sleep(0.3)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert not (out / "final_model.zip").exists()
    stopped = load_run(out, device="cpu")  # evaluable as it is
    assert 0 < stopped.model.num_timesteps < steps
    resumed = subprocess.run(
        command("--resume", str(out)), env=environment, capture_output=True, text=True, check=True
    )
    assert resumed.stdout.strip().endswith(str(out))
    finished = load_run(out, device="cpu")
    assert steps <= finished.model.num_timesteps < steps + 8192
    if algo == "ppo":  # the learning rate went on down to 0 over both parts
        rate = finished.model.policy.optimizer.param_groups[0]["lr"]
        assert rate <= 1e-3 * 8192 / steps
    hidden = [p for p in out.rglob(".*")]
    assert hidden == []


@pytest.mark.parametrize("observation", ["index", "window"])
def test_a_resumed_run_has_the_transitions_of_its_checkpoint(
    observation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(tmp_path / "run", algo="sac", observation=observation, timesteps=1280)
    path = train(config)
    found: list[dict[str, Any]] = []
    learn = SAC.learn

    def seen(self: SAC, *args: Any, **kwargs: Any) -> SAC:
        buffer: Any = self.replay_buffer
        found.append({"stored": buffer.size() * buffer.n_envs, "rewards": rewards(buffer).copy()})
        return learn(self, *args, **kwargs)

    def rewards(buffer: Any) -> np.ndarray:
        column = buffer.columns["rewards"] if observation == "index" else buffer.rewards
        return column[: buffer.size()]

    monkeypatch.setattr(SAC, "learn", seen)
    resume(path)
    assert found[0]["stored"] == 1280
    assert len(np.unique(found[0]["rewards"])) > 1000
