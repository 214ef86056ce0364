from pathlib import Path

import pytest

from pipeline import settings
from pipeline.errors import ConfigurationError

TOML = """\
[deployment]
name = "payments"

[sources.gateway0.tables."public.transactions"]
merchant = { column = "merchant_id" }
type = "transaction"

[consumers.search]
handler = "tasks.search:index"
"""
ENVIRONMENT = {
    "CONTROL_DATABASE_URL": "postgresql://pipeline:s3cret@127.0.0.1/control",
    "GATEWAY0_DATABASE_URL": "postgresql://pipeline:s3cret@127.0.0.1/gateway0",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:9092",
    "REDIS_URL": "redis://:s3cret@127.0.0.1:6379/0",
    "ELASTICSEARCH_URL": "http://127.0.0.1:9200",
    "REDSHIFT_URL": "redshift://awsuser:s3cret@localhost:5439/warehouse",
    "S3_BUCKET": "merchant-pipeline",
}


def load(directory: Path, text: str = TOML, **changes: str) -> settings.Settings:
    (directory / "pipeline.toml").write_text(text)
    return settings.load({name: value for name, value in (ENVIRONMENT | changes).items() if value}, directory)


def problems(directory: Path, text: str = TOML, **changes: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(directory, text, **changes)
    return str(caught.value)


def test_what_is_right_is_loaded(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert loaded.deployment == "payments"
    assert loaded.configuration.type_of("gateway0", "public.transactions") == "transaction"
    assert loaded.source_url("gateway0").endswith("/gateway0")
    assert settings.seconds(loaded.consumer("search").lease) == 10


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    loaded = load(tmp_path)
    assert "s3cret" not in repr(loaded) + str(loaded) + repr(loaded.environment)


def test_every_problem_is_told_at_once_with_its_place(tmp_path: Path) -> None:
    text = TOML + 'group = 0\ntypo = 1\nlinger = "5 parsecs"\n'
    found = problems(tmp_path, text, S3_BUCKET="", REDIS_URL="http://:s3cret@h", GATEWAY0_DATABASE_URL="")
    assert "pipeline.toml:10: consumers.search.group input should be greater than or equal to 1" in found
    assert "pipeline.toml:11: consumers.search.typo is not a setting of this version" in found
    assert "pipeline.toml:12: consumers.search.linger must be a number with a unit" in found
    assert "S3_BUCKET is required" in found
    assert "REDIS_URL must start with redis:// or rediss://" in found
    assert "GATEWAY0_DATABASE_URL is required (the URL of source gateway0)" in found
    assert "s3cret" not in found


def test_whoever_stages_for_the_warehouse_names_the_role_that_copies(tmp_path: Path) -> None:
    stages = TOML + '[consumers.warehouse]\nhandler = "tasks.warehouse:stage"\n'
    assert "needs warehouse.iam_role" in problems(tmp_path, stages)
    role = "arn:aws:iam::123456789012:role/copy"
    assert load(tmp_path, f'{stages}[warehouse]\niam_role = "{role}"\n').copy_role == role


@pytest.mark.parametrize("name", ["loads", "sweeps", "tasks"])
def test_no_consumer_takes_the_name_of_a_queue_of_ours(tmp_path: Path, name: str) -> None:
    said = f"no consumer may be called {name}: a queue of ours has that name"
    assert said in problems(tmp_path, TOML + f'[consumers.{name}]\nhandler = "mine:handle"\n')


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "KAFKA_SASL_USERNAME": "u"},
            "KAFKA_SASL_PASSWORD are required",
        ),
        ({"KAFKA_SASL_PASSWORD": "s3cret"}, "need KAFKA_SECURITY_PROTOCOL=SASL_SSL"),
        ({"KAFKA_CA": "ca.pem"}, "need KAFKA_SECURITY_PROTOCOL=SSL or SASL_SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_KEY": "s3cret"}, "come together"),
        (
            {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"},
            "environment: KAFKA_SECURITY_PROTOCOL input should be",
        ),
    ],
)
def test_what_speaks_to_kafka_half_or_in_the_clear_is_refused(
    tmp_path: Path, variables: dict[str, str], said: str
) -> None:
    found = problems(tmp_path, **variables)
    assert said in found
    assert "s3cret" not in found


def test_a_wrong_scheme_is_named_without_the_url(tmp_path: Path) -> None:
    found = problems(tmp_path, REDIS_URL="http://:s3cret@127.0.0.1")
    assert found == "environment: REDIS_URL must start with redis:// or rediss://"


@pytest.mark.parametrize(
    "merchant",
    [
        "{}",
        "{ column = 'm', none = true }",
        "{ parent = 'public.t' }",
        "{ on = 'x' }",
        "{ column = 'm', on = 'x' }",
    ],
)
def test_a_merchant_stands_in_one_place(tmp_path: Path, merchant: str) -> None:
    found = problems(tmp_path, f'{TOML}\n[sources.gateway0.tables."public.refunds"]\nmerchant = {merchant}\n')
    assert "pipeline.toml:12: " in found
    assert 'must be { column = "…" }, { parent = "…", on = "…" } or { none = true }' in found


def test_a_setting_that_is_none_is_refused(tmp_path: Path) -> None:
    found = problems(
        tmp_path, f'{TOML}\n[sources.gateway0.tables."public.x"]\nmerchant = {{ none = true }}\nlost = 1\n'
    )
    assert "pipeline.toml:13: " in found
    assert "is not a setting of this version" in found


def test_malformed_toml_is_one_clear_line(tmp_path: Path) -> None:
    assert "pipeline.toml: " in problems(tmp_path, "[deployment\nname=")


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="PIPELINE_CONFIG"):
        settings.load(ENVIRONMENT, tmp_path)


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match='no consumer is named "serach"'):
        load(tmp_path).consumer("serach")


def test_a_source_has_one_table_of_a_type(tmp_path: Path) -> None:
    # Mutant: with two, the end of one's snapshot would sweep the other's rows away.
    second = '\n[sources.gateway0.tables."public.transaction"]\nmerchant = { none = true }\n'
    found = problems(tmp_path, TOML + second)
    assert 'tables public.transactions and public.transaction both have type "transaction"' in found
    other = second.replace("gateway0", "gateway1")
    load(tmp_path, TOML + other, GATEWAY1_DATABASE_URL="postgresql://pipeline@127.0.0.1/gateway1")
