"""A zoo of one server for the store's tests: real archives of small size, and no network beyond this machine."""

import pytest
from fault_server import FaultServer, Reply
from zoo_archives import NAME, make_archive, model_files

from tfod_zoo.zoo import registry, transfer

PATH = f"/20210210/{NAME}.tar.gz"


@pytest.fixture(scope="session")
def files():
    """Path in the model's folder -> content, of a model that is right in every respect."""
    return model_files()


@pytest.fixture(scope="session")
def archive(files):
    return make_archive(files)


@pytest.fixture
def host():
    server = FaultServer()
    yield server
    server.close()


@pytest.fixture
def zoo(host, monkeypatch):
    """The host in place of the zoo's; `serve(body or Reply, ...)` plans the replies for NAME's archive."""
    monkeypatch.setattr(registry, "ARCHIVE_BASES", (f"{host.url}/",))
    monkeypatch.setattr(transfer, "_BACKOFF_SECONDS", 0.01)
    for variable in ("TFOD_ZOO_MIRROR", "TFOD_ZOO_OFFLINE", "TFOD_ZOO_STORE"):
        monkeypatch.delenv(variable, raising=False)

    def serve(*replies):
        host.plan[PATH] = [reply if isinstance(reply, Reply) else Reply(reply) for reply in replies]

    host.serve, host.path = serve, PATH
    return host
