from otel_queue.recent_errors import RecentErrors
from otel_queue.status import RecentError


def test_the_same_error_is_one_with_its_first_and_last_time_and_how_often_it_came() -> None:
    errors = RecentErrors("queue")
    errors.note("timeout", "no answer", 10.0)
    errors.note("timeout", "no answer", 20.0)
    errors.note("timeout", "no answer", 30.0, 5)

    assert errors.newest_first() == (RecentError("queue", "timeout", "no answer", 10.0, 30.0, 7),)


def test_the_newest_stands_first_even_when_it_is_an_old_acquaintance() -> None:
    errors = RecentErrors("queue")
    errors.note("timeout", "a", 1.0)
    errors.note("timeout", "b", 2.0)
    errors.note("timeout", "a", 3.0)

    assert [error.text for error in errors.newest_first()] == ["a", "b"]


def test_the_one_unseen_for_longest_makes_room() -> None:
    errors = RecentErrors("queue")
    for number in range(20):
        errors.note("timeout", str(number), float(number))
    errors.note("timeout", "0", 20.0)
    errors.note("timeout", "20", 21.0)

    texts = [error.text for error in errors.newest_first()]

    assert len(texts) == 20
    assert texts[:2] == ["20", "0"]
    assert "1" not in texts


def test_words_that_are_very_long_are_cut() -> None:
    errors = RecentErrors("queue")
    errors.note("internal", "x" * 10_000, 1.0)
    errors.note("internal", "x" * 10_001, 2.0)

    [error] = errors.newest_first()
    assert (len(error.text), error.count) == (2_000, 2)
