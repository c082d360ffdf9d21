package provision

import (
	"strings"
	"testing"

	"github.com/lsub/lsub/profile"
)

func TestMarks(t *testing.T) {
	a, b := Content{Data: []byte("a")}, Content{Data: []byte("b")}
	steps := make([]profile.Step, 4)
	for i := range steps {
		steps[i].Mode = profile.StepSystem
	}
	marks := Marks(steps, []Content{a, b, a, b})
	seen := map[string]bool{}
	for i, mark := range marks {
		if !strings.HasPrefix(mark, "step-") || len(mark) != len("step-")+40 || seen[mark] {
			t.Errorf("mark %d is %q", i, mark)
		}
		seen[mark] = true
	}
	if Marks(steps[:2], []Content{b, a})[0] != marks[1] {
		t.Error("a step that moves has another mark")
	}
	steps[1].Mode = profile.StepBoot
	if mark := Marks(steps, []Content{a, b, a, b})[1]; !strings.HasPrefix(mark, "boot-") {
		t.Errorf("the mark of a start is %q", mark)
	}
	steps[1].Creates = "/x"
	if Marks(steps, []Content{a, b, a, b})[1] != "" {
		t.Error("a step with a guard has a mark")
	}
}

func TestLines(t *testing.T) {
	var told []string
	l := newLines(func(line string) { told = append(told, line) })
	w := l.stream(func(line string) bool { return line == "mine" })
	for _, part := range []string{"be", "fore\nmi", "ne\n10%\r20%\r\nesc\x1b[2J\n", strings.Repeat("x", 2*maxLine) + "\nlast"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	l.end()
	if len(told) != 6 || told[0] != "before" || told[1] != "20%" || strings.Contains(told[2], "\x1b") || len(told[3]) != maxLine || told[5] != "last" {
		t.Errorf("%.80q", told)
	}
	if len(l.last) > MaxLast {
		t.Errorf("%d last lines", len(l.last))
	}
}
