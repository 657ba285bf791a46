package ioc

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"haidang/gateway/telemetry"
)

// Each file of testdata/bad begins with one "# want:" line for each fault, in
// order; testdata/good has none.
func TestConfigFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(file, func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var want []string
			for line := range strings.Lines(string(text)) {
				if w, ok := strings.CutPrefix(line, "# want: "); ok {
					want = append(want, strings.TrimSpace(w))
				}
			}
			if good := strings.Contains(file, "good"); good != (len(want) == 0) {
				t.Fatalf("%d wanted faults", len(want))
			}
			var doc struct{ IOC []Config }
			decoder := yaml.NewDecoder(strings.NewReader(string(text)))
			decoder.KnownFields(true)
			if err := decoder.Decode(&doc); err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, f := range telemetry.Under("ioc", Validate(doc.IOC)) {
				got = append(got, f.String())
			}
			if strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("faults\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		})
	}
}

func TestAddresses(t *testing.T) {
	for want, c := range map[string]Config{
		"h:443":      {Webhook: &WebhookConfig{URL: "https://u:p@h/x"}},
		"h:9093":     {Alertmanager: &AlertmanagerConfig{URL: "http://h:9093"}},
		"h:587":      {SMTP: &SMTPConfig{URL: "smtp://h"}},
		"h:8883":     {MQTT: &MQTTConfig{URL: "mqtts://h"}},
		"[::1]:7000": {SMS: &SMSConfig{Connect: "tcp://[::1]:7000"}},
		"":           {CAP: &CAPConfig{Folder: "x"}, Siren: &SirenConfig{}},
	} {
		if got := c.Address(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (&Config{SMS: &SMSConfig{Connect: "serial:///dev/ttyUSB2"}}).Address(); got != "" {
		t.Errorf("%q", got)
	}
}
