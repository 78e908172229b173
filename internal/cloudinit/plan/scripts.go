package plan

import (
	"path"

	"flotilla/internal/cloudinit/config"
)

// scriptMode lets the owner run a script.
const scriptMode = 0o744

// ScriptUnit is the name of the transient unit that a script runs in.
func ScriptUnit(text string) string { return "coreos-cloudinit-" + hash(text)[:12] + ".service" }

// scriptPath is where the text of a script is put.
func (m *maker) scriptPath(text string) string {
	return path.Join("/", m.want.Scratch, "scripts", hash(text)[:12])
}

// wantScripts wants the files of the scripts, and one that names the last one's unit.
func (m *maker) wantScripts() {
	for _, s := range m.want.Scripts {
		m.wantFile(file{Why: "script", File: config.File{Path: m.scriptPath(s), Content: []byte(s), Mode: scriptMode}})
		m.wantText(path.Join("/", m.want.Scratch, "scripts", "unit-name"), ScriptUnit(s), "script", false)
	}
}

// scripts plans to run each script once a boot.
func (m *maker) scripts() {
	for _, s := range m.want.Scripts {
		if sum := hash(s); m.have.Record.Scripts[sum] != m.have.Boot {
			m.step(Step{Kind: Run, Target: m.scriptPath(s), Verb: ScriptUnit(s), Text: sum, Why: "a script runs once a boot"})
		}
	}
}
