"""Laws of personal data: what is somebody's is found and masked whole, and what only looks alike stays."""

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from askback.personal import FINDERS, Span, find, mask


def kinds(text: str) -> list[str]:
    return [span.kind for span in find(text)]


PERSONAL = {
    "email": [
        "Write to jane.doe@lighthouse.net.",
        "<mailto:j_doe+boats@mail.tides.co.uk>",
        "JANE@TIDES.ORG, please",
        "fischer@küste.de",
        "用户@潮汐.中国",
        "mail jane (at) tides (dot) org today",
        "jane[at]tides.org",
        "https://tides.org/subscribe?to=jane@tides.org",
        "o'brien@tides.ie",
        "info@tides.org",
        "Jane Doe <jane-doe@tides.travel>",
    ],
    "phone": [
        "+49 30 901820",
        "+44 (0)20 7123 4567",
        "+1-415-867-5309",
        "+33 6 12 34 56 78",
        "0049 171 1234567",
        "(415) 867-5309",
        "415.867.5309",
        "1-415-867-5309",
        "UK office: 020 7123 4567.",
        "0171 1234567",
        "01 42 68 53 00",
        "Tel. 867-5309",
        "Tel.: 030/901820",
        "Fax 4158675309",
        "call us on 1300 655 506",
        "电话：8675 3091",
        "тел. 8 (495) 123-45-67",
    ],
    "ip": [
        "from 93.184.216.34 at night",
        "http://93.184.216.34/index.html",
        "93.184.216.34:8080",
        "[216.58.196.46]",
        "ping 151.101.1.140.",
        "2a00:1450:4001:81b::200e",
        "[2a00:1450:4001:81b::200e]:80",
        "2607:F8B0:4005:0805:0000:0000:0000:200E",
        "addr=185.199.108.153;",
        "last seen from `91.198.174.192`",
    ],
    "card": [
        "4539 1488 0343 6467",
        "4539148803436467",
        "card: 5425-2334-3010-9903",
        "3782 822463 10021",
        "6011 6011 6011 6611",
        "3530 1113 3330 0018",
        "2720 9925 9319 0120",
        "6500 0000 0000 0002",
        "VISA 4916338506082832",
        "Pay by 5555 4444 3333 1111.",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 00",
        "DE89370400440532013000",
        "IBAN: GB82 WEST 1234 5698 7654 32 BIC: NWBKGB2L",
        "FR14 2004 1010 0505 0001 3M02 606",
        "NL91ABNA0417164300",
        "CH93 0076 2011 6238 5295 7",
        "account ES91 2100 0418 4502 0005 1332,",
        "NO93 8601 1117 947",
        "BE68 5390 0754 7034",
        "IT60 X054 2811 1010 0000 0123 456",
    ],
}

NOBODYS = {
    "email": [
        "user@example.com",
        "jane@mail.example.org",
        "jane@example.co.uk",
        "root@localhost",
        "jane@tides.invalid",
        "git@github.com:tides/boat.git",
        "noreply@tides.org",
        "your.name@mail.com",
        "icon@2x.png",
        "@app.route('/tides')",
        "https://medium.com/@jane",
        "ftp://jane:secret@ftp.tides.org/boat",
        "npm install boat@1.2.3",
        "meet at noon, dot the i",
        "a @ b . c",
    ],
    "phone": [
        "2023-11-04 02:10:01",
        "04-11-2023 1200",
        "ISBN 978-3-16-148410-0",
        "ISBN 0-306-40615-2",
        "ISBN 0306406152",
        "version 10.15.7 build 19H2026",
        "1 234 567 890 people",
        "1,234,567,890",
        "3.14159265358979",
        "0123456789",
        "01 02 03 04 05 06",
        "years 1998 1999 2000 2001",
        "call 2020 2021 2022",
        "(415) 555-0123",
        "555-555-5555",
        "01632 960123",
        "+44 7700 900123",
        "https://tides.org/boat/415-867-5309",
        "order 0171 1234567",
        "800x600-1024x768",
        "GMT+0100, +20 %",
        "id=4158675309",
        "from 1990-1995 to 2000-2005",
        "0 1 2 3 4 5 6 7 8 9 10 11",
        "a ratio of 121/2473 to 109/1778",
        "0x0171 1234567",
    ],
    "ip": [
        "127.0.0.1",
        "192.168.178.20 and 10.0.0.138",
        "192.0.2.44",
        "203.0.113.7",
        "255.255.255.0",
        "224.0.0.251",
        "version 93.184.216.34",
        "v93.184.216.34",
        "boat-93.184.216.34.tar.gz",
        "Chrome/91.0.172.124",
        "release 5.0.0.62",
        "section 1.2.3.4",
        "1.10.2.3",
        "93.184.216.0/24",
        "93.184.216.34.7",
        "893.184.216.34",
        "8.8.8.8",
        "::1",
        "fe80::1ff:fe23:4567:890a",
        "2001:db8::8a2e:370:7334",
        "std::vector and a::b",
        "12:30:45",
        "from 1677 to 2262::",
        "00:1b:63:84:45:e6",
    ],
    "card": [
        "4111 1111 1111 1111",
        "4242424242424242",
        "4539 1488 0343 6468",
        "0.4539148803436467",
        "x4539148803436467",
        "9999 9999 9999 9995",
        "1609459200000",
        "20230101120000",
        "4006381333931",
        "https://tides.org/4539148803436467",
        "4539 1488 0343 6467 4539 1488 0343 6467",
        "123e4567-e89b-12d3-a456-426614174000",
    ],
    "iban": [
        "DE89 3704 0044 0532 0130 01",
        "DE89 3704 0044 0532 0130",
        "DE89 3704 0044 0532 0130 0012",
        "ZZ89 3704 0044 0532 0130 00",
        "de89 3704 0044 0532 0130 00",
        "GB82",
        "AB12 CDEF",
        "US64SVBKUS6S3300958879",
        "XDE89370400440532013000",
        "MT29 2020 BOAT",
    ],
}


def test_every_kind_has_ten_cases_of_either_side() -> None:
    assert set(PERSONAL) == set(NOBODYS) == {kind for kind, _ in FINDERS}
    assert all(len(texts) >= 10 for side in (PERSONAL, NOBODYS) for texts in side.values())


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in PERSONAL.items() for text in texts])
def test_what_is_somebodys_is_found(kind: str, text: str) -> None:
    assert kinds(text) == [kind]
    assert f"[{kind}]" in mask(text)


@pytest.mark.parametrize("text", [text for texts in NOBODYS.values() for text in texts])
def test_what_is_nobodys_stays(text: str) -> None:
    assert kinds(text) == []
    assert mask(text) == text


def test_spans_say_where_in_the_text_and_do_not_overlap() -> None:
    text = "jane@tides.org, +49 30 901820, DE89 3704 0044 0532 0130 00"
    assert find(text) == [Span("email", 0, 14), Span("phone", 16, 29), Span("iban", 31, 58)]
    assert mask(text) == "[email], [phone], [iban]"


def test_a_text_without_personal_data_is_not_changed() -> None:
    text = "The tide of 2023-11-04 rose 3.25 m by 12:30, 7 % above the table of 1998 (p. 415)."
    assert mask(text) == text


@given(
    st.lists(
        st.one_of(st.text(max_size=8), st.sampled_from([text for texts in PERSONAL.values() for text in texts])),
        max_size=8,
    ).map(" ".join)
)
def test_masking_leaves_nothing_to_find(text: str) -> None:
    assert all(one.end <= other.start for one, other in pairwise(find(text)))
    assert find(mask(text)) == []


def test_masking_keeps_everything_around_a_find() -> None:
    for kind, texts in PERSONAL.items():
        for text in texts:
            [span] = find(text)
            assert mask(text) == f"{text[: span.start]}[{kind}]{text[span.end :]}"


def test_check_digits_tell_nine_of_ten_numbers_apart() -> None:
    chance = random.Random(0)
    numbers = ["4" + "".join(chance.choices("0123456789", k=15)) for _ in range(2000)]
    found = sum(kinds(number) == ["card"] for number in numbers)
    assert 0.07 * len(numbers) < found < 0.13 * len(numbers)
