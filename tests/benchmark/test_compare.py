"""What counts as a change: beyond noise, beyond the tolerance, paired by image; and mAP from kept matches."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfod_zoo.benchmark.compare import compare, median_ratio
from tfod_zoo.benchmark.entry import Entry
from tfod_zoo.benchmark.image_matches import ImageMatches, WeightedMap, map_difference, matches_of
from tfod_zoo.benchmark.sweep import MATCHES_FOLDER, RESULTS_FILE
from tfod_zoo.cli.main import main
from tfod_zoo.errors import ZooError
from tfod_zoo.evaluation.coco import MAP, coco_metrics

CATEGORIES = [{"id": number, "name": f"class {number}"} for number in (1, 2, 3)]
IMAGES = 24


def pictures(seed, *, noise, count=IMAGES):
    """Per image, COCO annotations of ground truth (the same for every noise) and of what a detector found."""
    truth, found = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    images = []
    for _ in range(count):
        objects, detections = [], []
        for _ in range(truth.integers(0, 5)):
            box, category = [*truth.uniform(0, 80, 2), *truth.uniform(10, 40, 2)], int(truth.integers(1, 4))
            objects.append({"category_id": category, "bbox": box, "area": box[2] * box[3],
                            "iscrowd": int(truth.random() < 0.1)})
            moved = [value + noise * step for value, step in zip(box, found.normal(size=4), strict=True)]
            if found.random() < 0.8:
                detections.append({"category_id": category, "bbox": moved, "area": moved[2] * moved[3], "iscrowd": 0,
                                   "score": float(found.random())})
        images.append((objects, detections))
    return images


def measured(images, drawn=None):
    """pycocotools' mAP of the images, any of them more than once, and the matches."""
    kept = []
    truths, detections = [], []
    drawn = range(len(images)) if drawn is None else drawn
    for image_id, at in enumerate(drawn):
        truths += [one | {"image_id": image_id} for one in images[at][0]]
        detections += [one | {"image_id": image_id} for one in images[at][1]]
    metrics = coco_metrics(len(drawn), CATEGORIES, truths, detections,
                           on_boxes=lambda evaluator: kept.append(matches_of(evaluator)))
    return metrics[MAP], kept[0]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, IMAGES - 1), min_size=IMAGES, max_size=IMAGES))
def test_weighted_matches_are_pycocotools_on_the_images_drawn(seed, drawn):
    images = pictures(seed, noise=3)
    value, matches = measured(images)
    assert WeightedMap(matches)(np.ones(IMAGES)) == pytest.approx(value, abs=1e-12)
    value, of_drawn = measured(images, drawn)
    weighted = WeightedMap(matches)(np.bincount(drawn, minlength=IMAGES))
    assert (np.isnan(weighted) and value == -1) or weighted == pytest.approx(value, abs=1e-12)


def test_matches_survive_the_file_and_anything_else_is_refused(tmp_path):
    _, matches = measured(pictures(0, noise=3))
    matches.save(tmp_path / "folder" / "a.npz")
    again = ImageMatches.load(tmp_path / "folder" / "a.npz")
    assert again.num_images == IMAGES and again.same_images(matches)
    assert np.array_equal(again.matched, matches.matched) and np.array_equal(again.score, matches.score)
    for text in (b"", b"PK nothing"):
        (tmp_path / "b.npz").write_bytes(text)
        with pytest.raises(ZooError, match=r"b\.npz does not hold"):
            ImageMatches.load(tmp_path / "b.npz")


def test_the_paired_interval_sees_what_is_worse_and_what_is_not():
    good, bad = (measured(pictures(0, noise=noise, count=60))[1] for noise in (1, 4))
    difference, low, high = map_difference(good, bad)
    assert low < difference < high < 0
    assert map_difference(good, good) == (0, 0, 0)
    assert map_difference(bad, good)[0] == -difference
    with pytest.raises(ZooError, match="same images"):
        map_difference(good, measured(pictures(7, noise=1, count=60))[1])


@given(st.floats(0.2, 5.0), st.integers(5, 60))
def test_the_interval_of_the_median_scales_with_the_calls(factor, count):
    calls = np.random.default_rng(0).lognormal(1, 0.1, count)
    low, high = median_ratio(calls, calls * factor)
    assert low <= factor * (1 + 1e-9) and high >= factor * (1 - 1e-9)


def test_noise_that_comes_in_blocks_widens_the_interval():
    random = np.random.default_rng(0)
    single = random.normal(10, 1, 400)
    blocks = np.repeat(random.normal(10, 1, 20), 20)
    spread = [np.diff(median_ratio(calls, calls))[0] for calls in (single, blocks)]
    assert spread[1] > 1.5 * spread[0]


def row(entry, *, p50=20.0, memory=1000.0, mean_ap=None, seed=0, **fields):
    calls = p50 * np.random.default_rng(seed).lognormal(0, 0.03, 101)
    calls *= p50 / np.median(calls)
    told = {"entry": asdict(entry), "weights": entry.weights, "published": {}, "machine": {"cpu": "one"},
            "status": "ok", "p50_ms": p50, "p90_ms": 1.04 * p50, "calls_ms": calls.tolist(), "peak_memory_mib": memory}
    if mean_ap is not None:
        told |= {"metrics": {MAP: mean_ap}, "evaluated_images": IMAGES}
    return told | fields


def saved(folder, *rows):
    folder.mkdir(exist_ok=True)
    (folder / RESULTS_FILE).write_text("".join(json.dumps(one) + "\n" for one in rows))
    return folder


def verdicts(tmp_path, before, after, **tolerances):
    tolerances = {"tolerance": 0.05, "map_tolerance": 1.0} | tolerances
    (compared,) = compare(saved(tmp_path / "a", before), saved(tmp_path / "b", after), **tolerances).rows
    return {change.figure: change.verdict for change in compared.changes}


@pytest.mark.parametrize(
    "after, verdict",
    [(20.0, "same"), (20.02, "same"), (20.8, "worse"), (22.0, "regression"), (18.0, "better")],
)
@pytest.mark.parametrize("with_calls", [True, False])
def test_latency(tmp_path, after, verdict, with_calls):
    rows = [row(Entry("m"), p50=20.0), row(Entry("m"), p50=after, seed=1)]
    if not with_calls:
        for one in rows:
            del one["calls_ms"]
    assert verdicts(tmp_path, *rows)["p50 ms"] == verdict


def test_memory_and_map(tmp_path):
    entry = Entry("m", dataset="tfds:x:y")
    told = verdicts(tmp_path, row(entry, mean_ap=0.400), row(entry, mean_ap=0.395, memory=1100.0))
    assert told == {"p50 ms": "same", "peak MiB": "regression", "mAP %": "worse"}
    assert verdicts(tmp_path, row(entry, mean_ap=0.4), row(entry, mean_ap=0.38))["mAP %"] == "regression"
    told = verdicts(tmp_path, row(entry, mean_ap=0.4), row(entry, mean_ap=0.38), map_tolerance=3.0)
    assert told["mAP %"] == "worse"
    others = row(entry, mean_ap=0.38) | {"evaluated_images": 3}
    assert "mAP %" not in verdicts(tmp_path, row(entry, mean_ap=0.4), others), "other images"


def test_map_with_matches_is_judged_by_the_paired_interval(tmp_path):
    rows = []
    for folder, noise in (("a", 3.0), ("b", 3.05)):
        value, matches = measured(pictures(0, noise=noise))
        matches.save(tmp_path / folder / MATCHES_FOLDER / "m.npz")
        rows.append(row(Entry("m", dataset="d"), mean_ap=value, matches="m.npz"))
    assert rows[0]["metrics"] != rows[1]["metrics"]
    assert verdicts(tmp_path, *rows, map_tolerance=0.0)["mAP %"] == "same", "a difference within the images' noise"
    value, matches = measured(pictures(0, noise=6))
    matches.save(tmp_path / "b" / MATCHES_FOLDER / "m.npz")
    assert verdicts(tmp_path, rows[0], row(Entry("m", dataset="d"), mean_ap=value, matches="m.npz"))["mAP %"] \
        == "regression"


def test_failures_machines_and_rows_of_one_side(tmp_path):
    entry, other = Entry("m"), Entry("n")
    failing = row(entry) | {"status": "failed", "reason": "no memory"}
    told = compare(saved(tmp_path / "a", row(entry), row(other)), saved(tmp_path / "b", failing), tolerance=0.05,
                   map_tolerance=1.0)
    assert told.regressions == 1 and told.rows[0].failure == "failed: no memory"
    assert told.only_before == ["n batch 1 tensorflow float32"] and told.only_after == []
    doubtful = row(entry) | {"device": "CPU", "cores_used": 1.0, "cores_allowed": 2, "cores_used_by_others": 0.0}
    told = compare(tmp_path / "a", saved(tmp_path / "b", doubtful), tolerance=0.05, map_tolerance=1.0)
    assert "after: It ran on one core" in told.warnings[0]
    elsewhere = row(entry) | {"machine": {"cpu": "another"}}
    told = compare(tmp_path / "a", saved(tmp_path / "b", elsewhere), tolerance=0.05, map_tolerance=1.0)
    assert "different machines" in told.warnings[0] and told.regressions == 0


def test_runs_of_one_name_in_two_places_are_the_same_model(tmp_path):
    newer = row(Entry("/new/runs/cells"))
    newer["entry"] |= {"runtime": "tensorflow", "precision": "float32"}
    told = compare(saved(tmp_path / "a", row(Entry("/old/runs/cells"))), saved(tmp_path / "b", newer), tolerance=0.05,
                   map_tolerance=1.0)
    assert len(told.rows) == 1
    twice = [row(Entry(f"/{place}/cells"), p50=p50) for place, p50 in (("one", 20.0), ("two", 40.0))]
    told = compare(saved(tmp_path / "a", *twice), saved(tmp_path / "b", *reversed(twice)), tolerance=0.05,
                   map_tolerance=1.0)
    assert [change.verdict for one in told.rows for change in one.changes] == ["same"] * 4


def test_wrong_use_is_exit_code_2(tmp_path, capsys):
    good = str(saved(tmp_path / "a", row(Entry("m"))))
    other = str(saved(tmp_path / "b", row(Entry("n"))))
    empty = str(saved(tmp_path / "c"))
    for words, sentence in (
        ((good, str(tmp_path / "none")), "There is no "),
        ((good, empty), "holds no rows"),
        ((good, other), "no row in common"),
        ((good, good, "--tolerance", "x"), "is not a percentage"),
        ((good, good, "--map-tolerance", "-1"), "below 0"),
        ((good,), "required"),
    ):
        assert main(["benchmark", "compare", *words]) == 2, words
        error = capsys.readouterr().err
        assert sentence in error and len(error.strip().splitlines()) == 1
