"""Secrets are told by their names."""

import pytest

from runlane.workers.secret import is_secret, masked, masked_arguments


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
    given = {
        "a": {"token": "x", "b": [1]},
        "password": ["p", 3],
        "pad_token": 0,
        "secret": "",
        "lr": 0.1,
        "db": ["x://u:p@h"],
    }
    assert masked(given) == {
        "a": {"token": "***", "b": [1]},
        "password": ["***", 3],
        "pad_token": 0,
        "secret": "",
        "lr": 0.1,
        "db": ["x://u:***@h"],
    }


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train.py", "--wandb-api-key", "abc", "--lr", "1"], ["train.py", "--wandb-api-key", "***", "--lr", "1"]),
        (["train.py", "--password=abc"], ["train.py", "--password=***"]),
        (["env", "HF_TOKEN=abc", "python"], ["env", "HF_TOKEN=***", "python"]),
        (["train.py", "--token", "--verbose"], ["train.py", "--token", "--verbose"]),
        (["train.py", "--tokens", "30"], ["train.py", "--tokens", "30"]),
        (["--storage", "mysql://u:s3cret@h/db"], ["--storage", "mysql://u:***@h/db"]),
        (["--storage=redis://:s@cret@h:1/0"], ["--storage=redis://:***@h:1/0"]),
        (["https://h:80/a@b", "ssh://git@h/x"], ["https://h:80/a@b", "ssh://git@h/x"]),
    ],
)
def test_a_command_line_keeps_its_secrets(words: list[str], found: list[str]) -> None:
    """Behind an option, behind its equals sign, in a variable before the command, and in an address."""
    assert masked_arguments(words) == found
