"""Whether the embedding model still makes of texts what it made of them when the index was built.

A model that a server changes under the same name, a library that computes otherwise, a damaged file: nothing fails
then, and every answer is wrong. So twenty texts are embedded now and then and compared with what the model made of them
first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from rag_service.db import Database, alarms, fingerprints, outbox
from rag_service.db.fingerprints import Fingerprint
from rag_service.embedding.base import Embedder
from rag_service.errors import ConfigError, NotFound, RagError
from rag_service.observe import metrics
from rag_service.retrieval.probing.texts import TEXTS, digest, kind_of
from rag_service.types import EmbedderIdentity, EventType, ProbeState, utc_now

log = logging.getLogger("rag_service.probing")

# Of the least alike of the texts. Batches of another size move a vector by less than 0.00001.
SAME = 0.9999
# Of one model in another number format or runtime: what a compiled model is held to when it is made.
SAME_ELSEWHERE = 0.999
KIND = "fingerprint"
# While something is wrong: whoever mends it shall not have to wait.
_AGAIN_S = 5.0
_PATIENCE_S = 4.0


@dataclass(frozen=True, slots=True)
class Model:
    """`embedder` raises ConfigError where it cannot be had. `serving`: questions are compared with its vectors."""

    embedder: Callable[[], Embedder]
    serving: bool = True


@dataclass(frozen=True, slots=True)
class Verdict:
    """`cosine` of the text that has moved most, 1.0 for a model seen first; `known_since` is when that was."""

    embedder: EmbedderIdentity
    serving: bool
    computation: str
    cosine: float
    moved: bool
    known_since: datetime
    looked_at: datetime


def least_cosine(known: NDArray[np.float32], now: NDArray[np.float32]) -> float:
    """Of two lists of unit vectors, shape (texts, dimensions), the smallest cosine of a pair; -1 for other shapes."""
    if known.shape != now.shape:
        return -1.0
    return float(np.einsum("ij,ij->i", known.astype(np.float64), now.astype(np.float64)).min())


def probe_vectors(embedder: Embedder) -> NDArray[np.float32]:
    """What `embedder` makes of the probe texts, shape (20, dimensions). Raises RetryableError."""
    made = np.empty((len(TEXTS), embedder.identity.dimensions), dtype=np.float32)
    for kind in ("document", "query"):
        places = [place for place in range(len(TEXTS)) if kind_of(place) == kind]
        made[places] = embedder.embed([TEXTS[place] for place in places], kind)
    return made


class Fingerprints:
    """`models` gives those that this process computes with; each is looked at once in `every_s` seconds."""

    def __init__(self, database: Database, models: Callable[[], Sequence[Model]], every_s: float) -> None:
        self._database = database
        self._models = models
        self._every_s = every_s
        self._looking = threading.Lock()
        self._starting = threading.Lock()
        self._verdicts: dict[EmbedderIdentity, Verdict] = {}
        self._next = 0.0
        self._broken: ConfigError | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def check(self, patience_s: float | None = None) -> None:
        """Raises ConfigError when a model that serves has moved or cannot be had, as far as the newest look has shown.

        Waits for the first look, four seconds unless said: a model that does not answer, or still loads, has not moved.
        """
        thread = self.look_if_due()
        if thread is not None and not self._verdicts:
            thread.join(_PATIENCE_S if patience_s is None else patience_s)
        if self._broken is not None:
            raise self._broken
        for verdict in self.verdicts():
            if verdict.moved and verdict.serving:
                raise ConfigError(_told(verdict), code="embedder_moved")

    def look_if_due(self) -> threading.Thread | None:
        """Look beside whatever else goes on, once in so many seconds; returns the look that is under way, if one is."""
        with self._starting:
            if self._thread is not None and self._thread.is_alive():
                return self._thread
            if self._closed or time.monotonic() < self._next:
                return None
            self._thread = threading.Thread(target=self._look_safely, name="fingerprints", daemon=True)
            self._thread.start()
            return self._thread

    def look(self) -> list[Verdict]:
        """Embed the texts and compare. Raises RetryableError, and ConfigError for a model that serves and is not there.

        One that an index version is being built with, and that cannot be asked, is that build's trouble.
        """
        with self._looking:
            found = [verdict for model in self._models() if (verdict := self._look_at(model)) is not None]
            self._verdicts, self._broken = {verdict.embedder: verdict for verdict in found}, None
            self._next = time.monotonic() + (_AGAIN_S if any(one.moved for one in found) else self._every_s)
            if found:
                metrics.fingerprint_compared(min(verdict.cosine for verdict in found))
            return found

    def verdicts(self) -> list[Verdict]:
        """What the newest look has shown."""
        return list(self._verdicts.values())

    def accept(self, model: str) -> list[Verdict]:
        """From here on, the models of this name are what this process makes of the texts now. Raises NotFound.

        Returns how they were found to be. Vectors made before stay as they are: their indexes are to be built anew.
        """
        chosen = [one.embedder() for one in self._models()]
        made = [(embedder, probe_vectors(embedder)) for embedder in chosen if embedder.identity.name == model]
        if not made:
            raise NotFound("No embedding model of this name is in use. `GET /v1/admin/fingerprints` lists them.")
        found = [self._compared(embedder, vectors, serving=True) for embedder, vectors in made]
        with self._database.transaction() as transaction:
            for (embedder, vectors), before in zip(made, found, strict=True):
                identity, computation = embedder.identity, embedder.computation
                fingerprints.replace(transaction.connection, identity, computation, digest(), vectors)
                told = {"cosine": before.cosine, "known_since": before.known_since.isoformat()}
                transaction.audit("fingerprint.accepted", str(identity)[:200], team=None, before=told)
        self.look()
        return found

    def close(self) -> None:
        with self._starting:
            self._closed = True
        if self._thread is not None:
            self._thread.join()

    def _look_safely(self) -> None:
        self._next = time.monotonic() + _AGAIN_S
        try:
            self.look()
        except ConfigError as error:
            self._broken = error
        except RagError as error:
            log.warning("the embedding model could not be compared: %s", error)

    def _look_at(self, model: Model) -> Verdict | None:
        try:
            embedder = model.embedder()
            verdict = self._compared(embedder, probe_vectors(embedder), model.serving)
            if verdict.moved:
                # Some services compute a little differently now and then: what has moved is so at the second look too.
                again = self._compared(embedder, probe_vectors(embedder), model.serving)
                verdict = max(verdict, again, key=lambda one: one.cosine)
        except RagError as error:
            if model.serving:
                raise
            log.warning("the embedding model of a build could not be compared: %s", error)
            return None
        if self._is_news(verdict):
            self._tell(verdict)
        return verdict

    def _compared(self, embedder: Embedder, vectors: NDArray[np.float32], serving: bool) -> Verdict:
        identity, computation = embedder.identity, embedder.computation
        known = self._known(identity)
        if computation not in known and all(_is_same(one, vectors, SAME_ELSEWHERE) for one in known.values()):
            with self._database.transaction() as transaction:
                fingerprints.keep_first(transaction.connection, identity, computation, digest(), vectors)
            known = self._known(identity)
        bound = SAME if computation in known else SAME_ELSEWHERE
        against = [known[computation]] if computation in known else list(known.values())
        worst = min(against, key=lambda one: least_cosine(one.vectors, vectors))
        cosine = least_cosine(worst.vectors, vectors)
        return Verdict(identity, serving, computation, cosine, cosine < bound, worst.at, utc_now())

    def _known(self, identity: EmbedderIdentity) -> dict[str, Fingerprint]:
        with self._database.read() as connection:
            return fingerprints.of(connection, identity, digest())

    def _is_news(self, verdict: Verdict) -> bool:
        """Told by a process that sees it change, or sees it first: two that see it differently do not quarrel."""
        before = self._verdicts.get(verdict.embedder)
        return before is None or before.moved != verdict.moved

    def _tell(self, verdict: Verdict) -> None:
        state = ProbeState.FAILING if verdict.moved else ProbeState.OK
        detail = {"model": str(verdict.embedder), "computation": verdict.computation, "cosine": verdict.cosine}
        subject = f"{KIND}:{verdict.embedder.name[:100]}:{verdict.embedder.revision[:40]}:{verdict.computation[:40]}"
        with self._database.transaction() as transaction:
            if alarms.settle(transaction.connection, subject, state, kind=KIND, detail=detail):
                told = {"check": KIND, "state": state, "severity": "critical", **detail}
                outbox.emit(transaction, EventType.PROBE_FAILED, outbox.ALL_TEAMS, told)
        if verdict.moved:
            log.error("%s", _told(verdict))


def _is_same(known: Fingerprint, vectors: NDArray[np.float32], bound: float) -> bool:
    return least_cosine(known.vectors, vectors) >= bound


def _told(verdict: Verdict) -> str:
    return (
        f"The embedding model {verdict.embedder} gives other vectors than on {verdict.known_since:%Y-%m-%d %H:%M} "
        f"(cosine {verdict.cosine:.5f}): answers from vectors made before are wrong. Bring the former model back. If "
        f"the change is meant: `rag admin accept-fingerprint {verdict.embedder.name}`, then build the collections anew."
    )
