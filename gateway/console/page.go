package console

import (
	"bytes"
	"embed"
	"fmt"
	"html/template"
	"io/fs"
	"net/http"
	"path"
	"time"

	"haidang/gateway/telemetry"
)

// maxRows is how many warnings the page lists; the API has them all.
const maxRows = 200

//go:embed assets
var assets embed.FS

// A page is the operators' list of warnings.
type page struct{ list *template.Template }

func newPage() (*page, error) {
	list, err := template.New("list.html").Funcs(template.FuncMap{
		"severity": severityText, "state": stateText, "local": localTime,
	}).ParseFS(assets, "assets/list.html")
	if err != nil {
		return nil, fmt.Errorf("read the page: %w", err)
	}
	return &page{list: list}, nil
}

// home serves GET /.
func (c *Console) home(w http.ResponseWriter, _ *http.Request) error {
	warnings := c.sources.Warnings(false)
	shown := warnings[:min(len(warnings), maxRows)]
	var body bytes.Buffer
	if err := c.page.list.Execute(&body, map[string]any{
		"Gateway": c.sources.Gateway, "Version": c.sources.Version,
		"Warnings": shown, "Count": len(warnings), "More": len(warnings) - len(shown),
		"Now": time.Now(), "DeadLetters": c.sources.DeadLetters != nil,
		"Devices": c.sources.Devices != nil, "Rules": c.sources.Rules != nil,
	}); err != nil {
		return fmt.Errorf("write the page: %w", err)
	}
	writeBody(w, http.StatusOK, "text/html; charset=utf-8", body.Bytes())
	return nil
}

// asset serves GET /assets/{name}: the page's style and script.
func (c *Console) asset(w http.ResponseWriter, r *http.Request) error {
	name := r.PathValue("name")
	kind := map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}[path.Ext(name)]
	body, err := fs.ReadFile(assets, "assets/"+name)
	if err != nil || kind == "" {
		return unknownPath(w, r)
	}
	writeBody(w, http.StatusOK, kind, body)
	return nil
}

func severityText(s telemetry.Severity) telemetry.Text {
	return map[telemetry.Severity]telemetry.Text{
		telemetry.Extreme:  {VI: "Đặc biệt nghiêm trọng", EN: "extreme"},
		telemetry.Severe:   {VI: "Nghiêm trọng", EN: "severe"},
		telemetry.Moderate: {VI: "Trung bình", EN: "moderate"},
		telemetry.Minor:    {VI: "Nhẹ", EN: "minor"},
	}[s]
}

func stateText(s telemetry.State) telemetry.Text {
	return map[telemetry.State]telemetry.Text{
		telemetry.Pending:      {VI: "Đang theo dõi", EN: "pending"},
		telemetry.Active:       {VI: "Chưa ai nhận", EN: "not acknowledged"},
		telemetry.Acknowledged: {VI: "Đã có người nhận", EN: "acknowledged"},
		telemetry.Shelved:      {VI: "Tạm gác", EN: "shelved"},
		telemetry.Returned:     {VI: "Đã hết, chưa ai nhận", EN: "over, not acknowledged"},
		telemetry.Cleared:      {VI: "Đã hết", EN: "cleared"},
	}[s]
}

// localTime writes a time as Vietnam's clocks show it: UTC+7, no summer time.
func localTime(t time.Time) string {
	return t.In(time.FixedZone("+07", 7*60*60)).Format("15:04:05 02/01/2006")
}
