"""Characters kept and speed by format, side by side with other readers, and memory on a long PDF.

    OMP_NUM_THREADS=1 python benchmarks/formats.py ../shared/samples [--peers PYTHON | --install-peers] [--json]

The samples hold one text in many formats; further ones are made of it here. Recall is the share of
its characters found in order, precision the share of what was read that belongs to it, white space
removed. Seconds are CPU time of a second reading in a fresh process. ``--install-peers`` puts markitdown
and pypdf into an environment of their own for the time of the run; they are no dependencies.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGES = 1600
TRUE = (
    "text_gbk.txt", "page_utf8.html", "page_gbk_nometa.html", "doc.docx", "slides.pptx", "book.epub",
    "chromium.pdf", "rl_cid.pdf", "rl_wqy.pdf", "scan.pdf", "ocr.png", "ocr_rot.png",
)  # fmt: skip
MADE = ("made.xlsx", "made_gbk.csv", "made.md", "made.eml", "made.zip", "made_big5.txt")
LONG = "big.pdf"
"""43 pages without a truth of their own: only the speed counts."""
PEERS = ["markitdown[docx,pdf,pptx,xlsx]", "pypdf"]
Figures = dict[str, Any]


# -- readers, each in a process of its own ---------------------------------------------------------


def chatgglm(file: Path) -> str:
    from ingest.runners.worker import work
    from ingest.sources import address, expand

    answers = [work(address(source), source.path) for source in expand([file]).files]
    return "\n".join(answer["parsed"]["text"] for answer in answers if answer["status"] == "parsed")


def markitdown(file: Path) -> str:
    from markitdown import MarkItDown

    return MarkItDown().convert(str(file)).text_content


def pypdf(file: Path) -> str:
    from pypdf import PdfReader

    return "\n".join(page.extract_text() for page in PdfReader(file).pages)


READERS: dict[str, Callable[[Path], str]] = {"chatgglm": chatgglm, "markitdown": markitdown, "pypdf": pypdf}


def child(reader: str, files: list[Path], once: bool) -> None:
    """Prints what a reader makes of the files; what it cannot read is empty."""
    import resource

    found: Figures = {}
    for file in files:
        for _ in range(1 if once else 2):
            began = time.process_time()
            try:
                text = READERS[reader](file)
            except Exception as error:  # another library's own
                text = ""
                print(f"{reader}: {file.name}: {error}", file=sys.stderr)
            found[file.name] = {"text": text, "seconds": time.process_time() - began}
    found["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    json.dump(found, sys.stdout)


def read(python: str, reader: str, files: list[Path], once: bool = False) -> Figures:
    program = [python, __file__, "--child", reader, *(["--once"] if once else []), *map(str, files)]
    done = subprocess.run(program, capture_output=True, text=True, cwd=ROOT, env=_environment())
    if done.returncode:
        raise SystemExit(f"{reader} failed: {done.stderr.strip().splitlines()[-1:]}")
    out: Figures = json.loads(done.stdout)
    return out


def _environment() -> dict[str, str]:
    import os

    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


# -- figures ---------------------------------------------------------------------------------------


def made(text: str) -> dict[str, bytes]:
    """Files of the formats in `MADE` that hold the lines of ``text``, in their order."""
    import csv
    import zipfile
    from email.message import EmailMessage

    import openpyxl

    lines = text.strip().splitlines()
    rows = [("编号", "内容"), *enumerate(lines, 1)]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    sheet, table, packed = io.BytesIO(), io.StringIO(), io.BytesIO()
    book.save(sheet)
    csv.writer(table).writerows(rows)
    parts = [f"{lines[0][:9]}**{lines[0][9:]}**", *(f"{i}. {line}" for i, line in enumerate(lines[1:-1], 2))]
    mail, forwarded = EmailMessage(), EmailMessage()
    mail.set_content(lines[0])
    for i, line in enumerate(lines[1:-1], 2):
        mail.add_attachment(line.encode("gb18030"), maintype="text", subtype="plain", filename=f"{i}.txt")
    forwarded.set_content(lines[-1])
    forwarded.add_alternative(f"<p>{lines[-1]}</p>", subtype="html")
    mail.add_attachment(forwarded)
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, line in enumerate(lines, 1):
            archive.writestr(f"资料/{i:03}.txt", line.encode("gb18030"))
    return {
        "made.xlsx": sheet.getvalue(),
        "made_gbk.csv": table.getvalue().encode("gb18030"),
        "made.md": "\n\n".join([*parts, f"[^1]: {lines[-1]}"]).encode(),
        "made.eml": mail.as_bytes(),
        "made.zip": packed.getvalue(),
        "made_big5.txt": _traditional(text).encode("big5"),
    }


def _traditional(text: str) -> str:
    """Traditional characters that are in Big5 and mean the same to `gglm.text.normalize`."""
    from gglm.text import traditional_to_simplified

    def in_big5(char: str) -> bool:
        return bool(char.encode("big5", "ignore"))

    table = {simple: old for old, simple in traditional_to_simplified().items() if in_big5(old)}
    return "".join(char if in_big5(char) else table[char] for char in text)


def comparable(text: str, name: str) -> str:
    """Without white space; what had to be written in traditional characters, in simplified ones."""
    from gglm.text import normalize

    return "".join((normalize(text) if "big5" in name else text).split())


def compared(folder: Path, scratch: Path, pythons: dict[str, str]) -> Figures:
    """Recall, precision and seconds of each reader on each sample."""
    truth = (folder / "truth.txt").read_text(encoding="utf-8")
    for name, data in made(truth).items():
        (scratch / name).write_bytes(data)
    everything = [*(folder / name for name in TRUE), *(scratch / name for name in MADE), folder / LONG]
    figures: Figures = {}
    for reader, python in pythons.items():
        files = [file for file in everything if reader != "pypdf" or file.suffix == ".pdf"]
        found = read(python, reader, files)
        figures[reader] = {}
        for file in files:
            true, text = (comparable(text, file.name) for text in (truth, found[file.name]["text"]))
            own: Figures = {"seconds": round(found[file.name]["seconds"], 4)}
            if file.name != LONG:
                size = sum(
                    block.size for block in SequenceMatcher(None, true, text, autojunk=False).get_matching_blocks()
                )
                own |= {"recall": round(size / len(true), 4), "precision": round(size / max(len(text), 1), 4)}
            figures[reader][file.name] = own
    return figures


def long_pdf(pages: int) -> bytes:
    """A PDF of full pages of Chinese text with a running header and page numbers."""
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.cidfonts import UnicodeCIDFont
    from reportlab.pdfgen.canvas import Canvas

    pdfmetrics.registerFont(UnicodeCIDFont("STSong-Light"))
    sentence = "本规程适用于第{}号设备的安装、调试、运行与维护，操作人员应当熟悉全部条款并且定期接受安全培训。"
    buffer = io.BytesIO()
    canvas = Canvas(buffer, pageCompression=1)
    for page in range(pages):
        text = "".join(sentence.format(page * 40 + i) for i in range(30))
        body = canvas.beginText(72, 760)
        body.setFont("STSong-Light", 12, 18)
        for start in range(0, len(text), 37):
            body.textLine(text[start : start + 37])
        canvas.drawText(body)
        canvas.setFont("STSong-Light", 9)
        canvas.drawString(72, 810, "设备运行规程汇编")
        canvas.drawString(290, 30, f"- {page + 1} -")
        canvas.showPage()
    canvas.save()
    return buffer.getvalue()


def memory(scratch: Path, pages: int) -> Figures:
    """Peak memory and time of a parsing process on a long PDF."""
    file = scratch / "long.pdf"
    file.write_bytes(long_pdf(pages))
    found = read(sys.executable, "chatgglm", [file], once=True)
    return {
        "pages": pages,
        "mb": round(file.stat().st_size / 1e6, 1),
        "characters": len(found[file.name]["text"]),
        "seconds": round(found[file.name]["seconds"], 1),
        "rss_mb": round(found["rss_mb"]),
        "ingest_rss_mb": round(ingesting(file, scratch / "home")),
    }


def ingesting(file: Path, home: Path) -> float:
    """Peak memory in MB of `chatgglm ingest`, of the largest of its processes."""
    command = [str(Path(sys.executable).with_name("chatgglm")), "ingest", str(file), "--json"]
    environment = {**os.environ, "CHATGGLM_HOME": str(home)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"chatgglm ingest {file.name} ended with {process.returncode}")
    return usage.ru_maxrss / 1024


def _installed(folder: Path) -> str:
    """The interpreter of a new environment with the other readers."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "--disable-pip-version-check", "install", "-q", *PEERS], check=True)
    return python


def _shown(figures: Figures) -> str:
    out = []
    for name in (*TRUE, *MADE, LONG):
        cells = [
            f"{reader} {own[name].get('recall', '')} / {own[name].get('precision', '')} {own[name]['seconds']:.3f} s"
            for reader, own in figures["formats"].items()
            if name in own
        ]
        out.append(f"{name:22}" + "   ".join(cells))
    if long := figures.get("long"):
        out.append(
            f"{long['pages']} pages, {long['mb']} MB, {long['characters']} characters: "
            f"{long['seconds']} s, {long['rss_mb']} MB"
        )
    return "\n".join(out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", help="the folder of samples")
    parser.add_argument("--peers", metavar="PYTHON", help="an interpreter that has markitdown and pypdf")
    parser.add_argument("--install-peers", action="store_true")
    parser.add_argument("--pages", type=int, default=PAGES, help="of the long PDF; 0: none")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.paths, arguments.once)
        return
    with tempfile.TemporaryDirectory() as scratch:
        pythons = {"chatgglm": sys.executable}
        peers = _installed(Path(scratch) / "peers") if arguments.install_peers else arguments.peers
        if peers:
            pythons |= {"markitdown": peers, "pypdf": peers}
        figures = {"formats": compared(arguments.paths[0], Path(scratch), pythons)}
        if arguments.pages:
            figures["long"] = memory(Path(scratch), arguments.pages)
    print(json.dumps(figures, ensure_ascii=False) if arguments.json else _shown(figures))


if __name__ == "__main__":
    main()
