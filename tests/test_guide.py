"""A newcomer's questions, asked of a fresh installation that holds nothing but the bundled guide."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rag.service import Service

QUESTIONS = {
    "默认端口是多少？": "8000",
    "数据保存在哪个目录？": ".local/share/chatgglm",
    "怎么添加文档？": "chatgglm ingest",
    "怎么换端口？": "PORT=",
    "ChatGGLM 支持哪些文件格式？": ".docx",
    "需要哪个版本的 Python？": "3.11",
    "问题最长可以多少字？": "2000",
    "怎么创建 API 密钥？": "chatgglm keys create",
    "怎么重建索引？": "chatgglm kb rebuild",
    "许可证是什么？": "Apache-2.0",
    "扫描的 PDF 怎么导入？": "chatgglm[ocr]",
    "端口被占用怎么办？": "--port",
    "退出码 1 表示什么？": "失败",
    "怎么备份？": "数据目录",
    "聊天窗口支持哪些语言？": "繁体中文",
    "其他机器怎么访问？": "--host",
    "怎么导入文档？": "chatgglm ingest",
    "如何启动服务？": "chatgglm serve",
    "怎么删除一个文档？": "chatgglm documents delete",
    "答案不对怎么办？": "引文",
    "知识库坏了怎么修复？": "chatgglm kb verify",
    "怎么换成别的模型？": "CHATGGLM_READER",
    "数据存在哪里？": ".local/share/chatgglm",
    "怎么把聊天组件放到网页上？": "widget.js",
    "可以用 PostgreSQL 吗？": "CHATGGLM_DATABASE_URL",
    "导入到一半断电了怎么办？": "重新运行",
}
ELSEWHERE = ["公司年假有几天？", "红烧肉怎么做？", "明天天气怎么样？", "作者的电话号码是多少？"]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Service:
    from ingest.guide import bundled
    from ingest.pipeline import ingest
    from rag.service import Service
    from rag.settings import Settings

    service = Service(Settings(home=tmp_path_factory.mktemp("guide")))
    service.database.migrate()
    report = ingest(service, [bundled()])
    assert report.ok
    assert all(document.status == "indexed" for document in report.documents)
    return service


def test_the_passages_that_are_read_hold_the_answer(service: Service) -> None:
    missed = [
        question
        for question, wanted in QUESTIONS.items()
        if not any(wanted in passage.text for passage in service.retriever.search(question, k=4))
    ]
    assert len(missed) <= 1, missed


def test_newcomers_get_right_answers_and_sources(service: Service) -> None:
    right = []
    for question, wanted in QUESTIONS.items():
        answer = service.answerer.ask(question)
        if answer.answerable and wanted in answer.display:
            right.append(question)
            assert answer.citations
            for citation in answer.citations:
                text = (Path(__file__).parent.parent / "ingest/guide/zh" / citation.path).read_text("utf-8")
                assert citation.quote.split("\n")[0] in text.replace("`", "")
    assert len(right) >= len(QUESTIONS) // 2, right


def test_what_the_guide_does_not_say_is_refused(service: Service) -> None:
    answered = [question for question in ELSEWHERE if service.answerer.ask(question).answerable]
    assert len(answered) <= 1, answered
