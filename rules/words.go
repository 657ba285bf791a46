package rules

import (
	"slices"

	"haidang/gateway/telemetry"
)

// A Function is what authors are told of a function of rules: what completion
// offers, and what it inserts.
type Function struct {
	Name string         `json:"name"`
	Form string         `json:"form"` // as it is called: rate(value, "1h")
	Text telemetry.Text `json:"text"`
}

// Functions returns the functions that expressions may call, sorted by name.
func Functions() []Function {
	list := []Function{
		{"abs", "abs(number)", telemetry.Text{VI: "giá trị tuyệt đối", EN: "absolute value"}},
		{"ceil", "ceil(number)", telemetry.Text{VI: "làm tròn lên", EN: "rounded up"}},
		{"floor", "floor(number)", telemetry.Text{VI: "làm tròn xuống", EN: "rounded down"}},
		{"round", "round(number)", telemetry.Text{VI: "làm tròn", EN: "rounded"}},
		{"len", "len(word)", telemetry.Text{VI: "số chữ", EN: "number of letters"}},
		{"lower", "lower(word)", telemetry.Text{VI: "viết thường", EN: "in small letters"}},
		{"upper", "upper(word)", telemetry.Text{VI: "viết hoa", EN: "in capitals"}},
		{"trim", "trim(word)", telemetry.Text{VI: "bỏ khoảng trắng hai đầu", EN: "without spaces at both ends"}},
		{"avg", `avg(value, "1h")`, telemetry.Text{VI: "trung bình trong khoảng", EN: "mean over the window"}},
		{"min", `min(value, "1h")`, telemetry.Text{VI: "nhỏ nhất trong khoảng", EN: "least in the window"}},
		{"max", `max(value, "1h")`, telemetry.Text{VI: "lớn nhất trong khoảng", EN: "most in the window"}},
		{"sum", `sum(value, "1h")`, telemetry.Text{VI: "tổng trong khoảng", EN: "sum over the window"}},
		{"count", `count(value, "1h")`, telemetry.Text{VI: "số lần đo trong khoảng", EN: "readings in the window"}},
		{"delta", `delta(value, "1h")`, telemetry.Text{VI: "cuối trừ đầu khoảng", EN: "last minus first of the window"}},
		{"rate", `rate(value, "1h")`, telemetry.Text{VI: "mức tăng mỗi giờ", EN: "rise per hour over the window"}},
		{"stddev", `stddev(value, "1h")`, telemetry.Text{VI: "độ lệch chuẩn trong khoảng", EN: "standard deviation over the window"}},
		{"first", `first(value, "1h")`, telemetry.Text{VI: "giá trị đầu khoảng", EN: "first of the window"}},
		{"last", `last(value, "1h")`, telemetry.Text{VI: "giá trị cuối khoảng", EN: "last of the window"}},
		{"percentile", `percentile(value, 95, "24h")`, telemetry.Text{VI: "phân vị, tối đa 24 giờ", EN: "percentile, up to 24 h"}},
		{"prev", "prev(value)", telemetry.Text{VI: "lần đo trước", EN: "the sample before"}},
		{"age", "age(value)", telemetry.Text{VI: "số giây từ lần đo dùng được gần nhất", EN: "seconds since the newest usable sample"}},
		{"silent", `silent("6h")`, telemetry.Text{VI: "không nhận được gì lâu như vậy", EN: "nothing was received for so long"}},
		{"heard", "heard()", telemetry.Text{VI: "đã từng nhận được số liệu", EN: "a reading has come"}},
		{"inside", `inside("zone")`, telemetry.Text{VI: "ở trong vùng", EN: "the place lies in the zone"}},
		{"distance_m", `distance_m("zone")`, telemetry.Text{VI: "mét đến mép vùng hoặc đường", EN: "metres to the zone or line"}},
		{"crossed", `crossed("line")`, telemetry.Text{VI: "vừa vượt qua đường", EN: "the step crosses the line"}},
		{"dwell", `dwell("zone")`, telemetry.Text{VI: "số giây liên tục trong vùng", EN: "seconds continuously inside"}},
		{"vn_aqi", "vn_aqi()", telemetry.Text{VI: "chỉ số VN_AQI của giờ tròn gần nhất", EN: "VN_AQI of the last whole hour"}},
		{"nowcast", "nowcast(value)", telemetry.Text{VI: "NowCast 12 giờ", EN: "NowCast over 12 hours"}},
		{"limit", `limit("name")`, telemetry.Text{VI: "giới hạn đang có hiệu lực", EN: "the limit in force"}},
		{"hour", "hour()", telemetry.Text{VI: "giờ trong ngày, 0 đến 23", EN: "hour of the day, 0 to 23"}},
		{"weekday", "weekday()", telemetry.Text{VI: "thứ trong tuần: 1 là thứ Hai, 7 là Chủ nhật", EN: "day of the week: 1 Monday to 7 Sunday"}},
	}
	slices.SortFunc(list, func(a, b Function) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return list
}
