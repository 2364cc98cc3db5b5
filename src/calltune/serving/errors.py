"""What a request can do wrong, with the status and the error body that OpenAI's clients expect.

Source: https://platform.openai.com/docs/guides/error-codes
"""

from calltune.types import Json

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class Fault(Exception):
    """A request that is not answered, and why."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        """`param` is the field at fault, `code` a word for programs."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Json]:
        """The error as OpenAI's API writes it."""
        error: dict[str, Json] = {
            "message": self.message,
            "type": _TYPES.get(self.status, "invalid_request_error"),
            "param": self.param,
            "code": self.code,
        }
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """What the client is told beside it: when to come again."""
        return {"Retry-After": "1"} if self.status in (429, 503) else {}
