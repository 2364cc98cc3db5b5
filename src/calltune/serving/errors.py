"""API errors: an HTTP status and the JSON error body that OpenAI's clients expect.

Source: https://platform.openai.com/docs/guides/error-codes
"""

from calltune.serving.response_schema import ErrorDetail, ErrorResponse, to_json
from calltune.types import Json

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class APIError(Exception):
    """A request cannot be answered; the message tells the client why."""

    def __init__(
        self, status: int, message: str, param: str | None = None, code: str | None = None
    ) -> None:
        """`param` is the request's field at fault, `code` an identifier for programs."""
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def body(self) -> dict[str, Json]:
        """The error object of OpenAI's API."""
        kind = _TYPES.get(self.status, "invalid_request_error")
        detail = ErrorDetail(message=self.message, type=kind, param=self.param, code=self.code)
        return to_json(ErrorResponse(error=detail))

    def headers(self) -> dict[str, str]:
        """HTTP headers of the response: when to retry, in seconds, if that makes sense."""
        return {"Retry-After": "1"} if self.status in (429, 503) else {}
