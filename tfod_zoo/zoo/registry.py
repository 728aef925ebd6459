"""The zoo as data: what is known of each model before anything is downloaded.

`MODELS` is the table, in the zoo's order; last is `BASELINE`, to compare the zoo with. Figures are those the zoo
published: mAP on COCO 2017 val, speed in milliseconds on the zoo's own hardware (to be shown beside a measured latency,
never compared with it). No TensorFlow.
"""

from __future__ import annotations

import dataclasses
import difflib
import fnmatch
import os
from typing import Any

from tfod_zoo.errors import UsageError

# The same objects by both addresses; the first has valid TLS, the second is the one that the zoo published.
ARCHIVE_BASES = (
    "https://storage.googleapis.com/download.tensorflow.org/models/object_detection/tf2/",
    "http://download.tensorflow.org/models/object_detection/tf2/",
)

# Detection by classification: no model of the zoo, and nobody published weights or figures for it.
BASELINE = "sliding_window_resnet50"

_MIB = 2**20
_COCO_KEYPOINTS = 17

_CENTERNET = "Objects as Points, arXiv:1904.07850"
_SLIDING_WINDOW = "OverFeat, arXiv:1312.6229"
_FASTER_RCNN = "Faster R-CNN, arXiv:1506.01497"
_HOURGLASS = "Stacked Hourglass Networks, arXiv:1603.06937"
_RESNET = "Deep Residual Learning for Image Recognition, arXiv:1512.03385"
_RESNET_V2 = "Identity Mappings in Deep Residual Networks, arXiv:1603.05027"
_FPN = "Feature Pyramid Networks, arXiv:1612.03144"
_MOBILENET_V2 = "MobileNetV2, arXiv:1801.04381"

_NO_CONFIG = "No config was published in the repository for this model."
_BFLOAT16 = "The published config sets use_bfloat16, which works on TPUs only."
_MOBILENET_SAVED_MODEL = (
    "The archive's saved_model is a TFLite-style export: not callable, outputs output_0...; export the checkpoint anew."
)
_HOURGLASS_NAME = "The archive is named hg104 where the repository's config says hourglass104."


class UnknownModelError(UsageError):
    """No zoo model has this name; the message gives the nearest ones."""


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """One row of the zoo: what is known of a model before anything is downloaded, as `tfod_zoo.get_model` gives it.

    Example:
      >>> models = [tfod_zoo.get_model(name) for name in tfod_zoo.list_models()]
      >>> [model.name for model in models if (model.box_map or 0) > 42]
      ['centernet_hg104_1024x1024_coco17_tpu-32', 'centernet_hg104_1024x1024_kpts_coco17_tpu-32']

    Attributes:
      name: the zoo's name; also the archive's, without .tar.gz.
      family: "center_net" or "faster_rcnn", the field of a pipeline config's `model`.
      backbone: TFOD's feature extractor type.
      input_size: (height, width) in pixels, as the name says it.
      outputs: what it detects: "boxes", "keypoints".
      speed_ms: published milliseconds an image on the zoo's hardware; None = not published.
      box_map, keypoint_map: published mAP in percent on COCO 2017 val; None = not published or not an output.
      training_hardware: what the published recipe ran on; batch sizes are global over it.
      num_classes: 90 (COCO's ids 1 to 90, ten of them unused) or 1 (persons only).
      max_detections: detections an image, at most.
      date: folder of the archive on its host; None = no archive was ever published.
      archive_bytes: size of the .tar.gz; None = not known.
      unpacks_to: the archive's top folder where it is not `name`.
      checkpoint_prefix: inside that folder; None = its `checkpoint/checkpoint` file names it.
      hints: fields that no transfer has confirmed; a mismatch is worth a warning, never an error.
      kaggle: handle on Kaggle Models: a SavedModel, good for benchmarking, which cannot be fine-tuned.
      papers: what the architecture comes from.
      known_defects: what is wrong in the published config or archive; generated configs correct it.
      notes: what a user of its detections should know.
    """

    name: str
    family: str
    backbone: str
    input_size: tuple[int, int]
    outputs: tuple[str, ...]
    speed_ms: int | None
    box_map: float | None
    keypoint_map: float | None
    training_hardware: str
    date: str | None
    archive_bytes: int | None
    papers: tuple[str, ...]
    num_classes: int = 90
    max_detections: int = 100
    unpacks_to: str | None = None
    checkpoint_prefix: str | None = "checkpoint/ckpt-0"
    hints: tuple[str, ...] = ()
    kaggle: str | None = None
    licence: str = "Apache-2.0"
    known_defects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def archive_folder(self) -> str:
        """The model's folder in the store: the top folder of its archive."""
        return self.unpacks_to or self.name

    @property
    def archive_urls(self) -> tuple[str, ...]:
        """Where the archive is, the address to prefer first; empty when none was published."""
        return tuple(f"{base}{self.date}/{self.name}.tar.gz" for base in ARCHIVE_BASES) if self.date else ()

    @property
    def archive_url(self) -> str | None:
        """The address to prefer; None when no archive was published."""
        return self.archive_urls[0] if self.date else None

    @property
    def num_keypoints(self) -> int:
        """Keypoints a person: COCO's 17, or 0 for a model of boxes only."""
        return _COCO_KEYPOINTS if "keypoints" in self.outputs else 0

    def as_dict(self) -> dict[str, Any]:
        """Every fact as JSON types, the derived ones too."""
        row = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del row["unpacks_to"]
        for derived in ("archive_folder", "archive_urls", "archive_url", "num_keypoints"):
            row[derived] = getattr(self, derived)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in row.items()}


MODELS: tuple[ZooModel, ...] = (
    ZooModel(
        name="centernet_hg104_512x512_coco17_tpu-8",
        family="center_net", backbone="hourglass_104", input_size=(512, 512), outputs=("boxes",),
        speed_ms=70, box_map=41.9, keypoint_map=None, training_hardware="TPU-8",
        date="20200713", archive_bytes=None,
        kaggle="tensorflow/centernet-hourglass/tensorFlow2/512x512",
        papers=(_CENTERNET, _HOURGLASS), known_defects=(_HOURGLASS_NAME,),
    ),
    ZooModel(
        name="centernet_hg104_512x512_kpts_coco17_tpu-32",
        family="center_net", backbone="hourglass_104", input_size=(512, 512), outputs=("boxes", "keypoints"),
        speed_ms=76, box_map=40.0, keypoint_map=61.4, training_hardware="TPU-32",
        date="20200711", archive_bytes=None, hints=("checkpoint_prefix",),
        kaggle="tensorflow/centernet-hourglass/tensorFlow2/512x512-kpts",
        papers=(_CENTERNET, _HOURGLASS), known_defects=(_HOURGLASS_NAME,),
        notes=("Keypoints are those of persons; boxes are of all 90 classes.",),
    ),
    ZooModel(
        name="centernet_hg104_1024x1024_coco17_tpu-32",
        family="center_net", backbone="hourglass_104", input_size=(1024, 1024), outputs=("boxes",),
        speed_ms=197, box_map=44.5, keypoint_map=None, training_hardware="TPU-32",
        date="20200713", archive_bytes=1426460092, hints=("archive_bytes",),  # the size of an object dated 20200711
        kaggle="tensorflow/centernet-hourglass/tensorFlow2/1024x1024",
        papers=(_CENTERNET, _HOURGLASS), known_defects=(_HOURGLASS_NAME,),
    ),
    ZooModel(
        name="centernet_hg104_1024x1024_kpts_coco17_tpu-32",
        family="center_net", backbone="hourglass_104", input_size=(1024, 1024), outputs=("boxes", "keypoints"),
        speed_ms=211, box_map=42.8, keypoint_map=64.5, training_hardware="TPU-32",
        date="20200711", archive_bytes=1386 * _MIB, hints=("archive_bytes", "checkpoint_prefix"),
        kaggle="tensorflow/centernet-hourglass/tensorFlow2/1024x1024-kpts",
        papers=(_CENTERNET, _HOURGLASS), known_defects=(_HOURGLASS_NAME,),
        notes=("Keypoints are those of persons; boxes are of all 90 classes.",),
    ),
    ZooModel(
        name="centernet_resnet50_v1_fpn_512x512_coco17_tpu-8",
        family="center_net", backbone="resnet_v1_50_fpn", input_size=(512, 512), outputs=("boxes",),
        speed_ms=27, box_map=31.2, keypoint_map=None, training_hardware="TPU-8",
        date="20200711", archive_bytes=204067969, hints=("archive_bytes",),
        kaggle="tensorflow/centernet-resnet/tensorFlow2/50v1-fpn-512x512",
        papers=(_CENTERNET, _RESNET, _FPN), known_defects=(_NO_CONFIG,),
    ),
    ZooModel(
        name="centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8",
        family="center_net", backbone="resnet_v1_50_fpn", input_size=(512, 512), outputs=("boxes", "keypoints"),
        speed_ms=30, box_map=29.3, keypoint_map=50.7, training_hardware="TPU-8",
        date="20200711", archive_bytes=198 * _MIB, hints=("archive_bytes", "checkpoint_prefix"),
        kaggle="tensorflow/centernet-resnet/tensorFlow2/50v1-fpn-512x512-kpts",
        papers=(_CENTERNET, _RESNET, _FPN),
        notes=(
            "Keypoints are those of persons; boxes are of all 90 classes.",
            "One copy of the zoo's table that circulates gives it the boxes-only model's figures (27 ms, 31.2); these "
            "are the zoo's own page's.",
        ),
    ),
    ZooModel(
        name="centernet_resnet101_v1_fpn_512x512_coco17_tpu-8",
        family="center_net", backbone="resnet_v1_101_fpn", input_size=(512, 512), outputs=("boxes",),
        speed_ms=34, box_map=34.2, keypoint_map=None, training_hardware="TPU-8",
        date="20200711", archive_bytes=345992335, hints=("archive_bytes", "archive_folder", "checkpoint_prefix"),
        kaggle="tensorflow/centernet-resnet/tensorFlow2/101v1-fpn-512x512",
        papers=(_CENTERNET, _RESNET, _FPN),
        known_defects=("The repository's config says resnet_v2_101; the model is resnet_v1_101_fpn.",),
    ),
    ZooModel(
        name="centernet_resnet50_v2_512x512_coco17_tpu-8",
        family="center_net", backbone="resnet_v2_50", input_size=(512, 512), outputs=("boxes",),
        speed_ms=27, box_map=29.5, keypoint_map=None, training_hardware="TPU-8",
        date="20200711", archive_bytes=237977273, hints=("archive_bytes", "checkpoint_prefix"),
        kaggle="tensorflow/centernet-resnet/tensorFlow2/50v2-512x512",
        papers=(_CENTERNET, _RESNET_V2), known_defects=(_NO_CONFIG,),
    ),
    ZooModel(
        name="centernet_resnet50_v2_512x512_kpts_coco17_tpu-8",
        family="center_net", backbone="resnet_v2_50", input_size=(512, 512), outputs=("boxes", "keypoints"),
        speed_ms=30, box_map=27.6, keypoint_map=48.2, training_hardware="TPU-8",
        date="20200711", archive_bytes=230 * _MIB, hints=("archive_bytes",),
        kaggle="tensorflow/centernet-resnet/tensorFlow2/50v2-512x512-kpts",
        papers=(_CENTERNET, _RESNET_V2),
        notes=("Keypoints are those of persons; boxes are of all 90 classes.",),
    ),
    ZooModel(
        name="centernet_mobilenetv2fpn_512x512_coco17_od",
        family="center_net", backbone="mobilenet_v2_fpn_sep_conv", input_size=(512, 512), outputs=("boxes",),
        speed_ms=6, box_map=23.4, keypoint_map=None, training_hardware="TPU-8", max_detections=20,
        date="20210210", archive_bytes=44016454, hints=("archive_bytes",),
        unpacks_to="centernet_mobilenetv2_fpn_od", checkpoint_prefix="checkpoint/ckpt-301",
        papers=(_CENTERNET, _MOBILENET_V2, _FPN),
        known_defects=(
            "The archive's config keeps num_keypoints and a keypoint flip: with it the model cannot train on boxes.",
            _NO_CONFIG,
            "The checkpoint is a raw training checkpoint (step 300000, Adam's slots): restore the model from it, never "
            "resume training from it.",
            "The archive's checkpoint state file names ckpt-295 to ckpt-301; only ckpt-301 is in it.",
            _MOBILENET_SAVED_MODEL,
        ),
        notes=('The archive has a label map of its own (label_map.txt): person is "/m/01g317" there.',),
    ),
    ZooModel(
        name="centernet_mobilenetv2fpn_512x512_coco17_kpts",
        family="center_net", backbone="mobilenet_v2_fpn_sep_conv", input_size=(512, 512), outputs=("keypoints",),
        speed_ms=6, box_map=None, keypoint_map=41.7, training_hardware="TPU-8", num_classes=1, max_detections=20,
        date="20210210", archive_bytes=None,
        unpacks_to="centernet_mobilenetv2_fpn_kpts", checkpoint_prefix=None,
        papers=(_CENTERNET, _MOBILENET_V2, _FPN),
        known_defects=(
            _NO_CONFIG, _MOBILENET_SAVED_MODEL, "The archive's saved_model may sit one folder deeper than elsewhere.",
        ),
        notes=('Detects persons only (label map: name "/m/01g317", display name "person", 17 keypoints).',),
    ),
    ZooModel(
        name="faster_rcnn_resnet50_v1_640x640_coco17_tpu-8",
        family="faster_rcnn", backbone="faster_rcnn_resnet50_keras", input_size=(640, 640), outputs=("boxes",),
        speed_ms=53, box_map=29.3, keypoint_map=None, training_hardware="TPU-8", max_detections=300,
        date="20200711", archive_bytes=202 * _MIB, hints=("archive_bytes",),
        kaggle="tensorflow/faster-rcnn-resnet-v1/tensorFlow2/faster-rcnn-resnet50-v1-640x640",
        papers=(_FASTER_RCNN, _RESNET), known_defects=(_BFLOAT16,),
    ),
    ZooModel(
        name="faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8",
        family="faster_rcnn", backbone="faster_rcnn_resnet50_keras", input_size=(1024, 1024), outputs=("boxes",),
        speed_ms=65, box_map=31.0, keypoint_map=None, training_hardware="TPU-8", max_detections=300,
        date="20200711", archive_bytes=202 * _MIB, hints=("archive_bytes", "kaggle"),
        kaggle="tensorflow/faster-rcnn-resnet-v1/tensorFlow2/faster-rcnn-resnet50-v1-1024x1024",
        papers=(_FASTER_RCNN, _RESNET), known_defects=(_BFLOAT16,),
        notes=("Resizes to 1024x1024 without keeping the image's aspect.",),
    ),
    ZooModel(
        name="faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8",
        family="faster_rcnn", backbone="faster_rcnn_resnet50_keras", input_size=(800, 1333), outputs=("boxes",),
        speed_ms=65, box_map=31.6, keypoint_map=None, training_hardware="8 GPUs",
        date="20200711", archive_bytes=207 * _MIB, hints=("archive_bytes", "checkpoint_prefix", "kaggle"),
        kaggle="tensorflow/faster-rcnn-resnet-v1/tensorFlow2/faster-rcnn-resnet50-v1-800x1333",
        papers=(_FASTER_RCNN, _RESNET),
        notes=(
            "Resizes the shorter side to 800, the longer to 1333 at most, and pads: the network sees 1333x1333.",
            "Its batch norm is frozen in training, and its box head has one box a class.",
        ),
    ),
    ZooModel(
        name="faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8",
        family="faster_rcnn", backbone="faster_rcnn_resnet50_fpn_keras", input_size=(640, 640), outputs=("boxes",),
        speed_ms=None, box_map=None, keypoint_map=None, training_hardware="TPU-8", max_detections=300,
        date=None, archive_bytes=None, checkpoint_prefix=None,
        papers=(_FASTER_RCNN, _RESNET, _FPN), known_defects=(_BFLOAT16,),
        notes=("Its config was published, its weights and figures never were: it starts from random weights.",),
    ),
    ZooModel(
        name=BASELINE,
        family="faster_rcnn", backbone=BASELINE, input_size=(256, 256), outputs=("boxes",),
        speed_ms=None, box_map=None, keypoint_map=None, training_hardware="1 GPU",
        date=None, archive_bytes=None, checkpoint_prefix=None,
        papers=(_SLIDING_WINDOW, _RESNET),
        notes=(
            "Not of the zoo: the baseline, a classifier on every window of an image pyramid; train it yourself.",
        ),
    ),
)

_BY_NAME = {model.name: model for model in MODELS}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the models that match a shell pattern (`centernet*`), in the zoo's order; empty when none does.

    Example:
      >>> tfod_zoo.list_models("*mobilenet*")
      ['centernet_mobilenetv2fpn_512x512_coco17_od', 'centernet_mobilenetv2fpn_512x512_coco17_kpts']
    """
    return [name for name in _BY_NAME if fnmatch.fnmatchcase(name, pattern)]


def get_model(name: str) -> ZooModel:
    """The model of this exact name.

    Example:
      >>> model = tfod_zoo.get_model("centernet_mobilenetv2fpn_512x512_coco17_od")
      >>> model.input_size, model.speed_ms, model.box_map
      ((512, 512), 6, 23.4)

    Raises:
      UnknownModelError: there is none; the message gives the nearest names.
    """
    if name not in _BY_NAME:
        raise UnknownModelError(_unknown(name))
    return _BY_NAME[name]


def _unknown(name: str) -> str:
    """Where a folder could stand as well as a name, a path is a folder that is missing, or words in the wrong order."""
    if os.path.isfile(name):
        return f"{name} is a file, not a model; the model comes first, a name of `tfod-zoo list` or a training folder."
    if os.sep in name:
        return f"There is no {name}; give a folder that is there, or a name of `tfod-zoo list`."
    return f"The zoo has no model {name!r}; {nearest_names(name)}"


def nearest_names(text: str, candidates: list[str] | None = None) -> str:
    """The end of a sentence on a misspelt name: the nearest models (or `candidates`), else where to find them."""
    near = difflib.get_close_matches(text, list(_BY_NAME) if candidates is None else candidates, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else "`tfod-zoo list` shows them all."
