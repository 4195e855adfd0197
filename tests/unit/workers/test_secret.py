"""Secrets are told by their names."""

import pytest

from runlane.workers.secret import is_secret, masked


@pytest.mark.parametrize(
    "name", ["password", "wandb_api_key", "WANDB_API_KEY", "hfToken", "hf-token", "api.key", "apikey", "AWSSecretKey"]
)
def test_names_of_secrets(name: str) -> None:
    """However the words are parted."""
    assert is_secret(name)


@pytest.mark.parametrize("name", ["tokens", "max_tokens", "tokenizer", "key", "author", "learning_rate", "keyboard"])
def test_names_of_hyper_parameters(name: str) -> None:
    """Words that only look alike."""
    assert not is_secret(name)


def test_text_under_such_names_is_masked_at_any_depth() -> None:
    """Numbers and empty texts stay, and so does everything else."""
    given = {"a": {"token": "x", "b": [1]}, "password": ["p", 3], "pad_token": 0, "secret": "", "lr": 0.1}
    assert masked(given) == {
        "a": {"token": "***", "b": [1]},
        "password": ["***", 3],
        "pad_token": 0,
        "secret": "",
        "lr": 0.1,
    }
