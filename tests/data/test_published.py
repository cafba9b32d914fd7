import hashlib
import re

import pytest

from memr1_jax.data.locomo import LOCOMO, find_locomo
from memr1_jax.data.published import Edition, PublishedFile, find, identify
from memr1_jax.errors import UserError
from memr1_jax.run import download


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSES", ())
    monkeypatch.setenv("MEMR1_CACHE", str(tmp_path / "cache" / "deep"))
    return tmp_path / "cache" / "deep"


@pytest.fixture
def published(tmp_path, cache):
    """Returns a local file that stands for a published one, and its description."""
    path = tmp_path / "somewhere" / "boats.json"
    path.parent.mkdir()
    path.write_text("[1, 2]")
    digest = hashlib.sha256(b"[1, 2]").hexdigest()
    file = PublishedFile(
        title="Boats",
        name="boats.json",
        editions={digest: Edition("official", {"questions": 2}), "0" * 64: Edition("other")},
        home="a harbour",
        licence="CC0",
        url=path.as_uri(),
    )
    return path, file


def test_a_path_that_leads_nowhere_says_what_to_get(tmp_path):
    with pytest.raises(UserError) as error:
        find_locomo(tmp_path / "absent.json")
    message = str(error.value)
    for part in ("absent.json", "locomo10.json", "79fa87e9", "snap-research/LoCoMo", "--data_path"):
        assert part in message
    assert "CC BY-NC 4.0" in message


def test_a_known_file_is_named_with_its_counts(published, recwarn):
    path, file = published
    found = find(file, path.parent, strict=True)
    assert (found.path, found.edition, dict(found.counts)) == (path, "official", {"questions": 2})
    assert found.sha256 == file.sha256 and not recwarn


def test_unknown_content_warns_or_with_strict_fails(write):
    text = '[{"sample_id": "conv-26"}]'
    path = write(text, LOCOMO.name)
    digest = identify(LOCOMO, path).sha256
    assert digest == hashlib.sha256(text.encode()).hexdigest()
    with pytest.warns(UserWarning, match=f"{digest}.*{LOCOMO.sha256}"):
        found = find(LOCOMO, path.parent)
    assert (found.path, found.edition, found.counts) == (path, "unknown", {})
    with pytest.raises(UserError, match=digest):
        find(LOCOMO, path, strict=True)


def test_a_file_that_is_only_in_the_format_is_no_edition(write, recwarn):
    path = write('[{"sample_id": "train-7-0"}]', "mine.json")
    assert find(LOCOMO, path).edition == "unknown" and not recwarn
    with pytest.raises(UserError, match="not a known edition"):
        find(LOCOMO, path, strict=True)


def test_the_file_is_fetched_once_into_the_cache(published, cache):
    path, file = published
    found = find(file)
    assert found.path == cache / "boats.json" and found.path.read_bytes() == path.read_bytes()
    path.unlink()
    assert find(file) == found


def test_a_wrong_download_leaves_nothing_behind(published, cache):
    path, file = published
    path.write_text("[]")
    with pytest.raises(UserError, match="delivered a file with sha256"):
        find(file)
    assert list(cache.iterdir()) == []


def test_without_the_network_the_error_says_what_to_get_and_where_it_belongs(published, cache):
    path, file = published
    path.unlink()
    with pytest.raises(UserError, match="could not be stored.*--data_path") as error:
        find(file)
    for part in (file.sha256, "a harbour", "CC0", path.as_uri(), str(cache)):
        assert part in str(error.value)


def test_a_file_without_an_address_is_never_fetched(published, cache):
    file = PublishedFile("Ships", "ships.json", {"1" * 64: Edition("x")}, "a dock", "MIT")
    with pytest.raises(UserError, match=re.escape(f"Ships is not in {cache}. Get ships.json")):
        find(file)
