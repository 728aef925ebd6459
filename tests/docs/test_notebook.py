"""docs/tour.ipynb runs from its first cell to its last, and finds what it promises."""

import json
import os
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).parents[2]
NOTEBOOK = ROOT / "docs" / "tour.ipynb"
STEPS = "160"  # a reader's 500 find more
CELL_SECONDS = 1200  # for a very busy machine; the fine-tuning takes one of a quiet one's minutes

TOLD = """
import json
print("TOLD " + json.dumps({
    "work": str(WORK), "metrics": {name: float(value) for name, value in result.metrics.items()}, "step": result.step,
    "rows": [{name: row.get(name) for name in ("status", "reason", "weights", "p50_ms", "metrics")} for row in rows],
    "files": sorted(str(path.relative_to(WORK)) for path in WORK.rglob("*") if path.is_file()),
}))
"""


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(NOTEBOOK, nbformat.NO_CONVERT)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_it_is_kept_without_outputs(notebook):
    nbformat.validate(notebook)
    assert not any(cell.outputs or cell.execution_count for cell in code_cells(notebook))


@pytest.fixture(scope="module")
def ran(notebook, tmp_path_factory):
    """The notebook after its run in a folder of its own, and what a last cell told of its variables; once for all
    tests, for it takes two minutes."""
    here = tmp_path_factory.mktemp("here")
    kept = dict(os.environ)
    os.environ |= {
        "TOUR_STEPS": STEPS,
        "TMPDIR": str(tmp_path_factory.mktemp("temporary")),
        # The shell's tfod-zoo and the kernel's package are those under test.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "IPYTHONDIR": str(tmp_path_factory.mktemp("ipython")),
        "JUPYTER_RUNTIME_DIR": str(tmp_path_factory.mktemp("runtime")),
    }
    notebook = nbformat.from_dict(notebook)
    notebook.cells.append(nbformat.v4.new_code_cell(TOLD))
    try:
        NotebookClient(
            notebook, timeout=CELL_SECONDS, kernel_name="python3", resources={"metadata": {"path": str(here)}}
        ).execute()
    finally:
        os.environ.clear()
        os.environ.update(kept)
    text = "".join(output.get("text", "") for output in notebook.cells[-1].outputs)
    told = json.loads(text.split("TOLD ", 1)[1])
    return notebook, told, here


def test_it_writes_only_where_it_says(ran):
    notebook, told, here = ran
    assert list(here.iterdir()) == []
    assert told["work"] in code_cells(notebook)[0].outputs[0]["data"]["text/plain"]


def test_the_fine_tuned_detector_finds_shapes(ran):
    _, told, _ = ran
    assert told["step"] == int(STEPS)
    assert told["metrics"]["DetectionBoxes_Precision/mAP@.50IOU"] > 0.12
    assert "run/export/saved_model/saved_model.pb" in told["files"]


def test_the_benchmark_measures_speed_and_accuracy(ran):
    _, told, _ = ran
    assert [row["status"] for row in told["rows"]] == ["ok"] * 3, [row["reason"] for row in told["rows"]]
    assert all(row["p50_ms"] > 0 for row in told["rows"])
    *trained, zoo = told["rows"]
    # The last of them has the size that was trained for, and so the trained model's accuracy.
    trained_map = told["metrics"]["DetectionBoxes_Precision/mAP"]
    assert trained[-1]["metrics"]["DetectionBoxes_Precision/mAP"] == pytest.approx(trained_map, abs=0.02)
    assert zoo["weights"] == "random" and not zoo["metrics"]
    assert {"benchmark/report.html", "speed_accuracy.png"} <= set(told["files"])


def test_pictures_are_shown(ran):
    notebook, _, _ = ran
    kinds = [set(output.get("data", ())) for cell in code_cells(notebook) for output in cell.outputs]
    # The zoo's figures, random boxes, the data's sheet, the loss, what was found, speed against accuracy.
    assert sum("image/png" in kind for kind in kinds) == 6
    assert any("text/html" in kind for kind in kinds) and any("text/markdown" in kind for kind in kinds)
