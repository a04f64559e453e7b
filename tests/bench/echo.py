"""The yardstick: the framework's bare echo, served as our services are."""

import os
from typing import Any

import uvicorn
from litestar import Litestar, post


@post("/echo")
async def echo(data: dict[str, Any]) -> dict[str, Any]:
    """Give back what came."""
    return data


if __name__ == "__main__":
    app = Litestar([echo], openapi_config=None, logging_config=None)
    uvicorn.run(app, port=int(os.environ["HTTP_PORT"]), http="httptools", loop="uvloop", access_log=False, log_level="warning")
