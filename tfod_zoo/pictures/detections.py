"""What a model found in one image, as a small object."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.pictures.labels import Labels

if TYPE_CHECKING:
    import pandas

_PIXEL_DECIMALS = 2
_SCORE_DECIMALS = 5
_SHOWN = 5  # detections that `repr` names


@dataclass(frozen=True, eq=False)
class Detections:
    """What a model found in one image, best score first.

    `len(found)` is how many; `found.above(0.5)` keeps the sure ones; `to_pandas()`, `to_coco()` and `to_dict()` hand
    them on, `tfod_zoo.draw(image, found)` shows them.

    Example:
      >>> found = tfod_zoo.Detections(
      ...     boxes=np.float32([[0.25, 0.5, 0.75, 1.0], [0.0, 0.0, 0.1, 0.1]]), scores=np.float32([0.9, 0.2]),
      ...     classes=np.array([1, 2]), size=(400, 600), labels=tfod_zoo.Labels({1: "cell", 2: "dot"}),
      ... )
      >>> found
      Detections(image 600x400: cell 0.90, dot 0.20)
      >>> found.above(0.5).names, found.above(0.5).xyxy.tolist()
      (['cell'], [[300.0, 100.0, 600.0, 300.0]])

    Attributes:
      boxes: float32 `[N, 4]`: ymin, xmin, ymax, xmax as parts of the image's height and width, as TFOD gives them.
        `xyxy` has them in pixels.
      scores: float32 `[N]` in 0..1.
      classes: int `[N]`, ids of the label map, from 1; `names` has their names.
      size: (height, width) of the upright image in pixels.
      keypoints: float32 `[N, K, 2]`: y and x as parts of height and width; None for a model without.
      keypoint_scores: float32 `[N, K]` in 0..1; None for a model without.
      labels: names of classes and keypoints, and the skeleton.
      source: the image's path; None where it had none.
    """

    boxes: np.ndarray
    scores: np.ndarray
    classes: np.ndarray
    size: tuple[int, int]
    keypoints: np.ndarray | None = None
    keypoint_scores: np.ndarray | None = None
    labels: Labels = field(default_factory=Labels)
    source: str | None = None

    @classmethod
    def from_outputs(
        cls,
        outputs: Mapping[str, Any],
        size: tuple[int, int],
        *,
        row: int = 0,
        labels: Labels | None = None,
        source: str | None = None,
    ) -> Detections:
        """One image of what `detect` gives for a batch, or a SavedModel with TFOD's signature.

        Args:
          outputs: arrays or tensors `detection_boxes [B, N, 4]`, `detection_scores [B, N]`, `detection_classes [B, N]`
            (from 1), and where there are any `num_detections [B]`, `detection_keypoints [B, N, K, 2]`,
            `detection_keypoint_scores [B, N, K]`. Without the first dimension they are of the one image.
          size: (height, width) of the image in pixels.
          row: which image of the batch.

        Raises:
          UsageError: a key is missing.
        """
        missing = [key for key in ("detection_boxes", "detection_scores", "detection_classes") if key not in outputs]
        if missing:
            raise UsageError(f"these are no detections: {', '.join(missing)} is missing among {sorted(outputs)}.")
        arrays = {key: np.asarray(value) for key, value in outputs.items()}
        if arrays["detection_scores"].ndim == 2:
            arrays = {key: value[row] for key, value in arrays.items()}
        scores = arrays["detection_scores"]
        count = int(arrays.get("num_detections", len(scores)))
        order = np.argsort(-scores[:count], kind="stable")

        def taken(key: str) -> np.ndarray | None:
            return arrays[key][order] if key in arrays else None

        return cls(
            boxes=arrays["detection_boxes"][order],
            scores=scores[order],
            classes=np.rint(arrays["detection_classes"][order]).astype(np.int64),
            size=(int(size[0]), int(size[1])),
            keypoints=taken("detection_keypoints"),
            keypoint_scores=taken("detection_keypoint_scores"),
            labels=labels or Labels(),
            source=source,
        )

    def __len__(self) -> int:
        return len(self.scores)

    def __repr__(self) -> str:
        best = [f"{name} {score:.2f}" for name, score in zip(self.names[:_SHOWN], self.scores, strict=False)]
        more = f", {len(self) - _SHOWN} more" if len(self) > _SHOWN else ""
        where = f"{self.source or 'image'} {self.size[1]}x{self.size[0]}"
        return f"Detections({where}: {', '.join(best) or 'nothing'}{more})"

    @property
    def names(self) -> list[str]:
        """The class name of each."""
        return [self.labels.name(int(id)) for id in self.classes]

    @property
    def xyxy(self) -> np.ndarray:
        """float32 `[N, 4]`: xmin, ymin, xmax, ymax in pixels of the image."""
        height, width = self.size
        return self.boxes[:, [1, 0, 3, 2]] * np.asarray([width, height, width, height], np.float32)

    def above(self, min_score: float) -> Detections:
        """Those with at least this score, in 0..1."""
        kept = self.scores >= min_score
        return replace(
            self,
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            classes=self.classes[kept],
            keypoints=None if self.keypoints is None else self.keypoints[kept],
            keypoint_scores=None if self.keypoint_scores is None else self.keypoint_scores[kept],
        )

    def keypoints_of(self, index: int) -> dict[int, tuple[float, float, float]]:
        """Keypoint index -> x and y in pixels and score, of one detection; empty for a class without keypoints."""
        if self.keypoints is None:
            return {}
        count = self.keypoints.shape[1]
        wanted = self.labels.keypoints_of.get(int(self.classes[index]), tuple(range(count)))
        scores = np.ones(count) if self.keypoint_scores is None else self.keypoint_scores[index]
        height, width = self.size
        points = self.keypoints[index] * [height, width]
        return {at: (float(points[at, 1]), float(points[at, 0]), float(scores[at])) for at in wanted if at < count}

    def to_dict(self) -> dict[str, Any]:
        """Width, height and detections in pixels as plain JSON types, as `tfod-zoo detect` writes them.

        Each of `detections` has `class_id`, `class`, `score`, `box` (xmin, ymin, xmax, ymax), and for a class with
        keypoints `keypoints`: x, y and score of each.
        """
        found = []
        for index, (box, name) in enumerate(zip(self.xyxy.tolist(), self.names, strict=True)):
            entry: dict[str, Any] = {
                "class_id": int(self.classes[index]),
                "class": name,
                "score": round(float(self.scores[index]), _SCORE_DECIMALS),
                "box": [round(value, _PIXEL_DECIMALS) for value in box],
            }
            points = self.keypoints_of(index)
            if points:
                entry["keypoints"] = [_rounded(point) for point in points.values()]
            found.append(entry)
        return {"width": self.size[1], "height": self.size[0], "detections": found}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], labels: Labels) -> Detections:
        """What `to_dict` gave, up to its rounding."""
        found, height, width = record["detections"], record["height"], record["width"]
        scale = np.asarray([height, width], np.float32)
        points = np.full([len(found), len(labels.keypoints), 3], np.nan, np.float32)  # x, y, score
        for index, entry in enumerate(found):
            everyone = tuple(range(len(labels.keypoints)))
            of_class = labels.keypoints_of.get(entry["class_id"], everyone)
            for at, point in zip(of_class, entry.get("keypoints", ()), strict=False):
                points[index, at] = point
        with_points = any("keypoints" in entry for entry in found)
        boxes = np.asarray([entry["box"] for entry in found], np.float32).reshape([-1, 4])
        return cls(
            boxes=boxes[:, [1, 0, 3, 2]] / np.concatenate([scale, scale]),
            scores=np.asarray([entry["score"] for entry in found], np.float32),
            classes=np.asarray([entry["class_id"] for entry in found], np.int64),
            size=(height, width),
            keypoints=points[..., 1::-1] / scale if with_points else None,
            keypoint_scores=points[..., 2] if with_points else None,
            labels=labels,
            source=record.get("file"),
        )

    def to_coco(self, image_id: int = 0) -> list[dict[str, Any]]:
        """COCO's results format, which pycocotools' `loadRes` takes.

        Args:
          image_id: of the image in the annotations that the results go with.

        Returns:
          A dict for each: `image_id`, `category_id`, `bbox` (x, y, width, height in pixels), `score`, and for a class
          with keypoints `keypoints`, x, y and score of each in one list.
        """
        return coco_results(self.to_dict()["detections"], image_id)

    def to_pandas(self) -> pandas.DataFrame:
        """A row for each: class_id, class, score, xmin, ymin, xmax, ymax in pixels, and x, y, score of each keypoint.

        Raises:
          ZooError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ZooError("to_pandas needs pandas, which is not installed; pip install pandas.") from error
        xyxy = self.xyxy
        columns: dict[str, Any] = {"class_id": self.classes, "class": self.names, "score": self.scores}
        columns |= {name: xyxy[:, at] for at, name in enumerate(("xmin", "ymin", "xmax", "ymax"))}
        if self.keypoints is not None:
            points = [self.keypoints_of(index) for index in range(len(self))]
            nothing = (np.nan, np.nan, np.nan)
            for at in range(self.keypoints.shape[1]):
                name = self.labels.keypoint_name(at)
                for part, what in enumerate(("x", "y", "score")):
                    columns[f"{name}_{what}"] = np.asarray([point.get(at, nothing)[part] for point in points])
        return pandas.DataFrame(columns)


def coco_results(detections: list[dict[str, Any]], image_id: int) -> list[dict[str, Any]]:
    """COCO's results of the `detections` of one `Detections.to_dict()`."""
    results = []
    for found in detections:
        xmin, ymin, xmax, ymax = found["box"]
        result = {
            "image_id": image_id,
            "category_id": found["class_id"],
            "bbox": [xmin, ymin, round(xmax - xmin, _PIXEL_DECIMALS), round(ymax - ymin, _PIXEL_DECIMALS)],
            "score": found["score"],
        }
        if "keypoints" in found:
            result["keypoints"] = [value for point in found["keypoints"] for value in point]
        results.append(result)
    return results


def _rounded(point: tuple[float, float, float]) -> list[float]:
    x, y, score = point
    return [round(x, _PIXEL_DECIMALS), round(y, _PIXEL_DECIMALS), round(score, _SCORE_DECIMALS)]
