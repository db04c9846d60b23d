"""docs/tour.ipynb can be executed."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).resolve().parents[1] / 'docs' / 'tour.ipynb'


@pytest.mark.slow
def test_tour_runs(monkeypatch, tmp_path):
    monkeypatch.setenv('TOUR_STEPS', '4')
    monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    resources = {'metadata': {'path': NOTEBOOK.parents[1]}}
    nbclient.NotebookClient(notebook, timeout=300, resources=resources).execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', ())]
    pictures = [output for output in outputs if 'image/png' in output.get('data', {})]
    assert len(pictures) == 2
    assert 'modes;' in outputs[-1]['text']
