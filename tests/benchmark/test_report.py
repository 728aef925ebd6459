"""The reports say what was measured, on what, with which weights, and nothing that was not."""

import csv
from dataclasses import asdict

import matplotlib

from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.machine import describe_machine
from tfod_zoo.benchmark.report import markdown_report, write_reports

PUBLISHED = {"speed_ms": 6, "box_map": 23.4}


def row(entry, *, metrics=None, weights="ckpt", published=PUBLISHED, **fields):
    measured = {"status": "ok", "device": "CPU", "picture": "uint8 480x640x3", "canvas": [512, 512], "p50_ms": 40.0,
                "p90_ms": 45.0, "p99_ms": 50.0, "mean_ms": 41.5, "images_per_second": 24.1, "first_call_ms": 3000.0,
                "peak_memory_mib": 900.4, "parameters": 2_500_000, "gflop": 4.7}
    if metrics:
        measured |= {"metrics": {"DetectionBoxes_Precision/mAP": metrics}, "evaluated_images": 10}
    return {"entry": asdict(entry), "weights": weights, "published": published, "machine": describe_machine(),
            **measured, **fields}


def failed(entry, reason):
    return {"entry": asdict(entry), "weights": "random", "published": PUBLISHED, "machine": describe_machine(),
            "status": "failed", "reason": reason}


def cells(path):
    with path.open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_all_four_are_written_and_name_what_they_must(tmp_path):
    rows = [row(Entry("a_model", batch_size=1, dataset="tfds:x:y"), metrics=0.25), row(Entry("a_model", batch_size=8)),
            failed(Entry("b_model"), "there is no network yet")]
    written = write_reports(rows, tmp_path)
    assert [path.name for path in written] == ["report.html", "report.md", "results.csv", "speed_accuracy.png"]
    assert written[3].read_bytes().startswith(b"\x89PNG")
    text = written[1].read_text()
    assert describe_machine()["cpu"] in text and "tensorflow 2." in text
    assert "b_model batch 1 tensorflow float32 (random weights): failed, there is no network yet" in text
    assert "tfds:x:y, 10 images" in text
    first, second, third = cells(written[2])
    assert float(first["mAP %"]) == float(second["mAP %"]) == 25.0, "mAP is of the network, not of the batch size"
    assert (third["status"], third["reason"], third["p50 ms"]) == ("failed", "there is no network yet", "")


def test_keypoints_stand_beside_boxes(tmp_path):
    metrics = {"DetectionBoxes_Precision/mAP": 0.25, "Keypoints_Precision/mAP ByCategory/person": 0.5,
               "Keypoints_Precision/mAP@.50IOU ByCategory/person": 0.8}
    published = PUBLISHED | {"keypoint_map": 48.2}
    rows = [row(Entry("a_model"), published=published) | {"metrics": metrics, "evaluated_images": 10},
            row(Entry("b_model"), metrics=0.3)]
    with_keypoints, boxes_only = cells(write_reports(rows, tmp_path)[2])
    assert float(with_keypoints["keypoint mAP %"]) == 50.0, "not the AP at one threshold"
    assert (with_keypoints["mAP %"], with_keypoints["published keypoint mAP %"]) == ("25.0", "48.2")
    assert boxes_only["keypoint mAP %"] == boxes_only["published keypoint mAP %"] == ""
    assert "OKS .50:.95" in (tmp_path / "report.md").read_text()


def test_map_that_was_not_measured_is_absent(tmp_path):
    written = write_reports([row(Entry("a_model"), weights="random")], tmp_path)
    assert cells(written[2])[0]["mAP %"] == ""
    text = written[1].read_text()
    assert "mAP was not measured" in text and "untrained" in text
    assert (tmp_path / "speed_accuracy.png").is_file(), "measured latency against the published mAP"


def test_a_notebooks_own_figures_go_on_being_shown(tmp_path):
    before = matplotlib.get_backend()
    try:
        matplotlib.use("svg")  # stands for the notebook's
        write_reports([row(Entry("a_model"))], tmp_path)
        assert (tmp_path / "speed_accuracy.png").exists() and matplotlib.get_backend() == "svg"
    finally:
        matplotlib.use(before)


def test_no_plot_without_any_accuracy(tmp_path):
    written = write_reports([row(Entry("mine"), published={})], tmp_path)
    assert [path.name for path in written] == ["report.html", "report.md", "results.csv"]


def test_every_line_of_the_table_has_every_column():
    table = [line for line in markdown_report([row(Entry("a")), failed(Entry("b"), "why")]).splitlines() if "|" in line]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1
    assert "p99 ms" in table[0] and "mAP %" not in table[0].replace("published mAP %", ""), "no column without figures"


def test_an_export_stands_beside_the_float32_model(tmp_path):
    export = {"agreement": {"images": 4, "detections": 20, "matched": 19}, "versions": {"openvino": "2026.1"}}
    entries = [Entry("a_model", dataset="d"), Entry("a_model", dataset="d", runtime="openvino", precision="int8"),
               Entry("a_model", batch_size=8, runtime="openvino", precision="int8"), Entry("b_model", runtime="onnx")]
    rows = [row(entries[0], metrics=0.25), row(entries[1], metrics=0.2475, export=export),
            row(entries[2], export=export), row(entries[3])]
    float32, int8, batch, alone = cells(write_reports(rows, tmp_path)[2])
    assert float(int8["mAP change"]) == float(batch["mAP change"]) == -0.25
    assert float32["mAP change"] == alone["mAP change"] == float32["found again %"] == ""
    assert float(int8["found again %"]) == 95.0
    assert "openvino 2026.1" in (tmp_path / "report.md").read_text()
