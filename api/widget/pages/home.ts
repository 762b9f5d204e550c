/** The home page: what the knowledge bases hold, and snippets with this server's own address. */

import { questionLines } from "../src/questions";
import type { DocumentText, Problem } from "../src/wire";

interface KnowledgeBase {
  slug: string;
  name: string;
  documents: number;
  chunks: number;
}

interface DocumentRow {
  id: string;
  path: string;
  title: string;
  chars: number | null;
  pages: number;
  updated_at: string;
}

interface Listing<T> {
  data: T[];
  last_id?: string | null;
  has_more: boolean;
}

const PAGE = 24;
const SUGGESTING = 8;
const SUGGESTING_CHARS = 8000;
/** What the user guide that comes with ChatGGLM answers, by its files. */
const GUIDE: Record<string, string> = {
  "01-introduction.md": "需要显卡吗？",
  "02-install.md": "默认端口是多少？",
  "05-formats.md": "支持哪些文件格式？",
  "08-widget.md": "聊天窗口支持哪些语言？",
};
const base = new URL("./", location.href).href;
const select = element<HTMLSelectElement>("kb");
const list = element<HTMLUListElement>("documents");
const more = element<HTMLButtonElement>("more");
const numbers = new Intl.NumberFormat("zh-CN");
let bases: KnowledgeBase[] = [];
let last = "";

function element<T extends HTMLElement>(id: string): T {
  return document.getElementById(id) as T;
}

async function get<T>(path: string): Promise<T> {
  const response = await fetch(path, { cache: "no-store" });
  if (response.ok) return (await response.json()) as T;
  const problem = (await response.json().catch(() => null)) as Problem | null;
  throw new Error(
    response.status === 401
      ? "这台服务器设有访问密钥，文档清单只对持有密钥的程序开放。"
      : (problem?.detail ?? `服务器回应 ${response.status}`),
  );
}

async function main(): Promise<void> {
  snippets();
  bases = (await get<Listing<KnowledgeBase>>("v1/knowledge_bases")).data;
  if (!bases.length) {
    summary("知识库还是空的。用下面的命令加入文档，就可以提问了。");
    return;
  }
  for (const kb of bases) select.append(new Option(kb.name === kb.slug ? kb.slug : `${kb.name}（${kb.slug}）`, kb.slug));
  if (bases.some((kb) => kb.slug === "default")) select.value = "default";
  select.closest("label")!.hidden = bases.length < 2;
  select.addEventListener("change", () => void show().catch(failed));
  more.addEventListener("click", () => void append().catch(failed));
  await show();
}

/** Shows the chosen knowledge base, and lets the widget ask it. */
async function show(): Promise<void> {
  const kb = bases.find((b) => b.slug === select.value)!;
  document.querySelectorAll("chatgglm-widget").forEach((widget) => widget.setAttribute("kb", kb.slug));
  list.replaceChildren();
  last = "";
  summary(
    kb.documents
      ? `${numbers.format(kb.documents)} 份文档，分成 ${numbers.format(kb.chunks)} 个可检索的段落。点开可以看入库的全文。`
      : "这个知识库还是空的。用下面的命令加入文档，就可以提问了。",
  );
  snippets(kb.slug);
  await append();
}

/** Questions that the first documents hold become suggestions in the widget; the guide has set ones. */
async function suggest(rows: DocumentRow[]): Promise<void> {
  const others = rows.filter((row) => !GUIDE[row.path]).slice(0, SUGGESTING);
  const texts = await Promise.all(
    others.map((row) => {
      const end = Math.min(row.chars ?? 0, SUGGESTING_CHARS);
      return get<DocumentText>(`v1/documents/${encodeURIComponent(row.id)}/text?start=0&end=${end}`);
    }),
  );
  const found = texts.flatMap(({ text }) => questionLines(text)[0]?.text ?? []);
  const guide = rows.flatMap((row) => GUIDE[row.path] ?? []);
  const questions = [...new Set([...found, ...guide])].slice(0, 4).join("|");
  document.querySelectorAll("chatgglm-widget").forEach((widget) => widget.setAttribute("suggestions", questions));
}

async function append(): Promise<void> {
  const query = new URLSearchParams({ kb: select.value, limit: String(PAGE) });
  if (last) query.set("after", last);
  const page = await get<Listing<DocumentRow>>(`v1/documents?${query}`);
  list.append(...page.data.map(card));
  if (!last) void suggest(page.data).catch(() => {});
  last = page.last_id ?? "";
  more.hidden = !page.has_more;
}

function card(row: DocumentRow): HTMLLIElement {
  const item = document.createElement("li");
  const link = document.createElement("a");
  link.href = `viewer.html?document=${encodeURIComponent(row.id)}`;
  const title = document.createElement("b");
  title.textContent = row.title || row.path;
  const facts = document.createElement("span");
  const size = row.chars ? `${numbers.format(row.chars)} 字` : "";
  const date = new Date(row.updated_at).toLocaleDateString("zh-CN");
  facts.textContent = [size, row.pages > 1 ? `${row.pages} 页` : "", date].filter(Boolean).join(" · ");
  const path = document.createElement("span");
  path.textContent = row.path;
  link.append(title, path, facts);
  item.append(link);
  return item;
}

function snippets(kb = "default"): void {
  element("snippet").textContent = `<script src="${base}widget.js" data-kb="${kb}" data-title="文档问答"></` + "script>";
  element("curl").textContent =
    `curl ${base}v1/ask -H 'Content-Type: application/json' \\\n  -d '{"question": "怎么添加文档？", "kb": "${kb}"}'`;
}

function summary(text: string): void {
  element("summary").textContent = text;
}

function failed(error: unknown): void {
  summary(error instanceof TypeError ? "连不上服务器。请确认服务已启动，再刷新本页。" : (error as Error).message);
}

for (const button of document.querySelectorAll<HTMLButtonElement>(".copy")) {
  button.addEventListener("click", async () => {
    const text = button.parentElement?.querySelector("code")?.textContent ?? "";
    await navigator.clipboard.writeText(text).catch(() => {});
    button.textContent = "已复制";
    setTimeout(() => (button.textContent = "复制"), 1500);
  });
}

element("try").addEventListener("click", () => {
  let widget = document.querySelector<HTMLElement & { open(): void }>("chatgglm-widget[mode=floating]");
  if (!widget) {
    widget = document.createElement("chatgglm-widget") as HTMLElement & { open(): void };
    widget.setAttribute("kb", select.value || "default");
    document.body.append(widget);
  }
  widget.open();
});

main().catch(failed);
