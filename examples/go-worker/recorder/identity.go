package recorder

import (
	"encoding/binary"
	"hash/crc32"
	"strings"
	"time"
)

const (
	undated = "undated"
	dayForm = "20060102"

	// A ULID of other years is some other id that looks like one.
	firstMs = 1_451_606_400_000 // 2016-01-01
	lastMs  = 4_102_444_800_000 // 2100-01-01

	crockford = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
)

// identity is what follows from an id alone.
type identity struct {
	day       string
	stored    string // 16 bytes for a dated ULID, else the id itself
	hash      uint32
	createdUs int64 // 0 unless the id tells a time
}

func identify(id string) identity {
	if high, low, ok := parseULID(id); ok {
		if ms := int64(high >> 16); firstMs <= ms && ms < lastMs {
			stored := binary.BigEndian.AppendUint64(nil, high)
			stored = binary.BigEndian.AppendUint64(stored, low)
			day := time.UnixMilli(ms).UTC().Format(dayForm)
			return identity{day, string(stored), crc32.ChecksumIEEE(stored), ms * 1000}
		}
	}
	return identity{undated, id, crc32.ChecksumIEEE([]byte(id)), 0}
}

// parseULID is the 128 bits that a ULID stands for. Case counts: ids are compared exactly.
func parseULID(id string) (high, low uint64, ok bool) {
	if len(id) != 26 || id[0] > '7' {
		return 0, 0, false
	}
	for index := range len(id) {
		digit := strings.IndexByte(crockford, id[index])
		if digit < 0 {
			return 0, 0, false
		}
		high = high<<5 | low>>59
		low = low<<5 | uint64(digit)
	}
	return high, low, true
}

// endOf is the Unix second at which a day ends.
func endOf(day string) int64 {
	begin, err := time.Parse(dayForm, day)
	if err != nil {
		return 0
	}
	return begin.Unix() + 86_400
}
