/**
 * Script tag: `<script src="http://…/widget.js" data-kb="default" data-title="…"></script>`.
 *
 * `data-target="#id"` puts the widget into that element, `data-mode="inline"` makes it part of the page
 * (behind the script where there is no target). `window.ChatGGLM` is the widget's element.
 */

import { type ChatGGLMWidget, setDefaultBase } from "./element";
import { define, mount } from "./mount";

declare global {
  interface Window {
    ChatGGLM?: ChatGGLMWidget;
  }
}

const script = document.currentScript as HTMLScriptElement | null;
if (script?.src) setDefaultBase(new URL(".", script.src).href);

function start(): void {
  const { title, target, open, ...rest } = script?.dataset ?? {};
  const inline = rest.mode === "inline";
  let parent: Element | null = target ? document.querySelector(target) : null;
  if (!parent && inline && script) {
    parent = document.createElement("div");
    script.after(parent);
  }
  const widget = mount({ heading: title, ...rest, open: open !== undefined && open !== "false" }, parent ?? document.body);
  window.ChatGGLM ??= widget;
}

define();
if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start, { once: true });
else start();
