package main

// warningsVerb is the group of verbs about warnings.
func warningsVerb() verb {
	return verb{
		name: "warnings", args: "list|show|report|service|preview",
		short: "the warnings of a running gateway, the whole story of one, and what recipients are told",
		example: `haidang warnings list
haidang warnings show kim-long-flood-level-3f9a
haidang warnings preview flood-level kim-long --set level_m=3.6`,
		verbs: []verb{warningsListVerb(), warningsShowVerb(), warningsReportVerb(), warningsServiceVerb(), warningsPreviewVerb()},
		usual: "list",
	}
}
