"""The gateway: the HTTP API, who may call it, and the promise that no request is carried out twice."""
