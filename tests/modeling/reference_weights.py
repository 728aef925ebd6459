"""Deterministic weights: weight(key, shape) -> numpy array, a pure function of checkpoint key and shape.

numpy only. Draws are uniform from RandomState (MT19937, a frozen stream) seeded with sha256(key), scaled so that
activations stay of order one through every model.
"""

import hashlib
import re

import numpy as np

SUFFIX = "/.ATTRIBUTES/VARIABLE_VALUE"


def _u(key, shape, low, high, center=False):
    seed = np.frombuffer(hashlib.sha256(key.encode()).digest(), "<u4")
    n = int(np.prod(shape, dtype=np.int64))
    r = (low + (high - low) * np.random.RandomState(seed).random_sample(n)).reshape(shape)
    if center:  # zero mean over the fan-in of each output channel keeps deep ReLU networks from losing contrast
        r -= r.mean(axis=tuple(range(len(shape) - 1)))
    return r.astype(np.float32)


def _fan_in(name, shape):
    if name == "depthwise_kernel":
        return shape[0] * shape[1]
    return int(np.prod(shape[:-1]))


def _index(key):
    m = re.search(r"_(?:base_model|proposal_features)/layer_with_weights-(\d+)/", key)
    return int(m[1]) if m else -1


def _last_of_head(key, shape):
    """The 1x1 output convolution of a CenterNet head."""
    return "/layer_with_weights-1/" in key


def weight(key, shape):
    shape = tuple(int(s) for s in shape)
    if key.startswith("save_counter"):
        return np.ones(shape, np.int64)
    name = key[: -len(SUFFIX)].rsplit("/", 1)[1]
    head = None
    for h in (
        "object_center",
        "box.Sscale",
        "box.Soffset",
        "keypoint.Sheatmap",
        "keypoint.Soffset",
        "keypoint.Sregression",
    ):
        if "_prediction_head_dict" in key and h in key:
            head = h
    if name == "gamma":
        return _u(key, shape, 0.8, 1.2)
    if name == "beta":
        return _u(key, shape, -0.1, 0.1)
    if name == "moving_mean":
        return _u(key, shape, -0.1, 0.1)
    if name == "moving_variance":
        return _u(key, shape, 0.5, 1.5)
    if name == "bias":
        if head and _last_of_head(key, shape):
            low, high = {
                "object_center": (-3.5, -2.5),
                "box.Sscale": (10.0, 16.0),
                "box.Soffset": (0.4, 0.6),
                "keypoint.Sheatmap": (-3.0, -2.0),
                "keypoint.Soffset": (0.4, 0.6),
                "keypoint.Sregression": (-8.0, 8.0),
            }[head]
            v = _u(key, shape, low, high)
            if head == "object_center" and v.size > 1:
                v[0] += 2.2 if "/1/layer" in key else 1.0  # class 0, the one with keypoints; /1/ is hourglass
            return v
        return _u(key, shape, -0.05, 0.05)
    assert "kernel" in name, key
    gain = 0.95
    if head:
        gain = 1.0 if name == "kernel" else 0.6
        if _last_of_head(key, shape):
            gain = {
                "object_center": 0.3,
                "box.Sscale": 1.0,
                "box.Soffset": 0.1,
                "keypoint.Sheatmap": 0.3,
                "keypoint.Soffset": 0.1,
                "keypoint.Sregression": 1.0,
            }[head] * (2 if "/1/layer" in key else 1)
    elif "_first_stage_box_predictor/" in key:
        gain = 1.0 if "/class_predictions" in key else 0.4
    elif "_mask_rcnn_box_predictor/" in key:
        gain = 2.0 if "_class_" in key else 0.7
    elif "_network/" in key:  # hourglass
        gain = 0.7 if shape[2] != 3 else 0.8
    elif "_feature_extractor_model/" in key and shape[:2] == (3, 3) and shape[2] == shape[3]:
        gain = 2.4  # stride-2 transposed convolutions lose a factor of two
    elif "_feature_extractor_model/" in key and shape[:2] == (1, 1) and shape[2] in (256, 512, 1024, 2048):
        gain = 0.03  # laterals of the ResNet v1 FPN
    elif shape[2:] == (3, 64):  # ResNet stems: inputs within +-128 (v1) or +-1 (v2)
        gain = 0.005 if "_for_proposal_features" in key else 0.08
    elif shape[2:3] == (3,):
        gain = 1.2
    elif _index(key) > (85 if "_for_proposal_features" in key else 105):
        gain = 0.6  # the blocks that only ResNet-101 has
    elif "_base_model/" in key and any(c & (c - 1) for c in shape[2:]):
        gain = 0.75  # MobileNet V2 (its widths are not powers of two)
    std = gain * np.sqrt(2.0 / _fan_in(name, shape))
    a = float(np.sqrt(3.0) * std)
    return _u(key, shape, -a, a, center=name != "depthwise_kernel" and shape[2:3] != (3,))
