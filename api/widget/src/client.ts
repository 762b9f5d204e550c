/** The widget's side of the HTTP API: sessions, questions, feedback, document text. */

import { events } from "./sse";
import type { Answer, DocumentText, Passage, Problem, Turn } from "./wire";

export interface Options {
  /** Where the server is, with a slash at the end. */
  base: string;
  /** Knowledge base; empty: the server's choice (the site's, or `default`). */
  kb: string;
  /** Id of the registered site; empty on the server's own pages. */
  site: string;
}

export type AskEvent =
  | { type: "start"; conversation_id: string | null; message_id: string | null }
  | { type: "passages"; passages: Passage[] }
  | { type: "delta"; text: string }
  | { type: "answer"; answer: Answer };

/** What the server (or the network) refused, with a stable code. */
export class ApiError extends Error {
  constructor(
    readonly code: string,
    message: string,
    readonly status = 0,
    readonly retryAfter = 0,
  ) {
    super(message);
  }
}

const MAX_RETRIES = 2;
const MAX_WAIT_S = 8;

export class Client {
  private token = "";
  private sessionKb = "";
  private opening: Promise<void> | null = null;

  constructor(
    readonly options: Options,
    private readonly tokens: { load(): string; save(token: string): void },
  ) {
    this.token = tokens.load();
  }

  /** A new conversation's id. */
  async createConversation(signal?: AbortSignal): Promise<string> {
    const response = await this.send("POST", "v1/conversations", this.withKb({}), signal);
    return ((await response.json()) as { id: string }).id;
  }

  async deleteConversation(id: string): Promise<void> {
    await this.send("DELETE", `v1/conversations/${encodeURIComponent(id)}`);
  }

  /** Asks and streams. Throws ApiError, also for an error inside the stream; AbortError when stopped. */
  async *ask(
    question: string,
    conversation: string,
    history: Turn[],
    signal: AbortSignal,
  ): AsyncGenerator<AskEvent> {
    const body = this.withKb({ question, stream: true });
    if (conversation) body.conversation_id = conversation;
    else body.history = history;
    const response = await this.send("POST", "v1/ask", body, signal, "text/event-stream");
    if (!response.body) throw new ApiError("network", "no body");
    let answered = false;
    for await (const { event, data } of events(response.body)) {
      const value = JSON.parse(data);
      if (event === "error") {
        const problem = value as Problem;
        throw new ApiError(problem.code ?? "internal_error", problem.detail ?? "", problem.status ?? 500);
      }
      if (event === "start") yield { type: "start", ...value };
      else if (event === "passages") yield { type: "passages", passages: value.passages };
      else if (event === "delta") yield { type: "delta", text: value.text };
      else if (event === "answer") {
        answered = true;
        yield { type: "answer", answer: value as Answer };
      } else if (event === "done") break;
    }
    if (!answered) throw new ApiError("interrupted", "the stream ended before the answer");
  }

  /** Sets or takes back a thumb. */
  async rate(message: string, rating: "up" | "down" | null): Promise<void> {
    if (rating) await this.send("POST", "v1/feedback", { message_id: message, rating });
    else await this.send("DELETE", `v1/feedback/${encodeURIComponent(message)}`);
  }

  /** A stretch of a document's stored text. */
  async text(document: string, version: number | undefined, start: number, end: number): Promise<DocumentText> {
    const query = new URLSearchParams({ start: String(start), end: String(end) });
    if (version) query.set("version", String(version));
    const response = await this.send("GET", `v1/documents/${encodeURIComponent(document)}/text?${query}`);
    return (await response.json()) as DocumentText;
  }

  /** Address of the viewer page. The token travels in the fragment, which is sent to no server. */
  viewer(document: string, version: number | undefined, start: number, end: number): string {
    const query = new URLSearchParams({ document, start: String(start), end: String(end) });
    if (version) query.set("version", String(version));
    const fragment = this.token ? `#token=${encodeURIComponent(this.token)}` : "";
    return `${this.options.base}viewer.html?${query}${fragment}`;
  }

  private withKb(body: Record<string, unknown>): Record<string, unknown> {
    const kb = this.options.kb || this.sessionKb;
    return kb ? { ...body, kb } : body;
  }

  /** Foreign pages need a token; on the server's own pages it is got when the server asks for one. */
  private get foreign(): boolean {
    return Boolean(this.options.site) || new URL(this.options.base).origin !== location.origin;
  }

  private openSession(): Promise<void> {
    this.opening ??= (async () => {
      try {
        const body: Record<string, string> = {};
        if (this.options.site) body.site = this.options.site;
        if (this.token) body.token = this.token;
        const response = await this.fetch("POST", "v1/widget/sessions", body, undefined, "application/json");
        if (!response.ok) throw await problemOf(response);
        const session = (await response.json()) as { token: string; kb: string };
        this.token = session.token;
        this.sessionKb = session.kb;
        this.tokens.save(session.token);
      } finally {
        this.opening = null;
      }
    })();
    return this.opening;
  }

  private async send(
    method: string,
    path: string,
    body?: unknown,
    signal?: AbortSignal,
    accept = "application/json",
  ): Promise<Response> {
    if (this.foreign && !this.token) await this.openSession();
    let renewed = false;
    for (let attempt = 0; ; ) {
      const response = await this.fetch(method, path, body, signal, accept);
      if (response.ok) return response;
      const error = await problemOf(response);
      if (response.status === 401 && !renewed) {
        renewed = true;
        await this.openSession();
      } else if (
        (response.status === 429 || response.status === 503) &&
        attempt < MAX_RETRIES &&
        error.retryAfter > 0 &&
        error.retryAfter <= MAX_WAIT_S
      ) {
        attempt += 1;
        await pause(1000 * error.retryAfter, signal);
      } else {
        throw error;
      }
    }
  }

  private async fetch(
    method: string,
    path: string,
    body: unknown,
    signal: AbortSignal | undefined,
    accept: string,
  ): Promise<Response> {
    const headers: Record<string, string> = { Accept: accept };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    if (this.token) headers.Authorization = `Bearer ${this.token}`;
    try {
      return await fetch(this.options.base + path, {
        method,
        headers,
        body: body === undefined ? undefined : JSON.stringify(body),
        signal,
        credentials: "omit",
        cache: "no-store",
      });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new ApiError(this.foreign ? "unreachable" : "network", String(error));
    }
  }
}

async function problemOf(response: Response): Promise<ApiError> {
  const retryAfter = Number(response.headers.get("Retry-After")) || 0;
  try {
    const problem = (await response.json()) as Problem;
    return new ApiError(problem.code, problem.detail, response.status, retryAfter);
  } catch {
    return new ApiError("http_" + response.status, response.statusText, response.status, retryAfter);
  }
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    });
  });
}
