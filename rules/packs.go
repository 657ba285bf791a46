package rules

import "embed"

// Packs are the rule files that the program ships, in the folder packs.
//
//go:embed packs/*.yaml
var Packs embed.FS
