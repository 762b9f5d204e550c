/** Line icons, 24 × 24, drawn in the text's colour. */

import { svg, html, type TemplateResult } from "lit";

function icon(body: TemplateResult): TemplateResult {
  return html`<svg viewBox="0 0 24 24" width="20" height="20" fill="none" stroke="currentColor" stroke-width="1.8"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">${body}</svg>`;
}

export const icons = {
  chat: icon(svg`<path d="M20 11.5a7.5 7.5 0 0 1-7.5 7.5H5l1.6-2.4A7.5 7.5 0 1 1 20 11.5Z"/><path d="M9 10h7M9 13.5h4.5"/>`),
  close: icon(svg`<path d="M6 6l12 12M18 6 6 18"/>`),
  send: icon(svg`<path d="M12 19V5M6 11l6-6 6 6"/>`),
  stop: icon(svg`<rect x="7" y="7" width="10" height="10" rx="2" fill="currentColor" stroke="none"/>`),
  plus: icon(svg`<path d="M12 5v14M5 12h14"/>`),
  history: icon(svg`<path d="M4.5 12a7.5 7.5 0 1 0 2.4-5.5L4.5 8.5V4.5M12 8v4.3l2.8 1.7"/>`),
  up: icon(svg`<path d="M7 11v8H4.5v-8H7Zm0 0 4-7c1.5 0 2.3 1 2 2.4L12.4 10h5.4c1.3 0 2.2 1.2 1.8 2.4l-1.6 5c-.3 1-1.1 1.6-2.1 1.6H7"/>`),
  down: icon(svg`<path d="M17 13V5h2.5v8H17Zm0 0-4 7c-1.5 0-2.3-1-2-2.4l.6-3.6H6.2c-1.3 0-2.2-1.2-1.8-2.4l1.6-5C6.3 5.6 7.1 5 8.1 5H17"/>`),
  retry: icon(svg`<path d="M19.5 12a7.5 7.5 0 1 1-2.4-5.5l2.4 2M19.5 4.5v4h-4"/>`),
  copy: icon(svg`<rect x="9" y="9" width="10" height="10" rx="2"/><path d="M15 9V7a2 2 0 0 0-2-2H7a2 2 0 0 0-2 2v6a2 2 0 0 0 2 2h2"/>`),
  check: icon(svg`<path d="m5 12.5 4.5 4.5L19 7.5"/>`),
  file: icon(svg`<path d="M13.5 4H7.5A1.5 1.5 0 0 0 6 5.5v13A1.5 1.5 0 0 0 7.5 20h9a1.5 1.5 0 0 0 1.5-1.5V8.5L13.5 4Z"/><path d="M13.5 4v4.5H18M9 12.5h6M9 16h4"/>`),
  external: icon(svg`<path d="M13.5 5H19v5.5M19 5l-8 8M17 14v3.5a1.5 1.5 0 0 1-1.5 1.5h-9A1.5 1.5 0 0 1 5 17.5v-9A1.5 1.5 0 0 1 6.5 7H10"/>`),
  left: icon(svg`<path d="m14.5 6-6 6 6 6"/>`),
  right: icon(svg`<path d="m9.5 6 6 6-6 6"/>`),
  trash: icon(svg`<path d="M5 7h14M10 7V5h4v2M7 7l.8 11.5a1 1 0 0 0 1 1h6.4a1 1 0 0 0 1-1L17 7M10.5 11v5M13.5 11v5"/>`),
  alert: icon(svg`<circle cx="12" cy="12" r="8"/><path d="M12 8v4.5M12 15.8v.01"/>`),
  search: icon(svg`<circle cx="11" cy="11" r="6"/><path d="m15.5 15.5 4 4"/>`),
};
