/** The course of a conversation, without any display: ask, stream, stop, retry, remember. */

import { ApiError, type Client } from "./client";
import type { Translator } from "./i18n";
import { newConversation, turns, type AssistantMessage, type Conversation, type Message, type Store } from "./store";

export class Chat {
  conversation: Conversation;
  private abort: AbortController | null = null;

  constructor(
    private readonly client: Client,
    private readonly store: Store,
    private readonly words: Translator,
    private readonly changed: () => void,
    /** Called when a reply has ended, however it ended. */
    private readonly ended: (reply: AssistantMessage) => void,
  ) {
    this.conversation = store.conversations[0] ?? newConversation();
  }

  get messages(): Message[] {
    return this.conversation.messages;
  }

  get busy(): boolean {
    return this.abort !== null;
  }

  get past(): Conversation[] {
    return this.store.conversations;
  }

  /** Takes over what other tabs have saved. */
  refresh(): void {
    this.store.merge();
  }

  async ask(question: string): Promise<void> {
    if (this.busy || !question.trim()) return;
    const conversation = this.conversation;
    const reply: AssistantMessage = { role: "assistant", text: "", state: "waiting" };
    conversation.messages.push({ role: "user", text: question.trim() }, reply);
    const abort = (this.abort = new AbortController());
    this.store.save(conversation);
    this.changed();
    try {
      await this.receive(conversation, question.trim(), reply, abort.signal);
      reply.state = "done";
    } catch (error) {
      if (abort.signal.aborted) {
        reply.state = "stopped";
      } else {
        const known = error instanceof ApiError ? error : new ApiError("other", String(error));
        reply.state = "failed";
        reply.error = this.words.error(known.code, known.message);
      }
    } finally {
      if (this.abort === abort) this.abort = null;
      this.store.save(conversation);
      this.changed();
      this.ended(reply);
    }
  }

  stop(): void {
    this.abort?.abort();
  }

  /** Asks the last question again, in the place of its reply. */
  async retry(): Promise<void> {
    if (this.busy) return;
    const messages = this.messages;
    const last = messages.findLastIndex((m) => m.role === "user");
    const question = messages[last];
    if (question?.role !== "user") return;
    messages.splice(last);
    await this.ask(question.text);
  }

  startNew(): void {
    this.stop();
    if (this.messages.length) this.conversation = newConversation();
    this.changed();
  }

  open(id: string): void {
    this.stop();
    this.conversation = this.store.conversations.find((c) => c.id === id) ?? this.conversation;
    this.changed();
  }

  remove(id: string): void {
    const found = this.store.conversations.find((c) => c.id === id);
    if (found?.serverId) void this.client.deleteConversation(found.serverId).catch(() => {});
    this.store.remove(id);
    if (this.conversation.id === id) {
      this.stop();
      this.conversation = newConversation();
    }
    this.changed();
  }

  /** Sets a thumb, or takes it back where it was set already. Returns whether a thumb is set now. */
  async rate(message: AssistantMessage, rating: "up" | "down"): Promise<boolean> {
    const before = message.rating ?? null;
    const after = before === rating ? null : rating;
    message.rating = after;
    this.changed();
    try {
      await this.client.rate(message.messageId!, after);
      this.store.save(this.conversation);
    } catch {
      message.rating = before;
      this.changed();
    }
    return message.rating !== null;
  }

  private async receive(
    conversation: Conversation,
    question: string,
    reply: AssistantMessage,
    signal: AbortSignal,
  ): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      if (!conversation.serverId) conversation.serverId = await this.startOnServer(signal);
      try {
        const history = turns(conversation.messages);
        for await (const event of this.client.ask(question, conversation.serverId, history, signal)) {
          if (event.type === "start") {
            reply.messageId = event.message_id ?? undefined;
          } else if (event.type === "passages") {
            reply.found = event.passages;
          } else if (event.type === "delta") {
            reply.state = "streaming";
            reply.text += event.text;
          } else {
            reply.answer = event.answer;
            reply.text = event.answer.display;
            reply.messageId = event.answer.message_id ?? reply.messageId;
            reply.found = undefined;
          }
          this.changed();
        }
        return;
      } catch (error) {
        // The server forgot the conversation: start another one there, once.
        if (!(error instanceof ApiError) || error.status !== 404 || attempt > 0 || !conversation.serverId) throw error;
        conversation.serverId = "";
      }
    }
  }

  /** The server's id of a new conversation; empty where it keeps none, then the history is sent along. */
  private async startOnServer(signal: AbortSignal): Promise<string> {
    try {
      return await this.client.createConversation(signal);
    } catch (error) {
      if (error instanceof ApiError && (error.status === 405 || error.status === 404)) return "";
      throw error;
    }
  }
}
