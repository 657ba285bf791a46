// The editor of a rule file: faults under the words, completion, trial, and saving.
"use strict";
(async () => {
  const { t, ask } = console_;
  const { make } = ruleTrial_;
  const edit = document.getElementById("edit"), area = document.getElementById("text");
  const mayEdit = document.documentElement.hasAttribute("data-rule");
  const seen = edit.dataset.version;
  let saved = area.value;
  const file = () => edit.dataset.file || document.getElementById("file").value.trim();
  const post = (what, body, signal) => console_.send("POST", "/api/v1/rules/" + what, body, { signal });
  if (edit.dataset.new) {
    area.value = saved = `# ${t("Vì sao có quy tắc này?", "Why is this rule here?")}\nrules:\n  - name: ${t("quy-tac-moi", "new-rule")}\n    on: river\n    severity: moderate\n    when: level_m > 2\n    message:\n      vi: "{device.name}: {level_m} m"\n      en: "{device.name}: {level_m} m"\n`;
  }
  const words = await console_.get("/api/v1/rules/words").then((a) => a.words);
  const cm = codemirror_;

  // The gateway counts lines and letters from 1; the editor counts UTF-16 units.
  const position = (doc, line, column) => {
    const l = doc.line(Math.min(Math.max(line, 1), doc.lines));
    return l.from + [...l.text].slice(0, Math.max(0, column - 1)).join("").length;
  };

  let findings = [], checked = null, latest = 0;
  async function check(view) {
    const text = view.state.doc.toString(), mine = ++latest;
    let said;
    try {
      said = await post("check", { file: file(), text, rule: "" });
    } catch (error) {
      said = { findings: [{ level: "error", line: 1, column: 1, end_line: 1, end_column: 1, message: error.message }], rules: [] };
    }
    if (mine !== latest) return [];
    findings = said.findings;
    checked = findings.some((f) => f.level === "error") ? null : text;
    tell(view);
    choices(view, said.rules);
    if (checked !== null) tried(view);
    else document.getElementById("try").replaceChildren(make("p", { className: "soft" }, t("Chờ văn bản không còn lỗi.", "Waits for a text without faults.")));
    const doc = view.state.doc;
    return findings.filter((f) => f.line > 0).map((f) => {
      const from = position(doc, f.line, f.column), to = Math.max(from, position(doc, f.end_line, f.end_column));
      return {
        from, to: to === from ? Math.min(doc.length, from + 1) : to, severity: f.level, message: ruleTrial_.inWords(f.message),
        actions: f.suggestion ? [{ name: `→ ${f.suggestion}`, apply: (v, a, b) => v.dispatch({ changes: { from: a, to: b, insert: f.suggestion } }) }] : [],
      };
    });
  }

  // tell lists the findings for who cannot see the marks; a button goes there.
  function tell(view) {
    const place = document.getElementById("findings");
    if (!findings.length) return place.replaceChildren(make("p", { className: "soft" }, t("✓ Không có lỗi.", "✓ No faults.")));
    place.replaceChildren(make("ul", {}, ...findings.map((f) => {
      const item = make("li", { className: f.level === "error" ? "error" : "warning-text" });
      if (f.line > 0) {
        const button = make("button", { type: "button" }, `${t("dòng", "line")} ${f.line}:${f.column}`);
        button.addEventListener("click", () => {
          view.dispatch({ selection: { anchor: position(view.state.doc, f.line, f.column) }, scrollIntoView: true });
          view.focus();
        });
        item.append(button, " ");
      }
      item.append(ruleTrial_.inWords(f.message));
      return item;
    })));
  }

  // ruleAt is the rule around the cursor, choices the list to jump to one.
  function ruleAt(state) {
    for (let n = state.doc.lineAt(state.selection.main.head).number; n > 0; n--) {
      const name = state.doc.line(n).text.match(/^\s*-\s+(?:\{\s*)?name:\s*["']?([\p{L}\p{N}][\p{L}\p{N}._:-]*)/u);
      if (name) return name[1];
    }
    return "";
  }
  const select = document.getElementById("rule");
  function choices(view, names) {
    if (names.length || !select.options.length) select.replaceChildren(...names.map((name) => new Option(name, name)));
    const here = ruleAt(view.state) || names[0];
    if (here) select.value = here;
  }
  const rule = () => select.value;

  let trying = null, timer = 0;
  function tried(view) {
    clearTimeout(timer);
    timer = setTimeout(async () => {
      trying?.abort();
      trying = new AbortController();
      const place = document.getElementById("try");
      try {
        const said = await post("try", { file: file(), text: view.state.doc.toString(), rule: rule() }, trying.signal);
        ruleTrial_.look(place, said);
        devices(said.devices);
      } catch (error) {
        if (error.name !== "AbortError") place.replaceChildren(make("p", { className: "error" }, ruleTrial_.inWords(error.message)));
      }
    }, 250);
  }
  let known = [];
  const levels = (device) => (known.find((d) => d.device === device)?.values ?? []).filter((v) => v.fact && !v.word);
  function devices(list) {
    known = list;
    const place = document.getElementById("device"), had = place.value;
    place.replaceChildren(new Option(t("tất cả", "all"), ""), ...list.filter((d) => d.applies).map((d) => new Option(d.device, d.device)));
    if ([...place.options].some((o) => o.value === had)) place.value = had;
  }

  // save puts the text in force; marks says whether the rule is on trial or live.
  function save(view, title, marks) {
    const text = view.state.doc.toString();
    ask(title, [{ name: "why", label: t("Lý do", "Reason"), required: true, long: true }], async (said) => {
      await rules_.change("PUT", "/api/v1/rules/file?name=" + encodeURIComponent(file()), { ...said, text, ...(marks ? { rule: rule(), ...marks } : {}) }, seen);
      saved = null;
      location.assign(rule() ? "/rules/edit/" + encodeURIComponent(rule()) : "/rules");
    });
  }

  area.hidden = true;
  const view = new cm.EditorView({
    parent: document.getElementById("editor"),
    state: cm.EditorState.create({
      doc: area.value,
      extensions: [
        cm.EditorView.cspNonce.of(edit.dataset.nonce), cm.EditorView.darkTheme.of(matchMedia("(prefers-color-scheme: dark)").matches),
        cm.EditorView.contentAttributes.of({ "aria-label": area.getAttribute("aria-label"), spellcheck: "false" }),
        cm.lineNumbers(), cm.highlightActiveLine(), cm.highlightActiveLineGutter(), cm.history(), cm.bracketMatching(), cm.closeBrackets(), cm.indentOnInput(), cm.indentUnit.of("  "),
        cm.EditorView.lineWrapping, cm.yaml(), cm.syntaxHighlighting(cm.classHighlighter), cm.lintGutter(),
        cm.autocompletion({ override: [ruleWords_.source(words)] }), cm.linter(check, { delay: 300 }),
        cm.EditorState.readOnly.of(!mayEdit),
        cm.keymap.of([
          { key: "Mod-s", preventDefault: true, run: () => (document.getElementById("save")?.click(), true) },
          ...cm.closeBracketsKeymap, ...cm.completionKeymap, ...cm.lintKeymap, ...cm.historyKeymap, ...cm.defaultKeymap,
        ]),
        cm.EditorView.updateListener.of((update) => {
          if (update.selectionSet || update.docChanged) {
            const here = ruleAt(update.state);
            if (here && here !== rule() && [...select.options].some((o) => o.value === here)) {
              select.value = here;
              if (checked === update.state.doc.toString()) tried(update.view);
            }
          }
        }),
      ],
    }),
  });
  const go = (name) => {
    for (let n = 1; n <= view.state.doc.lines; n++) {
      const line = view.state.doc.line(n);
      if (line.text.match(/\bname:\s*["']?([\p{L}\p{N}][\p{L}\p{N}._:-]*)/u)?.[1] === name) {
        view.dispatch({ selection: { anchor: line.from + line.text.search(/\S/) }, effects: cm.EditorView.scrollIntoView(line.from, { y: "start", yMargin: 8 }) });
        return;
      }
    }
  };
  if (edit.dataset.rule) go(edit.dataset.rule);
  cm.forceLinting(view);
  window.ruleEditor = view;
  select.addEventListener("change", () => {
    go(select.value);
    view.focus();
    if (checked !== null) tried(view);
  });
  document.getElementById("file")?.addEventListener("change", () => cm.forceLinting(view));
  const on = (id, f) => document.getElementById(id)?.addEventListener("click", f);
  on("save", (event) => save(view, event.currentTarget.textContent, null));
  on("save-trial", (event) => save(view, `${event.currentTarget.textContent}: ${rule()}`, { shadow: true, disabled: false }));
  on("save-live", (event) => save(view, `${event.currentTarget.textContent}: ${rule()}`, { shadow: false, disabled: false }));
  addEventListener("beforeunload", (event) => {
    if (saved !== null && mayEdit && view.state.doc.toString() !== saved) event.preventDefault();
  });

  // The past: one run at a time, which can be stopped.
  let running = null;
  const stop = document.getElementById("stop"), bar = document.getElementById("progress"), past = document.getElementById("past"), chart = document.getElementById("past-chart");
  document.getElementById("backtest").addEventListener("submit", async (event) => {
    event.preventDefault();
    if (running) return;
    running = new AbortController();
    stop.hidden = bar.hidden = false;
    bar.value = 0;
    chart.hidden = true;
    past.replaceChildren();
    const to = new Date(), from = new Date(to - Number(document.getElementById("span").value) * 1e3);
    try {
      const r = await ruleTrial_.run({ file: file(), text: view.state.doc.toString(), rule: rule(), device: document.getElementById("device").value, from, to }, (share) => (bar.value = share), running.signal);
      const device = ruleTrial_.report(past, r, (d) => ruleTrial_.chart(chart, r, d, levels(d))) ?? document.getElementById("device").value;
      const any = device || document.getElementById("device").options[1]?.value;
      if (any) await ruleTrial_.chart(chart, r, any, levels(any));
    } catch (error) {
      past.replaceChildren(make("p", { className: "error" }, error.name === "AbortError" ? t("Đã dừng.", "Stopped.") : ruleTrial_.inWords(error.message)));
    }
    running = null;
    stop.hidden = bar.hidden = true;
  });
  stop.addEventListener("click", () => running?.abort());
})();
