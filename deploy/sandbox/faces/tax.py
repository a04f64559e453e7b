"""The sandbox's tax office: a few known rates, with the faces of TaxJar and of AvaTax."""

from litestar import Response, Router

from deploy.sandbox.books import Refused
from deploy.sandbox.faces import avatax, taxjar
from deploy.sandbox.server import HttpRequest, json_response


def _refused(request: HttpRequest, refused: Refused) -> Response[bytes]:
    if request.url.path.startswith("/api/"):
        return json_response(avatax.AVATAX.error(refused), refused.status, avatax.correlation())
    return json_response(taxjar.TAXJAR.error(refused), refused.status)


router = Router(path="/", route_handlers=[*taxjar.handlers, *avatax.handlers], exception_handlers={Refused: _refused})
