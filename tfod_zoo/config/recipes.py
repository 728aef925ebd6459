"""How each zoo model was trained on COCO 2017: the table behind `generate_pipeline`.

Figures from the published configs, corrected where spec "The zoo's archives" says that they are wrong; spec: CenterNet,
2.1, and pipeline and training, 11.
"""

from dataclasses import dataclass

from tfod_zoo.zoo.registry import BASELINE

# Keypoints of a COCO person, by id: (label, standard deviation of its target, OKS sigma).
PERSON_KEYPOINTS = (
    ("nose", 0.26, 0.026),
    ("left_eye", 0.25, 0.025),
    ("right_eye", 0.25, 0.025),
    ("left_ear", 0.35, 0.035),
    ("right_ear", 0.35, 0.035),
    ("left_shoulder", 0.79, 0.079),
    ("right_shoulder", 0.79, 0.079),
    ("left_elbow", 0.72, 0.072),
    ("right_elbow", 0.72, 0.072),
    ("left_wrist", 0.62, 0.062),
    ("right_wrist", 0.62, 0.062),
    ("left_hip", 1.07, 0.107),
    ("right_hip", 1.07, 0.107),
    ("left_knee", 0.89, 0.087),
    ("right_knee", 0.89, 0.087),
    ("left_ankle", 0.89, 0.089),
    ("right_ankle", 0.89, 0.089),
)
# What TFOD takes for keypoints without an OKS sigma of their own (spec: pipeline and training, 8.5).
DEFAULT_SIGMA = 0.05
# Lines of a person's skeleton, for drawing.
PERSON_EDGES = (
    *((0, 1), (0, 2), (1, 3), (2, 4), (0, 5), (0, 6), (5, 7), (7, 9), (6, 8)),
    *((8, 10), (5, 6), (5, 11), (6, 12), (11, 12), (11, 13), (13, 15), (12, 14), (14, 16)),
)

# Augmentations as fragments of `data_augmentation_options`.
FLIP = "random_horizontal_flip {}"
CROP = "random_crop_image { min_aspect_ratio: 0.5 max_aspect_ratio: 1.7 random_coef: 0.25 }"
HUE, CONTRAST = "random_adjust_hue {}", "random_adjust_contrast {}"
SATURATION, BRIGHTNESS = "random_adjust_saturation {}", "random_adjust_brightness {}"
PAD = "random_absolute_pad_image { max_height_padding: 200 max_width_padding: 200 pad_color: [0, 0, 0] }"
SQUARE_CROP = "random_square_crop_by_scale { scale_min: 0.6 scale_max: 1.3 }"
PATCH = "random_patch_gaussian {}"

_CENTER_NET_STEPS = (FLIP, CROP, HUE, CONTRAST, SATURATION, BRIGHTNESS, PAD)
_SQUARE_STEPS = (FLIP, HUE, CONTRAST, SATURATION, BRIGHTNESS, SQUARE_CROP)
_FASTER_RCNN_STEPS = (FLIP, HUE, CONTRAST, SATURATION, SQUARE_CROP)


@dataclass(frozen=True)
class Recipe:
    """One published training run.

    Attributes:
      cores: accelerator cores that `batch_size` is global over.
      optimizer: "adam" or "momentum".
      learning_rate: the base rate; of a cosine schedule with warm-up unless `drops` is given.
      warmup_learning_rate, warmup_steps: linear warm-up of the cosine schedule.
      drops: (step, rate) of a manual schedule.
      epsilon: Adam's.
      fine_tune_type: what the run started from; "" for ImageNet weights inside the backbone or none.
      padded: ground truth in static shapes (`unpad_groundtruth_tensors: false`), as TPUs need it.
    """

    cores: int
    batch_size: int
    num_steps: int
    augmentation: tuple[str, ...]
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    warmup_learning_rate: float = 2.5e-4
    warmup_steps: int = 5000
    drops: tuple[tuple[int, float], ...] = ()
    epsilon: float = 1e-7
    fine_tune_type: str = "classification"
    gradient_clipping: float = 0.0
    bfloat16: bool = False
    padded: bool = True


_MANUAL = ((90_000, 1e-4), (120_000, 1e-5))
_MOBILENET = Recipe(
    8,
    512,
    300_000,
    (FLIP, PATCH, *_CENTER_NET_STEPS[1:]),
    learning_rate=5e-3,
    warmup_learning_rate=1e-4,
    epsilon=1e-8,
    fine_tune_type="",
)
_FASTER_RCNN = Recipe(
    8,
    64,
    25_000,
    (FLIP,),
    "momentum",
    learning_rate=0.04,
    warmup_learning_rate=0.013333,
    warmup_steps=2000,
    bfloat16=True,
)

RECIPES = {
    "centernet_hg104_512x512_coco17_tpu-8": Recipe(
        8, 128, 140_000, _CENTER_NET_STEPS, drops=_MANUAL, fine_tune_type="detection"
    ),
    "centernet_hg104_512x512_kpts_coco17_tpu-32": Recipe(
        32, 128, 250_000, _CENTER_NET_STEPS, fine_tune_type="detection"
    ),
    "centernet_hg104_1024x1024_coco17_tpu-32": Recipe(32, 128, 50_000, _SQUARE_STEPS, fine_tune_type="detection"),
    "centernet_hg104_1024x1024_kpts_coco17_tpu-32": Recipe(32, 128, 250_000, _SQUARE_STEPS, fine_tune_type="detection"),
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": Recipe(8, 128, 250_000, _CENTER_NET_STEPS),
    "centernet_resnet50_v1_fpn_512x512_kpts_coco17_tpu-8": Recipe(8, 128, 250_000, _CENTER_NET_STEPS),
    "centernet_resnet101_v1_fpn_512x512_coco17_tpu-8": Recipe(8, 128, 140_000, _CENTER_NET_STEPS, drops=_MANUAL),
    "centernet_resnet50_v2_512x512_coco17_tpu-8": Recipe(8, 128, 250_000, _CENTER_NET_STEPS),
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8": Recipe(8, 128, 250_000, _CENTER_NET_STEPS),
    "centernet_mobilenetv2fpn_512x512_coco17_od": _MOBILENET,
    "centernet_mobilenetv2fpn_512x512_coco17_kpts": _MOBILENET,
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": _FASTER_RCNN,
    "faster_rcnn_resnet50_v1_1024x1024_coco17_tpu-8": Recipe(
        8,
        64,
        100_000,
        _FASTER_RCNN_STEPS,
        "momentum",
        learning_rate=0.04,
        warmup_learning_rate=0.013333,
        warmup_steps=2000,
        bfloat16=True,
    ),
    "faster_rcnn_resnet50_v1_800x1333_coco17_gpu-8": Recipe(
        8,
        16,
        200_000,
        _FASTER_RCNN_STEPS,
        "momentum",
        learning_rate=0.01,
        warmup_learning_rate=0.0,
        gradient_clipping=10.0,
        padded=False,
    ),
    "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8": _FASTER_RCNN,
    # No published run: a rate that suits Adam and a classifier, and data seen about ten times.
    BASELINE: Recipe(
        1, 16, 75_000, (FLIP, HUE, CONTRAST, SATURATION, BRIGHTNESS), warmup_steps=1000, fine_tune_type="detection"
    ),
}
