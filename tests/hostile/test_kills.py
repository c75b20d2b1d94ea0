"""Long commands that are killed again and again leave nothing behind and end as if nothing had happened."""

import pytest

from tests.hostile.kills import KILLS, LONG, RELEASED, tell

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", LONG)
def test_kills_leave_no_trace(name, tmp_path):
    if name == "data import" and not RELEASED.is_file():
        pytest.skip("the released data are not beside the repository")
    story = tell(name, tmp_path)
    assert sum(story.ends.values()) == KILLS, str(story)
    assert story.leftovers[1] == [], str(story)
    assert story.orphans == 0, str(story)
    assert story.same, str(story)
