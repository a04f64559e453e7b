"""Reading a body takes time and memory in proportion to its size, whatever it holds: a shopper's 256 KiB stop no gateway."""

import time
import tracemalloc

import pytest

from services.gateway.domain import BodyAmbiguous, HeaderMalformed, TextUnstorable, expected_version, parsed, wait_seconds

READ_MAX_SECONDS = 3.0


def test_a_key_twice_among_many_is_found_at_once() -> None:
    body = "{" + ",".join(f'"{number}":1' for number in range(25_000)) + ',"24999":1}'

    began_seconds = time.perf_counter()
    with pytest.raises(BodyAmbiguous, match="'24999' comes twice"):
        parsed(body.encode())

    assert time.perf_counter() - began_seconds < READ_MAX_SECONDS


def test_nul_far_behind_a_long_name_takes_little_memory() -> None:
    body = f'{{"{"k" * 10_000}":[{",".join("1" * 10_000)}],"z":[{{"name":"\\u0000"}}]}}'

    tracemalloc.start()
    with pytest.raises(TextUnstorable, match=r"^\$\.z\[0\]\.name holds a NUL"):
        parsed(body.encode())
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert most_bytes < 50 * len(body)


@pytest.mark.parametrize("body", [b'{"\\u0000":1}', b'["\\u0000"]', b'"\\u0000"', b'[[{"a":{"b\\u0000":1}}]]'])
def test_nul_is_found_wherever_it_is(body: bytes) -> None:
    with pytest.raises(TextUnstorable):
        parsed(body)


def test_a_number_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(BodyAmbiguous, match="more digits"):
        parsed(b"[%s]" % (b"9" * 5_000))


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5_000, "-1", "+1", "1_0", "1.5", "1e9", ""])
def test_a_header_that_is_no_number_is_refused(number: str) -> None:
    with pytest.raises(HeaderMalformed):
        wait_seconds(f"wait={number}", 10.0)
    with pytest.raises(HeaderMalformed):
        expected_version(f'"{number}"')
