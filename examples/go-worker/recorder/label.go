package recorder

import (
	"strings"
	"unicode/utf8"
)

const (
	mostCharacters = 256
	unknown        = "unknown"
	noSource       = "http"
	noResponse     = "none"
)

// Label is what a hook knows of a label. The zero value is "not told", which is not the same as NULL: a label that
// nobody told is unknown, and another record may still tell it.
type Label struct {
	told bool
	text string
}

// Told is a label with a value; "" means the same as NULL.
func Told(text string) Label { return Label{told: true, text: text} }

// Null is the label of a row that has NULL.
func Null() Label { return Label{told: true} }

// Text is the value ("" for NULL), and whether the label was told at all.
func (l Label) Text() (text string, told bool) { return l.text, l.told }

func (l Label) or(other Label) Label {
	if l.told {
		return l
	}
	return other
}

// word is the label as scripts take it: "=" and the value, or "" if it was not told.
func (l Label) word() string {
	if !l.told {
		return ""
	}
	return "=" + clean(l.text)
}

// sourceWord is word for a source: NULL is the gateway's own API.
func (l Label) sourceWord() string {
	if l.told && l.text == "" {
		return "=" + noSource
	}
	return l.word()
}

// clean is the text without control characters and broken UTF-8, at most mostCharacters long.
func clean(text string) string {
	var kept strings.Builder
	kept.Grow(min(len(text), 4*mostCharacters))
	characters := 0
	for index, width := 0, 0; index < len(text) && characters < mostCharacters; index += width {
		var character rune
		character, width = utf8.DecodeRuneInString(text[index:])
		broken := character == utf8.RuneError && width == 1
		if broken || character < 0x20 || character == 0x7f {
			kept.WriteByte('?')
		} else {
			kept.WriteString(text[index : index+width])
		}
		characters++
	}
	return kept.String()
}

// rankOf is a delivery status's rank, whatever its case: of two set at the same time the higher one stands.
func rankOf(status string) (rank int, known bool) {
	switch strings.ToLower(status) {
	case "scheduled":
		return 1, true
	case "processing":
		return 2, true
	case "retry":
		return 3, true
	case "discarded":
		return 4, true
	case "failure":
		return 5, true
	case "success":
		return 6, true
	}
	return 0, false
}

// statusCode is three digits from "200", "200 OK" and the like; none without a response or for anything else.
func statusCode(status string) string {
	status = strings.TrimLeft(status, " \t\n\r\f\v")
	if len(status) < 3 || status[0] < '1' || status[0] > '5' || !isDigit(status[1]) || !isDigit(status[2]) {
		return noResponse
	}
	if len(status) > 3 && isDigit(status[3]) {
		return noResponse
	}
	return status[:3]
}

func isDigit(character byte) bool { return '0' <= character && character <= '9' }

func outcome(succeeded bool) string {
	if succeeded {
		return "success"
	}
	return "failure"
}
