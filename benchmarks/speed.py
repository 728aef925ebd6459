"""What a call of `detect` costs, in units (`units.py`), beside TFOD's own SavedModel.

    python benchmarks/speed.py [MODEL]

Batch 1, from a uint8 900x1352 photograph to detections in host memory, TensorFlow float32, random weights, whose
detections cost as much as trained ones: the zoo's score threshold lets all of them through. Exits 1 where a call takes
more units or memory than its bound.
"""

import sys
from dataclasses import dataclass

import numpy as np
from PIL import Image
from units import cost_of, run_each

from tfod_zoo.benchmark.picture import photograph_like


@dataclass(frozen=True)
class Call:
    """Units and GB of a call of TFOD's own SavedModel (2 CPU cores, the same unit), and our bounds."""

    tfod_units: str
    tfod_gb: float
    most_units: float
    most_gb: float


CALLS = {
    "centernet_mobilenetv2fpn_512x512_coco17_od": Call("1.19", 1.0, 0.7, 0.67),
    "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8": Call("4.4 to 4.8", 1.1, 3.9, 0.73),
    "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8": Call("5.8", 1.1, 4.7, 0.73),
    "faster_rcnn_resnet50_v1_640x640_coco17_tpu-8": Call("17.8", 3.2, 13.6, 1.5),
    "centernet_hg104_512x512_coco17_tpu-8": Call("36.3", 2.6, 35.5, 1.73),
}
PHOTOGRAPH = (1352, 900)  # width, height
ROUNDS = 21
GB_IN_GIB = 1e9 / 2**30


def measure(name: str) -> int:
    """Prints one line; 0 if it is within the bounds."""
    import tensorflow as tf

    import tfod_zoo

    model = tfod_zoo.load(name, weights="random")
    images = tf.constant(np.asarray(Image.fromarray(photograph_like()).resize(PHOTOGRAPH))[None])
    cost = cost_of(lambda: [value.numpy() for value in model.detect(images).values()], ROUNDS)
    bound = CALLS[name]
    print(
        f"{name}: {cost} (at most {bound.most_units:g}, {bound.most_gb:g} GB; TFOD: {bound.tfod_units} units, "
        f"{bound.tfod_gb:g} GB)",
        flush=True,
    )
    return 0 if cost.units <= bound.most_units and cost.peak_gib <= bound.most_gb * GB_IN_GIB else 1


if __name__ == "__main__":
    sys.exit(run_each(__file__, list(CALLS), measure))
