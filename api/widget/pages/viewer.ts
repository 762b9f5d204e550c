/** A document's stored text, opened at a quote: viewer.html?document=ID&version=V&start=S&end=E. */

import type { DocumentText, Highlights, Problem } from "../src/wire";

const WINDOW = 20_000;
const STEP = 40_000;
const MOST_PICTURES = 3;
const TOKEN = "chatgglm:viewer-token";

const query = new URLSearchParams(location.search);
const id = query.get("document") ?? "";
const version = query.get("version");
const hasQuote = query.has("start") && query.has("end");
const start = whole("start");
const end = Math.max(start, whole("end"));

let shown: { from: number; to: number; chars: string[]; total: number; pages: DocumentText["pages"] } | null = null;

function whole(name: string): number {
  const value = Number(query.get(name));
  return Number.isSafeInteger(value) && value > 0 ? value : 0;
}

function element<T extends HTMLElement>(name: string): T {
  return document.getElementById(name) as T;
}

/** A widget on another page hands its token over in the fragment; it stays in this tab only. */
function token(): string {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(TOKEN, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return sessionStorage.getItem(TOKEN) ?? "";
}

function ask(what: string, from: number, to: number): Promise<Response> {
  const range = new URLSearchParams({ start: String(from), end: String(to) });
  if (version) range.set("version", version);
  const bearer = token();
  return fetch(`v1/documents/${encodeURIComponent(id)}/${what}?${range}`, {
    headers: bearer ? { Authorization: `Bearer ${bearer}` } : {},
    cache: "no-store",
  });
}

async function load(from: number, to: number): Promise<DocumentText> {
  const response = await ask("text", from, to);
  if (response.ok) return (await response.json()) as DocumentText;
  const problem = (await response.json().catch(() => null)) as Problem | null;
  const reasons: Record<number, string> = {
    401: "需要访问权限。请从问答里点开出处，或联系管理员。",
    403: "没有权限查看这份文档。",
    404: "找不到这份文档：它可能已被删除。",
    422: "引文的位置不在这份文档里：文档可能已经换成了新版本。",
  };
  throw new Error(reasons[response.status] ?? problem?.detail ?? "文档载入失败。");
}

async function main(): Promise<void> {
  if (!id) throw new Error("地址里没有文档编号。请从问答的出处打开。");
  const part = await load(Math.max(0, start - WINDOW), end + WINDOW);
  shown = { from: part.start, to: part.end, chars: Array.from(part.text), total: part.total_chars, pages: part.pages };
  element("title").textContent = part.title;
  document.title = `${part.title} · 原文`;
  const page = part.pages.findLast((p) => p.start <= start)?.page ?? part.passages.findLast((p) => p.char_start <= start)?.page;
  element("where").textContent = [part.path, page && hasQuote ? `第 ${page} 页` : "", `共 ${part.total_chars.toLocaleString("zh-CN")} 字`]
    .filter(Boolean)
    .join(" · ");
  draw();
  if (!part.current) notify("这是回答当时引用的版本；文档后来更新过。");
  if (!hasQuote) return;
  if (!document.querySelector("mark")) {
    notify("引文的位置不在这份文档里：文档可能已经换成了新版本。");
    return;
  }
  element("jump").hidden = false;
  element("jump").addEventListener("click", () => toQuote("smooth"));
  toQuote("instant");
  if (/\.pdf$/i.test(part.path)) void showPages(part.title);
}

/** The pages that the quote stands on, as pictures with the quote marked; why not, where there are none. */
async function showPages(title: string): Promise<void> {
  const note = element("original-note");
  element("original").hidden = false;
  note.textContent = "正在画出这一页…";
  try {
    const response = await ask("highlights", start, end);
    if (!response.ok) {
      note.textContent = response.status === 404 ? "原文件没有保存，只能看下面提取的文字。" : "原文件画不出来，只能看下面提取的文字。";
      return;
    }
    const { pages } = (await response.json()) as Highlights;
    for (const { page } of pages.slice(0, MOST_PICTURES)) {
      const drawn = await ask(`pages/${page}.png`, start, end);
      if (!drawn.ok) throw new Error(String(drawn.status));
      const image = document.createElement("img");
      image.alt = `${title}，第 ${page} 页，引文已标出`;
      image.src = await dataUrl(await drawn.blob());
      element("pictures").append(image);
      await image.decode().catch(() => undefined);
    }
    const missed = !pages.some((p) => p.boxes.length);
    note.textContent = missed ? "没能在页面上找到引文的位置，请看下面提取的文字。" : "";
  } catch {
    note.textContent = "原文件画不出来，只能看下面提取的文字。";
  }
  toQuote("instant");
}

/** The page's security policy lets pictures come from data addresses, not from blobs. */
function dataUrl(blob: Blob): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result as string);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

function toQuote(behavior: ScrollBehavior): void {
  document.querySelector("mark")?.scrollIntoView({ block: "center", behavior });
}

/** Draws the text line by line; nothing but the mark and the page numbers is added to it. */
function draw(): void {
  if (!shown) return;
  const { from, chars, to, total, pages } = shown;
  const lines: HTMLElement[] = [];
  let at = 0;
  for (const line of chars.join("").split("\n")) {
    const length = Array.from(line).length;
    const page = pages.length > 1 ? pages.find((p) => p.start - from >= at && p.start - from <= at + length) : undefined;
    if (page && length > 0) lines.push(pageElement(page.page));
    lines.push(lineElement(line, start - from - at, end - from - at, length));
    at += length + 1;
  }
  element("text").replaceChildren(...lines);
  element("before").hidden = from === 0;
  element("after").hidden = to >= total;
}

function lineElement(line: string, markStart: number, markEnd: number, length: number): HTMLElement {
  const node = document.createElement("div");
  node.className = "line";
  const hashes = /^#{1,6} /.exec(line)?.[0] ?? "";
  if (hashes) node.classList.add("heading");
  if (line.includes("\t") || (line.match(/\|/g)?.length ?? 0) >= 2) node.classList.add("row");
  const first = Math.max(0, markStart);
  const last = Math.min(length, markEnd);
  if (!hasQuote || first >= last) {
    const sign = document.createElement("span");
    sign.textContent = hashes;
    node.append(...(hashes ? [sign] : []), line.slice(hashes.length));
    return node;
  }
  const chars = Array.from(line);
  const mark = document.createElement("mark");
  mark.textContent = chars.slice(first, last).join("");
  node.append(chars.slice(0, first).join(""), mark, chars.slice(last).join(""));
  return node;
}

function pageElement(number: number): HTMLElement {
  const node = document.createElement("div");
  node.className = "page";
  node.textContent = `第 ${number} 页`;
  return node;
}

async function extend(before: boolean): Promise<void> {
  if (!shown) return;
  const from = before ? Math.max(0, shown.from - STEP) : shown.to;
  const to = before ? shown.from : shown.to + STEP;
  const part = await load(from, to);
  const bottom = document.documentElement.scrollHeight - scrollY;
  const chars = Array.from(part.text);
  shown.chars = before ? [...chars, ...shown.chars] : [...shown.chars, ...chars];
  shown.pages = before ? [...part.pages, ...shown.pages] : [...shown.pages, ...part.pages];
  if (before) shown.from = part.start;
  else shown.to = part.end;
  draw();
  if (before) scrollTo({ top: document.documentElement.scrollHeight - bottom, behavior: "instant" });
}

function notify(text: string): void {
  const notice = element("notice");
  notice.textContent = text;
  notice.hidden = false;
}

function failed(error: unknown): void {
  if (!shown) element("title").textContent = "无法打开原文";
  notify(error instanceof TypeError ? "连不上服务器。请确认服务已启动，再刷新本页。" : (error as Error).message);
}

element("before").addEventListener("click", () => void extend(true).catch(failed));
element("after").addEventListener("click", () => void extend(false).catch(failed));
main().catch(failed);
