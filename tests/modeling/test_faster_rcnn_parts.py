"""The parts of Faster R-CNN that have no weights, and the layers that compute the same as others, only cheaper."""

import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tfod_zoo
from tfod_zoo.errors import ZooError
from tfod_zoo.modeling import conv_style as conv_style_module
from tfod_zoo.modeling import pointwise
from tfod_zoo.modeling.backbones.resnet_v1_bias_free import Bottleneck, Stage
from tfod_zoo.modeling.conv_style import ConvStyle, ProductConv2D, WinogradConv2D, conv_style, normalized
from tfod_zoo.modeling.faster_rcnn.anchors import clip_anchors, generate_anchors, inside_window
from tfod_zoo.modeling.faster_rcnn.region_proposal_network import RegionProposalNetwork
from tfod_zoo.modeling.faster_rcnn.roi_crop import CropShape, crop_and_pool, select_levels


def config(name="faster_rcnn_resnet50_v1_640x640_coco17_tpu-8"):
    return tfod_zoo.generate_pipeline(name).model.faster_rcnn


def test_grid_anchors_are_those_of_the_reference():
    anchors = generate_anchors(config().first_stage_anchor_generator, [(40, 40)])
    assert anchors.shape == (19200, 4) and anchors.dtype == np.float32
    np.testing.assert_allclose(anchors[0], [-45.254833, -22.627417, 45.254833, 22.627417], rtol=1e-6)
    clipped = clip_anchors(anchors, 640, 640)
    first = [[45.25483, 22.62742], [90.50967, 45.25483], [181.0193, 90.50967], [362.0387, 181.0193], [32, 32]]
    np.testing.assert_allclose(clipped[:5], [[0, 0, *corner] for corner in first], rtol=1e-6)
    # The second cell is the next column: everything moves 16 pixels to the right.
    np.testing.assert_allclose(anchors[12:24] - anchors[:12], np.tile([0, 16, 0, 16], [12, 1]), atol=1e-4)
    inside = inside_window(anchors, 640, 640)
    np.testing.assert_array_equal(inside, (anchors == clipped).all(-1))
    assert 0 < inside.sum() < len(anchors)


def test_pyramid_anchors_follow_levels_then_cells_then_ratios_then_scales():
    generator = config("faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8").first_stage_anchor_generator
    sizes = [(160, 160), (80, 80), (40, 40), (20, 20), (10, 10)]
    anchors = generate_anchors(generator, sizes)
    assert anchors.shape == (204600, 4)
    start = 0
    for level, (height, width) in zip(range(2, 7), sizes, strict=True):
        stride = 2**level
        cell = anchors[start + 6 : start + 12]  # second cell of the first row
        np.testing.assert_allclose((cell[:, :2] + cell[:, 2:]) / 2, np.tile([stride / 2, 1.5 * stride], [6, 1]))
        heights, widths = cell[:, 2] - cell[:, 0], cell[:, 3] - cell[:, 1]
        np.testing.assert_allclose(widths / heights, [1, 1, 2, 2, 0.5, 0.5], rtol=1e-5)
        np.testing.assert_allclose(np.sqrt(widths * heights), 4 * stride * np.array([1, 2**0.5] * 3), rtol=1e-5)
        start += 6 * height * width


def test_normalized_anchors_are_refused():
    generator = config("faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8").first_stage_anchor_generator
    generator.multiscale_anchor_generator.normalize_coordinates = True
    with pytest.raises(ZooError, match="normalize_coordinates"):
        generate_anchors(generator, [(1, 1)] * 5)


def sampled(features, box, size):
    """The plain definition: a grid of bilinear samples whose corners are the box's."""
    height, width, _ = features.shape
    ys = np.linspace(box[0], box[2], size) * (height - 1)
    xs = np.linspace(box[1], box[3], size) * (width - 1)
    y0, x0 = np.minimum(np.floor(ys).astype(int), height - 2), np.minimum(np.floor(xs).astype(int), width - 2)
    dy, dx = (ys - y0)[:, None, None], (xs - x0)[None, :, None]

    def at(y, x):
        return features[y][:, x]

    top = at(y0, x0) * (1 - dx) + at(y0, x0 + 1) * dx
    bottom = at(y0 + 1, x0) * (1 - dx) + at(y0 + 1, x0 + 1) * dx
    return top * (1 - dy) + bottom * dy


BOXES = np.array(
    [
        [[0, 0, 1, 1], [0.2, 0.3, 0.35, 0.9], [0, 0, 0, 0]],
        [[0.5, 0.1, 1, 0.2], [0.999, 0.2, 1, 1], [0.4, 0.4, 0.4, 0.6]],
    ],
    np.float32,
)


@pytest.mark.parametrize("matrix", [False, True], ids=["native", "matrix"])
@pytest.mark.parametrize(
    "shape", [CropShape(14, 2, 2), CropShape(14, 2, 2, step=2), CropShape(9, 3, 2), CropShape(5, 1, 1)]
)
def test_crops_are_pooled_bilinear_samples(matrix, shape):
    features = np.random.default_rng(0).normal(size=(2, 11, 7, 3)).astype(np.float32)
    crops = crop_and_pool([tf.constant(features)], tf.constant(BOXES), None, shape, matrix=matrix).numpy()
    assert crops.shape == (6, shape.cells, shape.cells, 3)
    for i, crop in enumerate(crops):
        samples = sampled(features[i // 3], BOXES[i // 3, i % 3], shape.size)
        pooled = tf.nn.max_pool2d(samples[None], shape.kernel, shape.stride, "VALID")[0, :: shape.step, :: shape.step]
        np.testing.assert_allclose(crop, pooled, atol=1e-4)


@pytest.mark.parametrize("matrix", [False, True], ids=["native", "matrix"])
def test_a_box_is_cut_out_of_its_own_level(matrix):
    rng = np.random.default_rng(1)
    maps = [tf.constant(rng.normal(size=(2, side, side + 2, 2)).astype(np.float32)) for side in (12, 6, 3)]
    levels = tf.constant([[0, 1, 2], [2, 1, 0]])
    shape = CropShape(6, 2, 2)
    got = tf.reshape(crop_and_pool(maps, tf.constant(BOXES), levels, shape, matrix=matrix), [2, 3, 3, 3, 2])
    for image in range(2):
        for row in range(3):
            only = crop_and_pool(
                [maps[int(levels[image, row])][image : image + 1]],
                tf.constant(BOXES[None, image, row : row + 1]),
                None,
                shape,
                matrix=False,
            )
            np.testing.assert_allclose(got[image, row], only[0], atol=1e-4)


def test_both_forms_of_cropping_have_the_same_gradient():
    features = tf.random.stateless_normal([2, 9, 9, 4], [1, 2])
    gradients = []
    for matrix in (False, True):
        with tf.GradientTape() as tape:
            tape.watch(features)
            total = tf.reduce_sum(
                crop_and_pool([features], tf.constant(BOXES), None, CropShape(8, 2, 2), matrix=matrix) ** 2
            )
        gradients.append(tape.gradient(total, features).numpy())
    assert np.abs(gradients[0]).max() > 1
    np.testing.assert_allclose(*gradients, atol=2e-3)


def test_levels_by_size():
    sides = np.array([0, 20, 55.9, 56.1, 111, 113, 223, 225, 447, 449, 640], np.float32) / 640
    boxes = np.stack([np.zeros_like(sides), np.zeros_like(sides), sides, sides], -1)[None]
    levels = select_levels(tf.constant(boxes), 640, 640, 5).numpy()[0]
    assert levels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]


def test_a_1x1_product_is_the_convolution():
    x = tf.random.stateless_normal([3, 4, 6, 5], [0, 1])
    plain, product = (layer(7, 1, bias_initializer="ones") for layer in (tf_keras.layers.Conv2D, ProductConv2D))
    want = plain(x)
    product.build(x.shape)
    product.set_weights(plain.get_weights())
    np.testing.assert_allclose(product(x), want, atol=1e-5)


@pytest.mark.parametrize("layer", [WinogradConv2D, ProductConv2D])
@pytest.mark.parametrize(("size", "channels"), [(1, 6), (3, 6), (3, 128)])
def test_batch_norm_is_folded_only_where_it_stands_still(layer, size, channels):
    rng = np.random.default_rng(2)
    x = tf.constant(rng.normal(1, 2, (5, 4, 4, channels)).astype(np.float32))
    for follows in (True, False):
        style = ConvStyle(layer=layer, update_statistics=follows)
        conv, norm = style.conv(channels, size), style.norm()
        conv.build(x.shape)
        norm.build([None, None, None, channels])
        norm.set_weights([rng.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)])
        before = norm.moving_mean.numpy()
        still = norm(conv(x), training=False)
        np.testing.assert_allclose(normalized(conv, norm, tf.nn.relu, x), tf.nn.relu(still), atol=1e-4)
        in_training = normalized(conv, norm, tf.identity, x, training=True)
        if follows:
            np.testing.assert_allclose(tf.reduce_mean(in_training, [0, 1, 2]), norm.beta, atol=1e-3)
            assert not np.allclose(norm.moving_mean, before)
        else:
            np.testing.assert_allclose(in_training, still, atol=1e-4)
            np.testing.assert_array_equal(norm.moving_mean, before)


def test_a_block_whose_norms_are_known_beforehand_learns_as_layer_by_layer(monkeypatch):
    block = Bottleneck(8, 1, True, ConvStyle())
    x = tf.random.stateless_normal([2, 9, 9, 8], [1, 2])
    block(x)
    start = block.get_weights()

    def learned() -> list:
        block.set_weights(start)
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = block(x, training=True)
            loss = tf.reduce_sum(y * tf.random.stateless_normal(y.shape, [3, 4]))
        gradients = tape.gradient(loss, [x, *block.trainable_variables])
        return [y, *gradients, *(tf.identity(variable) for variable in block.non_trainable_variables)]

    joined = []
    monkeypatch.setattr(
        conv_style_module,
        "convolve_and_normalize",
        lambda x, kernel, norm: joined.append(norm) or pointwise.convolve_and_normalize(x, kernel, norm),
    )
    got = learned()
    assert joined == [block.norm_3, block.shortcut_norm]
    monkeypatch.setattr(conv_style_module, "normalizes", lambda norm, channels: False)
    for ours, plain in zip(got, learned(), strict=True):
        assert np.linalg.norm(ours - plain) <= 1e-4 * np.linalg.norm(plain) + 1e-4


def test_conv5_sees_the_same_with_and_without_the_cells_that_it_skips():
    x = tf.random.stateless_normal([2, 7, 7, 16], [3, 4])
    strided, thinned = Stage(50, 5, ConvStyle()), Stage(50, 5, ConvStyle(layer=ProductConv2D), stride=1)
    want = strided(x)
    thinned(x[:, ::2, ::2])
    thinned.set_weights(strided.get_weights())
    assert want.shape == (2, 4, 4, 2048)
    np.testing.assert_allclose(thinned(x[:, ::2, ::2]), want, atol=1e-4)


def test_rpn_outputs_are_in_the_order_of_the_anchors():
    rpn = RegionProposalNetwork(3, 2, depth=4, kernel_size=3, dilation=1, style=ConvStyle())
    maps = [tf.random.stateless_normal([2, side, side + 1, 5], [0, side]) for side in (4, 2)]
    features, codes, logits = rpn(maps)
    assert codes.shape == (2, 3 * (20 + 6), 4) and logits.shape == (2, 3 * (20 + 6), 2)
    assert float(tf.reduce_max(features[0])) <= 6
    # Cell (1, 2) of the second map, its last anchor.
    at = 3 * 20 + 3 * (1 * 3 + 2) + 2
    np.testing.assert_allclose(codes[:, at], rpn.box_heads[1](features[1])[:, 1, 2, 8:12], atol=1e-6)
    np.testing.assert_allclose(logits[:, at], rpn.class_heads[1](features[1])[:, 1, 2, 4:6], atol=1e-6)


def test_hyperparams():
    fpn = config("faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8").feature_extractor.conv_hyperparams
    style = conv_style(fpn, "there")
    assert style.activation is tf.nn.relu6 and style.l2 == pytest.approx(0.0002)
    assert (style.momentum, style.epsilon) == (pytest.approx(0.997), pytest.approx(0.001))
    conv = style.conv(4, 3)
    conv.build([None, None, None, 64])
    assert np.std(conv.kernel) == pytest.approx(0.03 * 0.88, rel=0.1)  # truncated at two standard deviations
    assert float(tf.add_n(conv.losses)) == pytest.approx(0.0002 * float(tf.reduce_sum(conv.kernel**2)), rel=1e-4)
    fpn.regularizer.l1_regularizer.weight = 1
    with pytest.raises(ZooError, match="there.regularizer.l1_regularizer"):
        conv_style(fpn, "there")
