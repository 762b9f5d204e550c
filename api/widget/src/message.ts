/** How a message looks: an answer with chips and quotes, an honest refusal, an error. */

import { html, nothing, type TemplateResult } from "lit";
import type { Translator } from "./i18n";
import { icons } from "./icons";
import { questionLines } from "./questions";
import { protectAnyMarkers, protectMarkers, render, splitDisplay, type Quote } from "./markdown";
import { citedPlaces, placeName, placeOfPassage } from "./source";
import type { AssistantMessage, Message } from "./store";
import type { Answer, Citation, Passage, Place } from "./wire";

export interface Actions {
  /** Opens the sheet at one of several places; `opener` gets the focus back. */
  show(places: Place[], numbers: string[], index: number): void;
  ask(question: string): void;
  retry(): void;
  rate(message: AssistantMessage, rating: "up" | "down"): void;
  copy(message: AssistantMessage): void;
}

const NEAREST = 3;
const bodies = new WeakMap<AssistantMessage, { key: string; node: HTMLElement }>();

export function messageView(
  message: Message,
  last: boolean,
  copied: boolean,
  words: Translator,
  act: Actions,
): TemplateResult {
  if (message.role === "user") {
    return html`<article class="message user">
      <span class="sr">${words.t("you")}</span>
      <p>${message.text}</p>
    </article>`;
  }
  return html`<article class="message assistant" aria-busy=${message.state === "waiting" || message.state === "streaming"}>
    <span class="sr">${words.t("reply")}</span>
    ${replyView(message, words, act)}
    ${message.state === "stopped" ? html`<p class="note">${words.t("stopped")}</p>` : nothing}
    ${message.state === "failed"
      ? html`<p class="problem">${icons.alert}<span>${message.error}</span></p>`
      : nothing}
    ${message.state === "waiting" || message.state === "streaming" ? nothing : toolbar(message, last, copied, words, act)}
  </article>`;
}

function replyView(message: AssistantMessage, words: Translator, act: Actions): TemplateResult {
  const { answer } = message;
  if (answer && !answer.answerable) return refusalView(answer, words, act);
  if (!message.text) {
    if (message.state !== "waiting") return html``;
    const n = message.found?.length ?? 0;
    return html`<p class="waiting">
      <span class="dots" aria-hidden="true"><i></i><i></i><i></i></span>
      ${n ? words.t("reading", { n }) : words.t("searching")}
    </p>`;
  }
  const { quotes } = splitDisplay(message.text);
  return html`
    ${answer?.reason === "sources_disagree"
      ? html`<p class="warning">${icons.alert}<span>${words.t("disagree")}</span></p>`
      : nothing}
    ${body(message, words, act)}
    ${quotes.map((quote) => quoteView(quote, answer, words, act))}
    ${answer ? sourcesView(answer, words, act) : nothing}
  `;
}

/** The answer's Markdown with its chips, made once for each state of the text. */
function body(message: AssistantMessage, words: Translator, act: Actions): HTMLElement {
  const { answer, text } = message;
  const key = `${answer ? 1 : 0}:${text}`;
  const known = bodies.get(message);
  if (known?.key === key) return known.node;
  let { head } = splitDisplay(text);
  if (answer?.reason === "sources_disagree") head = head.replace(/^不同资料的说法不一致：\s*/, "");
  const protectedHead = answer ? protectMarkers(head, answer.answer, answer.citations) : protectAnyMarkers(head);
  const node = document.createElement("div");
  node.className = "markdown";
  node.append(render(protectedHead, (marker) => chip(marker, answer, words, act)));
  bodies.set(message, { key, node });
  return node;
}

function chip(marker: number, answer: Answer | undefined, words: Translator, act: Actions): HTMLElement {
  const places = citedPlaces(answer?.citations ?? []);
  const index = places.findIndex((p) => p.marker === marker);
  if (index < 0) {
    const pending = document.createElement("span");
    pending.className = "chip static";
    pending.textContent = String(marker);
    return pending;
  }
  const button = document.createElement("button");
  button.type = "button";
  button.className = "chip";
  button.textContent = String(marker);
  const { place } = places[index]!;
  button.title = `${placeName(place, words)}\n${place.quote}`;
  button.setAttribute("aria-label", words.t("sourceN", { n: marker, title: placeName(place, words) }));
  button.addEventListener("click", () => showCited(answer!, index, act));
  return button;
}

function showCited(answer: Answer, index: number, act: Actions): void {
  const places = citedPlaces(answer.citations);
  act.show(
    places.map((p) => p.place),
    places.map((p) => String(p.marker)),
    index,
  );
}

function quoteView(quote: Quote, answer: Answer | undefined, words: Translator, act: Actions): TemplateResult {
  const cited = answer?.citations.filter((c) => c.marker === quote.marker) ?? [];
  const inside = cited.map((c) => c.quote).find((text) => quote.text.includes(text));
  const at = inside ? quote.text.indexOf(inside) : -1;
  return html`<blockquote class="quote">
    <span class="label">${words.t("fromSource")}</span>
    <p>${inside && at >= 0
      ? html`${quote.text.slice(0, at)}<b>${inside}</b>${quote.text.slice(at + inside.length)}`
      : quote.text}${chip(quote.marker, answer, words, act)}</p>
  </blockquote>`;
}

function sourcesView(answer: Answer, words: Translator, act: Actions): TemplateResult | typeof nothing {
  const places = citedPlaces(answer.citations);
  if (!places.length) return nothing;
  const related = uncited(answer).slice(0, NEAREST);
  return html`
    <ul class="sources" aria-label=${words.t("sources")}>
      ${places.map(
        ({ place, marker }, i) => html`<li>
          <button type="button" class="source" @click=${() => showCited(answer, i, act)}>
            <span class="chip static" aria-hidden="true">${marker}</span>
            <span class="name">${placeName(place, words)}</span>
          </button>
        </li>`,
      )}
    </ul>
    ${related.length
      ? html`<details class="related">
          <summary>${words.t("related")} (${related.length})</summary>
          ${passagesView(related, words, act)}
        </details>`
      : nothing}
  `;
}

/** Passages that were found, but that the answer does not quote. */
function uncited(answer: Answer | undefined): Passage[] {
  const cites = (p: Passage) => (c: Citation) =>
    c.document_id === p.document_id && c.char_start < p.char_end && p.char_start < c.char_end;
  return answer?.passages.filter((p) => !answer.citations.some(cites(p))) ?? [];
}

function refusalView(answer: Answer, words: Translator, act: Actions): TemplateResult {
  const nearest = answer.passages.slice(0, NEAREST);
  return html`<div class="refusal">
    <p class="verdict">${icons.search}<span>${answer.answer || words.t("refused")}</span></p>
    ${nearest.length
      ? html`<p class="label">${words.t("nearest")}</p>${passagesView(nearest, words, act)}`
      : nothing}
  </div>`;
}

function passagesView(passages: Passage[], words: Translator, act: Actions): TemplateResult {
  const places = passages.map(placeOfPassage);
  return html`<ul class="passages">
    ${places.map(
      (place, i) => html`<li>
        <button type="button" class="passage" @click=${() => act.show(places, places.map(() => ""), i)}>
          <span class="name">${icons.file}<span>${placeName(place, words)}</span></span>
          ${lastHeading(place) ? html`<span class="heading">${lastHeading(place)}</span>` : nothing}
          <span class="snippet">${snippet(place)}</span>
        </button>
      </li>`,
    )}
  </ul>`;
}

/** The passage in one line, without the title that it may begin with. */
function snippet(place: Place): string {
  const text = place.quote.trim();
  const body = text.startsWith(`${place.title}\n`) ? text.slice(place.title.length) : text;
  return (body.trim() || text).replace(/\s+/g, " ").slice(0, 140);
}

function lastHeading(place: Place): string {
  const heading = place.heading?.split(" › ").at(-1) ?? "";
  return heading === place.title ? "" : heading;
}

function toolbar(message: AssistantMessage, last: boolean, copied: boolean, words: Translator, act: Actions): TemplateResult {
  const button = (name: "up" | "down") => html`<button type="button" class="tool" aria-label=${words.t(name)} title=${words.t(name)}
    aria-pressed=${message.rating === name} @click=${() => act.rate(message, name)}>${icons[name]}</button>`;
  return html`<div class="tools">
    ${message.text
      ? html`<button type="button" class="tool" aria-label=${words.t(copied ? "copied" : "copy")} title=${words.t("copy")}
          @click=${() => act.copy(message)}>${copied ? icons.check : icons.copy}</button>`
      : nothing}
    ${message.state === "done" && message.messageId ? html`${button("up")}${button("down")}` : nothing}
    ${last
      ? html`<button type="button" class="tool" aria-label=${words.t("retry")} title=${words.t("retry")} @click=${act.retry}>
          ${icons.retry}${message.state === "done" ? nothing : html`<span>${words.t("retry")}</span>`}
        </button>`
      : nothing}
  </div>`;
}

/** Questions to go on with: those that the cited documents answer nearby (FAQ lines), then the page's own. */
export function followUps(messages: Message[], configured: string[], count = 3): string[] {
  const asked = new Set(messages.flatMap((m) => (m.role === "user" ? [m.text] : [])));
  const last = messages.at(-1);
  if (last?.role !== "assistant" || last.state !== "done") return [];
  const { passages = [], citations = [] } = last.answer ?? {};
  const near = passages.filter((p) => citations.some((c) => c.document_id === p.document_id));
  const found = near.flatMap((passage) => {
    const questions = questionLines(passage.text);
    // The question right above a quote is the one that was just answered.
    const answered = citations
      .filter((c) => c.document_id === passage.document_id && c.char_end <= passage.char_end)
      .map((c) => questions.findLast((q) => passage.char_start + q.start < c.char_start)?.text);
    return questions.map((q) => q.text).filter((text) => !answered.includes(text));
  });
  return [...new Set([...found, ...configured])].filter((q) => !asked.has(q)).slice(0, count);
}
