"""What people type into a payment form, and what breaks software that reads it: pure functions of a random source."""

from random import Random

from .tables import Json

_FIRST = (
    "Ada", "Bruno", "Chloé", "Dmitri", "Eszter", "Fatima", "Grace", "Håkon", "Inês", "José", "Kwame", "Łukasz", "María",
    "Nguyễn", "Ólafur", "Priya", "Quentin", "Renée", "Søren", "Tomás", "Ursula", "Víctor", "Wanjiru", "小明", "Юлия", "ياسمين",
)  # fmt: skip
_LAST = (
    "O'Brien", "Smith", "Müller", "García", "D'Angelo", "van der Berg", "Nowak", "Ivanova", "Øberg", "Kim", "Sato", "王",
    "Dvořák", "Papadopoulos", "Al-Farsi", "Jones", "Da Silva", "Ferreira-Lopes", "Szabó", "Brown \"Bud\" Lee",
)  # fmt: skip
_STREETS = (
    "Main St",
    "Rue de l'Église",
    "Königsallee",
    "Calle Mayor",
    "Elm Avenue",
    "Ulica Długa",
    "桜通り",
    "High Road",
)
_CITIES = (
    "Springfield",
    "Zürich",
    "São Paulo",
    "Łódź",
    "Reykjavík",
    "Lagos",
    "Osaka",
    "Winston-Salem",
    "München",
)
_COUNTRIES = ("US", "GB", "DE", "FR", "BR", "PL", "IS", "NG", "JP", "CH")
_CURRENCIES = ("USD", "USD", "USD", "EUR", "EUR", "GBP", "JPY", "BRL")
_TRADES = (
    "Coffee",
    "Books",
    "Bikes",
    "Flowers",
    "Hosting",
    "Records",
    "Tea & Co",
    "Cycles",
    "Optics",
    "Shoes",
)
_GOODS = (
    "2 x flat white",
    "Order #{n}",
    "Annual plan, seat {n}",
    "Gift card",
    "Invoice {n}/2025",
    "Café crème",
    "Repair",
)
_AWKWARD = (
    "", " ", "\\N", "NULL", "null", "O'Brien said \"hi\"; DROP TABLE x; --", "line one\nline two\r\n\tindented", "trailing blank ",
    "comma, semicolon; pipe| tab\t end", "back\\slash \\n \\\\ \"\"", "naïve café — “quotes” \u2039\u203a", "👩‍💻 🧾 𝄞 Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤", "שלום עולם", "{\"a\": [1]}",
    "-0", "1e5", "true", "%s %(x)s {0} $1 $$", "\u2028\u200b\ufeff\u0001\u007f",
)  # fmt: skip
_AMOUNTS = (
    "9999999999999999.99",
    "-9999999999999999.99",
    "0.00",
    "0.01",
    "-0.01",
    "1000000.10",
    "90071992547409.93",
)
_FEES = ("99999999.9999", "-99999999.9999", "0.0000", "0.0001", "-0.0001")
_SCORES = (
    1.7976931348623157e308,
    -1.7976931348623157e308,
    2.2250738585072014e-308,
    0.1 + 0.2,
    0.0,
    1.0,
    1e-7,
    12345678901234.5,
)

LONG_TEXT = 10_000
"""Characters of the huge text that comes now and then."""


def name(rng: Random) -> str:
    """A person's full name."""
    return f"{rng.choice(_FIRST)} {rng.choice(_LAST)}"


def email(rng: Random) -> str:
    """An email address; one person in fifty has a plus sign and capitals in it."""
    local = f"user{rng.randrange(100_000)}"
    return f"{local}+Tag@Example.org" if rng.random() < 0.02 else f"{local}@example.com"


def phone(rng: Random) -> str:
    """A phone number in international form."""
    return f"+{rng.randrange(1, 99)} {rng.randrange(10**8, 10**9)}"


def company(rng: Random) -> str:
    """A company's name."""
    return f"{rng.choice(_LAST)} {rng.choice(_TRADES)}"


def address(rng: Random) -> str:
    """A street address; now and then over two lines."""
    line = f"{rng.randrange(1, 999)} {rng.choice(_STREETS)}"
    return f"{line}\nApt. {rng.randrange(1, 60)}" if rng.random() < 0.1 else line


def city(rng: Random) -> str:
    """A city."""
    return rng.choice(_CITIES)


def postcode(rng: Random) -> str:
    """A postcode; leading zeros matter."""
    return f"{rng.randrange(100_000):05d}"


def country(rng: Random) -> str:
    """An ISO 3166 country code."""
    return rng.choice(_COUNTRIES)


def currency(rng: Random) -> str:
    """An ISO 4217 currency code."""
    return rng.choice(_CURRENCIES)


def text(rng: Random) -> str | None:
    """Free text: mostly plain, 8 % absent, 4 % awkward, now and then `LONG_TEXT` characters."""
    die = rng.random()
    if die < 0.08:
        return None
    if die < 0.12:
        return rng.choice(_AWKWARD)
    if die < 0.1205:
        return rng.choice(_GOODS).ljust(LONG_TEXT, "é" if die < 0.1201 else "x")
    return rng.choice(_GOODS).format(n=rng.randrange(10_000))


def money(rng: Random) -> str:
    """An amount with two decimals that fits numeric(18,2), at its ends once in five hundred."""
    if rng.random() < 0.002:
        return rng.choice(_AMOUNTS)
    cents = int(rng.lognormvariate(8, 1.4)) + 1
    return f"{cents // 100}.{cents % 100:02d}"


def fee(rng: Random) -> str | None:
    """A fee with four decimals that fits numeric(12,4); sometimes not known yet."""
    die = rng.random()
    if die < 0.1:
        return None
    return rng.choice(_FEES) if die < 0.102 else f"{rng.randrange(9)}.{rng.randrange(10_000):04d}"


def score(rng: Random) -> float | None:
    """A risk or credit score: any finite double may come."""
    die = rng.random()
    if die < 0.1:
        return None
    return rng.choice(_SCORES) if die < 0.103 else round(rng.random() * 100, 6)


def metadata(rng: Random) -> Json:
    """What merchants attach to things: small objects, at times nested, empty or absent."""
    die = rng.random()
    if die < 0.1:
        return None if die < 0.05 else {}
    attached: dict[str, Json] = {
        "order": f"A-{rng.randrange(100_000)}",
        "channel": rng.choice(("web", "pos", "app")),
    }
    if die < 0.3:
        attached["campaign"] = {
            "name": rng.choice(_GOODS),
            "weight": rng.randrange(100),
            "first": rng.random() < 0.5,
        }
    return attached
