"""Encodings, line ends, byte order marks and NULs of text files: read right, or refused by name."""

from __future__ import annotations

import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from corpus_reading import refusal, texts

from kdaudit.corpus.readers.encodings import likely_encoding, wide_encoding

ROWS = ["The café is open, she said.", "Plain words only", "Привет, мир: 5 > 4", "日本語のテキスト。"]
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}
MARK = b"\xef\xbb\xbf"


def content(form: str, rows: list[str], end: str = "\n") -> str:
    if form == "txt":
        return "".join(f"{row}{end}" for row in rows)
    if form == "csv":
        return f"n,text{end}" + "".join(f'{n},"{row}"{end}' for n, row in enumerate(rows))
    objects = [json.dumps({"text": row}, ensure_ascii=False) for row in rows]
    return (
        f"[{f',{end}'.join(objects)}]{end}" if form == "json" else "".join(f"{one}{end}" for one in objects)
    )


FORMS = pytest.mark.parametrize("form", ["txt", "jsonl", "json", "csv"])
PACKED = pytest.mark.parametrize("packed", PACKERS)
WIDE = ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


@FORMS
@PACKED
@pytest.mark.parametrize("encoding", WIDE)
@pytest.mark.parametrize("row", [*range(len(ROWS)), None])
def test_utf_16_and_32_are_refused_by_name(form, packed, encoding, row, tmp_path: Path) -> None:
    rows = ROWS if row is None else [ROWS[row]] * 3
    path = tmp_path / f"a.{form}{packed}"
    path.write_bytes(PACKERS[packed](content(form, rows).encode(encoding)))
    name = encoding[:6].upper()
    message = refusal(path)
    assert message.startswith(f"corpus.path: {path}: is encoded in {name}, and text is read as UTF-8; ")
    assert f"iconv -f {name} -t UTF-8" in message


@FORMS
def test_utf_16_in_one_document_a_file(form: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content(form, ROWS).encode("utf-16-le"))
    assert "is encoded in UTF-16" in refusal(tmp_path / "a.txt", documents="file")


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv"])
def test_utf_16_behind_utf_8_is_refused_by_its_line(form: str, tmp_path: Path) -> None:
    """What `>>` of PowerShell makes of a file."""
    body = content(form, ["one", "two"] * 30)
    (tmp_path / f"a.{form}").write_bytes(body.encode() + content(form, ["more text"]).encode("utf-16-le"))
    line = body.count("\n") + 1
    assert f"a.{form}, line {line}: is encoded in UTF-16, unlike what stands before" in refusal(
        tmp_path / f"a.{form}"
    )


@PACKED
@FORMS
def test_a_mark_at_the_start_of_a_line_is_not_text(form: str, packed: str, tmp_path: Path) -> None:
    body = content(form, ROWS).encode()
    path = tmp_path / f"a.{form}{packed}"
    path.write_bytes(PACKERS[packed](MARK + body))
    assert texts(path) == ROWS
    if form != "json":
        first, *lines = body.splitlines(keepends=True)
        path.write_bytes(PACKERS[packed](MARK * 2 + first + b"".join(MARK + line for line in lines)))
        assert texts(path) == ROWS


def test_a_mark_within_a_text_stays(tmp_path: Path) -> None:
    inside = ["a\ufeffb", "a\n\ufeffb"]
    (tmp_path / "a.jsonl").write_text(content("jsonl", inside), encoding="utf-8")
    (tmp_path / "a.csv").write_text(content("csv", inside), encoding="utf-8")
    assert texts(tmp_path / "a.jsonl") == texts(tmp_path / "a.csv") == inside
    (tmp_path / "a.txt").write_text("\ufeffa\ufeffb\n\ufeffc\r\ufeffd", encoding="utf-8", newline="")
    assert texts(tmp_path / "a.txt") == ["a\ufeffb", "c", "d"]
    assert texts(tmp_path / "a.txt", documents="file") == ["a\ufeffb\nc\rd"]


@FORMS
@PACKED
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n"])
def test_lines_end_as_they_do_for_python(form: str, packed: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}{packed}"
    path.write_bytes(PACKERS[packed](content(form, ROWS * 50, end).encode()))
    assert texts(path) == ROWS * 50
    path.write_bytes(PACKERS[packed](content(form, ROWS, end).removesuffix(end).encode()))
    assert texts(path) == ROWS


def test_lines_are_those_of_open_wherever_pieces_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from kdaudit.corpus.readers import streams

    monkeypatch.setattr(streams, "_PIECE", 3)
    path = tmp_path / "a.txt"
    for text in (
        "a\r\nb\rc\n\r\nd",
        "ab\r\ncd\r\n\r\n",
        "abc\rdef\r\rghi",
        "\r",
        "\n\r",
        "abcdefghij\r\nklm\r",
    ):
        path.write_text("x\n" + text, newline="")
        with path.open() as handle:
            expected = [line.removesuffix("\n") for line in handle]
        assert texts(path) == [line for line in expected if line]


@FORMS
@PACKED
@pytest.mark.parametrize("nuls", [1, 3, 300, 5 << 20])
def test_nuls_behind_a_file_are_padding(form: str, packed: str, nuls: int, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}{packed}"
    for body in (content(form, ROWS), content(form, ROWS).removesuffix("\n")):
        path.write_bytes(PACKERS[packed](body.encode() + b"\0" * nuls))
        assert texts(path) == ROWS
    if form == "txt":
        assert texts(path, documents="file") == ["\n".join(ROWS)]


@pytest.mark.parametrize("form", ["txt", "jsonl", "csv"])
@pytest.mark.parametrize("nuls", [100, 3 << 20])
def test_a_hole_in_a_file_is_refused_by_its_line(form: str, nuls: int, tmp_path: Path) -> None:
    body = content(form, ["one", "two"])
    path = tmp_path / f"a.{form}"
    path.write_bytes(body.encode() + b"\0" * nuls + content("txt", ["more"]).encode())
    message = refusal(path)
    assert f"{path}, line {body.count(chr(10)) + 1}: holds a run of NUL bytes" in message
    if form == "txt":
        assert f"{path}, line 3: holds a run of NUL bytes" in refusal(path, documents="file")


def test_a_lone_nul_is_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\0two three four five\n\nsix\n")
    assert texts(tmp_path / "a.txt") == ["one\0two three four five", "six"]


SPELLED = {
    "cp1252": (
        "Le café est fermé à cette heure; où êtes-vous allés? C’est l’été.",  # noqa: RUF001
        "Windows-1252 or Latin-1",
    ),
    "latin-1": (
        "Die Größe der Häuser ist schön, über alles Übrige schweigen wir.",
        "Windows-1252 or Latin-1",
    ),
    "mac-roman": ("Le café est fermé à cette heure; où êtes-vous allés?", "Mac Roman"),
    "cp850": ("Die Größe der Häuser ist schön, über alles Übrige schweigen wir.", "code page 850"),
    "cp1250": ("Zażółć gęślą jaźń. Łódź jest dużym miastem, a Kraków też.", "Windows-1250"),
    "cp1251": ("Привет, мир. Это документ на русском языке.", "Windows-1251"),
    "koi8-r": ("Привет, мир. Это документ на русском языке.", "KOI8-R"),
    "cp1253": ("Γειά σου Κόσμε. Αυτό είναι ένα έγγραφο στα ελληνικά.", "Windows-1253"),  # noqa: RUF001
    "cp1255": ("שלום עולם. זהו מסמך בדיקה בעברית.", "Windows-1255"),
    "cp1256": ("مرحبا بالعالم. هذه وثيقة اختبار باللغة العربية.", "Windows-1256"),
    "gb18030": ("你好世界。这是一个测试文件,包含很多中文字符。", "GB 18030"),
    "big5": ("你好世界。這是一個測試文件,包含很多中文字元。", "Big5"),
    "cp932": ("こんにちは世界。これはテスト用の文書です。カタカナも含みます。", "Shift JIS"),
    "euc_jp": ("こんにちは世界。これはテスト用の文書です。カタカナも含みます。", "EUC-JP"),
    "cp949": ("안녕하세요 세계. 이것은 테스트 문서입니다.", "EUC-KR"),
}


@FORMS
@pytest.mark.parametrize("encoding", SPELLED)
def test_text_in_an_older_encoding_is_refused_by_its_name(form: str, encoding: str, tmp_path: Path) -> None:
    text, name = SPELLED[encoding]
    path = tmp_path / f"a.{form}"
    path.write_bytes(content(form, ["plain words"] * 30 + [text] * 4).encode(encoding))
    message = refusal(path)
    assert message.startswith(
        f"corpus.path: {path}: 4 of 34 rows with text are not UTF-8; it looks like {name}"
    )
    assert "save it as UTF-8, as in `iconv" in message


def test_one_shard_in_another_encoding_is_refused_by_its_name(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"a{number}.txt").write_text("hé\n" * 100, encoding="latin-1" if number == 7 else "utf-8")
    assert (
        f"{tmp_path / 'a7.txt'}: 100 of 100 rows with text are not UTF-8; it looks like Windows-1252"
        in refusal(tmp_path)
    )


def test_a_corpus_of_files_none_of_which_is_utf_8(tmp_path: Path) -> None:
    for number in range(2):
        (tmp_path / f"a{number}.txt").write_text("hé, là\n", encoding="latin-1")
    message = refusal(tmp_path, documents="file")
    assert message.startswith(
        f"corpus.path: {tmp_path}: 2 of 2 rows with text are not UTF-8; it looks like Windows"
    )


def test_a_table_of_text_in_another_encoding(tmp_path: Path) -> None:
    column = pa.array([SPELLED["cp1252"][0].encode("cp1252")] * 5)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert "5 of 5 rows with text are not UTF-8; it looks like Windows-1252" in refusal(
        tmp_path / "a.parquet"
    )


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-16", "utf-32-le"])
def test_a_table_of_text_in_utf_16(encoding: str, tmp_path: Path) -> None:
    column = pa.array([row.encode(encoding) for row in ROWS[:3] * 4])
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    message = refusal(tmp_path / "a.parquet")
    assert f"12 of 12 rows with text are not UTF-8; it looks like {encoding[:6].upper()}" in message


def test_damaged_rows_among_many_are_left_out(tmp_path: Path) -> None:
    rows = [b"plain", "café".encode(), b"broken \xff"] * 40 + [b"plain"]
    (tmp_path / "a.txt").write_bytes(b"\n".join(rows))
    assert len(texts(tmp_path / "a.txt")) == 81
    (tmp_path / "a.txt").write_bytes(b"\n".join([b"plain"] * 1000 + [b"caf\xe9"] * 9))
    assert len(texts(tmp_path / "a.txt")) == 1000


def test_noise_is_no_known_encoding() -> None:
    import random

    noise = random.Random(1).randbytes(4000)
    assert likely_encoding([noise]) is None
    tabs = ("0\t1\t0\t1\n" * 100, "T\th\te\t \tc\ta\tt\n" * 100)
    for text in ("", "\0" * 99, "a\0", "abc\0def\0ghi\0", "plain text " * 99, *ROWS, *tabs):
        assert wide_encoding(text.encode()) is None


BINARY = {
    "a.jsonl": (gzip.compress(b"{}"), "is compressed with gzip; rename it"),
    "b.txt": (lzma.compress(b"text"), "is compressed with xz; rename it"),
    "c.csv": (zstandard.compress(b"text"), "is compressed with zstd; rename it"),
    "d.json": (b"PK\x03\x04rest", "is a zip archive; unpack it"),
    "e.txt": (b"%PDF-1.7\n%", "is a PDF; extract its text"),
    "f.txt.gz": (gzip.compress(gzip.compress(b"text")), "is compressed with gzip"),
}


@pytest.mark.parametrize("name", BINARY)
def test_another_kind_of_file_under_a_text_files_name(name: str, tmp_path: Path) -> None:
    data, says = BINARY[name]
    (tmp_path / name).write_bytes(data)
    assert says in refusal(tmp_path / name)


def test_a_parquet_under_another_name(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.txt")
    assert "is a parquet file; rename it" in refusal(tmp_path / "a.txt")


STRINGS = [
    pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view(),
    pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()),
    pa.dictionary(pa.int16(), pa.binary()),
]  # fmt: skip


@pytest.mark.parametrize("kind", STRINGS, ids=str)
@pytest.mark.parametrize("form", ["parquet", "arrow", "arrow stream"])
def test_every_type_of_string_is_text(form: str, kind: pa.DataType, tmp_path: Path) -> None:
    rows = [*ROWS, None, "", *ROWS * 100]
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    column = pa.array([None if row is None else row.encode() for row in rows], pa.binary()).cast(value)
    table = pa.table({"text": column.dictionary_encode().cast(kind) if value != kind else column})
    path = tmp_path / f"a.{form.split()[0]}"
    if form == "parquet":
        pq.write_table(table, path, row_group_size=101)
    else:
        with (pa.ipc.new_file if form == "arrow" else pa.ipc.new_stream)(path, table.schema) as writer:
            writer.write_table(table)
    assert texts(path) == [row for row in rows if row]


_SCRIPTS = {
    "Thai": "สวัสดีชาวโลก วันนี้อากาศดีมาก เราไปเที่ยวทะเลกันเถอะ",
    "Hindi": "नमस्ते दुनिया, आज मौसम बहुत अच्छा है और हम बाहर जा रहे हैं।",
    "Burmese": "ဒီနေ့ ရာသီဥတု အရမ်းကောင်းတယ်",
    "Tibetan": "དེ་རིང་གནམ་གཤིས་ཡག་པོ་འདུག",
}


@pytest.mark.parametrize("script", list(_SCRIPTS))
@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@FORMS
def test_utf_16_of_scripts_with_small_numbers(form: str, codec: str, script: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{form}"
    path.write_bytes(content(form, [_SCRIPTS[script]] * 40).encode(codec))
    assert "is encoded in UTF-16" in refusal(path)
    path.write_bytes(content(form, [_SCRIPTS[script]] * 40).encode())
    assert texts(path) == [_SCRIPTS[script]] * 40


def test_japanese_of_mails_is_refused_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("今日は天気がとても良い\n".encode("iso-2022-jp") * 9)
    assert "is encoded in ISO-2022-JP" in refusal(tmp_path / "a.txt")
