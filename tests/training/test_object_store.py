"""A run whose folder is none of this machine's, as the gs:// one of a TPU slice: TensorFlow's file system in memory."""

import pytest
import tensorflow as tf
import tiny_run
from etils import epath
from etils.epath import gpath

import tfod_zoo
from tfod_zoo.config.label_map import read_label_map
from tfod_zoo.errors import UsageError, ZooError
from tfod_zoo.finetune import finetune
from tfod_zoo.training.run import train

SCHEME = "ram"


@pytest.fixture
def store(monkeypatch):
    """An address that only TensorFlow's file functions know, made known to etils as gs:// is."""
    prefix = f"{SCHEME}://"
    monkeypatch.setattr(gpath, "_URI_PREFIXES", (*gpath._URI_PREFIXES, prefix))
    monkeypatch.setattr(gpath, "_URI_SCHEMES", frozenset({*gpath._URI_SCHEMES, SCHEME}))
    monkeypatch.setitem(gpath._URI_MAP_ROOT, prefix, f"/{SCHEME}/")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, SCHEME, None)
    epath.register_path_cls(prefix)(gpath.PosixGPath)
    return f"{prefix}bucket/run"


def test_a_run_writes_evaluates_and_goes_on_there(store, tmp_path):
    pipeline = tiny_run.tiny_pipeline(tmp_path / "shapes", "center_net")
    quiet = {"say": lambda line: None, "eval_every": 2, "checkpoint_every": 2, "keep": 2}
    train(pipeline, store, steps=4, **quiet)
    names = set(tf.io.gfile.listdir(store))
    assert {"pipeline.config", "training.json", "checkpoint", "ckpt-4.index", "best"} <= names
    assert all(tf.io.gfile.glob(f"{store}/{folder}/*") for folder in ("train", "eval"))
    assert not any("part" in name or "temp" in name for name in names)
    lines = []
    result = train(pipeline, store, steps=6, **{**quiet, "say": lines.append})
    assert result.step == 6 and f"going on from {store}/ckpt-4, step 4" in lines
    assert tfod_zoo.read_pipeline(f"{store}/pipeline.config").train_config.num_steps == 6
    again = tfod_zoo.load(store)
    for key, value in result.model.keyed_variables.items():
        tf.debugging.assert_equal(value, again.keyed_variables[key])
    assert tf.train.latest_checkpoint(f"{store}/best")


def test_finetune_says_what_to_do_instead():
    with pytest.raises(UsageError, match="tfod-zoo train --model-dir"):
        finetune("centernet_mobilenetv2fpn_512x512_coco17_od", "cells", "gs://bucket/run")


def test_what_is_not_there_is_said_in_a_sentence(store):
    with pytest.raises(ZooError, match=f"{store}/none.pbtxt cannot be read"):
        read_label_map(f"{store}/none.pbtxt")
    with pytest.raises(ZooError, match=f"{store}/none.config cannot be read"):
        tfod_zoo.read_pipeline(f"{store}/none.config")
