import struct

import pytest

from otel_queue.database.binary import Type, decoded
from otel_queue.errors import ReadError

TYPES = (Type.TEXT, Type.TIME, Type.TRUTH)
HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
END = b"\xff\xff"
YEAR_2000_US = 946_684_800_000_000


def row(*fields: bytes | None) -> bytes:
    told = (struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field for field in fields)
    return struct.pack(">h", len(fields)) + b"".join(told)


def test_rows_come_as_they_were_sent_with_null_for_none() -> None:
    data = HEADER + row("\u00fc".encode(), struct.pack(">q", 5), b"\1") + row(None, None, b"\0") + END
    assert list(decoded(data, TYPES)) == [("\u00fc", YEAR_2000_US + 5, True), (None, None, False)]


def test_a_time_that_no_row_can_have_is_the_nearest_that_it_can() -> None:
    ends = [struct.pack(">q", -(2**63)), struct.pack(">q", 2**63 - 1)]
    found = [time for _, time, _ in decoded(HEADER + b"".join(row(b"", end, b"\0") for end in ends) + END, TYPES)]
    assert found == [0, 4_102_444_800_000_000]


@pytest.mark.parametrize("broken", [b"", HEADER[:-1], HEADER, HEADER + row(b"a", None, b"\0"),
                                    HEADER + row(b"\xff", None, b"\0") + END])  # fmt: skip
def test_what_is_cut_off_or_no_text_cannot_be_decoded(broken: bytes) -> None:
    with pytest.raises(ReadError) as caught:
        list(decoded(broken, TYPES))
    assert caught.value.reason == "undecodable"
