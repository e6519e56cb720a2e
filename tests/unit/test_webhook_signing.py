"""Signatures as https://www.standardwebhooks.com has them; its own library is the judge."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
import standardwebhooks

from rag_service.webhooks import signing
from rag_service.webhooks.signing import SignatureError, headers, new_secret, verify

BODY = b'{"type":"document.ready","data":{"document_id":"doc_1"}}'
NOW = 1_800_000_000


def test_a_known_message_has_its_known_signature() -> None:
    """The example of the specification, which is in the tests of every library of it."""
    signed = signing.signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "1614265330",
        b'{"test": 2432232314}',
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_secrets_are_of_the_prescribed_shape_and_never_the_same() -> None:
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(one.startswith("whsec_") and len(one) == len("whsec_") + 44 for one in made)


@pytest.mark.parametrize("body", [b"", BODY, '{"name":"\u00dcbergr\u00f6\u00dfe"}'.encode()])
def test_the_library_of_the_specification_accepts_what_is_signed(body: bytes) -> None:
    secret, now = new_secret(), int(time.time())
    signed = headers([secret], "msg_1", now, body)
    standardwebhooks.Webhook(secret).verify(body.decode(), signed) if body else None
    assert verify(secret, signed, body, now=now) == "msg_1"


def test_what_the_library_signs_is_accepted() -> None:
    from datetime import UTC, datetime

    secret = new_secret()
    signature = standardwebhooks.Webhook(secret).sign("msg_1", datetime.fromtimestamp(NOW, UTC), BODY.decode())
    given = {"webhook-id": "msg_1", "webhook-timestamp": str(NOW), "webhook-signature": signature}
    assert verify(secret, given, BODY, now=NOW) == "msg_1"


def test_while_a_secret_is_replaced_either_verifies() -> None:
    new, old = new_secret(), new_secret()
    signed = headers([new, old], "msg_1", NOW, BODY)
    assert signed["webhook-signature"].count("v1,") == 2
    assert verify(new, signed, BODY, now=NOW) == verify(old, signed, BODY, now=NOW) == "msg_1"
    with pytest.raises(SignatureError):
        verify(new_secret(), signed, BODY, now=NOW)


@pytest.mark.parametrize("late", [-301, 301, 10**9])
def test_what_is_old_or_of_the_future_is_refused(late: int) -> None:
    secret = new_secret()
    with pytest.raises(SignatureError, match="old"):
        verify(secret, headers([secret], "msg_1", NOW, BODY), BODY, now=NOW + late)


@pytest.mark.parametrize("missing", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_message_without_one_of_its_headers_is_refused(missing: str) -> None:
    secret = new_secret()
    given = headers([secret], "msg_1", NOW, BODY)
    del given[missing]
    with pytest.raises(SignatureError):
        verify(secret, given, BODY, now=NOW)
    with pytest.raises(SignatureError):
        verify(secret, {**given, missing: ""}, BODY, now=NOW)


def mutations(count: int) -> Iterator[tuple[dict[str, str], bytes]]:
    """Genuine messages of which one character of a header or one byte of the body is another."""
    chance = random.Random(5)
    secret = SECRET
    for number in range(count):
        given, body = headers([secret], f"msg_{number}", NOW, BODY), bytearray(BODY)
        place = chance.choice(["body", *given])
        if place == "body":
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
        else:
            letters = list(given[place])
            where = chance.randrange(len(letters))
            # The last letter before the padding says two bits that the digest has not.
            where = min(where, len(letters) - 3) if place == "webhook-signature" else where
            letters[where] = chance.choice([one for one in "ABCxyz0123456789+/" if one != letters[where]])
            given[place] = "".join(letters)
        yield given, bytes(body)


SECRET = new_secret()


def accepted(given: dict[str, str], body: bytes) -> bool:
    try:
        verify(SECRET, given, body, now=NOW)
    except SignatureError:
        return False
    return True


def test_a_thousand_mutated_messages_are_all_refused() -> None:
    tried = list(mutations(1_000))
    assert len({(tuple(given.items()), body) for given, body in tried}) > 900
    assert not [one for one in tried if accepted(*one)]


def test_a_check_that_forgets_the_body_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = signing.signature
    monkeypatch.setattr(signing, "signature", lambda secret, name, timestamp, _: whole(secret, name, timestamp, b""))
    assert [one for one in mutations(1_000) if accepted(*one)]


def test_what_is_no_secret_signs_nothing() -> None:
    with pytest.raises(ValueError, match="not a secret") as raised:
        headers(["whsec_no base64!"], "msg_1", NOW, BODY)
    assert "no base64" not in str(raised.value)
