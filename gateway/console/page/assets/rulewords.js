// What the editor of rules offers: keys of the file, and in expressions the values,
// functions and facts that there are.
"use strict";
const ruleWords_ = (() => {
  const { t } = console_;
  const keys = {
    name: t("tên, không dấu cách", "its name, without spaces"), on: t("loại số liệu kích hoạt", "the kind whose readings trigger it"), where: t("chỉ thiết bị nào", "only for which devices"),
    when: t("khi nào báo", "when it raises"), clear: t("khi nào hết", "when it ends"), severity: t("mức độ", "how grave"), levels: t("nhiều mức", "several severities"), for: t("phải kéo dài bao lâu", "how long it must hold"),
    clear_for: t("hết bao lâu mới thôi", "how long until it ends"), message: t("lời báo", "what is told"), cleared: t("lời khi hết", "what is told at the end"), to: t("gửi cho ai", "to whom"),
    shadow: t("chạy thử, không gửi ai", "on trial: nobody is told"), disabled: t("tắt", "not evaluated"), latch: t("giữ đến khi có người nhận", "stands until acknowledged"), inhibited_by: t("bị quy tắc khác chặn", "not while these rules warn"), mute: t("giờ không báo", "times of the week it is silent"), flap: t("chập chờn", "when it flaps"),
  };
  const texts = { vi: t("tiếng Việt", "Vietnamese"), en: t("tiếng Anh", "English") };
  const severities = ["minor", "moderate", "severe", "extreme"];
  const expressions = ["when", "clear", "where"];

  // before tells the key whose value the cursor is in, and what of it is written.
  function before(state, at) {
    const line = state.doc.lineAt(at), text = line.text.slice(0, at - line.from);
    const own = text.match(/(?:^|[{,]|-\s)\s*([a-z_]+):\s+([^#]*)$/);
    const flow = [...text.matchAll(/[{,]\s*([a-z_]+):\s+/g)].at(-1);
    if (flow) {
      const rest = text.slice(flow.index + flow[0].length);
      if (!rest.includes("}") && !/,\s*[a-z_]*$/.test(rest.replace(/\([^)]*\)?/g, ""))) return { key: flow[1], written: rest };
      if (!rest.includes("}")) return { key: null, flow: true };
    }
    if (own) return { key: own[1], written: own[2] };
    if (/^\s*(-\s+)?[a-z_]*$/.test(text) && !continues(state, line)) return { key: null };
    const above = continues(state, line);
    return above ? { key: above, written: text } : { key: null };
  }

  // continues is the key of an expression that goes on over lines.
  function continues(state, line) {
    const indent = line.text.search(/\S|$/);
    for (let n = line.number - 1; n > 0 && n > line.number - 12; n--) {
      const text = state.doc.line(n).text;
      if (!text.trim()) continue;
      const at = text.search(/\S/);
      if (at >= indent) continue;
      const key = text.match(/^\s*(?:-\s+)?([a-z_]+):\s*(\S.*)?$/);
      return key && expressions.includes(key[1]) && (key[2] || /[|>]/.test(text)) ? key[1] : null;
    }
    return null;
  }

  // kindAt is the kind that the rule around the cursor is on.
  function kindAt(state, at) {
    const here = state.doc.lineAt(at).number;
    for (let n = here; n > 0; n--) {
      const text = state.doc.line(n).text;
      const on = text.match(/\bon:\s*["']?([\p{L}\p{N}._:-]+)/u);
      if (on) return on[1];
      if (/^\s*-\s+\{?name:|^\s*-\s+name:/.test(text) && n !== here) break;
      if (/^\s*-\s+(\{\s*)?name:/.test(text)) break;
    }
    for (let n = here + 1; n <= state.doc.lines; n++) {
      const text = state.doc.line(n).text;
      const on = text.match(/\bon:\s*["']?([\p{L}\p{N}._:-]+)/u);
      if (on) return on[1];
      if (/^\s*-\s+(\{\s*)?name:/.test(text)) break;
    }
    return null;
  }

  const title = (of) => (of ? (document.documentElement.lang === "en" ? of.en || of.vi : of.vi || of.en) : "");

  function ofExpression(words, kind, context, facts) {
    const dotted = context.matchBefore(/[\p{L}_][\p{L}\p{N}_]*\.[\p{L}\p{N}_-]*/u);
    if (dotted) {
      const [base] = dotted.text.split(".");
      const from = dotted.from + base.length + 1;
      if (base === "device") return { from, options: words.facts.map((f) => ({ label: f.name, type: "property", detail: f.devices ? t(`${f.devices} thiết bị`, `${f.devices} devices`) : "", info: f.example === undefined || f.example === null ? undefined : `${t("ví dụ", "such as")} ${f.example}` })) };
      const of = words.kinds.find((k) => k.name === base);
      return of && !facts ? { from, options: of.values.map((q) => ({ label: q.name, type: "variable", detail: q.unit ?? "", info: title(q.title) || undefined })) } : null;
    }
    const quoted = context.matchBefore(/(inside|distance_m|crossed|dwell|limit)\(\s*"[^"]*/);
    if (quoted) {
      const from = quoted.from + quoted.text.indexOf('"') + 1;
      return { from, options: (quoted.text.startsWith("limit") ? words.limits : words.zones).map((label) => ({ label, type: "text" })) };
    }
    const word = context.matchBefore(/[\p{L}_][\p{L}\p{N}_]*/u);
    if (!word && !context.explicit) return null;
    const options = [{ label: "device", type: "namespace", detail: t("thông số của thiết bị", "facts of the device"), apply: "device." }];
    if (!facts) {
      options.push({ label: "quality", type: "variable" });
      for (const k of words.kinds) {
        for (const q of k.values) options.push({ label: q.name, type: "variable", detail: [q.unit, k.name === kind ? "" : k.name].filter(Boolean).join(" · "), info: title(q.title) || undefined, boost: k.name === kind ? 30 : -20 });
      }
      for (const f of words.functions) options.push({ label: f.name, type: "function", detail: f.form.slice(f.name.length), info: title(f.text), apply: f.form, boost: -5 });
    }
    for (const w of ["and", "or", "not", "in"]) options.push({ label: w, type: "keyword", boost: -40 });
    return { from: word ? word.from : context.pos, options };
  }

  const list = (context, labels, detail) => {
    const word = context.matchBefore(/[\p{L}\p{N}._:-]*/u);
    return { from: word.from, options: labels.map((label) => ({ label, type: "enum", detail: detail?.(label) })) };
  };

  // source completes at the cursor; words are those of /api/v1/rules/words.
  const source = (words) => (context) => {
    const { key, written, flow } = before(context.state, context.pos);
    if (key === null || key === undefined) {
      const word = context.matchBefore(/[a-z_]+/);
      if (!word && !context.explicit) return null;
      const among = flow ? { severity: keys.severity, when: keys.when, clear: keys.clear, for: keys.for, title: "" } : keys;
      return { from: word ? word.from : context.pos, options: Object.entries(among).map(([label, detail]) => ({ label, type: "property", detail, apply: label + ": " })) };
    }
    if (expressions.includes(key)) return ofExpression(words, kindAt(context.state, context.pos), context, key === "where");
    if (key in texts || key === "message" || key === "cleared") {
      const open = written.lastIndexOf("{");
      if (open < 0 || written.lastIndexOf("}") > open) return null;
      return ofExpression(words, kindAt(context.state, context.pos), context, false);
    }
    switch (key) {
      case "on":
        return list(context, words.kinds.map((k) => k.name), (name) => title(words.kinds.find((k) => k.name === name).title));
      case "severity":
        return list(context, severities);
      case "to":
        return list(context, words.recipients);
      case "inhibited_by":
        return list(context, words.rules);
      case "shadow":
      case "disabled":
      case "latch":
        return list(context, ["true", "false"]);
    }
    return null;
  };
  return { source, kindAt, before };
})();
