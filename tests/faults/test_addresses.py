"""Addresses with credentials in every form that they take, and addresses that lead nowhere."""

import pytest

from arbooth.settings import has_secret, without_secrets
from tests.faults.harness import SECRET, check

ADDRESSES = (
    f"http://user:{SECRET}@127.0.0.1:9", f"http://user:a@{SECRET}@127.0.0.1:9", f"postgresql://user:{SECRET}/x@127.0.0.1:9/db",
    f"http://127.0.0.1:9/?password={SECRET}", f"http://127.0.0.1:9/api?token={SECRET}#x", f"https://{SECRET}@127.0.0.1:9",
    f"postgresql+psycopg2://u:{SECRET}%40x@127.0.0.1:9/db?sslmode=disable", f"mysql://u:{SECRET}#1@127.0.0.1:9/d",
)  # fmt: skip
NOWHERE = (
    "http://",
    "://x",
    "sqlite:///",
    "sqlite:////proc/none/x.db",
    "ftp://127.0.0.1:9",
    "\u732b",
    "http://127.0.0.1:99999",
    " ",
    "none",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_no_secret_is_told(case, address):
    assert SECRET not in without_secrets(f"can't reach {address} now") and has_secret(address)
    environment = {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
    }
    assert check(case, "summary", **environment).code == 0
    assert check(case, "generate", "models:/arbooth-poodle@champion", "a dog", **environment).code == 2
    assert check(case, "stage", "publish", **environment).code == 2


@pytest.mark.parametrize("address", NOWHERE)
def test_addresses_that_lead_nowhere_are_one_sentence(case, address):
    environment = {
        "MLFLOW_TRACKING_URI": address,
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
    }
    assert check(case, "generate", "models:/arbooth-poodle@champion", "a dog", **environment).code == 2


def test_plain_addresses_stay_readable():
    for address in ("sqlite:////home/a@b/mlflow.db", "http://127.0.0.1:5000", "postgresql://host/db"):
        assert without_secrets(address) == address and not has_secret(address)


@pytest.mark.parametrize("name, value", [
    ("ARBOOTH_DEVICE", "mps"), ("ARBOOTH_DEVICE", "cuda:-1"), ("ARBOOTH_WEIGHTS", "~nosuchuser/x"), ("ARBOOTH_MAX_PIXELS", "nan"),
    ("ARBOOTH_MAX_PIXELS", "1e400"), ("ARBOOTH_ATTENTION", "../x"), ("ARBOOTH_CHECKPOINT_SECONDS", "-1"),
])  # fmt: skip
def test_invalid_settings_are_named(case, name, value):
    done = check(case, "generate", "base", "a dog", **{name: value})
    assert done.code == 2 and done.err.startswith(f"error: {name}")
