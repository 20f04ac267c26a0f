"""Lists as a spreadsheet reads them: CSV (RFC 4180), a row per item, columns named as in the API."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from fastapi.responses import Response
from pydantic import BaseModel


def csv_answer(name: str, kind: type[BaseModel], items: Iterable[BaseModel]) -> Response:
    """The items as a file called `name`. What is not known is empty; times are RFC 3339 in UTC."""
    names = list(kind.model_fields)
    page = io.StringIO()
    writer = csv.writer(page)
    writer.writerow(names)
    for item in items:
        values: dict[str, Any] = item.model_dump(mode="json")
        writer.writerow("" if values[each] is None else values[each] for each in names)
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}
    return Response(page.getvalue(), media_type="text/csv; charset=utf-8; header=present", headers=headers)
