"""Follow-up questions by rule, for weights whose decoder does not rewrite them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from gglm.types import Turn

_REFERENCE = re.compile(
    r"它|他|她|其中|该(?!如何|怎|不)|这(?!样的话)|那(?!么多)|前者|后者|上述|上面|前面|刚才|此外|还有|另外|除此|同样"
)
_LINK = re.compile(r"^(那|还|再|又|然后|所以|但|而|如果)")
_BARE = re.compile(r"^(为什么|怎么|多少|多久|几|什么|哪|谁|可以|能|需要)")
_ELLIPSIS = re.compile(r"呢[?？。!！]*$")
_HAN = re.compile(r"[\u3400-\u9fff]")


def depends(question: str) -> bool:
    """Does the question seem to lean on what was said before?"""
    question = question.strip()
    han = len(_HAN.findall(question))
    return bool(
        _REFERENCE.search(question)
        or _ELLIPSIS.search(question)
        or (han <= 10 and _LINK.match(question))
        or (han <= 4 and _BARE.match(question))
    )


def stand_alone(question: str, history: Sequence[Turn]) -> str:
    """The last question of the user that stood alone, and this one after it.

    Matching and reading then see the topic's own words; no word is invented.
    """
    asked = [t.content.strip() for t in history if t.role == "user" and t.content.strip()]
    if not asked:
        return question
    topic = next((q for q in reversed(asked) if not depends(q)), asked[-1])
    return f"{topic} {question.strip()}"
