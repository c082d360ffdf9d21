package profile

import (
	"fmt"
	"strings"
	"testing"
)

// BenchmarkParse reads and checks a file of 1,000 lines.
func BenchmarkParse(b *testing.B) {
	var text strings.Builder
	text.WriteString("ports:\n  forwards:\n")
	for i := range 200 {
		fmt.Fprintf(&text, "  - %d -> %d\n", 10000+i, 20000+i)
	}
	text.WriteString("distros:\n")
	for i := 0; strings.Count(text.String(), "\n") < 1000; i++ {
		fmt.Fprintf(&text, "  d%d:\n    image: debian\n    limits: {memory: 1GiB}\n    packages:\n    - git\n    - curl\n    provision:\n    - name: one\n      script: |\n        echo a\n", i)
	}
	data := []byte(text.String())
	for b.Loop() {
		if _, err := Parse("f", data); err != nil {
			b.Fatal(err)
		}
	}
}
