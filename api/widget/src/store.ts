/** Conversations kept in this browser: nothing is written before the first question. */

import type { Answer, Passage, Turn } from "./wire";

export interface UserMessage {
  role: "user";
  text: string;
}

export interface AssistantMessage {
  role: "assistant";
  /** What has arrived so far; the answer's display in the end. */
  text: string;
  state: "waiting" | "streaming" | "done" | "stopped" | "failed";
  answer?: Answer;
  found?: Passage[];
  messageId?: string;
  rating?: "up" | "down" | null;
  error?: string;
}

export type Message = UserMessage | AssistantMessage;

export interface Conversation {
  /** Id in this browser. */
  id: string;
  /** Id on the server; empty until the first question has been taken there. */
  serverId: string;
  updated: number;
  messages: Message[];
}

const MAX_CONVERSATIONS = 20;
const MAX_MESSAGES = 60;
const HISTORY_TURNS = 12;

export class Store {
  conversations: Conversation[] = [];

  constructor(private readonly key: string) {
    this.conversations = this.read().map(settled);
  }

  /** Puts a conversation first and saves all, those of other tabs too. */
  save(conversation: Conversation): void {
    conversation.updated = Date.now();
    conversation.messages = conversation.messages.slice(-MAX_MESSAGES);
    this.merge(conversation.id);
    this.conversations = [conversation, ...this.conversations].slice(0, MAX_CONVERSATIONS);
    this.write();
  }

  remove(id: string): void {
    this.merge(id);
    this.write();
  }

  /** Takes over what other tabs have saved meanwhile; leaves out `except`. Objects in use stay the same. */
  merge(except = ""): void {
    const mine = new Map(this.conversations.map((c) => [c.id, c]));
    this.conversations = this.read()
      .filter((c) => c.id !== except)
      .map((c) => {
        const known = mine.get(c.id);
        return known && known.updated >= c.updated ? known : c;
      });
  }

  private read(): Conversation[] {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      return Array.isArray(stored) ? stored.filter(wellFormed) : [];
    } catch {
      return this.conversations; // Storage is off or damaged: the widget remembers for this page only.
    }
  }

  get token(): string {
    try {
      return localStorage.getItem(this.key + ":token") ?? "";
    } catch {
      return "";
    }
  }

  set token(token: string) {
    try {
      localStorage.setItem(this.key + ":token", token);
    } catch {
      // See the constructor.
    }
  }

  private write(): void {
    for (let keep = this.conversations.length; keep >= 0; keep--) {
      try {
        localStorage.setItem(this.key, JSON.stringify(this.conversations.slice(0, keep)));
        return;
      } catch {
        // Over quota: drop the oldest and try again. Storage off: ends at zero.
      }
    }
  }
}

export function newConversation(): Conversation {
  return { id: `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`, serverId: "", updated: 0, messages: [] };
}

/** The finished exchanges, as the API takes them. */
export function turns(messages: Message[]): Turn[] {
  const result: Turn[] = [];
  messages.forEach((message, i) => {
    const reply = messages[i + 1];
    if (message.role !== "user" || reply?.role !== "assistant" || reply.state !== "done") return;
    result.push({ role: "user", content: message.text });
    result.push({ role: "assistant", content: reply.answer?.answer || reply.text });
  });
  return result.slice(-HISTORY_TURNS);
}

function wellFormed(value: unknown): value is Conversation {
  const c = value as Conversation;
  return Boolean(c && typeof c.id === "string" && Array.isArray(c.messages));
}

/** The page was left while an answer was on its way. */
function settled(conversation: Conversation): Conversation {
  for (const message of conversation.messages) {
    if (message.role === "assistant" && (message.state === "waiting" || message.state === "streaming")) {
      message.state = "stopped";
    }
  }
  return conversation;
}
