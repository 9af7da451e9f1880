"""Reading from the Hub by byte ranges on a bad day: what breaks, refuses, lies, changes or makes us wait."""

import hashlib
import json
import sys
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path

import numpy as np
import pytest

from embgeom.errors import LoadError
from embgeom.loading import load
from tests.helpers.hub_server import (
    BIG,
    CARELESS,
    OTHER_COMMIT,
    Hub,
    X,
    big,
    breaking,
    kept,
    lying,
    refusing,
    serving,
    small,
)
from tests.helpers.loading import matrix, tokenizer, words, write_folder
from tests.helpers.printed import Terminal

pytest.importorskip("huggingface_hub")


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache"


@pytest.mark.parametrize("reset", [False, True])
def test_what_breaks_goes_on_where_it_stopped(hub, cache, impatient, reset):
    big(hub)
    hub.faults = [breaking(40, reset=reset), None, breaking(3_000_000, reset=reset), breaking(10), None]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    ranges = [r.range for r in hub.asked("GET", "model.safetensors")]
    assert [end for _, end in ranges[2:]] == [ranges[-1][1]] * 3
    begins = [begin for begin, _ in ranges[2:]]
    assert begins == sorted(begins) and begins[0] < begins[1] < begins[2]
    if not reset:  # a reset takes with it what the system held but had not handed over
        assert hub.fetched("model.safetensors") <= BIG.nbytes + (1 << 16) + 40


def test_a_connection_that_always_breaks_is_given_up_and_nothing_is_lost(hub, cache, impatient):
    big(hub)
    hub.faults = [None, breaking(5_000_000), *[breaking(0)] * 20]
    with pytest.raises(LoadError, match=r"model\.safetensors.*the connection to the Hub failed.*load again"):
        load("owner/big", cache_dir=cache)
    assert len(impatient) == 4
    assert kept(cache, ".partial")[0].stat().st_size > 4_000_000
    hub.faults.clear()
    sent = hub.fetched("model.safetensors")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert hub.fetched("model.safetensors") - sent < BIG.nbytes - 4_000_000
    assert not kept(cache, ".partial")


def test_a_server_that_is_out_of_order_for_a_moment(hub, cache, impatient):
    small(hub)
    hub.faults = [refusing(503), refusing(500), None, refusing(502), None]
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, X)
    assert impatient == [0.5, 1.0, 0.5]


def test_too_many_requests_waits_as_long_as_it_is_told(hub, cache, impatient):
    small(hub)
    soon = format_datetime(datetime.now(timezone.utc) + timedelta(seconds=30), usegmt=True)
    hub.faults = [
        refusing(429, Retry_After="7"),
        None,
        refusing(429, Retry_After=soon),
        refusing(429, RateLimit='"resolvers";r=0;t=11'),
        None,
    ]
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, X)
    assert impatient[0] == 7 and 25 < impatient[1] <= 30 and impatient[2] == 11


@pytest.mark.parametrize("first", [True, False])
def test_too_many_requests_for_long_says_when_to_come_back(hub, cache, impatient, first):
    small(hub)
    when = datetime.now().astimezone() + timedelta(seconds=3600)
    if first:
        hub.failures["owner/m"], hub.headers = (429, ""), {"Retry-After": "3600"}
    else:
        hub.faults = [None, refusing(429, Retry_After="3600")]
    with pytest.raises(LoadError, match=rf"load again after {when:%Y-%m-%d %H:}.*Retry-After 3600 s"):
        load("owner/m", cache_dir=cache)
    assert impatient == []


def test_waits_have_an_end_in_all(hub, cache, impatient):
    small(hub)
    hub.faults = [None, *[refusing(429, Retry_After="50")] * 9]
    with pytest.raises(LoadError, match="is refusing requests for now; load again after"):
        load("owner/m", cache_dir=cache)
    assert impatient == [50, 50]


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (401, "GatedRepo", "gated; accept its terms"),
        (403, "GatedRepo", "gated; accept its terms"),
        (401, "RepoNotFound", "no such model; if the model is private, pass token="),
        (401, "", "access is refused; pass a token="),
        (403, "", "access is refused; pass a token="),
        (404, "RevisionNotFound", "no such revision"),
        (404, "", "the Hub refuses the request"),
        (410, "", "the Hub refuses the request"),
    ],
)
@pytest.mark.parametrize("moment", ["contact", "header", "tensor"])
def test_refusals_are_one_clear_error(hub, cache, impatient, status, code, message, moment):
    small(hub)
    headers = {"X_Error_Code": code} if code else {}
    if moment == "contact":
        hub.failures["owner/m"] = (status, code)
    else:
        hub.faults = [*([None] if moment == "tensor" else []), refusing(status, **headers)]
    with pytest.raises(LoadError, match=rf"owner/m is not a path on this machine.*{message}") as caught:
        load("owner/m", cache_dir=cache)
    assert impatient == [] and "\n" not in str(caught.value)


def test_a_token_that_is_asked_for_and_not_there(hub, cache, monkeypatch):
    small(hub)
    monkeypatch.setattr("huggingface_hub.utils._headers.get_token", lambda: None)
    with pytest.raises(LoadError, match="token=True takes the token of `hf auth login`, and there is none"):
        load("owner/m", cache_dir=cache, token=True)


@pytest.mark.parametrize("of_storage", [False, True])
def test_a_server_without_ranges_gives_the_file(hub, cache, of_storage):
    folder = big(hub)
    hub.ranges = False
    if of_storage:
        with serving(Hub(hub.root, ranges=False)) as storage:
            hub.storage = storage
            loaded = load("owner/big", cache_dir=cache)
            assert storage.fetched("model.safetensors") == (folder / "model.safetensors").stat().st_size
    else:
        loaded = load("owner/big", cache_dir=cache)
        assert hub.fetched("model.safetensors") == (folder / "model.safetensors").stat().st_size
    np.testing.assert_array_equal(loaded.matrix, BIG)
    origin = loaded.provenance
    assert origin.bytes_fetched == origin.bytes_stored == (folder / "model.safetensors").stat().st_size
    assert origin.sha256 == hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    before = len(hub.requests)
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert [(r.method, r.filename) for r in hub.requests[before:]] == [("HEAD", "config.json")]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache, local_files_only=True).matrix, BIG)


def test_a_whole_file_that_breaks_is_begun_anew(hub, cache, impatient):
    big(hub)
    hub.ranges = False
    whole = Hub(Path(), ranges=False)
    hub.faults = [lambda handler, path, request: whole.send(handler, path, request, stop=1_000_000), None]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    assert impatient == [0.5]


@pytest.mark.parametrize(
    "headers",
    [
        {"Content_Range": "bytes 0-99/100"},
        {"Content_Range": "bytes 5-1/3"},
        {"Content_Range": "bytes */9"},
        {"Content_Range": "bites 1-2/3"},
        {"Content_Range": "bytes 1-2/*"},
        {"Content_Range": None, "Content_Type": "multipart/byteranges; boundary=x"},
        {"Content_Length": "12"},
    ],
)
@pytest.mark.parametrize("moment", ["header", "tensor"])
def test_ranges_that_lie_are_not_relied_on(hub, cache, headers, moment):
    big(hub)
    fault = lying(**headers)
    hub.faults = [*([None] if moment == "tensor" else []), fault, None]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache, local_files_only=True).matrix, BIG)


def test_a_range_that_is_shorter_than_asked_for_goes_on(hub, cache):
    big(hub)

    def shorter(handler, path, request):
        begin, _ = request.range
        request.headers["range"] = f"bytes={begin}-{begin + 999_999}"
        CARELESS.send(handler, path, request)

    hub.faults = [None, shorter, shorter]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)


def test_what_lies_beyond_the_end_is_told(hub, cache):
    """A header that tells of more bytes than there are, and a server that says so."""
    folder = big(hub)
    hub.faults = [None, refusing(416, Content_Range="bytes */100")]
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:-5])
    with pytest.raises(LoadError, match=r"model\.safetensors: the header's entry for z has its end at byte"):
        load("owner/big", cache_dir=cache / "other")
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(LoadError, match=r"0 bytes\) is not a complete safetensors file"):
        load("owner/big", cache_dir=cache / "empty")


def test_a_file_that_changes_meanwhile_is_refused_and_then_fetched_anew(hub, cache):
    folder = big(hub)
    hub.faults = [None, lying(ETag='"other"')]
    with pytest.raises(LoadError, match=r"model\.safetensors changed on the Hub while it was fetched; load"):
        load("owner/big", cache_dir=cache)
    hub.faults = [None, lying(X_Repo_Commit=OTHER_COMMIT)]
    with pytest.raises(LoadError, match="changed on the Hub"):
        load("owner/big", cache_dir=cache)
    other = write_folder(hub.root / "other", {"wte.weight": -BIG}) / "model.safetensors"
    other.replace(folder / "model.safetensors")
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, -BIG)


def test_what_an_earlier_content_left_is_not_continued(hub, cache, impatient):
    folder = big(hub)
    hub.etags["model.safetensors"] = "no-hash-at-all"
    hub.faults = [None, breaking(5_000_000), *[breaking(0)] * 9]
    with pytest.raises(LoadError):
        load("owner/big", cache_dir=cache)
    other = {"a": matrix(1000, 500, 5) + 1, "wte.weight": -BIG, "zz": matrix(1000, 500, 5)}
    write_folder(folder, other, {"vocab_size": 4000, "hidden_size": 600}, tokens=tokenizer(words(4000)))
    hub.faults.clear()
    hub.commit = OTHER_COMMIT
    hub.etags["model.safetensors"] = "another"
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, -BIG)


def test_bytes_that_are_packed_are_refused(hub, cache):
    small(hub)
    hub.faults = [lying(Content_Encoding="gzip")]
    with pytest.raises(LoadError, match="compresses what must not be compressed"):
        load("owner/m", cache_dir=cache)


def test_a_header_that_is_broken_is_fetched_anew_the_next_time(hub, cache):
    folder = small(hub)
    right = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(right.replace(b'"F32"', b'"F16"'))
    with pytest.raises(LoadError, match=r"safetensors.*480 bytes, but F16 of shape \[30, 4\] takes 240"):
        load("owner/m", cache_dir=cache)
    (folder / "model.safetensors").write_bytes(right)
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, X)


def test_a_damaged_cache_is_mended(hub, cache):
    big(hub)
    load("owner/big", cache_dir=cache)
    (tensor,), (head,) = kept(cache, "wte.weight.safetensors"), kept(cache, ".head")
    tensor.write_bytes(tensor.read_bytes()[:-1])
    np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)
    wrong = b'{"commit": 1, "etag": [2], "size": "x"}\n'
    for damage in (b"", b"{", b'{"a": 1}\nx', wrong, head.read_bytes()[:200]):
        head.write_bytes(damage)
        np.testing.assert_array_equal(load("owner/big", cache_dir=cache).matrix, BIG)


def test_a_long_header(hub, cache):
    tensors = {f"layer.{i}.{'x' * 40}": X[:1] for i in range(1500)}
    small(hub, **{"wte.weight": X}, **tensors)
    np.testing.assert_array_equal(load("owner/m", cache_dir=cache).matrix, X)
    ranges = [r.range for r in hub.asked("GET", "model.safetensors")]
    assert ranges[0][0] == 0 and ranges[1][0] == 1 << 16 and len(ranges) == 3
    load("owner/m", cache_dir=cache, local_files_only=True)


@pytest.mark.parametrize("name", ["../../../x", "/etc/x", "x" * 300, "ü" * 100, "a b\tc", "\ud800x", "."])
def test_any_name_of_a_tensor_is_kept_inside_the_cache(hub, cache, name):
    small(hub, **{name: X})
    for _ in range(2):
        file = load("owner/m", tensor=name, cache_dir=cache).provenance.file
        assert file.parent.parent == cache / "embgeom" / "owner--m" / "model.safetensors"


def test_a_cache_that_takes_nothing(hub, cache, monkeypatch):
    small(hub)
    load("owner/m", cache_dir=cache)
    for path in kept(cache, ""):
        if path.is_file():
            path.unlink()
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10, 10, 0))
    with pytest.raises(LoadError, match=r"has room for 0\.0 GB.*make room, or name another folder"):
        load("owner/m", cache_dir=cache)
    shutil.rmtree(cache / "embgeom")
    (cache / "embgeom").write_text("no folder")
    with pytest.raises(LoadError, match=r"cannot be written: .*; make room"):
        load("owner/m", cache_dir=cache)


def test_progress_is_shown_where_asked_for(hub, cache, monkeypatch):
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    big(hub)
    load("owner/big", cache_dir=cache, progress=True)
    assert "fetching wte.weight" in (shown := terminal.getvalue())
    load("owner/big", tensor="a", vocabulary=words(1000), cache_dir=cache)
    assert terminal.getvalue() == shown


@pytest.mark.slow
def test_no_row_of_bad_days_gives_a_wrong_number(hub, cache, impatient):
    """Whatever comes in which order: the right matrix or an error, and the right matrix in the end."""
    tensors = {"wte.weight": matrix(3000, 50, 1), "z": X}
    small(hub, **tensors)
    (hub.root / "owner/m/tokenizer.json").write_text(json.dumps(tokenizer(words(3000))))
    draw = np.random.default_rng(0)
    kinds = [
        lambda: None,
        lambda: breaking(int(draw.integers(0, 700_000))),
        lambda: breaking(int(draw.integers(0, 700_000)), reset=True),
        lambda: refusing(int(draw.choice([403, 404, 416, 429, 500, 503]))),
        lambda: lying(Content_Range=f"bytes {draw.integers(0, 99)}-{draw.integers(99, 700_000)}/{600_300}"),
        lambda: lying(ETag='"other"'),
        lambda: lying(Content_Length=str(draw.integers(0, 900_000))),
    ]
    errors = 0
    for turn in range(20):
        where = cache / str(turn)
        hub.faults = [kinds[draw.integers(len(kinds))]() for _ in range(5)]
        for _ in range(8):
            try:
                got = load("owner/m", cache_dir=where).matrix
            except LoadError:
                errors += 1
                continue
            np.testing.assert_array_equal(got, tensors["wte.weight"])
            break
        else:
            pytest.fail(f"turn {turn}: no load of eight gave the matrix")
    assert errors > 5
