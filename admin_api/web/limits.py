"""The largest request body that is read, whatever its headers say."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from admin_api.web.language import N_
from admin_api.web.problems import Problem, answer


class _TooLarge(HTTPException):
    """An HTTPException, so that who reads the body further in passes it on instead of calling it malformed."""

    def __init__(self, most: int) -> None:
        super().__init__(413, f"a request's body may have {most} bytes at most")


class BodyLimit:
    """Answers 413 as soon as a body is longer than `most` bytes, announced or not."""

    def __init__(self, app: ASGIApp, *, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        announced = request.headers.get("content-length", "0")
        if announced.isdecimal() and int(announced) > self._most:
            await self._refusal(request)(scope, receive, send)
            return
        read = 0
        started = False

        async def counted() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._most:
                raise _TooLarge(self._most)
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, counted, noted)
        except _TooLarge:
            if started:
                raise
            await self._refusal(request)(scope, receive, send)

    def _refusal(self, request: Request) -> ASGIApp:
        problem = Problem(413, "too-large", N_("The request is too large"),
                          f"a request's body may have {self._most} bytes at most", "send less")  # fmt: skip
        return answer(request, problem)
