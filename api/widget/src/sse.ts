/** Server-sent events over fetch (EventSource can neither POST nor send a token). */

export interface ServerEvent {
  event: string;
  data: string;
}

/** The events of a response body, as they arrive. Comment lines (heartbeats) are skipped. */
export async function* events(body: ReadableStream<Uint8Array>): AsyncGenerator<ServerEvent> {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let buffer = "";
  let event = "";
  let data: string[] = [];
  try {
    for (;;) {
      const { done, value } = await reader.read();
      buffer += done ? decoder.decode() + "\n\n" : decoder.decode(value, { stream: true });
      let cut: RegExpExecArray | null;
      // A lone CR at the very end may be half of a CRLF: wait for the next chunk.
      while ((cut = /\r\n|\n|\r(?!$)/.exec(buffer))) {
        const line = buffer.slice(0, cut.index);
        buffer = buffer.slice(cut.index + cut[0].length);
        if (line === "") {
          if (data.length) yield { event: event || "message", data: data.join("\n") };
          event = "";
          data = [];
          continue;
        }
        const colon = line.indexOf(":");
        if (colon === 0) continue;
        const field = colon < 0 ? line : line.slice(0, colon);
        const text = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
        if (field === "event") event = text;
        else if (field === "data") data.push(text);
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
