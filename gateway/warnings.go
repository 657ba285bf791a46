package main

import "slices"

// warningsVerb is the group of verbs about warnings.
func warningsVerb() verb {
	return verb{
		name: "warnings", args: "list|show|ack|comment|shelve|assign|...|report|service|preview",
		short: "the warnings of a running gateway, the whole story of one, and what recipients are told",
		example: `haidang warnings list
haidang warnings show kim-long-flood-level-3f9a
haidang warnings ack kim-long-flood-level-3f9a --text "đã gọi trực ban"
haidang warnings preview flood-level kim-long --set level_m=3.6`,
		verbs: slices.Concat([]verb{warningsListVerb(), warningsShowVerb()}, deedVerbs(),
			[]verb{warningsReportVerb(), warningsServiceVerb(), warningsPreviewVerb()}),
		usual: "list",
	}
}
