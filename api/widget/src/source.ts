/** The sheet that shows a cited place in its document. */

import { html, nothing, type TemplateResult } from "lit";
import type { Client } from "./client";
import type { Translator } from "./i18n";
import { icons } from "./icons";
import type { Citation, Passage, Place } from "./wire";

const CONTEXT_CHARS = 180;

export interface Context {
  before: string;
  quote: string;
  after: string;
  cutBefore: boolean;
  cutAfter: boolean;
}

export interface Sheet {
  places: Place[];
  /** Number shown for each place; empty for passages that are not cited. */
  numbers: string[];
  index: number;
  /** undefined: loading; null: could not be loaded. */
  context: Context | null | undefined;
}

export function placeOfPassage(passage: Passage): Place {
  return { ...passage, quote: passage.text };
}

/** One place for each marker, in order. */
export function citedPlaces(citations: Citation[]): { place: Place; marker: number }[] {
  const seen = new Map<number, Place>();
  for (const citation of citations) if (!seen.has(citation.marker)) seen.set(citation.marker, citation);
  return [...seen].map(([marker, place]) => ({ marker, place })).sort((a, b) => a.marker - b.marker);
}

/** The text around a place, checked against its quote. */
export async function loadContext(client: Client, place: Place): Promise<Context> {
  const from = Math.max(0, place.char_start - CONTEXT_CHARS);
  const part = await client.text(place.document_id, place.version_id, from, place.char_end + CONTEXT_CHARS);
  const chars = Array.from(part.text);
  const start = place.char_start - part.start;
  const end = place.char_end - part.start;
  const quote = chars.slice(start, end).join("");
  if (quote !== place.quote) throw new Error("the stored text has changed");
  return {
    before: chars.slice(0, start).join(""),
    quote,
    after: chars.slice(end).join(""),
    cutBefore: part.start > 0,
    cutAfter: part.end < part.total_chars,
  };
}

/** «《title》 · page 3», as plain text. */
export function placeName(place: Place, words: Translator): string {
  const page = place.page ? ` · ${words.t("page", { n: place.page })}` : "";
  return place.title + page;
}

export function sheetView(
  sheet: Sheet,
  client: Client,
  words: Translator,
  act: { show(index: number): void; close(): void },
): TemplateResult {
  const place = sheet.places[sheet.index]!;
  const number = sheet.numbers[sheet.index];
  const many = sheet.places.length > 1;
  const { context } = sheet;
  return html`
    <section class="sheet" role="dialog" aria-modal="true" aria-labelledby="sheet-title">
      <header class="sheet-head">
        <h2 id="sheet-title">
          ${number ? html`<span class="chip static" aria-label="${words.t("source")} ${number}">${number}</span>` : nothing}
          <span>${place.title}</span>
        </h2>
        <button class="icon" type="button" data-focus aria-label=${words.t("back")} title=${words.t("back")} @click=${act.close}>
          ${icons.close}
        </button>
      </header>
      <p class="where">
        ${place.page ? html`<span>${words.t("page", { n: place.page })}</span>` : nothing}
        ${place.heading ? html`<span>${place.heading}</span>` : nothing}
        <span class="path">${place.path}</span>
      </p>
      <div class="context" tabindex="0" role="region" aria-label=${words.t("fromSource")} aria-busy=${context === undefined}
        >${context
          ? html`${context.cutBefore ? "…" : ""}${context.before}<mark>${context.quote}</mark>${context.after}${context.cutAfter ? "…" : ""}`
          : html`<mark>${place.quote}</mark>`}</div>
      ${context === undefined ? html`<p class="note">${words.t("loading")}</p>` : nothing}
      ${context === null ? html`<p class="note">${words.t("quoteOnly")}</p>` : nothing}
      <footer class="sheet-foot">
        ${many
          ? html`<button class="icon" type="button" aria-label=${words.t("previous")} title=${words.t("previous")}
                ?disabled=${sheet.index === 0} @click=${() => act.show(sheet.index - 1)}>${icons.left}</button>
              <span class="count">${sheet.index + 1} / ${sheet.places.length}</span>
              <button class="icon" type="button" aria-label=${words.t("next")} title=${words.t("next")}
                ?disabled=${sheet.index === sheet.places.length - 1} @click=${() => act.show(sheet.index + 1)}>${icons.right}</button>`
          : nothing}
        <a class="link" target="_blank" rel="noopener"
          href=${client.viewer(place.document_id, place.version_id, place.char_start, place.char_end)}>
          ${words.t("openDocument")} ${icons.external}
        </a>
      </footer>
    </section>
  `;
}
