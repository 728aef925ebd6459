"""What decoding boxes and keypoints costs beside the network itself, at the zoo's size."""

import time

import numpy as np
import pytest
import tensorflow as tf

import tfod_zoo
from tfod_zoo.benchmark.picture import photograph_like

REPEATS = 15
TRIES = 3  # calls of which the fastest counts: what else the machine does comes in bursts
ALLOWED_SHARE = 0.10  # of the network's own time


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", "centernet_mobilenetv2fpn_512x512_coco17_kpts"]
)
def test_post_processing_with_keypoints_adds_less_than_a_tenth(name):
    """Pairs of calls, one of the network alone and one with post-processing, so that a busy machine slows both."""
    model = tfod_zoo.load(name, weights="random")
    inputs, shapes = model.preprocess(photograph_like()[None])

    @tf.function
    def network(inputs, shapes):
        return model(inputs, shapes, training=False)

    @tf.function
    def whole(inputs, shapes):
        return model.postprocess(model(inputs, shapes, training=False), shapes)

    def seconds(function):
        start = time.perf_counter()
        result = function(inputs, shapes)
        tf.nest.map_structure(lambda tensor: tensor.numpy(), result)
        return time.perf_counter() - start

    def pair():
        both = [(seconds(network), seconds(whole)) for _ in range(TRIES)]
        return tuple(min(times) for times in zip(*both, strict=True))

    pair()  # traces and warms up
    pairs = [pair() for _ in range(REPEATS)]
    share = float(np.median([both / alone for alone, both in pairs])) - 1
    milliseconds = 1e3 * float(np.median([alone for alone, _ in pairs]))
    print(f"{name}: network {milliseconds:.1f} ms, post-processing {share:+.1%}")
    assert share < ALLOWED_SHARE
