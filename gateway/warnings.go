package main

// warningsVerb is the group of verbs about warnings.
func warningsVerb() verb {
	return verb{
		name: "warnings", args: "preview",
		short:   "what recipients would be told",
		example: `haidang warnings preview flood-level kim-long --set level_m=3.6`,
		verbs:   []verb{warningsPreviewVerb()},
	}
}
