"""Generated pipelines: the published ones, scaled ones, and fine-tuning ones."""

from pathlib import Path

import pytest

import tfod_zoo
from tfod_zoo.config import generate
from tfod_zoo.config.check import check_pipeline
from tfod_zoo.config.generate import HARDWARE, PLACEHOLDER, described, generate_pipeline
from tfod_zoo.config.label_map import COCO_LABEL_MAP, LabelMap, LabelMapItem, write_label_map
from tfod_zoo.config.pipeline import pipeline_text
from tfod_zoo.errors import UsageError, ZooError

MODELS = tfod_zoo.list_models()
PIPELINES = Path(__file__).parents[2] / "pipelines"
HOURGLASS = "centernet_hg104_512x512_coco17_tpu-8"
FASTER_RCNN_FPN = "faster_rcnn_resnet50_v1_fpn_640x640_coco17_tpu-8"
OD, RESNET = "centernet_mobilenetv2fpn_512x512_coco17_od", "centernet_resnet50_v1_fpn_512x512_coco17_tpu-8"


@pytest.fixture
def cells(tmp_path):
    """The label map of a data set with two classes."""
    path = tmp_path / "label_map.pbtxt"
    write_label_map(LabelMap((LabelMapItem(1, "RBC"), LabelMapItem(2, "WBC"))), path)
    return path


def rate(message):
    optimizer = message.train_config.optimizer
    schedule = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
    chosen = getattr(schedule, schedule.WhichOneof("learning_rate"))
    return getattr(chosen, "learning_rate_base", None) or chosen.initial_learning_rate


@pytest.mark.parametrize("name", MODELS)
def test_checked_in_pipelines_are_what_the_generator_writes(name):
    assert (PIPELINES / f"{name}.config").read_text() == described(generate_pipeline(name), name)


def test_every_checked_in_pipeline_is_of_a_registered_model():
    assert {path.stem for path in PIPELINES.glob("*.config")} == set(MODELS)


@pytest.mark.parametrize("name", MODELS)
def test_published_recipe(name):
    model, message = tfod_zoo.get_model(name), generate_pipeline(name)
    assert message.model.WhichOneof("model") == model.family
    network = getattr(message.model, model.family)
    assert network.num_classes == model.num_classes
    assert network.feature_extractor.type == model.backbone
    assert message.train_config.fine_tune_checkpoint_version == 2
    assert not message.train_config.optimizer.use_moving_average
    assert len(message.train_config.data_augmentation_options) >= 1
    has_keypoints = "keypoints" in model.outputs
    assert (message.train_input_reader.num_keypoints == 17) == has_keypoints
    flip = message.train_config.data_augmentation_options[0].random_horizontal_flip
    # The published MobileNet od config keeps a keypoint flip that box data cannot be trained with.
    assert (len(flip.keypoint_flip_permutation) == 17) == has_keypoints


def test_keypoint_flip_swaps_left_and_right():
    message = generate_pipeline("centernet_resnet50_v2_512x512_kpts_coco17_tpu-8")
    flip = message.train_config.data_augmentation_options[0].random_horizontal_flip
    assert list(flip.keypoint_flip_permutation) == [0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("hardware", HARDWARE)
def test_batch_and_rate_scale_together(name, hardware):
    published, scaled = generate_pipeline(name), generate_pipeline(name, hardware=hardware)
    ratio = scaled.train_config.batch_size / published.train_config.batch_size
    sgd = scaled.train_config.optimizer.HasField("momentum_optimizer")
    assert rate(scaled) == pytest.approx(rate(published) * (ratio if sgd else ratio**0.5), rel=0.01)
    assert scaled.train_config.num_steps * ratio == pytest.approx(published.train_config.num_steps, rel=0.01)
    if hardware in ("cpu", "gpu", "gpu-8"):
        assert not scaled.train_config.use_bfloat16  # it works on TPUs only


@pytest.mark.parametrize("name", MODELS)
def test_fine_tuning_leaves_nothing_to_configure(name, cells):
    message = generate_pipeline(
        name,
        hardware="cpu",
        label_map=cells,
        train_records="a-*.tfrecord",
        eval_records=["b-*.tfrecord"],
        fine_tune_checkpoint="some/ckpt-0",
    )
    assert PLACEHOLDER not in pipeline_text(message)
    assert getattr(message.model, message.model.WhichOneof("model")).num_classes == 2
    assert message.train_config.fine_tune_checkpoint == "some/ckpt-0"
    assert message.train_config.fine_tune_checkpoint_type == "detection"
    assert message.train_input_reader.num_keypoints == 0  # these classes have none
    assert not message.model.center_net.keypoint_estimation_task
    assert message.eval_input_reader[0].tf_record_input_reader.input_path == ["b-*.tfrecord"]
    assert not message.eval_input_reader[0].drop_remainder  # every image counts
    assert check_pipeline(message) == []


def test_fine_tuning_starts_from_the_models_own_checkpoint(cells, tmp_path, monkeypatch):
    monkeypatch.setenv("TFOD_ZOO_STORE", str(tmp_path / "store"))
    message = generate_pipeline(OD, label_map=cells, train_records="a", eval_records="b")
    expected = tmp_path / "store" / "centernet_mobilenetv2_fpn_od" / "checkpoint" / "ckpt-301"
    assert Path(message.train_config.fine_tune_checkpoint).name == expected.name
    assert str(tmp_path / "store") in message.train_config.fine_tune_checkpoint


def test_random_weights_clear_the_checkpoint(cells):
    message = generate_pipeline(
        RESNET,
        label_map=cells,
        train_records="a",
        eval_records="b",
        fine_tune_checkpoint="",
        num_steps=100,
        image_size=256,
        learning_rate=0.002,
        batch_size=8,
    )
    assert message.train_config.fine_tune_checkpoint == message.train_config.fine_tune_checkpoint_type == ""
    cosine = message.train_config.optimizer.adam_optimizer.learning_rate.cosine_decay_learning_rate
    assert (cosine.total_steps, cosine.learning_rate_base) == (100, pytest.approx(0.002))
    assert cosine.warmup_steps < 100
    assert message.model.center_net.image_resizer.keep_aspect_ratio_resizer.max_dimension == 256


def test_fine_tuning_keypoints_take_the_label_maps(tmp_path):
    path = tmp_path / "hands.pbtxt"
    points = ((0, "thumb"), (1, "left_side"), (2, "right_side"))
    write_label_map(LabelMap((LabelMapItem(1, "hand", keypoints=points),)), path)
    message = generate_pipeline(
        "centernet_resnet50_v2_512x512_kpts_coco17_tpu-8", label_map=path, train_records="a", eval_records="b"
    )
    (task,) = message.model.center_net.keypoint_estimation_task
    assert task.keypoint_class_name == "hand"
    assert message.train_input_reader.num_keypoints == 3
    flip = message.train_config.data_augmentation_options[0].random_horizontal_flip
    assert list(flip.keypoint_flip_permutation) == [0, 2, 1]
    assert check_pipeline(message) == []


def test_every_class_with_keypoints_gets_a_task(tmp_path):
    path = tmp_path / "pets.pbtxt"
    cat = LabelMapItem(1, "cat", keypoints=((0, "left_ear"), (1, "right_ear")))
    dog = LabelMapItem(3, "dog", keypoints=((4, "right_paw"), (2, "left_paw"), (3, "nose")))
    write_label_map(LabelMap((cat, LabelMapItem(2, "bowl"), dog)), path)
    options = {"label_map": path, "train_records": "a", "eval_records": "b", "fine_tune_checkpoint": ""}
    message = generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_kpts", **options)
    tasks = message.model.center_net.keypoint_estimation_task
    assert [(task.task_name, task.keypoint_class_name) for task in tasks] == [("cat_pose", "cat"), ("dog_pose", "dog")]
    assert message.train_input_reader.num_keypoints == message.eval_input_reader[0].num_keypoints == 5
    flip = message.train_config.data_augmentation_options[0].random_horizontal_flip
    assert list(flip.keypoint_flip_permutation) == [1, 0, 4, 3, 2]
    metrics = [block.coco_keypoint_metrics for block in message.eval_config.parameterized_metric]
    assert [(block.class_label, sorted(block.keypoint_label_to_sigmas)) for block in metrics] == [
        ("cat", ["left_ear", "right_ear"]),
        ("dog", ["left_paw", "nose", "right_paw"]),
    ]
    assert check_pipeline(message) == []
    write_label_map(LabelMap((LabelMapItem(1, "cat", keypoints=((1, "ear"),)),)), path)
    with pytest.raises(UsageError, match="keypoint ids 1; number the keypoints"):
        generate_pipeline("centernet_mobilenetv2fpn_512x512_coco17_kpts", **options)


@pytest.mark.parametrize(
    ("options", "part"),
    [
        ({"hardware": "abacus"}, "tpu-8"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"fine_tune_checkpoint": "x", "fine_tune_type": "fine_tune"}, 'use "detection"'),
        ({"train_records": "a"}, "label_map"),
    ],
)
def test_wrong_options_are_refused(options, part):
    with pytest.raises(UsageError) as caught:
        generate_pipeline(OD, **options)
    assert part in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "part"),
    [
        (OD, {"fine_tune_type": "fine_tune"}, 'use "detection"'),
        (OD, {"fine_tune_type": "everything"}, "classification, detection, full"),
        (OD, {"fine_tune_type": "classification"}, 'use "detection" or "full"'),
        (OD, {"fine_tune_type": "full", "fine_tune_checkpoint": ""}, "needs a checkpoint"),
        (HOURGLASS, {"fine_tune_type": "classification", "fine_tune_checkpoint": "c"}, "hourglass"),
        (FASTER_RCNN_FPN, {}, "never published with weights"),
        (OD, {"image_size": 250}, "multiple of 32, such as 256"),
        (HOURGLASS, {"image_size": 544}, "multiple of 128, such as 512"),
        (OD, {"eval_records": None}, "eval_records"),
        (OD, {"train_records": None}, "train_records"),
    ],
)
def test_what_cannot_be_fine_tuned_is_refused_with_the_word_to_use(name, options, part, cells):
    with pytest.raises(UsageError, match=part) as caught:
        generate_pipeline(name, **{"label_map": cells, "train_records": "a", "eval_records": "b", **options})
    assert "\n" not in str(caught.value)


def test_fine_tuning_is_for_this_machine_unless_told(cells, monkeypatch):
    data = {"label_map": cells, "train_records": "a", "eval_records": "b", "fine_tune_checkpoint": ""}
    for device, batch in (("/nowhere", 8), (__file__, 16)):
        monkeypatch.setattr(generate, "_NVIDIA_DEVICE", device)
        assert generate_pipeline(OD, **data).train_config.batch_size == batch
        assert not generate_pipeline(FASTER_RCNN_FPN, **data).train_config.use_bfloat16


def test_random_weights_learn_faster_but_never_above_the_published_rate(cells):
    data = {"label_map": cells, "train_records": "a", "eval_records": "b"}
    assert rate(generate_pipeline(OD, batch_size=8, fine_tune_checkpoint="", **data)) == pytest.approx(2e-3)
    assert rate(generate_pipeline(OD, batch_size=8, fine_tune_checkpoint="c", **data)) == pytest.approx(6.25e-4)
    assert rate(generate_pipeline(RESNET, batch_size=8, fine_tune_checkpoint="", **data)) == pytest.approx(1e-3)
    assert rate(generate_pipeline(RESNET, batch_size=512, fine_tune_checkpoint="", **data)) == pytest.approx(2e-3)
    sgd = [generate_pipeline(FASTER_RCNN_FPN, batch_size=8, fine_tune_checkpoint=c, **data) for c in ("", "c")]
    assert rate(sgd[0]) == rate(sgd[1]) == pytest.approx(0.04 / 8)


def test_fine_tuning_leaves_out_padding_and_noise(cells):
    message = generate_pipeline(OD, label_map=cells, train_records="a", eval_records="b", fine_tune_checkpoint="c")
    steps = [step.WhichOneof("preprocessing_step") for step in message.train_config.data_augmentation_options]
    assert steps == [
        "random_horizontal_flip", "random_crop_image", "random_adjust_hue", "random_adjust_contrast",
        "random_adjust_saturation", "random_adjust_brightness",
    ]


def test_cocos_own_gaps_are_no_slip():
    message = generate_pipeline(
        OD, label_map=COCO_LABEL_MAP, train_records="tfds:coco/2017:train", eval_records="tfds:coco/2017:validation",
        fine_tune_checkpoint="c",
    )
    assert message.model.center_net.num_classes == 90 and check_pipeline(message) == []


def test_some_of_cocos_classes_keep_their_ids(tmp_path):
    """As the import of a part of COCO leaves them."""
    path = tmp_path / "some.pbtxt"
    path.write_text(
        'item { id: 1 name: "/m/01g317" display_name: "person" }\nitem { id: 3 name: "car" }\n'
        'item { id: 18 name: "dog" }\n'
    )
    message = generate_pipeline(
        OD, label_map=path, train_records="a", eval_records="b", fine_tune_checkpoint=""
    )
    assert message.model.center_net.num_classes == 18 and check_pipeline(message) == []


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("num_steps", [1, 100, 1_000_000])
def test_the_schedule_ends_with_the_run(name, num_steps, cells):
    data = {"label_map": cells, "train_records": "a", "eval_records": "b", "fine_tune_checkpoint": ""}
    for message in (generate_pipeline(name, num_steps=num_steps), generate_pipeline(name, num_steps=num_steps, **data)):
        optimizer = message.train_config.optimizer
        schedule = getattr(optimizer, optimizer.WhichOneof("optimizer")).learning_rate
        cosine = schedule.cosine_decay_learning_rate
        if schedule.HasField("cosine_decay_learning_rate"):
            assert cosine.total_steps == message.train_config.num_steps == num_steps
            assert cosine.warmup_steps < num_steps and cosine.warmup_learning_rate <= cosine.learning_rate_base
        else:
            assert all(drop.step <= num_steps for drop in schedule.manual_step_learning_rate.schedule)


def test_a_label_map_with_a_gap_is_refused(tmp_path):
    path = tmp_path / "gap.pbtxt"
    path.write_text('item { id: 1 name: "a" }\nitem { id: 3 name: "b" }\n')
    with pytest.raises(ZooError, match="no class has id 2"):
        generate_pipeline(OD, label_map=path, train_records="a", eval_records="b")
