"""Files that people send: as the body of an API request, or in a form. Both are small and read into memory."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request, UploadFile

from admin_api.web.language import N_
from admin_api.web.problems import Problem


async def _body(request: Request) -> bytes:
    return await request.body()


Uploaded = Annotated[bytes, Depends(_body)]


def file_body(media_type: str, description: str) -> dict[str, Any]:
    """`openapi_extra` of a route whose body is a file."""
    schema = {"type": "string", "format": "binary"}
    return {"requestBody": {"required": True, "description": description, "content": {media_type: {"schema": schema}}}}


def bytes_of(file: UploadFile | None) -> bytes:
    """The bytes of a form's file. Raises Problem 422 when none was chosen."""
    data = b"" if file is None else file.file.read()
    if not data:
        raise Problem(
            422, "no-file", N_("No file"), "the form came without a file", N_("choose the file, then send it again")
        )
    return data
