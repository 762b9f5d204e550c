/** What the server sends; see docs/api.md. Offsets are Unicode code points, half open. */

export interface Passage {
  chunk_id: number;
  document_id: string;
  version_id?: number;
  title: string;
  path: string;
  page: number | null;
  heading?: string;
  char_start: number;
  char_end: number;
  text: string;
  score: number;
}

export interface Citation {
  marker: number;
  document_id: string;
  version_id?: number;
  title: string;
  path: string;
  page: number | null;
  char_start: number;
  char_end: number;
  quote: string;
  answer_start: number;
  answer_end: number;
  kind: "copied" | "supported";
  score: number;
}

export interface Answer {
  question: string;
  answer: string;
  display: string;
  answerable: boolean;
  p_answerable: number;
  reason: "answered" | "nothing_relevant" | "not_answered" | "empty_index" | "chat" | "sources_disagree";
  citations: Citation[];
  passages: Passage[];
  conversation_id?: string | null;
  message_id?: string | null;
}

export interface Problem {
  status: number;
  code: string;
  detail: string;
}

export interface DocumentText {
  document_id: string;
  version_id: number;
  /** Whether this is the document's present version. */
  current: boolean;
  title: string;
  path: string;
  start: number;
  end: number;
  total_chars: number;
  text: string;
  /** Pages that begin in this stretch. */
  pages: { page: number; start: number }[];
  passages: { chunk_id: number; char_start: number; char_end: number; heading: string; page: number | null }[];
}

/** Where a stretch of a PDF's text stands on its pages, in points from the upper left. */
export interface Highlights {
  pages: { page: number; width: number; height: number; boxes: [number, number, number, number][] }[];
}

export interface Turn {
  role: "user" | "assistant";
  content: string;
}

/** A place in a document: what a citation and a passage have in common. */
export interface Place {
  document_id: string;
  version_id?: number;
  title: string;
  path: string;
  page: number | null;
  heading?: string;
  char_start: number;
  char_end: number;
  quote: string;
}
