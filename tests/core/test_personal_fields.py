"""Fields and ids that are marked as personal: what the decoder makes of them, and what the project file may say."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SettingsError
from core.features import Vocabulary
from core.pii_key import load_pseudonyms
from core.project import load_project
from core.project_file import parse_settings
from core.pseudonyms import Pseudonyms
from core.records import BadRecord, Decoder, Event, Label

KEY = Pseudonyms(b"0123456789abcdef")
PLAIN = "{name: a, id: id, time: at, fields: {x: number, %s}, label: {path: y, positive: 1, negative: 0}%s}"
FIELDS = (
    "mail: {type: category, path: who.mail, pii: hash}, said: {type: text, pii: hash}, note: {type: text, pii: drop}"
)


def settings_of(fields: str = FIELDS, more: str = ""):
    return parse_settings(PLAIN % (fields, more))


def event(**more: object) -> bytes:
    return json.dumps(
        {"id": "e1", "at": 5, "x": 1.5, "who": {"mail": "ada"}, "said": "hi", "note": "n", **more}
    ).encode()


def test_hashed_fields_hold_their_hash_and_dropped_ones_are_not_there():
    settings = settings_of()
    found = Decoder(settings, KEY).event(event(), 5)
    assert isinstance(found, Event)
    assert found.fields == {"x": 1.5, "mail": KEY.of_field("mail", "ada"), "said": KEY.of_field("said", "hi")}
    assert found.unknown is False
    assert list(settings.feature_kinds) == ["x", "mail", "said"]
    assert Vocabulary.of(settings).bound(dict(found.fields)) == found.fields


@given(
    st.one_of(
        st.none(), st.booleans(), st.floats(), st.text(), st.lists(st.text()), st.dictionaries(st.text(), st.text())
    )
)
def test_whatever_is_in_a_dropped_field_changes_nothing(value):
    decoder = Decoder(settings_of(), KEY)
    try:
        written = event(note=value)
        json.dumps(value, allow_nan=False).encode()
    except ValueError:
        return
    assert decoder.event(written, 5) == decoder.event(event(note=None), 5)


def test_null_stays_null_and_a_number_is_hashed_as_its_text():
    decoder = Decoder(settings_of(), KEY)
    assert decoder.event(event(who=None), 5).fields["mail"] is None
    assert decoder.event(event(who={"mail": 7}), 5).fields["mail"] == KEY.of_field("mail", "7")


@pytest.mark.parametrize("value", [["ada"], {"ada": "ada"}, 1.25, "ada" * 100, True])
def test_what_is_wrong_with_a_personal_value_is_said_without_it(value):
    found = Decoder(settings_of(), KEY).event(event(said=value, who={"mail": value}), 5)
    assert isinstance(found, BadRecord)
    assert "ada" not in found.detail
    assert "1.25" not in found.detail


def test_event_and_label_have_the_same_hashed_id():
    decoder = Decoder(settings_of(more=", privacy: {id: hash}"), KEY)
    found, known = decoder.event(event(id=7), 5), decoder.label(b'{"id": "7", "y": 1}', 5)
    assert isinstance(found, Event)
    assert isinstance(known, Label)
    assert found.id == known.id == KEY.of_id("7")


def test_hashes_depend_on_key_and_purpose_only():
    assert Pseudonyms(KEY.secret).of_field("mail", "ada") == KEY.of_field("mail", "ada")
    others = [Pseudonyms(b"another key of it").of_field("mail", "ada"), KEY.of_field("said", "ada"), KEY.of_id("ada")]
    assert len({KEY.of_field("mail", "ada"), *others}) == 4
    assert KEY.secret.decode() not in repr(KEY)


@pytest.mark.parametrize(
    ("fields", "more", "said"),
    [
        ("n: {type: number, pii: hash}", "", "fields.n: pii: hash makes text of a number"),
        ("n: {type: number, pii: drop}, m: {type: number, path: n}", "", "path 'n' is personal in one place"),
        ("n: {type: category, path: id}", ", privacy: {id: hash}", "path 'id' is personal in one place"),
        ("n: {type: text, pii: shred}", "", "fields.n.pii"),
        ("n: text", ", privacy: {retention: 13d}", "retention is less than twice label.horizon"),
        ("n: text", ", privacy: {retention: 12h}", "privacy.retention: must be at least 1d"),
    ],
)
def test_marks_that_cannot_be_kept_are_refused(fields, more, said):
    with pytest.raises(SettingsError, match=said):
        settings_of(fields, more)


def make(folder, monkeypatch, more: str = "", key: str | None = None):
    monkeypatch.delenv("HEADRACE_PII_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("HEADRACE_PII_KEY", key)
    (folder / "headrace.yaml").write_text(PLAIN % (FIELDS, more))
    return load_project(folder)


def test_the_key_comes_from_the_environment_or_a_file(tmp_path, monkeypatch):
    (tmp_path / "pii.key").write_text("0123456789abcdef\n")
    from_file = load_pseudonyms(make(tmp_path, monkeypatch, ", privacy: {key_file: pii.key}"))
    assert from_file == KEY
    assert load_pseudonyms(make(tmp_path, monkeypatch, key="0123456789abcdef")) == KEY


@pytest.mark.parametrize(
    ("more", "key", "said"),
    [
        ("", None, "give it in HEADRACE_PII_KEY, or name its file in privacy.key_file"),
        ("", "short", "HEADRACE_PII_KEY: the key of pii: hash has 5 bytes, at least 16"),
        (", privacy: {key_file: gone}", None, "gone: privacy.key_file cannot be read"),
    ],
)
def test_without_a_key_an_error_says_what_to_do(tmp_path, monkeypatch, more, key, said):
    with pytest.raises(SettingsError, match=said):
        load_pseudonyms(make(tmp_path, monkeypatch, more, key))


def test_no_key_is_needed_where_nothing_is_hashed(tmp_path, monkeypatch):
    monkeypatch.delenv("HEADRACE_PII_KEY", raising=False)
    (tmp_path / "headrace.yaml").write_text(PLAIN % ("note: {type: text, pii: drop}", ""))
    project = load_project(tmp_path)
    assert load_pseudonyms(project) is None
    assert isinstance(Decoder(project.settings).event(event(), 5), Event)
