"""SQL text as tokens, and a reader over them."""

from __future__ import annotations

import re
from dataclasses import dataclass

from devstack.redshift.errors import SqlError, not_covered, syntax_error

_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*|/\*.*?\*/)
     |(?P<string>'(?:[^'\\]|''|\\.)*')
     |(?P<quoted>"(?:[^"]|"")*")
     |(?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+)
     |(?P<word>[A-Za-z_][A-Za-z0-9_$]*)
     |(?P<parameter>\$\d+)
     |(?P<sign>::|->|<=|>=|<>|!=|\|\||!~\*|!~|~\*|[-+*/%<>=(),.;&|~])
    """,
    re.X | re.S,
)
_MAX_NAME = 127
_POSTGRES_MAX_NAME = 63

Name = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Token:
    """One token: its kind (a group of the pattern above), its text and where it lies."""

    kind: str
    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """Upper case for comparing with keywords; quoted names and literals stay as they are."""
        return self.text.upper() if self.kind == "word" else self.text


def tokenize(sql: str) -> list[Token]:
    """All tokens but white space and comments. Raises SqlError at a character Redshift has no use for here."""
    tokens, at = [], 0
    while at < len(sql):
        found = _TOKEN.match(sql, at)
        if not found:
            raise syntax_error(sql[at])
        if found.lastgroup and found.lastgroup != "space":
            tokens.append(Token(found.lastgroup, found.group(), at, found.end()))
        at = found.end()
    return tokens


class Reader:
    """A cursor over the tokens of one statement."""

    def __init__(self, sql: str) -> None:
        self.sql, self.tokens, self.at = sql, tokenize(sql), 0
        while self.tokens and self.tokens[-1].text == ";":
            self.tokens.pop()
        if any(token.text == ";" for token in self.tokens):
            raise SqlError("cannot insert multiple commands into a prepared statement")
        self.closing = self._pairs()
        self.opening = {close: start for start, close in self.closing.items()}

    def _pairs(self) -> dict[int, int]:
        pairs, open_at = {}, []
        for index, token in enumerate(self.tokens):
            if token.text == "(":
                open_at.append(index)
            elif token.text == ")":
                if not open_at:
                    raise syntax_error(")")
                pairs[open_at.pop()] = index
        if open_at:
            raise syntax_error("")
        return pairs

    @property
    def done(self) -> bool:
        """Whether every token was read."""
        return self.at >= len(self.tokens)

    def word(self, index: int) -> str:
        """The keyword or sign at an absolute position, '' outside the statement."""
        return self.tokens[index].word if 0 <= index < len(self.tokens) else ""

    def peek(self, ahead: int = 0) -> str:
        """The keyword or sign `ahead` of the cursor."""
        return self.word(self.at + ahead)

    def next(self) -> Token:
        """The token at the cursor, which moves on."""
        if self.done:
            raise syntax_error("")
        self.at += 1
        return self.tokens[self.at - 1]

    def accept(self, *words: str) -> bool:
        """Move past these words if they come next."""
        if any(self.peek(k) != word for k, word in enumerate(words)):
            return False
        self.at += len(words)
        return True

    def expect(self, *words: str) -> None:
        """Move past these words or raise a syntax error."""
        if not self.accept(*words):
            raise self.unexpected()

    def unexpected(self) -> SqlError:
        """A syntax error at the cursor."""
        return syntax_error("" if self.done else self.tokens[self.at].text)

    def end(self) -> None:
        """Nothing may follow."""
        if not self.done:
            raise self.unexpected()

    def identifier(self) -> str:
        """One name."""
        return name_of(self.next())

    def name(self) -> Name:
        """A dotted name of one or two parts."""
        parts = [self.identifier()]
        while self.accept("."):
            parts.append(self.identifier())
        if len(parts) > 2:
            raise not_covered("names with a database part")
        return tuple(parts)

    def names(self) -> list[Name]:
        """Names separated by commas."""
        found = [self.name()]
        while self.accept(","):
            found.append(self.name())
        return found

    def group(self) -> tuple[int, int]:
        """The token positions inside the (…) at the cursor, which moves behind it."""
        self.expect("(")
        start = self.at
        self.at = self.closing[start - 1] + 1
        return start, self.at - 1

    def column_list(self) -> list[str]:
        """(a, b, …) as names."""
        self.expect("(")
        columns = [self.identifier()]
        while self.accept(","):
            columns.append(self.identifier())
        self.expect(")")
        return columns

    def literal(self) -> str:
        """A string literal's value. Backslashes and quotes inside are not covered: no caller needs them."""
        token = self.next()
        if token.kind != "string":
            raise syntax_error(token.text)
        value = token.text[1:-1]
        if "\\" in value or "'" in value:
            raise not_covered("escapes in this literal")
        return value

    def integer(self) -> int:
        """A whole number."""
        token = self.next()
        if not token.text.isdigit():
            raise syntax_error(token.text)
        return int(token.text)

    def slice(self, start: int, end: int) -> str:
        """The SQL text of tokens start … end - 1."""
        return self.sql[self.tokens[start].start : self.tokens[end - 1].end] if end > start else ""

    def split(self, start: int, end: int) -> list[tuple[int, int]]:
        """Token ranges between the commas at depth 0."""
        ranges, first, index = [], start, start
        while index < end:
            if self.tokens[index].text == ",":
                ranges.append((first, index))
                first = index + 1
            index = self.closing.get(index, index) + 1
        return [*ranges, (first, end)]


def quote(*parts: str) -> str:
    """A name for PostgreSQL, each part quoted."""
    return ".".join('"' + part.replace('"', '""') + '"' for part in parts)


def name_of(token: Token) -> str:
    """The name a token spells, folded to lower case: Redshift does that to quoted names too."""
    if token.kind == "word":
        name = token.text.lower()
    elif token.kind == "quoted":
        name = token.text[1:-1].replace('""', '"').lower()
    else:
        raise syntax_error(token.text)
    size = len(name.encode())
    if not 1 <= size <= _MAX_NAME:
        raise SqlError(f'identifier "{name[:40]}…" must be 1 to {_MAX_NAME} bytes long', "42622")
    if size > _POSTGRES_MAX_NAME:
        raise not_covered(f"identifiers of more than {_POSTGRES_MAX_NAME} bytes")
    return name
