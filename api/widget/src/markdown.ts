/**
 * An answer's text as safe HTML.
 *
 * Most of it is copied from documents, so Markdown is read with care: HTML shows as text, «3~5» is no
 * strike-through, «长*宽*高» no emphasis, an indented line no code, and images load nothing.
 */

import DOMPurify from "dompurify";
import { Marked } from "marked";
import type { Citation } from "./wire";

// Private-use characters around a marker while the text passes through the Markdown parser.
const OPEN = "\uE000";
const CLOSE = "\uE001";
const QUOTE_LINE = /\n+原文：「([\s\S]*?)」\[(\d+)\](?=\n|$)/g;

const markdown = new Marked({
  gfm: true,
  breaks: true,
  async: false,
  renderer: {
    html: ({ text }) => escapeHtml(text),
    image: ({ text }) => escapeHtml(text),
  },
  tokenizer: {
    code: () => undefined,
    del: () => undefined,
    // `false` hands on to marked's own tokenizer.
    emStrong: (src) => (src.startsWith("**") ? false : undefined),
  },
});

const ALLOWED = {
  ALLOWED_TAGS: ["p", "br", "strong", "em", "code", "pre", "ul", "ol", "li", "blockquote", "a", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "table", "thead", "tbody", "tr", "th", "td"],
  ALLOWED_ATTR: ["href", "start", "align"],
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  RETURN_DOM_FRAGMENT: true as const,
};

/** A supporting sentence: the source's own text, shown as it is. */
export interface Quote {
  text: string;
  marker: number;
}

/** Splits what a person reads into the answer and its supporting quotes. */
export function splitDisplay(display: string): { head: string; quotes: Quote[] } {
  const quotes: Quote[] = [];
  const head = display.replace(QUOTE_LINE, (_, text: string, marker: string) => {
    quotes.push({ text, marker: Number(marker) });
    return "";
  });
  return { head, quotes };
}

/**
 * Puts the markers of an answer into private-use brackets.
 *
 * Where the head is the answer with its markers, only those count: a «[1]» that the document itself
 * holds stays text. `answer_start` and `answer_end` are code points.
 */
export function protectMarkers(head: string, answer: string, citations: Citation[]): string {
  const wrap = (marker: number) => `${OPEN}${marker}${CLOSE}`;
  const marked = Array.from(answer);
  const plain = Array.from(answer);
  for (const c of [...citations].sort((a, b) => b.answer_end - a.answer_end)) {
    marked.splice(c.answer_end, 0, wrap(c.marker));
    plain.splice(c.answer_end, 0, `[${c.marker}]`);
  }
  const expected = plain.join("");
  const at = expected ? head.indexOf(expected) : -1;
  if (at >= 0) return head.slice(0, at) + marked.join("") + head.slice(at + expected.length);
  const known = new Set(citations.map((c) => c.marker));
  return head.replace(/\[(\d{1,3})\]/g, (whole, n: string) => (known.has(Number(n)) ? wrap(Number(n)) : whole));
}

/** Markers of a text whose citations are not known yet. */
export function protectAnyMarkers(text: string): string {
  return text.replace(/\[(\d{1,2})\]/g, `${OPEN}$1${CLOSE}`);
}

/** The HTML, with `chip(marker)` in the place of each protected marker. */
export function render(text: string, chip: (marker: number) => Node): DocumentFragment {
  // Behind a table's last cell or a fence a marker would be lost: it gets a line of its own.
  const parted = text.replace(/^((?:.*\||```|~~~)[ \t]*)(?=\uE000)/gm, "$1\n\n");
  const fragment = DOMPurify.sanitize(markdown.parse(parted) as string, ALLOWED) as DocumentFragment;
  for (const link of fragment.querySelectorAll("a")) {
    link.target = "_blank";
    link.rel = "noopener noreferrer nofollow";
  }
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const texts: Text[] = [];
  while (walker.nextNode()) texts.push(walker.currentNode as Text);
  for (const node of texts) {
    const parts = node.data.split(/\uE000(\d+)\uE001/);
    if (parts.length === 1) continue;
    node.replaceWith(...parts.map((part, i) => (i % 2 ? chip(Number(part)) : document.createTextNode(part))));
  }
  return fragment;
}

function escapeHtml(text: string): string {
  return text.replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]!);
}
