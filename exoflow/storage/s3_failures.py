"""What S3's errors mean for a store, and what to do about them."""

from __future__ import annotations

import os
import socket

from exoflow.errors import StorageError, UnsupportedStore

_CREDENTIALS = "renew them (`aws sso login`, or whatever made them), then resume: nothing that was acknowledged is lost"
_RIGHTS = (
    "ask for s3:GetObject, s3:PutObject, s3:DeleteObject, s3:AbortMultipartUpload and s3:ListBucket for the store's"
    " prefix: without s3:ListBucket, S3 answers so for each object that is not there"
)
_REGION = "name its region: AWS_DEFAULT_REGION, or S3Store(url, client_kwargs={'region_name': ...})"
_LATER = "the service is overloaded or out of order, and stayed so for all tries: look into its status, then resume"
_KEYS = "the access key or its secret is wrong: look into AWS_PROFILE, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
_WHOLE_URL = "AWS_ENDPOINT_URL must be a whole url, with http:// or https://"

_ADVICE = {
    "AccessDenied": _RIGHTS,
    "403": f"the credentials are wrong, have expired or lack a right; {_RIGHTS}",
    "ExpiredToken": f"the credentials have expired: {_CREDENTIALS}",
    "ExpiredTokenException": f"the credentials have expired: {_CREDENTIALS}",
    "TokenRefreshRequired": f"the credentials have expired: {_CREDENTIALS}",
    "InvalidToken": f"the session token is wrong: {_CREDENTIALS}",
    "InvalidAccessKeyId": _KEYS,
    "SignatureDoesNotMatch": _KEYS,
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it (NTP)",
    "NoSuchBucket": "create the bucket, or correct the store's url; ExoFlow makes no buckets",
    "InvalidBucketName": "no bucket can have that name: correct the store's url",
    "PermanentRedirect": f"the bucket is in another region: {_REGION}",
    "301": f"the bucket is in another region: {_REGION}",
    "AuthorizationHeaderMalformed": f"the bucket is in another region: {_REGION}",
    "IllegalLocationConstraintException": f"the bucket is in another region: {_REGION}",
    "400": "the credentials have expired, or the region is wrong (S3 does not say which): renew them, then resume",
    "SlowDown": _LATER,
    "ServiceUnavailable": _LATER,
    "InternalError": _LATER,
    "RequestTimeout": _LATER,
    "500": _LATER,
    "503": _LATER,
    "NoCredentialsError": "no credentials were found: set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "PartialCredentialsError": _KEYS,
    "ProfileNotFound": "look into AWS_PROFILE and ~/.aws/config",
    "TokenRetrievalError": f"the credentials have expired: {_CREDENTIALS}",
    "UnauthorizedSSOTokenError": f"the credentials have expired: {_CREDENTIALS}",
    "EndpointConnectionError": "the endpoint cannot be reached: look into the network and AWS_ENDPOINT_URL",
    "ConnectTimeoutError": "the endpoint cannot be reached: look into the network and AWS_ENDPOINT_URL",
    "InvalidEndpointURLError": _WHOLE_URL,
    "ValueError": _WHOLE_URL,  # of botocore: the endpoint makes no url
    "RecursionError": f"the bucket is in another region: {_REGION}",  # of botocore: it was sent on again and again
    "404": "there is no S3 service at the endpoint: look into AWS_ENDPOINT_URL",
}
_SENT = (
    ". So says process {} on {}, which the store was sent to: it has the credentials, region and endpoint of its own"
    " environment. Give the cluster's workers yours (on Ray: ray.init(runtime_env={{'env_vars': ...}})), or make the"
    " store with them: S3Store(url, key=..., secret=..., endpoint_url=...)"
)
_ADVICE_ELSE = "look into the network and the service's status, then resume"

NOT_THERE = ("404", "NoSuchKey")
"""Of an object. A HEAD of one in a bucket that does not exist says 404, too."""

EXISTS = ("PreconditionFailed", "412")
CONFLICTS = ("ConditionalRequestConflict", "OperationAborted", "409")
"""Somebody writes the same object right now: ask again."""

UNKNOWN_CONDITION = ("NotImplemented", "501")

_UNKNOWN = (*EXISTS, *CONFLICTS, "NoSuchUpload", "RequestTimeout", "InternalError", "SlowDown", "ServiceUnavailable")


def code_of(error: BaseException) -> str:
    """What S3 calls the error; of one that is not an answer of S3's, the name of its class."""
    each: BaseException | None = error
    while each is not None:
        response = getattr(each, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code", "")) or type(each).__name__
        each = each.__cause__
    return type(error).__name__


def may_have_written(error: BaseException) -> bool:
    """Whether a write that failed so can have landed all the same: its answer was lost, or was that of a second try."""
    code = code_of(error)
    return code in _UNKNOWN or code.startswith("5") or not _answered(error)


def _answered(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(getattr(error, "response", None), dict):
            return True
        error = error.__cause__
    return False


def s3_error(what: str, place: str, error: BaseException, *, sent: bool) -> StorageError:
    """The error to raise from ``error``: what was tried, where, why it failed and what to do.

    Args:
        what: The operation.
        place: On what.
        error: Of s3fs, or of what it stands on.
        sent: Whether the store was made in another process, whose environment this one may lack.
    """
    code = code_of(error)
    if code in UNKNOWN_CONDITION:
        return UnsupportedStore(f"cannot {what} {place}: {error}; this service cannot create an object atomically")
    text = str(error) or code
    shown = text if code in text else f"{code}: {text}"
    advice = _ADVICE.get(code, _ADVICE_ELSE)
    if sent and advice not in (_LATER, _ADVICE_ELSE):
        advice += _SENT.format(os.getpid(), socket.gethostname())
    return StorageError(f"cannot {what} {place}: {shown}; {advice}")
