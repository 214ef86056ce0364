"""Errors as answers: one shape for all of them, and which of ours is which status."""

from __future__ import annotations

from http import HTTPStatus

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from pipeline.errors import PipelineError, TransientError

_INTERNAL = "something went wrong here; it is logged"


class RequestError(Exception):
    """The request cannot be answered as it is; ``message`` tells its sender why."""

    def __init__(self, status: HTTPStatus, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def answer(status: int, code: str, message: str) -> JSONResponse:
    """An error in the one shape all errors have."""
    return JSONResponse({"error": {"code": code, "message": message}}, status_code=status)


def install(app: FastAPI) -> None:
    """Make every error of `app` answer in that shape, the framework's own among them."""
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(HTTPException, _framework_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(PipelineError, _pipeline_error)
    app.add_exception_handler(Exception, _unexpected_error)


def _request_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestError)
    return answer(error.status, error.code, error.message)


def _framework_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    response = answer(status, status.name.lower(), f"{status.phrase}: {status.description}".rstrip(": "))
    response.headers.update(error.headers or {})
    return response


def _validation_error(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = [f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()]
    return answer(HTTPStatus.UNPROCESSABLE_ENTITY, "invalid_request", "; ".join(problems))


def _pipeline_error(request: Request, error: Exception) -> JSONResponse:
    # What went wrong inside is for the log: an answer names neither hosts nor indices.
    structlog.get_logger().warning("request failed", path=request.url.path, error=str(error))
    if isinstance(error, TransientError):
        return answer(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", "search does not answer; try again")
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _INTERNAL)


def _unexpected_error(_: Request, __: Exception) -> JSONResponse:
    # Logged, with its traceback, by the server.
    return answer(HTTPStatus.INTERNAL_SERVER_ERROR, "internal", _INTERNAL)
