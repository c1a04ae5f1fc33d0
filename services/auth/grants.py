"""Reads an OAuth token request: form or JSON, with the client's credentials in the body or in the header."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request
from pydantic import ValidationError

from services.auth.bodies import GrantBody
from shared.errors import BadInput

MAX_FIELDS = 20


async def read_grant(request: Request) -> GrantBody:
    """Return the request's grant.

    Raises:
        BadInput: it is none that this service gives.

    Source: RFC 6749 sections 2.3.1 and 4.4.2.
    """
    fields = _fields(request.headers.get("content-type", ""), await request.body())
    try:
        return GrantBody.model_validate(fields | _basic(request.headers.get("authorization", "")))
    except ValidationError as error:
        where = ", ".join(sorted({str(item["loc"][0]) for item in error.errors(include_input=False)}))
        raise BadInput(f"a client_credentials grant is needed; wrong or missing: {where}") from None


def _fields(content_type: str, body: bytes) -> dict[str, Any]:
    kind = content_type.partition(";")[0].strip().lower()
    try:
        if kind == "application/json":
            fields = json.loads(body)
            if isinstance(fields, dict):
                return fields
        elif kind == "application/x-www-form-urlencoded":
            return dict(parse_qsl(body.decode(), max_num_fields=MAX_FIELDS))
    except (ValueError, RecursionError) as error:
        raise BadInput("the body cannot be read") from error
    raise BadInput("send a form or a JSON object")


def _basic(header: str) -> dict[str, str]:
    """Return the credentials of an `Authorization: Basic` header; empty if it is no such header."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic":
        return {}
    try:
        client_id, _, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError) as error:
        raise BadInput("the Authorization header cannot be read") from error
    return {"client_id": unquote_plus(client_id), "client_secret": unquote_plus(secret)}
