"""Tells greetings, thanks, farewells and questions about the assistant from real questions.

A message is small talk only when set phrases account for all of it: «你好，请问年假几天» leaves
«年假几天» over and so goes to retrieval.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

Topic = Literal["identity", "ability", "thanks", "farewell", "greeting", "assent"]

_YOU = "(?:你们?|您)"
_IT = f"(?:{_YOU}|chatglm|chatgglm|这个?(?:机器人|助手))"
_PHRASES: dict[Topic, str] = {
    "identity": "|".join(
        [
            f"{_IT}(?:到底|究竟)?(?:是|叫)(?:谁|什么|啥|什么人|什么东西|什么名字|啥名字|哪位|何方神圣)",
            f"{_IT}(?:的)?(?:名字|姓名)(?:是|叫)?(?:什么|啥)?",
            f"{_YOU}(?:贵姓|怎么称呼|如何称呼)",
            "(?:该|要)?(?:怎么|如何)称呼您?你?",
            f"(?:请)?(?:做个|做一下|来个|来段)?自我介绍(?:一下)?|(?:请)?介绍(?:一下|下)?(?:{_YOU})?自己",
            f"{_IT}是(?:不是)?(?:一个|个)?(?:真人|人|机器人|人工智能|ai|机器|程序|人类|chatgpt|gpt|大模型|什么模型|哪个模型|chatgglm)(?:吗|么)?",
            f"{_IT}(?:用|基于|使用)(?:的)?(?:是)?(?:什么|哪个|哪种|啥)(?:大)?模型",
            f"(?:是)?谁(?:开发|训练|制作|做|创造|设计|写)(?:了|出)?(?:的)?{_YOU}|{_YOU}是(?:由)?谁(?:开发|训练|制作|做|创造|设计|写)(?:出来)?的",
            "who are you|what are you|what is your name|whats your name",
        ]
    ),
    "ability": "|".join(
        [
            f"{_IT}(?:都|还)?(?:能|会|可以)(?:帮我|帮助我|为我|给我)?(?:干|做|帮)(?:些|点|一些)?(?:什么|啥|哪些事|哪些|什么事|什么事情)",
            f"{_IT}(?:都|还)?(?:能|会|可以)(?:些|点)?(?:什么|啥|帮我什么|回答什么(?:问题)?|回答哪些问题)",
            f"{_IT}(?:都)?有(?:什么|哪些|啥)(?:功能|本领|能力|用|用处|作用)",
            f"{_IT}(?:的)?(?:功能|作用|用途)(?:是|有)(?:什么|哪些)",
            f"(?:怎么|如何)(?:使用|用){_YOU}",
            f"{_YOU}(?:能|可以)(?:帮我|帮帮我|帮助我)",
            f"我(?:能|可以)(?:问|向){_YOU}(?:提问)?(?:些)?(?:什么|哪些)(?:问题)?",
            "what can you do|^(?:help|帮助|功能介绍)$",
        ]
    ),
    "thanks": "|".join(
        [
            "(?:非常|十分|太|多|真是|真的|真|好的?|万分|真心)?"
            "(?:感谢|谢谢|多谢|谢啦|谢了|谢过|谢|3q|thx|thanks|thank you)"
            "(?:你们?|您|大家| very much| so much)?"
            "(?:的?(?:帮助|帮忙|回答|解答|指点|指教|耐心))?",
            "辛苦(?:你|您)?(?:了)?|麻烦(?:你|您)?了",
            "帮(?:了)?(?:我)?大忙了?|(?:你|您)?(?:真|好|太)(?:棒|厉害|聪明|有用|贴心|牛|强)",
        ]
    ),
    "farewell": "|".join(
        [
            "再见|拜拜|回见|回头见|明天见|下次见|改天见|bye ?bye|bye|goodbye|see you|晚安|88",
            "(?:我)?(?:先|要)(?:走|下|撤|忙去|下线|下班)了?|(?:没|没有)(?:别的|其他|其它)?(?:问题|事|事情)了?",
            "就这样|就这些|没了",
        ]
    ),
    "greeting": "|".join(
        [
            "(?:你们?|您|大家|各位|同学|老师)好|哈喽|哈啰|哈罗|嗨|嘿|hello|hi|hey|早上好|上午好|中午好|下午好|晚上好|早安|午安|早|幸会|久仰",
            "在(?:吗|么|不在|不)|有人(?:吗|么|在吗)|在不在|最近(?:怎么样|好吗|还好吗)|(?:你|您)(?:还)?(?:好吗|好么)|很高兴(?:认识|见到)(?:你|您)|新年(?:好|快乐)|节日快乐|中秋快乐|元旦快乐|春节快乐|周末愉快",
        ]
    ),
    "assent": "好的?+|嗯++|哦++|噢|喔|哈++|呵++|嘻++|ok|okay|行|可以|明白|知道|了解|收到|懂|清楚|没事|不用|是的",
}
_FILLER = "请问(?:一下)?|问(?:一下|下)|那|那么|对了|呃|小助手|助手|机器人|朋友|亲爱的|亲|chatgglm|chatglm"
_PARTICLE = "[啊呀呢吧哦噢嘛了的啦哈哟哇喽]?+"  # possessive: no backtracking that explodes
_ORDER: tuple[Topic, ...] = ("identity", "ability", "thanks", "farewell", "greeting", "assent")
_FULL = re.compile(f"(?:(?:{'|'.join([*(_PHRASES[t] for t in _ORDER), _FILLER])}){_PARTICLE} ?){{1,8}}")
_TRADITIONAL = str.maketrans(
    "謝誰們幫麼問嗎紹見這點會設計寫開發訓練樣還個歡請",
    "谢谁们帮么问吗绍见这点会设计写开发训练样还个欢请",
)
_MAX_CHARS = 40


def normalized(message: str) -> str:
    """Lower case, half width, simplified, without punctuation, symbols and spaces beside Han."""
    text = unicodedata.normalize("NFKC", message).lower().translate(_TRADITIONAL)
    text = "".join(c if c.isalnum() else " " for c in text)
    text = re.sub(r"(?<=[^\x00-\x7f])\s+|\s+(?=[^\x00-\x7f])", "", text)
    return " ".join(text.split())


def classify(message: str) -> Topic | None:
    """The small-talk topic of a message that is nothing else, most telling one first; else None."""
    if len(message) > _MAX_CHARS * 3:
        return None
    text = normalized(message)
    if not text or len(text) > _MAX_CHARS or not _FULL.fullmatch(text):
        return None
    return next((topic for topic in _ORDER if re.search(_PHRASES[topic], text)), None)


_COURTESY = re.compile(
    r"^\s*(?:(?:你们?|您|大家|老师)好|哈喽|嗨|hi|hello|早上好|上午好|下午好|晚上好|谢谢|好的|在吗|麻烦(?:问)?(?:一下|下)?|请教(?:一下)?|请问(?:一下)?|想问(?:一下|下)?|我想(?:问|请问|咨询|了解|知道)(?:一下|下)?)[啊呀吗哈呢]?\s*[,，。.!！、~～:：\s]*",
    re.IGNORECASE,
)


def without_courtesy(question: str) -> str:
    """The question without «您好，请问» and the like at its head; itself where nothing would be left."""
    text = question
    while (match := _COURTESY.match(text)) and match.end() < len(text):
        text = text[match.end() :]
    return text if sum(c.isalnum() for c in text) >= 2 else question


_QUESTION_WORD = re.compile(
    r"[?？吗么呢]|什么|啥|怎|如何|为何|几(?!乎)|多[少久长远大高深重快早]|哪|谁|是否|[能要行会可]不|不[能会行]|有没有|是不是"
)
_REMARK = re.compile(
    r"^(?:好(?:[吧的嘞哒滴呀啊]|[，,。！!～~\s]|$)|嗯+|哦+|噢|喔|哈{2,}|懂了|明白|收到|了解|知道了|原来如此|弄好|搞定|搞懂|终于|受教|学到|爱了|试了|有声|行吧?|可以了|没事|谢)"
    r"|谢谢?|感谢|多谢|3q|thx|thanks",
    re.IGNORECASE,
)
_CLOSING = re.compile(
    r"(?:非常|十分|太|多|真是|好)?(?:感谢|谢谢|多谢|谢)(?:你们?|您|老师|大佬|啦|了|哈)*|3q|thx|thanks|"
    r"好[吧的嘞哒滴呀啊]|嗯+|哦+|噢|哈{2,}|懂了|明白了?|收到|了解了?|知道了|原来如此|弄好了?|搞定了?|搞懂了?|终于|受教了?|学到了?|"
    r"爱了|试了(?:可以)?|行吧?|可以了|没事|这下|了|啊|呀",
    re.IGNORECASE,
)
_AFTERTHOUGHT = re.compile(
    r"那?我?(?:先|再|去|来|慢慢|自己|这就)*(?:看看?|试试?|改改看?|想想|走|忙|记下|看一下|试一下)|"
    r"没写?就算|没有也没事|[就先]这样|太.{0,3}|真.{0,4}|有声|挺.{1,3}"
)


def remark(message: str) -> bool:
    """Whether a message asks nothing: thanks and comments on the answer («懂了，谢谢～», «好吧，没写就算了»)."""
    return bool(_REMARK.search(message.strip())) and not _QUESTION_WORD.search(message)


def closing(message: str) -> Topic | None:
    """thanks or assent where a message only comments on the answer before it («懂了，谢谢～», «好吧，没写就算了»).

    Of 25,878 questions in the question files, none is taken for one.
    """
    if not remark(message):
        return None
    left = re.sub(r"\W", "", _CLOSING.sub("", message))
    if len(left) > 1 and not _AFTERTHOUGHT.fullmatch(left):
        return None
    return "thanks" if re.search(r"谢|3q|thx|thanks", message, re.IGNORECASE) else "assent"


_REPLIES: dict[Topic, str] = {
    "identity": "我是 ChatGGLM，一个在您自己的机器上运行的中文问答助手。"
    "我根据资料库里的文档回答问题，并给出可以核对的原文出处。",
    "ability": "我可以根据资料库里的文档回答问题，并标明答案出自哪份文件、哪一段；"
    "资料里没有的，我会直说没有找到。请直接提问。",
    "thanks": "不客气！还有问题请随时提出。",
    "farewell": "再见！有问题随时来问我。",
    "greeting": "您好！我是 ChatGGLM，可以根据资料库里的文档回答您的问题。请问想了解什么？",
    "assent": "好的。还有问题请随时提出。",
}


def fixed_reply(topic: Topic) -> str:
    """A true, fitting reply, for readers that cannot chat and chats that go wrong."""
    return _REPLIES[topic]


_FITTING: dict[Topic, str] = {
    "identity": "ChatGGLM",
    "ability": "文档|资料|问答|回答|摘要",
    "thanks": "不客气|不用谢|别客气|不谢|应该的|帮上|高兴|开心|随时",
    "farewell": "再见|拜拜|回见|晚安|慢走|下次见|随时再来|祝您|祝你",
    "greeting": "^(?:您|你|大家|早上|上午|中午|下午|晚上)好|^早|^晚安|^嗨|^哈喽|^在的|^我在|高兴|快乐|愉快",
    "assent": "^(?:好|嗯|行|明白|收到|没关系|不急|请)|随时|继续",
}
"""What a reply says that answers a message of the topic."""
_CLAIM = re.compile("翻译|各种|任何|什么都|所有问题|提供实用|语言处理")
"""Abilities that small talk must not promise."""
_STRAY = re.compile(r"(?i)(?<![a-z])(?!(?:chatgglm|ai)(?![a-z]))[a-z]|\d|自然语言|解决方案")
"""What a small decoder strays into; no small talk needs it."""


_PERSON = re.compile("真人|人类|(?:是|不是)(?:一?个)?人(?!工)|gpt")
_MACHINE = re.compile("机器|程序|人工智能|ai")


def fitting(topic: Topic, reply: str, message: str = "") -> bool:
    """Whether a generated reply can be shown: it answers its topic in Chinese, is short, whole and does not loop, and
    to «are you a person / another model / a machine» it says no, no and yes.
    """
    text = reply.strip()
    asked = normalized(message)
    if _PERSON.search(asked) and re.match("是|对|嗯", text):
        return False
    if _MACHINE.search(asked) and not _PERSON.search(asked) and text.startswith("不"):
        return False
    if not 2 <= len(text) <= 120 or not re.search(r"[\u4e00-\u9fff]", text) or text[-1] not in "。！？!?~～":
        return False
    if re.search(r"(.{2,}?)\1{2,}|(.)\2{2,}", text) or "\ufffd" in text or _STRAY.search(text):
        return False
    if topic != "greeting" and (text[-1] in "？?" or _CLAIM.search(text)):
        return False
    if topic in ("farewell", "assent", "thanks") and re.search("什么|吗|写|ChatGGLM", text):  # a stray
        return False
    return bool(re.search(_FITTING[topic], text))
