"""`help()` of every public name is enough to use it: it has an example, which runs."""

import doctest

import numpy as np
import pytest

import tfod_zoo

PUBLIC = [name for name in tfod_zoo.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", PUBLIC)
def test_its_example_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = getattr(tfod_zoo, name).__doc__
    test = doctest.DocTestParser().get_doctest(text, {"tfod_zoo": tfod_zoo, "np": np}, name, None, 0)
    assert test.examples
    said: list[str] = []
    failed, _ = doctest.DocTestRunner(optionflags=doctest.IGNORE_EXCEPTION_DETAIL).run(test, out=said.append)
    assert not failed, "".join(said)
