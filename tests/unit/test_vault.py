"""Envelopes open where they belong, under the keys that are there, and nowhere else."""

from __future__ import annotations

import base64

import pytest

from rag_service.errors import ConfigError, Conflict
from rag_service.vault import Envelope, Vault, key_id, new_key, parse_keys

OLD, NEW = parse_keys(new_key())[0], parse_keys(new_key())[0]
TEXT = "s3cret of ümläut"


def test_what_was_sealed_opens_in_its_place() -> None:
    vault = Vault(lambda: [NEW])
    envelope = vault.seal(TEXT, "source/1/token")
    assert vault.open(envelope, "source/1/token") == TEXT
    assert envelope["key"] == key_id(NEW)


def test_the_same_text_is_never_sealed_the_same_way_twice() -> None:
    vault = Vault(lambda: [NEW])
    sealed = [vault.seal(TEXT, "p")["ciphertext"] for _ in range(1000)]
    nonces = {base64.b64decode(one)[:12] for one in sealed}
    assert len(set(sealed)) == len(nonces) == 1000


def test_an_envelope_opens_in_no_other_place() -> None:
    vault = Vault(lambda: [NEW])
    envelope = vault.seal(TEXT, "source/1/token")
    for place in ("source/2/token", "source/1/password", "", "source/1/token "):
        with pytest.raises(ConfigError) as caught:
            vault.open(envelope, place)
        assert caught.value.code == "credential_unreadable"
        assert TEXT not in str(caught.value)


def test_no_bit_of_an_envelope_can_be_changed() -> None:
    vault = Vault(lambda: [NEW])
    envelope = vault.seal("abc", "p")
    content = base64.b64decode(envelope["ciphertext"])
    for place in range(len(content) * 8):
        spoiled = bytearray(content)
        spoiled[place // 8] ^= 1 << place % 8
        with pytest.raises(ConfigError):
            vault.open({**envelope, "ciphertext": base64.b64encode(spoiled).decode()}, "p")


@pytest.mark.parametrize("ciphertext", ["", "not base64!", "AAAA", "ü"])
def test_what_is_no_envelope_is_refused(ciphertext: str) -> None:
    with pytest.raises(ConfigError):
        Vault(lambda: [NEW]).open({"key": key_id(NEW), "ciphertext": ciphertext}, "p")


def test_the_newest_key_seals_and_older_ones_still_open() -> None:
    envelope = Vault(lambda: [OLD]).seal(TEXT, "p")
    both = Vault(lambda: [NEW, OLD])
    assert both.open(envelope, "p") == TEXT
    assert both.seal(TEXT, "p")["key"] == both.newest == key_id(NEW)
    assert both.lacks([key_id(OLD), key_id(NEW)]) == []


def test_without_its_key_an_envelope_stays_shut_and_the_key_is_named() -> None:
    envelope = Vault(lambda: [OLD]).seal(TEXT, "p")
    vault = Vault(lambda: [NEW])
    assert vault.lacks([envelope["key"]]) == [key_id(OLD)]
    with pytest.raises(ConfigError, match=key_id(OLD)) as caught:
        vault.open(envelope, "p")
    assert "RAG_SECRET_KEYS" in str(caught.value)


def test_a_key_is_made_when_something_is_first_sealed_and_not_before() -> None:
    made: list[bytes] = []
    vault = Vault(list, lambda: made.append(NEW) or made)
    assert vault.lacks(["x"]) == ["x"]
    assert made == []
    first, second = vault.seal(TEXT, "p"), vault.seal(TEXT, "p")
    assert made == [NEW]
    assert vault.open(first, "p") == vault.open(second, "p") == TEXT


def test_without_any_key_nothing_is_sealed() -> None:
    with pytest.raises(Conflict, match="RAG_SECRET_KEYS"):
        Vault(list).seal(TEXT, "p")


def test_an_id_tells_nothing_of_its_key() -> None:
    ids = [key_id(parse_keys(new_key())[0]) for _ in range(100)]
    assert len(set(ids)) == 100
    assert all(len(one) == 16 and one not in OLD.hex() for one in ids)


@pytest.mark.parametrize("separator", [",", " ", "\n", ", ", "\n\n"])
def test_keys_are_listed_with_commas_or_white_space(separator: str) -> None:
    words = [new_key(), base64.urlsafe_b64encode(OLD).decode(), new_key()]
    assert parse_keys(separator.join(words)) == [base64.b64decode(words[0]), OLD, base64.b64decode(words[2])]
    assert parse_keys("") == []


@pytest.mark.parametrize(
    "wrong", ["short", "!" * 44, base64.b64encode(b"x" * 16).decode(), base64.b64encode(b"y" * 32).decode()[:-1], "ü"]
)
def test_a_wrong_key_is_named_by_its_place_and_not_repeated(wrong: str) -> None:
    with pytest.raises(ConfigError, match="key 2 is not 32 bytes") as caught:
        parse_keys(f"{new_key()},{wrong}")
    assert wrong not in str(caught.value)


def broken_open(vault: Vault, envelope: Envelope, _place: str) -> str:
    """The broken variant: an envelope that is bound to nothing."""
    return vault.open(envelope, "")


def test_an_unbound_envelope_would_open_anywhere() -> None:
    vault = Vault(lambda: [NEW])
    assert broken_open(vault, vault.seal(TEXT, ""), "source/2/token") == TEXT
