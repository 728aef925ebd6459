"""Generate a pipeline.config for a zoo model: its published recipe, or a fine-tuning recipe for a user's data."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tfod_zoo.config import schema
from tfod_zoo.config.label_map import COCO_LABEL_MAP, LabelMap, LabelMapItem, read_label_map
from tfod_zoo.config.pipeline import merge_text, pipeline_text
from tfod_zoo.config.recipes import DEFAULT_SIGMA, PAD, PATCH, PERSON_EDGES, PERSON_KEYPOINTS, RECIPES, Recipe
from tfod_zoo.errors import UsageError
from tfod_zoo.zoo.registry import BASELINE, ZooModel, get_model

PLACEHOLDER = "PATH_TO_BE_CONFIGURED"

# Cores of each kind of hardware; a recipe's batch is scaled to them core for core.
HARDWARE = {"tpu-8": 8, "tpu-32": 32, "gpu-8": 8, "gpu": 1, "cpu": 1}
CPU_BATCH = 8  # at most: a CPU gains nothing from larger batches, and has no accelerator's memory
GPU_BATCH = 16  # a GPU, at most: MobileNet's recipe has 64 a core, at some 0.7 GB an image without a TPU's compiler

FINE_TUNE_STEPS = 2000
WARMUP_FRACTION = 0.05  # of a fine-tuning run, where the recipe's own warm-up would be longer
# Adam's rate for a short run from random weights, as far as the published one allows: with it TFOD's MobileNetV2-FPN
# learned 292 photographs of blood cells, at 256x256, to AP 0.55 in 4,449 steps. A zoo checkpoint needs a gentler one.
RANDOM_START_RATE, RANDOM_START_BATCH = 2e-3, 8
CHECKPOINT_TYPES = ("classification", "detection", "full")
# What the side of a CenterNet's input is a multiple of: it doubles back what it halved (spec: CenterNet, 3).
_CENTER_NET_MULTIPLE = 32
_HOURGLASS_MULTIPLES = {"hourglass_104": 128, "hourglass_52": 128, "hourglass_20": 16, "hourglass_10": 8}
_NVIDIA_DEVICE = "/dev/nvidia0"  # there where a driver and a GPU are


def generate_pipeline(
    name: str,
    *,
    hardware: str | None = None,
    batch_size: int | None = None,
    num_steps: int | None = None,
    learning_rate: float | None = None,
    label_map: str | os.PathLike | None = None,
    train_records: str | Sequence[str] | None = None,
    eval_records: str | Sequence[str] | None = None,
    fine_tune_checkpoint: str | None = None,
    fine_tune_type: str | None = None,
    image_size: int | None = None,
) -> Any:
    """Generates the pipeline of a zoo model.

    Without `label_map` it is the published COCO 2017 recipe, corrected where the published config is wrong; paths that
    a user must fill in are PATH_TO_BE_CONFIGURED. With `label_map` it is a fine-tuning recipe for the user's data:
    classes (and keypoints) come from the map, the schedule is a cosine over `num_steps`, augmentation is without the
    recipe's padding and noise, and nothing is left to configure.

    Batch and learning rate go together: another batch than the published one scales the rate by the ratio of batches
    for SGD with momentum (Goyal et al., arXiv:1706.02677) and by its square root for Adam (Malladi et al.,
    arXiv:2205.10287), and a COCO recipe's steps by its inverse, so that the data are seen as often. A fine-tuning
    recipe with Adam that starts from random weights takes a higher rate, `RANDOM_START_RATE`.

    Example:
      >>> pipeline = tfod_zoo.generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_od", hardware="cpu")
      >>> pipeline.train_config.batch_size, pipeline.model.center_net.num_classes
      (8, 90)
      >>> pipeline = tfod_zoo.generate_pipeline(  # doctest: +SKIP
      ...     "centernet_mobilenetv2fpn_512x512_coco17_od", label_map="cells/label_map.pbtxt",
      ...     train_records="cells/train-*", eval_records="cells/val-*",
      ... )

    Args:
      name: a zoo model.
      hardware: a key of `HARDWARE`; None for what the recipe was published on, or, with a label map, "gpu" where this
        machine has one, else "cpu".
      batch_size: global batch; None for the recipe's at the hardware's number of cores (at most 8 on a CPU, 16 a GPU).
      num_steps: length of the schedule; None for the recipe's, or 2000 for fine-tuning.
      learning_rate: base rate; None for the recipe's, scaled to the batch.
      label_map: path of the data set's label map.
      train_records, eval_records: record globs or `tfds:NAME:SPLIT`, one or several.
      fine_tune_checkpoint: a prefix, or "" for random weights; None for the zoo's own checkpoint in the store (with a
        label map), else the placeholder.
      fine_tune_type: "detection", "classification" or "full"; None for "detection" with a label map, else the recipe's.
      image_size: side of the network's square input in pixels, for CenterNet a multiple of 32 (hourglass: of 128); None
        for the published one.

    Returns:
      A TrainEvalPipelineConfig message.

    Raises:
      UsageError: no such model or hardware, a number out of range, records missing beside a label map, or a checkpoint
        type that cannot be restored as asked.
      LabelMapError: the label map cannot be read, repeats something or has a gap.
    """
    model = get_model(name)
    _check_options(hardware, label_map, train_records, eval_records)
    _check_type(model, label_map is not None, fine_tune_checkpoint, fine_tune_type)
    for option, value in (("batch_size", batch_size), ("num_steps", num_steps), ("image_size", image_size)):
        if value is not None and value < 1:
            raise UsageError(f"{option} is {value}; give 1 or more.")
    if learning_rate is not None and not learning_rate > 0:
        raise UsageError(f"learning_rate is {learning_rate}; give a number above 0.")
    if image_size is not None and image_size % size_multiple(model.backbone, model.family):
        multiple = size_multiple(model.backbone, model.family)
        raise UsageError(
            f"image_size {image_size} does not fit {model.backbone}; give a multiple of {multiple}, such as "
            f"{max(round(image_size / multiple), 1) * multiple}."
        )
    classes = _own_classes(label_map) if label_map is not None else None
    if classes and hardware is None:
        hardware = "gpu" if os.path.exists(_NVIDIA_DEVICE) else "cpu"
    run = _scaled(
        RECIPES[name], hardware, batch_size, num_steps, learning_rate, classes is not None, fine_tune_checkpoint == ""
    )
    posed = _keypoint_classes(model, classes, label_map)

    message = schema.message_class("TrainEvalPipelineConfig")()
    merge_text(message, _model_text(model, classes.max_id if classes else model.num_classes))
    if image_size is not None:
        _resize(message, image_size)
    labels = str(label_map) if classes else f"{PLACEHOLDER}/label_map.txt"
    for item in posed:
        merge_text(message, _keypoint_task_text(model, item))
        message.model.center_net.keypoint_label_map_path = labels if classes else PLACEHOLDER
    merge_text(message, _train_text(run, posed))
    _set_checkpoint(message, model, run, fine_tune_checkpoint, fine_tune_type, fine_tuning=classes is not None)
    # bfloat16 needs a TPU; the published recipes of the gpu-8 models are without it.
    if run.recipe.bfloat16 and (hardware or "tpu").startswith("tpu"):
        message.train_config.use_bfloat16 = True
    merge_text(message, _eval_text(posed))
    _set_reader(message.train_input_reader, labels, train_records, f"{PLACEHOLDER}/train2017-?????-of-00256.tfrecord")
    reader = message.eval_input_reader.add(shuffle=False, num_epochs=1)
    _set_reader(reader, labels, eval_records, f"{PLACEHOLDER}/val2017-?????-of-00032.tfrecord")
    if classes:
        reader.drop_remainder = False
    if posed:
        message.train_input_reader.num_keypoints = reader.num_keypoints = sum(len(item.keypoints) for item in posed)
    return message


def _own_classes(path: str | os.PathLike) -> LabelMap:
    """The label map of a data set: no gaps in its ids, unless they are COCO's own, of all of its classes or of some."""
    label_map, coco = read_label_map(path), read_label_map(COCO_LABEL_MAP)
    if (label_map.max_id, label_map.gaps()) == (coco.max_id, coco.gaps()):
        return label_map
    titles = {item.id: item.title for item in coco.items}
    if all(titles.get(item.id) == item.title for item in label_map.items):
        return label_map
    return read_label_map(path, allow_gaps=False)


def size_multiple(backbone: str, family: str) -> int:
    """What the side of a network's input must be a multiple of."""
    if family != "center_net":
        return 1
    return _HOURGLASS_MULTIPLES.get(backbone, _CENTER_NET_MULTIPLE)


def _check_options(hardware, label_map, train_records, eval_records) -> None:
    if hardware is not None and hardware not in HARDWARE:
        raise UsageError(f'there is no hardware "{hardware}"; give one of {", ".join(HARDWARE)}.')
    if label_map is not None and not (train_records and eval_records):
        missing = "train_records" if not train_records else "eval_records"
        raise UsageError(
            f"a fine-tuning pipeline for {label_map} needs {missing}: give a record glob or tfds:NAME:SPLIT."
        )
    if label_map is None and (train_records or eval_records):
        raise UsageError("records need the label map of their classes; give label_map too.")


def restore_problem(kind: str, backbone: str) -> str | None:
    """What is wrong with a fine_tune_checkpoint_type for a network, with the one to use; None where nothing is."""
    if kind not in CHECKPOINT_TYPES:
        advice = 'TFOD dropped "fine_tune": use "detection"' if kind == "fine_tune" else "use another"
        return f'"{kind}" is none of {", ".join(CHECKPOINT_TYPES)}; {advice}.'
    if kind == "classification" and backbone.startswith("hourglass"):
        return 'there is no "classification" of an hourglass; use "detection".'
    return None


def _check_type(model: ZooModel, fine_tuning: bool, checkpoint: str | None, kind: str | None) -> None:
    if kind is None:
        return
    problem = restore_problem(kind, model.backbone)
    if checkpoint == "":
        problem = f'"{kind}" needs a checkpoint; give one, or leave the type out.'
    elif kind == "classification" and fine_tuning and checkpoint is None:
        problem = problem or 'the zoo\'s checkpoints hold detectors, not classifiers; use "detection" or "full".'
    if problem:
        raise UsageError(f"fine_tune_type: {problem}")


@dataclass(frozen=True)
class _Run:
    """A recipe at the batch, rate and length of the run at hand."""

    recipe: Recipe
    batch_size: int
    num_steps: int
    learning_rate: float
    warmup_learning_rate: float
    warmup_steps: int
    drops: tuple[tuple[int, float], ...]


def _scaled(
    recipe: Recipe, hardware, batch_size, num_steps, learning_rate, fine_tuning: bool, random_weights: bool
) -> _Run:
    if fine_tuning:
        # A noise patch of up to 250 pixels covers most of a small image, and 200 pixels of padding on each side shrink
        # its objects below what the data show; 300,000 steps forgive that, 2,000 do not. A staircase tuned to 140,000
        # steps means nothing over 2,000 either.
        steps = tuple(step for step in recipe.augmentation if step not in (PATCH, PAD))
        recipe = replace(recipe, augmentation=steps, drops=())
    cores = HARDWARE[hardware] if hardware else recipe.cores
    if batch_size is None:
        batch_size = max(recipe.batch_size * cores // recipe.cores, 1)
        if hardware == "cpu":
            batch_size = min(batch_size, CPU_BATCH)
        elif hardware and hardware.startswith("gpu"):
            batch_size = min(batch_size, GPU_BATCH * cores)
    ratio = batch_size / recipe.batch_size
    if learning_rate is not None:
        factor = learning_rate / recipe.learning_rate
    elif recipe.optimizer == "momentum":
        factor = ratio
    else:
        factor = math.sqrt(ratio)
        if fine_tuning and random_weights:
            start = RANDOM_START_RATE * math.sqrt(batch_size / RANDOM_START_BATCH)
            factor = max(factor, min(start / recipe.learning_rate, 1))
    if num_steps is None:
        num_steps = FINE_TUNE_STEPS if fine_tuning else math.ceil(recipe.num_steps / ratio)
    stretch = num_steps / recipe.num_steps
    warmup = round(recipe.warmup_steps * stretch)
    if fine_tuning:
        warmup = min(recipe.warmup_steps, round(num_steps * WARMUP_FRACTION))
    return _Run(
        recipe,
        batch_size,
        num_steps,
        _scaled_rate(recipe.learning_rate, factor),
        _scaled_rate(recipe.warmup_learning_rate, factor),
        warmup,
        tuple((round(step * stretch), _scaled_rate(rate, factor)) for step, rate in recipe.drops),
    )


def _scaled_rate(rate: float, factor: float) -> float:
    """A rate times a factor, as published where that is 1; three digits are all that a scaled rate deserves."""
    return rate if factor == 1 else float(f"{rate * factor:.3g}")


def _keypoint_classes(
    model: ZooModel, classes: LabelMap | None, path: str | os.PathLike | None
) -> tuple[LabelMapItem, ...]:
    """The classes with keypoints: COCO's person, or those of the label map that have any; none for a box detector,
    which a keypoint model becomes where the map has no keypoints.

    Raises:
      UsageError: keypoint ids that leave gaps.
    """
    if "keypoints" not in model.outputs:
        return ()
    if classes is None:
        points = tuple((index, label) for index, (label, _, _) in enumerate(PERSON_KEYPOINTS))
        return (LabelMapItem(1, "/m/01g317", "person", points),)
    posed = tuple(item for item in classes.items if item.keypoints)
    ids = sorted(id for item in posed for id, _ in item.keypoints)
    if ids != list(range(len(ids))):
        raise UsageError(
            f"{path} has the keypoint ids {', '.join(map(str, ids))}; number the keypoints of all classes together "
            f"from 0 to {len(ids) - 1}, each once: they are places in a list."
        )
    return posed


def _is_person(item: LabelMapItem) -> bool:
    """Whether a class has the keypoints of a COCO person."""
    return [label for _, label in sorted(item.keypoints)] == [label for label, _, _ in PERSON_KEYPOINTS]


def _flip_permutation(posed: Sequence[LabelMapItem]) -> list[int]:
    """For each keypoint the id of its mirror image: left_X and right_X of a class change places, the rest stay."""

    def mirror(label: str) -> str:
        for side, other in (("left", "right"), ("right", "left")):
            if label.startswith(side):
                return other + label.removeprefix(side)
        return label

    images: dict[int, int] = {}
    for item in posed:
        index = {label: id for id, label in item.keypoints}
        images |= {id: index.get(mirror(label), id) for id, label in item.keypoints}
    return [images[id] for id in sorted(images)]


def _model_text(model: ZooModel, num_classes: int) -> str:
    if model.family == "center_net":
        return _center_net_text(model, num_classes)
    if model.name == BASELINE:
        return _sliding_window_text(model, num_classes)
    return _faster_rcnn_text(model, num_classes)


_HOURGLASS_PIXELS = """
      bgr_ordering: true
      channel_means: [104.01362025, 114.03422265, 119.9165958]
      channel_stds: [73.6027665, 69.89082075, 70.9150767]"""


def _center_net_text(model: ZooModel, num_classes: int) -> str:
    hourglass = model.backbone.startswith("hourglass")
    side = model.input_size[0]
    return f"""
model {{
  center_net {{
    num_classes: {num_classes}
    feature_extractor {{
      type: "{model.backbone}"{_HOURGLASS_PIXELS if hourglass else ""}
    }}
    image_resizer {{
      keep_aspect_ratio_resizer {{
        min_dimension: {side}
        max_dimension: {side}
        pad_to_max_dimension: true
      }}
    }}
    {"use_depthwise: true" if model.backbone.startswith("mobilenet") else ""}
    object_detection_task {{
      task_loss_weight: 1.0
      offset_loss_weight: 1.0
      scale_loss_weight: 0.1
      localization_loss {{ l1_localization_loss {{}} }}
    }}
    object_center_params {{
      object_center_loss_weight: 1.0
      min_box_overlap_iou: 0.7
      max_box_predictions: {model.max_detections}
      classification_loss {{ penalty_reduced_logistic_focal_loss {{ alpha: 2.0 beta: 4.0 }} }}
    }}
  }}
}}"""


def _keypoint_task_text(model: ZooModel, item: LabelMapItem) -> str:
    known = {label: std for label, std, _ in PERSON_KEYPOINTS}
    if model.backbone.startswith("mobilenet"):
        known["nose"] = 0.23  # as its archive's config has it, where all others have 0.26
    stds = "".join(
        f'keypoint_label_to_std {{ key: "{label}" value: {known[label]} }}\n'
        for _, label in sorted(item.keypoints)
        if label in known
    )
    return f"""
model {{
  center_net {{
    keypoint_estimation_task {{
      task_name: "{"human" if _is_person(item) else item.title}_pose"
      task_loss_weight: 1.0
      loss {{
        localization_loss {{ l1_localization_loss {{}} }}
        classification_loss {{ penalty_reduced_logistic_focal_loss {{ alpha: 2.0 beta: 4.0 }} }}
      }}
      keypoint_class_name: "{item.name or item.display_name}"
      {stds}
      keypoint_regression_loss_weight: 0.1
      keypoint_heatmap_loss_weight: 1.0
      keypoint_offset_loss_weight: 1.0
      offset_peak_radius: 3
      per_keypoint_offset: true
    }}
  }}
}}"""


_FPN_EXTRACTOR = """
      batch_norm_trainable: true
      fpn { min_level: 2 max_level: 6 }
      conv_hyperparams {
        activation: RELU_6
        regularizer { l2_regularizer { weight: 0.0004 } }
        initializer { truncated_normal_initializer { stddev: 0.03 mean: 0.0 } }
        batch_norm { scale: true decay: 0.997 epsilon: 0.001 }
      }
      override_base_feature_extractor_hyperparams: true"""
_GRID_ANCHORS = """
      grid_anchor_generator {
        scales: [0.25, 0.5, 1.0, 2.0]
        aspect_ratios: [0.5, 1.0, 2.0]
        height_stride: 16
        width_stride: 16
      }"""
_PYRAMID_ANCHORS = """
      multiscale_anchor_generator {
        min_level: 2
        max_level: 6
        anchor_scale: 4.0
        aspect_ratios: [1.0, 2.0, 0.5]
        scales_per_octave: 2
        normalize_coordinates: false
      }"""
_STATIC_SWITCHES = """
    use_static_shapes: true
    use_matmul_crop_and_resize: true
    clip_anchors_to_image: true
    use_static_balanced_label_sampler: true
    use_matmul_gather_in_matcher: true"""


def _faster_rcnn_text(model: ZooModel, num_classes: int) -> str:
    """The two-stage models (spec: Faster R-CNN, 1); the GPU recipe differs in switches, batch norm and box head."""
    height, width = model.input_size
    pyramid, on_tpu = "fpn" in model.backbone, model.training_hardware.startswith("TPU")
    if model.name == "faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8":
        resizer = f"fixed_shape_resizer {{ width: {width} height: {height} }}"
    else:
        resizer = (
            f"keep_aspect_ratio_resizer {{ min_dimension: {height} max_dimension: {width} pad_to_max_dimension: true }}"
        )
    extractor = _FPN_EXTRACTOR if pyramid else ("\n      batch_norm_trainable: true" if on_tpu else "")
    shared_boxes = "share_box_across_classes: true" if on_tpu and not pyramid else ""
    return f"""
model {{
  faster_rcnn {{
    num_classes: {num_classes}
    image_resizer {{ {resizer} }}
    feature_extractor {{
      type: "{model.backbone}"{extractor}
    }}
    first_stage_anchor_generator {{{_PYRAMID_ANCHORS if pyramid else _GRID_ANCHORS}
    }}
    first_stage_box_predictor_conv_hyperparams {{
      op: CONV
      regularizer {{ l2_regularizer {{ weight: 0.0 }} }}
      initializer {{ truncated_normal_initializer {{ stddev: 0.01 }} }}
    }}
    first_stage_nms_score_threshold: 0.0
    first_stage_nms_iou_threshold: 0.7
    first_stage_max_proposals: 300
    first_stage_localization_loss_weight: 2.0
    first_stage_objectness_loss_weight: 1.0
    initial_crop_size: 14
    maxpool_kernel_size: 2
    maxpool_stride: 2
    second_stage_box_predictor {{
      mask_rcnn_box_predictor {{
        use_dropout: false
        dropout_keep_probability: 1.0
        fc_hyperparams {{
          op: FC
          regularizer {{ l2_regularizer {{ weight: 0.0 }} }}
          initializer {{ variance_scaling_initializer {{ factor: 1.0 uniform: true mode: FAN_AVG }} }}
        }}
        {shared_boxes}
      }}
    }}
    second_stage_post_processing {{
      batch_non_max_suppression {{
        score_threshold: 0.0
        iou_threshold: 0.6
        max_detections_per_class: 100
        max_total_detections: {model.max_detections}
      }}
      score_converter: SOFTMAX
    }}
    second_stage_localization_loss_weight: 2.0
    second_stage_classification_loss_weight: 1.0{_STATIC_SWITCHES if on_tpu else ""}
  }}
}}"""


def _sliding_window_text(model: ZooModel, num_classes: int) -> str:
    """The baseline: of a two-stage model the fields that modeling/sliding_window/model.py names.

    On 256x256 windows of 32 to 181 pixels, half a window apart, in three shapes: 1,200 of them.
    """
    side = model.input_size[0]
    return f"""
model {{
  faster_rcnn {{
    num_classes: {num_classes}
    image_resizer {{
      keep_aspect_ratio_resizer {{ min_dimension: {side} max_dimension: {side} pad_to_max_dimension: true }}
    }}
    feature_extractor {{ type: "{model.backbone}" }}
    first_stage_anchor_generator {{
      grid_anchor_generator {{
        height: 32 width: 32 height_stride: 16 width_stride: 16
        scales: [1.0, 1.41421356, 2.0, 2.82842712, 4.0, 5.65685425]
        aspect_ratios: [0.5, 1.0, 2.0]
      }}
    }}
    initial_crop_size: 32
    second_stage_batch_size: 32
    second_stage_balance_fraction: 0.25
    second_stage_post_processing {{
      batch_non_max_suppression {{
        score_threshold: 0.0
        iou_threshold: 0.3
        max_detections_per_class: 100
        max_total_detections: {model.max_detections}
      }}
      score_converter: SOFTMAX
    }}
    second_stage_classification_loss_weight: 1.0
  }}
}}"""


def _resize(message: Any, side: int) -> None:
    family = message.model.WhichOneof("model")
    resizer = getattr(message.model, family).image_resizer
    if resizer.HasField("fixed_shape_resizer"):
        resizer.fixed_shape_resizer.height = resizer.fixed_shape_resizer.width = side
    else:
        resizer.keep_aspect_ratio_resizer.min_dimension = resizer.keep_aspect_ratio_resizer.max_dimension = side


def _train_text(run: _Run, posed: Sequence[LabelMapItem]) -> str:
    recipe = run.recipe
    steps = "\n".join(f"data_augmentation_options {{ {step} }}" for step in recipe.augmentation)
    if posed:
        # A mirrored left eye is a right eye.
        permutation = ", ".join(map(str, _flip_permutation(posed)))
        steps = steps.replace(
            "random_horizontal_flip {}", f"random_horizontal_flip {{ keypoint_flip_permutation: [{permutation}] }}"
        )
    if run.drops:
        schedule = "".join(f"schedule {{ step: {step} learning_rate: {rate} }}\n" for step, rate in run.drops)
        rate = f"manual_step_learning_rate {{ initial_learning_rate: {run.learning_rate}\n{schedule} }}"
    else:
        rate = (
            f"cosine_decay_learning_rate {{ learning_rate_base: {run.learning_rate} total_steps: {run.num_steps} "
            f"warmup_learning_rate: {run.warmup_learning_rate} warmup_steps: {run.warmup_steps} }}"
        )
    optimizer = (
        f"momentum_optimizer {{ learning_rate {{ {rate} }} momentum_optimizer_value: 0.9 }}"
        if recipe.optimizer == "momentum"
        else f"adam_optimizer {{ epsilon: {recipe.epsilon} learning_rate {{ {rate} }} }}"
    )
    clipping = f"gradient_clipping_by_norm: {recipe.gradient_clipping}" if recipe.gradient_clipping else ""
    padded = "unpad_groundtruth_tensors: false" if recipe.padded else ""
    return f"""
train_config {{
  batch_size: {run.batch_size}
  num_steps: {run.num_steps}
  {steps}
  optimizer {{
    {optimizer}
    use_moving_average: false
  }}
  {clipping}
  {padded}
  fine_tune_checkpoint_version: V2
}}"""


def _set_checkpoint(message: Any, model: ZooModel, run: _Run, prefix, kind, fine_tuning: bool) -> None:
    config = message.train_config
    if prefix == "" or (prefix is None and not fine_tuning and not run.recipe.fine_tune_type):
        return  # random weights
    if prefix is None:
        prefix = _zoo_checkpoint(model) if fine_tuning else PLACEHOLDER
    config.fine_tune_checkpoint = str(prefix)
    config.fine_tune_checkpoint_type = (
        kind or ("detection" if fine_tuning else run.recipe.fine_tune_type) or "detection"
    )


def _zoo_checkpoint(model: ZooModel) -> str:
    """Where the model's own checkpoint lies, or will lie once it is downloaded."""
    from tfod_zoo.zoo.store import checkpoint_prefix, is_downloaded, model_folder

    if model.date is None:
        raise UsageError(
            f"{model.name} was never published with weights; give fine_tune_checkpoint, or none for random."
        )
    if is_downloaded(model.name):
        return str(checkpoint_prefix(model.name))
    if model.checkpoint_prefix is None:
        raise UsageError(
            f"where {model.name} keeps its checkpoint is known once it is here; run tfod-zoo download first."
        )
    return str(model_folder(model.name) / model.checkpoint_prefix)


def _eval_text(posed: Sequence[LabelMapItem]) -> str:
    text = """
eval_config {
  metrics_set: "coco_detection_metrics"
  use_moving_averages: false
  batch_size: 1
"""
    if posed:
        text += "num_visualizations: 10 max_num_boxes_to_visualize: 20 min_score_threshold: 0.2\n"
    known = {label: sigma for label, _, sigma in PERSON_KEYPOINTS}
    for item in posed:
        sigmas = "".join(
            f'keypoint_label_to_sigmas {{ key: "{label}" value: {known.get(label, DEFAULT_SIGMA)} }}\n'
            for _, label in sorted(item.keypoints)
        )
        text += f'parameterized_metric {{ coco_keypoint_metrics {{ class_label: "{item.title}" {sigmas} }} }}\n'
    if len(posed) == 1 and _is_person(posed[0]):
        text += "".join(f"keypoint_edge {{ start: {start} end: {end} }}\n" for start, end in PERSON_EDGES)
    return text + "}"


def _set_reader(reader: Any, labels: str, records, placeholder: str) -> None:
    reader.label_map_path = labels
    paths = [records] if isinstance(records, (str, os.PathLike)) else list(records or [placeholder])
    reader.tf_record_input_reader.input_path.extend(str(path) for path in paths)


def described(message: Any, name: str) -> str:
    """A generated pipeline as a file's text, with a header that says what it is and what to expect of it."""
    model = get_model(name)
    config = message.train_config
    published = [
        f"{value} {what} mAP" for value, what in ((model.box_map, "box"), (model.keypoint_map, "keypoint")) if value
    ]
    figures = " and ".join(published) + " on COCO 2017 val" if published else "no published mAP"
    origin = f"{figures}, published for {model.training_hardware}"
    if name == BASELINE:
        origin = "detection by classification, a baseline that the zoo does not have"
    lines = [
        f"{name}: {origin}.",
        f"This pipeline: global batch {config.batch_size}, {config.num_steps} steps.",
        f"Written by `tfod-zoo config {name}`.",
    ]
    return "".join(f"# {line}\n" for line in lines) + "\n" + pipeline_text(message)
