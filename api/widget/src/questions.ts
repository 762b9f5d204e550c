/** Lines of a text that are questions by themselves: headings of guides, lines of FAQs. */

const QUESTION = /^(?:#{1,6}\s*)?(?:(?:\d+|[一二三四五六七八九十]+)[.、．)）]\s*|问[:：]\s*|[QＱ][:：.]\s*)?(\S.{3,28}[？?])$/;

export interface QuestionLine {
  text: string;
  /** Code points from the start of the text. */
  start: number;
}

export function questionLines(text: string): QuestionLine[] {
  const found: QuestionLine[] = [];
  let start = 0;
  for (const line of text.split("\n")) {
    const match = QUESTION.exec(line.trim());
    if (match) found.push({ text: match[1]!, start });
    start += Array.from(line).length + 1;
  }
  return found;
}
