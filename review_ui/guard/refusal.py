"""How the guard says no."""

from collections.abc import Mapping

from starlette.responses import JSONResponse, Response


class RefusedError(Exception):
    """A request that is not let through."""

    def __init__(self, status: int, words: str, headers: Mapping[str, str] | None = None) -> None:
        """Take the HTTP status, a line for people, and headers."""
        super().__init__(words)
        self.status = status
        self.words = words
        self.headers = headers

    def response(self) -> Response:
        """The answer: a JSON object with the line."""
        return JSONResponse({"error": self.words}, self.status, self.headers)
