"""What every detector of the package is: one interface from pixels to detections, losses and checkpoints."""

import functools
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import tensorflow as tf
import tf_keras

from tfod_zoo.errors import UsageError
from tfod_zoo.modeling import checkpoint
from tfod_zoo.modeling.image_resizer import canvas_size, resize_and_pad
from tfod_zoo.pictures.labels import Labels, labels_of
from tfod_zoo.pictures.stream import detect_all, is_batch

RESTORE_MODES = ("full", "detection", "classification")


class Network(NamedTuple):
    """A part of a detector that is nothing but layers, which other runtimes can run.

    Attributes:
      call: `[B, *input_shape]` float32 -> a list of tensors.
      input_shape: without the batch.
      rows: of its batch, for each image.
    """

    call: Callable[[tf.Tensor], list[tf.Tensor]]
    input_shape: tuple[int, ...]
    rows: int = 1


# The name of a network and its input -> its outputs, as arrays or tensors.
RunNetwork = Callable[[str, tf.Tensor], Sequence]


class _WithGraph:
    """A method whose bound form has the ways into its `tf.function` too: tracing and compiling it need them."""

    def __init__(self, method: Callable):
        self._method = method

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self._method

        def bound(images):
            return self._method(model, images)

        detect: Any = functools.update_wrapper(bound, self._method)
        del detect.__wrapped__  # its signature has self
        graph = model.detect_batch
        detect.python_function, detect.get_concrete_function = graph.python_function, graph.get_concrete_function
        return detect


class DetectionModel(tf_keras.Model):
    """A detection network built from a pipeline config; its variables exist as soon as it is built.

    `tfod_zoo.load` and `tfod_zoo.build` make it. `detect` finds objects in pictures; `restore_checkpoint` and
    `save_checkpoint` read and write TFOD's checkpoints; `preprocess`, the call, `postprocess` and `compute_losses` are
    the steps that detection and training are made of. Everything else is `tf_keras.Model`'s.

    Example:
      >>> model = tfod_zoo.load("centernet_mobilenetv2fpn_512x512_coco17_od", weights="random")
      >>> picture = np.zeros([480, 640, 3], np.uint8)  # or "street.jpg"
      >>> found = model.detect(picture)
      >>> tfod_zoo.draw(picture, found).save("street.detections.jpg")
      >>> inputs, true_shapes = model.preprocess(picture[None])
      >>> detections = model.postprocess(model(inputs, true_shapes), true_shapes)

    A family implements `normalize`, `call`, `postprocess`, `compute_losses` and `tfod_tree`; and `networks`,
    `remaining_layers` and `detect_through`, so that other runtimes can run it.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      image_resizer: the family's ImageResizer message, which fixes the size of the network's input.

    Attributes:
      pipeline: the message it was built from.
      input_shape_hw: (height, width) of the padded network input, in pixels.
      num_classes, max_detections: classes without background; detections per image.
      folder: the training folder or archive that it was loaded from; None for a model without.
    """

    num_classes: int
    max_detections: int

    def __init__(self, pipeline, image_resizer, **kwargs):
        super().__init__(**kwargs)
        self.pipeline = pipeline
        self._image_resizer = image_resizer
        self.input_shape_hw = canvas_size(image_resizer)
        self.folder: str | os.PathLike | None = None

    @functools.cached_property
    def labels(self) -> Labels:
        """What its classes and keypoints are called: see `tfod_zoo.pictures.labels.labels_of`."""
        return labels_of(self.pipeline, self.folder)

    def preprocess(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """Resizes, pads and normalises a batch of images of one size (spec: CenterNet, section 3).

        Args:
          images: `[B, H, W, 3]` RGB, uint8 or float32, values in 0..255.

        Returns:
          inputs: `[B, H', W', 3]` float32, what the network takes.
          true_image_shapes: `[B, 3]` int32, size of the resized image before padding.

        Raises:
          UsageError: another dtype or rank.
        """
        canvas, true_shapes = self.to_canvas(images)
        return self.normalize(canvas), true_shapes

    def to_canvas(self, images) -> tuple[tf.Tensor, tf.Tensor]:
        """`preprocess` without normalising: pixels stay in 0..255."""
        images = tf.convert_to_tensor(images)
        if images.dtype not in (tf.uint8, tf.float32) or images.shape.rank != 4 or images.shape[-1] != 3:
            raise UsageError(
                f"images are {images.dtype.name} of shape {images.shape}; give uint8 or float32 of shape [B, H, W, 3] "
                "with values in 0..255."
            )
        canvas, true_shape = resize_and_pad(images, self._image_resizer)
        return canvas, tf.tile(true_shape[None], [tf.shape(images)[0], 1])

    def normalize(self, canvas: tf.Tensor) -> tf.Tensor:
        """Resized and padded RGB pixels `[B, H', W', 3]` float32 in 0..255 -> network inputs of the same shape."""
        raise NotImplementedError

    def postprocess(self, predictions: dict, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """Raw predictions -> TFOD's detection dict, classes 0-based."""
        raise NotImplementedError

    def compute_losses(
        self, predictions: dict, groundtruth: dict[str, tf.Tensor], true_image_shapes: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        """Raw predictions and padded ground truth -> scalars under TFOD's loss keys; training minimises their sum."""
        raise NotImplementedError

    def recompute_gradients(self, recompute: bool = True) -> None:
        """Keeps fewer activations in training and computes them again, where a family has that.

        Raises:
          UsageError: this network has it not.
        """
        if recompute:
            raise UsageError("only hourglass networks can recompute their gradients; train this one without.")

    @property
    def tfod_tree(self):
        """The model's variables as a trackable tree with TFOD's attribute names: what a checkpoint calls `model`."""
        raise NotImplementedError

    @_WithGraph
    def detect(self, images):
        """Finds objects in images of any kind.

        `found = model.detect("street.jpg")` gives `Detections`, which `tfod_zoo.draw("street.jpg", found)` shows;
        `model.detect(["a.jpg", "b.png"])` a list of them; and a batch of pixels what TFOD's SavedModel gives for it.

        Args:
          images: one of
            a picture: the path of an image file, a Pillow image, or uint8 `[H, W, 3]` RGB (tensor or array);
            a list or tuple of pictures, each of any kind and size;
            a batch: `[B, H, W, 3]` uint8 RGB, all of one size (tensor or array).

        Returns:
          For a picture `tfod_zoo.Detections`, for a list a list of them in its order. For a batch float32 tensors under
          the keys of TFOD's serving signature: `detection_boxes [B, N, 4]` (ymin, xmin, ymax, xmax in 0..1),
          `detection_scores [B, N]`, `detection_classes [B, N]` (label-map ids, from 1), `num_detections [B]`, ...

        Raises:
          PictureError: a picture cannot be read; names it.
          UsageError: a batch has another dtype or rank.
        """
        if tf.is_symbolic_tensor(images) or is_batch(images):
            return self.detect_batch(images)
        if isinstance(images, (list, tuple)):
            return detect_all(self, images)
        return detect_all(self, [images])[0]

    @tf.function(reduce_retracing=True)
    def detect_batch(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        """`detect` of a batch of one size, the whole chain as one function."""
        return self.detect_preprocessed(*self.preprocess(images))

    @tf.function(reduce_retracing=True)
    def detect_pictures(self, pictures: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """`detect` of pictures of any sizes, each `[H, W, 3]` uint8, as one batch."""
        canvases, true_image_shapes = zip(*(self.to_canvas(picture[None]) for picture in pictures), strict=True)
        return self.detect_preprocessed(self.normalize(tf.concat(canvases, 0)), tf.concat(true_image_shapes, 0))

    def detect_preprocessed(self, inputs: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """`detect` from what `preprocess` gives on."""
        return as_served(self.detections_of(inputs, true_image_shapes))

    @property
    def networks(self) -> dict[str, Network]:
        """The parts that another runtime can run, by name, in the order in which they run."""
        raise NotImplementedError

    @property
    def remaining_layers(self) -> Sequence[tf_keras.layers.Layer]:
        """Those whose weights `detect_through` uses itself, outside of the `networks`."""
        raise NotImplementedError

    @property
    def remaining_variables(self) -> dict[str, tf.Variable]:
        """`keyed_variables` of the `remaining_layers`."""
        remaining = {id(variable) for layer in self.remaining_layers for variable in layer.variables}
        return {key: variable for key, variable in self.keyed_variables.items() if id(variable) in remaining}

    def detect_through(self, run: RunNetwork, canvas: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """What `postprocess` gives, with the `networks` run elsewhere and everything between and behind them here.

        Args:
          run: the name of a network and its input `[B, ...]` -> its outputs.
          canvas, true_image_shapes: of `to_canvas`.
        """
        raise NotImplementedError

    def detections_of(self, inputs: tf.Tensor, true_image_shapes: tf.Tensor) -> dict[str, tf.Tensor]:
        """`postprocess` of a call, up to rounding, without what no detection needs."""
        return self.postprocess(self(inputs, true_image_shapes, training=False), true_image_shapes)

    @functools.cached_property
    def keyed_variables(self) -> dict[str, tf.Variable]:
        """Every variable by its key in a zoo checkpoint, `model/.../.ATTRIBUTES/VARIABLE_VALUE`."""
        return dict(checkpoint.keyed_variables(self.tfod_tree, "model"))

    def _restore_targets(self, mode: str) -> dict[str, tf.Variable]:
        """Checkpoint key -> variable for a restore mode (spec: CenterNet, section 15)."""
        if mode == "full":
            return self.keyed_variables
        if mode == "detection":
            prefix = "model/_feature_extractor/"
            return {key: value for key, value in self.keyed_variables.items() if key.startswith(prefix)}
        if mode == "classification":
            prefix = "model/_feature_extractor/_base_model/"
            return {
                key.replace(prefix, "feature_extractor/"): value
                for key, value in self.keyed_variables.items()
                if key.startswith(prefix)
            }
        advice = ' ("fine_tune" was dropped by TFOD: use "detection")' if mode == "fine_tune" else ""
        raise UsageError(f'there is no restore mode "{mode}"; use one of {", ".join(RESTORE_MODES)}{advice}.')

    def restore_checkpoint(self, prefix, mode: str = "full") -> checkpoint.RestoreReport:
        """Restores a zoo or training checkpoint of TFOD or of this package.

        Args:
          prefix: checkpoint prefix, such as `.../checkpoint/ckpt-0`.
          mode: "full" (everything), "detection" (the feature extractor: heads stay as they are), or
            "classification" (the body, from a classification checkpoint).

        Returns:
          A report of what was and was not restored.

        Raises:
          CheckpointError: a variable is missing there or has another shape; nothing was changed.
          UsageError: no such mode.
        """
        wanted = self._restore_targets(mode)
        restored = {id(variable) for variable in wanted.values()}
        kept = [key for key, variable in self.keyed_variables.items() if id(variable) not in restored]
        return checkpoint.restore(str(prefix), wanted, kept)

    def save_checkpoint(self, prefix) -> None:
        """Writes the model to `prefix` with TFOD's keys, as TFOD's own loader could restore it.

        Raises:
          CheckpointError: it could not be written; an earlier checkpoint there is unharmed.
        """
        checkpoint.save(str(prefix), self.tfod_tree)


def as_served(detections: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """What `postprocess` gives, as TFOD's SavedModels give it: classes from 1, everything float32."""
    served = {**detections, "detection_classes": detections["detection_classes"] + 1}
    return {key: tf.cast(value, tf.float32) for key, value in served.items()}
