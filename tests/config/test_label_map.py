"""Label maps: what is read, what is refused and where, and the two that ship."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.config.label_map import (
    COCO_LABEL_MAP,
    PERSON_KEYPOINTS_LABEL_MAP,
    LabelMap,
    LabelMapError,
    LabelMapItem,
    read_label_map,
    write_label_map,
)

# Ids that COCO's 80 classes leave out of 1 to 90.
COCO_GAPS = [12, 26, 29, 30, 45, 66, 68, 69, 71, 83]


@pytest.fixture
def label_map_file(tmp_path):
    def write(text):
        path = tmp_path / "map.pbtxt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_ids_names_and_categories(label_map_file):
    text = "# cells\nitem { id: 2 name: 'wbc' }\nitem: { name: \"/m/0\", id: 1; display_name: 'red cell' }\n"
    label_map = read_label_map(label_map_file(text))
    assert [item.id for item in label_map.items] == [2, 1]
    assert label_map.max_id == 2 and label_map.gaps() == []
    assert label_map.id_of("wbc") == 2 and label_map.id_of("/m/0") == label_map.id_of("red cell") == 1
    assert label_map.id_of("platelet") is None and label_map.id_of("") is None
    assert label_map.category_name(1) == "red cell" and label_map.category_name(7) == "7"
    assert label_map.categories() == [{"id": 2, "name": "wbc"}, {"id": 1, "name": "red cell"}]


def test_background_may_have_id_0_and_is_no_category(label_map_file):
    label_map = read_label_map(label_map_file("item { id: 0 name: 'background' }\nitem { id: 1 name: 'a' }"))
    assert label_map.categories() == [{"id": 1, "name": "a"}] and label_map.max_id == 1


@pytest.mark.parametrize(
    "text, line, sentence",
    [
        ("item { id: -3 name: 'a' }", 1, "id -3; ids start at 1"),
        ("item { id: 1 name: 'a' }\nitem { id: 0 name: 'b' }", 2, "only background"),
        ("item { id: 1 name: 'a' }\n\nitem {\n id: 1\n name: 'b'\n}", 3, 'id 1 is used by "a" and "b"'),
        ("item { id: 1 name: 'a' }\nitem { id: 2 name: 'a' }", 2, '"a" names ids 1 and 2'),
        ("item { id: 1 name: 'a' display_name: 'x' }\nitem { id: 2 name: 'x' }", 2, '"x" names ids 1 and 2'),
        ("item { id: 1 }", 1, "has no name"),
        ("item { id: 1 name: 'a' keypoints { id: 4 label: 'l' } keypoints { id: 4 label: 'r' } }", 1, "keypoint id 4"),
        ("item { id: 1 name: 'a' }\nitem { id: 2 nam: 'b' }", 2, '"nam"'),
        ("item { id: 'one' name: 'a' }", 1, "integer"),
    ],
)
def test_a_wrong_map_is_refused_with_its_line(label_map_file, text, line, sentence):
    path = label_map_file(text)
    with pytest.raises(LabelMapError) as caught:
        read_label_map(path)
    assert f"{path}, line {line}" in str(caught.value) and sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gap_is_refused_where_every_output_must_be_trained(label_map_file):
    path = label_map_file("item { id: 1 name: 'a' }\nitem { id: 4 name: 'b' }")
    assert read_label_map(path).gaps() == [2, 3]
    with pytest.raises(LabelMapError, match="no class has id 2, 3; number the classes from 1 to 2"):
        read_label_map(path, allow_gaps=False)


def test_what_is_no_label_map_is_named(tmp_path, label_map_file):
    with pytest.raises(LabelMapError, match="nowhere.pbtxt cannot be read"):
        read_label_map(tmp_path / "nowhere.pbtxt")
    with pytest.raises(LabelMapError, match="no class"):
        read_label_map(label_map_file(""))
    (tmp_path / "binary.pbtxt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelMapError, match="not a text file"):
        read_label_map(tmp_path / "binary.pbtxt")


def test_coco_has_its_80_classes_under_its_own_ids():
    label_map = read_label_map(COCO_LABEL_MAP)
    assert len(label_map.items) == 80 and label_map.max_id == 90 and label_map.gaps() == COCO_GAPS
    for id, name in ((1, "person"), (3, "car"), (13, "stop sign"), (44, "bottle"), (90, "toothbrush")):
        assert label_map.id_of(name) == id and label_map.category_name(id) == name
    assert label_map.id_of("/m/01g317") == 1
    assert not any(item.keypoints for item in label_map.items)


def test_the_keypoint_map_is_cocos_with_a_persons_keypoints():
    label_map = read_label_map(PERSON_KEYPOINTS_LABEL_MAP)
    assert label_map.categories() == read_label_map(COCO_LABEL_MAP).categories()
    (person,) = [item for item in label_map.items if item.keypoints]
    assert (person.id, person.name, person.display_name) == (1, "/m/01g317", "person")
    assert [id for id, _ in person.keypoints] == list(range(17))
    assert person.keypoints[0] == (0, "nose") and person.keypoints[16] == (16, "right_ankle")


names = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)


@st.composite
def label_maps(draw):
    titles = draw(st.lists(names, min_size=1, max_size=6, unique=True))
    ids = draw(st.permutations(range(1, len(titles) + 1)))
    points = st.lists(names, max_size=3).map(lambda labels: tuple(enumerate(labels)))
    return LabelMap(tuple(LabelMapItem(id, name, "", draw(points)) for id, name in zip(ids, titles, strict=True)))


@given(label_maps())
def test_written_maps_read_back_equal(tmp_path_factory, label_map):
    path = tmp_path_factory.getbasetemp() / "round_trip.pbtxt"
    write_label_map(label_map, path)
    assert read_label_map(path, allow_gaps=False) == label_map
