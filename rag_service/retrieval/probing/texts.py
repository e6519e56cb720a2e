"""The texts that a model is recognised by. One changed character makes every stored fingerprint one of other texts."""

from __future__ import annotations

import hashlib

from rag_service.embedding.base import TextKind

_LONG = (
    "Every employee who has been with the company for at least six months may take parental leave. The leave lasts up "
    "to sixteen weeks for each parent and need not be taken in one piece; it ends at the latest on the third birthday "
    "of the child. Whoever wants to take it tells the personnel department in writing, eight weeks before it begins, "
    "and names the dates. During the leave the contract goes on, the salary is paid to two thirds for the first eight "
    "weeks, and holidays are earned as if the person were at work. A part-time arrangement of up to twenty hours a "
    "week may be agreed upon with the department. After the leave the former position, or one that is worth the same, "
    "is open to whoever returns. The agreement of the works council of 1 March 2021 holds beside all this."
)

TEXTS: tuple[str, ...] = (
    "leave",
    "How long is parental leave?",
    "The invoice of 12 March 2024 over 1,499.00 EUR has not been paid.",
    "ERR_CONNECTION_REFUSED 0x80070005",
    "def mean(values: list[float]) -> float:\n    return sum(values) / len(values)",
    "SELECT name, count(*) FROM orders WHERE placed > '2024-01-01' GROUP BY name;",
    '{"kind": "Deployment", "spec": {"replicas": 3}}',
    "Die Kündigungsfrist beträgt drei Monate zum Quartalsende.",
    "Où puis-je déclarer un accident du travail ?",
    "¿Cuántos días de vacaciones me quedan este año?",
    "Договор вступает в силу с момента подписания.",
    "Η προθεσμία λήγει στο τέλος του μήνα.",
    "يبدأ العقد من تاريخ التوقيع.",
    "תקופת ההודעה היא שלושה חודשים.",
    "अवकाश के लिए आवेदन कहाँ करें?",
    "育児休業は何週間取れますか。",
    "合同自签字之日起生效。",
    "휴가는 어떻게 신청하나요?",
    "naïve café ☕ — “quoted” … 3 × 4 ≤ 12",
    _LONG,
)


def kind_of(place: int) -> TextKind:
    """Every other text is a question: models that treat the two kinds differently show both."""
    return "query" if place % 2 else "document"


def digest() -> str:
    """Names the texts, and how they are asked."""
    return hashlib.sha256(
        "\0".join(f"{kind_of(place)}:{text}" for place, text in enumerate(TEXTS)).encode()
    ).hexdigest()
