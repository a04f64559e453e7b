"""Reason phrases of HTTP statuses, the same on every Python: `http.HTTPStatus` renamed some of them in 3.13."""

from http import HTTPStatus

# RFC 9110, section 15; 428, 429, 431 and 511 are of RFC 6585, section 3 to 6.
REASON_PHRASES = {
    400: "Bad Request",
    401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    407: "Proxy Authentication Required",
    408: "Request Timeout",
    409: "Conflict",
    410: "Gone",
    411: "Length Required",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    416: "Range Not Satisfiable",
    417: "Expectation Failed",
    421: "Misdirected Request",
    422: "Unprocessable Content",
    426: "Upgrade Required",
    428: "Precondition Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
    511: "Network Authentication Required",
}


# What Python and the framework have called them since and before, by releases of their own.
OTHER_PHRASES = frozenset(
    {
        *("Request Entity Too Large", "Request-URI Too Long", "Requested Range Not Satisfiable", "Unprocessable Entity", "I'm a Teapot"),
        *(status.phrase for status in HTTPStatus),
    }
)


def detail_of(status: int, detail: str) -> str:
    """Give the framework's words for an error; where it had none but a reason phrase, it gets ours instead."""
    return REASON_PHRASES[status] if detail in OTHER_PHRASES else detail
