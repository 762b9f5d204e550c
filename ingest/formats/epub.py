"""E-books (EPUB): the chapters of the spine, in reading order."""

from __future__ import annotations

import io
import posixpath
import zipfile
from typing import Any
from urllib.parse import unquote

from ingest.canonical import Draft
from ingest.errors import DamagedFile, EncryptedFile
from ingest.formats.container import check_archive
from ingest.formats.encoding import declared_charset, decode
from ingest.formats.html import walk_body

_DC = "{http://purl.org/dc/elements/1.1/}"


def parse(data: bytes, name: str) -> Draft:
    """Raises `EncryptedFile` for a book under DRM, `DamagedFile` without a readable spine."""
    from selectolax.lexbor import LexborHTMLParser

    check_archive(data)
    draft = Draft("application/epub+zip")
    with zipfile.ZipFile(io.BytesIO(data)) as book:
        names = set(book.namelist())
        if "META-INF/rights.xml" in names or (
            "META-INF/encryption.xml" in names and b"adobe.com/adept" in book.read("META-INF/encryption.xml")
        ):
            raise EncryptedFile("the book is protected (DRM) and cannot be read")
        package = _xml(book.read("META-INF/container.xml")).find(".//{*}rootfile").get("full-path")
        root = _xml(book.read(package))
        title = root.find(f".//{_DC}title")
        draft.title = (title.text or "") if title is not None else ""
        chapters = {item.get("id"): item.get("href", "") for item in root.iterfind(".//{*}manifest/{*}item")}
        for reference in root.iterfind(".//{*}spine/{*}itemref"):
            path = posixpath.normpath(
                posixpath.join(posixpath.dirname(package), unquote(chapters.get(reference.get("idref"), "")))
            )
            if path in names:
                page = book.read(path)
                walk_body(LexborHTMLParser(decode(page, declared_charset(page)).text), draft)
    if not draft.blocks:
        raise DamagedFile("the book holds no readable chapters")
    return draft


def _xml(data: bytes) -> Any:
    from lxml import etree

    return etree.fromstring(data, etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False))
