"""Postal codes in one spelling, whatever people, carriers and files write."""

import pytest

from services.fulfillment.domain.postal import matches, normalized


class TestSpelling:
    @pytest.mark.parametrize(
        ("country", "typed", "spelled"),
        [
            # C1: github.com/woocommerce/woocommerce/issues/24506; USPS Publication 28, section 233: the last four refine the ZIP.
            pytest.param("US", "90001-1234", "90001", id="C1"),
            ("US", "90001 1234", "90001"),
            ("US", "900011234", "90001"),
            ("US", "CA 90001-1234", "90001"),
            ("PR", "PR 00901-1234", "00901"),
            # D6: github.com/woocommerce/woocommerce/issues/29212.
            pytest.param("DE", "D-27498", "27498", id="D6-Heligoland"),
            pytest.param("DE", "DE-78266", "78266", id="D6-Büsingen"),
            pytest.param("ES", "E-35001", "35001", id="D6-Canaries"),
            pytest.param("FI", "AX-22100", "22100", id="D6-Åland"),
            ("AX", "FI-22100", "22100"),
            # Universal Postal Union, addressing sheets (upu.int, postal addressing systems by country).
            ("BR", "01310-100", "01310100"),
            ("PL", "00-950", "00950"),
            ("PT", "P-2725-079", "2725079"),
            ("JP", "〒100-0001", "1000001"),
            ("JP", "１００－０００１", "1000001"),
            ("SE", "SE-111 22", "11122"),
            ("GR", "104 31", "10431"),
            ("CZ", "CZ-110 00", "11000"),
            ("NL", "1012 ab", "1012AB"),
            ("LT", "LT-01100", "01100"),
            ("LV", "LV-1010", "1010"),
            ("LU", "L-1234", "1234"),
            ("MD", "MD-2001", "2001"),
            ("HR", "HR-10000", "10000"),
            ("SI", "SI-1000", "1000"),
            ("AD", "AD500", "500"),
            ("LI", "FL-9490", "9490"),
            ("MC", "F-98000", "98000"),
            # A territory's own letters in the addresses of the country whose post serves it.
            ("FR", "MC-98000", "98000"),
            ("FR", "RE-97400", "97400"),
            ("DK", "GL-3900", "3900"),
            ("IT", "RSM-47890", "47890"),
            ("CH", "FL-9490", "9490"),
            ("NO", "SJ-9170", "9170"),
            ("ES", "IC-35001", "35001"),
            ("KR", "03051", "03051"),
            ("TW", "100-47", "10047"),
            ("IN", "560 001", "560001"),
            ("EG", "١٢٤١١", "12411"),
            # Letters that are the code's own.
            ("GB", "e1 6an", "E16AN"),
            ("GB", "L1 8JQ", "L18JQ"),
            ("GB", "GB-SW1A 1AA", "SW1A1AA"),
            ("GB", "SW1A\u00a01AA", "SW1A1AA"),
            ("CA", "k1a-0b1", "K1A0B1"),
            ("IE", "D02 AF30", "D02AF30"),
            ("MT", "MTF 1234", "MTF1234"),
            ("MT", "MT-VLT 1117", "VLT1117"),
            ("JE", "JE2 3AB", "JE23AB"),
            ("AR", "C1070AAM", "C1070AAM"),
            ("AR", "E3100", "E3100"),
            ("SZ", "H100", "H100"),
        ],
    )
    def test_is_one_for_whatever_is_typed(self, country: str, typed: str, spelled: str) -> None:
        assert normalized(country, typed) == spelled
        assert normalized(country, spelled) == spelled


class TestPatterns:
    @pytest.mark.parametrize(
        ("country", "pattern", "inside", "outside"),
        [
            ("DE", "12000-12999", "D-12345", "13000"),
            ("DE", "D-12000-D-12999", "12345", "13000"),
            ("DE", "D-27498", "27498", "27499"),
            ("DE", "D-274*", "27498", "27500"),
            ("US", "123*", "12345-6789", "12245"),
            ("US", "12000-12999", "12345-6789", "13000"),
            ("US", "995-999", "99501", "99401"),
            # A dash of the code's own.
            ("BR", "01310-100", "01310100", "01310-101"),
            ("BR", "01310-100-01310-199", "01310-150", "01310-200"),
            ("BR", "01310-1*", "01310-199", "01310-200"),
            ("PL", "00-950", "00-950", "00-951"),
            ("PT", "9000-9499", "9100-321", "9500-321"),
            ("JP", "100-0001", "1000001", "100-0002"),
            ("SE", "111-22", "111 22", "111 23"),
            ("LT", "LT-01100", "01100", "LT-01101"),
            ("CA", "K1A-0B1", "K1A 0B1", "K1A 0B2"),
            ("CA", "K1A-K9Z", "K2P 1L4", "L1A 1A1"),
            ("GB", "IV1-1AA", "IV1 1AA", "IV1 1AB"),
            ("IN", "560-001", "560001", "560002"),
            ("IN", "560-599", "560001", "600001"),
            ("KR", "110-810", "110810", "110811"),
        ],
    )
    def test_read_a_dash_as_the_country_writes_it(self, country: str, pattern: str, inside: str, outside: str) -> None:
        assert matches(inside, pattern, country=country)
        assert not matches(outside, pattern, country=country)
