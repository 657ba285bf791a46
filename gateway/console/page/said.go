package page

import (
	"fmt"
	"regexp"
	"strings"
	"sync"
)

// A saying is what the gateway says in English, as a format, and in Vietnamese, where
// %[1]s stands for what the first verb of the English does, and so on. What %v, %w and
// %s stand for may be a saying itself.
type saying struct{ en, vi string }

// Said returns what the gateway says in English, such as the detail of an error, in a
// language of the pages. What is not known stays as it is.
func Said(lang, text string) string {
	if lang != "vi" {
		return text
	}
	vi, _ := inVietnamese(text, 0)
	return vi
}

// Sayings returns the English formats that have a translation.
func Sayings() []string {
	out := make([]string, len(sayings))
	for i := range sayings {
		out[i] = sayings[i].en
	}
	return out
}

// Bounds of a translation: of errors that wrap others, colons in a text, and its bytes.
const (
	maxDepth  = 8
	maxColons = 16
	maxSaid   = 2048
)

// inVietnamese translates a text as a whole, or what comes before and after a colon.
func inVietnamese(text string, depth int) (vi string, known bool) {
	if depth > maxDepth || len(text) > maxSaid {
		return text, false
	}
	if vi, known = asWhole(text, depth); known {
		return vi, true
	}
	at := 0
	for n := range maxColons {
		next := strings.Index(text[at:], ": ")
		if next < 0 {
			break
		}
		at += next
		before, knownBefore := asWhole(text[:at], maxDepth)
		if knownBefore || n == 0 {
			after, knownAfter := inVietnamese(text[at+2:], depth+1)
			if knownBefore || knownAfter {
				return before + ": " + after, true
			}
		}
		at += 2
	}
	return text, false
}

func asWhole(text string, depth int) (vi string, known bool) {
	if word, ok := words[text]; ok {
		return word, true
	}
	for _, p := range patterns() {
		parts := p.english.FindStringSubmatch(text)
		if parts == nil {
			continue
		}
		figures := make([]any, len(parts)-1)
		for i, part := range parts[1:] {
			figures[i], _ = inVietnamese(part, depth+1)
		}
		return fmt.Sprintf(p.vietnamese, figures...), true
	}
	return text, false
}

// A pattern is a saying as it is looked for.
type pattern struct {
	english    *regexp.Regexp
	vietnamese string
}

var (
	verbInText = regexp.MustCompile(`%[a-z]`)
	patterns   = sync.OnceValue(func() []pattern {
		out := make([]pattern, len(sayings))
		for i, s := range sayings {
			english := verbInText.ReplaceAllStringFunc(regexp.QuoteMeta(s.en), func(verb string) string {
				switch verb {
				case "%q":
					return `("(?:[^"\\]|\\.)*")`
				case "%d":
					return `(-?\d+)`
				}
				return `(.+?)`
			})
			out[i] = pattern{regexp.MustCompile(`(?s)^` + english + `$`), s.vi}
		}
		return out
	})
)

// words are those that stand alone in a saying.
var words = map[string]string{
	"ack": "nhận", "shelve": "tạm gác", "unshelve": "bỏ tạm gác", "assign": "chuyển giao", "comment": "ghi chú",
	"false-alarm": "báo động giả", "genuine": "không phải báo động giả",
	"retried": "thử lại", "dropped": "bỏ",
	"readings": "số đo", "warnings": "cảnh báo", "dead letters": "thư chết", "steps": "bước",
	"read": "xem", "write": "ghi số đo", "operate": "trực", "rule": "sửa quy tắc", "push": "đẩy số đo", "administer": "quản trị",
	"viewer": "người xem", "operator": "trực ban", "author": "người viết quy tắc", "administrator": "quản trị",
	"true": "có", "false": "không",
	"name": "tên", "owner": "chủ sở hữu", "interval": "chu kỳ", "lat": "vĩ độ", "lon": "kinh độ",
	"start": "bắt đầu", "end": "kết thúc", "the rules": "quy tắc",
}

// sayings are what an operator can meet by ordinary use, what is special before what is
// general. A test looks for every error of the acts of the page here.
var sayings = []saying{
	// Whatever is done.
	{"the gateway cannot do this now", "lúc này hệ thống chưa làm được việc đó"},
	{"the gateway is starting", "hệ thống đang khởi động"},
	{"the gateway is stopping", "hệ thống đang dừng"},
	{"the gateway could not answer; its log says why", "hệ thống không trả lời được; nhật ký của chương trình có ghi lý do"},
	{"context deadline exceeded", "quá thời gian chờ"},
	{"context canceled", "đã bị ngắt giữa chừng"},
	{"account %q (%s) has no right to %s here", "tài khoản %[1]s (%[2]s) không có quyền %[3]s ở đây"},
	{"this gateway has accounts: give the name of one and its secret", "hệ thống có tài khoản: hãy đăng nhập"},
	{"unknown account, or the secret does not fit", "không có tài khoản này, hoặc mật khẩu không đúng"},
	{"too many wrong passwords from this address: wait", "quá nhiều lần sai mật khẩu từ địa chỉ này: hãy chờ"},
	{"too many passwords are being checked: try again", "đang kiểm tra quá nhiều mật khẩu: hãy thử lại"},
	{"this account is not for people", "tài khoản này không dành cho người"},
	{"changes are not taken from pages of another origin", "không nhận thay đổi từ trang của nơi khác"},
	{"Host %q is not this gateway; expected localhost, 127.0.0.1 or [::1]", "tên máy %[1]s không phải hệ thống này; cần localhost, 127.0.0.1 hoặc [::1]"},
	{"the body is over %d bytes", "nội dung gửi lên dài hơn %[1]s byte"},
	{"the body breaks off: %v", "nội dung gửi lên bị đứt: %[1]s"},
	{"by has %d letters; expected the name of who acts, 1 to %d letters", "tên người thực hiện có %[1]s chữ; cần từ 1 đến %[2]s chữ"},
	{"why has %d letters; expected the reason, 1 to %d letters", "lý do có %[1]s chữ; cần từ 1 đến %[2]s chữ"},
	{"by: who acts is missing", "thiếu tên người thực hiện"},
	{"why: the reason is missing", "thiếu lý do"},
	{"the log is full", "nhật ký dữ liệu đã đầy"},
	{"the log cannot write", "nhật ký dữ liệu không ghi được"},
	{"the spool is closed", "nhật ký dữ liệu đã đóng"},
	{"write transition %s: %w", "ghi lần chuyển %[1]s: %[2]s"},
	{"append to the %s: %w: the disk of %s is nearly full", "ghi %[1]s: %[2]s: đĩa của %[3]s sắp đầy"},
	{"append to the %s: %w: %s on disk", "ghi %[1]s: %[2]s: đã có %[3]s trên đĩa"},
	{"append to the %s: %w", "ghi %[1]s: %[2]s"},
	{"put %s on record: %w", "ghi sổ %[1]s: %[2]s"},

	// Warnings.
	{"n is %d; expected the number of the transition that was seen, from 1", "n là %[1]s; cần số của lần chuyển đã xem, từ 1"},
	{"text has %d letters; expected at most %d", "ghi chú có %[1]s chữ; nhiều nhất %[2]s chữ"},
	{"text is missing; expected the comment", "chưa viết ghi chú"},
	{"to has %d letters; expected the person or agency in charge from now on, 1 to %d letters", "tên người hoặc cơ quan nhận bàn giao có %[1]s chữ; cần từ 1 đến %[2]s chữ"},
	{"to belongs to assign only", "người nhận bàn giao chỉ dùng khi chuyển giao"},
	{"until is missing or past; expected when shelving ends, as in %s", "thời điểm hết tạm gác còn thiếu hoặc đã qua; ví dụ %[1]s"},
	{"until belongs to shelve only", "thời hạn chỉ dùng khi tạm gác"},
	{"there is no warning %q", "không có cảnh báo %[1]s"},
	{"no such warning", "không có cảnh báo này"},
	{"the warning has changed since it was looked at", "cảnh báo đã thay đổi từ lúc xem"},
	{"warning %q: %w", "cảnh báo %[1]s: %[2]s"},
	{"what is out of service of %s", "việc ngừng phục vụ %[1]s"},
	{"taken out (%s)", "ngừng phục vụ (%[1]s)"},
	{"%s is at transition %d, not %d: %s by %s at %s", "%[1]s đã ở lần chuyển %[2]s, không còn ở %[3]s: %[4]s, bởi %[5]s lúc %[6]s"},
	{"warning %q is cleared: only comment, false-alarm and genuine are possible", "cảnh báo %[1]s đã hết: chỉ còn ghi chú, đánh dấu hoặc bỏ dấu báo động giả"},
	{"warning %q is over and waits to be acknowledged: %s is not possible", "cảnh báo %[1]s đã hết và chờ người nhận: không %[2]s được"},
	{"warning %q is out of service: %s is not possible until it is put back", "cảnh báo %[1]s đang ngừng phục vụ: chưa %[2]s được cho đến khi phục vụ lại"},
	{"warning %q is not shelved", "cảnh báo %[1]s không bị tạm gác"},
	{"until: the end of shelving, a time to come, is missing", "thiếu thời điểm hết tạm gác, ở tương lai"},
	{"text: the comment is missing", "chưa viết ghi chú"},
	{"to: the person or agency in charge is missing", "thiếu người hoặc cơ quan nhận bàn giao"},
	{"warning %q is marked as a false alarm already", "cảnh báo %[1]s đã được đánh dấu báo động giả"},
	{"warning %q is not marked as a false alarm", "cảnh báo %[1]s không có dấu báo động giả"},
	{"warning %q", "cảnh báo %[1]s"},

	// Out of service.
	{"out is missing; expected true to take out of service, false to put back", "thiếu out; true là ngừng phục vụ, false là phục vụ lại"},
	{"device: neither a device nor a rule is named", "chưa chọn thiết bị hoặc quy tắc"},
	{"until: the end is not a time to come", "thời điểm kết thúc không ở tương lai"},
	{"%s is in service", "%[1]s đang phục vụ"},
	{"rule %q at device %q", "quy tắc %[1]s tại thiết bị %[2]s"},
	{"rule %q", "quy tắc %[1]s"},
	{"device %q", "thiết bị %[1]s"},

	// Devices: their states and facts, and those that came by themselves.
	{"device %q is not registered and was not heard since the start", "thiết bị %[1]s chưa đăng ký và chưa gửi gì từ khi hệ thống chạy"},
	{"state %q is not one of measuring, maintenance, calibrating", "trạng thái %[1]s không phải đang đo, bảo trì hoặc hiệu chuẩn"},
	{"state: %q is not one of measuring, maintenance, calibrating", "trạng thái %[1]s không phải đang đo, bảo trì hoặc hiệu chuẩn"},
	{"for is %s; expected a duration like 2h, at most 366d", "thời gian là %[1]s; cần như 2h, nhiều nhất 366d"},
	{"for belongs to maintenance and calibrating", "thời gian chỉ dùng cho bảo trì và hiệu chuẩn"},
	{"facts is not an object of names and values", "thông số không phải là tên và giá trị"},
	{"nothing is to be changed: expected name, owner, interval, lat, lon or facts", "không có gì để đổi: cần tên, chủ sở hữu, chu kỳ, vĩ độ, kinh độ hoặc thông số"},
	{"do %q is not one of approve, refuse, reconsider", "không có việc %[1]s; chỉ có nhận, từ chối, xét lại"},
	{"name and interval belong to approve only", "tên và chu kỳ chỉ dùng khi nhận thiết bị"},
	{"value: %q is not a value of the catalogue, and %s did not send it", "%[1]s không có trong danh mục, và %[2]s chưa gửi giá trị đó"},
	{"%s is measuring already", "%[1]s vốn đang đo"},
	{"device %q is as it was asked for already: refused %v", "thiết bị %[1]s đã như vậy rồi: từ chối %[2]s"},
	{"device: %q is registered: take it out of devices.yaml, or put what was set of it back", "thiết bị %[1]s đã đăng ký: hãy bỏ khỏi devices.yaml, hoặc trả lại những gì đã đặt"},
	{"interval: want a duration like \"10m\", not %v", "chu kỳ cần như \"10m\", không phải %[1]s"},
	{"interval: want a duration like \"10m\", not %q", "chu kỳ cần như \"10m\", không phải %[1]s"},
	{"%s: want a word of at most 256 bytes, not %v", "%[1]s: cần chữ, nhiều nhất 256 byte, không phải %[2]s"},
	{"%s: want degrees as a number, not %v", "%[1]s: cần số độ, không phải %[2]s"},
	{"%s: only name, owner, interval, lat, lon and facts can be changed at run time", "%[1]s: chỉ đổi được tên, chủ sở hữu, chu kỳ, vĩ độ, kinh độ và thông số khi hệ thống đang chạy"},
	{"%s: a fact has a name of letters, digits and ._:-", "%[1]s: tên thông số gồm chữ, số và ._:-"},
	{"%s: want a number, a word, true or false, not %v", "%[1]s: cần số, chữ, true hoặc false, không phải %[2]s"},
	{"%s: a word has at most 1024 bytes", "%[1]s: chữ dài nhất 1024 byte"},
	{"facts: %d values of %s are changed; at most %d", "đã đổi %[1]s giá trị của %[2]s; nhiều nhất %[3]s"},
	{"somebody else changed a device at the same time: try again", "có người khác vừa đổi thiết bị cùng lúc: hãy thử lại"},
	{"more than %d devices are changed: put changes that last into devices.yaml", "đã đổi hơn %[1]s thiết bị: hãy ghi những thay đổi lâu dài vào devices.yaml"},
	{"keep the change of %s: %w", "lưu thay đổi của %[1]s: %[2]s"},
	{"the change of %s was not made: %w", "chưa đổi %[1]s: %[2]s"},
	{"the rules could not be in force then: %s", "khi đó quy tắc không thể có hiệu lực: %[1]s"},
	{"write the rules to the log: %w", "ghi quy tắc vào nhật ký: %[1]s"},

	// Drills.
	{"by: the name has over %d letters", "tên người thực hiện dài hơn %[1]s chữ"},
	{"why: the reason has over %d letters", "lý do dài hơn %[1]s chữ"},
	{"do: %q is not one of start, end", "không có việc %[1]s; chỉ có bắt đầu, kết thúc"},
	{"speed: %v is not over 0 and up to %v", "tốc độ %[1]s không lớn hơn 0 và tới %[2]s"},
	{"scenario: %q raises no warning with the rules in force", "kịch bản %[1]s không gây cảnh báo nào với các quy tắc đang có hiệu lực"},
	{"scenario: %w", "kịch bản: %[1]s"},
	{"name: %q is not one of the scenarios: %s", "%[1]s không phải là một trong các kịch bản: %[2]s"},
	{"no rules are in force yet", "chưa có quy tắc nào có hiệu lực"},
	{"speed: the drill would have %d steps in %s; expected at most %d in %s", "cuộc diễn tập sẽ có %[1]s bước trong %[2]s; nhiều nhất %[3]s bước trong %[4]s"},
	{"the exercise %q by %s runs since %s: %w", "cuộc diễn tập %[1]s của %[2]s đang chạy từ %[3]s: %[4]s"},
	{"no exercise runs; what was left of one is cleared", "không có cuộc diễn tập nào đang chạy; những gì còn lại đã được xóa"},
	{"file: %q is not one of the scenario files of this gateway", "%[1]s không phải là tệp kịch bản của hệ thống này"},
	{"file: %w", "tệp: %[1]s"},
	{"device: %q is not registered", "thiết bị %[1]s chưa đăng ký"},
	{"text: it has %d letters; expected at most %d", "nội dung có %[1]s chữ; nhiều nhất %[2]s chữ"},
	{"last: %s is not in 1s..%s", "thời gian %[1]s không nằm trong 1s..%[2]s"},

	// Rules.
	{"there is no recipient %q under ioc; expected one of %s", "không có nơi nhận %[1]s trong ioc; có: %[2]s"},
	{"%s has changed the rules meanwhile, at %s (version %d: %s): look at that first", "%[1]s vừa sửa quy tắc lúc %[2]s (phiên bản %[3]s: %[4]s): hãy xem trước"},
	{"not there", "không có"},
	{"this took too long and was given up", "việc này quá lâu nên đã dừng"},
	{"it took longer than %s: choose a shorter time or one device", "lâu hơn %[1]s: hãy chọn khoảng thời gian ngắn hơn hoặc một thiết bị"},
	{"too many drafts are looked at; try again", "đang kiểm tra quá nhiều bản nháp; hãy thử lại"},
	{"a backtest of yours runs already: end it first", "bạn đang chạy một lần thử với quá khứ: hãy dừng lần đó trước"},
	{"%d backtests of others run: try again in a minute", "%[1]s lần thử với quá khứ của người khác đang chạy: hãy thử lại sau một phút"},
	{"from %s to %s is not a time of at most 400 days", "từ %[1]s đến %[2]s không phải là khoảng thời gian tới 400 ngày"},
	{"text is missing: expected the whole file", "thiếu nội dung: cần cả tệp"},
	{"nothing is to be changed: expected shadow or disabled", "không có gì để đổi: cần chạy thử hoặc tắt"},
	{"to is missing: expected a version from 1, or 0 for what the configuration says", "thiếu phiên bản: cần từ 1, hoặc 0 là theo cấu hình"},
	{"%q is not the number of a version", "%[1]s không phải số của một phiên bản"},
	{"the history of the rules cannot be read", "không đọc được lịch sử quy tắc"},
	{"%q is no rule file; the name of a new one is like rules/flood.yaml, of letters, digits and ._-", "%[1]s không phải tệp quy tắc; tên tệp mới như rules/flood.yaml, gồm chữ, số và ._-"},
	{"nothing is to be changed: the text is the one in force", "không có gì để đổi: nội dung này đang có hiệu lực"},
	{"nothing is to be changed: the rules are as they were then", "không có gì để đổi: quy tắc đang như lúc đó"},
	{"there is no rule %q in the draft", "bản nháp không có quy tắc %[1]s"},
	{"there is no rule %q in the file", "tệp không có quy tắc %[1]s"},
	{"there is no rule %q", "không có quy tắc %[1]s"},
	{"text: %d bytes are more than the %d that a rule file may have", "nội dung %[1]s byte, nhiều hơn %[2]s byte mà một tệp quy tắc được có"},
	{"%s of rule %q cannot be set in a text that is laid out like this: write it by hand", "không tự đặt được %[1]s của quy tắc %[2]s trong nội dung viết như vậy: hãy sửa bằng tay"},
	{"the file is not YAML: %w", "tệp không phải YAML: %[1]s"},
	{"there is no such version of the rules", "không có phiên bản quy tắc này"},
	{"%d is not in 1..%d", "%[1]s không nằm trong 1..%[2]s"},
	{"%d files are changed at run time; at most %d: put changes that last into the configuration (haidang rules export)", "đã đổi %[1]s tệp khi đang chạy; nhiều nhất %[2]s: hãy ghi những thay đổi lâu dài vào cấu hình (haidang rules export)"},
	{"the history of the rules is full (%d versions): put the changes into the configuration (haidang rules export) and move the folder %s away", "lịch sử quy tắc đã đầy (%[1]s phiên bản): hãy ghi các thay đổi vào cấu hình (haidang rules export) và dời thư mục %[2]s đi"},
	{"a text has %d bytes, at most %d are allowed", "nội dung có %[1]s byte, nhiều nhất %[2]s"},
	{"write a version of the rules: %w", "ghi một phiên bản quy tắc: %[1]s"},
	{"keep a version of the rules: %w", "lưu một phiên bản quy tắc: %[1]s"},
	{"nothing was changed: %v", "chưa đổi gì: %[1]s"},

	// Dead letters.
	{"no such dead letter", "không có thư chết này"},
	{"%q: %w; an id is like 17-0", "%[1]s: %[2]s; mã như 17-0"},
	{"nothing is to be done with this dead letter any more", "thư chết này đã xử lý xong"},
	{"%s was being retried by %s at %s and may have come through: look, then retry with --again or drop it: %w", "%[1]s đang được %[2]s thử lại lúc %[3]s và có thể đã vào: hãy xem, rồi thử lại với --again hoặc bỏ: %[4]s"},
	{"%s was %s by %s at %s: %w", "thư %[1]s đã được %[2]s bởi %[3]s lúc %[4]s: %[5]s"},
	{"nobody knows yet whether it came through: %w", "chưa biết đã vào hay chưa: %[1]s"},
	{"%d dead letters are settled already", "đã xử lý %[1]s thư chết rồi"},
	{"write down what became of %s: %w", "ghi lại kết quả của %[1]s: %[2]s"},
	{"only the first %d bytes were kept: the device has to send it again", "chỉ giữ được %[1]s byte đầu: thiết bị phải gửi lại"},
	{"nothing of it was kept", "không giữ được gì của thư này"},
	{"what %s sets aside cannot be taken in again: drop it when you have seen it", "thư do %[1]s để riêng không nhận lại được: xem xong thì bỏ"},
	{"there is no reading in it", "trong thư không có số đo"},
	{"it still cannot be used: %s", "vẫn chưa dùng được: %[1]s"},
	{"kind %q is not in the catalogue (strict)", "loại số liệu %[1]s không có trong danh mục"},
	{"value %q is not one of kind %s in the catalogue (strict)", "giá trị %[1]s không thuộc loại %[2]s trong danh mục"},
	{"a reading has at least one value", "một số đo có ít nhất một giá trị"},

	// Recipients.
	{"recipients are not told at present", "hiện chưa gửi tin cho nơi nhận"},
	{"the test did not come through", "tin thử không tới nơi"},
	{"there is no recipient %q; expected one of %s", "không có nơi nhận %[1]s; có: %[2]s"},
}
