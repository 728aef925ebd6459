"""`tfod-zoo tpu check`: the real compiler where it is installed, and what is said where it is not."""

import importlib.util
import json
import os
import stat
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfod_zoo.cli.main import main
from tfod_zoo.config.generate import generate_pipeline
from tfod_zoo.config.pipeline import apply_override, write_pipeline
from tfod_zoo.errors import UsageError
from tfod_zoo.tpu import compile_worker
from tfod_zoo.tpu.check import largest_batch
from tfod_zoo.tpu.compiler import Compilation, TpuCompiler
from tfod_zoo.tpu.lowering import Program
from tfod_zoo.tpu.topology import get_topology

# An interpreter with jax[tpu], where this one has none.
PYTHON = os.environ.get("TFOD_ZOO_TEST_TPU_PYTHON", sys.executable)
needs_compiler = pytest.mark.skipif(
    sys.executable == PYTHON and not (importlib.util.find_spec("jax") and importlib.util.find_spec("libtpu")),
    reason="the TPU compiler is not installed: pip install 'tfod-zoo[tpu-check]'",
)
V3_8 = get_topology("v3-8")
GIB = 2**30


@pytest.fixture
def config(tmp_path):
    """An hourglass-10 on 64x64 pixels, with CenterNet's heads and losses."""
    pipeline = generate_pipeline("centernet_hg104_512x512_coco17_tpu-8")
    for override in (
        'model.center_net.feature_extractor.type="hourglass_10"',
        "model.center_net.num_classes=3",
        "model.center_net.image_resizer.keep_aspect_ratio_resizer.min_dimension=64",
        "model.center_net.image_resizer.keep_aspect_ratio_resizer.max_dimension=64",
        "train_input_reader.max_number_of_boxes=5",
        "train_config.batch_size=8",
    ):
        apply_override(pipeline, override)
    path = tmp_path / "small.config"
    write_pipeline(pipeline, path)
    return path


@needs_compiler
def test_a_small_model_compiles_for_eight_cores(config, capsys):
    arguments = ["--pipeline", str(config), "--topology", "v3-8", "--no-largest-batch", "--json", "--python", PYTHON]
    assert main(["tpu", "check", *arguments]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["passes"] and report["topology"]["cores"] == 8
    step, detect = report["train_step"], report["detect"]
    assert step["status"] == detect["status"] == "ok"
    assert step["batch_per_core"] == 1
    # 2.9 million weights and Adam's two moments of them, activations, code; nothing near the chip's 16 GiB.
    assert 35 * 2**20 < step["memory_bytes"] < GIB
    assert step["flop"] > 1e7 and detect["flop"] > 1e7
    assert {"jax", "libtpu", "tensorflow"} <= set(report["versions"])


@needs_compiler
def test_the_compiler_says_what_does_not_fit_and_what_it_cannot_read():
    product = """module { func.func @main(%a: tensor<65536x65536xf32>) -> tensor<65536x65536xf32> {
        %0 = stablehlo.add %a, %a : tensor<65536x65536xf32>
        return %0 : tensor<65536x65536xf32> } }"""
    compiler = TpuCompiler(PYTHON)
    large = compiler.compile(Program("large", product, 1, 1), V3_8)
    assert large.status == "too large"
    assert large.memory_bytes == pytest.approx(32 * GIB, rel=0.05)
    assert 15 * GIB < large.limit_bytes < 16 * GIB
    unreadable = compiler.compile(Program("unreadable", "module { nonsense }", 1, 1), V3_8)
    assert unreadable.status == "failed" and "nonsense" in unreadable.reason


@pytest.mark.parametrize(
    "message, answer",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 24.53G of 15.48G hbm. Exceeded by 9.05G.",
            {"status": "too large", "memory_bytes": round(24.53 * GIB), "limit_bytes": round(15.48 * GIB)},
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (512.00M) "
            "exceeds available HBM (0.25G).",
            {"status": "too large", "memory_bytes": GIB // 2, "limit_bytes": GIB // 4},
        ),
        ("RESOURCE_EXHAUSTED: vmem", {"status": "too large", "reason": "RESOURCE_EXHAUSTED: vmem"}),
        ("UNIMPLEMENTED: no\n  such thing", {"status": "failed", "reason": "UNIMPLEMENTED: no such thing"}),
    ],
)
def test_the_compilers_words(message, answer):
    assert compile_worker._failure(message) == answer


def fake_python(folder, script):
    """An interpreter that does `script` where a compilation is asked of it."""
    path = folder / "python"
    path.write_text(
        "#!/bin/sh\n"
        'if [ "$2" = --versions ]; then echo \'{"jax": "1", "libtpu": "2"}\'; exit 0; fi\n' + script
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(
    "script, part",
    [("kill -9 $$\n", "ended by signal 9; this machine may have too little memory"), ("echo oh >&2; exit 3\n", "oh")],
)
def test_a_compiler_that_dies_is_a_failed_compilation(tmp_path, script, part):
    compiler = TpuCompiler(fake_python(tmp_path, script))
    compiled = compiler.compile(Program("any", "module {}", 1, 4), V3_8)
    assert (compiled.status, compiled.batch_per_core) == ("failed", 4)
    assert part in compiled.reason


def test_seconds_pass_while_it_compiles(tmp_path):
    seconds = []
    compiler = TpuCompiler(fake_python(tmp_path, 'sleep 3; echo \'{"status": "failed", "reason": "x"}\'\n'))
    compiler.compile(Program("any", "module {}", 1, 4), V3_8, seconds.append)
    assert seconds[:2] == [1, 2]


def test_an_interpreter_without_the_compiler_is_told_what_to_install(tmp_path):
    path = tmp_path / "python"
    path.write_text("#!/bin/sh\necho '{\"jax\": \"1\"}'\n")
    path.chmod(0o755)
    with pytest.raises(UsageError, match=r"has no libtpu, .*pip install 'tfod-zoo\[tpu-check\]'"):
        TpuCompiler(str(path))


@pytest.mark.parametrize("path, part", [("/no/such/python", "cannot be run"), ("/bin/false", "not a Python")])
def test_no_interpreter_at_all(path, part):
    with pytest.raises(UsageError, match=part):
        TpuCompiler(path)


@given(
    first=st.integers(1, 256),
    weights=st.integers(1, 20 * GIB),
    image=st.integers(1, 40 * GIB),
)
def test_the_largest_batch_is_the_largest_that_fits(first, weights, image):
    limit = V3_8.memory_per_core

    def compile_batch(batch):
        needs = weights + batch * image
        if needs <= limit:
            return Compilation("ok", batch, memory_bytes=needs)
        return Compilation("too large", batch, memory_bytes=needs, limit_bytes=limit)

    largest, tried = largest_batch(compile_batch(first), compile_batch, V3_8)
    sizes = [each.batch_per_core for each in tried]
    assert len(sizes) == len(set(sizes)) and sizes[0] == first
    if largest:
        assert compile_batch(largest).status == "ok" and largest & (largest - 1) == 0
        assert 2 * largest in sizes
    assert compile_batch(2 * largest or 1).status == "too large"


def test_a_failure_on_the_way_gives_no_largest_batch():
    first = Compilation("ok", 4, memory_bytes=GIB)
    largest, tried = largest_batch(first, lambda batch: Compilation("failed", batch, reason="no"), V3_8)
    assert largest is None and tried[-1].reason == "no"


@pytest.mark.parametrize(
    "arguments, part",
    [
        ([], "give either the NAME"),
        (["centernet_mobilenetv2fpn_512x512_coco17_od", "--pipeline", "x.config"], "give either the NAME"),
        (["centernet_mobilenetv2fpn_512x512_coco17"], "The zoo has no model"),
        (["centernet_mobilenetv2fpn_512x512_coco17_od", "--batch-per-core", "0"], "give 1 or more"),
        (["centernet_mobilenetv2fpn_512x512_coco17_od", "--python", "/no/such"], "cannot be run"),
    ],
)
def test_wrong_use_is_one_sentence(arguments, part, capsys):
    assert main(["tpu", "check", "--topology", "v3-8", *arguments]) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1
