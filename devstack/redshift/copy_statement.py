"""The COPY statement: CSV files named by a manifest, read under an IAM role."""

from __future__ import annotations

import re
from dataclasses import dataclass

from devstack.redshift.errors import SqlError, not_covered, unsupported
from devstack.redshift.plans import CopyFromS3
from devstack.redshift.tokens import Reader

_ROLE = r"arn:aws(-cn|-us-gov)?:iam::\d{12}:role/[\w+=,.@/-]+"
_ROLES = re.compile(rf"{_ROLE}(,{_ROLE})*")
_NULL = re.compile(r"\\N|[A-Za-z_]\w{3,}", re.ASCII)  # cannot be what a value is converted to
_OTHER_OPTIONS = frozenset(
    [
        "PARQUET",
        "ORC",
        "JSON",
        "AVRO",
        "SHAPEFILE",
        "FIXEDWIDTH",
        "DELIMITER",
        "QUOTE",
        "ACCEPTANYDATE",
        "ACCEPTINVCHARS",
        "BLANKSASNULL",
        "EMPTYASNULL",
        "ENCODING",
        "ESCAPE",
        "EXPLICIT_IDS",
        "FILLRECORD",
        "IGNOREBLANKLINES",
        "IGNOREHEADER",
        "REMOVEQUOTES",
        "TRIMBLANKS",
        "TRUNCATECOLUMNS",
        "MAXERROR",
        "NOLOAD",
        "COMPROWS",
        "IGNOREALLERRORS",
        "READRATIO",
        "SSH",
        "ENCRYPTED",
        "MASTER_SYMMETRIC_KEY",
        "BZIP2",
        "GZIP",
        "LZOP",
        "CREDENTIALS",
        "ACCESS_KEY_ID",
        "SECRET_ACCESS_KEY",
        "SESSION_TOKEN",
        "WITH",
        "JOB",
        "SERIALIZETOJSON",
    ]
)


@dataclass(slots=True)
class _Options:
    role: str = ""
    csv: bool = False
    zstd: bool = False
    manifest: bool = False
    roundec: bool = False
    null: str = r"\N"
    timeformat: str = ""
    dateformat: str = ""


def copy(reader: Reader) -> CopyFromS3:
    """COPY t [(columns)] FROM 's3://…' IAM_ROLE '…' options, cursor behind COPY."""
    table = reader.name()
    columns = tuple(reader.column_list()) if reader.peek() == "(" else ()
    if len(set(columns)) != len(columns):
        raise SqlError("a column is specified more than once", "42701")
    reader.expect("FROM")
    if reader.peek() == "STDIN":
        raise unsupported("COPY FROM STDIN")
    url, options = reader.literal(), _Options()
    while not reader.done:
        _option(reader, options)
    _check(url, options)
    return CopyFromS3(
        table=table,
        columns=columns,
        manifest=url,
        null=options.null,
        zstd=options.zstd,
        round_decimals=options.roundec,
        any_timestamp=options.timeformat == "auto",
    )


def _option(reader: Reader, options: _Options) -> None:
    word = reader.next().word
    if word in ("ZSTD", "MANIFEST", "ROUNDEC", "CSV"):
        setattr(options, word.lower(), True)
    elif word == "FORMAT":
        reader.accept("AS")
        if reader.peek() != "CSV":
            raise not_covered(f"COPY format {reader.peek()}")
    elif word == "IAM_ROLE":
        options.role = reader.literal()
    elif word in ("NULL", "TIMEFORMAT", "DATEFORMAT"):
        reader.accept("AS")
        setattr(options, word.lower(), reader.literal())
    elif word == "REGION":
        reader.accept("AS")
        reader.literal()
    elif word in ("COMPUPDATE", "STATUPDATE"):
        reader.accept("ON") or reader.accept("OFF")
    elif word in _OTHER_OPTIONS:
        raise not_covered(f"COPY option {word}")
    else:
        reader.at -= 1
        raise reader.unexpected()


def _check(url: str, options: _Options) -> None:
    if not options.role:
        raise SqlError("CREDENTIALS argument is required but not specified", "XX000")
    if not _ROLES.fullmatch(options.role):
        raise SqlError("Invalid IAM_ROLE: it must be the full ARN of a role", "XX000")
    if not re.fullmatch(r"s3://[^/]+/.+", url):
        raise not_covered("COPY from anything but s3://bucket/key")
    if not options.csv or not options.manifest:
        raise not_covered("COPY without CSV and MANIFEST")
    if not _NULL.fullmatch(options.null):
        raise not_covered("NULL AS anything but a word of at least four letters, digits and _")
    if options.timeformat not in ("", "auto") or options.dateformat not in ("", "auto"):
        raise not_covered("TIMEFORMAT or DATEFORMAT other than 'auto'")
