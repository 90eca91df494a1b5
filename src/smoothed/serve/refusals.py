"""Errors that a request is answered with: a status, a short code, and a sentence."""

from collections.abc import Mapping


class Refusal(Exception):  # noqa: N818 - the service works as it should; the request does not
    """A request is not carried out.

    Args:
        status: HTTP status, 400 or above.
        code: short code for programs.
        detail: sentence that names the field, what was expected, and what came.
        headers: further headers of the answer.
    """

    def __init__(self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def body(self) -> dict[str, str]:
        """The JSON body of the answer."""
        return {"error": self.code, "detail": self.detail}


# Ends the connection after the answer: the rest of the body is not read.
CLOSE = {"Connection": "close"}


def too_large(limit: int, got: str) -> Refusal:
    """The body has more bytes than the limit."""
    return Refusal(413, "too_large", f"body: expected at most {limit} bytes, got {got}", CLOSE)


def overloaded(what: str, limit: int, seconds: int) -> Refusal:
    """No more work of this kind is taken at present."""
    detail = f"{what}: expected fewer than {limit} at the same time, got that many; try again in {seconds} s"
    return Refusal(503, "overloaded", detail, {"Retry-After": str(seconds)})


def stopping() -> Refusal:
    """The service has been told to stop."""
    return Refusal(503, "stopping", "the service is stopping and takes no more requests", {"Retry-After": "5"})


def failed() -> Refusal:
    """The request met an error of the service, which its log describes."""
    return Refusal(500, "failed", "the service failed on this request; its log says why")


def invalid(field: str, expected: str, got: str, status: int = 422, code: str = "invalid") -> Refusal:
    """A field of the request has a wrong value."""
    return Refusal(status, code, f"{field}: expected {expected}, got {got}")
