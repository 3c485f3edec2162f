"""Personal data a text holds: e-mail addresses, phone numbers, IP addresses, payment cards and bank accounts.

Takes: texts.  Gives: spans of characters with their kind, or the text with each span replaced by `[kind]`.
Never: looks a number up anywhere, or raises on any text.

What is nobody's is not personal: addresses kept for examples (RFC 2606, 5737, 3849), private networks, numbers made
for films and tests. What only looks alike is told by check digits where a number has them (Luhn 1960, ISO 13616), and
else by its form and the words before it: versions, dates and book numbers stay.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from typing import NamedTuple


class Span(NamedTuple):
    """Characters of a text, and what they are: `email`, `phone`, `ip`, `card` or `iban`."""

    kind: str
    start: int
    end: int


def find(text: str) -> list[Span]:
    """Return the personal data of a text in reading order; no two spans overlap."""
    found = (Span(kind, *span) for kind, finder in FINDERS for span in finder(text))
    spans: list[Span] = []
    for span in sorted(found, key=lambda span: span.start):  # the sort is stable: of equal starts the first finder's
        if not spans or span.start >= spans[-1].end:
            spans.append(span)
    return spans


def mask(text: str) -> str:
    """Return the text with personal data replaced by what it was: `[email]`, `[phone]`, `[ip]`, `[card]`, `[iban]`.

    What only stands clear once its neighbour is masked is masked too: nothing is left that `find` would find.
    """
    while spans := find(text):
        for span in reversed(spans):
            text = f"{text[: span.start]}[{span.kind}]{text[span.end :]}"
    return text


# --- e-mail addresses

EMAIL = re.compile(r"(?<![\w.+%'-])([\w.+%'-]{1,64})@((?:[\w-]{1,63}\.)+[^\W\d_]{2,24})(?![\w@-])")
_AT, _DOT = (rf"(?: ?[\[({{] ?{word} ?[\])}}] ?)" for word in ("at", "dot"))
SPELLED_EMAIL = re.compile(
    rf"(?<![\w.+-])([\w.+-]{{1,64}}){_AT}((?:[\w-]{{1,63}}(?:\.|{_DOT}))+[^\W\d_]{{2,24}})(?![\w@-])", re.IGNORECASE
)
NOBODY = re.compile(r"git|hg|svn|no-?reply|do-?not-?reply|you|your.*|user(?:name)?|someone|foo|bar")
"""Local parts that no person has: accounts of servers, and what stands in forms and examples."""
RESERVED_ENDS = frozenset({"example", "test", "invalid", "localhost", "local"})
PLACEHOLDERS = frozenset({"example", "domain", "yourdomain", "mydomain", "yourcompany", "yoursite"})
USERINFO = re.compile(r"://[^\s/?#]*$")
SCALE = re.compile(r"\dx\.")
LOOK_BACK = 200
"""Characters before a find that are looked at: no address is longer where it matters."""


def _emails(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (EMAIL, SPELLED_EMAIL):
        for found in pattern.finditer(text):
            domain = re.sub(_DOT, ".", found[2], flags=re.IGNORECASE).casefold()
            if _is_somebody(found[1].casefold(), domain.split(".")) and not _follows(USERINFO, text, found.start()):
                yield found.span()


def _is_somebody(local: str, labels: list[str]) -> bool:
    placeholder = labels[-1] in RESERVED_ENDS or PLACEHOLDERS.intersection(labels[:-1])
    is_image = SCALE.match(f"{labels[0]}.")  # icon@2x.png
    return bool(local.strip(".'%+-")) and not NOBODY.fullmatch(local) and not placeholder and not is_image


def _follows(pattern: re.Pattern[str], text: str, at: int) -> bool:
    """Tell whether the pattern, which ends with `$`, stands right before a place."""
    return pattern.search(text[max(0, at - LOOK_BACK) : at]) is not None


# --- IP addresses

IPV4 = re.compile(r"(?<![\w.])(?<!\w[-/])\d{1,3}(?:\.\d{1,3}){3}(?![\w-]|\.\d|/\d{1,2}(?![\d/]))", re.ASCII)
"""No part of a longer number, no `name-1.2.3.4` or `Name/1.2.3.4`, and no network with its mask."""
IPV6 = re.compile(r"(?<![\w:.])(?:[\da-f]{0,4}:){2,7}[\da-f]{0,4}(?![\w:]|/\d)", re.IGNORECASE | re.ASCII)
NUMBERED = re.compile(
    r"(?:\b(?:v|ver|versions?|release|build|firmware|rev|revision|section|chapter|clause|oid)[.:]?|§)\s*$",
    re.IGNORECASE,
)
SMALL_OCTET = 32
"""Four numbers below are a version or a section: of all addresses 0.02 % are of that form."""
MIN_GROUPS = 3
UNICAST = ipaddress.IPv6Network("2000::/3")
RESOLVERS = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("8.8.8.8", "8.8.4.4", "1.1.1.1", "1.0.0.1", "9.9.9.9", "208.67.222.222", "208.67.220.220"),
            *("2001:4860:4860::8888", "2001:4860:4860::8844", "2606:4700:4700::1111", "2606:4700:4700::1001"),
        ),
    )
)
"""Public name servers: everybody's."""


def _ips(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (IPV4, IPV6):
        for found in pattern.finditer(text):
            if _is_host(found[0]) and not _follows(NUMBERED, text, found.start()):
                yield found.span()


def _is_host(written: str) -> bool:
    """Tell whether an address is one machine's on the public network."""
    try:
        address = ipaddress.ip_address(written)
    except ValueError:
        return False
    is_numbering = (
        _is_version(address) if isinstance(address, ipaddress.IPv4Address) else _is_shorthand(address, written)
    )
    return address.is_global and not address.is_multicast and not is_numbering and address not in RESOLVERS


def _is_version(address: ipaddress.IPv4Address) -> bool:
    """Tell whether an address is more likely a version or a section: small, or `5.0.0.62`."""
    return max(address.packed) < SMALL_OCTET or address.packed[1:3] == b"\0\0"


def _is_shorthand(address: ipaddress.IPv6Address, written: str) -> bool:
    """Tell whether an address is none that a machine has, such as `2262::` in a slice of years."""
    return address not in UNICAST or len(written.replace(":", " ").split()) < MIN_GROUPS


# --- payment cards and bank accounts

CARD = re.compile(
    r"""
    (?<![\w.,+-])(?<!\d[ ])
    (?: \d{14,19}
      | \d{4}([ -])\d{4}\1\d{4}\1\d{4}(?:\1\d{3})?
      | \d{4}([ -])\d{6}\2\d{4,5} )
    (?![\w-]|[.,]\d|[ ]\d)
    """,
    re.VERBOSE | re.ASCII,
)
ISSUED = re.compile(
    r"""
      4\d{15}(?:\d{3})?                                      # Visa
    | 5[1-5]\d{14} | 2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}  # Mastercard
    | 3[47]\d{13}                                            # American Express
    | 3(?:0[0-5]|[689]\d)\d{11}                              # Diners Club
    | 6(?:011|5\d\d|4[4-9]\d)\d{12}                          # Discover
    | 35(?:2[89]|[3-8]\d)\d{12}                              # JCB
    | 62\d{14,17}                                            # UnionPay
    """,
    re.VERBOSE,
)
TEST_CARDS = frozenset(
    "4111111111111111 4242424242424242 4012888888881881 4000056655665556 5555555555554444 5105105105105100 "
    "5200828282828210 2223003122003222 378282246310005 371449635398431 6011111111111117 6011000990139424 "
    "30569309025904 38520000023237 3530111333300000 3566002020360505".split()
)
"""Numbers that payment providers publish for tests."""

IBAN_HEAD = re.compile(r"(?<!\w)([A-Z]{2})\d{2}(?=[ ]?[A-Z\d])", re.ASCII)
_IBAN_CHARS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DK18 DO28 EE20 EG29 ES24 FI18 "
    "FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 "
    "LU20 LV21 LY25 MC27 MD24 ME22 MK19 MR27 MT31 MU30 NL18 NO15 PK24 PL28 PS29 PT25 QA29 RO24 RS22 SA24 SC31 SE24 "
    "SI19 SK24 SM27 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20"
)
IBAN_CHARS = {entry[:2]: int(entry[2:]) for entry in _IBAN_CHARS.split()}
"""Length by country (ISO 13616 registry)."""


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for found in CARD.finditer(text):
        digits = re.sub(r"\D", "", found[0])
        is_card = ISSUED.fullmatch(digits) and digits not in TEST_CARDS and _passes_luhn(digits)
        if is_card and not _follows(ADDRESS, text, found.start()):
            yield found.span()


def _passes_luhn(digits: str) -> bool:
    doubled = (divmod(2 * int(digit), 10) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(map(sum, doubled))) % 10 == 0


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for head in IBAN_HEAD.finditer(text):
        rest = _iban_rest(IBAN_CHARS.get(head[1], 0)).match(text, head.end())
        if rest and _passes_mod97(head[0], rest[0].replace(" ", "")):
            yield head.start(), rest.end()


@cache
def _iban_rest(length: int) -> re.Pattern[str]:
    """Return what follows the first four characters; a country without a length has none."""
    return re.compile(rf"(?:[ ]?[A-Z0-9]){{{length - 4}}}(?![A-Za-z0-9])" if length else r"(?!)")


def _passes_mod97(head: str, rest: str) -> bool:
    return int("".join(str(int(char, 36)) for char in rest + head)) % 97 == 1


# --- phone numbers

_SPACED = r"[ ().\-/\u00a0]{0,2}"
INTERNATIONAL = re.compile(
    rf"(?<![\w+.,])(?:\+|(?<!\d )00(?=[1-9]\d{{0,2}}[ -]))[1-9](?:{_SPACED}\d){{7,14}}(?![\w]|[.,-]\d)", re.ASCII
)
AMERICAN = re.compile(
    r"(?<![\w.+/-])(?<!\d )(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[.-])[2-9]\d\d[ .-]\d{4}(?![\w-]|[.,]\d)", re.ASCII
)
NATIONAL = re.compile(
    r"(?<![\w.,+/:-])(?<!\d )\(?0[1-9]\d{0,3}\)?(?:[ /-]\d{2,8}){1,4}(?![\w]|[.,/:-]\d|[ ]\d)", re.ASCII
)
ANNOUNCED = re.compile(
    r"""
    (?<!\w) (?: tel(?:ephone|efon|efono|éfono|efone)? | tél(?:éphone)? | phone | mobile | fax | whatsapp | call | ring
      | dial | rufnummer | handy | móvil | тел(?:ефон)? | 电话 | 電話 | 手机 | هاتف ) \b [^\d\n+\]]{0,20}
    (?<!\w) ( \(?\d (?:[ ().\-/]{0,2}\d){6,14} ) (?!\w | [.,/:-]\d)
    """,
    re.VERBOSE | re.IGNORECASE,
)
"""A number of any form behind a word that says what it is."""
CATALOGUED = re.compile(
    r"\b(?:isbn(?:-?1[03])?|issn|doi|ean|upc|oclc|order|invoice|serial|sku|id)\b[ :#.]*$", re.IGNORECASE
)
ADDRESS = re.compile(r"(?:://|www\.)\S*$")
DATED = re.compile(
    r"(?:19|20)\d\d[-/. ]\d\d?[-/. ]\d\d?\b|\b\d\d?[-/. ]\d\d?[-/. ](?:19|20)\d\d\b|^(?:(?:19|20)\d\d\W?)+$"
)
COUNTED = "012345678901234567890"
MIN_NATIONAL_DIGITS, MAX_NATIONAL_DIGITS = 10, 12
MAX_DIGITS = 15
FICTIONAL = re.compile(
    r"1?(?:\d{3}55501\d\d|555\d{7})"
    r"|(?:44|0|440)(?:1632960\d{3}|1(?:1[3-8]|[2-6]1)4960\d{3}|1914980\d{3}|2079460\d{3}|2890180\d{3}|2920180\d{3}"
    r"|7700900\d{3}|8081570\d{3}|9098790\d{3}|3069990\d{3})"
)
"""Numbers kept free for drama: 555-01xx in North America, Ofcom's in Britain; and area 555, which is nobody's."""


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for found in INTERNATIONAL.finditer(text):
        if _rings(found[0]) and not _is_reference(text, found.start()):
            yield found.span()
    for pattern in (AMERICAN, NATIONAL):
        for found in pattern.finditer(text):
            if _rings_here(found[0], pattern) and not _is_reference(text, found.start()):
                yield found.span()
    for found in ANNOUNCED.finditer(text):
        if _rings(found[1]) and not DATED.search(found[1]):
            yield found.span(1)


def _rings(written: str) -> bool:
    digits = re.sub(r"\D", "", written)
    is_made_up = FICTIONAL.fullmatch(digits) or digits in COUNTED or len(set(digits)) == 1
    return len(digits) <= MAX_DIGITS and not is_made_up


def _rings_here(written: str, form: re.Pattern[str]) -> bool:
    """Tell whether a number without a country is one: by its length, and no date or row of numbers."""
    groups = [int(group) for group in re.findall(r"\d+", written)]
    is_row = len({after - before for before, after in pairwise(groups)}) == 1 and len(groups) > 2
    length = sum(map(str.isdigit, written))
    fits = form is AMERICAN or MIN_NATIONAL_DIGITS <= length <= MAX_NATIONAL_DIGITS
    return fits and not is_row and not DATED.search(written) and _rings(written)


def _is_reference(text: str, at: int) -> bool:
    return _follows(ADDRESS, text, at) or _follows(CATALOGUED, text, at)


Finder = Callable[[str], Iterator[tuple[int, int]]]
FINDERS: tuple[tuple[str, Finder], ...] = (
    ("iban", _ibans),
    ("card", _cards),
    ("ip", _ips),
    ("email", _emails),
    ("phone", _phones),
)
"""Of two kinds that begin at the same character the first is meant."""
