/** <chatgglm-widget>: the launcher, the panel and what happens in it. */

import { html, LitElement, nothing, unsafeCSS, type PropertyValues, type TemplateResult } from "lit";
import { Chat } from "./chat";
import { Client } from "./client";
import { language, Translator } from "./i18n";
import { icons } from "./icons";
import { followUps, messageView, type Actions } from "./message";
import { loadContext, sheetView, type Sheet } from "./source";
import { Store, type AssistantMessage } from "./store";
import type { Place } from "./wire";
import css from "./widget.css?inline";

const MAX_QUESTION = 1000;
const SEPARATOR = /\s*[|｜\n]\s*/;

let defaultBase = "";

/** Where the server is for elements without a `base` attribute. */
export function setDefaultBase(base: string): void {
  defaultBase ||= base;
}

export class ChatGGLMWidget extends LitElement {
  static styles = unsafeCSS(css);
  static properties = {
    base: {},
    kb: {},
    site: {},
    heading: {},
    greeting: {},
    placeholder: {},
    suggestions: {},
    mode: { reflect: true },
    theme: {},
    position: { reflect: true },
    lang: {},
    opened: { type: Boolean, reflect: true },
    sheet: { state: true },
    drawer: { state: true },
    draft: { state: true },
    status: { state: true },
    copied: { state: true },
  };

  /** Address of the server; where the script came from, if left out. */
  declare base: string;
  /** Knowledge base; the server's choice, if left out. */
  declare kb: string;
  /** Id of the registered site, for pages on other servers. */
  declare site: string;
  declare heading: string;
  declare greeting: string;
  declare placeholder: string;
  /** Questions to start with, separated by `|`. */
  declare suggestions: string;
  /** `floating` (a button in the corner) or `inline` (part of the page). */
  declare mode: string;
  /** `auto`, `light` or `dark`. */
  declare theme: string;
  /** `right` or `left`. */
  declare position: string;
  declare lang: string;
  declare opened: boolean;

  private declare sheet: Sheet | null;
  private declare drawer: boolean;
  private declare draft: string;
  private declare status: string;
  private declare copied: AssistantMessage | null;

  private words!: Translator;
  private client!: Client;
  private chat!: Chat;
  private opener: HTMLElement | null = null;
  private follow = true;
  private readonly darkness = matchMedia("(prefers-color-scheme: dark)");

  constructor() {
    super();
    this.base = this.kb = this.site = this.heading = this.greeting = this.placeholder = this.suggestions = "";
    this.mode = "floating";
    this.theme = "auto";
    this.position = "right";
    this.lang = "";
    this.opened = this.drawer = false;
    this.sheet = this.copied = null;
    this.draft = this.status = "";
  }

  connectedCallback(): void {
    super.connectedCallback();
    this.darkness.addEventListener("change", this.applyTheme);
    visualViewport?.addEventListener("resize", this.fitViewport);
    visualViewport?.addEventListener("scroll", this.fitViewport);
  }

  disconnectedCallback(): void {
    super.disconnectedCallback();
    this.chat?.stop();
    this.darkness.removeEventListener("change", this.applyTheme);
    visualViewport?.removeEventListener("resize", this.fitViewport);
    visualViewport?.removeEventListener("scroll", this.fitViewport);
  }

  /** Starts over with another server, knowledge base or language. */
  private configure(): void {
    this.chat?.stop();
    const base = new URL(this.base || defaultBase || "/", location.href);
    base.search = base.hash = "";
    if (!base.pathname.endsWith("/")) base.pathname += "/";
    this.words = new Translator(language(this.lang || document.documentElement.lang || navigator.language));
    const store = new Store(`chatgglm:${base.host}${base.pathname}:${this.site}:${this.kb}`);
    this.client = new Client(
      { base: base.href, kb: this.kb, site: this.site },
      { load: () => store.token, save: (token) => (store.token = token) },
    );
    this.chat = new Chat(this.client, store, this.words, () => this.requestUpdate(), (reply) => this.ended(reply));
    this.drawer = false;
    this.sheet = null;
  }

  /** Opens the panel. */
  open(): void {
    if (this.inline || this.opened) return;
    this.opened = true;
    this.follow = true;
    this.announce("open");
    void this.updateComplete.then(() => this.input?.focus());
  }

  /** Closes the panel and gives the focus back to the button. */
  close(): void {
    if (this.inline || !this.opened) return;
    this.opened = this.drawer = false;
    this.sheet = null;
    this.announce("close");
    void this.updateComplete.then(() => this.root.querySelector<HTMLElement>(".launcher")?.focus());
  }

  toggle(): void {
    if (this.opened) this.close();
    else this.open();
  }

  /** Opens the panel and asks. */
  async ask(question: string): Promise<void> {
    if (!this.hasUpdated) await this.updateComplete;
    this.open();
    this.follow = true;
    this.announce("ask", { question });
    this.status = this.words.t("searching");
    await this.chat.ask(question);
  }

  stop(): void {
    this.chat?.stop();
  }

  newConversation(): void {
    this.drawer = false;
    this.sheet = null;
    this.chat.startNew();
    void this.updateComplete.then(() => this.input?.focus());
  }

  private get root(): ShadowRoot {
    return this.shadowRoot!;
  }

  private get inline(): boolean {
    return this.mode === "inline";
  }

  private get input(): HTMLTextAreaElement | null {
    return this.root.querySelector("textarea");
  }

  private readonly applyTheme = (): void => {
    const dark = this.theme === "dark" || (this.theme !== "light" && this.darkness.matches);
    this.toggleAttribute("dark", dark);
  };

  /** A phone's keyboard shrinks what is seen of the page, not the page: the panel follows. */
  private readonly fitViewport = (): void => {
    const seen = visualViewport;
    if (!seen || this.inline || !this.opened || seen.scale !== 1) return;
    this.style.setProperty("--_seen-top", `${seen.offsetTop}px`);
    this.style.setProperty("--_seen-height", `${seen.height}px`);
  };

  protected willUpdate(changes: PropertyValues): void {
    if (["base", "kb", "site", "lang"].some((name) => changes.has(name))) this.configure();
    if (changes.has("theme")) this.applyTheme();
  }

  protected updated(changes: PropertyValues): void {
    const log = this.root.querySelector<HTMLElement>(".log");
    if (log && this.follow) log.scrollTop = this.readingPosition(log);
    if (changes.has("sheet") && this.sheet) {
      const before = changes.get("sheet") as Sheet | null;
      if (!before) this.root.querySelector<HTMLElement>(".sheet [data-focus]")?.focus();
      const mark = this.root.querySelector<HTMLElement>(".context mark");
      const box = mark?.parentElement;
      if (mark && box) box.scrollTop = Math.max(0, mark.offsetTop - (box.clientHeight - mark.offsetHeight) / 2);
    }
    if (changes.has("drawer") && this.drawer) this.root.querySelector<HTMLElement>(".drawer [data-focus]")?.focus();
    if (changes.has("draft")) this.fit();
  }

  protected render(): TemplateResult {
    if (!this.inline && !this.opened) {
      const label = this.words.t("open");
      return html`<button class="launcher" type="button" aria-haspopup="dialog" aria-expanded="false" aria-label=${label} title=${label} @click=${this.open}>
        ${icons.chat}
      </button>`;
    }
    const covered = this.sheet !== null || this.drawer;
    return html`<div class="panel ${this.inline ? "inline" : ""}" part="panel" lang=${this.words.language}
      role=${this.inline ? "region" : "dialog"} aria-modal=${this.inline ? nothing : "true"} aria-labelledby="title" @keydown=${this.onKey}>
      ${this.headView()}
      <div class="main">
        <div class="main" ?inert=${covered}>${this.logView()}${this.askView()}</div>
        ${this.drawer ? this.drawerView() : nothing}
        ${this.sheet
          ? html`<div class="scrim" @click=${this.closeSheet}></div>
              ${sheetView(this.sheet, this.client, this.words, { show: (i) => this.showPlace(i), close: () => this.closeSheet() })}`
          : nothing}
      </div>
      <div class="sr" role="status" aria-live="polite">${this.status}</div>
    </div>`;
  }

  private headView(): TemplateResult {
    const { words } = this;
    const button = (label: string, icon: TemplateResult, act: () => void, disabled = false) =>
      html`<button class="icon" type="button" aria-label=${label} title=${label} ?disabled=${disabled} @click=${act}>${icon}</button>`;
    return html`<div class="head">
      <span class="logo" aria-hidden="true">${icons.chat}</span>
      <h2 id="title">${this.heading || words.t("title")}</h2>
      ${button(words.t("newChat"), icons.plus, () => this.newConversation(), this.chat.messages.length === 0)}
      ${button(words.t("history"), icons.history, () => this.openDrawer())}
      ${this.inline ? nothing : button(words.t("close"), icons.close, () => this.close())}
    </div>`;
  }

  private logView(): TemplateResult {
    const { words, chat } = this;
    const act: Actions = {
      show: (places, numbers, index) => this.openSheet(places, numbers, index),
      ask: (question) => void this.ask(question),
      retry: () => {
        this.follow = true;
        void chat.retry();
      },
      rate: (message, rating) => void this.rate(message, rating),
      copy: (message) => void this.copy(message),
    };
    const configured = this.suggestions.split(SEPARATOR).filter(Boolean);
    const next = followUps(chat.messages, configured);
    return html`<div class="log" role="log" aria-live="off" aria-label=${words.t("log")} tabindex="0" @scroll=${this.onScroll}>
      ${chat.messages.length
        ? chat.messages.map((message, i) =>
            messageView(message, i === chat.messages.length - 1, this.copied === message, words, act),
          )
        : html`<div class="greeting">
            <p class="hello">${this.greeting || words.t("greeting")}</p>
            ${this.suggestionsView(configured.slice(0, 6))}
          </div>`}
      ${chat.messages.length && !chat.busy ? this.suggestionsView(next) : nothing}
    </div>`;
  }

  private suggestionsView(questions: string[]): TemplateResult | typeof nothing {
    if (!questions.length) return nothing;
    return html`<div class="suggestions" role="group" aria-label=${this.words.t("suggestions")}>
      ${questions.map((q) => html`<button type="button" class="suggestion" @click=${() => this.ask(q)}>${q}</button>`)}
    </div>`;
  }

  private askView(): TemplateResult {
    const { words, chat } = this;
    return html`<form class="ask" @submit=${this.onSubmit}>
      <div class="box">
        <textarea rows="1" maxlength=${MAX_QUESTION} aria-label=${words.t("input")} enterkeyhint="send" autocomplete="off"
          placeholder=${this.placeholder || words.t("placeholder")} .value=${this.draft}
          @input=${(e: InputEvent) => (this.draft = (e.target as HTMLTextAreaElement).value)}
          @keydown=${this.onInputKey}></textarea>
        ${chat.busy
          ? html`<button class="go" type="button" aria-label=${words.t("stop")} title=${words.t("stop")} @click=${this.stop}>${icons.stop}</button>`
          : html`<button class="go" type="submit" aria-label=${words.t("send")} title=${words.t("send")} ?disabled=${!this.draft.trim()}>${icons.send}</button>`}
      </div>
      <p class="small">${words.t("disclaimer")}</p>
    </form>`;
  }

  private drawerView(): TemplateResult {
    const { words, chat } = this;
    const when = new Intl.DateTimeFormat(words.language, { dateStyle: "medium", timeStyle: "short" });
    return html`<section class="drawer" role="dialog" aria-modal="true" aria-labelledby="drawer-title">
      <header class="drawer-head">
        <button class="icon" type="button" data-focus aria-label=${words.t("back")} title=${words.t("back")} @click=${this.closeDrawer}>${icons.left}</button>
        <h2 id="drawer-title">${words.t("history")}</h2>
      </header>
      ${chat.past.length ? nothing : html`<p class="note">${words.t("noHistory")}</p>`}
      <ul>
        ${chat.past.map((c) => {
          const first = c.messages.find((m) => m.role === "user")?.text ?? "…";
          return html`<li class="past" ?data-current=${c.id === chat.conversation.id}>
            <button type="button" class="open" @click=${() => this.reopen(c.id)}>
              <span class="first">${first}</span><span class="when">${when.format(c.updated)}</span>
            </button>
            <button type="button" class="icon" aria-label="${words.t("remove")}：${first}" title=${words.t("remove")} @click=${() => this.forget(c.id)}>${icons.trash}</button>
          </li>`;
        })}
      </ul>
    </section>`;
  }

  private openSheet(places: Place[], numbers: string[], index: number): void {
    this.opener = this.root.activeElement as HTMLElement | null;
    this.sheet = { places, numbers, index, context: undefined };
    void this.loadPlace();
  }

  private showPlace(index: number): void {
    this.sheet = { ...this.sheet!, index, context: undefined };
    void this.loadPlace();
  }

  private async loadPlace(): Promise<void> {
    const sheet = this.sheet!;
    const context = await loadContext(this.client, sheet.places[sheet.index]!).catch(() => null);
    if (this.sheet === sheet) this.sheet = { ...sheet, context };
  }

  private closeSheet(): void {
    this.sheet = null;
    const { opener } = this;
    void this.updateComplete.then(() => opener?.focus());
  }

  private openDrawer(): void {
    this.opener = this.root.activeElement as HTMLElement | null;
    this.chat.refresh();
    this.drawer = true;
  }

  private closeDrawer(): void {
    this.drawer = false;
    const { opener } = this;
    void this.updateComplete.then(() => opener?.focus());
  }

  private reopen(id: string): void {
    this.drawer = false;
    this.follow = true;
    this.chat.open(id);
    void this.updateComplete.then(() => this.input?.focus());
  }

  private forget(id: string): void {
    this.chat.remove(id);
    void this.updateComplete.then(() => this.root.querySelector<HTMLElement>(".drawer [data-focus]")?.focus());
  }

  private async rate(message: AssistantMessage, rating: "up" | "down"): Promise<void> {
    if (await this.chat.rate(message, rating)) this.status = this.words.t("thanks");
  }

  private async copy(message: AssistantMessage): Promise<void> {
    try {
      await navigator.clipboard.writeText(message.text);
    } catch {
      return; // no permission, or an insecure page
    }
    this.copied = message;
    this.status = this.words.t("copied");
    setTimeout(() => (this.copied = null), 1500);
  }

  /** Says the outcome once, when it is complete, to those who hear it. */
  private ended(reply: AssistantMessage): void {
    const said = { done: reply.text, stopped: this.words.t("stopped"), failed: reply.error ?? "" } as Record<string, string>;
    this.status = said[reply.state] ?? "";
    if (reply.answer) this.announce("answer", reply.answer);
  }

  private onSubmit(event: Event): void {
    event.preventDefault();
    const question = this.draft.trim();
    if (!question || this.chat.busy) return;
    this.draft = "";
    void this.ask(question);
  }

  private onInputKey(event: KeyboardEvent): void {
    // Enter that ends an input method's composition must not send; Safari reports it as key code 229.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.keyCode === 229) return;
    this.onSubmit(event);
  }

  private onKey(event: KeyboardEvent): void {
    if (event.key === "Escape" && !event.isComposing) {
      if (this.sheet) this.closeSheet();
      else if (this.drawer) this.closeDrawer();
      else if (!this.inline) this.close();
      else return;
      event.stopPropagation();
    } else if (event.key === "Tab" && (!this.inline || this.sheet || this.drawer)) {
      this.keepFocus(event);
    }
  }

  /** Keeps Tab inside the dialog that is on top. */
  private keepFocus(event: KeyboardEvent): void {
    const top = this.root.querySelector(".sheet, .drawer") ?? this.root;
    const stops = [...top.querySelectorAll<HTMLElement>("button, a[href], textarea, summary, [tabindex='0']")].filter(
      (e) => !e.closest("[inert]") && !(e as HTMLButtonElement).disabled && e.getClientRects().length > 0,
    );
    const first = stops[0];
    const last = stops.at(-1);
    const active = this.root.activeElement;
    if (event.shiftKey ? active === first : active === last) {
      event.preventDefault();
      (event.shiftKey ? last : first)?.focus();
    }
  }

  private onScroll(event: Event): void {
    const log = event.target as HTMLElement;
    this.follow = Math.abs(log.scrollTop - this.readingPosition(log)) < 60;
  }

  /** The end of the conversation, but never past the last question: a long reply is read from its start. */
  private readingPosition(log: HTMLElement): number {
    const question = [...log.querySelectorAll<HTMLElement>(".user")].at(-1);
    const end = log.scrollHeight - log.clientHeight;
    return question ? Math.min(end, question.offsetTop - 16) : end;
  }

  private fit(): void {
    const { input } = this;
    if (!input) return;
    input.style.height = "auto";
    input.style.height = `${input.scrollHeight}px`;
  }

  /** Tells the page: chatgglm:open, :close, :ask, :answer. */
  private announce(name: string, detail: unknown = null): void {
    this.dispatchEvent(new CustomEvent(`chatgglm:${name}`, { detail, bubbles: true, composed: true }));
  }
}
