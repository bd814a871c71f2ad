"""Plans of sweeps: what they hold, what they refuse, and what may be added to a folder."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agents.sweep.commands import Run, SweepOptions, read_plan_file
from agents.sweep.plan import (
    FILE,
    Cell,
    SweepPlan,
    add_settings,
    cells,
    create_sweep,
    read_sweep,
)
from agents.sweep.queue import check_root
from agents.sweep.settings import grid, setting_config
from agents.training.config import TrainConfig
from agents.training.walk_forward_training import make_plan, read_plan, run_config
from portfolio_env import TransactionCosts
from portfolio_env.errors import ArgumentError, DataError
from portfolio_env.files.atomic import read_json, write_json

BASE = TrainConfig(market="synthetic?bars=200&assets=3", timesteps=512, num_envs=16, device="cpu")
SLOW = {"slow": {"adjustment": 0.1}}


def plan(**changes: Any) -> SweepPlan:
    return replace(SweepPlan(BASE, SLOW, 2, (0, 3)), **changes)


def test_a_grid_is_every_combination_once_under_its_own_name() -> None:
    found = grid({"adjustment": [0.1, 1.0], "encoder": ["mlp", "gat"], "universe": [0]})
    assert len(found) == 4 and {tuple(each.values()) for each in found.values()} == {
        (a, e, 0) for a in (0.1, 1.0) for e in ("mlp", "gat")
    }
    assert "adjustment=0.1,encoder=gat,universe=0" in found
    odd = grid({"encoder_options": [{"hidden": 8}, {"hidden": 16}], "market": ["a/b"]})
    assert list(odd) == ["setting_0", "setting_1"]  # such values are no names of folders
    with pytest.raises(ArgumentError, match="give a list of values"):
        grid({"encoder": "mlp"})
    with pytest.raises(ArgumentError, match="give each value once"):
        grid({"adjustment": [1, 1.0]})


def test_a_setting_changes_what_it_names_and_nothing_else() -> None:
    base = replace(BASE, costs=TransactionCosts(commission_bps=7, slippage_bps=2))
    options = {"encoder": "gat", "encoder_options": {"hidden": 8}, "costs.commission_bps": 1}
    found = setting_config(base, options)
    costs = replace(base.costs, commission_bps=1)
    assert found == replace(base, encoder="gat", encoder_options='{"hidden": 8}', costs=costs)
    for wrong, told in (
        ({"encodr": "gat"}, "did you mean 'encoder'"),
        ({"adjustment": "much"}, "adjustment='much'"),
        ({"seed": 1}, "the sweep sets"),
        ({"costs.commision_bps": 1}, "did you mean 'commission_bps'"),
        ({"costs": 1, "costs.commission_bps": 1}, "give one"),
    ):
        with pytest.raises(ArgumentError, match=told):
            setting_config(BASE, wrong)


def test_a_sweep_holds_a_walk_forward_for_every_setting(tmp_path: Path) -> None:
    root = create_sweep(tmp_path / "sweep", plan(settings=SLOW | {"base": {}}))
    assert read_sweep(root) == plan(settings=SLOW | {"base": {}})
    found = cells(root)
    assert found[:3] == [Cell("slow", 0, 0), Cell("base", 0, 0), Cell("slow", 1, 0)]
    assert len(found) == len(set(found)) == 2 * 2 * 2
    own = make_plan(replace(BASE, adjustment=0.1), 2, seeds=(0, 3))
    assert read_plan(root / "slow") == own
    for i, run in enumerate(own.runs):  # as the market is cut, though it is not loaded for it
        folder = str(root / "slow" / f"fold_{i}" / "seed_3")
        assert run_config(root / "slow", i, 3) == replace(run, seed=3, out=folder)
    assert cells(root / "slow") == [
        cell._replace(setting="") for cell in found if cell[0] == "slow"
    ]


def test_walk_forwards_without_stored_ranges_are_cut_anew(tmp_path: Path) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    before, file = run_config(root / "slow", 1, 0), root / "slow" / "walk_forward.json"
    stored = read_json(file)
    del stored["ranges"]
    write_json(file, stored)
    assert run_config(root / "slow", 1, 0) == before


def test_a_folder_is_extended_or_refused(tmp_path: Path) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    identity = read_json(root / FILE)["id"]
    create_sweep(root, plan(settings={"base": {}}))
    assert list(read_sweep(root).settings) == ["slow", "base"]
    add_settings(root, {"trial": {"encoder": "mlp"}}, [(0, 0)])
    assert [cell for cell in cells(root) if cell.setting == "trial"] == [Cell("trial", 0, 0)]
    add_settings(root, {"trial": {"encoder": "mlp"}}, [(1, 0)])
    assert len([cell for cell in cells(root) if cell.setting == "trial"]) == 2
    add_settings(root, {"trial": {"encoder": "mlp"}})
    assert len([cell for cell in cells(root) if cell.setting == "trial"]) == 4
    assert read_json(root / FILE)["id"] == identity
    for changes, told in (
        ({"folds": 3}, "another folds"),
        ({"config": replace(BASE, timesteps=1024)}, "another timesteps"),
        ({"settings": {"slow": {"adjustment": 0.2}}}, "another setting 'slow'"),
        ({"settings": {}}, "at least one setting"),
        ({"settings": {"../x": {}}}, "name is that of a folder"),
        ({"seeds": (1, 1)}, "repeats one"),
        ({"settings": {"x": {"encoder": "mlp", "encoder_options": {"no": 1}}}}, "has no option"),
    ):
        with pytest.raises(ArgumentError, match=told):
            create_sweep(root, plan(**changes))
    assert not (root / "x").exists()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.txt").write_text("precious")
    with pytest.raises(ArgumentError, match=r"holds 'thesis.txt' and no sweep"):
        create_sweep(tmp_path / "full", plan())
    with pytest.raises(DataError, match="not the folder of a sweep"):
        cells(tmp_path)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"adjustment": 2}, "adjustment=2 must be"),
        ({"algo_options": {"gama": 1}}, "did you mean 'gamma'"),
        ({"algo_options": {"n_steps": "five"}}, "n_steps='five'"),
        ({"reward": "nope"}, "unknown reward"),
        ({"reward_options": {"a": 1}}, "has no parameter"),
        ({"window": 190}, "shorten window"),
        ({"universe": 7}, "universe=7"),
        ({"algo": "direct", "algo_options": {"stepz": 9}}, "did you mean 'steps'"),
    ],
)
def test_a_setting_that_no_training_can_begin_with_is_told_at_once(
    tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    settings = {**SLOW, "wrong": options}
    with pytest.raises(ArgumentError, match=rf"setting 'wrong': .*{told}"):
        create_sweep(tmp_path / "sweep", plan(settings=settings))
    assert not (tmp_path / "sweep").exists()


def test_settings_that_cannot_be_trained_are_left_out_of_a_search(tmp_path: Path) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    refused = add_settings(root, {"good": {"adjustment": 0.5}, "wrong": {"adjustment": 2}})
    assert list(refused) == ["wrong"] and "adjustment=2" in refused["wrong"]
    assert list(read_sweep(root).settings) == ["slow", "good"] and not (root / "wrong").exists()


@pytest.mark.parametrize(
    ("names", "told"),
    [
        (["sweep.json"], "name of a file"),
        (["Events.jsonl"], "name of a file"),
        (["con"], "name is that of a folder"),
        ([".."], "name is that of a folder"),
        (["a", "A"], "the same folder on some"),
        (["SLOW"], "the same folder on some"),  # of one that is there
    ],
)
def test_names_that_are_no_folders_everywhere(tmp_path: Path, names: list[str], told: str) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    with pytest.raises(ArgumentError, match=told):
        create_sweep(root, plan(settings={name: {"adjustment": 0.2} for name in names}))
    assert list(read_sweep(root).settings) == ["slow"]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"settings": {"../outside": {}}}, "name is that of a folder"),
        ({"settings": {"": {}}}, "name is that of a folder"),
        ({"settings": {}}, "0 cells"),
        ({"settings": {"slow": None}}, "is damaged"),
        ({"folds": 10**30}, "2e[+]30 cells; a sweep has 1 to 1,000,000"),
        ({"folds": True}, "folds=True"),
        ({"folds": 3}, "has 3 folds"),
        ({"seeds": [-1]}, "seeds hold -1"),
        ({"seeds": ["0"]}, "seeds hold '0'"),
        ({"seeds": [0, 3, 4]}, "has not; restore both"),
        ({"rolling": "no"}, "rolling='no'"),
        ({"limited": {"slow": [[9, 0]]}}, "no fold 9 with seed 0"),
        ({"settings": SLOW | {"elsewhere": {}}}, "setting 'elsewhere'"),
    ],
)
def test_a_plan_that_was_edited_by_hand_is_refused(
    tmp_path: Path, changes: dict[str, Any], told: str
) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    write_json(root / FILE, {**read_json(root / FILE), **changes})
    with pytest.raises(DataError, match=told):
        check_root(root)
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}


def test_a_plan_that_was_stopped_is_written_to_its_end(tmp_path: Path) -> None:
    root = create_sweep(tmp_path / "sweep", plan())
    before = read_json(root / "slow" / "walk_forward.json")["id"]
    (root / FILE).unlink()  # killed before it was written
    create_sweep(root, plan(settings=SLOW | {"base": {}}))
    assert read_json(root / "slow" / "walk_forward.json")["id"] == before
    (root / FILE).unlink()
    with pytest.raises(ArgumentError, match="another walk forward"):
        create_sweep(root, plan(settings={"slow": {}, "base": {}}))


def test_options_and_files_give_the_same_plan(tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(
        "market: synthetic?bars=200&assets=3\ntimesteps: 512\nnum_envs: 16\ndevice: cpu\n"
        "folds: 2\nseeds: [0, 3]\ngrid:\n  adjustment: [0.1, 1]\n"
        "settings:\n  wide: {encoder: mlp, costs.commission_bps: 2}\n"
    )
    options = read_plan_file(file)
    given = SweepOptions(
        BASE,
        '{"adjustment": [0.1, 1]}',
        '{"wide": {"encoder": "mlp", "costs.commission_bps": 2}}',
        2,
        "0,3",
    )
    assert options == given
    named = {"wide": {"encoder": "mlp", "costs.commission_bps": 2}}
    combined = grid({"adjustment": [0.1, 1]})
    assert options.plan() == plan(settings=combined | named)
    assert SweepOptions(replace(BASE, seed=5)).plan() == plan(
        settings={"base": {}}, folds=1, seeds=(5,)
    )
    for wrong, told in (
        (replace(given, settings='{"adjustment=1": {}}'), "rename it"),
        (replace(given, settings='{"a": 1}'), "give an object of options"),
        (replace(given, grid="[1]"), "give a JSON object"),
        (replace(given, grid="{}"), r"grid=\{\} must hold at least one setting, e.g. "),
        (replace(given, settings="{}"), r"settings=\{\} must hold at least one setting, e.g. "),
        (replace(given, seeds="0;1"), "whole numbers"),
        (replace(given, seeds=""), "whole numbers"),
        (replace(given, config=replace(BASE, out="x")), "--out is for one run"),
    ):
        with pytest.raises(ArgumentError, match=told):
            Run(tmp_path / "sweep", wrong).run()
    for typed, told in (
        ("folds: '2'", "folds='2'"),
        ("rolling: 1", "rolling=1"),
        ("grid:", "grid"),
    ):
        file.write_text(typed)
        with pytest.raises(ArgumentError, match=told):
            read_plan_file(file)
