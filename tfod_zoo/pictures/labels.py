"""What a model's class ids and keypoints are called, and which keypoints a skeleton joins."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tfod_zoo.config.label_map import LabelMap, find_label_map, read_label_map


@dataclass(frozen=True)
class Labels:
    """Names for what a detector gives; `model.labels` has a model's.

    Example:
      >>> labels = tfod_zoo.Labels({1: "cell"})
      >>> labels.name(1), labels.name(2)
      ('cell', 'class 2')

    Attributes:
      names: class id (from 1) -> name.
      keypoints: the keypoints' names, by their index.
      keypoints_of: class id -> indexes of its keypoints; of a class that is not in it, all.
      edges: pairs of keypoint indexes that a skeleton joins.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    keypoints: tuple[str, ...] = ()
    keypoints_of: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    edges: tuple[tuple[int, int], ...] = ()

    def name(self, class_id: int) -> str:
        """The class's name, or `class 7` where none is known."""
        return self.names.get(class_id, f"class {class_id}")

    def keypoint_name(self, index: int) -> str:
        """The keypoint's name, or `keypoint 3` where none is known."""
        return self.keypoints[index] if index < len(self.keypoints) else f"keypoint {index}"

    @classmethod
    def of_label_map(cls, label_map: LabelMap, edges: tuple[tuple[int, int], ...] = ()) -> Labels:
        """The names of a label map."""
        by_index = {id: label for item in label_map.items for id, label in item.keypoints}
        return cls(
            names={item.id: item.title for item in label_map.items},
            keypoints=tuple(by_index.get(index, f"keypoint {index}") for index in range(max(by_index, default=-1) + 1)),
            # Where the label map knows keypoints, classes without any have none.
            keypoints_of={item.id: tuple(id for id, _ in item.keypoints) for item in label_map.items}
            if by_index
            else {},
            edges=edges,
        )


def labels_of(pipeline: Any, folder: str | os.PathLike[str] | None = None) -> Labels:
    """The names of a model's classes and keypoints.

    They come from `find_label_map`; where it finds none, classes are called by their numbers.

    Args:
      pipeline: TrainEvalPipelineConfig message.
      folder: the training folder or unpacked archive that the config came from.

    Raises:
      LabelMapError: there is a label map, but it cannot be read.
    """
    edges = tuple((edge.start, edge.end) for edge in pipeline.eval_config.keypoint_edge)
    path = find_label_map(pipeline, folder)
    return Labels.of_label_map(read_label_map(path), edges) if path else Labels(edges=edges)
