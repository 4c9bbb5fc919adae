"""The notebooks run from the first cell to the last."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parent.parent / 'docs' / 'notebooks'


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Run a notebook as its reader does, in its own folder; a cell that fails raises."""

    def run(name, **env):
        notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
        # What was committed must not stand in for what did not run.
        for cell in notebook.cells:
            cell.pop('outputs', None)
            if cell.cell_type == 'code':
                cell.outputs = []
        monkeypatch.setenv('TMPDIR', str(tmp_path))
        for key, value in env.items():
            monkeypatch.setenv(key, str(value))
        place = dict(metadata=dict(path=str(NOTEBOOKS)))
        NotebookClient(notebook, timeout=600, resources=place).execute()
        return [output for cell in notebook.cells for output in cell.get('outputs', [])]

    return run


def test_picture_to_spikes(execute):
    """It finds boxes, spikes, attention and energy with what comes with mmsnn."""
    outputs = execute('picture_to_spikes.ipynb')
    text = ''.join(output.get('text', '') for output in outputs)
    assert 'backbone.layer3.0.neuron2            (4, 1, 128, 8, 8)' in text
    assert 'a_C of 64 channels' in text
    assert 'spiking stages       0.00' in text, 'no MACs there: all spikes'
    assert sum('image/png' in output.get('data', {}) for output in outputs) == 5
