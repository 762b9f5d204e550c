/** The widget's words in three languages. */

const zhCN = {
  title: "文档问答",
  open: "打开问答",
  close: "关闭",
  greeting: "您好！我根据资料库里的文档回答问题，每个答案都标明原文出处；资料里没有的，我会直说。",
  placeholder: "输入问题，按回车发送",
  input: "问题",
  send: "发送",
  stop: "停止",
  retry: "重试",
  newChat: "新对话",
  history: "历史对话",
  noHistory: "还没有历史对话。",
  remove: "删除",
  back: "返回",
  log: "对话内容",
  you: "您问：",
  reply: "回答：",
  searching: "正在查找资料…",
  reading: "找到 {n} 段相关资料，正在阅读…",
  stopped: "已停止。",
  source: "出处",
  sources: "出处",
  sourceN: "出处 {n}：{title}",
  page: "第 {n} 页",
  openDocument: "打开全文",
  previous: "上一处",
  next: "下一处",
  loading: "正在载入…",
  quoteOnly: "无法载入上下文，只显示引文。",
  fromSource: "原文",
  nearest: "最接近的内容（不一定回答了问题）",
  refused: "没有找到答案",
  disagree: "资料中的说法不一致，请核对出处",
  related: "相关内容",
  suggestions: "可以这样问",
  up: "有帮助",
  down: "没有帮助",
  thanks: "谢谢您的反馈。",
  copy: "复制",
  copied: "已复制",
  tooLong: "问题太长，请缩短后再问。",
  disclaimer: "答案摘自资料原文，请点击出处核对。",
  errors: {
    network: "连不上服务器。请检查网络或确认服务已启动，然后重试。",
    unreachable: "连不上问答服务器；也可能是这个网站还没有登记（管理员运行 chatgglm sites add）。",
    interrupted: "连接中断，回答没有收完。请重试。",
    not_found: "资料库不存在，或这个对话已被删除。请开始新对话再试。",
    invalid_input: "服务器没有接受这个问题：{detail}",
    invalid_request: "服务器没有接受这个问题：{detail}",
    invalid_api_key: "这台服务器需要访问权限，请联系管理员。",
    forbidden: "这个网站没有登记使用问答组件。管理员可以运行 chatgglm sites add 登记。",
    origin_not_allowed: "这个网站没有登记使用问答组件。管理员可以运行 chatgglm sites add 登记。",
    too_many_requests: "您的提问太频繁了，请稍等片刻再试。",
    overloaded: "服务器正忙，请稍后再试。",
    not_ready: "服务器还没有准备好，请稍后再试。",
    index_unavailable: "资料索引暂时不可用，请联系管理员。",
    other: "出错了，没有得到回答。请重试。",
  } as Record<string, string>,
};

type Words = typeof zhCN;

const zhTW: Words = {
  title: "文件問答",
  open: "開啟問答",
  close: "關閉",
  greeting: "您好！我根據資料庫裡的文件回答問題，每個答案都標明原文出處；資料裡沒有的，我會直說。",
  placeholder: "輸入問題，按 Enter 送出",
  input: "問題",
  send: "送出",
  stop: "停止",
  retry: "重試",
  newChat: "新對話",
  history: "歷史對話",
  noHistory: "還沒有歷史對話。",
  remove: "刪除",
  back: "返回",
  log: "對話內容",
  you: "您問：",
  reply: "回答：",
  searching: "正在查找資料…",
  reading: "找到 {n} 段相關資料，正在閱讀…",
  stopped: "已停止。",
  source: "出處",
  sources: "出處",
  sourceN: "出處 {n}：{title}",
  page: "第 {n} 頁",
  openDocument: "開啟全文",
  previous: "上一處",
  next: "下一處",
  loading: "正在載入…",
  quoteOnly: "無法載入上下文，只顯示引文。",
  fromSource: "原文",
  nearest: "最接近的內容（不一定回答了問題）",
  refused: "沒有找到答案",
  disagree: "資料中的說法不一致，請核對出處",
  related: "相關內容",
  suggestions: "可以這樣問",
  up: "有幫助",
  down: "沒有幫助",
  thanks: "謝謝您的回饋。",
  copy: "複製",
  copied: "已複製",
  tooLong: "問題太長，請縮短後再問。",
  disclaimer: "答案摘自資料原文，請點選出處核對。",
  errors: {
    network: "連不上伺服器。請檢查網路或確認服務已啟動，然後重試。",
    unreachable: "連不上問答伺服器；也可能是這個網站還沒有登記（管理員執行 chatgglm sites add）。",
    interrupted: "連線中斷，回答沒有收完。請重試。",
    not_found: "資料庫不存在，或這個對話已被刪除。請開始新對話再試。",
    invalid_input: "伺服器沒有接受這個問題：{detail}",
    invalid_request: "伺服器沒有接受這個問題：{detail}",
    invalid_api_key: "這台伺服器需要存取權限，請聯絡管理員。",
    forbidden: "這個網站沒有登記使用問答元件。管理員可以執行 chatgglm sites add 登記。",
    origin_not_allowed: "這個網站沒有登記使用問答元件。管理員可以執行 chatgglm sites add 登記。",
    too_many_requests: "您的提問太頻繁了，請稍等片刻再試。",
    overloaded: "伺服器正忙，請稍後再試。",
    not_ready: "伺服器還沒有準備好，請稍後再試。",
    index_unavailable: "資料索引暫時無法使用，請聯絡管理員。",
    other: "出錯了，沒有得到回答。請重試。",
  },
};

const en: Words = {
  title: "Ask the documents",
  open: "Open chat",
  close: "Close",
  greeting:
    "Hello! I answer from the documents in this knowledge base and cite the source of every answer. What is not in them, I say so.",
  placeholder: "Ask a question, Enter to send",
  input: "Question",
  send: "Send",
  stop: "Stop",
  retry: "Retry",
  newChat: "New chat",
  history: "Past chats",
  noHistory: "No past chats yet.",
  remove: "Delete",
  back: "Back",
  log: "Conversation",
  you: "You asked: ",
  reply: "Answer: ",
  searching: "Searching the documents…",
  reading: "Found {n} passages, reading…",
  stopped: "Stopped.",
  source: "Source",
  sources: "Sources",
  sourceN: "Source {n}: {title}",
  page: "page {n}",
  openDocument: "Open document",
  previous: "Previous",
  next: "Next",
  loading: "Loading…",
  quoteOnly: "The context could not be loaded; this is the quote alone.",
  fromSource: "Source text",
  nearest: "Nearest passages (they may not answer the question)",
  refused: "No answer found",
  disagree: "The documents disagree; please check the sources",
  related: "Related",
  suggestions: "You could ask",
  up: "Helpful",
  down: "Not helpful",
  thanks: "Thank you for your feedback.",
  copy: "Copy",
  copied: "Copied",
  tooLong: "The question is too long; please shorten it.",
  disclaimer: "Answers are taken from the documents; click a source to check.",
  errors: {
    network: "The server cannot be reached. Check the network and that the server runs, then retry.",
    unreachable: "The server cannot be reached, or this site is not registered (chatgglm sites add).",
    interrupted: "The connection was lost before the answer was complete. Please retry.",
    not_found: "The knowledge base does not exist, or this chat was deleted. Start a new chat.",
    invalid_input: "The server did not accept the question: {detail}",
    invalid_request: "The server did not accept the question: {detail}",
    invalid_api_key: "This server needs permission. Please ask its administrator.",
    forbidden: "This site is not registered for the widget. Its administrator can run: chatgglm sites add",
    origin_not_allowed: "This site is not registered for the widget. Its administrator can run: chatgglm sites add",
    too_many_requests: "Too many questions at once. Please wait a moment.",
    overloaded: "The server is busy. Please try again in a moment.",
    not_ready: "The server is not ready yet. Please try again in a moment.",
    index_unavailable: "The index is unavailable. Please ask the administrator.",
    other: "Something went wrong and there is no answer. Please retry.",
  },
};

export type Language = "zh-CN" | "zh-TW" | "en";
export type Key = Exclude<keyof Words, "errors">;

const WORDS: Record<Language, Words> = { "zh-CN": zhCN, "zh-TW": zhTW, en };

/** The language for a BCP 47 tag; Chinese where it is neither Chinese nor English. */
export function language(tag: string): Language {
  const lower = tag.toLowerCase();
  if (lower.startsWith("en")) return "en";
  return /^zh-(tw|hk|mo|hant)/.test(lower) ? "zh-TW" : "zh-CN";
}

export class Translator {
  constructor(readonly language: Language) {}

  t(key: Key, values: Record<string, string | number> = {}): string {
    return fill(WORDS[this.language][key], values);
  }

  /** What to tell a person about an error code of the server. */
  error(code: string, detail: string): string {
    const errors = WORDS[this.language].errors;
    return fill(errors[code] ?? errors.other!, { detail });
  }
}

function fill(text: string, values: Record<string, string | number>): string {
  return text.replace(/\{(\w+)\}/g, (whole, name: string) => String(values[name] ?? whole));
}
