"""The running service, as the commands see it: HTTP, and errors that say what to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from rag_service.cli.failure import FAILED, MISUSED, CommandFailed
from rag_service.cli.options import given

if TYPE_CHECKING:
    import httpx

DEFAULT_URL = "http://127.0.0.1:8000"
# The most that a list gives at once.
PAGE = 1000
_TIMEOUT_S = 120.0
# Routes of an administrator that act within one team.
_ADMIN_OF_A_TEAM = ("/v1/admin/index-versions",)
_START = "Start the service with `make run` or `rag serve`, or name its address with --url or RAG_URL."
_KEYS = "Give a key with --key or RAG_API_KEY, or run where the service's data folder is (RAG_DATA_DIR)."


class Service:
    """One service at `url`. `team` names the team an admin key acts for; a team key implies its own."""

    def __init__(self, url: str, key: str | None, team: str | None) -> None:
        self.url = url.rstrip("/")
        self._key = key
        self._given_team = team

    @cached_property
    def _http(self) -> httpx.Client:
        import httpx

        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        # A proxy is for the world outside, not for this machine.
        return httpx.Client(base_url=self.url, headers=headers, timeout=_TIMEOUT_S, trust_env=not is_loopback(self.url))

    def close(self) -> None:
        if "_http" in self.__dict__:
            self._http.close()

    @property
    def named_team(self) -> str | None:
        """The team that was named, if any was."""
        return self._given_team

    @cached_property
    def team(self) -> str | None:
        """The team to name in requests; None for a team key, which cannot list teams.

        Raises CommandFailed when an admin key could mean any of several teams, or there is none yet.
        """
        if self._given_team:
            return self._given_team
        answer = self._ask("GET", "/v1/teams", params={"limit": 10})
        if answer.status_code == 403:
            return None
        names = [str(team["id"]) for team in _body(answer)["data"]]
        if len(names) == 1:
            return names[0]
        if not names:
            raise CommandFailed("There is no team yet.", "Make one: rag team create demo", exit_code=MISUSED)
        raise CommandFailed(
            f"There are several teams ({', '.join(names)}), and this key is for all of them.",
            f"Name one: --team {names[0]}, or set RAG_TEAM.",
            exit_code=MISUSED,
        )

    def get(self, path: str, **params: Any) -> Any:
        return self.send("GET", path, params=params)

    def post(self, path: str, content: object = None) -> Any:
        return self.send("POST", path, json=content)

    def send(self, method: str, path: str, **request: Any) -> Any:
        """The JSON of the answer, None when it has none. `headers` may name a team. Raises CommandFailed."""
        headers = dict(request.pop("headers", None) or {})
        named = headers if "X-Rag-Team" in headers else {**headers, **self._team_of(path)}
        return _body(self._ask(method, path, headers=named, **request))

    def send_for_all(self, method: str, path: str, **request: Any) -> Any:
        """The same of what belongs to no team."""
        return _body(self._ask(method, path, **request))

    def stream(self, path: str, **params: Any) -> Iterator[str]:
        """An answer that is not JSON, as it comes. Raises CommandFailed."""
        import httpx

        try:
            with self._http.stream("GET", path, params=given(**params), headers=self._team_of(path)) as answer:
                if not answer.is_success:
                    answer.read()
                    _body(answer)
                yield from answer.iter_text()
        except httpx.TransportError as error:
            raise CommandFailed(f"The service at {self.url} broke off ({type(error).__name__}).", _START) from None

    def _team_of(self, path: str) -> dict[str, str]:
        return {"X-Rag-Team": self.team} if _is_of_a_team(path) and self.team else {}

    def list_all(self, path: str, limit: int, **params: Any) -> dict[str, Any]:
        """Up to `limit` entries of a list, over as many pages as it takes, in the shape of one page."""
        entries: list[Any] = []
        page = self.get(path, limit=max(1, min(limit, PAGE)), **params)
        entries += page["data"]
        while page.get("has_more") and len(entries) < limit:
            after = page["next_cursor"]
            page = self.get(path, limit=min(limit - len(entries), PAGE), after=after, **params)
            entries += page["data"]
        return {**page, "data": entries}

    def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        import httpx

        params = given(**(request.pop("params", None) or {}))
        try:
            if not urlsplit(self.url).hostname:
                raise httpx.InvalidURL(self.url)
            return self._http.request(method, path, params=params, **request)
        except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError):
            raise CommandFailed(
                f"{self.url!r} is no address of a service.", f"Give one like {DEFAULT_URL}.", exit_code=MISUSED
            ) from None
        except httpx.ConnectError:
            raise CommandFailed(f"No service answers at {self.url}.", _START) from None
        except httpx.TransportError as error:
            raise CommandFailed(
                f"The service at {self.url} broke off ({type(error).__name__}).", "Look at its log, and try again."
            ) from None


def is_loopback(url: str) -> bool:
    """Whether an address stays on this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _is_of_a_team(path: str) -> bool:
    if path.startswith("/v1/admin/"):
        return path.startswith(_ADMIN_OF_A_TEAM)
    return path.startswith("/v1/") and path.partition("?")[0].rstrip("/") != "/v1/teams"


def _body(answer: httpx.Response) -> Any:
    try:
        content = answer.json() if answer.content else None
    except ValueError:
        content = ""
    if answer.is_success and content != "":
        return content
    problem: Mapping[str, Any] = content if isinstance(content, dict) else {}
    message = (
        problem.get("detail") or problem.get("title") or f"{answer.url} answered with status {answer.status_code}."
    )
    misused = answer.status_code in (400, 401, 413, 415, 422)
    fix = "" if problem else "Is this really a rag service? Check --url."
    raise CommandFailed(
        str(message),
        _KEYS if answer.status_code == 401 else fix,
        exit_code=MISUSED if misused else FAILED,
        problem=problem or None,
    )
