"""The sandbox's labels on paper: a PDF of 4 by 6 inches, and the same for label printers (ZPL II)."""

import io
import struct
import zlib

from reportlab.graphics.barcode.code128 import Code128
from reportlab.lib.units import inch
from reportlab.pdfgen.canvas import Canvas

from deploy.sandbox.parcels import Label, Parcel

WIDTH, HEIGHT = 4 * inch, 6 * inch
MARGIN = 0.25 * inch
BAR_HEIGHT = 1.1 * inch
BAR_WIDTH = 0.014 * inch
PRINTER_DOTS_PER_INCH = 203
PICTURE_WIDTH_DOTS, PICTURE_HEIGHT_DOTS = 1200, 1800
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def printed(label: Label, parcel: Parcel) -> tuple[str, bytes]:
    """Print a parcel's label: its media type and its bytes."""
    return ("application/zpl", _zpl(label, parcel)) if label.document == "zpl" else ("application/pdf", _pdf(label, parcel))


def picture(label: Label, parcel: Parcel) -> bytes:
    """Print a parcel's label as a picture (PNG): a blank page that bears the number in a comment."""
    row = b"\0" + b"\xff" * (PICTURE_WIDTH_DOTS // 8)
    header = struct.pack(">IIBBBBB", PICTURE_WIDTH_DOTS, PICTURE_HEIGHT_DOTS, 1, 0, 0, 0, 0)
    comment = f"Comment\0{label.service} {parcel.tracking_number}".encode()
    pieces = ((b"IHDR", header), (b"tEXt", comment), (b"IDAT", zlib.compress(row * PICTURE_HEIGHT_DOTS)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_piece(name, content) for name, content in pieces)


def _piece(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _pdf(label: Label, parcel: Parcel) -> bytes:
    out = io.BytesIO()
    # Without a date in it the same label is the same bytes.
    page = Canvas(out, pagesize=(WIDTH, HEIGHT), invariant=True)
    page.setTitle(f"{label.service} {parcel.tracking_number}")
    y = HEIGHT - MARGIN
    page.setFont("Helvetica-Bold", 22)
    page.drawString(MARGIN, y - 18, f"SANDBOX {label.service.upper()}")
    page.setFont("Helvetica", 8)
    page.drawRightString(WIDTH - MARGIN, y - 34, f"{parcel.weight_grams / 1000:.2f} kg{'  RETURN' if label.is_return else ''}")
    y -= 44
    for title, size, lines in (("From", 9, _lines(label.ship_from)), ("To", 14, _lines(label.ship_to))):
        page.setFont("Helvetica", 7)
        page.drawString(MARGIN, y - 8, title)
        page.setFont("Helvetica", size)
        for line in lines:
            y -= size + 3
            page.drawString(MARGIN + 28, y, line)
        y -= 12
        page.line(MARGIN, y, WIDTH - MARGIN, y)
        y -= 4
    bars = Code128(parcel.tracking_number, barHeight=BAR_HEIGHT, barWidth=BAR_WIDTH)
    bars.drawOn(page, (WIDTH - bars.width) / 2, MARGIN + 22)
    page.setFont("Courier-Bold", 13)
    page.drawCentredString(WIDTH / 2, MARGIN + 4, parcel.tracking_number)
    page.showPage()
    page.save()
    return out.getvalue()


def _zpl(label: Label, parcel: Parcel) -> bytes:
    width = 4 * PRINTER_DOTS_PER_INCH
    lines = ["^XA", "^CI28", f"^PW{width}", f"^LL{6 * PRINTER_DOTS_PER_INCH}", f"^FO40,40^A0N,50,50^FDSANDBOX {label.service.upper()}^FS"]
    y = 130
    for line in ["From", *_lines(label.ship_from), "", "To", *_lines(label.ship_to)]:
        lines.append(f"^FO40,{y}^A0N,32,32^FD{_plain(line)}^FS")
        y += 42
    lines.append(f"^FO60,{y + 40}^BY3^BCN,200,Y,N,N^FD{parcel.tracking_number}^FS")
    return "\n".join([*lines, "^XZ", ""]).encode()


def _lines(address: dict[str, str]) -> list[str]:
    parts = (
        address.get("name", ""),
        address.get("company_name", ""),
        address.get("street_address", ""),
        f"{address.get('postal_code', '')} {address.get('city', '')}".strip(),
        f"{address.get('country_area', '')} {address['country_code']}".strip(),
    )
    return [part for part in parts if part]


def _plain(text: str) -> str:
    # A caret or a tilde would begin a command.
    return text.replace("^", " ").replace("~", " ")
