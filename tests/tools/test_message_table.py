"""The list of messages in the documentation is that of the code."""

from pathlib import Path

import message_table

PAGE = Path(__file__).parents[2] / "docs" / "federation.md"


def test_the_page_lists_the_messages_as_they_are():
    text = PAGE.read_text(encoding="utf-8")
    assert message_table.updated(text) == text
