"""CenterNet's prediction heads (spec: CenterNet, section 5)."""

from collections.abc import Sequence

import tf_keras


def prediction_head(
    channels: int,
    in_channels: int,
    filters: Sequence[int] = (256,),
    kernel_sizes: Sequence[int] = (3,),
    bias: float = 0.0,
    separable: bool = False,
    name: str | None = None,
) -> tf_keras.Sequential:
    """A stack of convolutions with ReLU, then a 1x1 convolution to raw outputs (logits for heatmaps).

    Args:
      channels: output channels.
      in_channels: channels of the feature map.
      filters, kernel_sizes: the intermediate convolutions, of equal length; both empty leaves only the 1x1.
      bias: initial bias of the 1x1, e.g. -2.19 for heatmaps, so that training starts at a probability near 0.1.
      separable: depthwise separable intermediate convolutions (model-level `use_depthwise`).

    Returns:
      A built model `[B, H, W, in_channels] -> [B, H, W, channels]`.
    """
    convolution = tf_keras.layers.SeparableConv2D if separable else tf_keras.layers.Conv2D
    layers = [
        convolution(width, size, padding="same", activation="relu")
        for width, size in zip(filters, kernel_sizes, strict=True)
    ]
    layers.append(tf_keras.layers.Conv2D(channels, 1, bias_initializer=tf_keras.initializers.Constant(bias)))
    head = tf_keras.Sequential(layers, name=name)
    head.build((None, None, None, in_channels))
    return head
