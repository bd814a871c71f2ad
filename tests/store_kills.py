"""Kill processes that change a store, and look whether every run is whole or absent.

    python tests/store_kills.py TEMPLATE FOLDER KILLS SEED

A child of this process exports, imports and deletes copies of the run TEMPLATE in FOLDER for ever,
until it is killed by SIGKILL at a random moment; prints the counts as JSON.
"""

import json
import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from agents.store.archives import export_run, import_run
from agents.store.changes import delete
from agents.store.content import check_file, run_files
from agents.training.run_records import folders, read_record


def change(archive: Path, store: Path) -> None:
    """Delete, import and export, as several commands would."""
    for path in list(folders(store)):
        delete(path, store)
    path = import_run(archive, store)
    export_run(path, store.parent / "again.zip")


def kills(template: Path, folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill so often; every visible run must be as the template, and everything must go on.

    Returns:
        Of how many "kills" the run was "whole" or "absent" afterwards, and how many left something
        "hidden" that the next change has cleared.
    """
    store, archive = folder / "store", folder / "run.zip"
    store.mkdir(parents=True)
    export_run(template, archive)
    expected = [file.relative_to(template) for file in run_files(template)]
    rng, present, hidden = random.Random(seed), 0, 0
    begun = time.monotonic()
    change(archive, store)
    cycle = time.monotonic() - begun
    for _ in range(count):
        child = os.fork()
        if child == 0:
            while True:
                change(archive, store)
        time.sleep(rng.uniform(0, 2 * cycle))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        hidden += any(path.name.startswith((".coming-", ".deleted-")) for path in store.iterdir())
        for path in folders(store):
            present += 1
            files = list(run_files(path))
            assert [file.relative_to(path) for file in files] == expected, path
            for file in files:
                check_file(file)
            read_record(path)
    for path in list(folders(store)):
        delete(path, store)
    import_run(archive, store)
    left = sorted(path.name for path in store.iterdir())
    assert left == [".store.lock", template.name], left
    shutil.rmtree(store)
    return {"kills": count, "whole": present, "absent": count - present, "hidden": hidden}


if __name__ == "__main__":
    found = kills(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    print(json.dumps(found))
