"""What is drawn can be seen: inside the image, at any size, in colours of its own."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import tfod_zoo
from tfod_zoo.config.label_map import LabelMap, LabelMapItem
from tfod_zoo.errors import UsageError
from tfod_zoo.pictures import draw as drawing
from tfod_zoo.pictures.detections import Detections
from tfod_zoo.pictures.labels import Labels

GREY = 128


def found(boxes, scores=None, size=(480, 640), labels=None, **more):
    """Detections of classes 1, 2, ..."""
    count = len(boxes)
    return Detections(
        boxes=np.asarray(boxes, np.float32).reshape([-1, 4]),
        scores=np.asarray(scores if scores is not None else np.linspace(0.95, 0.5, count), np.float32),
        classes=np.arange(1, count + 1),
        size=size,
        labels=labels or Labels({1: "person", 2: "bicycle"}),
        **more,
    )


def grey(size=(480, 640)):
    return np.full([*size, 3], GREY, np.uint8)


def changed(picture):
    return (np.asarray(picture) != GREY).any(-1)


def test_a_box_is_where_it_was_found():
    picture = tfod_zoo.draw(grey(), found([[0.25, 0.25, 0.75, 0.75]]))
    assert isinstance(picture, Image.Image) and picture.size == (640, 480)
    seen = changed(picture)
    rows, columns = np.nonzero(seen[200:]), np.nonzero(seen.any(0))[0]
    assert rows[0].max() + 200 == 360 and columns.min() == 160 and columns.max() == 480
    assert np.asarray(picture)[300, 160].tolist() == list(drawing.class_color(1))
    assert not seen[200:340, 170:470].any()  # nothing inside, and the label is above
    assert seen[100:120, 160:250].any()


def test_what_was_given_is_not_changed():
    pixels = grey()
    image = Image.fromarray(pixels)
    for given_image in (pixels, image):
        tfod_zoo.draw(given_image, found([[0.2, 0.2, 0.8, 0.8]]))
        assert not changed(given_image).any()


def test_a_low_score_is_left_out():
    one = found([[0.1, 0.1, 0.5, 0.5]], scores=[0.4])
    assert changed(tfod_zoo.draw(grey(), one)).any()
    assert not changed(tfod_zoo.draw(grey(), one, min_score=0.5)).any()
    assert not changed(tfod_zoo.draw(grey(), found([[0.1, 0.1, 0.5, 0.5]], scores=[0.2]))).any()


@pytest.mark.parametrize("size", [(48, 64), (480, 640), (3000, 4000)])
def test_lines_and_letters_grow_with_the_image(size):
    seen = changed(tfod_zoo.draw(grey(size), found([[0.4, 0.2, 0.9, 0.9]], size=size)))
    middle = seen[round(size[0] * 0.65)]
    line = middle[: size[1] // 2].sum()
    assert line >= 1 and line == pytest.approx(0.006 * (size[0] * size[1]) ** 0.5, abs=2)
    label = seen[: round(size[0] * 0.4)].any(1).sum()
    assert size[0] / 60 < label and label >= 8


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 300), width=st.integers(1, 300),
    corners=st.lists(st.tuples(*[st.floats(-0.5, 1.5, width=32)] * 4), max_size=6),
    name=st.text(st.characters(max_codepoint=0x4FF), max_size=40),
)  # fmt: skip
def test_labels_stay_inside_whatever_the_image(height, width, corners, name):
    boxes = [[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners]
    detections = found(boxes, size=(height, width), labels=Labels({1: name, 2: "x"}))
    picture = Image.fromarray(grey((height, width)))
    canvas = drawing._Drawing(picture)
    canvas.add(detections, 0.2)
    for left, top, right, bottom in canvas.labels:
        assert left >= 0 and top >= 0 and right <= width and bottom <= height


def test_labels_make_room_for_each_other():
    picture = Image.fromarray(grey())
    canvas = drawing._Drawing(picture)
    canvas.add(found([[0.4, 0.4, 0.9, 0.9], [0.4, 0.4, 0.9, 0.9], [0.4, 0.41, 0.9, 0.9]]), 0.2)
    places = canvas.labels
    assert len(places) == 3
    for index, one in enumerate(places):
        for other in places[:index]:
            assert min(one[2], other[2]) <= max(one[0], other[0]) or min(one[3], other[3]) <= max(one[1], other[1])


def test_classes_have_colours_of_their_own():
    colors = np.asarray([drawing.class_color(id) for id in range(1, 91)])
    assert len({tuple(color) for color in colors.tolist()}) == 90
    for id in range(1, 90):  # neighbours, which often are in one image
        assert np.abs(colors[id] - colors[id - 1]).max() > 60
    assert colors.max(1).min() > 100  # none is lost in the dark


def test_keypoints_and_skeleton():
    points = np.asarray([[[0.2, 0.2], [0.2, 0.8], [0.8, 0.5]]], np.float32)
    labels = Labels({1: "person"}, edges=((0, 1), (1, 2)))
    box = [[0.15, 0.15, 0.85, 0.85]]
    all_seen = found(box, labels=labels, keypoints=points, keypoint_scores=np.ones([1, 3], np.float32))
    line = changed(tfod_zoo.draw(grey(), all_seen))[96, 200:500]
    assert line.all()  # from the first point to the second
    one_hidden = found(box, labels=labels, keypoints=points, keypoint_scores=np.float32([[1, 0.1, 1]]))
    seen = changed(tfod_zoo.draw(grey(), one_hidden))
    assert not seen[96, 200:500].any() and seen[384, 320] and not seen[94:99, 505:520].any()


def test_names_from_elsewhere_and_tfod_s_own_dict():
    outputs = {
        "detection_boxes": np.float32([[[0.4, 0.2, 0.9, 0.9], [0, 0, 1, 1]]]),
        "detection_scores": np.float32([[0.9, 0.8]]),
        "detection_classes": np.float32([[1, 2]]),
        "num_detections": np.float32([1]),
    }
    by_dict = tfod_zoo.draw(grey(), outputs, names={1: "person"})
    np.testing.assert_array_equal(by_dict, tfod_zoo.draw(grey(), found([[0.4, 0.2, 0.9, 0.9]], [0.9])))
    label_map = LabelMap((LabelMapItem(1, "/m/01g317", "person"),))
    np.testing.assert_array_equal(by_dict, tfod_zoo.draw(grey(), outputs, names=label_map))
    assert (np.asarray(by_dict) != np.asarray(tfod_zoo.draw(grey(), outputs))).any()
    with pytest.raises(UsageError, match="detection_scores"):
        tfod_zoo.draw(grey(), {"detection_boxes": []})
