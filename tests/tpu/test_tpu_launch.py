"""`tfod-zoo tpu launch` against a gcloud that writes down what it is asked, a real program on the PATH."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tfod_zoo.cli.main import main
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import write_pipeline

MODEL = "centernet_mobilenetv2fpn_512x512_coco17_od"
GCLOUD = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps(sys.argv[1:]) + "\\n")
sys.exit(int(os.environ.get("FAKE_GCLOUD_FAILS", "") == (sys.argv[4] if sys.argv[1] == "compute" else sys.argv[1])))
"""


@pytest.fixture
def config(tmp_path):
    """A config whose data and checkpoint are in gs://."""
    pipeline = generate_pipeline(MODEL)
    pipeline.train_config.fine_tune_checkpoint = "gs://bucket/start/ckpt-1"
    for reader, records in ((pipeline.train_input_reader, "train-*"), (pipeline.eval_input_reader[0], "val-*")):
        reader.label_map_path = "gs://bucket/label_map.pbtxt"
        reader.tf_record_input_reader.input_path[:] = [f"gs://bucket/{records}"]
    path = tmp_path / "cells.config"
    write_pipeline(pipeline, path)
    return path


@pytest.fixture
def gcloud(tmp_path, monkeypatch):
    """The fake; calling it gives the argument lists it was run with."""
    folder, calls = tmp_path / "bin", tmp_path / "calls.jsonl"
    folder.mkdir()
    program = folder / "gcloud"
    program.write_text(GCLOUD.format(python=sys.executable, calls=str(calls)))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return lambda: [json.loads(line) for line in calls.read_text().splitlines()] if calls.exists() else []


def launch(config, *flags, name="cells-1", topology="v3-8", model_dir="gs://bucket/cells"):
    place = ["--zone", "europe-west4-a", "--topology", topology, "--model-dir", model_dir]
    return main(["tpu", "launch", name, *place, "--pipeline", str(config), *flags])


INSTALL = (
    "python3 -m pip install --quiet 'tfod-zoo[train]==1.0' && python3 -m pip uninstall --quiet --yes tensorflow && "
    "python3 -m pip install --quiet --force-reinstall --no-deps tensorflow-tpu==2.20.0 libtpu==0.0.14"
)
TRAIN = (
    "TPU_NAME=local python3 -m tfod_zoo.cli.main train --pipeline tfod_zoo_pipeline.config "
    "--model-dir gs://bucket/cells --device tpu"
)
CHECKS = [
    ["storage", "ls", "gs://bucket"],
    ["storage", "ls", "gs://bucket/start/ckpt-1.index"],
    ["storage", "ls", "gs://bucket/label_map.pbtxt"],
    ["storage", "ls", "gs://bucket/train-*"],
    ["storage", "ls", "gs://bucket/val-*"],
]


def tpu_vm(verb, *arguments):
    return ["compute", "tpus", "tpu-vm", verb, *arguments]


def test_one_host_runs_gcloud_in_order(config, gcloud, capfd):
    assert launch(config, "--package", "tfod-zoo[train]==1.0", "--project", "p1", "--train-flags", "--steps 10") == 0
    place = ["--zone=europe-west4-a", "--project=p1"]
    assert gcloud() == [
        *CHECKS,
        tpu_vm("create", "cells-1", *place, "--accelerator-type=v3-8",
               "--version=tpu-vm-tf-2.18.0-pjrt-v5p-and-below"),
        tpu_vm("scp", str(config), "cells-1:tfod_zoo_pipeline.config", *place),
        tpu_vm("ssh", "cells-1", f"--command={INSTALL}", *place),
        tpu_vm("ssh", "cells-1", f"--command={TRAIN} --steps 10", *place),
    ]
    assert "next: gcloud compute tpus tpu-vm delete cells-1" in capfd.readouterr().out


def test_a_slice_addresses_every_host(config, gcloud):
    assert launch(config, "--package", "tfod-zoo[train]==1.0", topology="v3-32") == 0
    place = ["--zone=europe-west4-a", "--worker=all"]
    assert gcloud()[len(CHECKS):] == [
        tpu_vm("create", "cells-1", "--zone=europe-west4-a", "--accelerator-type=v3-32",
               "--version=tpu-vm-tf-2.18.0-pod-pjrt-v5p-and-below"),
        tpu_vm("scp", str(config), "cells-1:tfod_zoo_pipeline.config", *place),
        tpu_vm("ssh", "cells-1", f"--command={INSTALL}", *place),
        tpu_vm("ssh", "cells-1", f"--command={TRAIN}", *place),
    ]


def test_dry_run_prints_the_commands_exactly_and_runs_none(config, gcloud, capsys):
    assert launch(config, "--package", "tfod-zoo[train]==1.0", "--image", "my-image", "--dry-run") == 0
    assert gcloud() == []
    zone = "--zone=europe-west4-a"
    quoted = INSTALL.replace("'", "'\"'\"'")
    assert capsys.readouterr().out.splitlines() == [
        "gcloud storage ls gs://bucket",
        "gcloud storage ls gs://bucket/start/ckpt-1.index",
        "gcloud storage ls gs://bucket/label_map.pbtxt",
        "gcloud storage ls 'gs://bucket/train-*'",
        "gcloud storage ls 'gs://bucket/val-*'",
        f"gcloud compute tpus tpu-vm create cells-1 {zone} --accelerator-type=v3-8 --version=my-image",
        f"gcloud compute tpus tpu-vm scp {config} cells-1:tfod_zoo_pipeline.config {zone}",
        f"gcloud compute tpus tpu-vm ssh cells-1 '--command={quoted}' {zone}",
        f"gcloud compute tpus tpu-vm ssh cells-1 '--command={TRAIN}' {zone}",
        f"next: the same without --dry-run; afterwards gcloud compute tpus tpu-vm delete cells-1 {zone}",
    ]


def test_dry_run_is_a_script_that_a_shell_runs_the_same(config, gcloud, capsys):
    launch(config, "--dry-run")
    script = "\n".join(capsys.readouterr().out.splitlines()[:-1])
    subprocess.run(["bash", "-e", "-c", script], check=True)
    by_hand = gcloud()
    launch(config)
    assert gcloud()[len(by_hand):] == by_hand


def test_a_wheel_is_copied_and_installed(config, gcloud, tmp_path):
    wheel = tmp_path / "tfod_zoo-1.0-py3-none-any.whl"
    wheel.touch()
    assert launch(config, "--package", str(wheel), "--existing") == 0
    calls = gcloud()[len(CHECKS):]
    assert calls[1] == tpu_vm("scp", str(wheel), f"cells-1:{wheel.name}", "--zone=europe-west4-a")
    assert f"pip install --quiet './{wheel.name}[train]'" in calls[2][5]
    assert not any("create" in call for call in calls)


def test_a_missing_record_stops_before_anything_is_created(config, gcloud, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_GCLOUD_FAILS", "storage")
    assert launch(config) == 1
    assert gcloud() == CHECKS[:1]
    assert "gs://bucket cannot be listed" in capsys.readouterr().err


def test_a_failed_step_says_that_the_tpu_is_still_there(config, gcloud, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_GCLOUD_FAILS", "ssh")
    assert launch(config) == 1
    error = capsys.readouterr().err
    assert "ended with code 1" in error and "tpu-vm delete cells-1" in error
    assert sum("ssh" in call for call in gcloud()) == 1


def test_a_create_that_failed_leaves_nothing_to_delete(config, gcloud, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_GCLOUD_FAILS", "create")
    assert launch(config) == 1
    assert "delete" not in capsys.readouterr().err


def test_without_gcloud(config, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch(config) == 1
    assert "install the Google Cloud CLI" in capsys.readouterr().err


def rewrite(config, change):
    from tfod_zoo.config.pipeline import read_pipeline

    pipeline = read_pipeline(config)
    change(pipeline)
    write_pipeline(pipeline, config)


def local_records(pipeline):
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = ["/data/train-*"]


def test_local_paths_are_the_vms_own_on_one_host(config, gcloud, capsys):
    rewrite(config, local_records)
    assert launch(config, "--dry-run", model_dir="runs/cells") == 0
    assert "must be on the TPU VM, under the same paths: /data/train-*" in capsys.readouterr().out


def placeholder(pipeline):
    pipeline.train_config.fine_tune_checkpoint = "PATH_TO_BE_CONFIGURED"


def local_checkpoint(pipeline):
    pipeline.train_config.fine_tune_checkpoint = "checkpoints/ckpt-1"


def tfds_without_folder(pipeline):
    pipeline.train_input_reader.tf_record_input_reader.input_path[:] = ["tfds:coco/2017:train"]


def odd_batch(pipeline):
    pipeline.train_config.batch_size = 12


@pytest.mark.parametrize(
    "change, topology, part",
    [
        (local_records, "v3-32", "tf_record_input_reader.input_path[0] is /data/train-*, which the 4"),
        (local_checkpoint, "v3-32", "train_config.fine_tune_checkpoint is checkpoints/ckpt-1"),
        (tfds_without_folder, "v3-32", "tfds:NAME:SPLIT@gs://BUCKET/FOLDER"),
        (placeholder, "v3-8", "fill it in first"),
        (odd_batch, "v3-8", "which 8 cores cannot share"),
    ],
)
def test_what_cannot_work_is_refused_in_one_sentence(change, topology, part, config, gcloud, capsys):
    rewrite(config, change)
    assert launch(config, topology=topology) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
    assert gcloud() == []


def test_a_local_model_dir_is_refused_on_a_slice(config, gcloud, capsys):
    assert launch(config, topology="v3-32", model_dir="runs/cells") == 2
    assert "--model-dir is runs/cells" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flags, part",
    [
        ({"name": "Cells_1"}, "cannot be a TPU's name"),
        ({"name": "1cells"}, "cannot be a TPU's name"),
        ({"topology": "v9-8"}, "invalid choice"),
    ],
)
def test_names_that_google_cloud_would_refuse(flags, part, config, gcloud, capsys):
    assert launch(config, **flags) == 2
    assert part in capsys.readouterr().err


@pytest.mark.parametrize("package, part", [("dist/missing.whl", "is not there"), (".", "make a wheel of it")])
def test_a_package_that_cannot_be_copied(package, part, config, gcloud, capsys):
    assert launch(config, "--package", package) == 2
    assert part in capsys.readouterr().err and gcloud() == []


def test_launch_does_not_import_tensorflow(config):
    code = (
        "import sys; from tfod_zoo.cli.main import main; "
        f"main(['tpu', 'launch', 'a', '--zone', 'europe-west4-a', '--topology', 'v3-8', '--pipeline', {str(config)!r}, "
        "'--model-dir', 'gs://b/c', '--dry-run']); assert 'tensorflow' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], stdout=subprocess.DEVNULL)
