"""Hypothesis profiles: 100 cases for each property by default, 500 under HYPOTHESIS_PROFILE=thorough.

Cases are derandomized: a run depends on the code alone, never on the clock or on an earlier run.
"""

import hashlib
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests.helpers.hub_server import Hub, serving

COMMON = {
    # The first call of a kernel starts its threads, and shared machines stall: no test here is about time.
    "deadline": None,
    "derandomize": True,
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("quick", max_examples=100, **COMMON)
settings.register_profile("thorough", max_examples=500, **COMMON)
# Sanitized code runs many times slower, and needs each path once rather than each value.
settings.register_profile("sanitize", max_examples=15, **COMMON)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


# What is computed or fetched before any test begins must not lie in the user's folders, either.
CACHES = tempfile.TemporaryDirectory()
os.environ["EMBGEOM_CACHE"] = CACHES.name


@pytest.fixture(autouse=True)
def own_cache(request, monkeypatch):
    """Each test has a cache of its own, which is empty: no test uses what another one computed."""
    folder = Path(CACHES.name) / hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:32]
    monkeypatch.setenv("EMBGEOM_CACHE", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    for proxy in PROXIES:
        monkeypatch.delenv(proxy, raising=False)
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with serving(Hub(tmp_path / "hub")) as state:
        monkeypatch.setenv("HF_ENDPOINT", state.url)
        yield state


@pytest.fixture
def storage(hub):
    """The server that the Hub sends to for large files."""
    with serving(Hub(hub.root)) as state:
        hub.storage = state
        yield state


@pytest.fixture
def impatient(monkeypatch):
    """Record the waits instead of waiting."""
    waits = []
    monkeypatch.setattr("time.sleep", waits.append)
    return waits
