"""Tags for personal data and secrets in a leaked text: e-mail, phone, card, account, national id, key, IP.

Maintained libraries decide what counts: email-validator, phonenumbers (Google's libphonenumber),
pydantic-extra-types (issuers and check digits of payment cards), python-stdnum (IBAN and national ids),
detect-secrets (keys and tokens of known services), and the standard library's ipaddress. The patterns
here only cut out candidates, by how such a number is written, so that dates, prices, scores and version
numbers never reach a check that one number in ten would pass by chance.

Kinds that no lightweight detector finds well are left out, and `NOT_SEARCHED` says so. Tags only order the
leaks for reading: absence of a tag is not evidence of absence. No check uses the network.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

TAGS = ("bank_account", "email", "ip_address", "national_id", "payment_card", "phone", "secret")

NOT_SEARCHED = (
    "Leaks are tagged only by their form (e-mail, phone, payment card, IBAN, national id, key or token, "
    "public IP): names, postal addresses, passwords, dates of birth and other bank numbers are not searched "
    "for, because no lightweight detector finds them well; phone numbers without a country code are "
    "recognized only for North America and the UK; absence of a tag is not evidence of absence."
)
"""A note for results.json."""

SEARCHED_CHARACTERS = 10_000
"""Only a text's first characters are searched, which bounds the time; a leak's 100 tokens are far fewer."""

_EMAIL = re.compile(r"[^\s@<>()\[\]{},;:\"'|/=]{1,64}@[^\s@<>()\[\]{},;:\"'|/=]{4,255}")
_SENTENCE_ENDS = ".!?*_-\N{RIGHT DOUBLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}"

_SHARED_ACCOUNTS = ("git", "hg", "svn")
"""Before the @ of a repository's address (git@github.com:owner/name), which is nobody's mailbox."""

_PHONE_REGIONS = ("US", "GB")
"""Whose numbers are known without a country code; US stands for all of the North American plan."""

_CARD = re.compile(
    r"(?<![\w.,:/=+-])(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|\d{4}([ -])\d{6}\2\d{5}|\d{14,16})(?![\w/]|[.,:-]\d)"
)
"""Digits without groups count from 14 to 16: 13 are milliseconds and barcodes, 17 and more are ids and seeds
of random numbers, of which every hundredth passes for a card."""
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![a-z0-9])")
_IBAN_LENGTHS = range(15, 35)

_IPV4 = re.compile(r"(?<![\w.,-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])")
_VERSION_WORD = re.compile(
    r"(?:(?:\bv|\bver|version|release|build|firmware|driver|update|patch|"
    r"section|chapter|clause|article|paragraph|see|\u00a7)[.:]?|[<>=!~]=|[<>~^])\s*$",
    re.IGNORECASE,
)
"""What stands before a version and not before an address: such a word, or a comparison."""
_SMALL_PART, _SMALL_PARTS = 10, 3
_DECIMAL = re.compile(r"\d+\.\d+(?: \d+)*")
"""A decimal, its digits perhaps in groups: 0.2317867516, 0.113 428 9267."""
_NEAR = 24
"""Characters beside a number that are looked at."""

_NATIONAL_IDS = (
    (r"\d{3}-\d{2}-\d{4}", "us.ssn"),
    (r"9\d{2}-\d{2}-\d{4}", "us.itin"),
    (r"\d{3}-\d{3}-\d{3}", "ca.sin"),
    (r"[A-Z]{4}\d{6}[HM][A-Z]{5}[A-Z\d]\d", "mx.curp"),
    (r"\d{3}\.\d{3}\.\d{3}-\d{2}", "br.cpf"),
    (r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d{3} ?\d{3} ?\d{2}", "fr.nir"),
    (r"\d{8}-?[A-Z]", "es.dni"),
    (r"[XYZ]-?\d{7}-?[A-Z]", "es.nie"),
    (r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]", "it.codicefiscale"),
    (r"\d{2} \d{3} \d{3} \d{3}", "de.idnr"),
    (r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", "be.nn"),
    (r"756\.\d{4}\.\d{4}\.\d{2}", "ch.ssn"),
    (r"\d{11}", "pl.pesel"),
    (r"(?:\d{2})?\d{6}[-+]\d{4}", "se.personnummer"),
    (r"\d{6} ?\d{5}", "no.fodselsnummer"),
    (r"\d{6}[-+A-F]\d{3}[A-Z\d]", "fi.hetu"),
    (r"[A-Z]{3}P[A-Z]\d{4}[A-Z]", "in_.pan"),  # P: a person's; firms' numbers name nobody
    (r"[2-9]\d{3} \d{4} \d{4}", "in_.aadhaar"),
    (r"\d{17}[\dX]", "cn.ric"),
    (r"\d{6}-\d{7}", "kr.rrn"),
)
"""How an id is written, and the module of python-stdnum that knows its check digits, dates and ranges.

Ids without a form or a check of their own (nine bare digits, say) would tag every tenth number.
"""
_NATIONAL = [(re.compile(rf"(?<![\w.,:/=+-]){form}(?![\w/]|[.,:-]\d)"), name) for form, name in _NATIONAL_IDS]

_SECRETS = {
    "aws": "AWSKeyDetector",
    "basic_auth": "BasicAuthDetector",
    "discord": "DiscordBotTokenDetector",
    "github_token": "GitHubTokenDetector",
    "gitlab_token": "GitLabTokenDetector",
    "jwt": "JwtTokenDetector",
    "mailchimp": "MailchimpDetector",
    "npm": "NpmDetector",
    "openai": "OpenAIDetector",
    "private_key": "PrivateKeyDetector",
    "pypi_token": "PypiTokenDetector",
    "sendgrid": "SendGridDetector",
    "slack": "SlackDetector",
    "square_oauth": "SquareOAuthDetector",
    "stripe": "StripeDetector",
    "telegram_token": "TelegramBotTokenDetector",
    "twilio": "TwilioKeyDetector",
}
"""Plugins of detect-secrets that know a service's own form; those that go by a nearby word or by entropy
tag ordinary prose."""


def find_tags(text: str) -> list[str]:
    """The kinds of personal or secret data that a text seems to hold.

    Args:
        text: any text; its first `SEARCHED_CHARACTERS` are searched.

    Returns:
        Some of `TAGS`, sorted, each at most once.

    """
    searched = text[:SEARCHED_CHARACTERS]
    return [tag for tag, found in _FINDERS.items() if found(searched)]


def _bank_account(text: str) -> bool:
    iban = _stdnum("iban")
    compact = (match.group().replace(" ", "") for match in _IBAN.finditer(text))
    # Words in capitals may follow the number; a country's IBANs have one length, so at most one cut fits.
    return any(iban.is_valid(one[:length]) for one in compact for length in _IBAN_LENGTHS)


def _email(text: str) -> bool:
    if "@" not in text:
        return False
    from email_validator import EmailNotValidError, validate_email

    for match in _EMAIL.finditer(text):
        try:
            found = validate_email(match.group().strip(_SENTENCE_ENDS), check_deliverability=False)
        except EmailNotValidError:
            continue
        if found.local_part not in _SHARED_ACCOUNTS:
            return True
    return False


def _ip_address(text: str) -> bool:
    """An address of the public Internet; private and reserved ones point to nobody."""
    matches = (match for pattern in (_IPV4, _IPV6) for match in pattern.finditer(text))
    return any(_is_public(match.group()) and not _is_version(match) for match in matches)


def _is_public(candidate: str) -> bool:
    try:
        return ipaddress.ip_address(candidate.rstrip(":")).is_global
    except ValueError:
        return False


def _is_version(match: re.Match[str]) -> bool:
    """Whether an address reads as a version or a section: by the word before it, or by its small parts."""
    if _VERSION_WORD.search(match.string, max(0, match.start() - 20), match.start()):
        return True
    parts = match.group().split(".")
    return len(parts) == 4 and sum(int(part) < _SMALL_PART for part in parts) >= _SMALL_PARTS


def _national_id(text: str) -> bool:
    return any(
        not _in_a_row(match, r"\d+") and _is_national_id(match.group(), name)
        for pattern, name in _NATIONAL
        for match in pattern.finditer(text)
    )


def _is_national_id(candidate: str, name: str) -> bool:
    try:
        return bool(_stdnum(name).is_valid(candidate))
    except LookupError:
        return False  # a Chinese id of no county: python-stdnum (2.2) looks one up that is not in its table


def _in_a_row(match: re.Match[str], group: str) -> bool:
    """Whether a number continues: more groups of digits before or after it, with the same separator.

    Then it is part of a longer number, or a row of a table.

    Args:
        match: the number.
        group: pattern of a group that would continue it.

    """
    text, (start, end) = match.string, match.span()
    signs = {*match.group()} & {" ", "-"} or {"[,;] "}  # bare digits: a list
    return any(
        re.search(rf"(?<!\d){group}{sign}$", text[max(0, start - _NEAR) : start])
        or re.match(rf"{sign}{group}(?![\d/])", text[end : end + _NEAR])
        for sign in signs
    )


def _payment_card(text: str) -> bool:
    from pydantic_core import PydanticCustomError
    from pydantic_extra_types.payment import PaymentCardBrand, PaymentCardNumber

    for match in _CARD.finditer(text):
        if _in_a_row(match, r"\d{4}"):  # a code of three digits or a date may follow a card's number
            continue
        try:
            card = PaymentCardNumber(re.sub("[ -]", "", match.group()))
        except PydanticCustomError:
            continue
        if card.brand != PaymentCardBrand.other:
            return True
    return False


def _phone(text: str) -> bool:
    """A valid number, grouped as its country groups them; bare digits could be any number."""
    from phonenumbers import Leniency, PhoneNumberMatcher

    return any(
        _is_written_as_phone(text, match.start, match.end)
        for region in _PHONE_REGIONS
        for match in PhoneNumberMatcher(text, region, leniency=Leniency.STRICT_GROUPING)
    )


def _is_written_as_phone(text: str, start: int, end: int) -> bool:
    """Whether a valid number is neither bare digits, nor part of a longer number, nor a decimal."""
    written = text[start:end]
    if re.match(r"\+[\d(]", written):
        return True
    grouped = not written.strip("+()[]-. ").isdecimal()  # (2699550179) is an argument
    apart = not re.search(r"\d[.,]?$", text[max(0, start - 2) : start]) and not re.match(
        r"[.,]?\d", text[end : end + 2]
    )
    return grouped and apart and not _DECIMAL.fullmatch(written)


def _secret(text: str) -> bool:
    return any(
        True
        for line in text.splitlines()
        for plugin in _secret_plugins()
        for _ in plugin.analyze_string(line)
    )


@cache
def _secret_plugins() -> tuple[Any, ...]:
    modules = {name: import_module(f"detect_secrets.plugins.{name}") for name in _SECRETS}
    return tuple(getattr(module, _SECRETS[name])() for name, module in modules.items())


def _stdnum(name: str) -> Any:  # noqa: ANN401 - a module
    return import_module(f"stdnum.{name}")


_FINDERS: dict[str, Callable[[str], bool]] = {
    "bank_account": _bank_account,
    "email": _email,
    "ip_address": _ip_address,
    "national_id": _national_id,
    "payment_card": _payment_card,
    "phone": _phone,
    "secret": _secret,
}
