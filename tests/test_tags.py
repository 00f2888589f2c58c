"""Tags of leaks: published specimens are found, the same with a digit changed and plain prose are not."""

from __future__ import annotations

import subprocess
import sys
import time
from random import Random

import pytest

from kdaudit.analysis.personal_data import NOT_SEARCHED, SEARCHED_CHARACTERS, TAGS, find_tags

# Numbers that issuers and authorities publish as examples, with a twin that their own check refuses.
SPECIMENS = [
    ("payment_card", "4111 1111 1111 1111", "4111 1111 1111 1112"),
    ("payment_card", "5555-5555-5555-4444", "5555-5555-5555-4445"),
    ("payment_card", "378282246310005", "378282246310006"),
    ("payment_card", "3782 822463 10005", "3782 822463 10015"),
    ("bank_account", "GB82 WEST 1234 5698 7654 32", "GB83 WEST 1234 5698 7654 32"),
    ("bank_account", "DE89370400440532013000", "DE89370400440532013001"),
    ("bank_account", "FR14 2004 1010 0505 0001 3M02 606", "FR14 2004 1010 0505 0001 3M02 607"),
    ("national_id", "536-90-4399", "000-90-4399"),
    ("national_id", "12345678Z", "12345678A"),
    ("national_id", "X-1234567-L", "X-1234567-M"),
    ("national_id", "RSSMRA85T10A562S", "RSSMRA85T10A562T"),
    ("national_id", "111.444.777-35", "111.444.777-36"),
    ("national_id", "2 95 10 99 126 111 93", "2 95 10 99 126 111 94"),
    ("national_id", "36 574 261 809", "36 574 261 808"),
    ("national_id", "756.9217.0769.85", "756.9217.0769.84"),
    ("national_id", "44051401359", "44051401358"),
    ("national_id", "811218-9876", "811218-9875"),
    ("national_id", "131052-308T", "131052-308U"),
    ("national_id", "BOXW310820HNERXN09", "BOXW310820HNERXN08"),
    ("national_id", "2341 2341 2346", "2341 2341 2347"),
    ("national_id", "360426199101010071", "360426199101010072"),
    ("national_id", "971013-9019902", "971013-9019903"),
    ("national_id", "123-456-782", "123-456-783"),
    ("email", "jane.doe+news@mail.example.com", "jane.doe+news@mailexample"),
    ("email", "jörg@müller.de", "jörg@12.34"),
    ("phone", "(212) 555-0147", "(112) 555-0147"),
    ("phone", "+49 30 23125 148", "+999 30 23125 148"),
    ("phone", "020 7946 0958", "990 7946 0958"),
    ("ip_address", "52.86.186.226", "52.86.186.260"),
    ("ip_address", "2606:4700:4700::1111", "2606:4700:4700"),
    ("ip_address", "81.2.69.142", "192.168.69.142"),
]

# Split so that no scanner of this repository takes them for real ones.
SECRETS = [
    "AKIA" + "IOSFODNN7EXAMPLE",
    "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8",
    "glpat-" + "a1b2c3d4e5f6g7h8i9j0",
    "sk-" + "abcdefghij0123456789" + "T3BlbkFJ" + "abcdefghij0123456789",
    "xoxb-" + "123456789012-123456789012-abcdefghijklmnopqrstuvwx",
    "sk_live_" + "abcdefghijklmnopqrstuvwx",
    "-----BEGIN RSA " + "PRIVATE KEY-----",
    "https://admin:" + "hunter2secret@db.acme.io/main",
    "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9."
    + "eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
]

PROSE = """\
On 12 March 2011 the council voted 7-2 for the 2012-2013 budget of $1,234,567.89, up 3.5 % on 2010/11.
The Yankees beat the Mets 11-3 on 05/06/2009; sets went 6-4, 3-6, 7-6 (7-5) in 2:03:47, a 192.16 point high.
Between 1914-1918 and 1939-1945 some 60,000,000 people died, 1,000 000 of them in 1916 alone.
Version 10.0.19041.1 replaces 9.8.7.6; driver 12.34.56.78 and firmware v21.14.10.33 are needed, see 3.1.4.2.
ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, ISSN 0378-5955, doi 10.1000/182, arXiv 2601.15394, RFC 2822.
Order no. 1234567890123456, tracking 9400110200881234567890, part 4711-0815-42, room 212-555, flight AF 1234.
The asteroid 2004 MN4 passes at 31,600 km on 2029-04-13T21:46:00; its period is 323.5970 days, q = 0.746.
UTC 12:30:45.123, 1258848000 seconds since 1970-01-01, id 2147483647, hash d41d8cd98f00b204e9800998ecf8427e.
Tickets at £12.50 @ the door, 3@5 for $10; follow @council and #budget2011, or see http://www.example.com/a/b.
Population 8 175 133 (2010), 40.7127 -74.0059, postcode SW1A 1AA, ZIP 10001-1234, M25 J10-J11, 12 345 678.
std::vector<int> dead::beef, fe80::1, Psalm 119:105-112, Gen 1:1, ratio 16:9:4, Act No. 123-45 of 1987.
"""


@pytest.mark.parametrize(("tag", "specimen", "twin"), SPECIMENS, ids=[found[1] for found in SPECIMENS])
def test_published_specimens_are_tagged_and_their_twins_are_not(tag: str, specimen: str, twin: str) -> None:
    for text in (specimen, f"Please note {specimen}.", f"({specimen}), as agreed", f"no.: {specimen}\nthen"):
        assert tag in find_tags(text), text
    for text in (twin, f"Please note {twin}."):
        assert tag not in find_tags(text), text


@pytest.mark.parametrize("secret", SECRETS, ids=[f"{secret[:8]}..." for secret in SECRETS])
def test_keys_and_tokens_are_tagged(secret: str) -> None:
    assert "secret" in find_tags(f"export TOKEN={secret}\nnext line")
    assert "secret" not in find_tags(f"export TOKEN={secret[:6]}\nnext line")


NUMBERS = [
    "4111 4493 9092 6684",  # no card by its check digit, and no id in its last three groups
    "0915 0495 1194 5507 5450 3418 4953 2694 6217 3302 4238 1116",
    "1998 2341 2341 2346",
    "2341 2341 2346 1998",
    "serial 1234-2341-2341-2346",
    "DE89 3704 0044 0532 0130 01",
    "4006381333931",  # the barcode of a pencil
    "4222222222222",
    "4220315081820346526, 6763691329830218206, 4417126743161100050",  # seeds
    "ids: 7722545, 44051401359, 608, 6",
    "44051401359; 81121898760",
    "default_rng(2699550179)",
    "[4107320065, 4142559312]",
    "fill_(-2147483648)",
    "np.arange(6) + 98172489",
    "0.2317867516 0.1980172695 0.021490",
    "0.113 428 9267 u, 939.565 4133 MeV, 3.636 947 5520 e-4",
    "[-303.7939453125, 58.06625598088454], 286.6552734375",
    "cuDNN <= 9.10.21.210, torch==2.13.10.11, >=8.9.72.29",
    "see 24.18.16.23 and clause 12.13.14.15",
    "git clone git@github.com:org/name.git",
    "part ABCCD1234E, firm AAACT2727Q",
]


@pytest.mark.parametrize("text", NUMBERS)
def test_numbers_of_ordinary_text_are_called_nothing(text: str) -> None:
    assert find_tags(text) == []


@pytest.mark.parametrize(
    ("tag", "text"),
    [
        ("payment_card", "4111 1111 1111 1111 123"),
        ("payment_card", "4111-1111-1111-1111 2027"),
        ("payment_card", "Card: 5555 5555 5555 4444, exp. 04/27, CVC 123"),
        ("payment_card", "4111 1111 1111 1111 04/27 123"),
        ("national_id", "536-90-4399 04/12/1970"),
        ("national_id", "Aadhaar 2341 2341 2346, PAN ABCPE1234F"),
        ("phone", "+12025550123"),
        ("phone", "tel:+1(202)555-0123"),
        ("phone", "call 202.418-0069 or 1.800.469.4828."),
        ("phone", "0800 2800749, then"),
        ("email", "From: git.hub@example.com"),
        ("ip_address", "inet 81.2.69.142/24"),
    ],
)
def test_what_stands_beside_a_number_does_not_hide_it(tag: str, text: str) -> None:
    assert tag in find_tags(text)


@pytest.mark.parametrize("digits", ["110001198001151002", "420099199012310014", "659999197502280010"])
def test_eighteen_digits_end_no_audit(digits: str) -> None:
    for last in "0123456789X":  # one of them is the check digit of an id, of a county that is not
        assert find_tags(f"tweet {digits[:-1]}{last}") == []


@pytest.mark.parametrize("line", PROSE.splitlines())
def test_ordinary_prose_is_not_tagged(line: str) -> None:
    assert find_tags(line) == []


def test_a_page_of_prose_is_not_tagged() -> None:
    assert find_tags(PROSE) == []


def test_tags_are_sorted_fixed_and_given_once() -> None:
    text = " and ".join(specimen for _, specimen, _ in SPECIMENS) + f" and {SECRETS[0]} "
    assert find_tags(text * 2) == list(TAGS) == sorted(set(TAGS))


def test_random_digits_are_seldom_tagged() -> None:
    draw = Random(0)
    rows = [" ".join(str(draw.randrange(10 ** draw.randrange(1, 9))) for _ in range(40)) for _ in range(300)]
    assert sum(bool(find_tags(row)) for row in rows) <= 6


HOSTILE = [
    *["a@", "a@b.", "://", "://a:b", "1", "1234 ", "+1 ", "(212) ", "(", "eyJ", "//a", "DE12 ", "A", "2001:"],
    *[
        "1.1.",
        "sk-A",
        "\0",
        "\n",
        "\u202e",
        "a\u0301",
        "/1",
        "020 7",
        "12345678901 ",
        "v 1.1.1.1 ",
        "xoxb-1-1-",
    ],
    "\ud800",
]


@pytest.mark.parametrize("unit", HOSTILE, ids=[ascii(unit) for unit in HOSTILE])
def test_hostile_lines_of_ten_megabytes_take_bounded_time(unit: str) -> None:
    find_tags("warm up")
    text = unit * (10_000_000 // len(unit))
    start = time.process_time()
    find_tags(text)
    assert time.process_time() - start < 5


def test_text_beyond_the_cap_is_not_searched() -> None:
    mail = "jane@example.com "
    assert find_tags("x " * (SEARCHED_CHARACTERS // 2 - 20) + mail) == ["email"]
    assert find_tags("x " * (SEARCHED_CHARACTERS // 2) + mail) == []


def test_empty_text_has_no_tags() -> None:
    assert find_tags("") == []


def test_the_note_is_one_sentence_that_names_what_is_left_out() -> None:
    assert NOT_SEARCHED.endswith(".")
    assert ". " not in NOT_SEARCHED
    for left_out in ("names", "postal addresses", "passwords"):
        assert left_out in NOT_SEARCHED


def test_importing_loads_no_detector() -> None:
    heavy = "phonenumbers stdnum detect_secrets email_validator pydantic_extra_types requests"
    loaded = f"sorted(set(sys.modules) & set({heavy!r}.split()))"
    script = f"import sys, kdaudit.analysis.personal_data; print({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_no_detector_uses_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a tag must not open a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    assert find_tags(" ".join([*SECRETS, *(specimen for _, specimen, _ in SPECIMENS)]))
