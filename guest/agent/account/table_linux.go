package account

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/lsub/lsub/guest/agent/distrofile"
)

// table is a file of colon-separated rows, such as /etc/passwd.
type table struct {
	file string
	rows [][]string
}

// readTable reads a file; one that does not exist is an empty table.
func readTable(root *os.Root, file string) (*table, error) {
	b, err := distrofile.ReadIn(root, file)
	if err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	return parseTable(file, b), nil
}

func parseTable(file string, b []byte) *table {
	t := &table{file: file}
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\n"); line != "" {
			t.rows = append(t.rows, strings.Split(line, ":"))
		}
	}
	return t
}

func (t *table) write(root *os.Root) error {
	var b strings.Builder
	for _, r := range t.rows {
		b.WriteString(strings.Join(r, ":") + "\n")
	}
	return distrofile.Overwrite(root, t.file, []byte(b.String()))
}

func (t *table) add(row ...string) { t.rows = append(t.rows, row) }

// find returns the first row whose column holds value, or nil.
func (t *table) find(column int, value string) []string {
	for _, r := range t.rows {
		if len(r) > max(column, 2) && r[column] == value {
			return r
		}
	}
	return nil
}

func (t *table) has(name string) bool { return t.find(0, name) != nil }

// free returns id, or the next one that no row has in the column.
func (t *table) free(column, id int) int {
	for t.find(column, strconv.Itoa(id)) != nil {
		id++
	}
	return id
}

// join makes name a member of a group that exists.
func (t *table) join(group, name string) {
	row := t.find(0, group)
	if len(row) < 4 {
		return
	}
	members := strings.FieldsFunc(row[3], func(r rune) bool { return r == ',' })
	if !slices.Contains(members, name) {
		row[3] = strings.Join(append(members, name), ",")
	}
}
