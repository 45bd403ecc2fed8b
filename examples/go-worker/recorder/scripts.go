package recorder

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

// The protocol's scripts, the same to the byte in every language: a server that has them from one writer has them
// for all.
//
//go:embed lua/*.lua
var texts embed.FS

type script struct{ text, sha string }

var (
	recordEvents     = load("contract", "states", "prelude", "record_events")
	recordDeliveries = load("contract", "states", "prelude", "record_deliveries")
	recordAttempts   = load("contract", "states", "prelude", "record_attempts")
	describeProject  = load("contract", "describe_project")
	expireDay        = load("contract", "states", "closing", "expire_day")
	announce         = load("announce")
)

func load(names ...string) *script {
	var text string
	for _, name := range names {
		part, err := texts.ReadFile("lua/" + name + ".lua")
		if err != nil {
			panic(err) // the program was built without it
		}
		text += string(part)
	}
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}
