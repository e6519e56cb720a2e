"""A source that breaks off where a test tells it to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from pydantic import BaseModel

from connectors.base import Change, Check, Checkpoint, Cursor, Item, Upsert
from connectors.errors import SourceError

PLACE = "tests.flows.unsteady_source:Unsteady"


class Unsteady:
    """Lists `items` names, with a checkpoint after every tenth. `breaks` are raised before the item of that number."""

    class Config(BaseModel):
        pass

    incremental: ClassVar[bool] = False
    reports_deletes: ClassVar[bool] = False
    reports_acl: ClassVar[bool] = False
    items: ClassVar[int] = 30
    breaks: ClassVar[dict[int, list[SourceError]]] = {}
    listed: ClassVar[list[int]] = []

    def __init__(self, config: Config) -> None:
        self._config = config

    def check(self) -> Check:
        return Check(self.items)

    def changes(self, cursor: Cursor | None) -> Iterator[Change]:
        for number in range(int((cursor or {}).get("next", 0)), self.items):
            if self.breaks.get(number):
                raise self.breaks[number].pop(0)
            self.listed.append(number)
            text = f"# Item {number}\n\nWhat item{number} says."
            yield Upsert(Item(f"{number}.md", "", "text/markdown", "1", f"unsteady:{number}", text.encode))
            if number % 10 == 9:
                yield Checkpoint({"next": number + 1})
        yield Checkpoint({}, complete=True)
