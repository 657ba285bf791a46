package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"haidang/gateway/console/page"
)

// operatorsMeet are the functions whose errors somebody meets who works with the page:
// acknowledging, shelving, comments, out of service, drills, rules, dead letters, states
// and facts of devices, admission; "*" are all of a file.
var operatorsMeet = map[string]string{
	"console/answers.go":     "act reload actProblem readBodyUpTo decodeAct",
	"console/console.go":     "ErrUnavailable",
	"console/deadletters.go": "ErrUnknownLetter ErrSettled actOnLetter letterProblem",
	"console/devices.go":     "noDevice setState changeDevice admission whoAndWhy deviceProblem",
	"console/guard.go":       "guarded",
	"console/lifecycle.go":   "order ErrUnreached lifecycleProblem try drill",
	"console/routes.go":      "handler serve",
	"console/rulebook.go":    "ErrNoRuleFile Error ruleProblem saveRules markRule save revertRules draft begin backtest",
	"console/session.go":     "login",
	"account/store.go":       "wrong Authenticate person compute fail",
	"telemetry/board.go":     "ErrConflict ErrUnknown Error conflict Act allows do",
	"telemetry/order.go":     "String Order",
	"centre.go":              "compute write",
	"devicechange.go":        "setState changeDevice admit ofDevice",
	"drill.go":               "actOnDrill rehearse startDrill endDrill",
	"drillscenarios.go":      "scenarioText plain",
	"rulessave.go":           "*",
	"rulesdraft.go":          "readDraft alone draftRule",
	"repost.go":              "unknownRecipients",
	"audit.go":               "note first",
	"evaluator.go":           "announce",
	"deadletters.go":         "read act retry settle",
	"deadletterretry.go":     "wayBack takeIn storeAgain Error",
	"post.go":                "change try Error",
	"registry/registry.go":   "state Refuse Prepare commit",
	"registry/merge.go":      "set",
	"rulebook/mark.go":       "*",
	"rulebook/rulebook.go":   "ErrNoVersion Version Commit keep",
	"spool/spool.go":         "ErrFull ErrUnavailable ErrClosed",
	"spool/commit.go":        "diskFull commit",
}

// notOperators are what only a program that writes to the API by itself can meet, what
// only joins others, and what is no sentence.
var notOperators = []string{
	"%v", "%s", "%w", "%w: %w", "%s, %s", "rules/%d", "version %d of the rules (haidang rules history)", "%q",
	"the body is not an object of ", "Content-Type is %q; expected application/json", "If-Match ", "something follows the object", "the form cannot be read: %v",
	"%s: this field is not known; ", "%s: a %s is no %s", "do: %q is not one of ack, ", "15:04", "%s, %g times as fast as written", "%d of %s were played",
	"begin the answer of a backtest", "recipient %s is taken out, ", "and %d more", "rules[%d].to[%d]", "%d attempts to deliver ",
}

// saidIn returns the formats of the errors in functions of a file, by where they are.
func saidIn(t *testing.T, name, functions string) map[string]string {
	t.Helper()
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, filepath.FromSlash(name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	wanted := strings.Fields(functions)
	used := map[string]bool{}
	out := map[string]string{}
	note := func(e ast.Expr) {
		lit, ok := e.(*ast.BasicLit)
		if !ok || lit.Kind != token.STRING {
			return
		}
		if text, err := strconv.Unquote(lit.Value); err == nil {
			out[text] = files.Position(lit.Pos()).String()
		}
	}
	look := func(name string, n ast.Node) {
		if !slices.Contains(wanted, name) && !slices.Contains(wanted, "*") {
			return
		}
		used[name] = true
		ast.Inspect(n, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.CallExpr:
				if at, ok := formatOf(n.Fun); ok && at < len(n.Args) {
					note(n.Args[at])
				}
			case *ast.KeyValueExpr:
				if key, ok := n.Key.(*ast.Ident); ok && key.Name == "Detail" {
					note(n.Value)
				}
			}
			return true
		})
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			look(d.Name.Name, d)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				look(v.Names[0].Name, v)
				if len(v.Values) > 0 && slices.Contains(wanted, v.Names[0].Name) {
					note(v.Values[0])
				}
			}
		}
	}
	for _, function := range wanted {
		if function != "*" && !used[function] {
			t.Errorf("%s has no %s: the list of this test is old", name, function)
		}
	}
	return out
}

// formatOf returns which argument of a call is what an error says.
func formatOf(function ast.Expr) (int, bool) {
	name := ""
	switch f := function.(type) {
	case *ast.Ident:
		name = f.Name
	case *ast.SelectorExpr:
		if of, ok := f.X.(*ast.Ident); ok {
			name = of.Name + "." + f.Sel.Name
		}
	}
	at, ok := map[string]int{"errors.New": 0, "fmt.Errorf": 0, "fmt.Sprintf": 0, "problemf": 2, "bad": 1, "telemetry.Faultf": 1}[name]
	return at, ok
}

// TestSaidInVietnamese: whatever an operator can meet of errors on the page is told in
// Vietnamese, and no translation is left of what is not said any more.
func TestSaidInVietnamese(t *testing.T) {
	known := page.Sayings()
	said := map[string]bool{}
	for name, functions := range operatorsMeet {
		for format, where := range saidIn(t, name, functions) {
			format = strings.TrimPrefix(strings.TrimSuffix(format, ": %w"), "%w: ")
			said[format] = true
			if slices.ContainsFunc(notOperators, func(other string) bool {
				return format == other || len(other) > 6 && strings.HasPrefix(format, other)
			}) {
				continue
			}
			if !slices.Contains(known, format) && !slices.Contains(known, format+": %w") {
				t.Errorf("%s: %q has no Vietnamese in console/page/said.go", where, format)
			}
		}
	}
	all := sourcesOf(t)
	verbs := regexp.MustCompile(`%\[(\d+)\]s`)
	for _, format := range known {
		quoted := strconv.Quote(strings.TrimSuffix(strings.TrimSuffix(format, ": %w"), "%s"))
		if !strings.Contains(all, quoted[1:len(quoted)-1]) && !strings.Contains(all, format) && !strings.HasPrefix(format, "context ") {
			t.Errorf("nobody says %q", format)
		}
		// Every verb has a place in the Vietnamese, and none is named that is not there.
		example := regexp.MustCompile(`%[a-z]`).ReplaceAllStringFunc(format, func(verb string) string {
			return map[string]string{"%q": `"kim-long"`, "%d": "7"}[verb] + map[bool]string{true: "kim-long"}[verb != "%q" && verb != "%d"]
		})
		vi := page.Said("vi", example)
		if vi == example || strings.Contains(vi, "%!") || verbs.MatchString(vi) {
			t.Errorf("%q is told as %q", example, vi)
		}
		if page.Said("en", example) != example {
			t.Errorf("%q is changed in English", example)
		}
	}
}

// sourcesOf returns the text of the Go files that are no tests, but for the table.
func sourcesOf(t *testing.T) string {
	var all strings.Builder
	for _, pattern := range []string{"*.go", "*/*.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all.Write(text)
		}
	}
	return all.String()
}

// TestSaidToWhom: a page gets errors in its own language, a program in English, a
// browser that has several languages as well.
func TestSaidToWhom(t *testing.T) {
	t.Parallel()
	g := prepare(t, "")
	g.start()
	for language, want := range map[string]string{
		"vi": `cảnh báo \"none\": không có cảnh báo này`, "en": `warning \"none\": no such warning`, "": `warning \"none\": no such warning`, "vi-VN,vi;q=0.9": `warning \"none\": no such warning`,
	} {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+g.ports.console+"/api/v1/warnings/none/ack", strings.NewReader(`{"n":1,"by":"Lan"}`))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		if language != "" {
			r.Header.Set("Accept-Language", language)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusNotFound || !strings.Contains(string(body), want) {
			t.Errorf("%q: %d %s, %v; want %s", language, answer.StatusCode, body, err, want)
		}
	}
}

// TestSaidWhole: whole details, of errors within errors.
func TestSaidWhole(t *testing.T) {
	for detail, want := range map[string]string{
		`the gateway cannot do this now: write transition kim-long-flood-1/3: append to the warnings: the log is full: 4 MiB on disk`: `lúc này hệ thống chưa làm được việc đó: ghi lần chuyển kim-long-flood-1/3: ghi cảnh báo: nhật ký dữ liệu đã đầy: đã có 4 MiB trên đĩa`,
		`warning "w" is over and waits to be acknowledged: shelve is not possible`:                                                    `cảnh báo "w" đã hết và chờ người nhận: không tạm gác được`,
		`17-0 was dropped by lan at 15:04 22/11/2026: nothing is to be done with this dead letter any more`:                           `thư 17-0 đã được bỏ bởi lan lúc 15:04 22/11/2026: thư chết này đã xử lý xong`,
		`the exercise "Bão số 5" by lan runs since 15:04:05: the warning has changed since it was looked at`:                          `cuộc diễn tập "Bão số 5" của lan đang chạy từ 15:04:05: cảnh báo đã thay đổi từ lúc xem`,
		`rules/flood.yaml:6: rules[0].to[1]: there is no recipient "polise" under ioc; expected one of centre, police`:                `rules/flood.yaml:6: rules[0].to[1]: không có nơi nhận "polise" trong ioc; có: centre, police`,
		`account "minh" (viewer) has no right to operate here`:                                                                        `tài khoản "minh" (người xem) không có quyền trực ở đây`,
		`something that nobody knows: of it`: `something that nobody knows: of it`,
		strings.Repeat(`a: `, 5000):          strings.Repeat(`a: `, 5000),
	} {
		if got := page.Said("vi", detail); got != want {
			t.Errorf("%.200s\nis told as %.300s\nwant       %.300s", detail, got, want)
		}
	}
	for range 3 { // what somebody makes up costs little
		page.Said("vi", strings.Repeat(`"x" by: `, 250))
	}
}
