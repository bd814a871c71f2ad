"""Execute the tutorials and store what they print: `make tutorials`.

Outputs are stored, so that a code host and the site show them without running anything; figures
are small, and times of execution are left out, so that a new run changes only what differs.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

TUTORIALS = Path(__file__).parent / "tutorials"


def execute(path: Path) -> None:
    """Execute a notebook in an empty folder and write it back with its outputs."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        client = NotebookClient(notebook, timeout=600, record_timing=False, resources=resources)
        client.execute()
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.metadata.pop("widgets", None)
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    names = sys.argv[1:] or [path.stem for path in sorted(TUTORIALS.glob("*.ipynb"))]
    for name in names:
        print(name)
        execute(TUTORIALS / f"{name}.ipynb")
