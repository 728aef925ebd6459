"""Faster R-CNN by the four-step alternating training of its paper (arXiv:1506.01497, section 3.2).

Joint training, the zoo's way, minimises the losses of both stages at once. The paper's first scheme takes them in turn:

1. the region proposal network alone, with a backbone of its own;
2. the detector alone, with another backbone from the same start, on the proposals of phase 1;
3. the region proposal network again, now on the backbone of phase 2, which is fixed from here on;
4. the detector's own layers again, on the proposals of phase 3: one network, both stages on shared features.

Each phase is a training run in a folder of its own, with its checkpoints and curves, and goes on where it stopped.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf
import tf_keras
from etils.epath import Path

from tfod_zoo.config.pipeline import read_pipeline
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.evaluation.pipeline_data import evaluate_pipeline, with_eval_data
from tfod_zoo.modeling.checkpoint import SUFFIX
from tfod_zoo.modeling.factory import build, load
from tfod_zoo.modeling.faster_rcnn import losses as loss_keys
from tfod_zoo.modeling.faster_rcnn.proposals import Proposals
from tfod_zoo.training.evaluation import main_figures
from tfod_zoo.training.precision import as_float32
from tfod_zoo.training.run import TrainingResult, train
from tfod_zoo.training.task import DetectionTask, Tensors
from tfod_zoo.training.trainable import fix_layers_without

# The parts of the network, by how the keys of their variables begin in a checkpoint (spec: Faster R-CNN, section 14).
BACKBONE = ("model/_feature_extractor_for_proposal_features/",)  # with the FPN, where there is one
PROPOSAL_NETWORK = ("model/_first_stage_box_predictor",)
DETECTOR = ("model/_feature_extractor_for_box_classifier_features/", "model/_mask_rcnn_box_predictor/")

PROPOSAL_LOSSES = (loss_keys.RPN_LOCALIZATION, loss_keys.RPN_OBJECTNESS)
DETECTOR_LOSSES = (loss_keys.BOX_LOCALIZATION, loss_keys.BOX_CLASSIFICATION)

_VERSION_V2 = 2  # CheckpointVersion.V2 of the schema
REPORT = "alternating.md"


@dataclass(frozen=True)
class Phase:
    """One of the four.

    Attributes:
      folder: under the model folder; "." is the model folder itself, where joint training leaves its result too.
      title: for the user.
      trains: key prefixes of the variables that learn; all others stay as they are, their batch statistics included.
      without: losses of the stage that does not learn.
      begins_from: folder of the phase whose network this one goes on with; None for the config's fine-tuning checkpoint
        or random weights.
      proposals_from: folder of the phase whose network proposes; None for this phase's own.
    """

    folder: str
    title: str
    trains: tuple[str, ...]
    without: tuple[str, ...]
    begins_from: str | None = None
    proposals_from: str | None = None


PHASES = (
    Phase("phase1", "the region proposal network and its backbone", BACKBONE + PROPOSAL_NETWORK, DETECTOR_LOSSES),
    Phase(
        "phase2",
        "the detector and a backbone of its own, on the proposals of phase 1",
        BACKBONE + DETECTOR,
        PROPOSAL_LOSSES,
        proposals_from="phase1",
    ),
    Phase(
        "phase3",
        "the region proposal network, on the fixed backbone of phase 2",
        PROPOSAL_NETWORK,
        DETECTOR_LOSSES,
        begins_from="phase2",
    ),
    Phase(
        ".",
        "the detector's own layers, on the proposals of phase 3",
        DETECTOR,
        PROPOSAL_LOSSES,
        begins_from="phase3",
    ),
)


def train_alternating(
    pipeline: Any,
    model_dir: str | os.PathLike[str],
    *,
    steps: int | None = None,
    compare_with: str | os.PathLike[str] | None = None,
    eval_every: int | None = None,
    early_stop: int | None = None,
    say: Callable[[str], None] = print,
    **options: Any,
) -> TrainingResult:
    """Trains a Faster R-CNN in the paper's four phases, and goes on where an earlier run stopped.

    `model_dir` gets `phase1/` to `phase3/`, itself becomes the folder of phase 4, so that `tfod_zoo.load(model_dir)`
    reads the trained detector, and gets the report `alternating.md`.

    Args:
      pipeline: TrainEvalPipelineConfig message with `model.faster_rcnn`; each phase runs its whole schedule.
      model_dir: folder, made where it is missing.
      steps: of each phase; None for `train_config.num_steps`.
      compare_with: folder of a joint training run on the same data, to be evaluated beside this one in the report.
      eval_every, early_stop: see `train`; of the last phase only: before, there is nothing whole to evaluate.
      say: takes lines for the user.
      options: the others of `tfod_zoo.training.run.train`.

    Returns:
      The result of phase 4.

    Raises:
      UsageError: no two-stage model, another number of steps than the folder was begun with, a joint run on other data.
      ZooError, KeyboardInterrupt: see `train`.
    """
    folder = Path(model_dir)
    steps = pipeline.train_config.num_steps if steps is None else steps
    _check_two_stages(pipeline)
    _check_folder(folder, steps)
    joint = Path(compare_with) if compare_with is not None else None
    if joint:
        _check_joint(joint, pipeline)
    for number, phase in enumerate(PHASES, start=1):
        last = phase is PHASES[-1]
        done = _finished(folder / phase.folder, steps)
        if done and not last:
            say(f"phase {number} of 4 is done: {done}")
            continue
        say(f"phase {number} of 4: {phase.title}")
        result = train(
            _pipeline_of(phase, pipeline, folder),
            folder / phase.folder,
            steps=steps,
            eval_every=eval_every if last else None,
            early_stop=early_stop if last else None,
            make_task=partial(PhaseTask, phase=phase, proposer=_newest(folder, phase.proposals_from)),
            say=say,
            **options,
        )
    _write_report(folder, joint, say)
    return result


class PhaseTask(DetectionTask):
    """Trains one phase: its part of the network, by its losses.

    Args:
      pipeline: as `DetectionTask`'s, like `options`.
      phase: see `Phase`.
      proposer: checkpoint of the network that proposes; None for the trained network's own proposals.
    """

    def __init__(self, pipeline: Any, *, phase: Phase, proposer: str | None, **options: Any):
        super().__init__(pipeline, **options)
        self._phase, self._proposer_checkpoint = phase, proposer
        self._proposer: Any = None

    def build_model(self) -> tf_keras.Model:
        """The detector with everything fixed that this phase does not train, and beside it the one that proposes."""
        model = super().build_model()
        fix_all_but(model, self._phase.trains)
        if self._proposer_checkpoint:
            self._proposer = build(self.task_config)
            self._proposer.restore_checkpoint(self._proposer_checkpoint)
        return model

    def compute_losses(
        self, model: Any, inputs: tf.Tensor, true_image_shapes: tf.Tensor, groundtruth: Tensors
    ) -> Tensors:
        """This phase's losses; what only the others need is never computed, since nothing in the graph uses it."""
        options = {}
        if self._proposer is not None:
            found = self._proposer(inputs, true_image_shapes)
            options["proposals"] = Proposals(found["proposal_boxes"], found["num_proposals"])
        predictions = as_float32(
            model(inputs, true_image_shapes, training=True, groundtruth=groundtruth, **options)
        )
        losses = model.compute_losses(predictions, groundtruth, true_image_shapes)
        return {key: value for key, value in losses.items() if key not in self._phase.without}


def fix_all_but(model: Any, prefixes: tuple[str, ...]) -> None:
    """Lets only those variables of `model` learn whose checkpoint keys begin with one of `prefixes`.

    Batch-norm layers among the others keep their moving averages and normalise by them.
    """
    learning = {id(variable) for key, variable in model.keyed_variables.items() if key.startswith(prefixes)}
    fix_layers_without(model, learning)


def _check_two_stages(pipeline: Any) -> None:
    family = pipeline.model.WhichOneof("model")
    if family != "faster_rcnn":
        raise UsageError(
            f"the alternating schedule trains two stages in turn and model.{family or '...'} has one; leave --schedule "
            "out, or give a model.faster_rcnn."
        )
    if pipeline.model.faster_rcnn.number_of_stages != 2:
        raise UsageError(
            f"model.faster_rcnn.number_of_stages is {pipeline.model.faster_rcnn.number_of_stages}; the alternating "
            "schedule needs 2."
        )


def _check_folder(folder: Path, steps: int) -> None:
    """A phase builds on the end of the one before, so its length cannot change afterwards."""
    first = folder / PHASES[0].folder / "pipeline.config"
    if first.is_file():
        begun = read_pipeline(first).train_config.num_steps
        if begun != steps:
            raise UsageError(
                f"{folder} was begun with {begun} steps a phase, not {steps}; give --steps {begun} to go on with it, "
                "or another --model-dir."
            )
    elif tf.train.latest_checkpoint(str(folder)):
        raise ZooError(f"{folder} holds checkpoints of another training; give another --model-dir.")


def _finished(folder: Path, steps: int) -> str | None:
    """The checkpoint at the last step of a phase, if it got there."""
    newest = tf.train.latest_checkpoint(str(folder)) if folder.is_dir() else None
    return newest if newest and newest.endswith(f"-{steps}") else None


def _newest(folder: Path, phase_folder: str | None) -> str | None:
    return tf.train.latest_checkpoint(str(folder / phase_folder)) if phase_folder else None


def _pipeline_of(phase: Phase, pipeline: Any, folder: Path) -> Any:
    """A copy of the pipeline that begins from another phase's network, if `phase` does."""
    changed = type(pipeline)()
    changed.CopyFrom(pipeline)
    if phase.begins_from:
        config = changed.train_config
        config.fine_tune_checkpoint = _newest(folder, phase.begins_from)
        config.fine_tune_checkpoint_type = "full"
        config.fine_tune_checkpoint_version = _VERSION_V2
        config.load_all_detection_checkpoint_vars = False
    return changed


def _check_joint(joint: Path, pipeline: Any) -> None:
    """The joint run must have trained the same network on the same data."""
    config = joint / "pipeline.config"
    if not config.is_file() or not tf.train.latest_checkpoint(str(joint)):
        raise UsageError(f"{joint} holds no training run to compare with; give the --model-dir of a joint one.")
    other = read_pipeline(config)
    for field in ("model", "train_input_reader"):
        if getattr(pipeline, field) != getattr(other, field):
            raise UsageError(
                f"{config} differs from yours in {field}, so the two would not compare; train both from one config."
            )


def _write_report(folder: Path, joint: Path | None, say: Callable[[str], None]) -> None:
    """Writes what each phase did and, beside a joint run, what the two reach on the same evaluation data."""
    lines = ["# Alternating training", "", "| phase | trained | checkpoint |", "| --- | --- | --- |"]
    for number, phase in enumerate(PHASES, start=1):
        lines.append(f"| {number} | {phase.title} | {tf.train.latest_checkpoint(str(folder / phase.folder))} |")
    if joint is None:
        lines += ["", "Not compared with joint training: give --compare-with the --model-dir of a joint run."]
    else:
        say(f"evaluating {folder} and {joint} on the same data")
        line = "; ".join([_figures("alternating", folder, len(PHASES)), _figures("joint", joint, 1)])
        say(line)
        lines += ["", line]
    (folder / REPORT).write_text("\n".join(lines) + "\n")


def _figures(schedule: str, folder: Path, phases: int) -> str:
    """What the newest checkpoint of a folder reaches on the config's evaluation data, and after how much training."""
    pipeline = read_pipeline(folder / "pipeline.config")
    step = int(tf.train.load_checkpoint(str(folder)).get_tensor(f"step{SUFFIX}"))
    metrics = evaluate_pipeline(load(folder), with_eval_data(pipeline))
    times = f"{phases} x {step}" if phases > 1 else str(step)
    return f"{schedule} {main_figures(metrics)} ({times} steps of {pipeline.train_config.batch_size} images)"
