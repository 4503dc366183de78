"""Runs docs/notebook.ipynb and keeps what it shows in it: `python docs/notebook.py`; a test runs it as well."""

import os
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("notebook.ipynb")
PICTURE = "image/jpeg"
"""Where an output is a picture, the form that is kept; PNG takes eight times as much."""


def execute(notebook: Path, folder: Path) -> Any:  # noqa: ANN401 - nbformat has no types
    """Run a notebook in a kernel of this Python.

    Args:
        notebook: The file; it stays as it is.
        folder: Where its cells run and write; what Jupyter and IPython keep goes there as well.

    Returns:
        The notebook with its outputs.

    Raises:
        CellExecutionError: A cell failed.
    """
    found = nbformat.read(notebook, as_version=4)
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    places = {name: str(folder / f".{name.lower()}") for name in names}
    resources = {"metadata": {"path": folder}}
    with patch.dict(os.environ, places):
        NotebookClient(found, timeout=None, kernel_name="python3", resources=resources, coalesce_streams=True).execute()
    return found


def without_noise(notebook: Any) -> Any:  # noqa: ANN401 - nbformat has no types
    """Leave out what differs from run to run (times, progress), and all forms of a picture but one."""
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if PICTURE in output.get("data", {}):
                    output.data = {PICTURE: output.data[PICTURE]}
    notebook.metadata.language_info = {"name": "python"}
    return notebook


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="vouch-") as place:
        nbformat.write(without_noise(execute(NOTEBOOK, Path(place))), NOTEBOOK)
