"""Web pages: the main content, with headings, lists and tables.

Content that pages mark themselves (<main>, <article>) is taken as it is. Otherwise trafilatura says
which text is content, and the smallest element that holds it is walked here: its own output would
run the blocks of pages built from <div> into one.
"""

from __future__ import annotations

import logging
import re
from typing import Any

from ingest.canonical import Draft, one_line
from ingest.formats.encoding import declared_charset, decode
from ingest.metadata import front_matter, labels

_DROP = {
    "script", "style", "noscript", "template", "svg", "iframe", "object", "button", "select", "input",
    "textarea", "nav", "footer", "aside", "dialog", "head", "audio", "video", "canvas", "map",
}  # fmt: skip
_DROP_ROLES = {"navigation", "banner", "contentinfo", "search", "complementary", "dialog", "menu", "menubar"}
_BOILERPLATE = re.compile(
    r"(?:^|[\s_-])(?:nav\w*|menu|bread-?crumbs?|foot(?:er)?|top-?bar|side-?bar|ad|ads|advert\w*|banner|copyright|"
    r"share|related|recommend\w*|pagination|pager|toolbar|cookies?|login|search-?box|toc)(?:$|[\s_-])",
    re.IGNORECASE,
)
_INLINE = {
    "a", "abbr", "b", "bdi", "bdo", "big", "cite", "code", "data", "del", "dfn", "em", "font", "i", "ins",
    "kbd", "label", "mark", "q", "rb", "ruby", "s", "samp", "small", "span", "strike", "strong", "sub", "sup",
    "time", "tt", "u", "var", "wbr", "o:p",
}  # fmt: skip
_META = {
    "keywords": "keywords", "author": "author", "description": "description", "date": "date", "pubdate": "date",
    "publishdate": "date", "dc.date": "date", "dcterms.date": "date", "article:published_time": "date",
    "article:author": "author", "article:tag": "keywords",
}  # fmt: skip
"""Names of <meta> elements that say something of the document, and what they are called here."""
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_SITE = re.compile(r"\s*(?:[|｜_]|\s[-–—]\s)\s*[^|｜_]{1,30}$")


def parse(data: bytes, name: str) -> Draft:
    from selectolax.lexbor import LexborHTMLParser

    found = decode(data, declared_charset(data))
    draft = Draft("text/html", fidelity=found.fidelity())
    matter, text = front_matter(found.text)
    tree = LexborHTMLParser(text.replace("\0", ""))
    draft.describe(labels(_meta(tree)))
    draft.describe(matter)
    if tree.body is None:
        return draft
    _walk(_content(tree, text), draft)
    if not draft.title:
        draft.title = _title(tree, draft)
    return draft


def walk_body(tree: Any, draft: Draft) -> None:
    """Appends everything but navigation to ``draft``: for pages that are content throughout."""
    if tree.body is not None:
        _walk(tree.body, draft)


def _walk(root: Any, draft: Draft) -> None:
    walker = _Walker(draft, len(_squeezed(root)))
    walker.block(root)
    walker.flush()


def _title(tree: Any, draft: Draft) -> str:
    first = next(((text, level) for kind, text, level, _ in draft.blocks if kind == "heading"), None)
    if first and first[1] == 1:
        return one_line(first[0])
    node = tree.css_first("title")
    title = one_line(node.text()) if node else ""
    return _SITE.sub("", title) or title


def _meta(tree: Any) -> dict[str, str]:
    found: dict[str, str] = {}
    for node in tree.css("meta[content]"):
        name = _META.get((node.attributes.get("name") or node.attributes.get("property") or "").lower())
        if name and (content := (node.attributes.get("content") or "").strip()):
            several = name == "keywords" and name in found
            found[name] = f"{found[name]},{content}" if several else found.get(name, content)
    return found


def _content(tree: Any, source: str) -> Any:
    body = tree.body
    whole = len(_squeezed(body))
    for selector in ("main", "[role=main]", "article"):
        nodes = tree.css(selector)
        if len(nodes) == 1 and len(_squeezed(nodes[0])) * 4 >= whole:
            return nodes[0]
    import trafilatura

    logging.getLogger("trafilatura").setLevel(logging.ERROR)
    text = trafilatura.extract(source, include_tables=True, include_comments=False, favor_recall=True) or ""
    wanted = len("".join(text.split()))
    if not wanted or wanted * 3 < whole:  # it threw too much away to be trusted
        return body
    node = body
    while True:  # down to the smallest element that still holds nearly all of it
        children = [child for child in node.iter() if len(_squeezed(child)) >= 0.9 * wanted]
        if len(children) != 1 or children[0].tag in ("table", "ul", "ol", "p"):
            return node
        node = children[0]


def _squeezed(node: Any) -> str:
    parts: list[str] = []
    stack = [node]
    while stack:
        current = stack.pop()
        if current.tag == "-text":
            parts.append(current.text(deep=False))
        elif current.tag not in _DROP:
            stack.extend(current.iter(include_text=True))
    return "".join("".join(parts).split())


class _Walker:
    def __init__(self, draft: Draft, total: int) -> None:
        self.draft = draft
        self.total = total
        self.pending: list[str] = []
        self.lead = ""

    def flush(self, level: int = 0) -> None:
        text = "".join(self.pending)
        self.pending.clear()
        if not text.strip():
            return
        if level:
            self.draft.heading(text.replace("\n", " "), level)
        else:
            self.draft.text(self.lead + text.lstrip(), "item" if self.lead else "text")
        self.lead = ""

    def block(self, node: Any) -> None:
        for child in node.iter(include_text=True):
            tag = child.tag
            if tag == "-text":
                self.pending.append(re.sub(r"\s+", " ", child.text(deep=False)))
            elif tag == "br":
                self.pending.append("\n")
            elif tag == "img":
                self.pending.append(child.attributes.get("alt") or "")
            elif tag.startswith("-") or tag in _DROP or self._hidden(child) or tag in ("rt", "rp"):
                continue
            elif tag in _INLINE:
                self.block(child)
            else:
                self.element(child, tag)

    def element(self, node: Any, tag: str) -> None:
        self.flush()
        if len(tag) == 2 and tag[0] == "h" and tag[1] in "123456":
            self.block(node)
            self.flush(int(tag[1]))
        elif tag == "pre":
            self.draft.code(node.text())
        elif tag == "table":
            self.table(node)
        elif tag in ("ul", "ol"):
            self.items(node, ordered=tag == "ol")
        elif tag == "hr":
            return
        else:
            self.block(node)
            self.flush()

    def items(self, node: Any, ordered: bool) -> None:
        start = node.attributes.get("start") or "1"
        number = int(start) if start.lstrip("-").isdigit() else 1
        for child in node.iter():
            if child.tag in _DROP or self._hidden(child):
                continue
            if child.tag == "li":
                self.lead = f"{number}. " if ordered else "- "
                number += 1
            self.block(child)
            self.flush()
            self.lead = ""

    def table(self, node: Any) -> None:
        rows = [row for row in node.css("tr") if _parent_table(row) == node]
        cells = [[cell for cell in row.iter() if cell.tag in ("td", "th")] for row in rows]
        layout = max((len(row) for row in cells), default=0) <= 1 or any(
            cell.css_first("table, h1, h2, h3, ul, ol, p + p, div + div") is not None for row in cells for cell in row
        )
        caption = node.css_first("caption")
        if caption is not None:
            self.block(caption)
            self.flush()
        if layout:
            for row in cells:
                for cell in row:
                    self.block(cell)
                    self.flush()
            return
        header = bool(cells) and (
            all(cell.tag == "th" for cell in cells[0]) or getattr(rows[0].parent, "tag", "") == "thead"
        )
        self.draft.table(_grid(cells), has_header=header or None)

    def _hidden(self, node: Any) -> bool:
        attributes = node.attributes
        if not attributes:
            return False
        if (
            "hidden" in attributes
            or attributes.get("aria-hidden") == "true"
            or attributes.get("role") in _DROP_ROLES
            or _HIDDEN.search(attributes.get("style") or "")
        ):
            return True
        names = f"{attributes.get('class') or ''} {attributes.get('id') or ''}"
        if node.tag in ("header", "div", "section", "ul", "p", "span") and (
            node.tag == "header" or _BOILERPLATE.search(names)
        ):
            size, linked = len(_squeezed(node)), _linked(node)
            if size * 5 > self.total or node.css_first("h1, h2, table") is not None:
                return False
            return linked * 2 >= size or (size <= 60 and node.tag != "header")
        if node.tag in ("div", "ul") and len(links := node.css("a")) >= 2:  # a menu that does not say so
            size = len(_squeezed(node))
            return size <= 8 * len(links) and _linked(node) * 10 >= size * 9 and size * 5 <= self.total
        return False


def _linked(node: Any) -> int:
    return sum(len(_squeezed(link)) for link in node.css("a"))


def _parent_table(row: Any) -> Any:
    node = row.parent
    while node is not None and node.tag != "table":
        node = node.parent
    return node


def _grid(rows: list[list[Any]]) -> list[list[str]]:
    """Cell texts with spans filled in: a cell over several rows stands in each of them."""
    grid: list[list[str]] = []
    down: dict[int, tuple[str, int]] = {}  # column → (text, rows left)
    for cells in rows:
        line: list[str] = []

        def carry(line: list[str] = line) -> None:
            while len(line) in down:
                text, left = down.pop(len(line))
                if left > 1:
                    down[len(line)] = (text, left - 1)
                line.append(text)

        for cell in cells:
            carry()
            text = " ".join(cell.text(separator=" ").split())
            for i in range(_span(cell, "colspan")):
                if (height := _span(cell, "rowspan")) > 1:
                    down[len(line)] = (text if i == 0 else "", height - 1)
                line.append(text if i == 0 else "")
        carry()
        grid.append(line)
    return grid


def _span(cell: Any, name: str) -> int:
    value = cell.attributes.get(name) or "1"
    return min(max(int(value), 1), 1000) if value.isascii() and value.isdigit() else 1
