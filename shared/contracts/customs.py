"""What customs and carriers must know of a parcel besides its goods: terms, numbers, proofs of filing, and how it is handed over."""

import re
from enum import StrEnum
from typing import Annotated

import msgspec
from msgspec import Meta

# So many a shipment takes at EasyPost (docs.easypost.com/docs/shipments/tax-identifiers).
NUMBERS_MAX = 8

Country = Annotated[str, Meta(pattern="^[A-Z]{2}$", description="ISO 3166-1 alpha-2, or XI for Northern Ireland.")]


class Incoterm(StrEnum):
    """Who pays duties and import taxes: the recipient (DAP), or the shop (DDP)."""

    DAP = "DAP"
    DDP = "DDP"


class CustomsContents(StrEnum):
    """Why goods cross the border."""

    MERCHANDISE = "merchandise"
    GIFT = "gift"
    SAMPLE = "sample"
    RETURNED_GOODS = "returned_goods"
    DOCUMENTS = "documents"
    HUMANITARIAN_DONATION = "humanitarian_donation"
    OTHER = "other"


class NonDelivery(StrEnum):
    """What becomes of a parcel that cannot be delivered."""

    RETURN = "return"
    ABANDON = "abandon"


class DutiesPayer(StrEnum):
    """Whose account with the carrier duties are charged to."""

    SENDER = "SENDER"
    THIRD_PARTY = "THIRD_PARTY"


class DutiesAccount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The account with the carrier that pays duties and import taxes of what is sent DDP."""

    payer: DutiesPayer
    account: Annotated[str, Meta(min_length=1, max_length=60)]
    country: Country
    postal_code: Annotated[str, Meta(max_length=40)] = ""


class TaxNumberKind(StrEnum):
    """Which register a number is of."""

    EORI = "EORI"
    IOSS = "IOSS"
    VOEC = "VOEC"
    VAT = "VAT"
    EIN = "EIN"
    ARN = "ARN"


# How each is written: the EU's and the UK's EORI guidance, Regulation (EU) 2020/194 Annex (IOSS), skatteetaten.no (VOEC),
# ato.gov.au (ARN, or an ABN), irs.gov (EIN).
FORMS = {
    TaxNumberKind.EORI: re.compile(r"[A-Z]{2}[A-Z0-9]{6,15}", re.ASCII),
    TaxNumberKind.IOSS: re.compile(r"IM[0-9]{10}", re.ASCII),
    TaxNumberKind.VOEC: re.compile(r"[0-9]{7}", re.ASCII),
    TaxNumberKind.VAT: re.compile(r"[A-Z0-9]{4,17}", re.ASCII),
    TaxNumberKind.EIN: re.compile(r"[0-9]{2}-?[0-9]{7}", re.ASCII),
    TaxNumberKind.ARN: re.compile(r"[0-9]{11,12}", re.ASCII),
}


class TaxNumber(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A number of the shop's in a customs or tax register, and the country that gave it."""

    kind: TaxNumberKind
    number: Annotated[str, Meta(min_length=1, max_length=40)]
    country: Country

    def __post_init__(self) -> None:
        """Refuse what cannot be such a number."""
        if not FORMS[self.kind].fullmatch(self.number):
            raise ValueError(f"this is no {self.kind.value} number")
        if self.kind is TaxNumberKind.EORI and self.number[:2] != self.country:
            raise ValueError("an EORI number begins with the country that gave it")


class CustomsTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How goods are declared: a label's own terms hold before the order's, and these before the store's."""

    # Who certifies the declaration; the shop's name on its address where none is given.
    signer: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    contents: CustomsContents | None = None
    contents_explanation: Annotated[str, Meta(min_length=1, max_length=255)] | None = None
    non_delivery: NonDelivery | None = None
    incoterm: Incoterm | None = None
    duties_account: DutiesAccount | None = None
    eel_pfc: (
        Annotated[str, Meta(pattern=r"^NOEEI 30\.[0-9]{1,2}(\([a-z0-9]{1,4}\)){0,3}$", description="Exemption legend, 15 CFR Part 30.")]
        | None
    ) = None
    itn: Annotated[str, Meta(pattern=r"^X[0-9]{14}$", description="Internal Transaction Number of the US export filing.")] | None = None
    numbers: Annotated[list[TaxNumber], Meta(max_length=NUMBERS_MAX)] | None = None


class DeliveryConfirmation(StrEnum):
    """Whose signature a parcel is handed over for."""

    SIGNATURE = "signature"
    ADULT_SIGNATURE = "adult_signature"


class DangerousGoods(StrEnum):
    """What of goods is dangerous in transport."""

    LITHIUM_BATTERIES = "lithium_batteries"
    LIMITED_QUANTITY = "limited_quantity"
