"""How a connection is protected: what cannot go together is refused with its mend, and no secret is ever shown."""

import logging
import ssl
import traceback
from pathlib import Path

import pytest
import trustme

from worker.errors import Misconfigured
from worker.kafka.connection import connection_settings
from worker.kafka_settings import KafkaSettings
from worker.log import configure_logging, get_logger
from worker.settings import describe_settings, load_settings

SECRET = "swordfish-5f2c"
LOGIN = {"security_protocol": "SASL_SSL", "sasl_username": "news", "sasl_password": SECRET}


def write(folder: Path, name: str, content: str | bytes) -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


# What cannot go together


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"sasl_username": "news"}, "sasl_username is set, but security_protocol = PLAINTEXT logs nobody in: set"),
        ({"sasl_password": SECRET}, "sasl_password is set, but security_protocol = PLAINTEXT logs nobody in: set"),
        ({"security_protocol": "SASL_SSL", "sasl_password": SECRET}, "needs a user: set sasl_username"),
        ({"security_protocol": "SASL_SSL", "sasl_username": "news"}, "needs a password: set sasl_password_file or"),
        (LOGIN | {"sasl_password_file": "{file}"}, "sasl_password and sasl_password_file are both set: remove one"),
        (LOGIN | {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}, "send the password readable"),
        (
            LOGIN | {"security_protocol": "SASL_PLAINTEXT", "bootstrap_servers": "localhost:9092,kafka.test:9092"},
            "not encrypted on the way to kafka.test:9092: set SASL_SSL, or, if you mean it, sasl_without_encryption",
        ),
        ({"ssl_ca_location": "{file}"}, "ssl_ca_location is set, but security_protocol = PLAINTEXT does not encrypt"),
        ({"ssl_endpoint_identification_algorithm": "none"}, "algorithm is set, but .* does not encrypt"),
        ({"security_protocol": "SSL", "ssl_ca_location": "/nowhere.pem"}, "/nowhere.pem cannot be read: No such file"),
        ({"security_protocol": "SSL", "ssl_ca_location": "{file}"}, "is not PEM: it has no line -----BEGIN CERT"),
        ({"security_protocol": "SSL", "ssl_ca_location": "{binary}"}, "ssl_ca_location = .*binary is not text"),
        ({"security_protocol": "SSL", "ssl_key_location": "{key}"}, "has no certificate: set ssl_certificate_location"),
        ({"security_protocol": "SSL", "ssl_key_password": SECRET}, "ssl_key_password has no key to open"),
        (LOGIN | {"sasl_password": None, "sasl_password_file": "{empty}"}, "sasl_password_file = .*empty is empty"),
    ],
)
def test_settings_that_make_no_sense_together_are_refused_with_their_mend(
    tmp_path: Path, given: dict[str, str | None], problem: str
) -> None:
    files = {
        "file": write(tmp_path, "file", f"{SECRET}\n"),
        "empty": write(tmp_path, "empty", "\n"),
        "binary": write(tmp_path, "binary", b"\xff\xfe" + SECRET.encode()),
        "key": write(tmp_path, "key", "-----BEGIN PRIVATE KEY-----\n"),
    }
    wrong = {name: value.format(**files) if value else value for name, value in given.items()}
    with pytest.raises(Misconfigured, match=problem) as raised:
        load_settings(kafka=wrong)
    assert SECRET not in "".join(traceback.format_exception(raised.value))


@pytest.mark.parametrize("servers", ["127.0.0.1:9092", "localhost:9092, [::1]:9093"])
def test_a_login_without_encryption_is_fine_on_loopback(servers: str) -> None:
    KafkaSettings(**LOGIN | {"security_protocol": "SASL_PLAINTEXT", "bootstrap_servers": servers})


def test_a_login_without_encryption_to_others_must_be_meant() -> None:
    far = LOGIN | {"security_protocol": "SASL_PLAINTEXT", "bootstrap_servers": "kafka.test:9092"}
    assert KafkaSettings(**far | {"sasl_without_encryption": True}).logs_in


# What becomes of them


def test_a_connection_without_security_says_so_and_nothing_more() -> None:
    told = connection_settings(KafkaSettings())
    assert told["security_protocol"] == "PLAINTEXT"
    assert told["ssl_context"] is None
    assert not [name for name in told if name.startswith("sasl")]


def test_certificates_and_names_are_verified_unless_the_name_is_turned_off_by_its_name() -> None:
    context = KafkaSettings(security_protocol="SSL").make_ssl_context()
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.minimum_version >= ssl.TLSVersion.TLSv1_2
    nameless = KafkaSettings(security_protocol="SSL", ssl_endpoint_identification_algorithm="none").make_ssl_context()
    assert (nameless.verify_mode, nameless.check_hostname) == (ssl.CERT_REQUIRED, False)


def test_only_the_given_authority_is_trusted(tmp_path: Path) -> None:
    authority = write(tmp_path, "ca.pem", trustme.CA().cert_pem.bytes())
    context = KafkaSettings(security_protocol="SSL", ssl_ca_location=authority).make_ssl_context()
    assert len(context.get_ca_certs()) == 1


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one, other = (trustme.CA().issue_cert("client.test") for _ in range(2))
    kafka = KafkaSettings(
        security_protocol="SSL",
        ssl_certificate_location=write(tmp_path, "one.pem", one.cert_chain_pems[0].bytes()),
        ssl_key_location=write(tmp_path, "other.key", other.private_key_pem.bytes()),
    )
    with pytest.raises(Misconfigured, match=r"one\.pem cannot be used with .*other\.key: KEY_VALUES_MISMATCH; is the"):
        connection_settings(kafka)


def test_a_password_that_was_rotated_is_what_the_next_client_is_told(tmp_path: Path) -> None:
    file = write(tmp_path, "password", "old\n")
    kafka = KafkaSettings(security_protocol="SASL_SSL", sasl_username="news", sasl_password_file=file)
    assert connection_settings(kafka)["sasl_plain_password"] == "old"
    write(tmp_path, "password", "new\r\n")
    assert connection_settings(kafka)["sasl_plain_password"] == "new"
    write(tmp_path, "password", "")
    with pytest.raises(Misconfigured, match=r"kafka\.sasl_password_file = .* is empty"):
        connection_settings(kafka)


# Secrets


@pytest.mark.parametrize(
    "environment",
    [
        {"STACKNORM_KAFKA__SASL_PASWORD": SECRET},
        {"STACKNORM_KAFKA": f'{{"sasl_password": "{SECRET}"'},
        {"STACKNORM_KAFKA": f'["{SECRET}"]'},
        {"STACKNORM_KAFKA__SASL_PASSWORD": SECRET},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured) as raised:
        load_settings()
    assert SECRET not in "".join(traceback.format_exception(raised.value))


def test_a_secret_of_the_wrong_type_in_a_file_is_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("[kafka]\nsasl_password = 987654\n")
    with pytest.raises(Misconfigured, match=r"kafka\.sasl_password: ") as raised:
        load_settings(file)
    assert "987654" not in "".join(traceback.format_exception(raised.value))


def test_settings_show_no_secret_but_hand_it_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(kafka=LOGIN)
    assert SECRET not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
    given = settings.to_environment()
    assert given["STACKNORM_KAFKA__SASL_PASSWORD"] == SECRET
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert load_settings().model_dump() == settings.model_dump()
    assert {each.name for each in describe_settings() if each.secret} == {
        "kafka.ssl_key_password",
        "kafka.sasl_password",
    }


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_logged_traceback_shows_no_variables(log_format: str, capsys: pytest.CaptureFixture[str]) -> None:
    def log_in(password: str) -> None:
        raise ValueError("refused")

    configure_logging("debug", log_format)
    try:
        log_in(SECRET[:])
    except ValueError:
        get_logger().exception("failed")
    said = capsys.readouterr().err
    logging.basicConfig(force=True)
    assert "refused" in said
    assert SECRET not in said
