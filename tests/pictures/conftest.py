"""The small detector that several files of tests share."""

import pytest
import small_detector

import tfod_zoo


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    return str(small_detector.folder_with_model(tmp_path_factory.mktemp("run") / "cells"))


@pytest.fixture
def loaded_once(monkeypatch):
    monkeypatch.setattr(tfod_zoo, "load", small_detector.load_once)
