"""The web pages and the chat widget, built from `api/widget` by Vite; users need no Node.

``STATIC`` holds index.html (home), viewer.html (a document with its quote marked),
widget.js (the script tag), widget.mjs (the ES module), and what the pages load.
"""

from __future__ import annotations

from pathlib import Path

STATIC = Path(__file__).parent / "static"
"""Folder of the files to serve at the server's root."""
EMBEDDABLE = ("widget.js", "widget.mjs")
"""Files that pages of other origins load: serve them with ``Cross-Origin-Resource-Policy: cross-origin``
and ``Access-Control-Allow-Origin: *`` (a module script is always fetched with CORS)."""
