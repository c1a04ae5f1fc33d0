"""Serves the built page, with the headers that keep it to itself."""

from __future__ import annotations

from pathlib import Path

from starlette.responses import PlainTextResponse, Response
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

DIST = Path(__file__).parent / "web" / "dist"
NOT_BUILT = "The page is not built: install Node.js 20 and run `make page`. The services are up; see the README.\n"
HEADERS = {
    "content-security-policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; object-src 'none'",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "cache-control": "no-cache",
}


class Page(StaticFiles):
    """The page's files; a sentence where they are not built."""

    def __init__(self, dist: Path = DIST) -> None:
        super().__init__(directory=dist, html=True, check_dir=False)
        self._dist = dist

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Return a file of the page."""
        if not (self._dist / "index.html").is_file():
            return PlainTextResponse(NOT_BUILT, status_code=503)
        response = await super().get_response(path, scope)
        response.headers.update(HEADERS)
        if path.startswith("assets/"):
            response.headers["cache-control"] = "public, max-age=31536000, immutable"  # their names hold their hash
        return response
