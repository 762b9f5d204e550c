/** Puts the widget on a page. */

import { ChatGGLMWidget } from "./element";

const ATTRIBUTES = ["base", "kb", "site", "heading", "greeting", "placeholder", "suggestions", "mode", "theme", "position", "lang"] as const;

export type WidgetOptions = Partial<Record<(typeof ATTRIBUTES)[number], string>> & { open?: boolean };

export function define(): void {
  if (!customElements.get("chatgglm-widget")) customElements.define("chatgglm-widget", ChatGGLMWidget);
}

/** Makes a widget with these options and puts it at the end of `parent`. */
export function mount(options: WidgetOptions = {}, parent: Element = document.body): ChatGGLMWidget {
  define();
  const widget = document.createElement("chatgglm-widget") as ChatGGLMWidget;
  for (const name of ATTRIBUTES) if (options[name] !== undefined) widget.setAttribute(name, options[name]);
  parent.append(widget);
  if (options.open) widget.open();
  return widget;
}
