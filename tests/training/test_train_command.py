"""tfod-zoo train as a user meets it."""

import argparse
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tfod_zoo.cli import train_command
from tfod_zoo.training.evaluation import main_figures
from tfod_zoo.training.progress import Progress, ProgressDisplay, spoken_duration


def test_help_needs_no_tensorflow():
    code = "import sys, tfod_zoo.cli.train_command; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_flags():
    parser = argparse.ArgumentParser()
    train_command.add_arguments(parser)
    args = parser.parse_args(["--pipeline", "p", "--model-dir", "d", "--set", "a.b=1", "--set", "c=2", "--xla"])
    assert args.overrides == ["a.b=1", "c=2"] and args.xla and args.steps is None


def test_the_figures_of_a_line():
    boxes = {"DetectionBoxes_Precision/mAP": 0.5, "DetectionBoxes_Precision/mAP@.50IOU": 0.75}
    keypoints = {"Keypoints_Precision/mAP ByCategory/star": 0.25}
    assert main_figures(boxes) == "AP 0.500, AP50 0.750"
    assert main_figures(boxes | keypoints) == "AP 0.500, AP50 0.750, keypoint AP 0.250 (star)"
    assert main_figures(keypoints) == "keypoint AP 0.250 (star)"


def test_without_model_garden_one_sentence_says_what_to_install():
    code = (
        "import sys; sys.modules['official'] = None\n"
        "from tfod_zoo.errors import ZooError\n"
        "try:\n    import tfod_zoo.training.model_garden\n"
        "except ZooError as error:\n    print(error)"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "pip install 'tfod-zoo[train]'" in shown and len(shown.splitlines()) == 1


def test_progress_reads_as_a_sentence():
    line = Progress(400, 2000, 1.9234, 3.123, 540).line()
    assert line == "step 400 of 2000  loss 1.923  3.1 steps/s  about 9 minutes left"
    assert Progress(1, 10, 2.0).line() == "step 1 of 10  loss 2"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "1 second"), (45, "45 seconds"), (600, "10 minutes"), (9000, "2.5 hours")]
)
def test_durations(seconds, words):
    assert spoken_duration(seconds) == words


def test_plain_output_prints_the_last_step_and_little_else(capsys):
    with ProgressDisplay() as display:
        for step in range(1, 101):
            display.show(Progress(step, 100, 1.0))
        display.show(Progress(100, 100, 1.5))  # again, with the loop that it ends
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["step 1 of 100  loss 1", "step 100 of 100  loss 1"]


def test_an_import_of_a_moment_is_not_talked_of(capsys):
    with ProgressDisplay() as display:
        display.busy("import: 1 images")
    assert capsys.readouterr().out == ""


def test_the_next_step_can_be_pasted():
    result, lines = SimpleNamespace(step=4, checkpoint="", steps_per_second=0, metrics={}), []
    train_command.summarize(result, "my run", lines.append)
    assert lines[-1] == "next: tfod-zoo eval --model-dir 'my run', or tfod-zoo detect 'my run' IMAGES"


def test_deterministic_is_tensorflows_own():
    code = (
        "import argparse\n"
        "from tfod_zoo.cli import train_command\n"
        "train_command.prepare_devices(argparse.Namespace(deterministic=True, device='cpu', replicas=None))\n"
        "from tensorflow.python.framework.config import is_op_determinism_enabled\n"
        "assert is_op_determinism_enabled()"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
