"""The page on what is attached without an edit says what the matrix runs."""

from matrix.case import CASES, STREAMS, title
from matrix.page import PAGE, written


def test_the_page_has_the_table_that_the_cases_make() -> None:
    """Every script and version in it; `PYTHONPATH=tests:src python -m matrix.page` writes it anew."""
    assert PAGE.read_text("utf-8") == written()


def test_each_library_is_described_and_each_description_used() -> None:
    """What is a stream there, and what is told apart."""
    assert set(STREAMS) == {case.library for case in CASES}


def test_each_case_has_a_name_of_its_own() -> None:
    """A failure says which case is meant, and a run in the database belongs to one."""
    titles = [title(case) for case in CASES]
    assert len(set(titles)) == len(titles)
